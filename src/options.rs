//! What a database is opened with.

pub(crate) mod clock;
mod machine;
mod memory;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::{Error, ErrorKind, Result};
use crate::key_order::KeyOrder;
use crate::operator::MergeOperator;
use crate::operator::named::NamedOperator;
use crate::options::clock::WallClock;
use crate::storage::StorageBackend;

pub(crate) use memory::{Budgets, MemorySettings};

/// What an acknowledged write survives.
///
/// | level | the process is killed | the machine loses power | a write costs |
/// |---|---|---|---|
/// | `Sync` | survives | survives | its share of one sync of the log, shared by all who wait |
/// | `Buffered` | survives | survives if it is older than the sync interval | a copy into the log |
/// | `None` | lost unless merged and checkpointed | lost unless merged and checkpointed | an insert into memory |
///
/// Whatever the level, a batch survives whole or not at all, and what survives of the logged commits is a
/// prefix of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// On the disk before it is acknowledged. Readers may see it from the moment it is written, a sync
    /// earlier: a sync holds up nobody but those who asked for it. What is written by whoever saw it comes
    /// after it in the log, so no crash keeps that and loses what was seen. Who must not act on what a loss
    /// of power could still take back calls [`sync`](crate::ColumnFamilyDatabase::sync) after reading.
    Sync,
    /// With the operating system before it is acknowledged; synced in the background within the sync
    /// interval.
    #[default]
    Buffered,
    /// In memory only, without a log record; durable with the next checkpoint after it was merged. A batch
    /// over several families is logged nevertheless, as by `Buffered`: only the log can keep it whole.
    None,
}

/// What a write outside of transactions does when it meets keys which a transaction has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockedWrites {
    /// It waits, in order of arrival, at most this long ([`Duration::MAX`]: until they are free), and then
    /// fails with [`LockTimeout`](ErrorKind::LockTimeout). It holds nothing meanwhile, so it is never part of
    /// a deadlock.
    Wait(Duration),
    /// It fails with [`LockTimeout`](ErrorKind::LockTimeout) at once.
    Fail,
}

impl Default for LockedWrites {
    fn default() -> Self {
        Self::Wait(Duration::from_secs(1))
    }
}

impl LockedWrites {
    /// How long it waits at most.
    pub(crate) fn limit(self) -> Duration {
        match self {
            Self::Wait(limit) => limit,
            Self::Fail => Duration::ZERO,
        }
    }
}

/// How far opening a database has come with the log that it replays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryProgress {
    /// Bytes of the log's records that were replayed so far.
    pub bytes: u64,
    /// Bytes that there are in all, estimated until the end: then it is `bytes`.
    pub bytes_in_all: u64,
    /// For how long that has been going on.
    pub elapsed: Duration,
}

/// Called with a [`RecoveryProgress`], see
/// [`on_recovery_progress`](crate::DatabaseBuilder::on_recovery_progress).
#[derive(Clone)]
pub(crate) struct ProgressCallback(pub(crate) Arc<dyn Fn(RecoveryProgress) + Send + Sync>);

impl fmt::Debug for ProgressCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProgressCallback")
    }
}

/// Bytes of a tree that a merge may write for each byte merged, by default: from a tree of about ten times
/// what is merged on, a delta is cheaper if keys are random.
const MERGE_COST: u32 = 8;

/// More threads that merge than any machine has use for.
const MOST_THREADS: usize = 1024;

/// Default of the log's limit: what two cores replay in a second or two.
const LOG_LIMIT: u64 = 512 << 20;
/// How many times the write buffers the log is at most, if that is more than so many bytes: what does not fit
/// into memtables has to be merged while it is replayed.
const LOG_FOR_BUFFERS: u64 = 2;
const SHORT_LOG: u64 = 16 << 20;

/// Threads that merge, unless another number is asked for.
pub(crate) fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |n| n.get().clamp(1, 4))
}

/// Refuses numbers of threads that make no sense.
pub(crate) fn check_threads(count: usize) -> Result<()> {
    if (1..=MOST_THREADS).contains(&count) {
        return Ok(());
    }
    let message = format!("{count} background threads are not possible; 1 to {MOST_THREADS} are");
    Err(Error::new(ErrorKind::InvalidArgument, message))
}

/// What a database shares with others.
#[derive(Clone)]
pub(crate) struct Lent {
    pub(crate) budgets: Budgets,
    /// A `SharedResources`, of which nobody but `db` knows more.
    pub(crate) handle: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.budgets.fmt(f)
    }
}

/// Checked settings of an open database.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) create_if_missing: bool,
    pub(crate) error_if_exists: bool,
    pub(crate) read_only: bool,
    /// What was asked for of the budgets.
    asked: MemorySettings,
    /// Those of all databases together that share them.
    pub(crate) budgets: Budgets,
    /// What is shared with other databases.
    pub(crate) shared: Option<Lent>,
    pub(crate) page_size: u32,
    pub(crate) max_descriptors: usize,
    pub(crate) log_limit_bytes: u64,
    asked_threads: Option<usize>,
    /// `None`: in proportion.
    pub(crate) disk_reserve_bytes: Option<u64>,
    pub(crate) background_threads: usize,
    pub(crate) automatic: bool,
    pub(crate) merge_cost: u32,
    /// What open transactions may keep, if that was asked for.
    pub(crate) transaction_memory_bytes: Option<u64>,
    pub(crate) decision_wait: Duration,
    pub(crate) locked_writes: LockedWrites,
    pub(crate) durability: Durability,
    pub(crate) sync_interval: Duration,
    pub(crate) mapped_log: bool,
    pub(crate) backend: Option<Arc<dyn StorageBackend>>,
    pub(crate) progress: Option<ProgressCallback>,
    pub(crate) skips_damaged_log: bool,
    pub(crate) gives_up_lost_families: bool,
    /// Merge operators, for the families that have one of these names.
    pub(crate) merge_operators: Vec<NamedOperator>,
    pub(crate) clock: WallClock,
    /// Orders of keys, for the families that have one of these names.
    pub(crate) key_orders: Vec<KeyOrder>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create_if_missing: true,
            error_if_exists: false,
            read_only: false,
            asked: MemorySettings::default(),
            budgets: Budgets::default(),
            shared: None,
            page_size: 8 << 10,
            max_descriptors: 64,
            log_limit_bytes: LOG_LIMIT,
            asked_threads: None,
            disk_reserve_bytes: None,
            background_threads: default_threads(),
            automatic: true,
            merge_cost: MERGE_COST,
            transaction_memory_bytes: None,
            decision_wait: Duration::from_secs(1),
            locked_writes: LockedWrites::default(),
            durability: Durability::default(),
            sync_interval: Duration::from_secs(1),
            mapped_log: true,
            backend: None,
            progress: None,
            skips_damaged_log: false,
            gives_up_lost_families: false,
            merge_operators: Vec::new(),
            clock: WallClock::of_system(),
            key_orders: Vec::new(),
        }
    }
}

impl Options {
    /// The log's limit, in bytes as [`DatabaseBuilder::log_limit_bytes`] counts them.
    pub(crate) fn log_limit(&self) -> u64 {
        let replayable = self.budgets.write.saturating_mul(LOG_FOR_BUFFERS).max(SHORT_LOG);
        self.log_limit_bytes.min(replayable)
    }

    /// Bytes of memtables that open transactions may keep.
    pub(crate) fn transaction_memory(&self) -> usize {
        usize::try_from(self.transaction_memory_bytes.unwrap_or(self.budgets.write)).unwrap_or(usize::MAX)
    }

    /// The settings, if they make sense, with all that follows from them.
    pub(crate) fn settled(mut self) -> Result<Self> {
        self.check()?;
        self.budgets = match &self.shared {
            Some(lent) => lent.budgets,
            None => self.asked.budgets()?,
        };
        self.background_threads = self.asked_threads.unwrap_or(self.background_threads);
        Ok(self)
    }

    fn check(&self) -> Result<()> {
        self.merge_operators.iter().try_for_each(NamedOperator::check)?;
        self.key_orders.iter().try_for_each(KeyOrder::check)?;
        let refuse = |message: String| Err(Error::new(ErrorKind::InvalidArgument, message));
        if ![4 << 10, 8 << 10, 16 << 10, 32 << 10].contains(&self.page_size) {
            return refuse(format!(
                "a page size of {} bytes is not possible; 4096, 8192, 16384 and 32768 are",
                self.page_size
            ));
        }
        if self.max_descriptors < 2 {
            return refuse("a cap of fewer than 2 descriptors is not possible".into());
        }
        if self.log_limit_bytes < 64 << 10 {
            return refuse(format!(
                "a log limit of {} bytes is too small; give at least 64 KiB",
                self.log_limit_bytes
            ));
        }
        if self.shared.is_some() && (self.asked != MemorySettings::default() || self.asked_threads.is_some())
        {
            return refuse(
                "memory and background threads are shared: give their numbers to SharedResources::builder, not here"
                    .into(),
            );
        }
        check_threads(self.asked_threads.unwrap_or(self.background_threads))?;
        if self.sync_interval.is_zero() {
            return refuse(
                "a sync interval of zero is not possible; ask for Durability::Sync instead".into(),
            );
        }
        if self.error_if_exists && (self.read_only || !self.create_if_missing) {
            return refuse(
                "error_if_exists is for creating; it excludes read_only and create_if_missing(false)".into(),
            );
        }
        Ok(())
    }
}

/// Opens a database with other than the default settings.
///
/// ```
/// # fn main() -> peristyle::Result<()> {
/// use peristyle::{ColumnFamilyDatabase, Durability, MemoryStorage};
///
/// let db = ColumnFamilyDatabase::builder()
///     .cache_bytes(64 << 20)
///     .write_buffer_bytes(16 << 20)
///     .default_durability(Durability::Sync)
///     .storage(MemoryStorage::new())
///     .open("in memory")?;
/// # db.close() }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until `open` is called"]
pub struct DatabaseBuilder {
    pub(crate) options: Options,
}

impl DatabaseBuilder {
    /// Whether to create the database if the path holds none (default: yes).
    pub fn create_if_missing(mut self, yes: bool) -> Self {
        self.options.create_if_missing = yes;
        self
    }

    /// Whether to fail with [`ErrorKind::DatabaseExists`] if the path holds a database (default: no).
    pub fn error_if_exists(mut self, yes: bool) -> Self {
        self.options.error_if_exists = yes;
        self
    }

    /// Whether to open for reading only (default: no). Nothing on disk is changed: what the log holds beyond
    /// the last checkpoint is replayed into memory, without regard to the budget of the write buffers.
    /// Several readers may have a database open at once, but none beside a writer.
    pub fn read_only(mut self, yes: bool) -> Self {
        self.options.read_only = yes;
        self
    }

    /// Gives `operator` to every family of the database that has a merge operator of its name, from the
    /// beginning: what is replayed and merged while the database is opened is folded as well. A family gets
    /// its operator otherwise when it is opened with options that have it, see
    /// [`FamilyOptions::merge_operator`](crate::FamilyOptions::merge_operator). May be called for several.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage, merge_operators};
    ///
    /// let builder = ColumnFamilyDatabase::builder().storage(MemoryStorage::new());
    /// let builder = builder.merge_operator(merge_operators::add_u64());
    /// let builder = builder.merge_operator(merge_operators::max());
    /// # let (first, second) = (builder.clone(), builder);
    /// # let db = first.open("memory")?;
    /// # let options = FamilyOptions::default().merge_operator(merge_operators::max());
    /// # db.create_column_family("highest", options)?.merge("key", "7")?;
    /// # db.close()?;
    /// # let builder = second;
    /// let db = builder.open("memory")?;
    /// let highest = db.column_family("highest")?;
    /// highest.merge("key", "5")?;
    /// assert_eq!(highest.get("key")?.unwrap(), "7");
    /// # Ok(()) }
    /// ```
    pub fn merge_operator(mut self, operator: impl MergeOperator) -> Self {
        self.options.merge_operators.push(NamedOperator::new(operator));
        self
    }

    /// The clock by which entries [expire](crate::FamilyOptions::expire_after); without it, that of the
    /// system.
    ///
    /// It is called by threads that write or read families whose entries may expire, and by those that merge,
    /// several at once, while no lock is held that readers or writers wait for. If it panics, that is an
    /// error of the call which asked ([`ClockFailed`](ErrorKind::ClockFailed)), and nothing else happens. If
    /// it is set back, entries are there again that are still stored, but none which a merge or a compaction
    /// has dropped meanwhile.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use std::time::{Duration, SystemTime};
    /// use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    ///
    /// let seconds = Arc::new(AtomicU64::new(1000));
    /// let clock = Arc::clone(&seconds);
    /// let db = ColumnFamilyDatabase::builder()
    ///     .storage(MemoryStorage::new())
    ///     .clock(move || SystemTime::UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::SeqCst)))
    ///     .open("memory")?;
    /// let options = FamilyOptions::default().expire_after(Duration::from_secs(60));
    /// let sessions = db.create_column_family("sessions", options)?;
    /// sessions.put("ann", "logged in")?;
    /// seconds.store(1059, Ordering::SeqCst);
    /// assert!(sessions.contains_key("ann")?);
    /// seconds.store(1060, Ordering::SeqCst);
    /// assert!(!sessions.contains_key("ann")?);
    /// # Ok(()) }
    /// ```
    pub fn clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.options.clock = WallClock::of(now);
        self
    }

    /// Gives `order` to every family of the database that keeps its keys in an order of its name; see
    /// [`FamilyOptions::key_order`](crate::FamilyOptions::key_order), which is the other way to give it.
    /// Those that come with the engine need not be given. May be called for several.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// use peristyle::{ColumnFamilyDatabase, FamilyOptions, KeyOrder, MemoryStorage};
    ///
    /// let by_end = || KeyOrder::new("by end", |key, sort_key| {
    ///     sort_key.extend(key.iter().rev());
    ///     Ok(())
    /// });
    /// let builder = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).key_order(by_end());
    /// # let db = builder.clone().open("memory")?;
    /// # let hosts = db.create_column_family("hosts", FamilyOptions::default().key_order(by_end()))?;
    /// # hosts.put("www.example.org", "")?;
    /// # drop(hosts);
    /// # db.close()?;
    /// let hosts = builder.open("memory")?.column_family("hosts")?;
    /// assert!(hosts.contains_key("www.example.org")?);
    /// # Ok(()) }
    /// ```
    pub fn key_order(mut self, order: KeyOrder) -> Self {
        self.options.key_orders.push(order);
        self
    }

    /// Bytes of memory for all that the database keeps there, at least 1 MiB. What its parts take follows
    /// from it: five sixteenths, but no more than 1 GiB, are for [memtables and write
    /// buffers](Self::write_buffer_bytes), an eighth for the log's mapping, filters, tables and lists, the
    /// rest is the [read cache](Self::cache_bytes). A part that is given besides is taken as it is, and the
    /// other one gets what is left. [`memory_report`](crate::ColumnFamilyDatabase::memory_report) says what
    /// is taken.
    ///
    /// Default: what the defaults of the two parts come to, and a seventh of that. They follow from the
    /// memory of the machine or, if that is less, from what the control groups allow that the process is in.
    ///
    /// # Errors
    ///
    /// [`open`](Self::open) fails with [`InvalidArgument`](ErrorKind::InvalidArgument) if the parts that are
    /// given do not fit into seven eighths of the total, 64 KiB of each at least.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// use peristyle::{ColumnFamilyDatabase, MemoryStorage};
    ///
    /// let builder = ColumnFamilyDatabase::builder().memory_bytes(64 << 20).storage(MemoryStorage::new());
    /// let db = builder.open("in memory")?;
    /// let report = db.memory_report();
    /// assert_eq!(report.budget_bytes, 64 << 20);
    /// assert!(report.total_bytes() < report.budget_bytes);
    /// # db.close() }
    /// ```
    pub fn memory_bytes(mut self, total: u64) -> Self {
        self.options.asked.total = Some(total);
        self
    }

    /// Bytes of read cache for all column families together. Default: 4 GiB, but no more than a quarter of
    /// the machine's memory; or what [`memory_bytes`](Self::memory_bytes) leaves.
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.options.asked.cache = Some(bytes);
        self
    }

    /// Bytes of memtables and write buffers for all column families together. Default: 1 GiB, but no more
    /// than an eighth of the machine's memory; or what [`memory_bytes`](Self::memory_bytes) leaves. A single
    /// batch that is larger is taken nevertheless.
    pub fn write_buffer_bytes(mut self, bytes: u64) -> Self {
        self.options.asked.write = Some(bytes);
        self
    }

    /// Bytes of a page: 4096, 8192 (the default), 16384 or 32768. Fixed when the database is created; ignored
    /// afterwards.
    pub fn page_size(mut self, bytes: u32) -> Self {
        self.options.page_size = bytes;
        self
    }

    /// Descriptors through which the data file is read and written, open at once (default 64, at least 2).
    /// While there are enough each family has its own; further ones share those that are open. One more holds
    /// the lock of the data file: nothing is read or written through it, and this cap does not count it.
    pub fn max_descriptors(mut self, count: usize) -> Self {
        self.options.max_descriptors = count;
        self
    }

    /// Bytes of log that a recovery replays at most (default 512 MiB), give or take one log segment, which is
    /// an eighth of it or 64 MiB. Bounds the time of a recovery, so every operation counts as 96 bytes beside
    /// its own. From half of the limit on the oldest entries are merged and checkpoints are made; as the log
    /// nears it writers are slowed, and stopped while it is there. A batch that is larger is taken
    /// nevertheless, once nothing else is in the log. With small write buffers the limit is twice their size,
    /// or 16 MiB, whichever is more, if that is less.
    pub fn log_limit_bytes(mut self, bytes: u64) -> Self {
        self.options.log_limit_bytes = bytes;
        self
    }

    /// Bytes of the disk that are kept for the time when it is full, so that one can always open the database
    /// for writing then, delete, drop families, compact, and have space back. Puts are refused before they
    /// use it. Default: a 32nd of the data file, 16 pages at least and 16 MiB at most, and half as much
    /// again, 64 KiB at least and 4 MiB at most, in files beside the log. What is given counts for the data
    /// file; the log's files follow from it. With 0 nothing is kept.
    ///
    /// It is kept as free pages and files whose room is reserved. On a file system that writes elsewhere what
    /// is written anew (btrfs, ZFS, bcachefs, and XFS where files share blocks) reserved room is no promise
    /// that writing succeeds: there leave the file system room of its own, too.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// use peristyle::{ColumnFamilyDatabase, ErrorKind, FamilyOptions, MemoryStorage};
    ///
    /// let disk = MemoryStorage::with_capacity_limit(4 << 20);
    /// let builder = ColumnFamilyDatabase::builder().disk_reserve_bytes(256 << 10).storage(disk);
    /// let db = builder.open("in memory")?;
    /// let family = db.create_column_family("family", FamilyOptions::default())?;
    /// let full = (0u32..).find_map(|n| family.put(n.to_be_bytes(), [7; 1000]).err()).unwrap();
    /// assert_eq!(full.kind(), ErrorKind::OutOfSpace);
    /// family.delete(0u32.to_be_bytes())?;
    /// family.delete_range(..)?;
    /// db.compact()?;
    /// family.put("there is", "room again")?;
    /// # db.close() }
    /// ```
    pub fn disk_reserve_bytes(mut self, bytes: u64) -> Self {
        self.options.disk_reserve_bytes = Some(bytes);
        self
    }

    /// Threads that merge, 1 to 1024 (default: the number of processors, at most 4). Three more make
    /// checkpoints and keep the log and the clock.
    pub fn background_threads(mut self, count: usize) -> Self {
        self.options.asked_threads = Some(count);
        self
    }

    /// Whether merges and checkpoints also start by themselves when memtables are idle or time has passed
    /// (default: yes). Without it they run only when memory or log are full, or when a call asks for them.
    pub fn automatic_maintenance(mut self, yes: bool) -> Self {
        self.options.automatic = yes;
        self
    }

    /// Bytes of a family's tree that merging memtables may write for each of their bytes (default 8). Where
    /// it would write more, the memtables are written as a small tree of their own in front of it, a *delta*,
    /// and deltas are drained into the tree later, many at a time: fewer bytes are written and reads ask
    /// several small trees first, until the family rests. With 0 every merge writes a delta, with `u32::MAX`
    /// none does.
    pub fn merge_cost(mut self, bytes: u32) -> Self {
        self.options.merge_cost = bytes;
        self
    }

    /// Bytes of memory that open transactions may keep: memtables that are merged and in which their commits
    /// will look for changes of what they rely on. Default: as many as [memtables and write
    /// buffers](Self::write_buffer_bytes) may take; they are no part of those. Where more was written since
    /// the oldest open transaction began, its commit fails with
    /// [`TransactionTooOld`](ErrorKind::TransactionTooOld).
    pub fn transaction_memory_bytes(mut self, bytes: u64) -> Self {
        self.options.transaction_memory_bytes = Some(bytes);
        self
    }

    /// How long a write waits for the decision of a [prepared transaction](crate::PreparedTransaction) that
    /// holds what it writes to (default: one second). Then it fails with
    /// [`AwaitsDecision`](ErrorKind::AwaitsDecision); with a time of zero it does so at once.
    pub fn decision_wait(mut self, wait: Duration) -> Self {
        self.options.decision_wait = wait;
        self
    }

    /// What a write outside of transactions does that meets a key which a transaction has locked (default: it
    /// waits for a second at most).
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// use peristyle::{ErrorKind, LockMode, LockedWrites};
    ///
    /// let builder = ColumnFamilyDatabase::builder().locked_writes(LockedWrites::Fail);
    /// # let db = builder.storage(MemoryStorage::new()).open("memory")?;
    /// # let stock = db.create_column_family("stock", FamilyOptions::default())?;
    /// let mut transaction = db.begin()?;
    /// transaction.get_for_update(&stock, "apples", LockMode::Shared)?;
    /// assert_eq!(stock.put("apples", "3").unwrap_err().kind(), ErrorKind::LockTimeout);
    /// stock.put("pears", "4")?;
    /// transaction.rollback();
    /// stock.put("apples", "3")?;
    /// # Ok(()) }
    /// ```
    pub fn locked_writes(mut self, what: LockedWrites) -> Self {
        self.options.locked_writes = what;
        self
    }

    /// Durability of writes that do not name one (default [`Durability::Buffered`]).
    pub fn default_durability(mut self, durability: Durability) -> Self {
        self.options.durability = durability;
        self
    }

    /// How old a buffered write may become before it is synced (default: one second).
    pub fn sync_interval(mut self, interval: Duration) -> Self {
        self.options.sync_interval = interval;
        self
    }

    /// Whether short commits that wait for no sync are stored into a mapping of the log's file where the
    /// system allows that, which spares them a system call each (default: yes). They are stored only where
    /// memory is locked, so that no page is ever read for it; where the process may lock none
    /// (`RLIMIT_MEMLOCK`), they are written.
    ///
    /// One danger is left: if somebody else makes a file of the log shorter while the database is open, or
    /// its file system is shut down since its device is gone, the system ends the process with a signal
    /// (`SIGBUS`) at the next short commit. Without the mapping that is an error like any other.
    pub fn mapped_log(mut self, yes: bool) -> Self {
        self.options.mapped_log = yes;
        self
    }

    /// Called while the log is replayed, some times a second if that takes long, and once at its end if there
    /// was anything to replay; from one of the threads that do it, so opening waits for it. If it panics it
    /// is not called any more, and opening goes on.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, MemoryStorage};
    /// let db = ColumnFamilyDatabase::builder()
    ///     .on_recovery_progress(|progress| {
    ///         println!("{} of {} bytes after {:?}", progress.bytes, progress.bytes_in_all, progress.elapsed);
    ///     })
    ///     .storage(MemoryStorage::new())
    ///     .open("in memory")?;
    /// # db.close() }
    /// ```
    pub fn on_recovery_progress(
        mut self,
        callback: impl Fn(RecoveryProgress) + Send + Sync + 'static,
    ) -> Self {
        self.options.progress = Some(ProgressCallback(Arc::new(callback)));
        self
    }

    /// Whether to open a database whose log is damaged (default: no). The log is replayed as far as it is
    /// whole, which is from the last checkpoint on; what comes after the damage is lost, and
    /// [`RecoveryReport::lost`](crate::RecoveryReport::lost) says what that is. Nothing is removed for good:
    /// the log from the damaged segment on is copied into a directory beside it first, for which there has to
    /// be room.
    ///
    /// What is in the trees stays, so of a commit to several families that was lost a part may be there, and
    /// families differ in how new they are. Without damage the setting changes nothing.
    pub fn skip_damaged_log(mut self, yes: bool) -> Self {
        self.options.skips_damaged_log = yes;
        self
    }

    /// Whether to open a database for writing though what its catalog says of a column family can be read in
    /// neither copy (default: no, it fails with an error that names the family, [`Io`](crate::ErrorKind::Io)
    /// if the disk did not give what it holds, otherwise [`Corruption`](crate::ErrorKind::Corruption)). All
    /// other families are there, with all that was committed to them.
    ///
    /// This gives the family up for good: the next checkpoint writes down that it is lost, and its commits
    /// leave the log. So what may pass, such as a disk that fails to read, is better waited for, and the
    /// directory copied first. The family is listed, cannot be used, and can be dropped; later openings need
    /// no permission for it.
    ///
    /// With [`read_only`](Self::read_only), which changes nothing, all others can be read without it. Where
    /// no family is lost the setting changes nothing.
    pub fn give_up_lost_families(mut self, yes: bool) -> Self {
        self.options.gives_up_lost_families = yes;
        self
    }

    /// Where the database lives instead of the file system, for example
    /// [`MemoryStorage`](crate::MemoryStorage). The path given to `open` then serves in messages only.
    pub fn storage(mut self, backend: impl StorageBackend) -> Self {
        self.options.backend = Some(Arc::new(backend));
        self
    }
}
