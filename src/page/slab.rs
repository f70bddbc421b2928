//! Memory for many frames at once.
//!
//! A slab is zero when it is made and takes real memory only where it is touched, so that a large one costs an idle family
//! nothing. Large slabs ask for huge pages: address translation is much of the cost of a random read.

use std::ptr::NonNull;

const HUGE_PAGE: usize = 2 << 20;
/// A slab of this size or more is aligned to huge pages and asks for them. A huge page takes all of its memory when one frame in it is used, so what
/// a family has of them beyond its frames must be little beside the slab, and beside all slabs before, which come to as much.
const LEAST_HUGE: usize = 8 * HUGE_PAGE;

/// Other slabs are aligned to this: a page of most systems.
const ALIGN: usize = 4096;

/// Zeroed memory, given back when dropped.
pub(super) struct Slab {
    start: NonNull<u8>,
    len: usize,
    memory: memory::Memory,
}

// SAFETY: a slab is plain memory; who may touch which part of it is settled by `FrameStore`.
unsafe impl Send for Slab {}
// SAFETY: as above; the slab itself is never changed after it was made.
unsafe impl Sync for Slab {}

impl Slab {
    /// `None` if the system has no memory for it.
    pub(super) fn new(len: usize) -> Option<Self> {
        let align = if len >= LEAST_HUGE { HUGE_PAGE } else { ALIGN };
        let memory = memory::Memory::new(len, align)?;
        let start = memory.start(align);
        if len >= LEAST_HUGE {
            memory::prefer_huge_pages(start, len);
        }
        Some(Self { start, len, memory })
    }

    /// The address `offset` bytes into the slab.
    ///
    /// # Safety
    /// `offset` is inside the slab.
    #[inline]
    pub(super) unsafe fn at(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset < self.len, "offset {offset} lies outside of a slab of {} bytes", self.len);
        // SAFETY: inside one allocation, as the caller promises.
        unsafe { self.start.add(offset) }
    }

    /// Gives the range's real memory back to the system, where it can; the range then holds zeros or what it held.
    ///
    /// # Safety
    /// Nobody uses the range.
    pub(super) unsafe fn give_back(&self, offset: usize, len: usize) {
        assert!(offset + len <= self.len, "{len} bytes at {offset} lie outside of a slab of {}", self.len);
        // Only whole pages of the system, of which others may use the ends.
        let (first, end) = (offset.next_multiple_of(ALIGN), (offset + len) / ALIGN * ALIGN);
        if first < end {
            // SAFETY: the range lies in this slab and, as the caller promises, is not in use.
            unsafe { memory::give_back(self.at(first), end - first) };
        }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: the slab is the only owner of its memory, and is gone.
        unsafe { self.memory.free() };
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
mod memory {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
    use std::ptr::{NonNull, null_mut};

    /// An anonymous mapping.
    pub(super) struct Memory {
        mapping: NonNull<u8>,
        len: usize,
    }

    impl Memory {
        pub(super) fn new(len: usize, align: usize) -> Option<Self> {
            // The system aligns to its own pages; for a larger alignment there is room to move the start.
            let len = if align > super::ALIGN { len.checked_add(align)? } else { len };
            // SAFETY: a new mapping at an address of the system's choice touches no other memory.
            let mapping = unsafe {
                mmap_anonymous(null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
            };
            Some(Self { mapping: NonNull::new(mapping.ok()?.cast())?, len })
        }

        pub(super) fn start(&self, align: usize) -> NonNull<u8> {
            let skip = self.mapping.as_ptr().align_offset(align);
            // SAFETY: `new` made room for a skip below `align`.
            unsafe { self.mapping.add(skip) }
        }

        /// # Safety
        /// Called once, when nobody uses the memory.
        pub(super) unsafe fn free(&self) {
            // SAFETY: this is a mapping made by `new`, not in use as the caller promises.
            let unmapped = unsafe { munmap(self.mapping.as_ptr().cast(), self.len) };
            debug_assert!(unmapped.is_ok(), "unmapping a slab of {} bytes: {unmapped:?}", self.len);
        }
    }

    pub(super) fn prefer_huge_pages(start: NonNull<u8>, len: usize) {
        // A refusal leaves small pages, which work as well.
        // SAFETY: this advice does not change what the memory holds.
        let _ = unsafe { madvise(start.as_ptr().cast(), len, Advice::LinuxHugepage) };
    }

    /// # Safety
    /// The range lies inside of a mapping made by `Memory::new` and is not in use.
    pub(super) unsafe fn give_back(start: NonNull<u8>, len: usize) {
        // A refusal (pages of the system larger than a frame) leaves the memory with us.
        // SAFETY: private anonymous memory reads as zeros afterwards; nobody uses it, as the caller promises.
        let _ = unsafe { madvise(start.as_ptr().cast(), len, Advice::LinuxDontNeed) };
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
mod memory {
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::ptr::NonNull;

    /// Memory of the global allocator.
    pub(super) struct Memory {
        start: NonNull<u8>,
        layout: Layout,
    }

    impl Memory {
        pub(super) fn new(len: usize, align: usize) -> Option<Self> {
            let layout = Layout::from_size_align(len, align).ok()?;
            assert!(layout.size() > 0, "a slab of no bytes");
            // SAFETY: the layout is not empty.
            let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
            Some(Self { start, layout })
        }

        pub(super) fn start(&self, _align: usize) -> NonNull<u8> {
            self.start
        }

        /// # Safety
        /// Called once, when nobody uses the memory.
        pub(super) unsafe fn free(&self) {
            // SAFETY: allocated by `new` with this layout, not in use as the caller promises.
            unsafe { dealloc(self.start.as_ptr(), self.layout) };
        }
    }

    pub(super) fn prefer_huge_pages(_start: NonNull<u8>, _len: usize) {}

    /// # Safety
    /// As on Linux; here the memory stays as it is.
    pub(super) unsafe fn give_back(_start: NonNull<u8>, _len: usize) {}
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn slabs_are_zero_aligned_and_writable_to_the_end() {
        for (len, align) in [(4096, 4096), (12288, 4096), (HUGE_PAGE, 4096), (LEAST_HUGE, HUGE_PAGE)] {
            let slab = Slab::new(len).unwrap();
            assert_eq!(slab.start.as_ptr().align_offset(align), 0);
            for offset in [0, len - 1] {
                // SAFETY: inside the slab, and nobody else uses it.
                unsafe {
                    assert_eq!(slab.at(offset).read(), 0);
                    slab.at(offset).write(1);
                    slab.give_back(0, len);
                    slab.at(offset).write(2);
                }
            }
        }
    }
}
