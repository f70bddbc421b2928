//! Whether another commit has changed what a transaction relies on.

use crate::codec::ids::SequenceNumber;
use crate::column_family::family::Family;
use crate::column_family::remembered::Place;
use crate::error::{Conflict, Error, ErrorKind, Result};
use crate::memtable::Memtable;
use crate::sync::Arc;
use crate::txn::batch::WriteBatch;
use crate::txn::keys::Keys;
use crate::txn::operation::Operations;
use crate::txn::pipeline::Pipeline;

impl Keys<'_> {
    fn changed_in(self, table: &Memtable, since: SequenceNumber) -> bool {
        match self {
            Self::One(key) => table.changed_since(key, since),
            Self::Range(start, end) => table.changed_within(start, end, since),
        }
    }

    fn conflict_in(self, family: &Family) -> Error {
        let (start, end) = self.bounds();
        Error::conflict_in(&family.name(), Conflict { family: family.id(), start, end })
    }
}

/// What a transaction relies on in one family.
pub(super) struct Relied<'a> {
    pub(super) family: &'a Arc<Family>,
    pub(super) keys: Vec<Keys<'a>>,
}

/// What `batch` writes, as what a transaction relies on: ascending by family.
pub(super) fn written(batch: &WriteBatch) -> Vec<Relied<'_>> {
    let mut families: Vec<_> = batch.families().iter().collect();
    families.sort_unstable_by_key(|family| family.id());
    let mut relied: Vec<_> = families.into_iter().map(|family| Relied { family, keys: Vec::new() }).collect();
    for (id, operation) in Operations::new(batch.payload()).map_while(Result::ok) {
        let place = relied.binary_search_by_key(&id, |relied| relied.family.id());
        let relied = &mut relied[place.expect("a batch lists the families that it touches")];
        relied.keys.push(Keys::of(&operation));
    }
    relied
}

impl Relied<'_> {
    /// Fails if a commit after `since` has changed any of it in `tables`.
    fn check_in(&self, tables: &[&Arc<Memtable>], since: SequenceNumber) -> Result<()> {
        let changed = |keys: &&Keys<'_>| tables.iter().any(|table| keys.changed_in(table, since));
        match self.keys.iter().find(changed) {
            Some(keys) => Err(keys.conflict_in(self.family)),
            None => Ok(()),
        }
    }
}

/// Memtables of each family that is relied on that nobody writes to any more, and that hold no change.
pub(super) struct Ahead(Vec<Vec<Arc<Memtable>>>);

/// Looks ahead, while no lock is held, into memtables that nobody writes to any more: so that what takes a
/// step for each of their entries holds up no writer. Single keys wait for [`check`]. Fails as that does.
pub(super) fn look_ahead(pipeline: &Pipeline, since: SequenceNumber, relied: &[Relied<'_>]) -> Result<Ahead> {
    let view = pipeline.views.load_full();
    let look = |relied: &Relied<'_>| {
        if !relied.keys.iter().any(|keys| matches!(keys, Keys::Range(..))) {
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
    let view = pipeline.views.load_full();
    for (relied, unchanged) in relied.iter().zip(&ahead.0) {
        let family = relied.family;
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
