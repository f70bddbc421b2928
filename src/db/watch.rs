//! The families that the clock looks after: those that something was done to lately.
//!
//! A family is watched from the first write after a rest on (`Work::touch`), and until nothing more is to be
//! done for it: it was not written to for [`RESTED`] looks, all of it is in its tree, nobody holds an older
//! tree, and what it had free is given back. So families at rest cost nothing, however many there are, and
//! the clock sleeps while all are.
//!
//! Little of a family waits in memory for [`KEPT_LOOKS`] from the last freeze on, whether or not the family
//! was watched all the time since.
//!
//! Nothing is missed: writers touch the family under its write lock, and the clock turns away from it under
//! the same lock, after it saw that nothing was written since. Who does anything else to a family touches it
//! afterwards, and the clock looks once more after it turned away.

use std::time::Duration;

use crate::column_family::family::Family;
use crate::db::budget::Writing;
use crate::db::shared::Shared;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Looks around during which a family must have been at rest before it gives free pages back, and again from
/// then on.
pub(super) const RESTED: u32 = 10;
/// Looks around that are at least between two merges of little of a family at rest: a merge and a checkpoint
/// write thousands of bytes, however little it is.
const KEPT_LOOKS: u32 = 60;

/// Deleted entries that readers pass from one look to the next in some milliseconds of their time.
const MUCH_PASSED: u64 = 1 << 17;

/// A family, and for how long it has been at rest.
pub(super) struct Watched {
    pub(super) family: Arc<Family>,
    pub(super) writing: Writing,
    bytes_inserted: u64,
    /// How often in a row it was found as it had been before; `None` before the first look.
    looks: Option<u32>,
    /// Memtables that it had frozen so far.
    freezes: u64,
    /// How often in a row nothing had been frozen since.
    waits: u32,
    /// Entries that cursors had passed so far, and since the look before.
    passed: u64,
    passed_lately: u64,
}

impl Watched {
    /// Of a family that was not watched: a look around comes every `interval`.
    pub(super) fn new(family: Arc<Family>, interval: Duration) -> Self {
        family.set_resting(false);
        let freezes = family.counters.freezes.load(Ordering::Relaxed);
        let frozen_since = family.stall.since_frozen().unwrap_or_default();
        let waits = (frozen_since.as_nanos() / interval.as_nanos().max(1)).min(KEPT_LOOKS.into()) as u32;
        let writing = Writing::from_now(&family);
        let passed = family.counters.entries_passed.load(Ordering::Relaxed);
        Self { family, writing, bytes_inserted: 0, looks: None, freezes, waits, passed, passed_lately: 0 }
    }

    /// Sees what was done since the last look.
    pub(super) fn look(&mut self) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.family.counters;
        let (bytes, freezes) = (count(&counters.bytes_inserted), count(&counters.freezes));
        self.waits = if self.freezes == freezes { self.waits.saturating_add(1) } else { 0 };
        self.looks = match self.looks {
            Some(looks) if self.bytes_inserted == bytes => Some(looks.saturating_add(1)),
            _ => Some(0),
        };
        let passed = count(&counters.entries_passed);
        self.passed_lately = passed - self.passed;
        (self.bytes_inserted, self.freezes, self.passed) = (bytes, freezes, passed);
        self.family.set_resting(self.is_at_rest());
    }

    /// Looks in a row since which nothing was written.
    pub(super) fn looks_at_rest(&self) -> u32 {
        self.looks.unwrap_or(0)
    }

    /// Whether nothing was written since the last look but one.
    pub(super) fn is_at_rest(&self) -> bool {
        self.looks_at_rest() > 0
    }

    /// Whether it has been at rest for long enough to give back what it has free, and has come to another
    /// look at that.
    pub(super) fn is_to_give_back(&self) -> bool {
        self.is_at_rest() && self.looks_at_rest().is_multiple_of(RESTED)
    }

    /// Whether a memtable was frozen lately, so that a little may wait in the next.
    pub(super) fn is_patient(&self) -> bool {
        self.waits < KEPT_LOOKS
    }

    /// Whether readers passed so much that is deleted that a merge of what waits, `entries` in memtables, is
    /// cheaper than to leave it.
    pub(super) fn passes_much(&self, entries: impl FnOnce() -> u64) -> bool {
        self.passed_lately >= MUCH_PASSED && self.passed_lately >= entries()
    }

    /// Whether frozen memtables have waited for long.
    pub(super) fn waits_for_long(&self) -> bool {
        self.waits >= RESTED && self.family.stall.waiting() > 0
    }
}

impl Shared {
    /// Turns away from those of `watched` for which nothing is to be done. `at_work` are families that were
    /// just found to have something.
    pub(super) fn turn_away(&self, watched: &mut Vec<Watched>, at_work: &[Arc<Family>]) {
        watched.retain(|watched| {
            let family = &watched.family;
            if family.is_dropped() {
                self.pipeline.work.turn_away(family);
                return false;
            }
            if !watched.is_to_give_back() || at_work.iter().any(|other| Arc::ptr_eq(other, family)) {
                return true;
            }
            let Some(side) = family.write.try_lock() else { return true };
            let is_done = !self.options.automatic
                || family.damage.is_carried()
                || side.writer.table().is_empty() && family.stall.waiting() == 0 && !family.has_deltas();
            let unchanged = family.counters.bytes_inserted.load(Ordering::Relaxed) == watched.bytes_inserted;
            if !is_done || !unchanged || family.trees.lock().held() > 0 {
                return true;
            }
            family.store().cache().rest();
            self.pipeline.work.turn_away(family);
            // Who made a new tree touched the family afterwards: either that is seen here, or the touch comes
            // after the turning away.
            if family.trees.lock().held() > 0 {
                self.pipeline.work.touch(family);
            }
            false
        });
    }
}
