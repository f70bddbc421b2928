//! The resident memory of a process that does nothing but use one database: alone in its test binary, so that
//! it has the process to itself.

#![cfg(target_os = "linux")]

use peristyle::{ColumnFamilyDatabase, FamilyOptions, WriteBatch};
use std::thread;

const TOTAL: u64 = 64 << 20;
const FAMILIES: u32 = 8;
const ENTRIES: u32 = 40_000;
const BATCH: u32 = 100;
/// What more of an unoptimised program stands in memory.
const PROGRAM: u64 = if cfg!(debug_assertions) { 8 << 20 } else { 0 };

/// The most memory that this process had so far, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn resident_memory_stays_within_one_number_and_a_tenth() {
    let directory = tempfile::tempdir().unwrap();
    let open =
        || ColumnFamilyDatabase::builder().memory_bytes(TOTAL).open(directory.path().join("db")).unwrap();
    let db = open();
    let families: Vec<_> = (0..FAMILIES)
        .map(|n| db.create_column_family(&format!("family {n}"), FamilyOptions::default()).unwrap())
        .collect();
    let key = |n: u32| n.wrapping_mul(2_654_435_761).to_be_bytes();
    for round in 0..2u8 {
        thread::scope(|scope| {
            for family in &families {
                let db = &db;
                scope.spawn(move || {
                    for first in (0..ENTRIES).step_by(BATCH as usize) {
                        let mut batch = WriteBatch::new();
                        for n in first..first + BATCH {
                            batch.put(family, key(n), [round; 400]);
                        }
                        db.write(&batch).unwrap();
                    }
                    for n in 0..ENTRIES / 4 {
                        let _ = family.get(key(n * 3)).unwrap();
                    }
                });
            }
        });
    }
    db.flush().unwrap();
    // What a killed process leaves is replayed within the same bounds.
    for family in &families {
        for n in 0..ENTRIES / 4 {
            family.put(key(n), [9; 400]).unwrap();
        }
    }
    drop((families, db));
    drop(open());
    let most = TOTAL + TOTAL / 10 + (16 << 20) + PROGRAM;
    assert!(peak() <= most, "{} KiB instead of {} KiB", peak() >> 10, most >> 10);
}
