//! A family's tree at one moment, and point reads in it.

use std::ops::Range;

use super::locate::locate;
use super::node::{LeafValue, MAX_HEIGHT, Node};
use crate::codec::expiry::Expiry;
use crate::error::{Error, Result};
use crate::page::{HEADER_LEN, PagePointer, PageRef, PinnedPage};
use crate::segment::PartitionedStorageBackend;
use crate::sync::epoch::{self, Guard};

/// The family's tree at one moment: a value, cheap to copy; its pages stand in a
/// [`PartitionedStorageBackend`].
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
    /// In a run of its own, of this length: see [`load_run`]. It has an expiry, or 0.
    Run(PagePointer, u32, Expiry),
    /// A stamped value, at these bytes of the leaf.
    Expiring(PageRef<'g>, Range<usize>),
    /// None: the key is deleted, whatever older trees say.
    Deletion,
    /// Operands of the key, at these bytes of the leaf, which a merge operator is to fold.
    Operands(PageRef<'g>, Range<usize>),
}

/// What a look-up that reads nothing from the file came to.
pub(crate) enum Lookup<'g> {
    /// What the tree says of the key.
    Found(Option<FoundValue<'g>>),
    /// A node that is not in memory.
    Absent(Place),
}

/// A node on the way to a key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pointer: PagePointer,
    level: u8,
}

enum Step<'g> {
    Down(Place),
    Found(Option<FoundValue<'g>>),
}

impl Place {
    /// What the node, which is `page`, says of `key`.
    #[inline(always)]
    fn step<'g>(self, store: &PartitionedStorageBackend, page: PageRef<'g>, key: &[u8]) -> Result<Step<'g>> {
        let fault = |fault| locate(store, self.pointer, fault);
        let node = Node::open(&page, self.level).map_err(fault)?;
        if self.level > 0 {
            let child = node.child_index(key).and_then(|index| node.child(index)).map_err(fault)?;
            return Ok(Step::Down(Self { pointer: child.pointer, level: self.level - 1 }));
        }
        let (index, found) = node.search(key).map_err(fault)?;
        if !found {
            return Ok(Step::Found(None));
        }
        Ok(Step::Found(Some(match node.entry(index).map_err(fault)?.value {
            LeafValue::Inline(range) => FoundValue::Inline(page, range),
            LeafValue::Run(value) => FoundValue::Run(value.run, value.len, value.expiry),
            LeafValue::Expiring(range) => FoundValue::Expiring(page, range),
            LeafValue::Deletion => FoundValue::Deletion,
            LeafValue::Operands(range) => FoundValue::Operands(page, range),
        })))
    }

    /// Goes on from here, and reads what is not in memory. The caller holds no guard, but holds the tree.
    #[cold]
    pub(crate) fn read(
        mut self,
        store: &PartitionedStorageBackend,
        key: &[u8],
    ) -> Result<Option<FoundValue<'static>>> {
        loop {
            let page = store.pin(self.pointer)?;
            match self.step(store, PageRef::Pinned(page), key)? {
                Step::Down(child) => self = child,
                Step::Found(found) => return Ok(found),
            }
        }
    }
}

/// Pins the run that holds a value of `len` bytes. The value is at bytes 32..32 + `len`. The caller holds no
/// guard.
pub(crate) fn load_run(
    store: &PartitionedStorageBackend,
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

    /// Where a look-up begins; `None` if the tree is empty.
    fn start(&self, store: &PartitionedStorageBackend) -> Result<Option<Place>> {
        Ok(self.top(store)?.map(|(pointer, level)| Place { pointer, level }))
    }

    /// The value of `key`, if all of its way is in memory. Looks at one node of each level, and at no value
    /// run.
    #[inline]
    pub(crate) fn find<'g>(
        &self,
        store: &'g PartitionedStorageBackend,
        key: &[u8],
        guard: &'g Guard,
    ) -> Result<Lookup<'g>> {
        let Some(mut place) = self.start(store)? else { return Ok(Lookup::Found(None)) };
        loop {
            let Some(page) = store.find(place.pointer, guard) else { return Ok(Lookup::Absent(place)) };
            match place.step(store, page, key)? {
                Step::Down(child) => place = child,
                Step::Found(found) => return Ok(Lookup::Found(found)),
            }
        }
    }

    /// Whether `key` has a value. The caller holds no guard.
    pub(crate) fn contains(&self, store: &PartitionedStorageBackend, key: &[u8]) -> Result<bool> {
        Ok(self.says(store, key)?.unwrap_or(false))
    }

    /// Whether `key` has a value, or was deleted; `None` if the tree says nothing of it. The caller holds no
    /// guard.
    pub(crate) fn says(&self, store: &PartitionedStorageBackend, key: &[u8]) -> Result<Option<bool>> {
        let has_value =
            |found: Option<FoundValue<'_>>| found.map(|found| !matches!(found, FoundValue::Deletion));
        let place = match self.find(store, key, &epoch::pin())? {
            Lookup::Found(found) => return Ok(has_value(found)),
            Lookup::Absent(place) => place,
        };
        place.read(store, key).map(has_value)
    }

    /// The value of `key`, whatever has to be read for it but a value run; the leaf is held by a count. The
    /// caller holds no guard.
    pub(crate) fn read(
        &self,
        store: &PartitionedStorageBackend,
        key: &[u8],
    ) -> Result<Option<FoundValue<'static>>> {
        match self.start(store)? {
            Some(place) => place.read(store, key),
            None => Ok(None),
        }
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
        let mut guard = None;
        let mut rank = 0u64;
        loop {
            let below = store.look(pointer, &mut guard, |page| {
                let node = Node::open(page, level)?;
                if level == 0 {
                    let (index, _) = node.search(key)?;
                    return Ok((index as u64, None));
                }
                let index = node.child_index(key)?;
                Ok((node.entries_before(index), Some(node.child(index)?.pointer)))
            })?;
            let (before, child) = below.map_err(|fault| locate(store, pointer, fault))?;
            rank = rank.saturating_add(before);
            let Some(child) = child else { return Ok(rank) };
            pointer = child;
            level -= 1;
        }
    }
}
