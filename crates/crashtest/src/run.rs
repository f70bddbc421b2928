//! A workload under way: steps carried out on a database, and noted.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use peristyle::{ColumnFamilyDatabase, DatabaseBuilder};

use crate::chain::Chain;
use crate::digest::WRITERS;
use crate::disk::SimulatedDisk;
use crate::ledger::{Floor, Ledger};
use crate::writer::Writer;

/// Families that are always there; the last one is for writes without log records.
pub const FAMILIES: [&str; 3] = ["a", "b", "u"];

/// How the database under test is set up. Sizes are the smallest, so that few steps cross every boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// Whether maintenance starts by itself.
    pub automatic: bool,
    /// Threads that merge.
    pub threads: usize,
    /// How old a buffered write may become, in milliseconds.
    pub sync_interval: u64,
    /// Whether the log may be mapped.
    pub maps: bool,
    /// Whether merges write deltas wherever there is a tree to spare.
    pub deltas: bool,
    /// Whether memtables have room for all that the log holds, so that it reaches its limit before they are
    /// full.
    pub roomy: bool,
}

impl Setup {
    /// Nothing happens by itself.
    pub const MANUAL: Self = Self {
        automatic: false,
        threads: 1,
        sync_interval: 3_600_000,
        maps: true,
        deltas: false,
        roomy: false,
    };

    /// The settings to open with.
    pub fn builder(self) -> DatabaseBuilder {
        use std::sync::OnceLock;
        // Made once, because a builder looks up how much memory the machine has.
        static SHRUNKEN: OnceLock<DatabaseBuilder> = OnceLock::new();
        let shrunken = SHRUNKEN.get_or_init(|| {
            let builder = ColumnFamilyDatabase::builder().log_limit_bytes(64 << 10).page_size(4096);
            builder.cache_bytes(64 << 10).merge_operator(Chain)
        });
        let interval = Duration::from_millis(self.sync_interval);
        shrunken
            .clone()
            .background_threads(self.threads)
            .sync_interval(interval)
            .automatic_maintenance(self.automatic)
            .merge_cost(if self.deltas { 0 } else { 8 })
            .write_buffer_bytes(if self.roomy { 4 << 20 } else { 64 << 10 })
    }

    /// Opens what is on `disk`.
    ///
    /// # Errors
    /// The engine's.
    pub fn open(self, disk: &SimulatedDisk) -> peristyle::Result<ColumnFamilyDatabase> {
        self.builder().storage(disk.clone().with_mappings(self.maps)).open("simulated")
    }
}

/// Where a database lives.
#[derive(Debug, Clone)]
pub enum Place {
    /// On a simulated disk.
    Simulated(SimulatedDisk),
    /// In a directory of the file system.
    Files(PathBuf),
}

impl Place {
    /// Opens what is there.
    ///
    /// # Errors
    /// The engine's.
    pub fn open(&self, setup: Setup) -> peristyle::Result<ColumnFamilyDatabase> {
        match self {
            Self::Simulated(disk) => setup.open(disk),
            Self::Files(path) => setup.builder().open(path),
        }
    }
}

/// A database at which writers are at work.
pub struct Run {
    place: Place,
    setup: Setup,
    db: RwLock<Option<ColumnFamilyDatabase>>,
    ticks: AtomicU64,
    acknowledged: [[AtomicUsize; 2]; WRITERS],
    floors: Mutex<Vec<Floor>>,
    base_sequence: u64,
}

impl Run {
    /// Opens what is on `disk`, with the families that are always there, which must exist already or be made
    /// now.
    ///
    /// # Errors
    /// The engine's.
    pub fn open(disk: &SimulatedDisk, setup: Setup) -> peristyle::Result<Self> {
        let db = setup.open(disk)?;
        Ok(Self::over(Place::Simulated(disk.clone()), setup, db))
    }

    /// A run on a database that is open.
    pub fn over(place: Place, setup: Setup, db: ColumnFamilyDatabase) -> Self {
        let base_sequence = db.recovery_report().last_sequence.0;
        Self {
            place,
            setup,
            db: RwLock::new(Some(db)),
            ticks: AtomicU64::new(0),
            acknowledged: Default::default(),
            floors: Mutex::default(),
            base_sequence,
        }
    }

    /// The database.
    ///
    /// # Panics
    /// If it could not be opened again.
    pub fn db(&self) -> ColumnFamilyDatabase {
        self.db.read().clone().expect("the database is open")
    }

    /// Whether the database is open: it may have failed to open again.
    pub fn is_open(&self) -> bool {
        self.db.read().is_some()
    }

    /// Operations in the log of the disk; if there is none, ticks.
    pub(crate) fn moment(&self) -> usize {
        match &self.place {
            Place::Simulated(disk) => disk.operations(),
            Place::Files(_) => self.ticks.load(Ordering::SeqCst) as usize,
        }
    }

    pub(crate) fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    /// What has been acknowledged so far.
    pub(crate) fn acknowledged(&self) -> Floor {
        let mut floor = Floor::default();
        for (events, counts) in floor.events.iter_mut().flatten().zip(self.acknowledged.iter().flatten()) {
            *events = counts.load(Ordering::SeqCst);
        }
        floor
    }

    pub(crate) fn note_floor(&self, mut floor: Floor) {
        floor.moment = self.moment();
        self.floors.lock().push(floor);
    }

    /// Lets go of the database without closing it, which makes all that was acknowledged durable.
    pub fn end(&self) {
        let floor = self.acknowledged();
        let db = self.db.write().take();
        drop(db);
        self.note_floor(floor);
    }

    /// Lets go of the database, of which nothing more is expected.
    pub fn forsake(&self) {
        let db = self.db.write().take();
        drop(db);
    }

    /// So many events of a writer are acknowledged.
    pub(crate) fn acknowledge(&self, writer: usize, unlogged: bool, events: usize) {
        self.acknowledged[writer][usize::from(unlogged)].store(events, Ordering::SeqCst);
    }

    /// Ends the database as `end` does and opens it again.
    pub(crate) fn reopen(
        &self,
        end: impl FnOnce(ColumnFamilyDatabase) -> peristyle::Result<()>,
    ) -> peristyle::Result<()> {
        let floor = self.acknowledged();
        let mut db = self.db.write();
        let Some(old) = db.take() else { return Ok(()) };
        end(old)?;
        self.note_floor(floor);
        *db = Some(self.place.open(self.setup)?);
        Ok(())
    }

    /// What the writers did.
    pub fn ledger(self, writers: Vec<Writer>) -> Ledger {
        drop(self.db.into_inner());
        let histories = writers.into_iter().map(Writer::into_histories).collect();
        Ledger::new(histories, self.floors.into_inner(), self.base_sequence)
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("place", &self.place).finish_non_exhaustive()
    }
}
