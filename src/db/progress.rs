//! How far a replay has come, told to whoever wants to know.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::options::{ProgressCallback, RecoveryProgress};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Instant, Mutex};

/// How often it is told.
const INTERVAL: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_millis(100) };
/// Bytes after which a look at the clock is worth its while.
const STRIDE: u64 = if cfg!(test) { 64 } else { 64 << 10 };

pub(super) struct Progress<'a> {
    callback: Option<&'a ProgressCallback>,
    /// The callback panicked: it is not called any more.
    has_panicked: AtomicBool,
    bytes: AtomicU64,
    bytes_in_all: u64,
    began: Instant,
    told: Mutex<Instant>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(callback: Option<&'a ProgressCallback>, bytes_in_all: u64) -> Self {
        let began = Instant::now();
        Self {
            callback,
            has_panicked: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            bytes_in_all,
            began,
            told: Mutex::new(began),
        }
    }

    /// So many more bytes were replayed.
    pub(super) fn advance(&self, bytes: u64) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let now = before + bytes;
        if now / STRIDE == before / STRIDE {
            return;
        }
        // Who comes while another tells goes on: nobody waits for this lock. What is told rises.
        if let Some(mut told) = self.told.try_lock()
            && told.elapsed() >= INTERVAL
        {
            *told = Instant::now();
            let now = self.bytes.load(Ordering::Relaxed);
            self.tell(now, self.bytes_in_all.max(now));
        }
    }

    /// All is replayed: `bytes`.
    pub(super) fn finish(&self, bytes: u64) {
        if bytes > 0 {
            self.tell(bytes, bytes);
        }
    }

    fn tell(&self, bytes: u64, bytes_in_all: u64) {
        let progress = RecoveryProgress { bytes, bytes_in_all, elapsed: self.began.elapsed() };
        tracing::debug!(?progress, "replaying the log");
        let Some(callback) = self.callback else { return };
        if self.has_panicked.load(Ordering::Relaxed) {
            return;
        }
        // It may take as long as it likes, and opening waits for it.
        if catch_unwind(AssertUnwindSafe(|| (callback.0)(progress))).is_err() {
            self.has_panicked.store(true, Ordering::Relaxed);
            tracing::warn!("the callback for the progress of a recovery panicked; it is not called any more");
        }
    }
}
