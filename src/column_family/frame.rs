//! A frame: one record of the catalog, or a list of names, with checksums of its own.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | CRC-32 of bytes 4..40, number of the catalog (8), offset of the frame in the catalog (8) |
//! | 4 | 4 | CRC-32 of the body |
//! | 8 | 4 | length of the body in bytes |
//! | 12 | 4 | number of the family, 0 in a list of names |
//! | 16 | 4 | bytes from the start of the part |
//! | 20 | 4 | length of the part in bytes, without the zeros behind it |
//! | 24 | 4 | records of the part |
//! | 28 | 4 | number of this record in the part, from 0; of a list, of the first record that it names |
//! | 32 | 1 | kind: 1 a list of names, 2 a record |
//! | 33 | 1 | version of the format that is needed to understand it |
//! | 34 | 6 | reserved, zero |
//!
//! The body follows, then zeros up to the next multiple of 8. A frame is bound to its catalog and its place,
//! so that it is found behind one that is lost, and what stood in the same place before is never taken for
//! it.

use crate::codec::checksum::crc32;
use crate::codec::features::{FORMAT_VERSION, newer, unknown};
use crate::codec::ids::FamilyId;
use crate::error::Result;

/// Bytes in front of a body.
pub(super) const HEADER_LEN: usize = 40;
/// Frames begin at multiples of this.
pub(super) const ALIGNMENT: usize = 8;

const BODY_CHECKSUM: usize = 4;
const BODY_LEN: usize = BODY_CHECKSUM + 4;
const FAMILY: usize = BODY_LEN + 4;
const IN_PART: usize = FAMILY + 4;
const PART_LEN: usize = IN_PART + 4;
const RECORDS: usize = PART_LEN + 4;
const INDEX: usize = RECORDS + 4;
const KIND: usize = INDEX + 4;
const VERSION: usize = KIND + 1;
const RESERVED: usize = VERSION + 1;
const _: () = assert!(RESERVED + 6 == HEADER_LEN);

const NAMES: u8 = 1;
const RECORD: u8 = 2;

/// What a frame's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum FrameKind {
    /// Families and their names.
    Names = NAMES,
    Record = RECORD,
}

/// What a frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) body_checksum: u32,
    pub(super) body_len: u32,
    pub(super) family: FamilyId,
    pub(super) in_part: u32,
    pub(super) part_len: u32,
    pub(super) records: u32,
    pub(super) index: u32,
    pub(super) kind: FrameKind,
}

/// Bytes that a frame with a body of `body_len` bytes takes.
pub(super) fn frame_len(body_len: usize) -> usize {
    HEADER_LEN + body_len.next_multiple_of(ALIGNMENT)
}

fn bound_checksum(fields: &[u8], catalog: u64, at: usize) -> u32 {
    crc32(&[fields, &catalog.to_le_bytes(), &(at as u64).to_le_bytes()])
}

impl FrameHeader {
    /// The header of the frame at offset `at` of the catalog with the number `catalog`.
    pub(super) fn encode(&self, catalog: u64, at: usize) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let words = [
            (BODY_CHECKSUM, self.body_checksum),
            (BODY_LEN, self.body_len),
            (FAMILY, self.family.0),
            (IN_PART, self.in_part),
            (PART_LEN, self.part_len),
            (RECORDS, self.records),
            (INDEX, self.index),
        ];
        for (at, word) in words {
            bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes[KIND] = self.kind as u8;
        bytes[VERSION] = FORMAT_VERSION as u8;
        let checksum = bound_checksum(&bytes[BODY_CHECKSUM..], catalog, at);
        bytes[..BODY_CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// What stands at offset `at` of a copy of the catalog; `None` unless it was written there as the header
    /// of a frame. An error if it was, by a newer engine.
    pub(super) fn decode(copy: &[u8], catalog: u64, at: usize) -> Result<Option<Self>> {
        let Some(bytes) = copy.get(at..).and_then(|bytes| bytes.first_chunk::<HEADER_LEN>()) else {
            return Ok(None);
        };
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if word(0) != bound_checksum(&bytes[BODY_CHECKSUM..], catalog, at) {
            return Ok(None);
        }
        let version = u32::from(bytes[VERSION]);
        if version > FORMAT_VERSION {
            let what = format_args!("what the catalog says at its byte {at} needs format version {version}");
            return Err(newer(what));
        }
        let kind = match bytes[KIND] {
            NAMES => FrameKind::Names,
            RECORD => FrameKind::Record,
            kind => return Err(unknown(format_args!("the catalog holds something of kind {kind}"))),
        };
        if bytes[RESERVED..] != [0; 6] {
            return Err(unknown("reserved bytes of the catalog are not zero"));
        }
        Ok(Some(Self {
            body_checksum: word(BODY_CHECKSUM),
            body_len: word(BODY_LEN),
            family: FamilyId(word(FAMILY)),
            in_part: word(IN_PART),
            part_len: word(PART_LEN),
            records: word(RECORDS),
            index: word(INDEX),
            kind,
        }))
    }

    /// The body of the frame at `at`, if it is whole in this copy, with the zeros behind it.
    pub(super) fn body<'a>(&self, copy: &'a [u8], at: usize) -> Option<&'a [u8]> {
        let len = self.body_len as usize;
        let padded = copy.get(at + HEADER_LEN..)?.get(..len.checked_next_multiple_of(ALIGNMENT)?)?;
        let (body, zeros) = padded.split_at(len);
        (crc32(&[body]) == self.body_checksum && zeros.iter().all(|&byte| byte == 0)).then_some(body)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    const HEADER: FrameHeader = FrameHeader {
        body_checksum: 0x9ae0_daaf,
        body_len: 4,
        family: FamilyId(7),
        in_part: 64,
        part_len: 200,
        records: 3,
        index: 1,
        kind: FrameKind::Record,
    };

    fn copy() -> Vec<u8> {
        let mut copy = vec![0; 128];
        copy.extend(FrameHeader { body_checksum: crc32(&[b"body"]), ..HEADER }.encode(5, 128));
        copy.extend(b"body\0\0\0\0");
        copy
    }

    #[test]
    fn a_header_comes_back_in_its_catalog_and_at_its_place_only() {
        let copy = copy();
        let header = FrameHeader::decode(&copy, 5, 128).unwrap().unwrap();
        assert_eq!(FrameHeader { body_checksum: HEADER.body_checksum, ..header }, HEADER);
        assert_eq!(header.body(&copy, 128), Some(&b"body"[..]));
        assert_eq!(FrameHeader::decode(&copy, 6, 128).unwrap(), None);
        assert_eq!(FrameHeader::decode(&copy[8..], 5, 120).unwrap(), None);
        assert_eq!(FrameHeader::decode(&copy, 5, 0).unwrap(), None);
        assert_eq!(FrameHeader::decode(&copy[..160], 5, 128).unwrap(), None);
        assert_eq!(header.body(&copy[..171], 128), None);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut copy = copy();
        for bit in 128 * 8..copy.len() * 8 {
            copy[bit / 8] ^= 1 << (bit % 8);
            let header = FrameHeader::decode(&copy, 5, 128).unwrap();
            assert!(header.is_none_or(|header| header.body(&copy, 128).is_none()), "bit {bit}");
            copy[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn what_a_newer_engine_wrote_is_refused_by_the_version_that_it_needs() {
        let refused = |at: usize, byte: u8| {
            let mut copy = copy();
            copy[128 + at] = byte;
            let sum = bound_checksum(&copy[128 + BODY_CHECKSUM..][..HEADER_LEN - BODY_CHECKSUM], 5, 128);
            copy[128..][..4].copy_from_slice(&sum.to_le_bytes());
            FrameHeader::decode(&copy, 5, 128).unwrap_err()
        };
        let error = refused(VERSION, 9);
        assert_eq!(error.kind(), ErrorKind::NewerFormat);
        assert!(error.to_string().contains("needs format version 9"), "{error}");
        for (at, byte) in [(KIND, 3), (KIND, 0), (RESERVED, 1), (HEADER_LEN - 1, 1)] {
            assert_eq!(refused(at, byte).kind(), ErrorKind::NewerFormat);
        }
    }
}
