//! What several deltas, or the tree, say of a range of keys, gathered into memory.

use crate::btree::{MergeOp, Tree, TreeCursor};
use crate::codec::key;
use crate::error::{Error, Result};
use crate::page::PinnedPage;
use crate::segment::PartitionedStorageBackend;
use crate::sync::Arc;
use std::ops::Range;

/// Bytes of keys and values that are gathered at most, but for one entry.
pub(super) const MOST_BYTES: usize = 4 << 20;

enum Held {
    Deletion,
    /// In the buffer.
    Copied(Range<usize>),
    /// A large value, in its run.
    Run(PinnedPage, Range<usize>),
}

/// What deltas say of a range of keys, the newest of each key.
pub(super) struct Stretch {
    pub(super) start: Vec<u8>,
    /// Without an end, all keys from the start on.
    pub(super) end: Option<Vec<u8>>,
    buffer: Vec<u8>,
    /// Where in the buffer the key stands, and the value.
    entries: Vec<(Range<usize>, Held)>,
    /// Bytes of keys and values.
    pub(super) bytes: usize,
}

impl Stretch {
    /// The first keys from `start` on of `trees`, the newest first, until they have `limit` bytes.
    pub(super) fn gather(
        trees: impl IntoIterator<Item = Tree>,
        store: &Arc<PartitionedStorageBackend>,
        start: &[u8],
        limit: usize,
    ) -> Result<Self> {
        let mut stretch = Self {
            start: start.to_vec(),
            end: None,
            buffer: Vec::with_capacity(limit),
            entries: Vec::new(),
            bytes: 0,
        };
        let mut sources = Vec::new();
        for tree in trees {
            let mut cursor = TreeCursor::new(tree, Arc::clone(store));
            cursor.seek(start)?;
            sources.push(Source::new(cursor));
        }
        while let Some(newest) = lowest(&sources) {
            if stretch.bytes >= limit {
                let end = sources[newest].cursor.key();
                let last = stretch.entries.last().map_or(start, |(last, _)| &stretch.buffer[last.clone()]);
                if key::compare(last, end).is_ge() {
                    return Err(out_of_order(store));
                }
                stretch.end = Some(end.to_vec());
                break;
            }
            let head = sources[newest].head;
            let key = stretch.take(&sources[newest].cursor, store)?;
            for source in sources[newest..].iter_mut().filter(|source| source.head == head) {
                if source.cursor.valid() && source.cursor.key() == &stretch.buffer[key.clone()] {
                    source.cursor.next()?;
                    source.head = head_of(&source.cursor);
                }
            }
        }
        Ok(stretch)
    }

    /// Adds the entry that `cursor` stands on. Gives where its key is in the buffer.
    fn take(&mut self, cursor: &TreeCursor, store: &PartitionedStorageBackend) -> Result<Range<usize>> {
        let ascends = match self.entries.last() {
            Some((last, _)) => key::compare(&self.buffer[last.clone()], cursor.key()).is_lt(),
            None => key::compare(&self.start, cursor.key()).is_le(),
        };
        if !ascends {
            return Err(out_of_order(store));
        }
        let key = self.copy(cursor.key());
        let value = if cursor.is_deletion() {
            Held::Deletion
        } else if cursor.value_is_large() {
            let (page, range) = cursor.pinned_value()?;
            self.bytes += range.len();
            Held::Run(page, range)
        } else {
            Held::Copied(self.copy(cursor.value()?))
        };
        self.entries.push((key.clone(), value));
        Ok(key)
    }

    fn copy(&mut self, bytes: &[u8]) -> Range<usize> {
        let at = self.buffer.len();
        self.buffer.extend_from_slice(bytes);
        self.bytes += bytes.len();
        at..self.buffer.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn ops(&self) -> impl Iterator<Item = (&[u8], MergeOp<'_>)> {
        self.entries.iter().map(|(key, value)| {
            let op = match value {
                Held::Deletion => MergeOp::Delete,
                Held::Copied(range) => MergeOp::Put(&self.buffer[range.clone()]),
                Held::Run(page, range) => MergeOp::Put(&page[range.clone()]),
            };
            (&self.buffer[key.clone()], op)
        })
    }
}

#[cold]
pub(super) fn out_of_order(store: &PartitionedStorageBackend) -> Error {
    Error::corruption("the keys of a tree are out of order").of_family(store.family().0)
}

/// A delta that is walked.
struct Source {
    cursor: TreeCursor,
    /// Of the key that the cursor stands on: integer order is key order, but for equal heads. The highest at the end.
    head: u64,
}

impl Source {
    fn new(cursor: TreeCursor) -> Self {
        Self { head: head_of(&cursor), cursor }
    }
}

fn head_of(cursor: &TreeCursor) -> u64 {
    if cursor.valid() { key::head8(cursor.key()) } else { u64::MAX }
}

/// The source with the lowest key; of several the first, which is the newest.
fn lowest(sources: &[Source]) -> Option<usize> {
    let mut lowest: Option<(usize, &Source)> = None;
    for (i, source) in sources.iter().enumerate() {
        let is_lower = |(_, lowest): (usize, &Source)| {
            source.head < lowest.head
                || source.head == lowest.head
                    && source.cursor.valid()
                    && key::compare(source.cursor.key(), lowest.cursor.key()).is_lt()
        };
        if lowest.is_none_or(is_lower) && source.cursor.valid() {
            lowest = Some((i, source));
        }
    }
    lowest.map(|(i, _)| i)
}
