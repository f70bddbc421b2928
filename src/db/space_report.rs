//! Where the bytes of a database's files are, and who keeps those that nobody needs any more.

use std::time::Duration;

use crate::codec::ids::FamilyId;
use crate::column_family::view::FamilyView;
use crate::db::database::ColumnFamilyDatabase;
use crate::db::shared::Shared;
use crate::error::Result;
use crate::sync::atomic::Ordering;

/// Leaves of each tree that are looked at for its fill.
const LOOKS: u64 = 8;

/// Where the bytes of a database's files are.
///
/// The data file is the sum of its parts:
///
/// ```text
/// data_file_bytes = total_bytes of all families + superblock_bytes + catalog_bytes
///                 + waiting_bytes + free_bytes + other_bytes
/// log_bytes       = log_live_bytes + log_spare_bytes + log_held_bytes + log_kept_bytes
/// ```
///
/// The parts are looked at one after the other: what goes from one to another meanwhile may be counted in
/// neither, and is in `other_bytes` then, or in both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpaceReport {
    /// The column families, by name.
    pub families: Vec<FamilySpace>,
    /// Bytes of the data file.
    pub data_file_bytes: u64,
    /// Of these, what stands before all pages.
    pub superblock_bytes: u64,
    /// The list of families and of their pages, its copies, and room for the next one.
    pub catalog_bytes: u64,
    /// Given back by families, and free after the next checkpoint.
    pub waiting_bytes: u64,
    /// Free for any family.
    pub free_bytes: u64,
    /// Of the free bytes, those that the file system has back: the file has holes there.
    pub hole_bytes: u64,
    /// Of the free bytes, those that are kept for a [full
    /// disk](crate::DatabaseBuilder::disk_reserve_bytes), at most.
    pub reserve_bytes: u64,
    /// What dropped families take until their last reader is gone, and what the database keeps of prepared
    /// transactions.
    pub other_bytes: u64,
    /// Bytes of log files.
    pub log_bytes: u64,
    /// Of these, records that recovery would read, and what waits to be let go of by a checkpoint.
    pub log_live_bytes: u64,
    /// Files that hold nothing that recovery would read: kept for reuse, made ahead of need, or removed.
    pub log_spare_bytes: u64,
    /// Files that stay for [copies](ColumnFamilyDatabase::checkpoint_to) that are being made, and for nobody
    /// else.
    pub log_held_bytes: u64,
    /// What of segments in use holds no record yet, and files that are kept for a full disk.
    pub log_kept_bytes: u64,
    /// Versions of families' trees that only readers hold.
    pub old_trees_held: u64,
    /// How long ago the oldest of these was replaced, which is what the reader who holds it has been in the
    /// way for: a snapshot, an iterator, a cursor, a transaction.
    pub oldest_reader: Option<Duration>,
    /// Copies of the database that are being made: they hold versions of trees as readers do, and log.
    pub copies_under_way: u64,
    /// Open transactions. What they read they keep as snapshots do.
    pub transactions_open: u64,
    /// Transactions that are prepared and not decided.
    pub transactions_prepared: u64,
}

/// Where the bytes of one column family are.
///
/// ```text
/// total_bytes = live_bytes + pinned_bytes + superseded_bytes + changing_bytes + free_bytes
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FamilySpace {
    /// The family's name.
    pub name: String,
    /// Its number.
    pub id: FamilyId,
    /// Bytes of its segments of the data file.
    pub total_bytes: u64,
    /// Pages that its present tree and deltas reach, large values included.
    pub live_bytes: u64,
    /// Of the live bytes, about how many are those of deltas, which wait to be drained into the tree.
    pub delta_bytes: u64,
    /// Of the live bytes, about how many hold nothing, since entries do not fill their pages: as some leaves
    /// do that were looked at. `None` if one of these cannot be read.
    pub unfilled_bytes: Option<u64>,
    /// Pages that nobody but readers needs.
    pub pinned_bytes: u64,
    /// Pages that nothing but the last checkpoint reaches: free once the next one is durable.
    pub superseded_bytes: u64,
    /// Pages of merges and compactions under way.
    pub changing_bytes: u64,
    /// Free for this family, and for others once they are given back.
    pub free_bytes: u64,
    /// Bytes of memory in memtables. Until they are merged the log holds as much, about.
    pub memtable_bytes: u64,
    /// How long ago the oldest version of its trees that a reader holds was replaced.
    pub oldest_reader: Option<Duration>,
}

impl ColumnFamilyDatabase {
    /// Where the bytes of the database's files are, and who keeps those that nobody needs any more.
    ///
    /// Costs a look at every family, and at some leaves of each tree and delta, which may have to be read;
    /// waits for a checkpoint under way.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("in memory")?;
    /// let planets = db.create_column_family("planets", FamilyOptions::default())?;
    /// planets.put("mars", [4; 10_000])?;
    /// db.flush()?;
    /// let report = db.space_report()?;
    /// assert!(report.families[0].live_bytes > 10_000);
    /// assert!(report.families[0].total_bytes < report.data_file_bytes);
    /// # db.close() }
    /// ```
    pub fn space_report(&self) -> Result<SpaceReport> {
        self.shared().pipeline.open()?;
        self.shared().space_report()
    }
}

impl Shared {
    fn space_report(&self) -> Result<SpaceReport> {
        let page_size = self.data.page_size() as u64;
        let view = self.pipeline.views.load_full();
        let kept = self.pipeline.remembered.kept();
        let mut report = SpaceReport {
            superblock_bytes: self.data.offset(0),
            copies_under_way: self.checkpoints.copies.load(Ordering::Relaxed),
            transactions_open: kept.open,
            transactions_prepared: self.pipeline.prepared.len() as u64,
            ..SpaceReport::default()
        };
        for family in view.families() {
            let (held, space) = space_of(family, page_size);
            report.old_trees_held += held;
            report.oldest_reader = report.oldest_reader.max(space.oldest_reader);
            if !family.family.is_internal() {
                report.families.push(space);
            }
        }
        report.families.sort_by(|a, b| a.name.cmp(&b.name));
        report.catalog_bytes = self.checkpoint.lock().catalog.pages() * page_size;
        let file = self.data.space().parts();
        report.data_file_bytes = self.data.offset(file.pages);
        report.waiting_bytes = file.waiting * page_size;
        report.free_bytes = file.free * page_size;
        report.hole_bytes = file.holes * page_size;
        report.reserve_bytes = file.kept.min(file.free) * page_size;
        let known = report.families.iter().map(|family| family.total_bytes).sum::<u64>()
            + report.superblock_bytes
            + report.catalog_bytes
            + report.waiting_bytes
            + report.free_bytes;
        report.other_bytes = report.data_file_bytes.saturating_sub(known);
        if let Some(log) = &self.pipeline.log {
            let stats = log.stats();
            report.log_bytes = stats.bytes_on_disk;
            report.log_live_bytes = stats.bytes_live;
            report.log_spare_bytes = stats.bytes_spare;
            report.log_held_bytes = stats.bytes_held;
            let known = stats.bytes_live + stats.bytes_spare + stats.bytes_held;
            report.log_kept_bytes = stats.bytes_on_disk.saturating_sub(known);
        }
        Ok(report)
    }
}

/// Versions of the family's trees that only readers hold, and where its bytes are.
fn space_of(view: &FamilyView, page_size: u64) -> (u64, FamilySpace) {
    let (family, store) = (&view.family, view.family.store());
    let (held, kept, oldest_reader) = {
        let mut trees = family.trees.lock();
        trees.release(store);
        (trees.held() as u64, trees.kept_pages(), trees.oldest_held())
    };
    let space = store.space();
    let old = space.pages_in_use.saturating_sub(space.pages_reachable);
    let pinned = kept.min(old);
    // About, and nothing of what cannot be read.
    let in_deltas = view
        .tree
        .deltas
        .iter()
        .map(|delta| delta.tree.estimate(store, &[], None, true).map_or(0.0, |estimate| estimate.pages));
    let delta_pages = (in_deltas.sum::<f64>().round() as u64).min(space.pages_reachable);
    let live_bytes = space.pages_reachable * page_size;
    let fill = view.tree.tree.fill(store, LOOKS).ok();
    let space = FamilySpace {
        name: family.name().to_string(),
        id: family.id(),
        total_bytes: space.pages_total * page_size,
        live_bytes,
        delta_bytes: delta_pages * page_size,
        unfilled_bytes: fill.map(|fill| (live_bytes as f64 * (1.0 - fill.unwrap_or(1.0))).round() as u64),
        pinned_bytes: pinned * page_size,
        superseded_bytes: space.pages_superseded * page_size,
        changing_bytes: (old - pinned) * page_size,
        free_bytes: (space.pages_total - space.pages_in_use).saturating_sub(space.pages_superseded)
            * page_size,
        memtable_bytes: view.memtables().map(|table| table.bytes() as u64).sum(),
        oldest_reader,
    };
    (held, space)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use crate::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};

    #[test]
    fn pages_that_only_the_last_checkpoint_reaches_are_told() {
        let builder = ColumnFamilyDatabase::builder().automatic_maintenance(false).merge_cost(u32::MAX);
        let db = builder.storage(MemoryStorage::new()).open("memory").unwrap();
        let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
        let superseded = || {
            // Other tests' readers put off what was let go of.
            crate::sync::epoch::drain();
            let report = db.space_report().unwrap();
            let [family] = &report.families[..] else { panic!("{report:?}") };
            let parts = family.live_bytes + family.pinned_bytes + family.superseded_bytes;
            assert_eq!(parts + family.changing_bytes + family.free_bytes, family.total_bytes, "{family:?}");
            family.superseded_bytes
        };
        for round in 0..2u8 {
            for n in 0..2000u32 {
                family.put(n.to_be_bytes(), [round; 500]).unwrap();
            }
            db.shared().drain(family.family()).unwrap();
            if round == 0 {
                db.checkpoint().unwrap();
                assert_eq!(superseded(), 0);
            }
        }
        let bytes = superseded();
        assert!(bytes > 2000 * 500, "{bytes} bytes of the last checkpoint alone");
        db.checkpoint().unwrap();
        assert_eq!(superseded(), 0);
    }
}
