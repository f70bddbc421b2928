//! What a transaction is begun with.

use std::time::Duration;

use crate::options::Durability;

/// How long a transaction waits for a lock, if nobody asks for another time.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// What a transaction is kept from, besides seeing what is not committed, which none ever does.
///
/// | what can happen | `Serializable` | `Snapshot` | `ReadCommitted` |
/// |---|---|---|---|
/// | a key, or a range, is read twice and gives two things | no | no | yes |
/// | a change that another made between this one's reading and its writing is lost | no | no | yes |
/// | two transactions read what the other writes, and both commit (write skew) | no | yes | yes |
/// | an entry appears in a range that was read, and both commit (phantom) | no | yes | yes |
/// | a commit is refused | something that was read has changed | something that is written has changed | never |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum IsolationLevel {
    /// As if each transaction ran alone, at the moment of its commit. A commit is refused if anything that
    /// the transaction read, by key or as a range with its gaps, was changed by another commit since it
    /// began.
    #[default]
    Serializable,
    /// Reads one moment. A commit is refused if anything that the transaction writes was written by another
    /// commit since it began.
    Snapshot,
    /// Reads what is committed by then, each time, with its own writes in front, and is never refused: a
    /// batch that can be read.
    ReadCommitted,
}

/// All that a transaction is begun with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) level: IsolationLevel,
    pub(crate) durability: Durability,
    /// Whether it locks what it writes.
    pub(crate) pessimistic: bool,
    /// How long it waits for a lock.
    pub(crate) lock_timeout: Duration,
    /// Whether it writes and locks nothing.
    pub(crate) read_only: bool,
}

impl Settings {
    pub(crate) fn new(durability: Durability) -> Self {
        let level = IsolationLevel::default();
        Self { level, durability, pessimistic: false, lock_timeout: LOCK_TIMEOUT, read_only: false }
    }
}
