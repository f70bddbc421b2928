//! What an open database consists of.

use crate::column_family::family::Family;
use crate::column_family::merging::desk::DatabaseNumber;
use crate::column_family::touched::Touched;
use crate::db::budget::Memory;
use crate::db::catalog_file::State;
use crate::db::place::Locks;
use crate::db::recovery::RecoveryReport;
use crate::db::registry::Registry;
use crate::db::waiting::Waiting;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::segment::DataFile;
use crate::sync::atomic::{AtomicBool, AtomicU64};
use crate::sync::{Arc, Mutex, epoch};
use crate::system::Inherited;
use crate::txn::pipeline::Pipeline;

/// All that an open database consists of. Locks are taken in the order `closing`, `changes`, `checkpoint`,
/// `registry`, then a family's.
pub(super) struct Shared {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) options: Options,
    pub(super) data: Arc<DataFile>,
    pub(super) registry: Mutex<Registry>,
    pub(super) touched: Arc<Touched>,
    /// Held while a family is created, renamed or dropped.
    pub(super) changes: Mutex<()>,
    pub(super) checkpoint: Mutex<State>,
    pub(super) checkpoints: Counters,
    /// What its families may take, with those of other databases that share it.
    pub(super) memory: Arc<Memory>,
    /// Whether others may share it.
    pub(super) shares_memory: bool,
    pub(super) recovery: RecoveryReport,
    /// Why what is prepared could not be read, if the database was opened nevertheless.
    pub(super) unread_prepared: Option<Error>,
    /// Who is to be told when a commit is durable.
    pub(super) waiting: Waiting,
    /// The threads that look after it; gone once it is closed.
    pub(super) threads: Mutex<Option<Box<dyn LooksAfter>>>,
    /// Whether whoever keeps the log came to rest, and is to be called when there is something to sync.
    pub(super) log_rests: AtomicBool,
    /// Held by who works out of what is kept for a full disk: one at a time, so that it is enough. Taken
    /// while no other lock is held.
    pub(super) at_reserve: Mutex<()>,
    /// Held while the database is closed; how that came out.
    pub(super) closing: Mutex<Option<Result<()>>>,
    pub(super) lock: Mutex<Option<Arc<Locks>>>,
}

#[cfg(test)]
std::thread_local! {
    /// How often this thread listed all families of a database.
    pub(super) static LISTED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

impl Shared {
    /// The families, by number.
    pub(super) fn families(&self) -> Vec<Arc<Family>> {
        #[cfg(test)]
        LISTED.set(LISTED.get() + 1);
        self.registry.lock().families().cloned().collect()
    }
}

/// A handle of threads that look after a database, and perhaps after others.
pub(super) trait LooksAfter: Send + Sync {
    /// Returns when none of them does anything for the database any more.
    fn leave(&self, database: DatabaseNumber);
}

/// Closes the database when the last handle goes.
pub(super) struct Keeper {
    pub(super) shared: Inherited<Arc<Shared>>,
    /// Goes after it.
    _emptied: Inherited<Emptied>,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared: Inherited::new(shared), _emptied: Inherited::new(Emptied) }
    }
}

/// When it goes, whatever memory waits for readers to leave is given back: nobody else may come by to do
/// that.
struct Emptied;

impl Drop for Emptied {
    fn drop(&mut self) {
        epoch::drain();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.shared.check().is_ok() {
            self.shared.abandon();
            // As after `close`; not yet, if that panicked.
            self.shared.let_go_of_threads();
        } else {
            self.shared.forget_locks();
        }
    }
}

/// What checkpoints did, and when something for the next one came up.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) made: AtomicU64,
    pub(super) nanoseconds: AtomicU64,
    /// First log segment that recovery would read.
    pub(super) first_segment: AtomicU64,
    /// Merges that the last checkpoint found done.
    pub(super) merges_seen: AtomicU64,
    /// Copies of the database that are being made.
    pub(super) copies: AtomicU64,
    /// The log is to be let go of up to this segment; 0 if it is short.
    pub(super) wanted_segment: AtomicU64,
}
