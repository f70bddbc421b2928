//! Verification part by part, beside merges.

use std::time::Duration;

use crate::FamilyOptions;
use crate::db::{ColumnFamilyDatabase, VerifyOptions, VerifyProgress};
use crate::error::ErrorKind;
use crate::options::DatabaseBuilder;
use crate::segment::EXTENTS_START;
use crate::storage::{FileMode, MemoryStorage, StorageBackend};
use crate::sync::Instant;
use crate::txn::handle::ColumnFamily;

const PAGE: usize = 4096;

fn builder() -> DatabaseBuilder {
    ColumnFamilyDatabase::builder()
        .page_size(PAGE as u32)
        .automatic_maintenance(false)
        .write_buffer_bytes(2 << 20)
}

fn open(storage: &MemoryStorage) -> (ColumnFamilyDatabase, ColumnFamily) {
    let db = builder().storage(storage.clone()).open("memory").unwrap();
    let family = db.column_family_or_create("family", FamilyOptions::default()).unwrap();
    (db, family)
}

fn key(n: u32) -> [u8; 4] {
    n.wrapping_mul(0x9e37_79b9).to_be_bytes()
}

/// A tree of some 12 MiB, deltas in front of it, and some large values.
fn fill(db: &ColumnFamilyDatabase, family: &ColumnFamily) {
    for n in 0..20_000 {
        family.put(key(n), [n as u8; 500]).unwrap();
    }
    db.wait_until_idle().unwrap();
    for n in 0..20 {
        family.put(key(n), vec![n as u8; 5000]).unwrap();
    }
    for part in 0..2 {
        for n in (part..20_000).step_by(40) {
            family.put(key(n), [1; 100]).unwrap();
        }
        db.flush().unwrap();
    }
    assert!(db.family_properties(family).unwrap().deltas > 0);
}

#[test]
fn a_verification_in_parts_finds_what_one_of_the_whole_finds() {
    let storage = MemoryStorage::new();
    let (db, family) = open(&storage);
    fill(&db, &family);
    let whole = db.verify().unwrap();
    let (mut calls, mut last) = (0, VerifyProgress::default());
    let options = VerifyOptions::new().on_progress(|progress| {
        assert!(progress.bytes >= last.bytes && progress.families <= 1);
        (calls, last) = (calls + 1, progress);
    });
    let report = db.verify_with(options).unwrap();
    assert!(whole.is_clean() && report.is_clean(), "{:?} {:?}", whole.faults, report.faults);
    assert_eq!((report.pages, report.entries), (whole.pages, whole.entries));
    let properties = db.family_properties(&family).unwrap();
    assert_eq!(report.pages, properties.pages);
    assert_eq!(report.entries, properties.entries_in_tree + properties.entries_in_deltas);
    assert!(calls > 100, "{calls} calls");
    assert_eq!((last.families, last.families_in_all), (1, 1));
    assert_eq!((last.bytes, last.bytes_in_all), (properties.tree_bytes, properties.tree_bytes));
    report.into_result().unwrap();
}

#[test]
fn one_of_two_copies_that_is_damaged_is_a_fault() {
    const SLOTS: [u64; 2] = [0, 32 << 10];
    let storage = MemoryStorage::new();
    let (db, family) = open(&storage);
    family.put("key", "value").unwrap();
    db.flush().unwrap();
    db.checkpoint().unwrap();
    assert!(db.verify().unwrap().is_clean());
    let data = storage.open("data", FileMode::Write).unwrap();
    let word = |at: u64| {
        let mut bytes = [0; 8];
        data.read_at(&mut bytes, at).unwrap();
        u64::from_le_bytes(bytes)
    };
    let copies = [56, 64].map(|field| EXTENTS_START + word(field) * PAGE as u64);
    let len = word(72);
    for (begins, len) in SLOTS.map(|slot| (slot, 512)).into_iter().chain(copies.map(|copy| (copy, len))) {
        // The first byte, one of a record's body or of zeros behind it, and the last one.
        for at in [0, 48, len - 1] {
            let flip = || {
                let mut byte = [0];
                data.read_at(&mut byte, begins + at).unwrap();
                data.write_at(&[byte[0] ^ 1], begins + at).unwrap();
            };
            flip();
            let report = db.verify().unwrap();
            assert_eq!(report.faults.len(), 1, "byte {at} of {begins}: {:?}", report.faults);
            assert_eq!(report.faults[0].location().offset, Some(begins));
            flip();
        }
    }
    assert!(db.verify().unwrap().is_clean());
}

#[test]
fn a_bounded_rate_is_kept_and_bounds_the_parts() {
    let storage = MemoryStorage::new();
    let (db, family) = open(&storage);
    for n in 0..1000 {
        family.put(key(n), [n as u8; 500]).unwrap();
    }
    db.flush().unwrap();
    let mut steps = Vec::new();
    let rate = 4 << 20;
    let began = Instant::now();
    let options =
        VerifyOptions::new().bytes_per_second(rate).on_progress(|progress| steps.push(progress.bytes));
    assert!(db.verify_with(options).unwrap().is_clean());
    let bytes = *steps.last().unwrap();
    assert!(began.elapsed() >= Duration::from_secs_f64(bytes as f64 / rate as f64));
    let slow = VerifyOptions::new().bytes_per_second(1);
    let other = db.clone();
    let thread = std::thread::spawn(move || other.verify_with(slow).map(drop));
    std::thread::sleep(Duration::from_millis(20));
    db.close().unwrap();
    assert_eq!(thread.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_verification_keeps_nothing_between_its_parts_and_merges_meanwhile_are_no_faults() {
    let storage = MemoryStorage::new();
    let (db, family) = open(&storage);
    fill(&db, &family);
    let assert_nothing_is_held = || {
        // Other tests' readers put off what was let go of.
        let begun = Instant::now();
        while db.statistics().old_trees_held > 0 {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "a version is held for all of the verification"
            );
            crate::sync::epoch::drain();
            family.family().release_unread();
        }
    };
    let mut round = 0u32;
    let options = VerifyOptions::new().on_progress(|_| {
        assert_nothing_is_held();
        round += 1;
        if !round.is_multiple_of(8) {
            return;
        }
        // All over the keys, so that deltas come, are joined and drained.
        for n in (round % 7..20_000).step_by(31) {
            family.put(key(n), [round as u8; 300]).unwrap();
        }
        if round.is_multiple_of(24) {
            let first = (round % 240) as u8;
            family.delete_range([first].as_slice()..&[first + 3]).unwrap();
            db.wait_until_idle().unwrap();
        }
        db.flush().unwrap();
        assert_nothing_is_held();
    });
    let report = db.verify_with(options).unwrap();
    assert!(report.is_clean(), "{:?}", report.faults);
    assert!(round > 100);
    assert!(db.verify().unwrap().is_clean());
}

#[test]
fn damage_is_found_in_whatever_part_it_is_and_can_be_had_as_an_error() {
    let storage = MemoryStorage::new();
    let (db, family) = open(&storage);
    fill(&db, &family);
    drop(family);
    db.close().unwrap();
    let file = storage.open("data", FileMode::Write).unwrap();
    let mut page = vec![0; PAGE];
    let mut nodes = Vec::new();
    for at in (EXTENTS_START..file.len().unwrap()).step_by(PAGE) {
        file.read_at(&mut page, at).unwrap();
        // A leaf or an inner node, by its header.
        if [1, 2].contains(&page[24]) && page[4] == 1 {
            nodes.push(at);
        }
    }
    let (db, _family) = open(&storage);
    let mut found = 0;
    for at in nodes.iter().step_by(nodes.len() / 12) {
        let flip = || {
            let mut byte = [0];
            file.read_at(&mut byte, at + 100).unwrap();
            file.write_at(&[byte[0] ^ 1], at + 100).unwrap();
        };
        flip();
        let report = db.verify().unwrap();
        if !report.is_clean() {
            let fault = report.into_result().unwrap_err();
            assert_eq!(fault.kind(), ErrorKind::Corruption);
            assert_eq!(fault.location().offset, Some(*at), "{fault}");
            found += 1;
        }
        flip();
    }
    // Some pages are free by now.
    assert!(found >= 3, "{found}");
    assert!(db.verify().unwrap().is_clean());
}
