//! How writers are slowed, and at last stopped, as the log nears its limit.
//!
//! The log's weight ([`crate::wal::weight`]; where a segment's file is longer than its records weigh, the
//! length counts) falls when a checkpoint lets go of segments: in steps, one for each *round* of merging what
//! keeps old segments and making it durable. A round begins when the log weighs more than half of its limit.
//! From five eighths on what is left until the limit is dealt out over the time until the round is expected
//! to end, to all writers together; so the less is left, or the longer the round takes, the slower they are,
//! and few ever meet the limit. Who does waits, without any lock, until a checkpoint has let go of something.
//!
//! Invariants:
//! 1. With what is admitted and not appended yet, the log weighs no more than the limit, but for one record,
//!    if nothing else can be let go of, and what several writers bring at once in records below a 256th of
//!    the limit.
//! 2. Who waits holds nothing that a merge or a checkpoint needs, and is told whatever keeps them from
//!    ending.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::throttle::{Throttle, time_for, time_left};
use crate::sync::{Condvar, Instant, Mutex, MutexGuard};
use crate::wal::{Log, Weight};

/// How long a round takes, as long as none has ended.
const FIRST_ROUND: Duration = Duration::from_millis(200);
/// How long a stopped writer waits at most before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Paces the writers of one database.
pub(crate) struct LogPace {
    limit: Weight,
    /// What of the log counts for nothing, since no round lets go of it: what is carried along of damaged
    /// families.
    carried: AtomicU64,
    /// What is admitted and may not be in the log's weight yet.
    in_flight: AtomicU64,
    throttle: Throttle,
    /// Held by the one stopped writer who looks; others come after him, so that who brings much gets his
    /// turn.
    door: Mutex<()>,
    /// Writers at the door.
    waiting: AtomicUsize,
    /// Weight of what the one who looks brings; taken when the log is made shorter for him.
    wanted: AtomicU64,
    rounds: Mutex<Rounds>,
    freed: Condvar,
    /// Times that a checkpoint let go of what it could.
    ended: AtomicU64,
    stops: AtomicU64,
    stopped_nanoseconds: AtomicU64,
}

#[derive(Default)]
struct Rounds {
    /// When the present round began, if the log is long.
    began: Option<Instant>,
    /// How long rounds took lately.
    average: Option<Duration>,
    /// Why none can end at present, if that is so.
    obstacle: Option<Error>,
}

impl Rounds {
    /// How long the present round is expected to go on.
    fn left(&self) -> Duration {
        let elapsed = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        time_left(self.average.unwrap_or(FIRST_ROUND), elapsed)
    }
}

/// Says that a record may be appended; to be held until it is.
pub(crate) struct Admitted<'p> {
    pace: &'p LogPace,
    weight: Weight,
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if self.weight > 0 {
            self.pace.in_flight.fetch_sub(self.weight, Ordering::Relaxed);
        }
    }
}

/// A stopped writer whose turn it is to look.
pub(crate) struct AtDoor<'p> {
    pace: &'p LogPace,
    since: Instant,
    _door: MutexGuard<'p, ()>,
}

impl Drop for AtDoor<'_> {
    fn drop(&mut self) {
        let took = self.since.elapsed();
        self.pace.stopped_nanoseconds.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        self.pace.waiting.fetch_sub(1, Ordering::Relaxed);
        tracing::debug!(?took, "a writer was stopped until the log was shorter");
    }
}

/// What writers waited for the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Waited {
    pub(crate) pauses: u64,
    pub(crate) paused: Duration,
    pub(crate) stops: u64,
    pub(crate) stopped: Duration,
}

impl LogPace {
    pub(crate) fn new(limit: Weight) -> Self {
        Self {
            limit,
            carried: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            throttle: Throttle::default(),
            door: Mutex::default(),
            waiting: AtomicUsize::new(0),
            wanted: AtomicU64::new(0),
            rounds: Mutex::default(),
            freed: Condvar::default(),
            ended: AtomicU64::new(0),
            stops: AtomicU64::new(0),
            stopped_nanoseconds: AtomicU64::new(0),
        }
    }

    /// Weight of the log from which on it is to be shortened.
    pub(crate) fn long_from(&self) -> Weight {
        self.limit / 2
    }

    /// Notes what the log weighs more for what it carries along of a damaged family, `now` and `before`. No
    /// round lets go of it: the limit is so much higher.
    pub(crate) fn carry(&self, before: Weight, now: Weight) {
        self.carried.fetch_add(now, Ordering::Relaxed);
        self.carried.fetch_sub(before, Ordering::Relaxed);
    }

    fn carried(&self) -> Weight {
        self.carried.load(Ordering::Relaxed)
    }

    /// What of the log's weight counts.
    fn counted(&self, weight: Weight) -> Weight {
        weight.saturating_sub(self.carried())
    }

    /// Whether `log` weighs so much that it is to be shortened.
    pub(crate) fn is_too_long(&self, log: &Log) -> bool {
        // It is watched from there on.
        let watched = log.watched();
        watched > 0 && self.counted(watched) >= self.long_from()
    }

    /// Weight of what may stay in a log that is shortened, also for whoever waits for that.
    pub(crate) fn short_enough(&self) -> Weight {
        let wanted = self.wanted.swap(0, Ordering::Relaxed);
        (self.limit / 4).min(self.limit.saturating_sub(wanted)).saturating_add(self.carried())
    }

    /// Whether a writer waits for the log to be shortened, though it may not be long: what he brings is.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }

    fn slow_from(&self) -> Weight {
        self.limit / 8 * 5
    }

    /// For a commit without a record.
    pub(crate) fn nothing(&self) -> Admitted<'_> {
        Admitted { pace: self, weight: 0 }
    }

    /// Admits a record of `weight` at once, if the log is far from its limit, whatever others bring
    /// meanwhile.
    #[inline]
    pub(crate) fn admit_at_once(&self, log: &Log, weight: Weight) -> Option<Admitted<'_>> {
        (self.counted(log.watched()) < self.slow_from()
            && weight < self.limit / 256
            && self.waiting.load(Ordering::Relaxed) == 0)
            .then_some(Admitted { pace: self, weight: 0 })
    }

    /// Admits a record of `weight` if nobody waits and the log stays within its limit with it.
    pub(crate) fn admit_in_turn(&self, log: &Log, weight: Weight) -> Option<Admitted<'_>> {
        if self.waiting.load(Ordering::Relaxed) > 0 { None } else { self.admit(log, weight) }
    }

    /// Admits a record of `weight` if the log stays within its limit with it, or can be made no shorter. For
    /// whoever is [`at_door`](Self::at_door).
    pub(crate) fn admit(&self, log: &Log, weight: Weight) -> Option<Admitted<'_>> {
        // In this order: what is appended meanwhile counts twice, not never.
        let others = self.in_flight.fetch_add(weight, Ordering::SeqCst);
        let admitted = Admitted { pace: self, weight };
        let fits = self.counted(log.charge()).saturating_add(others).saturating_add(weight) <= self.limit;
        (fits || others == 0 && !log.can_be_shorter()).then_some(admitted)
    }

    /// How long whoever brings `weight` pauses, before he is admitted.
    pub(crate) fn pause(&self, log: &Log, weight: Weight) -> Duration {
        let watched = self.counted(log.watched());
        if watched < self.slow_from() {
            return Duration::ZERO;
        }
        let left = self.rounds.lock().left();
        self.throttle.pause(weight, time_for(weight, self.limit.saturating_sub(watched), left))
    }

    /// Stops a writer until those before him have gone on.
    pub(crate) fn at_door(&self) -> AtDoor<'_> {
        self.stops.fetch_add(1, Ordering::Relaxed);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let since = Instant::now();
        AtDoor { pace: self, since, _door: self.door.lock() }
    }

    /// Says what the log is to be made shorter for.
    pub(crate) fn want(&self, weight: Weight) {
        self.wanted.store(weight.max(1), Ordering::Relaxed);
    }

    /// Says that the log is to be made as short as it can be, for want of room on the disk.
    pub(crate) fn want_all(&self) {
        self.want(Weight::MAX);
    }

    /// How often checkpoints have let go of what they could.
    pub(crate) fn rounds_ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// Waits until something may have been let go of.
    ///
    /// # Errors
    /// What keeps that from happening at present.
    pub(crate) fn wait(&self) -> Result<()> {
        let rounds = self.rounds.lock();
        if let Some(error) = &rounds.obstacle {
            return Err(error.clone());
        }
        let rounds = self.freed.wait_for(rounds, LOOK_AGAIN);
        rounds.obstacle.clone().map_or(Ok(()), Err)
    }

    /// The log is long: a round is under way.
    pub(crate) fn is_long(&self) {
        self.rounds.lock().began.get_or_insert_with(Instant::now);
    }

    /// The log is not long: no round is under way.
    pub(crate) fn is_short(&self) {
        self.rounds.lock().began = None;
    }

    /// A round has ended: segments were let go of. `is_long`: another one begins.
    pub(crate) fn freed(&self, is_long: bool) {
        let mut rounds = self.rounds.lock();
        if let Some(began) = rounds.began.take() {
            let took = began.elapsed();
            rounds.average = Some(rounds.average.map_or(took, |average| (average * 3 + took) / 4));
        }
        rounds.began = is_long.then(Instant::now);
        rounds.obstacle = None;
        self.ended.fetch_add(1, Ordering::Release);
        drop(rounds);
        self.freed.notify_all();
    }

    /// No round can end until the cause of `error` is gone; those who wait are told.
    pub(crate) fn obstruct(&self, error: Error) {
        self.rounds.lock().obstacle = Some(error);
        self.freed.notify_all();
    }

    /// Rounds can end.
    pub(crate) fn clear(&self) {
        self.rounds.lock().obstacle = None;
    }

    /// Lets those who wait look again.
    pub(crate) fn wake(&self) {
        drop(self.rounds.lock());
        self.freed.notify_all();
    }

    pub(crate) fn waited(&self) -> Waited {
        let (pauses, paused) = self.throttle.totals();
        let nanoseconds = |count: &AtomicU64| Duration::from_nanos(count.load(Ordering::Relaxed));
        Waited {
            pauses,
            paused,
            stops: self.stops.load(Ordering::Relaxed),
            stopped: nanoseconds(&self.stopped_nanoseconds),
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_told_of_an_obstacle_until_it_is_gone() {
        let pace = LogPace::new(1000);
        let full = Error::io("writing", std::io::ErrorKind::StorageFull.into());
        pace.obstruct(full);
        assert_eq!(pace.wait().unwrap_err().kind(), crate::error::ErrorKind::OutOfSpace);
        pace.freed(false);
        pace.wait().unwrap();
    }
}
