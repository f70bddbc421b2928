//! What is wrong with one family: pages of its trees that somebody needed who rewrites them, and that cannot
//! be read.
//!
//! Invariants:
//! 1. From the moment that damage is noted, no write to the family is taken: that is looked at under its
//!    write lock. So its memtables hold what was acknowledged before, and no more.
//! 2. What they hold becomes a delta, for which no page of the old trees is read. So it is durable, and needs
//!    none of the log.
//! 3. A delta cannot hold what memtables delete by range; trees and deltas behind it have to be rewritten for
//!    that. Where these are what cannot be read, the memtables are *stuck*: they stay in memory, and what
//!    they hold is appended to the log anew whenever the log before it is to be let go of.
//! 4. Only what the last durable checkpoint holds is damage. What was written since can be rebuilt from the
//!    log, so no checkpoint may let go of that: all writing ends, until the database is opened again.
//! 5. No page is rewritten any more but those of 2: nothing is joined, drained, compacted or moved.

use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The first damage that was met, if any.
#[derive(Default)]
pub(crate) struct Damage {
    cause: OnceLock<Error>,
    is_stuck: AtomicBool,
    /// Weight of the record that carries what is stuck; 0 if there is none.
    carried: AtomicU64,
}

impl Damage {
    /// Fails if the family is damaged.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        match self.cause.get() {
            None => Ok(()),
            Some(cause) => Err(cause.clone()),
        }
    }

    /// What writers are told.
    pub(crate) fn cause(&self) -> Option<&Error> {
        self.cause.get()
    }

    #[inline]
    pub(crate) fn is_met(&self) -> bool {
        self.cause.get().is_some()
    }

    /// Whether memtables can be written as nothing at all.
    pub(crate) fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Acquire)
    }

    pub(super) fn set_stuck(&self) {
        self.is_stuck.store(true, Ordering::Release);
    }

    /// Whether what is stuck stands in one record of the log.
    pub(crate) fn is_carried(&self) -> bool {
        self.carried() > 0
    }

    /// What the log weighs more for the record in which what is stuck stands; 0 if there is none.
    pub(crate) fn carried(&self) -> u64 {
        self.carried.load(Ordering::Acquire)
    }

    /// Returns what it was before.
    pub(crate) fn set_carried(&self, weight: u64) -> u64 {
        self.carried.swap(weight, Ordering::AcqRel)
    }

    /// What is told of `error`, which who rewrites pages met. If it says that pages cannot be read, the
    /// family is damaged from now on.
    pub(super) fn judge(&self, error: Error) -> Error {
        if !error.is_damage() {
            return error;
        }
        if self.cause.set(error.as_damage()).is_ok() {
            tracing::error!(%error, "a column family is damaged, and takes no more writes");
        }
        error.as_damage()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_cannot_be_read_is_damage_and_nothing_else_is() {
        let eio = || std::io::Error::from_raw_os_error(5);
        let damage = Damage::default();
        for other in [
            Error::corruption("of the map").of_family(1).beyond_damage(),
            Error::io("writing", eio()).of_family(1),
            Error::reading("reading the log", eio()),
            Error::corruption("of none"),
        ] {
            let kind = other.kind();
            assert_eq!(damage.judge(other).kind(), kind);
            damage.check().unwrap();
        }
        let unreadable = damage.judge(Error::reading("reading a page", eio()).of_family(1).on_page(7));
        assert_eq!(unreadable.kind(), ErrorKind::FamilyDamaged);
        let corrupt = damage.judge(Error::corruption("a sum").of_family(1));
        assert_eq!(corrupt.kind(), ErrorKind::FamilyDamaged);
        assert_eq!(damage.check().unwrap_err().location().page, Some(7), "the first cause is told");
    }
}
