//! The catalog: what checkpoints record of every family, in two copies, each in an extent of its own.
//!
//! ```text
//! part   a whole record of every family
//! parts, each at a multiple of 4096 bytes from the start, of families that changed since
//!
//! part:
//!   frames with lists of names: of each record the family, what became of it, and its name
//!   frames with records, see `record.rs`; of one family the last one counts
//!   zeros up to the next multiple of 4096 bytes from the start
//!
//! list of names, for each record from the one on that the frame says:
//!   varint  number of the family
//!   u8      0 it is dropped, 1 it has another name, 2 anything else, 3 it has other options
//!   varint  length of the name, then the name; empty if that is not said
//! ```
//!
//! Length and number of the catalog stand in the superblock. So a checkpoint writes a part behind the others,
//! which changes no byte that the superblock before it names, and all families are written anew, under a
//! number of its own, when the extents are full. The superblock may hold one record more, which is newer than
//! all parts: see `db/checkpoint.rs`.
//!
//! Invariants:
//! 1. A frame counts if it is whole in one of the copies. So damage to one of them costs nothing, wherever it
//!    is.
//! 2. If a record is whole in neither, its family is lost, and only that one: an older record of it would
//!    lead to pages that were overwritten since. Who it was is known from the header of the frame, or from
//!    the list of names.
//! 3. If nobody can say whose record is missing, the catalog is refused.

use std::collections::{BTreeMap, BTreeSet};

use crate::codec::checksum::crc32;
use crate::codec::features::unknown;
use crate::codec::ids::{FamilyId, SequenceNumber};
use crate::codec::varint;
use crate::column_family::frame::{FrameHeader, FrameKind, HEADER_LEN, frame_len};
use crate::column_family::old_catalog::OldCatalog;
use crate::column_family::record::{FamilyRecord, Record, nonsense, put_name, take_id, take_name};
use crate::error::{Error, Result};

/// Parts start at multiples of this many bytes, the largest piece that a disk writes as a whole, so that
/// writing one touches nothing of those before it.
pub(crate) const BLOCK: usize = 4 << 10;

/// Bytes of a list of names, one name more at most: what one bad sector takes away should be little.
const LIST: usize = 400;

const IS_DROPPED: u8 = 0;
const IS_RENAMED: u8 = 1;
const IS_SOMETHING: u8 = 2;
const IS_CHANGED: u8 = 3;

/// The part that stands at offset `at` of the catalog with the number `number`: whole blocks.
pub(crate) fn encode_part(records: &[Record], number: u64, at: usize) -> Vec<u8> {
    let mut frames = Vec::new();
    let mut list = (0, Vec::new());
    for (index, record) in records.iter().enumerate() {
        varint::put(&mut list.1, u64::from(record.id().0));
        list.1.push(match record {
            Record::Dropped(_) => IS_DROPPED,
            Record::Renamed(..) => IS_RENAMED,
            Record::Changed(..) => IS_CHANGED,
            Record::Whole(_) | Record::Lost(..) => IS_SOMETHING,
        });
        put_name(record.name(), &mut list.1);
        if list.1.len() >= LIST {
            let full = std::mem::replace(&mut list, (index + 1, Vec::new()));
            frames.push((FrameKind::Names, FamilyId(0), full.0, full.1));
        }
    }
    // A part without records has a frame, too.
    if !list.1.is_empty() || records.is_empty() {
        frames.push((FrameKind::Names, FamilyId(0), list.0, list.1));
    }
    for (index, record) in records.iter().enumerate() {
        let mut body = Vec::new();
        record.encode(&mut body);
        frames.push((FrameKind::Record, record.id(), index, body));
    }
    let part_len: usize = frames.iter().map(|(.., body)| frame_len(body.len())).sum();
    let word = |number: usize| u32::try_from(number).expect("a part of the catalog is shorter than 4 GiB");
    let mut out = Vec::with_capacity(part_len.next_multiple_of(BLOCK));
    for (kind, family, index, body) in frames {
        let header = FrameHeader {
            body_checksum: crc32(&[&body]),
            body_len: word(body.len()),
            family,
            in_part: word(out.len()),
            part_len: word(part_len),
            records: word(records.len()),
            index: word(index),
            kind,
        };
        let end = out.len() + frame_len(body.len());
        out.extend(header.encode(number, at + out.len()));
        out.extend(body);
        out.resize(end, 0);
    }
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    out
}

/// What the parts say together.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Catalog {
    /// Of an old format: what it says. Otherwise that stands in the superblock, and these are 0.
    pub(crate) next_family: u32,
    pub(crate) last_sequence: SequenceNumber,
    pub(crate) families: BTreeMap<FamilyId, FamilyRecord>,
    /// Families of which neither copy has a whole record, and their names.
    pub(crate) lost: BTreeMap<FamilyId, String>,
    /// Those that are lost by what a record says: somebody gave them up before.
    pub(crate) given_up: BTreeSet<FamilyId>,
    /// Both copies say all of it, in the newest format: parts can be written behind it.
    pub(crate) is_sound: bool,
}

/// What was found of one part.
#[derive(Default)]
struct PartFound {
    len: u32,
    records: u32,
    /// By the number of the record: family, what became of it, name.
    names: BTreeMap<u32, (FamilyId, u8, String)>,
    found: BTreeMap<u32, (FamilyId, Option<Record>)>,
}

impl Catalog {
    /// Decodes a catalog that stands in one place, in the way of format 1 to 3.
    pub(crate) fn decode_old(bytes: &[u8]) -> Result<Self> {
        let OldCatalog { next_family, last_sequence, families } = OldCatalog::decode(bytes)?;
        Ok(Self { next_family, last_sequence, families, ..Self::default() })
    }

    /// Decodes the catalog with the number `number` from two copies; of what cannot be read, there are other
    /// bytes or none. Where both say something and not the same, one of them is what stood there before and
    /// was never written over: it is refused, unless they are `alike`, which is known otherwise. Never
    /// allocates more than a small multiple of the copies.
    pub(crate) fn decode(copies: [&[u8]; 2], number: u64, alike: bool) -> Result<Self> {
        let mut catalog = Self { is_sound: true, ..Self::default() };
        let mut parts: BTreeMap<usize, PartFound> = BTreeMap::new();
        let len = copies[0].len().max(copies[1].len());
        let mut at = 0;
        while at < len {
            let headers = [0, 1].map(|copy: usize| FrameHeader::decode(copies[copy], number, at));
            let [first, second] = headers;
            let (first, second) = (first?, second?);
            if !alike && first.is_some() && second.is_some() && first != second {
                return Err(unreadable(at));
            }
            let Some(header) = first.or(second) else {
                at = catalog.pass_over(copies, at);
                continue;
            };
            let bodies = copies.map(|copy| header.body(copy, at));
            catalog.is_sound &= first == second && bodies.iter().all(Option::is_some);
            let start = at.checked_sub(header.in_part as usize).ok_or_else(nonsense)?;
            parts.entry(start).or_default().take(&header, bodies[0].or(bodies[1]))?;
            at = at.saturating_add(HEADER_LEN).saturating_add(header.body_len as usize);
            at = at.checked_next_multiple_of(8).ok_or_else(nonsense)?;
        }
        let mut next = 0;
        for (start, part) in parts {
            if start != next {
                return Err(unreadable(next));
            }
            next = (part.len as usize).checked_add(start).ok_or_else(nonsense)?;
            next = next.checked_next_multiple_of(BLOCK).ok_or_else(nonsense)?;
            catalog.apply_part(start, part)?;
        }
        if next != len || len == 0 {
            return Err(unreadable(next));
        }
        catalog.name_the_lost();
        Ok(catalog)
    }

    /// No frame stands at `at`: the end of a part, or damage. Returns where to look next.
    fn pass_over(&mut self, copies: [&[u8]; 2], at: usize) -> usize {
        let end = at.next_multiple_of(BLOCK);
        let zeros =
            copies.map(|copy| copy.get(at..end).is_some_and(|bytes| bytes.iter().all(|&byte| byte == 0)));
        self.is_sound &= zeros == [true; 2];
        if at < end && zeros.contains(&true) { end } else { at + 8 }
    }

    fn apply_part(&mut self, start: usize, mut part: PartFound) -> Result<()> {
        for index in 0..part.records {
            let named = part.names.remove(&index);
            match (part.found.remove(&index), named) {
                (Some((_, Some(record))), _) => self.take(record).ok_or_else(nonsense)?,
                (_, Some((family, became, name))) => self.lose(family, became, name),
                (Some((family, None)), None) => self.lose(family, IS_SOMETHING, String::new()),
                (None, None) => return Err(unreadable(start)),
            }
        }
        Ok(())
    }

    /// The record of this family is whole in no copy.
    fn lose(&mut self, family: FamilyId, became: u8, name: String) {
        self.is_sound = false;
        match became {
            IS_DROPPED => {
                self.families.remove(&family);
                self.lost.remove(&family);
            }
            IS_RENAMED if self.families.contains_key(&family) => {
                self.families.entry(family).and_modify(|family| family.name = name);
            }
            // It goes on with the options that it had.
            IS_CHANGED if self.families.contains_key(&family) => {}
            _ => {
                self.given_up.remove(&family);
                let before = self.families.remove(&family).map(|family| family.name);
                let name = Some(name).filter(|name| !name.is_empty()).or(before);
                let known = self.lost.entry(family).or_default();
                *known = name.unwrap_or_else(|| std::mem::take(known));
            }
        }
    }

    /// Gives those families names of which none is known, or that of another, be it one that is lost, too.
    fn name_the_lost(&mut self) {
        let mut taken: BTreeSet<String> = self.families.values().map(|family| family.name.clone()).collect();
        for (id, name) in &mut self.lost {
            while name.is_empty() || taken.contains(name) {
                name.push_str(&format!("family {id}"));
            }
            taken.insert(name.clone());
        }
    }

    /// Applies the one record that the superblock holds.
    pub(crate) fn apply(&mut self, mut bytes: &[u8]) -> Result<Record> {
        let record = Record::decode(&mut bytes)?;
        if !bytes.is_empty() {
            return Err(nonsense());
        }
        self.take(record.clone()).ok_or_else(nonsense)?;
        Ok(record)
    }

    /// `None` if the record is of a family that there is not.
    fn take(&mut self, record: Record) -> Option<()> {
        match record {
            Record::Dropped(id) => {
                let lost = self.lost.remove(&id);
                self.families.remove(&id).map(drop).or(lost.map(drop))
            }
            Record::Renamed(id, name) => match self.lost.get_mut(&id) {
                Some(lost) => {
                    *lost = name;
                    Some(())
                }
                None => self.families.get_mut(&id).map(|family| family.name = name),
            },
            Record::Changed(id, _) if self.lost.contains_key(&id) => Some(()),
            Record::Changed(id, options) => {
                self.families.get_mut(&id).map(|family| family.set_options(options))
            }
            Record::Whole(family) => {
                self.lost.remove(&family.id);
                self.families.insert(family.id, *family);
                Some(())
            }
            Record::Lost(id, name) => {
                self.families.remove(&id);
                self.lost.insert(id, name);
                self.given_up.insert(id);
                Some(())
            }
        }
    }
}

impl PartFound {
    fn take(&mut self, header: &FrameHeader, body: Option<&[u8]>) -> Result<()> {
        if self.len == 0 {
            (self.len, self.records) = (header.part_len, header.records);
        }
        if (self.len, self.records) != (header.part_len, header.records) {
            return Err(nonsense());
        }
        match (header.kind, body) {
            (FrameKind::Names, None) => {}
            (FrameKind::Names, Some(mut body)) => {
                let mut index = header.index;
                while !body.is_empty() {
                    let entry =
                        take_named(&mut body).filter(|_| index < self.records).ok_or_else(nonsense)?;
                    if entry.1 > IS_CHANGED {
                        let what = format!("the catalog says that {} became of family {}", entry.1, entry.0);
                        return Err(unknown(what));
                    }
                    self.names.insert(index, entry);
                    index += 1;
                }
            }
            (FrameKind::Record, body) => {
                let record = body.map(|mut body| {
                    let record = Record::decode(&mut body)?;
                    if body.is_empty() && record.id() == header.family { Ok(record) } else { Err(nonsense()) }
                });
                let record = record.transpose()?;
                if header.index >= self.records
                    || self.found.insert(header.index, (header.family, record)).is_some()
                {
                    return Err(nonsense());
                }
            }
        }
        Ok(())
    }
}

fn take_named(bytes: &mut &[u8]) -> Option<(FamilyId, u8, String)> {
    let id = take_id(bytes)?;
    let (&became, rest) = bytes.split_first()?;
    *bytes = rest;
    Some((id, became, take_name(bytes)?))
}

/// What stands from `at` on is whole in no copy, and nobody knows what it was.
fn unreadable(at: usize) -> Error {
    Error::corruption(format!("both copies of the catalog are damaged near their byte {at}")).in_file("data")
}

#[cfg(all(test, not(loom)))]
#[path = "catalog_tests.rs"]
mod tests;
