//! Locks and condition variable without poisoning: the standard library's, or those of the checker that
//! stepped in.
//!
//! None of them keeps anything outside of itself, such as a table of waiting threads that all locks of the
//! process share: a child that was forked while threads waited inherits such a table, though not the threads,
//! and its own threads would never be woken.

#[cfg(shuttle)]
pub(crate) use super::scheduled::lock::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(not(shuttle))]
pub(crate) use plain::{Condvar, Mutex, MutexGuard, RwLock};

/// Takes a lock that is always held for well under a microsecond: whoever finds it taken spins for some of
/// them before he gives his time away, which costs more than the wait.
#[inline]
pub(crate) fn lock_spinning<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    const TURNS: usize = if cfg!(any(loom, shuttle)) { 0 } else { 30 };
    for _ in 0..TURNS {
        if let Some(guard) = mutex.try_lock() {
            return guard;
        }
        for _ in 0..4 {
            std::hint::spin_loop();
        }
    }
    mutex.lock()
}

#[cfg(not(shuttle))]
mod plain {
    #[cfg(loom)]
    use loom::sync;
    #[cfg(not(loom))]
    use std::sync;
    use std::sync::{PoisonError, TryLockError};
    use std::time::Duration;

    pub(crate) use sync::MutexGuard;

    /// A panic of who holds it leaves it usable: whoever guards something that may be left half changed says
    /// so himself.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        #[inline]
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        #[inline]
        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            match self.0.try_lock() {
                Ok(guard) => Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            }
        }

        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn into_inner(self) -> T {
            self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Self::new(T::default())
        }
    }

    /// Condition variable over [`Mutex`].
    #[derive(Debug)]
    pub(crate) struct Condvar(sync::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(sync::Condvar::new())
        }

        pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            crate::sync::epoch::assert_left();
            self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
        }

        /// Waits no longer than `timeout`; the caller looks again at what it waits for.
        pub(crate) fn wait_for<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            timeout: Duration,
        ) -> MutexGuard<'a, T> {
            // The model checker knows no time.
            if cfg!(loom) {
                return self.wait(guard);
            }
            crate::sync::epoch::assert_left();
            self.0.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner).0
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    impl Default for Condvar {
        fn default() -> Self {
            Self::new()
        }
    }

    /// Without a model: what it guards is in none of those that are explored.
    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(std::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(std::sync::RwLock::new(value))
        }

        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn read(&self) -> std::sync::RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn write(&self) -> std::sync::RwLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
