//! Write batches: what is put into them comes out, in order, and can be taken back.

use std::ops::Bound;

use crate::{
    ColumnFamily, ColumnFamilyDatabase, Error, ErrorKind, FamilyOptions, Iter, MemoryStorage, Operation,
    Result, WriteBatch,
};

#[track_caller]
fn failure<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    error
}

fn open() -> (ColumnFamilyDatabase, ColumnFamily, ColumnFamily) {
    let builder = ColumnFamilyDatabase::builder().write_buffer_bytes(256 << 10);
    let db = builder.storage(MemoryStorage::new()).open("memory").unwrap();
    let [a, b] = ["a", "b"].map(|name| db.create_column_family(name, FamilyOptions::default()).unwrap());
    (db, a, b)
}

fn keys(family: &ColumnFamily) -> Vec<Vec<u8>> {
    family.iter().unwrap().map(|entry| entry.unwrap().0.to_vec()).collect()
}

#[test]
fn a_batch_lists_its_operations_in_order() {
    let (_db, a, b) = open();
    let mut batch = WriteBatch::new();
    batch.put(&a, "k", "v").delete(&b, "k").delete_range(&a, "a"..="b").delete_range(&b, "x"..);
    batch.delete_range(&a, "z".."a").delete_prefix(&a, [1, 0xff]).delete_prefix(&b, [0xff]);
    let operations: Vec<_> = batch.iter().collect();
    let (a, b) = (a.id(), b.id());
    assert_eq!(
        operations,
        [
            (a, Operation::Put { key: b"k", value: b"v" }),
            (b, Operation::Delete { key: b"k" }),
            (a, Operation::DeleteRange { start: b"a", end: Some(b"b\0") }),
            (b, Operation::DeleteRange { start: b"x", end: None }),
            (a, Operation::DeleteRange { start: &[1, 0xff], end: Some(&[2]) }),
            (b, Operation::DeleteRange { start: &[0xff], end: None }),
        ]
    );
    assert_eq!(batch.len(), operations.len());
    assert!(format!("{batch:?}").contains("operations: 6"));
}

#[test]
fn what_starts_with_a_prefix_is_deleted_and_nothing_else() {
    let (db, a, b) = open();
    let all =
        [&b""[..], b"a", b"ab", b"ab\xff", b"ab\xff\xff\xff", b"ac", b"\xff", b"\xff\xff", b"\xff\xff\0"];
    for prefix in all.iter().copied().chain([&b"aba"[..], b"zz"]) {
        for (family, in_batch) in [(&a, false), (&b, true)] {
            for key in all {
                family.put(key, "value").unwrap();
            }
            if in_batch {
                let mut batch = WriteBatch::new();
                batch.delete_prefix(family, prefix);
                db.write(&batch).unwrap();
            } else {
                family.delete_prefix(prefix).unwrap();
            }
            let left: Vec<_> =
                all.iter().filter(|key| !key.starts_with(prefix)).map(|key| key.to_vec()).collect();
            assert_eq!(keys(family), left, "without {prefix:?}");
        }
    }
    let long = failure(a.delete_prefix(vec![0; 70_000]), ErrorKind::KeyTooLarge);
    assert!(long.to_string().contains("70000"), "{long}");
}

#[test]
fn a_batch_takes_what_it_was_made_for_without_more_memory() {
    let (_db, a, _) = open();
    let mut batch = WriteBatch::with_capacity(4 << 10);
    assert!(batch.is_empty() && batch.size_in_bytes() == 0);
    for n in 0..30u32 {
        batch.put(&a, n.to_be_bytes(), [0; 100]);
    }
    assert!(batch.size_in_bytes() < 4 << 10);
    assert_eq!(batch.len(), 30);
}

#[test]
fn one_batch_behind_another_is_as_if_all_were_put_into_one() {
    let (db, a, b) = open();
    let (mut first, mut second) = (WriteBatch::new(), WriteBatch::new());
    first.put(&a, "1", "old").put(&b, "1", "stays");
    second.delete_range(&a, ..).put(&a, "2", "new").put(&b, "3", "new");
    second.set_savepoint();
    first.append(&second).append(&WriteBatch::new());
    assert_eq!((first.len(), second.len()), (5, 3));
    assert!(!first.rollback_to_savepoint(), "a savepoint was taken over");
    db.write(&first).unwrap();
    assert_eq!((keys(&a), keys(&b)), (vec![b"2".to_vec()], vec![b"1".to_vec(), b"3".to_vec()]));
    // What cannot be stays so, whichever of the two it is in.
    let mut faulty = WriteBatch::new();
    faulty.put(&a, vec![0; 70_000], "");
    first.append(&faulty);
    failure(db.write(&first), ErrorKind::KeyTooLarge);
    faulty.append(&second);
    failure(db.write(&faulty), ErrorKind::KeyTooLarge);
    let (_other, c, _) = open();
    let mut foreign = WriteBatch::new();
    foreign.put(&c, "key", "value");
    second.append(&foreign);
    failure(db.write(&second), ErrorKind::InvalidArgument);
    let mut empty = WriteBatch::new();
    empty.append(&foreign);
    failure(db.write(&empty), ErrorKind::InvalidArgument);
}

#[test]
fn a_rollback_takes_back_all_since_its_savepoint() {
    let (db, a, b) = open();
    let (_other, c, _) = open();
    let mut batch = WriteBatch::new();
    assert!(!batch.rollback_to_savepoint() && !batch.release_savepoint());
    batch.set_savepoint();
    batch.put(&c, "of another database", "");
    assert!(batch.rollback_to_savepoint());
    batch.put(&a, "1", "");
    batch.set_savepoint();
    batch.put(&a, "2", "").put(&b, "2", "");
    batch.set_savepoint();
    batch.delete_range(&a, ..).put(&a, vec![0; 70_000], "").put(&c, "of another database", "");
    assert!(batch.rollback_to_savepoint());
    batch.set_savepoint();
    batch.put(&a, "3", "");
    assert!(batch.release_savepoint());
    assert_eq!(batch.len(), 4);
    let mut copy = batch.clone();
    assert!(batch.rollback_to_savepoint());
    assert_eq!(batch.len(), 1);
    assert!(!batch.rollback_to_savepoint());
    db.write(&batch).unwrap();
    assert_eq!((keys(&a), keys(&b).len()), (vec![b"1".to_vec()], 0));
    // The copy has savepoints of its own.
    db.write(&copy).unwrap();
    assert_eq!((keys(&a).len(), keys(&b).len()), (3, 1));
    assert!(copy.rollback_to_savepoint());
    assert_eq!(copy.len(), 1);
    copy.set_savepoint();
    copy.clear();
    assert!(!copy.rollback_to_savepoint());
}

#[test]
fn a_family_that_a_rollback_took_out_may_be_dropped() {
    let (db, a, b) = open();
    let mut batch = WriteBatch::new();
    batch.put(&a, "1", "");
    batch.set_savepoint();
    batch.put(&b, "1", "");
    assert!(batch.rollback_to_savepoint());
    db.drop_column_family("b").unwrap();
    db.write(&batch).unwrap();
    batch.put(&b, "1", "");
    failure(db.write(&batch), ErrorKind::FamilyDropped);
}

#[test]
fn ranges_are_written_as_their_bytes_come() {
    let (_db, a, _) = open();
    for n in 0..20u64 {
        a.put(n.to_be_bytes(), "value").unwrap();
    }
    let count = |iter: Result<Iter>| iter.unwrap().count();
    let key = |n: u64| n.to_be_bytes();
    assert_eq!(count(a.range(key(3)..key(5))), 2);
    assert_eq!(count(a.range(key(3)..=key(5))), 3);
    assert_eq!(count(a.range(&key(3)..&key(5))), 2);
    assert_eq!(count(a.range(key(18)..)), 2);
    assert_eq!(count(a.range(..=key(1))), 2);
    assert_eq!(count(a.range((Bound::Excluded(key(3)), Bound::Included(key(5))))), 2);
    assert_eq!(count(a.range([0, 0]..[0, 1])), 20);
    assert_eq!(count(a.range(b"\x00"..b"\x01")), 20);
    assert_eq!(count(a.range("a".."b")), 0);
    assert_eq!(count(a.range(..)), 20);
    assert!(a.cursor_in([0; 8]..).unwrap().first().unwrap());
    assert_eq!(a.snapshot().unwrap().range(key(5)..key(3)).count(), 0);
    a.delete_range([0, 0]..=[0, 0]).unwrap();
    assert_eq!(a.len().unwrap(), 20);
    a.delete_range([0]..[1]).unwrap();
    assert!(a.is_empty().unwrap());
}

#[test]
fn a_capacity_that_there_is_no_memory_for_is_none() {
    for bytes in [usize::MAX, isize::MAX as usize] {
        let batch = WriteBatch::with_capacity(bytes);
        assert!(batch.is_empty());
    }
}
