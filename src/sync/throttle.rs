//! Dealing out what room is left over the time until there is more of it.
//!
//! Room comes back in steps, each the end of a *round* of background work: a merge takes memtables away, a
//! checkpoint lets go of log. Who uses room up is slowed so that what is left lasts until the round is
//! expected to end. The less is left, or the longer the round takes, the slower he is, so hardly anybody ever
//! meets the end of it.

use std::time::Duration;

use super::Instant;
use super::atomic::{AtomicU64, Ordering};

/// Pauses shorter than this are saved up: few longer ones hold up fewer callers than many short ones, of
/// which each takes a tenth of a millisecond at least.
const MIN_PAUSE: Duration = Duration::from_millis(3);
/// The longest that one caller is slowed before he is let on: one who uses little room at once, some, and
/// much.
const MAX_PAUSE_FOR_LITTLE: Duration = Duration::from_millis(4);
const MAX_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE_FOR_MUCH: Duration = Duration::from_millis(50);
/// Bytes from which on it is some, and much.
const SOME: u64 = 4 << 10;
const MUCH: u64 = 64 << 10;
/// The shortest time that a round is expected to take from any moment on.
const LEAST_LEFT: Duration = Duration::from_millis(5);

/// Says who pauses for how long.
pub(crate) struct Throttle {
    epoch: Instant,
    /// Nanoseconds from `epoch` to the moment until which the room that was used so far is to last.
    due: AtomicU64,
    pauses: AtomicU64,
    paused_nanoseconds: AtomicU64,
}

impl Default for Throttle {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self { epoch: Instant::now(), due: zero(), pauses: zero(), paused_nanoseconds: zero() }
    }
}

impl Throttle {
    /// For how long whoever uses `bytes` of room pauses, if they are to last for `takes`.
    pub(crate) fn pause(&self, bytes: u64, takes: Duration) -> Duration {
        let most = match bytes {
            ..SOME => MAX_PAUSE_FOR_LITTLE,
            SOME..MUCH => MAX_PAUSE,
            _ => MAX_PAUSE_FOR_MUCH,
        };
        let now = self.epoch.elapsed().as_nanos() as u64;
        let takes = takes.as_nanos() as u64;
        // Nobody pays for more than he is held up by.
        let latest = now + most.as_nanos() as u64;
        let due = |due: u64| Some(due.max(now).saturating_add(takes).min(latest));
        let before =
            self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due).unwrap_or_else(|due| due);
        let ahead = Duration::from_nanos(before.saturating_sub(now).saturating_add(takes));
        if ahead < MIN_PAUSE {
            return Duration::ZERO;
        }
        let pause = ahead.min(most);
        self.pauses.fetch_add(1, Ordering::Relaxed);
        self.paused_nanoseconds.fetch_add(pause.as_nanos() as u64, Ordering::Relaxed);
        pause
    }

    /// How often somebody was slowed, and for how long in all.
    pub(crate) fn totals(&self) -> (u64, Duration) {
        (
            self.pauses.load(Ordering::Relaxed),
            Duration::from_nanos(self.paused_nanoseconds.load(Ordering::Relaxed)),
        )
    }
}

/// The time for which `amount` is to last if `room` lasts for `left`.
pub(crate) fn time_for(amount: u64, room: u64, left: Duration) -> Duration {
    left.mul_f64((amount as f64 / room.max(1) as f64).min(1.0))
}

/// How long a round of background work still takes, if such a one takes `expected` and it has taken
/// `elapsed`. One that is late, or nearly, may take half as long again.
pub(crate) fn time_left(expected: Duration, elapsed: Duration) -> Duration {
    expected.saturating_sub(elapsed).max(elapsed / 2).max(LEAST_LEFT)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_lasts_until_the_round_ends() {
        let expected = Duration::from_millis(400);
        let mut room = 1000;
        let mut took = Duration::ZERO;
        while room > 10 {
            took += time_for(10, room, time_left(expected, took));
            room -= 10;
        }
        assert!(took > expected, "{took:?}");
        assert_eq!(time_for(5000, 10, expected), expected);
        assert_eq!(time_for(1, 0, expected), expected);
    }

    #[test]
    fn a_round_that_takes_long_is_not_expected_to_end_at_once() {
        let second = Duration::from_secs(1);
        assert_eq!(time_left(second, second / 2), second / 2);
        assert_eq!(time_left(second, 5 * second), 5 * second / 2);
        assert_eq!(time_left(second, second), second / 2);
        assert_eq!(time_left(Duration::ZERO, Duration::ZERO), LEAST_LEFT);
    }

    #[test]
    fn short_pauses_are_saved_up_and_none_is_long() {
        let throttle = Throttle::default();
        assert_eq!(throttle.pause(100, Duration::from_micros(1)), Duration::ZERO);
        assert_eq!(throttle.pause(100, Duration::from_secs(60)), MAX_PAUSE_FOR_LITTLE);
        // What was beyond that is forgotten.
        assert!(throttle.pause(100, Duration::ZERO) <= MAX_PAUSE_FOR_LITTLE);
        assert_eq!(throttle.pause(SOME, Duration::from_secs(60)), MAX_PAUSE);
        assert_eq!(throttle.pause(MUCH, Duration::from_secs(60)), MAX_PAUSE_FOR_MUCH);
        let (pauses, paused) = throttle.totals();
        assert!((3..=4).contains(&pauses) && paused <= 3 * MAX_PAUSE + MAX_PAUSE_FOR_MUCH);
    }
}
