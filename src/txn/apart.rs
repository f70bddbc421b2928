//! Memory of large batches while they are inserted apart (`large.rs`), where no view shows it.
//!
//! Invariant: all of it together is no more than `most` bytes, as far as they were known before, or it is one
//! batch alone.

use std::time::Duration;

use crate::sync::waits::Waits;
use crate::sync::{Condvar, Instant, Mutex};

/// Counts what is inserted apart, and lets who brings too much wait.
pub(crate) struct Apart {
    most: u64,
    /// Held by the one who waits: who comes later waits behind.
    door: Mutex<()>,
    state: Mutex<State>,
    left: Condvar,
    waits: Waits,
}

#[derive(Default)]
struct State {
    bytes: u64,
    waiting: u64,
}

/// A batch that is inserted apart, until its memtables are in a view.
pub(super) struct Entered<'a> {
    apart: &'a Apart,
    bytes: u64,
}

impl Apart {
    pub(crate) fn up_to(most: u64) -> Self {
        Self {
            most,
            door: Mutex::default(),
            state: Mutex::default(),
            left: Condvar::default(),
            waits: Waits::default(),
        }
    }

    /// Returns when there is room for `bytes` more, in the order of coming. The caller holds nothing that
    /// those inside need to leave: perhaps locks of rows, and its place in the log.
    pub(super) fn enter(&self, bytes: u64) -> Entered<'_> {
        let _door = self.door.lock();
        let mut state = self.state.lock();
        let is_too_much = |state: &State| state.bytes > 0 && state.bytes.saturating_add(bytes) > self.most;
        if is_too_much(&state) {
            let since = Instant::now();
            state.waiting += 1;
            while is_too_much(&state) {
                state = self.left.wait(state);
            }
            state.waiting -= 1;
            let took = since.elapsed();
            self.waits.note(took);
            tracing::debug!(?took, bytes, "a large batch waited for others");
        }
        state.bytes += bytes;
        Entered { apart: self, bytes }
    }

    /// Bytes that are inserted apart now.
    pub(crate) fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// Batches that wait now.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> u64 {
        self.state.lock().waiting
    }

    /// How often a batch waited, and for how long in all.
    pub(crate) fn waited(&self) -> (u64, Duration) {
        self.waits.totals()
    }
}

impl Entered<'_> {
    /// The memtables came to so many bytes.
    pub(super) fn came_to(&mut self, bytes: u64) {
        let mut state = self.apart.state.lock();
        state.bytes = state.bytes - self.bytes + bytes;
        self.bytes = bytes;
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.apart.state.lock().bytes -= self.bytes;
        self.apart.left.notify_all();
    }
}
