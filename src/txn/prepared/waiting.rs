//! Where others wait until a prepared transaction is decided.

use std::time::Duration;

use crate::column_family::family::Family;
use crate::column_family::held::Stretch;
use crate::error::{Conflict, Error, Result};
use crate::sync::waits::Waits;
use crate::sync::{Condvar, Instant, Mutex};

/// Counts decisions, until there can be no more.
pub(in crate::txn) struct Decisions {
    made: Mutex<Made>,
    more: Condvar,
    /// The longest that anybody waits.
    limit: Duration,
    waits: Waits,
}

#[derive(Default)]
struct Made {
    count: u64,
    /// Why nobody waits any more.
    ended: Option<Error>,
    /// Who waits.
    waiting: usize,
}

/// What somebody wants is held; when that was seen, and the error for who waited in vain.
pub(in crate::txn) struct HeldBack {
    seen: u64,
    error: Error,
}

impl HeldBack {
    /// Keys of `family` were found to be held, after as many decisions as were `seen` before.
    pub(super) fn new(seen: u64, family: &Family, keys: Stretch<'_>) -> Self {
        let (start, end) = family.user_bounds((keys.start.to_vec(), keys.end()));
        let conflict = Conflict { family: family.id(), start, end };
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
        Self { made: Mutex::default(), more: Condvar::new(), limit, waits: Waits::default() }
    }

    /// Somebody has let go of what he held.
    pub(super) fn announce(&self) {
        self.made.lock().count += 1;
        self.more.notify_all();
    }

    /// How many there were. Who waits asks before he looks at what is held: what is let go of while he looks
    /// is announced after it.
    pub(super) fn count(&self) -> u64 {
        self.made.lock().count
    }

    /// Nobody waits any more, and whoever would is told `why`, unless there was another reason before.
    pub(super) fn end(&self, why: Error) {
        self.made.lock().ended.get_or_insert(why);
        self.more.notify_all();
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.made.lock().waiting
    }

    /// How often somebody waited, and for how long in all.
    pub(super) fn waited(&self) -> (u64, Duration) {
        self.waits.totals()
    }

    pub(super) fn patience(&self) -> Patience<'_> {
        Patience { decisions: self, since: None }
    }
}

impl Patience<'_> {
    /// Returns when somebody has let go of something since `held` was seen. Fails when the time is over, or
    /// there can be no more decisions.
    pub(in crate::txn) fn wait(&mut self, held: HeldBack) -> Result<()> {
        let began = Instant::now();
        let waited = self.wait_on(held);
        let took = began.elapsed();
        self.decisions.waits.note(took);
        tracing::debug!(?took, "a write waited for a prepared transaction to be decided");
        waited
    }

    fn wait_on(&mut self, held: HeldBack) -> Result<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let mut made = self.decisions.made.lock();
        made.waiting += 1;
        let outcome = loop {
            if let Some(why) = &made.ended {
                break Err(why.clone());
            }
            if made.count != held.seen {
                break Ok(());
            }
            let left = self.decisions.limit.saturating_sub(since.elapsed());
            if left.is_zero() {
                break Err(held.error);
            }
            made = self.decisions.more.wait_for(made, left);
        };
        made.waiting -= 1;
        outcome
    }
}
