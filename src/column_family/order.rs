//! The order of keys of a family that has one of its own.

use std::ops::Bound;
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::key_order::KeyOrder;
use crate::sync::epoch;

/// The order of a family that has one of its own.
pub(crate) struct FamilyOrder {
    /// As the family was created, or as the catalog says.
    own: KeyOrder,
    /// As the program gave it later.
    given: OnceLock<KeyOrder>,
}

impl FamilyOrder {
    pub(super) fn new(own: KeyOrder) -> Self {
        Self { own, given: OnceLock::new() }
    }

    /// Takes the order from the program, if that was missing.
    pub(super) fn take(&self, given: &KeyOrder) {
        if !self.own.is_present() && given.is_present() && self.own == *given {
            // Of two that have one name the first counts.
            let _ = self.given.set(given.clone());
        }
    }

    fn order(&self) -> &KeyOrder {
        self.given.get().unwrap_or(&self.own)
    }

    /// Fails if the program has not given it.
    pub(crate) fn check_present(&self) -> Result<()> {
        if self.order().is_present() { Ok(()) } else { Err(Error::key_order_missing(self.own.name())) }
    }

    /// The key that is stored for `key`.
    pub(super) fn stored(&self, key: &[u8]) -> Result<Vec<u8>> {
        // What it does is up to users.
        epoch::assert_left();
        self.order().stored(key)
    }

    pub(super) fn stored_bound(&self, bound: Bound<&[u8]>) -> Result<Bound<Vec<u8>>> {
        Ok(match bound {
            Bound::Included(key) => Bound::Included(self.stored(key)?),
            Bound::Excluded(key) => Bound::Excluded(self.stored(key)?),
            Bound::Unbounded => Bound::Unbounded,
        })
    }

    /// What the keys that are stored for those that begin with `prefix` begin with.
    pub(super) fn stored_prefix(&self, prefix: &[u8]) -> Result<Vec<u8>> {
        self.order().stored_prefix(prefix)
    }

    /// Writes the key that is stored as `stored` to `key`.
    pub(crate) fn restore(&self, stored: &[u8], key: &mut Vec<u8>) -> Result<()> {
        if self.own.restore(stored, key) {
            return Ok(());
        }
        key.clear();
        let order = self.own.name();
        Err(Error::corruption(format!("a key does not stand there as the order {order:?} stores keys")))
    }

    /// What is shown of a stored key, or of a bound of such.
    pub(super) fn shown(&self, stored: &[u8]) -> Vec<u8> {
        self.own.shown(stored)
    }
}
