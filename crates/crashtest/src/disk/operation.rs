//! What is logged of a disk: every change to a file or a directory, and every sync.

use std::sync::Arc;

/// A file, apart from the names under which it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub(super) usize);

/// What becomes of a write that the disk acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Honesty {
    /// It goes where it should.
    Honest,
    /// It never reaches the disk, although every sync succeeds.
    Lost,
    /// It reaches the disk at another offset.
    Misdirected(u64),
}

/// One logged operation, as the disk carried it out.
#[derive(Debug, Clone)]
pub enum Operation {
    /// A directory came into being.
    CreateDirectory(String),
    /// A new, empty file.
    Create(String, FileId),
    /// A file got another name; a file that had it lost it.
    Rename {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
        /// The file.
        file: FileId,
    },
    /// A name is gone.
    Remove(String, FileId),
    /// The entries of a directory became durable.
    SyncDirectory(String),
    /// Bytes were written, by a call or through a mapping.
    Write {
        /// The file.
        file: FileId,
        /// Where the bytes stand.
        offset: u64,
        /// What was written.
        bytes: Arc<[u8]>,
        /// Whether they were stored into a mapping.
        mapped: bool,
        /// What becomes of them.
        honesty: Honesty,
    },
    /// The file was cut, or extended with a hole.
    SetLen(FileId, u64),
    /// A range was reserved: offset and length.
    Allocate(FileId, u64, u64),
    /// A range was given back: offset and length.
    Deallocate(FileId, u64, u64),
    /// All that was written to the file became durable.
    Sync(FileId),
    /// A sync failed, and nothing that was written until then will be written by another one. What is in the
    /// set of random choices that the seed gives did reach the disk.
    SyncFailed(FileId, Option<u64>),
}
