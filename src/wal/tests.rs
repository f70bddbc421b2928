//! The log as its callers see it, by one thread on a good disk; the rest is in the modules below.

mod concurrent;
mod crash;
mod damage;
mod failure;
mod files;
mod memory;
mod model;

use super::segment::DIRECTORY;
use super::testing::Disk;
use super::*;
use crate::codec::ids::SequenceNumber;
use crate::codec::log_mark::LogMark;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{FileMode, FileStorage, MemoryStorage, StorageBackend};
use crate::sync::Arc;

const DATABASE: [u8; 16] = *b"database of test";

/// Segments of 1 KiB to 4 KiB.
fn small() -> LogOptions {
    LogOptions {
        first_segment_bytes: 1 << 10,
        max_segment_bytes: 4 << 10,
        spare_segments: 1,
        ..LogOptions::new(DATABASE)
    }
}

type Records = Vec<(u64, Vec<u8>)>;

fn replay_from(backend: &dyn StorageBackend, mark: LogMark) -> Result<(Records, ReplayReport)> {
    let mut records = Records::new();
    let report = replay(backend, &DATABASE, mark, &mut |sequence, payload| {
        records.push((sequence.0, payload.to_vec()));
        Ok(())
    })?;
    assert_eq!(report.records, records.len() as u64);
    assert_eq!(report.end.last_sequence, report.last_sequence);
    Ok((records, report))
}

fn replay_all(backend: &dyn StorageBackend) -> (Records, ReplayReport) {
    replay_from(backend, LogMark::default()).unwrap()
}

/// Opens the log as a database does after a crash.
fn reopen(backend: &Arc<dyn StorageBackend>, options: LogOptions, mark: LogMark) -> (Log, Records) {
    let (records, report) = replay_from(&**backend, mark).unwrap();
    make_durable(&**backend, &report).unwrap();
    (Log::start(Arc::clone(backend), options, report.end).unwrap(), records)
}

fn fresh(backend: impl StorageBackend, options: LogOptions) -> (Arc<dyn StorageBackend>, Log) {
    let backend: Arc<dyn StorageBackend> = Arc::new(backend);
    let log = Log::start(Arc::clone(&backend), options, LogEnd::default()).unwrap();
    (backend, log)
}

/// A payload that tells its number and has `len` bytes.
fn payload(number: u64, len: usize) -> Vec<u8> {
    (0..len).map(|i| (number as usize * 31 + i * 7) as u8).collect()
}

#[test]
fn what_was_appended_is_replayed_in_order() {
    let (backend, log) = fresh(MemoryStorage::new(), small());
    let lengths = [0, 1, 7, 8, 9, 400, 471, 472, 473, 900, 3000];
    let mut expected = Records::new();
    for (i, &len) in lengths.iter().enumerate() {
        let sequence = log.append(&payload(i as u64, len), 0, i % 2 == 0).unwrap();
        expected.push((sequence.0, payload(i as u64, len)));
    }
    assert_eq!(log.last_assigned(), SequenceNumber(lengths.len() as u64));
    drop(log);
    let (records, report) = replay_all(&*backend);
    assert_eq!(records, expected);
    assert_eq!(report.torn_tail, None);
    assert!(report.segments > 2);
    assert_eq!(replay_all(&*backend), (records, report));
}

#[test]
fn an_absent_or_empty_log_replays_nothing() {
    let backend = MemoryStorage::new();
    assert_eq!(replay_all(&backend), (Records::new(), ReplayReport::default()));
    backend.create_directory("wal").unwrap();
    assert_eq!(replay_all(&backend), (Records::new(), ReplayReport::default()));
}

#[test]
fn numbers_without_a_record_leave_gaps() {
    let (backend, log) = fresh(MemoryStorage::new(), small());
    assert_eq!(log.append(b"one", 0, false).unwrap(), SequenceNumber(1));
    assert_eq!(log.assign().unwrap(), SequenceNumber(2));
    assert_eq!(log.append(b"three", 0, false).unwrap(), SequenceNumber(3));
    assert_eq!(log.sync().unwrap(), SequenceNumber(3));
    let syncs = log.stats().syncs;
    let last = log.assign().unwrap();
    log.sync_through(last).unwrap();
    assert_eq!(log.stats().syncs, syncs, "a number without a record needs no sync");
    assert_eq!(log.durable(), SequenceNumber(4));
    let (records, _) = replay_all(&*backend);
    assert_eq!(records, [(1, b"one".to_vec()), (3, b"three".to_vec())]);
}

#[test]
#[cfg_attr(miri, ignore = "miri has no shared mappings of files")]
fn a_mapped_log_and_a_written_one_replay_alike() {
    let directory = tempfile::tempdir().unwrap();
    for use_mapping in [false, true] {
        let storage = FileStorage::new(directory.path().join(use_mapping.to_string()));
        storage.create_directory("").unwrap();
        let (backend, log) = fresh(storage, LogOptions { use_mapping, ..small() });
        let mut expected = Records::new();
        for i in 0..100 {
            let payload = payload(i, i as usize * 11 % 700);
            expected.push((log.append(&payload, 0, i % 3 == 0).unwrap().0, payload));
            if i % 5 == 0 {
                log.prepare().unwrap();
            }
        }
        log.sync().unwrap();
        assert_eq!(replay_all(&*backend).0, expected);
    }
}

#[test]
fn a_record_larger_than_any_segment_gets_one_of_its_own() {
    let (backend, log) = fresh(MemoryStorage::new(), small());
    log.append(&payload(1, 500), 0, false).unwrap();
    log.prepare().unwrap();
    log.append(&payload(2, 100_000), 0, false).unwrap();
    log.append(&payload(3, 10), 0, false).unwrap();
    let (records, _) = replay_all(&*backend);
    let lengths: Vec<usize> = records.iter().map(|(_, payload)| payload.len()).collect();
    assert_eq!(lengths, [500, 100_000, 10]);
    assert_eq!(records[1].1, payload(2, 100_000));
}

#[test]
fn segments_grow_up_to_the_largest() {
    let options = LogOptions { max_segment_bytes: 10 << 10, ..small() };
    let (backend, log) = fresh(MemoryStorage::new(), options);
    for i in 0..150 {
        log.append(&payload(i, 200), 0, false).unwrap();
    }
    let sizes: Vec<u64> = (1..=4)
        .map(|id| backend.open(&segment::path(id), crate::storage::FileMode::Read).unwrap().len().unwrap())
        .collect();
    assert_eq!(sizes, [1 << 10, 8 << 10, 10 << 10, 10 << 10]);
}

#[test]
fn a_torn_tail_is_cut_and_stays_cut() {
    let disk = Disk::new();
    let (backend, log) = fresh(disk.clone(), small());
    for i in 0..20 {
        log.append(&payload(i, 100), 0, false).unwrap();
    }
    drop(log);
    // Half of the third record is lost: what follows it, here and in later segments, must never come back.
    disk.tamper(&segment::path(1), |bytes| bytes[128 + 2 * 144 + 60..128 + 3 * 144].fill(0));
    let (log, records) = reopen(&backend, small(), LogMark::default());
    assert_eq!(records.len(), 2);
    assert_eq!(log.append(b"after the cut", 0, false).unwrap(), SequenceNumber(3));
    drop(log);
    let (log, records) = reopen(&backend, small(), LogMark::default());
    assert_eq!(records.len(), 3);
    assert_eq!(records[2], (3, b"after the cut".to_vec()));
    assert_eq!(log.append(b"more", 0, true).unwrap(), SequenceNumber(4));
    log.sync().unwrap();
    drop(log);
    let (records, report) = replay_all(&*backend);
    assert_eq!(records.len(), 4);
    assert_eq!(report.torn_tail, None);
}

#[test]
fn a_cut_holds_although_the_orphans_are_still_there() {
    let disk = Disk::new();
    let (backend, log) = fresh(disk.clone(), small());
    for i in 0..50 {
        log.append(&payload(i, 100), 0, false).unwrap();
    }
    drop(log);
    let orphans: Vec<_> = disk.contents().into_iter().filter(|(path, _)| *path != segment::path(1)).collect();
    assert!(orphans.len() > 1);
    disk.tamper(&segment::path(1), |bytes| bytes[128 + 2 * 144] ^= 1);
    let (log, records) = reopen(&backend, small(), LogMark::default());
    log.append(b"after the cut", 0, false).unwrap();
    log.sync().unwrap();
    log.append(b"and more", 0, false).unwrap();
    drop(log);
    // The power went before the removal was durable.
    for (path, content) in orphans {
        let file = disk.open(&path, crate::storage::FileMode::Create).unwrap();
        file.write_at(&content, 0).unwrap();
    }
    // And the record at the stop reads well again.
    disk.tamper(&segment::path(1), |bytes| bytes[128 + 2 * 144] ^= 1);
    let (again, report) = replay_all(&*backend);
    assert_eq!(again[..2], records[..]);
    assert_eq!(again[2..], [(3, b"after the cut".to_vec()), (4, b"and more".to_vec())]);
    assert_eq!(report.torn_tail, None);
}

#[test]
fn released_segments_are_recycled_and_their_old_records_never_replayed() {
    let disk = Disk::new();
    let (backend, log) = fresh(disk.clone(), small());
    for i in 0..200 {
        log.append(&payload(i, 100), 0, false).unwrap();
        if i % 10 == 0 {
            log.sync().unwrap();
            log.prepare().unwrap();
            log.release_before(log.mark(log.segment_of_next()).first_segment).unwrap();
        }
    }
    // No name shows them.
    while log.free_one() {}
    let stats = log.stats();
    assert!(stats.segments_recycled > 2, "{stats:?}");
    assert!(stats.bytes_on_disk <= 4 * (4 << 10), "{stats:?}");
    assert_eq!(
        disk.contents().values().map(|content| content.len() as u64).sum::<u64>(),
        stats.bytes_on_disk
    );
    log.sync().unwrap();
    let mark = log.mark(log.segment_of_next());
    drop(log);
    let (records, report) = replay_from(&*backend, mark).unwrap();
    let numbers: Vec<u64> = records.iter().map(|record| record.0).collect();
    let first = numbers[0];
    assert_eq!(numbers, (first..=200).collect::<Vec<_>>());
    assert_eq!(report.torn_tail, None);
    // Every suffix of the current segment's records gone: old records behind them do not come forth.
    let path = segment::path(report.end.segment);
    for keep in 0..records.len() as u64 {
        let cut = 128 + keep * 144;
        let disk = disk.after_kill();
        disk.tamper(&path, |bytes| bytes[cut as usize] ^= 0xff);
        match replay_from(&disk, LogMark { durable_bytes: 128, ..mark }) {
            Ok((again, _)) => assert_eq!(again[..], records[..keep as usize]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corruption),
        }
    }
}

#[test]
fn segments_that_the_mark_needs_are_kept() {
    let (backend, log) = fresh(MemoryStorage::new(), small());
    for i in 0..50 {
        log.append(&payload(i, 100), 0, false).unwrap();
    }
    // Nothing was synced since the start, so the mark names the first segment whatever it is asked for.
    let mark = log.mark(log.segment_of_next());
    assert_eq!(mark, LogMark { first_segment: 1, newest_segment: 1, durable_bytes: 128 });
    log.release_before(log.segment_of_next()).unwrap();
    drop(log);
    assert_eq!(replay_from(&*backend, mark).unwrap().0.len(), 50);
}

#[test]
fn the_bytes_of_the_log_are_counted_by_segment() {
    let (backend, log) = fresh(MemoryStorage::new(), small());
    assert_eq!(log.bytes_since(0), 128);
    for i in 0..50 {
        log.append(&payload(i, 100), 0, false).unwrap();
    }
    let stats = log.stats();
    assert_eq!((stats.records, stats.bytes_appended), (50, 50 * 144));
    assert_eq!(log.bytes_since(0), 50 * 144 + 128 * stats.segments);
    assert!(log.bytes_since(log.current_segment()) <= 4 << 10);
    assert!(log.bytes_since(log.current_segment()) < log.bytes_since(0));
    let mark = log.mark(1);
    drop(log);
    let (log, _) = reopen(&backend, small(), mark);
    assert!(log.bytes_since(0) >= 50 * 144);
    log.release_before(log.mark(log.segment_of_next()).first_segment).unwrap();
    assert_eq!(log.bytes_since(0), 128);
    assert_eq!(segment_ids(&*backend), [log.current_segment()]);
}

fn segment_ids(backend: &dyn StorageBackend) -> Vec<u64> {
    segment::list(backend).unwrap()
}

#[test]
fn replay_changes_nothing_on_disk() {
    let disk = Disk::new();
    let (backend, log) = fresh(disk.clone(), small());
    for i in 0..30 {
        log.append(&payload(i, 100), 0, false).unwrap();
    }
    drop(log);
    disk.tamper(&segment::path(2), |bytes| bytes[300] ^= 1);
    let before = disk.contents();
    let (records, report) = replay_all(&*backend);
    assert!(report.torn_tail.is_some());
    assert_eq!(disk.contents(), before);
    assert_eq!(replay_all(&*backend), (records, report));
}

#[test]
fn an_error_of_the_receiver_ends_the_replay() {
    let (backend, log) = fresh(MemoryStorage::new(), small());
    log.append(b"a", 0, false).unwrap();
    let mut apply = |_, _: &[u8]| Err(Error::corruption("the payload makes no sense"));
    let error = replay(&*backend, &DATABASE, LogMark::default(), &mut apply).unwrap_err();
    assert!(error.to_string().contains("makes no sense"));
}

#[test]
fn what_is_kept_for_reuse_can_be_given_back_at_any_time() {
    let (backend, log) = fresh(MemoryStorage::new(), small());
    let files = || backend.list(DIRECTORY).unwrap().len();
    let mut number = 0;
    for _ in 0..6 {
        let first = log.current_segment();
        while log.current_segment() < first + 3 || !log.wants_prepare() {
            number += 1;
            log.append(&payload(number, 300), 0, false).unwrap();
        }
        log.prepare().unwrap();
        log.sync().unwrap();
        log.release_before(log.mark(log.segment_of_next()).first_segment).unwrap();
        let kept = files();
        log.give_back().unwrap();
        log.release_before(log.mark(log.segment_of_next()).first_segment).unwrap();
        log.give_back().unwrap();
        while log.free_one() {}
        assert_eq!((kept, files(), log.stats().spare_segments), (3, 1, 0));
        assert_eq!(log.stats().bytes_on_disk, small().first_segment_bytes);
    }
    number += 1;
    log.append(&payload(number, 300), 0, true).unwrap();
    let (records, report) = replay_from(&*backend, log.mark(log.segment_of_next())).unwrap();
    assert_eq!((records.last().unwrap().0, report.torn_tail), (number, None));
}

#[test]
fn a_segment_that_one_record_made_too_heavy_can_be_let_go_of_before_another_record_comes() {
    let (_, log) = fresh(MemoryStorage::new(), LogOptions { watched_from: 1, ..small() });
    assert!(!log.can_be_shorter());
    log.append(&payload(1, 100), 1, false).unwrap();
    assert!(!log.can_be_shorter());
    log.append(&payload(2, 10_000), 1, false).unwrap();
    log.append(&payload(3, 10), 1000, false).unwrap();
    assert!(log.can_be_shorter());
    assert_eq!(log.watched(), log.charge());
    log.sync().unwrap();
    log.leave_segment(false).unwrap();
    let current = log.segment_of_next();
    assert_eq!(log.segment_within(0), current);
    assert_eq!(log.mark(current).first_segment, current);
    log.release_before(current).unwrap();
    assert_eq!((log.weight(), log.watched()), (0, 0));
    assert!(!log.can_be_shorter());
    log.leave_segment(false).unwrap();
    assert_eq!(log.segment_of_next(), current);
}
