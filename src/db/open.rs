//! Opening: from a path to an open database.
//!
//! A database comes into being when its data file, complete and synced, is renamed to its name; whatever a
//! crash leaves before that is no database and is made anew. Until recovery is through nothing of an existing
//! database is changed.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;

use crossbeam_utils::CachePadded;

use crate::codec::checksum::crc32;
use crate::codec::features::Features;
use crate::codec::ids::SequenceNumber;
use crate::codec::log_mark::LogMark;
use crate::column_family::catalog::{Catalog, encode_part};
use crate::column_family::delta::Delta;
use crate::column_family::family::{Family, Origin, PREPARED_FAMILY};
use crate::column_family::merging::work::Work;
use crate::column_family::record::{FamilyRecord, Record};
use crate::column_family::remembered::Remembered;
use crate::column_family::touched::Touched;
use crate::column_family::trees::TreeVersion;
use crate::column_family::view::View;
use crate::db::budget::Memory;
use crate::db::catalog_file::CatalogFile;
use crate::db::catalog_file::State;
use crate::db::database::ColumnFamilyDatabase;
use crate::db::families;
use crate::db::place::{Contents, DATA, InPlace, Locks, NEW_DATA, Newborn, WAL, look};
use crate::db::progress::Progress;
use crate::db::read_catalog::{CatalogRead, read_catalog};
use crate::db::recovery::{LostLog, RecoveryReport};
use crate::db::registry::Registry;
use crate::db::replayer::{Budget, Replayer};
use crate::db::resources::{SharedResources, own_hands};
use crate::db::shared::{Counters, Keeper, Shared};
use crate::db::waiting::Waiting;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{DatabaseBuilder, Options};
use crate::page::CacheBudgets;
use crate::segment::{
    CatalogExtent, CatalogRecord, DataFile, EXTENTS_START, PartitionedStorageBackend, ReserveSize, SpaceMap,
    Superblock,
};
use crate::storage::{FileHandlePool, FileMode, FileStorage, StorageBackend};
use crate::sync::arc_cell::ArcCell;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::sequencer::Sequencer;
use crate::sync::{Arc, Mutex};
use crate::system::Process;
use crate::txn::apart::Apart;
use crate::txn::latch::Latch;
use crate::txn::log_pace::LogPace;
use crate::txn::pipeline::{Pipeline, WaitedFor};
use crate::txn::prepared::table::Prepared;
use crate::txn::tally::Tally;
use crate::wal::{self, Log, LogOptions, Room};

/// The largest log segment, in bytes; the log's limit over [`LOG_SEGMENTS`] if that is less.
const MAX_LOG_SEGMENT: u64 = 64 << 20;
/// Small, so that a process that writes little leaves little: the room of a segment is reserved when it is
/// made.
const FIRST_LOG_SEGMENT: u64 = 16 << 10;
/// Segments of the largest size that come to the log's limit: it gets shorter by whole segments.
const LOG_SEGMENTS: u64 = 8;
/// Files of the log that are kept for a full disk: each opening there takes one until a checkpoint gives it
/// back.
const RESERVE_FILES: usize = 4;
/// The largest of them, in bytes; an eighth of what is kept in the data file, if that is less.
const MAX_RESERVE_FILE: u64 = 1 << 20;

/// Numbers open databases, so that handles of one are not taken for those of another.
static DATABASES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

impl DatabaseBuilder {
    /// Opens the database in the directory `path`.
    ///
    /// # Errors
    ///
    /// Those of [`ColumnFamilyDatabase::open`], [`InvalidArgument`](ErrorKind::InvalidArgument) for a setting
    /// that is out of range, [`DatabaseNotFound`](ErrorKind::DatabaseNotFound) and
    /// [`DatabaseExists`](ErrorKind::DatabaseExists) as the settings ask for.
    pub fn open(self, path: impl AsRef<Path>) -> Result<ColumnFamilyDatabase> {
        let path = path.as_ref();
        self.open_at(path).map_err(|error| error.opening(path))
    }

    fn open_at(self, path: &Path) -> Result<ColumnFamilyDatabase> {
        let (resources, database) = self.assemble(path)?;
        let shared = database.shared();
        if !shared.options.read_only {
            shared.mend_catalog()?;
            shared.prepare_for_full_disk()?;
            shared.gather_small_segments()?;
        }
        if !shared.shares_memory {
            resources.crew().hire(own_hands(&shared.options))?;
        }
        resources.crew().join(shared);
        Ok(database)
    }

    /// The open database, which nobody looks after yet, and what it shares or has for itself.
    fn assemble(self, path: &Path) -> Result<(SharedResources, ColumnFamilyDatabase)> {
        let options = self.options.settled()?;
        let backend: Arc<dyn StorageBackend> = match &options.backend {
            Some(backend) => Arc::clone(backend),
            None => Arc::new(FileStorage::new(path)),
        };
        let locks = find_or_create(&backend, &options)?;
        let resources = SharedResources::of(&options)?;
        let keeper = Keeper::new(open_existing(&backend, options, locks, &resources)?);
        Ok((resources, ColumnFamilyDatabase { keeper: Arc::new(keeper) }))
    }

    /// As [`open`](Self::open), but nothing happens in the background: see `Shared::work_off`.
    #[cfg(test)]
    pub(super) fn open_without_threads(self, path: &str) -> Result<ColumnFamilyDatabase> {
        self.assemble(Path::new(path)).map(|(_, database)| database)
    }
}

fn find_or_create(backend: &Arc<dyn StorageBackend>, options: &Options) -> Result<Arc<Locks>> {
    let missing = || Error::new(ErrorKind::DatabaseNotFound, "the directory holds no database");
    let may_create = options.create_if_missing && !options.read_only;
    // What is removed if this fails is removed before the locks are given back.
    let mut held = None;
    let mut newborn = Newborn::new(backend);
    if look(backend)? == Contents::Nothing {
        if !may_create {
            return Err(missing());
        }
        newborn.makes_directory();
        backend
            .create_directory("")
            .map_err(|error| Error::io("creating the database's directory", error))?;
    }
    let locks = held.insert(Locks::take(&**backend, options.read_only)?);
    // Another opener may have been at work until the lock was ours.
    match look(backend)? {
        Contents::Database if options.error_if_exists => {
            newborn.stays();
            return Err(Error::new(ErrorKind::DatabaseExists, "the directory holds a database already"));
        }
        Contents::Database => newborn.stays(),
        Contents::Nothing if !may_create => return Err(missing()),
        Contents::Nothing => {
            newborn.makes_parts();
            create(backend, options)?;
            newborn.stays();
        }
    }
    locks.take_data(&**backend, options.read_only)?;
    Ok(Arc::new(held.take().expect("they were just taken")))
}

pub(super) fn random_id() -> [u8; 16] {
    let mut id = [0; 16];
    for half in id.chunks_exact_mut(8) {
        // Every `RandomState` has keys of its own, seeded by the operating system.
        half.copy_from_slice(&RandomState::new().hash_one(std::time::SystemTime::now()).to_le_bytes());
    }
    id
}

fn create(backend: &Arc<dyn StorageBackend>, options: &Options) -> Result<()> {
    let directory = |error| Error::io("creating the database's directory", error);
    let file = |error| Error::io("creating the data file", error).in_file(NEW_DATA);
    backend.create_directory(WAL).map_err(directory)?;
    match backend.remove(NEW_DATA) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file(error)),
        _ => {}
    }
    backend.open(NEW_DATA, FileMode::Create).map_err(file)?;
    let catalog = encode_part(&[], 1, 0);
    let superblock = Superblock {
        page_size: options.page_size,
        checkpoint: 1,
        database_id: random_id(),
        features: Features::default(),
        catalog: CatalogExtent {
            copies: [Some(0), Some(1)],
            len: catalog.len() as u64,
            number: 1,
            checksum: crc32(&[&catalog]),
            room: 1,
        },
        next_family: 1,
        last_sequence: SequenceNumber(0),
        log: LogMark::default(),
        record: CatalogRecord::default(),
    };
    let pool = FileHandlePool::new(Arc::clone(backend), NEW_DATA, FileMode::Write, 2)?;
    let data = pool.permanent();
    let page_size = u64::from(options.page_size);
    data.allocate(0, EXTENTS_START + 2 * page_size).map_err(file)?;
    data.write_at(&catalog, EXTENTS_START).map_err(file)?;
    data.write_at(&catalog, EXTENTS_START + page_size).map_err(file)?;
    superblock.store(&pool, 0)?;
    pool.sync()?;
    drop(pool);
    backend.rename(NEW_DATA, DATA).map_err(file)?;
    backend.sync_directory("").map_err(directory)
}

/// The families as the catalog has them, and what describes them.
struct Restored {
    data: Arc<DataFile>,
    views: ArcCell<View>,
    registry: Registry,
    touched: Arc<Touched>,
    catalog: Catalog,
    /// The record that stood in the superblock.
    newest: Option<Record>,
    /// A family is lost that nobody gave up yet.
    loss: Option<Error>,
}

/// Completes what a superblock of an old format leaves to its catalog.
fn restore(
    pool: FileHandlePool,
    superblock: &mut Superblock,
    memory: &Arc<Memory>,
    options: &Options,
) -> Result<Restored> {
    let CatalogRead { catalog, newest, failure } = read_catalog(&**pool.permanent(), superblock)?;
    superblock.next_family = superblock.next_family.max(catalog.next_family);
    superblock.last_sequence = superblock.last_sequence.max(catalog.last_sequence);
    let page_size = u64::from(superblock.page_size);
    let segments = catalog.families.values().flat_map(|family| &family.segments);
    let copies = superblock.catalog.copies.into_iter().flatten();
    let used = segments
        .map(|segment| (segment.file_page, u64::from(segment.pages)))
        .chain(copies.map(|page| (page, superblock.catalog_pages())));
    let space = SpaceMap::restore(Arc::clone(pool.permanent()), DATA, page_size as usize, used)?;
    if !catalog.lost.is_empty() {
        space.keep_what_is_free();
    }
    let data = DataFile::new(pool, page_size as usize, space);
    let mut registry = Registry::new(superblock.next_family, memory);
    let new_weights: u64 =
        catalog.families.values().map(|family| u64::from(family.options.memtable_share)).sum();
    let weights = memory.memtable_weights().saturating_add(new_weights);
    let mut slots = Vec::with_capacity(catalog.families.len());
    let touched = Arc::new(Touched::default());
    for record in catalog.families.values() {
        let slot = registry.take_slot();
        let budgets = memory.initial(&record.options, data.page_size(), weights);
        let view = restore_family(record, slot, &data, budgets, &touched)?;
        let operator = options
            .merge_operators
            .iter()
            .find(|operator| record.options.merge_operator.as_ref() == Some(operator));
        if let Some(operator) = operator {
            view.family.take_operator(operator);
        }
        options.key_orders.iter().for_each(|order| view.family.take_order(order));
        let name = view.family.name();
        if registry.named(&name).is_some() {
            let message = format!("the catalog names two column families {name:?}");
            return Err(Error::corruption(message).in_file(DATA).of_family(record.id.0));
        }
        registry.add(&view.family);
        registry.set_name(name, &view.family);
        slots.push((slot, Some(view)));
    }
    for (&id, name) in &catalog.lost {
        let error = families::lost(name, id);
        tracing::error!(%error, "a column family is lost");
        registry.add_lost(id, name);
    }
    let new_loss = catalog.lost.iter().find(|(id, _)| !catalog.given_up.contains(id));
    let loss = new_loss.map(|(&id, name)| families::not_given_up(name, id, failure.as_ref()));
    let view = View::default().with_all(slots);
    Ok(Restored { data, views: ArcCell::new(Arc::new(view)), registry, touched, catalog, newest, loss })
}

/// The family in `slot`, with budgets of its page cache and of a memtable.
fn restore_family(
    record: &FamilyRecord,
    slot: usize,
    data: &Arc<DataFile>,
    (cache, memtable): (CacheBudgets, usize),
    touched: &Arc<Touched>,
) -> Result<Arc<crate::column_family::view::FamilyView>> {
    let FamilyRecord { id, name, options: own, merged_through, tree, deltas, segments, reachable, .. } =
        record;
    let store = PartitionedStorageBackend::restore(*id, Arc::clone(data), cache, segments.clone(), reachable)
        .map_err(|error| error.in_file(DATA).of_family(id.0))?;
    let origin = Origin {
        id: *id,
        slot,
        name: name.as_str().into(),
        options: own.clone(),
        trees: TreeVersion::new(*tree, deltas.iter().copied().map(Delta::restore).collect()),
        merged_through: *merged_through,
        touched: Arc::clone(touched),
    };
    Ok(Family::create(origin, store, memtable))
}

/// The data file as the log asks for room in it.
#[derive(Debug)]
struct RoomInData(Arc<DataFile>);

impl Room for RoomInData {
    fn keep(&self, weight: u64) -> Result<()> {
        self.0.space().keep_room(weight)
    }

    fn is_tight(&self, weight: u64) -> bool {
        self.0.space().is_tight(weight)
    }

    fn fill(&self) -> bool {
        self.0.space().fill_reserve()
    }
}

fn open_existing(
    backend: &Arc<dyn StorageBackend>,
    mut options: Options,
    locks: Arc<Locks>,
    resources: &SharedResources,
) -> Result<Arc<Shared>> {
    // The handle is kept where it can be let go of.
    let shares_memory = options.shared.take().is_some();
    let crew = resources.crew();
    let memory = &crew.memory;
    let mode = if options.read_only { FileMode::Read } else { FileMode::Write };
    let pool = FileHandlePool::new(Arc::clone(backend), DATA, mode, options.max_descriptors)?;
    let (mut superblock, first_slot) = Superblock::load(&**pool.permanent(), DATA)?;
    if !options.read_only {
        superblock.features.check_writing("the database").map_err(|error| error.in_file(DATA))?;
    }
    let is_in_both_slots = superblock.is_in_both_slots(&**pool.permanent(), DATA);
    let database = DATABASES.fetch_add(1, Ordering::Relaxed);
    let work = Work::new(&crew.desk, database);
    let Restored { data, views, registry, touched, catalog, newest, loss } =
        restore(pool, &mut superblock, memory, &options)?;
    let lost_family = loss.clone();
    if let Some(error) = loss.filter(|_| !options.read_only && !options.gives_up_lost_families) {
        // The first checkpoint would write down that the family is lost, and the log would go without its
        // commits.
        return Err(error);
    }
    let plan =
        wal::Plan::load(&**backend, &superblock.database_id, superblock.log, options.skips_damaged_log)?;
    if !options.read_only {
        for FamilyRecord { id, name, features, .. } in catalog.families.values() {
            let checked = features.check_writing(&format!("column family {name:?}"));
            checked.map_err(|error| error.in_file(DATA).of_family(id.0))?;
        }
        plan.check_writing()?;
    }
    let mut catalog_file = CatalogFile::restore(&superblock, &catalog, newest);
    if !options.read_only {
        let reserve = match options.disk_reserve_bytes {
            None => ReserveSize::Share,
            Some(0) => ReserveSize::Nothing,
            Some(bytes) => ReserveSize::Bytes(bytes),
        };
        data.space().set_reserve(reserve, Arc::clone(backend));
    }
    let mut find_spare = || {
        let _open = data.space().open_whole_reserve();
        catalog_file.find_spare(data.space(), data.page_size() as u64)
    };
    if !options.read_only && !is_in_both_slots {
        // Nothing may be written over what an older checkpoint reaches before this one is known to be
        // durable.
        superblock.store(data.pool(), first_slot)?;
    }
    let loan = shares_memory.then(|| crew.lend());
    let budget = match &loan {
        _ if options.read_only => Budget::unlimited(),
        Some(loan) => Budget::new(loan.bytes, 0),
        // Nothing else uses memory yet.
        None => Budget::new(options.budgets.write, options.budgets.cache),
    };
    let log_bytes =
        plan.segments(&**backend)?.iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    if !options.read_only && data.space().is_tight(log_bytes) {
        // The room that was kept for this, before the replay takes it.
        find_spare()?;
    }
    let progress = Progress::new(options.progress.as_ref(), log_bytes);
    let replayer = Replayer::new(&views, budget, options.merge_cost, progress);
    let (report, replayed) = replayer.replay(&**backend, &plan, |report| {
        if options.read_only { Ok(()) } else { wal::make_durable(&**backend, report) }
    })?;
    drop(replayer);
    if !options.read_only {
        find_spare()?;
    }
    let merged = catalog.families.values().map(|family| family.merged_through).max().unwrap_or_default();
    let through = superblock.last_sequence.max(report.last_sequence).max(merged);
    // No number is given twice, whatever became of the commit that had it.
    let given_up = report.given_up.as_ref();
    let last_sequence = through.max(given_up.map_or(SequenceNumber(0), |given_up| given_up.last_sequence));
    let lost = given_up.map(|given_up| LostLog::keep(&**backend, given_up, through, options.read_only));
    let recovery = RecoveryReport {
        records: report.records,
        records_applied: replayed.applied,
        bytes: report.bytes,
        segments: report.segments,
        torn_tail: report.torn_tail,
        last_sequence,
        lost: lost.transpose()?,
    };
    tracing::info!(?recovery, read_only = options.read_only, "opened");
    let log_pace = LogPace::new(options.log_limit());
    let log = if options.read_only {
        None
    } else {
        let mut end = report.end;
        end.last_sequence = last_sequence;
        let max_segment_bytes = MAX_LOG_SEGMENT.min(options.log_limit() / LOG_SEGMENTS);
        let log_options = LogOptions {
            database_id: superblock.database_id,
            first_segment_bytes: FIRST_LOG_SEGMENT.min(max_segment_bytes),
            max_segment_bytes,
            // What a round lets go of.
            spare_segments: (options.log_limit() / 4 / max_segment_bytes) as usize,
            limit_bytes: options.log_limit(),
            watched_from: log_pace.long_from(),
            use_mapping: options.mapped_log,
            reserve_files: if options.disk_reserve_bytes == Some(0) { 0 } else { RESERVE_FILES },
            reserve_file_bytes: (data.space().reserve_bytes() / 8)
                .clamp(FIRST_LOG_SEGMENT, MAX_RESERVE_FILE)
                .min(max_segment_bytes)
                .next_multiple_of(4096),
            room: Arc::new(RoomInData(Arc::clone(&data))),
        };
        let log = Log::start(InPlace::of(backend, &locks), log_options, end)?;
        log.weigh(&report, replayed.operations);
        data.space().owe(log.weight());
        Some(log)
    };
    // Of what is lost the name may be unknown, as that of the family of prepared transactions always is.
    let has_prepared = superblock.features.write & Features::OF_PREPARED.write != 0;
    let lost_prepared = lost_family.filter(|_| has_prepared && registry.named(PREPARED_FAMILY).is_none());
    let clock = options.clock.for_database();
    if superblock.features.read & Features::OF_EXPIRY.read != 0 {
        clock.set_used();
    }
    let mut shared = Shared {
        pipeline: Arc::new(Pipeline {
            database,
            process: Process::this(),
            views,
            visible: CachePadded::new(Sequencer::new(last_sequence.0)),
            latch: Latch::default(),
            log,
            work,
            log_pace,
            merge_cost: options.merge_cost,
            clock,
            waited_for: WaitedFor::default(),
            // A memtable of the one family that is written to takes as much.
            apart: Apart::up_to(options.budgets.write / 8),
            prepared: Prepared::new(options.decision_wait),
            remembered: Arc::new(Remembered::up_to(options.transaction_memory())),
            transactions: Tally::default(),
            locks: Arc::default(),
            writes_wait: options.locked_writes.limit(),
            closed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            unlogged: AtomicBool::new(false),
            short_of_space: AtomicBool::new(false),
            on_reserve: AtomicBool::new(false),
            unlogged_bytes: AtomicU64::new(0),
            is_tight: AtomicBool::new(false),
        }),
        options,
        data,
        registry: Mutex::new(registry),
        changes: Mutex::new(()),
        touched,
        checkpoint: Mutex::new(State {
            superblock,
            first_slot,
            twin_is_durable: false,
            catalog: catalog_file,
        }),
        checkpoints: Counters {
            first_segment: AtomicU64::new(superblock.log.first_segment),
            ..Counters::default()
        },
        memory: Arc::clone(memory),
        shares_memory,
        recovery,
        waiting: Waiting::default(),
        threads: Mutex::new(Some(Box::new(resources.clone()))),
        unread_prepared: lost_prepared,
        log_rests: AtomicBool::new(false),
        at_reserve: Mutex::new(()),
        closing: Mutex::default(),
        lock: Mutex::new(Some(locks)),
    };
    shared.find_prepared()?;
    if !shared.options.read_only {
        // Of a log of which nothing could be read recovery begins behind it from now on.
        shared.name_log(given_up.is_some_and(|given_up| given_up.segment == 0))?;
        for family in shared.registry.lock().families() {
            // What was replayed is to be merged, and there may be deltas and free pages since before.
            shared.pipeline.work.touch(family);
            if family.stall.waiting() > 0 {
                shared.pipeline.work.request_merge(family);
            }
        }
    }
    Ok(Arc::new(shared))
}
