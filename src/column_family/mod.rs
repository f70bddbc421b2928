//! Column families: what each one is made of, how it is read, and how its memtables become its tree.
//!
//! Invariants:
//! 1. The [`View`](view::View) describes every family at one moment. It is replaced as a whole, never
//!    changed; a new one shares with the old one what is the same.
//! 2. A memtable is frozen under its family's write lock: every commit is wholly before or wholly after the
//!    cut.
//! 3. A merge takes only memtables whose commits are all visible, so a tree never holds what a reader may not
//!    see.
//! 4. What a newer delta says of a key counts more than what older ones and the tree say; memtables count
//!    more than all of them.
//! 5. A page stays until nobody holds any of the tree versions that reach it.
//! 6. What cannot be read of a family is that family's alone, see [`damage`].
//!
//! What a family *is* stands here: [`family`], then [`view`] and [`trees`]. How it is read stands in
//! [`reading`], how its memtables become its tree in [`merging`]. Both build on what stands here, which knows
//! neither of them, and neither knows the other.

pub(crate) mod catalog;
pub(crate) mod damage;
pub(crate) mod delta;
pub(crate) mod family;
mod frame;
mod freeze;
mod gone;
pub(crate) mod held;
mod kept;
pub(crate) mod keys;
pub(crate) mod merging;
mod old_catalog;
pub(crate) mod operands;
pub(crate) mod options;
mod order;
pub(crate) mod reading;
pub(crate) mod record;
pub(crate) mod remembered;
mod slots;
pub(crate) mod stall;
pub(crate) mod touched;
pub(crate) mod trees;
#[cfg(all(test, loom))]
mod trees_model;
pub(crate) mod view;
