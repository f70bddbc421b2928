//! A record's header.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | CRC-32 of bytes 4..40, segment id, offset of the record |
//! | 4 | 4 | CRC-32 of the payload |
//! | 8 | 8 | payload length in bytes (bits 0..55), record kind (bits 56..63) |
//! | 16 | 8 | sequence number |
//! | 24 | 8 | bytes of this segment known to be durable when this was appended |
//! | 32 | 2 | version of the format that is needed to understand the record; 0: the version of its segment |
//! | 34 | 6 | reserved, zero |
//!
//! The payload follows, then bytes that mean nothing up to the next multiple of 8. A record of a kind that is
//! not known here, or with something where zeros are expected, was written by a newer engine: it ends a
//! replay with an error, and is not taken for the log's end.

use crate::codec::checksum::crc32;
use crate::codec::features::FORMAT_VERSION;
use crate::codec::ids::BEYOND_COUNTING;

/// Bytes of a header.
pub(super) const HEADER_LEN: u64 = 40;
/// Records start at multiples of this.
pub(super) const ALIGNMENT: u64 = 8;
/// The longest payload that the length field can say.
const MAX_PAYLOAD_LEN: u64 = (1 << 56) - 1;

const PAYLOAD_CHECKSUM: usize = 4;
const LENGTH_AND_KIND: usize = PAYLOAD_CHECKSUM + 4;
const SEQUENCE: usize = LENGTH_AND_KIND + 8;
const DURABLE: usize = SEQUENCE + 8;
const VERSION: usize = DURABLE + 8;
const RESERVED: usize = VERSION + 2;
const _: () = assert!(RESERVED + 6 == HEADER_LEN as usize);

/// The one kind of record there is: a commit.
const KIND_COMMIT: u64 = 1;

/// What a record says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) payload_checksum: u32,
    pub(super) payload_len: u64,
    pub(super) sequence: u64,
    /// Bytes of the record's segment that were durable when it was appended. Nonzero also says that all
    /// segments before are durable.
    pub(super) durable: u64,
}

/// Bytes that a record with a payload of `payload_len` bytes takes in its segment.
pub(super) fn record_len(payload_len: u64) -> u64 {
    assert!(payload_len <= MAX_PAYLOAD_LEN, "a payload of {payload_len} bytes, of {MAX_PAYLOAD_LEN} at most");
    HEADER_LEN + payload_len.next_multiple_of(ALIGNMENT)
}

impl RecordHeader {
    /// The header of the record at `offset` of `segment`.
    #[inline]
    pub(super) fn encode(&self, segment: u64, offset: u64) -> [u8; HEADER_LEN as usize] {
        let mut bytes = [0; HEADER_LEN as usize];
        let length_and_kind = self.payload_len | KIND_COMMIT << 56;
        bytes[PAYLOAD_CHECKSUM..LENGTH_AND_KIND].copy_from_slice(&self.payload_checksum.to_le_bytes());
        bytes[LENGTH_AND_KIND..SEQUENCE].copy_from_slice(&length_and_kind.to_le_bytes());
        bytes[SEQUENCE..DURABLE].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[DURABLE..VERSION].copy_from_slice(&self.durable.to_le_bytes());
        let checksum = bound_checksum(&bytes, segment, offset);
        bytes[..PAYLOAD_CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// What stands at `offset` of `segment`; `None` unless it was written as the header of a record at this
    /// place. It may be one that [`what_is_unknown`] finds something to say of.
    #[inline]
    pub(super) fn decode(bytes: &[u8; HEADER_LEN as usize], segment: u64, offset: u64) -> Option<Self> {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        // The cheap tests come first: a scan for headers meets mostly zeros and payload.
        let length_and_kind = word(LENGTH_AND_KIND);
        if length_and_kind >> 56 == 0 || word(DURABLE) > offset {
            return None;
        }
        if word(SEQUENCE) >= BEYOND_COUNTING {
            return None;
        }
        if half(0) != bound_checksum(bytes, segment, offset) {
            return None;
        }
        Some(Self {
            payload_checksum: half(PAYLOAD_CHECKSUM),
            payload_len: length_and_kind & MAX_PAYLOAD_LEN,
            sequence: word(SEQUENCE),
            durable: word(DURABLE),
        })
    }
}

/// What this engine does not understand of a record whose header [`RecordHeader::decode`] took: why it cannot
/// be replayed.
pub(super) fn what_is_unknown(bytes: &[u8; HEADER_LEN as usize]) -> Option<String> {
    let version = u16::from_le_bytes([bytes[VERSION], bytes[VERSION + 1]]);
    let kind = bytes[LENGTH_AND_KIND + 7];
    if u32::from(version) > FORMAT_VERSION {
        return Some(format!("needs format version {version}"));
    }
    if u64::from(kind) != KIND_COMMIT {
        return Some(format!("is of kind {kind}, which needs a newer format version"));
    }
    if bytes[RESERVED..] != [0; 6] {
        return Some(
            "has bytes that are not zero where they should be, which needs a newer format version".into(),
        );
    }
    None
}

/// Makes the checksum of a changed header right again.
#[cfg(test)]
pub(super) fn reseal(bytes: &mut [u8; HEADER_LEN as usize], segment: u64, offset: u64) {
    let checksum = bound_checksum(bytes, segment, offset);
    bytes[..PAYLOAD_CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
}

/// The sum over a header and its place.
fn bound_checksum(bytes: &[u8; HEADER_LEN as usize], segment: u64, offset: u64) -> u32 {
    let mut summed = [0; HEADER_LEN as usize - PAYLOAD_CHECKSUM + 16];
    let (fields, place) = summed.split_at_mut(HEADER_LEN as usize - PAYLOAD_CHECKSUM);
    fields.copy_from_slice(&bytes[PAYLOAD_CHECKSUM..]);
    place[..8].copy_from_slice(&segment.to_le_bytes());
    place[8..].copy_from_slice(&offset.to_le_bytes());
    crc32(&[&summed])
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const HEADER: RecordHeader =
        RecordHeader { payload_checksum: 0x1234_5678, payload_len: 77, sequence: 9, durable: 64 };

    #[test]
    fn a_header_comes_back_at_its_place_only() {
        let bytes = HEADER.encode(3, 4096);
        assert_eq!(RecordHeader::decode(&bytes, 3, 4096), Some(HEADER));
        assert_eq!(RecordHeader::decode(&bytes, 4, 4096), None);
        assert_eq!(RecordHeader::decode(&bytes, 3, 4104), None);
    }

    #[test]
    fn a_header_with_any_bit_flipped_is_none() {
        let bytes = HEADER.encode(3, 4096);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&flipped, 3, 4096), None, "bit {bit}");
        }
    }

    #[test]
    fn what_only_a_newer_engine_understands_is_a_record_nevertheless() {
        assert_eq!(what_is_unknown(&HEADER.encode(3, 4096)), None);
        for (at, byte, says) in [
            (LENGTH_AND_KIND + 7, 2, "kind 2"),
            (VERSION, 3, "format version 3"),
            (VERSION + 1, 1, "format version 256"),
            (RESERVED, 1, "not zero"),
            (HEADER_LEN as usize - 1, 0x80, "not zero"),
        ] {
            let mut bytes = HEADER.encode(3, 4096);
            bytes[at] = byte;
            reseal(&mut bytes, 3, 4096);
            assert_eq!(RecordHeader::decode(&bytes, 3, 4096), Some(HEADER));
            assert!(what_is_unknown(&bytes).unwrap().contains(says));
        }
    }

    #[test]
    fn zeros_are_no_header() {
        assert_eq!(RecordHeader::decode(&[0; HEADER_LEN as usize], 1, 64), None);
    }

    #[test]
    fn lengths_beyond_32_bits_are_kept() {
        let header = RecordHeader { payload_len: (5 << 30) + 3, ..HEADER };
        assert_eq!(RecordHeader::decode(&header.encode(1, 64), 1, 64), Some(header));
        assert_eq!(record_len((5 << 30) + 3), 40 + (5 << 30) + 8);
        assert_eq!(record_len(0), 40);
    }

    #[test]
    fn a_record_that_knows_of_bytes_behind_itself_is_none() {
        let header = RecordHeader { durable: 72, ..HEADER };
        assert_eq!(RecordHeader::decode(&header.encode(1, 64), 1, 64), None);
    }
}
