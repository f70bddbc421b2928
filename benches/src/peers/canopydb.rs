//! canopydb.
//!
//! Every family is a database of one environment: that is its own way to let families write at the
//! same time and commit together (they share the log and the page cache, and each has its own
//! writer). Unsynced commits are written to the log without a sync. A family's part of the write
//! buffers is its limit of changes not yet checkpointed.

use std::path::Path;

use anyhow::{Context, Result};
use canopydb::{Database, DbOptions, EnvOptions, Environment, Tree};

use crate::engine::{Batch, Direction, Durability, Engine, Reader, Setup, Writer};

/// The one tree of each database.
const TREE: &[u8] = b"entries";

struct Canopy {
    databases: Vec<Database>,
    // Kept after the databases, so that they are dropped first.
    _environment: Environment,
}

/// Opens an environment with one database for each family.
pub(super) fn open(path: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let mut options = EnvOptions::new(path);
    options.page_cache_size = usize::try_from(setup.cache_bytes)?;
    options.max_wal_size = setup.write_buffer_bytes;
    let environment = Environment::with_options(options)?;

    let limit = usize::try_from(setup.write_buffer_bytes_per_family())?;
    let mut options = DbOptions::new();
    options.default_commit_sync = setup.durability == Durability::Sync;
    options.checkpoint_target_size = limit / 2;
    options.throttle_memory_limit = limit;
    options.stall_memory_limit = limit;
    let databases = (0..setup.families)
        .map(|index| {
            let database =
                environment.get_or_create_database_with(&Setup::family_name(index), options.clone())?;
            let transaction = database.begin_write()?;
            transaction.get_or_create_tree(TREE)?;
            transaction.commit()?;
            Ok(database)
        })
        .collect::<Result<_>>()?;
    Ok(Box::new(Canopy { databases, _environment: environment }))
}

impl Engine for Canopy {
    fn version(&self) -> String {
        env!("CANOPYDB_VERSION").into()
    }

    fn writer(&self, family: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(CanopyWriter { database: &self.databases[family] }))
    }

    fn read(&self, family: usize, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        let transaction = self.databases[family].begin_read()?;
        let tree = transaction.get_tree(TREE)?.context("the tree is gone")?;
        work(&mut CanopyReader { tree: &tree })
    }

    fn flush_until_quiet(&self) -> Result<()> {
        for database in &self.databases {
            database.checkpoint()?;
        }
        Ok(())
    }
}

struct CanopyWriter<'e> {
    database: &'e Database,
}

impl CanopyWriter<'_> {
    fn commit<'a>(&self, entries: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<()> {
        let transaction = self.database.begin_write()?;
        {
            let mut tree = transaction.get_or_create_tree(TREE)?;
            for (key, value) in entries {
                tree.insert(key, value)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Writer for CanopyWriter<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.commit(std::iter::once((key, value)))
    }

    fn write(&mut self, batch: &Batch) -> Result<()> {
        self.commit(batch.iter())
    }
}

struct CanopyReader<'t> {
    tree: &'t Tree<'t>,
}

impl Reader for CanopyReader<'_> {
    fn get(&mut self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.tree.get(key)?.map(|value| visit(&value)).is_some())
    }

    fn scan(
        &mut self,
        from: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        match direction {
            Direction::Forward => {
                for entry in self.tree.range(from..)? {
                    let (key, value) = entry?;
                    if !visit(&key, &value) {
                        break;
                    }
                }
            }
            Direction::Backward => {
                for entry in self.tree.range(..=from)?.rev() {
                    let (key, value) = entry?;
                    if !visit(&key, &value) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}
