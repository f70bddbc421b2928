//! fjall's optimistic transactions.

use anyhow::Result;
use fjall::{
    KeyspaceCreateOptions, OptimisticTxDatabase, OptimisticTxKeyspace, OptimisticWriteTx, Readable as _,
};

use super::{Access, Kind, Store, take};
use crate::peers::wait_while;

pub(super) const KINDS: [Kind; 1] = [Kind::new("fjall, optimistic", |path| {
    let database = OptimisticTxDatabase::builder(path).open()?;
    let entries = database.keyspace("entries", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Fjall { database, entries }))
})];

struct Fjall {
    database: OptimisticTxDatabase,
    entries: OptimisticTxKeyspace,
}

struct InTransaction<'a> {
    transaction: &'a mut OptimisticWriteTx,
    entries: &'a OptimisticTxKeyspace,
}

impl Access for InTransaction<'_> {
    fn get(&mut self, key: &[u8], _to_write: bool, value: &mut Vec<u8>) -> Result<bool> {
        Ok(take(self.transaction.get(self.entries, key)?, value))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.transaction.insert(self.entries, key, value);
        Ok(())
    }
}

impl Store for Fjall {
    fn run(&self, work: &mut dyn FnMut(&mut dyn Access) -> Result<()>) -> Result<u64> {
        let mut refused = 0;
        loop {
            let mut transaction = self.database.write_tx()?;
            work(&mut InTransaction { transaction: &mut transaction, entries: &self.entries })?;
            match transaction.commit()? {
                Ok(()) => return Ok(refused),
                Err(_conflict) => refused += 1,
            }
        }
    }

    fn quiet(&self) -> Result<()> {
        self.entries.inner().rotate_memtable_and_wait()?;
        let database = self.database.inner();
        wait_while(|| Ok(database.outstanding_flushes() > 0 || database.active_compactions() > 0))
    }
}
