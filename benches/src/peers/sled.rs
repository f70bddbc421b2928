//! sled.
//!
//! Every family is a tree of one database. Sync flushes after every commit. Unsynced leaves the log
//! buffer to sled's own timer, and so promises less than is asked of the others.

use std::path::Path;

use anyhow::{Result, anyhow};
use sled::transaction::{TransactionResult, Transactional};
use sled::{Db, Tree};

use crate::engine::{Batch, Direction, Durability, Engine, Reader, Setup, Writer};

struct Sled {
    database: Db,
    trees: Vec<Tree>,
}

/// Opens a database with one tree for each family.
pub(super) fn open(path: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let mut config = sled::Config::new().path(path);
    if let Some(memory) = setup.memory {
        config = config.cache_capacity(memory.cache_bytes).mode(sled::Mode::HighThroughput);
    }
    let database = config.open()?;
    let trees = (0..setup.families)
        .map(|index| database.open_tree(Setup::family_name(index)))
        .collect::<sled::Result<_>>()?;
    Ok(Box::new(Sled { database, trees }))
}

impl Engine for Sled {
    fn version(&self) -> String {
        env!("SLED_VERSION").into()
    }

    fn writer(&self, durability: Durability) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(SledWriter { sled: self, durability }))
    }

    fn read(&self, family: usize, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        work(&mut SledReader { tree: &self.trees[family] })
    }

    fn create_family(&mut self) -> Result<()> {
        self.trees.push(self.database.open_tree(Setup::family_name(self.trees.len()))?);
        Ok(())
    }

    fn flush_until_quiet(&self) -> Result<()> {
        self.database.flush()?;
        Ok(())
    }

    fn has_compaction(&self) -> bool {
        false
    }

    fn compact(self: Box<Self>) -> Result<Box<dyn Engine>> {
        Ok(self)
    }
}

struct SledWriter<'e> {
    sled: &'e Sled,
    durability: Durability,
}

impl SledWriter<'_> {
    fn acknowledge(&self) -> Result<()> {
        if self.durability == Durability::Sync {
            self.sled.database.flush()?;
        }
        Ok(())
    }
}

fn changes(batch: &Batch) -> sled::Batch {
    let mut changes = sled::Batch::default();
    for (key, value) in batch.iter() {
        match value {
            Some(value) => changes.insert(key, value),
            None => changes.remove(key),
        }
    }
    changes
}

impl Writer for SledWriter<'_> {
    fn put(&mut self, family: usize, key: &[u8], value: &[u8]) -> Result<()> {
        self.sled.trees[family].insert(key, value)?;
        self.acknowledge()
    }

    fn write_together(&mut self, batches: &[(usize, &Batch)]) -> Result<()> {
        if let [(family, batch)] = batches {
            self.sled.trees[*family].apply_batch(changes(batch))?;
            return self.acknowledge();
        }
        let trees: Vec<Tree> = batches.iter().map(|(family, _)| self.sled.trees[*family].clone()).collect();
        let of_trees: Vec<sled::Batch> = batches.iter().map(|(_, batch)| changes(batch)).collect();
        let outcome: TransactionResult<()> = trees.as_slice().transaction(|trees| {
            trees.iter().zip(&of_trees).try_for_each(|(tree, batch)| Ok(tree.apply_batch(batch)?))
        });
        outcome.map_err(|error| anyhow!("the transaction failed: {error:?}"))?;
        self.acknowledge()
    }
}

struct SledReader<'e> {
    tree: &'e Tree,
}

impl Reader for SledReader<'_> {
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
                for entry in self.tree.range(from..) {
                    let (key, value) = entry?;
                    if !visit(&key, &value) {
                        break;
                    }
                }
            }
            Direction::Backward => {
                for entry in self.tree.range(..=from).rev() {
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
