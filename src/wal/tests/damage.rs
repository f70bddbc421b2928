//! Replay of files that were changed behind the log's back.

use super::*;

/// One record as it stands on disk.
#[derive(Debug, Clone, Copy)]
struct Laid {
    segment: u64,
    offset: u64,
    payload_len: u64,
    durable: u64,
}

/// Six records in two segments; the sync after the second and the one after the fourth are known to later
/// ones.
fn small_log() -> (Disk, Records, Vec<Laid>) {
    let disk = Disk::new();
    let options = LogOptions { first_segment_bytes: 376, max_segment_bytes: 464, ..small() };
    let (backend, log) = fresh(disk.clone(), options);
    let mut records = Records::new();
    let mut laid = Vec::new();
    for i in 0..6u64 {
        let payload = payload(i, 21 + i as usize);
        records.push((log.append(&payload, 0, false).unwrap().0, payload));
        if i == 1 || i == 3 {
            log.sync().unwrap();
        }
    }
    drop(log);
    for id in segment_ids(&*backend) {
        let mut reader = reader::SegmentReader::open(&*backend, id).unwrap();
        let mut offset = segment::HEADER_LEN;
        while let reader::Found::Record { header, end } = reader.find(offset).unwrap() {
            let (payload_len, durable) = (header.payload_len, header.durable);
            laid.push(Laid { segment: id, offset, payload_len, durable });
            offset = end;
        }
    }
    assert_eq!(laid.len(), 6);
    assert_eq!(laid.iter().map(|laid| laid.segment).collect::<Vec<_>>(), [1, 1, 1, 2, 2, 2]);
    (disk, records, laid)
}

/// Whether a record beyond the `index`th says that it was durable.
fn known_durable(laid: &[Laid], index: usize) -> bool {
    let stop = laid[index];
    let knows = |later: &Laid| {
        if later.segment == stop.segment { later.durable > stop.offset } else { later.durable > 0 }
    };
    laid[index + 1..].iter().any(knows)
}

#[test]
fn any_flipped_bit_stops_the_replay_there_or_is_reported() {
    let (disk, records, laid) = small_log();
    let mut corruptions = 0;
    for id in [1, 2] {
        let path = segment::path(id);
        for bit in 0..disk.content(&path).len() * 8 {
            if cfg!(miri) && bit % 97 != 0 {
                continue;
            }
            let at = bit as u64 / 8;
            disk.tamper(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            let replayed = replay_from(&disk, LogMark::default());
            let hit = laid.iter().position(|laid| {
                laid.segment == id && (laid.offset..laid.offset + 40 + laid.payload_len).contains(&at)
            });
            // The start of the second segment is the end of the first.
            let hit = if at < 128 { Some(if id == 1 { 0 } else { 3 }) } else { hit };
            match hit {
                None => assert_eq!(replayed.unwrap().0, records, "segment {id}, bit {bit}"),
                Some(index) if known_durable(&laid, index) || (at < 128 && id == 2) => {
                    let error = replayed.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Corruption, "segment {id}, bit {bit}");
                    assert!(error.location().file.is_some() && error.location().offset.is_some(), "{error}");
                    corruptions += 1;
                }
                Some(index) => {
                    let (again, report) = replayed.unwrap();
                    assert_eq!(again, records[..index], "segment {id}, bit {bit}");
                    assert_eq!(report.end.segment, id);
                    assert_eq!(report.end.offset, laid[index].offset);
                }
            }
            disk.tamper(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        }
    }
    assert!(corruptions > 0);
    assert_eq!(replay_all(&disk).0, records);
}

#[test]
fn a_log_cut_at_any_byte_replays_what_is_whole_or_is_reported() {
    let (disk, records, laid) = small_log();
    for id in [1, 2] {
        let path = segment::path(id);
        let whole = disk.content(&path);
        for len in 0..whole.len() as u64 {
            disk.tamper(&path, |bytes| bytes.truncate(len as usize));
            let lost = laid.iter().position(|laid| {
                laid.segment == id && (len < 128 || laid.offset + 40 + laid.payload_len > len)
            });
            match (replay_from(&disk, LogMark::default()), lost) {
                (Ok((again, _)), Some(lost)) => {
                    assert_eq!(again, records[..lost], "segment {id} cut at {len}")
                }
                (Ok((again, _)), None) => assert_eq!(again, records, "segment {id} cut at {len}"),
                (Err(error), Some(_)) => {
                    assert_eq!(error.kind(), ErrorKind::Corruption);
                    // Only the first segment is followed by records that know of it.
                    assert_eq!(id, 1, "segment {id} cut at {len}: {error}");
                }
                (Err(error), None) => panic!("segment {id} cut at {len}: {error}"),
            }
            disk.tamper(&path, |bytes| bytes.clone_from(&whole));
        }
    }
}

#[test]
fn a_missing_segment_is_reported() {
    let disk = Disk::new();
    let (backend, log) = fresh(disk.clone(), small());
    for i in 0..100 {
        log.append(&payload(i, 100), 0, false).unwrap();
    }
    let mark = log.mark(1);
    drop(log);
    let ids = segment_ids(&*backend);
    assert!(ids.len() >= 4);
    for &id in &ids {
        let disk = disk.after_kill();
        disk.remove(&segment::path(id)).unwrap();
        let replayed = replay_from(&disk, mark);
        assert_eq!(replayed.unwrap_err().kind(), ErrorKind::Corruption, "segment {id}");
    }
}

#[test]
fn a_first_segment_without_a_header_is_reported() {
    let disk = Disk::new();
    let (_, log) = fresh(disk.clone(), small());
    let mark = log.mark(1);
    drop(log);
    disk.tamper(&segment::path(1), |bytes| bytes[3] ^= 1);
    let error = replay_from(&disk, mark).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert_eq!(error.location().file, Some(segment::path(1)));
}

#[test]
fn a_log_shorter_than_the_superblock_says_is_reported() {
    let disk = Disk::new();
    let (_, log) = fresh(disk.clone(), small());
    log.append(b"one", 0, true).unwrap();
    log.append(b"two", 0, true).unwrap();
    log.sync().unwrap();
    let mark = log.mark(1);
    drop(log);
    assert_eq!(replay_from(&disk, mark).unwrap().0.len(), 2);
    disk.tamper(&segment::path(1), |bytes| bytes[128 + 48] ^= 1);
    let error = replay_from(&disk, mark).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert_eq!(error.location().offset, Some(128 + 48));
    // The same damage where nothing says that it was durable is a torn tail.
    let (records, report) = replay_all(&disk);
    assert_eq!(records.len(), 1);
    assert_eq!(report.end.offset, 128 + 48);
}

#[test]
fn a_length_beyond_the_file_reads_nothing() {
    let disk = Disk::new();
    let (_, log) = fresh(disk.clone(), small());
    log.append(b"one", 0, true).unwrap();
    drop(log);
    for payload_len in [4 << 10, 1 << 40, (1 << 56) - 1] {
        let header = record::RecordHeader { payload_checksum: 0, payload_len, sequence: 2, durable: 0 };
        disk.tamper(&segment::path(1), |bytes| {
            bytes[128 + 48..][..40].copy_from_slice(&header.encode(1, 128 + 48));
        });
        let (records, report) = replay_all(&disk);
        assert_eq!(records.len(), 1);
        assert_eq!(report.torn_tail, Some((1, 128 + 48)));
    }
}

#[test]
fn a_number_that_does_not_grow_ends_the_replay() {
    let disk = Disk::new();
    let (_, log) = fresh(disk.clone(), small());
    log.append(b"one", 0, true).unwrap();
    log.append(b"two", 0, true).unwrap();
    drop(log);
    let checksum = crate::codec::checksum::crc32(&[b"bad"]);
    let header = record::RecordHeader { payload_checksum: checksum, payload_len: 3, sequence: 2, durable: 0 };
    disk.tamper(&segment::path(1), |bytes| {
        bytes[128 + 96..][..40].copy_from_slice(&header.encode(1, 128 + 96));
        bytes[128 + 136..][..3].copy_from_slice(b"bad");
    });
    let (records, report) = replay_all(&disk);
    assert_eq!(records.len(), 2);
    assert_eq!(report.torn_tail, Some((1, 128 + 96)));
}

#[test]
fn a_record_that_only_a_newer_engine_understands_ends_the_replay_with_an_error() {
    let checksum = crate::codec::checksum::crc32(&[b"new"]);
    let header = record::RecordHeader { payload_checksum: checksum, payload_len: 3, sequence: 2, durable: 0 };
    // Another kind, a version, bytes that are reserved here.
    for (at, byte, says) in [(15, 2, "kind 2"), (32, 9, "format version 9"), (39, 1, "newer format version")]
    {
        let disk = Disk::new();
        let (_, log) = fresh(disk.clone(), small());
        log.append(b"one", 0, true).unwrap();
        drop(log);
        let place = 128 + 48;
        let mut bytes = header.encode(1, place);
        bytes[at] = byte;
        record::reseal(&mut bytes, 1, place);
        let write = |payload: &[u8]| {
            disk.tamper(&segment::path(1), |segment| {
                segment[place as usize..][..40].copy_from_slice(&bytes);
                segment[place as usize + 40..][..3].copy_from_slice(payload);
            });
        };
        write(b"new");
        let error = replay_from(&disk, LogMark::default()).unwrap_err();
        assert_eq!((error.kind(), error.location().offset), (ErrorKind::NewerFormat, Some(place)));
        assert!(error.to_string().contains(says), "{error}");
        // One that was not written to its end is the end of the log, whoever began it.
        write(b"ne\0");
        let (records, report) = replay_all(&disk);
        assert_eq!((records.len(), report.torn_tail), (1, Some((1, place))));
    }
}

#[test]
fn files_that_are_not_the_logs_are_left_alone() {
    let disk = Disk::new();
    let (backend, log) = fresh(disk.clone(), small());
    log.append(b"one", 0, true).unwrap();
    drop(log);
    disk.open("wal/notes.txt", crate::storage::FileMode::Create).unwrap();
    let (log, records) = reopen(&backend, small(), LogMark::default());
    assert_eq!(records.len(), 1);
    log.release_before(log.mark(log.segment_of_next()).first_segment).unwrap();
    assert!(disk.contents().contains_key("wal/notes.txt"));
}

mod arbitrary {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::sampling::config(256))]

        #[test]
        fn arbitrary_bytes_never_panic(files in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 1..4), first in 0u64..4) {
            let disk = Disk::new();
            for (i, bytes) in files.iter().enumerate() {
                let file = disk.open(&segment::path(i as u64 + 1), crate::storage::FileMode::Create).unwrap();
                file.write_at(bytes, 0).unwrap();
            }
            let mark = LogMark { first_segment: first, newest_segment: first, durable_bytes: 64 };
            match replay_from(&disk, mark) {
                Ok((records, _)) => prop_assert!(records.is_empty()),
                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Corruption),
            }
        }

        #[test]
        fn several_damages_leave_a_prefix_or_are_reported(damages in prop::collection::vec((1u64..3, 0usize..400, any::<u8>()), 1..6)) {
            let (disk, records, _) = small_log();
            for (id, at, byte) in damages {
                disk.tamper(&segment::path(id), |bytes| { let at = at % bytes.len(); bytes[at] = byte; });
            }
            match replay_from(&disk, LogMark::default()) {
                Ok((again, _)) => prop_assert_eq!(&again[..], &records[..again.len()]),
                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Corruption),
            }
        }
    }
}

#[test]
fn a_log_does_not_start_where_counting_ends() {
    let storage = MemoryStorage::new();
    let (backend, log) = fresh(storage.clone(), small());
    log.append(b"kept", 0, false).unwrap();
    drop(log);
    // Its segments would get names that no recovery takes for segments, and their records would be lost.
    let last = segment::path(crate::codec::ids::BEYOND_COUNTING - 1);
    storage.open(&last, crate::storage::FileMode::Create).unwrap();
    let (records, report) = replay_all(&*backend);
    assert_eq!(records, [(1, b"kept".to_vec())]);
    let error = Log::start(Arc::clone(&backend), small(), report.end).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    storage.remove(&last).unwrap();
    let (_, report) = replay_all(&*backend);
    let far = SequenceNumber(crate::codec::ids::BEYOND_COUNTING - 1);
    let end = LogEnd { last_sequence: far, ..report.end };
    let error = Log::start(Arc::clone(&backend), small(), end).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    Log::start(backend, small(), report.end).unwrap();
}
