//! Transactions: how commits enter the log and the memtables, and how readers see them.
//!
//! Invariants:
//! 1. Within a family, the order of the write lock is the order of sequence numbers: the lock is held from
//!    before the number is assigned until the entries are in the memtable.
//! 2. A commit is completed only when its record is written in full and its entries are all in memtables. It
//!    is visible when all commits up to it are complete.
//! 3. A commit is acknowledged when it is visible and, if it asked for it, the log is durable through it.
//! 4. After the first failure on the write path nothing is completed any more.
//!
//! 5. What is committed to a key that a transaction has locked is committed by that one. See [`locks`].
//!
//! Start reading at [`commit`], then [`pipeline`], [`large`], [`batch`], [`handle`] and [`update`].

pub(crate) mod apart;
pub(crate) mod apply;
pub(crate) mod batch;
#[cfg(all(test, not(any(loom, shuttle))))]
mod batch_tests;
mod carry;
pub(crate) mod claim;
mod commit;
#[cfg(all(test, loom))]
mod commit_model;
mod expired;
pub(crate) mod family_snapshot;
mod full_disk;
pub(crate) mod handle;
pub(crate) mod iter;
mod keys;
pub(crate) mod large;
pub(crate) mod latch;
pub(crate) mod locks;
pub(crate) mod log_pace;
pub(crate) mod operation;
pub(crate) mod pipeline;
pub(crate) mod prepared;
mod shown;
pub(crate) mod snapshot;
pub(crate) mod tally;
pub(crate) mod transactions;
pub(crate) mod update;
