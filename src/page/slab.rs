//! Memory for many frames at once.
//!
//! A slab is zero when it is made and takes real memory only where it is touched, so that a large one costs
//! an idle family nothing. Large slabs ask for huge pages: address translation is much of the cost of a
//! random read.

use std::ptr::NonNull;

use crate::system::Mapping;

const HUGE_PAGE: usize = 2 << 20;
/// A slab of this size or more is aligned to huge pages and asks for them. A huge page takes all of its
/// memory when one frame in it is used, so what a family has of them beyond its frames must be little beside
/// the slab, and beside all slabs before, which come to as much.
const LEAST_HUGE: usize = 8 * HUGE_PAGE;

/// Other slabs are aligned to this at least, or to a page of the system.
const ALIGN: usize = 4096;

/// Zeroed memory, given back when dropped.
pub(super) struct Slab {
    memory: Mapping,
    len: usize,
}

impl Slab {
    /// `None` if the system has no memory for it.
    pub(super) fn new(len: usize) -> Option<Self> {
        let memory = Mapping::new(len, if len >= LEAST_HUGE { HUGE_PAGE } else { ALIGN })?;
        if len >= LEAST_HUGE {
            memory.prefer_huge_pages(true);
        }
        Some(Self { memory, len })
    }

    /// The address `offset` bytes into the slab.
    ///
    /// # Safety
    /// `offset` is inside the slab.
    #[inline]
    pub(super) unsafe fn at(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset < self.len, "offset {offset} lies outside of a slab of {} bytes", self.len);
        // SAFETY: inside one allocation, as the caller promises.
        unsafe { self.memory.start().add(offset) }
    }

    /// Gives the range's real memory back to the system, but for pages of the system of which others use a
    /// part; the range then holds zeros or what it held.
    ///
    /// # Safety
    /// Nobody uses the range.
    pub(super) unsafe fn give_back(&self, offset: usize, len: usize) {
        // SAFETY: the range is not in use, as the caller promises.
        unsafe { self.memory.give_back(offset..offset + len) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn slabs_are_zero_aligned_and_writable_to_the_end_whatever_the_page_size() {
        for (len, align) in [(4096, 4096), (12288, 4096), (HUGE_PAGE, 4096), (LEAST_HUGE, HUGE_PAGE)] {
            let slab = Slab::new(len).unwrap();
            if align == ALIGN || crate::system::IS_LAZY {
                assert_eq!(slab.memory.start().as_ptr().align_offset(align), 0);
            }
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
