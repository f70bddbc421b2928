//! redb.
//!
//! All families are tables of one database and share its single writer. Sync is
//! `Durability::Immediate`. Unsynced is `Durability::None`, the only other one that redb has: such a
//! commit waits in memory for the next durable one, and so promises less than is asked of the others.
//! Its cache is read cache and write buffer in one.

use std::path::Path;

use anyhow::Result;
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, WriteTransaction,
};

use crate::engine::{Batch, Direction, Durability, Engine, Held, Reader, Setup, Writer};

type Definition<'n> = TableDefinition<'n, &'static [u8], &'static [u8]>;

struct Redb {
    database: Database,
    names: Vec<String>,
}

/// Opens a database with one table for each family.
pub(super) fn open(path: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let mut builder = Database::builder();
    if let Some(memory) = setup.memory {
        builder.set_cache_size(usize::try_from(memory.cache_bytes)?);
    }
    let database = builder.create(path.join("data.redb"))?;
    let names: Vec<String> = (0..setup.families).map(Setup::family_name).collect();
    let transaction = database.begin_write()?;
    for name in &names {
        transaction.open_table(Definition::new(name))?;
    }
    transaction.commit()?;
    Ok(Box::new(Redb { database, names }))
}

impl Engine for Redb {
    fn version(&self) -> String {
        env!("REDB_VERSION").into()
    }

    fn writer(&self, durability: Durability) -> Result<Box<dyn Writer + '_>> {
        let durability = match durability {
            Durability::Unsynced => redb::Durability::None,
            Durability::Sync => redb::Durability::Immediate,
        };
        Ok(Box::new(RedbWriter { redb: self, durability }))
    }

    fn read(&self, family: usize, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(Definition::new(&self.names[family]))?;
        work(&mut RedbReader { table })
    }

    fn hold(&self) -> Result<Box<dyn Held + '_>> {
        Ok(Box::new(RedbHeld { redb: self, transaction: self.database.begin_read()? }))
    }

    fn create_family(&mut self) -> Result<()> {
        let name = Setup::family_name(self.names.len());
        let transaction = self.database.begin_write()?;
        transaction.open_table(Definition::new(&name))?;
        transaction.commit()?;
        self.names.push(name);
        Ok(())
    }

    fn create_families(&mut self, count: usize) -> Result<bool> {
        let transaction = self.database.begin_write()?;
        for _ in 0..count {
            let name = Setup::family_name(self.names.len());
            transaction.open_table(Definition::new(&name))?;
            self.names.push(name);
        }
        transaction.commit()?;
        Ok(true)
    }

    fn flush_until_quiet(&self) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(redb::Durability::Immediate)?;
        Ok(transaction.commit()?)
    }

    fn compact(mut self: Box<Self>) -> Result<Box<dyn Engine>> {
        self.database.compact()?;
        Ok(self)
    }
}

struct RedbWriter<'e> {
    redb: &'e Redb,
    durability: redb::Durability,
}

impl RedbWriter<'_> {
    fn begin(&self) -> Result<WriteTransaction> {
        let mut transaction = self.redb.database.begin_write()?;
        transaction.set_durability(self.durability)?;
        Ok(transaction)
    }
}

impl Writer for RedbWriter<'_> {
    fn put(&mut self, family: usize, key: &[u8], value: &[u8]) -> Result<()> {
        let transaction = self.begin()?;
        transaction.open_table(Definition::new(&self.redb.names[family]))?.insert(key, value)?;
        Ok(transaction.commit()?)
    }

    fn write_together(&mut self, batches: &[(usize, &Batch)]) -> Result<()> {
        let transaction = self.begin()?;
        for (family, batch) in batches {
            let mut table = transaction.open_table(Definition::new(&self.redb.names[*family]))?;
            for (key, value) in batch.iter() {
                match value {
                    Some(value) => drop(table.insert(key, value)?),
                    None => drop(table.remove(key)?),
                }
            }
        }
        Ok(transaction.commit()?)
    }
}

struct RedbHeld<'e> {
    redb: &'e Redb,
    transaction: ReadTransaction,
}

impl Held for RedbHeld<'_> {
    fn read(&self, family: usize, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        let table = self.transaction.open_table(Definition::new(&self.redb.names[family]))?;
        work(&mut RedbReader { table })
    }
}

struct RedbReader {
    table: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Reader for RedbReader {
    fn get(&mut self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(ReadableTable::get(&self.table, key)?.map(|value| visit(value.value())).is_some())
    }

    fn count(&mut self) -> Result<u64> {
        Ok(self.table.len()?)
    }

    fn scan(
        &mut self,
        from: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        match direction {
            Direction::Forward => {
                for entry in self.table.range(from..)? {
                    let (key, value) = entry?;
                    if !visit(key.value(), value.value()) {
                        break;
                    }
                }
            }
            Direction::Backward => {
                for entry in self.table.range(..=from)?.rev() {
                    let (key, value) = entry?;
                    if !visit(key.value(), value.value()) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}
