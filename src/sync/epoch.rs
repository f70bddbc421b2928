//! Epoch-based reclamation (crossbeam-epoch): memory that lock-free readers may still look at is given back
//! only after every reader that could have seen it has left.
//!
//! Invariants:
//! 1. The collector is the engine's own: guards that other code of the process takes hold nothing back here.
//! 2. No guard lives across I/O, a wait, or code of users: one that did would hold back all that every
//!    database of the process lets go of. Whoever reads a page from the disk gives its guard up before, and
//!    holds what it needs by counts. [`assert_left`] stands where the engine does I/O, waits or calls users.
//! 3. What was deferred is in the collector's queue, which every thread helps to empty, as soon as the call
//!    that deferred it returns; nothing stays with a thread that may never come by again. So [`drain`] finds
//!    all of it.
//! 4. Nothing is reclaimed inside of another reclamation: what is reclaimed may defer more, and would stand
//!    on the stack of it.
//! 5. Every process has a collector of its own: in that of its parent a child that was forked would wait for
//!    ever for threads that it does not have, and would reclaim what belongs to its parent's databases.
//!
//! Source: K. Fraser, "Practical lock-freedom", 2004, chapter 5.

/// While a guard lives, nothing that was reachable when it was made is given back.
#[cfg(not(any(loom, shuttle)))]
pub(crate) use crossbeam_epoch::Guard;

#[cfg(not(any(loom, shuttle)))]
pub(crate) use own::{assert_left, collect, defer, drain, pin};

#[cfg(not(any(loom, shuttle)))]
mod own {
    use std::cell::{Cell, OnceCell, RefCell};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, OnceLock};
    use std::time::Duration;

    use crossbeam_epoch::{Collector, Guard, LocalHandle};

    use crate::system::{Inherited, Process};

    type Reclaim = Box<dyn FnOnce() + Send>;

    /// Those of the first process.
    static FIRST: OnceLock<Epochs> = OnceLock::new();

    std::thread_local! {
        static PARTICIPANT: Participant = Participant::new();

        /// Whether this thread runs what was deferred. Apart from the participant, since it is asked while a
        /// thread ends, too.
        static RECLAIMING: Cell<bool> = const { Cell::new(false) };
    }

    /// The collector of a process.
    struct Epochs {
        process: Process,
        collector: Collector,
        /// Deferrals that did not run yet, or not to their end.
        pending: AtomicUsize,
        /// Of a child that was forked from the process, as that child sees it.
        in_child: OnceLock<Box<Epochs>>,
    }

    impl Epochs {
        fn new() -> Self {
            Self {
                process: Process::this(),
                collector: Collector::new(),
                pending: AtomicUsize::new(0),
                in_child: OnceLock::new(),
            }
        }

        /// Those of this process.
        fn here() -> &'static Self {
            let mut epochs = FIRST.get_or_init(Self::new);
            while !epochs.process.is_this() {
                epochs = epochs.in_child.get_or_init(|| Box::new(Self::new()));
            }
            epochs
        }

        fn give(&'static self, guard: &Guard, reclaim: Reclaim) {
            guard.defer(move || {
                let _reclaiming = Reclaiming::begin(&self.pending);
                reclaim();
            });
        }
    }

    /// What was deferred runs on this thread, until this is dropped: also if it panics.
    struct Reclaiming {
        /// Whether it ran inside of another.
        outer: bool,
        pending: &'static AtomicUsize,
    }

    impl Reclaiming {
        fn begin(pending: &'static AtomicUsize) -> Self {
            let outer = RECLAIMING.try_with(|reclaiming| reclaiming.replace(true)).unwrap_or(false);
            Self { outer, pending }
        }
    }

    impl Drop for Reclaiming {
        fn drop(&mut self) {
            let _ = RECLAIMING.try_with(|reclaiming| reclaiming.set(self.outer));
            self.pending.fetch_sub(1, Ordering::Release);
        }
    }

    /// A thread as the collector of its process knows it.
    struct Participant {
        epochs: &'static Epochs,
        handle: Inherited<LocalHandle>,
        /// What was deferred while this thread reclaimed: it goes to the collector once that is over.
        later: RefCell<Vec<Reclaim>>,
        has_later: Cell<bool>,
        /// The same thread in a child that it forked.
        in_child: OnceCell<Box<Participant>>,
    }

    impl Participant {
        fn new() -> Self {
            let epochs = Epochs::here();
            Self {
                epochs,
                handle: Inherited::new(epochs.collector.register()),
                later: RefCell::default(),
                has_later: Cell::new(false),
                in_child: OnceCell::new(),
            }
        }

        /// This thread in this process.
        #[inline]
        fn here(&self) -> &Self {
            if self.epochs.process.is_this() { self } else { self.in_child() }
        }

        #[cold]
        fn in_child(&self) -> &Self {
            self.in_child.get_or_init(|| Box::new(Self::new())).here()
        }

        #[cold]
        fn hand_over(&self, guard: &Guard) {
            // Whoever reclaims on this thread does it at the end.
            while self.has_later.get() && !is_reclaiming() {
                self.has_later.set(false);
                self.later.take().into_iter().for_each(|reclaim| self.epochs.give(guard, reclaim));
                guard.flush();
            }
        }
    }

    /// What `ask` says of this thread; `None` once the thread, which ends, has given its participant up.
    #[inline]
    fn with_participant<T>(ask: impl FnOnce(&Participant) -> T) -> Option<T> {
        PARTICIPANT.try_with(|participant| ask(participant.here())).ok()
    }

    /// Enters an epoch. Costs a thread-local look-up and a fence; touches nothing that threads share.
    #[inline]
    pub(crate) fn pin() -> Guard {
        let entered = with_participant(|participant| {
            // Now and then this reclaims something.
            let guard = participant.handle.pin();
            if participant.has_later.get() {
                participant.hand_over(&guard);
            }
            guard
        });
        entered.unwrap_or_else(|| Epochs::here().collector.register().pin())
    }

    /// Whether this thread runs what was deferred; a thread that has given up even what says so is taken not
    /// to.
    fn is_reclaiming() -> bool {
        RECLAIMING.try_with(Cell::get).unwrap_or(false)
    }

    /// Runs `reclaim` after every guard that lives now is gone.
    pub(crate) fn defer(guard: &Guard, reclaim: impl FnOnce() + Send + 'static) {
        let epochs = Epochs::here();
        epochs.pending.fetch_add(1, Ordering::Relaxed);
        let reclaim: Reclaim = Box::new(reclaim);
        if !is_reclaiming() {
            epochs.give(guard, reclaim);
            flush(guard);
            return;
        }
        let mut reclaim = Some(reclaim);
        with_participant(|participant| {
            participant.later.borrow_mut().extend(reclaim.take());
            participant.has_later.set(true);
        });
        // A thread that ends hands over what it has when its participant goes.
        reclaim.into_iter().for_each(|reclaim| epochs.give(guard, reclaim));
    }

    /// Hands over what is with this thread, and runs some of what is due.
    fn flush(guard: &Guard) {
        guard.flush();
        with_participant(|participant| participant.hand_over(guard));
    }

    /// Helps to run what was deferred and is due, for threads that seldom enter an epoch.
    pub(crate) fn collect() {
        for _ in 0..4 {
            flush(&pin());
        }
    }

    /// How often what was reclaimed may have deferred more of itself, and a bound where other databases defer
    /// without end.
    const ROUNDS: usize = 8;

    /// The longest wait for guards that live, in milliseconds. They live for microseconds, unless their
    /// thread is kept from running.
    const LONGEST_WAIT: usize = 1000;

    /// Runs what was deferred before, and what that deferred in its turn, for one who lets go of much and
    /// will not come by again. Waits for the guards that live now, though not for ever: what is left then
    /// runs when any thread enters an epoch.
    pub(crate) fn drain() {
        assert_left();
        if is_pinned() {
            return;
        }
        for _ in 0..ROUNDS {
            let passed = Arc::new(AtomicBool::new(false));
            let marker = Arc::clone(&passed);
            defer(&pin(), move || marker.store(true, Ordering::Release));
            for waited in 0.. {
                collect();
                if passed.load(Ordering::Acquire) {
                    break;
                }
                if waited == LONGEST_WAIT {
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            if Epochs::here().pending.load(Ordering::Acquire) == 0 {
                return;
            }
            // Another thread may be at it.
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Panics in a debug build if this thread is in an epoch.
    #[inline]
    pub(crate) fn assert_left() {
        debug_assert!(!is_pinned(), "a thread that is in an epoch does I/O, waits, or calls a user");
    }

    fn is_pinned() -> bool {
        with_participant(|participant| participant.handle.is_pinned()).unwrap_or(false)
    }
}

#[cfg(loom)]
pub(crate) fn drain() {}

#[cfg(any(loom, shuttle))]
pub(crate) fn assert_left() {}

#[cfg(loom)]
pub(crate) fn collect() {}

#[cfg(shuttle)]
pub(crate) use super::scheduled::epoch::{Guard, collect, collect as drain, defer, pin};

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

    fn held() -> (std::sync::Arc<()>, std::sync::Weak<()>) {
        let held = std::sync::Arc::new(());
        let weak = std::sync::Arc::downgrade(&held);
        (held, weak)
    }

    #[test]
    fn a_guard_of_a_stranger_holds_nothing_back() {
        let _stranger = crossbeam_epoch::pin();
        let (held, weak) = held();
        defer(&pin(), move || drop(held));
        drain();
        assert!(weak.upgrade().is_none());
    }

    #[cfg(all(unix, not(miri)))]
    #[test]
    fn a_child_reclaims_although_a_thread_of_its_parent_was_in_an_epoch() {
        let (entered, is_entered) = std::sync::mpsc::channel();
        let (leave, may_leave) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let _guard = pin();
            entered.send(()).unwrap();
            may_leave.recv().unwrap_err();
        });
        is_entered.recv().unwrap();
        drop(pin());
        // SAFETY: the child does what follows, which never panics, and ends; the C library makes its
        // allocator usable in it.
        let status = unsafe {
            match libc::fork() {
                0 => {
                    let (held, weak) = held();
                    defer(&pin(), move || drop(held));
                    drain();
                    libc::_exit(i32::from(weak.upgrade().is_none()))
                }
                child => {
                    drop(leave);
                    let mut status = 0;
                    assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
                    status
                }
            }
        };
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 1, "status {status}");
        thread.join().unwrap();
    }

    #[test]
    fn draining_runs_what_threads_deferred_that_never_come_by_again() {
        let (held, weak) = held();
        let (deferred, is_deferred) = std::sync::mpsc::channel::<()>();
        let (end, is_over) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            // Whoever reclaims the first has the second deferred.
            defer(&pin(), move || defer(&pin(), move || drop(held)));
            deferred.send(()).unwrap();
            is_over.recv().unwrap_err();
        });
        is_deferred.recv().unwrap();
        drain();
        assert!(weak.upgrade().is_none());
        drop(end);
        thread.join().unwrap();
    }

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
