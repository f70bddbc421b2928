//! What a benchmark asks of an engine.
//!
//! The traits are as small as the workloads allow and hand keys and values over as slices, so that
//! no engine pays for a copy that its own API does not make. One virtual call per commit or lookup
//! is the only cost they add, and it is the same for all.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A killed process, but not a power loss.
    Unsynced,
    /// A power loss.
    Sync,
}

impl std::fmt::Display for Durability {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(match self {
            Self::Unsynced => "unsynced",
            Self::Sync => "sync",
        })
    }
}

/// The setup that every engine of a comparison gets alike, as far as it can be told.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Number of column families; they are addressed as `0..families`.
    pub families: usize,
    /// What every acknowledged write must survive.
    pub durability: Durability,
    /// Read cache of the whole database, in bytes.
    pub cache_bytes: u64,
    /// Memtables and write buffers of the whole database, in bytes.
    pub write_buffer_bytes: u64,
}

impl Setup {
    /// The setup of the published comparisons: 4 GiB of cache and 1 GiB of write buffers.
    pub fn new(families: usize, durability: Durability) -> Self {
        Self { families, durability, cache_bytes: 4 << 30, write_buffer_bytes: 1 << 30 }
    }

    /// The name of family `index` in engines that name their families.
    pub fn family_name(index: usize) -> String {
        format!("family-{index}")
    }

    /// One family's part of the write buffers, in bytes.
    pub fn write_buffer_bytes_per_family(&self) -> u64 {
        self.write_buffer_bytes / self.families.max(1) as u64
    }
}

/// Opens an engine's database in a directory; creates it and the families of the setup where they are missing.
pub type Open = fn(&Path, &Setup) -> Result<Box<dyn Engine>>;

/// An open database, shared by all threads of a run.
pub trait Engine: Send + Sync {
    /// The version of the engine that really runs.
    fn version(&self) -> String;

    /// A handle that writes to one family; every writing thread makes its own.
    fn writer(&self, family: usize) -> Result<Box<dyn Writer + '_>>;

    /// Calls `work` with a consistent view of one family as of now.
    fn read(&self, family: usize, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()>;

    /// Makes everything durable and returns once no background work is left.
    fn flush_until_quiet(&self) -> Result<()>;
}

/// Writes to one family with the durability of the setup.
pub trait Writer {
    /// Writes one entry as a commit of its own, by the engine's shortest way.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Writes all entries of the batch as one atomic commit.
    fn write(&mut self, batch: &Batch) -> Result<()>;
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Backward,
}

/// Reads one family.
pub trait Reader {
    /// Looks `key` up and shows its value to `visit`; returns whether there is one.
    fn get(&mut self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool>;

    /// Shows entries to `visit`, from `from` (included, where it exists) in the given direction,
    /// until `visit` returns false or the family ends.
    fn scan(
        &mut self,
        from: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()>;
}

/// Entries to be written in one commit, laid out so that filling it costs every engine the same.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    lengths: Vec<(usize, usize)>,
}

impl Batch {
    /// Appends an entry.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.lengths.push((key.len(), value.len()));
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.lengths.clear();
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The entries as pairs of key and value, in the order in which they were pushed.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.bytes.as_slice();
        self.lengths.iter().map(move |&(key_len, value_len)| {
            let (key, after_key) = rest.split_at(key_len);
            let (value, after_value) = after_key.split_at(value_len);
            rest = after_value;
            (key, value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_gives_back_its_entries_in_order() {
        let mut batch = Batch::default();
        let entries: [(&[u8], &[u8]); 3] = [(b"a", b"one"), (b"", b""), (b"long key", b"2")];
        for (key, value) in entries {
            batch.push(key, value);
        }
        assert_eq!(batch.iter().collect::<Vec<_>>(), entries);
        batch.clear();
        assert!(batch.is_empty());
    }
}
