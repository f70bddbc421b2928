//! How the operations of a commit enter memtables.

use std::collections::BTreeMap;
use std::ops::DerefMut;

use crate::codec::entry::EntryKind;
use crate::codec::ids::{FamilyId, SequenceNumber};
use crate::codec::key;
use crate::codec::key::ABOVE_EVERY_KEY;
use crate::column_family::family::{Family, WriteSide};
use crate::sync::Arc;
use crate::txn::operation::{Operation, Operations};
use crate::txn::pipeline::Write;

/// The operations of a commit that count, each with the index of its family among `families`, which are all
/// that it touches, ascending.
pub(super) fn placed<'a>(
    payload: &'a [u8],
    families: &[&Arc<Family>],
    replaced: &Replaced,
) -> impl Iterator<Item = (usize, Operation<'a>)> {
    let place = |id: FamilyId| {
        families
            .binary_search_by_key(&id, |family| family.id())
            .unwrap_or_else(|_| panic!("a batch touches family {id}, which it does not list"))
    };
    let decoded = Operations::new(payload)
        .map(|operation| operation.unwrap_or_else(|error| panic!("a batch does not decode: {error}")));
    let mut last = 0;
    decoded.enumerate().filter(|(index, _)| !replaced.contains(*index)).map(move |(_, (id, operation))| {
        if families[last].id() != id {
            last = place(id);
        }
        (last, operation)
    })
}

/// Inserts the operations of one commit, each with the index of its family's memtable among `sides`.
pub(crate) fn insert_all<'o>(
    operations: impl Iterator<Item = (usize, Operation<'o>)>,
    sides: &mut [impl DerefMut<Target = WriteSide>],
    sequence: SequenceNumber,
) {
    let mut operations = operations.fuse();
    let tables: Vec<_> = sides.iter().map(|side| Arc::clone(side.writer.table())).collect();
    loop {
        // The places of several keys are looked for at once, so that waiting for their memory is, too.
        let group: [_; GROUP] = std::array::from_fn(|_| {
            let (place, operation) = operations.next()?;
            let expected = match operation {
                Operation::Put { key, .. }
                | Operation::PutExpiring { key, .. }
                | Operation::Merge { key, .. }
                | Operation::MergeExpiring { key, .. }
                | Operation::Delete { key } => Some(sides[place].writer.expect(&tables[place], key)),
                Operation::DeleteRange { .. } => None,
            };
            Some((place, operation, expected))
        });
        for member in group {
            let Some((place, operation, expected)) = member else { return };
            let writer = &mut sides[place].writer;
            match (operation, expected) {
                (Operation::Put { value, .. }, Some(expected)) => {
                    writer.prepare_expected(EntryKind::Put, expected, value).insert(sequence);
                }
                (Operation::PutExpiring { value, .. }, Some(expected)) => {
                    writer.prepare_expected(EntryKind::PutExpiring, expected, value.stamped).insert(sequence);
                }
                (Operation::Merge { operand, .. }, Some(expected)) => {
                    writer.prepare_expected(EntryKind::Merge, expected, operand).insert(sequence);
                }
                (Operation::MergeExpiring { operand, .. }, Some(expected)) => {
                    let stamped = operand.stamped;
                    writer.prepare_expected(EntryKind::MergeStamped, expected, stamped).insert(sequence);
                }
                (Operation::Delete { .. }, Some(expected)) => {
                    writer.prepare_expected(EntryKind::Delete, expected, &[]).insert(sequence);
                }
                (Operation::Put { key, value }, None) => writer.put(key, value, sequence),
                (Operation::PutExpiring { key, value }, None) => {
                    writer.put_expiring(key, value.stamped, sequence);
                }
                (Operation::Merge { key, operand }, None) => writer.merge(key, operand, sequence),
                (Operation::MergeExpiring { key, operand }, None) => {
                    writer.merge_stamped(key, operand.stamped, sequence);
                }
                (Operation::Delete { key }, None) => writer.delete(key, sequence),
                (Operation::DeleteRange { start, end }, _) => {
                    writer.delete_range(start, end.unwrap_or(&ABOVE_EVERY_KEY), sequence);
                }
            }
        }
    }
}

/// Operations of a commit whose places in memtables are looked for at once.
const GROUP: usize = 8;

/// Operations of one payload that a later range deletion of the same payload undoes.
///
/// All entries of a commit have one number, and a range deletion covers what is older than itself; order
/// within the commit is settled here, before the entries reach the memtable.
#[derive(Default)]
pub(crate) struct Replaced {
    operations: Vec<bool>,
}

impl Replaced {
    pub(super) fn of_write(write: &Write<'_>) -> Self {
        if write.has_range_deletions { Self::of(write.payload) } else { Self::default() }
    }

    pub(crate) fn of(payload: &[u8]) -> Self {
        let operations: Vec<_> = Operations::new(payload).map_while(Result::ok).collect();
        let mut replaced = vec![false; operations.len()];
        let mut later: BTreeMap<FamilyId, Ranges<'_>> = BTreeMap::new();
        for (index, (family, operation)) in operations.iter().enumerate().rev() {
            match operation {
                Operation::Put { key, .. }
                | Operation::PutExpiring { key, .. }
                | Operation::Merge { key, .. }
                | Operation::MergeExpiring { key, .. }
                | Operation::Delete { key } => {
                    replaced[index] = later.get(family).is_some_and(|ranges| ranges.cover(key));
                }
                Operation::DeleteRange { start, end } => {
                    later.entry(*family).or_default().insert(start, end.unwrap_or(&ABOVE_EVERY_KEY));
                }
            }
        }
        Self { operations: replaced }
    }

    pub(crate) fn contains(&self, index: usize) -> bool {
        self.operations.get(index).copied().unwrap_or(false)
    }
}

/// Disjoint ranges, start to end.
#[derive(Default)]
struct Ranges<'a>(BTreeMap<&'a [u8], &'a [u8]>);

impl<'a> Ranges<'a> {
    fn cover(&self, key: &[u8]) -> bool {
        self.0.range(..=key).next_back().is_some_and(|(_, end)| key::compare(key, end).is_lt())
    }

    fn insert(&mut self, mut start: &'a [u8], mut end: &'a [u8]) {
        while let Some((&old_start, &old_end)) = self.0.range(..=end).next_back() {
            if key::compare(old_end, start).is_lt() {
                break;
            }
            self.0.remove(old_start);
            start = start.min(old_start);
            end = end.max(old_end);
        }
        self.0.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::operation::{encode_delete_range, encode_put};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::sampling::config(256))]

        #[test]
        fn what_a_later_range_deletion_covers_is_replaced(
            operations in prop::collection::vec((0u8..2, 0u8..20, 0u8..20), 0..40)
        ) {
            let mut payload = Vec::new();
            let mut listed = Vec::new();
            for (kind, a, b) in operations {
                if kind == 0 {
                    encode_put(&mut payload, FamilyId(1), &[a], &[b]);
                    listed.push((a, None));
                } else if a < b {
                    encode_delete_range(&mut payload, FamilyId(1), &[a], Some(&[b]));
                    listed.push((a, Some(b)));
                }
            }
            let replaced = Replaced::of(&payload);
            for (i, (key, end)) in listed.iter().enumerate() {
                let covered = end.is_none()
                    && listed[i..].iter().any(|(start, end)| end.is_some_and(|end| (*start..end).contains(key)));
                prop_assert_eq!(replaced.contains(i), covered, "operation {}", i);
            }
        }
    }
}
