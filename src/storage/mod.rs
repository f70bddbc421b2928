//! Everything that touches a disk goes through the traits of this folder: the seam at which tests put a simulated
//! disk. Start reading at [`StorageBackend`].

mod backend;
mod file;
mod memory;
mod pool;

pub use backend::{FileMode, SharedMapping, StorageBackend, StorageFile, StorageLock};
