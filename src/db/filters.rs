//! Filters of the deltas that were there when the database was opened.
//!
//! A filter is memory alone. So after an opening, for reading only or not, a thread reads these deltas once
//! and ends; until it has come to one, look-ups search it.

use crate::column_family::delta::Delta;
use crate::column_family::family::Family;
use crate::column_family::trees::TreeVersion;
use crate::db::shared::Shared;
use crate::memtable::Filter;
use crate::sync::Arc;

impl Shared {
    /// Whether a delta lacks its filter.
    pub(super) fn lack_filters(&self) -> bool {
        let view = self.pipeline.views.load_full();
        view.families().any(|family| family.tree.deltas.iter().any(|delta| delta.lacks_filter()))
    }

    /// Builds the filters that deltas lack, unless the database is stopped meanwhile.
    pub(super) fn build_filters(&self) {
        let should_stop = || self.pipeline.work.is_stopped();
        let families: Vec<_> = self.registry.lock().families().cloned().collect();
        for family in families {
            // Held for one family at a time, so that little stays on the disk for it.
            let Some(version) = self.trees_of(&family) else { continue };
            for delta in version.deltas.iter().filter(|delta| delta.lacks_filter()) {
                match delta.build_filter(family.store(), &should_stop) {
                    Ok(Some(filter)) => self.hand_out(&family, delta, &filter),
                    Ok(None) => return,
                    // Who reads this page is told; look-ups of other keys search the delta.
                    Err(error) => {
                        tracing::warn!(%error, family = family.id().0, "a delta stays without a filter");
                    }
                }
            }
        }
    }

    fn trees_of(&self, family: &Family) -> Option<Arc<TreeVersion>> {
        let view = self.pipeline.views.load_full();
        view.family(family.slot(), family.id()).ok().map(|view| Arc::clone(&view.tree))
    }

    /// Gives the filter of `delta` to it and to what has become of it.
    fn hand_out(&self, family: &Family, delta: &Delta, filter: &Arc<Filter>) {
        delta.set_filter(filter);
        // What is made of a version that lacks the filter at this moment takes it when it is installed, under
        // this lock.
        let trees = family.trees.lock();
        trees.current().deltas.iter().filter(|later| later.is_version_of(delta)).for_each(|later| {
            later.set_filter(filter);
        });
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::time::{Duration, Instant};

    use crate::FamilyOptions;
    use crate::btree::RangeDeletion;
    use crate::column_family::merging::change::Change;
    use crate::db::ColumnFamilyDatabase;
    use crate::options::DatabaseBuilder;
    use crate::storage::MemoryStorage;
    use crate::sync::Arc;
    use crate::txn::handle::ColumnFamily;

    fn builder(storage: &MemoryStorage) -> DatabaseBuilder {
        ColumnFamilyDatabase::builder()
            .page_size(4096)
            .merge_cost(0)
            .write_buffer_bytes(16 << 20)
            .storage(storage.clone())
    }

    fn key(n: u32) -> [u8; 4] {
        n.to_be_bytes()
    }

    /// Looks that the page cache was asked for by look-ups of `keys`, none of which is there.
    fn looks(family: &ColumnFamily, keys: impl Iterator<Item = u32>) -> u64 {
        let asked = |family: &ColumnFamily| {
            let stats = family.cache_stats();
            stats.hits + stats.misses
        };
        let before = asked(family);
        keys.for_each(|n| assert!(family.get(key(n)).unwrap().is_none()));
        asked(family) - before
    }

    /// A snapshot sees all keys of a delta of which some were drained before the filter was built.
    #[test]
    fn a_filter_that_is_built_while_deltas_are_drained_keeps_nothing_from_older_snapshots() {
        let storage = MemoryStorage::new();
        let by_hand = || builder(&storage).automatic_maintenance(false).open("memory").unwrap();
        let db = by_hand();
        let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
        (0..20_000).for_each(|n| {
            family.put(key(n), b"old").unwrap();
        });
        db.flush().unwrap();
        (0..20_000).step_by(2).for_each(|n| {
            family.put(key(n), b"newer").unwrap();
        });
        db.flush().unwrap();
        assert_eq!(db.family_properties(&family).unwrap().deltas, 1);
        drop(family);
        db.close().unwrap();

        let db = by_hand();
        let family = db.column_family("family").unwrap();
        let before = family.snapshot().unwrap();
        let lacks = || family.snapshot().unwrap().view.tree.deltas.iter().any(|delta| delta.lacks_filter());
        let shared = db.shared();
        let mut context = shared.pipeline.merge_context(&|| false);
        context.most_bytes = 16 << 10;
        family.family().drain_step(&context).unwrap();
        assert!(lacks(), "a part was drained");
        shared.build_filters();
        assert!(!lacks());
        let check = || {
            for n in 0..20_000 {
                let expected: &[u8] = if n % 2 == 0 { b"newer" } else { b"old" };
                assert_eq!(before.get(key(n)).unwrap().unwrap(), expected, "key {n}");
                assert_eq!(family.get(key(n)).unwrap().unwrap(), expected, "key {n}");
            }
            assert_eq!(before.len().unwrap(), 20_000);
        };
        check();
        family.family().drain_step(&context).unwrap();
        assert!(!lacks(), "what becomes of a delta keeps its filter");
        check();
    }

    /// Deltas that were there at opening, as `db` has them that was opened by hand.
    fn with_a_delta(storage: &MemoryStorage) -> (ColumnFamilyDatabase, ColumnFamily) {
        let by_hand = || builder(storage).automatic_maintenance(false).open("memory").unwrap();
        let db = by_hand();
        let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
        for step in [1, 2] {
            (0..20_000).step_by(step).for_each(|n| {
                family.put(key(n), b"value").unwrap();
            });
            db.flush().unwrap();
        }
        assert_eq!(db.family_properties(&family).unwrap().deltas, 1);
        drop(family);
        db.close().unwrap();
        let db = by_hand();
        let family = db.column_family("family").unwrap();
        (db, family)
    }

    #[test]
    fn a_filter_that_is_built_before_a_change_is_installed_is_taken_along() {
        let storage = MemoryStorage::new();
        let (db, family) = with_a_delta(&storage);
        let own = family.family();
        let lacks = || own.trees.lock().current().deltas.iter().any(|delta| delta.lacks_filter());
        let version = Arc::clone(own.trees.lock().current());
        let mut change = Change::of(&version, own.store(), 100, &|| false);
        let deletion = RangeDeletion { start: &[], end: Some(&key(100)) };
        change.delete_from_deltas(0..1, &[deletion]).unwrap();
        assert!(lacks());
        db.shared().build_filters();
        assert!(!lacks());
        let (outcome, deltas) = change.finish();
        assert!(deltas.iter().any(|delta| delta.lacks_filter()), "a part of a delta has a place of its own");
        let mut trees = own.trees.lock();
        let through = trees.merged_through();
        trees.install(own.store(), outcome, deltas, through).unwrap();
        drop(trees);
        assert!(!lacks(), "what becomes of a delta has its filter");
    }

    #[test]
    fn deltas_that_were_there_at_opening_get_filters_also_for_reading_only() {
        let storage = MemoryStorage::new();
        let db = builder(&storage).automatic_maintenance(false).open("memory").unwrap();
        let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
        for n in (0..20_000).step_by(2) {
            family.put(key(n), b"value").unwrap();
        }
        db.flush().unwrap();
        for version in 0..4u32 {
            for n in (version * 2..20_000).step_by(40) {
                family.put(key(n), b"newer").unwrap();
            }
            db.flush().unwrap();
        }
        assert_eq!(db.family_properties(&family).unwrap().deltas, 4);
        drop(family);
        db.close().unwrap();

        // By hand: without.
        let db = builder(&storage).automatic_maintenance(false).open("memory").unwrap();
        let family = db.column_family("family").unwrap();
        let odd = || (1..20_000).step_by(200);
        let without = looks(&family, odd());
        assert_eq!(db.family_properties(&family).unwrap().filter_bytes, 0);
        drop(family);
        db.close().unwrap();

        let db = builder(&storage).read_only(true).open("memory").unwrap();
        let family = db.column_family("family").unwrap();
        let begun = Instant::now();
        let lacks = || family.snapshot().unwrap().view.tree.deltas.iter().any(|delta| delta.lacks_filter());
        while lacks() {
            assert!(begun.elapsed() < Duration::from_secs(60), "no filters were built");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(db.family_properties(&family).unwrap().filter_bytes > 3000);
        let with = looks(&family, odd());
        assert!(with * 3 < without, "{with} looks with filters, {without} without");
        for n in (0..20_000).step_by(2) {
            let expected: &[u8] = if n % 40 < 8 { b"newer" } else { b"value" };
            assert_eq!(family.get(key(n)).unwrap().unwrap(), expected);
        }
    }
}
