//! Ranges of keys, as callers write them.

use std::ops::Bound::{self, Excluded, Included, Unbounded};
use std::ops::{Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// A range of keys: `from..to`, `from..=to`, `from..`, `..to`, `..=to` and `..`, or a pair of [`Bound`]s,
/// over anything that is bytes: arrays, slices, vectors, strings and references to them, without naming a
/// type.
///
/// A range whose end lies before its start holds no key.
///
/// ```
/// # fn main() -> peristyle::Result<()> {
/// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
/// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
/// # let cf = db.create_column_family("heights", FamilyOptions::default())?;
/// use std::ops::Bound::{Excluded, Unbounded};
///
/// for height in 0..100u64 {
///     cf.put(height.to_be_bytes(), "block")?;
/// }
/// assert_eq!(cf.range(10u64.to_be_bytes()..20u64.to_be_bytes())?.count(), 10);
/// assert_eq!(cf.range((Excluded(10u64.to_be_bytes()), Unbounded))?.count(), 89);
/// assert_eq!(cf.range([0, 0]..=[0, 1])?.count(), 100);
/// assert_eq!(cf.range(b"\x00"..b"\xff")?.count(), 100);
/// assert_eq!(cf.range(..)?.count(), 100);
/// # Ok(()) }
/// ```
pub trait KeyBounds: sealed::Bounds {}

mod sealed {
    use super::Bound;

    /// What the range is; not for callers, so that ranges of other kinds can come.
    pub trait Bounds {
        #[doc(hidden)]
        fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>);
    }
}
pub(crate) use sealed::Bounds;

// Each kind of range has one implementation, over all kinds of bytes: with `RangeBounds`, which has several
// for ranges of references, a caller has to say which type is meant.
macro_rules! bounds {
    ($($range:ty),*) => {$(
        impl<K: AsRef<[u8]>> KeyBounds for $range {}

        impl<K: AsRef<[u8]>> Bounds for $range {
            fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
                (RangeBounds::<K>::start_bound(self).map(K::as_ref), RangeBounds::<K>::end_bound(self).map(K::as_ref))
            }
        }
    )*};
}

bounds!(Range<K>, RangeInclusive<K>, RangeFrom<K>, RangeTo<K>, RangeToInclusive<K>, (Bound<K>, Bound<K>));

impl KeyBounds for RangeFull {}

impl Bounds for RangeFull {
    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (Unbounded, Unbounded)
    }
}

/// `range` as a start that belongs to it and an end that does not; `None` for no end.
pub(crate) fn half_open(range: &impl KeyBounds) -> (Vec<u8>, Option<Vec<u8>>) {
    let after = |key: &[u8]| [key, &[0]].concat();
    let (start, end) = range.bounds();
    let start = match start {
        Included(key) => key.to_vec(),
        Excluded(key) => after(key),
        Unbounded => Vec::new(),
    };
    let end = match end {
        Included(key) => Some(after(key)),
        Excluded(key) => Some(key.to_vec()),
        Unbounded => None,
    };
    (start, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_every_kind_of_bytes_need_no_type_to_be_named() {
        let half = |start: &[u8], end: Option<&[u8]>| (start.to_vec(), end.map(<[u8]>::to_vec));
        let one = half(b"\x01\x02", Some(b"\x03\x04"));
        assert_eq!(half_open(&([1, 2]..[3, 4])), one);
        assert_eq!(half_open(&(&[1, 2]..&[3, 4])), one);
        assert_eq!(half_open(&(b"\x01\x02"..b"\x03\x04")), one);
        assert_eq!(half_open(&(&b"\x01\x02"[..]..&b"\x03\x04"[..])), one);
        assert_eq!(half_open(&(vec![1, 2]..vec![3, 4])), one);
        assert_eq!(half_open(&(&vec![1, 2]..&vec![3, 4])), one);
        assert_eq!(half_open(&(&"\x01\x02".to_string()..&"\x03\x04".to_string())), one);
        assert_eq!(half_open(&("a".."b")), half(b"a", Some(b"b")));
        assert_eq!(half_open(&(7u64.to_be_bytes()..)), half(&7u64.to_be_bytes(), None));
        assert_eq!(half_open(&(..=[7])), half(b"", Some(b"\x07\x00")));
        assert_eq!(half_open(&(..[7])), half(b"", Some(b"\x07")));
        assert_eq!(half_open(&([7]..=[7])), half(b"\x07", Some(b"\x07\x00")));
        assert_eq!(half_open(&(Excluded("a"), Included("b"))), half(b"a\x00", Some(b"b\x00")));
        assert_eq!(half_open(&(Unbounded, Excluded(&[7]))), half(b"", Some(b"\x07")));
        assert_eq!(half_open(&..), half(b"", None));
    }
}
