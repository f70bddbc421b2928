//! Peristyle.
//!
//! Every family is a column family of one database. Unsynced is `Durability::Buffered` (the log
//! record is handed to the operating system), sync is `Durability::Sync`.

use std::any::Any;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Result;
use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, Cursor, FamilyOptions, FamilySnapshot, Snapshot, WriteBatch,
};

use crate::engine::{Batch, Direction, Durability, Engine, Held, Reader, Setup, Writer};

struct Peristyle {
    database: ColumnFamilyDatabase,
    families: Vec<ColumnFamily>,
}

/// Opens a database with one column family for each family.
pub(super) fn open(path: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let mut builder = ColumnFamilyDatabase::builder();
    if let Some(memory) = setup.memory {
        builder = builder.cache_bytes(memory.cache_bytes).write_buffer_bytes(memory.write_buffer_bytes);
    }
    let database = builder.open(path)?;
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

    fn hold(&self) -> Result<Box<dyn Held + '_>> {
        Ok(Box::new(PeristyleHeld { peristyle: self, snapshot: self.database.snapshot()? }))
    }

    fn keep(&self, family: usize, key: &[u8]) -> Result<Box<dyn Any>> {
        Ok(Box::new(self.families[family].get(key)?))
    }

    fn create_family(&mut self) -> Result<()> {
        let name = Setup::family_name(self.families.len());
        self.families.push(self.database.create_column_family(&name, FamilyOptions::default())?);
        Ok(())
    }

    fn create_families(&mut self, count: usize) -> Result<bool> {
        let numbers = self.families.len()..self.families.len() + count;
        let new = numbers.map(|index| (Setup::family_name(index), FamilyOptions::default()));
        self.families.extend(self.database.create_column_families(new)?);
        Ok(true)
    }

    fn look_up(&self, family: usize) -> Result<bool> {
        self.database.column_family(&Setup::family_name(family))?;
        Ok(true)
    }

    fn is_log(&self, file: &Path) -> bool {
        file.starts_with("wal")
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

    fn remove(&mut self, family: usize, key: &[u8]) -> Result<()> {
        self.peristyle.families[family].delete_with(key, self.durability)?;
        Ok(())
    }

    fn remove_range(&mut self, family: usize, from: &[u8], to: &[u8]) -> Result<()> {
        self.peristyle.families[family].delete_range_with(from..to, self.durability)?;
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

    fn range(&mut self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        scan_all(self.family.cursor_in(from..to)?, visit)
    }

    fn scan(
        &mut self,
        from: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        scan(self.family.cursor()?, from, direction, visit)
    }
}

fn scan(
    mut cursor: Cursor,
    from: &[u8],
    direction: Direction,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<()> {
    let mut visit = |key: &[u8], value: &[u8]| {
        if visit(key, value) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    match direction {
        Direction::Forward => cursor.seek(from)? && cursor.scan(&mut visit)?.is_break(),
        Direction::Backward => cursor.seek_for_prev(from)? && cursor.scan_back(&mut visit)?.is_break(),
    };
    Ok(())
}

/// Shows all that a cursor with a range passes.
fn scan_all(mut cursor: Cursor, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
    if cursor.first()? {
        let _ = cursor.scan(|key, value| {
            if visit(key, value) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
    }
    Ok(())
}

struct PeristyleHeld<'e> {
    peristyle: &'e Peristyle,
    snapshot: Snapshot,
}

impl Held for PeristyleHeld<'_> {
    fn read(&self, family: usize, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        let family = self.snapshot.column_family(&self.peristyle.families[family])?;
        work(&mut PeristyleHeldReader { family })
    }
}

struct PeristyleHeldReader {
    family: FamilySnapshot,
}

impl Reader for PeristyleHeldReader {
    fn get(&mut self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.family.get(key)?.map(|value| visit(&value)).is_some())
    }

    fn count(&mut self) -> Result<u64> {
        Ok(self.family.len()?)
    }

    fn range(&mut self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        scan_all(self.family.cursor_in(from..to), visit)
    }

    fn scan(
        &mut self,
        from: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        scan(self.family.cursor(), from, direction, visit)
    }
}
