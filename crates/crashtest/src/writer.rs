//! One writer of a workload: carries out steps, notes what was acknowledged, and compares what it reads.

use std::collections::VecDeque;

use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, Durability, Error, ErrorKind, FamilyOptions, FamilySnapshot, Iter,
    WriteBatch,
};

use crate::digest::{self, Sums};
use crate::history::{Action, Change, History, State};
use crate::recovery::{read_family, unreadable};
use crate::run::{FAMILIES, Run};
use crate::step::{Step, Write, value};
use crate::violation::{Checked, Kind, Violation};

/// Snapshots that are held at once.
const MAX_SNAPSHOTS: usize = 3;

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

struct HeldSnapshot {
    families: Vec<(String, FamilySnapshot)>,
    sums: Sums,
}

struct HeldIterator {
    iterator: Iter,
    /// What is still to come.
    rest: VecDeque<(Vec<u8>, u128)>,
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
    /// Whether reads may fail, since the disk is told to.
    forgives_reads: bool,
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
            forgives_reads: false,
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
            let outcome = self.act(run, action, Keeps::Itself, |db| {
                db.create_column_family(name, FamilyOptions::default()).map(drop)
            })?;
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

    /// The writer on a disk whose reads may fail.
    #[must_use]
    pub fn forgiving_reads(mut self) -> Self {
        self.forgives_reads = true;
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

    fn key(&self, key: u16) -> Vec<u8> {
        let [high, low] = key.to_be_bytes();
        vec![self.number as u8, high, low]
    }

    fn change(&mut self, write: Write) -> (u8, Change) {
        match write {
            Write::Put(family, key, len) => {
                self.values += 1;
                let number = (self.number as u64) << 48 | self.values;
                (family, Change::Put(self.key(key), value(number, usize::from(len))))
            }
            Write::Delete(family, key) => (family, Change::Delete(self.key(key))),
            Write::DeleteRange(family, from, to) => {
                (family, Change::DeleteRange(self.key(from), self.key(to)))
            }
        }
    }

    /// Carries out one step.
    ///
    /// # Errors
    /// A broken promise. That the database refuses or fails is none in itself.
    pub fn perform(&mut self, run: &Run, step: &Step) -> Checked<Outcome> {
        match step {
            Step::Commit(writes, durability) => {
                let changes: Vec<(String, Change)> = writes
                    .iter()
                    .map(|write| {
                        let (family, change) = self.change(*write);
                        (self.family_name(family), change)
                    })
                    .collect();
                self.commit(run, changes, *durability)
            }
            Step::Unlogged(write) => {
                let (_, change) = self.change(*write);
                self.commit(run, vec![(FAMILIES[2].to_owned(), change)], Durability::None)
            }
            Step::Sync => self.keep(run, Keeps::Logged, |db| db.sync()),
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
            Step::Snapshot => self.forgive(|writer| writer.take_snapshot(run)),
            Step::Compare => self.forgive(Self::compare_snapshot),
            Step::Iterate(family) => {
                let name = self.family_name(*family);
                self.forgive(|writer| writer.iterate(run, &name))
            }
            Step::Read => self.forgive(|writer| writer.read(run)),
            Step::Create(number) => {
                let name = self.own_name(*number);
                if self.state().family_sum(&name).is_some() {
                    return Ok(Outcome::Done);
                }
                let action = Action::Create(name.clone());
                self.act(run, action, Keeps::Itself, |db| {
                    db.create_column_family(&name, FamilyOptions::default()).map(drop)
                })
            }
            Step::Drop(number) => {
                let name = self.own_name(*number);
                if self.state().family_sum(&name).is_none() {
                    return Ok(Outcome::Done);
                }
                let action = Action::Drop(name.clone());
                self.act(run, action, Keeps::Itself, |db| db.drop_column_family(&name))
            }
            Step::Rename(from, to) => {
                let (from, to) = (self.own_name(*from), self.own_name(*to));
                if self.state().family_sum(&from).is_none() || self.state().family_sum(&to).is_some() {
                    return Ok(Outcome::Done);
                }
                let action = Action::Rename(from.clone(), to.clone());
                self.act(run, action, Keeps::Itself, |db| db.rename_column_family(&from, &to))
            }
            Step::Close => self.reopen(run, ColumnFamilyDatabase::close),
            Step::Abandon => self.reopen(run, |db| {
                drop(db);
                Ok(())
            }),
        }
    }

    fn commit(
        &mut self,
        run: &Run,
        changes: Vec<(String, Change)>,
        durability: Durability,
    ) -> Checked<Outcome> {
        let keeps = if durability == Durability::Sync { Keeps::Itself } else { Keeps::Nothing };
        let action = Action::Commit { changes: changes.clone() };
        self.act_on(run, action, durability == Durability::None, keeps, |db| {
            let mut batch = WriteBatch::new();
            for (family, change) in &changes {
                let family = db.column_family(family)?;
                match change {
                    Change::Put(key, value) => batch.put(&family, key, value),
                    Change::Delete(key) => batch.delete(&family, key),
                    Change::DeleteRange(start, end) => batch.delete_range(&family, &start[..]..&end[..]),
                };
            }
            db.write_with(&batch, durability)
        })
    }

    fn act(
        &mut self,
        run: &Run,
        action: Action,
        keeps: Keeps,
        act: impl FnOnce(&ColumnFamilyDatabase) -> peristyle::Result<()>,
    ) -> Checked<Outcome> {
        self.act_on(run, action, false, keeps, act)
    }

    /// Carries out and notes something that changes what the database holds.
    fn act_on(
        &mut self,
        run: &Run,
        action: Action,
        unlogged: bool,
        keeps: Keeps,
        act: impl FnOnce(&ColumnFamilyDatabase) -> peristyle::Result<()>,
    ) -> Checked<Outcome> {
        let mut floor = run.acknowledged();
        let db = run.db();
        let had_failed = self.failed.is_some();
        self.histories[usize::from(unlogged)].begin(action, run.disk().operations(), run.tick());
        let outcome = self.judge(act(&db))?;
        let history = &mut self.histories[usize::from(unlogged)];
        match &outcome {
            Outcome::Done => {
                history.acknowledge(run.disk().operations(), run.tick());
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
            Err(error) => {
                self.failed.get_or_insert(error.clone());
                Ok(Outcome::Failed(error))
            }
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
            (Err(error), _) => match error.kind() {
                ErrorKind::OutOfSpace => Ok(Outcome::Refused(error)),
                ErrorKind::Io | ErrorKind::WriteFailed => {
                    self.failed.get_or_insert(error.clone());
                    Ok(Outcome::Failed(error))
                }
                ErrorKind::Corruption => Err(Violation::new(Kind::Wrong, format!("an honest disk: {error}"))),
                _ => Err(Violation::new(Kind::Wrong, format!("an unexpected failure: {error}"))),
            },
        }
    }

    /// Reads fail where the disk does, but give nothing wrong.
    fn forgive(&mut self, read: impl FnOnce(&mut Self) -> Result<Checked<()>, Error>) -> Checked<Outcome> {
        match read(self) {
            Ok(checked) => checked.map(|()| Outcome::Done),
            Err(error) if self.forgives_reads && error.kind() == ErrorKind::Io => Ok(Outcome::Refused(error)),
            Err(error) => Err(unreadable(&error)),
        }
    }

    /// Events of a history that are not in doubt: at most the last one is, after a failure.
    fn certain(history: &History) -> usize {
        let in_doubt = history.events().last().is_some_and(|event| event.acknowledged.is_none());
        history.events().len() - usize::from(in_doubt)
    }

    /// The families that this writer may read undisturbed by others.
    fn readable(&self, db: &ColumnFamilyDatabase) -> peristyle::Result<Vec<(String, ColumnFamily)>> {
        let logged = &self.histories[0];
        let certain = Self::certain(logged);
        let before;
        let state = if certain == logged.events().len() {
            logged.state()
        } else {
            before = logged.state_after(certain);
            &before
        };
        let own = state.names().filter(|name| digest::owner(name) == Some(self.number));
        let names = FAMILIES.into_iter().chain(own);
        names.map(|name| Ok((name.to_owned(), db.column_family(name)?))).collect()
    }

    /// Compares what was read of the present with what this writer did. Only while no write of it is in doubt.
    fn compare(&self, sums: &Sums) -> Checked<()> {
        for history in &self.histories {
            let expected = Self::certain(history);
            if history.part_of(sums) != history.sum(expected) {
                return Err(Violation::new(
                    Kind::Wrong,
                    format!("writer {} does not read what it wrote in {expected} events", self.number),
                ));
            }
        }
        Ok(())
    }

    fn read_all(families: &[(String, FamilySnapshot)]) -> Result<Checked<Sums>, Error> {
        let mut sums = Sums::default();
        for (name, family) in families {
            match read_family(family, |_, _| ())? {
                Ok(sum) => drop(sums.families.insert(name.clone(), sum)),
                Err(violation) => return Ok(Err(violation)),
            }
        }
        Ok(Ok(sums))
    }

    fn present(&self, run: &Run) -> Result<Vec<(String, FamilySnapshot)>, Error> {
        let db = run.db();
        let families = self.readable(&db)?;
        let snapshot = db.snapshot()?;
        families.into_iter().map(|(name, family)| Ok((name, snapshot.column_family(&family)?))).collect()
    }

    fn read(&mut self, run: &Run) -> Result<Checked<()>, Error> {
        Ok(Self::read_all(&self.present(run)?)?.and_then(|sums| self.compare(&sums)))
    }

    fn take_snapshot(&mut self, run: &Run) -> Result<Checked<()>, Error> {
        if self.snapshots.len() == MAX_SNAPSHOTS {
            return self.compare_snapshot();
        }
        let families = self.present(run)?;
        let sums = match Self::read_all(&families)? {
            Ok(sums) => sums,
            Err(violation) => return Ok(Err(violation)),
        };
        let compared = self.compare(&sums);
        self.snapshots.push_back(HeldSnapshot { families, sums });
        Ok(compared)
    }

    fn compare_snapshot(&mut self) -> Result<Checked<()>, Error> {
        let Some(held) = self.snapshots.pop_front() else { return Ok(Ok(())) };
        Ok(Self::read_all(&held.families)?.and_then(|sums| {
            if sums == held.sums {
                return Ok(());
            }
            Err(Violation::new(Kind::Wrong, "a snapshot reads something else than when it was taken"))
        }))
    }

    fn iterate(&mut self, run: &Run, name: &str) -> Result<Checked<()>, Error> {
        if let Some(HeldIterator { iterator, mut rest }) = self.iterator.take() {
            for entry in iterator {
                let (key, value) = entry?;
                if rest.pop_front() != Some((key.clone(), digest::entry(&key, &value))) {
                    let message = format!("an iterator gives {key:?}, which was not there when it was made");
                    return Ok(Err(Violation::new(Kind::Wrong, message)));
                }
            }
            if !rest.is_empty() {
                let message = format!("an iterator ends {} entries too early", rest.len());
                return Ok(Err(Violation::new(Kind::Wrong, message)));
            }
            return Ok(Ok(()));
        }
        let family = run.db().column_family(name)?.snapshot()?;
        let mut rest = VecDeque::new();
        if let Err(violation) = read_family(&family, |key, sum| rest.push_back((key.to_vec(), sum)))? {
            return Ok(Err(violation));
        }
        let mut iterator = family.iter();
        for _ in 0..rest.len() / 2 {
            let expected = rest.pop_front();
            let found = iterator.next().transpose()?;
            let found = found.map(|(key, value)| {
                let sum = digest::entry(&key, &value);
                (key, sum)
            });
            if found != expected {
                return Ok(Err(Violation::new(
                    Kind::Wrong,
                    "an iterator and a cursor give different entries",
                )));
            }
        }
        self.iterator = Some(HeldIterator { iterator, rest });
        Ok(Ok(()))
    }

    /// Compares and lets go of everything that is held, before the database ends.
    ///
    /// # Errors
    /// What is read wrongly.
    pub fn finish(&mut self, run: &Run) -> Checked<()> {
        while !self.snapshots.is_empty() {
            self.forgive(Self::compare_snapshot)?;
        }
        if self.iterator.is_some() {
            self.forgive(|writer| writer.iterate(run, FAMILIES[0]))?;
        }
        Ok(())
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
