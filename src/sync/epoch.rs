//! Epoch-based reclamation (crossbeam-epoch): memory that lock-free readers may still look at is given back
//! only after every reader that could have seen it has left.
//!
//! Source: K. Fraser, "Practical lock-freedom", 2004, chapter 5.

/// While a guard lives, nothing that was reachable when it was made is given back.
#[cfg(not(any(loom, shuttle)))]
pub(crate) use crossbeam_epoch::Guard;

/// Enters an epoch. Costs a thread-local look-up and a fence; touches nothing that threads share.
#[cfg(not(any(loom, shuttle)))]
#[inline]
pub(crate) fn pin() -> Guard {
    crossbeam_epoch::pin()
}

#[cfg(not(any(loom, shuttle)))]
std::thread_local! {
    /// Whether this thread runs what was deferred.
    static RECLAIMING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs `reclaim` after every guard that lives now is gone.
#[cfg(not(any(loom, shuttle)))]
pub(crate) fn defer(guard: &Guard, reclaim: impl FnOnce() + Send + 'static) {
    guard.defer(move || {
        let outer = RECLAIMING.replace(true);
        reclaim();
        RECLAIMING.set(outer);
    });
    // What is reclaimed may defer more. Were that reclaimed at once, one would stand on the stack of the other.
    if !RECLAIMING.get() {
        guard.flush();
    }
}

/// Helps to run what was deferred and is due, for threads that seldom enter an epoch.
#[cfg(not(any(loom, shuttle)))]
pub(crate) fn collect() {
    for _ in 0..4 {
        pin().flush();
    }
}

#[cfg(loom)]
pub(crate) fn collect() {}

#[cfg(shuttle)]
pub(crate) use super::scheduled::epoch::{Guard, collect, defer, pin};

#[cfg(loom)]
pub(crate) use model::{Guard, defer, pin};

/// A stand-in with the same promise: what is deferred runs once no guard lives.
#[cfg(loom)]
mod model {
    use loom::lazy_static;
    use loom::sync::Mutex;

    type Deferred = Box<dyn FnOnce() + Send>;

    #[derive(Default)]
    struct Epochs {
        guards: usize,
        deferred: Vec<Deferred>,
    }

    lazy_static! {
        static ref EPOCHS: Mutex<Epochs> = Mutex::new(Epochs::default());
    }

    pub(crate) struct Guard(());

    pub(crate) fn pin() -> Guard {
        EPOCHS.lock().unwrap().guards += 1;
        Guard(())
    }

    pub(crate) fn defer(_guard: &Guard, reclaim: impl FnOnce() + Send + 'static) {
        EPOCHS.lock().unwrap().deferred.push(Box::new(reclaim));
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            let due = {
                let mut epochs = EPOCHS.lock().unwrap();
                epochs.guards -= 1;
                if epochs.guards == 0 { std::mem::take(&mut epochs.deferred) } else { Vec::new() }
            };
            for reclaim in due {
                reclaim();
            }
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn what_is_reclaimed_may_defer_more_without_end() {
        static LEFT: AtomicUsize = AtomicUsize::new(if cfg!(miri) { 100 } else { 100_000 });
        fn defer_next() {
            // On the stack of whoever reclaims, if one stood on the other.
            let frame = std::hint::black_box([0u8; 256]);
            if LEFT.fetch_sub(1, Ordering::Relaxed) > 1 {
                defer(&pin(), defer_next);
            }
            std::hint::black_box(frame);
        }
        defer(&pin(), defer_next);
        while LEFT.load(Ordering::Relaxed) > 0 {
            collect();
        }
    }
}
