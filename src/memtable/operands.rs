//! Versions of a key that are operands: what they come to follows from all of them, and from what is older.

use std::fmt;

use super::entry::EntryRef;
use crate::codec::entry::EntryKind;
use crate::codec::expiry::Expiry;
use crate::codec::ids::SequenceNumber;
use crate::codec::operands::{Base, Listed, Stamp};

/// The operands of a key from one on down to the newest version, or range deletion, that is none.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'m> {
    newest: EntryRef<'m>,
    /// The newest range deletion that covers the key, which is no younger than `newest`; 0 if none does.
    covered: SequenceNumber,
}

impl<'m> Operands<'m> {
    /// Those from `newest` on, an operand that `covered` does not cover.
    #[inline]
    pub(super) fn new(newest: EntryRef<'m>, covered: Option<SequenceNumber>) -> Self {
        Self { newest, covered: covered.unwrap_or(SequenceNumber(0)) }
    }

    /// Adds them to `operands`, the newest first, and says what they are to be folded onto.
    pub(crate) fn collect(self, operands: &mut Listed<'m>) -> Base<'m> {
        let mut version = Some(self.newest);
        while let Some(entry) = version {
            if self.covered > entry.sequence() {
                break;
            }
            match entry.kind() {
                EntryKind::Merge => operands.push(entry.value(), Stamp::default()),
                EntryKind::MergeStamped => {
                    let (stamp, operand) = stamped(entry);
                    operands.push(operand, stamp);
                }
                EntryKind::Put => return Base::Value(entry.value()),
                EntryKind::PutExpiring => return Base::Expiring(entry.value()),
                EntryKind::Delete => return Base::Nothing,
                EntryKind::RangeDelete => panic!("a range deletion stands among the keys"),
            }
            version = entry.older();
        }
        if self.covered.0 > 0 { Base::Nothing } else { Base::Older }
    }

    /// Whether they are to be folded onto what is older than the memtable.
    pub(crate) fn are_open(self) -> bool {
        self.collect(&mut Listed::default()).is_older()
    }

    /// When what they come to expires, if the newest of them says so.
    pub(crate) fn expiry(self) -> Option<Expiry> {
        let is_stamped = self.newest.kind() == EntryKind::MergeStamped;
        is_stamped.then(|| stamped(self.newest).0.expiry).filter(|&expiry| expiry != 0)
    }
}

/// The stamp of an operand that has one, and the operand.
fn stamped(entry: EntryRef<'_>) -> (Stamp, &[u8]) {
    Stamp::split(entry.value()).unwrap_or_else(|| panic!("an operand was written without its stamp"))
}

/// Two are the same if they begin with the same version.
impl PartialEq for Operands<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.newest.as_ptr() == other.newest.as_ptr() && self.covered == other.covered
    }
}

impl Eq for Operands<'_> {}

impl fmt::Debug for Operands<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut operands = Listed::default();
        let base = self.collect(&mut operands);
        f.debug_struct("Operands").field("newest_first", &operands).field("base", &base).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memtable::{BEFORE_ITS_NUMBER, Found, Memtable, MemtableWriter};
    use crate::sync::Arc;

    #[derive(Debug, Clone, Copy)]
    enum Write {
        Put(u8),
        Merge(u8),
        Delete(u8),
        DeleteRange(u8, u8),
    }

    fn write() -> impl Strategy<Value = Write> {
        let key = 0u8..6;
        prop_oneof![
            2 => key.clone().prop_map(Write::Put),
            6 => key.clone().prop_map(Write::Merge),
            1 => key.clone().prop_map(Write::Delete),
            1 => (key, 1u8..4).prop_map(|(start, len)| Write::DeleteRange(start, start + len)),
        ]
    }

    /// What is known of a key: operands, the oldest first, and what they are folded onto.
    type Known = Option<(Vec<u8>, Base<'static>)>;

    fn apply(known: &mut [Known; 6], write: Write, value: u8) {
        let bytes = |value| Base::Value(Box::leak(Box::new([value])));
        match write {
            Write::Put(key) => known[usize::from(key)] = Some((Vec::new(), bytes(value))),
            Write::Merge(key) => {
                known[usize::from(key)].get_or_insert((Vec::new(), Base::Older)).0.push(value);
            }
            Write::Delete(key) => known[usize::from(key)] = Some((Vec::new(), Base::Nothing)),
            Write::DeleteRange(start, end) => {
                let covered = known.iter_mut().skip(start.into()).take(usize::from(end - start));
                covered.for_each(|known| *known = Some((Vec::new(), Base::Nothing)));
            }
        }
    }

    fn insert(writer: &mut MemtableWriter, write: Write, value: u8, number: SequenceNumber) {
        match write {
            Write::Put(key) => writer.put(&[key], &[value], number),
            Write::Merge(key) => writer.merge(&[key], &[value], number),
            Write::Delete(key) => writer.delete(&[key], number),
            Write::DeleteRange(start, end) => writer.delete_range(&[start], &[end], number),
        }
    }

    fn seen(found: Option<Found<'_>>) -> Known {
        Some(match found? {
            Found::Put(value) => (Vec::new(), Base::Value(Box::leak(value.into()))),
            Found::Expiring(value) => (Vec::new(), Base::Expiring(Box::leak(value.into()))),
            Found::Deleted => (Vec::new(), Base::Nothing),
            Found::Operands(operands) => {
                let mut newest_first = Listed::default();
                let base = match operands.collect(&mut newest_first) {
                    Base::Value(value) => Base::Value(Box::leak(value.into())),
                    Base::Expiring(value) => Base::Expiring(Box::leak(value.into())),
                    Base::Nothing => Base::Nothing,
                    Base::Older => Base::Older,
                };
                assert_eq!(operands.are_open(), base.is_older());
                (newest_first.operands().iter().rev().map(|operand| operand[0]).collect(), base)
            }
        })
    }

    proptest! {
        #![proptest_config(crate::sampling::config(256))]

        #[test]
        fn at_every_moment_operands_reach_back_to_what_they_were_merged_into(
            writes in prop::collection::vec(write(), 0..120)
        ) {
            let mut writer = Memtable::create(0);
            let mut moments = vec![[const { None }; 6]];
            for (number, write) in writes.iter().enumerate() {
                insert(&mut writer, *write, number as u8, SequenceNumber(number as u64 + 1));
                let mut known = moments[number].clone();
                apply(&mut known, *write, number as u8);
                moments.push(known);
            }
            let table = Arc::clone(writer.table());
            table.check();
            for (at, known) in moments.iter().enumerate() {
                let at = SequenceNumber(at as u64);
                for key in 0..6u8 {
                    let found = seen(table.get(&[key], at));
                    prop_assert_eq!(&found, &known[usize::from(key)], "{} at {}", key, at);
                }
                let mut cursor = table.cursor(at);
                let mut stands = cursor.first();
                while stands {
                    prop_assert_eq!(&seen(Some(cursor.found())), &known[usize::from(cursor.key()[0])]);
                    stands = cursor.next();
                }
            }
        }
    }

    #[test]
    fn operands_of_a_commit_that_got_its_number_late_are_all_seen_or_none() {
        let mut writer = Memtable::create(0);
        writer.merge(b"key", b"1", BEFORE_ITS_NUMBER);
        writer.put(b"key", b"2", BEFORE_ITS_NUMBER);
        writer.merge(b"key", b"3", BEFORE_ITS_NUMBER);
        let table = writer.number(SequenceNumber(9));
        assert_eq!(table.get(b"key", SequenceNumber(8)), None);
        assert_eq!(seen(table.get(b"key", SequenceNumber(9))), Some((vec![b'3'], Base::Value(b"2"))));
    }

    #[test]
    fn an_operand_is_met_among_deleted_keys() {
        let mut writer = Memtable::create(0);
        let keys = 0..500u32;
        keys.clone().for_each(|key| writer.delete(&key.to_be_bytes(), SequenceNumber(1)));
        writer.merge(&300u32.to_be_bytes(), b"operand", SequenceNumber(2));
        writer.table().check();
        let mut cursor = writer.table().cursor(SequenceNumber(2));
        assert!(cursor.first() && cursor.skip_up(None));
        assert_eq!(cursor.key(), 300u32.to_be_bytes());
        assert!(cursor.last() && cursor.skip_down(None));
        assert_eq!(cursor.key(), 300u32.to_be_bytes());
    }
}
