//! As much of the file formats of DESIGN.md as damage and repair need. Written from that description and not
//! shared with the engine: where the two disagree, [`crate::repair`] changes a sound database, which its
//! tests forbid.

use std::collections::BTreeMap;
use std::ops::Range;

/// Where the two slots of the superblock stand in the data file.
pub const SLOTS: [usize; 2] = [0, 32 << 10];
pub const SLOT_LEN: usize = 512;
/// Where file page 0 stands.
pub const EXTENTS_START: usize = 64 << 10;

/// Fields of the superblock.
pub mod superblock {
    pub const PAGE_SIZE: usize = 8 + 4;
    pub const DATABASE_ID: usize = 24;
    pub const CATALOG_COPIES: [usize; 2] = [56, 64];
    pub const CATALOG_LEN: usize = 72;
    pub const CATALOG_NUMBER: usize = 80;
    pub const SUM: usize = 508;
}

/// Fields of a frame of the catalog.
pub mod frame {
    pub const SUM: usize = 0;
    pub const BODY_SUM: usize = 4;
    pub const BODY_LEN: usize = 8;
    pub const KIND: usize = 32;
    pub const HEADER_LEN: usize = 40;
    pub const RECORD: u8 = 2;
}

/// Fields of a page's header, and of a node.
pub mod page {
    pub const SUM: usize = 0;
    pub const FAMILY: usize = 4;
    pub const PAGE: usize = 8;
    pub const LEN: usize = 12;
    pub const KIND: usize = 24;
    pub const LEVEL: usize = 25;
    pub const FEATURES: usize = 26;
    pub const PAGES: usize = 28;
    pub const HEADER_LEN: usize = 32;
    pub const COUNT: usize = 32;
    pub const HEADS: usize = 40;
    pub const CHILD_LEN: usize = 24;
    pub const CHILD_SUM: usize = 8;
    pub const LEAF: u8 = 1;
    pub const INNER: u8 = 2;
    pub const VALUE: u8 = 3;
}

/// Fields of a log segment's header, and of a record.
pub mod log {
    pub const SEGMENT_SUM: usize = 12;
    pub const SEGMENT_ID: usize = 16;
    pub const DATABASE_ID: usize = 24;
    pub const PREVIOUS: usize = 40;
    pub const PREVIOUS_END: usize = 48;
    pub const LAST_SEQUENCE: usize = 56;
    pub const SEGMENT_HEADER_LEN: usize = 128;
    pub const RECORD_SUM: usize = 0;
    pub const PAYLOAD_SUM: usize = 4;
    pub const LEN_AND_KIND: usize = 8;
    pub const SEQUENCE: usize = 16;
    pub const DURABLE: usize = 24;
    pub const RECORD_HEADER_LEN: usize = 40;
}

fn at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    at(bytes, offset).map(u16::from_le_bytes)
}

pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    at(bytes, offset).map(u32::from_le_bytes)
}

pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    at(bytes, offset).map(u64::from_le_bytes)
}

/// As `u64_at`, for a number that is to be a place in memory.
pub fn usize_at(bytes: &[u8], offset: usize) -> Option<usize> {
    u64_at(bytes, offset)?.try_into().ok()
}

/// Puts `field` at `offset`, if there is room for it.
pub fn put(bytes: &mut [u8], offset: usize, field: &[u8]) {
    if let Some(place) = bytes.get_mut(offset..).and_then(|rest| rest.get_mut(..field.len())) {
        place.copy_from_slice(field);
    }
}

pub fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for i in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(7 * i)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The id of the log segment that a file holds; `None` if it holds none.
pub fn segment_id(path: &str) -> Option<u64> {
    u64::from_str_radix(path.strip_prefix("wal/")?.strip_suffix(".log")?, 16).ok()
}

pub fn segment_path(id: u64) -> String {
    format!("wal/{id:016x}.log")
}

/// What the catalog says of a tree of a family: the one that it has, or a delta in front of it.
#[derive(Debug, Clone)]
pub struct FamilyTree {
    pub id: u32,
    /// Page, length in pages, level.
    pub root: (u32, u32, u8),
    /// Where in the catalog the root's checksum stands.
    pub sum_at: usize,
    /// First page, pages, file page.
    pub segments: Vec<(u32, u32, u64)>,
}

impl FamilyTree {
    /// Where in the data file a run of pages stands.
    pub fn place(&self, page: u32, pages: u32, page_size: usize) -> Option<Range<usize>> {
        let holds = |&(first, count, _): &(u32, u32, u64)| {
            page >= first && u64::from(page) + u64::from(pages) <= u64::from(first) + u64::from(count)
        };
        let &(first, _, file_page) = self.segments.iter().find(|segment| holds(segment))?;
        let file_page = usize::try_from(file_page).ok()?.checked_add((page - first) as usize)?;
        let start = file_page.checked_mul(page_size)?.checked_add(EXTENTS_START)?;
        Some(start..start.checked_add((pages as usize).checked_mul(page_size)?)?)
    }
}

/// Parts of the catalog start at multiples of this many bytes.
const CATALOG_BLOCK: usize = 4096;

/// The bodies of the frames in a copy of the catalog, going by the lengths that they say, whatever their
/// checksums.
pub fn frames(copy: &[u8]) -> Vec<Range<usize>> {
    let mut frames = Vec::new();
    let mut at = 0;
    while at + frame::HEADER_LEN <= copy.len() {
        let start = at + frame::HEADER_LEN;
        let end = u32_at(copy, at + frame::BODY_LEN).map_or(usize::MAX, |len| start.saturating_add(len as usize));
        if copy[at + frame::KIND] == 0 || end > copy.len() {
            at = (at + 1).next_multiple_of(CATALOG_BLOCK);
            continue;
        }
        frames.push(start..end);
        at = end.next_multiple_of(8);
    }
    frames
}

/// The trees of families that a copy of the catalog lists, as far as it makes sense. Of a family that it has
/// several times, the last one counts.
pub fn catalog(bytes: &[u8]) -> Vec<FamilyTree> {
    let mut families = BTreeMap::new();
    for body in frames(bytes) {
        if bytes[body.start - frame::HEADER_LEN + frame::KIND] == frame::RECORD {
            let _ = record(&bytes[..body.end], &mut &bytes[body.clone()], &mut families);
        }
    }
    families.into_values().flatten().collect()
}

/// Takes a record off the front of `bytes`, which are the end of `catalog`.
fn record(
    catalog: &[u8],
    bytes: &mut &[u8],
    families: &mut BTreeMap<u32, Vec<FamilyTree>>,
) -> Option<()> {
    let id = varint(bytes)?.try_into().ok()?;
    let (&kind, rest) = bytes.split_first()?;
    *bytes = rest;
    match kind {
        0 => drop(families.remove(&id)),
        1 | 5 => name(bytes)?,
        3 => return Some(()),
        4 => drop(families.insert(id, family(id, catalog.len(), bytes)?)),
        _ => return None,
    }
    Some(())
}

/// Takes a name off the front.
fn name(bytes: &mut &[u8]) -> Option<()> {
    let len = varint(bytes)?.try_into().ok()?;
    *bytes = bytes.get(len..)?;
    Some(())
}

/// Takes what is said of a family off the front. `len` is that of the whole catalog.
fn family(id: u32, len: usize, bytes: &mut &[u8]) -> Option<Vec<FamilyTree>> {
    name(bytes)?;
    // Features to read and to write, page fill, cache share, memtable share, merged through.
    for _ in 0..6 {
        varint(bytes)?;
    }
    let mut roots = Vec::new();
    roots.extend(tree(len, bytes)?);
    for _ in 0..varint(bytes)? {
        roots.extend(tree(len, bytes)?);
    }
    let mut segments = Vec::new();
    for _ in 0..varint(bytes)? {
        let (first, pages) = (varint(bytes)?.try_into().ok()?, varint(bytes)?.try_into().ok()?);
        segments.push((first, pages, varint(bytes)?));
    }
    for _ in 0..varint(bytes)? {
        varint(bytes)?;
        varint(bytes)?;
    }
    let tree = |(root, sum_at)| FamilyTree { id, root, sum_at, segments: segments.clone() };
    Some(roots.into_iter().map(tree).collect())
}

/// Takes a tree off the front: its root and where that one's checksum stands; `Some(None)` if it is empty.
#[allow(clippy::type_complexity, reason = "two parts of what is made of it")]
fn tree(len: usize, bytes: &mut &[u8]) -> Option<Option<((u32, u32, u8), usize)>> {
    let _generation = varint(bytes)?;
    let height = varint(bytes)?;
    if height == 0 {
        return Some(None);
    }
    let (page, pages) = (varint(bytes)?.try_into().ok()?, varint(bytes)?.try_into().ok()?);
    let sum_at = len - bytes.len();
    *bytes = bytes.get(4..)?;
    varint(bytes)?;
    *bytes = bytes.get(1..)?;
    Some(Some(((page, pages, u8::try_from(height - 1).ok()?), sum_at)))
}
