//! One writer of a workload: carries out steps, notes what was acknowledged, and compares what it reads.

mod reading;

use std::collections::VecDeque;
#[cfg(not(shuttle))]
use std::sync::mpsc;

use peristyle::{ColumnFamilyDatabase, Durability, Error, ErrorKind, Transaction, WriteBatch};

#[cfg(shuttle)]
use shuttle::sync::mpsc;

use self::reading::{HeldIterator, HeldSnapshot};
use crate::chain::family_options;
use crate::disk::SimulatedDisk;
use crate::history::{Action, Change, History, State, is_unlogged};
use crate::run::{FAMILIES, Run, Setup};
use crate::step::{Step, Write, value};
use crate::violation::{Checked, Kind, Violation};

/// How a step ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused, and changed nothing.
    Refused(Error),
    /// It failed; whether it is there after the next recovery is not known.
    Failed(Error),
}

/// One writer.
pub struct Writer {
    number: usize,
    /// What is logged, and what is not.
    histories: [History; 2],
    values: u64,
    snapshots: VecDeque<HeldSnapshot>,
    iterator: Option<HeldIterator>,
    /// The first failure after which nothing may be acknowledged.
    failed: Option<Error>,
    /// With what reads may fail, since the disk is told to.
    forgives: Vec<ErrorKind>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Writer {
    /// A writer who finds what is in `base`.
    pub fn new(number: usize, base: &State) -> Self {
        let histories = [false, true].map(|unlogged| History::new(number, unlogged, base));
        Self {
            number,
            histories,
            values: 0,
            snapshots: VecDeque::new(),
            iterator: None,
            failed: None,
            forgives: Vec::new(),
        }
    }

    /// Creates the families that are always there, as the first thing.
    ///
    /// # Errors
    /// A broken promise.
    pub fn found(&mut self, run: &Run, names: &[&str]) -> Checked<Outcome> {
        self.find(names);
        for name in names {
            let action = Action::Create((*name).to_owned());
            let outcome =
                self.act_on(run, action, false, Durability::Sync, Keeps::Itself, (execute, false))?;
            if !matches!(outcome, Outcome::Done) {
                return Ok(outcome);
            }
        }
        Ok(Outcome::Done)
    }

    /// The families were created, by whomever.
    pub fn find(&mut self, names: &[&str]) {
        for history in &mut self.histories {
            history.find(names);
        }
    }

    /// The writer on a disk whose reads may fail with `kind`.
    #[must_use]
    pub fn forgiving(mut self, kind: ErrorKind) -> Self {
        self.forgives.push(kind);
        self
    }

    /// What it did.
    pub fn into_histories(self) -> [History; 2] {
        self.histories
    }

    /// The first failure of a write.
    pub fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// The sum of its entries in one of the families that are always there.
    pub fn sum_of(&self, name: &str) -> Option<u128> {
        self.histories[usize::from(is_unlogged(name))].state().family_sum(name)
    }

    /// The state that it should see of its own.
    fn state(&self) -> &State {
        self.histories[0].state()
    }

    fn own_name(&self, number: u8) -> String {
        format!("w{}-{number}", self.number)
    }

    /// The name of a family of a step, which falls back to the first if it does not exist.
    fn family_name(&self, family: u8) -> String {
        if family < 2 {
            return FAMILIES[usize::from(family)].to_owned();
        }
        let own = self.own_name(family);
        if self.state().family_sum(&own).is_some() { own } else { FAMILIES[0].to_owned() }
    }

    /// Where several writers' keys stand in one node, each writer's are alike as far as heads reach.
    fn key(&self, key: u16) -> Vec<u8> {
        let [high, low] = key.to_be_bytes();
        vec![self.number as u8, 0, 0, 0, high, low]
    }

    fn change(&mut self, write: Write) -> (u8, Change) {
        match write {
            Write::Put(family, key, len) => {
                self.values += 1;
                let number = (self.number as u64) << 48 | self.values;
                (family, Change::Put(self.key(key), value(number, usize::from(len))))
            }
            Write::Merge(family, key, len) => {
                self.values += 1;
                let number = (self.number as u64) << 48 | self.values;
                (family, Change::Merge(self.key(key), value(number, usize::from(len))))
            }
            Write::Delete(family, key) => (family, Change::Delete(self.key(key))),
            Write::DeleteRange(family, from, to) => {
                (family, Change::DeleteRange(self.key(from), self.key(to)))
            }
        }
    }

    /// What a step does to what the database holds, if anything, and whether it has a log record.
    fn plan(&mut self, step: &Step) -> Option<(Action, bool)> {
        let exists =
            |writer: &Self, number: u8| writer.state().family_sum(&writer.own_name(number)).is_some();
        match step {
            Step::Commit(writes, _) | Step::Transact(writes, _) => {
                let changes = writes.iter().map(|write| {
                    let (family, change) = self.change(*write);
                    (self.family_name(family), change)
                });
                Some((Action::Commit { changes: changes.collect() }, false))
            }
            Step::Prepare(_) if self.histories[0].undecided().is_some() => None,
            Step::Prepare(writes) => {
                let changes = writes.iter().map(|write| {
                    let (family, change) = self.change(write.apart());
                    (FAMILIES[usize::from(family % 2)].to_owned(), change)
                });
                let changes = changes.collect();
                self.values += 1;
                let name = [&[self.number as u8][..], &self.values.to_be_bytes()].concat();
                Some((Action::Prepare { name, changes }, false))
            }
            Step::Decide(commits) => {
                let (name, changes) = self.histories[0].undecided()?;
                let changes = if *commits { changes.to_vec() } else { Vec::new() };
                Some((Action::Decide { name: name.to_vec(), changes, commits: *commits }, false))
            }
            Step::Update(family, key, len, _) => {
                let (family, change) = self.change(Write::Put(*family, *key, *len));
                Some((Action::Commit { changes: vec![(self.family_name(family), change)] }, false))
            }
            Step::Unlogged(write) => {
                let (_, change) = self.change(*write);
                Some((Action::Commit { changes: vec![(FAMILIES[2].to_owned(), change)] }, true))
            }
            Step::Create(number) if !exists(self, *number) => {
                Some((Action::Create(self.own_name(*number)), false))
            }
            Step::CreateBoth if !exists(self, 2) && !exists(self, 3) => {
                Some((Action::CreateAll(vec![self.own_name(2), self.own_name(3)]), false))
            }
            Step::Drop(number) if exists(self, *number) => {
                Some((Action::Drop(self.own_name(*number)), false))
            }
            Step::Rename(from, to) if exists(self, *from) && !exists(self, *to) => {
                Some((Action::Rename(self.own_name(*from), self.own_name(*to)), false))
            }
            _ => None,
        }
    }

    /// Notes what a step does without doing it: another process did, and was heard to acknowledge it or not.
    pub fn follow(&mut self, step: &Step, moment: usize, acknowledged: bool) {
        let Some((action, unlogged)) = self.plan(step) else { return };
        let history = &mut self.histories[usize::from(unlogged)];
        history.begin(action, moment, moment as u64);
        if acknowledged {
            history.acknowledge(moment, moment as u64);
        }
    }

    /// Events so far: those that have log records, and those that have none.
    pub fn events(&self) -> [usize; 2] {
        [self.histories[0].events().len(), self.histories[1].events().len()]
    }

    /// Carries out one step.
    ///
    /// # Errors
    /// A broken promise. That the database refuses or fails is none in itself.
    pub fn perform(&mut self, run: &Run, step: &Step) -> Checked<Outcome> {
        match step {
            Step::Commit(_, durability) | Step::Transact(_, durability) | Step::Update(.., durability) => {
                let keeps = if *durability == Durability::Sync { Keeps::Itself } else { Keeps::Nothing };
                self.act(run, step, *durability, keeps)
            }
            Step::Unlogged(_) => self.act(run, step, Durability::None, Keeps::Nothing),
            Step::Prepare(_)
            | Step::Decide(_)
            | Step::Create(_)
            | Step::CreateBoth
            | Step::Drop(_)
            | Step::Rename(..) => self.act(run, step, Durability::Sync, Keeps::Itself),
            Step::Sync => self.keep(run, Keeps::Logged, ColumnFamilyDatabase::sync),
            // The log may be whole when something else is not.
            Step::Told if self.failed.is_some() => Ok(Outcome::Done),
            Step::Told => self.keep(run, Keeps::Logged, be_told),
            Step::Flush => self.keep(run, Keeps::All, ColumnFamilyDatabase::flush),
            Step::FlushFamily(family) => {
                let name = self.family_name(*family);
                self.keep(run, Keeps::Logged, |db| db.flush_column_family(&db.column_family(&name)?))
            }
            Step::Merge => self.keep(run, Keeps::Nothing, ColumnFamilyDatabase::wait_until_idle),
            Step::Checkpoint => self.keep(run, Keeps::Logged, ColumnFamilyDatabase::checkpoint),
            Step::Compact => self.keep(run, Keeps::All, ColumnFamilyDatabase::compact),
            Step::CompactFamily(family) => {
                let name = self.family_name(*family);
                self.keep(run, Keeps::Logged, |db| db.compact_column_family(&db.column_family(&name)?))
            }
            Step::Copy => self.keep(run, Keeps::Logged, copied),
            Step::Snapshot => self.forgive(|writer| writer.take_snapshot(run)),
            Step::Compare => self.forgive(Self::compare_snapshot),
            Step::Iterate(family) => {
                let name = self.family_name(*family);
                self.forgive(|writer| writer.iterate(run, &name))
            }
            Step::Read => self.forgive(|writer| writer.read(run)),
            Step::Close => self.reopen(run, ColumnFamilyDatabase::close),
            Step::Abandon => self.reopen(run, |db| {
                drop(db);
                Ok(())
            }),
        }
    }

    /// Carries out and notes a step that changes what the database holds.
    fn act(&mut self, run: &Run, step: &Step, durability: Durability, keeps: Keeps) -> Checked<Outcome> {
        match self.plan(step) {
            Some((action, unlogged)) => {
                let execute: Execute = match step {
                    Step::Update(..) => update,
                    Step::Transact(..) | Step::Prepare(..) => transact,
                    _ => execute,
                };
                let reads = matches!(
                    step,
                    Step::Update(..) | Step::Transact(..) | Step::Prepare(..) | Step::Decide(..)
                );
                self.act_on(run, action, unlogged, durability, keeps, (execute, reads))
            }
            None => Ok(Outcome::Done),
        }
    }

    fn act_on(
        &mut self,
        run: &Run,
        action: Action,
        unlogged: bool,
        durability: Durability,
        keeps: Keeps,
        (execute, reads): (Execute, bool),
    ) -> Checked<Outcome> {
        let mut floor = run.acknowledged();
        let db = run.db();
        let had_failed = self.failed.is_some();
        self.histories[usize::from(unlogged)].begin(action.clone(), run.moment(), run.tick());
        let result = execute(&db, &action, durability);
        let is_read = |error: &Error| reads && error.location().page.is_some();
        let outcome = match result {
            // What is there could not be read, and nothing was written yet.
            Err(error) if is_read(&error) && self.forgives.contains(&error.kind()) => Outcome::Refused(error),
            result => self.judge(result)?,
        };
        let history = &mut self.histories[usize::from(unlogged)];
        match &outcome {
            Outcome::Done => {
                history.acknowledge(run.moment(), run.tick());
                let events = history.events().len();
                run.acknowledge(self.number, unlogged, events);
                if keeps == Keeps::Itself {
                    floor.events[self.number][usize::from(unlogged)] = events;
                    self.note_floor(run, floor, Keeps::Logged);
                }
            }
            Outcome::Refused(_) => history.take_back(),
            // What came after the first failure did not reach the log.
            Outcome::Failed(_) if had_failed => history.take_back(),
            Outcome::Failed(_) => {}
        }
        Ok(outcome)
    }

    /// Notes that what `floor` holds is durable now.
    fn note_floor(&self, run: &Run, mut floor: crate::ledger::Floor, keeps: Keeps) {
        if keeps != Keeps::All {
            floor.events.iter_mut().for_each(|events| events[1] = 0);
        }
        run.note_floor(floor);
    }

    /// Carries out something that makes things durable.
    fn keep(
        &mut self,
        run: &Run,
        keeps: Keeps,
        act: impl FnOnce(&ColumnFamilyDatabase) -> peristyle::Result<()>,
    ) -> Checked<Outcome> {
        let floor = run.acknowledged();
        let outcome = self.judge(act(&run.db()))?;
        if matches!(outcome, Outcome::Done) && keeps != Keeps::Nothing {
            self.note_floor(run, floor, keeps);
        }
        Ok(outcome)
    }

    fn reopen(
        &mut self,
        run: &Run,
        end: impl FnOnce(ColumnFamilyDatabase) -> peristyle::Result<()>,
    ) -> Checked<Outcome> {
        // They may not be read on from now on.
        self.snapshots.clear();
        self.iterator = None;
        let outcome = run.reopen(end);
        match outcome {
            Ok(()) => Ok(Outcome::Done),
            Err(error) => self.judge(Err(error)),
        }
    }

    /// Sorts what a write ended with. After a failure none may succeed.
    fn judge(&mut self, result: peristyle::Result<()>) -> Checked<Outcome> {
        match (result, &self.failed) {
            (Ok(()), None) => Ok(Outcome::Done),
            (Ok(()), Some(first)) => Err(Violation::new(
                Kind::Wrong,
                format!("a write was acknowledged after one had failed with: {first}"),
            )),
            (Err(error), _) if self.forgives.is_empty() => {
                Err(Violation::new(Kind::Wrong, format!("a disk that does not fail: {error}")))
            }
            (Err(error), _) => match error.kind() {
                // What cannot be read of a family ends writing to that family alone, and changes nothing.
                ErrorKind::OutOfSpace | ErrorKind::FamilyDamaged => Ok(Outcome::Refused(error)),
                ErrorKind::OutOfResources if self.forgives.contains(&ErrorKind::OutOfResources) => {
                    Ok(Outcome::Refused(error))
                }
                ErrorKind::Io | ErrorKind::WriteFailed => {
                    self.failed.get_or_insert(error.clone());
                    Ok(Outcome::Failed(error))
                }
                ErrorKind::Corruption => Err(Violation::new(Kind::Wrong, format!("an honest disk: {error}"))),
                _ => Err(Violation::new(Kind::Wrong, format!("an unexpected failure: {error}"))),
            },
        }
    }
}

/// How an action is carried out; beside it stands whether that begins with reading what is there.
type Execute = fn(&ColumnFamilyDatabase, &Action, Durability) -> peristyle::Result<()>;

/// Copies the database, and opens the copy.
fn copied(db: &ColumnFamilyDatabase) -> peristyle::Result<()> {
    let disk = SimulatedDisk::new().without_log();
    db.checkpoint_into(disk.clone())?;
    let copy = Setup::MANUAL.open(&disk)?;
    copy.verify()?.into_result()
}

/// Waits until a callback tells that all that was committed so far is durable.
fn be_told(db: &ColumnFamilyDatabase) -> peristyle::Result<()> {
    let last = db.snapshot()?.sequence_number();
    let (tell, told) = mpsc::channel();
    db.on_synced(last, move |outcome| tell.send(outcome).unwrap_or(()))?;
    told.recv().unwrap_or_else(|_| panic!("a callback was dropped and never called"))
}

/// Does a commit of one put as a step from the value that is there.
fn update(db: &ColumnFamilyDatabase, action: &Action, durability: Durability) -> peristyle::Result<()> {
    let Action::Commit { changes } = action else { unreachable!("{action:?} is no update") };
    let [(family, Change::Put(key, value))] = &changes[..] else { unreachable!("{action:?} is no update") };
    db.column_family(family)?.update_with(key, |_| Some(value), durability).map(drop)
}

/// Does a commit as a transaction that relies on what it writes. Other writers have other keys; they may
/// write more meanwhile than is kept for it.
fn transact(db: &ColumnFamilyDatabase, action: &Action, durability: Durability) -> peristyle::Result<()> {
    loop {
        match transact_once(db, action, durability) {
            Err(error) if error.kind() == ErrorKind::TransactionTooOld => {}
            outcome => return outcome,
        }
    }
}

fn transact_once(
    db: &ColumnFamilyDatabase,
    action: &Action,
    durability: Durability,
) -> peristyle::Result<()> {
    let (Action::Commit { changes } | Action::Prepare { changes, .. }) = action else {
        unreachable!("{action:?} is no transaction")
    };
    let fill = |transaction: &mut Transaction| {
        for (family, change) in changes {
            let family = db.column_family(family)?;
            match change {
                Change::Put(key, value) => {
                    transaction.get(&family, key)?;
                    transaction.put(&family, key, value)?;
                }
                Change::Merge(key, operand) => {
                    transaction.get(&family, key)?;
                    transaction.merge(&family, key, operand)?;
                    transaction.get(&family, key)?;
                }
                Change::Delete(key) => {
                    transaction.contains_key(&family, key)?;
                    transaction.delete(&family, key)?;
                }
                Change::DeleteRange(start, end) => {
                    for entry in transaction.range(&family, &start[..]..&end[..])? {
                        entry?;
                    }
                    transaction.delete_range(&family, &start[..]..&end[..])?;
                }
            }
        }
        Ok(())
    };
    if let Action::Prepare { name, .. } = action {
        let mut transaction = db.begin()?;
        fill(&mut transaction)?;
        return transaction.prepare(name).map(drop);
    }
    db.transaction().durability(durability).tries(1).run(fill)
}

/// Does what a writer noted that it will do.
fn execute(db: &ColumnFamilyDatabase, action: &Action, durability: Durability) -> peristyle::Result<()> {
    match action {
        Action::Commit { changes } => {
            let mut batch = WriteBatch::new();
            for (family, change) in changes {
                let family = db.column_family(family)?;
                match change {
                    Change::Put(key, value) => batch.put(&family, key, value),
                    Change::Merge(key, operand) => batch.merge(&family, key, operand),
                    Change::Delete(key) => batch.delete(&family, key),
                    Change::DeleteRange(start, end) => batch.delete_range(&family, &start[..]..&end[..]),
                };
            }
            db.write_with(&batch, durability).map(drop)
        }
        Action::Prepare { .. } => unreachable!("a transaction is prepared otherwise"),
        Action::Decide { name, commits, .. } => {
            let prepared = db.prepared_transactions()?;
            let prepared = prepared.iter().find(|prepared| prepared.name() == name);
            let prepared = prepared.unwrap_or_else(|| panic!("what was prepared as {name:?} is not listed"));
            if *commits { prepared.commit().map(drop) } else { prepared.rollback() }
        }
        Action::Create(name) => db.create_column_family(name, family_options()).map(drop),
        Action::CreateAll(names) => {
            let families = names.iter().map(|name| (name, family_options()));
            db.create_column_families(families).map(drop)
        }
        Action::Rename(from, to) => db.rename_column_family(from, to),
        Action::Drop(name) => db.drop_column_family(name),
    }
}

/// What a step makes durable when it succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeps {
    /// What was acknowledged before, if it has log records, and the step itself.
    Itself,
    /// What was acknowledged before, if it has log records.
    Logged,
    /// What was acknowledged before.
    All,
    Nothing,
}
