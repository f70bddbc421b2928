//! What stands behind the seam under `--cfg shuttle`: one thread at a time, the next of them chosen by a
//! scheduler at every operation that synchronises, so that a whole database runs in a schedule that can be
//! repeated.
//!
//! Memory is sequentially consistent here; what weaker orderings allow is for loom, protocol by protocol.

pub(crate) mod atomic;
pub(super) mod clock;
pub(super) mod epoch;
pub(super) mod lock;
pub(crate) mod thread;

pub(crate) use clock::Instant;

/// Lets the scheduler go on with another thread. Says nothing about this one: it need not wait for anything.
fn switch() {
    use shuttle::sync::atomic::{AtomicBool, Ordering};

    thread_local! {
        /// Shuttle's own atomics switch; this one does nothing else. One for each thread of the system: it is
        /// not made for executions that run side by side.
        static ANY: AtomicBool = const { AtomicBool::new(false) };
    }
    ANY.with(|any| any.load(Ordering::SeqCst));
}
