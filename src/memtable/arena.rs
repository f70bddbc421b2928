//! Memory that is handed out piece by piece and given back as a whole.
//!
//! An [`Arena`] owns chunks. A [`Bump`] is one stream of allocations from it; a memtable has two, so that nodes,
//! which searches touch, lie close together and apart from the entries. The first chunk of a stream is small, later
//! ones double with what the stream has used, so that the untouched rest is never more than what was used. The
//! largest size is a huge page, since address translation is a large part of a random read. What is large for the
//! next chunk gets a chunk of its own. Where many entries are to come, huge pages can be made ready ahead of need by another
//! thread: most of what they cost is that the kernel clears them.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::codec::prefetch::LINE;
use crate::sync::Mutex;
use crate::sync::atomic::AtomicU64;

const SMALLEST_CHUNK: usize = 4 << 10;
const HUGE_PAGE: usize = 2 << 20;
/// Huge pages that are ready at most.
const MOST_READY: usize = 4;

/// Owner of the memory of one memtable.
pub(super) struct Arena {
    chunks: Mutex<Vec<Chunk>>,
    /// Huge pages that nobody uses yet.
    ready: Mutex<Vec<Chunk>>,
}

/// Memory that this value owns and gives back when it is dropped.
struct Chunk {
    start: NonNull<u8>,
    layout: Layout,
    /// Made by `mmap`, not by the allocator.
    mapped: bool,
}

// SAFETY: a chunk is an owned piece of memory, nothing in it belongs to the thread that made it.
unsafe impl Send for Chunk {}

impl Arena {
    pub(super) fn new() -> Self {
        Self { chunks: Mutex::new(Vec::new()), ready: Mutex::new(Vec::new()) }
    }

    /// Makes huge pages ready, an eighth of what is `used` at most, so that who needs one next finds it cleared.
    pub(super) fn make_ready(&self, used: usize) {
        while self.ready.lock().len() < (used / HUGE_PAGE / 8).min(MOST_READY)
            && let Some(chunk) = Chunk::map_huge_page()
        {
            chunk.populate();
            self.ready.lock().push(chunk);
        }
    }

    /// Memory of `size` bytes, aligned to a cache line, that lives as long as the arena.
    fn add_chunk(&self, size: usize) -> NonNull<u8> {
        let ready = if size == HUGE_PAGE { self.ready.lock().pop() } else { None };
        let chunk = ready.unwrap_or_else(|| Chunk::new(size));
        let start = chunk.start;
        self.chunks.lock().push(chunk);
        start
    }
}

impl Chunk {
    fn new(size: usize) -> Self {
        if size == HUGE_PAGE
            && let Some(chunk) = Self::map_huge_page()
        {
            return chunk;
        }
        let layout =
            Layout::from_size_align(size, LINE).expect("a chunk is no larger than the address space");
        assert!(size > 0, "a chunk of {size} bytes");
        // SAFETY: the layout is not empty, as asserted.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, layout, mapped: false }
    }

    /// A huge page's worth of memory at a huge page's boundary, so that the kernel can back it with one.
    #[cfg(all(target_os = "linux", not(miri), not(loom)))]
    fn map_huge_page() -> Option<Self> {
        use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice touches no memory that is in use.
        let whole =
            unsafe { mmap_anonymous(std::ptr::null_mut(), 2 * HUGE_PAGE, protection, MapFlags::PRIVATE) }
                .ok()?;
        let whole = whole.cast::<u8>();
        let before = whole.align_offset(HUGE_PAGE);
        let after = HUGE_PAGE - before;
        // SAFETY: all pieces lie inside of the mapping of two huge pages made above, which nobody else knows. What is
        // unmapped is not used again. The advice changes nothing but how the kernel backs the rest.
        unsafe {
            let start = whole.add(before);
            if before > 0 {
                let _ = munmap(whole.cast(), before);
            }
            if after > 0 {
                let _ = munmap(start.add(HUGE_PAGE).cast(), after);
            }
            let _ = madvise(start.cast(), HUGE_PAGE, Advice::LinuxHugepage);
            let layout = Layout::from_size_align_unchecked(HUGE_PAGE, HUGE_PAGE);
            NonNull::new(start).map(|start| Self { start, layout, mapped: true })
        }
    }

    /// Has the kernel back the whole mapping with memory now, if it can.
    #[cfg(all(target_os = "linux", not(miri), not(loom)))]
    fn populate(&self) {
        use rustix::mm::{Advice, madvise};
        // SAFETY: the mapping is this chunk's. Backing it changes nothing of what is read from it: zeros, until somebody writes.
        let _ =
            unsafe { madvise(self.start.as_ptr().cast(), self.layout.size(), Advice::LinuxPopulateWrite) };
    }

    #[cfg(not(all(target_os = "linux", not(miri), not(loom))))]
    fn map_huge_page() -> Option<Self> {
        None
    }

    #[cfg(not(all(target_os = "linux", not(miri), not(loom))))]
    fn populate(&self) {}
}

impl Drop for Chunk {
    fn drop(&mut self) {
        #[cfg(all(target_os = "linux", not(miri), not(loom)))]
        if self.mapped {
            // SAFETY: the mapping was made by `map_huge_page` with this start and size, and nobody uses it any more:
            // whoever has a pointer into an arena keeps the arena.
            let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.layout.size()) };
            return;
        }
        debug_assert!(!self.mapped, "a chunk of {} bytes was mapped where nothing is", self.layout.size());
        // SAFETY: the memory came from `alloc` with this layout, and nobody uses it any more, as above.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
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

    /// Memory of `size` bytes at a multiple of `align`, which is a cache line at most, uninitialised, that lives as long as `arena`.
    #[inline]
    pub(super) fn allocate(&mut self, arena: &Arena, size: usize, align: usize) -> NonNull<u8> {
        debug_assert!(align.is_power_of_two() && align <= LINE, "an alignment of {align}");
        let padding = self.next.addr().get().wrapping_neg() & (align - 1);
        if size > self.left || padding > self.left - size {
            return self.allocate_from_new_chunk(arena, size);
        }
        // SAFETY: `left` bytes from `next` on belong to this stream, and `padding + size` are no more than that.
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
        let chunk = (1 << self.used.max(1).ilog2()).clamp(SMALLEST_CHUNK, HUGE_PAGE);
        if size > chunk / 4 {
            self.used += size;
            return arena.add_chunk(size);
        }
        self.used += self.left + size;
        let start = arena.add_chunk(chunk);
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
    // SAFETY: the layout is that of a slice of `count` words, and not empty. Zero bytes are a valid `AtomicU64`.
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

    #[test]
    fn pieces_are_aligned_and_do_not_overlap() {
        let (arena, mut bump) = (Arena::new(), Bump::new());
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
    fn a_stream_that_hands_out_nothing_holds_nothing() {
        let arena = Arena::new();
        let bump = Bump::new();
        assert_eq!((bump.used(), arena.chunks.lock().len()), (0, 0));
    }

    #[test]
    fn chunks_hold_little_more_than_was_used() {
        let (arena, mut bump) = (Arena::new(), Bump::new());
        for _ in 0..if cfg!(miri) { 100 } else { 50_000 } {
            bump.allocate(&arena, 200, 8);
            let held: usize = arena.chunks.lock().iter().map(|chunk| chunk.layout.size()).sum();
            assert!(held <= 2 * bump.used() + SMALLEST_CHUNK, "{held} bytes held for {}", bump.used());
        }
    }
}
