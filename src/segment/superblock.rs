//! The superblock: where the newest checkpoint stands. The only bytes of the data file that are written in
//! place.
//!
//! ```text
//! offset size field
//!      0    8 magic `PERISTYL`
//!      8    4 format version, 2
//!     12    4 page size
//!     16    8 checkpoint number, counts up
//!     24   16 database id
//!     40    8 features that whoever reads the database must know
//!     48    8 features that whoever writes to it must know
//!     56    8 catalog: first file page of its first copy
//!     64    8 catalog: first file page of its second copy; all ones: there is none
//!     72    8 catalog: length in bytes of each copy
//!     80    8 catalog: its number, which is part of what its checksums sum
//!     88    4 catalog: pages that are kept for each copy; 0: as many as its length takes
//!     92    4 catalog: CRC-32 of its bytes; 0: not known, if its number is not 0
//!     96    4 next family number
//!    100    8 last sequence number assigned when this was written
//!    108    8 log: id of the first segment that recovery reads
//!    116    8 log: id of the newest segment when this was written
//!    124    8 log: bytes of that segment that were known to be durable
//!    132   48 reserved, zero
//!    180    2 length of the record that follows, at most 326
//!    182  326 a record of the catalog that is newer than the catalog, see `column_family/record.rs`, then zeros
//!    508    4 CRC-32 of bytes 0..508
//! ```
//!
//! It stands in two slots. A checkpoint writes one and syncs, then writes the other with the same content.
//! The next checkpoint begins with that other one, and its sync, at the latest, makes it durable before the
//! first is touched. The first checkpoint after opening begins with the slot that does not hold the newest
//! superblock: what the older one reaches may be overwritten by then. So at every instant one slot is whole
//! and good, and normally both say the same. Magic, version and checksum stay where they are in every version
//! of the format.
//!
//! Version 1 is read and not written. It has at 40: catalog's first file page (8), length in bytes (8),
//! CRC-32 (4), pages that are kept for it (4); the three fields of the log (8 each); at 88 the length of the
//! record (2), the record (418), and the checksum.
//!
//! A slot that cannot be read is like one whose checksum does not match: the other one serves.

use crate::codec::checksum::crc32;
use crate::codec::features::{CATALOG_SUM, FORMAT_VERSION, Features, newer, unknown};
use crate::codec::ids::{BEYOND_COUNTING, SequenceNumber};
use crate::codec::log_mark::LogMark;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{FileHandlePool, StorageFile};

const MAGIC: [u8; 8] = *b"PERISTYL";
/// The version of the format that this engine writes, and the newest that it reads.
const VERSION: u32 = FORMAT_VERSION;

const AT_MAGIC: usize = 0;
const AT_VERSION: usize = AT_MAGIC + 8;
const AT_PAGE_SIZE: usize = AT_VERSION + 4;
const AT_CHECKPOINT: usize = AT_PAGE_SIZE + 4;
const AT_DATABASE_ID: usize = AT_CHECKPOINT + 8;
const AT_READ_FEATURES: usize = AT_DATABASE_ID + 16;
const AT_WRITE_FEATURES: usize = AT_READ_FEATURES + 8;
const AT_CATALOG_COPIES: usize = AT_WRITE_FEATURES + 8;
const AT_CATALOG_LEN: usize = AT_CATALOG_COPIES + 16;
const AT_CATALOG_NUMBER: usize = AT_CATALOG_LEN + 8;
const AT_CATALOG_ROOM: usize = AT_CATALOG_NUMBER + 8;
const AT_CATALOG_CHECKSUM: usize = AT_CATALOG_ROOM + 4;
const AT_NEXT_FAMILY: usize = AT_CATALOG_CHECKSUM + 4;
const AT_LAST_SEQUENCE: usize = AT_NEXT_FAMILY + 4;
const AT_LOG_FIRST: usize = AT_LAST_SEQUENCE + 8;
const AT_LOG_NEWEST: usize = AT_LOG_FIRST + 8;
const AT_LOG_DURABLE: usize = AT_LOG_NEWEST + 8;
const AT_RESERVED: usize = AT_LOG_DURABLE + 8;
const AT_RECORD_LEN: usize = AT_RESERVED + 48;
const AT_RECORD: usize = AT_RECORD_LEN + 2;
const RECORD_ROOM: usize = 326;
const AT_CHECKSUM: usize = AT_RECORD + RECORD_ROOM;
const LEN: usize = AT_CHECKSUM + 4;
const _: () = assert!(LEN == 512);

/// In place of the first file page of a copy that there is not.
const NOWHERE: u64 = u64::MAX;

/// Where the slots start in the file.
const SLOTS: [u64; 2] = [0, 32 << 10];

/// The page sizes that a database can have.
pub(crate) const PAGE_SIZES: [u32; 4] = [4 << 10, 8 << 10, 16 << 10, 32 << 10];

/// What a checkpoint leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) page_size: u32,
    pub(crate) checkpoint: u64,
    pub(crate) database_id: [u8; 16],
    pub(crate) features: Features,
    pub(crate) catalog: CatalogExtent,
    /// 0 if the catalog says it, as those of format 3 and older ones do.
    pub(crate) next_family: u32,
    pub(crate) last_sequence: SequenceNumber,
    pub(crate) log: LogMark,
    pub(crate) record: CatalogRecord,
}

/// Where the catalog stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CatalogExtent {
    /// First file page of each copy.
    pub(crate) copies: [Option<u64>; 2],
    /// In bytes. Not yet checked against the length of the file.
    pub(crate) len: u64,
    /// Tells the catalog from those that stood in the same place before.
    pub(crate) number: u64,
    /// The sum of its bytes: of a catalog of format 4, 0 if it is not known.
    pub(crate) checksum: u32,
    /// File pages of each copy; 0: as many as its length takes.
    pub(crate) room: u32,
}

impl CatalogExtent {
    /// What whoever writes must know: that the sum changes with the catalog.
    fn features(&self) -> u64 {
        if self.number != 0 && self.checksum != 0 { CATALOG_SUM } else { 0 }
    }
}

/// A record of the catalog, encoded, that stands in the superblock itself; empty if there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CatalogRecord {
    bytes: [u8; RECORD_ROOM],
    len: u16,
}

impl Default for CatalogRecord {
    fn default() -> Self {
        Self { bytes: [0; RECORD_ROOM], len: 0 }
    }
}

impl CatalogRecord {
    /// `None` if the record is too long.
    pub(crate) fn new(record: &[u8]) -> Option<Self> {
        let mut bytes = [0; RECORD_ROOM];
        bytes.get_mut(..record.len())?.copy_from_slice(record);
        Some(Self { bytes, len: record.len() as u16 })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// From two bytes that say the length, the record, and zeros.
    fn decode(bytes: &[u8]) -> Result<Self> {
        let too_long = || Error::corruption("the record in the superblock is longer than its room");
        let (len, rest) = bytes.split_first_chunk().ok_or_else(too_long)?;
        let len = u16::from_le_bytes(*len);
        let (record, zeros) = rest.split_at_checked(len.into()).ok_or_else(too_long)?;
        if zeros.iter().any(|&byte| byte != 0) {
            return Err(not_zero());
        }
        Self::new(record).ok_or_else(too_long)
    }
}

fn not_zero() -> Error {
    unknown("reserved bytes of the superblock are not zero")
}

fn u32_at(bytes: &[u8; LEN], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8; LEN], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn is_whole(bytes: &[u8; LEN]) -> bool {
    crc32(&[&bytes[..AT_CHECKSUM]]) == u32_at(bytes, AT_CHECKSUM)
}

impl Superblock {
    /// File pages that belong to each copy of the catalog.
    pub(crate) fn catalog_pages(&self) -> u64 {
        let least = self.catalog.len.div_ceil(u64::from(self.page_size));
        least.max(u64::from(self.catalog.room))
    }

    pub(crate) fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(AT_MAGIC, &MAGIC);
        put(AT_VERSION, &VERSION.to_le_bytes());
        put(AT_PAGE_SIZE, &self.page_size.to_le_bytes());
        put(AT_CHECKPOINT, &self.checkpoint.to_le_bytes());
        put(AT_DATABASE_ID, &self.database_id);
        put(AT_READ_FEATURES, &self.features.read.to_le_bytes());
        put(AT_WRITE_FEATURES, &(self.features.write | self.catalog.features()).to_le_bytes());
        for (index, copy) in self.catalog.copies.iter().enumerate() {
            put(AT_CATALOG_COPIES + 8 * index, &copy.unwrap_or(NOWHERE).to_le_bytes());
        }
        put(AT_CATALOG_LEN, &self.catalog.len.to_le_bytes());
        put(AT_CATALOG_NUMBER, &self.catalog.number.to_le_bytes());
        put(AT_CATALOG_ROOM, &self.catalog.room.to_le_bytes());
        put(AT_CATALOG_CHECKSUM, &self.catalog.checksum.to_le_bytes());
        put(AT_NEXT_FAMILY, &self.next_family.to_le_bytes());
        put(AT_LAST_SEQUENCE, &self.last_sequence.0.to_le_bytes());
        put(AT_RECORD_LEN, &self.record.len.to_le_bytes());
        put(AT_RECORD, &self.record.bytes);
        put(AT_LOG_FIRST, &self.log.first_segment.to_le_bytes());
        put(AT_LOG_NEWEST, &self.log.newest_segment.to_le_bytes());
        put(AT_LOG_DURABLE, &self.log.durable_bytes.to_le_bytes());
        let checksum = crc32(&[&bytes[..AT_CHECKSUM]]);
        bytes[AT_CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads one slot. `NotADatabase` without the magic, `NewerFormat` with a version or features that this
    /// engine does not know, or something where it expects zeros; `Corruption` if the checksum or a field is
    /// wrong.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let bytes: &[u8; LEN] = match bytes.first_chunk() {
            Some(bytes) if bytes.starts_with(&MAGIC) => bytes,
            _ => {
                return Err(Error::new(
                    ErrorKind::NotADatabase,
                    "the file does not start as a Peristyle database does",
                ));
            }
        };
        let version = u32_at(bytes, AT_VERSION);
        if version > VERSION {
            return Err(newer(format_args!("the database needs format version {version}")));
        }
        if !is_whole(bytes) {
            return Err(Error::corruption("the checksum of the superblock does not match"));
        }
        let superblock = match version {
            0 => return Err(Error::corruption("there is no format version 0")),
            1 => Self::decode_version1(bytes)?,
            _ => Self::decode_fields(bytes)?,
        };
        let page_size = superblock.page_size;
        if !PAGE_SIZES.contains(&page_size) {
            return Err(Error::corruption(format!("the superblock names a page size of {page_size} bytes")));
        }
        let LogMark { first_segment, newest_segment, .. } = superblock.log;
        let counters = [
            superblock.checkpoint,
            superblock.last_sequence.0,
            first_segment,
            newest_segment,
            superblock.catalog.number,
        ];
        if counters.iter().any(|&counter| counter >= BEYOND_COUNTING) {
            return Err(Error::corruption("the superblock counts higher than any database does"));
        }
        Ok(superblock)
    }

    fn decode_fields(bytes: &[u8; LEN]) -> Result<Self> {
        let features =
            Features { read: u64_at(bytes, AT_READ_FEATURES), write: u64_at(bytes, AT_WRITE_FEATURES) };
        // What else stands there may mean something else with features that nobody here knows.
        features.check_reading("the database")?;
        // Follows from the sum.
        let features = Features { write: features.write & !CATALOG_SUM, ..features };
        if bytes[AT_RESERVED..AT_RECORD_LEN].iter().any(|&byte| byte != 0) {
            return Err(not_zero());
        }
        let record = CatalogRecord::decode(&bytes[AT_RECORD_LEN..AT_CHECKSUM])?;
        let copies =
            [0, 8].map(|skip| Some(u64_at(bytes, AT_CATALOG_COPIES + skip)).filter(|&page| page != NOWHERE));
        Ok(Self {
            page_size: u32_at(bytes, AT_PAGE_SIZE),
            checkpoint: u64_at(bytes, AT_CHECKPOINT),
            database_id: bytes[AT_DATABASE_ID..AT_READ_FEATURES].try_into().expect("sixteen bytes"),
            features,
            catalog: CatalogExtent {
                copies,
                len: u64_at(bytes, AT_CATALOG_LEN),
                number: u64_at(bytes, AT_CATALOG_NUMBER),
                checksum: u32_at(bytes, AT_CATALOG_CHECKSUM),
                room: u32_at(bytes, AT_CATALOG_ROOM),
            },
            next_family: u32_at(bytes, AT_NEXT_FAMILY),
            last_sequence: SequenceNumber(u64_at(bytes, AT_LAST_SEQUENCE)),
            log: LogMark {
                first_segment: u64_at(bytes, AT_LOG_FIRST),
                newest_segment: u64_at(bytes, AT_LOG_NEWEST),
                durable_bytes: u64_at(bytes, AT_LOG_DURABLE),
            },
            record,
        })
    }

    fn decode_version1(bytes: &[u8; LEN]) -> Result<Self> {
        let mut at = AT_DATABASE_ID + 16;
        let mut next = |len: usize| {
            at += len;
            at - len
        };
        let (page, len, checksum, room) = (next(8), next(8), next(4), next(4));
        let (first_segment, newest_segment, durable_bytes) = (next(8), next(8), next(8));
        Ok(Self {
            page_size: u32_at(bytes, AT_PAGE_SIZE),
            checkpoint: u64_at(bytes, AT_CHECKPOINT),
            database_id: bytes[AT_DATABASE_ID..AT_READ_FEATURES].try_into().expect("sixteen bytes"),
            features: Features::default(),
            catalog: CatalogExtent {
                copies: [Some(u64_at(bytes, page)), None],
                len: u64_at(bytes, len),
                number: 0,
                checksum: u32_at(bytes, checksum),
                room: u32_at(bytes, room),
            },
            next_family: 0,
            last_sequence: SequenceNumber(0),
            log: LogMark {
                first_segment: u64_at(bytes, first_segment),
                newest_segment: u64_at(bytes, newest_segment),
                durable_bytes: u64_at(bytes, durable_bytes),
            },
            record: CatalogRecord::decode(&bytes[at..AT_CHECKSUM])?,
        })
    }

    /// Reads both slots and returns the newest that is whole, and the slot that [`store`](Self::store) may
    /// write first: one that does not hold it alone. If neither is whole, the error says what is known best:
    /// a newer format, then damage, then that this is no database.
    pub(crate) fn load(file: &dyn StorageFile, path: &str) -> Result<(Self, usize)> {
        let [a, b] = [read_slot(file, path, 0), read_slot(file, path, 1)];
        match (a.decoded, b.decoded) {
            (Ok(a), Ok(b)) if a.database_id != b.database_id => {
                let message = "the two slots of the superblock belong to different databases";
                Err(Error::corruption(message).in_file(path).at_offset(SLOTS[1]))
            }
            (Ok(a), Ok(b)) => Ok(if b.checkpoint > a.checkpoint { (b, 0) } else { (a, 1) }),
            (Ok(whole), Err(error)) => Ok((serve(whole, error, b.is_whole)?, 1)),
            (Err(error), Ok(whole)) => Ok((serve(whole, error, a.is_whole)?, 0)),
            (Err(a), Err(b)) => Err(if rank(&b) > rank(&a) { b } else { a }),
        }
    }

    /// Whether both slots hold this. If not, it may have reached the memory of the system only: a process was
    /// killed between writing it and the sync, or the sync failed.
    pub(crate) fn is_in_both_slots(&self, file: &dyn StorageFile, path: &str) -> bool {
        let [a, b] = [read_slot(file, path, 0), read_slot(file, path, 1)];
        [a, b].iter().all(|slot| slot.decoded.as_ref().is_ok_and(|decoded| decoded == self))
    }

    /// What is wrong with each slot by itself. To be called while nobody stores one.
    pub(crate) fn check_slots(file: &dyn StorageFile, path: &str) -> impl Iterator<Item = Error> {
        [0, 1].map(|slot| read_slot(file, path, slot).decoded.err()).into_iter().flatten()
    }

    /// Writes slot `first`, syncs, then writes the other one. When this returns, the checkpoint is durable.
    pub(crate) fn store(&self, pool: &FileHandlePool, first: usize) -> Result<()> {
        let bytes = self.encode();
        let write = |slot: usize| {
            let written = pool.permanent().write_at(&bytes, SLOTS[slot]);
            written.map_err(|error| {
                Error::lost("writing the superblock", error).in_file(pool.path()).at_offset(SLOTS[slot])
            })
        };
        write(first)?;
        pool.sync()?;
        write(1 - first)
    }
}

struct Slot {
    decoded: Result<Superblock>,
    /// The checksum holds, whatever the fields say.
    is_whole: bool,
}

fn read_slot(file: &dyn StorageFile, path: &str, slot: usize) -> Slot {
    let mut bytes = [0; LEN];
    let is_whole = match file.read_at(&mut bytes, SLOTS[slot]) {
        Ok(()) => is_whole(&bytes),
        // What ends before the slot does holds no superblock there.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            bytes = [0; LEN];
            false
        }
        // A sector that cannot be read costs its slot alone.
        Err(error) => {
            let error = Error::io("reading the superblock", error).in_file(path).at_offset(SLOTS[slot]);
            return Slot { decoded: Err(error), is_whole: false };
        }
    };
    let decoded = Superblock::decode(&bytes).map_err(|error| error.in_file(path).at_offset(SLOTS[slot]));
    Slot { decoded, is_whole }
}

/// One slot is whole, the other is not usable. It may be damaged; but if a newer engine wrote it, this one
/// must not go back behind what that did.
fn serve(whole: Superblock, error: Error, other_is_whole: bool) -> Result<Superblock> {
    if error.kind() == ErrorKind::NewerFormat && other_is_whole {
        return Err(error);
    }
    tracing::warn!(%error, checkpoint = whole.checkpoint, "a slot of the superblock is unusable, the other one serves");
    Ok(whole)
}

fn rank(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::NewerFormat => 3,
        ErrorKind::Corruption => 2,
        ErrorKind::NotADatabase => 0,
        _ => 1,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::storage::{FileMode, MemoryStorage};
    use crate::sync::Arc;

    fn sample(checkpoint: u64) -> Superblock {
        Superblock {
            page_size: 8192,
            checkpoint,
            database_id: *b"0123456789abcdef",
            features: Features { read: 0, write: 0 },
            catalog: CatalogExtent {
                copies: [Some(77), Some(99)],
                len: 4321,
                number: 6,
                checksum: 0xdead_beef,
                room: 3,
            },
            next_family: 12,
            last_sequence: SequenceNumber(1 << 40),
            log: LogMark { first_segment: 5, newest_segment: 9, durable_bytes: 1 << 33 },
            record: CatalogRecord::new(&[7, 9]).unwrap(),
        }
    }

    fn pool() -> FileHandlePool {
        FileHandlePool::new(Arc::new(MemoryStorage::new()), "data", FileMode::Create, 2).unwrap()
    }

    fn load(pool: &FileHandlePool) -> Result<Superblock> {
        Ok(Superblock::load(&**pool.permanent(), pool.path())?.0)
    }

    fn resealed(mut bytes: [u8; LEN], change: impl FnOnce(&mut [u8; LEN])) -> [u8; LEN] {
        change(&mut bytes);
        let checksum = crc32(&[&bytes[..AT_CHECKSUM]]);
        bytes[AT_CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    #[test]
    fn what_was_stored_is_loaded() {
        let pool = pool();
        for checkpoint in 1..4 {
            sample(checkpoint).store(&pool, 0).unwrap();
            assert_eq!(load(&pool).unwrap(), sample(checkpoint));
        }
        assert_eq!(Superblock::decode(&sample(1).encode()).unwrap(), sample(1));
    }

    #[test]
    fn a_record_is_held_if_there_is_room_for_it() {
        assert!(CatalogRecord::new(&[1; RECORD_ROOM + 1]).is_none());
        for len in [0, 1, RECORD_ROOM] {
            let record = vec![1; len];
            let superblock = Superblock { record: CatalogRecord::new(&record).unwrap(), ..sample(1) };
            assert_eq!(Superblock::decode(&superblock.encode()).unwrap().record.bytes(), record);
        }
    }

    #[test]
    fn fields_stand_where_the_format_says() {
        let bytes = sample(3).encode();
        assert_eq!(&bytes[..8], b"PERISTYL");
        assert_eq!(bytes[8..16], [2, 0, 0, 0, 0, 32, 0, 0]);
        assert_eq!(bytes[16], 3);
        assert_eq!(&bytes[24..40], b"0123456789abcdef");
        assert_eq!((&bytes[40..48], &bytes[48..56]), (&[0; 8][..], &[2, 0, 0, 0, 0, 0, 0, 0][..]));
        assert_eq!((bytes[56], bytes[64], bytes[72], bytes[80], bytes[88]), (77, 99, 0xe1, 6, 3));
        assert_eq!((bytes[95], bytes[96], bytes[105]), (0xde, 12, 1));
        assert_eq!((bytes[108], bytes[116], bytes[128]), (5, 9, 2));
        assert_eq!((&bytes[132..180], &bytes[180..185]), (&[0; 48][..], &[2, 0, 7, 9, 0][..]));
    }

    #[test]
    fn every_flipped_bit_of_a_slot_is_found_and_the_other_slot_serves() {
        let pool = pool();
        sample(7).store(&pool, 0).unwrap();
        let whole = sample(7).encode();
        for slot in SLOTS {
            for bit in (0..LEN * 8).step_by(if cfg!(miri) { 211 } else { 1 }) {
                let mut bytes = whole;
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(Superblock::decode(&bytes).is_err(), "bit {bit}");
                pool.permanent().write_at(&bytes, slot).unwrap();
                assert_eq!(load(&pool).unwrap(), sample(7), "bit {bit} of the slot at {slot}");
            }
            pool.permanent().write_at(&whole, slot).unwrap();
        }
    }

    #[test]
    fn the_newer_of_two_whole_slots_serves() {
        let pool = pool();
        for (a, b) in [(8, 7), (7, 8)] {
            pool.permanent().write_at(&sample(a).encode(), SLOTS[0]).unwrap();
            pool.permanent().write_at(&sample(b).encode(), SLOTS[1]).unwrap();
            assert_eq!(load(&pool).unwrap().checkpoint, 8);
        }
    }

    #[test]
    fn the_slot_to_write_first_is_never_the_one_that_alone_holds_the_newest_superblock() {
        let (newest, old) = (sample(8).encode(), sample(7).encode());
        for newest_slot in [0, 1] {
            for other in [old, [0x55; LEN]] {
                let pool = pool();
                pool.permanent().write_at(&newest, SLOTS[newest_slot]).unwrap();
                pool.permanent().write_at(&other, SLOTS[1 - newest_slot]).unwrap();
                let (superblock, first) = Superblock::load(&**pool.permanent(), pool.path()).unwrap();
                assert_eq!((superblock.checkpoint, first), (8, 1 - newest_slot));
            }
        }
    }

    #[test]
    fn what_is_no_database_is_called_so() {
        for content in [vec![], vec![0; 100], b"PERISTYL".to_vec(), vec![0xa5; 100_000], vec![0; 100_000]] {
            let pool = pool();
            pool.permanent().write_at(&content, 0).unwrap();
            let error = load(&pool).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotADatabase, "{} bytes", content.len());
            assert_eq!(error.location().file.as_deref(), Some("data"));
        }
    }

    #[test]
    fn two_damaged_slots_are_corruption() {
        let pool = pool();
        let mut bytes = sample(7).encode();
        bytes[20] ^= 1;
        pool.permanent().write_at(&bytes, SLOTS[0]).unwrap();
        assert_eq!(load(&pool).unwrap_err().kind(), ErrorKind::Corruption);
        pool.permanent().write_at(&bytes, SLOTS[1]).unwrap();
        assert_eq!(load(&pool).unwrap_err().kind(), ErrorKind::Corruption);
    }

    #[test]
    fn what_a_newer_engine_wrote_is_refused_even_if_the_other_slot_is_older() {
        for at in
            [AT_VERSION, AT_READ_FEATURES + 1, AT_RESERVED, AT_RECORD_LEN - 1, AT_RECORD + 2, AT_CHECKSUM - 1]
        {
            let newer = resealed(sample(8).encode(), |bytes| bytes[at] += 1);
            let error = Superblock::decode(&newer).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NewerFormat, "byte {at}");
            assert!(error.to_string().contains("this engine knows format versions up to 2"), "{error}");
            let pool = pool();
            sample(7).store(&pool, 0).unwrap();
            pool.permanent().write_at(&newer, SLOTS[0]).unwrap();
            assert_eq!(load(&pool).unwrap_err().kind(), ErrorKind::NewerFormat, "byte {at}");
            pool.permanent().write_at(&newer, SLOTS[1]).unwrap();
            assert_eq!(load(&pool).unwrap_err().kind(), ErrorKind::NewerFormat, "byte {at}");
        }
    }

    #[test]
    fn well_summed_nonsense_is_corruption() {
        for at in [AT_PAGE_SIZE, AT_RECORD_LEN + 1] {
            let bytes = resealed(sample(7).encode(), |bytes| bytes[at] ^= 3);
            assert_eq!(Superblock::decode(&bytes).unwrap_err().kind(), ErrorKind::Corruption, "byte {at}");
        }
        let bytes = resealed(sample(7).encode(), |bytes| bytes[AT_VERSION] = 0);
        assert_eq!(Superblock::decode(&bytes).unwrap_err().kind(), ErrorKind::Corruption);
    }

    #[test]
    fn who_does_not_know_of_the_sum_of_the_catalog_does_not_write() {
        let write_features = |superblock: &Superblock| u64_at(&superblock.encode(), AT_WRITE_FEATURES);
        let mut superblock = Superblock { features: Features::OF_PREPARED, ..sample(7) };
        for (number, checksum, expected) in [(3, 9, 3), (3, 0, 1), (0, 9, 1)] {
            (superblock.catalog.number, superblock.catalog.checksum) = (number, checksum);
            assert_eq!(write_features(&superblock), expected);
            assert_eq!(Superblock::decode(&superblock.encode()).unwrap().features, Features::OF_PREPARED);
        }
    }

    #[test]
    fn features_that_nobody_here_knows_are_refused_to_readers_or_to_writers_alone() {
        for bit in 0..64 {
            let changed =
                |at: usize| resealed(sample(8).encode(), |bytes| bytes[at + bit / 8] |= 1 << (bit % 8));
            let read = Superblock::decode(&changed(AT_READ_FEATURES));
            let known = [Features::OF_OPERANDS, Features::OF_EXPIRY, Features::OF_KEY_ORDER];
            if let Some(known) = known.into_iter().find(|known| known.read == 1 << bit) {
                assert_eq!(read.unwrap().features, known);
            } else {
                let error = read.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NewerFormat);
                assert!(error.to_string().contains(&format!("{:#x}", 1u64 << bit)), "{error}");
            }
            let superblock = Superblock::decode(&changed(AT_WRITE_FEATURES)).unwrap();
            let writing = superblock.features.check_writing("the database");
            match 1 << bit == Features::OF_PREPARED.write || 1 << bit == CATALOG_SUM {
                true => assert!(writing.is_ok()),
                false => assert_eq!(writing.unwrap_err().kind(), ErrorKind::NewerFormat),
            }
        }
    }

    /// A file of which one sector cannot be read.
    #[derive(Debug)]
    struct BadSector(Arc<dyn StorageFile>, u64);

    impl StorageFile for BadSector {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
            if offset <= self.1 && self.1 < offset + buffer.len() as u64 {
                return Err(std::io::Error::from_raw_os_error(5));
            }
            self.0.read_at(buffer, offset)
        }

        fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
            self.0.write_at(bytes, offset)
        }

        fn sync(&self) -> std::io::Result<()> {
            self.0.sync()
        }

        fn len(&self) -> std::io::Result<u64> {
            self.0.len()
        }

        fn set_len(&self, len: u64) -> std::io::Result<()> {
            self.0.set_len(len)
        }

        fn allocate(&self, offset: u64, len: u64) -> std::io::Result<()> {
            self.0.allocate(offset, len)
        }

        fn deallocate(&self, offset: u64, len: u64) -> std::io::Result<()> {
            self.0.deallocate(offset, len)
        }
    }

    #[test]
    fn a_slot_that_cannot_be_read_costs_nothing() {
        let pool = pool();
        sample(7).store(&pool, 0).unwrap();
        for (bad, slot) in SLOTS.into_iter().enumerate() {
            let file = BadSector(Arc::clone(pool.permanent()), slot);
            assert_eq!(Superblock::load(&file, "data").unwrap(), (sample(7), bad));
            assert!(!sample(7).is_in_both_slots(&file, "data"));
            // With nothing in the other slot, the error is the disk's.
            let other = SLOTS[1 - bad];
            pool.permanent().write_at(&[0; LEN], other).unwrap();
            let error = Superblock::load(&file, "data").unwrap_err();
            assert_eq!((error.kind(), error.location().offset), (ErrorKind::Io, Some(slot)));
            pool.permanent().write_at(&sample(7).encode(), other).unwrap();
        }
    }

    #[test]
    fn slots_of_two_databases_are_corruption() {
        let pool = pool();
        sample(7).store(&pool, 0).unwrap();
        let other = Superblock { database_id: [1; 16], ..sample(8) };
        pool.permanent().write_at(&other.encode(), SLOTS[1]).unwrap();
        assert_eq!(load(&pool).unwrap_err().kind(), ErrorKind::Corruption);
    }
}
