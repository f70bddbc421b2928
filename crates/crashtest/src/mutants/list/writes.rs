//! Single writes and batches: their pace, and what they are told.

use super::*;

pub(super) const MUTATIONS: &[Mutation] = &[
    // Pace, filters.
    tests(
        "writers are not slowed while a merge is due",
        STALL,
        "        if since > 0 || behind > 0 {\n            self.slow_down_by",
        "        if behind > 0 {\n            self.slow_down_by",
        "writers_are_slowed_only_while_a_merge_is_due",
    ),
    tests(
        "who writes little pauses for as long as who writes some",
        "src/sync/throttle.rs",
        "..SOME => MAX_PAUSE_FOR_LITTLE,",
        "..SOME => MAX_PAUSE,",
        "short_pauses_are_saved_up_and_none_is_long",
    ),
    tests(
        "versions of a delta share a place for a filter",
        DELTA,
        "            self.filter = Arc::default();\n",
        "",
        "a_filter_that_is_built_while_deltas_are_drained",
    ),
    // Large batches.
    tests(
        "a memtable shows a commit before its number",
        TABLE,
        "            whole if whole <= at.0 => SequenceNumber::MAX,\n",
        "            whole if whole > 0 => SequenceNumber::MAX,\n",
        "a_memtable_that_gets_its_number_late",
    ),
    crashes(
        "a large part is put behind what was written before it",
        FREEZE,
        "            frozen.extend(part.iter().cloned());\n            if writer.is_some() {\n                frozen.push(Frozen { table: Arc::clone(&old.active), first_segment });\n            }\n",
        "            if writer.is_some() {\n                frozen.push(Frozen { table: Arc::clone(&old.active), first_segment });\n            }\n            frozen.extend(part.iter().cloned());\n",
    ),
    crashes(
        "the log of a large part is let go before it is merged",
        LARGE,
        "if durability == Durability::None { u64::MAX } else { segment }",
        "if durability == Durability::None { segment } else { u64::MAX }",
    ),
    // What writers are told, and what depends on a key's value.
    tests(
        "a callback is called before its commit is durable",
        SYNCED,
        "        let through = if failure.is_some() { SequenceNumber::MAX } else { log.durable() };",
        "        let through = SequenceNumber::MAX;",
        "synced_tests",
    ),
    tests(
        "a failed sync is told as one that succeeded",
        SYNCED,
        "Some(error) if sequence > log.durable() =>",
        "Some(error) if sequence > SequenceNumber::MAX =>",
        "synced_tests",
    ),
    tests(
        "what was written to a key meanwhile is overwritten",
        UPDATE,
        "is_none_or(|newest| newest <= seen.at)",
        "is_none_or(|newest| newest <= SequenceNumber::MAX)",
        "update_tests",
    ),
    tests(
        "what was written to a key meanwhile and is merged is overwritten",
        UPDATE,
        "            if !Arc::ptr_eq(&now.tree, &seen.view.tree) {",
        "            if false {",
        "update_tests",
    ),
    tests(
        "a key deleted by range meanwhile is overwritten",
        MEMTABLE_TABLE,
        "let newest = entry.map(EntryRef::sequence).max(covered)?;",
        "let newest = entry.map(EntryRef::sequence).max(covered.filter(|_| false))?;",
        "update_tests",
    ),
    tests(
        "what a large batch wrote to a key meanwhile is overwritten",
        MEMTABLE_TABLE,
        "            whole => Some(SequenceNumber(whole)),",
        "            _ => Some(newest),",
        "update_tests",
    ),
    tests(
        "any number of large batches is inserted apart at once",
        "src/txn/apart.rs",
        "state.bytes > 0 && state.bytes.saturating_add(bytes) > self.most",
        "state.bytes > u64::MAX - 1 && state.bytes.saturating_add(bytes) > self.most",
        "large_tests",
    ),
    tests(
        "what large batches insert apart is in no report",
        "src/db/memory.rs",
        "        report.large_batches += self.pipeline.apart.bytes();\n",
        "",
        "large_tests",
    ),
    tests(
        "who makes the next segment of the log himself has not waited",
        "src/wal/rotation.rs",
        "            self.segment_waits.note(took);\n",
        "",
        "waits_tests",
    ),
    tests(
        "what an appended batch deletes by range stays",
        BATCH,
        "        self.has_range_deletions |= other.has_range_deletions;",
        "",
        "batch_tests",
    ),
    tests(
        "a rollback of a batch leaves the families of what it took back",
        BATCH,
        "        self.families.truncate(savepoint.families);",
        "",
        "batch_tests",
    ),
    tests(
        "changed options are lost when the catalog is written whole",
        CATALOG_FILE,
        "                        record.options = (*new_options).clone();",
        "",
        "options_tests",
    ),
];
