//! Operands of a key that no merge operator has folded yet, as they stand in a leaf in place of its value.
//!
//! ```text
//! u8      what they are to be folded onto: 0 whatever is older says, 1 nothing, 2 this value:
//!         varint length of the value, then the value; 3 this value with an expiry: the same, of a stamped
//!         value, see `codec/expiry.rs`
//! for each operand, the oldest first:
//!   varint  length of the operand, then the operand
//! ```
//!
//! A list whose first byte is 0 is *open*: more stands behind it in older deltas or in the tree. Nothing is
//! behind any other.

use crate::codec::expiry::Expiry;
use crate::codec::{expiry, varint};

const OLDER: u8 = 0;
const NOTHING: u8 = 1;
const VALUE: u8 = 2;
const EXPIRING: u8 = 3;

/// What operands are to be folded onto.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base<'a> {
    /// Whatever older memtables, deltas and the tree say.
    Older,
    /// The key has no value.
    Nothing,
    Value(&'a [u8]),
    /// A stamped value.
    Expiring(&'a [u8]),
}

impl Base<'_> {
    pub(crate) fn is_older(&self) -> bool {
        matches!(self, Self::Older)
    }
}

fn take<'a>(list: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(varint::take(list)?).ok()?;
    let (bytes, rest) = list.split_at_checked(len)?;
    *list = rest;
    Some(bytes)
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The list of `operands`, the oldest first, on `base`.
pub(crate) fn encode<'o>(base: Base<'_>, operands: impl IntoIterator<Item = &'o [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    match base {
        Base::Older => out.push(OLDER),
        Base::Nothing => out.push(NOTHING),
        Base::Value(value) => {
            out.push(VALUE);
            put(&mut out, value);
        }
        Base::Expiring(stamped) => {
            out.push(EXPIRING);
            put(&mut out, stamped);
        }
    }
    operands.into_iter().for_each(|operand| put(&mut out, operand));
    out
}

/// Adds the operands of `list` to `operands`, the oldest first, and says what they are to be folded onto.
/// `None` if the list makes no sense.
pub(crate) fn decode<'a>(list: &'a [u8], operands: &mut Vec<&'a [u8]>) -> Option<Base<'a>> {
    walk(list, |operand| operands.push(operand))
}

/// What the operands of `list` are to be folded onto. `None` if the list makes no sense. Takes no memory,
/// however many they are.
pub(crate) fn base(list: &[u8]) -> Option<Base<'_>> {
    walk(list, |_| {})
}

fn walk<'a>(mut list: &'a [u8], mut operand: impl FnMut(&'a [u8])) -> Option<Base<'a>> {
    let (&base, rest) = list.split_first()?;
    list = rest;
    let base = match base {
        OLDER => Base::Older,
        NOTHING => Base::Nothing,
        VALUE => Base::Value(take(&mut list)?),
        EXPIRING => Base::Expiring(take(&mut list).filter(|stamped| expiry::split(stamped).is_some())?),
        _ => return None,
    };
    if list.is_empty() {
        return None;
    }
    while !list.is_empty() {
        operand(take(&mut list)?);
    }
    Some(base)
}

/// When what the operands of `list` come to expires; `None` if that follows from what is older.
pub(crate) fn expiry(list: &[u8]) -> Option<Expiry> {
    match base(list)? {
        Base::Older => None,
        Base::Nothing | Base::Value(_) => Some(0),
        Base::Expiring(stamped) => expiry::split(stamped).map(|(expiry, _)| expiry),
    }
}

/// Whether more stands behind `list`. Of one that makes no sense it is not said.
pub(crate) fn is_open(list: &[u8]) -> bool {
    list.first() == Some(&OLDER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::sampling::config(256))]

        #[test]
        fn operands_come_back_as_they_were_encoded(
            base_kind in 0u8..4, value: Vec<u8>, operands in prop::collection::vec(any::<Vec<u8>>(), 1..9)
        ) {
            let stamped = expiry::stamped(7, &value);
            let base = [Base::Older, Base::Nothing, Base::Value(&value), Base::Expiring(&stamped)];
            let base = base[usize::from(base_kind)];
            let list = encode(base, operands.iter().map(Vec::as_slice));
            let mut found = Vec::new();
            prop_assert_eq!(decode(&list, &mut found), Some(base));
            prop_assert_eq!(found, operands);
            prop_assert_eq!(super::base(&list), Some(base));
            prop_assert_eq!(is_open(&list), base.is_older());
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let mut found = Vec::new();
            decode(&bytes, &mut found);
            prop_assert!(found.len() <= bytes.len());
        }
    }

    #[test]
    fn a_list_without_operands_or_of_another_kind_makes_no_sense() {
        for list in [&[][..], &[0], &[1], &[2, 1, 7], &[3, 1, 7], &[4, 1, 7], &[0, 2, 7]] {
            assert_eq!(decode(list, &mut Vec::new()), None, "{list:?}");
        }
    }
}
