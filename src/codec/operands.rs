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
//!
//! In a family whose entries may expire an operand has a *stamp*: the second at which it was written, and the
//! one from which on what it makes is gone, or 0. 4 is added to the first byte of a list with such operands,
//! and each of them is
//!
//! ```text
//!   varint  twice the length of the operand, and 1 if it has a stamp
//!   u64     with a stamp: when it was written
//!   u64     with a stamp: its expiry, or 0
//!   the operand
//! ```
//!
//! # What expires of a fold
//!
//! An operand is folded onto what had not expired when it was written, which otherwise counts as nothing; and
//! what comes of it lives until the operand's expiry, or if it has none for as long as what it was folded
//! onto. All of that stands in stamps: so what operands come to does not depend on when they are folded, on
//! how many at once, or on whether what has expired was dropped before.

use crate::codec::expiry::{self, Expiry, Now};
use crate::codec::varint;

const OLDER: u8 = 0;
const NOTHING: u8 = 1;
const VALUE: u8 = 2;
const EXPIRING: u8 = 3;
/// Added if any operand has a stamp.
const STAMPED: u8 = 4;

/// Bytes of a stamp.
pub(crate) const OPERAND_STAMP_LEN: usize = 2 * size_of::<u64>();

/// When an operand was written, and when what it makes expires; zeros if nobody said so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) written: u64,
    pub(crate) expiry: Expiry,
}

impl Stamp {
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.written.to_le_bytes());
        out.extend_from_slice(&self.expiry.to_le_bytes());
    }

    /// Takes a stamp off the front of an operand, as it stands in memtable and log.
    #[inline]
    pub(crate) fn split(stamped: &[u8]) -> Option<(Self, &[u8])> {
        let (written, rest) = stamped.split_first_chunk()?;
        let (expiry, operand) = rest.split_first_chunk()?;
        Some((Self { written: u64::from_le_bytes(*written), expiry: u64::from_le_bytes(*expiry) }, operand))
    }
}

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

    /// When it expires, or 0; `None` if that is not known.
    fn expiry(&self) -> Option<Expiry> {
        match self {
            Self::Older => None,
            Self::Nothing | Self::Value(_) => Some(0),
            Self::Expiring(stamped) => Some(expiry::split(stamped).map_or(0, |(expiry, _)| expiry)),
        }
    }
}

/// Operands, and their stamps if any has one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Listed<'a> {
    operands: Vec<&'a [u8]>,
    /// As many, or none.
    stamps: Vec<Stamp>,
}

/// What becomes of a value that expires at `expiry`, if that is known, by an operand with this stamp: whether
/// it had expired, and when what comes of it does.
fn after(expiry: Option<Expiry>, stamp: Stamp) -> (bool, Option<Expiry>) {
    let had_expired = expiry.is_some_and(|expiry| Now(stamp.written).is_past(expiry));
    let until = if had_expired { Some(0) } else { expiry };
    (had_expired, if stamp.expiry != 0 { Some(stamp.expiry) } else { until })
}

/// A run of operands that do together what one could.
pub(crate) struct Group<'l, 'a> {
    pub(crate) operands: &'l [&'a [u8]],
    /// The stamp of that one.
    pub(crate) stamp: Stamp,
}

impl<'a> Listed<'a> {
    pub(crate) fn push(&mut self, operand: &'a [u8], stamp: Stamp) {
        if stamp != Stamp::default() || !self.stamps.is_empty() {
            self.stamps.resize(self.operands.len(), Stamp::default());
            self.stamps.push(stamp);
        }
        self.operands.push(operand);
    }

    /// Adds those of `other`, the last first.
    pub(crate) fn extend_reversed(&mut self, other: &Self) {
        if self.stamps.is_empty() && other.stamps.is_empty() {
            self.operands.extend(other.operands.iter().rev());
            return;
        }
        for (at, operand) in other.operands.iter().enumerate().rev() {
            self.push(operand, other.stamp(at));
        }
    }

    pub(crate) fn operands(&self) -> &[&'a [u8]] {
        &self.operands
    }

    pub(crate) fn stamp(&self, at: usize) -> Stamp {
        self.stamps.get(at).copied().unwrap_or_default()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a [u8], Stamp)> + Clone {
        self.operands.iter().enumerate().map(|(at, operand)| (*operand, self.stamp(at)))
    }

    /// Forgets operands, the oldest first, and what they are folded onto, as far as all of that had expired
    /// when the next one was written. When what is left comes to expires, or 0; `None` if that follows from
    /// what is older.
    pub(crate) fn settle(&mut self, base: &mut Base<'a>) -> Option<Expiry> {
        if self.stamps.is_empty() {
            return base.expiry();
        }
        let (mut expiry, mut from) = (base.expiry(), None);
        for (at, stamp) in self.stamps.iter().enumerate() {
            let (meets_nothing, now) = after(expiry, *stamp);
            expiry = now;
            if meets_nothing {
                from = Some(at);
            }
        }
        if let Some(from) = from {
            *base = Base::Nothing;
            self.operands.drain(..from);
            self.stamps.drain(..from);
        }
        expiry
    }

    /// The operands, which were settled on what is not known, in runs each of which does the same as one
    /// operand could: what is older has expired for all of them when they were written, or for none.
    pub(crate) fn groups(&self) -> Vec<Group<'_, 'a>> {
        let mut groups: Vec<Group<'_, 'a>> = Vec::new();
        let (mut from, mut stamp) = (0, self.stamp(0));
        for at in 1..=self.operands.len() {
            let next = self.stamp(at);
            if at < self.operands.len() && (stamp.expiry != 0 || next.written == stamp.written) {
                stamp.expiry = if next.expiry != 0 { next.expiry } else { stamp.expiry };
                continue;
            }
            groups.push(Group { operands: &self.operands[from..at], stamp });
            (from, stamp) = (at, next);
        }
        groups
    }
}

fn take<'a>(list: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = varint::take(list)?;
    take_len(list, len)
}

fn take_len<'a>(list: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (bytes, rest) = list.split_at_checked(usize::try_from(len).ok()?)?;
    *list = rest;
    Some(bytes)
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The list of `operands`, the oldest first, on `base`.
pub(crate) fn encode<'o>(
    base: Base<'_>,
    operands: impl Iterator<Item = (&'o [u8], Stamp)> + Clone,
) -> Vec<u8> {
    let mut out = Vec::new();
    let is_stamped = |stamp| stamp != Stamp::default();
    let any = operands.clone().any(|(_, stamp)| is_stamped(stamp));
    let first = |base| base + if any { STAMPED } else { 0 };
    match base {
        Base::Older => out.push(first(OLDER)),
        Base::Nothing => out.push(first(NOTHING)),
        Base::Value(value) => {
            out.push(first(VALUE));
            put(&mut out, value);
        }
        Base::Expiring(stamped) => {
            out.push(first(EXPIRING));
            put(&mut out, stamped);
        }
    }
    for (operand, stamp) in operands {
        if !any {
            put(&mut out, operand);
            continue;
        }
        varint::put(&mut out, (operand.len() as u64) << 1 | u64::from(is_stamped(stamp)));
        if is_stamped(stamp) {
            stamp.put(&mut out);
        }
        out.extend_from_slice(operand);
    }
    out
}

/// Adds the operands of `list` to `operands`, the oldest first, and says what they are to be folded onto.
/// `None` if the list makes no sense.
pub(crate) fn decode<'a>(list: &'a [u8], operands: &mut Listed<'a>) -> Option<Base<'a>> {
    walk(list, |operand, stamp| operands.push(operand, stamp))
}

/// What the operands of `list` are to be folded onto. `None` if the list makes no sense. Takes no memory,
/// however many they are.
pub(crate) fn base(list: &[u8]) -> Option<Base<'_>> {
    walk(list, |_, _| {})
}

fn walk<'a>(mut list: &'a [u8], mut operand: impl FnMut(&'a [u8], Stamp)) -> Option<Base<'a>> {
    let (&base, rest) = list.split_first()?;
    list = rest;
    let are_stamped = base & STAMPED != 0;
    let base = match base & !STAMPED {
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
        if !are_stamped {
            operand(take(&mut list)?, Stamp::default());
            continue;
        }
        let len = varint::take(&mut list)?;
        let mut stamp = Stamp::default();
        if len & 1 != 0 {
            (stamp, list) = Stamp::split(list)?;
        }
        operand(take_len(&mut list, len >> 1)?, stamp);
    }
    Some(base)
}

/// When what the operands of `list` come to expires, or 0; `None` if that follows from what is older.
pub(crate) fn expiry(list: &[u8]) -> Option<Expiry> {
    let base = base(list)?;
    if list[0] & STAMPED == 0 {
        return base.expiry();
    }
    let mut expiry = base.expiry();
    walk(list, |_, stamp| expiry = after(expiry, stamp).1)?;
    expiry
}

/// Whether more stands behind `list`. Of one that makes no sense it is not said.
pub(crate) fn is_open(list: &[u8]) -> bool {
    list.first().is_some_and(|first| first & !STAMPED == OLDER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamps() -> impl Strategy<Value = Stamp> {
        prop_oneof![
            Just(Stamp::default()),
            (90u64..110, prop_oneof![Just(0), 90u64..110])
                .prop_map(|(written, expiry)| Stamp { written, expiry }),
        ]
    }

    proptest! {
        #![proptest_config(crate::sampling::config(256))]

        #[test]
        fn operands_come_back_as_they_were_encoded(
            base_kind in 0u8..4,
            value: Vec<u8>,
            operands in prop::collection::vec((any::<Vec<u8>>(), stamps()), 1..9),
        ) {
            let stamped = expiry::stamped(7, &value);
            let base = [Base::Older, Base::Nothing, Base::Value(&value), Base::Expiring(&stamped)];
            let base = base[usize::from(base_kind)];
            let listed = operands.iter().map(|(operand, stamp)| (&operand[..], *stamp));
            let list = encode(base, listed.clone());
            let mut found = Listed::default();
            prop_assert_eq!(decode(&list, &mut found), Some(base));
            prop_assert!(found.iter().eq(listed));
            prop_assert_eq!(super::base(&list), Some(base));
            prop_assert_eq!(is_open(&list), base.is_older());
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let mut found = Listed::default();
            if let Some(mut base) = decode(&bytes, &mut found) {
                prop_assert!(found.operands().len() <= bytes.len());
                found.settle(&mut base);
            }
            prop_assert!(expiry(&bytes).is_none_or(|_| !bytes.is_empty()));
        }

        /// Folded one after the other, as by the sentences at the top: what of the value and of which
        /// operands is in what comes of it, and when that expires.
        #[test]
        fn what_is_folded_does_not_depend_on_how(
            base in prop_oneof![Just(None), Just(Some(0)), (90u64..110).prop_map(Some)],
            stamps in prop::collection::vec(stamps(), 1..9),
        ) {
            let one_by_one = |base: Option<Expiry>, stamps: &[(Vec<u8>, Stamp)]| {
                let mut state = base.map(|expiry| (vec![100], expiry));
                for (operand, stamp) in stamps {
                    let (mut folded, expiry) =
                        state.filter(|(_, expiry)| !Now(stamp.written).is_past(*expiry)).unwrap_or_default();
                    folded.extend(operand);
                    state = Some((folded, if stamp.expiry != 0 { stamp.expiry } else { expiry }));
                }
                state.unwrap()
            };
            let all: Vec<_> = (0..).map(|n| vec![n]).zip(stamps).collect();
            let expected = one_by_one(base, &all);
            // All at once.
            let stamped = base.map(|expiry| expiry::stamped(expiry, &[100]));
            let mut listed = Listed::default();
            all.iter().for_each(|(operand, stamp)| listed.push(operand, *stamp));
            let mut onto = match (base, &stamped) {
                (Some(0), _) => Base::Value(&[100]),
                (_, Some(stamped)) => Base::Expiring(stamped),
                _ => Base::Nothing,
            };
            let mut at_once = listed.clone();
            let expiry = at_once.settle(&mut onto).unwrap();
            // What was settled is what it is.
            prop_assert_eq!(at_once.clone().settle(&mut onto), Some(expiry));
            let value = if onto == Base::Nothing { vec![] } else { vec![100] };
            let folded = [value, at_once.operands().concat()].concat();
            prop_assert_eq!((folded, expiry), expected.clone());
            // In groups, while it is not known what is behind.
            let mut behind = Base::Older;
            let expiry = listed.settle(&mut behind);
            let grouped: Vec<_> =
                listed.groups().iter().map(|group| (group.operands.concat(), group.stamp)).collect();
            let base = if behind.is_older() { base } else { None };
            let folded = one_by_one(base, &grouped);
            prop_assert!(expiry.is_none_or(|expiry| expiry == folded.1));
            prop_assert_eq!(folded, expected);
        }
    }

    #[test]
    fn a_list_without_operands_or_of_another_kind_makes_no_sense() {
        for list in [&[][..], &[0], &[1], &[2, 1, 7], &[3, 1, 7], &[8, 1, 7], &[0, 2, 7], &[4, 3, 7]] {
            assert_eq!(decode(list, &mut Listed::default()), None, "{list:?}");
        }
    }
}
