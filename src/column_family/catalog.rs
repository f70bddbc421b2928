//! The catalog: what checkpoints record of every family, in an extent of its own.
//!
//! ```text
//! u32   format of the catalog: 3
//! part  with a whole record of every family
//! parts, each at a multiple of 4096 bytes from the start, of families that changed since
//!
//! part:
//!   varint  next family number
//!   varint  last sequence number assigned when the part was made
//!   varint  records, then the records, see `record.rs`; of one family the last one counts
//!   zeros up to the next multiple of 4096 bytes from the start
//! ```
//!
//! Length and checksum of all parts together stand in the superblock. So a checkpoint writes a part behind the others, which
//! changes no byte that the superblock before it names, and all families are written anew when the extent is full. The superblock
//! may hold one record more, which is newer than all parts: see `db/checkpoint.rs`.
//!
//! Formats 1 and 2 are one part without records' kinds, and without zeros behind it; format 1 knows no deltas.

use std::collections::BTreeMap;

use crate::codec::ids::{FamilyId, SequenceNumber};
use crate::codec::varint;
use crate::column_family::record::{FamilyRecord, Format, Record, take_id, take_sequence};
use crate::error::{Error, ErrorKind, Result};

const FORMAT: u32 = 3;
const FORMAT_WITHOUT_PARTS: u32 = 2;
const FORMAT_WITHOUT_DELTAS: u32 = 1;

/// Parts start at multiples of this many bytes, the largest piece that a disk writes as a whole, so that writing one touches nothing
/// of those before it.
pub(crate) const BLOCK: usize = 4 << 10;

/// What a checkpoint adds to the catalog.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Part {
    pub(crate) next_family: u32,
    pub(crate) last_sequence: SequenceNumber,
    pub(crate) records: Vec<Record>,
}

impl Part {
    /// The part as it stands behind others: whole blocks.
    pub(crate) fn encode(&self) -> Vec<u8> {
        self.encode_behind(Vec::new())
    }

    /// The part as the first of a catalog. Its records are whole.
    pub(crate) fn encode_first(&self) -> Vec<u8> {
        self.encode_behind(FORMAT.to_le_bytes().to_vec())
    }

    fn encode_behind(&self, mut out: Vec<u8>) -> Vec<u8> {
        varint::put(&mut out, u64::from(self.next_family));
        varint::put(&mut out, self.last_sequence.0);
        varint::put(&mut out, self.records.len() as u64);
        for record in &self.records {
            record.encode(&mut out);
        }
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        out
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let next_family = varint::take(bytes)?.try_into().ok()?;
        let last_sequence = take_sequence(bytes)?;
        let count = varint::take(bytes)?;
        let mut records = Vec::new();
        for _ in 0..count {
            let record = Record::decode(bytes)?;
            if record.id().0 >= next_family {
                return None;
            }
            records.push(record);
        }
        Some(Self { next_family, last_sequence, records })
    }
}

/// What the parts say together.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Catalog {
    pub(crate) next_family: u32,
    pub(crate) last_sequence: SequenceNumber,
    pub(crate) families: BTreeMap<FamilyId, FamilyRecord>,
    /// Whether parts can be written behind this one.
    pub(crate) has_parts: bool,
}

fn nonsense() -> Error {
    Error::corruption("the catalog does not make sense").in_file("data")
}

impl Catalog {
    /// Decodes a catalog. Never allocates more than a small multiple of `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let (format, rest) = bytes.split_first_chunk().ok_or_else(nonsense)?;
        let decoded = match u32::from_le_bytes(*format) {
            FORMAT => Self::decode_parts(rest),
            FORMAT_WITHOUT_PARTS => Self::decode_whole(rest, Format::WithoutParts),
            FORMAT_WITHOUT_DELTAS => Self::decode_whole(rest, Format::WithoutDeltas),
            newer if newer > FORMAT => {
                let message =
                    format!("the catalog has format {newer}; this version knows {FORMAT} and older ones");
                return Err(Error::new(ErrorKind::NewerFormat, message).in_file("data"));
            }
            _ => None,
        };
        decoded.ok_or_else(nonsense)
    }

    /// Decodes what follows the format, which counts as part of the first block.
    fn decode_parts(mut bytes: &[u8]) -> Option<Self> {
        let mut catalog = Self { has_parts: true, ..Self::default() };
        let len = size_of_val(&FORMAT) + bytes.len();
        while !bytes.is_empty() {
            let Part { next_family, last_sequence, records } = Part::decode(&mut bytes)?;
            if next_family < catalog.next_family || last_sequence < catalog.last_sequence {
                return None;
            }
            (catalog.next_family, catalog.last_sequence) = (next_family, last_sequence);
            records.into_iter().try_for_each(|record| catalog.take(record))?;
            let at = len - bytes.len();
            let (zeros, rest) = bytes.split_at_checked(at.next_multiple_of(BLOCK) - at)?;
            if zeros.iter().any(|&byte| byte != 0) {
                return None;
            }
            bytes = rest;
        }
        (catalog.next_family > 0).then_some(catalog)
    }

    fn decode_whole(mut bytes: &[u8], format: Format) -> Option<Self> {
        let next_family = varint::take(&mut bytes)?.try_into().ok()?;
        let last_sequence = take_sequence(&mut bytes)?;
        let count = varint::take(&mut bytes)?;
        let mut catalog = Self { next_family, last_sequence, ..Self::default() };
        for _ in 0..count {
            let id = take_id(&mut bytes).filter(|id| id.0 < next_family)?;
            let family = FamilyRecord::decode(id, &mut bytes, format)?;
            if catalog.families.insert(id, family).is_some() {
                return None;
            }
        }
        bytes.is_empty().then_some(catalog)
    }

    /// Applies the one record that the superblock holds.
    pub(crate) fn apply(&mut self, mut bytes: &[u8]) -> Result<Record> {
        let record = Record::decode(&mut bytes).filter(|_| bytes.is_empty()).ok_or_else(nonsense)?;
        let next = record.id().0.checked_add(1).ok_or_else(nonsense)?;
        self.next_family = self.next_family.max(next);
        self.take(record.clone()).ok_or_else(nonsense)?;
        Ok(record)
    }

    /// `None` if the record is of a family that there is not.
    fn take(&mut self, record: Record) -> Option<()> {
        match record {
            Record::Dropped(id) => self.families.remove(&id).map(drop),
            Record::Renamed(id, name) => self.families.get_mut(&id).map(|family| family.name = name),
            Record::Changed(id, options) => self.families.get_mut(&id).map(|family| family.options = options),
            Record::Whole(family) => {
                self.families.insert(family.id, *family);
                Some(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btree::Tree;
    use crate::codec::ids::PageId;
    use crate::column_family::options::FamilyOptions;
    use crate::page::PagePointer;
    use crate::segment::{PageSet, Segment};

    fn empty(id: u32, name: &str) -> Record {
        Record::Whole(Box::new(FamilyRecord {
            id: FamilyId(id),
            name: name.into(),
            options: FamilyOptions::default(),
            merged_through: SequenceNumber(0),
            tree: Tree::default(),
            deltas: Vec::new(),
            segments: Vec::new(),
            reachable: PageSet::default(),
        }))
    }

    fn full(id: u32) -> Record {
        let root = PagePointer { page: PageId(7), pages: 1, checksum: 0xdead_beef };
        let mut reachable = PageSet::default();
        reachable.insert_run(PageId(3), 5);
        let delta = Tree { root: Some(root), height: 1, entries: 2, owns_values: false, generation: 10 };
        Record::Whole(Box::new(FamilyRecord {
            id: FamilyId(id),
            name: "tokens \u{1f3db}".into(),
            options: FamilyOptions::default().page_fill(90),
            merged_through: SequenceNumber(1 << 40),
            tree: Tree { root: Some(root), height: 3, entries: 1000, owns_values: true, generation: 9 },
            deltas: vec![delta],
            segments: vec![Segment { first_page: 0, pages: 8, file_page: 12 }],
            reachable,
        }))
    }

    fn part(next_family: u32, last: u64, records: Vec<Record>) -> Part {
        Part { next_family, last_sequence: SequenceNumber(last), records }
    }

    fn example() -> Vec<u8> {
        part(6, 77, vec![full(2), empty(5, "empty")]).encode_first()
    }

    fn names(catalog: &Catalog) -> Vec<(u32, &str)> {
        catalog.families.values().map(|family| (family.id.0, family.name.as_str())).collect()
    }

    #[test]
    fn a_catalog_comes_back_as_it_was() {
        let catalog = Catalog::decode(&example()).unwrap();
        assert_eq!((catalog.next_family, catalog.last_sequence), (6, SequenceNumber(77)));
        let records: Vec<_> =
            catalog.families.into_values().map(|family| Record::Whole(Box::new(family))).collect();
        assert_eq!(records, [full(2), empty(5, "empty")]);
    }

    #[test]
    fn later_parts_and_the_record_of_the_superblock_count_more() {
        let mut bytes = example();
        let renamed = Record::Renamed(FamilyId(2), "renamed".into());
        bytes.extend(part(8, 78, vec![renamed, empty(6, "a"), empty(7, "b")]).encode());
        let other = FamilyOptions::default().page_fill(70).cache_share(3).memtable_share(1000);
        let changed = Record::Changed(FamilyId(2), other.clone());
        bytes.extend(part(8, 80, vec![Record::Dropped(FamilyId(5)), full(6), changed]).encode());
        assert_eq!(bytes.len(), 3 * BLOCK);
        let mut catalog = Catalog::decode(&bytes).unwrap();
        assert_eq!((catalog.next_family, catalog.last_sequence), (8, SequenceNumber(80)));
        assert_eq!(names(&catalog), [(2, "renamed"), (6, "tokens \u{1f3db}"), (7, "b")]);
        assert_eq!(catalog.families[&FamilyId(2)].options, other);
        let mut record = Vec::new();
        empty(9, "newest").encode(&mut record);
        assert_eq!(catalog.apply(&record).unwrap(), empty(9, "newest"));
        assert_eq!((catalog.next_family, names(&catalog).len()), (10, 4));
        assert!(catalog.apply(&[4, 0]).is_err(), "there is no family 4 to drop");
        assert!(catalog.apply(&[7, 0, 0]).is_err(), "something follows the record");
    }

    #[test]
    fn parts_that_contradict_those_before_are_refused() {
        let behind = |next: Part| Catalog::decode(&[example(), next.encode()].concat());
        assert!(behind(part(6, 77, Vec::new())).is_ok());
        assert!(behind(part(5, 77, Vec::new())).is_err(), "numbers of families are given once");
        assert!(behind(part(6, 76, Vec::new())).is_err(), "sequence numbers grow");
        assert!(behind(part(6, 77, vec![Record::Dropped(FamilyId(3))])).is_err());
        assert!(behind(part(6, 77, vec![Record::Renamed(FamilyId(3), "c".into())])).is_err());
        assert!(behind(part(6, 77, vec![empty(6, "c")])).is_err(), "the next family has number 6");
        let mut bytes = example();
        bytes[BLOCK - 1] = 1;
        assert!(Catalog::decode(&bytes).is_err(), "something stands behind the part");
    }

    #[test]
    fn catalogs_of_older_formats_are_read() {
        for format in [FORMAT_WITHOUT_DELTAS, FORMAT_WITHOUT_PARTS] {
            let mut bytes = format.to_le_bytes().to_vec();
            // Next family 2, last sequence 9, one family: number 1, named "a"; its options; merged through 7; an empty tree of
            // generation 3; no deltas, no segments, no pages.
            bytes.extend([2, 9, 1, 1, 1, b'a']);
            FamilyOptions::default().encode(&mut bytes);
            bytes.extend([7, 3, 0]);
            if format == FORMAT_WITHOUT_PARTS {
                bytes.push(0);
            }
            bytes.push(0);
            PageSet::default().encode(&mut bytes);
            let catalog = Catalog::decode(&bytes).unwrap();
            let family = &catalog.families[&FamilyId(1)];
            assert_eq!(family.tree, Tree { generation: 3, ..Tree::default() });
            assert_eq!(family.merged_through, SequenceNumber(7));
            assert!(family.deltas.is_empty() && !catalog.has_parts);
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let mut bytes = example();
        bytes[0] += 1;
        assert_eq!(Catalog::decode(&bytes).unwrap_err().kind(), ErrorKind::NewerFormat);
    }

    #[test]
    fn a_cut_or_extended_catalog_is_refused() {
        let bytes = example();
        for len in 0..bytes.len() {
            assert!(Catalog::decode(&bytes[..len]).is_err(), "cut at {len}");
        }
        assert!(Catalog::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn flipped_bits_never_panic() {
        let bytes = example();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let _ = Catalog::decode(&damaged);
        }
    }
}
