//! Range deletions: for every moment, which range deletion is the newest that covers a key.
//!
//! Seen at one moment this is a step function of the key. It is stored as a tree of branches whose lowest children are
//! *boundaries*: entries whose sequence is that of the newest deletion that covers the keys from there up to the next
//! boundary, 0 where none does. Every range deletion makes a new tree that shares all but the two edges of its range
//! with the one before and drops the boundaries in between, so it costs two descents, whatever it covers. Trees are
//! never changed; the list of them, newest first, leads from a moment to its tree.
//!
//! The rejected alternative, one tree whose boundaries each hold a chain of all deletions above them, costs a push on
//! every boundary that a deletion covers, so overlapping deletions cost the square of their number in memory.
//!
//! Source for the list's jump pointers: E. W. Myers, "An applicative random-access stack", IPL 17, 1983.

use std::ptr::NonNull;

use super::arena::{Arena, Bump};
use super::branch::{BranchRef, Child, most_children};
use super::entry::EntryRef;
use super::node::{NodeHeader, NodeRef};
use crate::codec::entry::EntryKind;
use crate::codec::ids::SequenceNumber;
use crate::sync::atomic::{AtomicPtr, Ordering};

const NOT_COVERED: SequenceNumber = SequenceNumber(0);

pub(super) struct RangeDeletions {
    newest: AtomicPtr<Version>,
}

/// The step function from a range deletion on.
pub(super) struct Version {
    sequence: SequenceNumber,
    root: NonNull<NodeHeader>,
    /// Number of versions before this one.
    depth: u64,
    older: Option<NonNull<Version>>,
    /// A version further back, such that any moment is reached in a logarithmic number of steps.
    jump: Option<NonNull<Version>>,
}

/// The step function at one moment.
#[derive(Clone, Copy)]
pub(super) struct Steps<'a> {
    root: BranchRef<'a>,
}

#[derive(Clone, Copy)]
struct VersionRef<'a>(&'a Version);

impl<'a> VersionRef<'a> {
    fn follow(self, link: Option<NonNull<Version>>) -> Option<Self> {
        // SAFETY: a link of a version leads to a version of the same arena that was written before it.
        link.map(|link| Self(unsafe { link.as_ref() }))
    }

    fn older(self) -> Option<Self> {
        self.follow(self.0.older)
    }

    fn jump(self) -> Option<Self> {
        self.follow(self.0.jump)
    }

    fn steps(self) -> Steps<'a> {
        // SAFETY: `delete` stored a node of the same arena that it built before the version.
        Steps { root: BranchRef::new(unsafe { NodeRef::from_ptr(self.0.root) }) }
    }
}

impl RangeDeletions {
    pub(super) fn new() -> Self {
        Self { newest: AtomicPtr::new(std::ptr::null_mut()) }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.newest.load(Ordering::Acquire).is_null()
    }

    fn newest<'a>(&self, _arena: &'a Arena) -> Option<VersionRef<'a>> {
        let version = NonNull::new(self.newest.load(Ordering::Acquire))?;
        // SAFETY: `delete` stored it, with a version of the same arena; the acquire load sees it as it was then.
        Some(VersionRef(unsafe { version.as_ref() }))
    }

    /// The step function of all range deletions at or below `at`; `None` if there are none.
    #[inline]
    pub(super) fn at<'a>(&self, arena: &'a Arena, at: SequenceNumber) -> Option<Steps<'a>> {
        let mut version = self.newest(arena)?;
        while version.0.sequence > at {
            version = match version.jump() {
                Some(jump) if jump.0.sequence > at => jump,
                _ => version.older()?,
            };
        }
        Some(version.steps())
    }

    /// Deletes `[start, end)` of what is below `sequence`. Only the writer calls this.
    pub(super) fn delete(
        &self,
        arena: &Arena,
        memory: &mut Memory<'_>,
        start: &[u8],
        end: &[u8],
        sequence: SequenceNumber,
    ) {
        assert!(sequence > NOT_COVERED, "a range deletion with sequence number {sequence}");
        let older = self.newest(arena);
        let steps = older.map(VersionRef::steps);
        let boundary = |memory: &mut Memory<'_>, key, sequence| {
            EntryRef::write(arena, memory.entries, None, sequence, EntryKind::RangeDelete, key, &[])
        };
        let at_end = steps.and_then(|steps| steps.floor(end));
        let mut new = vec![Child::entry(boundary(memory, start, sequence))];
        if at_end.is_none_or(|floor| floor.key() != end) {
            let after = at_end.map_or(NOT_COVERED, |floor| floor.sequence());
            new.push(Child::entry(boundary(memory, end, after)));
        }
        let root = match steps {
            None => pack(arena, memory, 0, &new)[0],
            Some(steps) => Replacement { start, end, new }.apply(arena, memory, steps.root),
        };
        let version = Version {
            sequence,
            root: root.node().as_ptr(),
            depth: older.map_or(0, |older| older.0.depth + 1),
            older: older.map(|older| NonNull::from(older.0)),
            jump: older.and_then(jump_of_next).map(|jump| NonNull::from(jump.0)),
        };
        let place =
            memory.nodes.allocate(arena, size_of::<Version>(), align_of::<Version>()).cast::<Version>();
        // SAFETY: the allocation has a version's size and alignment.
        unsafe { place.write(version) };
        self.newest.store(place.as_ptr(), Ordering::Release);
    }
}

/// Where the version after `older` jumps to: further where two jumps of `older` are equally long.
fn jump_of_next(older: VersionRef<'_>) -> Option<VersionRef<'_>> {
    if let Some(first) = older.jump()
        && let Some(second) = first.jump()
        && older.0.depth - first.0.depth == first.0.depth - second.0.depth
    {
        return Some(second);
    }
    Some(older)
}

/// The memory into which the writer builds.
pub(super) struct Memory<'w> {
    pub(super) nodes: &'w mut Bump,
    pub(super) entries: &'w mut Bump,
}

/// New boundaries that take the place of all those in `[start, end)`.
struct Replacement<'k, 'a> {
    start: &'k [u8],
    end: &'k [u8],
    new: Vec<Child<'a>>,
}

impl<'a> Replacement<'_, 'a> {
    /// The root of a tree like that of `root`, with the new boundaries.
    fn apply(&self, arena: &'a Arena, memory: &mut Memory<'_>, root: BranchRef<'a>) -> BranchRef<'a> {
        let mut nodes = self.edges(arena, memory, root, true);
        while nodes.len() > 1 {
            let level = nodes[0].level() + 1;
            nodes = pack(arena, memory, level, &as_children(&nodes));
        }
        let mut root = nodes[0];
        while root.level() > 0 && root.count() == 1 {
            root = BranchRef::new(root.child(0));
        }
        root
    }

    /// What takes the place of `node`: branches of its level without the boundaries in the range, and, if `insert`, with
    /// the new ones.
    fn edges(
        &self,
        arena: &'a Arena,
        memory: &mut Memory<'_>,
        node: BranchRef<'a>,
        insert: bool,
    ) -> Vec<BranchRef<'a>> {
        let mut children = Vec::with_capacity(node.count() + 2);
        if node.level() == 0 {
            children.extend(node.children().take(node.below(self.start)));
            if insert {
                children.extend(&self.new);
            }
            children.extend(node.children().skip(node.below(self.end)));
        } else {
            let (first, last) = (node.index_for(self.start), node.index_for(self.end));
            children.extend(node.children().take(first));
            let edge = self.edges(arena, memory, BranchRef::new(node.child(first)), insert);
            children.extend(as_children(&edge));
            if first < last {
                let edge = self.edges(arena, memory, BranchRef::new(node.child(last)), false);
                children.extend(as_children(&edge));
            }
            children.extend(node.children().skip(last + 1));
        }
        pack(arena, memory, node.level(), &children)
    }
}

fn as_children<'a>(nodes: &[BranchRef<'a>]) -> Vec<Child<'a>> {
    nodes.iter().map(|node| Child::node(node.node(), 0)).collect()
}

/// Branches of `level` that hold `children`, as few as can be and equally full.
fn pack<'a>(
    arena: &'a Arena,
    memory: &mut Memory<'_>,
    level: u8,
    children: &[Child<'a>],
) -> Vec<BranchRef<'a>> {
    let nodes = children.len().div_ceil(most_children(level));
    let node = |i| {
        let children = &children[i * children.len() / nodes..(i + 1) * children.len() / nodes];
        BranchRef::build(arena, memory.nodes, children[0].separator(), level, 0, children)
    };
    (0..nodes).map(node).collect()
}

impl<'a> Steps<'a> {
    /// The sequence number of the newest range deletion that covers `key`.
    #[inline]
    pub(super) fn covering(self, key: &[u8]) -> Option<SequenceNumber> {
        self.floor(key).map(EntryRef::sequence).filter(|&sequence| sequence != NOT_COVERED)
    }

    /// The last boundary at or below `key`.
    fn floor(self, key: &[u8]) -> Option<EntryRef<'a>> {
        let mut branch = self.root;
        while branch.level() > 0 {
            branch = BranchRef::new(branch.child(branch.index_for(key)));
        }
        branch.at_or_below(key).checked_sub(1).map(|index| branch.entry(index))
    }

    /// Maximal disjoint ranges of keys that are covered, ascending.
    pub(super) fn ranges(self) -> Vec<(&'a [u8], &'a [u8])> {
        let mut ranges = Vec::new();
        let mut open = None;
        self.for_each(self.root, &mut |boundary| match (open, boundary.sequence() == NOT_COVERED) {
            (None, false) => open = Some(boundary),
            (Some(start), true) => {
                ranges.push((EntryRef::key(start), boundary.key()));
                open = None;
            }
            (None, true) | (Some(_), false) => {}
        });
        assert!(open.is_none(), "the last boundary of the range deletions is one that covers nothing");
        ranges
    }

    fn for_each(self, branch: BranchRef<'a>, visit: &mut impl FnMut(EntryRef<'a>)) {
        for index in 0..branch.count() {
            if branch.level() == 0 {
                visit(branch.entry(index));
            } else {
                self.for_each(BranchRef::new(branch.child(index)), visit);
            }
        }
    }
}

#[cfg(test)]
impl RangeDeletions {
    /// Checks that versions go back in time, that the boundaries of each ascend and end with one that covers nothing, and
    /// that no boundary says of its version what came later.
    pub(super) fn check(&self, arena: &Arena) {
        let mut next = self.newest(arena);
        while let Some(version) = next {
            let mut last: Option<EntryRef<'_>> = None;
            version.steps().for_each(version.steps().root, &mut |boundary| {
                assert!(last.is_none_or(|last| last.key() < boundary.key()), "boundaries ascend");
                assert!(boundary.sequence() <= version.0.sequence, "a deletion shows before its time");
                let floor = version.steps().floor(boundary.key()).map(EntryRef::key);
                assert_eq!(floor, Some(boundary.key()), "a boundary is its own floor");
                last = Some(boundary);
            });
            assert_eq!(last.map(EntryRef::sequence), Some(NOT_COVERED), "the last boundary covers nothing");
            next = version.older();
            if let Some(older) = next {
                assert!(
                    older.0.sequence <= version.0.sequence && older.0.depth + 1 == version.0.depth,
                    "versions"
                );
            }
        }
    }
}
