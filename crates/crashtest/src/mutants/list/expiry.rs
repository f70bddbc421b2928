//! Entries that expire.

use super::*;

const EXPIRED: &str = "src/column_family/merging/expired.rs";
const CODEC: &str = "src/codec/expiry.rs";
const STAMPS: &str = "src/codec/operands.rs";
const BUILDER: &str = "src/btree/builder.rs";

pub(super) const MUTATIONS: &[Mutation] = &[
    tests(
        "an entry is gone in the second in which it was to live on",
        CODEC,
        "    end.as_secs().saturating_add(u64::from(end.subsec_nanos() > 0)).max(1)",
        "    end.as_secs().max(1)",
        "an_entry_is_never_gone_too_early",
    ),
    file(
        "what has expired in a memtable is there for cursors",
        "src/column_family/reading/recent.rs",
        "                    expiry::split(stamped).is_none_or(|(expiry, _)| now.is_past(expiry))\n",
        "                    expiry::split(stamped).is_none()\n",
        "expiry",
    ),
    file(
        "what has expired in a delta does not hide what is behind it",
        "src/btree/cursor.rs",
        "        if is_expired && self.passes_expired {",
        "        if is_expired {",
        "expiry",
    ),
    tests(
        "a merge that keeps deletions leaves out what has expired",
        BUILDER,
        "            now: if options.keep_deletions { Now::UNASKED } else { options.now },",
        "            now: options.now,",
        "where_deletions_are_kept_what_has_expired_stays",
    ),
    file(
        "trees drop what operands are yet to be folded onto",
        EXPIRED,
        "        if now.judges() && self.has_operator() { Now::UNASKED } else { self.judged(now) }",
        "        now",
        "expiry",
    ),
    file(
        "a compaction looks for nothing that has expired",
        EXPIRED,
        "            if cursor.is_deletion() {\n",
        "            if cursor.is_deletion() && from.len() > usize::MAX / 2 {\n",
        "expiry",
    ),
    tests(
        "operands are folded onto what had expired",
        STAMPS,
        "    let had_expired = expiry.is_some_and(|expiry| Now(stamp.written).is_past(expiry));",
        "    let had_expired = expiry.is_some_and(|expiry| Now(stamp.written).is_past(expiry.saturating_mul(2)));",
        "what_is_folded_does_not_depend_on_how",
    ),
    tests(
        "operands are combined of which some may meet nothing",
        STAMPS,
        "(stamp.expiry != 0 || next.written == stamp.written)",
        "(stamp.expiry != 0 || next.written >= stamp.written)",
        "what_is_folded_does_not_depend_on_how",
    ),
    file(
        "a moment asks the clock each time",
        "src/txn/family_snapshot.rs",
        "        self.view.len(self.at, self.now)",
        "        self.view.len(self.at, if self.now.judges() { Now(u64::MAX - 1) } else { self.now })",
        "expiry",
    ),
    file(
        "a delta that is less afterwards drops what has expired",
        "src/column_family/merging/change.rs",
        "            let options = MergeOptions { now: Now::UNASKED, ..self.options };",
        "            let options = self.options;",
        "expiry",
    ),
    tests(
        "who writes one key anew keeps others from being deleted",
        "src/txn/expired.rs",
        "            keys.retain(|key| view.memtables().all(|table| table.newest(key).is_none()));\n",
        "",
        "a_key_that_somebody_writes_keeps_no_other_from_being_deleted",
    ),
];
