//! Memory that is handed out piece by piece and given back as a whole.
//!
//! An [`Arena`] owns chunks. A [`Bump`] is one stream of allocations from it; a memtable has two, so that
//! nodes, which searches touch, lie close together and apart from the entries. The first chunk of a stream is
//! small, later ones double with what the stream has used, up to a mapping of the kernel's, which takes real
//! memory only where it was touched and gives all of it back at the end. So the rest that was taken and is
//! not used is never more than what is used, but in a mapping that another arena used before. Mappings have
//! the size of a huge page, and are one once as much was used, since address translation is a large part of a
//! random read. What is large for the next chunk gets a chunk of its own.
//!
//! Most of what a mapping costs is that the kernel clears it. So those of arenas that are gone are kept, as
//! many as a merge leaves, for the arenas that follow, as long as one of these has a mapping; and where many
//! entries are to come, huge pages can be made ready ahead of need by another thread.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::codec::prefetch::LINE;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};
use crate::system::{IS_LAZY, Mapping};

/// The first chunk of a stream: little, since thousands of families may hold a few entries each.
const SMALLEST_CHUNK: usize = 1 << 8;
const HUGE_PAGE: usize = 2 << 20;
/// What would be as long as this or longer is a mapping. A part of it that is given back to the allocator
/// would often stay with it.
const SMALLEST_MAPPING: usize = 64 << 10;
/// Huge pages that are ready at most.
const MOST_READY: usize = 4;

/// Memtables that a merge may leave behind at once. Together with those in use there are never more than
/// there were at the busiest time.
const MOST_MERGED: usize = 4;

/// Owner of the memory of one memtable.
pub(super) struct Arena {
    chunks: Mutex<Vec<Chunk>>,
    /// Bytes that were handed out, as of when the memtable goes.
    used: AtomicUsize,
    spares: Arc<Spares>,
}

/// Mappings that no arena uses, shared by the arenas that follow one another.
struct Spares {
    chunks: Mutex<Vec<Chunk>>,
    /// How many are kept at most.
    most: AtomicUsize,
    /// Mappings of the same size that the arenas use.
    used: AtomicUsize,
}

/// Memory that this value owns and gives back when it is dropped.
struct Chunk {
    memory: Memory,
    backing: Backing,
    /// Bytes of a mapping of single pages that took memory at most, in all arenas that used it before.
    touched: usize,
}

enum Memory {
    Allocated(Allocated),
    Mapped(Mapping),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backing {
    /// Made by the allocator.
    Allocator,
    /// A mapping that takes memory page by page, as it is touched.
    Pages,
    /// A mapping that takes all of its memory at once, if the kernel has a huge page.
    HugePage,
}

impl Arena {
    /// An arena that is expected to come to `capacity` bytes.
    pub(super) fn new(capacity: usize) -> Self {
        let spares =
            Spares { chunks: Mutex::new(Vec::new()), most: AtomicUsize::new(0), used: AtomicUsize::new(0) };
        Self::over(Arc::new(spares)).with_capacity(capacity)
    }

    /// The arena that follows this one, and gets what this one and those before it leave.
    pub(super) fn successor(&self, capacity: usize) -> Self {
        Self::over(Arc::clone(&self.spares)).with_capacity(capacity)
    }

    fn over(spares: Arc<Spares>) -> Self {
        Self { chunks: Mutex::new(Vec::new()), used: AtomicUsize::new(0), spares }
    }

    fn with_capacity(self, capacity: usize) -> Self {
        // Two streams, each of which ends in the middle of a mapping.
        let mappings = capacity.div_ceil(HUGE_PAGE) + 1;
        self.spares.most.store(mappings * MOST_MERGED, Ordering::Relaxed);
        self
    }

    /// Bytes of memory of the mappings that wait for the arenas that follow, at most.
    pub(super) fn spare_bytes(&self) -> usize {
        self.spares.chunks.lock().iter().map(|chunk| chunk.touched).sum()
    }

    /// Says how many bytes were handed out in all, before the arena is dropped.
    pub(super) fn note_used(&self, bytes: usize) {
        self.used.store(bytes, Ordering::Relaxed);
    }

    /// Makes huge pages ready, an eighth of what is `used` at most, so that who needs one next finds it
    /// cleared.
    pub(super) fn make_ready(&self, used: usize) {
        while self.spares.chunks.lock().len() < (used / HUGE_PAGE / 8).min(MOST_READY)
            && let Some(chunk) = Chunk::map(HUGE_PAGE, Backing::HugePage)
        {
            chunk.populate();
            self.spares.chunks.lock().push(chunk);
        }
    }

    /// Memory of `size` bytes, aligned to a cache line, that lives as long as the arena.
    fn add_chunk(&self, size: usize, backing: Backing) -> NonNull<u8> {
        let spare = if size == HUGE_PAGE { self.spares.take(backing) } else { None };
        let chunk = spare.unwrap_or_else(|| Chunk::new(size, backing));
        let start = chunk.start();
        if chunk.may_be_spare() {
            self.spares.used.fetch_add(1, Ordering::Relaxed);
        }
        self.chunks.lock().push(chunk);
        start
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let chunks = std::mem::take(&mut *self.chunks.lock());
        let mut spares: Vec<Chunk> = chunks.into_iter().filter(Chunk::may_be_spare).collect();
        let used = self.used.load(Ordering::Relaxed).min(HUGE_PAGE);
        spares.iter_mut().for_each(|chunk| chunk.touched = chunk.touched.max(used));
        self.spares.keep(spares);
    }
}

impl Spares {
    fn take(&self, backing: Backing) -> Option<Chunk> {
        let mut chunks = self.chunks.lock();
        let at = chunks.iter().position(|chunk| chunk.backing == backing)?;
        Some(chunks.swap_remove(at))
    }

    /// Keeps some of what was `used`, or nothing at all if no other arena uses any.
    fn keep(&self, used: Vec<Chunk>) {
        let mut chunks = self.chunks.lock();
        let others = self.used.fetch_sub(used.len(), Ordering::Relaxed) - used.len();
        let most = if others == 0 { 0 } else { self.most.load(Ordering::Relaxed) };
        // What was used last is what will be wanted next.
        chunks.splice(..0, used);
        let kept = most.min(chunks.len());
        let surplus = chunks.split_off(kept);
        drop(chunks);
        // Not under the lock: giving memory back takes long.
        drop(surplus);
    }
}

impl Chunk {
    /// Whether it serves any arena that wants a mapping.
    fn may_be_spare(&self) -> bool {
        self.backing != Backing::Allocator && self.size() == HUGE_PAGE
    }

    fn new(size: usize, backing: Backing) -> Self {
        if backing != Backing::Allocator
            && let Some(chunk) = Self::map(size, backing)
        {
            return chunk;
        }
        Self { memory: Memory::Allocated(Allocated::new(size)), backing: Backing::Allocator, touched: size }
    }

    /// A mapping of `size` bytes; one for a huge page begins at a huge page's boundary, so that the kernel
    /// can back it with one.
    fn map(size: usize, backing: Backing) -> Option<Self> {
        if !IS_LAZY {
            return None;
        }
        let is_huge = backing == Backing::HugePage;
        let mapping = Mapping::new(size, if is_huge { HUGE_PAGE } else { LINE })?;
        mapping.prefer_huge_pages(is_huge);
        Some(Self { memory: Memory::Mapped(mapping), backing, touched: if is_huge { size } else { 0 } })
    }

    /// Has the kernel back the whole mapping with memory now, if it can.
    fn populate(&self) {
        if let Memory::Mapped(mapping) = &self.memory {
            mapping.populate();
        }
    }

    fn start(&self) -> NonNull<u8> {
        match &self.memory {
            Memory::Allocated(allocated) => allocated.start,
            Memory::Mapped(mapping) => mapping.start(),
        }
    }

    /// Bytes that it has, at least those that were asked for.
    fn size(&self) -> usize {
        match &self.memory {
            Memory::Allocated(allocated) => allocated.layout.size(),
            Memory::Mapped(mapping) => mapping.len(),
        }
    }
}

/// Memory of the allocator.
struct Allocated {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: an owned piece of memory, nothing in it belongs to the thread that made it.
unsafe impl Send for Allocated {}

impl Allocated {
    fn new(size: usize) -> Self {
        let layout =
            Layout::from_size_align(size, LINE).expect("a chunk is no larger than the address space");
        assert!(size > 0, "a chunk of {size} bytes");
        // SAFETY: the layout is not empty, as asserted.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, layout }
    }
}

impl Drop for Allocated {
    fn drop(&mut self) {
        // SAFETY: the memory came from `alloc` with this layout, and nobody uses it any more: whoever has a
        // pointer into an arena keeps the arena.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// One stream of allocations. Its memory belongs to the one arena with which it is always called.
pub(super) struct Bump {
    next: NonNull<u8>,
    left: usize,
    used: usize,
}

// SAFETY: the rest of the chunk that a stream has not handed out is known to the stream alone.
unsafe impl Send for Bump {}

impl Bump {
    /// A stream that holds no memory yet.
    pub(super) fn new() -> Self {
        Self { next: NonNull::dangling(), left: 0, used: 0 }
    }

    /// Bytes that were handed out, and what was too short a rest to be handed out.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Memory of `size` bytes at a multiple of `align`, which is a cache line at most, uninitialised, that
    /// lives as long as `arena`.
    #[inline]
    pub(super) fn allocate(&mut self, arena: &Arena, size: usize, align: usize) -> NonNull<u8> {
        debug_assert!(align.is_power_of_two() && align <= LINE, "an alignment of {align}");
        let padding = self.next.addr().get().wrapping_neg() & (align - 1);
        if size > self.left || padding > self.left - size {
            return self.allocate_from_new_chunk(arena, size);
        }
        // SAFETY: `left` bytes from `next` on belong to this stream, and `padding + size` are no more than
        // that.
        unsafe {
            let start = self.next.add(padding);
            self.next = start.add(size);
            self.left -= padding + size;
            self.used += padding + size;
            start
        }
    }

    #[cold]
    fn allocate_from_new_chunk(&mut self, arena: &Arena, size: usize) -> NonNull<u8> {
        let (chunk, backing) = match self.used {
            SMALLEST_MAPPING..HUGE_PAGE if IS_LAZY => (HUGE_PAGE, Backing::Pages),
            HUGE_PAGE.. if IS_LAZY => (HUGE_PAGE, Backing::HugePage),
            used => ((1 << used.max(1).ilog2()).clamp(SMALLEST_CHUNK, HUGE_PAGE), Backing::Allocator),
        };
        if size > chunk / 4 {
            self.used += size;
            let backing = if size < SMALLEST_MAPPING { Backing::Allocator } else { Backing::Pages };
            return arena.add_chunk(size, backing);
        }
        self.used += self.left + size;
        let start = arena.add_chunk(chunk, backing);
        // SAFETY: the new chunk is longer than `size`.
        self.next = unsafe { start.add(size) };
        self.left = chunk - size;
        start
    }
}

/// `count` words of zero. Large ones are not touched, so that the kernel backs only what is used.
#[cfg(not(loom))]
pub(super) fn zeroed_words(count: usize) -> Box<[AtomicU64]> {
    let layout = Layout::array::<AtomicU64>(count).expect("a filter is no larger than the address space");
    assert!(count > 0, "a filter of {count} words");
    // SAFETY: the layout is that of a slice of `count` words, and not empty. Zero bytes are a valid
    // `AtomicU64`.
    unsafe {
        let start = std::alloc::alloc_zeroed(layout);
        let Some(start) = NonNull::new(start.cast::<AtomicU64>()) else { handle_alloc_error(layout) };
        Box::from_raw(NonNull::slice_from_raw_parts(start, count).as_ptr())
    }
}

#[cfg(loom)]
pub(super) fn zeroed_words(count: usize) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    #[cfg(all(target_os = "linux", not(miri)))]
    use std::collections::BTreeSet;

    #[test]
    fn pieces_are_aligned_and_do_not_overlap() {
        let (arena, mut bump) = (Arena::new(0), Bump::new());
        let mut pieces = Vec::new();
        let sizes = [1usize, 8, 24, 256, 3000, 5000, 70_000, 0];
        let rounds = if cfg!(miri) { 4 } else { 400 };
        for round in 0..rounds {
            for (i, &size) in sizes.iter().enumerate() {
                let align = [8, LINE][(round + i) % 2];
                let piece = bump.allocate(&arena, size, align);
                assert_eq!(piece.addr().get() % align, 0);
                // SAFETY: the piece has `size` bytes.
                unsafe { piece.write_bytes(0xa5, size) };
                pieces.push((piece.addr().get(), size));
            }
        }
        pieces.sort_unstable();
        for pair in pieces.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{:?} reaches into {:?}", pair[0], pair[1]);
        }
        assert!(bump.used() >= pieces.iter().map(|piece| piece.1).sum());
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn what_an_arena_leaves_is_used_by_those_that_follow() {
        const USED: usize = 40 << 20;
        let fill = |arena: &Arena, len: usize| -> BTreeSet<usize> {
            let mut bump = Bump::new();
            while bump.used() < len {
                bump.allocate(arena, 1000, 8);
            }
            let chunks = arena.chunks.lock();
            let mapped = chunks.iter().filter(|chunk| chunk.may_be_spare());
            mapped.map(|chunk| chunk.start().addr().get()).collect()
        };
        let spares = |arena: &Arena| arena.spares.chunks.lock().len();
        let first = Arena::new(USED);
        let second = first.successor(USED);
        let left = fill(&first, USED);
        fill(&second, 1 << 20);
        drop(first);
        assert_eq!(spares(&second), left.len());
        let third = second.successor(USED);
        assert!(fill(&third, USED).is_superset(&left));
        let fourth = third.successor(2 << 20);
        drop(third);
        assert!((1..=2 * MOST_MERGED).contains(&spares(&fourth)), "the last arena is a small one");
        drop(second);
        assert_eq!(spares(&fourth), 0, "nobody uses a mapping any more");
    }

    #[test]
    fn a_stream_that_hands_out_nothing_holds_nothing() {
        let arena = Arena::new(0);
        let bump = Bump::new();
        assert_eq!((bump.used(), arena.chunks.lock().len()), (0, 0));
    }

    #[test]
    fn chunks_hold_little_more_than_was_used() {
        let (arena, mut bump) = (Arena::new(0), Bump::new());
        for _ in 0..if cfg!(miri) { 100 } else { 50_000 } {
            bump.allocate(&arena, 200, 8);
            // What of a mapping of single pages is not used takes no memory.
            let held: usize = arena
                .chunks
                .lock()
                .iter()
                .filter(|chunk| chunk.backing != Backing::Pages)
                .map(Chunk::size)
                .sum();
            assert!(held <= 2 * bump.used() + SMALLEST_CHUNK, "{held} bytes held for {}", bump.used());
        }
    }
}
