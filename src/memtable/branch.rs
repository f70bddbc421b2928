//! A branch: sorted separators and children, built once at its exact size.
//!
//! ```text
//! header 24 | heads of the separators 8n | children 8n
//! ```
//!
//! Child *i* holds the keys from separator *i* up to separator *i + 1*. A separator is the lower bound of its
//! child and stands there; the branch has only its head. Nothing in a branch changes but the pointer to a
//! child, which may be replaced by that to another node of the same range.
//!
//! The children of a branch of level 0 are entries, and their keys the separators (see `ranges`).

use std::ptr::NonNull;

use super::arena::{Arena, Bump};
use super::entry::{EntryHeader, EntryRef};
use super::node::{NodeHeader, NodeRef, head};
use crate::codec::ids::SequenceNumber;
use crate::codec::key;
use crate::codec::prefetch::LINE;
use crate::sync::atomic::{AtomicPtr, Ordering};

/// A branch of an arena that lives for `'a`.
#[derive(Clone, Copy)]
pub(super) struct BranchRef<'a>(NodeRef<'a>);

/// The head of a child's separator, and the child.
#[derive(Clone, Copy)]
pub(super) struct Child<'a> {
    pub(super) head: u64,
    pub(super) target: Target<'a>,
}

/// What a branch points to: a node, or in a branch of level 0 an entry.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    Node(NodeRef<'a>),
    Entry(EntryRef<'a>),
}

/// Children that a branch of this level can have. Branches above leaves are copied at every split of a leaf,
/// and the copies stay until the memtable goes, so they are kept small; those above them are copied rarely.
pub(super) const fn most_children(level: u8) -> usize {
    if cfg!(loom) {
        2
    } else if level <= 1 {
        16
    } else {
        32
    }
}

impl<'a> Child<'a> {
    /// A node as the child of a branch with that prefix.
    pub(super) fn node(node: NodeRef<'a>, prefix: u32) -> Self {
        Self { head: node.low().map_or(0, |low| head(low.key(), prefix)), target: Target::Node(node) }
    }

    /// An entry as the child of a branch of level 0.
    pub(super) fn entry(entry: EntryRef<'a>) -> Self {
        Self { head: head(entry.key(), 0), target: Target::Entry(entry) }
    }

    /// This child of a branch with the prefix `from` as the child of one with the prefix `to`.
    pub(super) fn with_prefix(self, from: u32, to: u32) -> Self {
        if from == to {
            return self;
        }
        Self { head: self.separator().map_or(0, |separator| head(separator.key(), to)), ..self }
    }

    /// `parent`, whose first child this is, as a child.
    pub(super) fn of_parent(self, parent: NodeRef<'a>) -> Self {
        Self { target: Target::Node(parent), ..self }
    }

    /// The lower bound of the child; `None`: all keys are above it.
    pub(super) fn separator(&self) -> Option<EntryRef<'a>> {
        match self.target {
            Target::Node(node) => node.low(),
            Target::Entry(entry) => Some(entry),
        }
    }
}

impl<'a> BranchRef<'a> {
    /// `node` must be a branch: of a level above 0, or of a tree that has no leaves.
    #[inline]
    pub(super) fn new(node: NodeRef<'a>) -> Self {
        Self(node)
    }

    /// A new branch of a tree of keys. `low` is its lower bound and the separator of its first child.
    pub(super) fn build(
        arena: &'a Arena,
        bump: &mut Bump,
        low: Option<EntryRef<'a>>,
        level: u8,
        prefix: u32,
        children: &[Child<'a>],
    ) -> Self {
        Self::write(
            arena,
            bump,
            NodeHeader::of_branch(low.map(EntryRef::as_ptr), prefix, level, false),
            children,
        )
    }

    /// A new branch of a tree of boundaries, which has no prefix. The first of them is its lower bound.
    pub(super) fn build_of_boundaries(
        arena: &'a Arena,
        bump: &mut Bump,
        level: u8,
        has_gap: bool,
        children: &[Child<'a>],
    ) -> Self {
        let low = children.first().and_then(Child::separator).map(EntryRef::as_ptr);
        Self::write(arena, bump, NodeHeader::of_branch(low, 0, level, has_gap), children)
    }

    /// A new branch with this header, but for the count.
    fn write(arena: &'a Arena, bump: &mut Bump, header: NodeHeader, children: &[Child<'a>]) -> Self {
        let level = header.level;
        let count = children.len();
        assert!(
            (1..=most_children(level)).contains(&count),
            "a branch with {count} children on level {level}"
        );
        let size = size_of::<NodeHeader>() + count * (size_of::<u64>() + size_of::<AtomicPtr<NodeHeader>>());
        let start = bump.allocate(arena, size, LINE).cast::<NodeHeader>();
        // SAFETY: the allocation has room for the header, the heads and the children in this order, it is
        // aligned for each of them (a header is a multiple of eight bytes long), and lives as long as the
        // arena, for 'a.
        unsafe {
            start.write(NodeHeader { count: count as u8, ..header });
            let heads = start.add(1).cast::<u64>();
            let targets = heads.add(count).cast::<AtomicPtr<NodeHeader>>();
            for (i, child) in children.iter().enumerate() {
                let target = match child.target {
                    Target::Node(node) if level > 0 => node.as_ptr(),
                    Target::Entry(entry) if level == 0 => entry.as_ptr().cast(),
                    _ => panic!(
                        "the children of a branch are entries on level 0 and nodes above, this is level {level}"
                    ),
                };
                heads.add(i).write(child.head);
                targets.add(i).write(AtomicPtr::new(target.as_ptr()));
            }
            Self(NodeRef::from_ptr(start))
        }
    }

    #[inline]
    pub(super) fn node(self) -> NodeRef<'a> {
        self.0
    }

    #[inline]
    pub(super) fn low(self) -> Option<EntryRef<'a>> {
        self.0.low()
    }

    #[inline]
    pub(super) fn prefix(self) -> u32 {
        self.0.header().prefix
    }

    #[inline]
    pub(super) fn level(self) -> u8 {
        self.0.header().level
    }

    /// Whether a boundary under this branch of range deletions covers nothing.
    #[inline]
    pub(super) fn has_gap(self) -> bool {
        self.0.header().has_gap
    }

    #[inline]
    pub(super) fn count(self) -> usize {
        usize::from(self.0.header().count)
    }

    #[inline]
    fn heads(self) -> &'a [u64] {
        // SAFETY: `build` wrote `count` heads behind the header, which never change; the pointer covers the
        // whole node.
        unsafe {
            let heads = self.0.as_ptr().add(1).cast::<u64>();
            std::slice::from_raw_parts(heads.as_ptr(), self.count())
        }
    }

    #[inline]
    fn targets(self) -> &'a [AtomicPtr<NodeHeader>] {
        // SAFETY: `build` wrote `count` children behind the heads; they are atomics, which may change under a
        // reference.
        unsafe {
            let heads = self.0.as_ptr().add(1).cast::<u64>();
            let targets = heads.add(self.count()).cast::<AtomicPtr<NodeHeader>>();
            std::slice::from_raw_parts(targets.as_ptr(), self.count())
        }
    }

    #[inline]
    fn target(self, index: usize) -> NonNull<NodeHeader> {
        NonNull::new(self.targets()[index].load(Ordering::Acquire))
            .expect("a branch is built with all its children")
    }

    /// The node that is child `index`.
    #[inline]
    pub(super) fn child(self, index: usize) -> NodeRef<'a> {
        debug_assert!(self.level() > 0, "the children of a branch of level 0 are entries");
        // SAFETY: above level 0 children are nodes of the same arena, stored by `build` or `publish`. The
        // acquire load sees the node as it was then.
        unsafe { NodeRef::from_ptr(self.target(index)) }
    }

    /// The entry that is child `index` of a branch of level 0.
    #[inline]
    pub(super) fn entry(self, index: usize) -> EntryRef<'a> {
        assert_eq!(self.level(), 0, "the children of a branch above level 0 are nodes");
        // SAFETY: on level 0 `build` stored entries of the same arena, and `publish` is not for such a
        // branch.
        unsafe { EntryRef::from_ptr(self.target(index).cast::<EntryHeader>()) }
    }

    /// Child `index` with its head; `None` if there are not as many.
    pub(super) fn get(self, index: usize) -> Option<Child<'a>> {
        let &head = self.heads().get(index)?;
        let target = if self.level() == 0 {
            Target::Entry(self.entry(index))
        } else {
            Target::Node(self.child(index))
        };
        Some(Child { head, target })
    }

    pub(super) fn children(self) -> impl Iterator<Item = Child<'a>> {
        (0..self.count()).filter_map(move |index| self.get(index))
    }

    /// The lower bound of child `index`; `None`: all keys are above it.
    #[inline]
    pub(super) fn separator(self, index: usize) -> Option<EntryRef<'a>> {
        if self.level() == 0 { Some(self.entry(index)) } else { self.child(index).low() }
    }

    /// Replaces child `index` by a node of the same range. Only the writer calls this.
    pub(super) fn publish(self, index: usize, node: NodeRef<'a>) {
        assert!(self.level() == node.header().level + 1, "{} above {}", self.level(), node.header().level);
        self.targets()[index].store(node.as_ptr().as_ptr(), Ordering::Release);
    }

    /// Number of separators at or below `key`.
    #[inline]
    pub(super) fn at_or_below(self, key: &[u8]) -> usize {
        let (head, heads) = (head(key, self.prefix()), self.heads());
        let rank = heads.iter().map(|&other| usize::from(other <= head)).sum();
        if rank > 0 && heads[rank - 1] == head {
            return self.among_equals(heads.partition_point(|&other| other < head), rank, key, true);
        }
        rank
    }

    /// Number of separators below `key`.
    pub(super) fn below(self, key: &[u8]) -> usize {
        let (head, heads) = (head(key, self.prefix()), self.heads());
        let first = heads.partition_point(|&other| other < head);
        let last = heads.partition_point(|&other| other <= head);
        self.among_equals(first, last, key, false)
    }

    /// `low` plus the number of separators from there up to `high` that are below `key`, or equal it if these
    /// count.
    fn among_equals(self, mut low: usize, mut high: usize, key: &[u8], equal_counts: bool) -> usize {
        while low < high {
            let middle = low.midpoint(high);
            let counts = self.separator(middle).is_none_or(|separator| {
                let order = key::compare(separator.key(), key);
                order.is_lt() || order.is_eq() && equal_counts
            });
            if counts {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The child in which `key` belongs. Keys below all separators belong in the first.
    #[inline]
    pub(super) fn index_for(self, key: &[u8]) -> usize {
        self.at_or_below(key).saturating_sub(1)
    }
}

impl BranchRef<'_> {
    /// Whether every key below is deleted.
    pub(super) fn is_dead(self) -> bool {
        (0..self.count()).all(|index| self.child(index).header().is_dead_at(SequenceNumber::MAX))
    }

    /// Marks a branch that was just built if all its children are marked.
    pub(super) fn mark_built(self) {
        if self.is_dead() {
            let since = |index| self.child(index).header().dead_since.load(Ordering::Relaxed);
            let since = (0..self.count()).map(since).fold(0, u64::max);
            self.node().header().set_dead(SequenceNumber(since));
        }
    }
}

impl<'a> From<BranchRef<'a>> for NodeRef<'a> {
    fn from(branch: BranchRef<'a>) -> Self {
        branch.node()
    }
}
