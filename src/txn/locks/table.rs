//! The lock table of a database.

use std::time::Duration;

use crate::codec::ids::FamilyId;
use crate::error::LockOwner;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Condvar, Instant, Mutex, MutexGuard};
use crate::txn::keys::Keys;
use crate::txn::locks::state::{Answer, LockCounts, Marks, State};
use crate::txn::locks::want::{Edge, Want};

/// Locks that owners hold and wait for.
#[derive(Default)]
pub(crate) struct LockTable {
    state: Mutex<State>,
    marks: Marks,
    owners: AtomicU64,
}

/// Why a lock was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The time limit is over; what is in the way.
    Timeout(Vec<Edge>),
    /// The circle that would have been closed, from who asked on.
    Deadlock(Vec<Edge>),
    /// The database is closed.
    Closed,
}

impl LockTable {
    /// A number for an owner that no other of this table has.
    pub(crate) fn new_number(&self) -> u64 {
        self.owners.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether a transaction may hold a lock in `family`. For who holds the family's write lock.
    #[inline]
    pub(crate) fn is_marked(&self, family: FamilyId) -> bool {
        self.marks.of(family).load(Ordering::Relaxed) != 0
    }

    /// Whether a lock keeps a plain write from any of `writes`. For who holds the write locks of the
    /// families.
    pub(crate) fn keeps_from<'k>(&self, mut writes: impl Iterator<Item = (FamilyId, Keys<'k>)>) -> bool {
        let state = self.state.lock();
        writes.any(|(family, keys)| state.held.keeps_from(family, keys))
    }

    /// Takes all of `wants` for `owner`, who waits at most `limit` ([`Duration::MAX`]: for as long as it
    /// takes) and waits for nothing else meanwhile. Whether he did not hold all of them already. Nothing is
    /// taken if it fails.
    pub(crate) fn acquire(
        &self,
        owner: LockOwner,
        wants: Vec<Want>,
        limit: Duration,
    ) -> Result<bool, Refusal> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(Refusal::Closed);
        }
        let woken = (!limit.is_zero()).then(|| Arc::new(Condvar::new()));
        match (state.ask(&self.marks, owner, wants, woken.as_ref()), woken) {
            (Answer::Taken(is_new), _) => Ok(is_new),
            (Answer::Deadlock(circle), _) => Err(Refusal::Deadlock(circle)),
            (Answer::Refused(obstacles), _) => {
                state.counts.timeouts += 1;
                Err(Refusal::Timeout(obstacles))
            }
            (Answer::Waits(ticket), Some(woken)) => self.wait(state, ticket, &woken, limit).map(|()| true),
            (Answer::Waits(_), None) => unreachable!("who is not to wait does not"),
        }
    }

    fn wait(
        &self,
        mut state: MutexGuard<'_, State>,
        ticket: u64,
        woken: &Condvar,
        limit: Duration,
    ) -> Result<(), Refusal> {
        let since = Instant::now();
        let refusal = loop {
            let left = limit.saturating_sub(since.elapsed());
            if left.is_zero() {
                state.counts.timeouts += 1;
                break Some(Refusal::Timeout(state.obstacles_of(ticket)));
            }
            state = if limit == Duration::MAX { woken.wait(state) } else { woken.wait_for(state, left) };
            if !state.line.holds(ticket) {
                break None;
            }
            if state.is_closed {
                break Some(Refusal::Closed);
            }
        };
        state.counts.waited += since.elapsed();
        let Some(refusal) = refusal else { return Ok(()) };
        state.leave(&self.marks, ticket);
        Err(refusal)
    }

    /// How much `owner` holds: a mark to [release](Self::release) to.
    pub(crate) fn mark(&self, owner: LockOwner) -> usize {
        self.state.lock().held.mark_of(owner)
    }

    /// `owner` gives up what he took since `mark`, 0 being before all; a lock that was made exclusive since
    /// is shared again.
    pub(crate) fn release(&self, owner: LockOwner, mark: usize) {
        self.state.lock().give_up(&self.marks, owner, mark);
    }

    /// Nobody waits any more, nor gets a lock from now on.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        state.line.0.iter().for_each(|waiter| waiter.woken.notify_one());
    }

    pub(crate) fn counts(&self) -> LockCounts {
        let state = self.state.lock();
        let (held, waiting) = (state.held.count(), state.line.0.len() as u64);
        let bytes = (state.held.bytes() + state.line.bytes()) as u64;
        LockCounts { held, waiting, bytes, ..state.counts }
    }

    /// All that `owner` holds.
    pub(crate) fn locks_of(&self, owner: LockOwner) -> Vec<Want> {
        self.state.lock().held.of(owner).collect()
    }

    /// Who holds what, and who waits for whom in order of arrival.
    pub(crate) fn list(&self) -> (Vec<(LockOwner, Want)>, Vec<Edge>) {
        let state = self.state.lock();
        let awaited = state.line.0.iter().flat_map(|waiter| state.obstacles_of(waiter.ticket));
        (state.held.list().collect(), awaited.collect())
    }
}
