//! What a merge makes and makes obsolete: new pages, retired pages, figures.

use super::locate::locate;
use super::node::Fault;
use super::records::ValuePointer;
use super::tree::Tree;
use crate::codec::expiry::Expiry;
use crate::codec::ids::PageId;
use crate::error::{Error, Result};
use crate::page::{HEADER_LEN, PageKind, PagePointer};
use crate::segment::PartitionedStorageBackend;
use crate::sync::Arc;

/// What a merge did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MergeStats {
    /// Operations applied.
    pub(crate) entries_in: u64,
    /// Entries in the leaves that were written.
    pub(crate) entries_rewritten: u64,
    pub(crate) pages_written: u64,
    pub(crate) pages_retired: u64,
    /// Subtrees, single leaves among them, that a range deletion covered whole.
    pub(crate) subtrees_dropped: u64,
}

impl std::ops::AddAssign for MergeStats {
    fn add_assign(&mut self, other: Self) {
        self.entries_in += other.entries_in;
        self.entries_rewritten += other.entries_rewritten;
        self.pages_written += other.pages_written;
        self.pages_retired += other.pages_retired;
        self.subtrees_dropped += other.subtrees_dropped;
    }
}

/// How far an output has come.
pub(super) struct Mark {
    written: usize,
    retired: usize,
    stats: MergeStats,
}

/// A new tree, and how its pages differ from those of the old one.
#[derive(Debug)]
pub(crate) struct MergeOutcome {
    pub(crate) tree: Tree,
    /// Pages and runs that the new tree reaches and the old one did not: first page and number of pages.
    pub(crate) written: Vec<(PageId, u32)>,
    /// Pages and runs that the old tree reaches and the new one does not.
    pub(crate) retired: Vec<(PageId, u32)>,
    pub(crate) stats: MergeStats,
}

pub(super) const REACHED_TWICE: &str = "a tree reaches a page twice";

pub(super) struct Output<'s> {
    pub(super) store: &'s Arc<PartitionedStorageBackend>,
    pub(super) generation: u64,
    pub(super) written: Vec<(PageId, u32)>,
    pub(super) retired: Vec<(PageId, u32)>,
    pub(super) stats: MergeStats,
    /// Pages that the family had at the beginning: more than these the old tree cannot reach.
    pub(super) page_limit: u64,
}

impl<'s> Output<'s> {
    pub(super) fn new(store: &'s Arc<PartitionedStorageBackend>, generation: u64) -> Self {
        Self {
            store,
            generation,
            written: Vec::new(),
            retired: Vec::new(),
            stats: MergeStats::default(),
            page_limit: store.space().pages_total,
        }
    }

    /// Writes a node of `level` that takes at most `size` bytes; `fill` gets its page or run and returns its
    /// length.
    pub(super) fn write_node(
        &mut self,
        level: u8,
        size: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize>,
    ) -> Result<PagePointer> {
        let kind = if level == 0 { PageKind::Leaf } else { PageKind::Inner };
        self.write(kind, level, size, |bytes| Ok(fill(bytes)? as u64))
    }

    /// Writes `value`, which expires or has 0, into a run of its own.
    pub(super) fn write_value(&mut self, value: &[u8], expiry: Expiry) -> Result<ValuePointer> {
        let len = u32::try_from(value.len()).expect("a value is shorter than 4 GiB");
        let run = self.write(PageKind::Value, 0, HEADER_LEN + value.len(), |bytes| {
            bytes[HEADER_LEN..][..value.len()].copy_from_slice(value);
            Ok(u64::from(len))
        })?;
        Ok(ValuePointer { run, len, expiry })
    }

    fn write(
        &mut self,
        kind: PageKind,
        level: u8,
        size: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<u64>,
    ) -> Result<PagePointer> {
        let pages =
            u32::try_from(size.div_ceil(self.store.page_size())).expect("a run has fewer than 2^32 pages");
        let mut page = self.store.new_page(pages)?;
        let len = fill(&mut page)?;
        let pointer = self.store.publish(page, kind, level, self.generation, len)?;
        self.written.push((pointer.page, pages));
        self.stats.pages_written += u64::from(pages);
        Ok(pointer)
    }

    /// The new tree does not reach this page or run.
    pub(super) fn retire(&mut self, page: PageId, pages: u32) {
        self.stats.pages_retired += u64::from(pages);
        self.retired.push((page, pages));
    }

    /// Retires a node whose subtree is then walked. Pointers on disk that name a node many times over cannot
    /// make that walk longer than the family has pages.
    pub(super) fn retire_checked(&mut self, pointer: PagePointer) -> Result<()> {
        if self.stats.pages_retired >= self.page_limit {
            return Err(locate(self.store, pointer, Fault(REACHED_TWICE)));
        }
        self.retire(pointer.page, pointer.pages);
        Ok(())
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { written: self.written.len(), retired: self.retired.len(), stats: self.stats }
    }

    /// Nothing reaches what was written since `mark`, and what was retired since stays. Returns whether
    /// anything was written.
    pub(super) fn take_back(&mut self, mark: &Mark) -> bool {
        let written = self.written.split_off(mark.written);
        self.store.abandon(&written);
        self.retired.truncate(mark.retired);
        self.stats = mark.stats;
        !written.is_empty()
    }

    /// Ends a merge that made `new` of `old`. If it failed, nothing that it wrote stays. `Ok(None)`: nothing
    /// changed.
    pub(super) fn conclude(mut self, old: &Tree, new: Result<Option<Tree>>) -> Result<MergeOutcome> {
        let new = new.and_then(|new| {
            self.check_retired()?;
            Ok(new.unwrap_or(Tree { generation: self.generation, ..*old }))
        });
        match new {
            Ok(tree) => {
                Ok(MergeOutcome { tree, written: self.written, retired: self.retired, stats: self.stats })
            }
            Err(error) => {
                self.store.abandon(&self.written);
                Err(error)
            }
        }
    }

    /// Sorts the retired pages; fails if one was retired twice.
    fn check_retired(&mut self) -> Result<()> {
        self.retired.sort_unstable();
        for pair in self.retired.windows(2) {
            let (page, pages) = pair[0];
            if u64::from(page.0) + u64::from(pages) > u64::from(pair[1].0.0) {
                let error = Error::corruption(REACHED_TWICE).of_family(self.store.family().0);
                return Err(error.on_page(pair[1].0.0));
            }
        }
        Ok(())
    }
}
