//! canopydb.
//!
//! Every family is a database of one environment: that is its own way to let families write at the
//! same time and commit together (they share the log and the page cache, and each has its own
//! writer). Unsynced commits are written to the log without a sync. A family's part of the write
//! buffers is its limit of changes not yet checkpointed.

use std::path::Path;

use anyhow::{Context, Result};
use canopydb::{Database, DbOptions, EnvOptions, Environment, Tree, WriteTransaction};

use crate::engine::{Batch, Direction, Durability, Engine, Reader, Setup, Writer};

/// The one tree of each database.
const TREE: &[u8] = b"entries";

struct Canopy {
    databases: Vec<Database>,
    // Kept after the databases, so that they are dropped first.
    environment: Environment,
}

/// Opens an environment with one database for each family.
pub(super) fn open(path: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let mut options = EnvOptions::new(path);
    options.page_cache_size = usize::try_from(setup.cache_bytes)?;
    options.max_wal_size = setup.write_buffer_bytes;
    let environment = Environment::with_options(options)?;

    let limit = usize::try_from(setup.write_buffer_bytes_per_family())?;
    let mut options = DbOptions::new();
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
    Ok(Box::new(Canopy { databases, environment }))
}

impl Engine for Canopy {
    fn version(&self) -> String {
        env!("CANOPYDB_VERSION").into()
    }

    fn writer(&self, durability: Durability) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(CanopyWriter { canopy: self, sync: durability == Durability::Sync }))
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

    fn compact(self: Box<Self>) -> Result<Box<dyn Engine>> {
        for database in &self.databases {
            database.compact()?;
        }
        Ok(self)
    }
}

struct CanopyWriter<'e> {
    canopy: &'e Canopy,
    sync: bool,
}

impl CanopyWriter<'_> {
    /// A write transaction on a family's database with the changes in it.
    fn change<'a>(
        &self,
        family: usize,
        changes: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Result<WriteTransaction> {
        let transaction = self.canopy.databases[family].begin_write()?;
        {
            let mut tree = transaction.get_or_create_tree(TREE)?;
            for (key, value) in changes {
                match value {
                    Some(value) => tree.insert(key, value)?,
                    None => drop(tree.delete(key)?),
                }
            }
        }
        Ok(transaction)
    }
}

impl Writer for CanopyWriter<'_> {
    fn put(&mut self, family: usize, key: &[u8], value: &[u8]) -> Result<()> {
        self.change(family, std::iter::once((key, Some(value))))?.commit_with(self.sync)?;
        Ok(())
    }

    fn write_together(&mut self, batches: &[(usize, &Batch)]) -> Result<()> {
        if let [(family, batch)] = batches {
            self.change(*family, batch.iter())?.commit_with(self.sync)?;
            return Ok(());
        }
        let transactions: Vec<WriteTransaction> = batches
            .iter()
            .map(|(family, batch)| self.change(*family, batch.iter()))
            .collect::<Result<_>>()?;
        Ok(self.canopy.environment.group_commit(transactions, self.sync)?)
    }
}

struct CanopyReader<'t> {
    tree: &'t Tree<'t>,
}

impl Reader for CanopyReader<'_> {
    fn get(&mut self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.tree.get(key)?.map(|value| visit(&value)).is_some())
    }

    fn count(&mut self) -> Result<u64> {
        Ok(self.tree.len())
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
