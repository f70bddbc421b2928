//! The queue of background work of all databases that share threads.
//!
//! Invariants:
//! 1. A family waits at most once, and one thread at a time is at a family's job, and one at a database's
//!    checkpoint.
//! 2. Databases take turns: between two jobs of one database every other one that has a job which could begin
//!    gets one. So what one database brings, however much it is, delays another's job by those that are under
//!    way and one round.
//! 3. Checkpoints wait for no merge and no merge waits for them: other threads make them, and their turns are
//!    others.
//! 4. A database that was not admitted yet, or has left, has no turn.
//! 5. Of a database's merges the first come first, but for those that writers wait for more (see
//!    `Stall::urgency`): these overtake others, each of them a bounded number of times. Only the first few
//!    are compared.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use crate::codec::ids::FamilyId;
use crate::column_family::family::Family;
use crate::sync::bell::Bell;
use crate::sync::{Arc, Condvar, Instant, Mutex};

/// What the thread that makes checkpoints does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Checkpoint,
    /// Whatever makes the log shorter, if it is long.
    ShorterLog,
}

/// Tells open databases of a process apart.
pub(crate) type DatabaseNumber = u64;

/// Merges that are compared when one is taken.
const COMPARED: usize = 16;
/// How often a merge is overtaken at most, from when it is the first of those that may begin.
const MOST_OVERTAKEN: u32 = 8;

/// How long a merge that was put off waits.
const PATIENCE: Duration = Duration::from_millis(200);

/// Where databases leave their jobs, and the threads that they share find them.
#[derive(Default)]
pub(crate) struct Desk {
    state: Mutex<State>,
    changed: Condvar,
    /// For the thread that keeps clocks.
    pub(crate) clock: Arc<Bell>,
    /// For the thread that keeps logs.
    pub(crate) log: Arc<Bell>,
}

#[derive(Default)]
struct State {
    databases: BTreeMap<DatabaseNumber, Jobs>,
    /// Databases of which merges wait, and those of which checkpoints do, in the order of their turns; each
    /// once.
    merge_turns: VecDeque<DatabaseNumber>,
    checkpoint_turns: VecDeque<DatabaseNumber>,
    stopped: bool,
}

/// The jobs of one database.
#[derive(Default)]
struct Jobs {
    admitted: bool,
    merges: VecDeque<Merge>,
    /// The numbers of the families of those.
    waiting: HashSet<FamilyId>,
    /// Families that a thread is merging: another one would only wait for it.
    merging: Vec<Arc<Family>>,
    checkpoint: bool,
    shorter_log: bool,
    /// Whether a thread is at a checkpoint.
    checkpointing: bool,
    stopped: bool,
}

struct Merge {
    family: Arc<Family>,
    /// When it was put off, if it was.
    put_off: Option<Instant>,
    overtaken: u32,
}

impl Jobs {
    /// Takes the first merge that may begin, or one that is more urgent. Those that were put off may begin
    /// once they have waited, or if that is not `patient`.
    fn take_merge(&mut self, patient: bool) -> Option<Arc<Family>> {
        let may_begin = |merge: &Merge| {
            let has_waited = |since: Instant| !patient || since.elapsed() >= PATIENCE;
            merge.put_off.is_none_or(has_waited)
                && !self.merging.iter().any(|busy| Arc::ptr_eq(busy, &merge.family))
        };
        let first = self.merges.iter().position(may_begin)?;
        let mut taken = first;
        if self.merges[first].overtaken < MOST_OVERTAKEN {
            let mut most = self.merges[first].family.stall.urgency();
            for (at, merge) in self.merges.iter().enumerate().skip(first + 1).take(COMPARED - 1) {
                let urgency = merge.family.stall.urgency();
                if urgency > most && may_begin(merge) {
                    (taken, most) = (at, urgency);
                }
            }
            self.merges[first].overtaken += u32::from(taken != first);
        }
        let merge = self.merges.remove(taken)?;
        self.waiting.remove(&merge.family.id());
        self.merging.push(Arc::clone(&merge.family));
        Some(merge.family)
    }

    fn take_due(&mut self) -> Option<Due> {
        if self.checkpointing {
            return None;
        }
        let checkpoint = std::mem::take(&mut self.checkpoint).then_some(Due::Checkpoint);
        let due = checkpoint.or_else(|| std::mem::take(&mut self.shorter_log).then_some(Due::ShorterLog));
        self.checkpointing = due.is_some();
        due
    }

    fn waits_for_checkpoint(&self) -> bool {
        self.checkpoint || self.shorter_log
    }

    fn is_idle(&self) -> bool {
        self.merges.is_empty() && self.merging.is_empty() && !self.checkpoint && !self.checkpointing
    }
}

impl State {
    /// Gives `database` the turns that it lacks.
    fn queue(&mut self, database: DatabaseNumber) {
        let Some(jobs) = self.databases.get(&database).filter(|jobs| jobs.admitted) else { return };
        if !jobs.merges.is_empty() && !self.merge_turns.contains(&database) {
            self.merge_turns.push_back(database);
        }
        if jobs.waits_for_checkpoint() && !self.checkpoint_turns.contains(&database) {
            self.checkpoint_turns.push_back(database);
        }
    }

    /// The first job that may begin, by turns; whose it is goes to the end.
    fn next_merge(&mut self) -> Option<(DatabaseNumber, Arc<Family>)> {
        for at in 0..self.merge_turns.len() {
            let database = self.merge_turns[at];
            let taken = self.databases.get_mut(&database).and_then(|jobs| jobs.take_merge(true));
            if let Some(family) = taken {
                self.merge_turns.remove(at);
                self.queue(database);
                return Some((database, family));
            }
        }
        None
    }

    fn next_due(&mut self) -> Option<(DatabaseNumber, Due)> {
        for at in 0..self.checkpoint_turns.len() {
            let database = self.checkpoint_turns[at];
            let taken = self.databases.get_mut(&database).and_then(Jobs::take_due);
            if let Some(due) = taken {
                self.checkpoint_turns.remove(at);
                self.queue(database);
                return Some((database, due));
            }
        }
        None
    }

    fn has_put_off(&self) -> bool {
        let jobs = self.merge_turns.iter().filter_map(|database| self.databases.get(database));
        jobs.flat_map(|jobs| &jobs.merges).any(|merge| merge.put_off.is_some())
    }
}

impl Desk {
    /// A database is there, which leaves jobs from now on; they wait until it is [admitted](Self::admit).
    pub(super) fn register(&self, database: DatabaseNumber) {
        self.state.lock().databases.insert(database, Jobs::default());
    }

    /// From now on threads find the jobs of `database`.
    pub(crate) fn admit(&self, database: DatabaseNumber) {
        self.leave(database, |jobs| jobs.admitted = true);
    }

    /// The jobs of `database` that wait are gone, and it brings no more.
    pub(super) fn stop_database(&self, database: DatabaseNumber) {
        let gone = {
            let mut state = self.state.lock();
            state.merge_turns.retain(|waiting| *waiting != database);
            state.checkpoint_turns.retain(|waiting| *waiting != database);
            let Some(jobs) = state.databases.get_mut(&database) else { return };
            (jobs.stopped, jobs.checkpoint, jobs.shorter_log) = (true, false, false);
            jobs.waiting.clear();
            std::mem::take(&mut jobs.merges)
        };
        drop(gone);
        self.changed.notify_all();
    }

    /// Nothing is known of `database` any more.
    pub(super) fn forget(&self, database: DatabaseNumber) {
        self.stop_database(database);
        self.state.lock().databases.remove(&database);
    }

    /// Ends the threads, once they are done with what they are at.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
        self.clock.ring();
        self.log.ring();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Changes what waits of `database`, and calls who may be waiting for it.
    fn leave(&self, database: DatabaseNumber, change: impl FnOnce(&mut Jobs)) {
        let mut state = self.state.lock();
        let Some(jobs) = state.databases.get_mut(&database).filter(|jobs| !jobs.stopped) else { return };
        change(jobs);
        state.queue(database);
        drop(state);
        self.changed.notify_all();
    }

    /// Leaves a merge of `family`, unless one waits.
    pub(super) fn leave_merge(&self, database: DatabaseNumber, family: &Arc<Family>) {
        self.leave_merge_from(database, family, None);
    }

    /// Leaves a merge of `family` that begins only after a while, unless one waits.
    pub(super) fn leave_later_merge(&self, database: DatabaseNumber, family: &Arc<Family>) {
        self.leave_merge_from(database, family, Some(Instant::now()));
    }

    fn leave_merge_from(&self, database: DatabaseNumber, family: &Arc<Family>, put_off: Option<Instant>) {
        let mut state = self.state.lock();
        let Some(jobs) = state.databases.get_mut(&database).filter(|jobs| !jobs.stopped) else { return };
        if jobs.waiting.insert(family.id()) {
            jobs.merges.push_back(Merge { family: Arc::clone(family), put_off, overtaken: 0 });
            state.queue(database);
            drop(state);
            self.changed.notify_all();
        }
    }

    pub(super) fn leave_checkpoint(&self, database: DatabaseNumber, due: Due) {
        self.leave(database, |jobs| match due {
            Due::Checkpoint => jobs.checkpoint = true,
            Due::ShorterLog => jobs.shorter_log = true,
        });
    }

    /// The next family to merge and its database, as soon as there is one; `None` once the threads are to
    /// end. Call [`finish_merge`](Self::finish_merge) after it.
    pub(crate) fn next_merge(&self) -> Option<(DatabaseNumber, Arc<Family>)> {
        self.next(|state| state.next_merge(), State::has_put_off)
    }

    /// The job of `family` is done.
    pub(crate) fn finish_merge(&self, database: DatabaseNumber, family: &Arc<Family>) {
        self.change(database, |jobs| jobs.merging.retain(|busy| !Arc::ptr_eq(busy, family)));
    }

    /// The next database of which a checkpoint is due, as soon as there is one; `None` once the threads are
    /// to end. Call [`finish_checkpoint`](Self::finish_checkpoint) after it.
    pub(crate) fn next_checkpoint(&self) -> Option<(DatabaseNumber, Due)> {
        self.next(State::next_due, |_| false)
    }

    /// What [`next_checkpoint`](Self::next_checkpoint) gave is done.
    pub(crate) fn finish_checkpoint(&self, database: DatabaseNumber) {
        self.change(database, |jobs| jobs.checkpointing = false);
    }

    fn change(&self, database: DatabaseNumber, change: impl FnOnce(&mut Jobs)) {
        if let Some(jobs) = self.state.lock().databases.get_mut(&database) {
            change(jobs);
        }
        self.changed.notify_all();
    }

    fn next<T>(
        &self,
        mut take: impl FnMut(&mut State) -> Option<T>,
        comes_later: impl Fn(&State) -> bool,
    ) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(taken) = take(&mut state) {
                return Some(taken);
            }
            state = if comes_later(&state) {
                self.changed.wait_for(state, PATIENCE)
            } else {
                self.changed.wait(state)
            };
        }
    }

    /// Whether nothing of `database` waits or runs.
    pub(super) fn is_idle(&self, database: DatabaseNumber) -> bool {
        self.state.lock().databases.get(&database).is_none_or(Jobs::is_idle)
    }

    /// Waits until a job may have come, gone or ended, or for `timeout`; not at all if `database` is stopped.
    pub(super) fn pause(&self, database: DatabaseNumber, timeout: Duration) {
        let state = self.state.lock();
        if state.databases.get(&database).is_some_and(|jobs| !jobs.stopped) {
            drop(self.changed.wait_for(state, timeout));
        }
    }

    /// A merge of `database` that waits, whether or not threads could find it.
    #[cfg(test)]
    pub(super) fn take_merge_of(&self, database: DatabaseNumber) -> Option<Arc<Family>> {
        self.state.lock().databases.get_mut(&database)?.take_merge(false)
    }

    /// A checkpoint of `database` that waits, whether or not threads could find it.
    #[cfg(test)]
    pub(super) fn take_due_of(&self, database: DatabaseNumber) -> Option<Due> {
        self.state.lock().databases.get_mut(&database)?.take_due()
    }
}
