//! How a family is kept: its memtables become deltas and its tree, deltas are joined and drained, trees are
//! packed; and what a filter says of them is done on the way.
//!
//! Start reading at [`merge`], then [`join`], [`drain`] and [`compaction`]; [`sieve`] and [`sift`] are what
//! filters take part in.

pub(crate) mod change;
pub(crate) mod compaction;
pub(crate) mod desk;
pub(crate) mod drain;
pub(crate) mod expired;
pub(crate) mod gather;
mod join;
pub(crate) mod merge;
mod sieve;
pub(crate) mod sift;
pub(crate) mod work;
