//! LMDB, through heed.
//!
//! All families are named databases of one environment, and so share its single writer: every
//! commit is a write transaction of its own. Unsynced is `MDB_NOSYNC`: the pages of a commit are
//! handed to the operating system, the sync is left out. LMDB has no cache and no write buffer of
//! its own; it reads through the memory map.

use std::ops::Bound;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Result, anyhow};
use heed::types::Bytes;
use heed::{CompactionOption, Database, Env, EnvFlags, EnvOpenOptions, FlagSetMode};

use crate::engine::{Batch, Direction, Durability, Engine, Reader, Setup, Writer};

/// Address space reserved for the map; no memory, and more than any workload needs.
const MAP_BYTES: usize = 256 << 30;

type Family = Database<Bytes, Bytes>;

struct Lmdb {
    env: Env,
    families: Vec<Family>,
    setup: Setup,
    /// The durability that the flags of the environment give now.
    durability: Mutex<Durability>,
}

/// Opens an environment with one named database for each family.
pub(super) fn open(path: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_BYTES).max_dbs(setup.families as u32).max_readers(256);
    // SAFETY: the directory belongs to this run, so no one else maps or changes the file.
    let env = unsafe { options.open(path) }?;
    let mut transaction = env.write_txn()?;
    let families = (0..setup.families)
        .map(|index| env.create_database(&mut transaction, Some(&Setup::family_name(index))))
        .collect::<heed::Result<_>>()?;
    transaction.commit()?;
    Ok(Box::new(Lmdb { env, families, setup: *setup, durability: Mutex::new(Durability::Sync) }))
}

impl Engine for Lmdb {
    fn version(&self) -> String {
        let version = heed::lmdb_version();
        format!("{}.{}.{}", version.major, version.minor, version.patch)
    }

    fn writer(&self, durability: Durability) -> Result<Box<dyn Writer + '_>> {
        let mut current = self.durability.lock().map_err(|_| anyhow!("a writer panicked"))?;
        if *current != durability {
            let mode = match durability {
                Durability::Unsynced => FlagSetMode::Enable,
                Durability::Sync => FlagSetMode::Disable,
            };
            // SAFETY: the lock keeps other threads from changing the flags. Without syncs a power loss can
            // corrupt the file; the file does not outlive the run.
            unsafe { self.env.set_flags(EnvFlags::NO_SYNC, mode) }?;
            *current = durability;
        }
        Ok(Box::new(LmdbWriter { env: &self.env, families: &self.families }))
    }

    fn read(&self, family: usize, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        let transaction = self.env.read_txn()?;
        work(&mut LmdbReader { transaction: &transaction, family: self.families[family] })
    }

    fn flush_until_quiet(&self) -> Result<()> {
        Ok(self.env.force_sync()?)
    }

    /// LMDB compacts by copying: the copy then takes the place of the file.
    fn compact(self: Box<Self>) -> Result<Box<dyn Engine>> {
        let Self { env, setup, .. } = *self;
        let directory = env.path().to_owned();
        let copy = directory.join("copy.mdb");
        env.copy_to_path(&copy, CompactionOption::Enabled)?.sync_all()?;
        env.prepare_for_closing().wait();
        std::fs::rename(copy, directory.join("data.mdb"))?;
        open(&directory, &setup)
    }
}

struct LmdbWriter<'e> {
    env: &'e Env,
    families: &'e [Family],
}

impl Writer for LmdbWriter<'_> {
    fn put(&mut self, family: usize, key: &[u8], value: &[u8]) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        self.families[family].put(&mut transaction, key, value)?;
        Ok(transaction.commit()?)
    }

    fn write_together(&mut self, batches: &[(usize, &Batch)]) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        for (family, batch) in batches {
            let family = self.families[*family];
            for (key, value) in batch.iter() {
                match value {
                    Some(value) => family.put(&mut transaction, key, value)?,
                    None => drop(family.delete(&mut transaction, key)?),
                }
            }
        }
        Ok(transaction.commit()?)
    }
}

struct LmdbReader<'t> {
    transaction: &'t heed::RoTxn<'t>,
    family: Family,
}

impl Reader for LmdbReader<'_> {
    fn get(&mut self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.family.get(self.transaction, key)?.map(visit).is_some())
    }

    fn count(&mut self) -> Result<u64> {
        Ok(self.family.len(self.transaction)?)
    }

    fn scan(
        &mut self,
        from: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        match direction {
            // LMDB seeks no empty key.
            Direction::Forward if from.is_empty() => {
                for entry in self.family.iter(self.transaction)? {
                    let (key, value) = entry?;
                    if !visit(key, value) {
                        break;
                    }
                }
            }
            Direction::Forward => {
                let range = (Bound::Included(from), Bound::Unbounded);
                for entry in self.family.range(self.transaction, &range)? {
                    let (key, value) = entry?;
                    if !visit(key, value) {
                        break;
                    }
                }
            }
            Direction::Backward => {
                let range = (Bound::Unbounded, Bound::Included(from));
                for entry in self.family.rev_range(self.transaction, &range)? {
                    let (key, value) = entry?;
                    if !visit(key, value) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}
