//! How writers are slowed, and at last stopped, when merges fall behind.

use std::time::Duration;

use crate::column_family::family::MAX_FROZEN;
use crate::error::Error;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, thread};

/// The longest that one commit is slowed before it is let on.
const MAX_DELAY: Duration = Duration::from_millis(10);
/// Merges by which deltas may hold too much before writers are slowed to half of what joining and draining can do.
const MAX_EXCESS: f64 = 4.0;
/// Delays shorter than this are saved up: few longer pauses hold up fewer commits than many short ones, of which each takes a
/// tenth of a millisecond at least.
const MIN_DELAY: Duration = Duration::from_millis(4);

/// Counts a family's waiting memtables and lets its writers wait for them.
#[derive(Default)]
pub(crate) struct Stall {
    waiting: AtomicUsize,
    /// What a merge lately needed for a byte of memtable, in picoseconds.
    picoseconds_per_byte: AtomicU64,
    /// What joining lately needed for a byte, in picoseconds.
    joining_picoseconds_per_byte: AtomicU64,
    /// What draining lately needed for a byte, in picoseconds.
    draining_picoseconds_per_byte: AtomicU64,
    /// How far draining is behind: thousandths of what slows writers as much as a full memtable does.
    behind: AtomicU64,
    /// Delay that is owed, in nanoseconds, too short yet to sleep.
    owed: AtomicU64,
    delayed_nanoseconds: AtomicU64,
    stopped: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Why merges cannot go on at present, if they cannot.
    obstacle: Option<Error>,
}

/// Mixes what `bytes` took into the average of picoseconds for a byte.
fn average(picoseconds_per_byte: &AtomicU64, bytes: usize, took: Duration) {
    if bytes > 0 {
        let now = (took.as_nanos() as u64).saturating_mul(1000) / bytes as u64;
        let before = picoseconds_per_byte.load(Ordering::Relaxed);
        let mixed = if before == 0 { now } else { (3 * before + now) / 4 };
        picoseconds_per_byte.store(mixed, Ordering::Relaxed);
    }
}

/// Why a wait ended.
pub(crate) enum Woken {
    /// Something changed, or some time passed: look again.
    LookAgain,
    /// Merges cannot go on at present.
    Obstacle(Error),
}

impl Stall {
    /// `count` memtables are frozen.
    pub(crate) fn frozen(&self, count: usize) {
        self.waiting.fetch_add(count, Ordering::AcqRel);
    }

    /// `count` memtables of `bytes` in all were merged within `took`.
    pub(crate) fn merged(&self, count: usize, bytes: usize, took: Duration) {
        average(&self.picoseconds_per_byte, bytes, took);
        self.waiting.fetch_sub(count, Ordering::AcqRel);
        self.state.lock().obstacle = None;
        self.changed.notify_all();
    }

    /// Entries of `bytes` were joined within `took`.
    pub(crate) fn joined(&self, bytes: usize, took: Duration) {
        average(&self.joining_picoseconds_per_byte, bytes, took);
    }

    /// Entries of `bytes` were drained within `took`.
    pub(crate) fn drained(&self, bytes: usize, took: Duration) {
        average(&self.draining_picoseconds_per_byte, bytes, took);
    }

    /// Deltas hold too much by `excess` merges, or are too many by as many deltas.
    pub(crate) fn set_excess(&self, excess: f64) {
        self.behind.store((excess / MAX_EXCESS * 1000.0) as u64, Ordering::Relaxed);
    }

    /// Memtables that wait to be merged.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Merges cannot go on until the cause of `error` is gone; those who wait are told.
    pub(crate) fn obstruct(&self, error: Error) {
        self.state.lock().obstacle = Some(error);
        self.changed.notify_all();
    }

    /// Merges can go on.
    pub(crate) fn clear(&self) {
        self.state.lock().obstacle = None;
        self.changed.notify_all();
    }

    /// `count` memtables that were counted were not frozen after all.
    pub(crate) fn not_frozen(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::AcqRel);
    }

    /// Lets those who wait look again.
    pub(crate) fn wake(&self) {
        drop(self.state.lock());
        self.changed.notify_all();
    }

    /// Waits until `places` more memtables may wait to be merged, or something else may have changed.
    pub(crate) fn wait(&self, places: usize) -> Woken {
        self.stopped.fetch_add(1, Ordering::Relaxed);
        let state = self.state.lock();
        if let Some(error) = &state.obstacle {
            return Woken::Obstacle(error.clone());
        }
        if self.waiting() + places <= MAX_FROZEN {
            return Woken::LookAgain;
        }
        let state = self.changed.wait_for(state, Duration::from_millis(20));
        match &state.obstacle {
            Some(error) => Woken::Obstacle(error.clone()),
            None => Woken::LookAgain,
        }
    }

    /// Slows a writer of `bytes` down so that the active memtable, `fill` full (0 to 1), takes about as long to fill as the
    /// merge under way takes to end: nothing while a place is free, then growing with the square of the fill. Likewise if draining
    /// is behind, growing with how far it is.
    #[inline]
    pub(crate) fn slow_down(&self, bytes: usize, fill: f64) {
        let behind = self.behind.load(Ordering::Relaxed);
        if behind > 0 || self.waiting() >= MAX_FROZEN {
            self.slow_down_by(bytes, fill, behind as f64 / 1000.0);
        }
    }

    #[inline(never)]
    fn slow_down_by(&self, bytes: usize, fill: f64, behind: f64) {
        let fill = if self.waiting() < MAX_FROZEN { 0.0 } else { fill };
        let per_byte = self.picoseconds_per_byte.load(Ordering::Relaxed)
            + self.joining_picoseconds_per_byte.load(Ordering::Relaxed)
            + self.draining_picoseconds_per_byte.load(Ordering::Relaxed);
        let full = per_byte as f64 * bytes as f64 / 1000.0;
        let delay = (2.0 * full * (fill * fill).max(behind).min(1.0)) as u64;
        let owed = self.owed.fetch_add(delay, Ordering::Relaxed) + delay;
        if owed >= MIN_DELAY.as_nanos() as u64
            && self.owed.compare_exchange(owed, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let pause = Duration::from_nanos(owed).min(MAX_DELAY);
            self.delayed_nanoseconds.fetch_add(pause.as_nanos() as u64, Ordering::Relaxed);
            thread::sleep(pause);
        }
    }

    /// How long writers were slowed in all, and how often one was stopped.
    pub(crate) fn totals(&self) -> (Duration, u64) {
        (
            Duration::from_nanos(self.delayed_nanoseconds.load(Ordering::Relaxed)),
            self.stopped.load(Ordering::Relaxed),
        )
    }
}
