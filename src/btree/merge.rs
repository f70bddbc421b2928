//! Applies range deletions and a sorted batch of operations to a tree, in one pass from left to right.
//!
//! 1. A node is read only if an operation or the edge of a range deletion falls into its range. A subtree
//!    that a range deletion covers whole is dropped: its inner nodes are read to retire their pages, its
//!    leaves only if they own value runs.
//! 2. Nothing is written before something changes: the path from the root to a leaf is *opened* (its nodes
//!    retired, the children to the left handed to the builder) by the first change in that leaf. A batch that
//!    changes nothing writes nothing.
//! 3. Every page of the old tree that the new one does not reach is retired exactly once. That no page is
//!    reached twice is checked, since two pointers on disk could name the same one.

use std::cell::{Cell, OnceCell};
use std::fmt;

use super::builder::{MergeOptions, TreeBuilder};
use super::combine::{Combine, Combined, Old};
use super::leaf_level::OldLeaf;
use super::locate::locate;
use super::node::{Fault, LeafValue, Node, Shape, warm_whole};
use super::output::MergeOutcome;
use super::records::Child;
use super::sift::{Sift, Verdict};
use super::tree::{Tree, load_run};
use crate::codec::expiry::{self, Now};
use crate::codec::key;
use crate::error::{Error, ErrorKind, Result};
use crate::page::{HEADER_LEN, PagePointer, PinnedPage};
use crate::segment::PartitionedStorageBackend;
use crate::sync::Arc;

/// What is to become of a key.
#[derive(Clone, Copy)]
pub(crate) enum MergeOp<'m> {
    Put(&'m [u8]),
    /// A stamped value, see `codec/expiry.rs`.
    PutExpiring(&'m [u8]),
    Delete,
    /// What `by` makes of `list`, whose meaning it knows, and of what the tree says. If it looks at what the
    /// tree says, no range deletion of the same merge covers the key.
    Operands {
        list: &'m [u8],
        by: &'m dyn Combine,
    },
    /// What is put here before it comes to the operation.
    Made(&'m Cell<Option<Combined>>),
}

impl<'m> MergeOp<'m> {
    /// What is to become of a key with a stamped value: if that has expired at `now`, it goes.
    pub(crate) fn of_stamped(stamped: &'m [u8], now: Now) -> Self {
        match expiry::split(stamped) {
            Some((expiry, _)) if now.is_past(expiry) => Self::Delete,
            _ => Self::PutExpiring(stamped),
        }
    }
}

impl fmt::Debug for MergeOp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(value) => f.debug_tuple("Put").field(value).finish(),
            Self::PutExpiring(value) => f.debug_tuple("PutExpiring").field(value).finish(),
            Self::Delete => f.write_str("Delete"),
            Self::Operands { list, .. } => f.debug_tuple("Operands").field(list).finish(),
            Self::Made(_) => f.write_str("Made"),
        }
    }
}

/// Deletes what the tree holds in `[start, end)`; without an end, from `start` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RangeDeletion<'m> {
    pub(crate) start: &'m [u8],
    pub(crate) end: Option<&'m [u8]>,
}

/// Applies first the range deletions (ascending, disjoint) to what the tree holds, then `ops` (strictly
/// ascending keys).
///
/// Asks `should_stop` once for each leaf; if it says so, fails with [`ErrorKind::Closed`]. On any failure
/// nothing has changed: the pages written so far are abandoned.
pub(crate) fn merge<'m>(
    tree: &Tree,
    store: &Arc<PartitionedStorageBackend>,
    deletions: &[RangeDeletion<'m>],
    ops: impl Iterator<Item = Result<(&'m [u8], MergeOp<'m>)>>,
    options: &MergeOptions,
    should_stop: &dyn Fn() -> bool,
) -> Result<MergeOutcome> {
    merge_sifting(tree, store, deletions, ops, options, should_stop, None)
}

/// The same; `sift` is asked of every entry of an old leaf that is written anew and that no operation and no
/// range deletion concerns. Nothing older may stand behind the tree.
pub(crate) fn merge_sifting<'m>(
    tree: &Tree,
    store: &Arc<PartitionedStorageBackend>,
    deletions: &[RangeDeletion<'m>],
    ops: impl Iterator<Item = Result<(&'m [u8], MergeOp<'m>)>>,
    options: &MergeOptions,
    should_stop: &dyn Fn() -> bool,
    sift: Option<&dyn Sift>,
) -> Result<MergeOutcome> {
    assert!(sift.is_none() || !options.keep_deletions, "what is left out would come up from older trees");
    for pair in deletions.windows(2) {
        let disjoint = pair[0].end.is_some_and(|end| key::compare(end, pair[1].start).is_le());
        assert!(disjoint, "{:?} overlaps or follows {:?}", pair[0], pair[1]);
    }
    let mut merger = Merger {
        builder: TreeBuilder::new(store, options),
        store,
        path: Vec::new(),
        deletions,
        ops,
        next_op: None,
        should_stop,
        sift,
        changed: false,
    };
    let new = merger.run(tree);
    merger.builder.out.conclude(tree, new)
}

/// An inner node of the old tree, on the path to where the merge is.
struct Frame {
    page: PinnedPage,
    shape: Shape,
    pointer: PagePointer,
    level: u8,
    /// The node's lower fence.
    low: Vec<u8>,
    /// The child that is being visited.
    index: usize,
    /// Children up to and without this one were handed to the builder, and the node retired.
    opened: bool,
}

impl Frame {
    fn node(&self) -> Node<'_> {
        Node::with_shape(&self.page, self.shape)
    }
}

struct Merger<'s, 'm, 'd, I> {
    builder: TreeBuilder<'s, 'm>,
    store: &'s Arc<PartitionedStorageBackend>,
    path: Vec<Frame>,
    /// Those that may still cover something.
    deletions: &'d [RangeDeletion<'m>],
    ops: I,
    /// The first operation not yet applied.
    next_op: Option<(&'m [u8], MergeOp<'m>)>,
    should_stop: &'d dyn Fn() -> bool,
    sift: Option<&'d dyn Sift>,
    changed: bool,
}

impl<'m, I: Iterator<Item = Result<(&'m [u8], MergeOp<'m>)>>> Merger<'_, 'm, '_, I> {
    fn run(&mut self, tree: &Tree) -> Result<Option<Tree>> {
        self.advance()?;
        match tree.top(self.store)? {
            Some((pointer, level)) => {
                let root = Child { pointer, owns_values: tree.owns_values, entries: tree.entries };
                self.visit(root, level, &[], None)?;
            }
            None => self.push_ops(&[], None)?,
        }
        assert!(self.next_op.is_none(), "operations are left: {:?}", self.next_op);
        if !self.changed {
            return Ok(None);
        }
        self.builder.finish().map(Some)
    }

    fn locate(&self, pointer: PagePointer, fault: Fault) -> Error {
        locate(self.store, pointer, fault)
    }

    /// Steps to the next operation.
    fn advance(&mut self) -> Result<()> {
        let next = self.ops.next().transpose()?;
        if let (Some((last, _)), Some((key, _))) = (self.next_op, next) {
            assert!(key::compare(last, key).is_lt(), "{key:?} follows {last:?} in a batch to merge");
        }
        self.builder.out.stats.entries_in += u64::from(next.is_some());
        self.next_op = next;
        Ok(())
    }

    /// The next operation if it lies below `high`.
    #[inline]
    fn op_below(&self, high: Option<&[u8]>) -> Option<(&'m [u8], MergeOp<'m>)> {
        self.next_op.filter(|(op, _)| high.is_none_or(|high| key::compare(op, high).is_lt()))
    }

    /// The first range deletion that reaches beyond `low`. Lets go of those that do not.
    fn deletion_beyond(&mut self, low: &[u8]) -> Option<RangeDeletion<'m>> {
        while let Some(deletion) = self.deletions.first() {
            if deletion.end.is_none_or(|end| key::compare(end, low).is_gt()) {
                return Some(*deletion);
            }
            self.deletions = &self.deletions[1..];
        }
        None
    }

    /// Applies everything in `[low, high)` to a subtree. Returns whether the subtree changed: then what is
    /// left of it went to the builder, and its pages were retired.
    fn visit(&mut self, child: Child, level: u8, low: &[u8], high: Option<&[u8]>) -> Result<bool> {
        if let Some(deletion) = self.deletion_beyond(low)
            && key::compare(deletion.start, low).is_le()
            && deletion.end.is_none_or(|end| high.is_some_and(|high| key::compare(high, end).is_le()))
        {
            self.open_path()?;
            self.builder.out.stats.subtrees_dropped += 1;
            self.drop_subtree(child, level)?;
            self.push_ops(low, high)?;
            return Ok(true);
        }
        let page = self.store.pin(child.pointer)?;
        if level == 0 {
            warm_whole(&page);
        }
        let node = Node::open(&page, level).map_err(|fault| self.locate(child.pointer, fault))?;
        let shape = node.shape();
        if level == 0 {
            return self.visit_leaf(page, shape, child.pointer, low, high);
        }
        let pointer = child.pointer;
        self.path.push(Frame { page, shape, pointer, level, low: low.to_vec(), index: 0, opened: false });
        self.visit_children(high)?;
        Ok(self.path.pop().is_some_and(|frame| frame.opened))
    }

    /// Visits the children of the last node of the path into which something falls.
    fn visit_children(&mut self, high: Option<&[u8]>) -> Result<()> {
        let depth = self.path.len() - 1;
        // A pin is cheap to copy, and lets the path be changed while the node is read.
        let page = self.path[depth].page.clone();
        let (shape, pointer, level) =
            (self.path[depth].shape, self.path[depth].pointer, self.path[depth].level);
        let node = Node::with_shape(&page, shape);
        let fault = |fault| locate(self.store, pointer, fault);
        let (mut low, mut child_high) = (self.path[depth].low.clone(), Vec::new());
        let mut next = 0;
        while next < node.count() {
            let event = match (self.deletion_beyond(&low), self.next_op) {
                (Some(deletion), _) if key::compare(deletion.start, &low).is_le() => None,
                (Some(deletion), Some((op, _))) if key::compare(op, deletion.start).is_lt() => Some(op),
                (Some(deletion), _) => Some(deletion.start),
                (None, Some((op, _))) => Some(op),
                (None, None) => break,
            };
            let index = match event {
                Some(event) if high.is_some_and(|high| key::compare(event, high).is_ge()) => break,
                Some(event) => node.child_index(event).map_err(fault)?.max(next),
                None => next,
            };
            self.pass(depth, next, index)?;
            if index > next {
                node.key(index, &mut low).map_err(fault)?;
            }
            let is_last = index + 1 == node.count();
            if !is_last {
                node.key(index + 1, &mut child_high).map_err(fault)?;
            }
            let upper = if is_last { high } else { Some(&child_high[..]) };
            self.path[depth].index = index;
            if !self.visit(node.child(index).map_err(fault)?, level - 1, &low, upper)? {
                self.pass(depth, index, index + 1)?;
            }
            next = index + 1;
            std::mem::swap(&mut low, &mut child_high);
        }
        self.pass(depth, next, node.count())
    }

    /// Children `from..to` of a node of the path stay as they are.
    fn pass(&mut self, depth: usize, from: usize, to: usize) -> Result<()> {
        let Self { builder, path, store, .. } = self;
        let frame = &path[depth];
        if frame.opened && from < to {
            push_children(builder, store, frame, from, to)?;
        }
        Ok(())
    }

    /// Something changes below the path: its nodes make way for new ones.
    fn open_path(&mut self) -> Result<()> {
        self.changed = true;
        let Self { builder, path, store, .. } = self;
        for frame in path.iter_mut().filter(|frame| !frame.opened) {
            push_children(builder, store, frame, 0, frame.index)?;
            builder.out.retire(frame.pointer.page, frame.pointer.pages);
            frame.opened = true;
        }
        Ok(())
    }

    /// Adds the entries that operations below `high` put.
    fn push_ops(&mut self, low: &[u8], high: Option<&[u8]>) -> Result<()> {
        self.builder.open(low);
        while let Some((key, op)) = self.op_below(high) {
            self.changed |= self.push_op(key, op)?;
            self.advance()?;
        }
        Ok(())
    }

    /// Adds what an operation leaves of its key. `false` if that is nothing.
    fn push_op(&mut self, key: &'m [u8], op: MergeOp<'m>) -> Result<bool> {
        match op {
            MergeOp::Put(value) => self.builder.push_new(key, value)?,
            MergeOp::PutExpiring(stamped) => self.builder.push_expiring(key, stamped)?,
            MergeOp::Delete if self.builder.keep_deletions => self.builder.push_deletion(key)?,
            MergeOp::Delete => return Ok(false),
            MergeOp::Operands { list, by } => {
                let combined = by.combine(key, list, Old::Nothing, !self.builder.keep_deletions)?;
                self.builder.push_combined(key, combined)?;
            }
            MergeOp::Made(made) => {
                let made = made.take().expect("an operation is applied once, after it was made");
                self.builder.push_combined(key, made)?;
            }
        }
        Ok(true)
    }

    /// Operands meet entry `index` of a leaf, which has their key.
    fn combine(
        &self,
        leaf: &LeafMerge<'_>,
        index: usize,
        (key, list): (&[u8], &[u8]),
        by: &dyn Combine,
    ) -> Result<Combined> {
        let is_last = !self.builder.keep_deletions;
        let node = Node::with_shape(&leaf.page, leaf.shape);
        let entry = node.entry(index).map_err(|fault| self.locate(leaf.pointer, fault))?;
        match entry.value {
            LeafValue::Inline(range) => by.combine(key, list, Old::Value(node.bytes(range)), is_last),
            LeafValue::Expiring(range) => by.combine(key, list, Old::Expiring(node.bytes(range)), is_last),
            LeafValue::Deletion => by.combine(key, list, Old::Deleted, is_last),
            LeafValue::Operands(range) => by.combine(key, list, Old::Operands(node.bytes(range)), is_last),
            LeafValue::Run(value) => {
                let run = load_run(self.store, value.run, value.len)?;
                let bytes = &run[HEADER_LEN..][..value.len as usize];
                if value.expiry == 0 {
                    return by.combine(key, list, Old::Value(bytes), is_last);
                }
                by.combine(key, list, Old::Expiring(&expiry::stamped(value.expiry, bytes)), is_last)
            }
        }
    }

    /// Retires all pages of a subtree.
    fn drop_subtree(&mut self, child: Child, level: u8) -> Result<()> {
        self.builder.out.retire_checked(child.pointer)?;
        if level == 0 && !child.owns_values {
            return Ok(());
        }
        let page = self.store.pin(child.pointer)?;
        let fault = |fault| locate(self.store, child.pointer, fault);
        let node = Node::open(&page, level).map_err(fault)?;
        for i in 0..node.count() {
            if level > 0 {
                self.drop_subtree(node.child(i).map_err(fault)?, level - 1)?;
            } else if let Some((page, pages)) = node.entry(i).map_err(fault)?.value.run() {
                self.builder.out.retire(page, pages);
            }
        }
        Ok(())
    }

    fn visit_leaf(
        &mut self,
        page: PinnedPage,
        shape: Shape,
        pointer: PagePointer,
        low: &[u8],
        high: Option<&[u8]>,
    ) -> Result<bool> {
        if (self.should_stop)() {
            return Err(Error::new(ErrorKind::Closed, "a merge was stopped before its end"));
        }
        let mut leaf = LeafMerge { page, shape, pointer, low, done: 0, old: None };
        while let Some((key, op)) = self.op_below(high) {
            let node = Node::with_shape(&leaf.page, shape);
            let (index, found) =
                node.search_from(leaf.done, key).map_err(|fault| self.locate(pointer, fault))?;
            self.keep(&mut leaf, index)?;
            if found || !matches!(op, MergeOp::Delete) || self.builder.keep_deletions {
                let combined = match op {
                    MergeOp::Operands { list, by } if found => {
                        Some(self.combine(&leaf, index, (key, list), by)?)
                    }
                    _ => None,
                };
                self.open_leaf(&mut leaf)?;
                if found {
                    self.drop_entry(&mut leaf)?;
                }
                match combined {
                    Some(combined) => self.builder.push_combined(key, combined)?,
                    None => drop(self.push_op(key, op)?),
                }
            }
            self.advance()?;
        }
        self.keep(&mut leaf, shape.count())?;
        Ok(leaf.old.is_some())
    }

    /// Carries the entries up to and without `to` over, less those that a range deletion covers.
    fn keep(&mut self, leaf: &mut LeafMerge<'_>, to: usize) -> Result<()> {
        while let Some(deletion) = self.deletions.first() {
            if leaf.done == to {
                return Ok(());
            }
            // A pin is cheap to copy, and lets the leaf be opened while it is read.
            let page = leaf.page.clone();
            let node = Node::with_shape(&page, leaf.shape);
            let fault = |fault| locate(self.store, leaf.pointer, fault);
            let (start, _) = node.search_from(leaf.done, deletion.start).map_err(fault)?;
            if start >= to {
                break;
            }
            let end = match deletion.end {
                Some(end) => node.search_from(start, end).map_err(fault)?.0.min(to),
                None => to,
            };
            self.carry(leaf, start)?;
            for _ in start..end {
                self.drop_entry(leaf)?;
            }
            if end == to {
                break;
            }
            self.deletions = &self.deletions[1..];
        }
        self.carry(leaf, to)
    }

    /// Carries the entries up to and without `to` over.
    #[inline]
    fn carry(&mut self, leaf: &mut LeafMerge<'_>, to: usize) -> Result<()> {
        if let Some(old) = &leaf.old {
            self.push_old(old, leaf.done, to)?;
        }
        leaf.done = to;
        Ok(())
    }

    /// Adds entries `from..to` of an old leaf, as they are or as they are to be.
    #[inline]
    fn push_old(&mut self, leaf: &OldLeaf, from: usize, to: usize) -> Result<()> {
        match self.sift {
            None => self.builder.push_kept(leaf, from, to),
            Some(sift) => self.push_sifted(sift, leaf, from, to),
        }
    }

    fn push_sifted(&mut self, sift: &dyn Sift, leaf: &OldLeaf, from: usize, to: usize) -> Result<()> {
        let node = leaf.node();
        let fault = |fault| locate(self.store, leaf.pointer, fault);
        let mut key = Vec::new();
        for index in from..to {
            if self.builder.leave_out(leaf, index)? {
                continue;
            }
            let entry = node.entry(index).map_err(fault)?;
            let mut expiry = 0;
            key.clear();
            key.extend_from_slice(node.prefix());
            key.extend_from_slice(entry.rest);
            let verdict = match &entry.value {
                LeafValue::Inline(range) => {
                    let value = node.bytes(range.clone());
                    sift.sift(&key, expiry, value.len(), &|| Ok(value))
                }
                LeafValue::Run(value) => {
                    let (run, len) = (OnceCell::new(), value.len as usize);
                    expiry = value.expiry;
                    sift.sift(&key, expiry, len, &|| {
                        if run.get().is_none() {
                            drop(run.set(load_run(self.store, value.run, value.len)?));
                        }
                        Ok(run.get().map_or(&[][..], |run: &PinnedPage| &run[HEADER_LEN..][..len]))
                    })
                }
                LeafValue::Expiring(range) => {
                    let value;
                    (expiry, value) = self.builder.split(node.bytes(range.clone()))?;
                    sift.sift(&key, expiry, value.len(), &|| Ok(value))
                }
                LeafValue::Deletion | LeafValue::Operands(_) => Verdict::Keep,
            };
            match verdict {
                Verdict::Keep => {
                    self.builder.push_old(leaf, index, index + 1)?;
                    continue;
                }
                Verdict::Drop => {}
                Verdict::Change(value) => self.builder.push_changed(leaf, index, value, expiry)?,
            }
            if let Some((page, pages)) = entry.value.run() {
                self.builder.out.retire(page, pages);
            }
        }
        Ok(())
    }

    /// The next entry of the leaf is not carried over.
    fn drop_entry(&mut self, leaf: &mut LeafMerge<'_>) -> Result<()> {
        self.open_leaf(leaf)?;
        let node = Node::with_shape(&leaf.page, leaf.shape);
        let entry = node.entry(leaf.done).map_err(|fault| self.locate(leaf.pointer, fault))?;
        if let LeafValue::Run(value) = entry.value {
            self.builder.out.retire(value.run.page, value.run.pages);
        }
        leaf.done += 1;
        Ok(())
    }

    /// Something changes in the leaf: it makes way for a new one.
    fn open_leaf(&mut self, leaf: &mut LeafMerge<'_>) -> Result<()> {
        if leaf.old.is_some() {
            return Ok(());
        }
        self.open_path()?;
        self.builder.out.retire(leaf.pointer.page, leaf.pointer.pages);
        self.builder.open(leaf.low);
        let old = self.builder.hold(leaf.page.clone(), leaf.shape, leaf.pointer);
        self.push_old(&old, 0, leaf.done)?;
        leaf.old = Some(old);
        Ok(())
    }
}

/// A leaf of the old tree that is being merged.
struct LeafMerge<'k> {
    page: PinnedPage,
    shape: Shape,
    pointer: PagePointer,
    low: &'k [u8],
    /// Entries that are dealt with.
    done: usize,
    /// The leaf as the builder holds it, once something in it changed.
    old: Option<OldLeaf>,
}

fn push_children(
    builder: &mut TreeBuilder<'_, '_>,
    store: &PartitionedStorageBackend,
    frame: &Frame,
    from: usize,
    to: usize,
) -> Result<()> {
    let node = frame.node();
    let fault = |fault| locate(store, frame.pointer, fault);
    let mut separator = Vec::new();
    for i in from..to {
        if i == 0 {
            separator.clone_from(&frame.low);
        } else {
            node.key(i, &mut separator).map_err(fault)?;
        }
        builder.push_subtree(frame.level - 1, &separator, node.child(i).map_err(fault)?)?;
    }
    Ok(())
}
