//! A key or a range of keys.

use crate::codec::key;
use crate::txn::operation::Operation;

/// A key, or those from one up to and without another; `None`: there is no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys<'a> {
    One(&'a [u8]),
    Range(&'a [u8], Option<&'a [u8]>),
}

impl<'a> Keys<'a> {
    /// What `operation` writes.
    pub(crate) fn of(operation: &Operation<'a>) -> Self {
        match *operation {
            Operation::Put { key, .. }
            | Operation::PutExpiring { key, .. }
            | Operation::Merge { key, .. }
            | Operation::MergeExpiring { key, .. }
            | Operation::Delete { key } => Self::One(key),
            Operation::DeleteRange { start, end } => Self::Range(start, end),
        }
    }

    /// A start that belongs to it and an end that does not; of a key it is the key and a zero byte.
    pub(crate) fn bounds(self) -> (Vec<u8>, Option<Vec<u8>>) {
        match self {
            Self::One(key) => (key.to_vec(), Some([key, &[0]].concat())),
            Self::Range(start, end) => (start.to_vec(), end.map(<[u8]>::to_vec)),
        }
    }

    /// The first key, or what none lies before.
    pub(crate) fn start(self) -> &'a [u8] {
        match self {
            Self::One(key) | Self::Range(key, _) => key,
        }
    }

    /// Whether all keys lie below `key`.
    pub(crate) fn is_below(self, key: &[u8]) -> bool {
        match self {
            Self::One(own) => key::compare(own, key).is_lt(),
            Self::Range(_, end) => end.is_some_and(|end| key::compare(end, key).is_le()),
        }
    }

    /// Whether some key belongs to both.
    pub(crate) fn overlaps(self, other: Keys<'_>) -> bool {
        !self.is_below(other.start()) && !other.is_below(self.start())
    }

    /// Whether all keys of `other` belong to this.
    pub(crate) fn contains(self, other: Keys<'_>) -> bool {
        match (self, other) {
            (Self::One(own), Keys::One(key)) => own == key,
            (Self::One(_), Keys::Range(..)) => false,
            (Self::Range(..), Keys::One(_)) => self.overlaps(other),
            (Self::Range(start, end), Keys::Range(low, high)) => {
                let reaches = match (end, high) {
                    (Some(end), Some(high)) => key::compare(end, high).is_ge(),
                    (end, _) => end.is_none(),
                };
                key::compare(start, low).is_le() && reaches
            }
        }
    }
}
