//! Preparing transactions, listing what awaits a decision, and deciding.

use std::fmt;

use crate::codec::ids::SequenceNumber;
use crate::db::database::ColumnFamilyDatabase;
use crate::db::shared::{Keeper, Shared};
use crate::error::Result;
use crate::sync::Arc;
use crate::txn::prepared::table::{Decision, Undecided};
use crate::txn::transactions::transaction::Transaction;

/// A transaction that is prepared: all that may keep it from being committed was looked at, what it wrote is
/// durable, and nobody sees it before it is decided. Made by [`Transaction::prepare`], and found by
/// [`prepared_transactions`](ColumnFamilyDatabase::prepared_transactions) in this life of the database or any
/// later one.
///
/// Until it is decided nobody else writes to what it has read (at
/// [`Serializable`](crate::IsolationLevel::Serializable)), locked or written: who tries waits for
/// [`decision_wait`](crate::DatabaseBuilder::decision_wait), and then fails with
/// [`AwaitsDecision`](crate::ErrorKind::AwaitsDecision). Everybody may read, and sees what was there before.
/// It takes space in the data file, none of the log, and the bytes of its keys in memory.
///
/// Dropping this decides nothing. It keeps the database open.
#[derive(Clone)]
pub struct PreparedTransaction {
    undecided: Arc<Undecided>,
    keeper: Arc<Keeper>,
}

impl fmt::Debug for PreparedTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name().escape_ascii().to_string();
        f.debug_struct("PreparedTransaction").field("name", &name).finish_non_exhaustive()
    }
}

impl PreparedTransaction {
    /// The name that it was prepared under.
    pub fn name(&self) -> &[u8] {
        self.undecided.name()
    }

    /// Commits it: what it wrote becomes visible as a whole, and is durable when this returns. Gives the
    /// number of the commit. What it wrote to families that were dropped since is gone with them.
    ///
    /// # Errors
    ///
    /// [`TransactionNotFound`](crate::ErrorKind::TransactionNotFound) if it was decided before. Otherwise
    /// those of [`write`](ColumnFamilyDatabase::write), without conflicts: it is still prepared then, and can
    /// be decided again; after [`Io`](crate::ErrorKind::Io) or
    /// [`WriteFailed`](crate::ErrorKind::WriteFailed) the next opening tells whether it is.
    pub fn commit(&self) -> Result<SequenceNumber> {
        self.decide(Decision::Commit)
    }

    /// Gives up what it wrote. Durable when this returns. Errors are those of [`commit`](Self::commit).
    pub fn rollback(&self) -> Result<()> {
        self.decide(Decision::Rollback).map(drop)
    }

    fn decide(&self, decision: Decision) -> Result<SequenceNumber> {
        self.keeper.shared.check()?;
        self.keeper.shared.pipeline.decide(&self.undecided, decision)
    }
}

impl Transaction {
    /// Prepares the transaction under a name of up to 64 KiB: from now on it can be committed, whatever
    /// happens, until it is decided, perhaps by a later process that finds it in
    /// [`prepared_transactions`](ColumnFamilyDatabase::prepared_transactions). This is the first of the two
    /// phases in which several databases commit together. Durable when this returns, at the price of a sync,
    /// and of a few more when it is the first of a database; its writes are written once more when it is
    /// committed. What it has [locked](Self::get_for_update) and not written is held until then as if it had
    /// been read, at every level: others may read and share it, and nobody writes to it.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// # let open = || ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory");
    /// # let (here, there) = (open()?, open()?);
    /// # let accounts = here.create_column_family("accounts", FamilyOptions::default())?;
    /// # let others = there.create_column_family("accounts", FamilyOptions::default())?;
    /// let (mut from, mut to) = (here.begin()?, there.begin()?);
    /// from.put(&accounts, "ann", "90")?;
    /// to.put(&others, "bob", "110")?;
    /// // Who prepares first and decides later asks nobody any more whether he may commit.
    /// let (from, to) = (from.prepare("transfer 7")?, to.prepare("transfer 7")?);
    /// assert!(accounts.get("ann")?.is_none());
    /// from.commit()?;
    /// to.commit()?;
    /// assert_eq!(accounts.get("ann")?.unwrap(), "90");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`commit`](Self::commit);
    /// [`AwaitsDecision`](crate::ErrorKind::AwaitsDecision) if another prepared transaction holds what this
    /// one has read or written, [`TransactionExists`](crate::ErrorKind::TransactionExists) if one was
    /// prepared under this name and is not decided, [`ValueTooLarge`](crate::ErrorKind::ValueTooLarge) if
    /// what it has read and written takes 4 GiB or more. Nothing is prepared then, unless all writing has
    /// ended: then the next opening tells whether it is. [`ReadOnly`](crate::ErrorKind::ReadOnly) if the
    /// transaction was begun for reading only.
    pub fn prepare(self, name: impl AsRef<[u8]>) -> Result<PreparedTransaction> {
        let name = name.as_ref();
        self.check_process()?;
        let Ok(keeper) = Arc::clone(self.keeper()).downcast::<Keeper>() else {
            unreachable!("a transaction is kept by something else than a database")
        };
        self.check_writes()?;
        keeper.shared.pipeline.writable()?;
        let kept_in = keeper.shared.prepared_family()?;
        Ok(PreparedTransaction { undecided: self.prepare_in(&kept_in, name)?, keeper })
    }
}

impl ColumnFamilyDatabase {
    /// The prepared transactions that are not decided, by name, also those that were prepared before the
    /// database was opened.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// # let storage = MemoryStorage::new();
    /// # let db = ColumnFamilyDatabase::builder().storage(storage.clone()).open("memory")?;
    /// # let accounts = db.create_column_family("accounts", FamilyOptions::default())?;
    /// let mut transaction = db.begin()?;
    /// transaction.put(&accounts, "ann", "90")?;
    /// transaction.prepare("transfer 7")?;
    /// # drop(accounts);
    /// db.close()?;
    ///
    /// # let db = ColumnFamilyDatabase::builder().storage(storage).open("memory")?;
    /// // The next process asks whoever coordinates what became of what it finds.
    /// for prepared in db.prepared_transactions()? {
    ///     match prepared.name() {
    ///         b"transfer 7" => drop(prepared.commit()?),
    ///         _ => prepared.rollback()?,
    ///     }
    /// }
    /// assert!(db.prepared_transactions()?.is_empty());
    /// assert_eq!(db.column_family("accounts")?.get("ann")?.unwrap(), "90");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::ErrorKind::Closed). If they could not be read when the database was opened, for
    /// reading only or with [`give_up_lost_families`](crate::DatabaseBuilder::give_up_lost_families), why;
    /// other openings fail with that.
    pub fn prepared_transactions(&self) -> Result<Vec<PreparedTransaction>> {
        self.pipeline().open()?;
        if let Some(error) = &self.shared().unread_prepared {
            return Err(error.clone());
        }
        let with_keeper = |undecided| PreparedTransaction { undecided, keeper: Arc::clone(&self.keeper) };
        Ok(self.pipeline().prepared.undecided().into_iter().map(with_keeper).collect())
    }
}

impl Shared {
    /// Finds what is prepared while the database is opened, and has it hold what it uses.
    pub(super) fn find_prepared(&mut self) -> Result<()> {
        let find = |id| self.registry.lock().get(id).cloned();
        let found = self.find_prepared_family().and_then(|kept_in| match kept_in {
            Some(kept_in) => self.pipeline.find_prepared(&kept_in, find),
            None => Ok(()),
        });
        match found {
            Err(error) if self.options.read_only || self.options.gives_up_lost_families => {
                tracing::error!(%error, "prepared transactions cannot be read");
                self.unread_prepared = Some(error);
                Ok(())
            }
            found => found,
        }
    }
}
