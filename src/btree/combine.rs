//! Operands that meet what a tree says of their key.

use crate::error::Result;

/// What a tree says of a key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Old<'t> {
    Nothing,
    Deleted,
    Value(&'t [u8]),
    /// A stamped value, see `codec/expiry.rs`.
    Expiring(&'t [u8]),
    /// Operands that are not folded yet, see `codec/operands.rs`.
    Operands(&'t [u8]),
}

/// What a tree is to say of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Combined {
    /// The key has no value.
    Nothing,
    Value(Vec<u8>),
    /// A stamped value.
    Expiring(Vec<u8>),
    /// Operands that are not folded yet.
    Operands(Vec<u8>),
}

/// Makes of operands, and of what a tree says of their key, what it says afterwards.
pub(crate) trait Combine {
    /// `list` is what came with the operation. `is_last`: nothing older stands behind the tree.
    fn combine(&self, key: &[u8], list: &[u8], old: Old<'_>, is_last: bool) -> Result<Combined>;
}
