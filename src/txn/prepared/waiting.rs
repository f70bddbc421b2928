//! Where others wait until a prepared transaction is decided.

use std::time::Duration;

use crate::column_family::family::Family;
use crate::column_family::held::Stretch;
use crate::error::{Conflict, Error, Result};
use crate::sync::{Condvar, Instant, Mutex};

/// Counts decisions.
pub(in crate::txn) struct Decisions {
    count: Mutex<u64>,
    more: Condvar,
    /// The longest that anybody waits.
    limit: Duration,
}

/// What somebody wants is held; when that was seen, and the error for who waited in vain.
pub(in crate::txn) struct HeldBack {
    seen: u64,
    error: Error,
}

impl HeldBack {
    /// Keys of `family` were found to be held, after as many decisions as were `seen` before.
    pub(super) fn new(seen: u64, family: &Family, keys: Stretch<'_>) -> Self {
        let conflict = Conflict { family: family.id(), start: keys.start.to_vec(), end: keys.end() };
        Self { seen, error: Error::held_in(&family.name(), conflict) }
    }
}

/// One operation's waiting, all of which together has a limit.
pub(in crate::txn) struct Patience<'a> {
    decisions: &'a Decisions,
    since: Option<Instant>,
}

impl Decisions {
    pub(super) fn new(limit: Duration) -> Self {
        Self { count: Mutex::new(0), more: Condvar::new(), limit }
    }

    /// Somebody has let go of what he held.
    pub(super) fn announce(&self) {
        *self.count.lock() += 1;
        self.more.notify_all();
    }

    /// How many there were. Who waits asks before he looks at what is held: what is let go of while he looks
    /// is announced after it.
    pub(super) fn count(&self) -> u64 {
        *self.count.lock()
    }

    pub(super) fn patience(&self) -> Patience<'_> {
        Patience { decisions: self, since: None }
    }
}

impl Patience<'_> {
    /// Returns when somebody has let go of something since `held` was seen, or fails when the time is over.
    pub(in crate::txn) fn wait(&mut self, held: HeldBack) -> Result<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let mut count = self.decisions.count.lock();
        while *count == held.seen {
            let left = self.decisions.limit.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Err(held.error);
            }
            count = self.decisions.more.wait_for(count, left);
        }
        Ok(())
    }
}
