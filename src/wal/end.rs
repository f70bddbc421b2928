//! The note behind the last record of a segment that the log has left: where it goes on.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | CRC-32 of bytes 4..24, segment id, offset of the note |
//! | 4 | 4 | magic `GOES` |
//! | 8 | 8 | id of the next segment |
//! | 16 | 8 | reserved, zero |
//!
//! It is no record: where a record has its kind there is zero. A segment's successor says that the segment
//! ends before it. It is written when the log goes on, and the sync that makes anything in the next segment
//! durable makes it durable, too. The file of that segment has been there since before: so where the note
//! stands and the file does not, the file was removed.

use crate::codec::checksum::crc32;
use crate::codec::features::unknown;
use crate::codec::ids::BEYOND_COUNTING;
use crate::error::Result;

/// Bytes of the note, for which every segment has room behind its records.
pub(super) const END_LEN: u64 = 24;

const MAGIC: [u8; 4] = *b"GOES";

/// The note at `offset` of `segment`, after which the log goes on in segment `next`.
pub(super) fn encode(segment: u64, offset: u64, next: u64) -> [u8; END_LEN as usize] {
    let mut bytes = [0; END_LEN as usize];
    bytes[4..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&next.to_le_bytes());
    let checksum = bound_checksum(&bytes, segment, offset);
    bytes[..4].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The segment in which the log goes on after what ends at `offset` of `segment`, if there is a note that
/// says so. An error if a newer engine wrote it.
pub(super) fn decode(bytes: &[u8; END_LEN as usize], segment: u64, offset: u64) -> Result<Option<u64>> {
    let stated = u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"));
    if bytes[4..8] != MAGIC || stated != bound_checksum(bytes, segment, offset) {
        return Ok(None);
    }
    if bytes[16..] != [0; 8] {
        return Err(unknown("reserved bytes of the note at the end of a log segment are not zero"));
    }
    let next = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"));
    Ok((segment + 1..BEYOND_COUNTING).contains(&next).then_some(next))
}

/// The sum over a note and its place.
fn bound_checksum(bytes: &[u8; END_LEN as usize], segment: u64, offset: u64) -> u32 {
    crc32(&[&bytes[4..], &segment.to_le_bytes(), &offset.to_le_bytes()])
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::record::RecordHeader;
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_note_comes_back_at_its_place_only_and_is_no_record() {
        let bytes = encode(3, 4096, 7);
        let decode = |bytes: &_, segment, offset| super::decode(bytes, segment, offset).unwrap();
        assert_eq!(decode(&bytes, 3, 4096), Some(7));
        assert_eq!(decode(&bytes, 4, 4096), None);
        assert_eq!(decode(&bytes, 3, 4104), None);
        assert_eq!(decode(&encode(3, 4096, 3), 3, 4096), None, "it leads back");
        let mut longer = [0; 40];
        longer[..bytes.len()].copy_from_slice(&bytes);
        assert_eq!(RecordHeader::decode(&longer, 3, 4096), None);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped, 3, 4096), None, "bit {bit}");
        }
    }

    #[test]
    fn a_note_that_says_more_is_a_newer_engines() {
        for at in 16..END_LEN as usize {
            let mut bytes = encode(3, 4096, 7);
            bytes[at] = 1;
            let checksum = bound_checksum(&bytes, 3, 4096);
            bytes[..4].copy_from_slice(&checksum.to_le_bytes());
            assert_eq!(decode(&bytes, 3, 4096).unwrap_err().kind(), ErrorKind::NewerFormat);
        }
    }
}
