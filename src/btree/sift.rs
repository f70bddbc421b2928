//! Entries of a tree that are left out or changed as their leaves are written anew.

use crate::codec::expiry::Expiry;
use crate::error::Result;

/// What is to become of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Keep,
    Drop,
    /// It gets this value.
    Change(Vec<u8>),
}

/// Says of entries that are written anew what is to become of them.
pub(crate) trait Sift {
    /// `value` reads the value, of `len` bytes, if that stands elsewhere than in the leaf. It expires at
    /// `expiry`; 0 if it does not.
    fn sift<'v>(
        &self,
        key: &[u8],
        expiry: Expiry,
        len: usize,
        value: &'v dyn Fn() -> Result<&'v [u8]>,
    ) -> Verdict;
}
