//! The open database: what users hold, and how the layers are wired together.
//!
//! Start reading at [`ColumnFamilyDatabase`], then [`open`], [`checkpoint`] and [`background`].

mod background;
mod budget;
mod catalog_file;
mod checkpoint;
#[cfg(all(test, not(loom)))]
mod checkpoint_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod cursor_tests;
#[cfg(all(test, not(loom)))]
mod ended_tests;
mod families;
mod filters;
#[cfg(all(test, not(any(loom, shuttle))))]
mod gone_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod hidden_tests;
#[cfg(all(test, not(loom)))]
mod independence_tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod join_tests;
mod log_length;
#[cfg(all(test, not(any(loom, shuttle))))]
mod log_length_tests;
mod maintain;
mod memory;
mod open;
#[cfg(all(test, not(loom)))]
mod open_tests;
mod progress;
mod recovery;
#[cfg(all(test, not(any(loom, shuttle))))]
mod recovery_tests;
mod registry;
mod replay_part;
mod replayer;
mod space;
mod statistics;
mod stretch;
mod verify;
mod watch;
#[cfg(all(test, not(any(loom, shuttle))))]
mod watch_tests;

use std::any::Any;
use std::fmt;
use std::path::Path;

pub use memory::MemoryReport;
pub use recovery::RecoveryReport;
pub use statistics::{FamilyProperties, LogStatistics, Statistics};
pub use verify::VerifyReport;

use crate::column_family::family::Family;
use crate::column_family::touched::Touched;
use crate::db::registry::Registry;
use crate::error::Result;
use crate::options::{DatabaseBuilder, Durability, Options};
use crate::page::CacheTotal;
use crate::segment::DataFile;
use crate::storage::StorageLock;
use crate::sync::{Arc, Mutex, epoch, thread::JoinHandle};
use crate::txn::batch::WriteBatch;
use crate::txn::commit::{Pipeline, Write};
use crate::txn::snapshot::Snapshot;

/// All that an open database consists of. Locks are taken in the order `closing`, `changes`, `checkpoint`, `registry`, then a
/// family's.
struct Shared {
    pipeline: Arc<Pipeline>,
    options: Options,
    data: Arc<DataFile>,
    registry: Mutex<Registry>,
    touched: Arc<Touched>,
    /// Held while a family is created, renamed or dropped.
    changes: Mutex<()>,
    checkpoint: Mutex<checkpoint::State>,
    checkpoints: checkpoint::Counters,
    /// What all read caches may hold.
    cache_total: Arc<CacheTotal>,
    recovery: RecoveryReport,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held while the database is closed; how that came out.
    closing: Mutex<Option<Result<()>>>,
    lock: Mutex<Option<Box<dyn StorageLock>>>,
}

impl Shared {
    /// The families, by number.
    fn families(&self) -> Vec<Arc<Family>> {
        self.registry.lock().families().cloned().collect()
    }
}

/// Closes the database when the last handle goes.
struct Keeper {
    shared: Arc<Shared>,
    /// Goes after it.
    _emptied: Emptied,
}

/// When it goes, whatever memory waits for readers to leave is given back: nobody else may come by to do that.
struct Emptied;

impl Drop for Emptied {
    fn drop(&mut self) {
        epoch::drain();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

/// An open database: a directory that holds any number of column families.
///
/// Cheap to clone; clones and the [`ColumnFamily`](crate::ColumnFamily) handles made from it keep the database open. [`close`](Self::close) ends it in good
/// order: everything is merged and durable, and the next open replays nothing. Dropping the last handle without closing loses
/// nothing either.
///
/// ```
/// # fn main() -> peristyle::Result<()> {
/// # use peristyle::MemoryStorage;
/// use peristyle::{ColumnFamilyDatabase, FamilyOptions};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("db");
/// let db = ColumnFamilyDatabase::open(&path)?;
/// let planets = db.create_column_family("planets", FamilyOptions::default())?;
/// planets.put("mars", "red")?;
/// assert_eq!(planets.get("mars")?.unwrap(), "red");
/// db.close()?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ColumnFamilyDatabase {
    keeper: Arc<Keeper>,
}

impl fmt::Debug for ColumnFamilyDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColumnFamilyDatabase").field("families", &self.column_family_names()).finish()
    }
}

impl ColumnFamilyDatabase {
    /// Opens the database in the directory `path` with the default settings, creating it if there is none.
    ///
    /// # Errors
    ///
    /// [`Locked`](crate::ErrorKind::Locked) if it is open already, [`NotADatabase`](crate::ErrorKind::NotADatabase),
    /// [`NewerFormat`](crate::ErrorKind::NewerFormat), [`Corruption`](crate::ErrorKind::Corruption), [`OutOfSpace`](crate::ErrorKind::OutOfSpace) and
    /// [`Io`](crate::ErrorKind::Io). None of them changes anything on disk.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(path)
    }

    /// Settings to open a database with.
    pub fn builder() -> DatabaseBuilder {
        DatabaseBuilder::default()
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.keeper.shared
    }

    fn pipeline(&self) -> &Arc<Pipeline> {
        &self.keeper.shared.pipeline
    }

    fn keeper(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::clone(&self.keeper) as _
    }

    /// Writes a batch with the default durability: all of its operations become visible, and survive a crash, together.
    ///
    /// # Errors
    ///
    /// Those of [`ColumnFamily::put`](crate::ColumnFamily::put). Nothing of the batch was written then, unless the error is
    /// of kind [`Io`](crate::ErrorKind::Io) or [`WriteFailed`](crate::ErrorKind::WriteFailed): after that the database takes no more writes, and whether
    /// the batch is there, whole, turns out when it is opened again.
    pub fn write(&self, batch: &WriteBatch) -> Result<()> {
        self.write_with(batch, self.shared().options.durability)
    }

    /// Writes a batch with a durability of its own.
    pub fn write_with(&self, batch: &WriteBatch, durability: Durability) -> Result<()> {
        batch.check(self.pipeline().database)?;
        let write = Write {
            families: batch.families(),
            payload: batch.payload(),
            operations: batch.len() as u64,
            has_range_deletions: batch.has_range_deletions(),
        };
        self.pipeline().commit(&write, durability)
    }

    /// One consistent moment across all families.
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.pipeline().open()?;
        Ok(Snapshot::new(self.pipeline().now(), self.pipeline().database))
    }

    /// What opening the database replayed from its log.
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.shared().recovery
    }

    /// Closes the database: merges what is left, makes it durable, packs families of more than 16 MiB that take much more of the disk than
    /// what is in them (which moves about as many bytes as become free; dropping the last handle is quicker), and lets go of the files. Other handles then get
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed); snapshots and iterators that are held can be read on until the database is opened
    /// again. From then on they may fail, because what they read may be overwritten; they never give what is not theirs.
    /// Closing through another handle, at the same time or later, waits for the first to end and gives what it gave.
    ///
    /// # Errors
    ///
    /// What kept it from making everything durable. The database is closed nevertheless, and nothing that was acknowledged is lost:
    /// the next open replays it.
    pub fn close(self) -> Result<()> {
        self.shared().close()
    }
}
