//! A family's share of the data file: its segments, its free pages, and the storage that its tree talks to.
//!
//! Three questions, three owners: which extents of the file are used ([`SpaceMap`], one for the database),
//! where the family's page *n* is ([`SegmentMap`](map::SegmentMap)), which of its pages are free
//! ([`PageAllocator`](allocator::PageAllocator)).
//!
//! Invariants:
//! 1. Nothing that a view or the durable superblock reaches is handed out or written (law 2).
//! 2. An extent is reserved on the disk before a page of it is written; a full disk changes nothing.
//! 3. A pointer is followed only into the family's own segments.
//! 4. The superblock's slots are the only bytes that are written in place.
//!
//! Start reading at [`PartitionedStorageBackend`].

mod allocator;
mod data_file;
mod give_back;
mod map;
mod page_bits;
mod page_set;
mod partitioned;
mod space;
mod superblock;

#[cfg(all(test, not(loom)))]
mod tests;

pub(crate) use data_file::DataFile;
pub use map::Segment;
pub(crate) use page_set::PageSet;
pub(crate) use partitioned::PartitionedStorageBackend;
pub(crate) use space::{EXTENTS_START, ReserveSize, SpaceMap};
pub(crate) use superblock::{CatalogExtent, CatalogRecord, Superblock};
