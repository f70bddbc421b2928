//! The background threads of one database, or of several that share them.
//!
//! | threads | what they do | how databases call them |
//! |---|---|---|
//! | `peristyle-work` | merge, join, drain, move pages | jobs on the [`Desk`] |
//! | `peristyle-checkpoint` | make checkpoints, see to long logs | the same |
//! | `peristyle-log` | syncs, prepares and gives back segments of logs | a bell |
//! | `peristyle-clock` | splits memory, and looks after families that something was done to | a bell |
//! | `peristyle-filters` | builds filters of deltas that lack them; there only as long as it has to | |
//!
//! Their number does not depend on the number of databases. They sleep while nothing is to be done for any.
//!
//! Invariants:
//! 1. Who does anything for a database has gone through its [`Door`]. Once that is shut and all who were
//!    inside have left, no thread does anything for the database any more: so its files can be given back
//!    while other databases go on.
//! 2. A panic while something is done for a database ends writing to that one, and no thread: others go on.
//!    Whoever kept its clock or its log does so no more, since what it knew may be wrong.
//! 3. The threads hold no handle of a crew. When the last goes, they end.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::column_family::family::Family;
use crate::column_family::merging::desk::{DatabaseNumber, Desk, Due};
use crate::db::background::{Clock, LOOK_AROUND, LogKeeper};
use crate::db::budget::{Loan, Memory};
use crate::db::shared::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::bell::Call;
use crate::sync::{Arc, Condvar, Instant, Mutex, thread};

/// How many threads a crew has of each kind that is not always one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hands {
    pub(super) merges: usize,
    pub(super) checkpoints: usize,
    pub(super) logs: usize,
}

/// Threads, the memory that the databases which they look after may take, and these.
pub(super) struct Crew {
    pub(super) desk: Arc<Desk>,
    pub(super) memory: Arc<Memory>,
    members: Mutex<BTreeMap<DatabaseNumber, Arc<Member>>>,
    filters: Mutex<Filters>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

/// Databases whose deltas lack filters, and the thread that is at it.
#[derive(Default)]
struct Filters {
    waiting: VecDeque<Arc<Member>>,
    is_at_work: bool,
    thread: Option<thread::JoinHandle<()>>,
}

/// A database that a crew looks after.
struct Member {
    shared: Arc<Shared>,
    door: Door,
    clock: Mutex<Round<Clock>>,
    log: Mutex<Round<LogKeeper>>,
}

/// What a thread that comes round to every database knows of one, and when it comes next.
struct Round<T> {
    /// `None` once that panicked.
    knows: Option<T>,
    came: Instant,
    /// How long after it came it comes again, unless it is called; `None` if only then.
    tick: Option<Duration>,
}

impl<T> Round<T> {
    fn new(knows: T) -> Self {
        Self { knows: Some(knows), came: Instant::now(), tick: Some(Duration::ZERO) }
    }

    /// For how long nothing is due.
    fn left(&self) -> Option<Duration> {
        self.tick.map(|tick| tick.saturating_sub(self.came.elapsed()))
    }
}

/// Through which threads come to a database.
#[derive(Default)]
struct Door {
    state: Mutex<DoorState>,
    left: Condvar,
}

#[derive(Default)]
struct DoorState {
    shut: bool,
    inside: Vec<thread::ThreadId>,
}

/// Somebody does something for a database.
struct Inside<'d>(&'d Door);

impl Door {
    /// `None` once it is shut.
    fn enter(&self) -> Option<Inside<'_>> {
        let mut state = self.state.lock();
        if state.shut {
            return None;
        }
        state.inside.push(thread::current().id());
        Some(Inside(self))
    }

    /// Lets nobody in any more, and returns when all have left; but for the one who calls, should code of
    /// users have brought him here.
    fn shut(&self) {
        let me = thread::current().id();
        let mut state = self.state.lock();
        state.shut = true;
        while state.inside.iter().any(|thread| *thread != me) {
            state = self.left.wait(state);
        }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let me = thread::current().id();
        let mut state = self.0.state.lock();
        if let Some(at) = state.inside.iter().position(|thread| *thread == me) {
            state.inside.swap_remove(at);
        }
        drop(state);
        self.0.left.notify_all();
    }
}

impl Member {
    /// Does something for the database, unless it has left. `None` if so, or if that panicked.
    fn serve<R>(&self, serve: impl FnOnce(&Shared) -> R) -> Option<R> {
        let _inside = self.door.enter()?;
        let served = catch_unwind(AssertUnwindSafe(|| serve(&self.shared))).ok();
        if served.is_none() {
            // A broken invariant ends all writing; it must not leave writers waiting.
            self.shared.pipeline.fail(Error::new(ErrorKind::WriteFailed, "a background thread panicked"));
        }
        served
    }

    /// Does something for the database with what the thread knows of it.
    fn serve_with<T, R>(&self, round: &mut Round<T>, serve: impl FnOnce(&Shared, &mut T) -> R) -> Option<R> {
        let knows = round.knows.as_mut()?;
        let served = self.serve(|shared| serve(shared, knows));
        if served.is_none() {
            round.knows = None;
            round.tick = None;
        }
        served
    }

    /// Comes round if that is due or it was called. Says for how long nothing is due.
    fn come_round<T>(
        &self,
        round: &mut Round<T>,
        is_due: bool,
        serve: impl FnOnce(&Shared, &mut T) -> Option<Duration>,
    ) -> Option<Duration> {
        if is_due && let Some(tick) = self.serve_with(round, serve) {
            (round.came, round.tick) = (Instant::now(), tick);
        }
        round.left()
    }
}

/// Whether a round is due of which `left` is left, or `call` was rung.
fn is_due(left: Option<Duration>, call: &Call) -> bool {
    // Asked in any case, so that it is heard once.
    call.take() | left.is_some_and(|left| left.is_zero())
}

fn sooner(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Crew {
    /// Without threads, until they are [hired](Self::hire).
    pub(super) fn new(desk: Arc<Desk>, memory: Memory) -> Arc<Self> {
        Arc::new(Self {
            desk,
            memory: Arc::new(memory),
            members: Mutex::default(),
            filters: Mutex::default(),
            threads: Mutex::default(),
        })
    }

    /// Starts `hands`, and a thread that keeps the clock.
    pub(super) fn hire(self: &Arc<Self>, hands: Hands) -> Result<()> {
        for number in 0..hands.merges {
            self.start(format!("peristyle-work-{number}"), Self::merge)?;
        }
        for _ in 0..hands.logs {
            self.start("peristyle-log".into(), Self::keep_logs)?;
        }
        for _ in 0..hands.checkpoints {
            self.start("peristyle-checkpoint".into(), Self::make_checkpoints)?;
        }
        self.start("peristyle-clock".into(), Self::keep_clocks)
    }

    fn start(self: &Arc<Self>, name: String, run: fn(&Self)) -> Result<()> {
        let crew = Arc::clone(self);
        let thread = thread::Builder::new().name(name).spawn(move || run(&crew));
        self.threads.lock().push(thread.map_err(|error| Error::io("starting a background thread", error))?);
        Ok(())
    }

    /// Ends the threads. To be called when no database is looked after any more.
    pub(super) fn dismiss(&self) {
        self.desk.stop();
        let filters = self.filters.lock().thread.take();
        let me = thread::current().id();
        for thread in std::mem::take(&mut *self.threads.lock()).into_iter().chain(filters) {
            // Code of users may have brought one of them here, to let go of the last handle.
            if thread.thread().id() != me {
                let _ = thread.join();
            }
        }
    }

    /// Looks after a database from now on, until it [leaves](Self::leave).
    pub(super) fn join(self: &Arc<Self>, shared: &Arc<Shared>) {
        let member = Arc::new(Member {
            shared: Arc::clone(shared),
            door: Door::default(),
            clock: Mutex::new(Round::new(Clock::new())),
            log: Mutex::new(Round::new(LogKeeper::new(shared))),
        });
        let number = shared.pipeline.database;
        let before = self.members.lock().insert(number, Arc::clone(&member));
        assert!(before.is_none(), "database {number} is looked after twice");
        self.desk.admit(number);
        shared.pipeline.work.clock.ring();
        shared.pipeline.work.log.ring();
        if shared.options.automatic && shared.lack_filters() {
            self.build_filters_of(member);
        }
    }

    /// Returns when nothing is done for the database any more.
    pub(super) fn leave(&self, database: DatabaseNumber) {
        let member = self.members.lock().remove(&database);
        if let Some(member) = member {
            member.door.shut();
            self.filters.lock().waiting.retain(|waiting| !Arc::ptr_eq(waiting, &member));
        }
    }

    fn members(&self) -> Vec<Arc<Member>> {
        self.members.lock().values().cloned().collect()
    }

    /// The databases that are looked after.
    pub(super) fn databases(&self) -> Vec<Arc<Shared>> {
        self.members.lock().values().map(|member| Arc::clone(&member.shared)).collect()
    }

    /// Lends memory for writing to a replay: what the databases do not use.
    pub(super) fn lend(&self) -> Loan<'_> {
        let taken = self.databases().iter().map(|shared| shared.bytes_for_writing()).sum();
        self.memory.lend(taken)
    }

    fn families(&self) -> Vec<Arc<Family>> {
        self.databases().iter().flat_map(|shared| shared.families()).collect()
    }

    pub(super) fn serve<R>(&self, database: DatabaseNumber, serve: impl FnOnce(&Shared) -> R) {
        let member = self.members.lock().get(&database).cloned();
        member.and_then(|member| member.serve(serve));
    }

    fn merge(&self) {
        while let Some((database, family)) = self.desk.next_merge() {
            self.serve(database, |shared| shared.merge_in_background(&family));
            self.desk.finish_merge(database, &family);
        }
    }

    fn make_checkpoints(&self) {
        while let Some((database, due)) = self.desk.next_checkpoint() {
            self.serve(database, |shared| shared.make_due_in_background(due));
            self.desk.finish_checkpoint(database);
        }
    }

    fn keep_logs(&self) {
        let mut tick = None;
        while !self.desk.is_stopped() {
            self.desk.log.sleep(tick);
            tick = None;
            for member in self.members() {
                let mut round = member.log.lock();
                let due = is_due(round.left(), &member.shared.pipeline.work.log);
                tick = sooner(tick, member.come_round(&mut round, due, Shared::keep_log));
            }
        }
    }

    fn keep_clocks(&self) {
        let mut tick = None;
        let mut looked = Instant::now();
        while !self.desk.is_stopped() {
            self.desk.clock.sleep(tick);
            tick = self.keep_time(&mut looked);
        }
    }

    /// Does for all databases what is due. All that are awake are looked after at the same moments, every
    /// [`LOOK_AROUND`]: so memory is split by what all of them did, and one thread that wakes twice a second
    /// is enough for any number.
    fn keep_time(&self, looked: &mut Instant) -> Option<Duration> {
        let looks = looked.elapsed() >= LOOK_AROUND;
        let mut members = self.members();
        members.retain(|member| {
            let round = member.clock.lock();
            is_due(round.left(), &member.shared.pipeline.work.clock) || looks && round.tick.is_some()
        });
        if looks {
            *looked = Instant::now();
            let see = |member: &Arc<Member>| member.serve_with(&mut member.clock.lock(), Shared::see);
            let wishes: Vec<_> = members.iter().filter_map(see).flatten().collect();
            self.memory.rebalance_writing(&wishes);
            self.memory.rebalance_caches(|| self.families());
        }
        for member in &members {
            let keep_time = |shared: &Shared, clock: &mut Clock| shared.keep_time(clock, looks);
            member.come_round(&mut member.clock.lock(), true, keep_time);
        }
        let mut next = None;
        for member in self.members() {
            next = sooner(next, member.clock.lock().left());
        }
        let hungry = self.memory.is_hungry().then(|| LOOK_AROUND.saturating_sub(looked.elapsed()));
        sooner(next, hungry)
    }

    /// Has the filters of a database's deltas built by a thread that ends when no database waits for that.
    fn build_filters_of(self: &Arc<Self>, member: Arc<Member>) {
        let mut filters = self.filters.lock();
        filters.waiting.push_back(member);
        if filters.is_at_work {
            return;
        }
        let crew = Arc::clone(self);
        let thread = thread::Builder::new().name("peristyle-filters".into());
        match thread.spawn(move || crew.build_filters()) {
            Ok(thread) => (filters.is_at_work, filters.thread) = (true, Some(thread)),
            Err(error) => {
                filters.waiting.clear();
                tracing::warn!(%error, "deltas stay without filters");
            }
        }
    }

    fn build_filters(&self) {
        loop {
            let next = {
                let mut filters = self.filters.lock();
                let next = filters.waiting.pop_front();
                filters.is_at_work = next.is_some();
                next
            };
            let Some(member) = next else { return };
            member.serve(Shared::build_filters);
        }
    }
}

impl Shared {
    fn make_due_in_background(&self, due: Due) {
        if let Err(error) = self.make_due(due) {
            tracing::warn!(%error, "a checkpoint was put off");
            if error.is_refusal() {
                self.pipeline.log_pace.obstruct(error);
            }
        }
    }
}
