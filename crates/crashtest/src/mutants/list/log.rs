//! Replaying the log, and how long it gets.

use super::*;

pub(super) const MUTATIONS: &[Mutation] = &[
    // Replay.
    crashes(
        "the replay goes on past a torn record",
        REPLAY,
        "            Found::Record { .. } | Found::Torn { .. } => return Ok(Stop { offset, torn: true }),",
        "            Found::Torn { header } => offset += super::record::record_len(header.payload_len),\n            Found::Record { .. } => return Ok(Stop { offset, torn: true }),",
    ),
    tests(
        "a record is bound to no segment",
        RECORD,
        "    place[..8].copy_from_slice(&segment.to_le_bytes());\n",
        "    let _ = segment;\n",
        "a_header_comes_back_at_its_place_only",
    ),
    tests(
        "the oldest successor of a segment is followed",
        REPLAY,
        "self.segments.range(segment + 1..).rev();",
        "self.segments.range(segment + 1..);",
        "a_cut_holds_although_the_orphans_are_still_there",
    ),
    tests(
        "a stop where more was durable goes unnoticed",
        REPLAY,
        "if (mark.newest_segment, mark.durable_bytes) > (segment, offset) {",
        "if (mark.newest_segment, mark.durable_bytes) == (u64::MAX, u64::MAX) {",
        "a_log_shorter_than_the_superblock_says_is_reported",
    ),
    crashes(
        "of a batch, only the first operation is replayed",
        REPLAY_PART,
        "in Operations::new(payload).enumerate() {",
        "in Operations::new(payload).enumerate().take(1) {",
    ),
    crashes(
        "range deletions are not replayed",
        REPLAY_PART,
        "            if let Some(place) = place {\n",
        "            if let Some(place) = place.filter(|_| !matches!(operation, Operation::DeleteRange { .. })) {\n",
    ),
    crashes(
        "sequence numbers are used again after a recovery",
        OPEN,
        "let through = superblock.last_sequence.max(report.last_sequence).max(merged);",
        "let through = report.last_sequence;\n    let _ = merged;",
    ),
    crashes(
        "commits after a failed one are acknowledged",
        "src/txn/latch.rs",
        "            Some(first) => Err(first.clone()),",
        "            Some(_) => Ok(()),",
    ),
    // The log's length, and its replay in parts.
    tests(
        "a part of the log that the replay does not come to counts",
        RECOVERY,
        "        let part = starts.partition_point(|&start| start <= report.end.segment).saturating_sub(1);\n        turns",
        "        let part = starts.len() - 1;\n        turns",
        "recovery_tests",
    ),
    tests(
        "a part of the log that is replayed beside others is left out",
        REPLAY_PART,
        "            if !table.is_empty() {\n",
        "            if false {\n",
        "recovery_tests",
    ),
    tests(
        "what is read twice may differ",
        RECOVERY,
        "        if stop != expected {",
        "        if false {",
        "what_is_read_twice_has_to_be_read_alike",
    ),
    tests(
        "writers go on beyond the log's limit",
        LOG_PACE,
        "saturating_add(weight) <= self.limit;",
        "saturating_add(weight) <= u64::MAX;",
        "log_length_tests",
    ),
    tests(
        "tiny operations weigh nothing",
        WEIGHT,
        "    record_len(payload_len) + operations * OPERATION",
        "    record_len(payload_len) + operations * 0",
        "log_length_tests",
    ),
    tests(
        "who waits for a shorter log is not told of a full disk",
        LOG_PACE,
        "        self.rounds.lock().obstacle = Some(error);",
        "        drop(error);",
        "log_length_tests",
    ),
    tests(
        "small segments of the log are never gathered",
        LOG_LENGTH,
        "        if self.recovery.segments < MANY_SEGMENTS {",
        "        if true {",
        "processes_that_write_little",
    ),
    tests(
        "a trickle of puts is merged one by one",
        BACKGROUND,
        "watched.is_patient() && self.keeps_little(family)",
        "watched.is_patient() && false",
        "one_put_now_and_then",
    ),
];
