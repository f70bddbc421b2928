//! Databases with a way to do transactions, behind one small trait, so that all are given the same ones.
//!
//! All commits are unsynced, and logged where the database has a log. Where a database leaves the choice,
//! what is read counts: the outcome is one that transactions could have had one after the other.

use std::path::Path;

use anyhow::Result;

#[cfg(feature = "canopydb")]
mod canopydb;
#[cfg(feature = "fjall")]
mod fjall;
#[cfg(feature = "engine")]
mod peristyle;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;

/// What a transaction reads and writes.
pub trait Access {
    /// Puts the value of `key` into `value`, and says whether there is one. `to_write`: it is going to be
    /// written.
    fn get(&mut self, key: &[u8], to_write: bool, value: &mut Vec<u8>) -> Result<bool>;
    /// Gives `key` the value.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()>;
}

/// A database with one way to do transactions.
pub trait Store: Sync {
    /// Does `work` in one transaction, over and over until it is committed. Says how often it was refused.
    fn run(&self, work: &mut dyn FnMut(&mut dyn Access) -> Result<()>) -> Result<u64>;

    /// Returns when nothing is left to be done for what was written.
    fn quiet(&self) -> Result<()>;
}

/// A way to do transactions.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Of the database, and of the way.
    pub name: &'static str,
    /// Whether it reads at all.
    pub reads: bool,
    /// Makes a database at a path at which there is nothing.
    pub open: fn(&Path) -> Result<Box<dyn Store>>,
}

impl Kind {
    const fn new(name: &'static str, open: fn(&Path) -> Result<Box<dyn Store>>) -> Self {
        Self { name, reads: true, open }
    }
}

/// All that are compiled in.
pub fn kinds() -> Vec<Kind> {
    let kinds: &[&[Kind]] = &[
        #[cfg(feature = "engine")]
        &peristyle::KINDS,
        #[cfg(feature = "rocksdb")]
        &rocksdb::KINDS,
        #[cfg(feature = "redb")]
        &redb::KINDS,
        #[cfg(feature = "fjall")]
        &fjall::KINDS,
        #[cfg(feature = "canopydb")]
        &canopydb::KINDS,
        &[],
    ];
    kinds.concat()
}

/// Puts `found` into `value`.
fn take(found: Option<impl AsRef<[u8]>>, value: &mut Vec<u8>) -> bool {
    value.clear();
    let Some(found) = found else { return false };
    value.extend_from_slice(found.as_ref());
    true
}
