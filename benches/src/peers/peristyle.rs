//! Peristyle.
//!
//! Every family is a column family of one database. Unsynced is `Durability::Buffered` (the log
//! record is handed to the operating system), sync is `Durability::Sync`.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Result;
use peristyle::{ColumnFamily, ColumnFamilyDatabase, FamilyOptions, WriteBatch};

use crate::engine::{Batch, Direction, Durability, Engine, Reader, Setup, Writer};

struct Peristyle {
    database: ColumnFamilyDatabase,
    families: Vec<ColumnFamily>,
}

/// Opens a database with one column family for each family.
pub(super) fn open(path: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let database = ColumnFamilyDatabase::builder()
        .cache_bytes(setup.cache_bytes)
        .write_buffer_bytes(setup.write_buffer_bytes)
        .open(path)?;
    let mut families = Vec::with_capacity(setup.families);
    for index in 0..setup.families {
        let name = Setup::family_name(index);
        let family = database.column_family(&name);
        families.push(match family {
            Ok(family) => family,
            Err(_) => database.create_column_family(&name, FamilyOptions::default())?,
        });
    }
    Ok(Box::new(Peristyle { database, families }))
}

impl Engine for Peristyle {
    fn version(&self) -> String {
        env!("PERISTYLE_VERSION").into()
    }

    fn writer(&self, durability: Durability) -> Result<Box<dyn Writer + '_>> {
        let durability = match durability {
            Durability::Unsynced => peristyle::Durability::Buffered,
            Durability::Sync => peristyle::Durability::Sync,
        };
        Ok(Box::new(PeristyleWriter { peristyle: self, durability, changes: WriteBatch::new() }))
    }

    fn read(&self, family: usize, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        work(&mut PeristyleReader { family: &self.families[family] })
    }

    fn flush_until_quiet(&self) -> Result<()> {
        self.database.flush()?;
        self.database.wait_until_idle()?;
        Ok(())
    }

    fn compact(self: Box<Self>) -> Result<Box<dyn Engine>> {
        self.database.compact()?;
        Ok(self)
    }
}

struct PeristyleWriter<'e> {
    peristyle: &'e Peristyle,
    durability: peristyle::Durability,
    changes: WriteBatch,
}

impl Writer for PeristyleWriter<'_> {
    fn put(&mut self, family: usize, key: &[u8], value: &[u8]) -> Result<()> {
        self.peristyle.families[family].put_with(key, value, self.durability)?;
        Ok(())
    }

    fn write_together(&mut self, batches: &[(usize, &Batch)]) -> Result<()> {
        self.changes.clear();
        for (family, batch) in batches {
            let family = &self.peristyle.families[*family];
            for (key, value) in batch.iter() {
                match value {
                    Some(value) => self.changes.put(family, key, value),
                    None => self.changes.delete(family, key),
                };
            }
        }
        self.peristyle.database.write_with(&self.changes, self.durability)?;
        Ok(())
    }
}

struct PeristyleReader<'e> {
    family: &'e ColumnFamily,
}

impl Reader for PeristyleReader<'_> {
    fn get(&mut self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.family.get(key)?.map(|value| visit(&value)).is_some())
    }

    fn count(&mut self) -> Result<u64> {
        Ok(self.family.len()?)
    }

    fn scan(
        &mut self,
        from: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        let mut cursor = self.family.cursor()?;
        let mut visit = |key: &[u8], value: &[u8]| {
            if visit(key, value) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        match direction {
            Direction::Forward => cursor.seek(from)? && cursor.scan(&mut visit)?.is_break(),
            Direction::Backward => cursor.seek_for_prev(from)? && cursor.scan_back(&mut visit)?.is_break(),
        };
        Ok(())
    }
}
