//! A range of keys, as cursors stop at it.

use std::cmp::Ordering;

use super::key;

/// The keys from `start` on, up to and without `end`.
#[derive(Debug)]
pub(crate) struct KeyRange {
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    start_head: u64,
    end_head: u64,
}

impl KeyRange {
    /// The range from `start` up to and without `end`; without an end, all from `start` on.
    pub(crate) fn new(start: Vec<u8>, end: Option<Vec<u8>>) -> Self {
        let (start_head, end_head) = (key::head8(&start), end.as_deref().map_or(u64::MAX, key::head8));
        Self { start, end, start_head, end_head }
    }

    pub(crate) fn start(&self) -> &[u8] {
        &self.start
    }

    pub(crate) fn end(&self) -> Option<&[u8]> {
        self.end.as_deref()
    }

    /// Whether `key` lies before the end of the range, which is all that it takes on the way up.
    #[inline]
    pub(crate) fn is_before_end(&self, key: &[u8]) -> bool {
        self.end.as_deref().is_none_or(|end| key::compare(key, end).is_lt())
    }

    /// Whether `key` lies at or behind the start of the range, which is all that it takes on the way down.
    #[inline]
    pub(crate) fn is_behind_start(&self, key: &[u8]) -> bool {
        self.start.is_empty() || key::compare(key, &self.start).is_ge()
    }

    /// Whether a walk that came to `key` is still in the range. `way` is how keys compare with those that are
    /// met later.
    #[inline]
    pub(crate) fn goes_on_at(&self, key: &[u8], way: Ordering) -> bool {
        if way.is_lt() { self.is_before_end(key) } else { self.is_behind_start(key) }
    }

    /// The head of the key where a walk ends: one whose head comes before it lies in the range.
    #[inline]
    pub(crate) fn last_head(&self, way: Ordering) -> u64 {
        if way.is_lt() { self.end_head } else { self.start_head }
    }
}

impl Default for KeyRange {
    /// Every key.
    fn default() -> Self {
        Self::new(Vec::new(), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::sampling::config(256))]

        #[test]
        fn heads_and_sides_agree_with_the_range(start: Vec<u8>, end: Option<Vec<u8>>, key: Vec<u8>) {
            let range = KeyRange::new(start.clone(), end.clone());
            prop_assert_eq!(range.is_behind_start(&key), key >= start);
            prop_assert_eq!(range.is_before_end(&key), end.is_none_or(|end| key < end));
            for way in [Ordering::Less, Ordering::Greater] {
                if key::head8(&key).cmp(&range.last_head(way)) == way {
                    prop_assert!(range.goes_on_at(&key, way));
                }
            }
        }
    }
}
