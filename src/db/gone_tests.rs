//! Cursors over long runs of deleted entries: they stand where they should, and take few steps.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::FamilyOptions;
use crate::column_family::merging::merge::Pace;
use crate::db::ColumnFamilyDatabase;
use crate::storage::MemoryStorage;
use crate::txn::family_snapshot::FamilySnapshot;
use crate::txn::handle::ColumnFamily;
use crate::txn::iter::Cursor;

fn open(merge_cost: u32) -> (ColumnFamilyDatabase, ColumnFamily) {
    let builder = ColumnFamilyDatabase::builder()
        .automatic_maintenance(false)
        .page_size(4096)
        .cache_bytes(8 << 20)
        .write_buffer_bytes(64 << 20)
        .merge_cost(merge_cost)
        .storage(MemoryStorage::new());
    let db = builder.open("memory").unwrap();
    let family = db.create_column_family("queue", FamilyOptions::default()).unwrap();
    (db, family)
}

fn key(n: u32) -> Vec<u8> {
    [&b"queue/"[..], &n.to_be_bytes()].concat()
}

/// Entries that cursors pass in `walk`.
fn passed(db: &ColumnFamilyDatabase, walk: impl FnOnce()) -> u64 {
    let before = db.statistics().entries_passed;
    walk();
    db.statistics().entries_passed - before
}

/// Freezes what is in memory, as a full memtable is.
fn freeze(db: &ColumnFamilyDatabase, family: &ColumnFamily) {
    let family = family.family();
    if family.stall.waiting() > 2 {
        merge(db, family);
    }
    family.freeze(&mut family.write.lock(), &db.shared().pipeline.views).unwrap();
}

fn merge(db: &ColumnFamilyDatabase, family: &std::sync::Arc<crate::column_family::family::Family>) {
    family.merge(&db.shared().pipeline.merge_context(&|| false), Pace::Now).unwrap();
}

/// Pops all entries from one end, while others come at the other; keeps `ahead` of them in the queue.
fn pop_all(back: bool, ahead: u32, mut meanwhile: impl FnMut(u32, &ColumnFamilyDatabase, &ColumnFamily)) {
    const POPS: u32 = 3000;
    let (db, family) = open(0);
    let number = |n: u32| if back { u32::MAX - n } else { n };
    for n in 0..ahead {
        family.put(key(number(n)), b"job").unwrap();
    }
    db.flush().unwrap();
    let (mut all, mut most) = (0, 0);
    for n in 0..POPS {
        family.put(key(number(n + ahead)), b"job").unwrap();
        let steps = passed(&db, || {
            let entry = if back { family.last() } else { family.first() };
            assert_eq!(entry.unwrap().unwrap().0, key(number(n)));
        });
        (all, most) = (all + steps, most.max(steps));
        family.delete(key(number(n))).unwrap();
        meanwhile(n, &db, &family);
    }
    assert!(most <= 2 * u64::from(POPS), "{most} steps for one pop");
    assert!(all <= 200 * u64::from(POPS), "{all} steps for {POPS} pops");
}

#[test]
fn a_queue_whose_entries_are_in_the_tree_is_popped_in_few_steps() {
    pop_all(false, 5000, |_, _, _| {});
    pop_all(true, 5000, |_, _, _| {});
}

#[test]
fn a_queue_whose_entries_come_and_go_in_memory_is_popped_in_few_steps() {
    pop_all(false, 100, |_, _, _| {});
    pop_all(true, 100, |_, _, _| {});
}

#[test]
fn a_queue_whose_entries_wait_in_frozen_memtables_is_popped_in_few_steps() {
    let freezes = |n: u32, db: &ColumnFamilyDatabase, family: &ColumnFamily| {
        if n % 400 == 399 {
            freeze(db, family);
        }
    };
    pop_all(false, 1000, freezes);
    pop_all(true, 1000, freezes);
}

#[test]
fn what_is_deleted_costs_steps_once_and_not_each_reader() {
    // In front of the tree, and in deltas.
    for flushed in [false, true] {
        let (db, family) = open(0);
        for n in 0..20_000 {
            family.put(key(n), b"value").unwrap();
        }
        db.flush().unwrap();
        let before = family.snapshot().unwrap();
        for n in (0..20_000).filter(|n| n % 10_000 != 9_999) {
            family.delete(key(n)).unwrap();
        }
        if flushed {
            db.flush().unwrap();
        }
        let both = |expected: &[u32]| {
            let entries: Vec<_> = family.iter().unwrap().map(|entry| entry.unwrap().0).collect();
            assert_eq!(entries, expected.iter().map(|&n| key(n)).collect::<Vec<_>>());
            let entries: Vec<_> = family.iter().unwrap().rev().map(|entry| entry.unwrap().0).collect();
            assert_eq!(entries, expected.iter().rev().map(|&n| key(n)).collect::<Vec<_>>());
        };
        both(&[9_999, 19_999]);
        let steps = passed(&db, || both(&[9_999, 19_999]));
        assert!(steps <= 200, "{steps} steps, flushed {flushed}");
        // What comes into such a stretch is there.
        family.put(key(5_000), b"new").unwrap();
        let steps = passed(&db, || both(&[5_000, 9_999, 19_999]));
        assert!(steps <= 300, "{steps} steps with a new entry, flushed {flushed}");
        assert_eq!(before.iter().count(), 20_000);
    }
}

#[derive(Debug, Clone)]
enum Operation {
    /// Puts or deletes `count` keys, `step` apart.
    Write {
        start: u32,
        count: u32,
        step: u32,
        puts: bool,
    },
    DeleteRange {
        start: u32,
        count: u32,
    },
    Freeze,
    Merge,
    Drain,
    Hold,
    /// Walks what is there now, or what was when a snapshot was taken, within a range: so many steps on or
    /// back, or from a key on.
    Walk {
        held: Option<usize>,
        range: Option<(u32, u32)>,
        moves: Vec<Move>,
    },
}

#[derive(Debug, Clone)]
enum Move {
    On(u32),
    Back(u32),
    Seek(u32),
    SeekBack(u32),
}

const KEYS: u32 = 2000;

fn operation() -> impl Strategy<Value = Operation> {
    let moves = prop_oneof![
        3 => (1u32..6).prop_map(Move::On),
        3 => (1u32..6).prop_map(Move::Back),
        1 => (100u32..KEYS).prop_map(Move::On),
        1 => (100u32..KEYS).prop_map(Move::Back),
        2 => (0..KEYS).prop_map(Move::Seek),
        2 => (0..KEYS).prop_map(Move::SeekBack),
    ];
    prop_oneof![
        3 => (0..KEYS, 1u32..600, 1u32..4).prop_map(|(start, count, step)| Operation::Write { start, count, step, puts: true }),
        4 => (0..KEYS, 1u32..800, 1u32..3).prop_map(|(start, count, step)| Operation::Write { start, count, step, puts: false }),
        1 => (0..KEYS, 1u32..300).prop_map(|(start, count)| Operation::DeleteRange { start, count }),
        2 => Just(Operation::Freeze),
        1 => Just(Operation::Merge),
        1 => Just(Operation::Drain),
        1 => Just(Operation::Hold),
        8 => (prop::option::weighted(0.3, 0usize..4), prop::option::weighted(0.3, (0..KEYS, 0..KEYS)), prop::collection::vec(moves, 1..8))
            .prop_map(|(held, range, moves)| Operation::Walk { held, range, moves }),
    ]
}

type Model = BTreeSet<u32>;

/// Walks `cursor` and `expected`, what it should meet, side by side.
fn walk(cursor: &mut Cursor, expected: &[u32], moves: &[Move]) {
    // Index of the entry that the cursor stands on; -1 before the first, as many as there are past the last.
    let len = expected.len() as i64;
    let mut place: Option<i64> = None;
    let check = |cursor: &Cursor, moved: bool, place: i64| {
        let entry = usize::try_from(place).ok().and_then(|place| expected.get(place));
        assert_eq!(moved, entry.is_some());
        assert_eq!(moved.then(|| cursor.key()), entry.map(|&n| key(n)).as_deref());
    };
    for step in moves {
        match *step {
            Move::On(count) => {
                for _ in 0..count {
                    let next = (place.unwrap_or(-1) + 1).min(len);
                    let moved = cursor.next().unwrap();
                    check(cursor, moved, next);
                    place = Some(next);
                }
            }
            Move::Back(count) => {
                for _ in 0..count {
                    let next = (place.unwrap_or(len) - 1).max(-1);
                    let moved = cursor.prev().unwrap();
                    check(cursor, moved, next);
                    place = Some(next);
                }
            }
            Move::Seek(n) => {
                let next = expected.partition_point(|&other| other < n) as i64;
                let moved = cursor.seek(key(n)).unwrap();
                check(cursor, moved, next);
                place = Some(next);
            }
            Move::SeekBack(n) => {
                let next = expected.partition_point(|&other| other <= n) as i64 - 1;
                let moved = cursor.seek_for_prev(key(n)).unwrap();
                check(cursor, moved, next);
                place = Some(next);
            }
        }
    }
}

fn run(operations: &[Operation], merge_cost: u32) {
    let (db, family) = open(merge_cost);
    let mut model = Model::new();
    let mut held: Vec<(FamilySnapshot, Model)> = Vec::new();
    for operation in operations {
        match operation {
            Operation::Write { start, count, step, puts } => {
                for n in (*start..KEYS).step_by(*step as usize).take(*count as usize) {
                    if *puts {
                        family.put(key(n), b"value").unwrap();
                        model.insert(n);
                    } else {
                        family.delete(key(n)).unwrap();
                        model.remove(&n);
                    }
                }
            }
            Operation::DeleteRange { start, count } => {
                let range = *start..start + count;
                family.delete_range(key(range.start)..key(range.end)).unwrap();
                model.retain(|n| !range.contains(n));
            }
            Operation::Freeze => freeze(&db, &family),
            Operation::Merge => merge(&db, family.family()),
            Operation::Drain => {
                family.family().drain_step(&db.shared().pipeline.merge_context(&|| false)).unwrap();
            }
            Operation::Hold if held.len() < 4 => held.push((family.snapshot().unwrap(), model.clone())),
            Operation::Hold => {
                held.remove(0);
            }
            Operation::Walk { held: number, range, moves } => {
                let (snapshot, entries) = match number.and_then(|number| held.get(number)) {
                    Some((snapshot, entries)) => (snapshot.clone(), entries),
                    None => (family.snapshot().unwrap(), &model),
                };
                let (mut cursor, expected): (_, Vec<u32>) = match range {
                    None => (snapshot.cursor(), entries.iter().copied().collect()),
                    Some((start, end)) => (
                        snapshot.cursor_in(key(*start)..key(*end)),
                        entries.iter().copied().filter(|n| (start..end).contains(&n)).collect(),
                    ),
                };
                walk(&mut cursor, &expected, moves);
            }
        }
    }
}

proptest! {
    #![proptest_config(crate::sampling::config(40))]

    #[test]
    fn cursors_pass_long_runs_of_deletions_and_nothing_else(
        operations in prop::collection::vec(operation(), 1..40),
        deltas: bool,
    ) {
        run(&operations, if deltas { 0 } else { 8 });
    }
}

/// Several queues in one family, popped in turn, are walked side by side with a map.
#[test]
fn many_queues_in_one_family_keep_apart() {
    let (db, family) = open(8);
    let mut queues: BTreeMap<u32, std::ops::Range<u32>> = (0..12).map(|queue| (queue, 0..0)).collect();
    for turn in 0..6000u32 {
        let (&queue, jobs) = queues.iter_mut().nth(turn as usize * 7 % 12).unwrap();
        let name = |job: u32| format!("{queue:02}/{job:08}");
        family.put(name(jobs.end), b"job").unwrap();
        jobs.end += 1;
        if turn % 5 != 0 {
            let first = family.prefix(format!("{queue:02}/")).unwrap().next().unwrap().unwrap().0;
            assert_eq!(first, name(jobs.start).into_bytes());
            family.delete(&first).unwrap();
            jobs.start += 1;
        }
        if turn % 500 == 499 {
            freeze(&db, &family);
        }
    }
    let steps = db.statistics().entries_passed;
    assert!(steps <= 6000 * 60, "{steps} steps");
}
