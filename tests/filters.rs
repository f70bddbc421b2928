//! Filters: what they drop is deleted and what they change is changed, wherever entries are written anew; and
//! what goes wrong with one harms nothing.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use common::storage::TestStorage;
use common::{assert_clean, failure, sampling, shrunken};
use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, DatabaseBuilder, ErrorKind, FamilyOptions, FamilySnapshot,
    FilterResult, FilterVerdict, FilteredEntry, merge_operators,
};
use proptest::prelude::*;

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// What is shown to the filter, and how often.
type Shown = Arc<Mutex<BTreeMap<Vec<u8>, usize>>>;

/// What the filter of these tests makes of a value: `old` ones are dropped, `raw` ones become `ripe`.
fn filtered(value: &[u8]) -> Option<Vec<u8>> {
    if value.starts_with(b"old") {
        return None;
    }
    Some(value.strip_prefix(b"raw").map_or_else(|| value.to_vec(), |rest| [b"ripe", rest].concat()))
}

fn judge(value: &[u8]) -> FilterVerdict {
    match filtered(value) {
        None => FilterVerdict::Drop,
        Some(new) if new == value => FilterVerdict::Keep,
        Some(new) => FilterVerdict::Change(new),
    }
}

fn rule(entry: &FilteredEntry<'_>) -> FilterResult {
    Ok(judge(entry.value()?))
}

fn with_rule() -> FamilyOptions {
    FamilyOptions::default().filter("rule", rule)
}

/// The same filter, which notes what it is shown.
fn noting(shown: &Shown) -> FamilyOptions {
    let shown = Arc::clone(shown);
    FamilyOptions::default().filter("noting", move |entry| {
        *shown.lock().unwrap().entry(entry.key().to_vec()).or_default() += 1;
        rule(entry)
    })
}

/// Every merge that finds a tree writes a delta if `deltas`, and nothing happens but by a call.
fn builder(storage: &TestStorage, deltas: bool) -> DatabaseBuilder {
    let cost = if deltas { 0 } else { u32::MAX };
    shrunken().merge_cost(cost).automatic_maintenance(false).storage(storage.clone())
}

fn key(number: u32) -> Vec<u8> {
    format!("key {number:06}").into_bytes()
}

fn entries(snapshot: &FamilySnapshot) -> Entries {
    let all = snapshot.iter().map(|entry| {
        let (key, value) = entry.unwrap();
        (key.to_vec(), value.to_vec())
    });
    let all: BTreeMap<_, _> = all.collect();
    assert_eq!(snapshot.len().unwrap(), all.len() as u64);
    all
}

fn present(family: &ColumnFamily) -> Entries {
    entries(&family.snapshot().unwrap())
}

/// A packed tree of so many entries, without a filter.
fn packed(db: &ColumnFamilyDatabase, count: u32, value: impl Fn(u32) -> Vec<u8>) -> ColumnFamily {
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    (0..count).for_each(|number| _ = family.put(key(number), value(number)).unwrap());
    db.compact().unwrap();
    assert_eq!(db.family_properties(&family).unwrap().entries_in_tree, u64::from(count));
    family
}

#[test]
fn a_compaction_shows_every_entry_once_and_writes_where_something_is_said() {
    let storage = TestStorage::new();
    let db = builder(&storage, false).open("memory").unwrap();
    let family = packed(&db, 4000, |number| match number {
        2000 => b"old".to_vec(),
        2001 => b"raw and long".to_vec(),
        _ => b"good".to_vec(),
    });
    let before = family.snapshot().unwrap();
    let all = entries(&before);
    let shown = Shown::default();
    family.set_options(noting(&shown)).unwrap();
    let written = db.statistics().pages_written;
    db.compact().unwrap();
    assert_eq!(shown.lock().unwrap().len(), 4000);
    assert!(shown.lock().unwrap().values().all(|&times| times == 1));
    // Two leaves at most, and the way to them.
    let written = db.statistics().pages_written - written;
    assert!((1..8).contains(&written), "{written} pages");
    assert_eq!(family.get(key(2000)).unwrap(), None);
    assert_eq!(family.get(key(2001)).unwrap().unwrap(), "ripe and long");
    assert_eq!(present(&family).len(), 3999);
    assert_eq!(entries(&before), all, "a snapshot sees what was there before");
    drop(before);
    let properties = db.family_properties(&family).unwrap();
    assert_eq!([properties.filter_dropped, properties.filter_changed, properties.filter_failures], [1, 1, 0]);
    db.compact().unwrap();
    // There is nothing to say any more.
    let (bytes, pages) = (storage.bytes_written(), db.statistics().pages_written);
    db.compact().unwrap();
    assert_eq!((storage.bytes_written(), db.statistics().pages_written), (bytes, pages));
    assert_clean(&db);
    drop((family, db));
    let db = builder(&storage, false).open("memory").unwrap();
    assert_eq!(db.column_family("family").unwrap().len().unwrap(), 3999);
}

#[test]
fn large_trees_are_shown_part_by_part() {
    let storage = TestStorage::new();
    let db = builder(&storage, false).open("memory").unwrap();
    let value = |number: u32| match number % 3 {
        0 => b"old".to_vec(),
        1 => [&b"raw"[..], &[b'.'; 90]].concat(),
        _ => b"good".to_vec(),
    };
    let family = packed(&db, 20_000, value);
    let shown = Shown::default();
    family.set_options(noting(&shown)).unwrap();
    db.compact().unwrap();
    assert!(shown.lock().unwrap().len() == 20_000 && shown.lock().unwrap().values().all(|&times| times == 1));
    let expected = (0..20_000).filter_map(|number| Some((key(number), filtered(&value(number))?)));
    assert!(present(&family).into_iter().eq(expected));
    assert_clean(&db);
}

#[test]
fn a_merge_shows_what_it_writes() {
    let storage = TestStorage::new();
    let db = builder(&storage, false).open("memory").unwrap();
    let family = packed(&db, 4000, |_| b"old".to_vec());
    let before = family.snapshot().unwrap();
    family.set_options(with_rule()).unwrap();
    family.put(key(7), "raw").unwrap();
    family.put(key(8), "old again").unwrap();
    family.put(key(9), "good").unwrap();
    assert_eq!(family.len().unwrap(), 4000, "nothing was written anew");
    db.flush().unwrap();
    let left = present(&family);
    assert_eq!(left[&key(7)], b"ripe");
    assert_eq!(left[&key(9)], b"good");
    // Of the leaf of these keys nothing else is left; the others stay as they are.
    assert!((0..20).all(|number| left.contains_key(&key(number)) == [7, 9].contains(&number)));
    assert!((1000..4000).all(|number| left.contains_key(&key(number))));
    assert_eq!(entries(&before).len(), 4000);
    assert_clean(&db);
    family.delete_range(key(3000)..key(3001)).unwrap();
    db.flush().unwrap();
    assert_eq!(family.get(key(3001)).unwrap(), None, "its neighbour was deleted");
    assert_eq!(entries(&before).len(), 4000);
    assert_clean(&db);
}

#[test]
fn what_is_dropped_in_a_delta_hides_what_is_older() {
    let storage = TestStorage::new();
    let db = builder(&storage, true).open("memory").unwrap();
    let options = FamilyOptions::default().merge_operator(merge_operators::append(","));
    let family = db.create_column_family("family", options).unwrap();
    let count = 2000;
    (0..count).for_each(|number| _ = family.put(key(number), "good").unwrap());
    db.compact().unwrap();
    family.set_options(with_rule()).unwrap();
    family.put(key(1), "old").unwrap();
    family.put(key(2), "raw").unwrap();
    family.put(key(3), "o").unwrap();
    family.merge(key(3), "ld").unwrap();
    // A value and an operand that come to something to drop, and to change, within the delta.
    family.put(key(4), "old").unwrap();
    family.merge(key(4), "er").unwrap();
    family.put(key(5), "raw").unwrap();
    family.merge(key(5), "er").unwrap();
    db.flush().unwrap();
    assert_eq!(db.family_properties(&family).unwrap().deltas, 1);
    let check = || {
        let found = [1, 2, 3, 4, 5, 6].map(|number| family.get(key(number)).unwrap().map(Vec::from));
        let expected = [None, Some("ripe"), Some("o,ld"), None, Some("ripe,er"), Some("good")];
        assert_eq!(found, expected.map(|value| value.map(|value| value.as_bytes().to_vec())));
        assert_eq!(present(&family).len(), count as usize - 2);
        assert_clean(&db);
    };
    check();
    db.wait_until_idle().unwrap();
    assert_eq!(db.family_properties(&family).unwrap().deltas, 0);
    check();
}

#[test]
fn it_sees_what_operands_come_to() {
    for deltas in [false, true] {
        let storage = TestStorage::new();
        let db = builder(&storage, deltas).open("memory").unwrap();
        let options = FamilyOptions::default().merge_operator(merge_operators::append(","));
        let family = db.create_column_family("family", options).unwrap();
        for name in ["a", "b", "c", "d"] {
            family.put(name, "old").unwrap();
        }
        db.compact().unwrap();
        family.merge("b", "but in use").unwrap();
        if deltas {
            // An operand that stands in front of the tree.
            db.flush().unwrap();
            assert_eq!(db.family_properties(&family).unwrap().deltas, 1);
        }
        family
            .set_options(FamilyOptions::default().filter("exactly old", |entry| {
                Ok(if entry.value()? == b"old" { FilterVerdict::Drop } else { FilterVerdict::Keep })
            }))
            .unwrap();
        // Writes the leaf anew.
        family.delete_range("c".."d").unwrap();
        db.flush().unwrap();
        assert_eq!(family.get("a").unwrap(), None);
        assert_eq!(family.get("d").unwrap(), None);
        assert_eq!(family.get("b").unwrap().unwrap(), "old,but in use", "{deltas}");
        db.compact().unwrap();
        assert_eq!(family.get("b").unwrap().unwrap(), "old,but in use", "{deltas}");
        assert_clean(&db);
    }
}

#[test]
fn large_values_are_read_if_it_asks_for_them() {
    for deltas in [false, true] {
        let storage = TestStorage::new();
        let long = |word: &str, number: u32| {
            word.bytes().chain((0..100_000).map(|n| (n / 256 + n * number) as u8)).collect::<Vec<u8>>()
        };
        let words = ["old", "raw", "good", "raw"];
        let value = |number: u32| match number {
            0..40 => long(words[number as usize % 4], number),
            _ => b"good".to_vec(),
        };
        let db = builder(&storage, deltas).open("memory").unwrap();
        packed(&db, 400, value);
        db.close().unwrap();

        let db = builder(&storage, deltas).open("memory").unwrap();
        let by_length = FamilyOptions::default().filter("by length", move |entry| {
            let drops =
                entry.key() == key(2) || entry.value_len() == long("good", 6).len() && entry.key() == key(6);
            Ok(if drops { FilterVerdict::Drop } else { FilterVerdict::Keep })
        });
        let family = db.column_family_or_create("family", by_length).unwrap();
        db.compact_column_family(&family).unwrap();
        let read = db.aggregate_cache_stats().bytes_read;
        assert!(read < 200_000, "{read} bytes were read");
        let mut model: BTreeMap<_, _> = (0..400).map(|number| (key(number), value(number))).collect();
        model.remove(&key(2));
        model.remove(&key(6));
        assert_eq!(present(&family), model);

        // By a merge, and by a compaction; short ones that become long, and the other way round.
        let turning = FamilyOptions::default().filter("turning", move |entry| {
            let value = entry.value()?;
            Ok(match (judge(value), entry.key()[9]) {
                (FilterVerdict::Change(new), b'1' | b'3') => FilterVerdict::Change(new[..7].to_vec()),
                (FilterVerdict::Keep, _) if value == b"longer" => FilterVerdict::Change(long("long", 3)),
                (verdict, _) => verdict,
            })
        });
        family.set_options(turning).unwrap();
        family.put(key(5), "longer").unwrap();
        db.flush().unwrap();
        db.compact().unwrap();
        model.insert(key(5), long("long", 3));
        for number in 0..40 {
            let Some(value) = model.remove(&key(number)) else { continue };
            if let Some(mut new) = filtered(&value) {
                if new != value && matches!(key(number)[9], b'1' | b'3') {
                    new.truncate(7);
                }
                model.insert(key(number), new);
            }
        }
        assert_eq!(present(&family), model);
        assert_clean(&db);
    }
}

#[test]
fn what_it_changes_expires_when_it_would_have() {
    for deltas in [false, true] {
        let storage = TestStorage::new();
        let now = Arc::new(AtomicUsize::new(1000));
        let clock = Arc::clone(&now);
        let time = move || UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::SeqCst) as u64);
        let db = builder(&storage, deltas).clock(time).open("memory").unwrap();
        let options = || FamilyOptions::default().expire_each().merge_operator(merge_operators::append(","));
        let family = db.create_column_family("family", options()).unwrap();
        let long = "l".repeat(50_000);
        let put = |number: u32, value: &str| {
            family.put_with_ttl(key(number), value, Duration::from_secs(100)).unwrap();
        };
        // In the tree before there is a filter; and what a merge writes beside them.
        put(0, "old");
        put(1, "raw");
        put(2, &format!("raw{long}"));
        family.put_with_ttl(key(3), "raw", Duration::from_secs(10)).unwrap();
        put(4, "good");
        (5..2000).for_each(|number| put(number, "raw"));
        family.put(key(3000), "raw").unwrap();
        db.compact().unwrap();
        now.store(1010, Ordering::SeqCst);
        let shown = Shown::default();
        let notes = noting(&shown);
        family.set_options(notes.expire_each()).unwrap();
        put(6, "raw");
        put(7, &format!("raw{long}"));
        put(8, "old");
        put(9, "ra");
        family.merge(key(9), "w").unwrap();
        put(10, "raw");
        family.merge(key(10), "w").unwrap();
        db.flush().unwrap();
        db.compact().unwrap();
        assert!(!shown.lock().unwrap().contains_key(&key(3)), "it has expired");
        let found = |number: u32| family.get(key(number)).unwrap().map(|value| value.to_vec());
        let text = |text: &str| Some(text.as_bytes().to_vec());
        let check = || {
            assert_eq!([found(0), found(1), found(3), found(4)], [None, text("ripe"), None, text("good")]);
            assert_eq!([found(2), found(7)], [text(&format!("ripe{long}")), text(&format!("ripe{long}"))]);
            assert_eq!([found(6), found(8)], [text("ripe"), None]);
            assert_eq!([found(9), found(10)], [text("ra,w"), text("ripe,w")]);
            assert_eq!(found(3000), text("ripe"));
            assert!((11..2000).all(|number| found(number) == text("ripe")));
            assert_eq!(present(&family).len(), 1998);
            assert_clean(&db);
        };
        check();
        now.store(1099, Ordering::SeqCst);
        check();
        now.store(1100, Ordering::SeqCst);
        assert_eq!(present(&family).into_keys().collect::<Vec<_>>(), [6, 7, 9, 10, 3000].map(key));
        now.store(1110, Ordering::SeqCst);
        assert_eq!(present(&family).into_keys().collect::<Vec<_>>(), [key(3000)]);
        db.compact().unwrap();
        assert_eq!(db.family_properties(&family).unwrap().entries_in_tree, 1);
        assert_clean(&db);
    }
}

#[test]
fn one_that_fails_harms_nothing() {
    for (panics, deltas) in [(false, false), (true, false), (false, true), (true, true)] {
        let storage = TestStorage::new();
        let db = builder(&storage, deltas).open("memory").unwrap();
        let family =
            packed(&db, 3000, |number| if number == 2999 { b"old".to_vec() } else { b"good".to_vec() });
        let other = db.create_column_family("other", with_rule()).unwrap();
        let fails = Arc::new(AtomicBool::new(true));
        let failing = {
            let fails = Arc::clone(&fails);
            FamilyOptions::default().filter("of a guest", move |entry| {
                if entry.key() == key(1500) && fails.load(Ordering::SeqCst) {
                    assert!(!panics, "no entry is good enough");
                    return Err("out of order".into());
                }
                rule(entry)
            })
        };
        family.set_options(failing).unwrap();
        let check = |first: &[u8]| {
            assert_eq!(family.get(key(1499)).unwrap().as_deref(), filtered(first).as_deref());
            assert_eq!(family.get(key(1500)).unwrap().unwrap(), "new");
            assert_clean(&db);
        };
        family.put(key(1499), "raw 1").unwrap();
        family.put(key(1500), "new").unwrap();
        family.put(key(1501), "raw 2").unwrap();
        other.put("a", "old").unwrap();
        // What memtables hold does not wait for it.
        db.flush().unwrap();
        assert_eq!(db.family_properties(&family).unwrap().entries_in_memtables, 0);
        assert_eq!(db.family_properties(&family).unwrap().filter_failures, 1);
        check(b"raw 1");
        assert_eq!(family.get(key(1501)).unwrap().unwrap(), "raw 2", "it was not asked any more");
        for _ in 0..2 {
            let error = failure(db.compact(), ErrorKind::FilterFailed);
            assert_eq!(error.key().unwrap(), key(1500));
            assert_eq!(error.location().family, Some(family.id().0));
            let reason = if panics { "no entry is good enough" } else { "out of order" };
            for part in ["of a guest", "key 001500", reason] {
                assert!(error.to_string().contains(part), "{error}");
            }
            failure(db.compact_column_family(&family), ErrorKind::FilterFailed);
            assert_eq!(family.get(key(2999)).unwrap().unwrap(), "old");
            check(b"raw 1");
            assert_eq!(other.get("a").unwrap(), None, "another family's filter is asked");
            family.put(key(100), "good").unwrap();
        }
        fails.store(false, Ordering::SeqCst);
        db.compact().unwrap();
        check(b"raw 1");
        assert_eq!(family.get(key(1501)).unwrap().unwrap(), "ripe 2");
        assert_eq!(family.get(key(2999)).unwrap(), None);
        // Taken away.
        fails.store(true, Ordering::SeqCst);
        failure(db.compact(), ErrorKind::FilterFailed);
        family.set_options(family.options().without_filter()).unwrap();
        db.compact().unwrap();
        check(b"raw 1");
        db.close().unwrap();
    }
}

#[test]
fn one_that_blocks_holds_up_its_familys_merges_alone() {
    let storage = TestStorage::new();
    let db = builder(&storage, false).open("memory").unwrap();
    let (begun, has_begun) = mpsc::channel();
    let (go, goes_on) = mpsc::channel::<()>();
    let goes_on = Mutex::new(goes_on);
    let options = FamilyOptions::default().filter("slow", move |_| {
        begun.send(()).unwrap();
        goes_on.lock().unwrap().recv().unwrap();
        Ok(FilterVerdict::Drop)
    });
    let family = db.create_column_family("slow", options).unwrap();
    let other = db.create_column_family("other", FamilyOptions::default()).unwrap();
    family.put("a", "1").unwrap();
    std::thread::scope(|scope| {
        let merging = scope.spawn(|| db.flush_column_family(&family));
        has_begun.recv().unwrap();
        assert_eq!(family.get("a").unwrap().unwrap(), "1");
        family.put("b", "2").unwrap();
        assert_eq!(family.len().unwrap(), 2);
        let snapshot = family.snapshot().unwrap();
        other.put("c", "3").unwrap();
        db.flush_column_family(&other).unwrap();
        go.send(()).unwrap();
        merging.join().unwrap().unwrap();
        assert_eq!(snapshot.get("a").unwrap().unwrap(), "1");
    });
    assert_eq!(present(&family).into_keys().collect::<Vec<_>>(), [b"b".to_vec()]);
    // When the database goes nobody is asked.
    family.set_options(FamilyOptions::default().without_filter()).unwrap();
}

#[test]
fn one_may_take_the_place_of_another_and_do_what_it_likes_when_it_goes() {
    struct Sore(Arc<AtomicUsize>);

    impl Drop for Sore {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("on its way out");
        }
    }

    let db = builder(&TestStorage::new(), false).open("memory").unwrap();
    let gone = Arc::new(AtomicUsize::new(0));
    let sore = || {
        let sore = Sore(Arc::clone(&gone));
        FamilyOptions::default().filter("sore", move |_| {
            let _ = &sore;
            Ok(FilterVerdict::Keep)
        })
    };
    let family = db.create_column_family("family", sore()).unwrap();
    family.put("a", "old").unwrap();
    assert_eq!(gone.load(Ordering::SeqCst), 0);
    // Options without one leave it, and say nothing of it.
    family.set_options(family.options().page_fill(80)).unwrap();
    db.ensure_column_family("family", FamilyOptions::default().page_fill(90)).unwrap();
    db.column_family_or_create("family", FamilyOptions::default().page_fill(90)).unwrap();
    assert_eq!(gone.load(Ordering::SeqCst), 0);
    db.compact().unwrap();
    assert_eq!(family.len().unwrap(), 1);
    db.column_family_or_create("family", with_rule().page_fill(90)).unwrap();
    assert_eq!(gone.load(Ordering::SeqCst), 1);
    db.compact().unwrap();
    assert_eq!(family.len().unwrap(), 0);
    db.ensure_column_family("family", sore()).unwrap();
    family.put("a", "old").unwrap();
    db.compact().unwrap();
    assert_eq!(family.len().unwrap(), 1);
    db.drop_column_family("family").unwrap();
    drop((family, db));
    assert_eq!(gone.load(Ordering::SeqCst), 2);
}

/// What is done to a database with a filter.
#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8, u16),
    Merge(u8, u8),
    Delete(u8),
    DeleteRange(u8, u8),
    Flush,
    Idle,
    Compact,
    Snapshot,
    /// Whether it is closed, or killed.
    Reopen(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (any::<u8>(), 0u8..4, prop_oneof![9 => 0u16..40, 1 => 0u16..9000])
            .prop_map(|(key, word, len)| Step::Put(key, word, len)),
        6 => (any::<u8>(), 0u8..4).prop_map(|(key, word)| Step::Merge(key, word)),
        3 => any::<u8>().prop_map(Step::Delete),
        1 => (any::<u8>(), 0u8..40).prop_map(|(key, width)| Step::DeleteRange(key, width)),
        3 => Just(Step::Flush),
        1 => Just(Step::Idle),
        2 => Just(Step::Compact),
        1 => Just(Step::Snapshot),
        1 => any::<bool>().prop_map(Step::Reopen),
    ]
}

/// What a key may be: the filter may have been asked at any moment since the key was last known for sure.
type Possible = BTreeSet<Option<Vec<u8>>>;

/// All that `values` may have become by now.
fn maybe_filtered(values: &Possible) -> Possible {
    let filtered = values.iter().map(|value| value.as_deref().and_then(filtered));
    filtered.chain(values.iter().cloned()).collect()
}

struct Checked {
    family: ColumnFamily,
    model: BTreeMap<Vec<u8>, Possible>,
}

impl Checked {
    fn check(&self) {
        // Of one moment: the filter may be asked any time.
        let snapshot = self.family.snapshot().unwrap();
        let mut found = entries(&snapshot);
        for (key, possible) in &self.model {
            let value = found.remove(key);
            assert_eq!(snapshot.get(key).unwrap().as_deref(), value.as_deref());
            assert!(
                maybe_filtered(possible).contains(&value),
                "{}: {:?} of {possible:?}",
                key.escape_ascii(),
                value
            );
        }
        assert!(found.is_empty(), "{found:?}");
    }
}

fn numbered(key: u8) -> Vec<u8> {
    // Some keys share leaves, and all take several.
    format!("{:04}{}", u32::from(key) * 7, ".".repeat(30 + usize::from(key % 7) * 12)).into_bytes()
}

fn open(storage: &TestStorage, deltas: bool, automatic: bool) -> (ColumnFamilyDatabase, ColumnFamily) {
    let append = || merge_operators::append("");
    let builder = builder(storage, deltas).automatic_maintenance(automatic).merge_operator(append());
    let db = builder.open("memory").unwrap();
    let family = db.column_family_or_create("family", with_rule().merge_operator(append())).unwrap();
    (db, family)
}

fn play(steps: &[Step], deltas: bool, automatic: bool) {
    const WORDS: [&str; 4] = ["old", "raw", "ripe", "good"];
    let mut storage = TestStorage::new();
    let (mut db, family) = open(&storage, deltas, automatic);
    let mut checked = Checked { family, model: BTreeMap::new() };
    let mut held: Vec<(FamilySnapshot, Entries)> = Vec::new();
    for step in steps {
        let Checked { family, model } = &mut checked;
        match *step {
            Step::Put(number, word, len) => {
                let value = [WORDS[usize::from(word)].as_bytes(), &vec![b'-'; usize::from(len)]].concat();
                family.put(numbered(number), &value).unwrap();
                model.insert(numbered(number), [Some(value)].into());
            }
            Step::Merge(number, word) => {
                let operand = WORDS[usize::from(word)].as_bytes();
                family.merge(numbered(number), operand).unwrap();
                let before = model.entry(numbered(number)).or_insert_with(|| [None].into());
                // The set must not grow without end: what was read is known.
                let now = maybe_filtered(before);
                *before = now
                    .into_iter()
                    .map(|value| Some([value.as_deref().unwrap_or_default(), operand].concat()))
                    .collect();
                if before.len() > 8 {
                    let value = family.get(numbered(number)).unwrap().map(Vec::from);
                    assert!(maybe_filtered(before).contains(&value));
                    *before = [value].into();
                }
            }
            Step::Delete(number) => {
                family.delete(numbered(number)).unwrap();
                model.remove(&numbered(number));
            }
            Step::DeleteRange(number, width) => {
                let (start, end) = (numbered(number), numbered(number.saturating_add(width)));
                if start < end {
                    family.delete_range(start.clone()..end.clone()).unwrap();
                    model.retain(|key, _| *key < start || *key >= end);
                }
            }
            Step::Flush => db.flush().unwrap(),
            Step::Idle => db.wait_until_idle().unwrap(),
            Step::Compact => {
                db.compact().unwrap();
                for possible in model.values_mut() {
                    *possible = maybe_filtered(possible)
                        .into_iter()
                        .map(|value| value.as_deref().and_then(filtered))
                        .collect();
                }
                model.retain(|_, possible| *possible != [None].into());
                for (key, value) in present(family) {
                    assert!(model[&key].contains(&Some(value)), "{}", key.escape_ascii());
                }
            }
            Step::Snapshot => {
                let snapshot = family.snapshot().unwrap();
                let all = entries(&snapshot);
                held.push((snapshot, all));
            }
            Step::Reopen(closes) => {
                held.clear();
                if closes {
                    db.close().unwrap();
                } else {
                    db.sync().unwrap();
                    storage = storage.copy();
                }
                (db, checked.family) = open(&storage, deltas, automatic);
            }
        }
        for (snapshot, all) in &held {
            assert_eq!(entries(snapshot), *all);
        }
    }
    checked.check();
    assert_clean(&db);
    drop(checked);
    db.close().unwrap();
}

proptest! {
    #![proptest_config(sampling::config(60))]

    #[test]
    fn a_value_is_what_was_written_or_what_the_filter_makes_of_it(
        steps in prop::collection::vec(step(), 1..120), deltas: bool, automatic: bool
    ) {
        play(&steps, deltas, automatic);
    }
}
