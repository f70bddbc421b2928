//! A copy of the live database that can be opened on its own.
//!
//! ```text
//! mark the directory as unfinished, durably
//! under the lock of checkpoints, which no writer takes:
//!     hold the trees of every family, and note what a catalog says of them                           (1)
//!     hold the log from the oldest segment that their memtables need to where it ends now
//! write what is dirty of these trees into the source's file                                          (2)
//! sync the source's log through there, copy pages and log, sync the copy                             (3)
//! both slots of the copy's superblock, sync; `data.new` becomes `data`; remove the mark
//! ```
//!
//! Invariants:
//! 1. What is copied does not change meanwhile. Pages that a held tree reaches are as those that any reader
//!    holds: neither overwritten nor moved. Segments of the log up to where it ended are only appended to,
//!    and are set aside when the log lets go of them (`wal/held.rs`).
//! 2. The trees hold nothing that is not in the copied log, or older than it: they were held before it was
//!    seen where the log ends. So the copy is what a recovery would make of the source's files at that
//!    moment, and holds all logged commits up to its number, and none after it.
//! 3. Whatever ends it, the source is as it was. The directory holds a file that no database has until the
//!    data file has its name, so that an opening refuses what is there; from then on all of it is durable.
//! 4. The copy has an id of its own, in its superblock and in the headers of its log: a file of one of the
//!    two in the place of one of the other is refused, wherever their ways part. Pages do not name it.
//!
//! The pages of the copy stand where the catalog of the copy says: one segment behind the other, without what
//! is free at their ends, then the catalog.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::codec::checksum::crc32;
use crate::codec::features::Features;
use crate::codec::ids::SequenceNumber;
use crate::column_family::catalog::encode_part;
use crate::column_family::family::Family;
use crate::column_family::record::{FamilyRecord, Record, features_of};
use crate::column_family::trees::TreeVersion;
use crate::db::copy_layout::{Layout, Run};
use crate::db::database::ColumnFamilyDatabase;
use crate::db::open::random_id;
use crate::db::place::{DATA, NEW_DATA, Unfinished};
use crate::db::shared::Shared;
use crate::error::{Error, Result};
use crate::segment::{CatalogExtent, CatalogRecord, EXTENTS_START, Superblock};
use crate::storage::{FileHandlePool, FileMode, FileStorage, StorageBackend, StorageFile, Taken};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Instant};
use crate::wal::HeldSegments;

/// Bytes after which what was copied is synced, so that the disk never has much of it to do at once: others
/// wait for it with their syncs.
const BETWEEN_SYNCS: u64 = 32 << 20;

/// What a copy of a database came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyReport {
    /// The last commit that the copy holds.
    pub sequence_number: SequenceNumber,
    /// Bytes of pages and log in the copy: the sum of the three that follow.
    pub bytes: u64,
    /// Bytes that the copy shares with the database until one of them is written to (reflinks): none of them
    /// was copied.
    pub bytes_shared: u64,
    /// Bytes that the operating system copied by itself.
    pub bytes_copied_in_system: u64,
    /// Bytes that were read and written.
    pub bytes_copied: u64,
    /// Of all bytes, those of the log.
    pub log_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

impl CopyReport {
    fn count(&mut self, len: u64, taken: Taken) {
        self.bytes += len;
        *match taken {
            Taken::Shared => &mut self.bytes_shared,
            Taken::InSystem => &mut self.bytes_copied_in_system,
            Taken::Copied => &mut self.bytes_copied,
        } += len;
    }
}

impl ColumnFamilyDatabase {
    /// Makes a copy of the database in `directory`, which must be missing or empty, while it is written to.
    /// The copy is a database of its own: it holds every commit up to
    /// [`sequence_number`](CopyReport::sequence_number) and none after it, all families with their options,
    /// and what is prepared and not decided.
    ///
    /// Files are shared where the file system can (btrfs, XFS, bcachefs: reflinks), else copied. Only live
    /// pages are, and the log behind them, which opening the copy replays. Nobody waits for it: writers,
    /// merges, checkpoints, creating and dropping families go on. Pages that are replaced meanwhile stay
    /// until it ends, as for a snapshot, and so do files of the log, beyond its limit. It is synced every
    /// 32 MiB.
    ///
    /// All commits that were acknowledged before the call are in the copy. Those with
    /// [`None`](crate::Durability::None) are merged for it first; of later ones with `None` those may be
    /// missing that were not merged.
    ///
    /// If it fails, or the process or the machine goes down, the database is as it was, and what is in
    /// `directory` is refused by [`open`](Self::open); unless it went down, all of it is removed again. What
    /// is damaged of a family is copied as it is, and found there as here; where the disk cannot read it,
    /// there is no copy.
    ///
    /// # Errors
    ///
    /// [`DatabaseExists`](crate::ErrorKind::DatabaseExists) and
    /// [`NotADatabase`](crate::ErrorKind::NotADatabase) if the directory holds a database or something else;
    /// [`ReadOnly`](crate::ErrorKind::ReadOnly) if this one takes no writes;
    /// [`Closed`](crate::ErrorKind::Closed) if it is closed meanwhile;
    /// [`OutOfSpace`](crate::ErrorKind::OutOfSpace) and [`Io`](crate::ErrorKind::Io) of either disk.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let (path, copy) = (directory.path().join("db"), directory.path().join("copy"));
    /// use peristyle::{ColumnFamilyDatabase, FamilyOptions};
    ///
    /// let db = ColumnFamilyDatabase::open(&path)?;
    /// let planets = db.create_column_family("planets", FamilyOptions::default())?;
    /// planets.put("mars", "red")?;
    /// let report = db.checkpoint_to(&copy)?;
    /// planets.put("mars", "blue")?;
    /// println!("{} bytes, {} of them shared", report.bytes, report.bytes_shared);
    ///
    /// let copy = ColumnFamilyDatabase::open(&copy)?;
    /// assert_eq!(copy.column_family("planets")?.get("mars")?.unwrap(), "red");
    /// # Ok(()) }
    /// ```
    pub fn checkpoint_to(&self, directory: impl AsRef<Path>) -> Result<CopyReport> {
        let directory = directory.as_ref();
        self.checkpoint_into(FileStorage::new(directory)).map_err(|error| error.opening(directory))
    }

    /// Makes a copy of the database in another storage, in which there must be nothing yet; see
    /// [`checkpoint_to`](Self::checkpoint_to).
    pub fn checkpoint_into(&self, storage: impl StorageBackend) -> Result<CopyReport> {
        self.shared().copy_into(&(Arc::new(storage) as Arc<dyn StorageBackend>))
    }
}

/// What is copied, as it stays until this is dropped.
struct Held<'s> {
    /// What a catalog says, with the segments as the source has them.
    records: Vec<FamilyRecord>,
    /// What it says besides.
    lost: Vec<Record>,
    families: Vec<Arc<Family>>,
    _trees: Vec<Arc<TreeVersion>>,
    log: HeldSegments<'s>,
    features: Features,
    checkpoint: u64,
    next_family: u32,
}

/// A copy that is being made.
struct Counted<'c>(&'c AtomicU64);

impl<'c> Counted<'c> {
    fn in_(copies: &'c AtomicU64) -> Self {
        copies.fetch_add(1, Ordering::Relaxed);
        Self(copies)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn copy_into(&self, target: &Arc<dyn StorageBackend>) -> Result<CopyReport> {
        let started = Instant::now();
        self.pipeline.writable()?;
        let _counted = Counted::in_(&self.checkpoints.copies);
        let unfinished = Unfinished::begin(target)?;
        if self.pipeline.unlogged.load(Ordering::Acquire) {
            self.drain_all()?;
        }
        let mut held = self.hold_for_copy()?;
        for family in &held.families {
            // Who lets go of the files waits for this lock before: pages that no superblock names are
            // somebody else's afterwards.
            let _files = self.checkpoint.lock();
            self.pipeline.owns_files()?;
            let written = family.store().write_dirty();
            written.map_err(|error| if error.is_refusal() { error } else { self.pipeline.fail(error) })?;
        }
        let mut report = CopyReport { sequence_number: held.log.sequence(), ..CopyReport::default() };
        let database_id = random_id();
        let source = self.data.pool().backend();
        held.log.copy(&**source, &**target, &database_id, &mut |len, taken| report.count(len, taken))?;
        report.log_bytes = report.bytes;
        let (pool, catalog) = self.copy_pages(target, &mut held, &mut report)?;
        self.check_copied()?;
        let superblock = Superblock {
            page_size: self.data.page_size() as u32,
            checkpoint: held.checkpoint,
            database_id,
            features: held.features,
            catalog,
            next_family: held.next_family,
            last_sequence: held.log.sequence(),
            log: held.log.mark(),
            record: CatalogRecord::default(),
        };
        pool.sync()?;
        superblock.store(&pool, 0)?;
        pool.sync()?;
        drop(pool);
        unfinished.end()?;
        report.took = started.elapsed();
        tracing::info!(?report, "copied the database");
        Ok(report)
    }

    /// Whether what was read was the database's own to the end: one that was closed, and perhaps opened anew,
    /// holds nothing for anybody.
    fn check_copied(&self) -> Result<()> {
        self.pipeline.writable()?;
        self.check_place()
    }

    /// Holds all that is to be copied. The lock of checkpoints keeps families from coming and going, and the
    /// log from being let go of, meanwhile.
    fn hold_for_copy(&self) -> Result<Held<'_>> {
        let state = self.checkpoint.lock();
        let log = self.pipeline.log()?;
        let mut first_segment = log.segment_of_next();
        let (mut records, mut trees_held) = (Vec::new(), Vec::new());
        let (families, lost, next_family) = {
            let registry = self.registry.lock();
            let lost = registry.lost().map(|(id, name)| Record::Lost(id, name.to_owned())).collect();
            (registry.families().cloned().collect::<Vec<_>>(), lost, registry.next_family())
        };
        for family in &families {
            // As a checkpoint does: the segment first, since a freeze changes the view before it.
            let mut segment = family.active_segment();
            let trees = family.trees.lock();
            let view = self.pipeline.views.load_full();
            if let Ok(view) = view.family(family.slot(), family.id()) {
                segment = view.frozen.iter().fold(segment, |oldest, frozen| oldest.min(frozen.first_segment));
            }
            first_segment = first_segment.min(segment);
            trees_held.push(Arc::clone(trees.current()));
            let options = family.options();
            records.push(FamilyRecord {
                id: family.id(),
                name: family.name().to_string(),
                features: features_of(&family.name()).and(options.features()),
                options,
                merged_through: trees.merged_through(),
                tree: trees.current().tree,
                deltas: trees.current().deltas.iter().map(|delta| delta.tree).collect(),
                reachable: family.store().reachable(),
                segments: family.store().segments(),
            });
        }
        first_segment = first_segment.max(state.superblock.log.first_segment);
        Ok(Held {
            records,
            lost,
            families,
            _trees: trees_held,
            log: log.hold(first_segment),
            features: state.superblock.features,
            checkpoint: state.superblock.checkpoint + 1,
            next_family,
        })
    }

    /// Copies the pages that the trees reach into a new data file, and writes the catalog that says where
    /// they are.
    fn copy_pages(
        &self,
        target: &Arc<dyn StorageBackend>,
        held: &mut Held<'_>,
        report: &mut CopyReport,
    ) -> Result<(FileHandlePool, CatalogExtent)> {
        let failed = |error: io::Error| Error::io("copying pages", error).in_file(NEW_DATA);
        target.open(NEW_DATA, FileMode::Create).map_err(failed)?;
        let pool = FileHandlePool::new(Arc::clone(target), NEW_DATA, FileMode::Write, 2)?;
        let page_size = self.data.page_size() as u64;
        let mut layout = Layout::default();
        let runs: Vec<Run> = held.records.iter_mut().flat_map(|record| layout.place(record)).collect();
        let catalog = encode_part(&all_records(held), held.checkpoint, 0);
        // As many parts behind the first.
        let room = (2 * catalog.len() as u64).div_ceil(page_size);
        let extent = CatalogExtent {
            copies: [Some(layout.take(room)), Some(layout.take(room))],
            len: catalog.len() as u64,
            number: held.checkpoint,
            checksum: crc32(&[&catalog]),
            // More than can be said is not kept.
            room: u32::try_from(room).unwrap_or(0),
        };
        let file = pool.permanent();
        let end = EXTENTS_START + layout.end() * page_size;
        file.set_len(end).map_err(failed)?;
        self.copy_runs(&runs, &**file, report)?;
        for copy in extent.copies.into_iter().flatten() {
            file.write_at(&catalog, EXTENTS_START + copy * page_size).map_err(failed)?;
        }
        // What is free within segments, and behind the catalogs, has room as well.
        file.allocate(0, end).map_err(failed)?;
        Ok((pool, extent))
    }

    fn copy_runs(&self, runs: &[Run], file: &dyn StorageFile, report: &mut CopyReport) -> Result<()> {
        let page_size = self.data.page_size() as u64;
        let mut unsynced = 0;
        for run in runs {
            let mut done = 0;
            while done < run.pages {
                // The database may be closed meanwhile.
                self.pipeline.open()?;
                let pages = (run.pages - done).min((BETWEEN_SYNCS / page_size).max(1));
                let from = self.data.offset(run.from + done);
                let (to, len) = (self.data.offset(run.to + done), pages * page_size);
                let taken = file.take_from(&**self.data.pool().permanent(), from, to, len);
                let taken =
                    taken.map_err(|error| Error::io("copying pages", error).in_file(DATA).at_offset(from))?;
                report.count(len, taken);
                unsynced += if taken == Taken::Shared { 0 } else { len };
                if unsynced >= BETWEEN_SYNCS {
                    file.sync().map_err(|error| Error::io("syncing a copy", error).in_file(NEW_DATA))?;
                    unsynced = 0;
                }
                done += pages;
            }
        }
        Ok(())
    }
}

/// What the catalog of the copy says.
fn all_records(held: &Held<'_>) -> Vec<Record> {
    let whole = held.records.iter().map(|record| Record::Whole(Box::new(record.clone())));
    whole.chain(held.lost.iter().cloned()).collect()
}
