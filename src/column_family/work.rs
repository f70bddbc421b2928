//! The queue of background work.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use crate::codec::ids::FamilyId;
use crate::column_family::family::Family;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Condvar, Mutex};

/// What a background thread does next.
pub(crate) enum Job {
    Merge(Arc<Family>),
    Checkpoint,
}

#[derive(Default)]
struct State {
    merges: VecDeque<Arc<Family>>,
    /// The numbers of those.
    waiting: HashSet<FamilyId>,
    /// Families that a thread is merging: another one would only wait for it.
    merging: Vec<Arc<Family>>,
    checkpoint: bool,
    running: usize,
    stopped: bool,
}

/// Jobs that wait for a background thread. A family waits at most once.
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

    /// The next job, as soon as there is one; `None` once the database stops. Call [`finish`](Self::finish) after it.
    pub(crate) fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            // Merges first: writers may wait for them.
            let is_free = |family: &Arc<Family>| !state.merging.iter().any(|busy| Arc::ptr_eq(busy, family));
            let job = match state.merges.iter().position(is_free).and_then(|at| state.merges.remove(at)) {
                Some(family) => {
                    state.waiting.remove(&family.id());
                    state.merging.push(Arc::clone(&family));
                    Some(Job::Merge(family))
                }
                None => std::mem::take(&mut state.checkpoint).then_some(Job::Checkpoint),
            };
            if let Some(job) = job {
                state.running += 1;
                return Some(job);
            }
            state = self.changed.wait(state);
        }
    }

    /// A job that [`next`](Self::next) gave is done.
    pub(crate) fn finish(&self, job: &Job) {
        let mut state = self.state.lock();
        state.running -= 1;
        if let Job::Merge(family) = job {
            state.merging.retain(|busy| !Arc::ptr_eq(busy, family));
        }
        drop(state);
        self.changed.notify_all();
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
