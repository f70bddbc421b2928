//! Where a page stands in memory: one 32-bit entry for each page number.
//!
//! ```text
//! bit 0      referenced since the clock hand last came by
//! bit 1      dirty: not yet written, never evicted
//! bits 2..32 frame + 1; 0: the page is not in memory
//! ```
//!
//! Entries stand in chunks, each as large as all before it together, made when first needed and never moved: a look-up is
//! two loads, the first of them from a directory of a few cache lines.
//!
//! A transition is one compare-and-swap, so every entry that is taken out is taken out by exactly one thread, which then
//! owns retiring the frame. [`FrameTable::clean`] and [`FrameTable::dirty`] follow the transitions.

use crossbeam_utils::CachePadded;

use super::frames::Frame;
use crate::codec::ids::PageId;
use crate::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use crate::sync::epoch::Guard;

const REFERENCED: u32 = 1;
const DIRTY: u32 = 2;
const FRAME_SHIFT: u32 = 2;
const EMPTY: u32 = 0;

#[cfg(not(loom))]
const FIRST_CHUNK_BITS: u32 = 6;
#[cfg(loom)]
const FIRST_CHUNK_BITS: u32 = 1;

#[cfg(not(loom))]
const CHUNKS: usize = 33 - FIRST_CHUNK_BITS as usize;
#[cfg(loom)]
const CHUNKS: usize = 2;

pub(super) struct FrameTable {
    chunks: [AtomicPtr<AtomicU32>; CHUNKS],
    clean: CachePadded<AtomicUsize>,
    dirty: CachePadded<AtomicUsize>,
}

/// What became of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inserted {
    Done,
    /// The page is in memory already, in this frame.
    Occupied(Frame),
    /// There is no memory for the entry.
    Refused,
}

/// What the clock hand did to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aged {
    /// It was taken out; the caller retires the frame.
    Evicted,
    /// It lost its mark, or was marked just now.
    Spared,
    /// It is dirty, or the frame no longer holds the page.
    Skipped,
}

#[inline]
fn place(page: PageId) -> (usize, usize) {
    let index = u64::from(page.0) + (1 << FIRST_CHUNK_BITS);
    let bits = index.ilog2();
    ((bits - FIRST_CHUNK_BITS) as usize, (index - (1 << bits)) as usize)
}

fn chunk_len(chunk: usize) -> usize {
    1 << (chunk + FIRST_CHUNK_BITS as usize)
}

#[inline]
fn frame_of(value: u32) -> Option<Frame> {
    (value >> FRAME_SHIFT).checked_sub(1).map(Frame)
}

#[inline]
fn value_of(frame: Frame, flags: u32) -> u32 {
    assert!(frame.0 < Frame::LIMIT, "frame {} is beyond the limit {}", frame.0, Frame::LIMIT);
    (frame.0 + 1) << FRAME_SHIFT | flags
}

impl FrameTable {
    pub(super) fn new() -> Self {
        Self {
            chunks: std::array::from_fn(|_| AtomicPtr::new(std::ptr::null_mut())),
            clean: CachePadded::new(AtomicUsize::new(0)),
            dirty: CachePadded::new(AtomicUsize::new(0)),
        }
    }

    /// Bytes of all entries.
    pub(super) fn memory(&self) -> usize {
        let made = |(chunk, entries): (usize, &AtomicPtr<AtomicU32>)| {
            let is_made = !entries.load(Ordering::Relaxed).is_null();
            if is_made { chunk_len(chunk) * size_of::<AtomicU32>() } else { 0 }
        };
        self.chunks.iter().enumerate().map(made).sum()
    }

    /// Pages in memory that may be evicted.
    pub(super) fn clean(&self) -> usize {
        self.clean.load(Ordering::Relaxed)
    }

    /// Pages in memory that are not yet written.
    pub(super) fn dirty(&self) -> usize {
        self.dirty.load(Ordering::Relaxed)
    }

    /// The frame that holds `page`, marked as referenced. Its bytes stay as they are while the guard lives.
    #[inline]
    pub(super) fn lookup(&self, page: PageId, _guard: &Guard) -> Option<Frame> {
        let entry = self.entry(page)?;
        let value = entry.load(Ordering::Acquire);
        let frame = frame_of(value)?;
        if value & REFERENCED == 0 {
            // Lost to a neighbour's change of the entry, the mark is not worth a second try.
            let _ = entry.compare_exchange(value, value | REFERENCED, Ordering::Relaxed, Ordering::Relaxed);
        }
        Some(frame)
    }

    /// The frame that holds `page`, which is not marked as referenced.
    pub(super) fn peek(&self, page: PageId, _guard: &Guard) -> Option<Frame> {
        frame_of(self.entry(page)?.load(Ordering::Acquire))
    }

    /// The frame that holds `page` if the page is dirty.
    pub(super) fn lookup_dirty(&self, page: PageId, _guard: &Guard) -> Option<Frame> {
        let value = self.entry(page)?.load(Ordering::Acquire);
        if value & DIRTY == 0 { None } else { frame_of(value) }
    }

    /// Makes `frame`, whose bytes are final, what holds `page`.
    pub(super) fn insert(&self, page: PageId, frame: Frame, dirty: bool) -> Inserted {
        let Some(entry) = self.entry_or_grow(page) else {
            return Inserted::Refused;
        };
        // Counted first: an entry that is visible can be taken out, and uncounted, at once.
        let count = if dirty { &self.dirty } else { &self.clean };
        count.fetch_add(1, Ordering::Relaxed);
        let value = value_of(frame, if dirty { DIRTY } else { 0 });
        match entry.compare_exchange(EMPTY, value, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Inserted::Done,
            Err(other) => {
                count.fetch_sub(1, Ordering::Relaxed);
                Inserted::Occupied(frame_of(other).expect("an entry that is not empty names a frame"))
            }
        }
    }

    /// Takes `page` out, dirty or not; the caller retires the frame.
    pub(super) fn remove(&self, page: PageId) -> Option<Frame> {
        let value = self.entry(page)?.swap(EMPTY, Ordering::AcqRel);
        let frame = frame_of(value)?;
        let count = if value & DIRTY == 0 { &self.clean } else { &self.dirty };
        count.fetch_sub(1, Ordering::Relaxed);
        Some(frame)
    }

    /// `page` was written out of `frame`: it may be evicted from now on. Says whether it still stood there.
    pub(super) fn mark_clean(&self, page: PageId, frame: Frame) -> bool {
        let Some(entry) = self.entry(page) else { return false };
        let mut value = entry.load(Ordering::Acquire);
        while frame_of(value) == Some(frame) && value & DIRTY != 0 {
            // As in `insert`, counted before it can be taken out.
            self.clean.fetch_add(1, Ordering::Relaxed);
            match entry.compare_exchange(value, value & !DIRTY, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.dirty.fetch_sub(1, Ordering::Relaxed);
                    return true;
                }
                Err(now) => {
                    self.clean.fetch_sub(1, Ordering::Relaxed);
                    value = now;
                }
            }
        }
        false
    }

    /// The clock hand comes by at `frame`, which was last made to hold `page`.
    pub(super) fn age(&self, page: PageId, frame: Frame) -> Aged {
        let Some(entry) = self.entry(page) else { return Aged::Skipped };
        let value = entry.load(Ordering::Acquire);
        if frame_of(value) != Some(frame) || value & DIRTY != 0 {
            return Aged::Skipped;
        }
        let aged = if value & REFERENCED != 0 { value & !REFERENCED } else { EMPTY };
        match entry.compare_exchange(value, aged, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) if aged == EMPTY => {
                self.clean.fetch_sub(1, Ordering::Relaxed);
                Aged::Evicted
            }
            _ => Aged::Spared,
        }
    }

    #[inline]
    fn entry(&self, page: PageId) -> Option<&AtomicU32> {
        let (chunk, slot) = place(page);
        let entries = self.chunks[chunk].load(Ordering::Acquire);
        if entries.is_null() {
            return None;
        }
        // SAFETY: a chunk that is not null holds `chunk_len(chunk)` entries, stays where it is until `self` is dropped, and
        // `place` gives slots below that length.
        Some(unsafe { &*entries.add(slot) })
    }

    fn entry_or_grow(&self, page: PageId) -> Option<&AtomicU32> {
        if let Some(entry) = self.entry(page) {
            return Some(entry);
        }
        let (chunk, _) = place(page);
        let made = new_chunk(chunk_len(chunk))?;
        let null = std::ptr::null_mut();
        if self.chunks[chunk].compare_exchange(null, made, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: `made` came from `new_chunk` with this length just now, and nobody else saw it.
            unsafe { free_chunk(made, chunk_len(chunk)) };
        }
        self.entry(page)
    }
}

impl Drop for FrameTable {
    fn drop(&mut self) {
        for (chunk, entries) in self.chunks.iter().enumerate() {
            let entries = entries.load(Ordering::Relaxed);
            if !entries.is_null() {
                // SAFETY: it came from `new_chunk` with this length; nobody else has access any more.
                unsafe { free_chunk(entries, chunk_len(chunk)) };
            }
        }
    }
}

/// Empty entries. Zeroed by the allocator, so that of a large chunk only what is used takes memory.
#[cfg(not(loom))]
fn new_chunk(len: usize) -> Option<*mut AtomicU32> {
    let layout = std::alloc::Layout::array::<AtomicU32>(len).ok()?;
    // SAFETY: the layout is not empty; all zeros is a valid `AtomicU32`, namely `EMPTY`.
    let entries = unsafe { std::alloc::alloc_zeroed(layout) };
    if entries.is_null() { None } else { Some(entries.cast()) }
}

#[cfg(loom)]
fn new_chunk(len: usize) -> Option<*mut AtomicU32> {
    let entries: Box<[AtomicU32]> = (0..len).map(|_| AtomicU32::new(EMPTY)).collect();
    Some(Box::into_raw(entries).cast())
}

/// # Safety
/// `entries` came from `new_chunk(len)`, and nobody uses it any more.
unsafe fn free_chunk(entries: *mut AtomicU32, len: usize) {
    // SAFETY: `new_chunk` allocated it with the layout of a boxed slice of this length.
    drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(entries, len)) });
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::epoch;

    #[test]
    fn places_are_dense_and_inside_their_chunk() {
        let mut expected = (0, 0);
        for page in 0..5000 {
            assert_eq!(place(PageId(page)), expected);
            expected.1 += 1;
            if expected.1 == chunk_len(expected.0) {
                expected = (expected.0 + 1, 0);
            }
        }
        let (chunk, slot) = place(PageId(u32::MAX));
        assert!(chunk < CHUNKS && slot < chunk_len(chunk));
    }

    #[test]
    fn an_entry_is_found_until_it_is_removed() {
        let table = FrameTable::new();
        let guard = epoch::pin();
        assert_eq!(table.lookup(PageId(70), &guard), None);
        assert_eq!(table.insert(PageId(70), Frame(0), false), Inserted::Done);
        assert_eq!(table.insert(PageId(70), Frame(1), false), Inserted::Occupied(Frame(0)));
        assert_eq!(table.lookup(PageId(70), &guard), Some(Frame(0)));
        assert_eq!(table.lookup(PageId(71), &guard), None);
        assert_eq!(table.clean(), 1);
        assert_eq!(table.remove(PageId(70)), Some(Frame(0)));
        assert_eq!(table.remove(PageId(70)), None);
        assert_eq!((table.clean(), table.dirty()), (0, 0));
    }

    #[test]
    fn the_hand_spares_what_was_referenced_and_skips_what_is_dirty() {
        let table = FrameTable::new();
        let guard = epoch::pin();
        table.insert(PageId(1), Frame(5), false);
        assert_eq!(table.age(PageId(1), Frame(4)), Aged::Skipped);
        table.lookup(PageId(1), &guard);
        assert_eq!(table.age(PageId(1), Frame(5)), Aged::Spared);
        assert_eq!(table.age(PageId(1), Frame(5)), Aged::Evicted);
        assert_eq!(table.lookup(PageId(1), &guard), None);

        table.insert(PageId(2), Frame(6), true);
        assert_eq!(table.lookup_dirty(PageId(2), &guard), Some(Frame(6)));
        assert_eq!(table.age(PageId(2), Frame(6)), Aged::Skipped);
        assert!(!table.mark_clean(PageId(2), Frame(7)));
        assert!(table.mark_clean(PageId(2), Frame(6)));
        assert_eq!((table.clean(), table.dirty()), (1, 0));
        assert_eq!(table.age(PageId(2), Frame(6)), Aged::Evicted);
    }
}
