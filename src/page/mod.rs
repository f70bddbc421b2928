//! Pages in memory: what a page is, the frames that hold them, and one cache for each family.
//!
//! Invariants:
//! 1. A page's bytes never change between its publication (or its reading) and the moment when nobody can
//!    look at it any more.
//! 2. Nothing is visible that was not sealed here or verified against both its header and the pointer that
//!    led to it.
//! 3. A dirty page is in memory until it is written or released.
//! 4. A cached page costs its reader no lock and no write to memory that threads share, but for the first use
//!    after the clock hand came by.
//! 5. Families share nothing here but the total of their read caches, of which each takes long pieces: each
//!    has its own frames, table, clock and write buffer.
//! 6. Memory stays inside the budgets, whatever readers hold: a read that finds no free frame, or of a page
//!    that is not to enter a full cache, gets a buffer of its own.
//!
//! Start reading at [`PagedCachedFile`], then [`frames`] for who owns a frame when, and [`table`] for the
//! path of a hit.

mod admission;
mod ahead;
mod budgets;
mod cached_file;
mod clock;
mod frames;
pub(crate) mod header;
mod held;
mod run_cache;
mod share;
mod slab;
mod stats;
mod table;
mod write_buffer;
mod writing;

#[cfg(all(test, loom))]
mod frames_model;
#[cfg(all(test, not(loom)))]
mod tests;

pub(crate) use ahead::Ahead;
pub(crate) use budgets::Appetite;
pub(crate) use cached_file::PagedCachedFile;
pub(crate) use header::{HEADER_LEN, PageKind, PagePointer};
pub(crate) use held::{NewPage, PageRef, PinnedPage};
pub(crate) use share::{CacheBudgets, CacheTotal, Share};
pub use stats::CacheStats;
