//! Atomics that let the scheduler in before every operation.
//!
//! They are the ones of `std` inside, so that memory has the layout that it has in production: zeroed words
//! are valid, leaves fill whole cache lines. Shuttle's own are larger than what they hold.

pub(crate) use std::sync::atomic::{Ordering, fence};

use super::switch;

macro_rules! atomic {
    ($name:ident, [$($generic:ident)?], $value:ty) => {
        #[derive(Debug)]
        #[repr(transparent)]
        pub(crate) struct $name $(<$generic>)? (std::sync::atomic::$name $(<$generic>)?);

        #[allow(dead_code, reason = "all atomics offer the same, whatever is used of each")]
        impl $(<$generic>)? $name $(<$generic>)? {
            pub(crate) const fn new(value: $value) -> Self {
                Self(std::sync::atomic::$name::new(value))
            }

            pub(crate) fn load(&self, order: Ordering) -> $value {
                switch();
                self.0.load(order)
            }

            pub(crate) fn store(&self, value: $value, order: Ordering) {
                switch();
                self.0.store(value, order);
            }

            pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                switch();
                self.0.swap(value, order)
            }

            pub(crate) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                switch();
                self.0.compare_exchange(current, new, success, failure)
            }

            pub(crate) fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                switch();
                self.0.compare_exchange_weak(current, new, success, failure)
            }

            pub(crate) fn get_mut(&mut self) -> &mut $value {
                self.0.get_mut()
            }

            pub(crate) fn into_inner(self) -> $value {
                self.0.into_inner()
            }
        }
    };
}

macro_rules! counter {
    ($name:ident, $value:ty) => {
        atomic!($name, [], $value);

        #[allow(dead_code, reason = "all counters offer the same, whatever is used of each")]
        impl $name {
            pub(crate) fn fetch_add(&self, amount: $value, order: Ordering) -> $value {
                switch();
                self.0.fetch_add(amount, order)
            }

            pub(crate) fn fetch_sub(&self, amount: $value, order: Ordering) -> $value {
                switch();
                self.0.fetch_sub(amount, order)
            }

            pub(crate) fn fetch_max(&self, value: $value, order: Ordering) -> $value {
                switch();
                self.0.fetch_max(value, order)
            }

            pub(crate) fn fetch_update(
                &self,
                success: Ordering,
                failure: Ordering,
                change: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                switch();
                self.0.fetch_update(success, failure, change)
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new(0)
            }
        }
    };
}

counter!(AtomicU8, u8);
counter!(AtomicU32, u32);
counter!(AtomicU64, u64);
counter!(AtomicUsize, usize);
atomic!(AtomicBool, [], bool);

impl Default for AtomicBool {
    fn default() -> Self {
        Self::new(false)
    }
}

atomic!(AtomicPtr, [T], *mut T);
