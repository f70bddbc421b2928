//! Everything that synchronises, waits or starts threads: locks, atomics, epochs, threads, the clock. The
//! seam at which the checkers of interleavings step in.
//!
//! Compiled with `--cfg loom`, the same names come from the model checker, and the protocols built on them
//! ([`sequencer`], the frame table, the view cell) are explored in every interleaving. Compiled with
//! `--cfg shuttle`, they come from a scheduler that runs a whole database in one chosen interleaving after
//! the other; `tests/schedules.rs` does.

pub(crate) mod arc_cell;
pub(crate) mod bell;
pub(crate) mod epoch;
pub(crate) mod lock;
#[cfg(shuttle)]
mod scheduled;
mod scoped;
pub(crate) mod sequencer;
pub(crate) mod throttle;
pub(crate) mod waits;

pub(crate) use lock::{Condvar, Mutex, MutexGuard, RwLock, lock_spinning};
pub(crate) use scoped::spawn_scoped;

#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::atomic;
#[cfg(not(shuttle))]
pub(crate) use std::{sync::mpsc, thread, time::Instant};

#[cfg(loom)]
pub(crate) use loom::sync::atomic;
#[cfg(shuttle)]
pub(crate) use scheduled::{Instant, atomic, thread};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::mpsc;

/// Neither checker looks at its count: loom's has no unsized coercion and no `Weak`, shuttle's is this one.
pub(crate) use std::sync::Arc;
