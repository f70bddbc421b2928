//! Orders of keys: everything works in them as it does in the order of bytes, and what a program's order does
//! wrong harms nothing but what it was asked for.

mod common;

use std::cmp::Ordering as Compared;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use common::random::Random;
use common::storage::TestStorage;
use common::{assert_clean, failure, shrunken};
use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, DatabaseBuilder, ErrorKind, FamilyOptions, FilterVerdict,
    IsolationLevel, KeyOrder, LockMode, MergeOperands, MergeOperator, MergeResult, Operation, WriteBatch,
};

fn builder(storage: &TestStorage) -> DatabaseBuilder {
    shrunken().automatic_maintenance(false).storage(storage.clone())
}

fn with(order: KeyOrder) -> FamilyOptions {
    FamilyOptions::default().key_order(order)
}

/// By length, the longest first; with zeros in the sort keys.
fn longest_first() -> KeyOrder {
    KeyOrder::new("longest first", |key, sort_key| {
        sort_key.extend((u32::MAX - key.len() as u32).to_be_bytes());
        Ok(())
    })
}

/// An order, what its keys compare like, and keys for it.
struct Case {
    order: fn() -> KeyOrder,
    compare: fn(&[u8], &[u8]) -> Compared,
    key: fn(u64) -> Vec<u8>,
    has_prefixes: bool,
}

fn number(key: &[u8]) -> i64 {
    i64::from_ne_bytes(key.try_into().unwrap())
}

fn text(n: u64) -> Vec<u8> {
    let mut key = format!("{n:x}").into_bytes();
    if n.is_multiple_of(3) {
        key.insert(0, 0);
    }
    if n.is_multiple_of(5) {
        key.extend([0xff, 0]);
    }
    key
}

const CASES: [Case; 4] = [
    Case { order: KeyOrder::reverse, compare: |a, b| b.cmp(a), key: text, has_prefixes: true },
    Case {
        order: KeyOrder::native_i64,
        compare: |a, b| number(a).cmp(&number(b)),
        key: |n| ((n as i64 - 300) * 12_345_678).to_ne_bytes().to_vec(),
        has_prefixes: false,
    },
    Case {
        order: KeyOrder::native_u16,
        compare: |a, b| {
            u16::from_ne_bytes(a.try_into().unwrap()).cmp(&u16::from_ne_bytes(b.try_into().unwrap()))
        },
        key: |n| (n as u16).wrapping_mul(40_503).to_ne_bytes().to_vec(),
        has_prefixes: false,
    },
    Case {
        order: longest_first,
        compare: |a, b| b.len().cmp(&a.len()).then(a.cmp(b)),
        key: text,
        has_prefixes: false,
    },
];

/// What a family should hold, sorted as it should be.
type Model = Vec<(Vec<u8>, Vec<u8>)>;
type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

impl Case {
    fn place(&self, model: &Model, key: &[u8]) -> Result<usize, usize> {
        model.binary_search_by(|(own, _)| (self.compare)(own, key))
    }

    fn put(&self, model: &mut Model, key: &[u8], value: &[u8]) {
        match self.place(model, key) {
            Ok(index) => model[index].1 = value.to_vec(),
            Err(index) => model.insert(index, (key.to_vec(), value.to_vec())),
        }
    }

    fn delete(&self, model: &mut Model, key: &[u8]) {
        if let Ok(index) = self.place(model, key) {
            model.remove(index);
        }
    }

    fn holds(&self, (start, end): &Range, key: &[u8]) -> bool {
        let from_start = match start {
            Bound::Included(start) => (self.compare)(start, key).is_le(),
            Bound::Excluded(start) => (self.compare)(start, key).is_lt(),
            Bound::Unbounded => true,
        };
        let to_end = match end {
            Bound::Included(end) => (self.compare)(key, end).is_le(),
            Bound::Excluded(end) => (self.compare)(key, end).is_lt(),
            Bound::Unbounded => true,
        };
        from_start && to_end
    }

    fn range(&self, random: &mut Random) -> Range {
        let mut bound = || match random.below(4) {
            0 => Bound::Unbounded,
            1 => Bound::Excluded((self.key)(random.below(600))),
            _ => Bound::Included((self.key)(random.below(600))),
        };
        (bound(), bound())
    }

    /// Compares what all ways of reading tell.
    fn check(&self, family: &ColumnFamily, model: &Model, random: &mut Random) {
        let snapshot = family.snapshot().unwrap();
        assert_eq!(snapshot.len().unwrap(), model.len() as u64);
        let pair = |entry: peristyle::Result<(peristyle::Key, peristyle::Value)>| {
            let (key, value) = entry.unwrap();
            (key.to_vec(), value.to_vec())
        };
        assert!(snapshot.iter().map(pair).eq(model.iter().cloned()));
        assert!(snapshot.iter().rev().map(pair).eq(model.iter().rev().cloned()));
        let keys = |entry: Option<(peristyle::Key, peristyle::Value)>| entry.map(|(key, _)| key.to_vec());
        assert_eq!(keys(snapshot.first().unwrap()), model.first().map(|(key, _)| key.clone()));
        assert_eq!(keys(snapshot.last().unwrap()), model.last().map(|(key, _)| key.clone()));
        for _ in 0..6 {
            let range = self.range(random);
            let within: Model = model.iter().filter(|(key, _)| self.holds(&range, key)).cloned().collect();
            assert!(snapshot.range(range.clone()).map(pair).eq(within.iter().cloned()));
            assert!(snapshot.range(range.clone()).rev().map(pair).eq(within.iter().rev().cloned()));
            let mut cursor = snapshot.cursor_in(range);
            let mut scanned = Model::new();
            let end = cursor.scan(|key, value| {
                scanned.push((key.to_vec(), value.to_vec()));
                ControlFlow::<()>::Continue(())
            });
            assert!(end.unwrap().is_continue() && scanned == within);
            assert!(!cursor.is_valid() && cursor.key().is_empty());
            let broken = cursor.scan_back(|key, _| ControlFlow::Break(key.to_vec())).unwrap();
            assert_eq!(broken.break_value().as_deref(), within.last().map(|(key, _)| &key[..]));
            assert_eq!(cursor.key(), within.last().map_or(&[][..], |(key, _)| key));
        }
        let mut cursor = snapshot.cursor();
        for _ in 0..30 {
            let key = (self.key)(random.below(600));
            let place = self.place(model, &key);
            let value = place.ok().map(|index| &model[index].1[..]);
            assert_eq!(family.get(&key).unwrap().as_deref(), value);
            assert_eq!(snapshot.contains_key(&key).unwrap(), value.is_some());
            let (Ok(above) | Err(above)) = place;
            assert_eq!(cursor.seek(&key).unwrap(), above < model.len());
            if let Some((key, value)) = model.get(above) {
                assert_eq!((cursor.key(), cursor.value().unwrap()), (&key[..], &value[..]));
                assert_eq!(cursor.prev().unwrap(), above > 0);
                assert_eq!(cursor.key(), above.checked_sub(1).map_or(&[][..], |index| &model[index].0));
            }
            let below = if place.is_ok() { Some(above) } else { above.checked_sub(1) };
            assert_eq!(cursor.seek_for_prev(&key).unwrap(), below.is_some());
            if let Some(below) = below {
                assert_eq!(cursor.key(), model[below].0);
                assert_eq!(cursor.next().unwrap(), below + 1 < model.len());
            }
        }
        let points = snapshot.split_points(.., 5).unwrap();
        assert!(points.len() < 5 && points.is_sorted_by(|a, b| (self.compare)(a, b).is_lt()), "{points:?}");
        assert!(points.iter().all(|point| self.place(model, point).is_ok()));
        snapshot.approximate_len((self.key)(1)..).unwrap();
        let prefix = &(self.key)(random.below(600))[..1];
        if self.has_prefixes {
            let within = model.iter().filter(|(key, _)| key.starts_with(prefix)).cloned();
            assert!(snapshot.prefix(prefix).map(pair).eq(within));
        } else {
            let mut items = snapshot.prefix(prefix);
            failure(items.next().unwrap(), ErrorKind::NoPrefixes);
            assert!(items.next().is_none() && items.next_back().is_none());
            failure(family.delete_prefix(prefix), ErrorKind::NoPrefixes);
        }
    }
}

#[test]
fn everything_works_in_every_order() {
    for (number, case) in CASES.iter().enumerate() {
        for deltas in [false, true] {
            let storage = TestStorage::new();
            let cost = if deltas { 0 } else { u32::MAX };
            let open =
                || builder(&storage).merge_cost(cost).key_order((case.order)()).open("memory").unwrap();
            let mut db = open();
            let mut family = db.create_column_family("own", with((case.order)())).unwrap();
            let mut random = Random::new(number as u64);
            let mut model = Model::new();
            for round in 0..10u32 {
                for _ in 0..150 {
                    let (key, value) = ((case.key)(random.below(600)), round.to_be_bytes());
                    match random.below(10) {
                        0..6 => {
                            family.put(&key, value).unwrap();
                            case.put(&mut model, &key, &value);
                        }
                        6 => {
                            family.delete(&key).unwrap();
                            case.delete(&mut model, &key);
                        }
                        7 => {
                            let other = (case.key)(random.below(600));
                            let mut batch = WriteBatch::new();
                            batch.put(&family, &key, value).delete(&family, &other);
                            let shown: Vec<_> = batch.iter().map(|(_, operation)| operation).collect();
                            let expected = [
                                Operation::Put { key: &key, value: &value },
                                Operation::Delete { key: &other },
                            ];
                            assert_eq!(shown, expected);
                            db.write(&batch).unwrap();
                            case.put(&mut model, &key, &value);
                            case.delete(&mut model, &other);
                        }
                        8 => {
                            let mut transaction = db.begin().unwrap();
                            transaction.put(&family, &key, value).unwrap();
                            case.put(&mut model, &key, &value);
                            let mut items = transaction.iter(&family).unwrap();
                            let mut own = model.iter();
                            assert!(items.all(|item| *item.unwrap().0 == own.next().unwrap().0));
                            let mut cursor = transaction.cursor(&family).unwrap();
                            assert!(cursor.seek(&key).unwrap());
                            assert_eq!((cursor.key(), cursor.value().unwrap()), (&key[..], &value[..]));
                            transaction.commit().unwrap();
                        }
                        _ => {
                            family.update(&key, |old| old.is_none().then_some("new")).unwrap();
                            match case.place(&model, &key) {
                                Ok(_) => case.delete(&mut model, &key),
                                Err(_) => case.put(&mut model, &key, b"new"),
                            }
                        }
                    }
                }
                let range = case.range(&mut random);
                if round % 3 == 1 && !matches!(range, (Bound::Unbounded, Bound::Unbounded)) {
                    family.delete_range(range.clone()).unwrap();
                    model.retain(|(key, _)| !case.holds(&range, key));
                }
                case.check(&family, &model, &mut random);
                match round % 5 {
                    0 | 3 => db.flush().unwrap(),
                    1 => db.compact().unwrap(),
                    2 => {
                        drop(family);
                        db.close().unwrap();
                        db = open();
                        family = db.column_family("own").unwrap();
                        assert_eq!(family.options(), with((case.order)()));
                    }
                    _ => {}
                }
                case.check(&family, &model, &mut random);
            }
            assert_clean(&db);
        }
    }
}

#[test]
fn prefixes_are_deleted_in_reverse_order() {
    let db = builder(&TestStorage::new()).open("memory").unwrap();
    let family = db.create_column_family("own", with(KeyOrder::reverse())).unwrap();
    for key in ["a", "a\0", "a\0b", "ab", "b", ""] {
        family.put(key, "value").unwrap();
    }
    family.delete_prefix("a\0").unwrap();
    let mut batch = WriteBatch::new();
    batch.delete_prefix(&family, "ab");
    db.write(&batch).unwrap();
    let keys: Vec<_> = family.iter().unwrap().map(|entry| entry.unwrap().0.to_vec()).collect();
    assert_eq!(keys, [&b"b"[..], b"a", b""]);
    let transaction = db.begin().unwrap();
    assert_eq!(transaction.prefix(&family, "a").unwrap().count(), 1);
    family.delete_prefix("").unwrap();
    assert!(family.is_empty().unwrap());
}

#[test]
fn a_family_keeps_its_order_and_refuses_others() {
    let storage = TestStorage::new();
    let db = builder(&storage).open("memory").unwrap();
    let bytes = db.create_column_family("bytes", FamilyOptions::default()).unwrap();
    let own = db.create_column_family("own", with(longest_first())).unwrap();
    let reverse = db.create_column_family("reverse", with(KeyOrder::reverse())).unwrap();
    for family in [&bytes, &own, &reverse] {
        family.put("key", "value").unwrap();
        family.put("another", "value").unwrap();
    }
    // Options without an order leave it as it is, in the catalog, too.
    own.set_options(FamilyOptions::default().page_fill(80)).unwrap();
    db.rename_column_family("reverse", "turned").unwrap();
    let differs = |result: peristyle::Result<()>, own: &str, given: &str| {
        let message = failure(result, ErrorKind::KeyOrderDiffers).to_string();
        assert!(message.contains(own) && message.contains(given), "{message}");
    };
    let turned = with(KeyOrder::reverse());
    differs(own.set_options(turned.clone()), "longest first", "peristyle.reverse");
    differs(bytes.set_options(turned.clone()), "bytes", "peristyle.reverse");
    drop((bytes, own, reverse));
    db.close().unwrap();

    let db = builder(&storage).open("memory").unwrap();
    let error = failure(db.column_family("own"), ErrorKind::KeyOrderMissing);
    assert!(error.to_string().contains("longest first"), "{error}");
    for open in [ColumnFamilyDatabase::column_family_or_create, ColumnFamilyDatabase::ensure_column_family] {
        let open = |name: &str, options: &FamilyOptions| open(&db, name, options.clone()).map(drop);
        differs(open("own", &turned), "longest first", "peristyle.reverse");
        differs(open("own", &FamilyOptions::default()), "longest first", "bytes");
        differs(open("turned", &FamilyOptions::default()), "peristyle.reverse", "bytes");
        differs(open("turned", &with(KeyOrder::native_u64())), "peristyle.reverse", "peristyle.u64");
        differs(open("bytes", &turned), "bytes", "peristyle.reverse");
    }
    let shortest = KeyOrder::new("shortest first", |_, _| Ok(()));
    let other = builder(&storage.copy()).key_order(shortest).open("memory").unwrap();
    failure(other.column_family("own"), ErrorKind::KeyOrderMissing);
    // Whoever has not given the order can walk, and everything is kept; but he cannot name a key.
    let absent = db.column_families().unwrap().into_iter().find(|family| family.name() == "own").unwrap();
    assert_eq!(absent.iter().unwrap().count(), 2);
    failure(absent.get("key"), ErrorKind::KeyOrderMissing);
    failure(absent.put("key", "new"), ErrorKind::KeyOrderMissing);
    db.compact().unwrap();
    assert_clean(&db);
    let own = db.column_family_or_create("own", with(longest_first()).page_fill(80)).unwrap();
    assert_eq!(own.first().unwrap().unwrap().0, "another");
    assert_eq!(absent.get("key").unwrap().unwrap(), "value");
    assert_eq!(db.column_family("own").unwrap().options(), with(longest_first()).page_fill(80));
    // What comes with the engine it knows.
    assert_eq!(db.column_family("turned").unwrap().first().unwrap().unwrap().0, "key");
    failure(
        db.create_column_family("none", with(KeyOrder::new("", |_, _| Ok(())))),
        ErrorKind::InvalidArgument,
    );
    let ours = KeyOrder::new("peristyle.own", |_, _| Ok(()));
    failure(db.create_column_family("none", with(ours)), ErrorKind::InvalidArgument);
}

#[test]
fn an_older_catalog_entry_is_no_way_around_the_order() {
    // Other options stand in a record of their own, which does not say the order; then the family is written
    // whole.
    let storage = TestStorage::new();
    let options = || with(KeyOrder::native_u32());
    for round in 0u8..4 {
        let db = builder(&storage).open("memory").unwrap();
        let family = db.ensure_column_family("own", options().page_fill(70 + round)).unwrap();
        family.put(u32::from(round).to_ne_bytes(), "value").unwrap();
        let copy = storage.copy();
        let killed = builder(&copy).open("memory").unwrap();
        let found = killed.column_family("own").unwrap();
        assert_eq!(found.options(), options().page_fill(70 + round));
        if round % 2 == 1 {
            db.checkpoint().unwrap();
        }
        let keys = family.iter().unwrap().map(|entry| entry.unwrap().0[..].try_into().unwrap());
        assert!(keys.map(u32::from_ne_bytes).eq(0..=u32::from(round)));
    }
}

/// An order that fails, panics or lies when it is told to.
#[derive(Clone, Default)]
struct Guest {
    fails: Arc<AtomicBool>,
    lies: Arc<AtomicBool>,
    calls: Arc<AtomicU32>,
}

impl Guest {
    fn order(&self) -> KeyOrder {
        let guest = self.clone();
        KeyOrder::new("guest", move |key, sort_key| {
            let call = guest.calls.fetch_add(1, Ordering::SeqCst);
            sort_key.extend(key.iter().rev());
            if guest.fails.load(Ordering::SeqCst) && key.starts_with(b"bad") {
                assert!(!key.ends_with(b"panic"), "this key is not for me");
                return Err("no".into());
            }
            if guest.lies.load(Ordering::SeqCst) {
                sort_key.insert(0, call.wrapping_mul(167) as u8);
            }
            Ok(())
        })
    }
}

#[test]
fn an_order_that_fails_fails_what_it_was_asked_for_and_nothing_else() {
    let guest = Guest::default();
    let db = builder(&TestStorage::new()).open("memory").unwrap();
    let family = db.create_column_family("own", with(guest.order())).unwrap();
    for key in ["bad error", "bad panic", "good"] {
        family.put(key, "old").unwrap();
    }
    let last = db.snapshot().unwrap().sequence_number();
    guest.fails.store(true, Ordering::SeqCst);
    let mut transaction = db.begin().unwrap();
    let snapshot = family.snapshot().unwrap();
    for (bad, reason) in [("bad error", "no"), ("bad panic", "panicked: this key is not for me")] {
        let fails = |result: peristyle::Result<()>| {
            let error = failure(result, ErrorKind::KeyOrderFailed);
            assert_eq!(error.key().unwrap(), bad.as_bytes());
            assert_eq!(error.location().family, Some(family.id().0));
            let message = error.to_string();
            assert!(message.contains("\"guest\"") && message.contains(reason), "{message}");
        };
        fails(family.put(bad, "new").map(drop));
        fails(family.delete(bad).map(drop));
        fails(family.delete_range(bad..).map(drop));
        fails(family.delete_range(..=bad).map(drop));
        fails(family.update(bad, |_| Some("new")).map(drop));
        fails(family.compare_and_swap(bad, None, None).map(drop));
        fails(family.get(bad).map(drop));
        fails(family.contains_key(bad).map(drop));
        fails(family.multi_get(["good", bad]).map(drop));
        fails(snapshot.get(bad).map(drop));
        let mut batch = WriteBatch::new();
        batch.put(&family, "good", "new").put(&family, bad, "new").put(&family, "other", "new");
        fails(db.write(&batch).map(drop));
        batch.clear();
        batch.delete_range(&family, bad..);
        fails(db.write(&batch).map(drop));
        let mut items = snapshot.range(bad..);
        fails(items.next().unwrap().map(drop));
        assert!(items.next().is_none());
        let mut cursor = snapshot.cursor_in(bad..);
        fails(cursor.first().map(drop));
        fails(cursor.next().map(drop));
        fails(cursor.value().map(drop));
        let mut cursor = snapshot.cursor();
        assert!(cursor.seek("good").unwrap());
        fails(cursor.seek(bad).map(drop));
        assert_eq!(cursor.key(), b"good", "it stands where it stood");
        fails(transaction.put(&family, bad, "new"));
        fails(transaction.delete(&family, bad));
        fails(transaction.get(&family, bad).map(drop));
        fails(transaction.get_for_update(&family, bad, LockMode::Exclusive).map(drop));
        fails(transaction.range(&family, bad..).map(drop));
        fails(transaction.cursor_in(&family, bad..).map(drop));
    }
    assert!(transaction.is_empty());
    transaction.put(&family, "good", "newer").unwrap();
    transaction.commit().unwrap();
    // What does not name them reads them, and keeping calls no order at all.
    let calls = guest.calls.load(Ordering::SeqCst);
    assert_eq!(family.iter().unwrap().count(), 3);
    db.flush().unwrap();
    db.compact().unwrap();
    assert_clean(&db);
    assert_eq!(guest.calls.load(Ordering::SeqCst), calls);
    guest.fails.store(false, Ordering::SeqCst);
    assert_eq!(family.get("bad panic").unwrap().unwrap(), "old");
    assert_eq!(family.get("good").unwrap().unwrap(), "newer");
    assert_eq!(db.snapshot().unwrap().sequence_number().0, last.0 + 1);
}

#[test]
fn an_order_that_lies_hides_keys_and_harms_nothing() {
    let guest = Guest::default();
    let storage = TestStorage::new();
    let db = builder(&storage).open("memory").unwrap();
    let family = db.create_column_family("own", with(guest.order())).unwrap();
    guest.lies.store(true, Ordering::SeqCst);
    for n in 0..2000u32 {
        family.put(n.to_be_bytes(), n.to_le_bytes()).unwrap();
        if n % 500 == 7 {
            family.delete_range(n.to_be_bytes()..(n + 1).to_be_bytes()).unwrap();
            db.flush().unwrap();
        }
    }
    db.compact().unwrap();
    assert_clean(&db);
    drop(family);
    drop(db);
    let db = builder(&storage.copy()).key_order(guest.order()).open("memory").unwrap();
    let family = db.column_family("own").unwrap();
    let walked: Vec<_> = family.iter().unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(walked.len() as u64, family.len().unwrap());
    for (key, value) in walked {
        let n = u32::from_be_bytes(key[..].try_into().unwrap());
        assert_eq!(value, n.to_le_bytes());
    }
    family.delete_range(..).unwrap();
    assert!(family.is_empty().unwrap());
}

#[test]
fn conflicts_and_locks_name_the_keys_that_users_see() {
    let db = builder(&TestStorage::new()).open("memory").unwrap();
    for order in [KeyOrder::reverse(), longest_first()] {
        let family = db.create_column_family(order.name(), with(order.clone())).unwrap();
        for key in ["a", "b", "c", "d"] {
            family.put(key, "old").unwrap();
        }
        let conflict_of = |read: &dyn Fn(&peristyle::Transaction), key: &str| {
            let mut transaction = db.begin().unwrap();
            read(&transaction);
            transaction.put(&family, "mine", "").unwrap();
            family.put(key, "new").unwrap();
            transaction.commit().map_err(|error| error.conflict().unwrap().clone())
        };
        let conflict = conflict_of(&|transaction| drop(transaction.get(&family, "a")), "a").unwrap_err();
        assert!(conflict.is_key() && conflict.start == b"a", "{conflict}");
        // From the order's first key of a range up to its last.
        let mut ends = ["b", "d"];
        ends.sort_by(|a, b| order.compare(a.as_bytes(), b.as_bytes()).unwrap());
        let walk = |transaction: &peristyle::Transaction| {
            assert_eq!(transaction.range(&family, ends[0]..ends[1]).unwrap().count(), 2);
        };
        let conflict = conflict_of(&walk, "c").unwrap_err();
        assert_eq!(
            (&conflict.start[..], conflict.end.as_deref()),
            (ends[0].as_bytes(), Some(ends[1].as_bytes()))
        );
        conflict_of(&walk, "a").unwrap();
        // As far as it was walked.
        let first = |transaction: &peristyle::Transaction| {
            assert_eq!(
                transaction.range(&family, ends[0]..ends[1]).unwrap().next().unwrap().unwrap().0,
                ends[0]
            );
        };
        let conflict = conflict_of(&first, ends[0]).unwrap_err();
        assert_eq!(conflict.start, ends[0].as_bytes());
        conflict_of(&first, "c").unwrap();

        let settings = db.transaction().level(IsolationLevel::ReadCommitted).pessimistic(true);
        let mut locks = settings.begin().unwrap();
        locks.delete_range(&family, ends[0]..ends[1]).unwrap();
        locks.put(&family, "a", "").unwrap();
        let mut held: Vec<_> =
            db.locks().held.iter().map(|lock| (lock.start.clone(), lock.end.clone())).collect();
        held.sort();
        let mut expected = [
            (b"a".to_vec(), Some(b"a\0".to_vec())),
            (ends[0].as_bytes().to_vec(), Some(ends[1].as_bytes().to_vec())),
        ];
        expected.sort();
        assert_eq!(held, expected);
        let mut other = settings.clone().lock_timeout(Duration::ZERO).begin().unwrap();
        let error = failure(other.put(&family, "c", ""), ErrorKind::LockTimeout);
        assert_eq!(error.awaited()[0].wanted.start, b"c");
        other.put(&family, "e", "").unwrap();
        drop(locks);
    }
}

#[test]
fn prepared_transactions_hold_keys_in_their_order() {
    let storage = TestStorage::new();
    let open =
        || builder(&storage).decision_wait(Duration::ZERO).key_order(longest_first()).open("memory").unwrap();
    let db = open();
    let family = db.create_column_family("own", with(longest_first())).unwrap();
    let mut transaction = db.begin().unwrap();
    assert!(transaction.get(&family, "read").unwrap().is_none());
    transaction.put(&family, "written", "value").unwrap();
    transaction.prepare("one").unwrap();
    drop((family, db));
    let db = open();
    let family = db.column_family("own").unwrap();
    for key in ["read", "written"] {
        let error = failure(family.put(key, "other"), ErrorKind::AwaitsDecision);
        assert_eq!(error.conflict().unwrap().start, key.as_bytes());
    }
    db.prepared_transactions().unwrap()[0].commit().unwrap();
    assert_eq!(family.get("written").unwrap().unwrap(), "value");
}

/// Appends, the key before everything.
struct WithKey;

impl MergeOperator for WithKey {
    fn name(&self) -> &str {
        "with key"
    }

    fn merge(&self, key: &[u8], existing: Option<&[u8]>, operands: MergeOperands<'_>) -> MergeResult {
        if key == b"bad" {
            return Err("no".into());
        }
        let parts: Vec<_> = [existing.unwrap_or(key)].into_iter().chain(operands).collect();
        Ok(parts.join(&b' '))
    }

    fn combine(&self, key: &[u8], operands: MergeOperands<'_>) -> Option<Vec<u8>> {
        assert!(key.len() < 5, "{}", key.escape_ascii());
        Some(operands.collect::<Vec<_>>().join(&b' '))
    }
}

#[test]
fn merge_operators_are_given_the_keys_that_users_see() {
    for order in [KeyOrder::reverse(), longest_first()] {
        let db = builder(&TestStorage::new()).merge_cost(0).open("memory").unwrap();
        let family = db.create_column_family("own", with(order).merge_operator(WithKey)).unwrap();
        for round in 0..3 {
            for key in ["a", "long", "bad"] {
                family.merge(key, round.to_string()).unwrap();
                family.merge(key, "again").unwrap();
            }
            db.flush().unwrap();
        }
        let check = || {
            assert_eq!(family.get("a").unwrap().unwrap(), "a 0 again 1 again 2 again");
            let error = failure(family.get("bad"), ErrorKind::MergeFailed);
            assert_eq!(error.key().unwrap(), b"bad");
            let mut cursor = family.cursor().unwrap();
            assert!(cursor.seek("long").unwrap());
            assert_eq!(cursor.value().unwrap(), b"long 0 again 1 again 2 again");
        };
        check();
        db.compact().unwrap();
        check();
    }
}

#[test]
fn entries_with_an_order_expire_and_are_filtered_by_the_keys_that_users_see() {
    for order in [KeyOrder::reverse(), longest_first()] {
        let seconds = Arc::new(AtomicU32::new(100));
        let clock = Arc::clone(&seconds);
        let now = move || SystemTime::UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::SeqCst).into());
        let db = builder(&TestStorage::new()).clock(now).open("memory").unwrap();
        let options = with(order).expire_each().filter("no bad ones", |entry| {
            Ok(if entry.key() == b"bad" { FilterVerdict::Drop } else { FilterVerdict::Keep })
        });
        let family = db.create_column_family("own", options).unwrap();
        for key in ["bad", "good", "short"] {
            family
                .put_with_ttl(key, "value", Duration::from_secs(if key == "short" { 5 } else { 50 }))
                .unwrap();
        }
        let mut batch = WriteBatch::new();
        batch.put_with_ttl(&family, "batch", "value", Duration::from_secs(5));
        db.write(&batch).unwrap();
        let mut transaction = db.begin().unwrap();
        transaction.put_with_ttl(&family, "own", "value", Duration::from_secs(5)).unwrap();
        assert!(transaction.contains_key(&family, "own").unwrap());
        transaction.commit().unwrap();
        db.flush().unwrap();
        db.compact().unwrap();
        let keys = || {
            let mut keys: Vec<_> = family.iter().unwrap().map(|entry| entry.unwrap().0.to_vec()).collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(), [&b"batch"[..], b"good", b"own", b"short"]);
        seconds.store(105, Ordering::SeqCst);
        assert_eq!(keys(), [b"good"]);
        assert!(family.get("good").unwrap().is_some() && family.get("short").unwrap().is_none());
    }
}

#[test]
fn keys_without_a_place_are_refused() {
    let db = builder(&TestStorage::new()).open("memory").unwrap();
    let numbers = db.create_column_family("numbers", with(KeyOrder::native_u32())).unwrap();
    let error = failure(numbers.put("five!", ""), ErrorKind::KeyOrderFailed);
    assert!(error.to_string().contains("4 bytes"), "{error}");
    failure(numbers.get(""), ErrorKind::KeyOrderFailed);
    failure(numbers.delete_range("a"..), ErrorKind::KeyOrderFailed);
    let reverse = db.create_column_family("reverse", with(KeyOrder::reverse())).unwrap();
    let longest = vec![b'k'; (64 << 10) - 2];
    reverse.put(&longest, "value").unwrap();
    assert_eq!(reverse.get(&longest).unwrap().unwrap(), "value");
    failure(reverse.put([&longest[..], b"k"].concat(), ""), ErrorKind::KeyTooLarge);
    failure(reverse.put(vec![0; 40_000], ""), ErrorKind::KeyTooLarge);
    failure(reverse.delete_prefix(vec![0; 40_000]), ErrorKind::KeyTooLarge);
    db.flush().unwrap();
    assert_eq!(reverse.iter().unwrap().count(), 1);
    let own = db.create_column_family("own", with(longest_first())).unwrap();
    failure(own.put(&longest, ""), ErrorKind::KeyTooLarge);
    // A range of all, upside down, and of nothing.
    own.put("key", "").unwrap();
    own.delete_range("a".."long").unwrap();
    own.delete_range("key".."key").unwrap();
    assert_eq!(own.range("a".."long").unwrap().count(), 0);
    assert_eq!(own.range("long".."a").unwrap().count(), 1);
    own.delete_range("key"..="key").unwrap();
    assert!(own.is_empty().unwrap());
}
