//! Several threads at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use super::*;
use crate::wal::testing::Hold;

#[test]
fn concurrent_syncs_share_the_disks_syncs() {
    const THREADS: u64 = 8;
    const ROUNDS: u64 = 5;
    let disk = Disk::new();
    let (_, log) = fresh(disk.clone(), LogOptions { first_segment_bytes: 4 << 10, ..small() });
    let appended = Arc::new(AtomicU64::new(0));
    let barrier = Barrier::new(THREADS as usize);
    disk.hold_syncs(Hold { count: Arc::clone(&appended), multiple: THREADS });
    let before = disk.syncs();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (log, appended, barrier) = (&log, &appended, &barrier);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let sequence = log.append(&payload(thread, 8), 0, true).unwrap();
                    appended.fetch_add(1, Ordering::SeqCst);
                    log.sync_through(sequence).unwrap();
                    assert!(log.durable() >= sequence);
                    barrier.wait();
                }
            });
        }
    });
    // The first sync of a round lasts until all have appended, so the second one covers those whom the first
    // did not.
    let syncs = disk.syncs() - before;
    assert!(syncs <= 2 * ROUNDS, "{ROUNDS} rounds of {THREADS} threads took {syncs} syncs");
}

/// Eight threads append, some sync, one prepares and releases; then every payload is there once, in order.
fn concurrent_appends(storage: impl StorageBackend, commits: u64, options: LogOptions) {
    let (backend, log) = fresh(storage, options);
    let done = AtomicU64::new(0);
    let appended: Vec<Records> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let (log, done) = (&log, &done);
                scope.spawn(move || {
                    let mut appended = Records::new();
                    for i in 0..commits {
                        if i % 16 == thread {
                            log.assign().unwrap();
                        }
                        let payload = payload(thread << 32 | i, (i * 37 % 300) as usize);
                        let sequence = log.append(&payload, 0, thread < 2).unwrap();
                        appended.push((sequence.0, payload));
                        if thread < 2 && i % 8 == 0 {
                            log.sync_through(sequence).unwrap();
                        }
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                    appended
                })
            })
            .collect();
        while done.load(Ordering::Relaxed) < 8 {
            log.prepare().unwrap();
            std::thread::yield_now();
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut expected: Records = appended.into_iter().flatten().collect();
    expected.sort();
    let stats = log.stats();
    assert_eq!(stats.records, 8 * commits);
    drop(log);
    let (records, report) = replay_all(&*backend);
    assert!(records == expected, "the log differs from what was appended");
    assert_eq!(report.torn_tail, None);
}

#[test]
fn concurrent_appends_are_replayed_once_and_in_order() {
    let commits = if cfg!(miri) { 20 } else { 2000 };
    concurrent_appends(MemoryStorage::new(), commits, LogOptions { max_segment_bytes: 16 << 10, ..small() });
}

#[test]
#[cfg_attr(miri, ignore = "miri has no shared mappings of files")]
fn concurrent_appends_into_mappings_are_replayed_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions { first_segment_bytes: 64 << 10, max_segment_bytes: 1 << 20, ..small() };
    concurrent_appends(FileStorage::new(directory.path()), 2000, options);
}

#[test]
fn releasing_while_others_append_loses_nothing() {
    let (backend, log) = fresh(MemoryStorage::new(), LogOptions { spare_segments: 3, ..small() });
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (log, done) = (&log, &done);
            scope.spawn(move || {
                for i in 0..if cfg!(miri) { 30 } else { 3000 } {
                    log.append(&payload(thread, i % 100), 0, false).unwrap();
                }
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        while done.load(Ordering::Relaxed) < 4 {
            log.prepare().unwrap();
            let first = log.segment_of_next();
            log.sync().unwrap();
            log.release_before(log.mark(first).first_segment).unwrap();
        }
    });
    let last = log.sync().unwrap();
    let mark = log.mark(log.segment_of_next());
    drop(log);
    let (records, report) = replay_from(&*backend, mark).unwrap();
    assert_eq!(report.last_sequence, last);
    let numbers: Vec<u64> = records.iter().map(|record| record.0).collect();
    assert_eq!(numbers, (last.0 + 1 - records.len() as u64..=last.0).collect::<Vec<_>>());
}
