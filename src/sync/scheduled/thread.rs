//! Threads of an execution.

use std::time::Duration;

pub(crate) use shuttle::thread::{Builder, JoinHandle, ThreadId, current, scope, yield_now};

/// Lets all others go on; time passes at once.
pub(crate) fn sleep(time: Duration) {
    super::clock::pass(time);
    shuttle::thread::yield_now();
}
