//! A segment: one file of the log, and its header.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `PERISLOG` |
//! | 8 | 4 | format version, 2 |
//! | 12 | 4 | CRC-32 of bytes 0..12 and 16..128 |
//! | 16 | 8 | segment id |
//! | 24 | 16 | database id |
//! | 40 | 8 | id of the segment before it, 0 if none |
//! | 48 | 8 | offset at which the segment before it ends |
//! | 56 | 8 | last sequence number before this segment |
//! | 64 | 8 | features that whoever reads the segment must know |
//! | 72 | 8 | features that whoever writes to the database must know |
//! | 80 | 48 | reserved, zero |
//!
//! Magic, version, checksum and length stay what they are in later versions. Version 1, which is read, has
//! the first 64 bytes alone.

use std::io;

use super::end::{self, END_LEN};
use super::record::{ALIGNMENT, HEADER_LEN as RECORD_HEADER_LEN, record_len};
use crate::codec::checksum::crc32;
use crate::codec::features::{FORMAT_VERSION, Features, newer, unknown};
use crate::codec::ids::BEYOND_COUNTING;
use crate::error::{Error, Result};
use crate::storage::{SharedMapping, StorageBackend, StorageFile};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use crate::system::page_size;

/// The directory that holds the segments.
pub(super) const DIRECTORY: &str = "wal";

/// Bytes of a header: where the first record stands.
pub(super) const HEADER_LEN: u64 = 128;
/// In a segment of format version 1.
pub(super) const SHORT_HEADER_LEN: u64 = 64;

const MAGIC: &[u8; 8] = b"PERISLOG";
/// The version whose headers are short.
const SHORT_VERSION: u32 = 1;

const VERSION: usize = MAGIC.len();
const CHECKSUM: usize = VERSION + 4;
const ID: usize = CHECKSUM + 4;
const DATABASE_ID: usize = ID + 8;
const PREVIOUS: usize = DATABASE_ID + 16;
const PREVIOUS_END: usize = PREVIOUS + 8;
const LAST_SEQUENCE: usize = PREVIOUS_END + 8;
const READ_FEATURES: usize = LAST_SEQUENCE + 8;
const WRITE_FEATURES: usize = READ_FEATURES + 8;
const RESERVED: usize = WRITE_FEATURES + 8;
const _: () = assert!(READ_FEATURES == SHORT_HEADER_LEN as usize);
const _: () = assert!(RESERVED + 48 == HEADER_LEN as usize);
const _: () = assert!(HEADER_LEN.is_multiple_of(ALIGNMENT));

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) id: u64,
    pub(super) database_id: [u8; 16],
    /// The segment before it, 0 if none.
    pub(super) previous: u64,
    /// Where that one ends.
    pub(super) previous_end: u64,
    /// No record before this segment has a higher number, none in it a lower or equal one.
    pub(super) last_sequence: u64,
    /// Where its first record stands.
    pub(super) records_at: u64,
    pub(super) features: Features,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; HEADER_LEN as usize] {
        let mut bytes = [0; HEADER_LEN as usize];
        bytes[..VERSION].copy_from_slice(MAGIC);
        bytes[VERSION..CHECKSUM].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[ID..DATABASE_ID].copy_from_slice(&self.id.to_le_bytes());
        bytes[DATABASE_ID..PREVIOUS].copy_from_slice(&self.database_id);
        bytes[PREVIOUS..PREVIOUS_END].copy_from_slice(&self.previous.to_le_bytes());
        bytes[PREVIOUS_END..LAST_SEQUENCE].copy_from_slice(&self.previous_end.to_le_bytes());
        bytes[LAST_SEQUENCE..READ_FEATURES].copy_from_slice(&self.last_sequence.to_le_bytes());
        bytes[READ_FEATURES..WRITE_FEATURES].copy_from_slice(&self.features.read.to_le_bytes());
        bytes[WRITE_FEATURES..RESERVED].copy_from_slice(&self.features.write.to_le_bytes());
        let checksum = crc32(&[&bytes[..CHECKSUM], &bytes[ID..]]);
        bytes[CHECKSUM..ID].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Makes the header of segment `id`, which is at the front of `bytes`, that of a segment of the database
    /// `to`. Returns its length; `None` and errors as [`decode`](Self::decode) does.
    pub(super) fn move_to(bytes: &mut [u8], id: u64, from: &[u8; 16], to: &[u8; 16]) -> Result<Option<u64>> {
        let Some(header) = Self::decode(bytes, id, from)? else { return Ok(None) };
        let bytes = &mut bytes[..header.records_at as usize];
        bytes[DATABASE_ID..PREVIOUS].copy_from_slice(to);
        let checksum = crc32(&[&bytes[..CHECKSUM], &bytes[ID..]]);
        bytes[CHECKSUM..ID].copy_from_slice(&checksum.to_le_bytes());
        Ok(Some(header.records_at))
    }

    /// The header of segment `id`, which is at the front of `bytes`; `None` if these bytes never were that. A
    /// header that is whole and yet cannot be used (another database's, a newer format's) is an error.
    pub(super) fn decode(bytes: &[u8], id: u64, database_id: &[u8; 16]) -> Result<Option<Self>> {
        let Some(short) = bytes.get(..SHORT_HEADER_LEN as usize) else { return Ok(None) };
        let half = |at: usize| u32::from_le_bytes(short[at..at + 4].try_into().expect("four bytes"));
        let version = half(VERSION);
        let len = if version == SHORT_VERSION { SHORT_HEADER_LEN } else { HEADER_LEN };
        let Some(bytes) = bytes.get(..len as usize) else { return Ok(None) };
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let checksum = crc32(&[&bytes[..CHECKSUM], &bytes[ID..]]);
        if &bytes[..VERSION] != MAGIC || half(CHECKSUM) != checksum || word(ID) != id || version == 0 {
            return Ok(None);
        }
        if version > FORMAT_VERSION {
            return Err(newer(format_args!("the log needs format version {version}")).in_file(path(id)));
        }
        let mut features = Features::default();
        if version != SHORT_VERSION {
            features = Features { read: word(READ_FEATURES), write: word(WRITE_FEATURES) };
            features.check_reading("a segment of the log").map_err(|error| error.in_file(path(id)))?;
            if bytes[RESERVED..].iter().any(|&byte| byte != 0) {
                let error = unknown("reserved bytes of the header of a log segment are not zero");
                return Err(error.in_file(path(id)));
            }
        }
        if &bytes[DATABASE_ID..PREVIOUS] != database_id {
            return Err(Error::corruption(
                "a segment of the log belongs to another database; the directory was put together from several",
            )
            .in_file(path(id)));
        }
        let header = Self {
            id,
            database_id: *database_id,
            previous: word(PREVIOUS),
            previous_end: word(PREVIOUS_END),
            last_sequence: word(LAST_SEQUENCE),
            records_at: len,
            features,
        };
        // A log that went on from a number beyond counting would be full of records that nobody reads.
        if header.previous >= id || header.last_sequence >= BEYOND_COUNTING {
            let message = format!(
                "a segment of the log says that it follows segment {} and number {}",
                header.previous, header.last_sequence
            );
            return Err(Error::corruption(message).in_file(path(id)));
        }
        Ok(Some(header))
    }
}

/// Length of a segment of `wanted` bytes, or of more if the record that is to stand in it needs more.
pub(super) fn segment_len(wanted: u64, record_len: u64) -> u64 {
    wanted.max(HEADER_LEN + record_len + END_LEN).next_multiple_of(ALIGNMENT)
}

/// Path of the file of segment `id`.
pub(super) fn path(id: u64) -> String {
    format!("{DIRECTORY}/{id:016x}.log")
}

/// The id that a file name in the log's directory stands for; `None` if it is not a segment's.
pub(super) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 16)?;
    let known = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let id = digits.bytes().all(known).then(|| u64::from_str_radix(digits, 16).ok())??;
    (1..BEYOND_COUNTING).contains(&id).then_some(id)
}

/// The ids of the segments in the log's directory, ascending.
pub(super) fn list(backend: &dyn StorageBackend) -> Result<Vec<u64>> {
    let names = match backend.list(DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        outcome => {
            outcome.map_err(|error| Error::io("listing the log's directory", error).in_file(DIRECTORY))?
        }
    };
    let mut ids: Vec<u64> = names.iter().filter_map(|name| parse_name(name)).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// A file that serves as one segment after the other.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub(super) file: Arc<dyn StorageFile>,
    /// Over the whole file, all of which is reserved.
    pub(super) mapping: Option<Box<dyn SharedMapping>>,
    pub(super) len: u64,
    /// Whether a sync failed. Held during a sync: of several under way at once, the system may report a
    /// failure to one alone.
    sync_failed: Mutex<bool>,
}

impl SegmentFile {
    pub(super) fn new(file: Arc<dyn StorageFile>, mapping: Option<Box<dyn SharedMapping>>, len: u64) -> Self {
        Self { file, mapping, len, sync_failed: Mutex::new(false) }
    }

    /// Makes durable what was written. After one failure it fails for ever.
    pub(super) fn sync(&self) -> io::Result<()> {
        let mut failed = self.sync_failed.lock();
        if *failed {
            return Err(io::Error::other("an earlier sync of the file failed"));
        }
        let synced = self.file.sync();
        *failed = synced.is_err();
        synced
    }
}

/// A segment that records are appended to, or were by this process.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: u64,
    pub(super) body: Arc<SegmentFile>,
    /// Bytes known to be durable; not zero only when all segments before are durable as well.
    durable: AtomicU64,
    /// Offset up to which memory of the mapping was made ready, but for what was behind the records by then.
    /// Records are stored up to there.
    ready: AtomicU64,
    /// Bytes of the mapping whose memory was let go.
    gone: AtomicU64,
    /// Whether the system keeps no memory for the mapping: all records are written.
    is_refused: AtomicBool,
}

/// Records up to this many bytes are put together on the stack for a call that writes them.
const SMALL_RECORD: usize = 512;
/// Records up to this many bytes are stored into the mapping. Larger ones pay for more page faults than for
/// the one system call.
pub(super) const MAPPED_RECORD: u64 = 64 << 10;

impl Segment {
    pub(super) fn new(id: u64, body: Arc<SegmentFile>) -> Self {
        let [durable, ready, gone] = std::array::from_fn(|_| AtomicU64::new(0));
        Self { id, body, durable, ready, gone, is_refused: AtomicBool::new(false) }
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Everything up to `offset`, and all segments before, are durable.
    pub(super) fn set_durable(&self, offset: u64) {
        self.durable.fetch_max(offset, Ordering::Release);
    }

    /// Bytes up to which memory need not be made ready any more.
    pub(super) fn ready(&self) -> u64 {
        if self.takes_no_stores() { self.body.len } else { self.ready.load(Ordering::Relaxed) }
    }

    pub(super) fn takes_no_stores(&self) -> bool {
        self.body.mapping.is_none() || self.is_refused.load(Ordering::Relaxed)
    }

    /// Bytes of the mapping that were made ready and not let go.
    pub(super) fn mapped_bytes(&self) -> u64 {
        self.ready.load(Ordering::Relaxed).saturating_sub(self.gone.load(Ordering::Relaxed))
    }

    /// Whether a record of `len` bytes, whose place at `offset` was just taken, may be stored: its memory is
    /// ready, and stays until the record is written.
    #[inline]
    pub(super) fn takes_store(&self, offset: u64, len: u64) -> bool {
        offset + len <= self.ready.load(Ordering::Acquire)
    }

    /// Makes memory ready for stores from `start`, where the next record goes or has gone, to `end`. If that
    /// cannot be, or the file is shorter than it was, all records are written from now on. For one thread at
    /// a time.
    pub(super) fn make_ready(&self, start: u64, end: u64) {
        let ready = self.ready().max(start);
        let end = end.min(self.body.len);
        if let Some(mapping) = &self.body.mapping
            && ready < end
        {
            // Where a file ends that somebody else cut, there are no pages to store into.
            let is_whole = self.body.file.len().is_ok_and(|len| len >= self.body.len);
            if is_whole && mapping.make_ready(ready, end - ready) {
                self.ready.store(end, Ordering::Release);
            } else {
                self.is_refused.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Lets go of the memory behind the records up to `end`, all of which are written: the log may keep them
    /// for long. For one thread at a time.
    pub(super) fn let_go(&self, end: u64) {
        let gone = self.gone.load(Ordering::Relaxed);
        let end = end / page_size() as u64 * page_size() as u64;
        if let Some(mapping) = &self.body.mapping
            && gone < end
        {
            mapping.let_go(gone, end - gone);
            self.gone.store(end, Ordering::Relaxed);
        }
    }

    /// Lets go of all memory: no record will be stored here any more, and all are written.
    pub(super) fn let_go_of_all(&self) {
        if let Some(mapping) = &self.body.mapping {
            mapping.let_go(0, self.body.len);
            self.gone.store(self.body.len, Ordering::Relaxed);
        }
    }

    /// Makes the file a segment of the log.
    pub(super) fn write_header(&self, header: &SegmentHeader) -> io::Result<()> {
        assert_eq!(header.id, self.id, "a header of segment {} for segment {}", header.id, self.id);
        match &self.body.mapping {
            Some(mapping) if self.takes_store(0, HEADER_LEN) => {
                mapping.store(0, &header.encode());
                Ok(())
            }
            _ => self.body.file.write_at(&header.encode(), 0),
        }
    }

    /// Notes behind the last record, at `offset`, that the log goes on in segment `next`, if there is room.
    pub(super) fn write_end(&self, offset: u64, next: u64) -> io::Result<()> {
        if offset + END_LEN > self.body.len {
            return Ok(());
        }
        self.body.file.write_at(&end::encode(self.id, offset, next), offset)
    }

    /// Writes a record into its place, which the caller has to itself. `stored`: it [may
    /// be](Self::takes_store) stored, as was asked when the place was taken.
    #[inline]
    pub(super) fn write_record(
        &self,
        header: &[u8; RECORD_HEADER_LEN as usize],
        payload: &[u8],
        offset: u64,
        stored: bool,
    ) -> io::Result<()> {
        let len = record_len(payload.len() as u64);
        let mapping = self.body.mapping.as_ref().filter(|_| stored);
        match mapping {
            Some(mapping) => {
                mapping.store(offset, header);
                mapping.store(offset + RECORD_HEADER_LEN, payload);
            }
            None if len <= SMALL_RECORD as u64 => {
                let mut record = [0; SMALL_RECORD];
                let (head, rest) = record.split_at_mut(header.len());
                head.copy_from_slice(header);
                rest[..payload.len()].copy_from_slice(payload);
                self.body.file.write_at(&record[..len as usize], offset)?;
            }
            None => self.body.file.write_parts_at(&[header, payload], offset)?,
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[derive(Debug)]
    struct FailsOnce(std::sync::atomic::AtomicBool);

    impl StorageFile for FailsOnce {
        fn read_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<()> {
            Ok(())
        }

        fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            if self.0.swap(true, std::sync::atomic::Ordering::SeqCst) {
                Ok(())
            } else {
                Err(io::ErrorKind::Other.into())
            }
        }

        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }

        fn set_len(&self, _len: u64) -> io::Result<()> {
            Ok(())
        }

        fn allocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
            Ok(())
        }

        fn deallocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_sync_that_failed_is_never_followed_by_one_that_succeeds() {
        let file = SegmentFile::new(Arc::new(FailsOnce(false.into())), None, 0);
        assert!(file.sync().is_err());
        assert!(file.sync().is_err());
    }

    const HEADER: SegmentHeader = SegmentHeader {
        id: 12,
        database_id: [7; 16],
        previous: 10,
        previous_end: 4104,
        last_sequence: 99,
        records_at: HEADER_LEN,
        features: Features { read: 0, write: 1 << 40 },
    };

    /// A header with other bytes under a checksum that is right.
    fn resealed(bytes: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        change(&mut bytes);
        let checksum = crc32(&[&bytes[..CHECKSUM], &bytes[ID..]]);
        bytes[CHECKSUM..ID].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    #[test]
    fn a_header_comes_back_under_its_own_id_only() {
        let bytes = HEADER.encode();
        assert_eq!(SegmentHeader::decode(&bytes, 12, &[7; 16]).unwrap(), Some(HEADER));
        assert_eq!(SegmentHeader::decode(&bytes, 13, &[7; 16]).unwrap(), None);
    }

    #[test]
    fn a_header_with_any_bit_flipped_is_none() {
        let bytes = HEADER.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&flipped, 12, &[7; 16]).unwrap(), None, "bit {bit}");
        }
    }

    #[test]
    fn another_databases_segment_is_refused() {
        let error = SegmentHeader::decode(&HEADER.encode(), 12, &[8; 16]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert_eq!(error.location().file.as_deref(), Some("wal/000000000000000c.log"));
    }

    #[test]
    fn a_header_that_cannot_be_is_refused() {
        let last = SegmentHeader { last_sequence: BEYOND_COUNTING, ..HEADER };
        for header in
            [last, SegmentHeader { previous: 12, ..HEADER }, SegmentHeader { previous: 13, ..HEADER }]
        {
            let error = SegmentHeader::decode(&header.encode(), 12, &[7; 16]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corruption, "{header:?}");
        }
        let last = SegmentHeader { last_sequence: BEYOND_COUNTING - 1, ..HEADER };
        assert_eq!(SegmentHeader::decode(&last.encode(), 12, &[7; 16]).unwrap(), Some(last));
    }

    #[test]
    fn a_newer_format_and_unknown_features_are_refused_by_name() {
        let refused = |at: usize, byte: u8| {
            let bytes = resealed(&HEADER.encode(), |bytes| bytes[at] = byte);
            SegmentHeader::decode(&bytes, 12, &[7; 16]).unwrap_err()
        };
        let error = refused(VERSION, 3);
        assert_eq!(error.kind(), ErrorKind::NewerFormat);
        assert!(error.to_string().contains("format version 3"), "{error}");
        let error = refused(READ_FEATURES + 1, 1);
        assert_eq!(error.kind(), ErrorKind::NewerFormat);
        assert!(error.to_string().contains("0x100"), "{error}");
        for at in [RESERVED, HEADER_LEN as usize - 1] {
            assert_eq!(refused(at, 1).kind(), ErrorKind::NewerFormat);
        }
    }

    #[test]
    fn a_header_of_the_first_version_is_read() {
        let bytes = resealed(&HEADER.encode()[..SHORT_HEADER_LEN as usize], |bytes| bytes[VERSION] = 1);
        let expected =
            SegmentHeader { records_at: SHORT_HEADER_LEN, features: Features::default(), ..HEADER };
        for behind in [&[][..], &[0xff; 200]] {
            let bytes = [&bytes, behind].concat();
            assert_eq!(SegmentHeader::decode(&bytes, 12, &[7; 16]).unwrap(), Some(expected));
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = [&bytes[..], &[0; 64]].concat();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&flipped, 12, &[7; 16]).unwrap(), None, "bit {bit}");
        }
    }

    #[test]
    fn only_names_that_the_log_gives_are_segments() {
        for id in [1, 0xabc, BEYOND_COUNTING - 1] {
            let path = path(id);
            assert_eq!(parse_name(path.strip_prefix("wal/").unwrap()), Some(id));
        }
        for name in [
            "0000000000000000.log",
            "1.log",
            "000000000000000A.log",
            "+00000000000000a.log",
            "ffffffffffffffff.log",
            "x",
            "",
        ] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
