//! Column families: what each one is made of, how it is read, and how its memtables become its tree.
//!
//! Invariants:
//! 1. The [`View`](view::View) describes every family at one moment. It is replaced as a whole, never changed;
//!    a new one shares with the old one what is the same.
//! 2. A memtable is frozen under its family's write lock: every commit is wholly before or wholly after the cut.
//! 3. A merge takes only memtables whose commits are all visible, so a tree never holds what a reader may not see.
//! 4. What a newer delta says of a key counts more than what older ones and the tree say; memtables count more than all of them.
//! 5. A page stays until nobody holds any of the tree versions that reach it.
//!
//! Start reading at [`family`], then [`view`], [`cursor`], [`merge`], [`join`], [`drain`] and [`compaction`].

pub(crate) mod catalog;
pub(crate) mod compaction;
pub(crate) mod cursor;
pub(crate) mod delta;
pub(crate) mod drain;
pub(crate) mod family;
mod gather;
mod gone;
pub(crate) mod hidden;
mod join;
mod kept;
pub(crate) mod key;
mod leap;
pub(crate) mod merge;
pub(crate) mod options;
pub(crate) mod read;
mod recent;
pub(crate) mod record;
mod short;
mod slots;
pub(crate) mod stall;
pub(crate) mod touched;
pub(crate) mod trees;
#[cfg(all(test, loom))]
mod trees_model;
pub(crate) mod value;
pub(crate) mod view;
pub(crate) mod work;
