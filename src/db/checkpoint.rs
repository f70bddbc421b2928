//! The checkpoint: merged trees become durable, and what was kept for the last ones becomes free.
//!
//! ```text
//! for every family that was touched since the last one:
//!     note tree, pages reachable from it, and the oldest log segment that it still needs                 (1)
//! write the dirty pages, then a part of the catalog for those whose trees or segments are not as it says
//! sync the log          law 1: no tree is durable before the log that it holds                           (2)
//! sync the data file
//! superblock: one slot, sync, the other                                                                  (3)
//! pages and extents that only the last checkpoint needed are free; log segments before (1) are released
//! ```
//!
//! A crash before (3) leaves the old checkpoint with all its pages: they were neither written nor handed out.
//! The log segment of a family is read before its view, because a freeze changes the view first: so a
//! memtable is seen in one of the two. A family is touched before any of its commits is appended and when a
//! merge is installed, and stays so while its memtables need log: see `column_family/touched.rs`.

use std::collections::HashSet;

use crate::codec::ids::{FamilyId, SequenceNumber};
use crate::column_family::family::Family;
use crate::column_family::record::{FamilyRecord, Record, features_of};
use crate::column_family::trees::TreeVersion;
use crate::db::catalog_file::{Change, State};
use crate::db::shared::Shared;
use crate::db::space::MUCH_FREE;
use crate::error::Result;
use crate::segment::{CatalogRecord, Superblock};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Instant};

/// What a checkpoint found of the families that it looked at.
struct Noted {
    records: Vec<Record>,
    /// Those of the records.
    families: Vec<Arc<Family>>,
    /// A merge meanwhile retires pages that this checkpoint is about to write: nobody lets go of them while
    /// the version is held.
    held: Vec<Arc<TreeVersion>>,
    /// Families whose memtables need log.
    with_log: Vec<Arc<Family>>,
    first_segment: u64,
    next_family: u32,
    last_sequence: SequenceNumber,
}

impl Shared {
    /// Makes all merged trees, and the list of families, durable.
    ///
    /// A refusal leaves the last checkpoint in force; every other failure ends all writing.
    pub(super) fn checkpoint(&self) -> Result<()> {
        self.checkpoint_under(&mut self.checkpoint.lock(), None, false)
    }

    /// A checkpoint whose catalog goes to the lowest place that is free, instead of the spare one, which may
    /// keep the file long.
    pub(super) fn checkpoint_afresh(&self) -> Result<()> {
        let mut state = self.checkpoint.lock();
        state.catalog.is_to_move = true;
        self.checkpoint_under(&mut state, None, true)
    }

    /// A checkpoint after `change`; of all families if they are to be written `whole`, or there is no room
    /// for a part.
    pub(super) fn checkpoint_under(
        &self,
        state: &mut State,
        change: Option<&Change<'_>>,
        whole: bool,
    ) -> Result<()> {
        self.pipeline.owns_files()?;
        self.pipeline.latch.check()?;
        self.check_place()?;
        let Some(log) = &self.pipeline.log else { return Ok(()) };
        let started = Instant::now();
        let installed = self.touched.installed();
        let mut noted = Noted {
            records: Vec::new(),
            families: Vec::new(),
            held: Vec::new(),
            with_log: Vec::new(),
            first_segment: log.segment_of_next(),
            next_family: 0,
            last_sequence: log.last_assigned().max(state.superblock.last_sequence),
        };
        self.data.space().begin_checkpoint();
        let touched = self.take_touched();
        touched.iter().for_each(|family| self.note(family, false, &mut noted));
        noted.next_family = self.registry.lock().next_family();
        let written = self.write_part(state, change, whole, &mut noted);
        if let Err(error) = written {
            self.forget(&noted, &touched);
            return Err(if error.is_refusal() { error } else { self.pipeline.fail(error) });
        }
        // A writer may have read the number of its segment before the last checkpoint let go of that one, and
        // noted it since: what it appends comes later.
        noted.first_segment = noted.first_segment.max(state.superblock.log.first_segment);
        self.make_durable(state, &noted).map_err(|error| self.pipeline.fail(error))?;
        drop(noted.held);
        noted.families.iter().for_each(|family| family.store().end_checkpoint(true));
        noted.with_log.iter().for_each(|family| family.touch());
        self.data.space().checkpoint_durable();
        self.check_place()?;
        match log.release_before(state.superblock.log.first_segment) {
            Err(error) if error.is_refusal() => tracing::warn!(%error, "old log stays for now"),
            released => released.map_err(|error| self.pipeline.fail(error))?,
        }
        self.pipeline.work.log.ring();
        self.data.space().keep_no_more(log.weight());
        self.fill_reserve().map_err(|error| self.pipeline.fail(error))?;
        self.keep_spare(state).map_err(|error| self.pipeline.fail(error))?;
        self.give_back_space().map_err(|error| self.pipeline.fail(error))?;
        let first_segment = state.superblock.log.first_segment;
        self.checkpoints.first_segment.store(first_segment, Ordering::Relaxed);
        self.pipeline.log_pace.freed(self.log_is_long());
        // Who waited for the log to be shorter does not wait for the disk.
        log.free_surplus();
        self.checkpoints.merges_seen.store(installed, Ordering::Relaxed);
        self.checkpoints.made.fetch_add(1, Ordering::Relaxed);
        self.checkpoints.nanoseconds.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        tracing::debug!(number = state.superblock.checkpoint, first_segment, took = ?started.elapsed(), "checkpoint");
        Ok(())
    }

    /// The families that were touched since the last checkpoint, their marks cleared. Those that are dropped
    /// are not among them.
    fn take_touched(&self) -> Vec<Arc<Family>> {
        let touched = self.touched.take();
        let registry = self.registry.lock();
        let families: Vec<_> = touched.into_iter().filter_map(|id| registry.get(id).cloned()).collect();
        families.iter().for_each(|family| family.untouch());
        families
    }

    /// Writes what the catalog has to say behind what it says, or all of it.
    fn write_part(
        &self,
        state: &mut State,
        change: Option<&Change<'_>>,
        whole: bool,
        noted: &mut Noted,
    ) -> Result<()> {
        if !whole && !state.catalog.is_to_be_replaced() {
            let mut records: Vec<_> = state.catalog.unlisted.iter().cloned().collect();
            let unlisted = records.len();
            records.append(&mut noted.records);
            if records.is_empty() {
                return Ok(());
            }
            if let Some(bytes) = state.catalog.encode_behind(&records, self.data.page_size() as u64) {
                noted.last_sequence = latest(&records, noted.last_sequence);
                write_dirty(noted)?;
                return self.append_part(state, &bytes);
            }
            noted.records = records.split_off(unlisted);
        }
        let known: HashSet<FamilyId> = noted.records.iter().map(Record::id).collect();
        for family in self.families().iter().filter(|family| !known.contains(&family.id())) {
            self.note(family, true, noted);
        }
        let mut records = std::mem::take(&mut noted.records);
        let lost = self
            .registry
            .lock()
            .lost()
            .map(|(id, name)| Record::Lost(id, name.to_owned()))
            .collect::<Vec<_>>();
        records.extend(lost);
        if let Some(change) = change {
            change.apply(&mut records);
        }
        noted.last_sequence = latest(&records, noted.last_sequence);
        write_dirty(noted)?;
        self.write_whole(state, &records)
    }

    /// A checkpoint is given up: the next one looks at the same families.
    fn forget(&self, noted: &Noted, touched: &[Arc<Family>]) {
        for family in &noted.families {
            family.store().end_checkpoint(false);
            family.trees.lock().set_recorded(false);
        }
        noted.families.iter().chain(touched).for_each(|family| family.touch());
    }

    /// Cuts the file and makes holes in it once much of it is free, or the disk is full: what the next merges
    /// take anyhow may stay.
    fn give_back_space(&self) -> Result<()> {
        let space = self.data.space();
        let free = space.kept_pages();
        let is_much = free * self.data.page_size() as u64 > MUCH_FREE && free > space.file_pages() / 4;
        if self.pipeline.short_of_space.swap(false, Ordering::Relaxed) || is_much {
            match space.shrink() {
                Err(error) if error.is_refusal() => tracing::warn!(%error, "free space stays for now"),
                shrunk => drop(shrunk?),
            }
        }
        Ok(())
    }

    /// Has the superblock name the segment with which the log goes on, so that it is missed if it goes; all
    /// else stays as the last checkpoint has it. `afresh`: recovery begins with that segment.
    pub(super) fn name_log(&self, afresh: bool) -> Result<()> {
        let Some(log) = &self.pipeline.log else { return Ok(()) };
        let mut state = self.checkpoint.lock();
        let first = if afresh { log.current_segment() } else { state.superblock.log.first_segment };
        let superblock = Superblock {
            checkpoint: state.superblock.checkpoint + 1,
            log: log.mark(first),
            ..state.superblock
        };
        self.store_superblock(&mut state, superblock)?;
        self.checkpoints.first_segment.store(first, Ordering::Relaxed);
        Ok(())
    }

    /// Whether merges were made that no checkpoint holds.
    pub(super) fn has_merges_to_checkpoint(&self) -> bool {
        self.touched.installed() != self.checkpoints.merges_seen.load(Ordering::Relaxed)
    }

    /// Notes what the catalog does not say of `family`, or all there is to say if it `must`, and the oldest
    /// log segment that the family's memtables need.
    fn note(&self, family: &Arc<Family>, must: bool, noted: &mut Noted) {
        let mut segment = family.active_segment();
        family.release_unread();
        let mut trees = family.trees.lock();
        let view = self.pipeline.views.load_full();
        if let Ok(view) = view.family(family.slot(), family.id()) {
            for frozen in &view.frozen {
                segment = segment.min(frozen.first_segment);
            }
        }
        if segment != u64::MAX {
            noted.with_log.push(Arc::clone(family));
            noted.first_segment = noted.first_segment.min(segment);
        }
        if trees.is_recorded() && !must {
            return;
        }
        trees.set_recorded(true);
        let (segments, reachable) = family.store().begin_checkpoint();
        noted.held.push(Arc::clone(trees.current()));
        noted.families.push(Arc::clone(family));
        let options = family.options();
        noted.records.push(Record::Whole(Box::new(FamilyRecord {
            id: family.id(),
            name: family.name().to_string(),
            features: features_of(&family.name()).and(options.features()),
            options,
            merged_through: trees.merged_through(),
            tree: trees.current().tree,
            deltas: trees.current().deltas.iter().map(|delta| delta.tree).collect(),
            segments,
            reachable,
        })));
    }

    fn make_durable(&self, state: &mut State, noted: &Noted) -> Result<()> {
        let mut superblock = Superblock {
            checkpoint: state.superblock.checkpoint + 1,
            catalog: state.catalog.extent(),
            next_family: noted.next_family,
            last_sequence: noted.last_sequence,
            record: CatalogRecord::default(),
            ..state.superblock
        };
        if let Some(log) = &self.pipeline.log {
            log.sync()?;
            superblock.log = log.mark(noted.first_segment);
        }
        self.data.pool().sync()?;
        // What was met since this began may need the log that the superblock lets go of.
        self.pipeline.latch.check()?;
        self.store_superblock(state, superblock)
    }
}

/// Writes the pages that the catalog is about to name: where that is refused they stay dirty, and the catalog
/// as it is.
fn write_dirty(noted: &Noted) -> Result<()> {
    noted.families.iter().try_for_each(|family| family.store().write_dirty())
}

/// The highest sequence number that any of the records names, or `least`.
fn latest(records: &[Record], least: SequenceNumber) -> SequenceNumber {
    let merged = records.iter().filter_map(|record| match record {
        Record::Whole(family) => Some(family.merged_through),
        Record::Renamed(..) | Record::Dropped(_) | Record::Changed(..) | Record::Lost(..) => None,
    });
    merged.fold(least, std::cmp::Ord::max)
}
