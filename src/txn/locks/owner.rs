//! Somebody who takes locks.

use std::time::Duration;

use crate::error::LockOwner;
use crate::sync::Arc;
use crate::system::Inherited;
use crate::txn::locks::table::{LockTable, Refusal};
use crate::txn::locks::want::Want;

/// An owner of locks, which he gives up when he is dropped. In a child that was forked he does nothing then.
pub(crate) struct Owner {
    table: Inherited<Arc<LockTable>>,
    who: LockOwner,
    holds: bool,
}

impl Owner {
    /// Nobody but this may be `who` in the table.
    pub(crate) fn new(table: &Arc<LockTable>, who: LockOwner) -> Self {
        Self { table: Inherited::new(Arc::clone(table)), who, holds: false }
    }

    /// Whether he has taken any lock.
    pub(crate) fn holds(&self) -> bool {
        self.holds
    }

    /// Takes all of `wants`; see [`LockTable::acquire`].
    pub(crate) fn acquire(&mut self, wants: Vec<Want>, limit: Duration) -> Result<bool, Refusal> {
        let is_new = self.table.acquire(self.who, wants, limit)?;
        self.holds |= is_new;
        Ok(is_new)
    }

    /// All that he holds.
    pub(crate) fn locks(&self) -> Vec<Want> {
        self.table.locks_of(self.who)
    }

    /// A mark to [release](Self::release) to.
    pub(crate) fn mark(&self) -> usize {
        if self.holds && self.table.check().is_ok() { self.table.mark(self.who) } else { 0 }
    }

    /// Gives up what was taken since `mark`.
    pub(crate) fn release(&mut self, mark: usize) {
        if self.holds && self.table.check().is_ok() {
            self.table.release(self.who, mark);
            self.holds = mark > 0;
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.release(0);
    }
}
