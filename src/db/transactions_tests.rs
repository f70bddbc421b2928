//! What holds between the check of a transaction and its commit.

use std::cell::Cell;

use crate::column_family::options::FamilyOptions;
use crate::db::ColumnFamilyDatabase;
use crate::error::ErrorKind;
use crate::options::Durability;
use crate::storage::MemoryStorage;
use crate::txn::batch::WriteBatch;
use crate::txn::pipeline::{Condition, Write};

fn open() -> ColumnFamilyDatabase {
    ColumnFamilyDatabase::builder()
        .write_buffer_bytes(256 << 10)
        .automatic_maintenance(false)
        .storage(MemoryStorage::new())
        .open("memory")
        .unwrap()
}

#[test]
fn a_range_is_looked_for_in_what_is_frozen_or_merged_before_any_lock_is_taken() {
    let db = open();
    let family = db.create_column_family("one", FamilyOptions::default()).unwrap();
    let begin = || {
        let mut transaction = db.begin().unwrap();
        transaction.range(&family, "a".."c").unwrap().for_each(|entry| drop(entry.unwrap()));
        transaction.put(&family, "z", "mine").unwrap();
        transaction
    };
    let (first, second) = (begin(), begin());
    family.put("b", "theirs").unwrap();
    let pipeline = db.pipeline();
    family.family().freeze(&mut family.family().write.lock(), &pipeline.views).unwrap();
    let locked = family.family().write.lock();
    assert_eq!(first.commit().unwrap_err().kind(), ErrorKind::Conflict);
    drop(locked);
    db.flush().unwrap();
    let locked = family.family().write.lock();
    assert_eq!(second.commit().unwrap_err().kind(), ErrorKind::Conflict);
    drop(locked);
    // What holds no change is not looked into again, and what comes later is.
    let (third, fourth) = (begin(), begin());
    family.put("d", "theirs").unwrap();
    family.family().freeze(&mut family.family().write.lock(), &pipeline.views).unwrap();
    third.commit().unwrap();
    family.put("bb", "theirs").unwrap();
    assert_eq!(fourth.commit().unwrap_err().kind(), ErrorKind::Conflict);
}

/// Whether a commit that touches `written` of six families, and relies on `relied`, holds the locks of these
/// while it asks, and of no others.
fn assert_locked(written: &[usize], relied: &[usize], value: &[u8]) {
    let db = open();
    let name = |n: usize| n.to_string();
    let families: Vec<_> =
        (0..6).map(|n| db.create_column_family(&name(n), FamilyOptions::default()).unwrap()).collect();
    let mut batch = WriteBatch::new();
    for &n in written.iter().rev() {
        batch.put(&families[n], "key", value);
    }
    let relied_families: Vec<_> = relied.iter().map(|&n| families[n].family()).collect();
    let locked = |n: usize| families[n].family().write.try_lock().is_none();
    let asked = Cell::new(false);
    let holds = || {
        asked.set(true);
        (0..6).all(|n| locked(n) == (written.contains(&n) || relied.contains(&n)))
    };
    let write = Write {
        families: batch.families(),
        payload: batch.payload(),
        operations: batch.len() as u64,
        has_range_deletions: false,
    };
    let condition = Condition { families: &relied_families, holds: &holds, minds_held: true, claimant: None };
    let committed = db.pipeline().commit_if(&write, Durability::Buffered, &condition).unwrap();
    assert!(committed.is_some() && asked.get(), "{written:?} {relied:?}");
    assert!((0..6).all(|n| !locked(n)));
    let never = Condition { families: &relied_families, holds: &|| false, minds_held: true, claimant: None };
    assert!(db.pipeline().commit_if(&write, Durability::Buffered, &never).unwrap().is_none());
    assert!((0..6).all(|n| !locked(n)));
    assert_eq!(Some(db.snapshot().unwrap().sequence_number()), committed, "what was refused has no number");
}

#[test]
fn nobody_writes_to_what_a_commit_relies_on_between_the_question_and_the_commit() {
    for value in [&b"short"[..], &[7; 100_000]] {
        assert_locked(&[2], &[2], value);
        assert_locked(&[2], &[0, 1, 3, 5], value);
        assert_locked(&[1, 4], &[0, 2, 3, 4, 5], value);
        assert_locked(&[0, 5], &[], value);
        assert_locked(&[0, 5], &[0, 5], value);
    }
}
