//! redb: one transaction writes at a time. Unsynced is `Durability::None`, which keeps commits in memory.

use anyhow::Result;
use redb::{Database, Durability, ReadableTable, Table, TableDefinition};

use super::{Access, Kind, Store, take};

pub(super) const KINDS: [Kind; 1] = [Kind::new("redb, one writer", |path| {
    std::fs::create_dir_all(path)?;
    Ok(Box::new(Redb(Database::create(path.join("data.redb"))?)))
})];

const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");

struct Redb(Database);

struct InTable<'a>(Table<'a, &'static [u8], &'static [u8]>);

impl Access for InTable<'_> {
    fn get(&mut self, key: &[u8], _to_write: bool, value: &mut Vec<u8>) -> Result<bool> {
        let found = self.0.get(key)?;
        Ok(take(found.as_ref().map(|found| found.value()), value))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.0.insert(key, value)?;
        Ok(())
    }
}

impl Store for Redb {
    fn run(&self, work: &mut dyn FnMut(&mut dyn Access) -> Result<()>) -> Result<u64> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(Durability::None)?;
        work(&mut InTable(transaction.open_table(ENTRIES)?))?;
        transaction.commit()?;
        Ok(0)
    }

    fn quiet(&self) -> Result<()> {
        Ok(self.0.begin_write()?.commit()?)
    }
}
