//! What the database keeps of the disk and of memory, and what it gives back.

mod common;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::random::Random;
use common::{assert_clean, eventually, shrunken};
use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, DatabaseBuilder, Durability, FamilyOptions, MemoryStorage, WriteBatch,
};

/// Held by every test here: what readers of one database hold up is not given back in another of the same
/// process, either.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(storage: &MemoryStorage) -> ColumnFamilyDatabase {
    manual().storage(storage.clone()).open("memory").unwrap()
}

fn manual() -> DatabaseBuilder {
    shrunken().automatic_maintenance(false)
}

fn create(db: &ColumnFamilyDatabase, name: &str) -> ColumnFamily {
    db.create_column_family(name, FamilyOptions::default()).unwrap()
}

fn used(db: &ColumnFamilyDatabase) -> u64 {
    let statistics = db.statistics();
    statistics.data_file_bytes - statistics.data_free_bytes
}

#[test]
fn an_idle_family_does_not_pin_the_log() {
    let _alone = alone();
    for automatic in [false, true] {
        let storage = MemoryStorage::new();
        let db = shrunken().automatic_maintenance(automatic).storage(storage.clone()).open("memory").unwrap();
        let (idle, busy) = (create(&db, "idle"), create(&db, "busy"));
        idle.put("key", "value").unwrap();
        for n in 0..20_000u32 {
            busy.put((n % 500).to_be_bytes(), [n as u8; 200]).unwrap();
        }
        // Twenty thousand records would take more than four MiB.
        eventually("the log is cut", || {
            db.checkpoint().unwrap();
            db.statistics().log.bytes_on_disk <= 256 << 10
        });
        // By now there are spare segments, and this needs more than the one that may be ready.
        for n in 0..1000u32 {
            busy.put((n % 500).to_be_bytes(), [n as u8; 200]).unwrap();
        }
        let log = db.statistics().log;
        assert!(log.segments_recycled > 0, "{log:?}");
        eventually("the log is cut again", || {
            db.checkpoint().unwrap();
            db.statistics().log.bytes_on_disk <= 256 << 10
        });
        assert_eq!(idle.get("key").unwrap().unwrap(), "value");
        drop((idle, busy, db));
        let db = open(&storage);
        assert!(db.recovery_report().bytes <= 128 << 10, "{:?}", db.recovery_report());
        assert_eq!(db.column_family("idle").unwrap().get("key").unwrap().unwrap(), "value");
        assert_eq!(db.column_family("busy").unwrap().len().unwrap(), 500);
    }
}

#[test]
fn pages_that_are_free_are_used_again() {
    let _alone = alone();
    let storage = MemoryStorage::new();
    let db = open(&storage);
    let family = create(&db, "family");
    let mut random = Random::new(1);
    let mut round = |db: &ColumnFamilyDatabase| {
        for _ in 0..500 {
            let value = vec![random.next() as u8; 100 + random.below(200) as usize];
            family.put((random.below(2000) as u32).to_be_bytes(), value).unwrap();
        }
        db.flush().unwrap();
    };
    for _ in 0..20 {
        round(&db);
    }
    let settled = db.statistics().data_file_bytes;
    for _ in 0..60 {
        round(&db);
    }
    let later = db.statistics().data_file_bytes;
    assert!(later <= settled * 2, "the file grew from {settled} to {later} bytes by overwriting");
    assert_clean(&db);
}

#[test]
fn a_compaction_gives_deleted_space_back_and_keeps_the_rest() {
    let _alone = alone();
    let storage = MemoryStorage::new();
    let db = open(&storage);
    let family = create(&db, "family");
    for n in 0..5000u32 {
        family.put(n.to_be_bytes(), [n as u8; 500]).unwrap();
    }
    family.put("large", vec![9; 1 << 20]).unwrap();
    db.flush().unwrap();
    let full = storage.used_bytes();
    family.delete_range(100u32.to_be_bytes()..4900u32.to_be_bytes()).unwrap();
    family.delete("large").unwrap();
    db.compact().unwrap();
    let properties = db.family_properties(&family).unwrap();
    assert_eq!(properties.entries_in_tree, 200);
    eventually("the space of what was deleted is given back", || {
        db.compact().unwrap();
        storage.used_bytes() < full / 4
    });
    assert_eq!(family.len().unwrap(), 200);
    for n in (0..100u32).chain(4900..5000) {
        assert_eq!(family.get(n.to_be_bytes()).unwrap().unwrap(), [n as u8; 500]);
    }
    assert_clean(&db);
    db.close().unwrap();
    let db = open(&storage);
    assert_eq!(db.column_family("family").unwrap().len().unwrap(), 200);
    assert_clean(&db);
}

#[test]
fn leaves_are_packed_as_full_as_the_family_asks() {
    let _alone = alone();
    let storage = MemoryStorage::new();
    let db = open(&storage);
    let packed = create(&db, "packed");
    let loose = db.create_column_family("loose", FamilyOptions::default().page_fill(50)).unwrap();
    for n in 0..4000u32 {
        let mut batch = WriteBatch::new();
        batch.put(&packed, n.to_be_bytes(), [n as u8; 96]).put(&loose, n.to_be_bytes(), [n as u8; 96]);
        db.write(&batch).unwrap();
    }
    db.compact().unwrap();
    let bytes = |family| db.family_properties(family).unwrap().tree_bytes;
    // A hundred bytes an entry, and a few for its place in the page.
    assert!(bytes(&packed) < 4000 * 118, "{} bytes", bytes(&packed));
    assert!(bytes(&loose) > bytes(&packed) * 17 / 10, "{} and {} bytes", bytes(&loose), bytes(&packed));
}

#[test]
fn what_a_snapshot_holds_is_free_when_it_is_gone() {
    let _alone = alone();
    let storage = MemoryStorage::new();
    let db = open(&storage);
    let family = create(&db, "family");
    for n in 0..3000u32 {
        family.put(n.to_be_bytes(), [1; 400]).unwrap();
    }
    db.compact().unwrap();
    let before = used(&db);
    let snapshot = db.snapshot().unwrap();
    for n in 0..3000u32 {
        family.put(n.to_be_bytes(), [2; 400]).unwrap();
    }
    db.compact().unwrap();
    assert!(db.statistics().old_trees_held > 0);
    assert!(used(&db) > before * 17 / 10, "{} and {before} bytes", used(&db));
    let view = snapshot.column_family(&family).unwrap();
    assert!(view.iter().all(|entry| entry.unwrap().1 == [1; 400]));
    drop((view, snapshot));
    eventually("the pages of a snapshot are free", || {
        db.compact().unwrap();
        db.statistics().old_trees_held == 0 && used(&db) < before * 13 / 10
    });
    assert!(family.iter().unwrap().all(|entry| entry.unwrap().1 == [2; 400]));
    assert_clean(&db);
}

#[test]
fn memory_in_memtables_stays_within_the_budget() {
    let _alone = alone();
    let storage = MemoryStorage::new();
    let db = shrunken().write_buffer_bytes(1 << 20).storage(storage).open("memory").unwrap();
    let families: Vec<_> = (0..8).map(|n| create(&db, &format!("family {n}"))).collect();
    let mut most = 0;
    for n in 0..20_000u32 {
        families[n as usize % 8].put(n.to_be_bytes(), [n as u8; 300]).unwrap();
        if n % 50 == 0 {
            most = most.max(db.statistics().memtable_bytes);
        }
    }
    assert!(most <= 2 << 20, "{most} bytes in memtables of a budget of {}", 1 << 20);
    assert!(most > 0);
}

/// Bytes of memtables that are merged and that somebody still holds. What was replaced goes as time passes.
fn pinned(db: &ColumnFamilyDatabase, is_so: impl Fn(u64) -> bool) {
    eventually("what no reader holds is gone", || {
        db.flush().unwrap();
        is_so(db.statistics().memtable_bytes_pinned)
    });
}

#[test]
fn values_that_are_kept_hold_no_memtable() {
    let _alone = alone();
    for len in [1 << 10, (1 << 10) + 1, 5_000, 64 << 10, (64 << 10) + 1, 300_000] {
        let storage = MemoryStorage::new();
        let db = open(&storage);
        let family = create(&db, "family");
        let mut kept = Vec::new();
        for n in 0..40u32 {
            // Each beside others, which fill the memtable.
            family.put(n.to_be_bytes(), vec![n as u8; len]).unwrap();
            for other in 0..20u32 {
                family.put((1000 + 20 * n + other).to_be_bytes(), [7; 900]).unwrap();
            }
            kept.push(family.get(n.to_be_bytes()).unwrap().unwrap());
            let mut cursor = family.cursor().unwrap();
            assert!(cursor.seek(n.to_be_bytes()).unwrap());
            kept.push(cursor.owned_value().unwrap());
            kept.push(family.range(n.to_be_bytes()..).unwrap().next().unwrap().unwrap().1);
            if n % 7 == 0 {
                db.flush().unwrap();
            }
        }
        pinned(&db, |bytes| bytes == 0);
        for (n, value) in kept.iter().enumerate() {
            assert!(
                value.len() == len && value.iter().all(|&byte| byte == (n / 3) as u8),
                "{n} of {len} bytes"
            );
        }
    }
}

#[test]
fn memtables_that_readers_hold_after_they_were_merged_are_counted_until_they_let_go() {
    let _alone = alone();
    let storage = MemoryStorage::new();
    // Memtables that hold all of it.
    let db = manual().write_buffer_bytes(8 << 20).storage(storage).open("memory").unwrap();
    let (family, other) = (create(&db, "family"), create(&db, "other"));
    let fill = |n: u8| {
        for i in 0..20u32 {
            family.put(i.to_be_bytes(), [n; 1000]).unwrap();
        }
        other.put("key", [n]).unwrap();
    };
    let of = |family| db.family_properties(family).unwrap().memtable_bytes_pinned;
    fill(1);
    assert_eq!(db.statistics().memtable_bytes_pinned, 0, "what is not merged is no more than is written");
    let snapshot = db.snapshot().unwrap();
    let cursor = family.cursor().unwrap();
    fill(2);
    pinned(&db, |bytes| bytes >= 20_000);
    assert!(of(&family) >= 20_000 && of(&other) < 5_000, "{} and {}", of(&family), of(&other));
    drop(snapshot);
    // The cursor still holds that of its family.
    pinned(&db, |bytes| (20_000..60_000).contains(&bytes));
    drop(cursor);
    pinned(&db, |bytes| bytes == 0);
    fill(3);
    assert_eq!(db.statistics().memtable_bytes_pinned, 0);
}

#[test]
fn a_batch_larger_than_all_memtables_is_written_whole() {
    let _alone = alone();
    for durability in [Durability::Sync, Durability::Buffered, Durability::None] {
        let storage = MemoryStorage::new();
        let db = open(&storage);
        let (a, b) = (create(&db, "a"), create(&db, "b"));
        let mut batch = WriteBatch::new();
        for n in 0..20_000u32 {
            batch.put(&a, n.to_be_bytes(), [n as u8; 100]);
            batch.put(&b, n.to_be_bytes(), n.to_be_bytes());
        }
        batch.delete_range(&b, 5000u32.to_be_bytes()..15_000u32.to_be_bytes());
        batch.put(&b, 10_000u32.to_be_bytes(), "back again");
        let snapshot = db.snapshot().unwrap();
        db.write_with(&batch, durability).unwrap();
        assert!(snapshot.column_family(&a).unwrap().is_empty().unwrap());
        let check = |db: &ColumnFamilyDatabase| {
            assert_eq!(db.column_family("a").unwrap().len().unwrap(), 20_000);
            let b = db.column_family("b").unwrap();
            assert_eq!(b.len().unwrap(), 10_001);
            assert_eq!(b.get(10_000u32.to_be_bytes()).unwrap().unwrap(), "back again");
            assert_eq!(b.get(5000u32.to_be_bytes()).unwrap(), None);
        };
        check(&db);
        drop((a, b, snapshot, db));
        let db = open(&storage);
        check(&db);
        db.flush().unwrap();
        check(&db);
        assert_clean(&db);
    }
}

#[test]
fn values_of_many_megabytes_are_written_read_replaced_and_given_back() {
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("database");
    let open = || manual().open(&path).unwrap();
    let db = open();
    let family = create(&db, "family");
    let large = |n: u8| -> Vec<u8> { (0..20u32 << 20).map(|i| (i >> 8) as u8 ^ n).collect() };
    family.put("large", large(1)).unwrap();
    let held = family.get("large").unwrap().unwrap();
    db.flush().unwrap();
    let from_tree = family.get("large").unwrap().unwrap();
    family.put("large", large(2)).unwrap();
    assert!(held == large(1) && from_tree == large(1));
    assert!(family.get("large").unwrap().unwrap() == large(2));
    db.flush().unwrap();
    drop((family, db));
    // What is held lives on without the database.
    assert!(held == large(1) && from_tree == large(1));
    drop((held, from_tree));
    let db = open();
    let family = db.column_family("family").unwrap();
    let mut cursor = family.cursor().unwrap();
    assert!(cursor.first().unwrap());
    assert!(cursor.value().unwrap() == large(2));
    drop(cursor);
    assert_clean(&db);
    family.delete("large").unwrap();
    eventually("the space of a large value is given back", || {
        db.compact().unwrap();
        db.statistics().data_file_bytes < 4 << 20
    });
}

#[test]
fn what_is_read_after_the_database_was_opened_again_is_right_or_an_error() {
    let _alone = alone();
    let storage = MemoryStorage::new();
    let db = open(&storage);
    let family = create(&db, "family");
    let model: BTreeMap<_, _> =
        (0..2000u32).map(|n| (n.to_be_bytes().to_vec(), vec![n as u8; 300])).collect();
    for (key, value) in &model {
        family.put(key, value).unwrap();
    }
    family.put([0xff], vec![7; 100_000]).unwrap();
    db.flush().unwrap();
    let snapshot = family.snapshot().unwrap();
    let mut cursor = family.cursor().unwrap();
    db.close().unwrap();
    drop(family);
    // Whoever opens it next may overwrite the pages that the old snapshot reads.
    let db = open(&storage);
    let family = db.column_family("family").unwrap();
    for n in 0..3000u32 {
        family.put(n.to_be_bytes(), [0xee; 300]).unwrap();
    }
    family.put([0xff], vec![0xee; 100_000]).unwrap();
    db.compact().unwrap();
    let mut stale = 0;
    let mut is_stale = |error: peristyle::Error| {
        assert_eq!(error.kind(), peristyle::ErrorKind::StaleReader, "{error}");
        assert!(error.location().page.is_some(), "{error}");
        stale += 1;
    };
    for (key, value) in &model {
        match snapshot.get(key) {
            Ok(found) => assert_eq!(found.unwrap(), *value),
            Err(error) => is_stale(error),
        }
    }
    match snapshot.get([0xff]) {
        Ok(found) => assert_eq!(found.unwrap(), vec![7; 100_000]),
        Err(error) => is_stale(error),
    }
    let mut expected = model.iter();
    loop {
        match cursor.next() {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                is_stale(error);
                break;
            }
        }
        let Some((key, value)) = expected.next() else { break };
        assert_eq!(cursor.key(), key);
        match cursor.value() {
            Ok(found) => assert_eq!(found, value),
            Err(error) => is_stale(error),
        }
    }
    assert!(stale > 0, "nothing was overwritten");
    drop((snapshot, cursor));
    assert_eq!(family.len().unwrap(), 3001);
    assert_clean(&db);
}
