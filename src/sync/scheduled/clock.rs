//! Time that passes when somebody waits for it, so that it is the same whenever a schedule is repeated.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What looking at the clock takes.
const LOOK: Duration = Duration::from_micros(1);

shuttle::lazy_static! {
    /// Nanoseconds since the execution began.
    static ref NOW: AtomicU64 = AtomicU64::new(0);
}

/// Lets `time` pass for everybody.
pub(in crate::sync) fn pass(time: Duration) {
    NOW.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// A moment of an execution's time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Instant(u64);

impl Instant {
    pub(crate) fn now() -> Self {
        pass(LOOK);
        Self(NOW.load(Ordering::Relaxed))
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_nanos(Self::now().0 - self.0)
    }
}
