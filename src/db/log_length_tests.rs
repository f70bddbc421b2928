//! Checkpoints beside merges, writers beside a log at its limit, and what little writing costs.

use std::thread;
use std::time::{Duration, Instant};

use crate::column_family::options::FamilyOptions;
use crate::db::ColumnFamilyDatabase;
use crate::error::{Error, ErrorKind};
use crate::options::DatabaseBuilder;
use crate::storage::{MemoryStorage, StorageBackend};
use crate::txn::batch::WriteBatch;
use crate::txn::handle::ColumnFamily;

/// Long enough for a machine that does much else, and nothing that a test waits for if all is well.
const PATIENCE: Duration = Duration::from_secs(60);

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "it never came to this: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn manual() -> DatabaseBuilder {
    ColumnFamilyDatabase::builder().page_size(4096).automatic_maintenance(false)
}

fn families(db: &ColumnFamilyDatabase, count: usize) -> Vec<ColumnFamily> {
    let create = |n| db.create_column_family(&format!("family {n}"), FamilyOptions::default()).unwrap();
    (0..count).map(create).collect()
}

#[test]
fn a_checkpoint_that_is_due_waits_for_no_merge() {
    let db = manual().background_threads(1).storage(MemoryStorage::new()).open("memory").unwrap();
    let families = families(&db, 2);
    families[0].put("key", "value").unwrap();
    families[1].put("key", "value").unwrap();
    let shared = db.shared();
    // The only thread that merges is at it, and does not end.
    let merging = families[0].family().merging.lock();
    families[0].family().freeze(&mut families[0].family().write.lock(), &shared.pipeline.views).unwrap();
    shared.pipeline.work.request_merge(families[0].family());
    shared.drain(families[1].family()).unwrap();
    let before = db.statistics().checkpoints;
    shared.pipeline.work.request_checkpoint();
    wait_until("a checkpoint beside a merge", || db.statistics().checkpoints > before);
    drop(merging);
    db.close().unwrap();
}

/// Writes from three threads into more families than threads merge, and gives the most that the log weighed,
/// and the sum of what was written. What files of the log take, removed ones included, stays within the limit
/// and a segment, or what one batch takes.
fn overrun(limit: u64, value: usize, operations: usize, commits: usize) -> (u64, u64) {
    let builder = ColumnFamilyDatabase::builder().page_size(4096).background_threads(2).disk_reserve_bytes(0);
    let segment = (limit / 8).max(3 * operations as u64 * (value as u64 + 40));
    let db = builder.log_limit_bytes(limit).storage(MemoryStorage::new()).open("memory").unwrap();
    let families = families(&db, 6);
    let (mut most, mut sum, mut most_files) = (0, 0, 0);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..3usize)
            .map(|writer| {
                let (db, families) = (&db, &families);
                scope.spawn(move || {
                    let (mut most, mut most_files, mut batch) = (0, 0, WriteBatch::new());
                    for n in 0..commits {
                        batch.clear();
                        for part in 0..operations {
                            let key = (n * operations + part).wrapping_mul(0x9e37_79b9) as u32;
                            let family = &families[(writer * 2 + n % 2) % families.len()];
                            batch.put(family, key.to_be_bytes(), vec![writer as u8; value]);
                        }
                        db.write(&batch).unwrap();
                        most = most.max(db.pipeline().log.as_ref().unwrap().weight());
                        most_files = most_files.max(db.statistics().log.bytes_on_disk);
                    }
                    (most, most_files, commits * operations * (value + 4))
                })
            })
            .collect();
        for writer in writers {
            let (weight, files, bytes) = writer.join().unwrap();
            most = most.max(weight);
            most_files = most_files.max(files);
            sum += bytes as u64;
        }
    });
    for family in &families {
        assert!(family.iter().unwrap().next().is_some());
    }
    assert!(db.verify().unwrap().is_clean());
    db.close().unwrap();
    assert!(most_files <= limit + limit / 16 + segment, "files of {most_files} with a limit of {limit}");
    (most, sum)
}

#[test]
fn the_log_stays_within_its_limit_with_more_busy_families_than_threads() {
    let limit = 1 << 20;
    let (most, sum) = overrun(limit, 100, 100, 400);
    assert!(sum > 10 * limit, "{sum} bytes were written");
    assert!(most <= limit + limit / 8, "a log of {most} with a limit of {limit}");
}

#[test]
fn tiny_entries_count_for_what_replaying_them_takes() {
    let limit = 1 << 20;
    let (most, sum) = overrun(limit, 0, 200, 60);
    assert!(sum < limit / 4, "{sum} bytes were written");
    assert!(most > limit / 2, "a log of {most}");
    assert!(most <= limit + limit / 8, "a log of {most} with a limit of {limit}");
}

#[test]
fn a_batch_larger_than_the_limit_is_taken_once_nothing_older_is_in_the_log() {
    let limit = 64 << 10;
    let (most, _) = overrun(limit, 1000, 200, 5);
    assert!(most > limit, "{most}");
    // One such batch, what a segment held before it, and nothing more.
    assert!(most < 200 * 1200 + limit, "{most}");
}

/// A writer who is stopped at the limit, since merges cannot go on, and what he is told after `then`.
fn told(then: impl FnOnce(&ColumnFamilyDatabase)) -> Error {
    let db = manual().log_limit_bytes(64 << 10).storage(MemoryStorage::new()).open("memory").unwrap();
    let family = &families(&db, 1)[0];
    let told = thread::scope(|scope| {
        let merging = family.family().merging.lock();
        let writer = scope.spawn(move || {
            let mut n = 0u32;
            loop {
                n += 1;
                if let Err(error) = family.put(n.to_be_bytes(), [0; 100]) {
                    return error;
                }
            }
        });
        wait_until("the writer is stopped", || db.statistics().log.write_stops > 0);
        then(&db);
        let told = writer.join().unwrap();
        drop(merging);
        told
    });
    let weight = db.statistics().log.replay_weight;
    assert!(weight <= 64 << 10, "{weight}");
    told
}

#[test]
fn a_writer_who_waits_for_the_log_is_told_why_it_does_not_get_shorter() {
    let failed = told(|db| drop(db.pipeline().fail(Error::new(ErrorKind::WriteFailed, "as the test wants"))));
    assert_eq!(failed.kind(), ErrorKind::WriteFailed);
    let full = told(|db| {
        let full = || Error::io("writing", std::io::ErrorKind::StorageFull.into());
        // Merges of nothing take it back.
        db.pipeline().log_pace.obstruct(full());
    });
    assert_eq!(full.kind(), ErrorKind::OutOfSpace);
    let closed = told(|db| {
        let db = db.clone();
        thread::spawn(move || db.close());
    });
    assert_eq!(closed.kind(), ErrorKind::Closed);
}

fn log_files(storage: &MemoryStorage) -> (usize, u64) {
    let names = storage.list("wal").unwrap();
    let len = |name: &String| {
        storage.open(&format!("wal/{name}"), crate::storage::FileMode::Read).unwrap().len().unwrap()
    };
    (names.len(), names.iter().map(len).sum())
}

#[test]
fn processes_that_write_little_and_end_leave_few_and_small_segments() {
    let storage = MemoryStorage::new();
    let mut expected = 0u32;
    let (mut most, mut most_bytes) = (0, 0);
    for _ in 0..200 {
        let db = manual().storage(storage.clone()).open("memory").unwrap();
        let family = db.column_family_or_create("family", FamilyOptions::default()).unwrap();
        for _ in 0..10 {
            family.put(expected.to_be_bytes(), [1; 20]).unwrap();
            expected += 1;
        }
        drop((family, db));
        let (files, bytes) = log_files(&storage);
        most = most.max(files);
        most_bytes = most_bytes.max(bytes);
    }
    assert!(most <= 40, "{most} segments");
    assert!(most_bytes <= 1 << 20, "{most_bytes} bytes");
    let db = manual().storage(storage).open("memory").unwrap();
    let family = db.column_family("family").unwrap();
    assert_eq!(family.iter().unwrap().count(), expected as usize);
}

/// A database whose clock stands still.
fn without_threads(storage: &MemoryStorage) -> ColumnFamilyDatabase {
    let builder = ColumnFamilyDatabase::builder().page_size(4096).storage(storage.clone());
    builder.open_without_threads("memory").unwrap()
}

#[test]
fn one_put_now_and_then_makes_no_checkpoint_each() {
    let db = without_threads(&MemoryStorage::new());
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    let before = (db.statistics().checkpoints, db.statistics().pages_written);
    let mut clock = crate::db::background::Clock::new();
    // Ten minutes, a put every two seconds, two looks around in each second.
    for look in 0..1200u32 {
        if look % 4 == 0 {
            family.put(look.to_be_bytes(), [1; 50]).unwrap();
        }
        db.shared().look_around(&mut clock);
        db.shared().work_off();
    }
    let checkpoints = db.statistics().checkpoints - before.0;
    let pages = db.statistics().pages_written - before.1;
    assert!((10..=25).contains(&checkpoints), "{checkpoints} checkpoints");
    assert!(pages <= 200, "{pages} pages");
    // And then it rests.
    for _ in 0..70 {
        db.shared().look_around(&mut clock);
        db.shared().work_off();
    }
    assert_eq!(db.family_properties(&family).unwrap().entries_in_memtables, 0);
    assert!(!db.shared().has_merges_to_checkpoint());
}

#[test]
fn a_checkpoint_beside_a_short_log_looks_at_no_family_that_nothing_was_done_to() {
    let db = without_threads(&MemoryStorage::new());
    let names = (0..50).map(|n| (format!("family {n}"), FamilyOptions::default()));
    let families = db.create_column_families(names).unwrap();
    let checkpoints = db.statistics().checkpoints;
    let listed = crate::db::shared::LISTED.get();
    for n in 0..20u32 {
        families[0].put(n.to_be_bytes(), "value").unwrap();
        db.shared().drain(families[0].family()).unwrap();
        db.shared().pipeline.work.request_checkpoint();
        db.shared().work_off();
    }
    let checkpoints = db.statistics().checkpoints - checkpoints;
    let listed = crate::db::shared::LISTED.get() - listed;
    // Now and then the catalog is written anew.
    assert!(checkpoints >= 20 && listed <= checkpoints / 2, "{listed} times in {checkpoints} checkpoints");
}

#[test]
fn much_in_a_memtable_at_rest_does_not_wait() {
    let db = without_threads(&MemoryStorage::new());
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for n in 0..2000u32 {
        family.put(n.to_be_bytes(), [1; 500]).unwrap();
    }
    let mut clock = crate::db::background::Clock::new();
    for _ in 0..4 {
        db.shared().look_around(&mut clock);
        db.shared().work_off();
    }
    assert_eq!(db.family_properties(&family).unwrap().entries_in_memtables, 0);
    assert!(!db.shared().has_merges_to_checkpoint());
}
