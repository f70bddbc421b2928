//! Damaged databases.

use std::collections::BTreeSet;

use peristyle::{ColumnFamilyDatabase, ErrorKind, MemoryStorage, Result, Snapshot};

use crate::allocation::Limit;
use crate::damage::{Target, damage};
use crate::input::Input;
use crate::repair::{Repairs, repair};
use crate::sample::{Sample, State, builder, samples, storage};

/// Bytes that may be in use while a damaged database is handled: this, for buffers of the sizes that
/// `builder` gives, and [`TIMES_FILES`] times the length of the files.
const MEMORY: usize = 8 << 20;
const TIMES_FILES: usize = 8;

/// Entries that a walk visits at most: more than any sample holds.
const MAX_ENTRIES: usize = 4000;

/// Damages a sample as the bytes say, and does to the damaged database everything that can be done.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let sample = &samples()[input.below(samples().len())];
    let repairs = Repairs::of(input.u8());
    let unforged = repairs == Repairs::NONE;
    let mut files = sample.files.clone();
    let way = input.u8();
    damage(&mut files, Target { regions: &sample.regions, may_forge: !unforged }, &mut input);
    repair(&mut files, repairs);
    let len: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut expected = unforged.then(|| Expected::new(sample, &files));
    let _limit = Limit::new(MEMORY + TIMES_FILES * len);
    if way & 1 == 1 {
        let storage = storage(&files);
        let opened = builder(&storage).create_if_missing(false).read_only(true).open("damaged");
        let _ = opened.and_then(|db| read(&db, &mut expected));
    }
    if way & 2 == 2 || way & 1 == 0 {
        // An error is a fine answer.
        let _ = change(&storage(&files), &mut expected, way);
    }
}

fn open(storage: &MemoryStorage) -> Result<ColumnFamilyDatabase> {
    builder(storage).create_if_missing(false).open("damaged")
}

/// Reads, writes, and reads again what was written, also after opening once more.
fn change(storage: &MemoryStorage, expected: &mut Option<Expected<'_>>, way: u8) -> Result<()> {
    let db = open(storage)?;
    read(&db, expected)?;
    let mut written = Vec::new();
    for name in db.column_family_names() {
        let Ok(family) = db.column_family(&name) else { continue };
        match family.put("new", "entry") {
            Ok(_) => written.push(name),
            // A merge of what was replayed may have met damage already.
            Err(error) => assert!(error.kind() == ErrorKind::FamilyDamaged || expected.is_none(), "{error}"),
        }
        let _ = family.delete("late");
        let _ = family.delete_range([0, 0, 0, 30]..[0, 0, 0, 40]);
    }
    let outcome = match way >> 2 & 3 {
        0 => db.flush().and_then(|()| db.checkpoint()),
        1 => db.compact().map(drop),
        2 => db.checkpoint(),
        _ => db.sync(),
    };
    let is_packing = way >> 2 & 3 == 1;
    let is_damage =
        is_packing && outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::FamilyDamaged);
    if let Err(error) = &outcome {
        // Only packing says that a family is damaged: all else goes on without it.
        let is_answer = error.kind() == ErrorKind::Corruption || is_damage;
        assert!(is_answer || expected.is_none(), "{error}");
    }
    for name in &written {
        let family = db.column_family(name)?;
        if expected.is_some() {
            assert_eq!(family.get("new")?.as_deref(), Some(&b"entry"[..]), "what was just written");
        }
    }
    let _ = db.verify()?;
    db.close()?;
    let db = open(storage)?;
    for name in &written {
        let found = db.column_family(name)?.get("new");
        if expected.is_some() && (outcome.is_ok() || is_damage) {
            assert_eq!(found?.as_deref(), Some(&b"entry"[..]), "what was written before closing");
        }
    }
    db.close()
}

/// Reads everything in every way, and holds it against what it should be.
fn read(db: &ColumnFamilyDatabase, expected: &mut Option<Expected<'_>>) -> Result<()> {
    let mut names = db.column_family_names();
    let all = names.len();
    // A family whose record is damaged in both copies of the catalog is refused, and perhaps not even its
    // name is known.
    names.retain(|name| db.column_family(name).is_ok());
    if let Some(expected) = expected {
        expected.keep("names of the families", |state| {
            state.len() == all && names.iter().all(|name| state.contains_key(name))
        });
    }
    let report = db.verify()?;
    assert!(report.families <= names.len() as u64);
    let snapshot = db.snapshot()?;
    for name in &names {
        read_family(db, &snapshot, name, expected)?;
    }
    Ok(())
}

fn read_family(
    db: &ColumnFamilyDatabase,
    snapshot: &Snapshot,
    name: &str,
    expected: &mut Option<Expected<'_>>,
) -> Result<()> {
    let family = db.column_family(name)?;
    let moment = snapshot.column_family(&family)?;
    // What is read of the entries before the first that cannot be read, from either end.
    let walk = |from_back: bool| {
        let (mut met, mut whole) = (Vec::new(), true);
        let mut iter = moment.iter();
        while met.len() < MAX_ENTRIES {
            match if from_back { iter.next_back() } else { iter.next() } {
                Some(Ok((key, value))) => met.push((key.to_vec(), value.to_vec())),
                Some(Err(_)) => {
                    whole = false;
                    break;
                }
                None => break,
            }
        }
        (met, whole)
    };
    let ((forward, forward_whole), (backward, backward_whole)) = (walk(false), walk(true));
    let len = moment.len();
    let Some(expected) = expected else {
        for (key, _) in forward.iter().chain(&backward).step_by(7) {
            let _ = moment.get(key);
            let _ = family.contains_key(key);
            let _ = moment.range(..=key.clone()).next_back();
        }
        return Ok(());
    };
    expected.keep("a walk forward", |state| {
        let entries = &state[name];
        let same = entries.iter().zip(&forward).all(|((key, value), met)| (key, value) == (&met.0, &met.1));
        same && forward.len() <= entries.len() && (!forward_whole || forward.len() == entries.len())
    });
    expected.keep("a walk backward", |state| {
        let entries = &state[name];
        let same =
            entries.iter().rev().zip(&backward).all(|((key, value), met)| (key, value) == (&met.0, &met.1));
        same && backward.len() <= entries.len() && (!backward_whole || backward.len() == entries.len())
    });
    if let Ok(len) = len {
        expected.keep("a count", |state| state[name].len() as u64 == len);
    }
    for key in &expected.sample.keys(name) {
        if let Ok(value) = moment.get(key) {
            expected
                .keep("a value", |state| state[name].get(*key).map(|value| &value[..]) == value.as_deref());
        }
    }
    Ok(())
}

impl Sample {
    /// Keys of a family that are there in some state, a few dozen at most, with some that never are.
    fn keys(&self, name: &str) -> Vec<&[u8]> {
        let keys: BTreeSet<&[u8]> = self
            .states
            .iter()
            .filter_map(|state| state.get(name))
            .flatten()
            .map(|(key, _)| &key[..])
            .collect();
        let step = (keys.len() / 24).max(1);
        keys.into_iter().step_by(step).chain([&b"late"[..], b"large", b"never", b"new"]).collect()
    }
}

/// The states of which all that was read so far may be.
struct Expected<'a> {
    sample: &'a Sample,
    states: Vec<&'a State>,
}

impl<'a> Expected<'a> {
    /// Of a database whose checksums nobody forged. Damage to the log may cut off its end, damage to the data
    /// may not change anything.
    fn new(sample: &'a Sample, damaged: &[(String, Vec<u8>)]) -> Self {
        let is_log = |file: &&(String, Vec<u8>)| file.0.starts_with("wal/");
        let log_is_whole = damaged.iter().filter(is_log).eq(sample.files.iter().filter(is_log));
        let first = if log_is_whole { sample.states.len() - 1 } else { 0 };
        Self { sample, states: sample.states[first..].iter().collect() }
    }

    /// Keeps the states that agree. Panics if none does.
    #[track_caller]
    fn keep(&mut self, what: &str, agrees: impl Fn(&State) -> bool) {
        self.states.retain(|state| agrees(state));
        assert!(!self.states.is_empty(), "{what} was read without error and is wrong");
    }
}
