//! Asking for memory ahead of its use. Never faults, whatever the address, and has no effect but on the
//! caches; where the processor is not known, none at all.

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// Asks for the cache line at `address`.
#[inline(always)]
pub(crate) fn line<T>(address: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch has no effect but on the caches.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// Asks for the cache line at `address`, to be written to.
#[inline(always)]
pub(crate) fn line_for_writing<T>(address: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch has no effect but on the caches.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_ET0>(address.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// Asks for the first `len` bytes of `bytes`, or as many as there are, all at once: otherwise each load waits
/// for what the one before it found.
#[inline(always)]
pub(crate) fn front(bytes: &[u8], len: usize) {
    for at in (0..len.min(bytes.len())).step_by(LINE) {
        line(&raw const bytes[at]);
    }
}
