//! Calls a thread that sleeps.

use std::time::Duration;

use super::Arc;
use super::atomic::{AtomicBool, AtomicU64, Ordering};
use super::lock::{Condvar, Mutex};

/// Wakes a thread that otherwise sleeps until its next tick, or for ever. Rung while the thread is awake, it
/// is heard when the thread next lies down, so a call is never lost.
#[derive(Default)]
pub(crate) struct Bell {
    /// Whether the thread was called and has not come yet.
    rung: AtomicBool,
    asleep: Mutex<()>,
    ringing: Condvar,
    wakes: AtomicU64,
}

impl Bell {
    /// Ends the [`sleep`](Self::sleep) of the bell's thread early. May be called again and again.
    #[inline]
    pub(crate) fn ring(&self) {
        // Not a load first: one that ran ahead of what the thread is called for could find an earlier call,
        // which is just being answered.
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Whoever looks whether it was rung has lain down by then, or finds that it was.
            drop(self.asleep.lock());
            self.ringing.notify_all();
        }
    }

    /// Waits until the bell rings, but no longer than for `tick`, if there is one.
    pub(crate) fn sleep(&self, tick: Option<Duration>) {
        let asleep = self.asleep.lock();
        if !self.rung.load(Ordering::Acquire) {
            drop(match tick {
                Some(tick) => self.ringing.wait_for(asleep, tick),
                None => self.ringing.wait(asleep),
            });
            self.wakes.fetch_add(1, Ordering::Relaxed);
        }
        // Acquire: what the thread was called for happened before it looks.
        self.rung.swap(false, Ordering::AcqRel);
    }

    /// How often a sleep ended.
    #[cfg(test)]
    pub(crate) fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }
}

/// One of several that call the same thread, which finds out who did.
pub(crate) struct Call {
    called: AtomicBool,
    bell: Arc<Bell>,
}

impl Call {
    pub(crate) fn of(bell: &Arc<Bell>) -> Self {
        Self { called: AtomicBool::new(false), bell: Arc::clone(bell) }
    }

    /// Calls the thread. May be called again and again.
    #[inline]
    pub(crate) fn ring(&self) {
        // In this order: who is awake and does not see the call yet finds the bell rung when he lies down.
        if !self.called.swap(true, Ordering::AcqRel) {
            self.bell.ring();
        }
    }

    /// Whether the thread was called since this was last asked; to be asked after every sleep.
    pub(crate) fn take(&self) -> bool {
        self.called.load(Ordering::Relaxed) && self.called.swap(false, Ordering::AcqRel)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::sync::thread;

    #[test]
    fn who_was_called_while_awake_does_not_sleep() {
        let bell = Bell::default();
        bell.ring();
        bell.ring();
        bell.sleep(None);
        assert_eq!(bell.wakes(), 0);
    }

    #[test]
    fn who_is_called_by_several_finds_out_by_whom() {
        let bell = Arc::new(Bell::default());
        let calls = [Call::of(&bell), Call::of(&bell), Call::of(&bell)];
        calls[0].ring();
        calls[2].ring();
        calls[2].ring();
        bell.sleep(None);
        assert_eq!(calls.each_ref().map(Call::take), [true, false, true]);
        assert_eq!(calls.each_ref().map(Call::take), [false; 3]);
        calls[2].ring();
        bell.sleep(None);
        assert!(calls[2].take());
    }

    #[test]
    fn a_call_wakes_who_sleeps_without_a_tick() {
        let bell = Arc::new(Bell::default());
        let sleeper = thread::spawn({
            let bell = Arc::clone(&bell);
            move || (0..100).for_each(|_| bell.sleep(None))
        });
        while !sleeper.is_finished() {
            bell.ring();
            thread::yield_now();
        }
        sleeper.join().unwrap();
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::thread;

    /// The flag stands for whatever the thread is called for.
    #[test]
    fn loom_bell_no_call_is_lost() {
        loom::model(|| {
            let shared = Arc::new((Bell::default(), AtomicBool::new(false)));
            let caller = thread::spawn({
                let shared = Arc::clone(&shared);
                move || {
                    shared.1.store(true, Ordering::Release);
                    shared.0.ring();
                }
            });
            while !shared.1.load(Ordering::Acquire) {
                shared.0.sleep(None);
            }
            caller.join().unwrap();
        });
    }

    /// Two call the same thread, each for what its flag stands for.
    #[test]
    fn loom_bell_no_call_of_several_is_lost() {
        loom::model(|| {
            let bell = Arc::new(Bell::default());
            let callers: [_; 2] =
                std::array::from_fn(|_| Arc::new((Call::of(&bell), AtomicBool::new(false))));
            let threads = callers.each_ref().map(|caller| {
                let caller = Arc::clone(caller);
                thread::spawn(move || {
                    caller.1.store(true, Ordering::Relaxed);
                    caller.0.ring();
                })
            });
            let mut heard = 0;
            while heard < 2 {
                bell.sleep(None);
                for caller in callers.iter().filter(|caller| caller.0.take()) {
                    assert!(caller.1.load(Ordering::Relaxed));
                    heard += 1;
                }
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }
}
