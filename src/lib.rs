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
//! - [`WriteBatch`]: atomic writes over any number of families. What a write survives: [`Durability`]. When it does:
//!   [`on_synced`](ColumnFamilyDatabase::on_synced).
//! - [`Snapshot`], [`FamilySnapshot`]: one moment, for as long as it is held.
//! - [`Cursor`] and [`Iter`]: walking in key order, both ways.
//! - [`Error`] and [`ErrorKind`]: what can go wrong, to match on.
//! - [`StorageBackend`]: where the bytes go; [`FileStorage`] and [`MemoryStorage`], or your own.
//!
//! # In an async program
//!
//! Every call is a plain function, and returns when it is done. Handles, snapshots, iterators and cursors can be sent to any thread and kept
//! anywhere, so it takes no more than to know which calls wait for what:
//!
//! | calls | wait for | in an async program |
//! |---|---|---|
//! | `snapshot`, `synced_through`, `on_synced`, `statistics`, options, names | a lock for some microseconds at most | call them anywhere |
//! | `get`, `range`, `next` and other reads | the disk, where a page is not in the cache | a blocking thread, unless what is read is known to be in memory |
//! | writes with [`Buffered`](Durability::Buffered) and [`None`](Durability::None), `update`, `compare_and_swap` | as a rule for nothing; some milliseconds while merges are behind, and for as long as a merge takes when memory is full | a blocking thread |
//! | writes with [`Sync`](Durability::Sync), `sync`, `sync_through`, creating, renaming and dropping families, `set_options` | a sync | a blocking thread |
//! | `open`, `flush`, `checkpoint`, `compact`, `verify`, `wait_until_idle`, `close`, dropping the last handle | much of the disk | a blocking thread |
//!
//! *What belongs together goes to a blocking thread together*: to go there costs more than most calls do, and a batch is one commit. A program
//! with very many small writes has one thread of its own that takes them from a channel and writes what has gathered there as one batch.
//!
//! *Nobody needs to wait for a sync.* A write with [`Buffered`](Durability::Buffered) gives its number at once;
//! [`on_synced`](ColumnFamilyDatabase::on_synced) takes a callback for it, and has the log synced, once for all who wait then. A
//! callback that sends into a channel is a future:
//!
//! ```
//! # mod oneshot {
//! #     // What `tokio::sync::oneshot` looks like from here.
//! #     pub fn channel<T>() -> (Sender<T>, std::sync::mpsc::Receiver<T>) {
//! #         let (sender, receiver) = std::sync::mpsc::channel();
//! #         (Sender(sender), receiver)
//! #     }
//! #     pub struct Sender<T>(std::sync::mpsc::Sender<T>);
//! #     impl<T> Sender<T> {
//! #         pub fn send(self, value: T) -> Result<(), ()> {
//! #             self.0.send(value).map_err(drop)
//! #         }
//! #     }
//! # }
//! # fn main() -> peristyle::Result<()> {
//! # use peristyle::{ColumnFamilyDatabase, Durability, FamilyOptions, MemoryStorage};
//! # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
//! # let family = db.create_column_family("log", FamilyOptions::default())?;
//! let number = family.put_with("entry", "value", Durability::Buffered)?;
//! let (tell, told) = oneshot::channel();
//! db.on_synced(number, move |outcome| drop(tell.send(outcome)))?;
//! // In an async function: told.await
//! # told.recv().unwrap()?;
//! # Ok(()) }
//! ```
//!
//! *A future that is dropped takes nothing back.* What was sent to a blocking thread is done, awaited or not.
//!
//! `examples/tokio` in the repository is such a program, with all of that.

#![warn(missing_debug_implementations)]

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
pub use codec::key_bounds::KeyBounds;
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
pub use txn::operation::Operation;
pub use txn::snapshot::Snapshot;
pub use txn::update::Swap;
