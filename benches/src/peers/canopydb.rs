//! canopydb.
//!
//! Every family is a database of one environment: that is its own way to let families write at the
//! same time and commit together (they share the log and the page cache, and each has its own
//! writer). Unsynced commits are written to the log without a sync. A family's part of the write
//! buffers is its limit of changes not yet checkpointed.

use std::any::Any;
use std::path::Path;

use anyhow::{Context, Result};
use canopydb::{Database, DbOptions, EnvOptions, Environment, ReadTransaction, Tree, WriteTransaction};

use crate::engine::{Batch, Direction, Durability, Engine, Held, Reader, Setup, Writer};

/// The one tree of each database.
const TREE: &[u8] = b"entries";

struct Canopy {
    databases: Vec<Database>,
    // Kept after the databases, so that they are dropped first.
    environment: Environment,
    options: DbOptions,
}

/// Opens an environment with one database for each family.
pub(super) fn open(path: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let mut environment_options = EnvOptions::new(path);
    let mut options = DbOptions::new();
    if let Some(memory) = setup.memory {
        environment_options.page_cache_size = usize::try_from(memory.cache_bytes)?;
        environment_options.max_wal_size = memory.write_buffer_bytes;
        let limit = usize::try_from(memory.write_buffer_bytes_per_family(setup.families))?;
        options.checkpoint_target_size = limit / 2;
        options.throttle_memory_limit = limit;
        options.stall_memory_limit = limit;
    }
    let environment = Environment::with_options(environment_options)?;
    let mut canopy = Canopy { databases: Vec::with_capacity(setup.families), environment, options };
    for _ in 0..setup.families {
        canopy.create_family()?;
    }
    Ok(Box::new(canopy))
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

    /// A read transaction on every database: each is a moment of its own.
    fn hold(&self) -> Result<Box<dyn Held + '_>> {
        let transactions = self.databases.iter().map(Database::begin_read).collect::<Result<_, _>>()?;
        Ok(Box::new(CanopyHeld { transactions }))
    }

    fn keep(&self, family: usize, key: &[u8]) -> Result<Box<dyn Any>> {
        let transaction = self.databases[family].begin_read()?;
        let tree = transaction.get_tree(TREE)?.context("the tree is gone")?;
        Ok(Box::new(tree.get(key)?))
    }

    fn create_family(&mut self) -> Result<()> {
        let name = Setup::family_name(self.databases.len());
        let database = self.environment.get_or_create_database_with(&name, self.options.clone())?;
        let transaction = database.begin_write()?;
        transaction.get_or_create_tree(TREE)?;
        transaction.commit()?;
        self.databases.push(database);
        Ok(())
    }

    fn is_log(&self, file: &Path) -> bool {
        file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("WAL-"))
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

    fn remove_range(&mut self, family: usize, from: &[u8], to: &[u8]) -> Result<()> {
        let transaction = self.canopy.databases[family].begin_write()?;
        transaction.get_or_create_tree(TREE)?.delete_range(from..to)?;
        transaction.commit_with(self.sync)?;
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

struct CanopyHeld {
    transactions: Vec<ReadTransaction>,
}

impl Held for CanopyHeld {
    fn read(&self, family: usize, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        let tree = self.transactions[family].get_tree(TREE)?.context("the tree is gone")?;
        work(&mut CanopyReader { tree: &tree })
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

    fn range(&mut self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        for entry in self.tree.range(from..to)? {
            let (key, value) = entry?;
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
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
