//! Whole databases under a scheduler that decides, at every operation that synchronises, which thread goes
//! on.
//!
//! ```sh
//! RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR=target/shuttle cargo test --release --test schedules
//! ```
//!
//! `PERISTYLE_CASES` is how many schedules each test tries of each kind, `PERISTYLE_SEED` makes them the same
//! ones again. What fails leaves its schedule in a file that it names; `PERISTYLE_SCHEDULE=<file>` runs a
//! test in that one alone.

#![cfg(shuttle)]

#[path = "../common/mod.rs"]
mod common;
mod crashes;
mod explore;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::random::Random;
use common::{assert_clean, failure, shrunken};
use explore::explore;
use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, Durability, ErrorKind, FamilyOptions, IsolationLevel, LockMode,
    LockedWrites, MemoryStorage, Snapshot, StorageBackend, Transaction, WriteBatch,
};
use shuttle::rand::RngCore;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::thread;

// In what follows the body of a scope does nothing but spawn: while it waits for anything but the end of the
// scope, shuttle wakes it when the scope's last thread ends, whatever it waits for.

/// Numbers that are the same when the schedule is repeated.
fn random() -> Random {
    Random::new(shuttle::rand::thread_rng().next_u64())
}

fn open(storage: &MemoryStorage) -> ColumnFamilyDatabase {
    shrunken().storage(storage.clone()).open("memory").unwrap()
}

fn families(db: &ColumnFamilyDatabase, count: usize) -> Vec<ColumnFamily> {
    let name = |n| format!("family {n}");
    (0..count).map(|n| db.column_family_or_create(&name(n), FamilyOptions::default()).unwrap()).collect()
}

/// A number, and so much padding that a few of them fill a memtable.
fn value(number: u64, random: &mut Random) -> Vec<u8> {
    [&number.to_le_bytes()[..], &vec![7; 200 + random.below(600) as usize]].concat()
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().unwrap())
}

const WRITERS: usize = 2;
const FAMILIES: usize = 3;
/// Accounts of each writer in each family, and what each holds at first.
const ACCOUNTS: u64 = 2;
const OPENING_BALANCE: u64 = 1000;

fn account(writer: usize, number: u64) -> [u8; 2] {
    [writer as u8, number as u8]
}

/// All accounts, by family and key. Fails unless every writer's add up.
#[track_caller]
fn audit(snapshot: &Snapshot, families: &[ColumnFamily], backward: bool) -> BTreeMap<(usize, Vec<u8>), u64> {
    let mut accounts = BTreeMap::new();
    let mut sums = [0; WRITERS];
    for (n, family) in families.iter().enumerate() {
        let view = snapshot.column_family(family).unwrap();
        let mut iter = view.iter();
        while let Some(entry) = if backward { iter.next_back() } else { iter.next() } {
            let (key, value) = entry.unwrap();
            let balance = number(&value);
            assert_eq!(view.get(&key).unwrap().map(|value| number(&value)), Some(balance));
            sums[key[0] as usize] += balance;
            accounts.insert((n, key.to_vec()), balance);
        }
    }
    assert_eq!(sums, [OPENING_BALANCE * ACCOUNTS * FAMILIES as u64; WRITERS], "{accounts:?}");
    accounts
}

/// Moves money between one writer's accounts in all families.
fn transfer(db: &ColumnFamilyDatabase, families: &[ColumnFamily], writer: usize, rounds: u64) {
    let mut random = random();
    let mut balances = [[OPENING_BALANCE; ACCOUNTS as usize]; FAMILIES];
    for _ in 0..rounds {
        let (from, to) = (random.below(FAMILIES as u64) as usize, random.below(FAMILIES as u64) as usize);
        let (payer, payee) = (random.below(ACCOUNTS), random.below(ACCOUNTS));
        let amount = random.below(balances[from][payer as usize] + 1);
        balances[from][payer as usize] -= amount;
        balances[to][payee as usize] += amount;
        let mut batch = WriteBatch::new();
        for (family, number) in [(from, payer), (to, payee)] {
            let balance = balances[family][number as usize];
            batch.put(&families[family], account(writer, number), value(balance, &mut random));
        }
        let durability = [Durability::Sync, Durability::Buffered, Durability::None][random.below(3) as usize];
        db.write_with(&batch, durability).unwrap();
        // What was acknowledged is read at once.
        let read = families[to].get(account(writer, payee)).unwrap().unwrap();
        assert_eq!(number(&read), balances[to][payee as usize]);
    }
}

/// Counters whose padding fills memtables, so that merges come between reading and writing, too; and a
/// callback for each count, which finds it durable.
#[test]
fn counts_in_one_step_are_never_lost_and_told_of_once_they_are_durable() {
    const ROUNDS: u64 = 12;
    explore(1000, || {
        let storage = MemoryStorage::new();
        let db = open(&storage);
        let family = families(&db, 1).swap_remove(0);
        let told = Arc::new(AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..WRITERS {
                let (db, family, told) = (&db, &family, &told);
                scope.spawn(move || {
                    let mut random = random();
                    for _ in 0..ROUNDS {
                        let up = |old: Option<&[u8]>| Some(value(old.map_or(0, number) + 1, &mut random));
                        let count = family.update([0], up).unwrap();
                        let (asked, told) = (db.clone(), Arc::clone(told));
                        let tell = move |outcome: peristyle::Result<()>| {
                            outcome.unwrap();
                            assert!(asked.synced_through() >= count);
                            told.fetch_add(1, Ordering::SeqCst);
                        };
                        db.on_synced(count, tell).unwrap();
                    }
                });
            }
        });
        let counted = family.get([0]).unwrap().unwrap();
        assert_eq!(number(&counted), WRITERS as u64 * ROUNDS);
        drop(family);
        db.close().unwrap();
        while told.load(Ordering::SeqCst) < WRITERS as u64 * ROUNDS {
            thread::yield_now();
        }
        let db = open(&storage);
        let counted = families(&db, 1)[0].get([0]).unwrap().unwrap();
        assert_eq!(number(&counted), WRITERS as u64 * ROUNDS);
    });
}

#[test]
fn money_moved_between_families_is_never_seen_on_its_way() {
    explore(1000, || {
        let storage = MemoryStorage::new();
        let db = open(&storage);
        let families = families(&db, FAMILIES);
        let mut opening = WriteBatch::new();
        for writer in 0..WRITERS {
            for family in &families {
                for number in 0..ACCOUNTS {
                    opening.put(family, account(writer, number), value(OPENING_BALANCE, &mut random()));
                }
            }
        }
        db.write(&opening).unwrap();
        thread::scope(|scope| {
            let (db, families) = (&db, &families);
            for writer in 0..WRITERS {
                scope.spawn(move || transfer(db, families, writer, 16));
            }
            scope.spawn(move || {
                let held = db.snapshot().unwrap();
                let at_first = audit(&held, families, false);
                let mut last = held.sequence_number();
                for round in 0..4 {
                    let snapshot = db.snapshot().unwrap();
                    assert!(snapshot.sequence_number() >= last, "time went back");
                    last = snapshot.sequence_number();
                    let seen = audit(&snapshot, families, round % 2 == 1);
                    assert_eq!(audit(&snapshot, families, round % 2 == 0), seen);
                }
                assert_eq!(audit(&held, families, true), at_first);
            });
            scope.spawn(move || {
                let mut random = random();
                for _ in 0..3 {
                    let family = &families[random.below(FAMILIES as u64) as usize];
                    match random.below(5) {
                        0 => db.flush().unwrap(),
                        1 => db.checkpoint().unwrap(),
                        2 => db.flush_column_family(family).unwrap(),
                        3 => db.compact_column_family(family).unwrap(),
                        _ => assert_clean(db),
                    }
                }
            });
        });
        let last = audit(&db.snapshot().unwrap(), &families, false);
        assert!(db.statistics().checkpoints > 0);
        if random().once_in(2) {
            db.close().unwrap();
        } else {
            drop(db);
        }
        drop(families);
        let db = open(&storage);
        assert_eq!(audit(&db.snapshot().unwrap(), &self::families(&db, FAMILIES), false), last);
        assert_clean(&db);
    });
}

#[test]
fn what_is_acknowledged_is_read_at_once_by_everybody() {
    explore(1000, || {
        let db = open(&MemoryStorage::new());
        let families = families(&db, 2);
        let acknowledged = [AtomicU64::new(0), AtomicU64::new(0)];
        thread::scope(|scope| {
            for (family, acknowledged) in families.iter().zip(&acknowledged) {
                scope.spawn(move || {
                    let mut random = random();
                    for round in 1..=20u64 {
                        family.put("counter", value(round, &mut random)).unwrap();
                        acknowledged.store(round, Ordering::SeqCst);
                        family.put(round.to_be_bytes(), value(round, &mut random)).unwrap();
                        if round % 8 == 0 {
                            family.delete_range(..round.to_be_bytes()).unwrap();
                        } else {
                            family.delete((round - 1).to_be_bytes()).unwrap();
                        }
                        assert!(!family.contains_key((round - 1).to_be_bytes()).unwrap());
                    }
                });
            }
            let (families, acknowledged) = (&families, &acknowledged);
            for _ in 0..2 {
                scope.spawn(move || {
                    for round in 0..10 {
                        let (family, acknowledged) = (&families[round % 2], &acknowledged[round % 2]);
                        let counter =
                            |value: Option<peristyle::Value>| value.map_or(0, |value| number(&value));
                        let before = acknowledged.load(Ordering::SeqCst);
                        let read = counter(family.get("counter").unwrap());
                        assert!(read >= before, "read {read} after {before} was acknowledged");
                        let snapshot = family.snapshot().unwrap();
                        let held = counter(snapshot.get("counter").unwrap());
                        assert!(held >= read, "a snapshot saw {held} after {read} was read");
                        let len = snapshot.len().unwrap();
                        assert_eq!(len, snapshot.iter().collect::<Result<Vec<_>, _>>().unwrap().len() as u64);
                        // The counter, and one or two numbered entries.
                        assert!(len <= 3, "{len} entries");
                    }
                });
            }
            scope.spawn(|| db.wait_until_idle().unwrap());
        });
        assert_clean(&db);
    });
}

/// Counters that transactions lock and plain writes change beside them, with nobody who gives up waiting: a
/// schedule in which somebody is not woken comes to a standstill.
#[test]
fn what_is_locked_is_changed_by_one_at_a_time_and_whoever_waits_is_woken() {
    const ROUNDS: u64 = 6;
    explore(1000, || {
        let builder = shrunken().locked_writes(LockedWrites::Wait(Duration::MAX));
        let db = builder.storage(MemoryStorage::new()).open("memory").unwrap();
        let family = families(&db, 1).swap_remove(0);
        thread::scope(|scope| {
            for locker in 0..2u8 {
                let (db, family) = (&db, &family);
                scope.spawn(move || {
                    let mut random = random();
                    let level =
                        [IsolationLevel::ReadCommitted, IsolationLevel::Snapshot][usize::from(locker)];
                    let settings = db.transaction().level(level).pessimistic(true).tries(u32::MAX);
                    let settings = settings.lock_timeout(Duration::MAX);
                    for _ in 0..ROUNDS {
                        let keys = if random.once_in(2) { [0, 1] } else { [1, 0] };
                        let mode = if random.once_in(3) { LockMode::Shared } else { LockMode::Exclusive };
                        let run = |transaction: &mut Transaction| {
                            for key in keys {
                                let old = transaction.get_for_update(family, [key], mode)?;
                                let count = old.map_or(0, |old| number(&old)) + 1;
                                transaction.put(family, [key], value(count, &mut random))?;
                            }
                            Ok::<_, peristyle::Error>(())
                        };
                        settings.run(run).unwrap();
                    }
                });
            }
            let family = &family;
            scope.spawn(move || {
                let mut random = random();
                for round in 0..2 * ROUNDS {
                    let up = |old: Option<&[u8]>| Some(value(old.map_or(0, number) + 1, &mut random));
                    family.update([(round % 2) as u8], up).unwrap();
                }
            });
        });
        for key in [0, 1] {
            assert_eq!(number(&family.get([key]).unwrap().unwrap()), 3 * ROUNDS);
        }
        assert_eq!((db.locks().held.len(), db.locks().awaited.len()), (0, 0));
        assert_clean(&db);
    });
}

#[test]
fn families_come_and_go_beside_writers_readers_and_checkpoints() {
    const THREADS: u8 = 2;
    const ROUNDS: u8 = 2;
    const ENTRIES: u8 = 8;
    explore(1000, || {
        let storage = MemoryStorage::new();
        let db = open(&storage);
        let steady = db.create_column_family("steady", FamilyOptions::default()).unwrap();
        thread::scope(|scope| {
            let (db, steady) = (&db, &steady);
            for thread in 0..THREADS {
                scope.spawn(move || {
                    let mut random = random();
                    for round in 0..ROUNDS {
                        let name = format!("thread {thread} round {round}");
                        let family = db.create_column_family(&name, FamilyOptions::default()).unwrap();
                        for n in 0..ENTRIES {
                            let mut batch = WriteBatch::new();
                            batch.put(&family, [thread, n], value(n.into(), &mut random));
                            batch.put(steady, [thread, n], [round]);
                            db.write(&batch).unwrap();
                        }
                        let snapshot = db.snapshot().unwrap();
                        assert_eq!(family.len().unwrap(), ENTRIES.into());
                        if round == 0 {
                            db.drop_column_family(&name).unwrap();
                            failure(family.put("key", "value"), ErrorKind::FamilyDropped);
                            failure(family.get("key"), ErrorKind::FamilyDropped);
                        } else {
                            db.rename_column_family(&name, &format!("{name} renamed")).unwrap();
                        }
                        let held = snapshot.column_family(&family).unwrap();
                        let numbers = held.iter().map(|entry| number(&entry.unwrap().1)).collect::<Vec<_>>();
                        assert_eq!(numbers, (0..u64::from(ENTRIES)).collect::<Vec<_>>());
                    }
                });
            }
            scope.spawn(move || {
                for round in 0..3 {
                    match round % 3 {
                        0 => db.flush().unwrap(),
                        1 => db.compact().unwrap(),
                        _ => assert_clean(db),
                    }
                }
            });
            scope.spawn(move || {
                for name in ["steady", "thread 0 round 0", "thread 1 round 1 renamed"].iter().cycle().take(9)
                {
                    // It may be gone, or not there yet.
                    let Ok(family) = db.column_family(name) else { continue };
                    match family.iter() {
                        Ok(iter) => assert!(iter.collect::<Result<Vec<_>, _>>().unwrap().len() <= 16),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::FamilyDropped, "{error}"),
                    }
                }
            });
        });
        drop((steady, db));
        let db = open(&storage);
        let expected = ["steady", "thread 0 round 1 renamed", "thread 1 round 1 renamed"];
        assert_eq!(db.column_family_names(), expected);
        let lens = expected.map(|name| db.column_family(name).unwrap().len().unwrap());
        assert_eq!(lens, [u64::from(THREADS * ENTRIES), ENTRIES.into(), ENTRIES.into()]);
        assert_clean(&db);
    });
}

#[test]
fn pages_are_read_while_they_are_replaced_evicted_and_read_again() {
    const KEYS: u64 = 48;
    static EVICTED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    explore(1000, || {
        let storage = MemoryStorage::new();
        let db = shrunken().max_descriptors(2).storage(storage.clone()).open("memory").unwrap();
        let families = families(&db, 2);
        let mut fill = random();
        for family in &families {
            for key in 0..KEYS {
                let padding = if fill.once_in(8) { 3000 } else { 300 };
                family.put(key.to_be_bytes(), [&key.to_le_bytes()[..], &vec![1; padding]].concat()).unwrap();
            }
        }
        db.flush().unwrap();
        thread::scope(|scope| {
            let (db, families) = (&db, &families);
            for (reader, family) in families.iter().enumerate() {
                scope.spawn(move || {
                    let mut random = random();
                    let mut iter = family.iter().unwrap();
                    for _ in 0..12 {
                        let key = random.below(KEYS);
                        let read = families[reader ^ 1].get(key.to_be_bytes()).unwrap().unwrap();
                        assert_eq!(number(&read), key);
                        for _ in 0..random.below(8) {
                            let Some(entry) = iter.next() else { break };
                            let (key, value) = entry.unwrap();
                            assert_eq!(key, number(&value).to_be_bytes());
                        }
                    }
                    let multiple = family.multi_get((0..KEYS).map(u64::to_be_bytes)).unwrap();
                    let numbers = multiple.into_iter().map(|value| number(&value.unwrap()));
                    assert!(numbers.eq(0..KEYS));
                });
            }
            scope.spawn(move || {
                let mut random = random();
                for _ in 0..16 {
                    let (family, key) = (random.below(2), random.below(KEYS));
                    families[family as usize].put(key.to_be_bytes(), value(key, &mut random)).unwrap();
                }
                db.flush().unwrap();
                assert_clean(db);
            });
        });
        assert_clean(&db);
        let evicted = families.iter().map(|family| family.cache_stats().evictions).sum();
        EVICTED.fetch_add(evicted, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(EVICTED.load(std::sync::atomic::Ordering::Relaxed) > 0, "the cache is too large for this test");
}

#[test]
fn closing_beside_writers_keeps_what_was_acknowledged() {
    explore(1000, || {
        let storage = MemoryStorage::new();
        let db = open(&storage);
        let families = families(&db, 2);
        let acknowledged = [AtomicU64::new(0), AtomicU64::new(0)];
        thread::scope(|scope| {
            for (n, acknowledged) in acknowledged.iter().enumerate() {
                let (db, families) = (db.clone(), &families);
                scope.spawn(move || {
                    let mut random = random();
                    for round in 1..=16u64 {
                        let durability = [Durability::None, Durability::Buffered, Durability::Sync];
                        let durability = durability[random.below(3) as usize];
                        let mut batch = WriteBatch::new();
                        batch.put(&families[n], round.to_be_bytes(), value(round, &mut random));
                        batch.put(&families[n ^ 1], [n as u8], round.to_le_bytes());
                        match db.write_with(&batch, durability) {
                            Ok(_) => acknowledged.store(round, Ordering::SeqCst),
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                                break;
                            }
                        }
                    }
                });
            }
            let (db, acknowledged, storage) = (&db, &acknowledged, &storage);
            scope.spawn(move || {
                for _ in 0..random().below(60) {
                    thread::yield_now();
                }
                db.clone().close().unwrap();
                storage.lock("LOCK", true).expect("closed, and still locked");
            });
            // Another one may be first, or come while the first is at it.
            scope.spawn(move || {
                if acknowledged[0].load(Ordering::SeqCst) > 0 {
                    db.clone().close().unwrap();
                    storage.lock("LOCK", true).expect("closed, and still locked");
                }
            });
        });
        drop((families, db));
        let db = open(&storage);
        assert_eq!(db.recovery_report().records_applied, 0);
        let families = self::families(&db, 2);
        for (n, acknowledged) in acknowledged.iter().enumerate() {
            let rounds = acknowledged.load(Ordering::SeqCst);
            let noted = families[n ^ 1].get([n as u8]).unwrap().map_or(0, |value| number(&value));
            assert_eq!(noted, rounds);
            // Those that were acknowledged, and the note that the neighbour left.
            let of_neighbour = families[n].contains_key([(n ^ 1) as u8]).unwrap();
            assert_eq!(families[n].len().unwrap(), rounds + u64::from(of_neighbour));
        }
        assert_clean(&db);
    });
}
