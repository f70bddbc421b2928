//! Peristyle: an embedded storage engine. Column families live side by side in one file, each a packed copy-on-write
//! B+tree with a memtable in front of it, and share one write-ahead log.
//!
//! # A first program
//!
//! ```
//! # fn main() -> peristyle::Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("ledger");
//! use peristyle::{ColumnFamilyDatabase, FamilyOptions, WriteBatch};
//!
//! let db = ColumnFamilyDatabase::open(&path)?;
//! let accounts = db.column_family_or_create("accounts", FamilyOptions::default())?;
//! let journal = db.column_family_or_create("journal", FamilyOptions::default())?;
//!
//! // One atomic commit over two families.
//! let mut batch = WriteBatch::new();
//! batch.put(&accounts, "alice", "90").put(&accounts, "bob", "110");
//! batch.put(&journal, 1u64.to_be_bytes(), "alice pays bob 10");
//! db.write(&batch)?;
//!
//! // One consistent moment of both.
//! let snapshot = db.snapshot()?;
//! assert_eq!(snapshot.get(&accounts, "alice")?.unwrap(), "90");
//! for entry in snapshot.column_family(&journal)?.iter() {
//!     let (key, value) = entry?;
//!     println!("{key:?}: {}", String::from_utf8_lossy(&value));
//! }
//! db.close()?;
//! # Ok(()) }
//! ```
//!
//! # The way around
//!
//! - [`ColumnFamilyDatabase`]: open, close, families, batches, snapshots, maintenance, statistics. Settings: [`DatabaseBuilder`].
//! - [`ColumnFamily`]: reading and writing one family. Options: [`FamilyOptions`].
//! - [`WriteBatch`]: atomic writes over any number of families. What a write survives: [`Durability`].
//! - [`Snapshot`], [`FamilySnapshot`]: one moment, for as long as it is held.
//! - [`Cursor`] and [`Iter`]: walking in key order, both ways.
//! - [`Error`] and [`ErrorKind`]: what can go wrong, to match on.
//! - [`StorageBackend`]: where the bytes go; [`FileStorage`] and [`MemoryStorage`], or your own.

mod btree;
mod codec;
mod column_family;
mod db;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod memtable;
mod options;
mod page;
mod segment;
mod storage;
mod sync;
mod txn;
mod wal;

pub use codec::ids::{FamilyId, SequenceNumber};
pub use column_family::options::FamilyOptions;
pub use column_family::reading::key::Key;
pub use column_family::reading::value::Value;
pub use db::{
    ColumnFamilyDatabase, FamilyProperties, LogStatistics, MemoryReport, RecoveryReport, Statistics,
    VerifyReport,
};
pub use error::{Error, ErrorKind, Location, Result};
pub use options::{DatabaseBuilder, Durability, RecoveryProgress};
pub use page::CacheStats;
pub use segment::Segment;
pub use storage::{
    FileHandlePoolStats, FileMode, FileStorage, MemoryStorage, SharedMapping, StorageBackend, StorageFile,
    StorageLock,
};
pub use txn::batch::WriteBatch;
pub use txn::family_snapshot::FamilySnapshot;
pub use txn::handle::ColumnFamily;
pub use txn::iter::{Cursor, Iter};
pub use txn::snapshot::Snapshot;
