//! Where the catalog stands in the data file, and what changes of families it records.

use crate::codec::checksum::crc32_behind;
use crate::codec::ids::SequenceNumber;
use crate::column_family::catalog::{Catalog, Part};
use crate::column_family::family::Family;
use crate::column_family::options::FamilyOptions;
use crate::column_family::record::{FamilyRecord, Record};
use crate::segment::{CatalogExtent, Superblock};
use crate::sync::Arc;

/// The parts that are written, those of them that no superblock names yet included.
pub(super) struct CatalogFile {
    pub(super) file_page: u64,
    /// In pages.
    pub(super) room: u64,
    pub(super) len: u64,
    pub(super) checksum: u32,
    /// The last part's.
    pub(super) last_sequence: SequenceNumber,
    pub(super) next_family: u32,
    /// A record that the superblock held when the database was opened: it may be in no part.
    pub(super) unlisted: Option<Record>,
    /// Parts can be written behind those that are there.
    pub(super) has_parts: bool,
    /// Where the catalog before this one stood: room for the next, also on a full disk. First file page and pages.
    pub(super) spare: Option<(u64, u64)>,
}

impl CatalogFile {
    /// The catalog that was read, and the record that the superblock held.
    pub(super) fn restore(superblock: &Superblock, catalog: &Catalog, unlisted: Option<Record>) -> Self {
        let CatalogExtent { file_page, len, checksum, .. } = superblock.catalog;
        Self {
            file_page,
            room: superblock.catalog_pages(),
            len,
            checksum,
            last_sequence: catalog.last_sequence,
            // Not what the unlisted record implies.
            next_family: 0,
            unlisted,
            has_parts: catalog.has_parts,
            spare: None,
        }
    }

    /// What a superblock says of it.
    pub(super) fn extent(&self) -> CatalogExtent {
        let Self { file_page, len, checksum, .. } = *self;
        // More room than can be said is kept for as long as the database is open.
        CatalogExtent { file_page, len, checksum, room: u32::try_from(self.room).unwrap_or(0) }
    }

    /// Whether `bytes` can be written behind what is there.
    pub(super) fn has_room(&self, bytes: &[u8], page_size: u64) -> bool {
        self.has_parts && self.len + bytes.len() as u64 <= self.room * page_size
    }

    pub(super) fn append(&mut self, part: &Part, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        self.checksum = crc32_behind(self.checksum, bytes);
        (self.last_sequence, self.next_family) = (part.last_sequence, part.next_family);
        self.unlisted = None;
    }

    /// Whether a part with `last_sequence` and `next_family` and no records would say anything new.
    pub(super) fn says(&self, part: &Part) -> bool {
        part.records.is_empty()
            && (part.last_sequence, part.next_family) == (self.last_sequence, self.next_family)
    }
}

/// What becomes of families without anything else.
pub(super) enum Change<'a> {
    Created(&'a [Arc<Family>]),
    Renamed(&'a Family, &'a str),
    Dropped(&'a Family),
    Changed(&'a Family, &'a FamilyOptions),
}

impl Change<'_> {
    pub(super) fn records(&self) -> Vec<Record> {
        match self {
            Self::Created(families) => {
                let new = |family: &Arc<Family>| {
                    Record::Whole(Box::new(FamilyRecord::new(family.id(), &family.name(), family.options())))
                };
                families.iter().map(new).collect()
            }
            Self::Renamed(family, name) => vec![Record::Renamed(family.id(), (*name).to_owned())],
            Self::Dropped(family) => vec![Record::Dropped(family.id())],
            Self::Changed(family, options) => vec![Record::Changed(family.id(), (*options).clone())],
        }
    }

    /// Changes the records of all families as they were before.
    pub(super) fn apply(&self, records: &mut Vec<Record>) {
        match self {
            Self::Created(_) => records.extend(self.records()),
            Self::Renamed(family, new_name) => {
                for record in records {
                    if let Record::Whole(record) = record
                        && record.id == family.id()
                    {
                        record.name = (*new_name).to_owned();
                    }
                }
            }
            Self::Dropped(family) => records.retain(|record| record.id() != family.id()),
            Self::Changed(family, new_options) => {
                for record in records {
                    if let Record::Whole(record) = record
                        && record.id == family.id()
                    {
                        record.options = (*new_options).clone();
                    }
                }
            }
        }
    }
}

/// What the last checkpoint wrote; guarded by the lock that lets one run at a time.
pub(super) struct State {
    pub(super) superblock: Superblock,
    /// The slot of the superblock to write first.
    pub(super) first_slot: usize,
    /// Whether that slot's twin is known to be durable. When a database is opened both may say the same, and one of them only in
    /// the memory of the system: which one is not known.
    pub(super) twin_is_durable: bool,
    pub(super) catalog: CatalogFile,
}
