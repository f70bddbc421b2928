//! Everything that touches a disk goes through the traits of this folder: the seam at which tests put a
//! simulated disk. Start reading at [`StorageBackend`].
//!
//! Invariants:
//! 1. A write that returned is seen by every later read of the same file, through whatever descriptor.
//! 2. Nothing is durable before the sync that covers it, and an error of a sync is never hidden by a later
//!    success.
//! 3. A write into an allocated range does not fail for want of space.
//! 4. Of several openers, in this process or others, one at most holds an exclusive lock, and then no other
//!    holds any.
//! 5. A pool has no more descriptors open at any instant than its cap, and closes none that is in use.

mod backend;
mod directory;
mod file;
mod file_lock;
mod mapping;
mod memory;
mod pool;
#[cfg(all(test, loom))]
mod pool_model;
mod positioned;
mod real_file;
mod room;
mod taking;

#[cfg(all(test, not(loom)))]
mod behaviour_tests;

pub use backend::{FileMode, SharedMapping, StorageBackend, StorageFile, StorageLock, Taken};
pub use file::FileStorage;
pub use memory::MemoryStorage;
pub use pool::FileHandlePoolStats;
pub(crate) use pool::{FileHandle, FileHandlePool};
