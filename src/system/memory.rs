//! Memory of the system's own: zero at first, real only where it was touched, given back piece by piece.

use std::ops::Range;
use std::ptr::NonNull;

use super::pages::whole_pages;

/// Asked before memory is mapped, if a test says so: whether so many bytes are refused.
#[cfg(debug_assertions)]
static REFUSES: std::sync::OnceLock<fn(usize) -> bool> = std::sync::OnceLock::new();

/// From now on memory is refused as if the system had none, whenever `refuses`, which is told how many bytes
/// it is about, says so. Once in a process, and in builds with debug assertions alone: for tests of what
/// happens then.
#[cfg(debug_assertions)]
#[doc(hidden)]
pub fn refuse_memory(refuses: fn(usize) -> bool) {
    assert!(REFUSES.set(refuses).is_ok(), "it was said before what is refused");
}

/// A private mapping, given back when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is plain memory of its own, in which nothing belongs to the thread that made it; who may
// touch which part of it is for its owner to settle.
unsafe impl Send for Mapping {}
// SAFETY: as above; the mapping itself never changes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// At least `len` bytes of zeros that begin at a multiple of `align`, a power of two. `None` if the
    /// system has none.
    pub(crate) fn new(len: usize, align: usize) -> Option<Self> {
        assert!(len > 0, "a mapping of no bytes");
        #[cfg(debug_assertions)]
        if REFUSES.get().is_some_and(|refuses| refuses(len)) {
            return None;
        }
        system::map(len, align).map(|(start, len)| Self { start, len })
    }

    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Says whether the memory is better backed by huge pages. The system may make nothing of it.
    pub(crate) fn prefer_huge_pages(&self, yes: bool) {
        system::prefer_huge_pages(self, yes);
    }

    /// Has the system back all of it with memory now, if it can. Changes nothing of what it holds.
    pub(crate) fn populate(&self) {
        system::populate(self);
    }

    /// Gives the real memory of `range` back to the system, but for pages of the system of which others use a
    /// part. What went holds zeros, or what it held.
    ///
    /// # Safety
    /// Nobody uses the range, which lies in the mapping.
    pub(crate) unsafe fn give_back(&self, range: Range<usize>) {
        assert!(range.end <= self.len, "{range:?} lies outside of a mapping of {} bytes", self.len);
        let pages = whole_pages(range);
        if !pages.is_empty() {
            // SAFETY: nobody uses these bytes, as the caller promises.
            unsafe { system::give_back(self, pages) };
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this value is the only owner of the memory, and is gone.
        unsafe { system::unmap(self) };
    }
}

/// Whether the system gives memory that is real only where it was touched.
pub(crate) const IS_LAZY: bool = cfg!(all(target_os = "linux", not(miri), not(loom)));

#[cfg(all(target_os = "linux", not(miri), not(loom)))]
mod system {
    use std::ops::Range;
    use std::ptr::{NonNull, null_mut};

    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

    use super::Mapping;
    use crate::system::pages::{self, page_size};

    pub(super) fn map(len: usize, align: usize) -> Option<(NonNull<u8>, usize)> {
        let len = len.checked_next_multiple_of(page_size())?;
        // A mapping begins at a page's boundary anyhow, and is made longer to find a larger one in it.
        let align = align.max(page_size());
        let spare = if align > pages::machine() { align } else { 0 };
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private mapping at an address of the system's choice touches no memory that is in
        // use.
        let whole =
            unsafe { mmap_anonymous(null_mut(), len.checked_add(spare)?, protection, MapFlags::PRIVATE) };
        let whole = whole.ok()?.cast::<u8>();
        let before = if spare > 0 { whole.align_offset(align) } else { 0 };
        let after = spare - before;
        // SAFETY: all pieces lie inside of the mapping made above, which nobody else knows. What is unmapped
        // is not used again.
        let start = unsafe {
            let start = whole.add(before);
            if before > 0 {
                let _ = munmap(whole.cast(), before);
            }
            if after > 0 {
                let _ = munmap(start.add(len).cast(), after);
            }
            start
        };
        Some((NonNull::new(start)?, len))
    }

    pub(super) fn prefer_huge_pages(mapping: &Mapping, yes: bool) {
        // A refusal leaves what is usual, which works as well.
        advise(mapping, if yes { Advice::LinuxHugepage } else { Advice::LinuxNoHugepage });
    }

    pub(super) fn populate(mapping: &Mapping) {
        // Older kernels do not know it: then memory comes page by page.
        advise(mapping, Advice::LinuxPopulateWrite);
    }

    fn advise(mapping: &Mapping, advice: Advice) {
        // SAFETY: the mapping is the caller's, and these kinds of advice change nothing of what it holds.
        let _ = unsafe { madvise(mapping.start.as_ptr().cast(), mapping.len, advice) };
    }

    /// # Safety
    /// Nobody uses the range, which lies in the mapping.
    pub(super) unsafe fn give_back(mapping: &Mapping, range: Range<usize>) {
        #[cfg(any(test, debug_assertions))]
        let Some(range) = as_with_larger_pages(mapping, range) else { return };
        // SAFETY: private anonymous memory reads as zeros afterwards; nobody uses it, as the caller promises.
        let _ = unsafe {
            madvise(mapping.start.as_ptr().add(range.start).cast(), range.len(), Advice::LinuxDontNeed)
        };
    }

    /// What a system whose pages are as large as [`page_size`] says makes of a range: it refuses one that
    /// does not begin with a page, and takes the rest of the last page, too.
    #[cfg(any(test, debug_assertions))]
    fn as_with_larger_pages(mapping: &Mapping, range: Range<usize>) -> Option<Range<usize>> {
        let page = page_size();
        let is_refused = !(mapping.start.addr().get() + range.start).is_multiple_of(page);
        (!is_refused).then(|| range.start..range.end.next_multiple_of(page).min(mapping.len))
    }

    /// # Safety
    /// Called once, when nobody uses the memory.
    pub(super) unsafe fn unmap(mapping: &Mapping) {
        // SAFETY: this is a mapping made by `map`, not in use as the caller promises.
        let unmapped = unsafe { munmap(mapping.start.as_ptr().cast(), mapping.len) };
        debug_assert!(unmapped.is_ok(), "unmapping {} bytes: {unmapped:?}", mapping.len);
    }
}

/// Memory of the global allocator, which stays as it is until all of it goes.
#[cfg(not(all(target_os = "linux", not(miri), not(loom))))]
mod system {
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::ops::Range;
    use std::ptr::NonNull;

    use super::Mapping;

    const ALIGN: usize = 4096;

    fn layout(len: usize, align: usize) -> Option<Layout> {
        Layout::from_size_align(len, align).ok()
    }

    pub(super) fn map(len: usize, _align: usize) -> Option<(NonNull<u8>, usize)> {
        let layout = layout(len, ALIGN)?;
        // SAFETY: the layout is not empty, as the caller asserted.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some((start, len))
    }

    pub(super) fn prefer_huge_pages(_mapping: &Mapping, _yes: bool) {}

    pub(super) fn populate(_mapping: &Mapping) {}

    /// # Safety
    /// As on Linux; here the memory stays as it is.
    pub(super) unsafe fn give_back(_mapping: &Mapping, _range: Range<usize>) {}

    /// # Safety
    /// Called once, when nobody uses the memory.
    pub(super) unsafe fn unmap(mapping: &Mapping) {
        let layout = layout(mapping.len, ALIGN).expect("it was allocated with this layout");
        // SAFETY: allocated by `map` with this layout, not in use as the caller promises.
        unsafe { dealloc(mapping.start.as_ptr(), layout) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_lies_around_a_range_that_goes_back_stays_whatever_the_page_size() {
        const LEN: usize = 1 << 20;
        let lens = if cfg!(miri) { vec![4096] } else { (0..40).map(|n| n * 5000 + 1).collect() };
        for (start, len) in lens.iter().enumerate().map(|(n, len)| (n * 4096, *len)) {
            let mapping = Mapping::new(LEN, 4096).unwrap();
            let end = (start + len).min(LEN);
            // SAFETY: the mapping is this test's, and long enough.
            unsafe {
                mapping.start().write_bytes(7, LEN);
                mapping.give_back(start..end);
                let bytes = std::slice::from_raw_parts(mapping.start().as_ptr(), LEN);
                assert!(bytes[..start].iter().chain(&bytes[end..]).all(|&byte| byte == 7), "{start}..{end}");
                mapping.start().write_bytes(8, LEN);
            }
        }
    }

    #[test]
    #[cfg(not(miri))]
    fn mappings_are_aligned_whatever_the_page_size() {
        for (len, align) in [(1, 1), (70_000, 64), (2 << 20, 2 << 20), (5 << 20, 2 << 20)] {
            let mapping = Mapping::new(len, align).unwrap();
            assert!(mapping.len() >= len);
            if IS_LAZY {
                assert_eq!(mapping.start().addr().get() % align.max(crate::system::page_size()), 0);
            }
        }
    }
}
