//! The clock by which entries expire: the program's, or the system's.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::codec::expiry::{Expiry, Now, expiry_after};
use crate::codec::operands::Stamp;
use crate::error::{Error, ErrorKind, Result};
use crate::operator::named::guarded;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, Ordering};

type Source = std::sync::Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// A clock, and whether anything needs one.
#[derive(Clone)]
pub(crate) struct WallClock {
    source: Code,
    /// Some family has entries that may expire.
    is_used: Arc<AtomicBool>,
}

/// What the program gave; `None`: the system's clock. What it does when it goes is its own as well.
#[derive(Clone)]
struct Code(Option<Source>);

impl Drop for Code {
    fn drop(&mut self) {
        if let Some(source) = self.0.take() {
            // Whoever lets go of it last has nothing to do with it.
            let _panic = guarded(|| drop(source));
        }
    }
}

impl WallClock {
    /// The system's clock.
    pub(crate) fn of_system() -> Self {
        Self { source: Code(None), is_used: Arc::default() }
    }

    pub(crate) fn of(source: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self { source: Code(Some(std::sync::Arc::new(source))), is_used: Arc::default() }
    }

    /// The same clock for another database.
    pub(crate) fn for_database(&self) -> Self {
        Self { source: self.source.clone(), is_used: Arc::default() }
    }

    /// Some family has entries that may expire from now on.
    pub(crate) fn set_used(&self) {
        self.is_used.store(true, Ordering::Release);
    }

    /// The time since 1970, for a caller that holds no lock. `ClockFailed` if the clock panics.
    fn time(&self) -> Result<Duration> {
        let now = match &self.source.0 {
            None => SystemTime::now(),
            Some(source) => guarded(|| source()).map_err(|panic| {
                Error::new(ErrorKind::ClockFailed, format!("the database's clock panicked: {panic}"))
            })?,
        };
        // What is before 1970 counts as its beginning.
        Ok(now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO))
    }

    /// The second at which entries are judged now.
    pub(crate) fn now(&self) -> Result<Now> {
        self.time().map(|time| Now(time.as_secs()))
    }

    /// The same if any family has entries that may expire.
    pub(crate) fn now_if_used(&self) -> Result<Now> {
        if self.is_used.load(Ordering::Acquire) { self.now() } else { Ok(Now::UNASKED) }
    }

    /// For what works in the background: nothing is judged as long as the clock fails.
    pub(crate) fn now_or_unasked(&self) -> Now {
        self.now_if_used().unwrap_or_else(|error| {
            tracing::warn!(%error, "nothing that has expired is dropped");
            Now::UNASKED
        })
    }

    /// When what is written now expires if it lives for `time`.
    pub(crate) fn expiry_after(&self, time: Duration) -> Result<Expiry> {
        self.time().map(|now| expiry_after(now, time))
    }

    /// The stamp of an operand that is written now; what it makes lives for `time`, if that is said.
    pub(crate) fn stamp(&self, time: Option<Duration>) -> Result<Stamp> {
        let now = self.time()?;
        // One that is not zeros altogether: that would be none.
        let written = now.as_secs().max(1);
        Ok(Stamp { written, expiry: time.map_or(0, |time| expiry_after(now, time)) })
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.source.0.is_some() { "WallClock(given)" } else { "WallClock(system)" })
    }
}
