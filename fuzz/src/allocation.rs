//! An allocator that refuses memory beyond a limit.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes allocated and not given back.
static IN_USE: AtomicUsize = AtomicUsize::new(0);
/// The process ends when more are in use.
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The system's allocator, with a limit while a [`Limit`] is held. To be made the target's
/// `#[global_allocator]`.
#[derive(Debug)]
pub struct Limited;

/// Holds the process to a limit until it is dropped.
#[derive(Debug)]
pub struct Limit(());

impl Limit {
    /// From now on `bytes` may be in use beside what is now. Who takes more ends the process with a message
    /// and its trace.
    pub fn new(bytes: usize) -> Self {
        LIMIT.store(IN_USE.load(Ordering::Relaxed).saturating_add(bytes), Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        LIMIT.store(usize::MAX, Ordering::Relaxed);
    }
}

fn take(bytes: usize) {
    let in_use = IN_USE.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
    let limit = LIMIT.load(Ordering::Relaxed);
    // What a failure's message takes is not meant.
    if in_use > limit && !std::thread::panicking() {
        LIMIT.store(usize::MAX, Ordering::Relaxed);
        eprintln!(
            "an allocation of {bytes} bytes brings what is in use to {in_use}, beyond the limit of {limit}"
        );
        std::process::abort();
    }
}

// SAFETY: passes everything on to the system's allocator, and neither unwinds nor allocates beside it except
// before it ends the process.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        take(new_size);
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}
