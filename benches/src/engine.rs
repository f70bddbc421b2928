//! What a benchmark asks of an engine.
//!
//! The traits are as small as the workloads allow and hand keys and values over as slices, so that
//! no engine pays for a copy that its own API does not make. One virtual call per commit or lookup
//! is the only cost they add, and it is the same for all.

use std::any::Any;
use std::path::Path;

use anyhow::{Result, bail};
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
    /// The memory that engines are given; `None` leaves them with nothing but their defaults, in this and all
    /// else.
    pub memory: Option<Memory>,
}

/// Memory of a whole database.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// Read cache, in bytes.
    pub cache_bytes: u64,
    /// Memtables and write buffers, in bytes.
    pub write_buffer_bytes: u64,
}

impl Setup {
    /// The setup of the published comparisons: 4 GiB of cache and 1 GiB of write buffers.
    pub fn new(families: usize) -> Self {
        Self { families, memory: Some(Memory::of_comparisons()) }
    }

    /// A setup with memory for the read cache and for write buffers, in bytes.
    pub const fn with_memory(families: usize, cache_bytes: u64, write_buffer_bytes: u64) -> Self {
        Self { families, memory: Some(Memory { cache_bytes, write_buffer_bytes }) }
    }

    /// What users meet who set nothing.
    pub const fn defaults(families: usize) -> Self {
        Self { families, memory: None }
    }

    /// The name of family `index` in engines that name their families.
    pub fn family_name(index: usize) -> String {
        format!("family-{index}")
    }
}

impl Memory {
    /// 4 GiB of cache and 1 GiB of write buffers.
    pub fn of_comparisons() -> Self {
        Self { cache_bytes: 4 << 30, write_buffer_bytes: 1 << 30 }
    }

    /// One family's part of the write buffers, in bytes.
    pub fn write_buffer_bytes_per_family(&self, families: usize) -> u64 {
        self.write_buffer_bytes / families.max(1) as u64
    }
}

/// Opens an engine's database in a directory; creates it and the families of the setup where they are
/// missing.
pub type Open = fn(&Path, &Setup) -> Result<Box<dyn Engine>>;

/// What some workloads ask for and some engines do not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// [`Engine::hold`].
    Snapshots,
    /// [`Writer::remove_range`].
    RangeDeletes,
    /// [`Engine::create_family`].
    Families,
    /// A log, as [`Engine::is_log`] knows it.
    Log,
    /// Writers of different durabilities at the same time.
    MixedDurabilities,
    /// Peristyle's own interface, of which more is used than other engines have.
    OwnApi,
}

/// An open database, shared by all threads of a run.
pub trait Engine: Send + Sync {
    /// The version of the engine that really runs.
    fn version(&self) -> String;

    /// A handle that writes with a durability. Every writing thread makes its own; those that write at the
    /// same time all ask for the same durability where the engine lacks
    /// [`MixedDurabilities`](Feature::MixedDurabilities).
    fn writer(&self, durability: Durability) -> Result<Box<dyn Writer + '_>>;

    /// Calls `work` with a view of one family that is no older than the call. What is written meanwhile may
    /// show in it or not.
    fn read(&self, family: usize, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()>;

    /// Holds the moment of the call for as long as what is returned lives.
    fn hold(&self) -> Result<Box<dyn Held + '_>> {
        bail!("it has no snapshots")
    }

    /// The value of a key in the form in which a caller of the engine's own `get` keeps it; what it is read
    /// for is the memory that it holds back.
    fn keep(&self, family: usize, key: &[u8]) -> Result<Box<dyn Any>> {
        let mut kept = Vec::new();
        self.read(family, &mut |reader| reader.get(key, &mut |value| kept = value.to_vec()).map(drop))?;
        Ok(Box::new(kept))
    }

    /// Adds a family behind those that there are, durably.
    fn create_family(&mut self) -> Result<()> {
        bail!("families cannot be added")
    }

    /// Adds some families in one durable step; returns whether the engine has such a call, without which
    /// nothing is added.
    fn create_families(&mut self, count: usize) -> Result<bool> {
        let _ = count;
        Ok(false)
    }

    /// Looks a family up by its name; returns whether the engine has such a call.
    fn look_up(&self, family: usize) -> Result<bool> {
        let _ = family;
        Ok(false)
    }

    /// Whether a file of the database, named from its directory on, belongs to the log.
    fn is_log(&self, file: &Path) -> bool {
        let _ = file;
        false
    }

    /// Makes everything durable and returns once no background work is left.
    fn flush_until_quiet(&self) -> Result<()>;

    /// Whether [`compact`](Self::compact) does anything.
    fn has_compaction(&self) -> bool {
        true
    }

    /// Makes the database as small as the engine can; returns it open.
    fn compact(self: Box<Self>) -> Result<Box<dyn Engine>>;
}

/// A moment of the whole database.
pub trait Held {
    /// Calls `work` with one family as it was at that moment.
    fn read(&self, family: usize, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()>;
}

/// Writes with one durability.
pub trait Writer {
    /// Writes one entry as a commit of its own, by the engine's shortest way.
    fn put(&mut self, family: usize, key: &[u8], value: &[u8]) -> Result<()>;

    /// Removes one entry as a commit of its own.
    fn remove(&mut self, family: usize, key: &[u8]) -> Result<()> {
        let mut batch = Batch::default();
        batch.remove(key);
        self.write(family, &batch)
    }

    /// Removes all entries from `from` up to and without `to`, as a commit of its own.
    fn remove_range(&mut self, family: usize, from: &[u8], to: &[u8]) -> Result<()> {
        let _ = (family, from, to);
        bail!("it has no range deletions")
    }

    /// Writes all batches, each to its family, as one atomic commit. No family is named twice.
    fn write_together(&mut self, batches: &[(usize, &Batch)]) -> Result<()>;

    /// Writes one batch as one atomic commit.
    fn write(&mut self, family: usize, batch: &Batch) -> Result<()> {
        self.write_together(&[(family, batch)])
    }
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

    /// Shows the entries from `from` up to and without `to` to `visit`, ascending, until that returns false.
    /// The engine is told both bounds if it can be told.
    fn range(&mut self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        self.scan(from, Direction::Forward, &mut |key, value| key < to && visit(key, value))
    }

    /// The exact number of entries, by the engine's shortest way.
    fn count(&mut self) -> Result<u64> {
        let mut count = 0;
        self.scan(&[], Direction::Forward, &mut |_, _| {
            count += 1;
            true
        })?;
        Ok(count)
    }
}

/// Changes to one family, laid out so that filling it costs every engine the same.
#[derive(Debug, Default)]
pub struct Batch<'v> {
    /// Keys, each with its value if that is not borrowed.
    bytes: Vec<u8>,
    /// For each change the length of the key, and the value.
    changes: Vec<(usize, Option<Value<'v>>)>,
}

#[derive(Debug, Clone, Copy)]
enum Value<'v> {
    /// Behind its key, of this length.
    Copied(usize),
    Borrowed(&'v [u8]),
}

impl<'v> Batch<'v> {
    /// Appends an entry.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.changes.push((key.len(), Some(Value::Copied(value.len()))));
    }

    /// Appends an entry whose value stays where it is.
    pub fn push_borrowed(&mut self, key: &[u8], value: &'v [u8]) {
        self.bytes.extend_from_slice(key);
        self.changes.push((key.len(), Some(Value::Borrowed(value))));
    }

    /// Appends the removal of an entry.
    pub fn remove(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.changes.push((key.len(), None));
    }

    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.changes.clear();
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there is no change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes as pairs of key and value, or key and `None` for a removal, in the order in which they
    /// were pushed.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut rest = self.bytes.as_slice();
        self.changes.iter().map(move |&(key_len, value)| {
            let (key, after_key) = rest.split_at(key_len);
            rest = after_key;
            let value = value.map(|value| match value {
                Value::Borrowed(value) => value,
                Value::Copied(len) => {
                    let (value, after_value) = rest.split_at(len);
                    rest = after_value;
                    value
                }
            });
            (key, value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_gives_back_its_changes_in_order() {
        let mut batch = Batch::default();
        let changes: [(&[u8], Option<&[u8]>); 4] =
            [(b"a", Some(b"one")), (b"", Some(b"")), (b"gone", None), (b"long key", Some(b"2"))];
        for (number, (key, value)) in changes.into_iter().enumerate() {
            match value {
                Some(value) if number % 3 == 0 => batch.push_borrowed(key, value),
                Some(value) => batch.push(key, value),
                None => batch.remove(key),
            }
        }
        assert_eq!(batch.iter().collect::<Vec<_>>(), changes);
        batch.clear();
        assert!(batch.is_empty());
    }
}
