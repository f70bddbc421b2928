//! Budgets of memory: who gets what, and who keeps it.

mod common;

use common::shrunken;
use peristyle::{ColumnFamily, ColumnFamilyDatabase, DatabaseBuilder, FamilyOptions, MemoryStorage};
use std::time::{Duration, Instant};

/// Entries of 100 bytes: `len` of them take about `len / 32` pages.
fn fill(db: &ColumnFamilyDatabase, family: &ColumnFamily, len: u32) {
    for n in 0..len {
        family.put(n.to_be_bytes(), [n as u8; 100]).unwrap();
    }
    db.flush().unwrap();
}

fn read(family: &ColumnFamily, len: u32) {
    for n in 0..len {
        assert!(family.get(n.to_be_bytes()).unwrap().is_some());
    }
}

fn misses_of_reading(family: &ColumnFamily, len: u32) -> u64 {
    let before = family.cache_stats().misses;
    read(family, len);
    family.cache_stats().misses - before
}

fn create(db: &ColumnFamilyDatabase, name: &str) -> ColumnFamily {
    db.create_column_family(name, FamilyOptions::default()).unwrap()
}

fn builder(cache_bytes: u64) -> DatabaseBuilder {
    shrunken().cache_bytes(cache_bytes).write_buffer_bytes(4 << 20)
}

fn open(cache_bytes: u64) -> ColumnFamilyDatabase {
    builder(cache_bytes).automatic_maintenance(false).storage(MemoryStorage::new()).open("memory").unwrap()
}

/// Calls `done` until it says so.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_cache_that_holds_everything_keeps_it_whatever_other_families_do() {
    let db = open(16 << 20);
    let family = create(&db, "family");
    fill(&db, &family, 40_000);
    read(&family, 40_000);
    let before = family.cache_stats();
    assert!(before.resident_bytes > 4 << 20, "{before:?}");
    for n in 0..20 {
        let other = create(&db, &format!("other {n}"));
        fill(&db, &other, 100);
        assert_eq!(misses_of_reading(&family, 40_000), 0, "after {n} families came");
    }
    let after = family.cache_stats();
    assert_eq!((after.evictions, after.misses), (before.evictions, before.misses), "{after:?}");
}

#[test]
fn a_read_only_database_uses_all_of_its_cache() {
    let storage = MemoryStorage::new();
    let db = builder(16 << 20).storage(storage.clone()).open("memory").unwrap();
    fill(&db, &create(&db, "family"), 40_000);
    db.close().unwrap();
    let db = builder(16 << 20).read_only(true).storage(storage).open("memory").unwrap();
    let family = db.column_family("family").unwrap();
    assert!(misses_of_reading(&family, 40_000) > 1000);
    assert_eq!(misses_of_reading(&family, 40_000), 0);
    assert_eq!(family.cache_stats().evictions, 0);
}

#[test]
fn a_family_that_needs_more_gets_it_from_those_that_hold_more_than_their_part() {
    const TOTAL: u64 = 4 << 20;
    const LEN: u32 = 60_000;
    for read_only in [false, true] {
        let storage = MemoryStorage::new();
        let db = builder(TOTAL).storage(storage.clone()).open("memory").unwrap();
        for name in ["first", "second"] {
            fill(&db, &create(&db, name), LEN);
        }
        db.close().unwrap();
        let db = builder(TOTAL).read_only(read_only).storage(storage).open("memory").unwrap();
        let [first, second] = ["first", "second"].map(|name| db.column_family(name).unwrap());
        let held = |family: &ColumnFamily| {
            let stats = family.cache_stats();
            assert!(stats.resident_bytes <= stats.budget_bytes, "{stats:?}");
            stats.resident_bytes
        };
        until("the first takes all", || {
            read(&first, LEN);
            held(&first) > TOTAL / 10 * 8
        });
        until("the second takes what the first does not ask for", || {
            read(&second, LEN);
            held(&second) > TOTAL / 10 * 8
        });
        assert!(db.aggregate_cache_stats().budget_bytes <= TOTAL);
        assert!(held(&first) >= TOTAL / 20, "its part of half the total stays: {:?}", first.cache_stats());
    }
}

#[test]
fn budgets_for_writing_go_by_weight_and_by_work() {
    let db = open(4 << 20);
    let idle = create(&db, "idle");
    let busy = create(&db, "busy");
    let heavy = db.create_column_family("heavy", FamilyOptions::default().memtable_share(14)).unwrap();
    let budget = |family: &ColumnFamily| family.cache_stats().dirty_budget_bytes;
    fill(&db, &idle, 1);
    fill(&db, &heavy, 1);
    until("what works gets more", || {
        fill(&db, &busy, 1000);
        budget(&busy) > 2 * budget(&idle)
    });
    assert!(budget(&heavy) > 2 * budget(&idle));
}
