//! Bytes that open transactions take together: what they wrote and read, and indexes over it.
//!
//! Each [share](Share) knows exactly what one transaction takes, and tells the [total](Tally) in steps, so
//! that transactions of several threads seldom meet at one number.
//!
//! Invariants:
//! 1. The total is the sum of what the shares that are there have told.
//! 2. While nobody is changing a share it has told what it takes, rounded up to a step.
//! 3. A share takes what its parts do.

use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Bytes in which a share tells what it takes.
const STEP: u64 = 1 << 10;

/// What all transactions take.
#[derive(Default)]
pub(crate) struct Tally(Arc<AtomicU64>);

impl Tally {
    pub(crate) fn bytes(&self) -> u64 {
        // Who tells less may be ahead of who told more.
        self.0.load(Ordering::Relaxed).cast_signed().max(0).cast_unsigned()
    }

    /// The share of a new transaction, which takes nothing yet.
    pub(crate) fn share(&self) -> Arc<Share> {
        Arc::new(Share { total: Arc::clone(&self.0), exact: AtomicU64::new(0), told: AtomicU64::new(0) })
    }
}

/// What one transaction takes, with its cursors.
pub(crate) struct Share {
    total: Arc<AtomicU64>,
    exact: AtomicU64,
    told: AtomicU64,
}

impl Share {
    /// A part, which takes nothing yet.
    pub(crate) fn part(self: &Arc<Self>) -> Part {
        Part { share: Arc::clone(self), bytes: 0 }
    }

    fn change(&self, before: usize, after: usize) {
        if before == after {
            return;
        }
        let change = (after as u64).wrapping_sub(before as u64);
        let mut exact = self.exact.fetch_add(change, Ordering::SeqCst).wrapping_add(change);
        loop {
            let bytes = exact.next_multiple_of(STEP);
            self.tell(bytes);
            // Who changed it meanwhile may have told less recent news later, or takes these for it.
            exact = self.exact.load(Ordering::SeqCst);
            if exact.next_multiple_of(STEP) == bytes {
                break;
            }
        }
    }

    fn tell(&self, bytes: u64) {
        if self.told.load(Ordering::SeqCst) != bytes {
            let before = self.told.swap(bytes, Ordering::SeqCst);
            self.total.fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.tell(0);
    }
}

/// One of the things of a transaction that take memory.
pub(crate) struct Part {
    share: Arc<Share>,
    bytes: usize,
}

impl Part {
    /// From now on it takes so many `bytes`.
    #[inline]
    pub(crate) fn set(&mut self, bytes: usize) {
        if self.bytes != bytes {
            self.share.change(self.bytes, bytes);
            self.bytes = bytes;
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_what_is_there_rounded_up_for_each_transaction() {
        let tally = Tally::default();
        let (ann, bob) = (tally.share(), tally.share());
        let mut parts = [ann.part(), ann.part(), bob.part()];
        drop((ann, bob));
        assert_eq!(tally.bytes(), 0);
        parts[0].set(1);
        assert_eq!(tally.bytes(), STEP);
        parts[1].set(1500);
        parts[2].set(1024);
        assert_eq!(tally.bytes(), 3 * STEP);
        parts[1].set(20);
        assert_eq!(tally.bytes(), 2 * STEP);
        let [first, second, third] = parts;
        drop(first);
        drop(third);
        assert_eq!(tally.bytes(), STEP);
        drop(second);
        assert_eq!(tally.bytes(), 0);
    }

    #[test]
    fn parts_that_change_beside_each_other_leave_nothing_behind() {
        let tally = Tally::default();
        std::thread::scope(|scope| {
            let share = tally.share();
            for thread in 0..4 {
                let mut part = share.part();
                scope.spawn(move || (0..10_000).for_each(|n| part.set((n * 37 + thread * 1000) % 5000)));
            }
        });
        assert_eq!(tally.bytes(), 0);
    }
}
