//! A disk in memory that keeps a log of everything that is done to it, and that can crash at every point of
//! that log.
//!
//! [`SimulatedDisk`] is the [`StorageBackend`](peristyle::StorageBackend) that an engine runs on. Its log is
//! a list of [`Operation`]s; a [`Timeline`] goes through it and knows at each point what is durable and what
//! is not; given [`Decisions`] about what is not, it builds the [`Image`] that a real disk could hold after a
//! crash there. A new disk is made from the image, and the engine opened on it again.
//!
//! What a disk may do, since the trait promises no more:
//! 1. A write is durable when a sync of its file returns that began after it. Before, any part of it may be
//!    there: any subset of its sectors, pages or bytes, in any order with other writes to the file.
//! 2. The length of a file persists apart from its data. Where a file has grown and nothing was written,
//!    zeros are read, or bytes that stood there before.
//! 3. A directory entry that was made, changed or removed is durable when a sync of its directory returns;
//!    before, each change may be there or not. A rename is there whole or not at all.
//! 4. Nothing else is ordered.

mod content;
mod decision;
mod fault;
mod file;
mod image;
mod operation;
mod room;
mod simulated;
#[cfg(test)]
mod tests;
mod timeline;

pub use content::Content;
pub use decision::{
    ByteDecisions, Decisions, Everything, Fate, Grain, Nothing, RandomDecisions, Single, Unsynced, Unwritten,
};
pub use fault::{Fault, FaultKind, Sickness, SyncFailure};
pub use image::Image;
pub use operation::{FileId, Honesty, Operation};
pub use simulated::SimulatedDisk;
pub use timeline::Timeline;
