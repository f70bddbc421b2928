//! The background work of one database: what it leaves on the desk, and which of its families the clock looks
//! after.

use std::time::Duration;

use crate::column_family::family::Family;
use crate::column_family::merging::desk::{DatabaseNumber, Desk, Due};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::bell::Call;
use crate::sync::{Arc, Mutex};

/// Jobs of one database for background threads. A family waits at most once. Checkpoints are made by threads
/// of their own: they wait for no merge, and no merge waits for them.
pub(crate) struct Work {
    desk: Arc<Desk>,
    database: DatabaseNumber,
    stopped: AtomicBool,
    /// Families that something was done to, for the thread that keeps the clock, until it takes them.
    touched: Mutex<Vec<Arc<Family>>>,
    /// Families that the clock watches, or is about to.
    watched: AtomicUsize,
    /// For the thread that keeps the clock.
    pub(crate) clock: Call,
    /// For the thread that keeps the log.
    pub(crate) log: Call,
}

impl Work {
    /// Of `database`, for the threads that come to `desk`, as soon as it is admitted there.
    pub(crate) fn new(desk: &Arc<Desk>, database: DatabaseNumber) -> Self {
        desk.register(database);
        Self {
            desk: Arc::clone(desk),
            database,
            stopped: AtomicBool::new(false),
            touched: Mutex::default(),
            watched: AtomicUsize::new(0),
            clock: Call::of(&desk.clock),
            log: Call::of(&desk.log),
        }
    }

    /// Asks for a merge of `family`'s frozen memtables.
    pub(crate) fn request_merge(&self, family: &Arc<Family>) {
        self.desk.leave_merge(self.database, family);
    }

    /// Asks for a merge of `family`'s frozen memtables that begins after a while: now it cannot be made.
    pub(crate) fn request_later_merge(&self, family: &Arc<Family>) {
        self.desk.leave_later_merge(self.database, family);
    }

    /// Asks for a checkpoint.
    pub(crate) fn request_checkpoint(&self) {
        self.desk.leave_checkpoint(self.database, Due::Checkpoint);
    }

    /// Asks for the log to be made shorter, if it is long.
    pub(crate) fn request_shorter_log(&self) {
        self.desk.leave_checkpoint(self.database, Due::ShorterLog);
    }

    /// Whether nothing waits or runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.desk.is_idle(self.database)
    }

    /// Ends all waiting; what runs is asked to stop by [`is_stopped`](Self::is_stopped).
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.desk.stop_database(self.database);
        self.clock.ring();
        self.log.ring();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Something is about to be done to `family` that leaves work for the clock: it looks after the family
    /// from now on, until nothing was done for long. Costs a load if it does so already.
    ///
    /// Who writes calls this under the family's write lock, without which the clock does not turn away from a
    /// family.
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
        self.desk.pause(self.database, timeout);
    }
}

#[cfg(test)]
impl Work {
    /// A merge that waits. Call [`finish_merge`](Self::finish_merge) after it.
    pub(crate) fn take_merge(&self) -> Option<Arc<Family>> {
        self.desk.take_merge_of(self.database)
    }

    pub(crate) fn finish_merge(&self, family: &Arc<Family>) {
        self.desk.finish_merge(self.database, family);
    }

    /// A checkpoint that waits. Call [`finish_checkpoint`](Self::finish_checkpoint) after it.
    pub(crate) fn take_due(&self) -> Option<Due> {
        self.desk.take_due_of(self.database)
    }

    pub(crate) fn finish_checkpoint(&self) {
        self.desk.finish_checkpoint(self.database);
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.desk.forget(self.database);
    }
}
