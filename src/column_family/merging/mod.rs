//! How a family is kept: its memtables become deltas and its tree, deltas are joined and drained, trees are
//! packed.
//!
//! Start reading at [`merge`], then [`join`], [`drain`] and [`compaction`].

pub(crate) mod change;
pub(crate) mod compaction;
pub(crate) mod desk;
pub(crate) mod drain;
mod expired;
pub(crate) mod gather;
mod join;
pub(crate) mod merge;
pub(crate) mod work;
