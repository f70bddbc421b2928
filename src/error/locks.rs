//! Locks of transactions, as errors and lists name them.

use std::fmt;

use super::conflict::Conflict;
use crate::codec::ids::FamilyId;

/// How a key is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockMode {
    /// Nobody writes the key but its only owner; others may lock it as well, in this mode.
    Shared,
    /// Nobody else locks or writes the key.
    Exclusive,
}

/// Who holds or awaits a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LockOwner {
    /// The transaction of this [number](crate::Transaction::id).
    Transaction(u64),
    /// A write outside of transactions.
    Write(u64),
}

impl fmt::Display for LockOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transaction(number) => write!(f, "transaction {number}"),
            Self::Write(number) => write!(f, "write {number}"),
        }
    }
}

/// A lock: keys of a column family, how they are locked, and who has or wants that.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lock {
    /// Who has it, or wants it.
    pub owner: LockOwner,
    /// Number of the column family.
    pub family: FamilyId,
    /// Its name; empty if it was dropped.
    pub family_name: String,
    /// The key, or the lowest key of the range.
    pub start: Vec<u8>,
    /// The key behind the last one of the range; for a single key, the key and a zero byte. `None`: the range
    /// has no end.
    pub end: Option<Vec<u8>>,
    /// How.
    pub mode: LockMode,
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            LockMode::Shared => "shared",
            LockMode::Exclusive => "exclusive",
        };
        let keys = Conflict { family: self.family, start: self.start.clone(), end: self.end.clone() };
        write!(f, "{mode} lock of {keys} of the column family \"{}\"", self.family_name)
    }
}

/// A lock that somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockWait {
    /// What is wanted, and by whom.
    pub wanted: Lock,
    /// Who is in the way: has what is wanted, or waits for it since earlier.
    pub waits_for: LockOwner,
}

impl fmt::Display for LockWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} waits for {} to get the {}", self.wanted.owner, self.waits_for, self.wanted)
    }
}
