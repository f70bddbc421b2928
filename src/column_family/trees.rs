//! The versions of a family's trees: the current one, and old ones for as long as somebody reads them.

use std::collections::VecDeque;

use crate::btree::{MergeOutcome, Tree};
use crate::codec::ids::{PageId, SequenceNumber};
use crate::column_family::delta::Delta;
use crate::error::Result;
use crate::segment::PartitionedStorageBackend;
use crate::sync::Arc;

/// Trees that readers hold: while they do, their pages stay.
#[derive(Debug, Default)]
pub(crate) struct TreeVersion {
    pub(crate) tree: Tree,
    /// Newest first.
    pub(crate) deltas: Vec<Delta>,
}

/// An old version and the pages that its successor no longer reaches.
struct Retired {
    version: Arc<TreeVersion>,
    pages: Vec<(PageId, u32)>,
}

/// The versions, oldest first; guarded by the family's lock of the same name.
pub(crate) struct Trees {
    current: Arc<TreeVersion>,
    /// Every commit up to here that touched the family is in the current trees.
    merged_through: SequenceNumber,
    old: VecDeque<Retired>,
}

impl Trees {
    pub(crate) fn new(version: TreeVersion, merged_through: SequenceNumber) -> Self {
        Self { current: Arc::new(version), merged_through, old: VecDeque::new() }
    }

    pub(crate) fn current(&self) -> &Arc<TreeVersion> {
        &self.current
    }

    pub(crate) fn merged_through(&self) -> SequenceNumber {
        self.merged_through
    }

    /// Makes the outcome of a merge, and `deltas` in front of it, the current version. On an error nothing has changed, and what was
    /// written is abandoned.
    pub(crate) fn install(
        &mut self,
        store: &PartitionedStorageBackend,
        outcome: MergeOutcome,
        deltas: Vec<Delta>,
        merged_through: SequenceNumber,
    ) -> Result<Arc<TreeVersion>> {
        assert!(
            merged_through >= self.merged_through,
            "a merge through {merged_through} follows one through {}",
            self.merged_through
        );
        store.install(&outcome.written, &outcome.retired).inspect_err(|_| store.abandon(&outcome.written))?;
        let version = Arc::new(TreeVersion { tree: outcome.tree, deltas });
        let old = std::mem::replace(&mut self.current, Arc::clone(&version));
        self.old.push_back(Retired { version: old, pages: outcome.retired });
        self.merged_through = merged_through;
        Ok(version)
    }

    /// Frees the pages of old versions that nobody reads any more, oldest first: what a version's successor
    /// retired may be reached by every older one.
    pub(crate) fn release(&mut self, store: &PartitionedStorageBackend) {
        while let Some(oldest) = self.old.front_mut() {
            // `get_mut` also orders what the last reader did before what happens to the pages from here on.
            if Arc::get_mut(&mut oldest.version).is_none() {
                break;
            }
            store.release(&oldest.pages);
            self.old.pop_front();
        }
    }

    /// Number of old versions that are still held.
    pub(crate) fn held(&self) -> usize {
        self.old.len()
    }

    /// Whether nobody but the family holds any version.
    pub(crate) fn unread(&mut self) -> bool {
        self.old.iter_mut().all(|old| Arc::get_mut(&mut old.version).is_some())
            && Arc::get_mut(&mut self.current).is_some()
    }
}
