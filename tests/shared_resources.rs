//! Databases that share background threads and memory: as many threads as one has, one total, and otherwise
//! nothing that one notices of another.

#![cfg(target_os = "linux")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::thread;

use common::random::Random;
use common::storage::{Strike, TestStorage};
use common::{assert_clean, eventually, failure};
use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, DatabaseBuilder, Durability, ErrorKind, FamilyOptions, MemoryStorage,
    SharedResources, WriteBatch,
};

/// Threads of the process are counted: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// What the system says of each thread of the engine in this process.
fn engine_threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // One that ends meanwhile has none.
    let statuses = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).ok());
    statuses.filter(|status| status.starts_with("Name:\tperistyle-")).collect()
}

/// A thread gives itself its name, and one that was waited for may still be listed.
#[track_caller]
fn assert_engine_threads(count: usize) {
    eventually("as many threads as there are to be", || engine_threads().len() == count);
}

/// How often threads of the engine in this process woke so far.
fn wakes() -> u64 {
    let of = |status: &String| {
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:"));
        line.and_then(|line| line.split_whitespace().last()?.parse::<u64>().ok()).unwrap_or(0)
    };
    engine_threads().iter().map(of).sum()
}

fn resources(memory: u64) -> SharedResources {
    SharedResources::builder().memory_bytes(memory).background_threads(2).build().unwrap()
}

/// Threads of [`resources`]: two that merge, two that make checkpoints, one for logs and one for the clock.
const THREADS: usize = 6;

fn builder(resources: &SharedResources) -> DatabaseBuilder {
    ColumnFamilyDatabase::builder().shared(resources).page_size(4096)
}

fn open(resources: &SharedResources) -> ColumnFamilyDatabase {
    builder(resources).storage(MemoryStorage::new()).open("memory").unwrap()
}

fn family(db: &ColumnFamilyDatabase) -> ColumnFamily {
    db.column_family_or_create("family", FamilyOptions::default()).unwrap()
}

#[test]
fn a_hundred_databases_have_the_threads_of_one_and_the_last_handle_ends_them() {
    let _alone = alone();
    let resources = resources(64 << 20);
    let mut databases: Vec<_> = (0..100).map(|_| open(&resources)).collect();
    assert_engine_threads(THREADS);
    for (number, db) in databases.iter().enumerate() {
        let family = family(db);
        for n in 0..200u32 {
            family.put(n.to_be_bytes(), number.to_string()).unwrap();
        }
        assert_eq!(family.get(7u32.to_be_bytes()).unwrap().unwrap(), number.to_string().as_bytes());
    }
    databases.iter().for_each(|db| db.flush().unwrap());
    assert_engine_threads(THREADS);
    for db in databases.split_off(50) {
        db.close().unwrap();
    }
    assert_engine_threads(THREADS);
    for db in &databases {
        db.wait_until_idle().unwrap();
        assert_eq!(db.family_properties(&family(db)).unwrap().entries_in_tree, 200);
    }
    drop(resources);
    assert_engine_threads(THREADS);
    drop(databases);
    assert_engine_threads(0);
}

#[test]
fn a_database_of_its_own_has_threads_of_its_own() {
    let _alone = alone();
    let resources = resources(64 << 20);
    let own = ColumnFamilyDatabase::builder().background_threads(3).storage(MemoryStorage::new());
    let own = own.open("memory").unwrap();
    assert_engine_threads(THREADS + 3 + 3);
    drop(own);
    assert_engine_threads(THREADS);
    let shared = open(&resources);
    let handle = family(&shared);
    drop((resources, shared));
    handle.put("key", "value").unwrap();
    assert_engine_threads(THREADS);
    drop(handle);
    assert_engine_threads(0);
}

#[test]
fn settings_that_contradict_what_is_shared_are_refused() {
    let _alone = alone();
    let resources = resources(64 << 20);
    let builder = || builder(&resources).storage(MemoryStorage::new());
    failure(builder().memory_bytes(64 << 20).open("memory"), ErrorKind::InvalidArgument);
    failure(builder().cache_bytes(8 << 20).open("memory"), ErrorKind::InvalidArgument);
    failure(builder().write_buffer_bytes(8 << 20).open("memory"), ErrorKind::InvalidArgument);
    failure(builder().background_threads(2).open("memory"), ErrorKind::InvalidArgument);
    failure(SharedResources::builder().background_threads(0).build(), ErrorKind::InvalidArgument);
    failure(SharedResources::builder().memory_bytes(1000).build(), ErrorKind::InvalidArgument);
    let parts = SharedResources::builder().memory_bytes(8 << 20).cache_bytes(8 << 20);
    failure(parts.build(), ErrorKind::InvalidArgument);
    let db = builder().open("memory").unwrap();
    assert_eq!(db.memory_report().budget_bytes, 64 << 20);
    assert_eq!(resources.memory_report().budget_bytes, 64 << 20);
}

#[test]
fn what_databases_keep_stays_within_the_total_that_they_share() {
    let _alone = alone();
    const TOTAL: u64 = 48 << 20;
    let resources = resources(TOTAL);
    let databases: Vec<_> = (0..20).map(|_| open(&resources)).collect();
    let families: Vec<_> = databases.iter().map(family).collect();
    let key = |n: u32| n.wrapping_mul(2_654_435_761).to_be_bytes();
    let mut most = 0;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4usize)
            .map(|worker| {
                let families = &families;
                scope.spawn(move || {
                    for round in 0..3u32 {
                        for family in families.iter().skip(worker).step_by(4) {
                            for n in 0..10_000 {
                                family.put(key(n), [round as u8; 400]).unwrap();
                            }
                            for n in 0..4000 {
                                assert!(family.get(key(n)).unwrap().is_some());
                            }
                        }
                    }
                })
            })
            .collect();
        while !workers.iter().all(|worker| worker.is_finished()) {
            most = most.max(resources.memory_report().total_bytes());
            thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    assert!(most <= TOTAL, "{most} bytes of {TOTAL}: {:?}", resources.memory_report());
    let sum: u64 = databases.iter().map(|db| db.memory_report().total_bytes()).sum();
    assert!(sum > TOTAL / 4, "memory is there to be used");
    // What was closed leaves its memory to others, though handles are kept.
    let (last, others) = (databases.last().unwrap(), &databases[..19]);
    others.iter().for_each(|db| db.clone().close().unwrap());
    let report = resources.memory_report();
    assert_eq!(report, last.memory_report());
    for db in others {
        eventually("the pages of a closed database go", || db.memory_report().read_cache <= 1 << 20);
    }
    let family = families.last().unwrap();
    for _ in 0..3 {
        (0..10_000).for_each(|n| assert!(family.get(key(n)).unwrap().is_some()));
    }
    let before = family.cache_stats();
    (0..10_000).for_each(|n| assert!(family.get(key(n)).unwrap().is_some()));
    assert_eq!(family.cache_stats().evictions, before.evictions, "all of it fits by now");
    assert!(last.memory_report().read_cache > TOTAL / 20, "{:?}", last.memory_report());
}

#[test]
fn one_database_is_closed_and_opened_again_while_others_work() {
    let _alone = alone();
    let resources = resources(16 << 20);
    thread::scope(|scope| {
        for worker in 0..4u64 {
            let resources = &resources;
            scope.spawn(move || {
                let storage = TestStorage::new();
                let mut random = Random::new(worker);
                let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
                let open = |storage: &TestStorage| {
                    let builder = builder(resources).log_limit_bytes(256 << 10).storage(storage.clone());
                    builder.open("memory").unwrap()
                };
                for round in 0..12 {
                    let db = open(&storage);
                    let family = family(&db);
                    let snapshot = (db.snapshot().unwrap(), model.clone());
                    for _ in 0..400 {
                        let mut batch = WriteBatch::new();
                        for _ in 0..random.below(8) {
                            let key = random.below(1000).to_be_bytes().to_vec();
                            if random.once_in(4) {
                                batch.delete(&family, &key);
                                model.remove(&key);
                            } else {
                                let value = vec![random.next() as u8; random.below(600) as usize];
                                batch.put(&family, &key, &value);
                                model.insert(key, value);
                            }
                        }
                        let durability =
                            if random.once_in(50) { Durability::Sync } else { Durability::Buffered };
                        db.write_with(&batch, durability).unwrap();
                        let key = random.below(1000).to_be_bytes();
                        assert_eq!(family.get(key).unwrap().as_deref(), model.get(&key[..]).map(|v| &v[..]));
                    }
                    let entries = |iter: peristyle::Iter| -> BTreeMap<Vec<u8>, Vec<u8>> {
                        iter.map(|entry| entry.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap()).collect()
                    };
                    assert!(entries(family.iter().unwrap()) == model, "worker {worker}, round {round}");
                    let before = snapshot.0.column_family(&family).unwrap();
                    assert!(entries(before.iter()) == snapshot.1, "worker {worker}, round {round}");
                    drop((before, snapshot, family));
                    match round % 3 {
                        0 => db.close().unwrap(),
                        1 => drop(db),
                        _ => {
                            let killed = open(&storage.copy());
                            assert_clean(&killed);
                            let family = killed.column_family("family").unwrap();
                            assert!(
                                entries(family.iter().unwrap()) == model,
                                "worker {worker}, round {round}"
                            );
                        }
                    }
                }
            });
        }
    });
    assert_eq!(resources.memory_report().families, 0, "none is open");
}

#[test]
fn a_database_that_fails_keeps_no_other_from_going_on() {
    let _alone = alone();
    for strike in [Strike::Write, Strike::Sync] {
        let resources = resources(16 << 20);
        let storage = TestStorage::new();
        let failing = builder(&resources).storage(storage.clone()).open("memory").unwrap();
        let well = open(&resources);
        let (struck, other) = (family(&failing), family(&well));
        struck.put("key", "value").unwrap();
        storage.fail(strike, 0, true);
        assert!(failing.flush().is_err());
        failure(struck.put("key", "other"), ErrorKind::WriteFailed);
        for n in 0..20_000u32 {
            other.put(n.to_be_bytes(), [1; 200]).unwrap();
        }
        well.flush().unwrap();
        well.wait_until_idle().unwrap();
        assert_eq!(well.family_properties(&other).unwrap().entries_in_tree, 20_000);
        assert!(failing.close().is_err());
        other.put("key", "value").unwrap();
        well.flush().unwrap();
    }
}

#[test]
fn a_full_disk_of_one_database_holds_no_thread_that_others_need() {
    let _alone = alone();
    let resources = resources(16 << 20);
    let storage = TestStorage::new();
    let full = builder(&resources).storage(storage.clone()).open("memory").unwrap();
    let families: Vec<_> = (0..8)
        .map(|n| full.create_column_family(&format!("family {n}"), FamilyOptions::default()).unwrap())
        .collect();
    storage.set_full(true);
    // Until each of them waits for a merge that cannot be made.
    let mut refused = 0;
    for n in 0..200_000u32 {
        let family = &families[n as usize % 8];
        refused += u32::from(family.put_with(n.to_be_bytes(), [1; 200], Durability::None).is_err());
        if refused == 20 {
            break;
        }
    }
    let well = open(&resources);
    let other = family(&well);
    for n in 0..20_000u32 {
        other.put(n.to_be_bytes(), [1; 200]).unwrap();
    }
    well.flush().unwrap();
    storage.set_full(false);
    eventually("it goes on once there is space", || families[0].put("key", "value").is_ok());
    full.flush().unwrap();
    full.close().unwrap();
}

#[test]
fn idle_databases_wake_at_most_twice_a_second() {
    let _alone = alone();
    let resources = resources(64 << 20);
    let databases: Vec<_> = (0..20).map(|_| open(&resources)).collect();
    for db in &databases {
        family(db).put("key", "value").unwrap();
    }
    let second = std::time::Duration::from_secs(1);
    // The little that was written is synced, and then waits to be merged with more.
    thread::sleep(3 * second);
    let before = wakes();
    thread::sleep(3 * second);
    let woken = wakes() - before;
    assert!(woken <= 3 * 2 + 2, "{woken} times in three seconds");
}
