//! Beginning transactions.

use crate::db::ColumnFamilyDatabase;
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::txn::transactions::retry::TransactionBuilder;
use crate::txn::transactions::transaction::Transaction;

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
