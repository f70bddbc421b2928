//! Merge operators: operands are folded wherever they stand, and what cannot be folded is neither lost nor in
//! the way of anything else.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::storage::TestStorage;
use common::{assert_clean, failure, shrunken};
use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, DatabaseBuilder, Durability, ErrorKind, FamilyOptions,
    IsolationLevel, LockMode, MergeOperands, MergeOperator, MergeResult, Operation, Swap, WriteBatch,
    merge_operators,
};

/// Appends, and counts what it is called with; while it is told to, fails on some keys, by an error or a
/// panic.
#[derive(Clone, Default)]
struct Guest {
    fails: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    operands: Arc<AtomicUsize>,
    combines: bool,
}

impl Guest {
    fn list(parts: impl Iterator<Item = impl AsRef<[u8]>>) -> Vec<u8> {
        let parts: Vec<Vec<u8>> = parts.map(|part| part.as_ref().to_vec()).collect();
        parts.join(&b","[..])
    }

    fn set_failing(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    fn is_bad(&self, key: &[u8]) -> bool {
        self.fails.load(Ordering::SeqCst) && key.starts_with(b"bad")
    }
}

impl MergeOperator for Guest {
    fn name(&self) -> &str {
        "guest"
    }

    fn merge(&self, key: &[u8], existing: Option<&[u8]>, operands: MergeOperands<'_>) -> MergeResult {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.operands.fetch_add(operands.len(), Ordering::SeqCst);
        if self.is_bad(key) {
            assert!(!key.ends_with(b"panic"), "no operand is good enough");
            return Err("out of order".into());
        }
        Ok(Self::list(existing.into_iter().chain(operands)))
    }

    fn combine(&self, key: &[u8], operands: MergeOperands<'_>) -> Option<Vec<u8>> {
        assert!(!self.is_bad(key), "nothing is combined either");
        self.combines.then(|| Self::list(operands))
    }
}

fn with(operator: impl MergeOperator) -> FamilyOptions {
    FamilyOptions::default().merge_operator(operator)
}

/// Every merge that finds a tree writes a delta if `deltas`, and nothing happens but by a call.
fn builder(storage: &TestStorage, deltas: bool) -> DatabaseBuilder {
    let cost = if deltas { 0 } else { u32::MAX };
    shrunken().merge_cost(cost).automatic_maintenance(false).storage(storage.clone())
}

fn key(number: u32) -> Vec<u8> {
    format!("key {number:04}").into_bytes()
}

/// Compares what all ways of reading tell.
fn check(family: &ColumnFamily, model: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let snapshot = family.snapshot().unwrap();
    assert_eq!(snapshot.len().unwrap(), model.len() as u64);
    let keys: Vec<_> = model.keys().cloned().chain([b"none".to_vec()]).collect();
    for ((key, value), found) in model.iter().zip(family.multi_get(&keys).unwrap()) {
        assert_eq!(found.as_deref(), Some(&value[..]), "{}", key.escape_ascii());
        assert_eq!(family.get(key).unwrap().as_deref(), Some(&value[..]), "{}", key.escape_ascii());
        assert!(family.contains_key(key).unwrap());
    }
    let pair = |entry: peristyle::Result<(peristyle::Key, peristyle::Value)>| {
        let (key, value) = entry.unwrap();
        (key.to_vec(), value.to_vec())
    };
    assert!(snapshot.iter().map(pair).eq(model.clone()));
    assert!(snapshot.iter().rev().map(pair).eq(model.clone().into_iter().rev()));
    let mut scanned = Vec::new();
    let end = snapshot.cursor().scan(|key, value| {
        scanned.push((key.to_vec(), value.to_vec()));
        std::ops::ControlFlow::<()>::Continue(())
    });
    assert!(end.unwrap().is_continue());
    assert!(scanned.iter().cloned().eq(model.clone()));
    let mut cursor = snapshot.cursor();
    for (key, value) in model {
        assert!(cursor.seek(key).unwrap());
        assert_eq!((cursor.key(), cursor.value().unwrap()), (&key[..], &value[..]));
        // Once more, and after a turn.
        assert_eq!(cursor.value().unwrap(), &value[..]);
        if cursor.prev().unwrap() {
            assert_eq!(cursor.value().unwrap(), &model[cursor.key()][..]);
            assert!(cursor.next().unwrap());
            assert_eq!(cursor.owned_value().unwrap(), value[..]);
        }
    }
}

#[test]
fn operands_are_folded_wherever_they_stand() {
    for (deltas, combines) in [(false, true), (true, false), (true, true)] {
        let storage = TestStorage::new();
        let guest = Guest { combines, ..Guest::default() };
        let builder = || builder(&storage, deltas).merge_operator(guest.clone());
        let mut db = builder().open("memory").unwrap();
        let mut family = db.create_column_family("lists", with(guest.clone())).unwrap();
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for round in 0..9u32 {
            for number in 0..300 {
                let value = format!("{round}").into_bytes();
                match (number + round) % 7 {
                    0 if round % 3 == 0 => {
                        family.put(key(number), &value).unwrap();
                        model.insert(key(number), value);
                    }
                    1 if round % 4 == 1 => {
                        family.delete(key(number)).unwrap();
                        model.remove(&key(number));
                    }
                    6 => {}
                    _ => {
                        // Long ones stand in runs when they are folded.
                        let value = if number % 50 == 3 { value.repeat(3000) } else { value };
                        family.merge(key(number), &value).unwrap();
                        let folded = model.entry(key(number)).or_default();
                        if !folded.is_empty() {
                            folded.push(b',');
                        }
                        folded.extend_from_slice(&value);
                    }
                }
            }
            if round == 4 {
                family.delete_range(key(20)..key(40)).unwrap();
                model.retain(|k, _| !(key(20)..key(40)).contains(k));
            }
            check(&family, &model);
            match round {
                0 | 1 | 2 | 5 => db.flush().unwrap(),
                3 => db.compact().unwrap(),
                4 => db.checkpoint().unwrap(),
                6 => {
                    db.close().unwrap();
                    db = builder().open("memory").unwrap();
                    family = db.column_family("lists").unwrap();
                }
                7 => db.wait_until_idle().unwrap(),
                _ => {}
            }
            check(&family, &model);
            assert_clean(&db);
        }
        // As it is after a crash: what is replayed counts once, however often.
        for _ in 0..3 {
            let killed = storage.copy();
            let db = builder().storage(killed).open("memory").unwrap();
            check(&db.column_family("lists").unwrap(), &model);
            db.flush().unwrap();
            check(&db.column_family("lists").unwrap(), &model);
        }
        // Nobody folds what is folded.
        db.compact().unwrap();
        let before = guest.calls.load(Ordering::SeqCst);
        check(&family, &model);
        assert_eq!(guest.calls.load(Ordering::SeqCst), before);
    }
}

#[test]
fn an_operator_that_fails_is_told_to_who_reads_the_key_and_nothing_is_lost() {
    for (deltas, combines) in [(false, false), (true, false), (true, true)] {
        let storage = TestStorage::new();
        let guest = Guest { combines, ..Guest::default() };
        let builder = || builder(&storage, deltas).merge_operator(guest.clone());
        let db = builder().open("memory").unwrap();
        let family = db.create_column_family("lists", with(guest.clone())).unwrap();
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let merge =
            |family: &ColumnFamily, model: &mut BTreeMap<Vec<u8>, Vec<u8>>, key: &str, operand: &str| {
                family.merge(key, operand).unwrap();
                let folded = model.entry(key.into()).or_default();
                if !folded.is_empty() {
                    folded.push(b',');
                }
                folded.extend_from_slice(operand.as_bytes());
            };
        family.put("bad", "first").unwrap();
        model.insert(b"bad".to_vec(), b"first".to_vec());
        merge(&family, &mut model, "bad panic", "0");
        merge(&family, &mut model, "good", "0");
        db.flush().unwrap();
        guest.set_failing(true);
        let check_failing = |db: &ColumnFamilyDatabase, family: &ColumnFamily, good: &[u8]| {
            for (bad, why) in [("bad", "out of order"), ("bad panic", "no operand is good enough")] {
                let error = family.get(bad).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::MergeFailed, "{error}");
                assert_eq!(error.key(), Some(bad.as_bytes()));
                assert!(
                    error.to_string().contains("\"guest\"") && error.to_string().contains(why),
                    "{error}"
                );
                assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
                assert!(family.contains_key(bad).unwrap());
            }
            assert_eq!(family.get("good").unwrap().unwrap(), good);
            assert_eq!(family.len().unwrap(), 3);
            // A cursor stands on such a key, says so, and goes on.
            let mut cursor = family.cursor().unwrap();
            assert!(cursor.first().unwrap() && cursor.key() == b"bad");
            assert_eq!(cursor.value().unwrap_err().kind(), ErrorKind::MergeFailed);
            assert!(cursor.next().unwrap() && cursor.next().unwrap());
            assert_eq!((cursor.key(), cursor.value().unwrap()), (&b"good"[..], good));
            assert!(cursor.prev().unwrap());
            assert_eq!(cursor.owned_value().unwrap_err().kind(), ErrorKind::MergeFailed);
            assert!(family.iter().unwrap().next().unwrap().is_err());
            assert!(cursor.scan(|_, _| std::ops::ControlFlow::<()>::Continue(())).is_err());
            assert_clean(db);
        };
        for round in 1..6 {
            for key in ["bad", "bad panic", "good"] {
                merge(&family, &mut model, key, &round.to_string());
            }
            check_failing(&db, &family, &model[&b"good"[..]].clone());
            if round % 2 == 0 {
                db.compact().unwrap()
            } else {
                db.flush().unwrap()
            }
            check_failing(&db, &family, &model[&b"good"[..]].clone());
            // Others are merged meanwhile.
            let properties = db.family_properties(&family).unwrap();
            assert_eq!(properties.entries_in_memtables, 0);
        }
        // What depends on the value is refused as well, and changes nothing.
        failure(family.update("bad", |_| Some("new")), ErrorKind::MergeFailed);
        db.close().unwrap();
        let db = builder().open("memory").unwrap();
        let family = db.column_family("lists").unwrap();
        check_failing(&db, &family, &model[&b"good"[..]].clone());
        // To replace or to remove the key takes no operator.
        let copy = storage.copy();
        let other = builder().storage(copy).open("memory").unwrap();
        let lists = other.column_family("lists").unwrap();
        lists.put("bad", "new").unwrap();
        lists.delete("bad panic").unwrap();
        other.flush().unwrap();
        assert_eq!(lists.get("bad").unwrap().unwrap(), "new");
        assert!(lists.get("bad panic").unwrap().is_none());
        drop((lists, other));
        // Mended, all is there, before and after it is folded for good.
        guest.set_failing(false);
        check(&family, &model);
        family.merge("bad", "last").unwrap();
        model.get_mut(&b"bad"[..]).unwrap().extend_from_slice(b",last");
        db.flush().unwrap();
        db.compact().unwrap();
        check(&family, &model);
        assert_clean(&db);
    }
}

#[test]
fn without_its_operator_a_family_can_be_used_but_for_keys_with_operands() {
    for read_only in [false, true] {
        let storage = TestStorage::new();
        let db = builder(&storage, false).open("memory").unwrap();
        let sums = db.create_column_family("sums", with(merge_operators::add_u64())).unwrap();
        sums.put("plain", "value").unwrap();
        sums.merge("folded", 1u64.to_le_bytes()).unwrap();
        db.flush().unwrap();
        sums.merge("folded", 2u64.to_le_bytes()).unwrap();
        sums.merge("open", 3u64.to_le_bytes()).unwrap();
        drop((sums, db));

        let open = || builder(&storage, false).read_only(read_only).open("memory").unwrap();
        let db = open();
        let sums = db.column_family("sums").unwrap();
        assert_eq!(sums.options().merge_operator_name(), Some("peristyle.add_u64"));
        assert_eq!(sums.get("plain").unwrap().unwrap(), "value");
        for key in ["folded", "open"] {
            let error = sums.get(key).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::MergeOperatorMissing, "{error}");
            assert_eq!(error.key(), Some(key.as_bytes()));
            assert!(error.to_string().contains("peristyle.add_u64"), "{error}");
        }
        assert_eq!(sums.len().unwrap(), 3);
        failure(sums.merge("open", 4u64.to_le_bytes()), ErrorKind::MergeOperatorMissing);
        if !read_only {
            // What is merged meanwhile keeps all of it.
            sums.put("other", "value").unwrap();
            db.flush().unwrap();
            db.compact().unwrap();
            failure(sums.get("folded"), ErrorKind::MergeOperatorMissing);
            assert_clean(&db);
        }
        let error = db.column_family_or_create("sums", with(merge_operators::max())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MergeOperatorDiffers);
        let message = error.to_string();
        assert!(message.contains("peristyle.add_u64") && message.contains("peristyle.max"), "{message}");
        if !read_only {
            failure(
                db.ensure_column_family("sums", with(merge_operators::max())),
                ErrorKind::MergeOperatorDiffers,
            );
            failure(sums.set_options(with(merge_operators::max())), ErrorKind::MergeOperatorDiffers);
        }
        // Options without one are those of a family that has one.
        db.column_family_or_create("sums", FamilyOptions::default()).unwrap();
        failure(sums.get("open"), ErrorKind::MergeOperatorMissing);
        // All handles get it at once.
        let again = db.column_family_or_create("sums", with(merge_operators::add_u64())).unwrap();
        for sums in [&sums, &again] {
            assert_eq!(sums.get("folded").unwrap().unwrap(), 3u64.to_le_bytes());
            assert_eq!(sums.get("open").unwrap().unwrap(), 3u64.to_le_bytes());
        }
        if !read_only {
            sums.merge("open", 4u64.to_le_bytes()).unwrap();
            db.flush().unwrap();
            assert_eq!(sums.get("open").unwrap().unwrap(), 7u64.to_le_bytes());
        }
    }
}

#[test]
fn a_family_may_be_given_an_operator_later_and_keeps_it() {
    let storage = TestStorage::new();
    let db = builder(&storage, false).open("memory").unwrap();
    let plain = db.create_column_family("tags", FamilyOptions::default()).unwrap();
    plain.put("photo", "sea").unwrap();
    let error = plain.merge("photo", "summer").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MergeOperatorMissing);
    let mut batch = WriteBatch::new();
    batch.put(&plain, "other", "value").merge(&plain, "photo", "summer");
    failure(db.write(&batch), ErrorKind::MergeOperatorMissing);
    assert!(!plain.contains_key("other").unwrap());
    failure(
        db.column_family_or_create("tags", with(merge_operators::append("; "))),
        ErrorKind::OptionsDiffer,
    );
    let long = "n".repeat(256);
    for name in ["", &long] {
        let operator = merge_operators::associative(name, |_, _| Ok(()));
        failure(db.ensure_column_family("tags", with(operator)), ErrorKind::InvalidArgument);
    }
    let tags = db.ensure_column_family("tags", with(merge_operators::append("; ")).cache_share(3)).unwrap();
    plain.merge("photo", "summer").unwrap();
    assert_eq!(tags.get("photo").unwrap().unwrap(), "sea; summer");
    // A name as long as can be, beside a family's name as long as can be.
    let longest = "o".repeat(255);
    let family = "f".repeat(255);
    let operator = || {
        merge_operators::associative(&longest, |a, b| {
            a.extend_from_slice(b);
            Ok(())
        })
    };
    db.create_column_family(&family, with(operator())).unwrap().merge("key", "a").unwrap();
    tags.set_options(FamilyOptions::default().cache_share(5)).unwrap();
    db.rename_column_family("tags", "labels").unwrap();
    for close in [true, false] {
        let storage = storage.copy();
        if close {
            let db = builder(&storage, false).merge_operator(operator()).open("memory").unwrap();
            db.column_family(&family).unwrap().merge("key", "b").unwrap();
            db.close().unwrap();
        }
        let db = builder(&storage, false).merge_operator(operator()).open("memory").unwrap();
        let labels = db.column_family("labels").unwrap();
        let options = labels.options();
        assert_eq!((options.merge_operator_name(), options.cache_share), (Some("peristyle.append(; )"), 5));
        failure(labels.get("photo"), ErrorKind::MergeOperatorMissing);
        db.ensure_column_family("labels", with(merge_operators::append("; ")).cache_share(5)).unwrap();
        assert_eq!(labels.get("photo").unwrap().unwrap(), "sea; summer");
        let value = db.column_family(&family).unwrap().get("key").unwrap().unwrap();
        assert_eq!(value, if close { "ab" } else { "a" });
    }
}

#[test]
fn a_batch_merges_in_its_order_large_or_not() {
    for filler in [0, 3000] {
        let storage = TestStorage::new();
        let db = builder(&storage, false).open("memory").unwrap();
        let family = db.create_column_family("lists", with(merge_operators::append(","))).unwrap();
        for key in ["a", "b", "c", "d"] {
            family.put(key, "0").unwrap();
        }
        let mut batch = WriteBatch::new();
        batch.merge(&family, "a", "1").merge(&family, "a", "2");
        batch.merge(&family, "b", "1").put(&family, "b", "2").merge(&family, "b", "3");
        batch.merge(&family, "c", "1").delete(&family, "c").merge(&family, "c", "2").merge(&family, "c", "3");
        batch.merge(&family, "d", "1").delete_range(&family, "d"..).merge(&family, "d", "2");
        batch.merge(&family, "e", "1");
        assert!(
            batch.iter().any(|(_, operation)| operation == Operation::Merge { key: b"e", operand: b"1" })
        );
        for number in 0..filler {
            batch.put(&family, format!("a filler {number}"), [7; 100]);
        }
        db.write(&batch).unwrap();
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> =
            [("a", "0,1,2"), ("b", "2,3"), ("c", "2,3"), ("d", "2"), ("e", "1")]
                .map(|(key, value)| (key.into(), value.into()))
                .into();
        model.extend((0..filler).map(|n| (format!("a filler {n}").into_bytes(), vec![7; 100])));
        check(&family, &model);
        drop((family, db));
        let db =
            builder(&storage, false).merge_operator(merge_operators::append(",")).open("memory").unwrap();
        check(&db.column_family("lists").unwrap(), &model);
    }
}

#[test]
fn a_snapshot_sees_what_was_merged_up_to_its_moment() {
    let storage = TestStorage::new();
    let db = builder(&storage, true).open("memory").unwrap();
    let family = db.create_column_family("lists", with(merge_operators::append(","))).unwrap();
    let mut held = Vec::new();
    for number in 0..40 {
        family.merge("key", number.to_string()).unwrap();
        held.push((db.snapshot().unwrap(), family.cursor().unwrap()));
        match number % 10 {
            3 => db.flush().unwrap(),
            7 => db.compact().unwrap(),
            9 => {
                family.delete("key").unwrap();
            }
            _ => {}
        }
    }
    for (number, (snapshot, cursor)) in held.iter_mut().enumerate() {
        let list: Vec<String> = (number / 10 * 10..=number).map(|number| number.to_string()).collect();
        assert_eq!(snapshot.get(&family, "key").unwrap().unwrap(), list.join(","));
        assert!(cursor.first().unwrap());
        assert_eq!(cursor.value().unwrap(), list.join(",").as_bytes());
    }
}

#[test]
fn a_transaction_sees_its_operands_on_its_moment_and_a_merge_reads_nothing() {
    let storage = TestStorage::new();
    let db = builder(&storage, false).open("memory").unwrap();
    let family = db.create_column_family("lists", with(merge_operators::append(","))).unwrap();
    family.put("a", "0").unwrap();
    for many in [false, true] {
        let mut transaction = db.begin().unwrap();
        if many {
            // More than are looked through one by one.
            (0..40).for_each(|n| transaction.put(&family, format!("filler {n}"), "").unwrap());
        }
        transaction.merge(&family, "a", "1").unwrap();
        let point = transaction.savepoint();
        transaction.merge(&family, "a", "2").unwrap();
        transaction.put(&family, "b", "0").unwrap();
        transaction.merge(&family, "b", "1").unwrap();
        transaction.merge(&family, "c", "1").unwrap();
        transaction.delete(&family, "a").unwrap();
        transaction.merge(&family, "a", "3").unwrap();
        assert_eq!(transaction.get(&family, "a").unwrap().unwrap(), "3");
        transaction.rollback_to(&point).unwrap();
        transaction.merge(&family, "a", "4").unwrap();
        transaction.merge(&family, "c", "2").unwrap();
        assert_eq!(transaction.get_untracked(&family, "a").unwrap().unwrap(), "0,1,4");
        assert_eq!(transaction.get_for_update(&family, "c", LockMode::Exclusive).unwrap().unwrap(), "2");
        assert!(transaction.contains_key(&family, "c").unwrap());
        let mut cursor = transaction.cursor(&family).unwrap();
        assert!(cursor.first().unwrap());
        assert_eq!((cursor.key(), cursor.value().unwrap()), (&b"a"[..], &b"0,1,4"[..]));
        drop(cursor);
        transaction.rollback();
    }
    // Another merge of the same key stands in the way of who has read it, and of nobody else.
    let outcome = |level, reads: bool, puts: bool| {
        let mut transaction = db.transaction().level(level).begin().unwrap();
        if puts {
            transaction.put(&family, "key", "own").unwrap();
        }
        transaction.merge(&family, "key", "mine").unwrap();
        if reads {
            transaction.get(&family, "key").unwrap();
        }
        family.merge("key", "other").unwrap();
        transaction.commit().map(|_| ())
    };
    outcome(IsolationLevel::Serializable, false, false).unwrap();
    assert_eq!(family.get("key").unwrap().unwrap(), "other,mine");
    failure(outcome(IsolationLevel::Serializable, true, false), ErrorKind::Conflict);
    outcome(IsolationLevel::Serializable, true, true).unwrap();
    assert_eq!(family.get("key").unwrap().unwrap(), "own,mine");
    failure(outcome(IsolationLevel::Snapshot, false, false), ErrorKind::Conflict);
    outcome(IsolationLevel::ReadCommitted, true, false).unwrap();
    // So it does in a walk, where its own operands hide nothing of what others wrote.
    for (own_value, is_refused) in [(false, true), (true, false)] {
        let mut transaction = db.begin().unwrap();
        if own_value {
            transaction.put(&family, "walked", "own").unwrap();
        }
        transaction.merge(&family, "walked", "mine").unwrap();
        assert!(transaction.range(&family, "w".."x").unwrap().next().is_some());
        family.merge("walked", "other").unwrap();
        assert_eq!(transaction.commit().is_err(), is_refused);
    }
    // In two phases.
    let mut transaction = db.begin().unwrap();
    transaction.merge(&family, "two", "1").unwrap();
    let prepared = transaction.prepare("name").unwrap();
    failure(family.merge("two", "2"), ErrorKind::AwaitsDecision);
    prepared.commit().unwrap();
    family.merge("two", "2").unwrap();
    assert_eq!(family.get("two").unwrap().unwrap(), "1,2");
}

#[test]
fn a_value_that_depends_on_operands_is_set_in_one_step() {
    let storage = TestStorage::new();
    let db = builder(&storage, false).open("memory").unwrap();
    let family = db.create_column_family("sums", with(merge_operators::add_u64())).unwrap();
    let number = |n: u64| n.to_le_bytes();
    family.merge("key", number(3)).unwrap();
    family.merge("key", number(4)).unwrap();
    let swap = family.compare_and_swap("key", Some(&number(6)), Some(&number(1))).unwrap();
    assert!(matches!(swap, Swap::Differs(Some(value)) if value == number(7)));
    assert!(family.compare_and_swap("key", Some(&number(7)), Some(&number(10))).unwrap().is_done());
    family.merge("key", number(5)).unwrap();
    let mut merged = false;
    family
        .update("key", |old| {
            let old = u64::from_le_bytes(old.unwrap().try_into().unwrap());
            if !std::mem::replace(&mut merged, true) {
                family.merge("key", number(100)).unwrap();
            }
            Some(number(old * 2))
        })
        .unwrap();
    assert_eq!(family.get("key").unwrap().unwrap(), number(230));
}

/// What a fold costs is counted in operands that the operator is shown.
#[test]
fn many_operands_on_one_key_are_folded_once_and_one_after_the_other() {
    for (deltas, combines) in [(false, false), (true, false), (true, true)] {
        let storage = TestStorage::new();
        let count = if deltas && !combines { 60_000usize } else { 200_000 };
        let guest = Guest { combines, ..Guest::default() };
        let db = builder(&storage, deltas).write_buffer_bytes(4 << 20).open("memory").unwrap();
        let family = db.create_column_family("lists", with(guest.clone())).unwrap();
        family.put("other", "value").unwrap();
        db.flush().unwrap();
        for first in (0..count).step_by(1000) {
            let mut batch = WriteBatch::new();
            for _ in first..count.min(first + 1000) {
                batch.merge(&family, "key", "x");
            }
            db.write_with(&batch, Durability::Buffered).unwrap();
        }
        db.flush().unwrap();
        let shown = guest.operands.load(Ordering::SeqCst);
        // Each is folded once, with those that are merged together.
        assert!(shown <= count, "{shown} of {count} operands");
        assert_eq!(family.get("key").unwrap().unwrap().len(), 2 * count - 1);
        db.compact().unwrap();
        guest.operands.store(0, Ordering::SeqCst);
        assert_eq!(family.get("key").unwrap().unwrap().len(), 2 * count - 1);
        assert_eq!(guest.operands.load(Ordering::SeqCst), 0);
        assert_clean(&db);
    }
}

#[test]
fn writers_in_many_threads_lose_no_operand_while_all_is_merged() {
    let storage = TestStorage::new();
    let db = shrunken().merge_cost(1).storage(storage.clone()).open("memory").unwrap();
    let family = db.create_column_family("sums", with(merge_operators::add_u64())).unwrap();
    let (threads, rounds, keys) = (4u64, 4000u64, 50u64);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (family, db) = (&family, &db);
            scope.spawn(move || {
                for round in 0..rounds {
                    family.merge((round % keys).to_be_bytes(), 1u64.to_le_bytes()).unwrap();
                    if round % 997 == thread {
                        db.flush().unwrap();
                    }
                    if round % 100 == 0 {
                        let sum = family
                            .iter()
                            .unwrap()
                            .map(|entry| u64::from_le_bytes(entry.unwrap().1[..].try_into().unwrap()));
                        assert!(sum.sum::<u64>() > round);
                    }
                }
            });
        }
    });
    let check = |family: &ColumnFamily| {
        for key in 0..keys {
            let sum = family.get(key.to_be_bytes()).unwrap().unwrap();
            assert_eq!(u64::from_le_bytes(sum[..].try_into().unwrap()), threads * rounds / keys);
        }
    };
    check(&family);
    drop((family, db));
    let builder = shrunken().merge_operator(merge_operators::add_u64()).storage(storage);
    let db = builder.open("memory").unwrap();
    check(&db.column_family("sums").unwrap());
}

/// Combines operands into what is longer and says something else, and panics when it goes.
struct Hostile;

impl MergeOperator for Hostile {
    fn name(&self) -> &str {
        "hostile"
    }

    fn merge(&self, _: &[u8], existing: Option<&[u8]>, operands: MergeOperands<'_>) -> MergeResult {
        Ok(Guest::list(existing.into_iter().chain(operands)))
    }

    fn combine(&self, _: &[u8], _: MergeOperands<'_>) -> Option<Vec<u8>> {
        Some(vec![0; 1 << 20])
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        panic!("it does not go");
    }
}

#[test]
fn an_operator_that_gives_too_much_or_panics_when_it_goes_harms_nobody() {
    let storage = TestStorage::new();
    let db = builder(&storage, true).open("memory").unwrap();
    let family = db.create_column_family("lists", with(Hostile)).unwrap();
    family.put("key", "a").unwrap();
    for number in 0..100 {
        family.put(key(number), "value").unwrap();
    }
    db.flush().unwrap();
    family.merge("key", "b").unwrap();
    family.merge("key", "c").unwrap();
    db.flush().unwrap();
    assert_eq!(family.get("key").unwrap().unwrap(), "a,b,c");
    failure(family.merge("key", vec![0; (64 << 20) + 1]), ErrorKind::ValueTooLarge);
    failure(
        db.write(WriteBatch::new().merge(&family, "key", vec![0; (64 << 20) + 1])),
        ErrorKind::ValueTooLarge,
    );
    let other = db.create_column_family("other", FamilyOptions::default()).unwrap();
    drop(family);
    db.drop_column_family("lists").unwrap();
    other.put("key", "value").unwrap();
    db.compact().unwrap();
    assert_eq!(other.get("key").unwrap().unwrap(), "value");
    assert_clean(&db);
    drop(other);
    db.close().unwrap();
}
