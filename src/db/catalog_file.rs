//! Where the catalog stands in the data file, and how it grows.
//!
//! ```text
//! a family is created, renamed or dropped:
//!     sync the log, if anything was committed that is not durable
//!     write the part that says so behind the others
//!     superblock with the record in it, and with the catalog without that part: one slot, sync, the other
//! ```
//!
//! The sync makes the part durable, too, so that the next superblock can name it instead of holding its record. Several records, and what
//! comes after an open that found a record in the superblock, take a sync between the part and a superblock that names it. Trees, log and
//! what else a checkpoint holds stay as the last one left them, so that this costs the same whatever the other families do.
//!
//! Invariants:
//! 1. The bytes that a durable superblock names are not written again: a part goes behind them, a whole catalog into another extent.
//! 2. What a superblock names was synced before the superblock was written.

use crate::codec::checksum::{crc32, crc32_behind};
use crate::codec::ids::SequenceNumber;
use crate::column_family::catalog::{BLOCK, Catalog, Part};
use crate::column_family::family::Family;
use crate::column_family::record::{FamilyRecord, Record};
use crate::db::Shared;
use crate::db::checkpoint::State;
use crate::error::{Error, ErrorKind, Result};
use crate::segment::{CatalogExtent, CatalogRecord, Superblock};
use crate::sync::Arc;

/// Room for parts behind the first one, in bytes, if that one is smaller.
const LEAST_ROOM: u64 = 3 * BLOCK as u64;

/// The parts that are written, those of them that no superblock names yet included.
pub(super) struct CatalogFile {
    file_page: u64,
    /// In pages.
    room: u64,
    len: u64,
    checksum: u32,
    /// The last part's.
    last_sequence: SequenceNumber,
    next_family: u32,
    /// A record that the superblock held when the database was opened: it may be in no part.
    pub(super) unlisted: Option<Record>,
    /// Parts can be written behind those that are there.
    has_parts: bool,
    /// Where the catalog before this one stood: room for the next, also on a full disk. First file page and pages.
    spare: Option<(u64, u64)>,
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

    fn append(&mut self, part: &Part, bytes: &[u8]) {
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
}

impl Change<'_> {
    pub(super) fn records(&self) -> Vec<Record> {
        match self {
            Self::Created(families) => {
                let new = |family: &Arc<Family>| {
                    Record::Whole(Box::new(FamilyRecord::new(
                        family.id(),
                        &family.name(),
                        family.options().clone(),
                    )))
                };
                families.iter().map(new).collect()
            }
            Self::Renamed(family, name) => vec![Record::Renamed(family.id(), (*name).to_owned())],
            Self::Dropped(family) => vec![Record::Dropped(family.id())],
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
        }
    }
}

impl Shared {
    /// Makes a change of families durable, and then calls `apply`, before any other checkpoint begins.
    pub(super) fn record_change(&self, change: &Change<'_>, apply: impl FnOnce()) -> Result<()> {
        let mut state = self.checkpoint.lock();
        self.pipeline.owns_files()?;
        self.pipeline.latch.check()?;
        if !self.append_change(&mut state, change).map_err(|error| self.pipeline.fail(error))? {
            self.checkpoint_under(&mut state, Some(change), true)?;
        }
        apply();
        Ok(())
    }

    /// Writes a part with the change alone. `false`, and nothing was done, if there is no room for it.
    fn append_change(&self, state: &mut State, change: &Change<'_>) -> Result<bool> {
        let changed = change.records();
        let single = match (&changed[..], &state.catalog.unlisted) {
            ([record], None) => {
                let mut bytes = Vec::new();
                record.encode(&mut bytes);
                CatalogRecord::new(&bytes)
            }
            _ => None,
        };
        let part = Part {
            next_family: self.registry.lock().next_family(),
            last_sequence: state.catalog.last_sequence,
            records: state.catalog.unlisted.iter().cloned().chain(changed).collect(),
        };
        let bytes = part.encode();
        if !state.catalog.has_room(&bytes, self.data.page_size() as u64) {
            return Ok(false);
        }
        // What was committed before survives with the change: somebody may drop what he copied elsewhere.
        if let Some(log) = &self.pipeline.log {
            log.sync()?;
        }
        let named = state.catalog.extent();
        self.append_part(state, &part, &bytes)?;
        let superblock = Superblock { checkpoint: state.superblock.checkpoint + 1, ..state.superblock };
        let superblock = match single {
            Some(record) => Superblock { catalog: named, record, ..superblock },
            None => {
                self.data.pool().sync()?;
                let record = CatalogRecord::default();
                Superblock { catalog: state.catalog.extent(), record, ..superblock }
            }
        };
        self.store_superblock(state, superblock)?;
        Ok(true)
    }

    /// Writes a part, for which there is room, behind the others.
    pub(super) fn append_part(&self, state: &mut State, part: &Part, bytes: &[u8]) -> Result<()> {
        self.write_catalog(self.data.offset(state.catalog.file_page) + state.catalog.len, bytes)?;
        state.catalog.append(part, bytes);
        Ok(())
    }

    /// Writes a catalog of one part into another extent. `OutOfSpace` if there is none: then nothing has changed.
    pub(super) fn write_whole(&self, state: &mut State, part: &Part, bytes: &[u8]) -> Result<()> {
        let (file_page, room) = self.room_for_catalog(state, bytes.len() as u64)?;
        self.write_catalog(self.data.offset(file_page), bytes).map_err(|error| self.pipeline.fail(error))?;
        let old = &state.catalog;
        state.catalog = CatalogFile {
            file_page,
            room,
            len: bytes.len() as u64,
            checksum: crc32(&[bytes]),
            last_sequence: part.last_sequence,
            next_family: part.next_family,
            unlisted: None,
            has_parts: true,
            spare: Some((old.file_page, old.room)),
        };
        Ok(())
    }

    fn write_catalog(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let written = self.data.pool().permanent().write_at(bytes, offset);
        written.map_err(|error| Error::io("writing the catalog", error).in_file("data").at_offset(offset))
    }

    /// Room for a catalog of `len` bytes and as many for parts behind it, or the spare one, so that a checkpoint that makes space needs
    /// none. First file page and pages.
    fn room_for_catalog(&self, state: &mut State, len: u64) -> Result<(u64, u64)> {
        let page_size = self.data.page_size() as u64;
        let wanted = (len + len.max(LEAST_ROOM)).div_ceil(page_size);
        if let Some(spare) = state.catalog.spare.take_if(|spare| spare.1 >= wanted) {
            return Ok(spare);
        }
        let file_page = match self.data.space().allocate(wanted) {
            Err(error) if error.kind() == ErrorKind::OutOfSpace => {
                let least = len.div_ceil(page_size);
                return state.catalog.spare.take_if(|spare| spare.1 >= least).ok_or(error);
            }
            allocated => allocated?,
        };
        self.free_spare(state);
        Ok((file_page, wanted))
    }

    /// Gives the spare place of the catalog back.
    pub(super) fn free_spare(&self, state: &mut State) {
        if let Some((file_page, pages)) = state.catalog.spare.take() {
            self.data.space().free(file_page, pages);
        }
    }

    /// Writes the superblock; the next time it begins with the slot that was written last.
    pub(super) fn store_superblock(&self, state: &mut State, superblock: Superblock) -> Result<()> {
        if !state.twin_is_durable {
            self.data.pool().sync()?;
            state.twin_is_durable = true;
        }
        superblock.store(self.data.pool(), state.first_slot)?;
        state.superblock = superblock;
        state.first_slot = 1 - state.first_slot;
        Ok(())
    }
}
