//! What cursors pass on their way, and what they do when a read fails.

use std::ops::ControlFlow;

use crate::db::ColumnFamilyDatabase;
use crate::options::DatabaseBuilder;
use crate::segment::EXTENTS_START;
use crate::storage::{FileMode, MemoryStorage, StorageBackend};
use crate::txn::handle::ColumnFamily;
use crate::txn::iter::{Cursor, Iter};
use crate::{ErrorKind, FamilyOptions};

/// Entries of which all but the middle one are deleted.
const DELETED: u32 = 10_000;

fn builder() -> DatabaseBuilder {
    ColumnFamilyDatabase::builder()
        .automatic_maintenance(false)
        .page_size(4096)
        .cache_bytes(8 << 20)
        .write_buffer_bytes(64 << 20)
}

fn open(builder: DatabaseBuilder) -> (ColumnFamilyDatabase, ColumnFamily) {
    let db = builder.storage(MemoryStorage::new()).open("memory").unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    (db, family)
}

fn key(n: u32) -> [u8; 4] {
    n.to_be_bytes()
}

fn number(key: &[u8]) -> u32 {
    u32::from_be_bytes(key.try_into().unwrap())
}

/// Entries that cursors pass in `walk`.
fn passed(db: &ColumnFamilyDatabase, walk: impl FnOnce()) -> u64 {
    let before = db.statistics().entries_passed;
    walk();
    db.statistics().entries_passed - before
}

fn numbers(iter: Iter) -> Vec<u32> {
    iter.map(|entry| number(&entry.unwrap().0)).collect()
}

fn scanned(cursor: &mut Cursor, back: bool) -> Vec<u32> {
    let mut shown = Vec::new();
    let visit = |key: &[u8], _: &[u8]| {
        shown.push(number(key));
        ControlFlow::<()>::Continue(())
    };
    let flow = if back { cursor.scan_back(visit) } else { cursor.scan(visit) };
    assert!(flow.unwrap().is_continue());
    shown
}

#[test]
fn a_range_among_deleted_entries_is_walked_without_a_look_at_those_beyond_it() {
    let middle = DELETED / 2;
    for (in_tree, in_deltas) in [(false, false), (true, false), (true, true)] {
        let (db, family) = open(builder().merge_cost(0));
        for n in 0..DELETED {
            family.put(key(n), b"value").unwrap();
        }
        if in_tree {
            db.flush().unwrap();
        }
        let before = family.snapshot().unwrap();
        for n in (0..DELETED).filter(|&n| n != middle) {
            family.delete(key(n)).unwrap();
        }
        if in_deltas {
            db.flush().unwrap();
        }
        for (start, end) in [(0, 10), (middle, middle + 1), (middle + 1, middle + 3)] {
            let what = format!("{start}..{end}, in the tree {in_tree}, in deltas {in_deltas}");
            let range = || key(start)..key(end);
            let expected: Vec<_> = (start..end).filter(|&n| n == middle).collect();
            let steps = passed(&db, || {
                assert_eq!(numbers(family.range(range()).unwrap()), expected);
                assert_eq!(family.range(range()).unwrap().rev().count(), expected.len());
                assert_eq!(family.prefix(key(end - 1)).unwrap().count(), usize::from(end - 1 == middle));
            });
            assert!(steps <= 100, "{steps} steps, {what}");
            for back in [false, true] {
                let steps = passed(&db, || {
                    let mut cursor = family.cursor_in(range()).unwrap();
                    assert_eq!(scanned(&mut cursor, back), expected);
                    assert_eq!(cursor.seek(key(0)).unwrap(), !expected.is_empty());
                    assert_eq!(cursor.seek_for_prev(key(DELETED)).unwrap(), !expected.is_empty());
                });
                assert!(steps <= 100, "{steps} steps, {what}, back {back}");
            }
        }
        for n in DELETED..2 * DELETED {
            family.put(key(n), b"later").unwrap();
        }
        let steps = passed(&db, || {
            assert_eq!(before.range(key(DELETED)..key(DELETED + 5)).count(), 0);
            assert_eq!(before.range(key(DELETED + 50)..key(DELETED + 55)).rev().count(), 0);
        });
        assert!(steps <= 30, "{steps} steps among what came later");
    }
}

/// A database with a family of 1000 entries, one leaf of which is damaged.
fn with_a_damaged_leaf() -> (ColumnFamilyDatabase, ColumnFamily) {
    let storage = MemoryStorage::new();
    let db = builder().storage(storage.clone()).open("memory").unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for n in 0..1000 {
        family.put(key(n), [b'v'; 100]).unwrap();
    }
    db.flush().unwrap();
    drop(family);
    db.close().unwrap();
    let file = storage.open("data", FileMode::Write).unwrap();
    let mut page = vec![0; 4096];
    let mut leaves = Vec::new();
    for at in (EXTENTS_START..file.len().unwrap()).step_by(page.len()) {
        file.read_at(&mut page, at).unwrap();
        // The kind of the page, in its header.
        if page[24] == 1 {
            leaves.push(at);
        }
    }
    file.write_at(&[0xaa; 64], leaves[leaves.len() / 2] + 2048).unwrap();
    let db = builder().storage(storage).open("memory").unwrap();
    let family = db.column_family("family").unwrap();
    (db, family)
}

#[test]
fn a_cursor_whose_move_failed_says_so_until_it_is_placed_anew() {
    let (_db, family) = with_a_damaged_leaf();
    for back in [false, true] {
        let mut cursor = family.cursor().unwrap();
        let step = |cursor: &mut Cursor| if back { cursor.prev() } else { cursor.next() };
        let mut steps = 0;
        let error = loop {
            match step(&mut cursor) {
                Ok(stands) => assert!(stands, "no step failed"),
                Err(error) => break error,
            }
            steps += 1;
        };
        assert!(steps > 10, "{steps} steps");
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(!cursor.is_valid());
        for _ in 0..2 {
            for outcome in [cursor.next(), cursor.prev()] {
                assert_eq!(outcome.unwrap_err().to_string(), error.to_string());
            }
            assert!(cursor.scan(|_, _| ControlFlow::<()>::Continue(())).is_err());
        }
        assert!(cursor.first().unwrap());
        assert_eq!(number(cursor.key()), 0);
        assert!(cursor.next().unwrap());
    }
}

#[test]
fn a_transactions_cursor_whose_move_failed_says_so_until_it_is_placed_anew() {
    let (db, family) = with_a_damaged_leaf();
    let mut transaction = db.begin().unwrap();
    transaction.put(&family, key(1), "own").unwrap();
    for back in [false, true] {
        let mut cursor = transaction.cursor(&family).unwrap();
        let mut steps = 0;
        let error = loop {
            match if back { cursor.prev() } else { cursor.next() } {
                Ok(stands) => assert!(stands, "no step failed"),
                Err(error) => break error,
            }
            steps += 1;
        };
        assert!(steps > 10, "{steps} steps");
        assert_eq!(error.kind(), ErrorKind::Corruption);
        for _ in 0..2 {
            assert!(!cursor.is_valid());
            for outcome in [cursor.next(), cursor.prev()] {
                assert_eq!(outcome.unwrap_err().to_string(), error.to_string());
            }
            assert!(cursor.scan(|_, _| ControlFlow::<()>::Continue(())).is_err());
            assert!(cursor.scan_back(|_, _| ControlFlow::<()>::Continue(())).is_err());
        }
        assert!(cursor.first().unwrap());
        assert_eq!(number(cursor.key()), 0);
        assert!(cursor.next().unwrap());
        assert_eq!(cursor.value().unwrap(), b"own");
    }
}

#[test]
fn an_iterator_gives_every_entry_once_wherever_it_turns_around() {
    let (db, family) = open(builder());
    let value = |n: u32| vec![n as u8; if n % 9 == 5 { 1500 } else { 30 }];
    (0..150).for_each(|n| {
        family.put(key(n), value(n)).unwrap();
    });
    db.flush().unwrap();
    for in_memory in [0, 40] {
        // Some of them are newer than the tree.
        (100..100 + in_memory).for_each(|n| {
            family.put(key(n), value(n)).unwrap();
        });
        for from_front in 0..=150 {
            let mut entries = family.iter().unwrap();
            let front = (0..from_front).map(|_| entries.next().unwrap().unwrap());
            let mut found: Vec<_> = front.map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            let mut ends = [Vec::new(), Vec::new()];
            for turn in 0.. {
                // Two from behind, one from the front.
                let forward = turn % 3 == 2;
                let Some(entry) = (if forward { entries.next() } else { entries.next_back() }) else { break };
                let (key, value) = entry.unwrap();
                ends[usize::from(!forward)].push((key.to_vec(), value.to_vec()));
            }
            let [front, back] = ends;
            found.extend(front);
            found.extend(back.into_iter().rev());
            let expected: Vec<_> = (0..150).map(|n| (key(n).to_vec(), value(n))).collect();
            assert!(found == expected, "after {from_front} from the front");
        }
    }
}

/// Short values, longer ones, and some that are held where they stand; most are merged.
#[test]
fn an_iterator_that_is_taken_from_both_ends_gives_every_entry_once() {
    let (db, family) = open(builder());
    let value = |n: u32| vec![n as u8; [3, 60, 200, 1500][n as usize % 4 * usize::from(n % 16 < 4)]];
    for n in 0..400 {
        family.put(key(n), value(n)).unwrap();
    }
    db.flush().unwrap();
    for n in (0..400).filter(|n| n % 50 == 7) {
        family.put(key(n), value(n)).unwrap();
    }
    let all: Vec<u32> = (0..400).collect();
    // How many are taken from the front, then from the back, and so on.
    for turns in [&[1, 1][..], &[40, 3], &[0, 40, 1], &[0, 5, 2, 30], &[17, 60, 3, 1], &[0, 400], &[400, 1]] {
        let (mut iter, mut expected) = (family.iter().unwrap(), all.iter());
        'all: for (turn, &count) in turns.iter().enumerate().cycle() {
            for _ in 0..count {
                let is_front = turn % 2 == 0;
                let entry = if is_front { iter.next() } else { iter.next_back() };
                let n = if is_front { expected.next() } else { expected.next_back() };
                let Some(&n) = n else {
                    assert!(entry.is_none());
                    break 'all;
                };
                let (found, bytes) = entry.unwrap().unwrap();
                assert_eq!((number(&found), &bytes[..]), (n, &value(n)[..]), "in turns of {turns:?}");
            }
        }
        assert!(iter.next().is_none() && iter.next_back().is_none());
    }
}
