//! What a writer reads: it must be what the writer wrote, and what is held must stay as it was.

use std::collections::VecDeque;

use peristyle::{ColumnFamily, ColumnFamilyDatabase, Error, FamilySnapshot, Iter};

use super::{Outcome, Writer};
use crate::digest::{self, Sums};
use crate::history::History;
use crate::recovery::{read_family, read_prepared, unreadable};
use crate::run::{FAMILIES, Run};
use crate::violation::{Checked, Kind, Violation};

/// Snapshots that are held at once.
const MAX_SNAPSHOTS: usize = 3;

pub(super) struct HeldSnapshot {
    families: Vec<(String, FamilySnapshot)>,
    sums: Sums,
}

pub(super) struct HeldIterator {
    iterator: Iter,
    /// What is still to come.
    rest: VecDeque<(Vec<u8>, u128)>,
}

impl Writer {
    /// Reads fail where the disk does, but give nothing wrong.
    pub(super) fn forgive(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Checked<()>, Error>,
    ) -> Checked<Outcome> {
        match read(self) {
            Ok(checked) => checked.map(|()| Outcome::Done),
            Err(error) if self.forgives.contains(&error.kind()) => Ok(Outcome::Refused(error)),
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

    /// Compares what was read of the present, and what is prepared, with what this writer did.
    fn compare_present(&self, db: &ColumnFamilyDatabase, mut sums: Sums) -> Result<Checked<()>, Error> {
        read_prepared(db, &mut sums, |_, _| ())?;
        Ok(self.compare(&sums))
    }

    /// Compares what was read of the present with what this writer did. A write that is in doubt is there
    /// whole or not at all: it is visible before the sync that may have failed.
    fn compare(&self, sums: &Sums) -> Checked<()> {
        for history in &self.histories {
            let expected = Self::certain(history);
            let read = history.part_of(sums);
            if !(expected..=history.events().len()).any(|events| read == history.sum(events)) {
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

    pub(super) fn read(&mut self, run: &Run) -> Result<Checked<()>, Error> {
        match Self::read_all(&self.present(run)?)? {
            Ok(sums) => self.compare_present(&run.db(), sums),
            Err(violation) => Ok(Err(violation)),
        }
    }

    pub(super) fn take_snapshot(&mut self, run: &Run) -> Result<Checked<()>, Error> {
        if self.snapshots.len() == MAX_SNAPSHOTS {
            return self.compare_snapshot();
        }
        let families = self.present(run)?;
        let sums = match Self::read_all(&families)? {
            Ok(sums) => sums,
            Err(violation) => return Ok(Err(violation)),
        };
        let compared = self.compare_present(&run.db(), sums.clone());
        self.snapshots.push_back(HeldSnapshot { families, sums });
        compared
    }

    pub(super) fn compare_snapshot(&mut self) -> Result<Checked<()>, Error> {
        let Some(held) = self.snapshots.pop_front() else { return Ok(Ok(())) };
        Ok(Self::read_all(&held.families)?.and_then(|sums| {
            if sums == held.sums {
                return Ok(());
            }
            Err(Violation::new(Kind::Wrong, "a snapshot reads something else than when it was taken"))
        }))
    }

    pub(super) fn iterate(&mut self, run: &Run, name: &str) -> Result<Checked<()>, Error> {
        if let Some(HeldIterator { iterator, mut rest }) = self.iterator.take() {
            for entry in iterator {
                let (key, value) = entry?;
                if rest.pop_front() != Some((key.to_vec(), digest::entry(&key, &value))) {
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
                (key.to_vec(), sum)
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
