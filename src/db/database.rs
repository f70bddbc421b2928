//! The handle of an open database.

use std::any::Any;
use std::fmt;
use std::path::Path;

use crate::codec::ids::SequenceNumber;
use crate::db::recovery::RecoveryReport;
use crate::db::shared::{Keeper, Shared};
use crate::error::Result;
use crate::options::{DatabaseBuilder, Durability};
use crate::sync::Arc;
use crate::txn::batch::WriteBatch;
use crate::txn::pipeline::{Pipeline, Write};
use crate::txn::snapshot::Snapshot;

/// An open database: a directory that holds any number of column families.
///
/// Cheap to clone; clones and the [`ColumnFamily`](crate::ColumnFamily) handles made from it keep the
/// database open. [`close`](Self::close) ends it in good order: everything is merged and durable, and the
/// next open replays nothing. Dropping the last handle without closing loses nothing either.
///
/// A database belongs to the process that opened it. In a child that was forked from it (`fork` without
/// `exec`) every call on what was inherited, cursors and snapshots included, fails with
/// [`ForkedChild`](crate::ErrorKind::ForkedChild), what cannot fail says nothing (no names, statistics of
/// zeros), and dropping or closing does nothing. A child that lives on keeps the files open; it lets go of
/// the lock once it drops its handles.
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
    pub(super) keeper: Arc<Keeper>,
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
    /// [`Locked`](crate::ErrorKind::Locked) if it is open already,
    /// [`NotADatabase`](crate::ErrorKind::NotADatabase), [`NewerFormat`](crate::ErrorKind::NewerFormat),
    /// [`Corruption`](crate::ErrorKind::Corruption), [`OutOfSpace`](crate::ErrorKind::OutOfSpace) and
    /// [`Io`](crate::ErrorKind::Io). None of them changes anything on disk.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().open(path)
    }

    /// Settings to open a database with.
    pub fn builder() -> DatabaseBuilder {
        DatabaseBuilder::default()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.keeper.shared
    }

    pub(super) fn pipeline(&self) -> &Arc<Pipeline> {
        &self.keeper.shared.pipeline
    }

    pub(super) fn keeper(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::clone(&self.keeper) as _
    }

    /// Writes a batch with the default durability: all of its operations become visible, and survive a crash,
    /// together. Gives the number of the commit; an empty batch is none, and gives that of the last visible
    /// one.
    ///
    /// # Errors
    ///
    /// Those of [`ColumnFamily::put`](crate::ColumnFamily::put). Nothing of the batch was written then,
    /// unless the error is of kind [`Io`](crate::ErrorKind::Io) or
    /// [`WriteFailed`](crate::ErrorKind::WriteFailed): after that the database takes no more writes, and
    /// whether the batch is there, whole, turns out when it is opened again.
    pub fn write(&self, batch: &WriteBatch) -> Result<SequenceNumber> {
        self.write_with(batch, self.shared().options.durability)
    }

    /// Writes a batch with a durability of its own.
    pub fn write_with(&self, batch: &WriteBatch, durability: Durability) -> Result<SequenceNumber> {
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
        Ok(Snapshot::new(self.pipeline().moment()?, self.pipeline().database))
    }

    /// Whether this is the process that opened the database.
    pub(super) fn is_ours(&self) -> bool {
        self.keeper.shared.check().is_ok()
    }

    /// What opening the database replayed from its log.
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.shared().recovery
    }

    /// Closes the database: merges what is left, makes it durable, packs families of more than 16 MiB that
    /// take much more of the disk than what is in them (which moves about as many bytes as become free;
    /// dropping the last handle is quicker), and lets go of the files. Other handles then get
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed); snapshots and iterators that are held can be read on
    /// until the database is opened again. From then on they may fail with
    /// [`ErrorKind::StaleReader`](crate::ErrorKind::StaleReader), because what they read may be overwritten;
    /// they never give what is not theirs. Closing through another handle, at the same time or later, waits
    /// for the first to end and gives what it gave.
    ///
    /// # Errors
    ///
    /// What kept it from making everything durable. The database is closed nevertheless, and nothing that was
    /// acknowledged is lost: the next open replays it.
    pub fn close(self) -> Result<()> {
        self.shared().close()
    }
}
