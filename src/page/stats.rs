//! What a family's page cache counts.

use std::sync::OnceLock;

use crossbeam_utils::CachePadded;

use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What a page cache did since it was made, and what it holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Look-ups of pages and runs that were found in memory. May fall short by a few when more threads read
    /// at once than there are counters.
    pub hits: u64,
    /// Look-ups that had to read the file.
    pub misses: u64,
    /// Pages and runs that were taken out to make room.
    pub evictions: u64,
    /// Bytes that the read cache holds: clean pages, runs, and frames that wait for their last reader. The
    /// latter may for a moment use what the write buffer leaves of its budget.
    pub resident_bytes: u64,
    /// Bytes that the read cache may hold.
    pub budget_bytes: u64,
    /// Bytes in the write buffer.
    pub dirty_bytes: u64,
    /// Bytes in the write buffer beyond which it writes itself out.
    pub dirty_budget_bytes: u64,
    /// Bytes that the tables take in which pages are looked up. What grows with the pages in memory counts as
    /// part of the read cache; the rest is an eighth to a quarter of a byte for each page of the family's
    /// part of the file.
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

/// What threads that share a stripe count on the path of a read.
#[derive(Default)]
struct Stripe {
    hits: AtomicU64,
    misses: AtomicU64,
    bytes_read: AtomicU64,
}

/// The counters of the path of a read, spread so that readers do not write to each other's cache lines: each
/// stripe has one of its own.
///
/// There is one for all at first: thousands of families are read by few threads each, and seldom.
pub(super) struct ReadCounters {
    stripes: OnceLock<Box<[CachePadded<Stripe>; STRIPES]>>,
    first: CachePadded<First>,
}

/// The one stripe that there is as long as threads do not meet there often.
struct First {
    stripe: Stripe,
    /// Stripe of the thread that counted last, and how often it was another one than before.
    user: AtomicUsize,
    met: AtomicUsize,
}

/// How often threads meet until each gets a stripe of its own: those who read at the same time do within a
/// millisecond.
const OFTEN: usize = 1024;

impl ReadCounters {
    pub(super) fn new() -> Self {
        let first =
            First { stripe: Stripe::default(), user: AtomicUsize::new(UNKNOWN), met: AtomicUsize::new(0) };
        Self { stripes: OnceLock::new(), first: CachePadded::new(first) }
    }

    #[inline]
    fn mine(&self) -> &Stripe {
        let me = my_stripe();
        if let Some(stripes) = self.stripes.get() {
            return &stripes[me];
        }
        if self.first.user.load(Ordering::Relaxed) != me {
            self.meet(me);
        }
        &self.first.stripe
    }

    #[cold]
    fn meet(&self, me: usize) {
        self.first.user.store(me, Ordering::Relaxed);
        if self.first.met.fetch_add(1, Ordering::Relaxed) >= OFTEN {
            self.stripes.get_or_init(|| Box::new(std::array::from_fn(|_| CachePadded::default())));
        }
    }

    /// Bytes of memory beside its own.
    pub(super) fn memory(&self) -> usize {
        self.stripes.get().map_or(0, |stripes| size_of_val(&**stripes))
    }

    /// Counts a hit by a load and a store: threads that share a stripe may lose a count, and no cache hit
    /// pays for an atomic addition.
    #[inline]
    pub(super) fn count_hit(&self) {
        let hits = &self.mine().hits;
        hits.store(hits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(super) fn count_miss(&self) {
        self.mine().misses.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_bytes_read(&self, bytes: usize) {
        self.mine().bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn hits(&self) -> u64 {
        self.sum(|stripe| &stripe.hits)
    }

    pub(super) fn misses(&self) -> u64 {
        self.sum(|stripe| &stripe.misses)
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.sum(|stripe| &stripe.bytes_read)
    }

    fn sum(&self, of: impl Fn(&Stripe) -> &AtomicU64) -> u64 {
        let others = self.stripes.get().into_iter().flat_map(|stripes| stripes.iter());
        let others = others.map(|stripe| of(stripe).load(Ordering::Relaxed));
        others.sum::<u64>() + of(&self.first.stripe).load(Ordering::Relaxed)
    }
}

/// No thread's stripe.
const UNKNOWN: usize = usize::MAX;

#[inline]
fn my_stripe() -> usize {
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

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn readers_get_lines_of_their_own_once_they_meet_often_and_no_count_is_lost_meanwhile() {
        let counters = ReadCounters::new();
        (0..10_000).for_each(|_| counters.count_hit());
        assert_eq!((counters.hits(), counters.memory()), (10_000, 0), "nobody else reads");
        let turns = Barrier::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while counters.memory() == 0 {
                        turns.wait();
                        counters.count_miss();
                        turns.wait();
                    }
                });
            }
        });
        let misses = counters.misses();
        assert!((OFTEN as u64..3 * OFTEN as u64).contains(&misses) && misses.is_multiple_of(2), "{misses}");
        counters.count_hit();
        counters.add_bytes_read(7);
        assert_eq!((counters.hits(), counters.bytes_read()), (10_001, 7));
    }
}
