//! What nodes hold in place of something that stands elsewhere: child records and value pointers.
//!
//! | child record | size | field |
//! |---|---|---|
//! | 0 | 4 | page |
//! | 4 | 4 | length in pages (bits 0..31); bit 31: the subtree owns value runs |
//! | 8 | 4 | checksum |
//! | 12 | 4 | reserved, zero |
//! | 16 | 8 | entries in the subtree's leaves |
//!
//! | value pointer | size | field |
//! |---|---|---|
//! | 0 | 4 | page |
//! | 4 | 4 | length in pages |
//! | 8 | 4 | checksum |
//! | 12 | 4 | length of the value in bytes |
//! | 16 | 8 | its expiry, see `codec/expiry.rs`; a value that does not expire has no such field |

use crate::codec::expiry::Expiry;
use crate::codec::ids::PageId;
use crate::page::PagePointer;

pub(super) const CHILD_LEN: usize = 24;
const VALUE_POINTER_LEN: usize = 16;
const EXPIRING_POINTER_LEN: usize = VALUE_POINTER_LEN + size_of::<Expiry>();

/// Bytes of the pointer to a value that expires, or does not.
pub(super) fn value_pointer_len(expires: bool) -> usize {
    if expires { EXPIRING_POINTER_LEN } else { VALUE_POINTER_LEN }
}

/// Marks a child record whose subtree owns value runs.
const OWNS_VALUES: u32 = 1 << 31;

#[inline]
fn word_at<const LEN: usize>(bytes: &[u8; LEN], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// What a leaf holds in place of a value that stands in a run of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ValuePointer {
    pub(super) run: PagePointer,
    pub(super) len: u32,
    /// 0 if it does not expire.
    pub(super) expiry: Expiry,
}

/// The bytes of a value pointer.
pub(super) struct Encoded {
    bytes: [u8; EXPIRING_POINTER_LEN],
    len: usize,
}

impl std::ops::Deref for Encoded {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl ValuePointer {
    pub(super) fn encoded_len(&self) -> usize {
        value_pointer_len(self.expiry != 0)
    }

    pub(super) fn encode(&self) -> Encoded {
        let mut bytes = [0; EXPIRING_POINTER_LEN];
        bytes[0..4].copy_from_slice(&self.run.page.0.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.run.pages.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.run.checksum.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.len.to_le_bytes());
        bytes[16..].copy_from_slice(&self.expiry.to_le_bytes());
        Encoded { bytes, len: self.encoded_len() }
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (bytes, expiry) = bytes.split_first_chunk::<VALUE_POINTER_LEN>()?;
        let expiry = match expiry {
            [] => 0,
            // One that does not expire is written without.
            expiry => Some(Expiry::from_le_bytes(expiry.try_into().ok()?)).filter(|&expiry| expiry != 0)?,
        };
        Some(Self {
            run: PagePointer {
                page: PageId(word_at(bytes, 0)),
                pages: word_at(bytes, 4),
                checksum: word_at(bytes, 8),
            },
            len: word_at(bytes, 12),
            expiry,
        })
    }
}

/// What an inner node holds for each child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) pointer: PagePointer,
    pub(super) owns_values: bool,
    /// Entries in the subtree's leaves.
    pub(super) entries: u64,
}

impl Child {
    pub(super) fn encode(&self) -> [u8; CHILD_LEN] {
        assert_eq!(self.pointer.pages & OWNS_VALUES, 0, "a node of {} pages", self.pointer.pages);
        let pages = self.pointer.pages | if self.owns_values { OWNS_VALUES } else { 0 };
        let mut bytes = [0; CHILD_LEN];
        bytes[0..4].copy_from_slice(&self.pointer.page.0.to_le_bytes());
        bytes[4..8].copy_from_slice(&pages.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.pointer.checksum.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.entries.to_le_bytes());
        bytes
    }

    /// `None` if something stands where there should be zeros.
    #[inline]
    pub(super) fn decode(bytes: &[u8; CHILD_LEN]) -> Option<Self> {
        let pages = word_at(bytes, 4);
        (word_at(bytes, 12) == 0).then(|| Self {
            pointer: PagePointer {
                page: PageId(word_at(bytes, 0)),
                pages: pages & !OWNS_VALUES,
                checksum: word_at(bytes, 8),
            },
            owns_values: pages & OWNS_VALUES != 0,
            entries: entries(bytes),
        })
    }
}

/// Entries in the leaves below the child with this record.
#[inline]
pub(super) fn entries(child: &[u8; CHILD_LEN]) -> u64 {
    u64::from(word_at(child, 16)) | u64::from(word_at(child, 20)) << 32
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pointer() -> impl Strategy<Value = PagePointer> {
        (any::<u32>(), 0..OWNS_VALUES, any::<u32>()).prop_map(|(page, pages, checksum)| PagePointer {
            page: PageId(page),
            pages,
            checksum,
        })
    }

    proptest! {
        #![proptest_config(crate::sampling::config(256))]

        #[test]
        fn records_come_back(pointer in pointer(), owns_values: bool, entries: u64, len: u32, expiry: u64) {
            let child = Child { pointer, owns_values, entries };
            let mut bytes = child.encode();
            prop_assert_eq!(Child::decode(&bytes), Some(child));
            bytes[12 + len as usize % 4] = 1;
            prop_assert_eq!(Child::decode(&bytes), None);
            let value = ValuePointer { run: pointer, len, expiry };
            prop_assert_eq!(ValuePointer::decode(&value.encode()), Some(value));
            prop_assert_eq!(ValuePointer::decode(&value.encode()[1..]), None);
            prop_assert_eq!(ValuePointer::decode(&[&value.encode()[..16], &[0; 8]].concat()), None);
        }
    }
}
