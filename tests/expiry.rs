//! Entries that expire: gone at their second for all that read, wherever they stand, and given back by
//! compactions.

#![cfg(not(shuttle))]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::storage::TestStorage;
use common::{assert_clean, failure, shrunken};
use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, DatabaseBuilder, ErrorKind, FamilyOptions, Operation, WriteBatch,
    merge_operators,
};

/// A clock that a test sets.
#[derive(Clone, Default)]
struct Clock {
    milliseconds: Arc<AtomicU64>,
    panics: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
}

impl Clock {
    fn at(seconds: u64) -> Self {
        let clock = Self::default();
        clock.set(seconds);
        clock
    }

    fn set(&self, seconds: u64) {
        self.milliseconds.store(seconds * 1000, Ordering::SeqCst);
    }

    fn time(&self) -> SystemTime {
        self.calls.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics.load(Ordering::SeqCst), "the clock stands still");
        UNIX_EPOCH + Duration::from_millis(self.milliseconds.load(Ordering::SeqCst))
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Every merge that finds a tree writes a delta if `deltas`, and nothing happens but by a call.
fn builder(storage: &TestStorage, clock: &Clock, deltas: bool) -> DatabaseBuilder {
    let (cost, clock) = (if deltas { 0 } else { u32::MAX }, clock.clone());
    let builder = shrunken().merge_cost(cost).automatic_maintenance(false).storage(storage.clone());
    builder.clock(move || clock.time())
}

fn expiring() -> FamilyOptions {
    FamilyOptions::default().expire_each()
}

fn open(clock: &Clock) -> (ColumnFamilyDatabase, ColumnFamily) {
    let db = builder(&TestStorage::new(), clock, false).open("memory").unwrap();
    let family = db.create_column_family("family", expiring()).unwrap();
    (db, family)
}

fn key(number: u32) -> Vec<u8> {
    format!("key {number:04}").into_bytes()
}

/// Values, and when they expire.
type Model = BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

/// Compares what all ways of reading tell with what is left of `model` at `now`.
fn check(family: &ColumnFamily, model: &Model, now: u64) {
    let is_there = |expiry: Option<u64>| expiry.is_none_or(|expiry| expiry > now);
    let left = model.iter().filter(|(_, (_, expiry))| is_there(*expiry));
    let left: Vec<(Vec<u8>, Vec<u8>)> = left.map(|(key, (value, _))| (key.clone(), value.clone())).collect();
    let snapshot = family.snapshot().unwrap();
    assert_eq!(snapshot.len().unwrap(), left.len() as u64);
    assert_eq!(snapshot.is_empty().unwrap(), left.is_empty());
    for ((key, (value, expiry)), found) in model.iter().zip(family.multi_get(model.keys()).unwrap()) {
        let expected = is_there(*expiry).then_some(&value[..]);
        assert_eq!(found.as_deref(), expected, "{}", key.escape_ascii());
        assert_eq!(family.get(key).unwrap().as_deref(), expected, "{}", key.escape_ascii());
        assert_eq!(family.contains_key(key).unwrap(), expected.is_some(), "{}", key.escape_ascii());
    }
    let pair = |entry: peristyle::Result<(peristyle::Key, peristyle::Value)>| {
        let (key, value) = entry.unwrap();
        (key.to_vec(), value.to_vec())
    };
    assert!(snapshot.iter().map(pair).eq(left.iter().cloned()));
    assert!(snapshot.iter().rev().map(pair).eq(left.iter().cloned().rev()));
    assert_eq!(snapshot.first().unwrap().map(|entry| pair(Ok(entry))).as_ref(), left.first());
    assert_eq!(snapshot.last().unwrap().map(|entry| pair(Ok(entry))).as_ref(), left.last());
    for backward in [false, true] {
        let mut scanned = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            scanned.push((key.to_vec(), value.to_vec()));
            std::ops::ControlFlow::<()>::Continue(())
        };
        let mut cursor = snapshot.cursor();
        let end = if backward { cursor.scan_back(&mut visit) } else { cursor.scan(&mut visit) };
        assert!(end.unwrap().is_continue());
        if backward {
            scanned.reverse();
        }
        assert_eq!(scanned, left);
    }
    let mut cursor = snapshot.cursor();
    for key in model.keys() {
        let at = left.iter().position(|(other, _)| other >= key);
        assert_eq!(cursor.seek(key).unwrap(), at.is_some());
        if let Some(at) = at {
            assert_eq!((cursor.key(), cursor.value().unwrap()), (&left[at].0[..], &left[at].1[..]));
            // Once more, and after a turn.
            if cursor.prev().unwrap() {
                assert_eq!(cursor.key(), left[at - 1].0);
                assert!(cursor.next().unwrap());
                assert_eq!(cursor.owned_value().unwrap(), left[at].1[..]);
            }
        }
        let below = left.iter().rposition(|(other, _)| other <= key);
        assert_eq!(cursor.seek_for_prev(key).unwrap(), below.is_some());
        if let Some(below) = below {
            assert_eq!(cursor.key(), left[below].0);
        }
    }
}

/// A round of writes at second `now`, with lifetimes of all kinds, and values that stand in leaves and runs.
fn write_round(family: &ColumnFamily, model: &mut Model, round: u32, now: u64) {
    for number in 0..300 {
        let value = format!("{round} {number}").into_bytes();
        let value = if number % 50 == 3 { value.repeat(3000) } else { value };
        match (number * 7 + round) % 11 {
            0 => {
                family.put(key(number), &value).unwrap();
                model.insert(key(number), (value, None));
            }
            1 => {
                family.delete(key(number)).unwrap();
                model.remove(&key(number));
            }
            2..6 => {
                let time = u64::from(number % 5 + round % 3);
                family.put_with_ttl(key(number), &value, seconds(time)).unwrap();
                model.insert(key(number), (value, Some(now + time)));
            }
            6 => {
                family.put_with_ttl(key(number), &value, Duration::MAX).unwrap();
                model.insert(key(number), (value, None));
            }
            _ => {}
        }
    }
    if round == 4 {
        family.delete_range(key(20)..key(40)).unwrap();
        model.retain(|other, _| !(key(20)..key(40)).contains(other));
    }
}

#[test]
fn entries_are_gone_at_their_second_wherever_they_stand() {
    for deltas in [false, true] {
        let (storage, clock) = (TestStorage::new(), Clock::at(100));
        let mut db = builder(&storage, &clock, deltas).open("memory").unwrap();
        let mut family = db.create_column_family("family", expiring()).unwrap();
        let mut model = Model::new();
        for round in 0..12u32 {
            let now = 100 + u64::from(round);
            clock.set(now);
            write_round(&family, &mut model, round, now);
            check(&family, &model, now);
            let before = family.snapshot().unwrap();
            let then = before.len().unwrap();
            match round % 4 {
                1 => db.flush().unwrap(),
                2 => {
                    db.flush().unwrap();
                    clock.set(now + 1);
                    check(&family, &model, now + 1);
                    clock.set(now);
                }
                3 if round > 5 => db.compact().unwrap(),
                _ => {}
            }
            check(&family, &model, now);
            clock.set(now + 100);
            assert_eq!(before.len().unwrap(), then, "a moment stays what it was");
            drop(before);
            clock.set(now);
            if round % 5 == 4 {
                // As a crash leaves it: the log is replayed.
                db.sync().unwrap();
                let copy = storage.copy();
                let after = builder(&copy, &clock, deltas).open("memory").unwrap();
                check(&after.column_family("family").unwrap(), &model, now);
                assert_clean(&after);
            }
            if round == 8 {
                drop(family);
                db.close().unwrap();
                db = builder(&storage, &clock, deltas).open("memory").unwrap();
                family = db.column_family("family").unwrap();
                check(&family, &model, now);
            }
            // What is in the tree, or deltas, may be dropped by merges from now on.
            model.retain(|_, (_, expiry)| expiry.is_none_or(|expiry| expiry > now));
        }
        assert_clean(&db);
    }
}

#[test]
fn a_compaction_gives_back_what_has_expired_and_a_clock_set_back_brings_nothing_back() {
    let (storage, clock) = (TestStorage::new(), Clock::at(100));
    let db = builder(&storage, &clock, false).open("memory").unwrap();
    let family = db.create_column_family("family", expiring()).unwrap();
    for number in 0..2000 {
        let value = vec![number as u8; if number % 100 == 7 { 9000 } else { 100 }];
        match number % 1000 {
            999 => family.put(key(number), value).unwrap(),
            _ => family.put_with_ttl(key(number), value, seconds(10)).unwrap(),
        };
    }
    db.compact().unwrap();
    let full = db.statistics().data_file_bytes;
    let before = family.snapshot().unwrap();
    clock.set(109);
    assert_eq!(family.len().unwrap(), 2000);
    let written = storage.bytes_written();
    db.compact().unwrap();
    assert_eq!(storage.bytes_written(), written, "there is nothing to do");
    clock.set(110);
    assert_eq!(family.len().unwrap(), 2);
    clock.set(109);
    assert_eq!(family.len().unwrap(), 2000, "they are still stored");
    clock.set(110);
    db.compact().unwrap();
    assert_eq!(before.len().unwrap(), 2000);
    assert_eq!(before.iter().count(), 2000);
    drop(before);
    db.compact().unwrap();
    let packed = db.statistics().data_file_bytes;
    assert!(packed * 3 < full, "{packed} of {full} bytes");
    let written = storage.bytes_written();
    db.compact().unwrap();
    assert_eq!(storage.bytes_written(), written, "there is nothing more to do");
    clock.set(100);
    assert_eq!(family.len().unwrap(), 2, "they are gone for good");
    assert_clean(&db);
}

#[test]
fn a_lifetime_of_the_family_holds_for_every_write_and_is_kept() {
    let (storage, clock) = (TestStorage::new(), Clock::at(100));
    let open = || builder(&storage, &clock, false).open("memory").unwrap();
    let db = open();
    let family = db.create_column_family("family", FamilyOptions::default().page_fill(90)).unwrap();
    family.put("old", "stays").unwrap();
    failure(family.put_with_ttl("a", "", seconds(1)), ErrorKind::NeverExpires);
    assert!(!family.options().expires());
    family.set_options(FamilyOptions::default().expire_after(Duration::from_millis(9500))).unwrap();
    family.put("put", "").unwrap();
    family.put_with_ttl("own", "", seconds(3)).unwrap();
    let _ = family.compare_and_swap("swap", None, Some(b"")).unwrap();
    family.update("update", |_| Some("")).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&family, "batch", "").put_with_ttl(&family, "batch own", "", seconds(4));
    let expiries: Vec<_> = batch
        .iter()
        .map(|(_, operation)| match operation {
            Operation::PutExpiring { value, .. } => value.expires_at(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(expiries, [110, 104]);
    db.write(&batch).unwrap();
    let mut transaction = db.begin().unwrap();
    transaction.put(&family, "transaction", "").unwrap();
    transaction.put_with_ttl(&family, "transaction own", "", seconds(5)).unwrap();
    clock.set(1000);
    assert!(transaction.get(&family, "transaction").unwrap().is_some(), "judged at its beginning");
    assert!(transaction.contains_key(&family, "transaction own").unwrap());
    clock.set(100);
    transaction.commit().unwrap();
    // Options that say nothing of it leave it.
    family.set_options(FamilyOptions::default().page_fill(80)).unwrap();
    assert_eq!(family.options().time_to_live(), Some(seconds(10)));
    drop(family);
    // From the catalog's part; and below from the whole of it.
    let copied = builder(&storage.copy(), &clock, false).open("memory").unwrap();
    assert_eq!(copied.column_family("family").unwrap().options().time_to_live(), Some(seconds(10)));
    db.close().unwrap();
    let db = open();
    let family = db.column_family("family").unwrap();
    assert_eq!(family.options().time_to_live(), Some(seconds(10)));
    let keys = || -> Vec<String> {
        let text = |entry: peristyle::Result<(peristyle::Key, _)>| {
            String::from_utf8(entry.unwrap().0.to_vec()).unwrap()
        };
        family.iter().unwrap().map(text).collect()
    };
    for (now, gone) in [(102, 0), (103, 1), (104, 2), (105, 3), (109, 3), (110, 8)] {
        clock.set(now);
        assert_eq!(keys().len(), 9 - gone, "at {now}: {:?}", keys());
    }
    assert_eq!(keys(), ["old"]);
    // From now on nothing expires unless that is said.
    family.set_options(expiring()).unwrap();
    family.put("put", "").unwrap();
    clock.set(u64::MAX >> 20);
    assert_eq!(keys(), ["old", "put"]);
}

#[test]
fn an_entry_is_never_gone_early_and_a_huge_lifetime_is_for_ever() {
    let clock = Clock::at(0);
    let (db, family) = open(&clock);
    clock.milliseconds.store(100_999, Ordering::SeqCst);
    family.put_with_ttl("a", "", seconds(1)).unwrap();
    for time in [Duration::MAX, seconds(u64::MAX - 101), seconds(u64::MAX >> 1)] {
        family.put_with_ttl(format!("b {time:?}"), "", time).unwrap();
    }
    clock.set(101);
    assert!(family.contains_key("a").unwrap(), "it lives until 101.999");
    clock.set(102);
    assert!(!family.contains_key("a").unwrap());
    clock.set(u64::MAX >> 20);
    assert_eq!(family.len().unwrap(), 3);
    db.compact().unwrap();
    assert_eq!(family.len().unwrap(), 3);
    family.set_options(FamilyOptions::default().expire_after(Duration::MAX)).unwrap();
    family.put("c", "").unwrap();
    assert_eq!(family.len().unwrap(), 4);
}

#[test]
fn what_has_expired_hides_what_is_behind_it() {
    for deltas in [false, true] {
        let (storage, clock) = (TestStorage::new(), Clock::at(100));
        let db = builder(&storage, &clock, deltas).open("memory").unwrap();
        let family = db.create_column_family("family", expiring()).unwrap();
        // A tree behind, of a size at which deltas pay.
        (0..500).for_each(|number| assert!(family.put(key(number), [7; 200]).is_ok()));
        db.compact().unwrap();
        family.put_with_ttl(key(250), "new", seconds(5)).unwrap();
        let check = |now, expected: Option<&str>| {
            clock.set(now);
            assert_eq!(family.get(key(250)).unwrap().as_deref(), expected.map(str::as_bytes), "{deltas}");
            assert_eq!(family.len().unwrap(), if expected.is_some() { 500 } else { 499 });
        };
        check(104, Some("new"));
        check(105, None);
        clock.set(104);
        db.flush().unwrap();
        check(104, Some("new"));
        check(105, None);
        // Another delta, or merge, while it has expired.
        family.put(key(251), "other").unwrap();
        db.flush().unwrap();
        check(105, None);
        family.put_with_ttl(key(250), "newer", seconds(5)).unwrap();
        check(109, Some("newer"));
        clock.set(110);
        // Expired when its memtable is merged.
        db.flush().unwrap();
        check(110, None);
        check(100, None);
        db.compact().unwrap();
        check(100, None);
        assert_clean(&db);
    }
}

#[test]
fn what_has_expired_in_a_delta_hides_what_is_older_whatever_else_leaves_it() {
    let (storage, clock) = (TestStorage::new(), Clock::at(100));
    let db = builder(&storage, &clock, true).open("memory").unwrap();
    let family = db.create_column_family("family", expiring()).unwrap();
    (0..500).for_each(|number| assert!(family.put(key(number), [7; 200]).is_ok()));
    db.compact().unwrap();
    for number in [249, 250, 251] {
        family.put_with_ttl(key(number), "new", seconds(5)).unwrap();
    }
    db.flush().unwrap();
    clock.set(110);
    let check = || {
        let is_there = |number| family.get(key(number)).unwrap().is_some();
        assert!(!is_there(249) && !is_there(250) && !is_there(251) && is_there(252));
        assert_eq!(family.len().unwrap(), 497);
    };
    check();
    // Each rewrites the leaf of the delta.
    family.delete_range(key(249)..key(250)).unwrap();
    db.flush().unwrap();
    check();
    family.delete_range(key(251)..key(252)).unwrap();
    db.flush().unwrap();
    check();
    db.compact().unwrap();
    check();
    assert_clean(&db);
}

#[test]
fn a_clock_that_panics_harms_nothing() {
    let clock = Clock::at(100);
    let (db, family) = open(&clock);
    let plain = db.create_column_family("plain", FamilyOptions::default()).unwrap();
    family.put_with_ttl("a", "1", seconds(5)).unwrap();
    family.put("b", "2").unwrap();
    clock.panics.store(true, Ordering::SeqCst);
    failure(family.put_with_ttl("a", "", seconds(5)), ErrorKind::ClockFailed);
    failure(family.get("a"), ErrorKind::ClockFailed);
    failure(family.contains_key("b"), ErrorKind::ClockFailed);
    failure(family.iter(), ErrorKind::ClockFailed);
    failure(family.len(), ErrorKind::ClockFailed);
    failure(family.update("b", |_| Some("")), ErrorKind::ClockFailed);
    failure(db.snapshot(), ErrorKind::ClockFailed);
    failure(db.begin(), ErrorKind::ClockFailed);
    let mut batch = WriteBatch::new();
    batch.put(&plain, "c", "").put_with_ttl(&family, "c", "", seconds(5));
    failure(db.write(&batch), ErrorKind::ClockFailed);
    // What needs no clock goes on.
    plain.put("c", "3").unwrap();
    assert_eq!(plain.len().unwrap(), 1);
    family.put("d", "4").unwrap();
    family.delete("b").unwrap();
    db.flush().unwrap();
    db.compact().unwrap();
    clock.panics.store(false, Ordering::SeqCst);
    assert_eq!(family.get("a").unwrap().unwrap(), "1");
    assert_eq!(family.len().unwrap(), 2);
    clock.set(105);
    assert_eq!(family.len().unwrap(), 1);
    assert_clean(&db);
}

#[test]
fn a_database_of_which_nothing_expires_asks_no_clock() {
    let clock = Clock::at(100);
    let db = builder(&TestStorage::new(), &clock, false).open("memory").unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    family.put("a", "1").unwrap();
    assert!(family.get("a").unwrap().is_some() && family.contains_key("a").unwrap());
    assert_eq!(db.snapshot().unwrap().get(&family, "a").unwrap().unwrap(), "1");
    let transaction = db.begin().unwrap();
    assert!(transaction.get(&family, "a").unwrap().is_some());
    drop(transaction);
    assert_eq!(family.iter().unwrap().count(), 1);
    db.compact().unwrap();
    assert_eq!(clock.calls(), 0);
    let other = db.create_column_family("other", expiring()).unwrap();
    other.put("a", "1").unwrap();
    assert!(family.get("a").unwrap().is_some());
    assert_eq!(clock.calls(), 0, "what does not expire is not judged");
    assert!(other.get("a").unwrap().is_some());
    assert_eq!(clock.calls(), 1);
}

#[test]
fn very_many_expired_entries_in_a_row_are_passed_one_leaf_after_the_other() {
    let clock = Clock::at(100);
    let (db, family) = open(&clock);
    family.put("a", "first").unwrap();
    for number in 0..60_000u32 {
        family.put_with_ttl([b"k", &number.to_be_bytes()[..]].concat(), [7; 60], seconds(5)).unwrap();
    }
    family.put("z", "last").unwrap();
    db.flush().unwrap();
    clock.set(105);
    let mut cursor = family.cursor().unwrap();
    assert!(cursor.first().unwrap() && cursor.next().unwrap());
    assert_eq!(cursor.value().unwrap(), b"last");
    assert!(cursor.prev().unwrap());
    assert_eq!(cursor.value().unwrap(), b"first");
    assert_eq!(family.len().unwrap(), 2);
}

/// What a key has after an operand that is written at `now` and lives until `expiry`, if that is said.
fn merge_into(model: &mut Model, key: Vec<u8>, operand: &[u8], now: u64, expiry: Option<u64>) {
    let before = model.remove(&key).filter(|(_, expiry)| expiry.is_none_or(|expiry| expiry > now));
    let (mut value, until) = before.unwrap_or_default();
    if !value.is_empty() {
        value.push(b',');
    }
    value.extend_from_slice(operand);
    model.insert(key, (value, expiry.or(until)));
}

#[test]
fn what_operands_come_to_does_not_depend_on_when_they_are_folded() {
    for (deltas, lifetime) in [(false, None), (true, None), (false, Some(3)), (true, Some(3))] {
        let (storage, clock) = (TestStorage::new(), Clock::at(100));
        let operator = || merge_operators::append(",");
        let builder = || builder(&storage, &clock, deltas).merge_operator(operator());
        let options = FamilyOptions::default().merge_operator(operator());
        let options = match lifetime {
            None => options.expire_each(),
            Some(time) => options.expire_after(seconds(time)),
        };
        let mut db = builder().open("memory").unwrap();
        let mut family = db.create_column_family("family", options).unwrap();
        let mut model = Model::new();
        for round in 0..24u32 {
            let now = 100 + u64::from(round / 2);
            clock.set(now);
            for number in 0..60 {
                let value = format!("{round}").into_bytes();
                let value = if number == 33 { value.repeat(2000) } else { value };
                match (number * 7 + round * 3) % 13 {
                    0..5 => {
                        family.merge(key(number), &value).unwrap();
                        let expiry = lifetime.map(|time| now + time);
                        merge_into(&mut model, key(number), &value, now, expiry);
                    }
                    5 => {
                        family.delete(key(number)).unwrap();
                        model.remove(&key(number));
                    }
                    6 => {
                        family.put(key(number), &value).unwrap();
                        model.insert(key(number), (value, lifetime.map(|time| now + time)));
                    }
                    7 | 8 => {
                        let time = u64::from(number % 4);
                        family.put_with_ttl(key(number), &value, seconds(time)).unwrap();
                        model.insert(key(number), (value, Some(now + time)));
                    }
                    _ => {}
                }
            }
            check(&family, &model, now);
            clock.set(now + 1);
            check(&family, &model, now + 1);
            clock.set(now);
            match round % 7 {
                1 | 2 | 4 | 5 => db.flush().unwrap(),
                6 if round > 12 => db.compact().unwrap(),
                _ => {}
            }
            check(&family, &model, now);
            if round == 15 {
                db.sync().unwrap();
                let copy = storage.copy();
                let builder = self::builder(&copy, &clock, deltas).merge_operator(operator());
                let after = builder.open("memory").unwrap();
                check(&after.column_family("family").unwrap(), &model, now);
            }
            if round == 20 {
                drop(family);
                db.close().unwrap();
                db = builder().open("memory").unwrap();
                family = db.column_family("family").unwrap();
                check(&family, &model, now);
            }
        }
        assert_clean(&db);
        clock.set(1000);
        check(&family, &model, 1000);
        db.compact().unwrap();
        check(&family, &model, 1000);
    }
}

#[test]
fn a_transaction_judges_by_its_beginning_and_an_own_operand_lives_as_any_other() {
    let clock = Clock::at(100);
    let db = builder(&TestStorage::new(), &clock, false).open("memory").unwrap();
    let options = FamilyOptions::default().merge_operator(merge_operators::append(","));
    let family = db.create_column_family("family", options.expire_after(seconds(5))).unwrap();
    family.put("a", "1").unwrap();
    family.put("b", "1").unwrap();
    let mut transaction = db.begin().unwrap();
    clock.set(104);
    transaction.merge(&family, "a", "2").unwrap();
    transaction.put_with_ttl(&family, "own", "", seconds(1)).unwrap();
    clock.set(200);
    assert_eq!(transaction.get(&family, "a").unwrap().unwrap(), "1,2");
    assert!(
        transaction.contains_key(&family, "a").unwrap() && transaction.contains_key(&family, "own").unwrap()
    );
    let count = |transaction: &peristyle::Transaction| transaction.iter(&family).unwrap().count();
    assert_eq!(count(&transaction), 3);
    // Many own writes are looked for in another way than few.
    for number in 0..40u32 {
        transaction.put_with_ttl(&family, number.to_be_bytes(), "", seconds(1)).unwrap();
        transaction.delete(&family, number.to_be_bytes()).unwrap();
    }
    assert_eq!(transaction.get(&family, "a").unwrap().unwrap(), "1,2");
    assert!(transaction.contains_key(&family, "own").unwrap());
    assert_eq!(count(&transaction), 3);
    clock.set(107);
    transaction.commit().unwrap();
    assert_eq!(family.get("a").unwrap().unwrap(), "1,2");
    assert_eq!(family.len().unwrap(), 1, "the rest has expired");
    clock.set(109);
    assert_eq!(family.get("a").unwrap(), None);
    // What is prepared expires as well.
    let mut transaction = db.begin().unwrap();
    transaction.put_with_ttl(&family, "c", "3", seconds(5)).unwrap();
    transaction.merge(&family, "d", "4").unwrap();
    let prepared = transaction.prepare("name").unwrap();
    clock.set(111);
    prepared.commit().unwrap();
    assert_eq!(family.len().unwrap(), 2);
    clock.set(114);
    assert_eq!(family.len().unwrap(), 0);
    // One that reads the present judges by the present.
    let transaction = db.transaction().level(peristyle::IsolationLevel::ReadCommitted).begin().unwrap();
    family.put("e", "").unwrap();
    assert!(transaction.contains_key(&family, "e").unwrap());
    clock.set(119);
    assert!(!transaction.contains_key(&family, "e").unwrap());
}

#[test]
fn counters_that_have_expired_are_given_back_by_a_compaction() {
    for deltas in [false, true] {
        let (storage, clock) = (TestStorage::new(), Clock::at(100));
        let builder = || builder(&storage, &clock, deltas).merge_operator(merge_operators::add_u64());
        let db = builder().open("memory").unwrap();
        let options = FamilyOptions::default().merge_operator(merge_operators::add_u64());
        let views = db.create_column_family("views", options.expire_after(seconds(10))).unwrap();
        let one = 1u64.to_le_bytes();
        let count = |key: Vec<u8>| views.get(key).unwrap().map(|value| value[0]);
        (0..1000).for_each(|number| assert!(views.merge(key(number), one).is_ok()));
        db.compact().unwrap();
        clock.set(105);
        (0..10).for_each(|number| assert!(views.merge(key(number), one).is_ok()));
        // Its neighbours are rewritten while they have expired, and operands stand in front of them.
        clock.set(112);
        views.delete(key(500)).unwrap();
        db.flush().unwrap();
        assert_eq!((count(key(3)), count(key(600))), (Some(2), None));
        assert_eq!(views.len().unwrap(), 10);
        let old = db.snapshot().unwrap();
        db.compact().unwrap();
        assert_eq!((count(key(3)), count(key(600))), (Some(2), None));
        assert_eq!(old.column_family(&views).unwrap().len().unwrap(), 10);
        clock.set(100);
        assert_eq!(views.len().unwrap(), 10, "what was dropped does not come back");
        clock.set(115);
        assert_eq!(views.len().unwrap(), 0);
        drop(old);
        db.compact().unwrap();
        let written = storage.bytes_written();
        db.compact().unwrap();
        assert_eq!(storage.bytes_written(), written, "there is nothing to do");
        clock.set(100);
        assert_eq!(views.len().unwrap(), 0);
        assert_clean(&db);
    }
}
