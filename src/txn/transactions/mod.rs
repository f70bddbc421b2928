//! Transactions: reads of one moment and writes that belong together, committed only if nobody has changed
//! what they rely on.
//!
//! ```text
//! begin:   a view and a number S, and a place among the open transactions, taken in one step
//! read:    own writes first, then the family at S; what was read is noted: keys, and ranges as far as they were walked, gaps included
//! write:   one more operation of a batch
//! commit:  nothing written: done                                  nothing to be checked: as any batch
//!          for each range: look into memtables that nobody writes to any more
//!          lock the write locks of all families written or to be checked, in ascending number
//!          for each key and range that is to be checked:
//!              does a memtable hold a version, or a range deletion, with a number above S?      then it is a conflict
//!          append, insert, unlock, publish: as any commit
//! ```
//!
//! Invariants:
//! 1. Between the check and the number of the commit nobody writes to a family that was checked: its write
//!    lock is held. So what was read at S is what would be read right before the commit, and the transaction
//!    could as well have run as a whole at that moment.
//! 2. The memtables that are looked into hold all that was committed to the family after S: those of the
//!    present view, and those that were merged since, which are kept while a transaction that may ask for
//!    them is open (`column_family/remembered.rs`).
//! 3. A commit with a number above S that is not visible yet has been inserted, or holds a write lock that
//!    the check waits for.
//! 4. Nothing of an open transaction is in the log, in a memtable of a family, or seen by anybody else.
//!    Giving it up costs nothing.
//!
//! A transaction that writes nothing is never refused: all that it read is one moment. Writers outside of
//! transactions take no part in any of this, and pay nothing for it.
//!
//! *Locks.* A pessimistic transaction locks what it writes when it writes it, and any transaction what it
//! reads for update; see `txn/locks`. A lock says that nobody changes a key from now on. That nobody has
//! since S is checked when the lock is taken, in the same way as at a commit: of what is read for update at
//! every level that reads one moment, of what is written where the level asks for it.
//!
//! Start reading at [`transaction`], then [`check`], [`for_update`], [`reads`], [`own`] and [`walk`].

mod check;
mod for_update;
pub(crate) mod level;
mod locking;
mod own;
mod reads;
pub(crate) mod retry;
pub(crate) mod transaction;
pub(crate) mod walk;
