//! What a prepared transaction has read and written, as the value that is stored by its name.
//!
//! ```text
//! u8      1, the layout
//! varint  length of what was read
//!         what was read: deletions of keys and of ranges, as a commit has them in the log
//!         what is written: operations, as a commit has them in the log
//! ```

use crate::codec::features::unknown;
use crate::codec::ids::FamilyId;
use crate::codec::key::MAX_KEY_LEN;
use crate::codec::varint;
use crate::column_family::family::Family;
use crate::column_family::held::{Stretch, Use};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;
use crate::txn::operation::{Operation, Operations, encode_delete, encode_delete_range, is_empty_range};

const LAYOUT: u8 = 1;

/// What was read, encoded.
#[derive(Default)]
pub(in crate::txn) struct EncodedReads(Vec<u8>);

impl EncodedReads {
    pub(in crate::txn) fn key(&mut self, family: FamilyId, key: &[u8]) {
        // Longer keys are nobody's.
        if key.len() <= MAX_KEY_LEN {
            encode_delete(&mut self.0, family, key);
        }
    }

    pub(in crate::txn) fn range(&mut self, family: FamilyId, start: &[u8], end: Option<&[u8]>) {
        // Of keys, longer bounds part the same as their beginnings.
        let cut = |bound: &[u8]| bound.len().min(MAX_KEY_LEN + 1);
        let (start, end) = (&start[..cut(start)], end.map(|end| &end[..cut(end)]));
        if !is_empty_range(start, end) {
            encode_delete_range(&mut self.0, family, start, end);
        }
    }
}

/// The value for what was read, and for `writes`, the operations of a batch.
pub(in crate::txn) fn encode(reads: &EncodedReads, writes: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(reads.0.len() + writes.len() + 11);
    value.push(LAYOUT);
    varint::put(&mut value, reads.0.len() as u64);
    value.extend_from_slice(&reads.0);
    value.extend_from_slice(writes);
    value
}

/// The keys that an operation is about.
pub(super) fn stretch<'a>(operation: &Operation<'a>) -> Stretch<'a> {
    match *operation {
        Operation::Put { key, .. }
        | Operation::PutExpiring { key, .. }
        | Operation::Merge { key, .. }
        | Operation::MergeExpiring { key, .. }
        | Operation::Delete { key } => Stretch::key(key),
        Operation::DeleteRange { start, end } => Stretch::range(start, end),
    }
}

/// A value, all of which makes sense.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored<'a> {
    reads: &'a [u8],
    writes: &'a [u8],
}

impl<'a> Stored<'a> {
    pub(super) fn decode(value: &'a [u8]) -> Result<Self> {
        let nonsense = || Error::corruption("a prepared transaction makes no sense");
        let (&layout, mut rest) = value.split_first().ok_or_else(nonsense)?;
        if layout != LAYOUT {
            return Err(unknown(format_args!("a prepared transaction is stored in layout {layout}")));
        }
        let len = varint::take(&mut rest).and_then(|len| usize::try_from(len).ok());
        let (reads, writes) = len.and_then(|len| rest.split_at_checked(len)).ok_or_else(nonsense)?;
        let stored = Self { reads, writes };
        let is_read = |operation: &Operation<'_>| {
            matches!(operation, Operation::Delete { .. } | Operation::DeleteRange { .. })
        };
        let reads_make_sense = Operations::new(reads).all(|read| read.is_ok_and(|(_, read)| is_read(&read)));
        let writes_make_sense = Operations::new(writes).all(|operation| operation.is_ok());
        if reads_make_sense && writes_make_sense {
            return Ok(stored);
        }
        let mut errors = Operations::new(reads).chain(Operations::new(writes)).filter_map(Result::err);
        Err(errors.find(|error| error.kind() == ErrorKind::NewerFormat).unwrap_or_else(nonsense))
    }

    /// What is written.
    pub(super) fn writes(self) -> impl Iterator<Item = (FamilyId, Operation<'a>)> {
        Operations::new(self.writes).map_while(Result::ok)
    }

    /// All that is used, and how.
    fn uses(self) -> impl Iterator<Item = (Use, FamilyId, Stretch<'a>)> {
        let reads = Operations::new(self.reads).map_while(Result::ok);
        let reads = reads.map(|(family, operation)| (Use::Read, family, stretch(&operation)));
        reads.chain(self.writes().map(|(family, operation)| (Use::Write, family, stretch(&operation))))
    }

    /// The numbers of all families that are read or written, ascending.
    pub(super) fn families(self) -> Vec<FamilyId> {
        let mut families: Vec<_> = self.uses().map(|(_, family, _)| family).collect();
        families.sort_unstable();
        families.dedup();
        families
    }

    /// All that is used of `families`, ascending, and how.
    pub(super) fn used_of<'f>(
        self,
        families: &'f [Arc<Family>],
    ) -> impl Iterator<Item = (Use, &'f Arc<Family>, Stretch<'a>)> {
        self.uses().filter_map(move |(used, id, keys)| {
            let place = families.binary_search_by_key(&id, |family| family.id()).ok()?;
            Some((used, &families[place], keys))
        })
    }

    /// From now on others are kept from what this uses of `families`, whose write locks are held, or which
    /// nobody else has yet.
    pub(super) fn hold(self, families: &[Arc<Family>]) {
        self.used_of(families).for_each(|(used, family, keys)| family.held.hold(used, keys));
    }

    /// Undoes [`hold`](Self::hold) with the same families.
    pub(super) fn let_go(self, families: &[Arc<Family>]) {
        self.used_of(families).for_each(|(used, family, keys)| family.held.let_go(used, keys));
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::txn::operation::encode_put;
    use proptest::prelude::*;

    #[test]
    fn what_was_read_and_written_comes_back() {
        let mut reads = EncodedReads::default();
        reads.key(FamilyId(3), b"read");
        reads.range(FamilyId(3), b"a", None);
        reads.range(FamilyId(3), b"b", Some(b"b"));
        reads.key(FamilyId(3), &vec![7; MAX_KEY_LEN + 1]);
        reads.range(FamilyId(5), &vec![8; MAX_KEY_LEN + 100], Some(&[9]));
        let mut writes = Vec::new();
        encode_put(&mut writes, FamilyId(2), b"key", b"value");
        encode_delete_range(&mut writes, FamilyId(3), b"x", Some(b"z"));
        let value = encode(&reads, &writes);
        let stored = Stored::decode(&value).unwrap();
        let long = vec![8; MAX_KEY_LEN + 1];
        let expected = [
            (Use::Read, FamilyId(3), Stretch::key(b"read")),
            (Use::Read, FamilyId(3), Stretch::range(b"a", None)),
            (Use::Read, FamilyId(5), Stretch::range(&long, Some(&[9]))),
            (Use::Write, FamilyId(2), Stretch::key(b"key")),
            (Use::Write, FamilyId(3), Stretch::range(b"x", Some(b"z"))),
        ];
        assert!(stored.uses().eq(expected));
        assert_eq!(stored.families(), [FamilyId(2), FamilyId(3), FamilyId(5)]);
        assert_eq!(stored.writes().count(), 2);
    }

    #[test]
    fn another_layout_is_refused_by_name_and_a_cut_value_is_nonsense() {
        assert_eq!(Stored::decode(&[2]).unwrap_err().kind(), ErrorKind::NewerFormat);
        assert_eq!(Stored::decode(&[LAYOUT, 0, 200]).unwrap_err().kind(), ErrorKind::NewerFormat);
        let mut writes = Vec::new();
        encode_put(&mut writes, FamilyId(2), b"key", b"value");
        let value = encode(&EncodedReads::default(), &writes);
        for len in (0..2).chain(3..value.len()) {
            assert_eq!(Stored::decode(&value[..len]).unwrap_err().kind(), ErrorKind::Corruption, "{len}");
        }
        let read_is_a_put = [&[LAYOUT, writes.len() as u8], &writes[..]].concat();
        assert_eq!(Stored::decode(&read_is_a_put).unwrap_err().kind(), ErrorKind::Corruption);
    }

    proptest! {
        #![proptest_config(crate::sampling::config(256))]

        #[test]
        fn garbage_never_panics(mut bytes: Vec<u8>) {
            if let Some(first) = bytes.first_mut() {
                *first = LAYOUT;
            }
            if let Ok(stored) = Stored::decode(&bytes) {
                prop_assert!(stored.uses().count() <= bytes.len());
            }
        }
    }
}
