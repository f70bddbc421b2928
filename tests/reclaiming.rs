//! Whoever waits, for the disk or in code of users, holds nothing back but what it reads itself.

mod common;

use std::ops::ControlFlow;

use common::shrunken;
use common::storage::TestStorage;
use peristyle::{ColumnFamily, ColumnFamilyDatabase, FamilyOptions, Result};

const ENTRIES: u32 = 10_000;

fn open(storage: &TestStorage) -> ColumnFamilyDatabase {
    shrunken().automatic_maintenance(false).storage(storage.clone()).open("memory").unwrap()
}

/// What a closed database leaves of whose families `still` has pages and `busy` has none.
fn written() -> TestStorage {
    let storage = TestStorage::new();
    let db = open(&storage);
    let still = db.create_column_family("still", FamilyOptions::default()).unwrap();
    db.create_column_family("busy", FamilyOptions::default()).unwrap();
    for n in 0..ENTRIES {
        still.put(n.to_be_bytes(), [n as u8; 100]).unwrap();
    }
    drop(still);
    db.close().unwrap();
    storage
}

/// The database just opened: no page is in memory.
fn cold(storage: &TestStorage) -> (ColumnFamilyDatabase, ColumnFamily, ColumnFamily) {
    let db = open(storage);
    let (still, busy) = (db.column_family("still").unwrap(), db.column_family("busy").unwrap());
    (db, still, busy)
}

/// Merges again and again, and demands that what is replaced is let go of.
fn merge_and_assert_released(db: &ColumnFamilyDatabase, busy: &ColumnFamily, what: &str) {
    for round in 0..12u32 {
        busy.put("key", round.to_be_bytes()).unwrap();
        db.flush().unwrap();
    }
    // The last ones go as other threads, which may be kept from running, leave their epochs.
    let mut held = db.statistics().old_trees_held;
    for _ in 0..200 {
        if held <= 2 {
            return;
        }
        busy.put("key", "value").unwrap();
        db.flush().unwrap();
        held = db.statistics().old_trees_held;
    }
    panic!("{held} old trees are held beside {what}");
}

/// A read of `still` waits for the disk, the first time or later, while `busy` is merged.
fn assert_released_beside(what: &str, read: impl Fn(&ColumnFamily) -> Result<()> + Send + Sync) {
    let written = written();
    let mut held = 0;
    for reads in [0, 1, 2, 5] {
        let storage = written.copy();
        let (db, still, busy) = cold(&storage);
        storage.hold_read(reads);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| read(&still));
            while !storage.is_held() && !reader.is_finished() {
                std::thread::yield_now();
            }
            if storage.is_held() {
                held += 1;
            } else {
                // No read of others is to be held.
                storage.let_go();
            }
            merge_and_assert_released(&db, &busy, what);
            storage.let_go();
            reader.join().unwrap().unwrap();
        });
    }
    assert!(held >= 2, "{what} waited {held} times");
}

#[test]
fn a_point_read_that_waits_for_the_disk_holds_nothing_back() {
    assert_released_beside("a get", |family| {
        let n = ENTRIES - 7;
        assert_eq!(family.get(n.to_be_bytes())?.unwrap(), [n as u8; 100]);
        Ok(())
    });
    assert_released_beside("contains_key", |family| {
        assert!(family.contains_key((ENTRIES - 7).to_be_bytes())?);
        Ok(())
    });
    assert_released_beside("a get of a snapshot", |family| {
        family.snapshot()?.get((ENTRIES - 7).to_be_bytes()).map(|value| assert!(value.is_some()))
    });
}

#[test]
fn a_cursor_that_waits_for_the_disk_holds_nothing_back() {
    assert_released_beside("a seek", |family| {
        let mut cursor = family.cursor()?;
        assert!(cursor.seek((ENTRIES - 7).to_be_bytes())?);
        Ok(())
    });
    assert_released_beside("an iterator", |family| {
        assert_eq!(family.range((ENTRIES - 700).to_be_bytes()..)?.count(), 700);
        Ok(())
    });
    assert_released_beside("a scan back", |family| {
        let mut count = 0;
        let _ = family.cursor()?.scan_back(|_, _| {
            count += 1;
            ControlFlow::<()>::Continue(())
        })?;
        assert_eq!(count, ENTRIES);
        Ok(())
    });
}

#[test]
fn a_count_that_waits_for_the_disk_holds_nothing_back() {
    assert_released_beside("len", |family| {
        // What memtables hold is looked up in the tree.
        family.put(1u32.to_be_bytes(), "another")?;
        family.len().map(|len| assert_eq!(len, u64::from(ENTRIES)))?;
        family.put(1u32.to_be_bytes(), [1; 100]).map(drop)
    });
}

#[test]
fn a_closure_or_loop_of_users_holds_nothing_back_however_long_it_takes() {
    let (db, still, busy) = cold(&written());
    let mut cursor = still.cursor().unwrap();
    let mut shown = 0;
    let visit = |_: &[u8], _: &[u8]| {
        shown += 1;
        if shown % 2500 == 0 {
            merge_and_assert_released(&db, &busy, "a closure");
        }
        ControlFlow::<()>::Continue(())
    };
    let _ = cursor.scan(visit).unwrap();
    assert_eq!(shown, ENTRIES);
    for entry in still.iter().unwrap().step_by(2500) {
        entry.unwrap();
        merge_and_assert_released(&db, &busy, "an iterator that stands");
    }
}

#[test]
fn a_guard_of_other_code_holds_nothing_back() {
    let (db, _, busy) = cold(&written());
    let _stranger = crossbeam_epoch::pin();
    merge_and_assert_released(&db, &busy, "a guard of a stranger");
}
