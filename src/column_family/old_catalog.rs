//! Catalogs of formats 1 to 3, which are read and not written.
//!
//! ```text
//! u32   format of the catalog
//! part  with a whole record of every family
//! format 3: parts, each at a multiple of 4096 bytes from the start, of families that changed since
//!
//! part:
//!   varint  next family number
//!   varint  last sequence number assigned when the part was made
//!   varint  records, then the records, see `record.rs`; of one family the last one counts
//!   format 3: zeros up to the next multiple of 4096 bytes from the start
//! ```
//!
//! They stand in one place, and the superblock has the checksum of all of it. Records of formats 1 and 2 have
//! no kind and are whole; those of format 1 know no deltas.

use std::collections::BTreeMap;

use crate::codec::features::unknown;
use crate::codec::ids::{FamilyId, SequenceNumber};
use crate::codec::varint;
use crate::column_family::record::{FamilyRecord, Format, Record, nonsense, take_id, take_sequence};
use crate::error::Result;

const WITH_PARTS: u32 = 3;
const WITHOUT_PARTS: u32 = 2;
const WITHOUT_DELTAS: u32 = 1;

const BLOCK: usize = 4 << 10;

/// What such a catalog says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct OldCatalog {
    pub(super) next_family: u32,
    pub(super) last_sequence: SequenceNumber,
    pub(super) families: BTreeMap<FamilyId, FamilyRecord>,
}

impl OldCatalog {
    /// Never allocates more than a small multiple of `bytes`.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let (format, rest) = bytes.split_first_chunk().ok_or_else(nonsense)?;
        match u32::from_le_bytes(*format) {
            WITH_PARTS => Self::decode_parts(rest),
            WITHOUT_PARTS => Self::decode_whole(rest, Format::WithoutFeatures),
            WITHOUT_DELTAS => Self::decode_whole(rest, Format::WithoutDeltas),
            newer if newer > WITH_PARTS => {
                Err(unknown(format_args!("the catalog has format {newer}")).in_file("data"))
            }
            _ => Err(nonsense()),
        }
    }

    /// Decodes what follows the format, which counts as part of the first block.
    fn decode_parts(mut bytes: &[u8]) -> Result<Self> {
        let mut catalog = Self::default();
        let len = size_of::<u32>() + bytes.len();
        while !bytes.is_empty() {
            catalog.decode_part(&mut bytes)?;
            let at = len - bytes.len();
            let zeros = bytes.split_at_checked(at.next_multiple_of(BLOCK) - at);
            let (zeros, rest) = zeros.ok_or_else(nonsense)?;
            if zeros.iter().any(|&byte| byte != 0) {
                return Err(nonsense());
            }
            bytes = rest;
        }
        if catalog.next_family > 0 { Ok(catalog) } else { Err(nonsense()) }
    }

    fn decode_part(&mut self, bytes: &mut &[u8]) -> Result<()> {
        let (next_family, last_sequence, count) = take_numbers(bytes).ok_or_else(nonsense)?;
        if next_family < self.next_family || last_sequence < self.last_sequence {
            return Err(nonsense());
        }
        (self.next_family, self.last_sequence) = (next_family, last_sequence);
        for _ in 0..count {
            let record = Record::decode(bytes)?;
            if record.id().0 >= next_family {
                return Err(nonsense());
            }
            match record {
                Record::Dropped(id) => drop(self.families.remove(&id).ok_or_else(nonsense)?),
                Record::Renamed(id, name) => {
                    self.families.get_mut(&id).ok_or_else(nonsense)?.name = name;
                }
                Record::Changed(id, options) => {
                    self.families.get_mut(&id).ok_or_else(nonsense)?.set_options(options);
                }
                Record::Whole(family) => drop(self.families.insert(family.id, *family)),
                Record::Lost(..) => return Err(nonsense()),
            }
        }
        Ok(())
    }

    fn decode_whole(mut bytes: &[u8], format: Format) -> Result<Self> {
        let (next_family, last_sequence, count) = take_numbers(&mut bytes).ok_or_else(nonsense)?;
        let mut catalog = Self { next_family, last_sequence, ..Self::default() };
        for _ in 0..count {
            let id = take_id(&mut bytes).filter(|id| id.0 < next_family).ok_or_else(nonsense)?;
            let family = FamilyRecord::decode(id, &mut bytes, format)?;
            if catalog.families.insert(id, family).is_some() {
                return Err(nonsense());
            }
        }
        if bytes.is_empty() { Ok(catalog) } else { Err(nonsense()) }
    }
}

/// What a part begins with: next family, last sequence number, how many records.
fn take_numbers(bytes: &mut &[u8]) -> Option<(u32, SequenceNumber, u64)> {
    let next_family = varint::take(bytes)?.try_into().ok()?;
    Some((next_family, take_sequence(bytes)?, varint::take(bytes)?))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::btree::Tree;
    use crate::column_family::options::FamilyOptions;
    use crate::error::ErrorKind;
    use crate::segment::PageSet;

    /// One family, number 1, named "a", as a record of `format` that is not the first to have a kind.
    fn family(format: u32) -> Vec<u8> {
        let mut bytes = vec![1];
        if format == WITH_PARTS {
            bytes.push(2);
        }
        bytes.extend([1, b'a']);
        FamilyOptions::default().encode(&mut bytes);
        // Merged through 7; an empty tree of generation 3; no deltas, no segments, no pages.
        bytes.extend([7, 3, 0]);
        if format != WITHOUT_DELTAS {
            bytes.push(0);
        }
        bytes.push(0);
        PageSet::default().encode(&mut bytes);
        bytes
    }

    fn example(format: u32) -> Vec<u8> {
        let mut bytes = format.to_le_bytes().to_vec();
        bytes.extend([2, 9, 1]);
        bytes.extend(family(format));
        if format == WITH_PARTS {
            bytes.resize(BLOCK, 0);
            // The family gets another name, and number 2 joins it and is dropped.
            bytes.extend([3, 10, 3, 1, 1, 1, b'b']);
            bytes.extend([&[2][..], &family(format)[1..]].concat());
            bytes.extend([2, 0]);
            bytes.resize(2 * BLOCK, 0);
        }
        bytes
    }

    #[test]
    fn catalogs_of_every_old_format_are_read() {
        for format in 1..=3 {
            let catalog = OldCatalog::decode(&example(format)).unwrap();
            let family = &catalog.families[&FamilyId(1)];
            assert_eq!(catalog.families.len(), 1);
            assert_eq!(family.tree, Tree { generation: 3, ..Tree::default() });
            assert_eq!((family.merged_through, family.deltas.len()), (SequenceNumber(7), 0));
            let with_parts = format == WITH_PARTS;
            assert_eq!(family.name, if with_parts { "b" } else { "a" });
            assert_eq!(catalog.next_family, if with_parts { 3 } else { 2 });
            assert_eq!(catalog.last_sequence, SequenceNumber(if with_parts { 10 } else { 9 }));
        }
    }

    #[test]
    fn a_format_that_was_never_is_refused() {
        for (format, kind) in [(0, ErrorKind::Corruption), (4, ErrorKind::NewerFormat)] {
            let mut bytes = example(3);
            bytes[0] = format;
            assert_eq!(OldCatalog::decode(&bytes).unwrap_err().kind(), kind);
        }
    }

    #[test]
    fn a_cut_or_extended_catalog_is_refused_and_flipped_bits_never_panic() {
        for format in 1..=3 {
            let bytes = example(format);
            for len in 0..bytes.len() {
                // Of whole parts the last may be missing.
                let is_whole = format == WITH_PARTS && len == BLOCK;
                assert_eq!(
                    OldCatalog::decode(&bytes[..len]).is_ok(),
                    is_whole,
                    "format {format} cut at {len}"
                );
            }
            assert!(OldCatalog::decode(&[&bytes[..], &[1]].concat()).is_err());
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let _ = OldCatalog::decode(&damaged);
            }
        }
    }
}
