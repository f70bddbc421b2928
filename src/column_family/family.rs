//! What one column family is made of.

use crate::codec::expiry::Now;
use crate::codec::ids::{FamilyId, SequenceNumber};
use crate::column_family::damage::Damage;
use crate::column_family::held::Held;
use crate::column_family::options::{FamilyOptions, Lifetime};
use crate::column_family::order::FamilyOrder;
use crate::column_family::stall::Stall;
use crate::column_family::touched::{Mark, Touched};
use crate::column_family::trees::{TreeVersion, Trees};
use crate::error::{Error, ErrorKind, Result};
use crate::key_order::KeyOrder;
use crate::memtable::MemtableWriter;
use crate::operator::filter::{GivenFilter, NamedFilter};
use crate::operator::named::NamedOperator;
use crate::segment::{PartitionedStorageBackend, Segment};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};
use std::sync::OnceLock;

/// Name of the family that holds what transactions have prepared. No family of a user has it.
pub(crate) const PREPARED_FAMILY: &str = "";

/// The part of a family that the holder of its write lock owns.
pub(crate) struct WriteSide {
    pub(crate) writer: MemtableWriter,
}

/// Where the next step of draining begins.
#[derive(Default)]
pub(crate) struct DrainPosition(pub(super) Vec<u8>);

/// One column family. Locks are taken in the order `write`, `compaction`, `merging`, `trees`, then the cell
/// of views.
pub(crate) struct Family {
    id: FamilyId,
    slot: usize,
    name: Mutex<Arc<str>>,
    options: Mutex<FamilyOptions>,
    /// How long entries live, as a number: for who writes and reads without the options' lock.
    lifetime: AtomicU64,
    /// The merge operator, once the program gave it.
    operator: OnceLock<NamedOperator>,
    /// The filter that the program gave last.
    filter: Mutex<Option<NamedFilter>>,
    /// The order of its keys, if it is not that of their bytes.
    order: Option<FamilyOrder>,
    store: Arc<PartitionedStorageBackend>,
    /// The write lock: held while a commit's entries go into the active memtable.
    pub(crate) write: Mutex<WriteSide>,
    /// Held by the one merge or compaction that may run at a time.
    pub(crate) merging: Mutex<DrainPosition>,
    /// Held while pages are moved, or the tree is written anew in steps.
    pub(super) compaction: Mutex<()>,
    pub(crate) trees: Mutex<Trees>,
    /// Where writers wait for memtables to be merged.
    pub(crate) stall: Stall,
    pub(crate) damage: Damage,
    /// What prepared transactions hold.
    pub(crate) held: Held,
    /// Whether it is one of the database's own.
    is_internal: bool,
    dropped: AtomicBool,
    /// Whether the clock looks after it, see `Work::touch`.
    pub(super) watched: AtomicBool,
    /// Nothing was written lately: what deltas hold may go into the tree.
    resting: AtomicBool,
    /// Somebody waits for what is frozen to be merged.
    hurried: AtomicBool,
    /// What is free is scattered, and a background thread is to move pages.
    scattered: AtomicBool,
    /// Generation of the tree of which pages were moved last, with little effect.
    pub(super) moved: AtomicU64,
    /// How often families had got new trees when this one last tried to drain out of what is kept for a full
    /// disk.
    pub(crate) tried_to_drain: AtomicU64,
    /// Log segment of the oldest record in the active memtable; `u64::MAX` if there is none.
    active_segment: AtomicU64,
    memtable_bytes: AtomicUsize,
    touched: Arc<Touched>,
    mark: Mark,
    pub(crate) counters: Counters,
}

/// What a family counts of its own work.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) bytes_inserted: AtomicU64,
    pub(crate) freezes: AtomicU64,
    pub(crate) merges: AtomicU64,
    pub(crate) joins: AtomicU64,
    pub(crate) drains: AtomicU64,
    /// Compactions, and moves of pages.
    pub(crate) rewrites: AtomicU64,
    pub(crate) entries_merged: AtomicU64,
    /// Entries that cursors stepped over.
    pub(crate) entries_passed: AtomicU64,
    pub(crate) entries_rewritten: AtomicU64,
    pub(crate) pages_written: AtomicU64,
    pub(crate) merge_nanoseconds: AtomicU64,
    pub(crate) filter_dropped: AtomicU64,
    pub(crate) filter_changed: AtomicU64,
    pub(crate) filter_failures: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}

/// What a family is made from: new, or as the catalog recorded it.
pub(crate) struct Origin {
    pub(crate) id: FamilyId,
    pub(crate) slot: usize,
    pub(crate) name: Arc<str>,
    pub(crate) options: FamilyOptions,
    pub(crate) trees: TreeVersion,
    pub(crate) merged_through: SequenceNumber,
    pub(crate) touched: Arc<Touched>,
}

impl Family {
    /// The family, with an empty memtable and without a view.
    pub(super) fn new(
        mut origin: Origin,
        store: Arc<PartitionedStorageBackend>,
        writer: MemtableWriter,
        memtable_bytes: usize,
    ) -> Arc<Self> {
        let trees = Trees::new(origin.trees, origin.merged_through);
        let is_internal = *origin.name == *PREPARED_FAMILY;
        let operator = origin.options.merge_operator.clone().filter(NamedOperator::is_present);
        let filter = match std::mem::take(&mut origin.options.filter) {
            GivenFilter::Some(filter) => Some(filter),
            GivenFilter::Unsaid | GivenFilter::None => None,
        };
        let order = origin.options.key_order.clone().map(FamilyOrder::new);
        Arc::new(Self {
            id: origin.id,
            slot: origin.slot,
            name: Mutex::new(origin.name),
            lifetime: AtomicU64::new(origin.options.lifetime.to_number()),
            options: Mutex::new(origin.options),
            operator: operator.map_or_else(OnceLock::new, OnceLock::from),
            filter: Mutex::new(filter),
            order,
            store,
            write: Mutex::new(WriteSide { writer }),
            merging: Mutex::default(),
            compaction: Mutex::new(()),
            trees: Mutex::new(trees),
            stall: Stall::of(origin.id),
            damage: Damage::default(),
            held: Held::default(),
            is_internal,
            dropped: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            hurried: AtomicBool::new(false),
            scattered: AtomicBool::new(false),
            moved: AtomicU64::new(u64::MAX),
            tried_to_drain: AtomicU64::new(u64::MAX),
            active_segment: AtomicU64::new(u64::MAX),
            memtable_bytes: AtomicUsize::new(memtable_bytes),
            touched: origin.touched,
            mark: Mark::default(),
            counters: Counters::default(),
        })
    }

    #[inline]
    pub(crate) fn id(&self) -> FamilyId {
        self.id
    }

    #[inline]
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// Whether it is one of the database's own, which users neither see nor name.
    pub(crate) fn is_internal(&self) -> bool {
        self.is_internal
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name.lock())
    }

    pub(crate) fn set_name(&self, name: &str) {
        *self.name.lock() = name.into();
    }

    pub(crate) fn options(&self) -> FamilyOptions {
        self.options.lock().clone()
    }

    /// The merge operator, if the program gave it.
    #[inline]
    pub(crate) fn operator(&self) -> Option<&NamedOperator> {
        self.operator.get()
    }

    /// The order of its keys, if it is not that of their bytes.
    #[inline]
    pub(crate) fn own_order(&self) -> Option<&FamilyOrder> {
        self.order.as_ref()
    }

    /// Takes the family's order of keys, if the program gave it.
    pub(crate) fn take_order(&self, given: &KeyOrder) {
        if let Some(order) = &self.order {
            order.take(given);
        }
    }

    /// Takes the family's merge operator, if the program gave it.
    pub(crate) fn take_operator(&self, operator: &NamedOperator) {
        // Of two that have one name the first counts.
        if operator.is_present() && self.operator.set(operator.clone()).is_ok() {
            self.options.lock().merge_operator = Some(operator.clone());
        }
    }

    /// The filter, if the program gave one.
    pub(crate) fn filter(&self) -> Option<NamedFilter> {
        self.filter.lock().clone()
    }

    /// Takes the filter, or takes it away, if `options` say so. Call without locks: what a filter does that
    /// goes is its own.
    pub(crate) fn take_filter(&self, options: &FamilyOptions) {
        let given = match &options.filter {
            GivenFilter::Unsaid => return,
            GivenFilter::None => None,
            GivenFilter::Some(filter) => Some(filter.clone()),
        };
        let before = std::mem::replace(&mut *self.filter.lock(), given);
        drop(before);
    }

    /// Takes the merge operator and the order of keys, if the program gives them in `options`.
    pub(crate) fn take_given(&self, options: &FamilyOptions) {
        if let Some(operator) = &options.merge_operator {
            self.take_operator(operator);
        }
        if let Some(order) = &options.key_order {
            self.take_order(order);
        }
    }

    pub(crate) fn set_options(&self, mut options: FamilyOptions) {
        self.take_given(&options);
        options.filter = GivenFilter::Unsaid;
        let mut own = self.options.lock();
        self.lifetime.store(options.lifetime.to_number(), Ordering::Release);
        *own = options;
    }

    /// How long entries live.
    #[inline]
    pub(crate) fn lifetime(&self) -> Lifetime {
        Lifetime::from_number(self.lifetime.load(Ordering::Acquire))
    }

    /// When entries of this family are judged by who judges at `now`: never, where none expires.
    pub(crate) fn judged(&self, now: Now) -> Now {
        if self.lifetime() == Lifetime::Endless { Now::UNASKED } else { now }
    }

    /// What is told of `error`, which who rewrites pages of this family met. If it says that pages cannot be
    /// read, the family is damaged from now on, unless the log can rebuild them: then it is for the caller to
    /// end all writing, as with any other failure.
    pub(crate) fn judge(&self, error: Error) -> Error {
        self.damage.judge(self.screen(error))
    }

    /// `error`, which is no damage if the log can rebuild the page.
    pub(super) fn screen(&self, error: Error) -> Error {
        if error.is_damage() && !self.store().is_in_checkpoint(error.location().page) {
            return error.beyond_damage();
        }
        error
    }

    #[inline]
    pub(crate) fn store(&self) -> &Arc<PartitionedStorageBackend> {
        &self.store
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    pub(crate) fn check_not_dropped(&self) -> Result<()> {
        if self.is_dropped() { Err(dropped(self.id)) } else { Ok(()) }
    }

    /// Fails if no write is taken: the family was dropped, or is damaged. Call under the write lock.
    #[inline]
    pub(crate) fn check_takes_writes(&self) -> Result<()> {
        self.check_not_dropped()?;
        self.damage.check()
    }

    /// Ends writing and merging; what readers hold stays.
    pub(crate) fn set_dropped(&self) {
        self.dropped.store(true, Ordering::Release);
        self.stall.wake();
    }

    /// Whether nothing was written lately.
    pub(crate) fn is_resting(&self) -> bool {
        self.resting.load(Ordering::Relaxed)
    }

    pub(crate) fn set_resting(&self, resting: bool) {
        self.resting.store(resting, Ordering::Relaxed);
    }

    /// Asks for what is frozen to be merged when the family's next job runs, however little it is; if that
    /// job fails, not by the one after it.
    pub(crate) fn set_hurried(&self) {
        self.hurried.store(true, Ordering::Relaxed);
    }

    /// Whether that was asked for, once.
    pub(crate) fn take_hurried(&self) -> bool {
        self.hurried.load(Ordering::Relaxed) && self.hurried.swap(false, Ordering::Relaxed)
    }

    /// Asks for pages to be moved to the front when the family's next job runs.
    pub(crate) fn set_scattered(&self) {
        self.scattered.store(true, Ordering::Relaxed);
    }

    /// Whether that was asked for, once.
    pub(crate) fn take_scattered(&self) -> bool {
        self.scattered.load(Ordering::Relaxed) && self.scattered.swap(false, Ordering::Relaxed)
    }

    /// Bytes at which the active memtable is frozen.
    #[inline]
    pub(crate) fn memtable_bytes(&self) -> usize {
        self.memtable_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn set_memtable_bytes(&self, bytes: usize) {
        self.memtable_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Log segment of the oldest record that is only in the active memtable; `u64::MAX` if there is none.
    pub(crate) fn active_segment(&self) -> u64 {
        self.active_segment.load(Ordering::SeqCst)
    }

    /// A record that goes into the active memtable is about to be appended at or after `segment`. Call under
    /// the write lock.
    #[inline]
    pub(crate) fn note_segment(&self, segment: u64) {
        if self.active_segment.load(Ordering::Relaxed) == u64::MAX {
            self.active_segment.store(segment, Ordering::SeqCst);
            self.touch();
        }
    }

    /// Has the next checkpoint look at the family.
    pub(crate) fn touch(&self) {
        self.touched.touch(self.id, &self.mark);
    }

    /// The family got new trees, of which the next checkpoint has to know. Call under the lock of the trees.
    pub(super) fn count_installed(&self) {
        // In this order: a checkpoint that counts it has the family in its list.
        self.touch();
        self.touched.count_installed();
    }

    /// A checkpoint is about to look at the family.
    pub(crate) fn untouch(&self) {
        self.mark.clear();
    }

    /// Gives free segments and long runs of free pages back to the data file, if they have `least` pages
    /// together. Returns whether it did.
    pub(crate) fn give_back(&self, least: u64) -> bool {
        self.give_back_runs(|| self.store.cut_free(least))
    }

    /// Gives all free pages back to the data file, be they few in a row: on a full disk another family may
    /// need them. That makes up to `more` segments of those there are. Returns whether there were any.
    pub(crate) fn give_back_every_page(&self, more: usize) -> bool {
        self.give_back_runs(|| self.store.cut_every_free_page(more))
    }

    fn give_back_runs(&self, cut: impl FnOnce() -> Vec<Segment>) -> bool {
        let mut trees = self.trees.lock();
        let cut = cut();
        if cut.is_empty() {
            return false;
        }
        // Before they are free: the checkpoint that lets others have them must not name them.
        trees.set_recorded(false);
        self.touch();
        self.store.free_cut(cut);
        true
    }

    /// All records of the active memtable, if it holds anything, are in `segment` or later. Call with the
    /// write lock's content.
    pub(super) fn set_active_segment(&self, side: &WriteSide, segment: u64) {
        if !side.writer.table().is_empty() {
            self.active_segment.store(segment, Ordering::SeqCst);
        }
    }

    /// No record stands in the active memtable after all. Call under the write lock.
    pub(crate) fn forget_segment(&self) {
        self.active_segment.store(u64::MAX, Ordering::SeqCst);
    }
}

/// A family that is not there any more.
pub(crate) fn dropped(id: FamilyId) -> Error {
    Error::new(ErrorKind::FamilyDropped, "the column family was dropped").of_family(id.0)
}

/// Refuses names that are no family names.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > 255 {
        return Err(Error::new(
            ErrorKind::InvalidFamilyName,
            format!("a column family's name has 1 to 255 bytes, not {}", name.len()),
        ));
    }
    Ok(())
}
