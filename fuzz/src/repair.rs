//! Makes checksums right again, so that damage is met by what lies behind them.
//!
//! In the data file everything is followed from the superblock down, as the damaged bytes say, and summed on
//! the way back up: a page's checksum stands in whatever refers to it, up to the catalog, whose frames have
//! their own. No page is summed twice, so that the walk ends where pointers form a ring.

use std::collections::HashMap;
use std::ops::Range;

use crate::format::{
    EXTENTS_START, FamilyTree, SLOT_LEN, SLOTS, catalog, frame, frames, log, page, put, segment_id,
    superblock, u16_at, u32_at, u64_at, usize_at, varint,
};
use crate::sample::Files;

/// What is repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repairs {
    /// Checksums of pages and what repeats them.
    pub pages: bool,
    /// With `pages`: what else a page's header must say to be taken for what its pointer names, and the zeros
    /// behind its content.
    pub headers: bool,
    /// The checksums of the catalog, in both copies.
    pub catalog: bool,
    /// Those of the superblock's slots.
    pub superblock: bool,
    /// Those of the headers of log segments.
    pub segments: bool,
    /// Those of log records and their payloads.
    pub records: bool,
}

impl Repairs {
    pub const ALL: Self =
        Self { pages: true, headers: true, catalog: true, superblock: true, segments: true, records: true };

    pub const NONE: Self = Self {
        pages: false,
        headers: false,
        catalog: false,
        superblock: false,
        segments: false,
        records: false,
    };

    /// One for each byte; 0 is none and 255 is all.
    pub fn of(byte: u8) -> Self {
        let bit = |n: u8| byte >> n & 1 == 1;
        Self {
            pages: bit(0),
            headers: bit(0) && bit(1),
            catalog: bit(2),
            superblock: bit(3),
            segments: bit(4),
            records: bit(5),
        }
    }
}

/// Repairs the files of a database. Returns where in the data file every page that was reached stands.
pub fn repair(files: &mut Files, repairs: Repairs) -> Vec<Range<usize>> {
    let mut pages = Vec::new();
    for (path, bytes) in files {
        match segment_id(path) {
            Some(id) => repair_segment(bytes, id, repairs),
            None => pages = repair_data(bytes, repairs),
        }
    }
    pages
}

fn crc32(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

fn repair_data(data: &mut [u8], repairs: Repairs) -> Vec<Range<usize>> {
    let mut walk = Walk { repairs, page_size: 0, sums: HashMap::new() };
    for slot in SLOTS {
        if data.len() < slot + SLOT_LEN {
            continue;
        }
        let word = u32_at(data, slot + superblock::PAGE_SIZE);
        walk.page_size = word.filter(|size| (4096..=32 << 10).contains(size)).unwrap_or(4096) as usize;
        for extent in catalog_extents(data, slot, walk.page_size) {
            for tree in catalog(&data[extent.clone()]) {
                let (page, pages, level) = tree.root;
                if let Some(sum) = walk.page(data, &tree, page, pages, level) {
                    put(data, extent.start + tree.sum_at, &sum.to_le_bytes());
                }
            }
            if repairs.catalog {
                let number = u64_at(data, slot + superblock::CATALOG_NUMBER).expect("a whole slot");
                repair_catalog(&mut data[extent], number);
            }
        }
        if repairs.superblock {
            let sum = crc32(&[&data[slot..slot + superblock::SUM]]);
            put(data, slot + superblock::SUM, &sum.to_le_bytes());
        }
    }
    walk.sums.into_values().map(|met| met.0).collect()
}

/// Where the copies of the catalog stand that the superblock in `slot` names.
pub fn catalog_extents(data: &[u8], slot: usize, page_size: usize) -> Vec<Range<usize>> {
    let extent = |at: usize| {
        let page = usize_at(data, slot + at)?;
        let start = page.checked_mul(page_size)?.checked_add(EXTENTS_START)?;
        let end = start.checked_add(usize_at(data, slot + superblock::CATALOG_LEN)?)?;
        (end <= data.len()).then_some(start..end)
    };
    superblock::CATALOG_COPIES.into_iter().filter_map(extent).collect()
}

/// Repairs the frames of a copy of the catalog with the number `number`.
fn repair_catalog(copy: &mut [u8], number: u64) {
    for body in frames(copy) {
        let start = body.start - frame::HEADER_LEN;
        let sum = crc32(&[&copy[body.clone()]]);
        put(copy, start + frame::BODY_SUM, &sum.to_le_bytes());
        let place = [number.to_le_bytes(), (start as u64).to_le_bytes()];
        let sum = crc32(&[&copy[start + frame::BODY_SUM..body.start], &place[0], &place[1]]);
        put(copy, start + frame::SUM, &sum.to_le_bytes());
    }
}

struct Walk {
    repairs: Repairs,
    page_size: usize,
    /// By the start of a page or run: where it stands, and its checksum once that is known.
    sums: HashMap<usize, (Range<usize>, Option<u32>)>,
}

impl Walk {
    /// Repairs a node and all below it, and returns its checksum, unless that is not to be changed.
    fn page(&mut self, data: &mut [u8], tree: &FamilyTree, page: u32, pages: u32, level: u8) -> Option<u32> {
        let place = self.enter(data, tree, page, pages)?;
        let place = match place {
            Ok(place) => place,
            Err(sum) => return sum,
        };
        let count = usize::from(u16_at(data, place.start + page::COUNT)?);
        let width = if u32_at(data, place.start + page::PAGES)? > 1 { 4 } else { 2 };
        let offsets = place.start + page::HEADS + 4 * count;
        if level > 0 {
            let children = offsets + width * (count + 1);
            for child in (0..count).map(|i| children + page::CHILD_LEN * i) {
                if child + page::CHILD_LEN > place.end {
                    break;
                }
                let (page, pages) = (u32_at(data, child)?, u32_at(data, child + 4)? & !(1 << 31));
                if let Some(sum) = self.page(data, tree, page, pages, level - 1) {
                    put(data, child + page::CHILD_SUM, &sum.to_le_bytes());
                }
            }
        } else {
            let offset = |data: &[u8], i: usize| match width {
                2 => u16_at(data, offsets + 2 * i).map(usize::from),
                _ => u32_at(data, offsets + 4 * i).map(|offset| offset as usize),
            };
            for i in 0..count {
                if offsets + width * (i + 2) > place.end {
                    break;
                }
                let (start, end) = (offset(data, i)?, offset(data, i + 1)?);
                let Some(entry) = data[place.clone()].get(start..end) else { continue };
                let Some(pointer) = value_pointer(entry) else { continue };
                let pointer = place.start + end - (entry.len() - pointer);
                let (page, pages) = (u32_at(data, pointer)?, u32_at(data, pointer + 4)?);
                if let Some(sum) = self.value(data, tree, page, pages) {
                    put(data, pointer + 8, &sum.to_le_bytes());
                }
            }
        }
        let kind = if level == 0 { page::LEAF } else { page::INNER };
        self.seal(data, place, tree.id, page, pages, kind, level)
    }

    fn value(&mut self, data: &mut [u8], tree: &FamilyTree, page: u32, pages: u32) -> Option<u32> {
        match self.enter(data, tree, page, pages)? {
            Ok(place) => self.seal(data, place, tree.id, page, pages, page::VALUE, 0),
            Err(sum) => sum,
        }
    }

    /// Where a run of pages stands, if this is the first time that it is met; `Err` with its checksum if it
    /// is not.
    fn enter(
        &mut self,
        data: &[u8],
        tree: &FamilyTree,
        page: u32,
        pages: u32,
    ) -> Option<Result<Range<usize>, Option<u32>>> {
        let place = tree.place(page, pages, self.page_size)?;
        if pages == 0 || place.end > data.len() {
            return None;
        }
        if let Some((_, sum)) = self.sums.get(&place.start) {
            return Some(Err(*sum));
        }
        self.sums.insert(place.start, (place.clone(), None));
        Some(Ok(place))
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a header")]
    fn seal(
        &mut self,
        data: &mut [u8],
        place: Range<usize>,
        family: u32,
        page: u32,
        pages: u32,
        kind: u8,
        level: u8,
    ) -> Option<u32> {
        if !self.repairs.pages {
            return None;
        }
        let bytes = &mut data[place.clone()];
        if self.repairs.headers {
            put(bytes, page::FAMILY, &family.to_le_bytes());
            put(bytes, page::PAGE, &page.to_le_bytes());
            put(bytes, page::PAGES, &pages.to_le_bytes());
            put(bytes, page::KIND, &[kind, level, 0, 0]);
        }
        let len = u32_at(bytes, page::LEN)? as usize;
        let own = if bytes[page::KIND] == page::VALUE { page::HEADER_LEN } else { 0 };
        let mut end = own + len;
        if self.repairs.headers && !(page::HEADER_LEN..=bytes.len()).contains(&end) {
            end = bytes.len();
            put(bytes, page::LEN, &((end - own) as u32).to_le_bytes());
        }
        if self.repairs.headers {
            bytes[end..].fill(0);
        }
        let sum = crc32(&[bytes.get(page::FAMILY..end)?]);
        put(bytes, page::SUM, &sum.to_le_bytes());
        self.sums.insert(place.start, (place, Some(sum)));
        Some(sum)
    }
}

/// Where in a leaf's entry the pointer to a value run stands, if it holds one.
fn value_pointer(entry: &[u8]) -> Option<usize> {
    let mut rest = entry;
    let key = usize::try_from(varint(&mut rest)?).ok()?;
    let tag = varint(&mut rest)?;
    let value = rest.get(key..)?;
    (tag == (16 << 2 | 1) && value.len() == 16).then(|| entry.len() - 16)
}

/// Repairs the log segment `id`, record after record for as long as their lengths lead to places in the file.
pub fn repair_segment(bytes: &mut [u8], id: u64, repairs: Repairs) {
    if repairs.segments && bytes.len() >= log::SEGMENT_HEADER_LEN {
        let sum = crc32(&[&bytes[..log::SEGMENT_SUM], &bytes[log::SEGMENT_ID..log::SEGMENT_HEADER_LEN]]);
        put(bytes, log::SEGMENT_SUM, &sum.to_le_bytes());
    }
    if !repairs.records {
        return;
    }
    for record in records(bytes) {
        let header = record.start + log::RECORD_HEADER_LEN;
        let len = u64_at(bytes, record.start + log::LEN_AND_KIND).expect("a whole header") & ((1 << 56) - 1);
        let sum = crc32(&[&bytes[header..header + len as usize]]);
        put(bytes, record.start + log::PAYLOAD_SUM, &sum.to_le_bytes());
        let place = [id.to_le_bytes(), (record.start as u64).to_le_bytes()];
        let sum = crc32(&[&bytes[record.start + log::PAYLOAD_SUM..header], &place[0], &place[1]]);
        put(bytes, record.start + log::RECORD_SUM, &sum.to_le_bytes());
    }
}

/// Where the records of a segment stand, going by the lengths that they say, whatever their checksums.
pub fn records(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut records = Vec::new();
    let mut start = log::SEGMENT_HEADER_LEN;
    while let Some(word) = u64_at(bytes, start + log::LEN_AND_KIND) {
        let end = usize::try_from(word & ((1 << 56) - 1)).ok().and_then(|len| {
            start.checked_add(log::RECORD_HEADER_LEN)?.checked_add(len.checked_next_multiple_of(8)?)
        });
        match end.filter(|&end| word >> 56 == 1 && end <= bytes.len()) {
            Some(end) => {
                records.push(start..end);
                start = end;
            }
            None => break,
        }
    }
    records
}
