//! The catalog: what a checkpoint records of every family. One blob in an extent of its own.
//!
//! ```text
//! u32     format of the catalog: 2; 1 knows no deltas and says nothing of them
//! varint  next family number
//! varint  last sequence number assigned when the checkpoint was made
//! varint  families, then for each, by number:
//!   varint  number
//!   varint  length of the name, then the name (UTF-8)
//!   varint  page fill, cache share, memtable share
//!   varint  merged through: every commit up to here that touched the family is in its trees
//!   tree
//!   varint  deltas in front of it, then for each, the newest first: tree
//!   varint  segments, then for each: varint first page, pages, file page
//!   pages reachable from the roots: a page set, see `segment/page_set.rs`
//!
//! tree:
//!   varint  generation
//!   varint  height, 0 for an empty tree; otherwise
//!     varint  root page, length in pages; u32 checksum; varint entries; u8 whether it owns value runs
//! ```
//!
//! Its checksum stands in the superblock.

use crate::btree::Tree;
use crate::codec::ids::{BEYOND_COUNTING, FamilyId, PageId, SequenceNumber};
use crate::codec::varint;
use crate::column_family::options::FamilyOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::page::PagePointer;
use crate::segment::{PageSet, Segment};

const FORMAT: u32 = 2;
const FORMAT_WITHOUT_DELTAS: u32 = 1;
/// More deltas than any family comes to: each takes memory when a family is read.
const MOST_DELTAS: u64 = 256;

fn take_sequence(bytes: &mut &[u8]) -> Option<SequenceNumber> {
    varint::take(bytes).filter(|&number| number < BEYOND_COUNTING).map(SequenceNumber)
}

/// What the catalog says of one family.
#[derive(Debug, PartialEq)]
pub(crate) struct FamilyRecord {
    pub(crate) id: FamilyId,
    pub(crate) name: String,
    pub(crate) options: FamilyOptions,
    pub(crate) merged_through: SequenceNumber,
    pub(crate) tree: Tree,
    /// Newest first; none is empty.
    pub(crate) deltas: Vec<Tree>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) reachable: PageSet,
}

/// What a checkpoint records.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Catalog {
    pub(crate) next_family: u32,
    pub(crate) last_sequence: SequenceNumber,
    /// By number, ascending.
    pub(crate) families: Vec<FamilyRecord>,
}

impl Catalog {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&FORMAT.to_le_bytes());
        varint::put(&mut out, u64::from(self.next_family));
        varint::put(&mut out, self.last_sequence.0);
        varint::put(&mut out, self.families.len() as u64);
        for family in &self.families {
            family.encode(&mut out);
        }
        out
    }

    /// Decodes what [`encode`](Self::encode) made. Never allocates more than a small multiple of `bytes`.
    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self> {
        let format = bytes.first_chunk().map_or(0, |format| u32::from_le_bytes(*format));
        if format > FORMAT {
            let message =
                format!("the catalog has format {format}; this version knows {FORMAT} and older ones");
            return Err(Error::new(ErrorKind::NewerFormat, message).in_file("data"));
        }
        let bytes = &mut bytes;
        Self::decode_all(bytes)
            .ok_or_else(|| Error::corruption("the catalog does not make sense").in_file("data"))
    }

    fn decode_all(bytes: &mut &[u8]) -> Option<Self> {
        let (format, rest) = bytes.split_first_chunk::<4>()?;
        *bytes = rest;
        let format = u32::from_le_bytes(*format);
        if ![FORMAT, FORMAT_WITHOUT_DELTAS].contains(&format) {
            return None;
        }
        let next_family = varint::take(bytes)?.try_into().ok()?;
        let last_sequence = take_sequence(bytes)?;
        let count = varint::take(bytes)?;
        let mut families: Vec<FamilyRecord> = Vec::new();
        for _ in 0..count {
            let family = FamilyRecord::decode(bytes, format)?;
            let in_order = families.last().is_none_or(|last| last.id < family.id);
            if !in_order || family.id.0 == 0 || family.id.0 >= next_family {
                return None;
            }
            families.push(family);
        }
        bytes.is_empty().then_some(Self { next_family, last_sequence, families })
    }
}

impl FamilyRecord {
    fn encode(&self, out: &mut Vec<u8>) {
        varint::put(out, u64::from(self.id.0));
        varint::put(out, self.name.len() as u64);
        out.extend_from_slice(self.name.as_bytes());
        self.options.encode(out);
        varint::put(out, self.merged_through.0);
        encode_tree(&self.tree, out);
        varint::put(out, self.deltas.len() as u64);
        for delta in &self.deltas {
            encode_tree(delta, out);
        }
        varint::put(out, self.segments.len() as u64);
        for segment in &self.segments {
            varint::put(out, u64::from(segment.first_page));
            varint::put(out, u64::from(segment.pages));
            varint::put(out, segment.file_page);
        }
        self.reachable.encode(out);
    }

    fn decode(bytes: &mut &[u8], format: u32) -> Option<Self> {
        let id = FamilyId(varint::take(bytes)?.try_into().ok()?);
        let name_len = varint::take(bytes)?.try_into().ok()?;
        let (name, rest) = bytes.split_at_checked(name_len)?;
        *bytes = rest;
        let name = std::str::from_utf8(name).ok()?.to_owned();
        let options = FamilyOptions::decode(bytes)?;
        let merged_through = take_sequence(bytes)?;
        let tree = decode_tree(bytes)?;
        let count = if format == FORMAT { varint::take(bytes)? } else { 0 };
        let mut deltas = Vec::new();
        if count > MOST_DELTAS {
            return None;
        }
        for _ in 0..count {
            deltas.push(decode_tree(bytes).filter(|delta| delta.root.is_some())?);
        }
        let count = varint::take(bytes)?;
        let mut segments = Vec::new();
        let mut pages_end = 0u64;
        for _ in 0..count {
            let segment = Segment {
                first_page: varint::take(bytes)?.try_into().ok()?,
                pages: varint::take(bytes)?.try_into().ok()?,
                file_page: varint::take(bytes)?,
            };
            pages_end = pages_end.max(u64::from(segment.first_page) + u64::from(segment.pages));
            segments.push(segment);
        }
        let reachable = PageSet::decode(bytes, pages_end)?;
        Some(Self { id, name, options, merged_through, tree, deltas, segments, reachable })
    }
}

fn encode_tree(tree: &Tree, out: &mut Vec<u8>) {
    varint::put(out, tree.generation);
    match tree.root {
        None => varint::put(out, 0),
        Some(root) => {
            varint::put(out, u64::from(tree.height));
            varint::put(out, u64::from(root.page.0));
            varint::put(out, u64::from(root.pages));
            out.extend_from_slice(&root.checksum.to_le_bytes());
            varint::put(out, tree.entries);
            out.push(u8::from(tree.owns_values));
        }
    }
}

fn decode_tree(bytes: &mut &[u8]) -> Option<Tree> {
    let generation = varint::take(bytes).filter(|&generation| generation < BEYOND_COUNTING)?;
    let height: u8 = varint::take(bytes)?.try_into().ok()?;
    if height == 0 {
        return Some(Tree { generation, ..Tree::default() });
    }
    let page = PageId(varint::take(bytes)?.try_into().ok()?);
    let pages = varint::take(bytes)?.try_into().ok()?;
    let (checksum, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    let root = PagePointer { page, pages, checksum: u32::from_le_bytes(*checksum) };
    let entries = varint::take(bytes)?;
    let (&owns_values, rest) = bytes.split_first()?;
    *bytes = rest;
    let owns_values = match owns_values {
        0 => false,
        1 => true,
        _ => return None,
    };
    Some(Tree { root: Some(root), height, entries, owns_values, generation })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Catalog {
        let root = PagePointer { page: PageId(7), pages: 1, checksum: 0xdead_beef };
        let mut reachable = PageSet::default();
        reachable.insert_run(PageId(3), 5);
        let full = FamilyRecord {
            id: FamilyId(2),
            name: "tokens \u{1f3db}".into(),
            options: FamilyOptions::default().page_fill(90),
            merged_through: SequenceNumber(1 << 40),
            tree: Tree { root: Some(root), height: 3, entries: 1000, owns_values: true, generation: 9 },
            deltas: vec![Tree {
                root: Some(root),
                height: 1,
                entries: 2,
                owns_values: false,
                generation: 10,
            }],
            segments: vec![Segment { first_page: 0, pages: 8, file_page: 12 }],
            reachable,
        };
        let empty = FamilyRecord {
            id: FamilyId(5),
            name: "empty".into(),
            options: FamilyOptions::default(),
            merged_through: SequenceNumber(0),
            tree: Tree::default(),
            deltas: Vec::new(),
            segments: Vec::new(),
            reachable: PageSet::default(),
        };
        Catalog { next_family: 6, last_sequence: SequenceNumber(77), families: vec![full, empty] }
    }

    #[test]
    fn a_catalog_comes_back_as_it_was() {
        let catalog = example();
        assert_eq!(Catalog::decode(&catalog.encode()).unwrap(), catalog);
    }

    #[test]
    fn a_catalog_without_deltas_is_read() {
        let mut bytes = FORMAT_WITHOUT_DELTAS.to_le_bytes().to_vec();
        // Next family 2, last sequence 9, one family: number 1, named "a"; its options; merged through 7; an empty tree of
        // generation 3; no segments, no pages.
        bytes.extend([2, 9, 1, 1, 1, b'a']);
        FamilyOptions::default().encode(&mut bytes);
        bytes.extend([7, 3, 0, 0]);
        PageSet::default().encode(&mut bytes);
        let catalog = Catalog::decode(&bytes).unwrap();
        assert_eq!(catalog.families[0].tree, Tree { generation: 3, ..Tree::default() });
        assert_eq!(catalog.families[0].merged_through, SequenceNumber(7));
        assert!(catalog.families[0].deltas.is_empty());
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let mut bytes = example().encode();
        bytes[0] += 1;
        assert_eq!(Catalog::decode(&bytes).unwrap_err().kind(), ErrorKind::NewerFormat);
    }

    #[test]
    fn a_cut_or_extended_catalog_is_refused() {
        let bytes = example().encode();
        for len in 0..bytes.len() {
            assert!(Catalog::decode(&bytes[..len]).is_err(), "cut at {len}");
        }
        assert!(Catalog::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn flipped_bits_never_panic() {
        let bytes = example().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let _ = Catalog::decode(&damaged);
        }
    }
}
