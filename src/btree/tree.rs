//! A family's tree at one moment, and point reads in it.

use std::ops::Range;

use super::node::{LeafValue, MAX_HEIGHT, Node};
use super::output::locate;
use crate::error::{Error, Result};
use crate::page::{HEADER_LEN, PagePointer, PageRef, PinnedPage};
use crate::segment::PartitionedStorageBackend;
use crate::sync::Arc;
use crate::sync::epoch::Guard;

/// The family's tree at one moment: a value, cheap to copy; its pages stand in a [`PartitionedStorageBackend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tree {
    pub(crate) root: Option<PagePointer>,
    /// Levels, leaves included; 0 if the tree is empty.
    pub(crate) height: u8,
    pub(crate) entries: u64,
    /// Whether any value stands in a run of its own.
    pub(crate) owns_values: bool,
    /// Number of the merge that made it.
    pub(crate) generation: u64,
}

/// A value as a leaf holds it.
pub(crate) enum FoundValue<'g> {
    /// In the leaf itself, at these of its bytes.
    Inline(PageRef<'g>, Range<usize>),
    /// In a run of its own, of this length: see [`load_run`].
    Run(PagePointer, u32),
    /// None: the key is deleted, whatever older trees say.
    Deletion,
}

/// Pins the run that holds a value of `len` bytes. The value is at bytes 32..32 + `len`.
pub(crate) fn load_run(
    store: &Arc<PartitionedStorageBackend>,
    pointer: PagePointer,
    len: u32,
) -> Result<PinnedPage> {
    let page = store.pin(pointer)?;
    if page.len() < HEADER_LEN + len as usize {
        return Err(run_too_short(store, pointer));
    }
    Ok(page)
}

#[cold]
pub(super) fn run_too_short(store: &PartitionedStorageBackend, pointer: PagePointer) -> Error {
    locate(store, pointer, super::node::Fault("a value is longer than the run that holds it"))
}

impl Tree {
    /// The root and its level.
    pub(super) fn top(&self, store: &PartitionedStorageBackend) -> Result<Option<(PagePointer, u8)>> {
        match (self.root, self.height) {
            (None, 0) => Ok(None),
            (Some(root), 1..=MAX_HEIGHT) => Ok(Some((root, self.height - 1))),
            _ => {
                let message = format!("a tree has the height {}", self.height);
                Err(Error::corruption(message).of_family(store.family().0))
            }
        }
    }

    /// The value of `key`. Reads one node of each level, and no value run.
    #[inline]
    pub(crate) fn get<'g>(
        &self,
        store: &PartitionedStorageBackend,
        key: &[u8],
        guard: &'g Guard,
    ) -> Result<Option<FoundValue<'g>>> {
        let Some((mut pointer, mut level)) = self.top(store)? else { return Ok(None) };
        loop {
            let page = store.read(pointer, guard)?;
            let fault = |fault| locate(store, pointer, fault);
            let node = Node::open(&page, level).map_err(fault)?;
            if level > 0 {
                let child = node.child(node.child_index(key).map_err(fault)?);
                pointer = child.pointer;
                level -= 1;
                continue;
            }
            let (index, found) = node.search(key).map_err(fault)?;
            if !found {
                return Ok(None);
            }
            return Ok(Some(match node.entry(index).map_err(fault)?.value {
                LeafValue::Inline(range) => FoundValue::Inline(page, range),
                LeafValue::Run(value) => FoundValue::Run(value.run, value.len),
                LeafValue::Deletion => FoundValue::Deletion,
            }));
        }
    }

    /// Whether `key` has a value.
    pub(crate) fn contains(
        &self,
        store: &PartitionedStorageBackend,
        key: &[u8],
        guard: &Guard,
    ) -> Result<bool> {
        Ok(!matches!(self.get(store, key, guard)?, None | Some(FoundValue::Deletion)))
    }

    /// Number of entries in `[start, end)`, by the counts in the inner nodes: reads two nodes of each level.
    pub(crate) fn count_range(
        &self,
        store: &PartitionedStorageBackend,
        start: Option<&[u8]>,
        end: Option<&[u8]>,
    ) -> Result<u64> {
        let below_start = start.map_or(Ok(0), |start| self.rank(store, start))?;
        let below_end = end.map_or(Ok(self.entries), |end| self.rank(store, end))?;
        Ok(below_end.saturating_sub(below_start))
    }

    /// Number of entries below `key`.
    fn rank(&self, store: &PartitionedStorageBackend, key: &[u8]) -> Result<u64> {
        let Some((mut pointer, mut level)) = self.top(store)? else { return Ok(0) };
        let guard = crate::sync::epoch::pin();
        let mut rank = 0u64;
        loop {
            let page = store.read(pointer, &guard)?;
            let fault = |fault| locate(store, pointer, fault);
            let node = Node::open(&page, level).map_err(fault)?;
            if level == 0 {
                let (index, _) = node.search(key).map_err(fault)?;
                return Ok(rank.saturating_add(index as u64));
            }
            let index = node.child_index(key).map_err(fault)?;
            rank = rank.saturating_add(node.entries_before(index));
            pointer = node.child(index).pointer;
            level -= 1;
        }
    }
}
