//! The queue of background work.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use crate::codec::ids::FamilyId;
use crate::column_family::family::Family;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::bell::Bell;
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
    /// Families that something was done to, for the thread that keeps the clock, until it takes them.
    touched: Mutex<Vec<Arc<Family>>>,
    /// Families that the clock watches, or is about to.
    watched: AtomicUsize,
    /// For the thread that keeps the clock.
    pub(crate) clock: Arc<Bell>,
    /// For the thread that keeps the log.
    pub(crate) log: Bell,
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
        self.clock.ring();
        self.log.ring();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Something is about to be done to `family` that leaves work for the clock: it looks after the family from now on, until nothing was
    /// done for long. Costs a load if it does so already.
    ///
    /// Who writes calls this under the family's write lock, without which the clock does not turn away from a family.
    #[inline]
    pub(crate) fn touch(&self, family: &Arc<Family>) {
        if !family.watched.load(Ordering::Relaxed) {
            self.watch(family);
        }
    }

    #[cold]
    fn watch(&self, family: &Arc<Family>) {
        if !family.watched.swap(true, Ordering::AcqRel) {
            self.watched.fetch_add(1, Ordering::AcqRel);
            self.touched.lock().push(Arc::clone(family));
            self.clock.ring();
            self.log.ring();
        }
    }

    /// Families that are to be watched from now on.
    pub(crate) fn take_touched(&self) -> Vec<Arc<Family>> {
        std::mem::take(&mut *self.touched.lock())
    }

    /// `family` is not looked after any more, until it is [touched](Self::touch) again.
    pub(crate) fn turn_away(&self, family: &Family) {
        self.watched.fetch_sub(1, Ordering::AcqRel);
        family.watched.store(false, Ordering::Release);
    }

    /// Whether the clock looks after any family: else nothing was written for long.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Acquire) > 0
    }

    /// Waits until work may have changed, or for `timeout`.
    pub(crate) fn pause(&self, timeout: Duration) {
        let state = self.state.lock();
        if !state.stopped {
            drop(self.changed.wait_for(state, timeout));
        }
    }
}
