//! What several deltas, or the tree, say of a range of keys, gathered into memory.

use std::ops::Range;

use memmap2::MmapMut;

use crate::btree::{Combine, MergeOp, Tree, TreeCursor};
use crate::codec::expiry::{self, Now};
use crate::codec::key;
use crate::column_family::operands::{Gathered, Held};
use crate::error::{Error, Result};
use crate::page::PinnedPage;
use crate::segment::PartitionedStorageBackend;
use crate::sync::Arc;

/// Bytes of keys and values that are gathered at most, but for one entry. On a full disk it is less.
pub(crate) const MOST_BYTES: usize = 4 << 20;

/// What stands in place of a value's length: there is none, it stands in its run, or what follows is the
/// length of a list of operands or a stamped value, and that.
const DELETION: u32 = u32::MAX;
const RUN: u32 = u32::MAX - 1;
const OPERANDS: u32 = u32::MAX - 2;
const EXPIRING: u32 = u32::MAX - 3;
/// Lengths of key and value, before both.
const LENGTHS: usize = 2 * size_of::<u32>();

/// What deltas say of a range of keys, the newest of each key.
pub(super) struct Stretch {
    pub(super) start: Vec<u8>,
    /// Without an end, all keys from the start on.
    pub(super) end: Option<Vec<u8>>,
    /// The entries, one behind the other: lengths, key, value.
    buffer: Buffer,
    /// The large values among them, in their order.
    runs: Vec<(PinnedPage, Range<usize>)>,
    /// Where the last key stands.
    last: Option<Range<usize>>,
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
            buffer: Buffer::of(limit + limit / 4)?,
            runs: Vec::new(),
            last: None,
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
                if key::compare(stretch.last_key(), end).is_ge() {
                    return Err(out_of_order(store));
                }
                stretch.end = Some(end.to_vec());
                break;
            }
            let head = sources[newest].head;
            if sources[newest].cursor.is_operands() {
                stretch.take_operands(&sources[newest..], store)?;
            } else {
                stretch.take(&sources[newest].cursor, store)?;
            }
            for source in sources[newest..].iter_mut().filter(|source| source.head == head) {
                if source.cursor.valid() && source.cursor.key() == stretch.last_key() {
                    source.cursor.next()?;
                    source.head = head_of(&source.cursor);
                }
            }
        }
        Ok(stretch)
    }

    /// The key that was added last; where the stretch begins if none was.
    fn last_key(&self) -> &[u8] {
        self.last.clone().map_or(&self.start, |last| &self.buffer.bytes()[last])
    }

    fn check_follows(&self, key: &[u8], store: &PartitionedStorageBackend) -> Result<()> {
        let order = key::compare(self.last_key(), key);
        if order.is_gt() || order.is_eq() && !self.is_empty() {
            return Err(out_of_order(store));
        }
        Ok(())
    }

    /// Adds the operands that the first of `sources` stands on, with what older ones say of their key.
    fn take_operands(&mut self, sources: &[Source], store: &PartitionedStorageBackend) -> Result<()> {
        let (key, head) = (sources[0].cursor.key(), sources[0].head);
        self.check_follows(key, store)?;
        let mut gathered = Gathered::new();
        for Source { cursor, .. } in sources.iter().filter(|source| source.head == head) {
            if !cursor.valid() || cursor.key() != key {
                continue;
            }
            if cursor.is_deletion() {
                gathered.end(None);
            } else {
                let (page, range) = cursor.pinned_value()?;
                match cursor.expiry() {
                    0 if cursor.is_operands() => gathered.add_list(Held::Page(page, range)),
                    0 => gathered.end(Some(Held::Page(page, range))),
                    expiry => gathered.end_expiring(Held::Own(expiry::stamped(expiry, &page[range]))),
                }
            }
            if gathered.is_closed() {
                break;
            }
        }
        let nonsense =
            || Error::corruption("the operands of a key make no sense").of_family(store.family().0);
        let list = gathered.to_list().ok_or_else(nonsense)?;
        let len = u32::try_from(list.len()).map_err(|_| nonsense())?;
        self.bytes += key.len() + list.len();
        self.push(key, OPERANDS, &[&len.to_ne_bytes(), &list[..]].concat())
    }

    /// Adds the entry that `cursor` stands on.
    fn take(&mut self, cursor: &TreeCursor, store: &PartitionedStorageBackend) -> Result<()> {
        self.check_follows(cursor.key(), store)?;
        let key = cursor.key();
        if cursor.is_deletion() {
            self.push(key, DELETION, &[])?;
        } else if cursor.expiry() != 0 {
            // Also one that stands in a run: its expiry and it are to stand together.
            let stamped = expiry::stamped(cursor.expiry(), cursor.value()?);
            let len = u32::try_from(stamped.len()).map_err(|_| too_long(store))?;
            self.bytes += stamped.len();
            self.push(key, EXPIRING, &[&len.to_ne_bytes(), &stamped[..]].concat())?;
        } else if cursor.value_is_large() {
            let (page, range) = cursor.pinned_value()?;
            self.bytes += range.len();
            self.runs.push((page, range));
            self.push(key, RUN, &[])?;
        } else {
            let value = cursor.value()?;
            self.bytes += value.len();
            self.push(key, value.len() as u32, value)?;
        }
        self.bytes += key.len();
        Ok(())
    }

    fn push(&mut self, key: &[u8], tag: u32, value: &[u8]) -> Result<()> {
        self.buffer.make_room(LENGTHS + key.len() + value.len())?;
        self.buffer.push(&(key.len() as u32).to_ne_bytes());
        self.buffer.push(&tag.to_ne_bytes());
        let at = self.buffer.len;
        self.buffer.push(key);
        self.last = Some(at..self.buffer.len);
        self.buffer.push(value);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// The entries, as operations; what operands among them come to is up to `by`. What has expired at `now`
    /// is deleted.
    pub(super) fn ops<'s>(
        &'s self,
        by: &'s dyn Combine,
        now: Now,
    ) -> impl Iterator<Item = (&'s [u8], MergeOp<'s>)> {
        let mut runs = self.runs.iter();
        let mut rest = self.buffer.bytes();
        std::iter::from_fn(move || {
            let (key_len, behind) = rest.split_first_chunk()?;
            let (tag, behind) = behind.split_first_chunk()?;
            let (key, behind) = behind.split_at(u32::from_ne_bytes(*key_len) as usize);
            let (value_len, op) = match u32::from_ne_bytes(*tag) {
                DELETION => (0, MergeOp::Delete),
                RUN => {
                    let (page, range) = runs.next()?;
                    (0, MergeOp::Put(&page[range.clone()]))
                }
                OPERANDS => {
                    let (len, list) = behind.split_first_chunk()?;
                    let len = u32::from_ne_bytes(*len) as usize;
                    (size_of::<u32>() + len, MergeOp::Operands { list: &list[..len], by })
                }
                EXPIRING => {
                    let (len, stamped) = behind.split_first_chunk()?;
                    let len = u32::from_ne_bytes(*len) as usize;
                    (size_of::<u32>() + len, MergeOp::of_stamped(&stamped[..len], now))
                }
                len => (len as usize, MergeOp::Put(&behind[..len as usize])),
            };
            rest = &behind[value_len..];
            Some((key, op))
        })
    }
}

/// Bytes in a mapping of their own: so many that come and go so often would stay with the allocator, which
/// keeps for every thread what was given back to it.
struct Buffer {
    map: MmapMut,
    len: usize,
}

impl Buffer {
    /// Room for `capacity` bytes. Takes memory as it is filled.
    fn of(capacity: usize) -> Result<Self> {
        let map = MmapMut::map_anon(capacity.max(1)).map_err(|error| Error::io("getting memory", error))?;
        Ok(Self { map, len: 0 })
    }

    fn make_room(&mut self, bytes: usize) -> Result<()> {
        if self.map.len() - self.len < bytes {
            let mut larger = Self::of(2 * self.map.len() + bytes)?;
            larger.push(self.bytes());
            *self = larger;
        }
        Ok(())
    }

    /// Adds `bytes`, for which there is room.
    fn push(&mut self, bytes: &[u8]) {
        self.map[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn bytes(&self) -> &[u8] {
        &self.map[..self.len]
    }
}

#[cold]
fn too_long(store: &PartitionedStorageBackend) -> Error {
    Error::corruption("a value that expires is longer than a value can be").of_family(store.family().0)
}

#[cold]
pub(super) fn out_of_order(store: &PartitionedStorageBackend) -> Error {
    Error::corruption("the keys of a tree are out of order").of_family(store.family().0)
}

/// A delta that is walked.
struct Source {
    cursor: TreeCursor,
    /// Of the key that the cursor stands on: integer order is key order, but for equal heads. The highest at
    /// the end.
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
