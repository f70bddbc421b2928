//! What memtables delete by range, seen from what is older.

use crate::codec::ids::SequenceNumber;
use crate::codec::key;
use crate::memtable::Memtable;
use crate::sync::Arc;

/// Disjoint ranges of keys, start and end, ascending.
#[derive(Default)]
pub(crate) struct Ranges(Vec<(Vec<u8>, Vec<u8>)>);

impl Ranges {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The index of the range that covers `key`.
    pub(crate) fn covering(&self, key: &[u8]) -> Option<usize> {
        let after = self.0.partition_point(|(start, _)| key::compare(start, key).is_le());
        let index = after.checked_sub(1)?;
        key::compare(key, &self.0[index].1).is_lt().then_some(index)
    }

    /// Start and end of the range at `index`.
    pub(crate) fn range(&self, index: usize) -> (&[u8], &[u8]) {
        let (start, end) = &self.0[index];
        (start, end)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(start, end)| (&start[..], &end[..]))
    }
}

/// Where `tables` delete everything older that was there at `at`.
pub(crate) fn hidden_ranges<'a>(
    tables: impl Iterator<Item = &'a Arc<Memtable>>,
    at: SequenceNumber,
) -> Ranges {
    let mut ranges = Vec::new();
    for table in tables.filter(|table| table.has_range_deletions()) {
        let own = table.deleted_ranges(at).into_iter();
        ranges.extend(own.map(|(start, end)| (start.to_vec(), end.to_vec())));
    }
    Ranges(join(ranges))
}

/// Joins ranges that overlap or touch; the result is disjoint and ascending.
pub(crate) fn join<K: AsRef<[u8]>>(mut ranges: Vec<(K, K)>) -> Vec<(K, K)> {
    ranges.sort_by(|a, b| key::compare(a.0.as_ref(), b.0.as_ref()));
    let mut joined: Vec<(K, K)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match joined.last_mut() {
            Some(last) if key::compare(start.as_ref(), last.1.as_ref()).is_le() => {
                if key::compare(end.as_ref(), last.1.as_ref()).is_gt() {
                    last.1 = end;
                }
            }
            _ => joined.push((start, end)),
        }
    }
    joined
}
