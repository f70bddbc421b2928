//! Keys that an error is about.

use std::fmt;

use crate::codec::ids::FamilyId;

/// What a transaction relied on, and another commit changed: see [`Error::conflict`](crate::Error::conflict).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conflict {
    /// Number of the column family.
    pub family: FamilyId,
    /// The key, or the lowest key of the range.
    pub start: Vec<u8>,
    /// The key behind the last one of the range; for a single key, the key and a zero byte. `None`: the range
    /// has no end.
    pub end: Option<Vec<u8>>,
}

impl Conflict {
    /// Whether it is about one key, not about a range.
    pub fn is_key(&self) -> bool {
        self.end.as_deref().is_some_and(|end| end.strip_suffix(&[0]) == Some(&self.start))
    }
}

/// At most this many bytes of a key are printed.
const PRINTED: usize = 48;

/// A key, or the beginning of a long one.
pub(super) struct Brief<'k>(pub(super) &'k [u8]);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(PRINTED)];
        let more = if shown.len() < self.0.len() { "..." } else { "" };
        write!(f, "\"{}\"{more}", shown.escape_ascii())
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = Brief(&self.start);
        match &self.end {
            _ if self.is_key() => write!(f, "the key {start}"),
            Some(end) => write!(f, "the range of keys from {start} up to {}", Brief(end)),
            None => write!(f, "the range of keys from {start} on"),
        }
    }
}
