//! The prepared transactions of an open database, by name.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::codec::ids::FamilyId;
use crate::column_family::family::Family;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, Mutex};
use crate::txn::prepared::waiting::{Decisions, Patience};

/// The prepared transactions of an open database.
pub(crate) struct Prepared {
    /// `None`: its preparation is under way.
    names: Mutex<BTreeMap<Vec<u8>, Option<Arc<Undecided>>>>,
    pub(super) decisions: Decisions,
}

/// A transaction that is, or was, prepared.
pub(crate) struct Undecided {
    pub(super) name: Vec<u8>,
    /// The family that it is kept in.
    pub(super) kept_in: Arc<Family>,
    /// Those that it has read or written, ascending; not those that were dropped before the database was
    /// opened.
    pub(super) families: Vec<Arc<Family>>,
    /// Held while it is decided.
    pub(super) decision: Mutex<Option<Decision>>,
}

/// What becomes of a prepared transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Commit,
    Rollback,
}

impl Undecided {
    pub(super) fn new(name: &[u8], kept_in: &Arc<Family>, families: Vec<Arc<Family>>) -> Self {
        Self { name: name.to_vec(), kept_in: Arc::clone(kept_in), families, decision: Mutex::new(None) }
    }

    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    pub(super) fn family(&self, id: FamilyId) -> Option<&Arc<Family>> {
        let place = self.families.binary_search_by_key(&id, |family| family.id()).ok()?;
        Some(&self.families[place])
    }
}

/// A name that is taken; given back unless its transaction is listed.
pub(super) struct TakenName<'a> {
    table: &'a Prepared,
    name: &'a [u8],
    is_listed: bool,
}

impl TakenName<'_> {
    pub(super) fn list(mut self, undecided: &Arc<Undecided>) {
        self.table.names.lock().insert(self.name.to_vec(), Some(Arc::clone(undecided)));
        self.is_listed = true;
    }
}

impl Drop for TakenName<'_> {
    fn drop(&mut self) {
        if !self.is_listed {
            self.table.forget(self.name);
        }
    }
}

impl Prepared {
    /// None yet; others wait for a decision no longer than `limit`.
    pub(crate) fn new(limit: Duration) -> Self {
        Self { names: Mutex::default(), decisions: Decisions::new(limit) }
    }

    /// Those that await a decision, by name.
    pub(crate) fn undecided(&self) -> Vec<Arc<Undecided>> {
        self.names.lock().values().flatten().cloned().collect()
    }

    /// How many await a decision.
    pub(crate) fn len(&self) -> usize {
        self.names.lock().values().flatten().count()
    }

    pub(super) fn take_name<'a>(&'a self, name: &'a [u8]) -> Result<TakenName<'a>> {
        let mut names = self.names.lock();
        if names.contains_key(name) {
            let message =
                format!("a transaction was prepared as \"{}\", and is not decided yet", name.escape_ascii());
            return Err(Error::new(ErrorKind::TransactionExists, message));
        }
        names.insert(name.to_vec(), None);
        Ok(TakenName { table: self, name, is_listed: false })
    }

    pub(super) fn forget(&self, name: &[u8]) {
        self.names.lock().remove(name);
    }

    /// Nobody waits for a decision any more: all who do, or would, are told `why`.
    pub(crate) fn end(&self, why: Error) {
        self.decisions.end(why);
    }

    /// How many wait for a decision.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.decisions.waiting()
    }

    /// How often somebody waited for a decision, and for how long in all.
    pub(crate) fn waited(&self) -> (u64, Duration) {
        self.decisions.waited()
    }

    /// One operation's waiting for decisions.
    pub(in crate::txn) fn patience(&self) -> Patience<'_> {
        self.decisions.patience()
    }
}
