//! A shared pointer that readers follow without counting and writers replace.
//!
//! Invariants:
//! 1. The cell owns one count of the value that it points to.
//! 2. A replaced value loses the cell's count only after every epoch guard that lived at the replacement is
//!    gone, so a reference taken under a guard stays good for the guard's life.
//!
//! The rejected alternative, a lock around an `Arc`, makes every point read write to a shared counter.

use super::atomic::{AtomicPtr, Ordering};
use super::epoch::{self, Guard};
use super::{Arc, Mutex};

pub(crate) struct ArcCell<T: Send + Sync + 'static> {
    pointer: AtomicPtr<T>,
    /// Writers take turns, so that none undoes another's change.
    writers: Mutex<()>,
}

impl<T: Send + Sync + 'static> ArcCell<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        Self { pointer: AtomicPtr::new(Arc::into_raw(value).cast_mut()), writers: Mutex::new(()) }
    }

    /// The present value, for as long as `guard` lives.
    #[inline]
    pub(crate) fn load<'g>(&self, _guard: &'g Guard) -> &'g T {
        // SAFETY: the pointer came from `Arc::into_raw` and the cell's count is given up only after the guard
        // is gone (invariants 1 and 2).
        unsafe { &*self.pointer.load(Ordering::Acquire) }
    }

    /// The present value, counted.
    pub(crate) fn load_full(&self) -> Arc<T> {
        let _guard = epoch::pin();
        let pointer = self.pointer.load(Ordering::Acquire).cast_const();
        // SAFETY: as in `load`, the value has at least the cell's count while the guard lives; the new count
        // is handed out.
        unsafe {
            Arc::increment_strong_count(pointer);
            Arc::from_raw(pointer)
        }
    }

    /// Whether `value` is the present one.
    #[inline]
    pub(crate) fn is_current(&self, value: &Arc<T>) -> bool {
        std::ptr::eq(self.pointer.load(Ordering::Acquire), Arc::as_ptr(value))
    }

    /// Replaces the value by what `change` makes of it. Writers wait for each other, readers never.
    pub(crate) fn update<R>(&self, change: impl FnOnce(&T) -> (T, R)) -> R {
        let turn = self.writers.lock();
        let guard = epoch::pin();
        let (value, result) = change(self.load(&guard));
        let old = self.swap(Arc::new(value));
        drop(turn);
        epoch::defer(&guard, move || drop(old));
        result
    }

    /// Replaces the value, whatever it is.
    pub(crate) fn replace(&self, value: Arc<T>) {
        let _turn = self.writers.lock();
        let guard = epoch::pin();
        let old = self.swap(value);
        epoch::defer(&guard, move || drop(old));
    }

    fn swap(&self, value: Arc<T>) -> Counted<T> {
        Counted(self.pointer.swap(Arc::into_raw(value).cast_mut(), Ordering::AcqRel))
    }
}

/// The cell's count of a value that it no longer points to.
struct Counted<T>(*mut T);

// SAFETY: it stands for an `Arc<T>`, which may be sent when `T` is `Send + Sync`.
unsafe impl<T: Send + Sync> Send for Counted<T> {}

impl<T> Drop for Counted<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `Arc::into_raw`, and this is the one place that gives the cell's
        // count up.
        drop(unsafe { Arc::from_raw(self.0.cast_const()) });
    }
}

impl<T: Send + Sync + 'static> Drop for ArcCell<T> {
    fn drop(&mut self) {
        drop(Counted(self.pointer.load(Ordering::Acquire)));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_update_replaces_what_readers_load_and_leaves_what_they_hold() {
        let cell = ArcCell::new(Arc::new(1));
        let held = cell.load_full();
        assert_eq!(cell.update(|old| (old + 1, *old)), 1);
        assert_eq!((*held, *cell.load_full()), (1, 2));
        assert!(!cell.is_current(&held));
    }

    #[test]
    fn concurrent_updates_are_all_applied() {
        let cell = ArcCell::new(Arc::new(0u64));
        let rounds = if cfg!(miri) { 20 } else { 1000 };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        cell.update(|old| (old + 1, ()));
                        let guard = epoch::pin();
                        assert!(*cell.load(&guard) > 0);
                    }
                });
            }
        });
        assert_eq!(*cell.load_full(), 4 * rounds);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::atomic::AtomicBool;
    use loom::thread;

    /// Notes that it is gone in a flag that outlives it.
    struct Noting(Arc<AtomicBool>);

    impl Drop for Noting {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn loom_a_value_read_under_a_guard_is_not_dropped() {
        loom::model(|| {
            let first_gone = Arc::new(AtomicBool::new(false));
            let cell = Arc::new(ArcCell::new(Arc::new(Noting(Arc::clone(&first_gone)))));
            let writer = Arc::clone(&cell);
            let thread = thread::spawn(move || {
                writer.update(|_| (Noting(Arc::new(AtomicBool::new(false))), ()));
            });
            {
                let guard = epoch::pin();
                let value = cell.load(&guard);
                assert!(!value.0.load(Ordering::SeqCst), "a reader saw a value that was given back");
            }
            thread.join().unwrap();
        });
    }

    #[test]
    fn loom_a_counted_value_outlives_its_replacement() {
        loom::model(|| {
            let first_gone = Arc::new(AtomicBool::new(false));
            let cell = Arc::new(ArcCell::new(Arc::new(Noting(Arc::clone(&first_gone)))));
            let writer = Arc::clone(&cell);
            let thread = thread::spawn(move || {
                writer.update(|_| (Noting(Arc::new(AtomicBool::new(false))), ()));
            });
            let held = cell.load_full();
            thread.join().unwrap();
            assert!(!held.0.load(Ordering::SeqCst));
        });
    }
}
