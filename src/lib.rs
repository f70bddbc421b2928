//! Peristyle: an embedded storage engine.

mod btree;
mod codec;
mod column_family;
mod error;
mod memtable;
mod page;
mod segment;
mod storage;
mod sync;
mod txn;
mod wal;

pub use error::{Error, ErrorKind, Location, Result};
pub use storage::{
    FileMode, FileStorage, MemoryStorage, SharedMapping, StorageBackend, StorageFile, StorageLock,
};
