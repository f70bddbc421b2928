//! How writers are slowed, and at last stopped, when merges fall behind.
//!
//! Memtables are taken away in *rounds*: as soon as enough of them wait for a merge to be worth it, one is
//! due, and at its end all that it took make room at once. From the moment that it is due, what room is left
//! (places for frozen memtables, and the rest of the active one) is dealt out to the family's writers over
//! the time that rounds lately took, which counts what the merge waits for: others before it, and joining and
//! draining.

use std::time::Duration;

use crate::codec::ids::FamilyId;
use crate::error::Error;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::throttle::{Throttle, time_for, time_left};
use crate::sync::waits::Waits;
use crate::sync::{Condvar, Instant, Mutex, thread};

/// Memtables of a family that may wait for a merge.
pub(crate) const MAX_FROZEN: usize = 4;
/// Frozen memtables for which a merge is worth its while.
pub(crate) const WORTH_A_MERGE: usize = MAX_FROZEN - 1;
/// Merges by which deltas may hold too much before writers are slowed to half of what joining and draining
/// can do.
const MAX_EXCESS: f64 = 4.0;
/// What a merge takes for a byte of memtable as long as none was made, in picoseconds.
const FIRST_MERGE: u64 = 5000;

/// Counts a family's waiting memtables and lets its writers wait for them.
pub(crate) struct Stall {
    waiting: AtomicUsize,
    /// Nanoseconds from `epoch` to the moment at which the merge became due that is awaited; 0 if none is.
    due_since: AtomicU64,
    /// Nanoseconds from `epoch` to the last freeze; 0 if there was none.
    frozen_at: AtomicU64,
    epoch: Instant,
    /// What a round lately took for a byte of memtable, in picoseconds.
    picoseconds_per_byte: AtomicU64,
    /// What joining lately needed for a byte, in picoseconds.
    joining_picoseconds_per_byte: AtomicU64,
    /// What draining lately needed for a byte, in picoseconds.
    draining_picoseconds_per_byte: AtomicU64,
    /// How far draining is behind: thousandths of what slows writers to half of what it can do.
    behind: AtomicU64,
    throttle: Throttle,
    /// Of the pauses, those because joining and draining are behind.
    draining_pauses: Waits,
    /// Named in what is traced.
    family: FamilyId,
    stops: AtomicU64,
    stopped_nanoseconds: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

impl Default for Stall {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            waiting: AtomicUsize::new(0),
            due_since: zero(),
            frozen_at: zero(),
            epoch: Instant::now(),
            picoseconds_per_byte: zero(),
            joining_picoseconds_per_byte: zero(),
            draining_picoseconds_per_byte: zero(),
            behind: zero(),
            throttle: Throttle::default(),
            draining_pauses: Waits::default(),
            family: FamilyId(0),
            stops: zero(),
            stopped_nanoseconds: zero(),
            state: Mutex::default(),
            changed: Condvar::default(),
        }
    }
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
        picoseconds_per_byte.store(mixed.max(1), Ordering::Relaxed);
    }
}

/// Why a wait ended.
pub(crate) enum Woken {
    /// Something changed, or some time passed: look again.
    LookAgain,
    /// Merges cannot go on at present.
    Obstacle(Error),
}

/// What a family's writers waited for merges.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Waited {
    pub(crate) pauses: u64,
    pub(crate) paused: Duration,
    pub(crate) stops: u64,
    pub(crate) stopped: Duration,
    /// Of the pauses, those because joining and draining are behind.
    pub(crate) draining: (u64, Duration),
}

impl Stall {
    pub(crate) fn of(family: FamilyId) -> Self {
        Self { family, ..Self::default() }
    }

    /// `count` memtables are frozen.
    pub(crate) fn frozen(&self, count: usize) {
        let waiting = self.waiting.fetch_add(count, Ordering::AcqRel) + count;
        self.frozen_at.store(self.now(), Ordering::Relaxed);
        if waiting >= WORTH_A_MERGE {
            let _ = self.due_since.compare_exchange(0, self.now(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// How long ago a memtable was frozen last, if one ever was.
    pub(crate) fn since_frozen(&self) -> Option<Duration> {
        let at = self.frozen_at.load(Ordering::Relaxed);
        (at > 0).then(|| Duration::from_nanos(self.now().saturating_sub(at)))
    }

    /// `count` memtables were merged within `took`, which counts as for `bytes`.
    pub(crate) fn merged(&self, count: usize, bytes: usize, took: Duration) {
        let waiting = self.waiting.fetch_sub(count, Ordering::AcqRel) - count;
        let now = self.now();
        let since = self.due_since.swap(if waiting >= WORTH_A_MERGE { now } else { 0 }, Ordering::Relaxed);
        let round = if since == 0 { took } else { Duration::from_nanos(now.saturating_sub(since)) };
        average(&self.picoseconds_per_byte, bytes, round.max(took));
        if self.waiting() < WORTH_A_MERGE {
            // One that was counted was not frozen after all.
            self.due_since.store(0, Ordering::Relaxed);
        }
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

    /// Whether enough memtables wait for a merge to be worth its while.
    pub(crate) fn is_due(&self) -> bool {
        self.waiting() >= WORTH_A_MERGE
    }

    /// How much a merge is waited for: not at all unless it is due, else the more the less room is left.
    pub(crate) fn urgency(&self) -> usize {
        if self.is_due() { self.waiting() } else { 0 }
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
        if self.waiting.fetch_sub(count, Ordering::AcqRel) - count < WORTH_A_MERGE {
            self.due_since.store(0, Ordering::Relaxed);
        }
    }

    /// Lets those who wait look again.
    pub(crate) fn wake(&self) {
        drop(self.state.lock());
        self.changed.notify_all();
    }

    /// Waits until `places` more memtables may wait to be merged, or something else may have changed.
    pub(crate) fn wait(&self, places: usize) -> Woken {
        let started = Instant::now();
        let state = self.state.lock();
        if let Some(error) = &state.obstacle {
            return Woken::Obstacle(error.clone());
        }
        if self.waiting() + places <= MAX_FROZEN {
            return Woken::LookAgain;
        }
        self.stops.fetch_add(1, Ordering::Relaxed);
        let state = self.changed.wait_for(state, Duration::from_millis(20));
        let took = started.elapsed();
        self.stopped_nanoseconds.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        tracing::debug!(?took, family = self.family.0, "a writer was stopped until memtables are merged");
        match &state.obstacle {
            Some(error) => Woken::Obstacle(error.clone()),
            None => Woken::LookAgain,
        }
    }

    /// Slows a writer of `bytes` down, where memtables are frozen at `memtable_bytes` and the active one is
    /// `fill` full (0 to 1): while a merge is due, so that the room that is left lasts until its end; and if
    /// draining is behind, growing with how far it is.
    #[inline]
    pub(crate) fn slow_down(&self, bytes: usize, memtable_bytes: usize, fill: f64) {
        let since = self.due_since.load(Ordering::Relaxed);
        let behind = self.behind.load(Ordering::Relaxed);
        if since > 0 || behind > 0 {
            self.slow_down_by(bytes, memtable_bytes, fill, since, behind);
        }
    }

    #[inline(never)]
    fn slow_down_by(&self, bytes: usize, memtable_bytes: usize, fill: f64, since: u64, behind: u64) {
        let takes = self.takes(bytes, memtable_bytes, fill, since, behind);
        let pause = self.throttle.pause(bytes as u64, takes);
        if pause.is_zero() {
            return;
        }
        let (family, waiting) = (self.family.0, self.waiting());
        if takes > self.takes(bytes, memtable_bytes, fill, since, 0) {
            self.draining_pauses.note(pause);
            tracing::trace!(?pause, family, behind, "a writer is slowed until deltas are drained");
        } else {
            tracing::trace!(?pause, family, waiting, "a writer is slowed until memtables are merged");
        }
        thread::sleep(pause);
    }

    /// The time for which a write of `bytes` is to last.
    fn takes(&self, bytes: usize, memtable_bytes: usize, fill: f64, since: u64, behind: u64) -> Duration {
        let per_byte = match self.picoseconds_per_byte.load(Ordering::Relaxed) {
            0 => FIRST_MERGE,
            per_byte => per_byte,
        };
        let mut takes = Duration::ZERO;
        if since > 0 {
            let (waiting, memtable) = (self.waiting(), memtable_bytes as f64);
            let expected =
                Duration::from_nanos((per_byte as f64 * memtable * waiting as f64 / 1000.0) as u64);
            let elapsed = Duration::from_nanos(self.now().saturating_sub(since));
            let places = MAX_FROZEN.saturating_sub(waiting) as f64 + (1.0 - fill);
            let room = (places * memtable).max(0.0) as u64;
            takes = time_for(bytes as u64, room, time_left(expected, elapsed));
        }
        if behind > 0 {
            let per_byte = per_byte
                + self.joining_picoseconds_per_byte.load(Ordering::Relaxed)
                + self.draining_picoseconds_per_byte.load(Ordering::Relaxed);
            let behind = (behind as f64 / 1000.0).min(1.0);
            let drained = 2.0 * per_byte as f64 * bytes as f64 * behind / 1000.0;
            takes = takes.max(Duration::from_nanos(drained as u64));
        }
        takes
    }

    pub(crate) fn waited(&self) -> Waited {
        let (pauses, paused) = self.throttle.totals();
        Waited {
            pauses,
            paused,
            stops: self.stops.load(Ordering::Relaxed),
            stopped: Duration::from_nanos(self.stopped_nanoseconds.load(Ordering::Relaxed)),
            draining: self.draining_pauses.totals(),
        }
    }

    fn now(&self) -> u64 {
        (self.epoch.elapsed().as_nanos() as u64).max(1)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    const MEMTABLE: usize = 1 << 20;

    fn is_due(stall: &Stall) -> bool {
        stall.due_since.load(Ordering::Relaxed) > 0
    }

    #[test]
    fn a_merge_is_due_while_enough_memtables_wait_for_it() {
        let stall = Stall::default();
        stall.frozen(WORTH_A_MERGE - 1);
        assert!(!is_due(&stall));
        stall.frozen(2);
        assert!(is_due(&stall));
        stall.merged(1, MEMTABLE, Duration::from_millis(1));
        assert!(is_due(&stall), "another one is, at once");
        stall.not_frozen(1);
        assert!(!is_due(&stall));
        assert_eq!(stall.waiting(), WORTH_A_MERGE - 1);
    }

    #[test]
    fn writers_are_slowed_only_while_a_merge_is_due_and_the_more_the_less_room_is_left() {
        let stall = Stall::default();
        for _ in 0..1000 {
            stall.slow_down(MEMTABLE, MEMTABLE, 0.9);
        }
        assert_eq!(stall.waited().pauses, 0);
        stall.frozen(WORTH_A_MERGE);
        let now = stall.now();
        let takes = |fill| stall.takes(100, MEMTABLE, fill, now, 0);
        assert!(takes(0.0) > Duration::ZERO);
        assert!(takes(0.9) > takes(0.5) && takes(0.5) > takes(0.0));
        stall.frozen(1);
        assert!(takes(0.5) > Duration::ZERO && takes(1.0) >= takes(0.99), "no room is left");
        stall.slow_down(MEMTABLE, MEMTABLE, 1.0);
        let waited = stall.waited();
        assert_eq!((waited.pauses, waited.stops), (1, 0));
        stall.merged(WORTH_A_MERGE + 1, MEMTABLE, Duration::from_millis(1));
        stall.set_excess(0.0);
        stall.slow_down(MEMTABLE, MEMTABLE, 1.0);
        assert_eq!(stall.waited().pauses, 1);
        stall.set_excess(MAX_EXCESS);
        assert!(stall.takes(MEMTABLE, MEMTABLE, 0.0, 0, 1000) > Duration::ZERO, "draining is behind");
    }
}
