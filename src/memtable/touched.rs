//! How many places lookups look at, for tests that cost does not grow with what does not matter: versions of
//! a key, and nodes of range deletions. Counted for each thread, and in tests alone.

#[cfg(all(test, not(loom)))]
thread_local! {
    static TOUCHED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// One more place was looked at.
#[inline]
pub(super) fn count() {
    #[cfg(all(test, not(loom)))]
    let _ = TOUCHED.try_with(|touched| touched.set(touched.get() + 1));
}

/// Places that this thread looked at since it asked last.
#[cfg(all(test, not(loom)))]
pub(crate) fn take() -> u64 {
    TOUCHED.take()
}
