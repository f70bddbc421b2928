//! Beginning transactions.

use crate::db::database::ColumnFamilyDatabase;
use crate::error::{Error, Lock, LockWait, Result};
use crate::sync::Arc;
use crate::txn::transactions::retry::TransactionBuilder;
use crate::txn::transactions::transaction::Transaction;

/// Who holds and who awaits locks at one moment. Made by [`ColumnFamilyDatabase::locks`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Locks {
    /// What is held, by family and key, ranges behind keys.
    pub held: Vec<Lock>,
    /// Who waits for whom, in order of arrival. Whoever waits for several is listed for each.
    pub awaited: Vec<LockWait>,
}

impl ColumnFamilyDatabase {
    /// Begins a transaction: reads of the present moment and writes that are committed together, unless
    /// somebody else changes what was read. [`transaction`](Self::transaction) has settings for it,
    /// [`transact`](Self::transact) makes the loop around it.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::ErrorKind::Closed).
    pub fn begin(&self) -> Result<Transaction> {
        self.transaction().begin()
    }

    /// Settings to begin transactions with.
    pub fn transaction(&self) -> TransactionBuilder {
        let durability = self.shared().options.durability;
        TransactionBuilder::new(Arc::clone(self.pipeline()), durability, self.keeper())
    }

    /// Who holds what locks, and who waits for them. Takes time in proportion to them, during which nobody
    /// else locks anything. In a child that was forked there are none.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let stock = db.create_column_family("stock", FamilyOptions::default())?;
    /// use peristyle::{LockMode, LockOwner};
    ///
    /// let mut transaction = db.begin()?;
    /// transaction.get_for_update(&stock, "apples", LockMode::Exclusive)?;
    /// let locks = db.locks();
    /// assert_eq!(locks.held[0].owner, LockOwner::Transaction(transaction.id()));
    /// assert_eq!((&locks.held[0].family_name[..], &locks.held[0].start[..]), ("stock", &b"apples"[..]));
    /// assert!(locks.awaited.is_empty());
    /// # Ok(()) }
    /// ```
    pub fn locks(&self) -> Locks {
        if !self.is_ours() {
            return Locks::default();
        }
        let pipeline = self.pipeline();
        let (held, awaited) = pipeline.locks.list();
        Locks { held: pipeline.shown_locks(&held), awaited: pipeline.shown_waits(&awaited) }
    }

    /// Runs a serializable transaction until it meets no conflict, up to 32 times; see
    /// [`TransactionBuilder::run`].
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let counts = db.create_column_family("counts", FamilyOptions::default())?;
    /// std::thread::scope(|scope| {
    ///     for _ in 0..4 {
    ///         scope.spawn(|| {
    ///             db.transact(|transaction| {
    ///                 let count = transaction.get(&counts, "visits")?.map_or(0, |count| count[0]);
    ///                 transaction.put(&counts, "visits", [count + 1])
    ///             })
    ///         });
    ///     }
    /// });
    /// assert_eq!(counts.get("visits")?.unwrap(), [4]);
    /// # Ok(()) }
    /// ```
    pub fn transact<R, E: From<Error>>(
        &self,
        run: impl FnMut(&mut Transaction) -> std::result::Result<R, E>,
    ) -> std::result::Result<R, E> {
        self.transaction().run(run)
    }
}
