//! canopydb: transactions that write one at a time and are serializable, and those that write at once and are
//! of snapshot isolation, with conflicts by pages.

use std::path::Path;

use anyhow::{Context, Result};
use canopydb::{Database, EnvOptions, Environment, Error, Tree};

use super::{Access, Kind, Store, take};

pub(super) const KINDS: [Kind; 2] = [
    Kind::new("canopydb, one writer", |path| open(path, false)),
    Kind::new("canopydb, concurrent, snapshot", |path| open(path, true)),
];

const TREE: &[u8] = b"entries";

struct Canopy {
    database: Database,
    // Kept after the database, so that that is dropped first.
    _environment: Environment,
    concurrent: bool,
}

fn open(path: &Path, concurrent: bool) -> Result<Box<dyn Store>> {
    std::fs::create_dir_all(path)?;
    let environment = Environment::with_options(EnvOptions::new(path))?;
    let database = environment.get_or_create_database("entries")?;
    let transaction = database.begin_write()?;
    transaction.get_or_create_tree(TREE)?;
    transaction.commit()?;
    Ok(Box::new(Canopy { database, _environment: environment, concurrent }))
}

struct InTree<'a>(Tree<'a>);

impl Access for InTree<'_> {
    fn get(&mut self, key: &[u8], _to_write: bool, value: &mut Vec<u8>) -> Result<bool> {
        Ok(take(self.0.get(key)?, value))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.0.insert(key, value)?)
    }
}

impl Store for Canopy {
    fn run(&self, work: &mut dyn FnMut(&mut dyn Access) -> Result<()>) -> Result<u64> {
        let mut refused = 0;
        loop {
            let transaction = self.database.begin_write_with(self.concurrent)?;
            work(&mut InTree(transaction.get_tree(TREE)?.context("the tree is gone")?))?;
            match transaction.commit() {
                Ok(_) => return Ok(refused),
                Err(Error::WriteConflict) => refused += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn quiet(&self) -> Result<()> {
        Ok(self.database.checkpoint()?)
    }
}
