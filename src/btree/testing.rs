//! A tree beside a `BTreeMap` that says what it must hold, for the tests of this folder.

use std::collections::{BTreeMap, BTreeSet};

use super::builder::MergeOptions;
use super::check::{CheckOptions, CheckReport};
use super::cursor::TreeCursor;
use super::merge::{MergeOp, RangeDeletion, merge};
use super::output::{MergeOutcome, MergeStats};
use super::relocate::{pages_with_pointers, relocate};
use super::repack::repack;
use super::tree::{FoundValue, Lookup, Tree, load_run};
use crate::codec::expiry::Now;
use crate::codec::ids::{FamilyId, PageId};
use crate::error::Result;
use crate::page::{CacheBudgets, HEADER_LEN};
use crate::segment::{DataFile, PageSet, PartitionedStorageBackend, Segment, SpaceMap};
use crate::storage::{FileHandlePool, FileMode, MemoryStorage, StorageBackend};
use crate::sync::{Arc, epoch};

pub(super) type Bytes = Vec<u8>;
/// Bounds `[start, end)` of a range deletion.
pub(super) type Bounds = (Bytes, Option<Bytes>);

/// Small enough that pages are evicted, and read and verified again.
fn budgets(page_size: usize) -> CacheBudgets {
    CacheBudgets::fixed(64 * page_size as u64, 32 * page_size as u64)
}

fn data_file(page_size: usize) -> Arc<DataFile> {
    let backend: Arc<dyn StorageBackend> = Arc::new(MemoryStorage::new());
    drop(backend.open("data", FileMode::Create).unwrap());
    let pool = FileHandlePool::new(backend, "data", FileMode::Write, 4).unwrap();
    let space = SpaceMap::new(Arc::clone(pool.permanent()), "data", page_size);
    DataFile::new(pool, page_size, space)
}

pub(super) fn store(page_size: usize) -> Arc<PartitionedStorageBackend> {
    PartitionedStorageBackend::new(FamilyId(7), data_file(page_size), budgets(page_size))
}

/// A store whose only segment has `pages` pages, of which the last has the highest number that there is.
pub(super) fn store_of_last_pages(page_size: usize, pages: u32) -> Arc<PartitionedStorageBackend> {
    let data = data_file(page_size);
    let (file_page, _) = data.space().allocate(u64::from(pages), u64::from(pages)).unwrap();
    let segment = Segment { first_page: u32::MAX - pages + 1, pages, file_page };
    let (budgets, reachable) = (budgets(page_size), PageSet::default());
    PartitionedStorageBackend::restore(FamilyId(7), data, budgets, vec![segment], &reachable).unwrap()
}

pub(super) struct Harness {
    pub(super) store: Arc<PartitionedStorageBackend>,
    pub(super) tree: Tree,
    pub(super) model: BTreeMap<Bytes, Bytes>,
    pub(super) fill: u8,
    /// Pages written and not retired.
    pub(super) live: BTreeSet<u32>,
}

impl Harness {
    pub(super) fn new(page_size: usize) -> Self {
        Self {
            store: store(page_size),
            tree: Tree::default(),
            model: BTreeMap::new(),
            fill: 100,
            live: BTreeSet::new(),
        }
    }

    fn options(&self) -> MergeOptions {
        MergeOptions {
            fill: self.fill,
            generation: self.tree.generation + 1,
            keep_deletions: false,
            now: Now::UNASKED,
        }
    }

    pub(super) fn try_merge(
        &self,
        deletions: &[Bounds],
        ops: &BTreeMap<Bytes, Option<Bytes>>,
        should_stop: &dyn Fn() -> bool,
    ) -> Result<MergeOutcome> {
        let deletions: Vec<_> =
            deletions.iter().map(|(start, end)| RangeDeletion { start, end: end.as_deref() }).collect();
        let ops = ops.iter().map(|(key, value)| {
            Ok((&key[..], value.as_ref().map_or(MergeOp::Delete, |value| MergeOp::Put(value))))
        });
        merge(&self.tree, &self.store, &deletions, ops, &self.options(), should_stop)
    }

    /// Merges into tree and model.
    pub(super) fn apply(&mut self, deletions: &[Bounds], ops: &BTreeMap<Bytes, Option<Bytes>>) -> MergeStats {
        let outcome = self.try_merge(deletions, ops, &|| false).unwrap();
        for (start, end) in deletions {
            self.model.retain(|key, _| key < start || end.as_ref().is_some_and(|end| key >= end));
        }
        for (key, value) in ops {
            match value {
                Some(value) => self.model.insert(key.clone(), value.clone()),
                None => self.model.remove(key),
            };
        }
        self.install(outcome)
    }

    pub(super) fn put<K: AsRef<[u8]>>(
        &mut self,
        entries: impl IntoIterator<Item = (K, Bytes)>,
    ) -> MergeStats {
        let ops = entries.into_iter().map(|(key, value)| (key.as_ref().to_vec(), Some(value))).collect();
        self.apply(&[], &ops)
    }

    pub(super) fn delete<K: AsRef<[u8]>>(&mut self, keys: impl IntoIterator<Item = K>) -> MergeStats {
        self.apply(&[], &keys.into_iter().map(|key| (key.as_ref().to_vec(), None)).collect())
    }

    pub(super) fn delete_range(&mut self, start: &[u8], end: Option<&[u8]>) -> MergeStats {
        self.apply(&[(start.to_vec(), end.map(<[u8]>::to_vec))], &BTreeMap::new())
    }

    pub(super) fn repack(&mut self) -> MergeStats {
        let outcome = repack(&self.tree, &self.store, &self.options(), &|| false).unwrap();
        self.install(outcome)
    }

    /// Moves pages at the end to the front. Returns the first page of the end, of which the tree reaches
    /// nothing any more but what found no room; `None` if there is not enough free before.
    pub(super) fn move_to_front(&mut self) -> Option<(PageId, MergeStats)> {
        let inner = pages_with_pointers(&self.tree, &self.store).unwrap();
        let first = self.store.place_before_end(inner, u64::MAX)?;
        let outcome = relocate(
            &self.tree,
            &self.store,
            std::slice::from_ref(&(u64::from(first.0)..u64::MAX)),
            &self.options(),
            &|| false,
        )
        .unwrap();
        self.store.place_anywhere();
        Some((first, self.install(outcome)))
    }

    /// The new tree replaces the old one, whose pages are released.
    pub(super) fn install(&mut self, outcome: MergeOutcome) -> MergeStats {
        for &(page, pages) in &outcome.retired {
            for page in page.0..page.0 + pages {
                assert!(self.live.remove(&page), "page {page} was retired but not in use");
            }
        }
        for &(page, pages) in &outcome.written {
            for page in page.0..page.0 + pages {
                assert!(self.live.insert(page), "page {page} was written but is in use");
            }
        }
        self.store.install(&outcome.written, &outcome.retired).unwrap();
        self.store.release(&outcome.retired);
        self.tree = outcome.tree;
        outcome.stats
    }

    pub(super) fn cursor(&self) -> TreeCursor {
        TreeCursor::new(self.tree, Arc::clone(&self.store))
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        get(&self.tree, &self.store, key)
    }

    pub(super) fn check(&self) -> CheckReport {
        self.tree.check(&self.store, &CheckOptions::default())
    }

    /// Holds the tree against its invariants and the model.
    pub(super) fn verify(&self) -> CheckReport {
        let report = self.check();
        assert!(report.faults.is_empty(), "{:#?}", report.faults);
        assert_eq!(report.entries, self.model.len() as u64);
        assert_eq!(self.tree.entries, self.model.len() as u64);
        let reached: BTreeSet<u32> =
            report.pages.iter_runs().flat_map(|(page, pages)| page.0..page.0 + pages).collect();
        assert_eq!(reached, self.live, "reachable, and written but not retired");
        self.verify_walks();
        report
    }

    fn verify_walks(&self) {
        let mut cursor = self.cursor();
        let mut valid = cursor.first().unwrap();
        for (key, value) in &self.model {
            assert!(valid, "the walk ends before {key:?}");
            assert_eq!(cursor.key(), key);
            assert_eq!(cursor.value().unwrap(), value);
            valid = cursor.next().unwrap();
        }
        assert!(!valid && !cursor.valid());
        let mut valid = cursor.last().unwrap();
        for (key, value) in self.model.iter().rev() {
            assert!(valid, "the walk back ends before {key:?}");
            assert_eq!(cursor.key(), key);
            let (page, range) = cursor.pinned_value().unwrap();
            assert_eq!(&page[range], value);
            valid = cursor.prev().unwrap();
        }
        assert!(!valid && !cursor.valid());
    }

    /// Holds point reads, seeks and counts at `key` against the model.
    pub(super) fn verify_at(&self, key: &[u8]) {
        assert_eq!(self.get(key).unwrap().as_ref(), self.model.get(key));
        assert_eq!(self.tree.contains(&self.store, key).unwrap(), self.model.contains_key(key));
        let mut cursor = self.cursor();
        let owned = key.to_vec();
        let mut above = self.model.range(owned.clone()..).map(|(key, _)| key);
        assert_eq!(cursor.seek(key).unwrap().then(|| cursor.key()), above.next().map(|key| &key[..]));
        let mut at_or_below = self.model.range(..=owned.clone()).map(|(key, _)| key);
        let expected = at_or_below.next_back();
        assert_eq!(cursor.seek_for_prev(key).unwrap().then(|| cursor.key()), expected.map(|key| &key[..]));
        if expected.is_some() {
            // Turn around, and back.
            let next = self
                .model
                .range((std::ops::Bound::Excluded(owned.clone()), std::ops::Bound::Unbounded))
                .next();
            assert_eq!(cursor.next().unwrap().then(|| cursor.key()), next.map(|(key, _)| &key[..]));
            if next.is_some() {
                assert!(cursor.prev().unwrap());
                assert_eq!(Some(cursor.key()), expected.map(|key| &key[..]));
            }
        }
        let below = self.model.range(..owned).count() as u64;
        assert_eq!(self.tree.count_range(&self.store, None, Some(key)).unwrap(), below);
        let rest = self.tree.count_range(&self.store, Some(key), None).unwrap();
        assert_eq!(rest, self.model.len() as u64 - below);
    }
}

pub(super) fn get(tree: &Tree, store: &Arc<PartitionedStorageBackend>, key: &[u8]) -> Result<Option<Bytes>> {
    let in_memory = match tree.find(store, key, &epoch::pin())? {
        Lookup::Found(Some(FoundValue::Inline(page, range))) => Some(page[range].to_vec()),
        _ => None,
    };
    let found = tree.read(store, key)?;
    if let (Some(in_memory), Some(FoundValue::Inline(page, range))) = (&in_memory, &found) {
        assert_eq!(page[range.clone()], in_memory[..]);
    }
    Ok(match found {
        None | Some(FoundValue::Deletion) => None,
        Some(FoundValue::Inline(page, range)) => Some(page[range].to_vec()),
        Some(FoundValue::Operands(page, range) | FoundValue::Expiring(page, range)) => {
            Some(page[range].to_vec())
        }
        Some(FoundValue::Run(run, len, _)) => {
            Some(load_run(store, run, len)?[HEADER_LEN..][..len as usize].to_vec())
        }
    })
}
