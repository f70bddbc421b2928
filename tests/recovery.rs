//! Opening a database whose log has to be replayed.

mod common;

use std::fs;

use common::storage::{Strike, TestStorage};
use common::{assert_clean, shrunken};
use peristyle::{ColumnFamilyDatabase, DatabaseBuilder, ErrorKind, FamilyOptions, WriteBatch};

const FAMILIES: [&str; 3] = ["one", "two", "three"];
const BATCHES: u32 = 60;
const KEYS: u32 = 40;
/// Budgets in bytes: one under which all that is written stays in memory, one that holds a small part of it.
const AMPLE: u64 = 64 << 20;
const SCANT: u64 = 256 << 10;

fn with_budget(bytes: u64) -> DatabaseBuilder {
    shrunken().write_buffer_bytes(bytes).log_limit_bytes(1 << 30).automatic_maintenance(false)
}

fn value(batch: u32, key: u32) -> [u8; 100] {
    [(batch * 7 + key) as u8; 100]
}

/// Batches over several families that are in the log alone: the later ones overwrite a part of the earlier
/// ones and delete what the batch before them put last.
fn storage_with_a_long_log() -> TestStorage {
    let storage = TestStorage::new();
    let db = with_budget(AMPLE).storage(storage.clone()).open("memory").unwrap();
    let families = FAMILIES.map(|name| db.create_column_family(name, FamilyOptions::default()).unwrap());
    for batch in 0..BATCHES {
        let mut writes = WriteBatch::new();
        for family in &families {
            for key in 0..KEYS {
                writes.put(family, (batch * KEYS / 2 + key).to_be_bytes(), value(batch, key));
            }
            writes.delete_range(family, ..(batch * KEYS / 4).to_be_bytes());
        }
        db.write(&writes).unwrap();
    }
    storage.copy()
}

#[track_caller]
fn assert_all_there(db: &ColumnFamilyDatabase) {
    for name in FAMILIES {
        let family = db.column_family(name).unwrap();
        let first = (BATCHES - 1) * KEYS / 4;
        let end = (BATCHES - 1) * KEYS / 2 + KEYS;
        let found: Vec<_> = family.iter().unwrap().map(Result::unwrap).collect();
        assert_eq!(found.len(), (end - first) as usize, "entries of {name}");
        for (number, (key, found)) in (first..end).zip(found) {
            let batch = (number / (KEYS / 2)).min(BATCHES - 1);
            assert_eq!(*key, number.to_be_bytes());
            assert_eq!(*found, value(batch, number - batch * KEYS / 2), "entry {number} of {name}");
        }
    }
    assert_clean(db);
}

#[test]
fn a_log_within_the_budget_is_replayed_into_memory_and_nothing_is_merged() {
    let storage = storage_with_a_long_log();
    for _ in 0..2 {
        let db = with_budget(AMPLE).storage(storage.clone()).open("memory").unwrap();
        assert_eq!(db.recovery_report().records_applied, u64::from(BATCHES));
        assert_eq!(db.statistics().merges, 0);
        assert_all_there(&db);
    }
}

#[test]
fn a_log_beyond_the_budget_is_merged_while_it_is_replayed_and_half_of_the_budget_is_left_to_writers() {
    let storage = storage_with_a_long_log();
    for _ in 0..2 {
        let db = with_budget(SCANT).storage(storage.clone()).open("memory").unwrap();
        let statistics = db.statistics();
        assert!(statistics.memtable_bytes <= SCANT / 2, "{} bytes of memtables", statistics.memtable_bytes);
        assert!(statistics.merges > 1, "{} merges", statistics.merges);
        assert_eq!(db.recovery_report().records_applied, u64::from(BATCHES));
        assert_all_there(&db);
    }
}

#[test]
fn a_replay_whose_merge_fails_fails_the_opening_and_can_be_done_again() {
    let storage = storage_with_a_long_log();
    // Of the writes all but the last few are of merges; a failed one leaves nothing that the next opening
    // finds.
    for calls in [0, 1, 5] {
        storage.fail(Strike::Write, calls, true);
        let error = with_budget(SCANT).storage(storage.clone()).open("memory").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        storage.heal();
    }
    let db = with_budget(SCANT).storage(storage.clone()).open("memory").unwrap();
    assert_all_there(&db);
}

#[test]
fn a_record_that_is_longer_than_all_that_is_read_ahead_is_replayed() {
    let storage = TestStorage::new();
    let db = with_budget(AMPLE).storage(storage.clone()).open("memory").unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for size in [10, 3 << 20, 10, 2 << 20] {
        family.put(u32::to_be_bytes(size), vec![size as u8; size as usize]).unwrap();
    }
    let db = with_budget(SCANT).storage(storage.copy()).open("memory").unwrap();
    let family = db.column_family("family").unwrap();
    for size in [10, 3 << 20, 2 << 20] {
        assert_eq!(family.get(u32::to_be_bytes(size)).unwrap().unwrap(), vec![size as u8; size as usize]);
    }
}

#[test]
fn a_closed_database_leaves_a_log_of_one_small_segment_however_much_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("database");
    let db = ColumnFamilyDatabase::builder().open(&path).unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for n in 0..3000u32 {
        family.put(n.to_be_bytes(), [n as u8; 1000]).unwrap();
    }
    db.close().unwrap();
    // Beside what is kept for a full disk.
    let segments = fs::read_dir(path.join("wal")).unwrap().map(Result::unwrap);
    let segments = segments.filter(|entry| !entry.file_name().to_string_lossy().starts_with("reserve-"));
    let lengths: Vec<u64> = segments.map(|entry| entry.metadata().unwrap().len()).collect();
    assert_eq!(lengths, [16 << 10]);
    let db = ColumnFamilyDatabase::open(&path).unwrap();
    assert_eq!((db.recovery_report().records, db.recovery_report().segments), (0, 1));
    assert_eq!(db.column_family("family").unwrap().len().unwrap(), 3000);
}
