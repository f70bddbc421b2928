//! The operations of a commit, in the form in which the log stores them.
//!
//! ```text
//! u8      kind of the operation, see `codec/entry.rs`
//! varint  family
//! varint  length of the key, then the key
//! put, merge:   varint length of the value or operand, then that; where entries may expire, of a stamped
//!               value, see `codec/expiry.rs`, or an operand behind its stamp, see `codec/operands.rs`
//! range delete: varint length of the end, then the end; an empty end means that there is none
//! ```

use std::fmt;

use crate::codec::entry::EntryKind;
use crate::codec::expiry::{self, Expiry, STAMP_LEN};
use crate::codec::features::unknown;
use crate::codec::ids::FamilyId;
use crate::codec::key::ABOVE_EVERY_KEY;
use crate::codec::key_bounds::KeyBounds;
use crate::codec::operands::{OPERAND_STAMP_LEN, Stamp};
use crate::codec::{key, varint};
use crate::error::{Error, ErrorKind, Result};

/// The longest value, in bytes.
pub(crate) const MAX_VALUE_LEN: u64 = u32::MAX as u64;

/// Fails if no key can have `len` bytes.
pub(crate) fn check_key_len(len: usize) -> Result<()> {
    if len > key::MAX_KEY_LEN {
        return Err(Error::new(
            ErrorKind::KeyTooLarge,
            format!("a key of {len} bytes is too long; {} is the most", key::MAX_KEY_LEN),
        ));
    }
    Ok(())
}

pub(crate) fn check_value(value: &[u8]) -> Result<()> {
    if value.len() as u64 > MAX_VALUE_LEN {
        return Err(Error::new(
            ErrorKind::ValueTooLarge,
            format!("a value of {} bytes is too long; {MAX_VALUE_LEN} is the most", value.len()),
        ));
    }
    Ok(())
}

/// As [`check_value`], of a value that expires: its stamp goes with it.
pub(crate) fn check_expiring_value(value: &[u8]) -> Result<()> {
    let most = MAX_VALUE_LEN - STAMP_LEN as u64;
    if value.len() as u64 > most {
        return Err(Error::new(
            ErrorKind::ValueTooLarge,
            format!("a value of {} bytes that expires is too long; {most} is the most", value.len()),
        ));
    }
    Ok(())
}

/// The longest operand of a merge, in bytes: so many of them can be kept one by one.
const MAX_OPERAND_LEN: usize = 64 << 20;

pub(crate) fn check_operand(operand: &[u8]) -> Result<()> {
    if operand.len() > MAX_OPERAND_LEN {
        return Err(Error::new(
            ErrorKind::ValueTooLarge,
            format!("an operand of {} bytes is too long; {MAX_OPERAND_LEN} is the most", operand.len()),
        ));
    }
    Ok(())
}

/// Refuses bounds of a range that no key reaches.
pub(crate) fn check_bounds(range: &impl KeyBounds) -> Result<()> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    const MOST: usize = key::MAX_KEY_LEN;
    // What comes right behind the longest key begins with it and a zero byte.
    let (start, end) = range.bounds();
    let start = match start {
        Included(key) => (key.len(), MOST + 1),
        Excluded(key) => (key.len(), MOST),
        Unbounded => (0, MOST),
    };
    let end = match end {
        Included(key) => (key.len(), MOST),
        Excluded(key) => (key.len(), MOST + 1),
        Unbounded => (0, MOST),
    };
    match [start, end].into_iter().find(|(len, most)| len > most) {
        None => Ok(()),
        Some((len, _)) => Err(Error::new(
            ErrorKind::KeyTooLarge,
            format!("a bound of {len} bytes is too long; {MOST} is the most"),
        )),
    }
}

/// Whether no key can lie from `start` to `end`.
pub(crate) fn is_empty_range(start: &[u8], end: Option<&[u8]>) -> bool {
    key::compare(start, end.unwrap_or(&ABOVE_EVERY_KEY)).is_ge()
}

fn encode_key(out: &mut Vec<u8>, kind: EntryKind, family: FamilyId, key: &[u8]) {
    out.push(kind as u8);
    varint::put(out, u64::from(family.0));
    varint::put(out, key.len() as u64);
    out.extend_from_slice(key);
}

pub(crate) fn encode_put(out: &mut Vec<u8>, family: FamilyId, key: &[u8], value: &[u8]) {
    out.reserve(key.len() + value.len() + 16);
    encode_key(out, EntryKind::Put, family, key);
    varint::put(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// `stamped` is the value with its expiry.
pub(crate) fn encode_put_expiring(out: &mut Vec<u8>, family: FamilyId, key: &[u8], stamped: &[u8]) {
    out.reserve(key.len() + stamped.len() + 16);
    encode_key(out, EntryKind::PutExpiring, family, key);
    varint::put(out, stamped.len() as u64);
    out.extend_from_slice(stamped);
}

/// The put of a `value` that expires at `expiry`, or stays if that is 0.
pub(crate) fn encode_put_until(
    out: &mut Vec<u8>,
    family: FamilyId,
    key: &[u8],
    value: &[u8],
    expiry: Expiry,
) {
    if expiry == 0 {
        return encode_put(out, family, key, value);
    }
    out.reserve(key.len() + STAMP_LEN + value.len() + 16);
    encode_key(out, EntryKind::PutExpiring, family, key);
    varint::put(out, (STAMP_LEN + value.len()) as u64);
    expiry::put_stamped(out, expiry, value);
}

pub(crate) fn encode_merge(out: &mut Vec<u8>, family: FamilyId, key: &[u8], operand: &[u8]) {
    out.reserve(key.len() + operand.len() + 16);
    encode_key(out, EntryKind::Merge, family, key);
    varint::put(out, operand.len() as u64);
    out.extend_from_slice(operand);
}

/// The merge of an `operand` with its stamp, if it has one.
pub(crate) fn encode_merge_at(
    out: &mut Vec<u8>,
    family: FamilyId,
    key: &[u8],
    operand: &[u8],
    stamp: Option<Stamp>,
) {
    let Some(stamp) = stamp else { return encode_merge(out, family, key, operand) };
    out.reserve(key.len() + OPERAND_STAMP_LEN + operand.len() + 16);
    encode_key(out, EntryKind::MergeStamped, family, key);
    varint::put(out, (OPERAND_STAMP_LEN + operand.len()) as u64);
    stamp.put(out);
    out.extend_from_slice(operand);
}

/// `stamped` is the operand behind its stamp.
pub(crate) fn encode_merge_stamped(out: &mut Vec<u8>, family: FamilyId, key: &[u8], stamped: &[u8]) {
    out.reserve(key.len() + stamped.len() + 16);
    encode_key(out, EntryKind::MergeStamped, family, key);
    varint::put(out, stamped.len() as u64);
    out.extend_from_slice(stamped);
}

pub(crate) fn encode_delete(out: &mut Vec<u8>, family: FamilyId, key: &[u8]) {
    encode_key(out, EntryKind::Delete, family, key);
}

pub(crate) fn encode_delete_range(out: &mut Vec<u8>, family: FamilyId, start: &[u8], end: Option<&[u8]>) {
    encode_key(out, EntryKind::RangeDelete, family, start);
    let end = end.unwrap_or(&[]);
    varint::put(out, end.len() as u64);
    out.extend_from_slice(end);
}

/// One operation of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation<'a> {
    /// Sets a key to a value.
    Put {
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// Sets a key to a value that expires.
    PutExpiring {
        /// The key.
        key: &'a [u8],
        /// The value, and when it expires.
        value: ExpiringValue<'a>,
    },
    /// Merges an operand into a key.
    Merge {
        /// The key.
        key: &'a [u8],
        /// The operand.
        operand: &'a [u8],
    },
    /// Merges an operand into a key whose value may expire.
    MergeExpiring {
        /// The key.
        key: &'a [u8],
        /// The operand, and when what it makes expires.
        operand: ExpiringOperand<'a>,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Removes a range of keys.
    DeleteRange {
        /// The first key, which need not be there.
        start: &'a [u8],
        /// The first key behind the range; `None` if the range has no end.
        end: Option<&'a [u8]>,
    },
}

/// A value that expires.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ExpiringValue<'a> {
    /// Which it is, as was seen when this was made.
    pub(crate) stamped: &'a [u8],
}

impl<'a> ExpiringValue<'a> {
    /// `None` if that is no stamped value.
    pub(crate) fn new(stamped: &'a [u8]) -> Option<Self> {
        expiry::split(stamped).map(|_| Self { stamped })
    }

    /// The value.
    pub fn value(&self) -> &'a [u8] {
        expiry::split(self.stamped).map_or(&[], |(_, value)| value)
    }

    /// The second since 1970 from which on it is gone.
    pub fn expires_at(&self) -> u64 {
        expiry::split(self.stamped).map_or(0, |(expiry, _)| expiry)
    }
}

impl fmt::Debug for ExpiringValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExpiringValue")
            .field("value", &self.value())
            .field("expires_at", &self.expires_at())
            .finish()
    }
}

/// An operand, and until when what it makes lives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ExpiringOperand<'a> {
    /// Behind its stamp, as was seen when this was made.
    pub(crate) stamped: &'a [u8],
}

impl<'a> ExpiringOperand<'a> {
    fn new(stamped: &'a [u8]) -> Option<Self> {
        Stamp::split(stamped).map(|_| Self { stamped })
    }

    /// The operand.
    pub fn operand(&self) -> &'a [u8] {
        Stamp::split(self.stamped).map_or(&[], |(_, operand)| operand)
    }

    /// The second since 1970 from which on what it makes is gone; `None` if that lives as long as what it is
    /// merged into.
    pub fn expires_at(&self) -> Option<u64> {
        Stamp::split(self.stamped).map(|(stamp, _)| stamp.expiry).filter(|&expiry| expiry != 0)
    }
}

impl fmt::Debug for ExpiringOperand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExpiringOperand")
            .field("operand", &self.operand())
            .field("expires_at", &self.expires_at())
            .finish()
    }
}

impl Operation<'_> {
    /// Bytes of keys and value.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Put { key, value } => key.len() + value.len(),
            Self::PutExpiring { key, value } => key.len() + value.stamped.len(),
            Self::Merge { key, operand } => key.len() + operand.len(),
            Self::MergeExpiring { key, operand } => key.len() + operand.stamped.len(),
            Self::Delete { key } => key.len(),
            Self::DeleteRange { start, end } => start.len() + end.map_or(0, <[u8]>::len),
        }
    }
}

/// The operations of a payload, in order. Ends with an error where the payload makes no sense.
pub(crate) struct Operations<'a> {
    rest: &'a [u8],
}

impl<'a> Operations<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    #[inline]
    fn bytes(&mut self, limit: u64) -> Option<&'a [u8]> {
        let len = varint::take(&mut self.rest)?;
        if len > limit {
            return None;
        }
        let (bytes, rest) = self.rest.split_at_checked(usize::try_from(len).ok()?)?;
        self.rest = rest;
        Some(bytes)
    }

    #[inline]
    fn take(&mut self) -> Option<(FamilyId, Operation<'a>)> {
        const BOUND: u64 = key::MAX_KEY_LEN as u64 + 1;
        let (&kind, rest) = self.rest.split_first()?;
        self.rest = rest;
        let family = FamilyId(varint::take(&mut self.rest)?.try_into().ok()?);
        let kind = EntryKind::from_u8(kind)?;
        let key_limit = if kind == EntryKind::RangeDelete { BOUND } else { BOUND - 1 };
        let key = self.bytes(key_limit)?;
        let operation = match kind {
            EntryKind::Put => Operation::Put { key, value: self.bytes(MAX_VALUE_LEN)? },
            EntryKind::PutExpiring => {
                let stamped = self.bytes(MAX_VALUE_LEN)?;
                Operation::PutExpiring { key, value: ExpiringValue::new(stamped)? }
            }
            EntryKind::Merge => Operation::Merge { key, operand: self.bytes(MAX_VALUE_LEN)? },
            EntryKind::MergeStamped => {
                let stamped = self.bytes(MAX_VALUE_LEN)?;
                Operation::MergeExpiring { key, operand: ExpiringOperand::new(stamped)? }
            }
            EntryKind::Delete => Operation::Delete { key },
            EntryKind::RangeDelete => {
                let end = self.bytes(BOUND)?;
                let end = (!end.is_empty()).then_some(end);
                if is_empty_range(key, end) {
                    return None;
                }
                Operation::DeleteRange { start: key, end }
            }
        };
        Some((family, operation))
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Result<(FamilyId, Operation<'a>)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let kind = self.rest[0];
        let operation = self.take();
        if operation.is_none() {
            self.rest = &[];
        }
        Some(operation.ok_or_else(|| unreadable(kind)))
    }
}

/// The error for an operation of this kind that could not be taken.
#[cold]
fn unreadable(kind: u8) -> Error {
    match EntryKind::from_u8(kind) {
        Some(_) => Error::corruption("a commit in the log makes no sense"),
        None => unknown(format_args!("a commit has an operation of kind {kind}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn operations_come_back_as_they_were_encoded() {
        let mut payload = Vec::new();
        encode_put(&mut payload, FamilyId(1), b"k", b"v");
        encode_merge(&mut payload, FamilyId(1), b"k", b"operand");
        encode_put_until(&mut payload, FamilyId(1), b"k", b"v", 7);
        let stamp = Stamp { written: 7, expiry: 9 };
        encode_merge_at(&mut payload, FamilyId(1), b"k", b"operand", Some(stamp));
        encode_delete(&mut payload, FamilyId(300), b"");
        encode_delete_range(&mut payload, FamilyId(2), b"a", Some(b"b"));
        encode_delete_range(&mut payload, FamilyId(2), b"", None);
        let operations: Result<Vec<_>> = Operations::new(&payload).collect();
        assert_eq!(
            operations.unwrap(),
            [
                (FamilyId(1), Operation::Put { key: b"k", value: b"v" }),
                (FamilyId(1), Operation::Merge { key: b"k", operand: b"operand" }),
                (
                    FamilyId(1),
                    Operation::PutExpiring {
                        key: b"k",
                        value: ExpiringValue { stamped: &expiry::stamped(7, b"v") }
                    }
                ),
                (
                    FamilyId(1),
                    Operation::MergeExpiring {
                        key: b"k",
                        operand: ExpiringOperand { stamped: b"\x07\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0operand" }
                    }
                ),
                (FamilyId(300), Operation::Delete { key: b"" }),
                (FamilyId(2), Operation::DeleteRange { start: b"a", end: Some(b"b") }),
                (FamilyId(2), Operation::DeleteRange { start: b"", end: None }),
            ]
        );
    }

    #[test]
    fn an_operation_of_a_kind_that_nobody_here_knows_is_a_newer_engines() {
        let mut payload = Vec::new();
        encode_delete(&mut payload, FamilyId(1), b"key");
        payload.extend([200, 1, 0]);
        let operations: Vec<_> = Operations::new(&payload).collect();
        assert_eq!(operations.len(), 2);
        assert_eq!(operations[1].as_ref().unwrap_err().kind(), ErrorKind::NewerFormat);
    }

    #[test]
    fn a_cut_payload_ends_with_an_error() {
        let mut payload = Vec::new();
        encode_put(&mut payload, FamilyId(1), b"key", b"value");
        for len in 1..payload.len() {
            assert!(Operations::new(&payload[..len]).any(|operation| operation.is_err()), "cut at {len}");
        }
    }

    proptest! {
        #![proptest_config(crate::sampling::config(256))]

        #[test]
        fn garbage_never_panics_and_ends(bytes: Vec<u8>) {
            prop_assert!(Operations::new(&bytes).count() <= bytes.len());
        }
    }
}
