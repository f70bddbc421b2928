//! What a database keeps in memory, by kind.

use crate::column_family::delta::Delta;
use crate::column_family::family::Family;
use crate::column_family::view::FamilyView;
use crate::db::database::ColumnFamilyDatabase;
use crate::db::shared::Shared;
use crate::memtable::Memtable;
use crate::segment::PartitionedStorageBackend;
use crate::sync::Arc;
use crate::txn::transactions::transaction::Transaction;

/// Bytes of memory that a database keeps, by kind. Every number is counted where the memory is taken.
///
/// Not in it are what callers hold themselves (values, keys, batches that are not written yet), pages that a
/// reader just reads past a full cache (one for each thread), and what the process takes beside the database:
/// its program, the stacks of its threads, and what its allocator keeps after use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryReport {
    /// Bytes that all of this may come to: see [`memory_bytes`](crate::DatabaseBuilder::memory_bytes).
    /// Together with what other databases keep, if it is [shared](crate::SharedResources) with them.
    pub budget_bytes: u64,
    /// Pages and runs of the read caches, and free frames that are kept for the next ones.
    pub read_cache: u64,
    /// Pages that merges made and that are not written yet.
    pub write_buffers: u64,
    /// Memtables, active and frozen, with their filters.
    pub memtables: u64,
    /// Memtables of large batches that are on their way and that no reader sees yet.
    pub large_batches: u64,
    /// Mappings of memtables that are gone, kept for the next ones.
    pub memtable_spares: u64,
    /// Memtables that are merged, or of dropped families, and that readers or open transactions still hold.
    pub pinned_by_readers: u64,
    /// What is known of pages that readers keep: when they were written, and until when the present had them.
    pub page_ages: u64,
    /// Open transactions: what they wrote, indexes over it, and what they noted as read. Each in steps of
    /// 1 KiB.
    pub transactions: u64,
    /// Locks, who waits for them, and keys that prepared transactions hold.
    pub locks: u64,
    /// What of the log's mapping was made ready or is not let go yet.
    pub log: u64,
    /// Filters of deltas.
    pub filters: u64,
    /// Tables that say where pages stand in memory, which were missed lately, and which are in use.
    pub tables: u64,
    /// What each family takes whatever it holds, also one that was dropped while somebody reads it. Its
    /// caches, tables and memtables stand with those of the others.
    pub families: u64,
}

impl MemoryReport {
    /// All of it.
    pub fn total_bytes(&self) -> u64 {
        self.read_cache
            + self.write_buffers
            + self.memtables
            + self.large_batches
            + self.memtable_spares
            + self.pinned_by_readers
            + self.page_ages
            + self.transactions
            + self.locks
            + self.log
            + self.filters
            + self.tables
            + self.families
    }

    fn add(&mut self, view: &FamilyView) {
        self.add_family(&view.family, &view.active, &view.tree.deltas);
        self.memtables += view.memtables().map(|table| table.bytes() as u64).sum::<u64>();
    }

    /// A family that was dropped, and that somebody still reads.
    fn add_dying(&mut self, family: &Family) {
        // Who holds this lock waits for nobody but the log.
        let active = Arc::clone(family.write.lock().writer.table());
        let version = Arc::clone(family.trees.lock().current());
        self.add_family(family, &active, &version.deltas);
    }

    /// All but the memtables of the present; `active` is the last one.
    fn add_family(&mut self, family: &Family, active: &Memtable, deltas: &[Delta]) {
        let store = family.store();
        let pages = store.cache().memory();
        self.read_cache += pages.cached;
        self.write_buffers += pages.dirty;
        self.tables += pages.tables + store.map_bytes();
        self.memtable_spares += active.spare_bytes() as u64;
        self.pinned_by_readers += active.merged_and_held() as u64;
        self.page_ages += family.trees.lock().bytes() as u64;
        self.locks += family.held.bytes() as u64;
        self.filters += deltas.iter().map(Delta::filter_bytes).sum::<u64>();
        let fixed = size_of::<Family>() + size_of::<PartitionedStorageBackend>() + size_of::<FamilyView>();
        self.families += fixed as u64 + family.name().len() as u64;
    }
}

impl ColumnFamilyDatabase {
    /// What the database keeps in memory, by kind. Costs a look at every family.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("in memory")?;
    /// let planets = db.create_column_family("planets", FamilyOptions::default())?;
    /// planets.put("mars", "red")?;
    /// assert!(db.memory_report().memtables > 0);
    /// # db.close() }
    /// ```
    pub fn memory_report(&self) -> MemoryReport {
        if !self.is_ours() {
            return MemoryReport::default();
        }
        self.shared().memory_report()
    }
}

impl Shared {
    fn memory_report(&self) -> MemoryReport {
        let mut report = MemoryReport { budget_bytes: self.options.budgets.total, ..MemoryReport::default() };
        self.add_memory(&mut report);
        report
    }

    /// Adds to `report` what this database keeps.
    pub(super) fn add_memory(&self, report: &mut MemoryReport) {
        let open = self.pipeline.remembered.kept().open;
        report.transactions += self.pipeline.transactions.bytes() + open * size_of::<Transaction>() as u64;
        report.locks += self.pipeline.locks.counts().bytes;
        let dying = self.registry.lock().dying.clone();
        dying.iter().for_each(|family| report.add_dying(family));
        report.large_batches += self.pipeline.apart.bytes();
        report.log += self.pipeline.log.as_ref().map_or(0, |log| log.mapped_bytes());
        self.pipeline.views.load_full().families().for_each(|view| report.add(view));
    }
}
