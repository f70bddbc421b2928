//! RocksDB, linked against the library that the system has installed.
//!
//! Every family is a column family of one database. Unsynced is `WriteOptions::sync = false` with the log on.
//! There are two configurations: as its users run it (bloom filters of 10 bits, one LRU cache for all
//! families, `increase_parallelism`, all else as it comes, which gives each family memtables of 64 MiB) and
//! tuned (write buffers split over the families, no compression). In both, all memtables together keep to the
//! write buffers of the setup. Where the setup gives no memory, the first has nothing but RocksDB's defaults,
//! and the second all of the above with RocksDB's default sizes.

use std::any::Any;
use std::path::Path;

use anyhow::{Context, Result};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, FlushOptions,
    Options, ReadOptions, SnapshotWithThreadMode, WriteBatch, WriteOptions, properties,
};

use super::rocksdb_compatibility::provide_missing_symbols;
use crate::engine::{Batch, Direction, Durability, Engine, Held, Reader, Setup, Writer};

struct Rocks {
    database: DB,
    families: Vec<String>,
    version: String,
    /// Of every family.
    options: Options,
}

/// Opens RocksDB as its users run it.
pub(super) fn open_as_users_do(path: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let mut options = Options::default();
    if setup.memory.is_some() {
        set_as_users_do(&mut options, setup)?;
    }
    open(path, setup, options)
}

/// Opens RocksDB with the write buffers that the setup allows and without compression.
pub(super) fn open_tuned(path: &Path, setup: &Setup) -> Result<Box<dyn Engine>> {
    let mut options = Options::default();
    if let Some(memory) = setup.memory {
        let bytes = memory.write_buffer_bytes_per_family(setup.families);
        options.set_write_buffer_size(usize::try_from(bytes)?);
    }
    options.set_compression_type(DBCompressionType::None);
    set_as_users_do(&mut options, setup)?;
    open(path, setup, options)
}

fn set_as_users_do(options: &mut Options, setup: &Setup) -> Result<()> {
    let mut table = BlockBasedOptions::default();
    table.set_bloom_filter(10.0, false);
    if let Some(memory) = setup.memory {
        table.set_block_cache(&Cache::new_lru_cache(usize::try_from(memory.cache_bytes)?));
        options.set_db_write_buffer_size(usize::try_from(memory.write_buffer_bytes)?);
    }
    options.set_block_based_table_factory(&table);
    options.increase_parallelism(std::thread::available_parallelism()?.get() as i32);
    Ok(())
}

fn open(path: &Path, setup: &Setup, mut options: Options) -> Result<Box<dyn Engine>> {
    provide_missing_symbols();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let families: Vec<String> = (0..setup.families).map(Setup::family_name).collect();
    let descriptors = families.iter().map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
    let database = DB::open_cf_descriptors(&options, path, descriptors)?;
    let version = library_version(path)?;
    Ok(Box::new(Rocks { database, families, version, options }))
}

/// The version of the library, as it writes it into the options file of every database.
fn library_version(path: &Path) -> Result<String> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("OPTIONS-") {
            let options = std::fs::read_to_string(entry.path())?;
            let version = options.lines().find_map(|line| line.trim().strip_prefix("rocksdb_version="));
            return Ok(version.context("the options file names no version")?.to_owned());
        }
    }
    anyhow::bail!("{} has no options file", path.display())
}

impl Rocks {
    fn family(&self, index: usize) -> Result<&ColumnFamily> {
        self.database.cf_handle(&self.families[index]).context("the family is gone")
    }

    fn is_busy(&self) -> Result<bool> {
        for property in [properties::NUM_RUNNING_COMPACTIONS, properties::NUM_RUNNING_FLUSHES] {
            if self.database.property_int_value(property)?.unwrap_or(0) > 0 {
                return Ok(true);
            }
        }
        for index in 0..self.families.len() {
            let family = self.family(index)?;
            for property in [properties::COMPACTION_PENDING, properties::MEM_TABLE_FLUSH_PENDING] {
                if self.database.property_int_value_cf(family, property)?.unwrap_or(0) > 0 {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

impl Engine for Rocks {
    fn version(&self) -> String {
        self.version.clone()
    }

    fn writer(&self, durability: Durability) -> Result<Box<dyn Writer + '_>> {
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Sync);
        let families = (0..self.families.len()).map(|index| self.family(index)).collect::<Result<_>>()?;
        Ok(Box::new(RocksWriter { database: &self.database, families, options }))
    }

    fn read(&self, family: usize, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        let (database, family) = (&self.database, self.family(family)?);
        work(&mut RocksReader { database, family, snapshot: None })
    }

    fn hold(&self) -> Result<Box<dyn Held + '_>> {
        Ok(Box::new(RocksHeld { rocks: self, snapshot: self.database.snapshot() }))
    }

    fn keep(&self, family: usize, key: &[u8]) -> Result<Box<dyn Any>> {
        Ok(Box::new(self.database.get_cf(self.family(family)?, key)?))
    }

    fn create_family(&mut self) -> Result<()> {
        let name = Setup::family_name(self.families.len());
        self.database.create_cf(&name, &self.options)?;
        self.families.push(name);
        Ok(())
    }

    fn look_up(&self, family: usize) -> Result<bool> {
        Ok(self.database.cf_handle(&Setup::family_name(family)).is_some())
    }

    fn is_log(&self, file: &Path) -> bool {
        file.extension().is_some_and(|extension| extension == "log")
    }

    fn flush_until_quiet(&self) -> Result<()> {
        // All families are asked before any is waited for, so that they are flushed side by side.
        for wait in [false, true] {
            let mut options = FlushOptions::default();
            options.set_wait(wait);
            for index in 0..self.families.len() {
                self.database.flush_cf_opt(self.family(index)?, &options)?;
            }
        }
        super::wait_while(|| self.is_busy())
    }

    fn compact(self: Box<Self>) -> Result<Box<dyn Engine>> {
        for index in 0..self.families.len() {
            self.database.compact_range_cf(self.family(index)?, None::<&[u8]>, None::<&[u8]>);
        }
        self.flush_until_quiet()?;
        Ok(self)
    }
}

struct RocksWriter<'e> {
    database: &'e DB,
    families: Vec<&'e ColumnFamily>,
    options: WriteOptions,
}

impl Writer for RocksWriter<'_> {
    fn put(&mut self, family: usize, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.database.put_cf_opt(self.families[family], key, value, &self.options)?)
    }

    fn remove_range(&mut self, family: usize, from: &[u8], to: &[u8]) -> Result<()> {
        Ok(self.database.delete_range_cf_opt(self.families[family], from, to, &self.options)?)
    }

    fn write_together(&mut self, batches: &[(usize, &Batch)]) -> Result<()> {
        let mut changes = WriteBatch::default();
        for (family, batch) in batches {
            let family = self.families[*family];
            for (key, value) in batch.iter() {
                match value {
                    Some(value) => changes.put_cf(family, key, value),
                    None => changes.delete_cf(family, key),
                }
            }
        }
        Ok(self.database.write_opt(changes, &self.options)?)
    }
}

struct RocksHeld<'e> {
    rocks: &'e Rocks,
    snapshot: SnapshotWithThreadMode<'e, DB>,
}

impl Held for RocksHeld<'_> {
    fn read(&self, family: usize, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        let (database, family) = (&self.rocks.database, self.rocks.family(family)?);
        work(&mut RocksReader { database, family, snapshot: Some(&self.snapshot) })
    }
}

struct RocksReader<'e> {
    database: &'e DB,
    family: &'e ColumnFamily,
    snapshot: Option<&'e SnapshotWithThreadMode<'e, DB>>,
}

impl RocksReader<'_> {
    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        if let Some(snapshot) = self.snapshot {
            options.set_snapshot(snapshot);
        }
        options
    }
}

impl Reader for RocksReader<'_> {
    fn get(&mut self, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = match self.snapshot {
            None => self.database.get_pinned_cf(self.family, key)?,
            Some(_) => self.database.get_pinned_cf_opt(self.family, key, &self.options())?,
        };
        Ok(value.map(|value| visit(&value)).is_some())
    }

    fn range(&mut self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let mut options = self.options();
        options.set_iterate_upper_bound(to);
        let mut cursor = self.database.raw_iterator_cf_opt(self.family, options);
        cursor.seek(from);
        while let Some((key, value)) = cursor.item() {
            if !visit(key, value) {
                break;
            }
            cursor.next();
        }
        Ok(cursor.status()?)
    }

    fn scan(
        &mut self,
        from: &[u8],
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        let mut cursor = self.database.raw_iterator_cf_opt(self.family, self.options());
        match direction {
            Direction::Forward => cursor.seek(from),
            Direction::Backward => cursor.seek_for_prev(from),
        }
        while let Some((key, value)) = cursor.item() {
            if !visit(key, value) {
                break;
            }
            match direction {
                Direction::Forward => cursor.next(),
                Direction::Backward => cursor.prev(),
            }
        }
        Ok(cursor.status()?)
    }
}
