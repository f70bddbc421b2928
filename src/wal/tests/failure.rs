//! Full and failing disks.

use super::*;
use crate::error::Error;
use crate::wal::reserve::Room;

/// Room for merging so much log.
#[derive(Debug)]
struct RoomFor(std::sync::atomic::AtomicU64);

impl RoomFor {
    fn new() -> Arc<Self> {
        Arc::new(Self(u64::MAX.into()))
    }

    fn set(&self, weight: u64) {
        self.0.store(weight, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Room for RoomFor {
    fn keep(&self, weight: u64) -> Result<()> {
        match weight <= self.0.load(std::sync::atomic::Ordering::Relaxed) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::OutOfSpace, "there is no room to merge as much")),
        }
    }

    fn is_tight(&self, _weight: u64) -> bool {
        true
    }

    fn fill(&self) -> bool {
        true
    }
}

#[test]
fn a_file_that_is_kept_for_reuse_serves_only_where_there_is_room_to_merge_all_that_it_holds() {
    let room = RoomFor::new();
    let options = LogOptions { room: room.clone(), ..small() };
    let (segment, smallest) = (options.max_segment_bytes, options.first_segment_bytes);
    let (backend, log) = fresh(MemoryStorage::new(), options);
    let mut expected = Records::new();
    let append = |expected: &mut Records| {
        let payload = payload(expected.len() as u64, 200);
        log.append(&payload, 0, false).map(|sequence| expected.push((sequence.0, payload)))
    };
    while log.current_segment() < 6 {
        append(&mut expected).unwrap();
    }
    log.sync().unwrap();
    let mark = log.current_segment();
    let log_mark = log.mark(mark);
    log.release_before(mark).unwrap();
    assert_eq!(log.stats().spare_segments, 1);
    // The present segment, and two of the smallest size.
    let limit = segment + 2 * smallest;
    room.set(limit);
    let refused = loop {
        if let Err(error) = append(&mut expected) {
            break error;
        }
    };
    assert_eq!(refused.kind(), ErrorKind::OutOfSpace);
    assert!(log.weight() <= limit, "{} bytes of log, and room to merge {limit}", log.weight());
    assert_eq!((log.current_segment() - mark, log.stats().spare_segments), (2, 0));
    log.sync().unwrap();
    let replayed = replay_from(&*backend, log_mark).unwrap().0;
    assert_eq!(replayed, expected[expected.len() - replayed.len()..]);

    // Nor does who only leaves the present segment get a longer one.
    room.set(u64::MAX);
    while log.current_segment() < mark + 6 {
        append(&mut expected).unwrap();
    }
    log.sync().unwrap();
    log.mark(log.current_segment());
    log.release_before(log.current_segment()).unwrap();
    append(&mut expected).unwrap();
    assert_eq!(log.stats().spare_segments, 1);
    log.leave_segment(true).unwrap();
    assert_eq!(log.stats().spare_segments, 1);
}

#[test]
fn a_full_disk_refuses_one_append_and_nothing_more() {
    let storage = MemoryStorage::with_capacity_limit(20 << 10);
    let (backend, log) = fresh(storage.clone(), small());
    let mut expected = Records::new();
    let refused = loop {
        let payload = payload(expected.len() as u64, 700);
        match log.append(&payload, 0, false) {
            Ok(sequence) => expected.push((sequence.0, payload)),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::OutOfSpace);
    assert!(log.failed().is_none());
    assert_eq!(log.last_assigned(), SequenceNumber(expected.len() as u64), "nothing was assigned");
    let files = segment_ids(&*backend).len() as u64;
    assert_eq!(files, log.stats().segments, "what could not be made was removed");
    assert_eq!(log.append(&payload(0, 700), 0, false).unwrap_err().kind(), ErrorKind::OutOfSpace);
    // What needs no new segment goes on.
    expected.push((log.append(b"x", 0, true).unwrap().0, b"x".to_vec()));
    log.sync().unwrap();
    if log.wants_prepare() {
        assert_eq!(log.prepare().unwrap_err().kind(), ErrorKind::OutOfSpace);
    }
    storage.set_capacity_limit(1 << 20);
    let payload = payload(9, 700);
    expected.push((log.append(&payload, 0, false).unwrap().0, payload));
    log.sync().unwrap();
    assert_eq!(replay_all(&*backend).0, expected);
}

#[test]
fn a_full_disk_refuses_a_start() {
    let storage = MemoryStorage::with_capacity_limit(0);
    let error = Log::start(Arc::new(storage.clone()), small(), LogEnd::default()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::OutOfSpace);
    assert_eq!(replay_all(&storage).0, []);
}

#[test]
fn a_failed_sync_ends_the_log() {
    let disk = Disk::new();
    let (_, log) = fresh(disk.clone(), small());
    let first = log.append(b"durable", 0, true).unwrap();
    log.sync_through(first).unwrap();
    let second = log.append(b"never", 0, true).unwrap();
    disk.fail_syncs(true);
    let error = log.sync_through(second).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WriteFailed);
    disk.fail_syncs(false);
    let syncs = disk.syncs();
    for error in [
        log.sync_through(second).unwrap_err(),
        log.sync().unwrap_err(),
        log.append(b"later", 0, false).unwrap_err(),
        log.assign().unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::WriteFailed);
        assert!(error.to_string().contains("made to fail"), "{error}");
    }
    assert_eq!(disk.syncs(), syncs, "a failed sync is not retried");
    assert_eq!(log.failed().unwrap().kind(), ErrorKind::Io);
    assert_eq!(log.durable(), first);
    log.sync_through(first).unwrap();
}

#[test]
fn a_failed_write_ends_the_log_and_wakes_those_who_wait() {
    let disk = Disk::new();
    let (_, log) = fresh(disk.clone(), small());
    let first = log.append(b"written", 0, false).unwrap();
    disk.fail_writes(true);
    assert_eq!(log.append(b"lost", 0, false).unwrap_err().kind(), ErrorKind::WriteFailed);
    disk.fail_writes(false);
    assert_eq!(log.append(b"later", 0, false).unwrap_err().kind(), ErrorKind::WriteFailed);
    assert_eq!(log.sync_through(first).unwrap_err().kind(), ErrorKind::WriteFailed);
}

#[test]
fn a_failed_sync_of_the_directory_ends_the_log() {
    let disk = Disk::new();
    let (_, log) = fresh(disk.clone(), small());
    log.append(&payload(1, 500), 0, false).unwrap();
    disk.fail_syncs(true);
    assert_eq!(log.append(&payload(2, 900), 0, false).unwrap_err().kind(), ErrorKind::WriteFailed);
    disk.fail_syncs(false);
    assert_eq!(log.append(b"later", 0, false).unwrap_err().kind(), ErrorKind::WriteFailed);
}

#[test]
fn where_the_disk_has_no_room_for_a_segment_a_shorter_one_is_made() {
    let storage = MemoryStorage::new();
    let options = LogOptions {
        first_segment_bytes: 4 << 10,
        max_segment_bytes: 1 << 20,
        spare_segments: 0,
        ..LogOptions::new(DATABASE)
    };
    let (backend, log) = fresh(storage.clone(), options);
    // Room for none of the next size, which is eight times as much.
    storage.set_capacity_limit(storage.used_bytes() + (12 << 10));
    let mut expected = Records::new();
    let refused = loop {
        let payload = payload(expected.len() as u64, 500);
        match log.append(&payload, 0, false) {
            Ok(sequence) => expected.push((sequence.0, payload)),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::OutOfSpace);
    assert_eq!(log.stats().segments, 4, "all the room there is is used");
    log.sync().unwrap();
    assert_eq!(replay_all(&*backend).0, expected);
}

#[test]
fn the_reserve_serves_on_a_full_disk_and_is_made_good_from_what_is_let_go() {
    let storage = MemoryStorage::new();
    let options = LogOptions { reserve_files: 2, reserve_file_bytes: 4 << 10, ..small() };
    let (backend, log) = fresh(storage.clone(), options.clone());
    assert!(log.fill_reserve().unwrap());
    drop(log);
    storage.set_capacity_limit(storage.used_bytes());
    // An opening takes one, and a deletion the other.
    let (log, _) = reopen(&backend, options.clone(), LogMark::default());
    assert!(!log.fill_reserve().unwrap());
    let record = payload(0, 900);
    let append = |count: &mut u64| {
        while log.append(&record, 0, false).is_ok() {
            *count += 1;
        }
    };
    let mut count = 0;
    append(&mut count);
    assert!(log.go_on_from_reserve(&record, 1).unwrap());
    append(&mut count);
    assert!(!log.go_on_from_reserve(&record, 1).unwrap(), "there were two");
    log.sync().unwrap();
    assert_eq!(replay_all(&*backend).0.len() as u64, count);
    log.mark(log.current_segment());
    log.release_before(log.current_segment()).unwrap();
    assert!(log.go_on_from_reserve(&record, 1).unwrap(), "what was let go of is there again");
    assert!(log.append(&record, 0, true).is_ok());
}
