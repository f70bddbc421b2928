//! How keys of users become the keys that a family stores, and back.
//!
//! A family in byte order, as nearly all are, stores keys as they are: nothing is copied. Whatever comes from
//! a user is turned here before anything else is done with it, and whatever is shown to one on its way out.

use std::borrow::Cow;

use crate::codec::key;
use crate::codec::key_bounds::{KeyBounds, half_open};
use crate::column_family::family::Family;
use crate::error::Result;

/// A start that belongs to a range of stored keys, and an end that does not; `None`: there is no end.
pub(crate) type StoredBounds = (Vec<u8>, Option<Vec<u8>>);

impl Family {
    /// The key that the family stores for `key`. Fails only if it has an order of its own.
    #[inline]
    pub(crate) fn stored_key<'k>(&self, key: &'k [u8]) -> Result<Cow<'k, [u8]>> {
        match self.own_order() {
            None => Ok(Cow::Borrowed(key)),
            Some(order) => order.stored(key).map(Cow::Owned).map_err(|error| error.of_family(self.id().0)),
        }
    }

    /// `range` among the keys that the family stores. Fails only if it has an order of its own.
    pub(crate) fn stored_range(&self, range: &impl KeyBounds) -> Result<StoredBounds> {
        let Some(order) = self.own_order() else { return Ok(half_open(range)) };
        let (start, end) = range.bounds();
        let bounds = order.stored_bound(start).and_then(|start| Ok((start, order.stored_bound(end)?)));
        bounds.map(|bounds| half_open(&bounds)).map_err(|error| error.of_family(self.id().0))
    }

    /// Where the family stores the keys that begin with `prefix`. Fails only if it has an order of its own.
    pub(crate) fn stored_prefix(&self, prefix: &[u8]) -> Result<StoredBounds> {
        match self.own_order() {
            None => Ok(half_open(&key::prefix_bounds(prefix))),
            Some(order) => {
                let stored = order.stored_prefix(prefix);
                let stored = stored.map_err(|error| error.of_family(self.id().0))?;
                Ok(half_open(&key::prefix_bounds(&stored)))
            }
        }
    }

    /// The key that is stored as `stored`.
    #[inline]
    pub(crate) fn user_key<'k>(&self, stored: &'k [u8]) -> Cow<'k, [u8]> {
        match self.own_order() {
            None => Cow::Borrowed(stored),
            Some(order) => Cow::Owned(order.shown(stored)),
        }
    }

    /// Bounds of stored keys as users are shown them; those of a single key are that key, and it with a zero
    /// byte.
    pub(crate) fn user_bounds(&self, (start, end): StoredBounds) -> StoredBounds {
        let Some(order) = self.own_order() else { return (start, end) };
        let shown = order.shown(&start);
        let end = end.map(|end| match end.strip_suffix(&[0]) == Some(&start) {
            true => [&shown[..], &[0]].concat(),
            false => order.shown(&end),
        });
        (shown, end)
    }
}
