//! In-order completion of work that is done out of order.
//!
//! Work is numbered 1, 2, 3, ... as it starts. Each piece is *completed* by its own thread at any time; the
//! *watermark* is the largest number up to which all is complete. The log uses one sequencer for "written",
//! the commit pipeline one for "visible".
//!
//! Invariants:
//! 1. The watermark never goes back and never passes a number that was not completed.
//! 2. When every number up to `n` has been completed, the watermark reaches `n` with no further call.
//! 3. At most [`Sequencer::CAPACITY`] numbers are open at once: `admit(n)` waits until `n` has a slot.
//!
//! Completing stores the number into its slot and then tries to advance; both sides of that race are ordered
//! by a sequentially consistent fence, so of two threads that complete neighbours at least one sees both
//! slots. The rejected alternative, a queue under a lock, makes every commit take one more contended lock.

use super::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use super::{Condvar, Mutex};

/// A sequencer was ended by a failure; what was waited for will not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended;

pub(crate) struct Sequencer {
    slots: Box<[AtomicU64]>,
    watermark: AtomicU64,
    ended: AtomicBool,
    waiters: AtomicUsize,
    lock: Mutex<()>,
    advanced: Condvar,
}

impl Sequencer {
    /// Numbers that can be open at once.
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) const CAPACITY: usize = 4096;
    #[cfg(any(loom, shuttle))]
    pub(crate) const CAPACITY: usize = 2;

    #[cfg(not(any(loom, shuttle)))]
    const SPINS: usize = 64;
    #[cfg(any(loom, shuttle))]
    const SPINS: usize = 0;
    /// Whom the scheduler keeps from completing a number gets its turn sooner when those who wait give way,
    /// and nobody has to be woken.
    #[cfg(not(any(loom, shuttle)))]
    const YIELDS: usize = 32;
    #[cfg(any(loom, shuttle))]
    const YIELDS: usize = 0;

    /// Everything up to `watermark` is complete.
    pub(crate) fn new(watermark: u64) -> Self {
        Self {
            slots: (0..Self::CAPACITY).map(|_| AtomicU64::new(0)).collect(),
            watermark: AtomicU64::new(watermark),
            ended: AtomicBool::new(false),
            waiters: AtomicUsize::new(0),
            lock: Mutex::new(()),
            advanced: Condvar::new(),
        }
    }

    /// The largest number up to which all is complete.
    #[inline]
    pub(crate) fn watermark(&self) -> u64 {
        self.watermark.load(Ordering::Acquire)
    }

    /// Waits until `number` may be opened.
    pub(crate) fn admit(&self, number: u64) -> Result<(), Ended> {
        self.wait_for(number.saturating_sub(Self::CAPACITY as u64))
    }

    /// Marks `number` complete and advances the watermark as far as it goes. `number` must have been
    /// admitted.
    pub(crate) fn complete(&self, number: u64) {
        let slot = |number: u64| &self.slots[(number % Self::CAPACITY as u64) as usize];
        slot(number).store(number, Ordering::Release);
        fence(Ordering::SeqCst);
        let mut advanced = false;
        let mut current = self.watermark.load(Ordering::Acquire);
        loop {
            if slot(current + 1).load(Ordering::Acquire) != current + 1 {
                // Another thread may have advanced past what we looked at: then the slot was used anew.
                let now = self.watermark.load(Ordering::Acquire);
                if now == current {
                    break;
                }
                current = now;
                continue;
            }
            match self.watermark.compare_exchange(current, current + 1, Ordering::SeqCst, Ordering::Acquire) {
                Ok(_) => {
                    advanced = true;
                    current += 1;
                    fence(Ordering::SeqCst);
                }
                Err(now) => current = now,
            }
        }
        if advanced {
            fence(Ordering::SeqCst);
            if self.waiters.load(Ordering::Relaxed) > 0 {
                drop(self.lock.lock());
                self.advanced.notify_all();
            }
        }
    }

    /// Marks `number` complete if all before it are, at the price of a load and a store; says whether it did.
    /// `number` must have been admitted, and the caller must keep later ones from being assigned meanwhile:
    /// so nobody waits for it yet, the watermark stands still, and whoever completes a later one comes after
    /// this.
    #[inline]
    pub(crate) fn complete_in_turn(&self, number: u64) -> bool {
        let in_turn = self.watermark.load(Ordering::Acquire) + 1 == number;
        if in_turn {
            self.watermark.store(number, Ordering::Release);
        }
        in_turn
    }

    /// Waits until everything up to `number` is complete.
    pub(crate) fn wait_for(&self, number: u64) -> Result<(), Ended> {
        for turn in 0..=Self::SPINS + Self::YIELDS {
            if self.watermark() >= number {
                return Ok(());
            }
            if turn < Self::SPINS {
                std::hint::spin_loop();
            } else {
                super::thread::yield_now();
            }
        }
        self.waiters.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let mut guard = self.lock.lock();
        let outcome = loop {
            if self.watermark() >= number {
                break Ok(());
            }
            if self.ended.load(Ordering::Acquire) {
                break Err(Ended);
            }
            guard = self.advanced.wait(guard);
        };
        drop(guard);
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        outcome
    }

    /// Threads that wait for a number.
    #[cfg(test)]
    pub(crate) fn waiters(&self) -> usize {
        self.waiters.load(Ordering::Relaxed)
    }

    /// Wakes every waiter with [`Ended`]: some number will never be completed.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        drop(self.lock.lock());
        self.advanced.notify_all();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn the_watermark_follows_out_of_order_completion() {
        let sequencer = Sequencer::new(10);
        sequencer.complete(12);
        assert_eq!(sequencer.watermark(), 10);
        sequencer.complete(11);
        assert_eq!(sequencer.watermark(), 12);
    }

    #[test]
    fn many_threads_complete_more_numbers_than_there_are_slots() {
        let sequencer = Sequencer::new(0);
        let next = AtomicU64::new(1);
        let total = 4 * Sequencer::CAPACITY as u64;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number > total {
                            break;
                        }
                        sequencer.admit(number).unwrap();
                        sequencer.complete(number);
                        sequencer.wait_for(number).unwrap();
                    }
                });
            }
        });
        assert_eq!(sequencer.watermark(), total);
    }

    #[test]
    fn a_number_is_completed_in_turn_only_after_all_before_it() {
        let sequencer = Sequencer::new(10);
        assert!(!sequencer.complete_in_turn(12));
        assert_eq!(sequencer.watermark(), 10);
        assert!(sequencer.complete_in_turn(11));
        assert_eq!(sequencer.watermark(), 11);
        sequencer.complete(13);
        sequencer.complete(12);
        assert!(sequencer.complete_in_turn(14));
        assert_eq!(sequencer.watermark(), 14);
    }

    #[test]
    fn ending_wakes_those_who_wait() {
        let sequencer = Sequencer::new(0);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| sequencer.wait_for(1));
            sequencer.end();
            assert_eq!(waiter.join().unwrap(), Err(Ended));
        });
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::thread;
    use std::sync::Arc;

    #[test]
    fn loom_completions_in_any_order_reach_the_last_number() {
        loom::model(|| {
            let sequencer = Arc::new(Sequencer::new(0));
            let other = Arc::clone(&sequencer);
            let thread = thread::spawn(move || other.complete(2));
            sequencer.complete(1);
            thread.join().unwrap();
            assert_eq!(sequencer.watermark(), 2);
        });
    }

    /// Three commits: one that takes its time after it got its number, and two that complete in turn if they
    /// can, while the lock under which numbers are assigned is held.
    #[test]
    fn loom_numbers_completed_in_turn_and_otherwise_all_count() {
        loom::model(|| {
            let sequencer = Arc::new(Sequencer::new(0));
            let next = Arc::new(Mutex::new(1));
            let commit = |in_turn: bool| {
                let (sequencer, next) = (Arc::clone(&sequencer), Arc::clone(&next));
                move || {
                    let mut last = next.lock();
                    let number = *last;
                    *last += 1;
                    if in_turn && sequencer.complete_in_turn(number) {
                        return;
                    }
                    drop(last);
                    sequencer.admit(number).unwrap();
                    sequencer.complete(number);
                    sequencer.wait_for(number).unwrap();
                }
            };
            let threads = [thread::spawn(commit(false)), thread::spawn(commit(true))];
            commit(true)();
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(sequencer.watermark(), 3);
        });
    }

    #[test]
    fn loom_a_waiter_is_woken() {
        loom::model(|| {
            let sequencer = Arc::new(Sequencer::new(0));
            let other = Arc::clone(&sequencer);
            let thread = thread::spawn(move || other.complete(1));
            sequencer.wait_for(1).unwrap();
            assert_eq!(sequencer.watermark(), 1);
            thread.join().unwrap();
        });
    }

    #[test]
    fn loom_a_slot_is_reused_only_after_its_number_is_complete() {
        loom::model(|| {
            let sequencer = Arc::new(Sequencer::new(0));
            let other = Arc::clone(&sequencer);
            let thread = thread::spawn(move || {
                other.complete(1);
                other.admit(3).unwrap();
                other.complete(3);
            });
            sequencer.complete(2);
            thread.join().unwrap();
            assert_eq!(sequencer.watermark(), 3);
        });
    }
}
