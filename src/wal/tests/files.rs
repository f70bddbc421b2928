//! What the log's files take of the disk.

use super::super::weight::weight;
use super::*;

const SEGMENT: u64 = 64 << 10;
const LIMIT: u64 = 8 * SEGMENT;

/// What is let go of at a time, what is made ahead of need and what is kept for reuse varies with `turn`.
fn fill_and_let_go(turn: u64, records: &[usize]) {
    let storage = MemoryStorage::new();
    let options = LogOptions {
        first_segment_bytes: 16 << 10,
        max_segment_bytes: SEGMENT,
        spare_segments: [2, 5][(turn % 2) as usize],
        limit_bytes: LIMIT,
        ..LogOptions::new(DATABASE)
    };
    let (_, log) = fresh(storage.clone(), options);
    let check = |what: &str| {
        let stats = log.stats();
        // Files longer than a segment take whole units of the storage.
        let more = storage.used_bytes() - stats.bytes_on_disk;
        assert!(more <= SEGMENT / 2, "{more} bytes more are used {what}");
        // A record that does not fit leaves no more of a segment than it takes itself, but for headers.
        assert!(
            stats.bytes_on_disk <= LIMIT + SEGMENT + 4096,
            "{} bytes {what}, with records of {records:?}: {stats:?}, of which {} are charged",
            stats.bytes_on_disk,
            log.charge()
        );
        stats
    };
    for round in turn..turn + 40 {
        let payload = payload(turn, records[round as usize % records.len()]);
        let record = payload.len();
        // As writers are admitted.
        while log.charge() + weight(record as u64, 1) <= LIMIT {
            log.append(&payload, 1, false).unwrap();
            check("after a record");
            if round % 3 > 0 {
                log.prepare().unwrap();
                check("with a segment made ahead");
            }
        }
        log.sync().unwrap();
        let first = log.segment_within([LIMIT / 4 * 3, LIMIT / 4, LIMIT / 2, 0][(round % 4) as usize]);
        log.release_before(log.mark(first).first_segment).unwrap();
        check("with removed files");
        log.free_surplus();
        let stats = check("after a round");
        let (kept, ahead) = (stats.spare_segments * SEGMENT, SEGMENT);
        assert!(stats.bytes_spare <= kept + ahead + SEGMENT, "{} bytes are of no use", stats.bytes_spare);
        if round % 5 == 0 {
            while log.free_one() {}
            check("at rest");
        }
    }
    assert!(log.stats().segments_recycled > 10, "{} segments were used anew", log.stats().segments_recycled);
}

/// Removed files that somebody has open take room though no name shows them.
#[test]
fn all_files_of_the_log_come_to_its_limit_and_a_segment_whatever_is_let_go_of() {
    let records: [&[usize]; 6] =
        [&[100], &[3000], &[40_000], &[20_000, 100], &[33_000], &[3000, 150_000, 70_000]];
    for (turn, records) in records.into_iter().enumerate() {
        fill_and_let_go(turn as u64, records);
    }
}

#[test]
fn a_segment_that_was_passed_over_is_no_part_of_a_copy() {
    let (backend, log) = fresh(MemoryStorage::new(), small());
    let mut expected = Records::new();
    let append = |log: &Log, expected: &mut Records, len| {
        let number = expected.len() as u64 + 1;
        log.append(&payload(number, len), 1, true).unwrap();
        expected.push((number, payload(number, len)));
    };
    append(&log, &mut expected, 700);
    log.prepare().unwrap();
    // Longer than the segment that was made ahead.
    append(&log, &mut expected, 60_000);
    append(&log, &mut expected, 10);
    drop(log);
    let (records, report) = replay_all(&*backend);
    assert_eq!(records, expected);
    let read: Vec<u64> = report.read.iter().map(|read| read.id).collect();
    assert_eq!(read, [1, 3, 4], "none was passed over");
    // A crash undid its removal.
    backend.open(&segment::path(2), FileMode::Create).unwrap().set_len(4096).unwrap();
    let log = Log::start(Arc::clone(&backend), small(), report.end).unwrap();
    log.weigh(&report, 3);
    append(&log, &mut expected, 10);
    let copy = MemoryStorage::new();
    copy.create_directory(DIRECTORY).unwrap();
    let held = log.hold(1);
    held.copy(&*backend, &copy, &[7; 16], &mut |_, _| ()).unwrap();
    let mut records = Records::new();
    replay(&copy, &[7; 16], held.mark(), &mut |sequence, payload| {
        records.push((sequence.0, payload.to_vec()));
        Ok(())
    })
    .unwrap();
    assert_eq!(records, expected);
}
