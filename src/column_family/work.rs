//! The queue of background work.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use crate::codec::ids::FamilyId;
use crate::column_family::family::Family;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Condvar, Mutex};

/// What the thread that makes checkpoints does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Checkpoint,
    /// Whatever makes the log shorter, if it is long.
    ShorterLog,
}

#[derive(Default)]
struct State {
    merges: VecDeque<Arc<Family>>,
    /// The numbers of those.
    waiting: HashSet<FamilyId>,
    /// Families that a thread is merging: another one would only wait for it.
    merging: Vec<Arc<Family>>,
    checkpoint: bool,
    shorter_log: bool,
    running: usize,
    stopped: bool,
}

/// Jobs that wait for a background thread. A family waits at most once. Checkpoints are made by a thread of their own: they wait
/// for no merge, and no merge waits for them.
#[derive(Default)]
pub(crate) struct Work {
    state: Mutex<State>,
    changed: Condvar,
    /// For the thread that keeps the clock.
    pub(crate) clock: Bell,
    /// For the thread that keeps the log.
    pub(crate) log: Bell,
}

/// Wakes a thread that otherwise sleeps until its next tick.
#[derive(Default)]
pub(crate) struct Bell {
    /// Whether the thread was called and has not come yet.
    rung: AtomicBool,
    ringing: Condvar,
}

impl Work {
    /// Asks for a merge of `family`'s frozen memtables.
    pub(crate) fn request_merge(&self, family: &Arc<Family>) {
        let mut state = self.state.lock();
        if state.waiting.insert(family.id()) {
            state.merges.push_back(Arc::clone(family));
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Asks for a checkpoint.
    pub(crate) fn request_checkpoint(&self) {
        self.state.lock().checkpoint = true;
        self.changed.notify_all();
    }

    /// Asks for the log to be made shorter, if it is long.
    pub(crate) fn request_shorter_log(&self) {
        self.state.lock().shorter_log = true;
        self.changed.notify_all();
    }

    /// The next checkpoint, as soon as one is due; `None` once the database stops. Call [`finish_checkpoint`](Self::finish_checkpoint) after it.
    pub(crate) fn next_checkpoint(&self) -> Option<Due> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            let checkpoint = std::mem::take(&mut state.checkpoint).then_some(Due::Checkpoint);
            let due =
                checkpoint.or_else(|| std::mem::take(&mut state.shorter_log).then_some(Due::ShorterLog));
            if due.is_some() {
                state.running += 1;
                return due;
            }
            state = self.changed.wait(state);
        }
    }

    /// What [`next_checkpoint`](Self::next_checkpoint) gave is done.
    pub(crate) fn finish_checkpoint(&self) {
        self.state.lock().running -= 1;
        self.changed.notify_all();
    }

    /// The next family to merge, as soon as there is one; `None` once the database stops. Call [`finish`](Self::finish) after it.
    pub(crate) fn next(&self) -> Option<Arc<Family>> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            let is_free = |family: &Arc<Family>| !state.merging.iter().any(|busy| Arc::ptr_eq(busy, family));
            if let Some(family) = state.merges.iter().position(is_free).and_then(|at| state.merges.remove(at))
            {
                state.waiting.remove(&family.id());
                state.merging.push(Arc::clone(&family));
                state.running += 1;
                return Some(family);
            }
            state = self.changed.wait(state);
        }
    }

    /// The job of `family` that [`next`](Self::next) gave is done.
    pub(crate) fn finish(&self, family: &Arc<Family>) {
        let mut state = self.state.lock();
        state.running -= 1;
        state.merging.retain(|busy| !Arc::ptr_eq(busy, family));
        drop(state);
        self.changed.notify_all();
    }

    /// Whether a merge waits, and whether a checkpoint does.
    #[cfg(test)]
    pub(crate) fn waits(&self) -> (bool, bool) {
        let state = self.state.lock();
        (!state.merges.is_empty(), state.checkpoint || state.shorter_log)
    }

    /// Whether nothing waits or runs.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.merges.is_empty() && !state.checkpoint && state.running == 0
    }

    /// Ends all waiting; what runs is asked to stop by [`is_stopped`](Self::is_stopped).
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
        self.clock.ringing.notify_all();
        self.log.ringing.notify_all();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Ends the [`sleep`](Self::sleep) of the bell's thread early. May be called again and again.
    #[inline]
    pub(crate) fn ring(&self, bell: &Bell) {
        if !bell.rung.load(Ordering::Relaxed) && !bell.rung.swap(true, Ordering::AcqRel) {
            drop(self.state.lock());
            bell.ringing.notify_all();
        }
    }

    /// Waits for `tick`, or until the bell rings.
    pub(crate) fn sleep(&self, bell: &Bell, tick: Duration) {
        let state = self.state.lock();
        if !state.stopped && !bell.rung.load(Ordering::Acquire) {
            drop(bell.ringing.wait_for(state, tick));
        }
        bell.rung.store(false, Ordering::Release);
    }

    /// Waits until work may have changed, or for `timeout`.
    pub(crate) fn pause(&self, timeout: Duration) {
        let state = self.state.lock();
        if !state.stopped {
            drop(self.changed.wait_for(state, timeout));
        }
    }
}
