//! Deltas: small trees of recent entries and deletions in front of a family's tree.
//!
//! Where a merge would rewrite much of the tree for little, it writes what the memtables hold as a tree of
//! its own instead, the newest delta. Later several deltas become one (`merging/join.rs`), and all are
//! drained into the tree, both a range of keys at a time (`merging/drain.rs`). Whatever a delta says of a key
//! counts more than what older deltas and the tree say.

use crate::btree::{Tree, TreeCursor};
use crate::error::Result;
use crate::memtable::Filter;
use crate::segment::PartitionedStorageBackend;
use crate::sync::Arc;
use std::sync::OnceLock;

/// A leaf takes at least this for an entry: head, offset, two lengths.
const FEWEST_ENTRY_BYTES: u64 = 8;
/// Keys that go into a filter from one look whether to stop to the next.
const KEYS_BETWEEN_LOOKS: u64 = 1 << 12;

/// Fresh deltas that become one.
pub(super) const JOINED: usize = 6;

/// Where a delta stands between its memtables and the tree: see `merging/join.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Written by a merge.
    Fresh,
    /// Goes into the one that is filled, a range of keys after the other.
    Leaving,
    Filling,
    Filled,
}

/// One tree in front of older ones.
#[derive(Clone)]
pub(crate) struct Delta {
    /// Holds deletions as entries.
    pub(crate) tree: Tree,
    pub(crate) stage: Stage,
    /// Entries of the largest merge that it was made of; a guess if it was there when the database was
    /// opened.
    pub(crate) merge: u64,
    /// Of its keys, and of some that were taken out. For a delta that was there when the database was opened
    /// it is built later: from some version of the delta, for that one and those that come of it, which hold
    /// fewer keys. So versions share a filter, but no place for one.
    pub(super) filter: Arc<OnceLock<Arc<Filter>>>,
    /// Shared by all versions of the delta, and by no other.
    origin: Arc<()>,
}

impl Delta {
    /// A delta as the catalog knows it. It is drained, but not joined any more.
    pub(crate) fn restore(tree: Tree) -> Self {
        Self {
            tree,
            stage: Stage::Filled,
            merge: tree.entries / JOINED as u64,
            filter: Arc::default(),
            origin: Arc::default(),
        }
    }

    /// A delta for at most `keys` keys.
    pub(super) fn empty(stage: Stage, merge: u64, keys: u64) -> Self {
        let filter = Arc::new(OnceLock::from(Arc::new(Filter::of_keys(keys))));
        Self { tree: Tree::default(), stage, merge, filter, origin: Arc::default() }
    }

    /// Bytes of memory of its filter.
    pub(crate) fn filter_bytes(&self) -> u64 {
        self.filter.get().map_or(0, |filter| filter.memory() as u64)
    }

    /// Whether the delta may say anything of `key`.
    #[inline]
    pub(crate) fn may_hold(&self, key: &[u8]) -> bool {
        self.filter.get().is_none_or(|filter| filter.may_hold(key))
    }

    /// Whether every look-up has to search the delta.
    pub(crate) fn lacks_filter(&self) -> bool {
        self.filter.get().is_none()
    }

    /// Takes what remains of the delta for its tree: keys were taken out.
    pub(super) fn become_less(&mut self, tree: Tree) {
        self.tree = tree;
        if self.lacks_filter() {
            // One that is built from what remains would not do for who holds the version before.
            self.filter = Arc::default();
        }
    }

    /// Whether both are versions of one delta.
    pub(crate) fn is_version_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.origin, &other.origin)
    }

    /// Gives the delta, and whoever holds this version of it, a filter that was built from it or from a
    /// version before.
    pub(crate) fn set_filter(&self, filter: &Arc<Filter>) {
        // Somebody else may have been sooner.
        let _ = self.filter.set(Arc::clone(filter));
    }

    /// Takes the filter of `before`, which is an older version of the delta, if that has one.
    pub(super) fn take_filter_of(&self, before: &Self) {
        if let Some(filter) = before.filter.get() {
            self.set_filter(filter);
        }
    }

    /// Builds a filter of the keys of a delta that lacks one; `None` if it was to stop. Reads all of
    /// its leaves. The caller holds the version of the trees. `should_stop` is asked once in a while.
    pub(crate) fn build_filter(
        &self,
        store: &Arc<PartitionedStorageBackend>,
        should_stop: &dyn Fn() -> bool,
    ) -> Result<Option<Arc<Filter>>> {
        assert!(self.stage == Stage::Filled, "keys may be put into a delta that is {:?}", self.stage);
        let filter = Filter::of_keys(keys_of(std::slice::from_ref(self), store));
        let mut cursor = TreeCursor::new(self.tree, Arc::clone(store));
        let mut stands = cursor.first()?;
        let mut count = 0u64;
        while stands {
            filter.add(filter.spot(cursor.key()));
            count += 1;
            if count.is_multiple_of(KEYS_BETWEEN_LOOKS) && should_stop() {
                return Ok(None);
            }
            stands = cursor.next()?;
        }
        Ok(Some(Arc::new(filter)))
    }
}

/// Keys that `deltas` have at most. What a crafted file says of their number is not believed.
pub(super) fn keys_of(deltas: &[Delta], store: &PartitionedStorageBackend) -> u64 {
    let keys = deltas.iter().fold(0u64, |sum, delta| sum.saturating_add(delta.tree.entries));
    keys.min(store.space().bytes / FEWEST_ENTRY_BYTES)
}

/// The trees of `deltas`.
pub(super) fn trees_of(deltas: &[Delta]) -> impl Iterator<Item = Tree> + '_ {
    deltas.iter().map(|delta| delta.tree)
}

impl std::fmt::Debug for Delta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.tree.fmt(f)
    }
}
