//! Everything that synchronises: locks, atomics, epochs. The seam at which loom steps in.
//!
//! Compiled with `--cfg loom`, the same names come from the model checker, and the protocols built on them
//! ([`sequencer`], the frame table, the view cell) are explored in every interleaving.

pub(crate) mod arc_cell;
pub(crate) mod epoch;
pub(crate) mod lock;
pub(crate) mod sequencer;

pub(crate) use lock::{Condvar, Mutex, MutexGuard, lock_spinning};

#[cfg(not(loom))]
pub(crate) use std::sync::{Arc, atomic};

#[cfg(loom)]
pub(crate) use loom::sync::atomic;
/// loom's `Arc` has no `strong_count`, unsized coercion or `Weak`; counts themselves are not modelled.
#[cfg(loom)]
pub(crate) use std::sync::Arc;
