//! Builds a tree from left to right, from entries and from subtrees of an older tree that stay as they are.
//!
//! 1. Entries and subtrees arrive in ascending order. A subtree is followed by the lower fence of what comes
//!    next ([`TreeBuilder::open`]) before entries are added: what the subtree holds is not known here.
//! 2. A node is written once, and what was written is needed: nothing is taken back but by a merge that
//!    fails.
//! 3. A subtree is read only to be absorbed by a remainder that would make a very small node, or to see
//!    whether it makes a root of one child.

use super::combine::Combined;
use super::inner_level::InnerLevel;
use super::leaf_level::{LeafLevel, OldLeaf};
use super::locate::locate;
use super::node::{Fault, MAX_HEIGHT, Node, Shape, kind};
use super::output::Output;
use super::records::Child;
use super::split_key::SplitKey;
use super::tree::Tree;
use crate::codec::expiry::{self, Expiry, Now};
use crate::error::{Error, Result};
use crate::page::{PagePointer, PinnedPage};
use crate::segment::PartitionedStorageBackend;
use crate::sync::Arc;

/// How a merge builds its tree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MergeOptions {
    /// How full a node is made when more follow, in percent of its page: 50 to 100.
    pub(crate) fill: u8,
    /// Number of the merge; every page that it writes carries it.
    pub(crate) generation: u64,
    /// Whether a deletion stays in the tree as an entry, for what older trees hold; otherwise it only takes
    /// the key out.
    pub(crate) keep_deletions: bool,
    /// What has expired by then is left out of what is written, unless deletions are kept.
    pub(crate) now: Now,
}

pub(super) struct TreeBuilder<'s, 'm> {
    pub(super) out: Output<'s>,
    fill: u8,
    pub(super) keep_deletions: bool,
    now: Now,
    leaves: LeafLevel<'m>,
    /// `inners[l]` collects nodes of level `l` as children.
    inners: Vec<InnerLevel>,
    /// Nothing was added yet: what comes first has the empty separator.
    at_left_edge: bool,
}

impl<'s, 'm> TreeBuilder<'s, 'm> {
    pub(super) fn new(store: &'s Arc<PartitionedStorageBackend>, options: &MergeOptions) -> Self {
        Self {
            out: Output::new(store, options.generation),
            fill: options.fill,
            keep_deletions: options.keep_deletions,
            now: if options.keep_deletions { Now::UNASKED } else { options.now },
            leaves: LeafLevel::new(store.page_size(), options.fill),
            inners: Vec::new(),
            at_left_edge: true,
        }
    }

    /// What follows lies at or above `fence`, and what the last subtree holds lies below.
    pub(super) fn open(&mut self, fence: &[u8]) {
        self.leaves.open(fence);
    }

    /// Whether a value of `len` bytes that comes next is to stand in a run of its own.
    pub(super) fn wants_run(&mut self, len: usize) -> bool {
        self.leaves.wants_run(len)
    }

    /// Adds a new entry.
    pub(super) fn push_new(&mut self, key: &'m [u8], value: &'m [u8]) -> Result<()> {
        let complete = if self.wants_run(value.len()) {
            let value = self.out.write_value(value, 0)?;
            self.leaves.add_new_run(key, value)
        } else {
            self.leaves.add_new(key, value)
        };
        let complete = complete.map_err(|fault| self.family_fault(fault))?;
        self.write_complete(complete)
    }

    /// Adds a new entry with a stamped value.
    pub(super) fn push_expiring(&mut self, key: &'m [u8], stamped: &'m [u8]) -> Result<()> {
        let (expiry, value) = self.split(stamped)?;
        let complete = if self.wants_run(value.len()) {
            let value = self.out.write_value(value, expiry)?;
            self.leaves.add_new_run(key, value)
        } else {
            self.leaves.add_new_expiring(key, stamped)
        };
        let complete = complete.map_err(|fault| self.family_fault(fault))?;
        self.write_complete(complete)
    }

    /// Expiry and value of a stamped value.
    pub(super) fn split<'v>(&self, stamped: &'v [u8]) -> Result<(Expiry, &'v [u8])> {
        let nonsense = Fault("the expiry of a value makes no sense");
        expiry::split(stamped).ok_or_else(|| self.family_fault(nonsense))
    }

    /// Adds what operands came to, if that is anything.
    pub(super) fn push_combined(&mut self, key: &'m [u8], combined: Combined) -> Result<()> {
        let complete = match combined {
            Combined::Nothing if self.keep_deletions => self.leaves.add_deletion(key),
            Combined::Nothing => return Ok(()),
            Combined::Expiring(stamped) => {
                let (expiry, value) = self.split(&stamped)?;
                if self.wants_run(value.len()) {
                    let value = self.out.write_value(value, expiry)?;
                    self.leaves.add_new_run(key, value)
                } else {
                    self.leaves.add_made(key, kind::OPERANDS, stamped)
                }
            }
            Combined::Value(value) if self.wants_run(value.len()) => {
                let value = self.out.write_value(&value, 0)?;
                self.leaves.add_new_run(key, value)
            }
            Combined::Value(value) => self.leaves.add_made(key, kind::INLINE, value),
            Combined::Operands(list) => self.leaves.add_made(key, kind::OPERANDS, list),
        };
        let complete = complete.map_err(|fault| self.family_fault(fault))?;
        self.write_complete(complete)
    }

    /// Adds a new entry with its value in a run of its own, however long it is.
    #[cfg(all(test, not(loom)))]
    pub(super) fn push_in_run(&mut self, key: &'m [u8], value: &[u8]) -> Result<()> {
        let value = self.out.write_value(value, 0)?;
        let complete = self.leaves.add_new_run(key, value).map_err(|fault| self.family_fault(fault))?;
        self.write_complete(complete)
    }

    /// Adds an entry that says that the key is deleted.
    pub(super) fn push_deletion(&mut self, key: &'m [u8]) -> Result<()> {
        let complete = self.leaves.add_deletion(key).map_err(|fault| self.family_fault(fault))?;
        self.write_complete(complete)
    }

    /// Pins an old leaf, whose entries can then be added.
    pub(super) fn hold(&mut self, page: PinnedPage, shape: Shape, pointer: PagePointer) -> OldLeaf {
        self.leaves.hold(page, shape, pointer)
    }

    /// Adds entries `from..to` of an old leaf that was the last to be held.
    pub(super) fn push_old(&mut self, leaf: &OldLeaf, from: usize, to: usize) -> Result<()> {
        for index in from..to {
            let complete = self.leaves.add_old(leaf, index);
            let complete = complete.map_err(|fault| locate(self.out.store, leaf.pointer, fault))?;
            if complete.is_some() {
                self.write_complete(complete)?;
            }
        }
        Ok(())
    }

    /// The same, without entries that have expired: runs that hold their values are retired.
    pub(super) fn push_kept(&mut self, leaf: &OldLeaf, from: usize, to: usize) -> Result<()> {
        if !self.now.judges() {
            return self.push_old(leaf, from, to);
        }
        for index in from..to {
            if !self.leave_out(leaf, index)? {
                self.push_old(leaf, index, index + 1)?;
            }
        }
        Ok(())
    }

    /// Leaves entry `index` of an old leaf out if it has expired. Whether it has.
    pub(super) fn leave_out(&mut self, leaf: &OldLeaf, index: usize) -> Result<bool> {
        let node = leaf.node();
        let value = node.entry(index).map_err(|fault| locate(self.out.store, leaf.pointer, fault))?.value;
        if !node.is_expired(&value, self.now) {
            return Ok(false);
        }
        if let Some((page, pages)) = value.run() {
            self.out.retire(page, pages);
        }
        Ok(true)
    }

    /// Adds an old entry whose value, which expires or has 0, stands in a run, with a copy of the run.
    pub(super) fn push_moved(
        &mut self,
        leaf: &OldLeaf,
        index: usize,
        value: &[u8],
        expiry: Expiry,
    ) -> Result<()> {
        let value = self.out.write_value(value, expiry)?;
        let complete = self.leaves.add_moved(leaf, index, value);
        let complete = complete.map_err(|fault| locate(self.out.store, leaf.pointer, fault))?;
        self.write_complete(complete)
    }

    /// Adds an old entry with another value, which expires or has 0.
    pub(super) fn push_changed(
        &mut self,
        leaf: &OldLeaf,
        index: usize,
        value: Vec<u8>,
        expiry: Expiry,
    ) -> Result<()> {
        if self.wants_run(value.len()) {
            return self.push_moved(leaf, index, &value, expiry);
        }
        let (kind, bytes) = match expiry {
            0 => (kind::INLINE, value),
            _ => (kind::OPERANDS, expiry::stamped(expiry, &value)),
        };
        let complete = self.leaves.add_changed(leaf, index, kind, bytes);
        let complete = complete.map_err(|fault| locate(self.out.store, leaf.pointer, fault))?;
        self.write_complete(complete)
    }

    /// Adds an old entry whose value of `len` bytes stands in the run `value`, with the value in its leaf.
    pub(super) fn push_inlined(
        &mut self,
        leaf: &OldLeaf,
        index: usize,
        value: PinnedPage,
        len: usize,
        expiry: Expiry,
    ) -> Result<()> {
        let complete = self.leaves.add_inlined(leaf, index, value, len, expiry);
        let complete = complete.map_err(|fault| locate(self.out.store, leaf.pointer, fault))?;
        self.write_complete(complete)
    }

    fn family_fault(&self, fault: Fault) -> Error {
        fault.error().of_family(self.out.store.family().0)
    }

    fn write_complete(&mut self, complete: Option<usize>) -> Result<()> {
        match complete {
            Some(count) => self.write_leaf(count),
            None => Ok(()),
        }
    }

    fn write_leaf(&mut self, count: usize) -> Result<()> {
        let mut separator = Vec::new();
        let child = self.leaves.write(count, &mut self.out, &mut separator)?;
        self.add_child(0, &separator, child)
    }

    /// Adds a child of `level` to the nodes above it.
    fn add_child(&mut self, level: usize, separator: &[u8], child: Child) -> Result<()> {
        if level + 1 >= usize::from(MAX_HEIGHT) {
            return Err(
                Error::corruption("a tree is higher than a tree can be").of_family(self.out.store.family().0)
            );
        }
        while self.inners.len() <= level {
            let level = self.inners.len() as u8 + 1;
            self.inners.push(InnerLevel::new(level, self.out.store.page_size(), self.fill));
        }
        let separator = if self.at_left_edge { &[] } else { separator };
        self.at_left_edge = false;
        match self.inners[level].add(separator, child).map_err(|fault| self.family_fault(fault))? {
            Some(count) => self.write_inner(level, count),
            None => Ok(()),
        }
    }

    fn write_inner(&mut self, level: usize, count: usize) -> Result<()> {
        let mut separator = Vec::new();
        let child = self.inners[level].write(count, &mut self.out, &mut separator)?;
        self.add_child(level + 1, &separator, child)
    }

    /// Adds a whole subtree of an older tree, whose root is of `level`. It is not read, unless what waits to
    /// its left would make too small a node without it.
    pub(super) fn push_subtree(&mut self, level: u8, separator: &[u8], child: Child) -> Result<()> {
        let absorbed =
            if level == 0 { self.absorb_leaf(child)? } else { self.absorb_inner(level, separator, child)? };
        if absorbed {
            return Ok(());
        }
        self.flush_leaves(false)?;
        for below in 0..usize::from(level) {
            self.flush_inner(below, false)?;
        }
        self.leaves.skip();
        self.add_child(usize::from(level), separator, child)
    }

    /// Takes over the entries of an untouched leaf if the remainder before it is small and both fit one page.
    fn absorb_leaf(&mut self, child: Child) -> Result<bool> {
        if self.leaves.absorbed || !self.leaves.packer().is_small() {
            return Ok(false);
        }
        let store = self.out.store;
        let fault = |fault| locate(store, child.pointer, fault);
        let page = store.pin(child.pointer)?;
        let node = Node::open(&page, 0).map_err(fault)?;
        let shape = node.shape();
        let count = node.count();
        let last = SplitKey(node.prefix(), node.rest(count - 1).map_err(fault)?);
        let (_, shared) = self.leaves.first_key().map_err(fault)?.compare(last);
        let bytes = node.entries(0, count).map_err(fault)?.len() + count * node.prefix().len();
        if !self.leaves.packer().has_room_for(count, bytes, shared) {
            return Ok(false);
        }
        self.leaves.absorbed = true;
        let leaf = self.hold(page, shape, child.pointer);
        self.out.retire(child.pointer.page, child.pointer.pages);
        self.push_kept(&leaf, 0, count)?;
        Ok(true)
    }

    /// Takes over the children of an untouched inner node if the remainder before it is small.
    fn absorb_inner(&mut self, level: u8, separator: &[u8], child: Child) -> Result<bool> {
        let nodes = usize::from(level) - 1;
        let below = self.leaves.len() > 0 || self.inners.iter().take(nodes).any(|inner| inner.len() > 0);
        let here = self.inners.get(nodes);
        let count = here.map_or(0, InnerLevel::len) + usize::from(below);
        let small = match here {
            Some(inner) if inner.absorbed => false,
            Some(inner) if inner.len() > 0 => inner.packer().is_small(),
            _ => count == 1,
        };
        if !small {
            return Ok(false);
        }
        let store = self.out.store;
        let fault = |fault| locate(store, child.pointer, fault);
        let page = store.pin(child.pointer)?;
        let node = Node::open(&page, level).map_err(fault)?;
        // A single child is better off in any other node: what does not fit one page is then shared by two.
        if let Some(inner) = here
            && count > 1
        {
            let last = SplitKey(node.prefix(), node.rest(node.count() - 1).map_err(fault)?);
            let (_, shared) = SplitKey::whole(inner.separator(0)).compare(last);
            let rests = node.entries(0, node.count()).map_err(fault)?.len();
            let bytes = rests + node.count() * node.prefix().len();
            if !inner.packer().has_room_for(node.count(), bytes, shared) {
                return Ok(false);
            }
        }
        self.out.retire(child.pointer.page, child.pointer.pages);
        let mut key = separator.to_vec();
        for i in 0..node.count() {
            if i > 0 {
                node.key(i, &mut key).map_err(fault)?;
            }
            self.push_subtree(level - 1, &key, node.child(i).map_err(fault)?)?;
            if let Some(inner) = self.inners.get_mut(nodes) {
                inner.absorbed = true;
            }
        }
        Ok(true)
    }

    fn flush_leaves(&mut self, right_edge: bool) -> Result<()> {
        if self.leaves.len() > 0 {
            let (first, second) = self.leaves.packer().divide(right_edge);
            self.write_leaf(first)?;
            if second > 0 {
                self.write_leaf(second)?;
            }
        }
        self.leaves.absorbed = false;
        Ok(())
    }

    fn flush_inner(&mut self, level: usize, right_edge: bool) -> Result<()> {
        let Some(inner) = self.inners.get_mut(level) else { return Ok(()) };
        inner.absorbed = false;
        if inner.len() > 0 {
            let (first, second) = inner.packer().divide(right_edge);
            self.write_inner(level, first)?;
            if second > 0 {
                self.write_inner(level, second)?;
            }
        }
        Ok(())
    }

    /// Ends the tree.
    pub(super) fn finish(&mut self) -> Result<Tree> {
        let generation = self.out.generation;
        Ok(match self.finish_root()? {
            None => Tree { generation, ..Tree::default() },
            Some((root, level)) => Tree {
                root: Some(root.pointer),
                height: level + 1,
                entries: root.entries,
                owns_values: root.owns_values,
                generation,
            },
        })
    }

    /// Writes what waits. Returns the root and its level; `None` if nothing was added.
    fn finish_root(&mut self) -> Result<Option<(Child, u8)>> {
        self.flush_leaves(true)?;
        let mut level = 0;
        while level < self.inners.len() {
            let is_top = self.inners[level + 1..].iter().all(|inner| inner.len() == 0);
            if is_top && self.inners[level].len() == 1 {
                let root = self.inners[level].child(0);
                return self.collapse(root, level as u8).map(Some);
            }
            self.flush_inner(level, true)?;
            level += 1;
        }
        Ok(None)
    }

    /// A root of one child gives way to the child.
    fn collapse(&mut self, mut root: Child, mut level: u8) -> Result<(Child, u8)> {
        let store = self.out.store;
        while level > 0 {
            let page = store.pin(root.pointer)?;
            let node = Node::open(&page, level).map_err(|fault| locate(store, root.pointer, fault))?;
            if node.count() > 1 {
                break;
            }
            let child = node.child(0).map_err(|fault| locate(store, root.pointer, fault))?;
            // What was written here has two children or is not the root: this node is one of the old tree.
            self.out.retire(root.pointer.page, root.pointer.pages);
            root = child;
            level -= 1;
        }
        Ok((root, level))
    }
}
