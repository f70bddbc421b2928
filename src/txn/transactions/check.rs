//! Whether another commit has changed what a transaction relies on.

use crate::codec::ids::SequenceNumber;
use crate::column_family::family::Family;
use crate::column_family::remembered::Place;
use crate::column_family::view::OwnWrites;
use crate::error::{Conflict, Error, ErrorKind, Result};
use crate::memtable::Memtable;
use crate::sync::{Arc, epoch};
use crate::txn::batch::WriteBatch;
use crate::txn::keys::Keys;
use crate::txn::operation::Operations;
use crate::txn::pipeline::Pipeline;

/// Keys that a transaction relies on, but those that its own writes hid from it.
#[derive(Clone, Copy)]
pub(super) struct Reliance<'a> {
    pub(super) keys: Keys<'a>,
    /// What stood in front of them when they were read.
    pub(super) behind: Option<&'a OwnWrites>,
}

impl<'a> From<Keys<'a>> for Reliance<'a> {
    fn from(keys: Keys<'a>) -> Self {
        Self { keys, behind: None }
    }
}

impl Reliance<'_> {
    fn changed_in(self, table: &Memtable, since: SequenceNumber) -> bool {
        match self.keys {
            Keys::One(key) => table.changed_since(key, since),
            Keys::Range(start, end) => {
                let front = self.behind.map(|own| (&*own.table, own.at));
                table.changed_within(start, end, since, front)
            }
        }
    }

    fn conflict_in(self, family: &Family) -> Error {
        let (start, end) = family.user_bounds(self.keys.bounds());
        Error::conflict_in(&family.name(), Conflict { family: family.id(), start, end })
    }
}

/// What a transaction relies on in one family.
pub(super) struct Relied<'a> {
    pub(super) family: &'a Arc<Family>,
    pub(super) keys: Vec<Reliance<'a>>,
}

/// What `batch` writes, as what a transaction relies on: ascending by family.
pub(super) fn written(batch: &WriteBatch) -> Vec<Relied<'_>> {
    let mut families: Vec<_> = batch.families().iter().collect();
    families.sort_unstable_by_key(|family| family.id());
    let mut relied: Vec<_> = families.into_iter().map(|family| Relied { family, keys: Vec::new() }).collect();
    for (id, operation) in Operations::new(batch.payload()).map_while(Result::ok) {
        let place = relied.binary_search_by_key(&id, |relied| relied.family.id());
        let relied = &mut relied[place.expect("a batch lists the families that it touches")];
        relied.keys.push(Keys::of(&operation).into());
    }
    relied
}

impl Relied<'_> {
    /// Fails if a commit after `since` has changed any of it in `tables`.
    fn check_in(&self, tables: &[&Arc<Memtable>], since: SequenceNumber) -> Result<()> {
        let changed = |keys: &&Reliance<'_>| tables.iter().any(|table| keys.changed_in(table, since));
        match self.keys.iter().find(changed) {
            Some(keys) => Err(keys.conflict_in(self.family)),
            None => Ok(()),
        }
    }
}

/// Memtables of each family that is relied on that nobody writes to any more, and that hold no change; of
/// none, where that was not looked for.
pub(super) struct Ahead(Vec<Vec<Arc<Memtable>>>);

impl Ahead {
    fn of(&self, family: usize) -> &[Arc<Memtable>] {
        self.0.get(family).map_or(&[], Vec::as_slice)
    }
}

impl Relied<'_> {
    fn has_ranges(&self) -> bool {
        self.keys.iter().any(|reliance| matches!(reliance.keys, Keys::Range(..)))
    }
}

/// Looks ahead, while no lock is held, into memtables that nobody writes to any more: so that what takes a
/// step for each of their entries holds up no writer. Single keys wait for [`check`]. Fails as that does.
pub(super) fn look_ahead(pipeline: &Pipeline, since: SequenceNumber, relied: &[Relied<'_>]) -> Result<Ahead> {
    if !relied.iter().any(Relied::has_ranges) {
        return Ok(Ahead(Vec::new()));
    }
    let view = pipeline.views.load_full();
    let look = |relied: &Relied<'_>| {
        if !relied.has_ranges() {
            return Ok(Vec::new());
        }
        let present = view.family(relied.family.slot(), relied.family.id())?;
        let mut tables = pipeline.remembered.tables(relied.family.id(), since);
        tables.extend(present.frozen.iter().map(|frozen| Arc::clone(&frozen.table)));
        tables.retain(|table| table.last_sequence() > since);
        relied.check_in(&tables.iter().collect::<Vec<_>>(), since)?;
        Ok(tables)
    };
    relied.iter().map(look).collect::<Result<_>>().map(Ahead)
}

/// Fails if a commit after `since`, at which the transaction in `place` began, has changed any of `relied`.
/// The caller holds the write locks of all of these families, and has looked ahead.
pub(super) fn check(
    pipeline: &Pipeline,
    place: &Place,
    since: SequenceNumber,
    relied: &[Relied<'_>],
    ahead: &Ahead,
) -> Result<()> {
    let guard = epoch::pin();
    let view = pipeline.views.load(&guard);
    for (number, relied) in relied.iter().enumerate() {
        let (family, unchanged) = (relied.family, ahead.of(number));
        family.check_not_dropped()?;
        let present = view.family(family.slot(), family.id())?;
        // In this order: what a merge takes out of the view is kept before.
        let merged = pipeline.remembered.tables(family.id(), since);
        // After it: while the place was kept so was what it asks for.
        if !place.is_kept() {
            return Err(Error::new(
                ErrorKind::TransactionTooOld,
                "what was committed since the transaction began takes more memory than open transactions may keep; \
                 run it again, or raise transaction_memory_bytes",
            ));
        }
        let is_known = |table: &&Arc<Memtable>| unchanged.iter().any(|known| Arc::ptr_eq(known, table));
        let tables: Vec<_> = present
            .memtables()
            .chain(&merged)
            .filter(|table| table.last_sequence() > since && !is_known(table))
            .collect();
        relied.check_in(&tables, since)?;
    }
    Ok(())
}
