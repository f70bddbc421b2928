//! How often somebody waited for one thing, and for how long in all.

use std::time::Duration;

use super::atomic::{AtomicU64, Ordering};

pub(crate) struct Waits {
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Default for Waits {
    fn default() -> Self {
        Self { count: AtomicU64::new(0), nanoseconds: AtomicU64::new(0) }
    }
}

impl Waits {
    /// Somebody waited once more, and that `took` so long.
    pub(crate) fn note(&self, took: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    /// How often, and for how long in all.
    pub(crate) fn totals(&self) -> (u64, Duration) {
        let nanoseconds = self.nanoseconds.load(Ordering::Relaxed);
        (self.count.load(Ordering::Relaxed), Duration::from_nanos(nanoseconds))
    }
}
