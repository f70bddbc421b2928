//! How the catalog in the data file grows, and the superblock that names it.
//!
//! ```text
//! a family is created, renamed, dropped, or gets other options:
//!     sync the log, if anything was committed that is not durable
//!     write the part that says so behind the others, in both copies
//!     superblock with the record in it, and with the catalog without that part: one slot, sync, the other
//! ```
//!
//! The sync makes the part durable, too, so that the next superblock can name it instead of holding its
//! record. Several records, and what comes after an open that found a record in the superblock, take a sync
//! between the part and a superblock that names it. Trees and what else a checkpoint holds stay as the last
//! one left them, and recovery begins where it did, so that this costs the same whatever the other families
//! do; of the log the superblock says that it was durable up to there.
//!
//! Invariants:
//! 1. The bytes that a durable superblock names are not written again: a part goes behind them, a whole
//!    catalog into other extents.
//! 2. What a superblock names was synced before the superblock was written.
//! 3. Both copies hold the same bytes. If one was found not to, parts are not written behind it: the next
//!    catalog is a whole one, elsewhere.

use crate::codec::checksum::crc32;
use crate::codec::features::Features;
use crate::column_family::catalog::encode_part;
use crate::column_family::record::Record;
use crate::db::catalog_file::{CatalogFile, Change, Place, State};
use crate::db::shared::Shared;
use crate::error::{Error, Result};
use crate::segment::{CatalogRecord, Superblock};

impl Shared {
    /// Writes a new catalog if the one that was read has not two whole copies, or is of an old format. A full
    /// disk leaves it as it is, and so does a family that is lost: what could not be read now may be read by
    /// somebody later.
    pub(super) fn mend_catalog(&self) -> Result<()> {
        let mut state = self.checkpoint.lock();
        if state.catalog.has_parts || state.catalog.is_kept {
            return Ok(());
        }
        match self.checkpoint_under(&mut state, None, true) {
            Err(error) if error.is_refusal() => Ok(()),
            made => made,
        }
    }

    /// Makes a change of families durable, and then calls `apply`, before any other checkpoint begins.
    pub(super) fn record_change(&self, change: &Change<'_>, apply: impl FnOnce()) -> Result<()> {
        let mut state = self.checkpoint.lock();
        self.pipeline.owns_files()?;
        self.pipeline.latch.check()?;
        state.superblock.features = state.superblock.features.and(change.features());
        if change.features().read & Features::OF_EXPIRY.read != 0 {
            // Before anything can be written that expires.
            self.pipeline.clock.set_used();
        }
        let judge = |error: Error| if error.is_refusal() { error } else { self.pipeline.fail(error) };
        if !self.append_change(&mut state, change).map_err(judge)? {
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
        let records: Vec<_> = state.catalog.unlisted.iter().cloned().chain(changed).collect();
        let Some(bytes) = state.catalog.encode_behind(&records, self.data.page_size() as u64) else {
            return Ok(false);
        };
        // What was committed before survives with the change: somebody may drop what he copied elsewhere. The
        // superblock says so, or damage at the end of the log would go unnoticed, and leave the change alone.
        let first_segment = state.superblock.log.first_segment;
        let log = match &self.pipeline.log {
            Some(log) => {
                log.sync()?;
                log.mark(first_segment)
            }
            None => state.superblock.log,
        };
        let named = state.catalog.extent();
        self.append_part(state, &bytes)?;
        let superblock = Superblock {
            checkpoint: state.superblock.checkpoint + 1,
            next_family: self.registry.lock().next_family(),
            log,
            ..state.superblock
        };
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
    pub(super) fn append_part(&self, state: &mut State, bytes: &[u8]) -> Result<()> {
        self.write_catalog(&state.catalog.place, state.catalog.len, bytes)?;
        state.catalog.append(bytes);
        Ok(())
    }

    /// Writes a catalog of one part into other extents, and zeros behind it where nothing was written before.
    /// `OutOfSpace` if there are none: then nothing has changed.
    pub(super) fn write_whole(&self, state: &mut State, records: &[Record]) -> Result<()> {
        let number = state.superblock.checkpoint + 1;
        let bytes = encode_part(records, number, 0);
        let mut place = self.room_for_catalog(state, bytes.len() as u64)?;
        let written = self.write_catalog(&place, 0, &bytes).and_then(|()| {
            if place.is_written { Ok(()) } else { self.write_zeros(&place, bytes.len() as u64) }
        });
        place.is_written |= written.is_ok();
        if let Err(error) = written {
            state.catalog.spare = Some(place);
            return Err(error);
        }
        let old = state.catalog.place;
        let spare = match old.copies {
            _ if state.catalog.is_kept => None,
            [Some(_), Some(_)] => Some(old),
            copies => {
                copies.iter().flatten().for_each(|&page| self.data.space().free(page, old.room));
                None
            }
        };
        state.catalog = CatalogFile {
            place,
            len: bytes.len() as u64,
            number,
            checksum: crc32(&[&bytes]),
            unlisted: None,
            has_parts: true,
            is_kept: false,
            spare,
            is_to_move: false,
        };
        Ok(())
    }

    /// Writes the same bytes into both copies.
    fn write_catalog(&self, place: &Place, skip: u64, bytes: &[u8]) -> Result<()> {
        for page in place.copies.into_iter().flatten() {
            let offset = self.data.offset(page) + skip;
            let written = self.data.pool().permanent().write_at(bytes, offset);
            written
                .map_err(|error| Error::io("writing the catalog", error).in_file("data").at_offset(offset))?;
        }
        Ok(())
    }

    /// Writes zeros from `skip` on into the room of both copies.
    fn write_zeros(&self, place: &Place, skip: u64) -> Result<()> {
        const MOST: u64 = 256 << 10;
        let end = place.room * self.data.page_size() as u64;
        let zeros = vec![0; MOST.min(end.saturating_sub(skip)) as usize];
        let mut at = skip;
        while at < end {
            let part = &zeros[..MOST.min(end - at) as usize];
            self.write_catalog(place, at, part)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Room for a catalog of `len` bytes and as many for parts behind it, or the spare one, so that a
    /// checkpoint that makes space needs none.
    fn room_for_catalog(&self, state: &mut State, len: u64) -> Result<Place> {
        let page_size = self.data.page_size() as u64;
        let (wanted, least) = (state.catalog.wanted_room(len, page_size), len.div_ceil(page_size));
        let is_to_move = std::mem::take(&mut state.catalog.is_to_move);
        let spare = &mut state.catalog.spare;
        if let Some(spare) = spare.take_if(|spare| spare.room >= wanted && !is_to_move) {
            return Ok(spare);
        }
        // A checkpoint is what makes room.
        let open = || self.data.space().open_whole_reserve();
        let place = {
            let _open = (!is_to_move).then(open);
            Place::allocate(self.data.space(), wanted)
        };
        let place = match place {
            Err(error) if error.is_refusal() => {
                if let Some(spare) = spare.take_if(|spare| spare.room >= least) {
                    return Ok(spare);
                }
                let _open = open();
                Place::allocate(self.data.space(), least)?
            }
            place => place?,
        };
        self.free_spare(state);
        Ok(place)
    }

    /// Sees to it that there is a spare place for the catalog, in which all that it says now has room, if
    /// anything is kept for a full disk. Without room for one there is none for now.
    pub(super) fn keep_spare(&self, state: &mut State) -> Result<()> {
        let before = state.catalog.spare;
        if state.catalog.find_spare(self.data.space(), self.data.page_size() as u64)?
            && let Some(Place { copies, room, .. }) = before
        {
            copies.into_iter().flatten().for_each(|page| self.data.space().free(page, room));
        }
        Ok(())
    }

    /// Gives the spare place of the catalog back.
    pub(super) fn free_spare(&self, state: &mut State) {
        if let Some(Place { copies, room, .. }) = state.catalog.spare.take() {
            copies.into_iter().flatten().for_each(|page| self.data.space().free(page, room));
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
