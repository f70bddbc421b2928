//! The versions of a family's trees: the current one, and old ones for as long as somebody reads them.
//!
//! Whoever reads holds the version, or the view that names it. The last one to let go of a version notes its
//! number (`LetGo`), from where the family takes it when it next looks; [`kept`](super::kept) says which
//! pages are free then.

use crate::btree::{MergeOutcome, Tree};
use crate::codec::ids::SequenceNumber;
use crate::column_family::delta::Delta;
use crate::column_family::gone::Gone;
use crate::column_family::kept::Kept;
use crate::error::Result;
use crate::segment::PartitionedStorageBackend;
use crate::sync::{Arc, Instant, Mutex};
use std::collections::BTreeMap;
use std::time::Duration;

/// Trees that readers hold: while they do, their pages stay.
#[derive(Default)]
pub(crate) struct TreeVersion {
    pub(crate) tree: Tree,
    /// Newest first.
    pub(crate) deltas: Vec<Delta>,
    /// Where what trees and memtables hold is deleted.
    pub(crate) gone: Gone,
    /// Behind the trees: dropped after them.
    number: Option<Numbered>,
}

impl TreeVersion {
    pub(crate) fn new(tree: Tree, deltas: Vec<Delta>) -> Self {
        Self { tree, deltas, gone: Gone::default(), number: None }
    }

    /// Counts up with each version of its family since the database was opened.
    pub(crate) fn number(&self) -> u64 {
        self.number.as_ref().map_or(0, |numbered| numbered.number)
    }
}

/// Numbers of versions that nobody holds any more, and that the family has not heard of yet.
#[derive(Default)]
struct LetGo(Mutex<Vec<u64>>);

/// The number of a version that its family holds or held.
struct Numbered {
    number: u64,
    let_go: Arc<LetGo>,
}

impl Drop for Numbered {
    fn drop(&mut self) {
        // What readers did with the pages comes before this: the count of the version and this lock order it.
        self.let_go.0.lock().push(self.number);
    }
}

/// The versions; guarded by the family's lock of the same name.
pub(crate) struct Trees {
    current: Arc<TreeVersion>,
    number: u64,
    /// Every commit up to here that touched the family is in the current trees.
    merged_through: SequenceNumber,
    kept: Kept,
    /// When old versions that are held were replaced.
    replaced: BTreeMap<u64, Instant>,
    let_go: Arc<LetGo>,
    /// Whether a checkpoint holds, or is about to, the current version and the family's segments.
    recorded: bool,
}

impl Trees {
    pub(crate) fn new(version: TreeVersion, merged_through: SequenceNumber) -> Self {
        let let_go = Arc::<LetGo>::default();
        let number = Some(Numbered { number: 0, let_go: Arc::clone(&let_go) });
        Self {
            current: Arc::new(TreeVersion { number, ..version }),
            number: 0,
            merged_through,
            kept: Kept::default(),
            replaced: BTreeMap::new(),
            let_go,
            recorded: true,
        }
    }

    pub(crate) fn current(&self) -> &Arc<TreeVersion> {
        &self.current
    }

    pub(crate) fn merged_through(&self) -> SequenceNumber {
        self.merged_through
    }

    /// Makes the outcome of a merge, and `deltas` in front of it, the current version. Filters that deltas
    /// got while it was made go with them. On an error nothing has changed, and what was written is
    /// abandoned.
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
        self.kept.retire(self.number, &outcome.written, &outcome.retired);
        self.replaced.insert(self.number, Instant::now());
        self.number += 1;
        // Whoever built one meanwhile gave it to the current version, under the lock that is held here.
        for delta in deltas.iter().filter(|delta| delta.lacks_filter()) {
            let before = self.current.deltas.iter().find(|before| before.is_version_of(delta));
            before.into_iter().for_each(|before| delta.take_filter_of(before));
        }
        let number = Numbered { number: self.number, let_go: Arc::clone(&self.let_go) };
        let version = TreeVersion { tree: outcome.tree, deltas, gone: Gone::default(), number: Some(number) };
        self.current = Arc::new(version);
        self.merged_through = merged_through;
        self.recorded = false;
        Ok(Arc::clone(&self.current))
    }

    /// Whether the catalog says of the family what there is to say.
    pub(crate) fn is_recorded(&self) -> bool {
        self.recorded
    }

    pub(crate) fn set_recorded(&mut self, recorded: bool) {
        self.recorded = recorded;
    }

    /// Frees the pages that nobody reads any more.
    pub(crate) fn release(&mut self, store: &PartitionedStorageBackend) {
        let numbers = std::mem::take(&mut *self.let_go.0.lock());
        if numbers.is_empty() {
            return;
        }
        for number in &numbers {
            self.replaced.remove(number);
        }
        let mut free = Vec::new();
        self.kept.let_go(numbers, &mut free);
        store.release(&free);
    }

    /// Number of old versions that are still held.
    pub(crate) fn held(&self) -> usize {
        self.kept.versions()
    }

    /// Pages that are kept for nobody but readers of old versions.
    pub(crate) fn kept_pages(&self) -> u64 {
        self.kept.pages()
    }

    /// Bytes of memory that it takes to know which pages readers keep, and until when.
    pub(crate) fn bytes(&self) -> usize {
        let replaced = self.replaced.len() * size_of::<(u64, Instant)>();
        self.kept.bytes() + replaced + self.let_go.0.lock().capacity() * size_of::<u64>()
    }

    /// How long ago the oldest version that is still held was replaced.
    pub(crate) fn oldest_held(&self) -> Option<Duration> {
        let replaced = self.replaced.get(&self.kept.oldest()?)?;
        Some(replaced.elapsed())
    }

    /// Whether nobody but the family holds any version.
    pub(crate) fn unread(&mut self) -> bool {
        self.let_go.0.lock().len() == self.kept.versions() && Arc::get_mut(&mut self.current).is_some()
    }
}
