//! The tree of a column family: a packed, immutable, copy-on-write B+tree. Knows pages, not transactions.
//!
//! A [`Tree`] is a value: root, height, counts. A [`merge`] applies a sorted batch to one tree and gives
//! another, which shares every page in which nothing changed; what both reach stays, what only the old one
//! reaches is *retired*.
//!
//! 1. A node is written once and never modified.
//! 2. A leaf holds entries with ascending keys, at least one. An inner node holds, for each child, a
//!    separator: every key below child *i* is at or above separator *i* and below separator *i* + 1. The
//!    first separator of a node only repeats the lower fence that the nodes above give it, or is above it;
//!    searches take what lies below it to the first child.
//! 3. All leaves have level 0, every child is one level below its parent, and the root is a leaf or has two
//!    children at least.
//! 4. An inner node knows, for each child, how many entries are below it and whether any of them owns a value
//!    run.
//! 5. A page or run is reached by exactly one pointer of a tree.
//! 6. Bytes of pages are not trusted: see `node.rs`.
//!
//! [`Tree::check`] verifies 2 to 5. Start reading at `node.rs` (the layout), then `tree.rs` (a point read);
//! then `builder.rs` with `leaf_level.rs`, `inner_level.rs` and `pack.rs` (how trees are made), and
//! `merge.rs`.

mod builder;
mod check;
mod combine;
mod cost;
mod cursor;
mod estimate;
mod fill;
mod inner_level;
mod key_buffer;
mod leaf_level;
mod locate;
mod merge;
mod node;
mod node_writer;
mod output;
mod pack;
mod records;
mod relocate;
mod repack;
mod search;
mod sift;
mod split_key;
mod tree;

#[cfg(all(test, not(loom)))]
mod forgery;
#[cfg(all(test, not(loom)))]
mod forgery_tests;
#[cfg(all(test, not(loom)))]
mod merge_tests;
#[cfg(all(test, not(loom)))]
mod model_tests;
#[cfg(all(test, not(loom)))]
mod space_tests;
#[cfg(all(test, not(loom)))]
mod testing;

#[cfg(all(fuzzing, not(test)))]
mod forgery;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
#[cfg(all(fuzzing, not(test)))]
#[allow(dead_code, reason = "the tests use all of it")]
mod testing;

pub(crate) use builder::MergeOptions;
pub(crate) use check::{CheckOptions, Part};
pub(crate) use combine::{Combine, Combined, Old};
pub(crate) use cursor::TreeCursor;
pub(crate) use merge::{MergeOp, RangeDeletion, merge, merge_sifting};
pub(crate) use output::{MergeOutcome, MergeStats};
pub(crate) use relocate::{pages_with_pointers, relocate};
pub(crate) use repack::repack;
pub(crate) use sift::{Sift, Verdict};
pub(crate) use tree::{FoundValue, Lookup, Place, Tree, load_run};
