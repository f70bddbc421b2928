//! What a lock table holds: who has what, and who waits. Nothing here waits, nor wakes itself.

use std::time::Duration;

use crate::codec::ids::FamilyId;
use crate::error::LockOwner;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Condvar};
use crate::txn::locks::held::Held;
use crate::txn::locks::line::{Line, Waiter};
use crate::txn::locks::want::{Edge, Want};

/// Marks, each for some of the families.
const MARKS: usize = 64;

/// How many locks transactions hold in the families of each mark. Changed under the table's lock, and read
/// without.
pub(super) struct Marks([AtomicUsize; MARKS]);

impl Default for Marks {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicUsize::new(0)))
    }
}

impl Marks {
    #[inline]
    pub(super) fn of(&self, family: FamilyId) -> &AtomicUsize {
        &self.0[family.0 as usize % MARKS]
    }
}

/// What was done in the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LockCounts {
    /// Locks that are held.
    pub(crate) held: u64,
    /// Who waits.
    pub(crate) waiting: u64,
    /// Waits that began.
    pub(crate) waits: u64,
    /// How long those that ended took.
    pub(crate) waited: Duration,
    pub(crate) deadlocks: u64,
    pub(crate) timeouts: u64,
    /// Bytes of memory that locks and waiting for them take.
    pub(crate) bytes: u64,
}

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The owner has all of it; whether he did not before.
    Taken(bool),
    /// He came into line, with this ticket.
    Waits(u64),
    /// He was not to wait; what is in the way.
    Refused(Vec<Edge>),
    /// The circle that would have been closed, from him on.
    Deadlock(Vec<Edge>),
}

#[derive(Default)]
pub(super) struct State {
    pub(super) held: Held,
    pub(super) line: Line,
    tickets: u64,
    pub(super) is_closed: bool,
    pub(super) counts: LockCounts,
}

impl State {
    /// `owner` wants all of `wants`; he waits for them, until he is `woken`, if there is any such.
    pub(super) fn ask(
        &mut self,
        marks: &Marks,
        owner: LockOwner,
        mut wants: Vec<Want>,
        woken: Option<&Arc<Condvar>>,
    ) -> Answer {
        wants.retain(|want| !self.held.covers(owner, want));
        if wants.is_empty() {
            return Answer::Taken(false);
        }
        let obstacles = self.line.obstacles(&self.held, owner, &wants, self.line.0.len());
        if obstacles.is_empty() {
            self.take(marks, owner, &wants);
            return Answer::Taken(true);
        }
        if let Some(circle) = self.line.circle(&self.held, owner, &obstacles) {
            // Nobody has what he wants; to let those who came earlier go first would keep all of them.
            if obstacles.held.is_empty() {
                self.take(marks, owner, &wants);
                return Answer::Taken(true);
            }
            self.counts.deadlocks += 1;
            return Answer::Deadlock(circle);
        }
        let Some(woken) = woken else { return Answer::Refused(obstacles.into_edges()) };
        self.tickets += 1;
        self.counts.waits += 1;
        let waiter = Waiter { ticket: self.tickets, owner, wants, woken: Arc::clone(woken) };
        self.line.0.push(waiter);
        Answer::Waits(self.tickets)
    }

    /// What keeps whoever has this ticket.
    pub(super) fn obstacles_of(&self, ticket: u64) -> Vec<Edge> {
        let Some(place) = self.line.0.iter().position(|waiter| waiter.ticket == ticket) else {
            return Vec::new();
        };
        let Waiter { owner, wants, .. } = &self.line.0[place];
        self.line.obstacles(&self.held, *owner, wants, place).into_edges()
    }

    /// Whoever has this ticket waits no more.
    pub(super) fn leave(&mut self, marks: &Marks, ticket: u64) {
        self.line.leave(ticket);
        self.let_go(marks);
    }

    /// `owner` gives up what he took since `mark`.
    pub(super) fn give_up(&mut self, marks: &Marks, owner: LockOwner, mark: usize) {
        self.held.give_up(owner, mark, |family, mode| {
            if mode.is_marked() {
                marks.of(family).fetch_sub(1, Ordering::Relaxed);
            }
        });
        self.let_go(marks);
    }

    /// What `owner` wants, of which nothing is in the way, is his.
    fn take(&mut self, marks: &Marks, owner: LockOwner, wants: &[Want]) {
        for want in wants {
            if !self.held.covers(owner, want) && self.held.take(owner, want) && want.mode.is_marked() {
                marks.of(want.family).fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Lets everybody go, in order of arrival, whom nothing keeps any more.
    fn let_go(&mut self, marks: &Marks) {
        let mut from = 0;
        while let Some((place, waiter)) = self.line.next_to_go(&self.held, from) {
            self.take(marks, waiter.owner, &waiter.wants);
            waiter.woken.notify_one();
            from = place;
        }
    }
}
