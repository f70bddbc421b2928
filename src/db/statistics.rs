//! What a database tells of itself.

use std::time::Duration;

use crate::column_family::delta::Delta;
use crate::column_family::family::Family;
use crate::column_family::view::FamilyView;
use crate::db::database::ColumnFamilyDatabase;
use crate::db::shared::Shared;
use crate::error::Result;
use crate::page::CacheStats;
use crate::storage::FileHandlePoolStats;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::txn::handle::ColumnFamily;

/// What the log has done since the database was opened, and what it takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStatistics {
    /// Records appended, each a commit.
    pub records: u64,
    /// Bytes appended, headers included.
    pub bytes_appended: u64,
    /// Syncs made; one may serve many commits.
    pub syncs: u64,
    /// Bytes of records that recovery would read, headers and what waits to be let go of included.
    pub bytes_live: u64,
    /// What recovery would replay, as [`log_limit_bytes`](crate::DatabaseBuilder::log_limit_bytes) counts it:
    /// bytes, and more for each operation.
    pub replay_weight: u64,
    /// Bytes of log files on disk, spare ones included, and removed ones whose room the disk does not have
    /// back yet.
    pub bytes_on_disk: u64,
    /// Bytes of log files that hold nothing that recovery would read: kept for reuse, made ahead of need, or
    /// removed.
    pub bytes_spare: u64,
    /// Times that a writer was slowed because the log came near its limit. Each is some milliseconds.
    pub write_pauses: u64,
    /// Time for which writers were slowed because the log came near its limit.
    pub write_delay: Duration,
    /// Times that a writer was stopped because the log was at its limit.
    pub write_stops: u64,
    /// Time for which writers were stopped because the log was at its limit.
    pub write_stop_time: Duration,
    /// Segments that were used anew instead of being made.
    pub segments_recycled: u64,
    /// Commits that are assigned a number but not durable yet.
    pub commits_not_durable: u64,
}

/// What transactions hold of locks, and how others waited for them since the database was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockStatistics {
    /// Locks of keys and ranges that are held.
    pub held: u64,
    /// Transactions and writes that wait for one.
    pub waiting: u64,
    /// Times that somebody began to wait.
    pub waits: u64,
    /// Time for which those waited who do not any more.
    pub wait_time: Duration,
    /// [Deadlocks](crate::ErrorKind::Deadlock).
    pub deadlocks: u64,
    /// Locks that were [not free in time](crate::ErrorKind::LockTimeout).
    pub timeouts: u64,
}

/// How often writers waited for one thing since the database was opened, and for how long in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waits {
    /// Times that one waited, whatever came of it.
    pub count: u64,
    /// Time for which they waited.
    pub time: Duration,
}

impl From<(u64, Duration)> for Waits {
    fn from((count, time): (u64, Duration)) -> Self {
        Self { count, time }
    }
}

/// What writers waited for besides what slows or stops them for merges, for the log's length and for locks,
/// which [`Statistics`] counts apart. Each wait is told through `tracing` as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitStatistics {
    /// For joining and draining, which were behind: a part of [`write_pauses`](Statistics::write_pauses) and
    /// [`write_delay`](Statistics::write_delay).
    pub draining: Waits,
    /// For the next segment of the log to be made, by the writer himself or by a thread that was at it.
    pub log_segments: Waits,
    /// For commits with lower numbers to become visible. Waits of less than a millisecond do not count.
    pub earlier_commits: Waits,
    /// For log to be let go of on a full disk.
    pub full_disk: Waits,
    /// For prepared transactions to be decided.
    pub decisions: Waits,
    /// For other large batches on their way: together they may take an eighth of what is for writing.
    pub large_batches: Waits,
}

/// What a database has done since it was opened, and what it holds, over all families.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Column families.
    pub families: u64,
    /// Of these, families that are [damaged](crate::ErrorKind::FamilyDamaged), and take no writes.
    pub families_damaged: u64,
    /// Position of the last visible commit.
    pub last_sequence: u64,
    /// Bytes of memory in memtables, filters included.
    pub memtable_bytes: u64,
    /// Bytes of memtables that are in their trees and stay in memory for cursors, iterators and snapshots.
    /// They are no part of the budget for writing.
    pub memtable_bytes_pinned: u64,
    /// Open transactions.
    pub transactions_open: u64,
    /// Bytes of memtables that are in their trees and stay in memory so that open transactions can look for
    /// changes in them; a part of [`memtable_bytes_pinned`](Self::memtable_bytes_pinned).
    pub transaction_bytes_kept: u64,
    /// Transactions that had to end because open ones may keep no more than that.
    pub transactions_put_out: u64,
    /// Transactions that are prepared and not decided.
    pub transactions_prepared: u64,
    /// Locks of transactions.
    pub locks: LockStatistics,
    /// Memtables that wait to be merged.
    pub memtables_frozen: u64,
    /// Memtables frozen so far.
    pub freezes: u64,
    /// Merges so far.
    pub merges: u64,
    /// Entries that merges took from memtables.
    pub entries_merged: u64,
    /// Entries that cursors passed on their way to others: deletions, what is deleted, and what was written
    /// later than the cursor's moment. Counted when a cursor or an iterator ends.
    pub entries_passed: u64,
    /// Entries that merges and compactions wrote into leaves, those taken over from old leaves included.
    pub entries_rewritten: u64,
    /// Pages that merges and compactions made.
    pub pages_written: u64,
    /// Time spent in merges, summed over threads.
    pub merge_time: Duration,
    /// Tree versions that only readers still hold.
    pub old_trees_held: u64,
    /// Bytes of pages that are kept for nobody but readers: snapshots, iterators, cursors, a verification or
    /// a checkpoint under way.
    pub pinned_bytes: u64,
    /// Age of the oldest reader that keeps what the present does without: how long ago what it reads was
    /// replaced. It may have begun earlier. `None` if all readers see the present trees.
    pub oldest_reader: Option<Duration>,
    /// Checkpoints so far.
    pub checkpoints: u64,
    /// Time spent in checkpoints.
    pub checkpoint_time: Duration,
    /// Times that a writer was slowed because merges, or joining and draining, fell behind. Each is some
    /// milliseconds.
    pub write_pauses: u64,
    /// Time for which writers were slowed because of that.
    pub write_delay: Duration,
    /// Times that a writer was stopped until a merge ended; one who waits longer than 20 ms counts again.
    pub write_stops: u64,
    /// Time for which writers were stopped until a merge ended.
    pub write_stop_time: Duration,
    /// What else writers waited for.
    pub waits: WaitStatistics,
    /// Bytes of the data file.
    pub data_file_bytes: u64,
    /// Bytes of the data file that no family and no catalog uses.
    pub data_free_bytes: u64,
    /// The log.
    pub log: LogStatistics,
    /// Descriptors onto the data file.
    pub descriptors: FileHandlePoolStats,
}

/// What one column family holds.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct FamilyProperties {
    /// Entries in the tree; those in deltas and memtables are not counted.
    pub entries_in_tree: u64,
    /// Small trees of recent entries in front of the tree, which are still to be drained into it.
    pub deltas: u64,
    /// Entries, deletions included, in deltas.
    pub entries_in_deltas: u64,
    /// Bytes of memory in filters of deltas, which keep look-ups of other keys away from them. Of deltas that
    /// were there when the database was opened they are built in the background.
    pub filter_bytes: u64,
    /// Entries, versions and deletions alike, in memtables.
    pub entries_in_memtables: u64,
    /// Bytes of memory in memtables.
    pub memtable_bytes: u64,
    /// Bytes of memtables that are in the tree and stay in memory for cursors, iterators and snapshots.
    pub memtable_bytes_pinned: u64,
    /// Memtables that wait to be merged.
    pub memtables_frozen: u64,
    /// Levels of the tree; 0 if it is empty.
    pub tree_height: u32,
    /// Pages that the tree reaches, those of large values included.
    pub pages: u64,
    /// Bytes of those pages.
    pub tree_bytes: u64,
    /// Segments of the data file.
    pub segments: u64,
    /// Bytes of the family's segments: what it takes on disk.
    pub bytes_on_disk: u64,
    /// Pages reached by the tree as a part of the pages in its segments, 0 to 1.
    pub fill: f64,
    /// Bytes of pages that are kept for nobody but readers; see [`Statistics::pinned_bytes`].
    pub pinned_bytes: u64,
    /// Age of the oldest reader that keeps what the present does without; see [`Statistics::oldest_reader`].
    pub oldest_reader: Option<Duration>,
    /// Entries that the family's [filter](crate::FamilyOptions::filter) dropped since the database was
    /// opened.
    pub filter_dropped: u64,
    /// Entries that its filter changed since then.
    pub filter_changed: u64,
    /// Merges and compactions since then in which its filter failed.
    pub filter_failures: u64,
    /// What is damaged of the family, and where, if a merge or a compaction met such; see
    /// [`ErrorKind::FamilyDamaged`](crate::ErrorKind::FamilyDamaged).
    pub damage: Option<String>,
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl ColumnFamilyDatabase {
    /// What the page caches of all families hold and have done, summed.
    pub fn aggregate_cache_stats(&self) -> CacheStats {
        let mut sum = CacheStats::default();
        if !self.is_ours() {
            return sum;
        }
        for family in self.shared().registry.lock().families() {
            sum += family.store().cache_stats();
        }
        sum
    }

    /// What the database has done since it was opened, and what it holds.
    pub fn statistics(&self) -> Statistics {
        if !self.is_ours() {
            return Statistics::default();
        }
        self.shared().statistics()
    }

    /// What one column family holds.
    ///
    /// # Errors
    ///
    /// [`FamilyDropped`](crate::ErrorKind::FamilyDropped), and
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a family of another database.
    pub fn family_properties(&self, family: &ColumnFamily) -> Result<FamilyProperties> {
        self.check_own(family)?;
        let view = Arc::clone(&family.snapshot()?.view);
        let (_, pinned_pages, oldest_reader) = readers(&view.family);
        let space = view.family.store().space();
        let tree = &view.tree.tree;
        let page_size = self.shared().data.page_size() as u64;
        Ok(FamilyProperties {
            entries_in_tree: tree.entries,
            deltas: view.tree.deltas.len() as u64,
            entries_in_deltas: view
                .tree
                .deltas
                .iter()
                .fold(0, |sum: u64, delta| sum.saturating_add(delta.tree.entries)),
            filter_bytes: view.tree.deltas.iter().map(Delta::filter_bytes).sum(),
            entries_in_memtables: view.memtables().map(|table| table.entries()).sum(),
            memtable_bytes: memtable_bytes(&view),
            memtable_bytes_pinned: view.active.merged_and_held() as u64,
            memtables_frozen: view.frozen.len() as u64,
            tree_height: u32::from(tree.height),
            pages: space.pages_reachable,
            tree_bytes: space.pages_reachable * page_size,
            segments: space.segments as u64,
            bytes_on_disk: space.bytes,
            fill: space.pages_reachable as f64 / (space.pages_total as f64).max(1.0),
            pinned_bytes: pinned_pages * page_size,
            oldest_reader,
            filter_dropped: load(&view.family.counters.filter_dropped),
            filter_changed: load(&view.family.counters.filter_changed),
            filter_failures: load(&view.family.counters.filter_failures),
            damage: view.family.damage.cause().map(ToString::to_string),
        })
    }
}

/// What readers of `family` hold: old versions, pages that are kept for them alone, and the age of the
/// oldest.
fn readers(family: &Family) -> (u64, u64, Option<Duration>) {
    let mut trees = family.trees.lock();
    trees.release(family.store());
    (trees.held() as u64, trees.kept_pages(), trees.oldest_held())
}

fn memtable_bytes(view: &FamilyView) -> u64 {
    view.memtables().map(|table| table.bytes() as u64).sum()
}

impl Shared {
    fn statistics(&self) -> Statistics {
        let view = self.pipeline.views.load_full();
        let page_size = self.data.page_size() as u64;
        let kept = self.pipeline.remembered.kept();
        let locks = self.pipeline.locks.counts();
        let mut statistics = Statistics {
            transactions_open: kept.open,
            transaction_bytes_kept: kept.bytes,
            transactions_put_out: kept.put_out,
            transactions_prepared: self.pipeline.prepared.len() as u64,
            locks: LockStatistics {
                held: locks.held,
                waiting: locks.waiting,
                waits: locks.waits,
                wait_time: locks.waited,
                deadlocks: locks.deadlocks,
                timeouts: locks.timeouts,
            },
            waits: WaitStatistics {
                earlier_commits: self.pipeline.waited_for.earlier.totals().into(),
                full_disk: self.pipeline.waited_for.space.totals().into(),
                decisions: self.pipeline.prepared.waited().into(),
                large_batches: self.pipeline.apart.waited().into(),
                ..WaitStatistics::default()
            },
            last_sequence: self.pipeline.visible.watermark(),
            checkpoints: load(&self.checkpoints.made),
            checkpoint_time: Duration::from_nanos(load(&self.checkpoints.nanoseconds)),
            data_file_bytes: self.data.offset(self.data.space().file_pages()),
            data_free_bytes: self.data.space().free_pages() * page_size,
            descriptors: self.data.pool().stats(),
            ..Statistics::default()
        };
        for family in view.families() {
            statistics.families += u64::from(!family.family.is_internal());
            statistics.families_damaged += u64::from(family.family.damage.is_met());
            statistics.memtable_bytes += memtable_bytes(family);
            statistics.memtable_bytes_pinned += family.active.merged_and_held() as u64;
            statistics.memtables_frozen += family.frozen.len() as u64;
            add(&mut statistics, &family.family, page_size);
        }
        if let Some(log) = &self.pipeline.log {
            let stats = log.stats();
            let waited = self.pipeline.log_pace.waited();
            statistics.waits.log_segments = stats.segment_waits.into();
            statistics.log = LogStatistics {
                records: stats.records,
                bytes_appended: stats.bytes_appended,
                syncs: stats.syncs,
                bytes_live: stats.bytes_live,
                replay_weight: stats.weight,
                bytes_on_disk: stats.bytes_on_disk,
                bytes_spare: stats.bytes_spare,
                write_pauses: waited.pauses,
                write_delay: waited.paused,
                write_stops: waited.stops,
                write_stop_time: waited.stopped,
                segments_recycled: stats.segments_recycled,
                commits_not_durable: log.last_assigned().0.saturating_sub(log.durable().0),
            };
        }
        statistics
    }
}

fn add(statistics: &mut Statistics, family: &Family, page_size: u64) {
    let counters = &family.counters;
    statistics.freezes += load(&counters.freezes);
    statistics.merges += load(&counters.merges);
    statistics.entries_merged += load(&counters.entries_merged);
    statistics.entries_passed += load(&counters.entries_passed);
    statistics.entries_rewritten += load(&counters.entries_rewritten);
    statistics.pages_written += load(&counters.pages_written);
    statistics.merge_time += Duration::from_nanos(load(&counters.merge_nanoseconds));
    let (held, pinned_pages, oldest_reader) = readers(family);
    statistics.old_trees_held += held;
    statistics.pinned_bytes += pinned_pages * page_size;
    statistics.oldest_reader = statistics.oldest_reader.max(oldest_reader);
    let waited = family.stall.waited();
    statistics.write_pauses += waited.pauses;
    statistics.write_delay += waited.paused;
    statistics.write_stops += waited.stops;
    statistics.write_stop_time += waited.stopped;
    statistics.waits.draining.count += waited.draining.0;
    statistics.waits.draining.time += waited.draining.1;
}
