//! Range deletions: for every moment, which range deletion is the newest that covers a key.
//!
//! Seen at one moment this is a step function of the key. It is stored as a tree of branches whose lowest
//! children are *boundaries*: entries whose sequence is that of the newest deletion that covers the keys from
//! there up to the next boundary, 0 where none does. Every range deletion makes a new tree that shares all
//! but the two edges of its range with the one before and drops the boundaries in between, so it costs two
//! descents, whatever it covers. Trees are never changed; the list of them, newest first, leads from a moment
//! to its tree.
//!
//! Keys that are covered are sought over a *stretch* at a time: all of them from one gap to the next,
//! whatever deletions they are covered by. Every branch says if there is a gap under it, so that the next gap
//! is found in two descents, however many deletions touch each other before it.
//!
//! The rejected alternative, one tree whose boundaries each hold a chain of all deletions above them, costs a
//! push on every boundary that a deletion covers, so overlapping deletions cost the square of their number in
//! memory.
//!
//! Source for the list's jump pointers: E. W. Myers, "An applicative random-access stack", IPL 17, 1983.

use std::ptr::NonNull;

use super::arena::{Arena, Bump};
use super::branch::{BranchRef, Child, Target, most_children};
use super::entry::EntryRef;
use super::node::{NodeHeader, NodeRef};
use super::touched;
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
        // SAFETY: `delete` stored it, with a version of the same arena; the acquire load sees it as it was
        // then.
        Some(VersionRef(unsafe { version.as_ref() }))
    }

    /// The step function of all range deletions at or below `at`; `None` if there are none.
    #[inline]
    pub(super) fn at<'a>(&self, arena: &'a Arena, at: SequenceNumber) -> Option<Steps<'a>> {
        let mut version = self.newest(arena)?;
        while version.0.sequence > at {
            touched::count();
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

    /// What takes the place of `node`: branches of its level without the boundaries in the range, and, if
    /// `insert`, with the new ones.
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
        let has_gap = children.iter().any(|child| match child.target {
            Target::Entry(boundary) => boundary.is_gap(),
            Target::Node(node) => BranchRef::new(node).has_gap(),
        });
        BranchRef::build_of_boundaries(arena, memory.nodes, level, has_gap, children)
    };
    (0..nodes).map(node).collect()
}

impl<'a> Steps<'a> {
    /// The sequence number of the newest range deletion that covers `key`.
    #[inline]
    pub(super) fn covering(self, key: &[u8]) -> Option<SequenceNumber> {
        self.floor(key).map(EntryRef::sequence).filter(|&sequence| sequence != NOT_COVERED)
    }

    /// The first boundary above `key`: from there on other range deletions may be the newest that cover keys.
    pub(super) fn next_boundary(self, key: &[u8]) -> Option<&'a [u8]> {
        self.after(key).map(EntryRef::key)
    }

    /// Where the stretch of covered keys ends that `key` is in: the first key above it that is not covered.
    /// `None`: `key` is not covered itself.
    pub(super) fn end_of_stretch(self, key: &[u8]) -> Option<&'a [u8]> {
        self.covering(key)?;
        let gap = gap_above(self.root, key);
        Some(gap.expect("the last boundary of the range deletions is one that covers nothing").key())
    }

    /// Where the stretch of covered keys begins that `key` is in, or with `below` that the keys right below
    /// it are in. `None`: these are not covered.
    pub(super) fn start_of_stretch(self, key: &[u8], below: bool) -> Option<&'a [u8]> {
        let floor = if below { self.before(key) } else { self.floor(key) };
        floor.filter(|floor| !floor.is_gap())?;
        match gap_below(self.root, key) {
            Some(gap) => self.after(gap.key()),
            None => self.root.low(),
        }
        .map(EntryRef::key)
    }

    /// Where the first stretch of covered keys above `key` begins, which is not covered.
    pub(super) fn next_stretch(self, key: &[u8]) -> Option<&'a [u8]> {
        self.after(key).map(EntryRef::key)
    }

    /// Where the last stretch of covered keys below `key` ends, which is not covered.
    pub(super) fn end_of_last_stretch(self, key: &[u8]) -> Option<&'a [u8]> {
        self.floor(key).map(EntryRef::key)
    }

    /// The last boundary at or below `key`.
    fn floor(self, key: &[u8]) -> Option<EntryRef<'a>> {
        let mut branch = self.root;
        while branch.level() > 0 {
            touched::count();
            branch = BranchRef::new(branch.child(branch.index_for(key)));
        }
        touched::count();
        branch.at_or_below(key).checked_sub(1).map(|index| branch.entry(index))
    }

    /// The last boundary below `key`.
    fn before(self, key: &[u8]) -> Option<EntryRef<'a>> {
        let mut branch = self.root;
        loop {
            touched::count();
            let index = branch.below(key).checked_sub(1)?;
            if branch.level() == 0 {
                return Some(branch.entry(index));
            }
            branch = BranchRef::new(branch.child(index));
        }
    }

    /// The first boundary above `key`.
    fn after(self, key: &[u8]) -> Option<EntryRef<'a>> {
        let (mut branch, mut after) = (self.root, None);
        loop {
            touched::count();
            let index = branch.at_or_below(key);
            if index < branch.count() {
                after = branch.separator(index);
            }
            if index == 0 || branch.level() == 0 {
                return after;
            }
            branch = BranchRef::new(branch.child(index - 1));
        }
    }

    /// Maximal disjoint ranges of keys that are covered, ascending.
    pub(super) fn ranges(self) -> Vec<(&'a [u8], &'a [u8])> {
        let mut ranges = Vec::new();
        let mut open = None;
        self.for_each(self.root, &mut |boundary| match (open, boundary.is_gap()) {
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

impl EntryRef<'_> {
    /// Whether this boundary covers nothing.
    fn is_gap(self) -> bool {
        self.sequence() == NOT_COVERED
    }
}

/// Children of a branch that have a gap under them, each by its index.
fn gap_at(branch: BranchRef<'_>, index: usize) -> bool {
    if branch.level() == 0 {
        branch.entry(index).is_gap()
    } else {
        BranchRef::new(branch.child(index)).has_gap()
    }
}

/// The first gap under `branch` that begins above `key`.
fn gap_above<'a>(branch: BranchRef<'a>, key: &[u8]) -> Option<EntryRef<'a>> {
    touched::count();
    if !branch.has_gap() {
        return None;
    }
    let above = branch.at_or_below(key);
    if branch.level() == 0 {
        return (above..branch.count()).find(|&index| gap_at(branch, index)).map(|index| branch.entry(index));
    }
    // The child before may go on above the key.
    let in_child = above.checked_sub(1).and_then(|index| gap_above(BranchRef::new(branch.child(index)), key));
    in_child.or_else(|| {
        let index = (above..branch.count()).find(|&index| gap_at(branch, index))?;
        Some(outermost_gap(BranchRef::new(branch.child(index)), |gaps| gaps.next()))
    })
}

/// The last gap under `branch` that begins below `key`.
fn gap_below<'a>(branch: BranchRef<'a>, key: &[u8]) -> Option<EntryRef<'a>> {
    touched::count();
    if !branch.has_gap() {
        return None;
    }
    let below = branch.below(key);
    if branch.level() == 0 {
        return (0..below).rev().find(|&index| gap_at(branch, index)).map(|index| branch.entry(index));
    }
    let last = below.checked_sub(1)?;
    // The last of these children may go on above the key.
    gap_below(BranchRef::new(branch.child(last)), key).or_else(|| {
        let index = (0..last).rev().find(|&index| gap_at(branch, index))?;
        Some(outermost_gap(BranchRef::new(branch.child(index)), |gaps| gaps.next_back()))
    })
}

/// The first or the last gap under a branch that has one, as `pick` has it.
fn outermost_gap<'a>(
    mut branch: BranchRef<'a>,
    pick: impl Fn(&mut dyn DoubleEndedIterator<Item = usize>) -> Option<usize>,
) -> EntryRef<'a> {
    loop {
        touched::count();
        let index = pick(&mut (0..branch.count()).filter(|&index| gap_at(branch, index)));
        let index = index.expect("a branch that says so has a gap under it");
        if branch.level() == 0 {
            return branch.entry(index);
        }
        branch = BranchRef::new(branch.child(index));
    }
}

#[cfg(test)]
impl RangeDeletions {
    /// Checks that versions go back in time, that the boundaries of each ascend and end with one that covers
    /// nothing, that gaps are apart and known to the branches above, and that no boundary says of its version
    /// what came later.
    pub(super) fn check(&self, arena: &Arena) {
        let mut next = self.newest(arena);
        while let Some(version) = next {
            let mut last: Option<EntryRef<'_>> = None;
            version.steps().for_each(version.steps().root, &mut |boundary| {
                assert!(last.is_none_or(|last| last.key() < boundary.key()), "boundaries ascend");
                assert!(boundary.sequence() <= version.0.sequence, "a deletion shows before its time");
                let floor = version.steps().floor(boundary.key()).map(EntryRef::key);
                assert_eq!(floor, Some(boundary.key()), "a boundary is its own floor");
                let after_cover = last.is_some_and(|last| !last.is_gap());
                assert!(!boundary.is_gap() || after_cover, "a gap begins where a stretch ends");
                last = Some(boundary);
            });
            check_gaps(version.steps().root);
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

#[cfg(test)]
fn check_gaps(branch: BranchRef<'_>) {
    let has_gap = (0..branch.count()).any(|index| gap_at(branch, index));
    assert_eq!(branch.has_gap(), has_gap, "a branch of level {}", branch.level());
    if branch.level() > 0 {
        branch.children().for_each(|child| match child.target {
            Target::Node(node) => check_gaps(BranchRef::new(node)),
            Target::Entry(_) => panic!("an entry above level 0"),
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Range deletions that a test makes, in a memory of their own.
    struct Made {
        deletions: RangeDeletions,
        arena: Arena,
        nodes: Bump,
        entries: Bump,
        made: Vec<(u32, u32)>,
    }

    impl Made {
        fn new() -> Self {
            let deletions = RangeDeletions::new();
            Self {
                deletions,
                arena: Arena::new(0),
                nodes: Bump::new(),
                entries: Bump::new(),
                made: Vec::new(),
            }
        }

        fn delete(&mut self, start: u32, end: u32) {
            let mut memory = Memory { nodes: &mut self.nodes, entries: &mut self.entries };
            self.made.push((start, end));
            let number = SequenceNumber(self.made.len() as u64);
            let (start, end) = (start.to_be_bytes(), end.to_be_bytes());
            self.deletions.delete(&self.arena, &mut memory, &start, &end, number);
        }

        fn at(&self, at: u64) -> Option<Steps<'_>> {
            self.deletions.at(&self.arena, SequenceNumber(at))
        }

        fn is_covered(&self, key: u32, at: u64) -> bool {
            self.made[..at as usize].iter().any(|&(start, end)| start <= key && key < end)
        }
    }

    fn number(key: &[u8]) -> u32 {
        u32::from_be_bytes(key.try_into().unwrap())
    }

    #[test]
    fn stretches_of_any_moment_are_those_of_the_deletions_made_until_then() {
        let (keys, deletions) = if cfg!(miri) { (30u32, 20) } else { (600, 400) };
        for seed in 1..if cfg!(miri) { 2 } else { 6u32 } {
            let (mut made, mut random) = (Made::new(), seed);
            for _ in 0..deletions {
                random = random.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
                let start = (random >> 8) % keys;
                made.delete(start, start + 1 + (random >> 20) % (1 + seed));
            }
            if !cfg!(miri) {
                made.deletions.check(&made.arena);
            }
            for at in [0, 1, 2, deletions / 3, deletions] {
                let Some(steps) = made.at(at) else {
                    assert_eq!(at, 0);
                    continue;
                };
                for key in 0..keys + 10 {
                    let covered = |key: &u32| made.is_covered(*key, at);
                    let bytes = key.to_be_bytes();
                    let up = (key..).take_while(covered).last().map(|last| last + 1);
                    assert_eq!(steps.end_of_stretch(&bytes).map(number), up, "from {key} at {at}");
                    let down = (0..=key).rev().take_while(covered).last();
                    assert_eq!(steps.start_of_stretch(&bytes, false).map(number), down, "to {key} at {at}");
                    let down = (0..key).rev().take_while(covered).last();
                    assert_eq!(steps.start_of_stretch(&bytes, true).map(number), down, "below {key} at {at}");
                    if !covered(&key) {
                        let next = (key..keys + 10).find(covered);
                        assert_eq!(steps.next_stretch(&bytes).map(number), next, "above {key} at {at}");
                        let last = (0..key).rev().find(covered).map(|last| last + 1);
                        assert_eq!(
                            steps.end_of_last_stretch(&bytes).map(number),
                            last,
                            "before {key} at {at}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_stretch_is_sought_over_in_logarithmic_time_however_many_deletions_made_it() {
        let counts = if cfg!(miri) { [16, 32] } else { [10_000, 100_000u32] };
        // Apart from each other; touching each other; touching each other in no order.
        for (step, scatter) in [(3, 1), (1, 1), (1, 7919)] {
            for count in counts {
                let mut made = Made::new();
                for i in 0..count {
                    let start = (u64::from(i) * scatter % u64::from(count)) as u32 * step;
                    made.delete(start, start + 1);
                }
                let most = 8 * u64::from(count.ilog2());
                for at in [u64::from(count), u64::from(count) / 2] {
                    for key in (0..count * step).step_by(count as usize / 15) {
                        touched::take();
                        let (steps, key) = (made.at(at).unwrap(), key.to_be_bytes());
                        steps.end_of_stretch(&key);
                        steps.start_of_stretch(&key, false);
                        steps.next_stretch(&key);
                        let taken = touched::take();
                        assert!(taken <= most, "{taken} steps among {count} deletions, {most} at most");
                    }
                }
            }
        }
    }
}
