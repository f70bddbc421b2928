//! The checkpoint: merged trees become durable, and what was kept for the last ones becomes free.
//!
//! ```text
//! for every family: note tree, pages reachable from it, and the oldest log segment that it still needs   (1)
//! write the dirty pages and the catalog
//! sync the log          law 1: no tree is durable before the log that it holds                        (2)
//! sync the data file
//! superblock: one slot, sync, the other                                                                  (3)
//! pages and extents that only the last checkpoint needed are free; log segments before (1) are released
//! ```
//!
//! A crash before (3) leaves the old checkpoint with all its pages: they were neither written nor handed out. The log segment of a
//! family is read before its view, because a freeze changes the view first: so a memtable is seen in one of the two.

use crate::column_family::catalog::{Catalog, FamilyRecord};
use crate::column_family::family::Family;
use crate::column_family::trees::TreeVersion;
use crate::db::Shared;
use crate::db::space::MUCH_FREE;
use crate::error::{Error, ErrorKind, Result};
use crate::segment::{CatalogExtent, Superblock};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Instant};

/// What the last checkpoint wrote; guarded by the lock that lets one run at a time.
pub(super) struct State {
    pub(super) superblock: Superblock,
    /// The slot of the superblock to write first.
    pub(super) first_slot: usize,
    /// Where the catalog before the last one stood: room for the next, also on a full disk. First file page and pages.
    pub(super) spare: Option<(u64, u64)>,
    /// Where the catalog stands: first file page and pages.
    pub(super) catalog: (u64, u64),
}

impl State {
    pub(super) fn restore(superblock: Superblock, first_slot: usize) -> Self {
        let CatalogExtent { file_page, len, .. } = superblock.catalog;
        let pages = len.div_ceil(u64::from(superblock.page_size));
        Self { superblock, first_slot, spare: None, catalog: (file_page, pages) }
    }
}

/// What checkpoints did, and when something for the next one came up.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) made: AtomicU64,
    pub(super) nanoseconds: AtomicU64,
    /// First log segment that recovery would read.
    pub(super) first_segment: AtomicU64,
    /// Merges that the last checkpoint found done.
    pub(super) merges_seen: AtomicU64,
    /// The log is to be let go of up to this segment; 0 if it is short.
    pub(super) wanted_segment: AtomicU64,
}

impl Shared {
    /// Makes all merged trees, and the list of families, durable.
    ///
    /// [`ErrorKind::OutOfSpace`] leaves the last checkpoint in force; every other failure ends all writing.
    pub(super) fn checkpoint(&self) -> Result<()> {
        self.checkpoint_with(|| (), || ())
    }

    /// A checkpoint of the families as `change` makes them; `undo` takes the change back if it fails. No other checkpoint sees the
    /// change before this one.
    pub(super) fn checkpoint_with(&self, change: impl FnOnce(), undo: impl FnOnce()) -> Result<()> {
        let mut state = self.checkpoint.lock();
        change();
        self.checkpoint_under(&mut state).inspect_err(|_| undo())
    }

    /// A checkpoint whose catalog goes to the lowest place that is free, instead of the spare one, which may keep the file long.
    pub(super) fn checkpoint_afresh(&self) -> Result<()> {
        let mut state = self.checkpoint.lock();
        if let Some((file_page, pages)) = state.spare.take() {
            self.data.space().free(file_page, pages);
        }
        self.checkpoint_under(&mut state)
    }

    fn checkpoint_under(&self, state: &mut State) -> Result<()> {
        self.pipeline.owns_files()?;
        self.pipeline.latch.check()?;
        let Some(log) = &self.pipeline.log else { return Ok(()) };
        let started = Instant::now();
        let (families, next_family) = {
            let registry = self.registry.lock();
            (registry.families().cloned().collect::<Vec<_>>(), registry.next_family())
        };
        let merges = Self::merges(&families);
        let mut first_segment = log.segment_of_next();
        self.data.space().begin_checkpoint();
        let mut catalog = Catalog { next_family, last_sequence: log.last_assigned(), families: Vec::new() };
        // A merge meanwhile retires pages that this checkpoint is about to write: nobody lets go of them while the version is held.
        let mut held = Vec::with_capacity(families.len());
        for family in &families {
            let (record, segment, version) = self.note(family);
            held.push(version);
            first_segment = first_segment.min(segment);
            catalog.last_sequence = catalog.last_sequence.max(record.merged_through);
            catalog.families.push(record);
        }
        let bytes = catalog.encode();
        let page_size = self.data.page_size() as u64;
        let pages = (bytes.len() as u64).div_ceil(page_size);
        let (file_page, room) = match self.room_for_catalog(state, pages) {
            Ok(room) => room,
            Err(error) => {
                families.iter().for_each(|family| family.store().end_checkpoint(false));
                return Err(if error.kind() == ErrorKind::OutOfSpace {
                    error
                } else {
                    self.pipeline.fail(error)
                });
            }
        };
        let superblock = Superblock {
            checkpoint: state.superblock.checkpoint + 1,
            catalog: CatalogExtent {
                file_page,
                len: bytes.len() as u64,
                checksum: crate::codec::checksum::crc32(&[&bytes]),
            },
            ..state.superblock
        };
        let superblock = self
            .make_durable(&families, &bytes, superblock, first_segment, state.first_slot)
            .map_err(|error| self.pipeline.fail(error))?;
        drop(held);
        families.iter().for_each(|family| family.store().end_checkpoint(true));
        self.data.space().checkpoint_durable();
        state.superblock = superblock;
        state.spare = Some(std::mem::replace(&mut state.catalog, (file_page, room)));
        match log.release_before(state.superblock.log.first_segment) {
            Err(error) if error.kind() == ErrorKind::OutOfSpace => {
                tracing::warn!(%error, "old log stays for now")
            }
            released => released.map_err(|error| self.pipeline.fail(error))?,
        }
        self.pipeline.work.log.ring();
        self.give_back_space().map_err(|error| self.pipeline.fail(error))?;
        self.checkpoints.first_segment.store(state.superblock.log.first_segment, Ordering::Relaxed);
        self.checkpoints.merges_seen.store(merges, Ordering::Relaxed);
        self.checkpoints.made.fetch_add(1, Ordering::Relaxed);
        self.checkpoints.nanoseconds.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        tracing::debug!(number = state.superblock.checkpoint, first_segment, took = ?started.elapsed(), "checkpoint");
        Ok(())
    }

    /// Room for a catalog of `pages` pages: the spare one, so that a checkpoint that makes space needs none. First file page and
    /// pages.
    fn room_for_catalog(&self, state: &mut State, pages: u64) -> Result<(u64, u64)> {
        if let Some(spare) = state.spare.take_if(|spare| spare.1 >= pages) {
            return Ok(spare);
        }
        let room = pages + pages / 4 + 1;
        let file_page = self.data.space().allocate(room)?;
        if let Some((file_page, pages)) = state.spare.take() {
            self.data.space().free(file_page, pages);
        }
        Ok((file_page, room))
    }

    /// Cuts the file and makes holes in it once much of it is free, or the disk is full: what the next merges take anyhow may stay.
    fn give_back_space(&self) -> Result<()> {
        let space = self.data.space();
        let free = space.kept_pages();
        let is_much = free * self.data.page_size() as u64 > MUCH_FREE && free > space.file_pages() / 4;
        if self.pipeline.short_of_space.swap(false, Ordering::Relaxed) || is_much {
            space.shrink()?;
        }
        Ok(())
    }

    /// How often `families` have got new trees in all.
    fn merges<'f>(families: impl IntoIterator<Item = &'f Arc<Family>>) -> u64 {
        let of = |family: &Arc<Family>| {
            let counters = &family.counters;
            let all = [&counters.merges, &counters.joins, &counters.drains, &counters.rewrites];
            all.map(|count| count.load(Ordering::Relaxed)).iter().sum::<u64>()
        };
        families.into_iter().map(of).sum()
    }

    /// Whether merges were made that no checkpoint holds.
    pub(super) fn has_merges_to_checkpoint(&self) -> bool {
        Self::merges(self.registry.lock().families()) != self.checkpoints.merges_seen.load(Ordering::Relaxed)
    }

    /// What the catalog says of `family` now, the oldest log segment that its memtables need, and the version of the tree.
    fn note(&self, family: &Arc<Family>) -> (FamilyRecord, u64, Arc<TreeVersion>) {
        let mut segment = family.active_segment();
        family.release_unread();
        let trees = family.trees.lock();
        let view = self.pipeline.views.load_full();
        if let Ok(view) = view.family(family.slot(), family.id()) {
            for frozen in &view.frozen {
                segment = segment.min(frozen.first_segment);
            }
        }
        let (segments, reachable) = family.store().begin_checkpoint();
        let record = FamilyRecord {
            id: family.id(),
            name: family.name().to_string(),
            options: family.options().clone(),
            merged_through: trees.merged_through(),
            tree: trees.current().tree,
            deltas: trees.current().deltas.iter().map(|delta| delta.tree).collect(),
            segments,
            reachable,
        };
        (record, segment, Arc::clone(trees.current()))
    }

    fn make_durable(
        &self,
        families: &[Arc<Family>],
        catalog: &[u8],
        superblock: Superblock,
        first_segment: u64,
        first_slot: usize,
    ) -> Result<Superblock> {
        for family in families {
            family.store().write_dirty()?;
        }
        let offset = self.data.offset(superblock.catalog.file_page);
        self.data
            .pool()
            .permanent()
            .write_at(catalog, offset)
            .map_err(|error| Error::io("writing the catalog", error).in_file("data").at_offset(offset))?;
        let mut superblock = superblock;
        if let Some(log) = &self.pipeline.log {
            log.sync()?;
            superblock.log = log.mark(first_segment);
        }
        self.data.pool().sync()?;
        superblock.store(self.data.pool(), first_slot)?;
        Ok(superblock)
    }
}
