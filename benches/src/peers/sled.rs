//! sled.
//!
//! Every family is a tree of one database. Sync flushes after every commit. Unsynced leaves the log
//! buffer to sled's own timer, and so promises less than is asked of the others.

use std::path::Path;

use anyhow::Result;
use sled::{Db, Tree};

use crate::engine::{Batch, Direction, Durability, Engine, Reader, Setup, Writer};

struct Sled {
    database: Db,
    trees: Vec<Tree>,
    durability: Durability,
}

/// Opens a database with one tree for each family.
pub(super) fn open(path: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let database = sled::Config::new()
        .path(path)
        .cache_capacity(setup.cache_bytes)
        .mode(sled::Mode::HighThroughput)
        .open()?;
    let trees = (0..setup.families)
        .map(|index| database.open_tree(Setup::family_name(index)))
        .collect::<sled::Result<_>>()?;
    Ok(Box::new(Sled { database, trees, durability: setup.durability }))
}

impl Engine for Sled {
    fn version(&self) -> String {
        env!("SLED_VERSION").into()
    }

    fn writer(&self, family: usize) -> Result<Box<dyn Writer + '_>> {
        Ok(Box::new(SledWriter { tree: &self.trees[family], durability: self.durability }))
    }

    fn read(&self, family: usize, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        work(&mut SledReader { tree: &self.trees[family] })
    }

    fn flush_until_quiet(&self) -> Result<()> {
        self.database.flush()?;
        Ok(())
    }
}

struct SledWriter<'e> {
    tree: &'e Tree,
    durability: Durability,
}

impl SledWriter<'_> {
    fn acknowledge(&self) -> Result<()> {
        if self.durability == Durability::Sync {
            self.tree.flush()?;
        }
        Ok(())
    }
}

impl Writer for SledWriter<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.tree.insert(key, value)?;
        self.acknowledge()
    }

    fn write(&mut self, batch: &Batch) -> Result<()> {
        let mut changes = sled::Batch::default();
        for (key, value) in batch.iter() {
            changes.insert(key, value);
        }
        self.tree.apply_batch(changes)?;
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
