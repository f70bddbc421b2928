//! fjall.
//!
//! Every family is a keyspace of one database, all behind one journal. Unsynced is
//! `PersistMode::Buffer` (handed to the operating system), sync is `PersistMode::SyncData`. The
//! cache is shared; the write buffers are a memtable for each keyspace, as large as its share allows.

use std::any::Any;
use std::path::Path;

use anyhow::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};

use super::wait_while;
use crate::engine::{Batch, Direction, Durability, Engine, Held, Reader, Setup, Writer};

/// fjall takes no smaller limit for its journal, which lies on the disk.
const LEAST_JOURNAL_BYTES: u64 = 64 << 20;

struct Fjall {
    database: Database,
    keyspaces: Vec<Keyspace>,
    /// In bytes, where it is not the default.
    memtable_bytes: Option<u64>,
}

/// Opens a database with one keyspace for each family.
pub(super) fn open(path: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    // A memtable is filled while its predecessor is flushed: two share a family's part.
    let memtable_bytes = setup.memory.map(|memory| memory.write_buffer_bytes_per_family(setup.families) / 2);
    let mut builder = Database::builder(path);
    if let Some(memory) = setup.memory {
        builder = builder
            .cache_size(memory.cache_bytes)
            .max_journaling_size(memory.write_buffer_bytes.max(LEAST_JOURNAL_BYTES));
    }
    let keyspaces = Vec::with_capacity(setup.families);
    let mut fjall = Fjall { database: builder.open()?, keyspaces, memtable_bytes };
    for _ in 0..setup.families {
        fjall.create_family()?;
    }
    Ok(Box::new(fjall))
}

impl Engine for Fjall {
    fn version(&self) -> String {
        env!("FJALL_VERSION").into()
    }

    fn writer(&self, durability: Durability) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(FjallWriter { fjall: self, durability }))
    }

    fn read(&self, family: usize, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        work(&mut FjallReader { keyspace: &self.keyspaces[family] })
    }

    fn hold(&self) -> Result<Box<dyn Held + '_>> {
        Ok(Box::new(FjallHeld { fjall: self, snapshot: self.database.snapshot() }))
    }

    fn keep(&self, family: usize, key: &[u8]) -> Result<Box<dyn Any>> {
        Ok(Box::new(self.keyspaces[family].get(key)?))
    }

    fn create_family(&mut self) -> Result<()> {
        let keyspace = self.database.keyspace(&Setup::family_name(self.keyspaces.len()), || {
            let options = KeyspaceCreateOptions::default();
            match self.memtable_bytes {
                Some(bytes) => options.max_memtable_size(bytes),
                None => options,
            }
        })?;
        self.keyspaces.push(keyspace);
        Ok(())
    }

    fn look_up(&self, family: usize) -> Result<bool> {
        Ok(self.database.keyspace_exists(&Setup::family_name(family)))
    }

    fn is_log(&self, file: &Path) -> bool {
        file.extension().is_some_and(|extension| extension == "jnl")
    }

    fn flush_until_quiet(&self) -> Result<()> {
        for keyspace in &self.keyspaces {
            keyspace.rotate_memtable_and_wait()?;
        }
        self.database.persist(PersistMode::SyncAll)?;
        wait_while(|| Ok(self.database.outstanding_flushes() > 0 || self.database.active_compactions() > 0))
    }

    fn compact(self: Box<Self>) -> Result<Box<dyn Engine>> {
        for keyspace in &self.keyspaces {
            keyspace.rotate_memtable_and_wait()?;
            keyspace.major_compact()?;
        }
        self.flush_until_quiet()?;
        Ok(self)
    }
}

struct FjallWriter<'e> {
    fjall: &'e Fjall,
    durability: Durability,
}

impl FjallWriter<'_> {
    fn batch(&self) -> fjall::OwnedWriteBatch {
        self.fjall.database.batch().durability(Some(match self.durability {
            Durability::Unsynced => PersistMode::Buffer,
            Durability::Sync => PersistMode::SyncData,
        }))
    }
}

impl Writer for FjallWriter<'_> {
    fn put(&mut self, family: usize, key: &[u8], value: &[u8]) -> Result<()> {
        let keyspace = &self.fjall.keyspaces[family];
        match self.durability {
            // A single insert reaches the operating system on its own.
            Durability::Unsynced => Ok(keyspace.insert(key, value)?),
            Durability::Sync => {
                let mut batch = self.batch();
                batch.insert(keyspace, key, value);
                Ok(batch.commit()?)
            }
        }
    }

    fn write_together(&mut self, batches: &[(usize, &Batch)]) -> Result<()> {
        let mut together = self.batch();
        for (family, batch) in batches {
            let keyspace = &self.fjall.keyspaces[*family];
            for (key, value) in batch.iter() {
                match value {
                    Some(value) => together.insert(keyspace, key, value),
                    None => together.remove(keyspace, key),
                }
            }
        }
        Ok(together.commit()?)
    }
}

struct FjallHeld<'e> {
    fjall: &'e Fjall,
    snapshot: Snapshot,
}

impl Held for FjallHeld<'_> {
    fn read(&self, family: usize, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        work(&mut FjallHeldReader { snapshot: &self.snapshot, keyspace: &self.fjall.keyspaces[family] })
    }
}

/// Shows entries until `visit` returns false.
fn walk(
    entries: impl Iterator<Item = fjall::Guard>,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<()> {
    for guard in entries {
        let (key, value) = guard.into_inner()?;
        if !visit(&key, &value) {
            break;
        }
    }
    Ok(())
}

struct FjallReader<'e> {
    keyspace: &'e Keyspace,
}

impl Reader for FjallReader<'_> {
    fn get(&mut self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.keyspace.get(key)?.map(|value| visit(&value)).is_some())
    }

    fn count(&mut self) -> Result<u64> {
        Ok(self.keyspace.len()? as u64)
    }

    fn range(&mut self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        walk(self.keyspace.range(from..to), visit)
    }

    fn scan(
        &mut self,
        from: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        match direction {
            Direction::Forward => walk(self.keyspace.range(from..), visit),
            Direction::Backward => walk(self.keyspace.range(..=from).rev(), visit),
        }
    }
}

struct FjallHeldReader<'e> {
    snapshot: &'e Snapshot,
    keyspace: &'e Keyspace,
}

impl Reader for FjallHeldReader<'_> {
    fn get(&mut self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.snapshot.get(self.keyspace, key)?.map(|value| visit(&value)).is_some())
    }

    fn scan(
        &mut self,
        from: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        match direction {
            Direction::Forward => walk(self.snapshot.range(self.keyspace, from..), visit),
            Direction::Backward => walk(self.snapshot.range(self.keyspace, ..=from).rev(), visit),
        }
    }
}
