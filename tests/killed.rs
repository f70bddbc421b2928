//! A process that is killed loses nothing that it acknowledged.
//!
//! A child writes, from several threads at once and with limits so small that merges, checkpoints and log
//! rotations are always under way, and acknowledges every commit over a pipe. It is killed at a random
//! moment. What it wrote follows from a seed, so the parent knows what must be there. `PERISTYLE_SEED`
//! repeats a run's choices, `PERISTYLE_CASES` sets the number of kills per test.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::time::Duration;

use common::random::Random;
use common::{assert_clean, cases, child, failure, shrunken};
use peristyle::{ColumnFamily, ColumnFamilyDatabase, Durability, ErrorKind, FamilyOptions, WriteBatch};

const FAMILIES: usize = 4;
/// Threads whose commits are all logged.
const WRITERS: usize = 3;
/// First bytes of the keys of the thread whose commits ask for no log: batches over all families, and batches
/// within one.
const UNLOGGED: usize = 0xff;
const UNLOGGED_ALONE: usize = 0xfe;
/// Keys of a writer in a family.
const KEYS: u64 = 120;

type Contents = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

enum Change {
    Put(usize, Vec<u8>, Vec<u8>),
    Delete(usize, Vec<u8>),
    DeleteRange(usize, Vec<u8>, Vec<u8>),
}

fn key(writer: usize, number: u64) -> Vec<u8> {
    [&[writer as u8][..], &(number as u32).to_be_bytes()].concat()
}

/// The `n`-th commit of `writer`.
fn commit(seed: u64, writer: usize, n: u64) -> (Vec<Change>, Durability) {
    let mut random = Random::new(seed ^ (writer as u64) << 56 ^ n.wrapping_mul(0x1234_5678_9abc_def1));
    let mut changes = Vec::new();
    for _ in 0..1 + random.below(8) {
        let family = random.below(FAMILIES as u64) as usize;
        let number = random.below(KEYS);
        changes.push(match random.below(12) {
            0 => Change::Delete(family, key(writer, number)),
            1 => Change::DeleteRange(family, key(writer, number), key(writer, number + random.below(20))),
            _ => {
                let len = match random.below(60) {
                    0 => 20_000,
                    1..4 => 1500,
                    _ => random.below(150),
                };
                let mut value = n.to_le_bytes().to_vec();
                value.resize(8 + len as usize, n as u8);
                Change::Put(family, key(writer, number), value)
            }
        });
    }
    let durability = if random.once_in(10) { Durability::Sync } else { Durability::Buffered };
    (changes, durability)
}

fn apply(contents: &mut Contents, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Put(family, key, value) => drop(contents.insert((family, key), value)),
            Change::Delete(family, key) => drop(contents.remove(&(family, key))),
            Change::DeleteRange(family, start, end) => {
                contents.retain(|(f, key), _| *f != family || *key < start || *key >= end);
            }
        }
    }
}

fn open(path: &Path) -> peristyle::Result<ColumnFamilyDatabase> {
    shrunken().background_threads(2).sync_interval(Duration::from_millis(3)).open(path)
}

fn families(db: &ColumnFamilyDatabase) -> Vec<ColumnFamily> {
    let name = |n| format!("family {n}");
    (0..FAMILIES).map(|n| db.column_family_or_create(&name(n), FamilyOptions::default()).unwrap()).collect()
}

/// What the child is told: where it resumes.
#[derive(Debug, Clone, Default)]
struct Resume {
    seed: u64,
    /// Commits that each writer has made.
    written: [u64; WRITERS],
    unlogged: u64,
    /// Families of short life made so far.
    short_lived: u64,
}

impl Resume {
    fn role(&self, path: &Path) -> String {
        let Self { seed, written, unlogged, short_lived } = self;
        let written = written.map(|n| n.to_string()).join(" ");
        format!("{seed} {written} {unlogged} {short_lived} {}", path.display())
    }

    fn parse(role: &str) -> (Self, &Path) {
        let mut parts = role.splitn(WRITERS + 4, ' ');
        let mut number = || parts.next().unwrap().parse::<u64>().unwrap();
        let mut resume = Self { seed: number(), ..Self::default() };
        resume.written.iter_mut().for_each(|n| *n = number());
        resume.unlogged = number();
        resume.short_lived = number();
        (resume, Path::new(parts.next().unwrap()))
    }
}

/// Tells the parent; ends the process when it is gone.
fn say(what: &str, who: usize, n: u64) {
    let line = format!("{what} {who} {n}\n");
    if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
        std::process::exit(1);
    }
}

/// Writes until it is killed.
fn play_child(role: &str) {
    let (resume, path) = Resume::parse(role);
    say("\nstarted", 0, 0);
    let db = open(path).unwrap();
    let families = families(&db);
    say("opened", 0, 0);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (db, families, resume) = (&db, &families, &resume);
            scope.spawn(move || {
                for n in resume.written[writer] + 1.. {
                    let (changes, durability) = commit(resume.seed, writer, n);
                    let mut batch = WriteBatch::new();
                    for change in changes {
                        match change {
                            Change::Put(family, key, value) => batch.put(&families[family], key, value),
                            Change::Delete(family, key) => batch.delete(&families[family], key),
                            Change::DeleteRange(family, start, end) => {
                                batch.delete_range(&families[family], start..end)
                            }
                        };
                    }
                    db.write_with(&batch, durability).unwrap();
                    say("wrote", writer, n);
                }
            });
        }
        let (db, families, resume) = (&db, &families, &resume);
        scope.spawn(move || {
            for n in resume.unlogged + 1.. {
                let mut batch = WriteBatch::new();
                for family in families {
                    batch.put(family, key(UNLOGGED, n), [n as u8; 200]);
                    batch.delete(family, key(UNLOGGED, n.saturating_sub(100)));
                }
                db.write_with(&batch, Durability::None).unwrap();
                batch.clear();
                let family = &families[n as usize % FAMILIES];
                for part in 0..FAMILIES as u64 {
                    batch.put(family, key(UNLOGGED_ALONE, n * 10 + part), [n as u8; 100]);
                    batch.delete(family, key(UNLOGGED_ALONE, n.saturating_sub(100) * 10 + part));
                }
                db.write_with(&batch, Durability::None).unwrap();
                say("held", 0, n);
                if n % 300 == 0 {
                    db.flush().unwrap();
                    say("flushed", 0, n);
                }
            }
        });
        scope.spawn(move || {
            for n in resume.short_lived + 1.. {
                let name = format!("short-lived {n}");
                let family = db.create_column_family(&name, FamilyOptions::default()).unwrap();
                say("created", 0, n);
                family.put("key", "value").unwrap();
                say("filled", 0, n);
                db.drop_column_family(&name).unwrap();
                say("dropped", 0, n);
            }
        });
        scope.spawn(move || {
            let mut random = Random::new(resume.seed);
            loop {
                match random.below(6) {
                    0 => db.checkpoint().unwrap(),
                    1 => db.compact_column_family(&families[random.below(4) as usize]).unwrap(),
                    2 => db.sync().unwrap(),
                    3 => db.flush_column_family(&families[random.below(4) as usize]).unwrap(),
                    _ => {
                        for entry in families[random.below(4) as usize].iter().unwrap() {
                            entry.unwrap();
                        }
                    }
                }
            }
        });
    });
}

/// What the parent knows of a database.
#[derive(Default)]
struct Known {
    resume: Resume,
    contents: [Contents; WRITERS],
}

/// What a child said before it died: the last number of each thing.
type Said = BTreeMap<(String, usize), u64>;

fn listen_and_kill(test: &str, known: &Known, path: &Path, random: &mut Random) -> Said {
    let mut child = child::start(test, &known.resume.role(path));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = Said::new();
    let mut hear = |line: &str| {
        let mut words = line.split(' ');
        if let (Some(what), Some(Ok(who)), Some(Ok(n))) =
            (words.next(), words.next().map(str::parse), words.next().map(str::parse))
        {
            said.insert((what.to_owned(), who), n);
        }
    };
    if random.once_in(8) {
        // While it opens. The time is not waited for anything: it makes the moment random.
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
    } else {
        for line in lines.by_ref().take(1 + random.below(1500) as usize) {
            hear(&line.unwrap());
        }
    }
    child.kill().unwrap();
    // What it said before it died, it had done; its last line may be cut off.
    for line in lines {
        hear(&line.unwrap());
    }
    let status = child.wait().unwrap();
    assert!(!status.success() && status.code().is_none(), "the child ended by itself: {status}");
    said
}

fn read(families: &[ColumnFamily]) -> Contents {
    let mut contents = Contents::new();
    for (n, family) in families.iter().enumerate() {
        for entry in family.iter().unwrap() {
            let (key, value) = entry.unwrap();
            contents.insert((n, key.into()), value.to_vec());
        }
    }
    contents
}

impl Known {
    fn check(&mut self, db: &ColumnFamilyDatabase, said: &Said) {
        let last = |what: &str, who: usize| said.get(&(what.to_owned(), who)).copied();
        let families = families(db);
        let found = read(&families);
        for writer in 0..WRITERS {
            let mine: Contents = found
                .iter()
                .filter(|((_, key), _)| key[0] as usize == writer)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            self.check_writer(writer, last("wrote", writer).unwrap_or(0), &mine);
        }
        self.check_unlogged(&found, last("held", 0), last("flushed", 0));
        self.check_short_lived(db, &last);
    }

    /// The writer's entries are those after its last acknowledged commit, or after the one that was under
    /// way.
    fn check_writer(&mut self, writer: usize, acknowledged: u64, found: &Contents) {
        let seed = self.resume.seed;
        let contents = &mut self.contents[writer];
        let written = &mut self.resume.written[writer];
        while *written < acknowledged {
            *written += 1;
            apply(contents, commit(seed, writer, *written).0);
        }
        if found == contents {
            return;
        }
        let without = contents.clone();
        *written += 1;
        apply(contents, commit(seed, writer, *written).0);
        if found != contents {
            let differ = |other: &Contents| {
                let mut keys: Vec<_> = other
                    .iter()
                    .filter(|(key, value)| found.get(*key) != Some(value))
                    .chain(found.iter().filter(|(key, _)| !other.contains_key(*key)))
                    .map(|(key, _)| {
                        let n = |contents: &Contents| {
                            contents.get(key).map(|value| u64::from_le_bytes(value[..8].try_into().unwrap()))
                        };
                        format!("{key:?}: from commit {:?}, should be from {:?}", n(found), n(other))
                    })
                    .collect();
                keys.truncate(5);
                keys
            };
            panic!(
                "writer {writer} acknowledged commit {acknowledged}; without the next, differ {:#?}; with it, {:#?}",
                differ(&without),
                differ(contents)
            );
        }
    }

    /// Of what no log holds anything may be lost that was not flushed, but only batch by batch.
    fn check_unlogged(&mut self, found: &Contents, held: Option<u64>, flushed: Option<u64>) {
        for kind in [UNLOGGED, UNLOGGED_ALONE] {
            let mut parts: BTreeMap<u32, usize> = BTreeMap::new();
            for ((_, key), value) in found.iter().filter(|((_, key), _)| key[0] as usize == kind) {
                let number = u32::from_be_bytes(key[1..].try_into().unwrap());
                let batch = if kind == UNLOGGED { number } else { number / 10 };
                *parts.entry(batch).or_default() += 1;
                assert!(value.iter().all(|byte| *byte == batch as u8), "{key:?}");
            }
            for (batch, parts) in &parts {
                assert_eq!(*parts, FAMILIES, "the unlogged batch {batch} is torn");
            }
            if let Some(flushed) = flushed {
                // Unless a later one, which then is there, deleted it.
                let newest = parts.keys().next_back().copied();
                assert!(newest >= Some(flushed as u32), "flushed batch {flushed} is lost: {newest:?}");
            }
        }
        // One that was under way may be there or not: its number is not used again.
        self.resume.unlogged = self.resume.unlogged.max(held.unwrap_or(0)) + 1;
    }

    fn check_short_lived(&mut self, db: &ColumnFamilyDatabase, last: &dyn Fn(&str, usize) -> Option<u64>) {
        let names: Vec<_> =
            db.column_family_names().into_iter().filter(|name| name.starts_with("short-lived")).collect();
        assert!(names.len() <= 1, "{names:?}");
        let number = |name: &str| name.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap();
        let (created, filled, dropped) = (last("created", 0), last("filled", 0), last("dropped", 0));
        if let Some(name) = names.first() {
            let n = number(name);
            assert!(Some(n) > dropped, "family {n} was dropped");
            assert!(
                created.is_none_or(|created| n == created || n == created + 1),
                "{name:?} after {created:?}"
            );
            if filled == Some(n) {
                assert_eq!(db.column_family(name).unwrap().get("key").unwrap().unwrap(), "value");
            }
        } else if let Some(created) = created {
            // Its drop may have been under way, but only after it was filled.
            assert!(filled == Some(created), "family {created} is lost");
        }
        let newest = names.first().map(|name| number(name)).into_iter().chain(created).max();
        self.resume.short_lived = self.resume.short_lived.max(newest.unwrap_or(0)) + 1;
    }
}

fn drop_short_lived(db: &ColumnFamilyDatabase) {
    for name in db.column_family_names() {
        if name.starts_with("short-lived") {
            db.drop_column_family(&name).unwrap();
        }
    }
}

/// Opens what a killed child left, reading only or in earnest, and checks it.
fn check_after_kill(path: &Path, known: &mut Known, said: &Said, random: &mut Random) {
    if random.once_in(3) && path.join("data").exists() {
        let db = shrunken().read_only(true).open(path).unwrap();
        // A child killed early has not made its families.
        if (0..FAMILIES).all(|n| db.column_family(&format!("family {n}")).is_ok()) {
            let found = read(&families(&db));
            assert_clean(&db);
            drop(db);
            let db = open(path).unwrap();
            assert!(read(&families(&db)) == found, "reading only showed something else");
        }
    }
    let db = open(path).unwrap();
    failure(open(path), ErrorKind::Locked);
    known.check(&db, said);
    assert_clean(&db);
    drop_short_lived(&db);
    if random.once_in(2) {
        db.close().unwrap();
    }
}

#[test]
fn kills_one_after_the_other_lose_nothing_that_was_acknowledged() {
    if let Some(role) = child::role() {
        return play_child(&role);
    }
    let name = "kills_one_after_the_other_lose_nothing_that_was_acknowledged";
    let mut random = Random::announced();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("database");
    let mut known = Known { resume: Resume { seed: random.next(), ..Resume::default() }, ..Known::default() };
    for _ in 0..cases(30) {
        let said = listen_and_kill(name, &known, &path, &mut random);
        check_after_kill(&path, &mut known, &said, &mut random);
    }
    assert!(known.resume.written.iter().all(|written| *written > 0));
}

#[test]
fn a_kill_in_the_life_of_a_new_database_loses_nothing_that_was_acknowledged() {
    if let Some(role) = child::role() {
        return play_child(&role);
    }
    let name = "a_kill_in_the_life_of_a_new_database_loses_nothing_that_was_acknowledged";
    let mut random = Random::announced();
    for _ in 0..cases(30) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("database");
        let mut known =
            Known { resume: Resume { seed: random.next(), ..Resume::default() }, ..Known::default() };
        // Twice: what is killed the second time may be a recovery.
        for _ in 0..1 + random.below(2) {
            let said = listen_and_kill(name, &known, &path, &mut random);
            check_after_kill(&path, &mut known, &said, &mut random);
        }
    }
}
