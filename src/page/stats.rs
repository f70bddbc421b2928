//! What a family's page cache counts.

use crossbeam_utils::CachePadded;

use crate::sync::atomic::{AtomicU64, Ordering};

/// What a page cache did since it was made, and what it holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Look-ups of pages and runs that were found in memory. May fall short by a few when more threads read at once
    /// than there are counters.
    pub hits: u64,
    /// Look-ups that had to read the file.
    pub misses: u64,
    /// Pages and runs that were taken out to make room.
    pub evictions: u64,
    /// Bytes that the read cache holds: clean pages, runs, and frames that wait for their last reader. The latter may for a
    /// moment use what the write buffer leaves of its budget.
    pub resident_bytes: u64,
    /// Bytes that the read cache may hold.
    pub budget_bytes: u64,
    /// Bytes in the write buffer.
    pub dirty_bytes: u64,
    /// Bytes in the write buffer beyond which it writes itself out.
    pub dirty_budget_bytes: u64,
    /// Bytes that the tables take in which pages are looked up. What grows with the pages in memory counts as part of the read cache;
    /// the rest is an eighth to a quarter of a byte for each page of the family's part of the file.
    pub table_bytes: u64,
    /// Bytes read from the data file.
    pub bytes_read: u64,
    /// Bytes of pages written to the data file.
    pub bytes_written: u64,
}

const STRIPES: usize = 16;

impl std::ops::AddAssign for CacheStats {
    fn add_assign(&mut self, other: Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.evictions += other.evictions;
        self.resident_bytes += other.resident_bytes;
        self.budget_bytes += other.budget_bytes;
        self.dirty_bytes += other.dirty_bytes;
        self.dirty_budget_bytes += other.dirty_budget_bytes;
        self.table_bytes += other.table_bytes;
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
    }
}

/// A counter for the path of a read, spread so that readers do not write to each other's cache lines.
pub(super) struct StripedCounter([CachePadded<AtomicU64>; STRIPES]);

impl StripedCounter {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| CachePadded::new(AtomicU64::new(0))))
    }

    /// Adds one by a load and a store: threads that share a stripe may lose a count, and no cache hit pays for an atomic addition.
    #[inline]
    pub(super) fn add_one(&self) {
        let stripe = &self.0[my_stripe()];
        stripe.store(stripe.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Adds `by`, and loses nothing. Not to be mixed with [`add_one`](Self::add_one).
    pub(super) fn add(&self, by: usize) {
        self.0[my_stripe()].fetch_add(by as u64, Ordering::Relaxed);
    }

    pub(super) fn sum(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.load(Ordering::Relaxed)).sum()
    }
}

#[inline]
fn my_stripe() -> usize {
    const UNKNOWN: usize = usize::MAX;
    thread_local! {
        static STRIPE: std::cell::Cell<usize> = const { std::cell::Cell::new(UNKNOWN) };
    }
    #[cold]
    fn deal() -> usize {
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }
    let dealt = STRIPE.try_with(|stripe| {
        if stripe.get() == UNKNOWN {
            stripe.set(deal() % STRIPES);
        }
        // The remainder proves to the compiler that the index is in range.
        stripe.get() % STRIPES
    });
    // A thread that ends may have given its own up.
    dealt.unwrap_or(0)
}

/// The counters of the paths that make room and write.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) evictions: AtomicU64,
    pub(super) bytes_written: AtomicU64,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self { evictions: AtomicU64::new(0), bytes_written: AtomicU64::new(0) }
    }
}

/// Adds to a counter that orders nothing.
pub(super) fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}
