//! Draining: what deltas hold goes into the tree, a range of keys at a time.
//!
//! A step takes the next keys of all deltas, as many as a buffer holds, applies them to the tree in one pass and takes their range out
//! of the deltas, in one change for readers. The range moves on from step to step and begins anew at the end of the keys. In
//! the long run every delta has gone once the range has come round, and the tree was rewritten once for all that
//! came in meanwhile: with up to n deltas of m bytes in front of a tree of s bytes, s / (n m) bytes for each.

use crate::btree::{MergeOp, RangeDeletion, TreeCursor};
use crate::codec::key;
use crate::column_family::delta::{Change, Delta};
use crate::column_family::family::{Counters, Family};
use crate::column_family::merge::MergeContext;
use crate::column_family::trees::TreeVersion;
use crate::error::{Error, Result};
use crate::page::PinnedPage;
use crate::segment::PartitionedStorageBackend;
use crate::sync::{Arc, Instant};
use std::ops::Range;

/// Deltas that there are in the long run while a family is written to.
const USUAL_DELTAS: usize = 24;
/// Deltas at which draining goes on however little they hold.
const MAX_DELTAS: usize = 32;
/// Memtables merged at a time by which deltas hold too much when no merge adds to them any more.
const MOST_EXCESS: f64 = 8.0;
/// Bytes of keys and values that one step drains at most, but for one entry.
const MOST_BYTES: usize = 4 << 20;

/// Where the next step begins.
#[derive(Default)]
pub(crate) struct DrainPosition(Vec<u8>);

/// What a step drained.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// There is nothing to drain, or the family was dropped.
    Nothing,
    /// A range of keys.
    Some,
    /// The last range: the next step begins with the lowest key.
    ToTheEnd,
}

impl TreeVersion {
    /// How far the deltas hold more than they are to hold while the family is written to, in memtables merged at a time; 0 if they do
    /// not.
    pub(crate) fn excess(&self) -> f64 {
        // What a file says of its entries may be more than can be added up in integers.
        let entries = || self.deltas.iter().map(|delta| delta.tree.entries as f64);
        let largest = entries().fold(1.0, f64::max);
        // On average half of each is drained.
        let by_entries = entries().sum::<f64>() / largest - USUAL_DELTAS as f64 / 2.0;
        let by_number = self.deltas.len() as f64 - MAX_DELTAS as f64;
        by_entries.max(by_number).max(0.0)
    }
}

impl Family {
    /// Whether deltas are to be drained now: they hold too much, or the family rests.
    pub(crate) fn is_to_drain(&self) -> bool {
        let version = Arc::clone(self.trees.lock().current());
        version.excess() > 0.0 || self.is_resting() && !version.deltas.is_empty()
    }

    /// Drains until there may be another delta. That takes no time unless draining is far behind, as it falls with many writers.
    pub(super) fn make_room_for_delta(self: &Arc<Self>, context: &MergeContext<'_>) -> Result<()> {
        let is_full = || self.trees.lock().current().excess() >= MOST_EXCESS;
        while is_full() && self.drain_step(context)? != Drained::Nothing {}
        Ok(())
    }

    /// Whether there are deltas.
    pub(crate) fn has_deltas(&self) -> bool {
        !self.trees.lock().current().deltas.is_empty()
    }

    /// Drains one range of keys of the deltas into the tree.
    ///
    /// Waits for a merge that is under way. On an error nothing has changed.
    pub(crate) fn drain_step(self: &Arc<Self>, context: &MergeContext<'_>) -> Result<Drained> {
        let mut position = self.merging.lock();
        let stop = || self.is_dropped() || (context.should_stop)();
        let version = Arc::clone(self.trees.lock().current());
        if version.deltas.is_empty() || self.is_dropped() {
            return Ok(Drained::Nothing);
        }
        let started = Instant::now();
        let limit = self.memtable_bytes().min(MOST_BYTES);
        let mut range = Stretch::gather(&version.deltas, self.store(), &position.0, limit)?;
        if range.entries.is_empty() {
            // The end of the keys.
            range = Stretch::gather(&version.deltas, self.store(), &[], limit)?;
        }
        if range.entries.is_empty() {
            return Err(out_of_order(self.store()));
        }
        let mut change = Change::of(&version, self.store(), self.options().page_fill, &stop);
        let drained = change.merge_into_tree(&[], range.ops()).and_then(|()| {
            let deletion = RangeDeletion { start: &range.start, end: range.end.as_deref() };
            change.delete_from_deltas(&[deletion])
        });
        match drained {
            Err(_) if self.is_dropped() => return Ok(Drained::Nothing),
            drained => drained?,
        }
        self.count(&change.stats);
        self.install(change, None, &[], context.views)?;
        Counters::add(&self.counters.drains, 1);
        self.stall.drained(range.bytes, started.elapsed());
        let came_round = range.end.is_none();
        position.0 = range.end.take().unwrap_or_default();
        Ok(if came_round { Drained::ToTheEnd } else { Drained::Some })
    }
}

enum Held {
    Deletion,
    /// In the buffer.
    Copied(Range<usize>),
    /// A large value, in its run.
    Run(PinnedPage, Range<usize>),
}

/// What deltas say of a range of keys, the newest of each key.
struct Stretch {
    start: Vec<u8>,
    /// Without an end, all keys from the start on.
    end: Option<Vec<u8>>,
    buffer: Vec<u8>,
    /// Where in the buffer the key stands, and the value.
    entries: Vec<(Range<usize>, Held)>,
    /// Bytes of keys and values.
    bytes: usize,
}

impl Stretch {
    /// The first keys from `start` on, until they have `limit` bytes.
    fn gather(
        deltas: &[Delta],
        store: &Arc<PartitionedStorageBackend>,
        start: &[u8],
        limit: usize,
    ) -> Result<Self> {
        let mut stretch =
            Self { start: start.to_vec(), end: None, buffer: Vec::new(), entries: Vec::new(), bytes: 0 };
        let mut sources = Vec::with_capacity(deltas.len());
        for delta in deltas {
            let mut cursor = TreeCursor::new(delta.tree, Arc::clone(store));
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

    fn ops(&self) -> impl Iterator<Item = (&[u8], MergeOp<'_>)> {
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
fn out_of_order(store: &PartitionedStorageBackend) -> Error {
    Error::corruption("the keys of a delta are out of order").of_family(store.family().0)
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
