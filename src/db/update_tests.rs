//! What depends on a key's value is written on top of that value, whatever others do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    ColumnFamily, ColumnFamilyDatabase, DatabaseBuilder, Durability, ErrorKind, FamilyOptions, MemoryStorage,
    Swap, WriteBatch,
};

fn builder() -> DatabaseBuilder {
    let builder = ColumnFamilyDatabase::builder().write_buffer_bytes(256 << 10).log_limit_bytes(64 << 10);
    builder.page_size(4096).cache_bytes(64 << 10).storage(MemoryStorage::new())
}

fn open() -> (ColumnFamilyDatabase, ColumnFamily) {
    let db = builder().open("memory").unwrap();
    let family = db.create_column_family("counters", FamilyOptions::default()).unwrap();
    (db, family)
}

fn number(value: Option<&[u8]>) -> u64 {
    value.map_or(0, |value| u64::from_be_bytes(value[..8].try_into().unwrap()))
}

/// A number, and so much padding that a few of them fill a memtable.
fn padded(number: u64) -> Vec<u8> {
    [&number.to_be_bytes()[..], &[7; 300]].concat()
}

/// Writes to `key` once, when it is first called.
fn once<'a>(write: impl FnOnce() + 'a) -> impl FnMut() + 'a {
    let mut write = Some(write);
    move || write.take().into_iter().for_each(|write| write())
}

#[test]
fn a_closure_is_shown_what_was_written_while_it_ran() {
    let (db, family) = open();
    family.put("a", 1u64.to_be_bytes()).unwrap();
    let whole = |change: &dyn Fn(&mut WriteBatch)| {
        let mut batch = WriteBatch::new();
        change(&mut batch);
        db.write(&batch).unwrap();
    };
    // What others do, and what they leave.
    let others: [(&dyn Fn(), u64); 8] = [
        (
            &|| {
                family.put("a", 10u64.to_be_bytes()).unwrap();
            },
            10,
        ),
        (
            &|| {
                family.delete("a").unwrap();
            },
            0,
        ),
        (
            &|| {
                family.delete_range("a".."b").unwrap();
            },
            0,
        ),
        (
            &|| {
                whole(&|batch| {
                    batch.put(&family, "a", 20u64.to_be_bytes());
                })
            },
            20,
        ),
        // It has memtables of its own.
        (
            &|| {
                whole(&|batch| {
                    batch.put(&family, "a", 30u64.to_be_bytes()).put(&family, "z", [0; 64 << 10]);
                })
            },
            30,
        ),
        // What was written is in the tree when the closure is through.
        (
            &|| {
                family.put("a", 40u64.to_be_bytes()).unwrap();
                db.flush().unwrap();
            },
            40,
        ),
        (
            &|| {
                family.delete("a").unwrap();
                db.flush().unwrap();
            },
            0,
        ),
        (
            &|| {
                family.put_with("a", 50u64.to_be_bytes(), Durability::None).unwrap();
            },
            50,
        ),
    ];
    for (place, (other, left)) in others.into_iter().enumerate() {
        for durability in [Durability::Buffered, Durability::Sync, Durability::None] {
            family.put("a", 1u64.to_be_bytes()).unwrap();
            let mut shown = Vec::new();
            let mut other = once(other);
            let change = |old: Option<&[u8]>| {
                shown.push(number(old));
                other();
                Some((number(old) + 1).to_be_bytes())
            };
            let sequence = family.update_with("a", change, durability).unwrap();
            assert_eq!(shown, [1, left], "after {place}, {durability:?}");
            assert_eq!(
                number(family.get("a").unwrap().as_deref()),
                left + 1,
                "after {place}, {durability:?}"
            );
            assert_eq!(sequence, db.snapshot().unwrap().sequence_number());
            if durability == Durability::Sync {
                assert!(db.synced_through() >= sequence);
            }
        }
    }
    db.close().unwrap();
}

#[test]
fn what_a_large_batch_wrote_counts_while_it_waits_to_be_merged() {
    // Nobody makes the log shorter here.
    let db = builder().log_limit_bytes(16 << 20).open_without_threads("memory").unwrap();
    let family = db.create_column_family("counters", FamilyOptions::default()).unwrap();
    family.put("a", 1u64.to_be_bytes()).unwrap();
    let mut shown = Vec::new();
    family
        .update("a", |old| {
            shown.push(number(old));
            if shown.len() == 1 {
                let mut batch = WriteBatch::new();
                batch.put(&family, "a", 30u64.to_be_bytes()).put(&family, "z", [0; 64 << 10]);
                db.write(&batch).unwrap();
            }
            Some((number(old) + 1).to_be_bytes())
        })
        .unwrap();
    assert_eq!(shown, [1, 30]);
    assert_eq!(number(family.get("a").unwrap().as_deref()), 31);
    assert_eq!(db.statistics().merges, 0);
}

#[test]
fn what_leaves_the_value_as_it_was_calls_no_closure_again() {
    let (db, family) = open();
    family.put("a", 1u64.to_be_bytes()).unwrap();
    let mut calls = 0;
    {
        let mut others = once(|| {
            // Other keys, merges of them, and the same value once more.
            for n in 0..200u32 {
                family.put(n.to_be_bytes(), [0; 300]).unwrap();
            }
            family.delete_range("b".."z").unwrap();
            db.flush().unwrap();
            db.compact().unwrap();
            family.put("a", 1u64.to_be_bytes()).unwrap();
        });
        family
            .update("a", |old| {
                calls += 1;
                others();
                Some((number(old) + 1).to_be_bytes())
            })
            .unwrap();
    }
    assert_eq!(calls, 1);
    assert_eq!(number(family.get("a").unwrap().as_deref()), 2);
    db.close().unwrap();
}

#[test]
fn what_changes_nothing_is_no_commit() {
    let (db, family) = open();
    let before = family.put("a", "1").unwrap();
    assert_eq!(family.update("a", |old| old.map(<[u8]>::to_vec)).unwrap(), before);
    assert_eq!(family.update("b", |_| None::<&[u8]>).unwrap(), before);
    assert_eq!(family.compare_and_swap("a", Some(b"1"), Some(b"1")).unwrap(), Swap::Done(before));
    assert_eq!(family.compare_and_swap("b", None, None).unwrap(), Swap::Done(before));
    assert_eq!(db.snapshot().unwrap().sequence_number(), before);
    family.update_with("a", |old| old.map(<[u8]>::to_vec), Durability::Sync).unwrap();
    assert!(db.synced_through() >= before, "what was read is not as durable as was asked for");
    db.close().unwrap();
}

#[test]
fn a_value_is_swapped_only_if_it_is_what_was_expected() {
    let (db, family) = open();
    assert!(family.compare_and_swap("a", None, Some(b"1")).unwrap().is_done());
    let differs = |found: Option<&[u8]>, swap: Swap| match swap {
        Swap::Done(_) => panic!("swapped what was not expected"),
        Swap::Differs(present) => assert_eq!(present.as_deref(), found),
    };
    differs(Some(b"1"), family.compare_and_swap("a", None, Some(b"2")).unwrap());
    differs(Some(b"1"), family.compare_and_swap("a", Some(b"2"), Some(b"2")).unwrap());
    differs(None, family.compare_and_swap("b", Some(b""), None).unwrap());
    assert!(family.compare_and_swap("a", Some(b"1"), Some(b"2")).unwrap().is_done());
    assert_eq!(family.get("a").unwrap().unwrap(), "2");
    assert!(family.compare_and_swap_with("a", Some(b"2"), None, Durability::Sync).unwrap().is_done());
    assert_eq!(family.get("a").unwrap(), None);
    // An empty value is a value.
    assert!(family.compare_and_swap("a", None, Some(b"")).unwrap().is_done());
    differs(Some(b""), family.compare_and_swap("a", None, Some(b"3")).unwrap());
    db.close().unwrap();
}

#[test]
fn a_closure_may_panic_and_use_the_database() {
    let (db, family) = open();
    family.put("a", "1").unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        family.update("a", |_| -> Option<&[u8]> { panic!("as the test wants") })
    }));
    assert!(panicked.is_err());
    assert_eq!(family.get("a").unwrap().unwrap(), "1");
    family
        .update("a", |old| {
            family.update("b", |_| Some("inner")).unwrap();
            db.flush().unwrap();
            db.snapshot().unwrap();
            old.map(|old| [old, b"2"].concat())
        })
        .unwrap();
    assert_eq!(family.get("a").unwrap().unwrap(), "12");
    assert_eq!(family.get("b").unwrap().unwrap(), "inner");
    let long = family.update(vec![0; (64 << 10) + 1], |_| Some("")).unwrap_err();
    assert_eq!(long.kind(), ErrorKind::KeyTooLarge);
    db.drop_column_family("counters").unwrap();
    assert_eq!(family.update("a", |_| Some("")).unwrap_err().kind(), ErrorKind::FamilyDropped);
    let second = db.create_column_family("counters", FamilyOptions::default()).unwrap();
    let dropped = second.update("a", |_| {
        db.drop_column_family("counters").unwrap();
        Some("")
    });
    assert_eq!(dropped.unwrap_err().kind(), ErrorKind::FamilyDropped);
    db.close().unwrap();
}

/// Counters with so much padding that memtables are full, frozen and merged all the time.
#[test]
fn counters_that_many_threads_count_up_lose_nothing() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 300;
    let (db, family) = open();
    let start = Barrier::new(THREADS as usize + 1);
    let calls = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (family, start, calls) = (&family, &start, &calls);
            scope.spawn(move || {
                start.wait();
                for round in 0..ROUNDS {
                    let durability = match (thread + round) % 16 {
                        0 => Durability::Sync,
                        1 => Durability::None,
                        _ => Durability::Buffered,
                    };
                    let up = |old: Option<&[u8]>| {
                        calls.fetch_add(1, Ordering::Relaxed);
                        Some(padded(number(old) + 1))
                    };
                    family.update_with((round % 3).to_be_bytes(), up, durability).unwrap();
                    // Another one by comparing.
                    loop {
                        let old = family.get("swapped").unwrap();
                        let new = padded(number(old.as_deref()) + 1);
                        if family.compare_and_swap("swapped", old.as_deref(), Some(&new)).unwrap().is_done() {
                            break;
                        }
                    }
                }
            });
        }
        start.wait();
        for n in 0..ROUNDS {
            family.put(format!("other {n}"), [0; 500]).unwrap();
            if n % 50 == 0 {
                db.flush().unwrap();
            }
        }
    });
    let counted: u64 = (0..3u64).map(|key| number(family.get(key.to_be_bytes()).unwrap().as_deref())).sum();
    assert_eq!(counted, THREADS * ROUNDS);
    assert_eq!(number(family.get("swapped").unwrap().as_deref()), THREADS * ROUNDS);
    assert!(calls.load(Ordering::Relaxed) >= THREADS * ROUNDS);
    db.close().unwrap();
}
