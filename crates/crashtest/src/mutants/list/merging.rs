//! Merge operators and filters.

use super::*;

const OPERANDS: &str = "src/column_family/operands.rs";
const MEMTABLE_OPERANDS: &str = "src/memtable/operands.rs";
const TREE_MERGE: &str = "src/btree/merge.rs";
const BUILDER: &str = "src/btree/builder.rs";
const SIEVE: &str = "src/column_family/merging/sieve.rs";

pub(super) const MUTATIONS: &[Mutation] = &[
    tests(
        "operands reach back behind a deleted range",
        MEMTABLE_OPERANDS,
        "            if self.covered > entry.sequence() {\n                break;\n            }\n",
        "",
        "at_every_moment_operands_reach_back_to_what_they_were_merged_into",
    ),
    tests(
        "an operand is passed among deleted keys",
        DEAD,
        "        Some(entry) if entry.kind() != EntryKind::Delete =>",
        "        Some(entry) if entry.kind() == EntryKind::Put =>",
        "an_operand_is_met_among_deleted_keys",
    ),
    file(
        "operands are merged into a tree as if it had nothing of their key",
        TREE_MERGE,
        "                    MergeOp::Operands { list, by } if found => {",
        "                    MergeOp::Operands { list, by } if found && index > usize::MAX / 2 => {",
        "merging",
    ),
    file(
        "of several deltas the newest alone has operands of a key",
        GATHER,
        "            if gathered.is_closed() {\n                break;\n            }\n        }\n        let nonsense",
        "            break;\n        }\n        let nonsense",
        "merging",
    ),
    file(
        "an operator that fails in the background takes the operands along",
        OPERANDS,
        "                self.keep(base, operands.iter())\n",
        "                Ok(Combined::Value(self.value_of(base)?.unwrap_or_default().to_vec()))\n",
        "merging",
    ),
    file(
        "a cursor shows what operands came to of the entry before",
        CURSOR,
        "    fn next_of_all(&mut self) -> Result<bool> {\n        self.folded = OnceCell::new();\n",
        "    fn next_of_all(&mut self) -> Result<bool> {\n",
        "merging",
    ),
    file(
        "a transaction that read its operands on what others wrote does not rely on that",
        OWN,
        "matches!(self, Self::Value(_) | Self::Operands { are_on_own: true })",
        "!matches!(self, Self::Nothing)",
        "merging",
    ),
    file(
        "a family takes operands for an operator of another name",
        "src/column_family/options.rs",
        "            (Some(given), Some(own)) if given != own => {",
        "            (Some(given), Some(own)) if given != own && own.name().is_empty() => {",
        "merging",
    ),
    tests(
        "an older engine does not learn that a family has a merge operator",
        CATALOG_FILE,
        "features.and(own).and(family.options().features())",
        "features.and(own)",
        "db::operands_tests",
    ),
    tests(
        "of operands that are carried along nothing is left",
        CARRY,
        "Some((value, 0)) => encode_put(&mut entries, id, key, &value),",
        "Some((_, 0)) => encode_delete(&mut entries, id, key),",
        "operands_of_a_damaged_family_that_are_carried_along_count_once",
    ),
    file(
        "whatever an operator combines operands into is taken for what they do",
        OPERANDS,
        "        }) && one.len() <= bytes.saturating_mul(2).clamp(LITTLE, MOST_BYTES)\n",
        "        })\n",
        "merging",
    ),
    file(
        "an operator that panics when it goes does so in whoever lets go of it",
        "src/operator/named.rs",
        "            let _panic = guarded(|| drop(code));\n",
        "            drop(code);\n",
        "merging",
    ),
    file(
        "operands that come to something that is dropped uncover what is older",
        BUILDER,
        "            Combined::Nothing if self.keep_deletions => self.leaves.add_deletion(key),\n",
        "",
        "filters",
    ),
    file(
        "a filter that has failed is asked on",
        SIEVE,
        "        if self.failure.borrow().is_some() || self.is_unfolded(key, from) {",
        "        if self.is_unfolded(key, from) {",
        "filters",
    ),
    file(
        "a filter is shown a value onto which operands are still to be folded",
        SIEVE,
        "        if self.failure.borrow().is_some() || self.is_unfolded(key, from) {",
        "        if self.failure.borrow().is_some() {",
        "filters",
    ),
    file(
        "the pages of a large value that a filter drops stay",
        TREE_MERGE,
        "                self.builder.out.retire(page, pages);\n            }\n        }\n        Ok(())\n    }\n\n    /// The next entry",
        "                let _ = (page, pages);\n            }\n        }\n        Ok(())\n    }\n\n    /// The next entry",
        "filters",
    ),
    file(
        "entries before the first that changes in a leaf are not shown to a filter",
        TREE_MERGE,
        "        self.push_old(&old, 0, leaf.done)?;",
        "        self.builder.push_old(&old, 0, leaf.done)?;",
        "filters",
    ),
    file(
        "a compaction in which a filter failed says nothing of it",
        MAINTAIN,
        "                return Ok(Err(error));",
        "                return Ok(Ok(drop(error)));",
        "filters",
    ),
];
