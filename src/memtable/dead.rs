//! Nodes below which every key is deleted, so that walks pass them whole.
//!
//! A node is *dead since* the commit of some number if, for every reader at that number or a later one, each
//! key below it is deleted by an entry of its own. The writer says so in the node's header:
//!
//! 1. A leaf is marked when the last of its keys is deleted, and a branch when the last of its children is,
//!    with the number of the deletion that did it: no entry below has a higher one. A mark is set at once
//!    with that deletion, before its commit is visible.
//! 2. Before a value goes into a dead leaf, the marks of the leaf and of all branches above are taken away.
//!    So the mark of a branch says that all leaves below are marked, and to look at the leaf is enough.
//! 3. A node that is built without a look at all of its children has no mark. That costs walks a step into
//!    it, and nothing else.
//!
//! # Why a reader that passes a marked node misses nothing
//!
//! Let the reader's number be at or above that of the mark it loads. What is visible to it was written before
//! its first load (see the folder), marks taken away included. So no value that it may see came after the
//! mark was set, or it would have found none, or one with the number of a later deletion. Values with higher
//! numbers than its own it does not see anyway, and a mark that one of these took away, or that was set after
//! it, only makes it look. A node that was replaced before the reader's first load is not found by it; one
//! that was replaced since has the marks that it had then.

use std::cell::Cell;
use std::ops::ControlFlow;

use super::arena::Arena;
use super::entry::EntryRef;
use super::node::NodeRef;
use super::opened::Node;
use super::tree::Tree;
use crate::codec::entry::EntryKind;
use crate::codec::ids::SequenceNumber;
use crate::codec::key;

/// What a walk looks for.
#[derive(Clone, Copy)]
pub(super) struct Search<'k> {
    pub(super) at: SequenceNumber,
    /// The walk begins here.
    pub(super) from: &'k [u8],
    /// Keys from here on, in the direction of the walk, are not wanted.
    pub(super) until: Option<&'k [u8]>,
    /// Keys and marked nodes that were looked at.
    pub(super) looked: &'k Cell<u64>,
}

impl Search<'_> {
    /// Whether the walk does not go into `node`.
    fn passes(&self, node: NodeRef<'_>) -> bool {
        self.looked.set(self.looked.get() + 1);
        node.header().is_dead_at(self.at)
    }
}

/// Breaks with the entry that was found, or with none where keys are not wanted.
type Found<'a> = ControlFlow<Option<EntryRef<'a>>>;

impl Tree {
    /// `key` was deleted with the number `sequence`: marks what is dead since.
    #[cold]
    pub(super) fn mark_dead(&self, arena: &Arena, key: &[u8], sequence: SequenceNumber) {
        if let Some(root) = self.root(arena) {
            mark(root, key, sequence);
        }
    }

    /// A value is about to be put under `key`: nothing above it is dead.
    #[cold]
    pub(super) fn revive(&self, arena: &Arena, key: &[u8]) {
        let mut node = self.root(arena);
        while let Some(here) = node {
            here.header().set_alive();
            node = match here.open() {
                Node::Leaf(_) => None,
                Node::Branch(branch) => Some(branch.child(branch.index_for(key))),
            };
        }
    }

    /// The newest version of the first key at or above `search.from`, and below the end, that has a value.
    pub(super) fn first_live<'a>(&self, arena: &'a Arena, search: Search<'_>) -> Option<EntryRef<'a>> {
        up(self.root(arena)?, search, true).break_value().flatten()
    }

    /// The newest version of the last key at or below `search.from`, and above the end, that has a value.
    pub(super) fn last_live<'a>(&self, arena: &'a Arena, search: Search<'_>) -> Option<EntryRef<'a>> {
        down(self.root(arena)?, search, true).break_value().flatten()
    }
}

/// Marks the nodes on the way to `key` that are dead, from the leaf on upward. Returns whether `node` is.
fn mark(node: NodeRef<'_>, key: &[u8], sequence: SequenceNumber) -> bool {
    let is_dead = match node.open() {
        Node::Leaf(leaf) => leaf.is_deleted(),
        Node::Branch(branch) => mark(branch.child(branch.index_for(key)), key, sequence) && branch.is_dead(),
    };
    if is_dead {
        node.header().set_dead(sequence);
    }
    is_dead
}

/// `edge`: the node is the first of the walk.
fn up<'a>(node: NodeRef<'a>, search: Search<'_>, edge: bool) -> Found<'a> {
    match node.open() {
        Node::Leaf(leaf) => {
            let order = leaf.order();
            let first = if edge { leaf.search(order, search.from).rank() } else { 0 };
            (first..order.count()).try_for_each(|rank| {
                look_at(leaf.entry(order, rank), search, |key, until| key::compare(key, until).is_lt())
            })
        }
        Node::Branch(branch) => {
            let first = if edge { branch.index_for(search.from) } else { 0 };
            (first..branch.count()).try_for_each(|index| match branch.child(index) {
                child if search.passes(child) => ControlFlow::Continue(()),
                child => up(child, search, edge && index == first),
            })
        }
    }
}

fn down<'a>(node: NodeRef<'a>, search: Search<'_>, edge: bool) -> Found<'a> {
    match node.open() {
        Node::Leaf(leaf) => {
            let order = leaf.order();
            let end = if edge { leaf.search(order, search.from).end() } else { order.count() };
            (0..end).rev().try_for_each(|rank| {
                look_at(leaf.entry(order, rank), search, |key, until| key::compare(key, until).is_gt())
            })
        }
        Node::Branch(branch) => {
            let last = if edge { branch.index_for(search.from) } else { branch.count() - 1 };
            (0..=last).rev().try_for_each(|index| match branch.child(index) {
                child if search.passes(child) => ControlFlow::Continue(()),
                child => down(child, search, edge && index == last),
            })
        }
    }
}

fn look_at<'a>(
    newest: EntryRef<'a>,
    search: Search<'_>,
    is_wanted: impl FnOnce(&[u8], &[u8]) -> bool,
) -> Found<'a> {
    search.looked.set(search.looked.get() + 1);
    if search.until.is_some_and(|until| !is_wanted(newest.key(), until)) {
        return ControlFlow::Break(None);
    }
    match newest.visible(search.at) {
        Some(entry) if entry.kind() != EntryKind::Delete => ControlFlow::Break(Some(newest)),
        _ => ControlFlow::Continue(()),
    }
}
