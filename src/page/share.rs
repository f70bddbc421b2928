//! What the read caches of all families may hold together, and which part of it each one has.
//!
//! A cache begins with nothing and takes more whenever it is full, while anything is left of the total; and
//! it keeps that. So what fits into memory stays there, however seldom it is read and whatever other families
//! do. Only when nothing is left is a cache refused: then it is *hungry*, and calls whoever keeps the clock,
//! who alone takes from others what it needs (`db/budget.rs` says from whom).
//!
//! Invariants:
//! 1. What is given is the sum of all shares, and at most the total.
//! 2. Who takes from a share has its cache evict what is beyond the rest before the total gets it back. So
//!    the caches together hold no more than the total, but for frames that wait for their readers.

use std::sync::Arc;

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::bell::Bell;

/// Bytes that read caches may hold together.
pub(crate) struct CacheTotal {
    limit: AtomicU64,
    given: AtomicU64,
    /// Whether any share is hungry.
    hungry: AtomicBool,
    /// Of the thread that sees to hungry shares.
    bell: Arc<Bell>,
}

impl CacheTotal {
    /// `limit` bytes; `bell` is rung when that is too little for somebody.
    pub(crate) fn new(limit: u64, bell: Arc<Bell>) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicU64::new(limit),
            given: AtomicU64::new(0),
            hungry: AtomicBool::new(false),
            bell,
        })
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Bytes that nobody has.
    pub(crate) fn left(&self) -> u64 {
        self.limit().saturating_sub(self.given.load(Ordering::Relaxed))
    }

    /// Whether any share became hungry since [`take_hunger`](Self::take_hunger) asked.
    pub(crate) fn is_hungry(&self) -> bool {
        self.hungry.load(Ordering::Relaxed)
    }

    /// Whether any share became hungry since this was last asked.
    pub(crate) fn take_hunger(&self) -> bool {
        self.hungry.load(Ordering::Relaxed) && self.hungry.swap(false, Ordering::AcqRel)
    }

    /// Gives up to `bytes`, as many as are left.
    fn take(&self, bytes: u64) -> u64 {
        let mut given = self.given.load(Ordering::Relaxed);
        loop {
            let got = bytes.min(self.limit().saturating_sub(given));
            if got == 0 {
                return 0;
            }
            match self.given.compare_exchange_weak(given, given + got, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return got,
                Err(now) => given = now,
            }
        }
    }

    fn give_back(&self, bytes: u64) {
        let before = self.given.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "{bytes} bytes of cache come back, but only {before} were given");
    }
}

/// What one cache has of a [`CacheTotal`]. Gives it back when it is dropped.
pub(crate) struct Share {
    total: Arc<CacheTotal>,
    bytes: AtomicU64,
    /// Whether it was refused more, and misses that there were by then.
    hungry: AtomicBool,
    missed: AtomicU64,
    /// Decaying average of misses while it was hungry.
    pressure: AtomicU64,
}

/// Bytes that a share grows by at least (as long as they are left), and at most, unless more is wanted at
/// once.
const LEAST_STEP: u64 = 64 << 10;
const MOST_STEP: u64 = 16 << 20;

impl Share {
    pub(crate) fn of(total: &Arc<CacheTotal>) -> Self {
        Self {
            total: Arc::clone(total),
            bytes: AtomicU64::new(0),
            hungry: AtomicBool::new(false),
            missed: AtomicU64::new(0),
            pressure: AtomicU64::new(0),
        }
    }

    /// All of a total of its own.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn alone(bytes: u64) -> Self {
        let share = Self::of(&CacheTotal::new(bytes, Arc::default()));
        share.take(bytes);
        share
    }

    /// Makes the total that this share is alone in `bytes`.
    #[cfg(test)]
    pub(super) fn set_total(&self, bytes: u64) {
        self.total.limit.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes `wanted` bytes more, or a step if that is longer; less if less is left. Says whether it got any.
    pub(super) fn grow(&self, wanted: u64) -> bool {
        self.total.left() > 0 && self.take((self.bytes() / 4).clamp(LEAST_STEP, MOST_STEP).max(wanted)) > 0
    }

    /// Takes up to `bytes` more, as many as are left; says how many.
    pub(super) fn take(&self, bytes: u64) -> u64 {
        let got = self.total.take(bytes);
        self.bytes.fetch_add(got, Ordering::Relaxed);
        got
    }

    /// Makes the share smaller by up to `bytes`. The caller evicts what is beyond the rest, then gives the
    /// result to [`give_back`](Self::give_back).
    pub(super) fn shrink(&self, bytes: u64) -> u64 {
        let less = |now: u64| Some(now - bytes.min(now));
        let before = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        before.map_or(0, |before| bytes.min(before))
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.total.give_back(bytes);
    }

    /// More was asked for, and nothing is left. `misses` counts those of the cache so far.
    pub(super) fn refused(&self, misses: impl FnOnce() -> u64) {
        if !self.hungry.load(Ordering::Relaxed) && !self.hungry.swap(true, Ordering::AcqRel) {
            self.missed.store(misses(), Ordering::Relaxed);
            self.total.hungry.store(true, Ordering::Release);
            self.total.bell.ring();
        }
    }

    /// Misses since it became hungry; `None` if it did not. It is not hungry then until it is refused again.
    pub(super) fn take_hunger(&self, misses: u64) -> Option<u64> {
        let hungry = self.hungry.swap(false, Ordering::AcqRel);
        let missed =
            if hungry { misses.saturating_sub(self.missed.load(Ordering::Relaxed)).max(1) } else { 0 };
        let pressure = self.pressure.load(Ordering::Relaxed) / 2 + missed;
        self.pressure.store(pressure, Ordering::Relaxed);
        hungry.then_some(missed)
    }

    pub(super) fn pressure(&self) -> u64 {
        self.pressure.load(Ordering::Relaxed)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(self.bytes());
    }
}

/// How much memory a family's pages may take.
///
/// The sum of both is kept, whatever readers hold, and reads keep to the read budget. Beyond it go only: the
/// page or run that makes the write buffer write itself out, written pages whose evicted predecessors wait
/// for their readers, for as long as those read, and pages that readers hold and that did not enter the
/// cache, of which each thread keeps the memory of one.
pub(crate) struct CacheBudgets {
    /// What clean pages and runs may take.
    pub(crate) read: Share,
    /// Bytes of dirty pages and runs.
    pub(crate) write_bytes: u64,
}

impl CacheBudgets {
    /// Budgets that do not change by themselves.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn fixed(read_bytes: u64, write_bytes: u64) -> Self {
        Self { read: Share::alone(read_bytes), write_bytes }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::sync::thread;

    #[test]
    fn shares_grow_until_nothing_is_left_and_never_hold_more_than_the_total() {
        let total = CacheTotal::new(10 << 20, Arc::default());
        let shares: Vec<Share> = (0..4).map(|_| Share::of(&total)).collect();
        thread::scope(|scope| {
            for share in &shares {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        share.grow(1000);
                        let less = share.shrink(10_000);
                        share.give_back(less);
                    }
                    while share.grow(1000) {}
                });
            }
        });
        assert_eq!(shares.iter().map(Share::bytes).sum::<u64>() + total.left(), 10 << 20);
        assert_eq!(total.left(), 0);
        drop(shares);
        assert_eq!(total.left(), 10 << 20);
    }

    #[test]
    fn a_refused_share_calls_once_and_counts_its_misses_from_then_on() {
        let bell = Arc::new(Bell::default());
        let total = CacheTotal::new(100, Arc::clone(&bell));
        let (full, hungry) = (Share::of(&total), Share::of(&total));
        assert!(full.grow(0) && !hungry.grow(1));
        assert!(!total.take_hunger());
        hungry.refused(|| 7);
        hungry.refused(|| 9);
        // Rung: it returns at once.
        bell.sleep(None);
        assert!(total.take_hunger() && !total.take_hunger());
        assert_eq!((hungry.take_hunger(17), full.take_hunger(3)), (Some(10), None));
        assert_eq!((hungry.pressure(), full.pressure()), (10, 0));
        assert_eq!((hungry.take_hunger(18), hungry.pressure()), (None, 5));
    }
}
