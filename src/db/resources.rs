//! What several databases of one process share.

use std::fmt;

use crate::column_family::merging::desk::{DatabaseNumber, Desk};
use crate::db::budget::Memory;
use crate::db::crew::{Crew, Hands};
use crate::db::memory::MemoryReport;
use crate::db::shared::{LooksAfter, Shared};
use crate::error::Result;
use crate::options::{
    Budgets, DatabaseBuilder, Lent, MemorySettings, Options, check_threads, default_threads,
};
use crate::sync::Arc;
use crate::system::Inherited;

/// One set of background threads and one total of memory for several databases.
///
/// Without it every database has threads and budgets of its own. Databases that are opened with
/// [`DatabaseBuilder::shared`] have theirs in common, however many they are: read caches and write buffers go
/// to whichever family of whichever database needs them, and databases take turns at the threads. All else is
/// each one's own: its files, its log with its limit, its descriptors, and, once
/// [`on_synced`](crate::ColumnFamilyDatabase::on_synced) was called, a thread that calls back.
///
/// Cheap to clone. Databases come and go while others go on; the threads end when the last of these databases
/// is closed or dropped and the last clone is gone. A database that fails takes no more writes, as ever, and
/// keeps no other from going on. But a disk that answers no more may hold up those who wait for the same
/// thread.
///
/// ```
/// # fn main() -> peristyle::Result<()> {
/// use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage, SharedResources};
///
/// let resources = SharedResources::builder().memory_bytes(64 << 20).background_threads(2).build()?;
/// let open = |tenant: &str| {
///     ColumnFamilyDatabase::builder().shared(&resources).storage(MemoryStorage::new()).open(tenant)
/// };
/// let (ann, ben) = (open("ann")?, open("ben")?);
/// ann.create_column_family("notes", FamilyOptions::default())?.put("key", "value")?;
/// ann.close()?;
/// ben.create_column_family("notes", FamilyOptions::default())?.put("key", "value")?;
/// assert!(resources.memory_report().total_bytes() < 64 << 20);
/// # ben.close() }
/// ```
#[derive(Clone)]
pub struct SharedResources {
    keeper: Inherited<Arc<Keeper>>,
}

/// Ends the threads when the last handle goes.
struct Keeper(Arc<Crew>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.dismiss();
    }
}

impl LooksAfter for SharedResources {
    fn leave(&self, database: DatabaseNumber) {
        self.crew().leave(database);
    }
}

impl fmt::Debug for SharedResources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedResources").field("databases", &self.crew().databases().len()).finish()
    }
}

/// What databases are to share: see [`SharedResources`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct SharedResourcesBuilder {
    memory: MemorySettings,
    threads: usize,
}

impl SharedResourcesBuilder {
    /// Bytes of memory for all that the databases keep there together, split as
    /// [`DatabaseBuilder::memory_bytes`] says; its default is the same, too.
    pub fn memory_bytes(mut self, total: u64) -> Self {
        self.memory.total = Some(total);
        self
    }

    /// Bytes of read cache for all column families of all databases together: see
    /// [`DatabaseBuilder::cache_bytes`].
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.memory.cache = Some(bytes);
        self
    }

    /// Bytes of memtables and write buffers for all column families of all databases together: see
    /// [`DatabaseBuilder::write_buffer_bytes`].
    pub fn write_buffer_bytes(mut self, bytes: u64) -> Self {
        self.memory.write = Some(bytes);
        self
    }

    /// Threads that merge, 1 to 1024, and as many that make checkpoints (default: the number of processors,
    /// at most 4). Two more keep logs and the clock.
    pub fn background_threads(mut self, count: usize) -> Self {
        self.threads = count;
        self
    }

    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) as [`DatabaseBuilder::open`] gives it for the
    /// same settings, and [`Io`](crate::ErrorKind::Io) if the system has no thread to give.
    pub fn build(self) -> Result<SharedResources> {
        check_threads(self.threads)?;
        let resources = SharedResources::without_threads(self.memory.budgets()?);
        resources.crew().hire(Hands { merges: self.threads, checkpoints: self.threads, logs: 1 })?;
        Ok(resources)
    }
}

impl SharedResources {
    /// Settings to share resources with.
    pub fn builder() -> SharedResourcesBuilder {
        SharedResourcesBuilder { memory: MemorySettings::default(), threads: default_threads() }
    }

    /// What the open databases keep in memory together, by kind. Costs a look at every family.
    pub fn memory_report(&self) -> MemoryReport {
        let crew = self.crew();
        let mut report = MemoryReport { budget_bytes: crew.memory.total, ..MemoryReport::default() };
        // In a child that was forked nobody gives back what the parent's threads had locked.
        if self.keeper.check().is_ok() {
            crew.databases().iter().for_each(|shared| shared.add_memory(&mut report));
        }
        report
    }

    pub(super) fn without_threads(budgets: Budgets) -> Self {
        let desk = Arc::new(Desk::default());
        let memory = Memory::new(budgets, &desk.clock);
        Self { keeper: Inherited::new(Arc::new(Keeper(Crew::new(desk, memory)))) }
    }

    /// Those that `options` name, or such as one database has for itself; these have no threads yet.
    ///
    /// # Errors
    /// [`ForkedChild`](crate::ErrorKind::ForkedChild) if those belong to a process of which this one was
    /// forked.
    pub(super) fn of(options: &Options) -> Result<Self> {
        let lent = options.shared.as_ref().and_then(|lent| lent.handle.downcast_ref::<Self>());
        let Some(lent) = lent else { return Ok(Self::without_threads(options.budgets)) };
        lent.keeper.check()?;
        Ok(lent.clone())
    }

    pub(super) fn crew(&self) -> &Arc<Crew> {
        &self.keeper.0
    }
}

/// The threads of a database that has them for itself.
pub(super) fn own_hands(options: &Options) -> Hands {
    match options.read_only {
        true => Hands { merges: 0, checkpoints: 0, logs: 0 },
        false => Hands { merges: options.background_threads, checkpoints: 1, logs: 1 },
    }
}

impl DatabaseBuilder {
    /// Shares background threads and memory with other databases: see [`SharedResources`]. The numbers that
    /// are given there are not given here then.
    ///
    /// # Errors
    ///
    /// [`open`](Self::open) fails with [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if any of
    /// [`memory_bytes`](Self::memory_bytes), [`cache_bytes`](Self::cache_bytes),
    /// [`write_buffer_bytes`](Self::write_buffer_bytes) and [`background_threads`](Self::background_threads)
    /// is given besides.
    pub fn shared(mut self, resources: &SharedResources) -> Self {
        let memory = &resources.crew().memory;
        let budgets =
            Budgets { total: memory.total, cache: memory.cache_bytes(), write: memory.write_bytes() };
        self.options.shared = Some(Lent { budgets, handle: Arc::new(resources.clone()) });
        self
    }
}

impl Shared {
    /// Bytes of memtables and pages that are not written yet.
    pub(super) fn bytes_for_writing(&self) -> u64 {
        let mut report = MemoryReport::default();
        self.add_memory(&mut report);
        report.memtables + report.write_buffers
    }
}
