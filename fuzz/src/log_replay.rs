//! Damaged, forged and arbitrary logs.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::OnceLock;

use peristyle::fuzzing::{COUNTERS_END, Mark, Records, decode_batch, replay_log, write_log};
use peristyle::{ErrorKind, MemoryStorage};

use crate::allocation::Limit;
use crate::damage::{Target, damage};
use crate::format::{log, put, segment_id, segment_path};
use crate::input::Input;
use crate::repair::{Repairs, records, repair, repair_segment};
use crate::sample::{Files, files, storage};

const DATABASE_ID: [u8; 16] = [0xdb; 16];
/// Bytes that may be in use while a log is handled, beside [`TIMES_FILES`] times its own.
const MEMORY: usize = 1 << 20;
const TIMES_FILES: usize = 8;

/// Makes a log as the bytes say, and replays it.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.below(4) {
        0 | 1 => run_damaged(&mut input),
        2 => {
            let mark = mark(&mut input);
            replay(&forged(&mut input), mark);
        }
        _ => {
            let mark = mark(&mut input);
            let repairs = Repairs::of(input.u8());
            let mut files = arbitrary(&mut input);
            repair(&mut files, repairs);
            replay(&files, mark);
        }
    }
}

/// A log that was written, and what was written to it.
struct Sample {
    files: Files,
    regions: Vec<(usize, Range<usize>)>,
    payloads: Vec<Vec<u8>>,
}

fn samples() -> &'static [Sample] {
    static SAMPLES: OnceLock<Vec<Sample>> = OnceLock::new();
    SAMPLES.get_or_init(|| [(3, 20, 2), (40, 300, 9), (12, 3000, 5)].map(make).into())
}

/// A log of `count` records of about `len` bytes, every `nth` of them synced.
fn make((count, len, nth): (usize, usize, usize)) -> Sample {
    let payloads: Vec<Vec<u8>> = (0..count)
        .map(|i| {
            // Batches with one put: kind, family, key, value.
            let value = vec![i as u8; len + i % 9];
            let value_len = [(value.len() as u8 & 0x7f) | 0x80, (value.len() >> 7) as u8];
            [&[1, 1, 2, b'k', i as u8][..], &value_len, &value].concat()
        })
        .collect();
    let storage = MemoryStorage::new();
    write_log(&storage, DATABASE_ID, &payloads, |i| i % nth == nth - 1).expect("a log in memory");
    let files = files(&storage);
    let mut regions = Vec::new();
    for (number, (_, bytes)) in files.iter().enumerate() {
        regions.push((number, 0..log::SEGMENT_HEADER_LEN));
        regions.extend(records(bytes).into_iter().map(|record| (number, record)));
    }
    Sample { files, regions, payloads }
}

/// A log that was written, and damaged, and perhaps repaired. If it was not, what is replayed is a prefix of
/// what was written.
fn run_damaged(input: &mut Input<'_>) {
    let sample = &samples()[input.below(samples().len())];
    let repairs = Repairs::of(input.u8());
    let mark = if input.below(3) == 0 { Mark::default() } else { mark(input) };
    let unforged = repairs == Repairs::NONE;
    let mut files = sample.files.clone();
    damage(&mut files, Target { regions: &sample.regions, may_forge: !unforged }, input);
    repair(&mut files, repairs);
    let replayed = replay(&files, mark);
    if let (true, 0, Some(replayed)) = (unforged, mark.first_segment, &replayed) {
        let same = replayed.iter().zip(&sample.payloads).all(|((_, replayed), written)| replayed == written);
        assert!(same && replayed.len() <= sample.payloads.len(), "what was replayed was not written");
        assert!(replayed.iter().map(|(sequence, _)| *sequence).eq(1..=replayed.len() as u64));
        if files == sample.files {
            assert_eq!(replayed.len(), sample.payloads.len(), "records of a sound log were not replayed");
        }
    }
}

fn mark(input: &mut Input<'_>) -> Mark {
    let small = |input: &mut Input<'_>| u64::from(input.u8() % 12);
    Mark {
        first_segment: small(input),
        newest_segment: small(input),
        durable_bytes: if input.bool() { u64::from(input.u16() & !7) } else { 0 },
    }
}

/// Segments and records with right checksums, whose fields are the fuzzer's.
fn forged(input: &mut Input<'_>) -> Files {
    let mut files = BTreeMap::new();
    let mut sequence = 0u64;
    for number in 0..1 + input.below(8) as u64 {
        let usual = input.u8();
        let id = if usual & 1 == 0 { number + 1 } else { counter(input) };
        if !(1..COUNTERS_END).contains(&id) {
            continue;
        }
        let mut bytes = vec![0; log::SEGMENT_HEADER_LEN];
        put(&mut bytes, 0, b"PERISLOG");
        put(&mut bytes, 8, &1u32.to_le_bytes());
        put(&mut bytes, log::SEGMENT_ID, &id.to_le_bytes());
        put(&mut bytes, log::DATABASE_ID, &DATABASE_ID);
        let previous = if usual & 2 == 0 { number } else { counter(input) };
        let last: Option<(&u64, &Vec<u8>)> = files.last_key_value();
        let previous_end = match (usual & 4, last) {
            (0, Some((_, last))) => last.len() as u64,
            (0, None) => 0,
            _ => counter(input),
        };
        if usual & 8 == 8 {
            sequence = counter(input);
        }
        put(&mut bytes, log::PREVIOUS, &previous.to_le_bytes());
        put(&mut bytes, log::PREVIOUS_END, &previous_end.to_le_bytes());
        put(&mut bytes, log::LAST_SEQUENCE, &sequence.to_le_bytes());
        for _ in 0..input.below(8) {
            let way = input.u8();
            let payload_len = if way & 1 == 0 { input.below(24) } else { input.below(1500) };
            let payload = input.take(payload_len.min(64));
            sequence = match way >> 1 & 3 {
                3 => counter(input),
                step => sequence.wrapping_add(1 + u64::from(step)),
            };
            let durable = if way & 8 == 0 { 0 } else { counter(input) };
            let stated_len = if way & 0x70 == 0x70 { counter(input) } else { payload_len as u64 };
            let start = bytes.len();
            bytes.resize(start + log::RECORD_HEADER_LEN + payload_len.next_multiple_of(8), 0);
            put(&mut bytes, start + log::RECORD_HEADER_LEN, payload);
            put(&mut bytes, start + log::LEN_AND_KIND, &((stated_len % (1 << 56)) | (1 << 56)).to_le_bytes());
            put(&mut bytes, start + log::SEQUENCE, &sequence.to_le_bytes());
            put(&mut bytes, start + log::DURABLE, &durable.to_le_bytes());
        }
        repair_segment(&mut bytes, id, Repairs::ALL);
        if usual & 16 == 16 {
            bytes.resize(bytes.len() + input.below(300), 0);
        }
        files.insert(id, bytes);
    }
    files.into_iter().map(|(id, bytes)| (segment_path(id), bytes)).collect()
}

/// A number that is small, or at an end of what can be.
fn counter(input: &mut Input<'_>) -> u64 {
    match input.below(8) {
        0..=3 => u64::from(input.u8()),
        4 | 5 => u64::from(input.u16()),
        6 => COUNTERS_END.wrapping_sub(u64::from(input.u8())),
        _ => input.u64(),
    }
}

/// Segments of any content.
fn arbitrary(input: &mut Input<'_>) -> Files {
    let count = input.below(4) as u64;
    let mut segments = Vec::new();
    for id in 1..=count {
        let len = input.below(2000);
        let bytes = if id == count { input.rest() } else { input.take(len) };
        segments.push((segment_path(id), bytes.to_vec()));
    }
    segments
}

/// Replays a log. Where that succeeds, starts it anew at its end and appends, as opening a database does:
/// replayed again, it must give the same and what was appended. Returns what the first replay gave, if it
/// succeeded.
fn replay(files: &Files, mark: Mark) -> Option<Records> {
    let _limit = Limit::new(MEMORY + TIMES_FILES * files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>());
    let storage = storage(&files.iter().filter(|(path, _)| segment_id(path).is_some()).cloned().collect());
    let appended = [vec![1; 30], Vec::new(), vec![2; 5000]];
    let mut first = Records::new();
    let replayed = replay_log(&storage, DATABASE_ID, mark, &mut first, None);
    for (_, payload) in &first {
        if let Err(error) = decode_batch(payload) {
            let kind = error.kind();
            assert!(matches!(kind, ErrorKind::Corruption | ErrorKind::NewerFormat), "{error}");
        }
    }
    assert!(first.is_sorted_by(|a, b| a.0 < b.0), "sequence numbers do not ascend");
    let last = match replayed {
        Ok(last) => last,
        Err(error) => {
            let kind = error.kind();
            assert!(
                matches!(kind, ErrorKind::Corruption | ErrorKind::NewerFormat),
                "a log in memory fails with {error}"
            );
            return None;
        }
    };
    assert!(last < COUNTERS_END);
    let mut again = Records::new();
    let resumed = replay_log(&storage, DATABASE_ID, mark, &mut again, Some(&appended));
    assert!(again == first, "a second replay gives something else");
    if resumed.is_ok() {
        let mut resumed = Records::new();
        let outcome = replay_log(&storage, DATABASE_ID, mark, &mut resumed, None);
        assert!(outcome.is_ok(), "a log that was started anew cannot be replayed: {outcome:?}");
        let (before, after) = resumed.split_at_checked(first.len()).expect("what was there before is there");
        assert!(before == first, "what was there before has changed");
        let after: Vec<_> = after.iter().map(|(_, payload)| payload).collect();
        assert!(after.into_iter().eq(&appended), "what was appended is not what is replayed");
    }
    Some(first)
}
