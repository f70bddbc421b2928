//! What an entry of a log batch or of a memtable does to its key.

/// The kind of an entry, as log records store it. Numbers that are not named here are reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum EntryKind {
    /// The key has this value.
    Put = 1,
    /// The key is absent.
    Delete = 2,
    /// All keys from this one up to an end are absent.
    RangeDelete = 3,
    /// An operand for the merge operator of the family: the key has the value that this makes of what is
    /// older.
    Merge = 4,
    /// The key has this value until it expires: it is a stamped value, see `codec/expiry.rs`.
    PutExpiring = 5,
    /// An operand as that of a [`Merge`](Self::Merge), with its stamp: see `codec/operands.rs`.
    MergeStamped = 6,
}

impl EntryKind {
    /// The kind with this number; `None` for a number that this version does not know.
    #[inline]
    pub(crate) fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Put),
            2 => Some(Self::Delete),
            3 => Some(Self::RangeDelete),
            4 => Some(Self::Merge),
            5 => Some(Self::PutExpiring),
            6 => Some(Self::MergeStamped),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back_from_its_number_and_no_other_number_does() {
        let known = (0..=u8::MAX).filter_map(|number| EntryKind::from_u8(number).map(|kind| (number, kind)));
        let known: Vec<_> = known.collect();
        assert_eq!(known.len(), 6);
        assert!(known.iter().all(|&(number, kind)| kind as u8 == number));
    }
}
