//! The superblock: where the newest checkpoint stands. The only bytes of the data file that are written in place.
//!
//! ```text
//! offset size field
//!      0    8 magic `PERISTYL`
//!      8    4 format version
//!     12    4 page size
//!     16    8 checkpoint number, counts up
//!     24   16 database id
//!     40    8 catalog: first file page
//!     48    8 catalog: length in bytes
//!     56    4 catalog: CRC-32
//!     60    4 catalog: pages that are kept for it; 0: as many as its length takes
//!     64    8 log: id of the first segment that recovery reads
//!     72    8 log: id of the newest segment when this was written
//!     80    8 log: bytes of that segment that were known to be durable
//!     88    2 length of the record that follows, at most 418
//!     90  418 a record of the catalog that is newer than the catalog, see `column_family/record.rs`, then zeros
//!    508    4 CRC-32 of bytes 0..508
//! ```
//!
//! It stands in two slots. A checkpoint writes one and syncs, then writes the other with the same content. The next checkpoint begins
//! with that other one, and its sync, at the latest, makes it durable before the first is touched. The first checkpoint after opening begins
//! with the slot that does not hold the newest superblock: what the older one reaches may be overwritten by then. So at every instant
//! one slot is whole and good, and normally both say the same. Magic, version and checksum stay where they are in every version
//! of the format.

use crate::codec::checksum::crc32;
use crate::codec::ids::BEYOND_COUNTING;
use crate::codec::log_mark::LogMark;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{FileHandlePool, StorageFile};

const MAGIC: [u8; 8] = *b"PERISTYL";
/// The version of the format that this engine writes, and the newest that it reads.
const VERSION: u32 = 1;

const AT_MAGIC: usize = 0;
const AT_VERSION: usize = AT_MAGIC + 8;
const AT_PAGE_SIZE: usize = AT_VERSION + 4;
const AT_CHECKPOINT: usize = AT_PAGE_SIZE + 4;
const AT_DATABASE_ID: usize = AT_CHECKPOINT + 8;
const AT_CATALOG_PAGE: usize = AT_DATABASE_ID + 16;
const AT_CATALOG_LEN: usize = AT_CATALOG_PAGE + 8;
const AT_CATALOG_CHECKSUM: usize = AT_CATALOG_LEN + 8;
const AT_CATALOG_ROOM: usize = AT_CATALOG_CHECKSUM + 4;
const AT_LOG_FIRST: usize = AT_CATALOG_ROOM + 4;
const AT_LOG_NEWEST: usize = AT_LOG_FIRST + 8;
const AT_LOG_DURABLE: usize = AT_LOG_NEWEST + 8;
const AT_RECORD_LEN: usize = AT_LOG_DURABLE + 8;
const AT_RECORD: usize = AT_RECORD_LEN + 2;
const RECORD_ROOM: usize = 418;
const AT_CHECKSUM: usize = AT_RECORD + RECORD_ROOM;
const LEN: usize = AT_CHECKSUM + 4;
const _: () = assert!(LEN == 512);

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
    pub(crate) catalog: CatalogExtent,
    pub(crate) log: LogMark,
    pub(crate) record: CatalogRecord,
}

/// Where the catalog stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CatalogExtent {
    pub(crate) file_page: u64,
    /// In bytes. Not yet checked against the length of the file.
    pub(crate) len: u64,
    pub(crate) checksum: u32,
    /// File pages that are the catalog's; 0: as many as its length takes.
    pub(crate) room: u32,
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
    /// File pages that belong to the catalog.
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
        put(AT_CATALOG_PAGE, &self.catalog.file_page.to_le_bytes());
        put(AT_CATALOG_LEN, &self.catalog.len.to_le_bytes());
        put(AT_CATALOG_CHECKSUM, &self.catalog.checksum.to_le_bytes());
        put(AT_CATALOG_ROOM, &self.catalog.room.to_le_bytes());
        put(AT_RECORD_LEN, &self.record.len.to_le_bytes());
        put(AT_RECORD, &self.record.bytes);
        put(AT_LOG_FIRST, &self.log.first_segment.to_le_bytes());
        put(AT_LOG_NEWEST, &self.log.newest_segment.to_le_bytes());
        put(AT_LOG_DURABLE, &self.log.durable_bytes.to_le_bytes());
        let checksum = crc32(&[&bytes[..AT_CHECKSUM]]);
        bytes[AT_CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads one slot. `NotADatabase` without the magic, `NewerFormat` with a version that this engine does not know,
    /// `Corruption` if the checksum or a field is wrong.
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
            return Err(Error::new(
                ErrorKind::NewerFormat,
                format!(
                    "the database has format version {version}, this engine reads up to {VERSION}: use a newer one"
                ),
            ));
        }
        if !is_whole(bytes) {
            return Err(Error::corruption("the checksum of the superblock does not match"));
        }
        if version != VERSION {
            return Err(Error::corruption(format!("there is no format version {version}")));
        }
        let page_size = u32_at(bytes, AT_PAGE_SIZE);
        if !PAGE_SIZES.contains(&page_size) {
            return Err(Error::corruption(format!("the superblock names a page size of {page_size} bytes")));
        }
        let record_len = u16::from_le_bytes([bytes[AT_RECORD_LEN], bytes[AT_RECORD_LEN + 1]]);
        let (record, zeros) = bytes[AT_RECORD..AT_CHECKSUM]
            .split_at_checked(record_len.into())
            .ok_or_else(|| Error::corruption("the record in the superblock is longer than its room"))?;
        if zeros.iter().any(|&byte| byte != 0) {
            return Err(Error::corruption("reserved bytes of the superblock are not zero"));
        }
        let record = CatalogRecord::new(record).unwrap_or_default();
        let counters = [AT_CHECKPOINT, AT_LOG_FIRST, AT_LOG_NEWEST].map(|at| u64_at(bytes, at));
        if counters.iter().any(|&counter| counter >= BEYOND_COUNTING) {
            return Err(Error::corruption("the superblock counts higher than any database does"));
        }
        Ok(Self {
            page_size,
            checkpoint: u64_at(bytes, AT_CHECKPOINT),
            database_id: bytes[AT_DATABASE_ID..AT_CATALOG_PAGE].try_into().expect("sixteen bytes"),
            catalog: CatalogExtent {
                file_page: u64_at(bytes, AT_CATALOG_PAGE),
                len: u64_at(bytes, AT_CATALOG_LEN),
                checksum: u32_at(bytes, AT_CATALOG_CHECKSUM),
                room: u32_at(bytes, AT_CATALOG_ROOM),
            },
            record,
            log: LogMark {
                first_segment: u64_at(bytes, AT_LOG_FIRST),
                newest_segment: u64_at(bytes, AT_LOG_NEWEST),
                durable_bytes: u64_at(bytes, AT_LOG_DURABLE),
            },
        })
    }

    /// Reads both slots and returns the newest that is whole, and the slot that [`store`](Self::store) may write first: one
    /// that does not hold it alone. If neither is whole, the error says what is known best: a newer format, then damage, then that this is no
    /// database.
    pub(crate) fn load(file: &dyn StorageFile, path: &str) -> Result<(Self, usize)> {
        let [a, b] = [read_slot(file, path, 0)?, read_slot(file, path, 1)?];
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

    /// Whether both slots hold this. If not, it may have reached the memory of the system only: a process was killed between writing it
    /// and the sync, or the sync failed.
    pub(crate) fn is_in_both_slots(&self, file: &dyn StorageFile, path: &str) -> Result<bool> {
        let [a, b] = [read_slot(file, path, 0)?, read_slot(file, path, 1)?];
        Ok([a, b].iter().all(|slot| slot.decoded.as_ref().is_ok_and(|decoded| decoded == self)))
    }

    /// Writes slot `first`, syncs, then writes the other one. When this returns, the checkpoint is durable.
    pub(crate) fn store(&self, pool: &FileHandlePool, first: usize) -> Result<()> {
        let bytes = self.encode();
        let write = |slot: usize| {
            let written = pool.permanent().write_at(&bytes, SLOTS[slot]);
            written.map_err(|error| {
                Error::io("writing the superblock", error).in_file(pool.path()).at_offset(SLOTS[slot])
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

fn read_slot(file: &dyn StorageFile, path: &str, slot: usize) -> Result<Slot> {
    let mut bytes = [0; LEN];
    let is_whole = match file.read_at(&mut bytes, SLOTS[slot]) {
        Ok(()) => is_whole(&bytes),
        // What ends before the slot does holds no superblock there.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            bytes = [0; LEN];
            false
        }
        Err(error) => {
            return Err(Error::io("reading the superblock", error).in_file(path).at_offset(SLOTS[slot]));
        }
    };
    let decoded = Superblock::decode(&bytes).map_err(|error| error.in_file(path).at_offset(SLOTS[slot]));
    Ok(Slot { decoded, is_whole })
}

/// One slot is whole, the other is not usable. It may be damaged; but if a newer engine wrote it, this one must not go back
/// behind what that did.
fn serve(whole: Superblock, error: Error, other_is_whole: bool) -> Result<Superblock> {
    if error.kind() == ErrorKind::NewerFormat && other_is_whole {
        return Err(error);
    }
    tracing::warn!(%error, checkpoint = whole.checkpoint, "a slot of the superblock is unusable, the other one serves");
    Ok(whole)
}

fn rank(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::NewerFormat => 2,
        ErrorKind::Corruption => 1,
        _ => 0,
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
            catalog: CatalogExtent { file_page: 77, len: 4321, checksum: 0xdead_beef, room: 3 },
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
        assert_eq!(bytes[8..16], [1, 0, 0, 0, 0, 32, 0, 0]);
        assert_eq!(bytes[16], 3);
        assert_eq!(&bytes[24..40], b"0123456789abcdef");
        assert_eq!((bytes[40], bytes[64], bytes[72], bytes[84]), (77, 5, 9, 2));
        assert_eq!((bytes[60], &bytes[88..93]), (3, &[2, 0, 7, 9, 0][..]));
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
    fn a_newer_format_is_refused_even_if_the_other_slot_is_older() {
        let newer = resealed(sample(8).encode(), |bytes| bytes[AT_VERSION] = 2);
        assert_eq!(Superblock::decode(&newer).unwrap_err().kind(), ErrorKind::NewerFormat);
        let pool = pool();
        sample(7).store(&pool, 0).unwrap();
        pool.permanent().write_at(&newer, SLOTS[0]).unwrap();
        assert_eq!(load(&pool).unwrap_err().kind(), ErrorKind::NewerFormat);
        pool.permanent().write_at(&newer, SLOTS[1]).unwrap();
        assert_eq!(load(&pool).unwrap_err().kind(), ErrorKind::NewerFormat);
    }

    #[test]
    fn well_summed_nonsense_is_corruption() {
        for at in [AT_PAGE_SIZE, AT_RECORD_LEN, AT_RECORD_LEN + 1, AT_RECORD + 2, AT_CHECKSUM - 1] {
            let bytes = resealed(sample(7).encode(), |bytes| bytes[at] ^= 3);
            assert_eq!(Superblock::decode(&bytes).unwrap_err().kind(), ErrorKind::Corruption, "byte {at}");
        }
        let bytes = resealed(sample(7).encode(), |bytes| bytes[AT_VERSION] = 0);
        assert_eq!(Superblock::decode(&bytes).unwrap_err().kind(), ErrorKind::Corruption);
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
