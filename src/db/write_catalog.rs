//! How the catalog in the data file grows, and the superblock that names it.
//!
//! ```text
//! a family is created, renamed, dropped, or gets other options:
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

use crate::codec::checksum::crc32;
use crate::column_family::catalog::{BLOCK, Part};
use crate::db::catalog_file::{CatalogFile, Change, State};
use crate::db::shared::Shared;
use crate::error::{Error, ErrorKind, Result};
use crate::segment::{CatalogRecord, Superblock};

/// Room for parts behind the first one, in bytes, if that one is smaller.
const LEAST_ROOM: u64 = 3 * BLOCK as u64;

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
