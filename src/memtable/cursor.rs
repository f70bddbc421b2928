//! Walking the keys of a memtable in order, both ways.
//!
//! A [`Position`] stands on a key of a leaf and remembers how it came there: the branch above, and for that
//! branch the next separator further up. The next leaf is the next child of that branch; past its end the
//! walk descends anew. Leaves have no links to their neighbours.

use super::arena::Arena;
use super::branch::BranchRef;
use super::dead::Search;
use super::entry::EntryRef;
use super::leaf::{Leaf, Order, Place};
use super::opened::Node;
use super::ranges::Steps;
use super::table::{Found, Memtable};
use super::tree::Tree;
use crate::codec::ids::SequenceNumber;
use crate::codec::key_range::KeyRange;
use crate::sync::Arc;
use std::cell::Cell;
use std::cmp::Ordering;

impl Memtable {
    /// A cursor over the keys that have a version at or below `at`. It stands nowhere yet.
    pub(crate) fn cursor(self: &Arc<Self>, at: SequenceNumber) -> MemtableCursor {
        self.cursor_in(at, Arc::default())
    }

    /// As [`cursor`](Self::cursor), for a caller that wants keys of `range` alone: on the way to a key that
    /// is to be seen it goes no further than the end of the range, beyond which it may stand on any key or on
    /// none.
    pub(crate) fn cursor_in(self: &Arc<Self>, at: SequenceNumber, range: Arc<KeyRange>) -> MemtableCursor {
        MemtableCursor::new(Arc::clone(self), at, range)
    }

    /// All keys, ascending, with the sequence number of their newest version and what it says, range
    /// deletions applied.
    pub(crate) fn iter_newest(&self) -> impl Iterator<Item = (&[u8], SequenceNumber, Found<'_>)> {
        Newest::new(self)
    }
}

/// Which leaf a descent leads to.
#[derive(Clone, Copy)]
enum Goal<'k> {
    /// The leaf in whose range the key lies.
    At(&'k [u8]),
    /// The leaf in whose range the keys just below the key lie.
    Below(&'k [u8]),
    First,
    Last,
}

impl Goal<'_> {
    fn child_of(self, branch: BranchRef<'_>) -> usize {
        match self {
            Self::At(key) => branch.index_for(key),
            Self::Below(key) => branch.below(key).saturating_sub(1),
            Self::First => 0,
            Self::Last => branch.count() - 1,
        }
    }
}

/// A child of a branch.
#[derive(Clone, Copy)]
struct Turn<'a> {
    branch: BranchRef<'a>,
    child: usize,
}

/// A leaf as a walk found it, and how it came there.
#[derive(Clone, Copy)]
struct Landing<'a> {
    leaf: &'a Leaf,
    order: Order,
    /// The leaf, as the branch above has it.
    above: Option<Turn<'a>>,
    /// The node after that branch, as some branch further up has it.
    beyond: Option<Turn<'a>>,
}

/// A key of a tree.
#[derive(Clone, Copy)]
struct Position<'a> {
    landing: Landing<'a>,
    rank: usize,
}

impl<'a> Landing<'a> {
    fn descend(tree: &Tree, arena: &'a Arena, goal: Goal<'_>) -> Option<Self> {
        let mut node = tree.root(arena)?;
        let (mut above, mut beyond) = (None, None);
        loop {
            match node.open() {
                Node::Leaf(leaf) => return Some(Self { leaf, order: leaf.order(), above, beyond }),
                Node::Branch(branch) => {
                    let child = goal.child_of(branch);
                    if branch.level() > 1 && child + 1 < branch.count() {
                        beyond = Some(Turn { branch, child: child + 1 });
                    }
                    above = Some(Turn { branch, child });
                    node = branch.child(child);
                }
            }
        }
    }

    /// The leaf that is child `child` of the branch above.
    fn sibling(&self, branch: BranchRef<'a>, child: usize) -> Option<Self> {
        let Node::Leaf(leaf) = branch.child(child).open() else {
            panic!("a branch of level 1 is above leaves")
        };
        Some(Self { leaf, order: leaf.order(), above: Some(Turn { branch, child }), beyond: self.beyond })
    }

    fn next(&self, tree: &Tree, arena: &'a Arena) -> Option<Self> {
        let Turn { branch, child } = self.above?;
        let next = if child + 1 < branch.count() {
            self.sibling(branch, child + 1)
        } else {
            let Turn { branch, child } = self.beyond?;
            let bound = branch.separator(child).expect("only a first child has no lower bound");
            Self::descend(tree, arena, Goal::At(bound.key()))
        }?;
        next.prefetch(|turn| (turn.child + 1 < turn.branch.count()).then_some(turn.child + 1));
        Some(next)
    }

    fn prev(&self, tree: &Tree, arena: &'a Arena) -> Option<Self> {
        let Turn { branch, child } = self.above?;
        let prev = if child > 0 {
            self.sibling(branch, child - 1)
        } else {
            Self::descend(tree, arena, Goal::Below(branch.low()?.key()))
        }?;
        prev.prefetch(|turn| turn.child.checked_sub(1));
        Some(prev)
    }

    /// Asks for what a walk that came here needs soon: the entries, and the leaf after this one.
    fn prefetch(&self, child_after: impl FnOnce(Turn<'a>) -> Option<usize>) {
        self.leaf.prefetch_entries(self.order);
        if let Some(turn) = self.above
            && let Some(child) = child_after(turn)
        {
            Leaf::prefetch(turn.branch.child(child));
        }
    }
}

impl<'a> Position<'a> {
    fn first_of(landing: Landing<'a>) -> Self {
        Self { landing, rank: 0 }
    }

    fn last_of(landing: Landing<'a>) -> Self {
        Self { landing, rank: landing.order.count() - 1 }
    }

    /// The first key at or above `key`.
    fn at_or_above(tree: &Tree, arena: &'a Arena, key: &[u8]) -> Option<Self> {
        let landing = Landing::descend(tree, arena, Goal::At(key))?;
        let rank = landing.leaf.search(landing.order, key).rank();
        if rank < landing.order.count() {
            return Some(Self { landing, rank });
        }
        landing.next(tree, arena).map(Self::first_of)
    }

    /// The last key at or below `key`.
    fn at_or_below(tree: &Tree, arena: &'a Arena, key: &[u8]) -> Option<Self> {
        let landing = Landing::descend(tree, arena, Goal::At(key))?;
        let rank = match landing.leaf.search(landing.order, key) {
            Place::At(rank) => Some(rank),
            Place::Before(rank) => rank.checked_sub(1),
        };
        match rank {
            Some(rank) => Some(Self { landing, rank }),
            None => landing.prev(tree, arena).map(Self::last_of),
        }
    }

    fn next(mut self, tree: &Tree, arena: &'a Arena) -> Option<Self> {
        if self.rank + 1 < self.landing.order.count() {
            self.rank += 1;
            return Some(self);
        }
        self.landing.next(tree, arena).map(Self::first_of)
    }

    fn prev(mut self, tree: &Tree, arena: &'a Arena) -> Option<Self> {
        if let Some(rank) = self.rank.checked_sub(1) {
            self.rank = rank;
            return Some(self);
        }
        self.landing.prev(tree, arena).map(Self::last_of)
    }

    fn newest(&self) -> EntryRef<'a> {
        self.landing.leaf.entry(self.landing.order, self.rank)
    }
}

/// Walks the keys that have a version at or below a sequence number.
pub(super) struct Walk<'a> {
    at: SequenceNumber,
    range: Arc<KeyRange>,
    /// Keys that were passed over since they have no version to be seen.
    passed: u64,
    deletions: Option<Steps<'a>>,
    current: Option<(Position<'a>, EntryRef<'a>)>,
}

/// One step of a walk.
#[derive(Clone, Copy)]
enum Direction {
    Up,
    Down,
}

impl<'a> Walk<'a> {
    pub(super) fn new(table: &'a Memtable, at: SequenceNumber, range: Arc<KeyRange>) -> Self {
        Self {
            at: table.seen_at(at),
            range,
            passed: 0,
            deletions: table.range_deletions_at(at),
            current: None,
        }
    }

    /// Stands on `position`, or on the next key in `direction` that has a version to be seen.
    fn settle(
        &mut self,
        table: &'a Memtable,
        mut position: Option<Position<'a>>,
        direction: Direction,
    ) -> bool {
        let (tree, arena) = table.points();
        self.current = loop {
            let Some(here) = position else { break None };
            let newest = here.newest();
            if let Some(entry) = newest.visible(self.at) {
                break Some((here, entry));
            }
            self.passed += 1;
            let (way, next) = match direction {
                Direction::Up => (Ordering::Less, here.next(tree, arena)),
                Direction::Down => (Ordering::Greater, here.prev(tree, arena)),
            };
            position = next.filter(|_| self.range.goes_on_at(newest.key(), way));
        };
        self.current.is_some()
    }

    pub(super) fn seek(&mut self, table: &'a Memtable, key: &[u8]) -> bool {
        let (tree, arena) = table.points();
        self.settle(table, Position::at_or_above(tree, arena, key), Direction::Up)
    }

    fn seek_for_prev(&mut self, table: &'a Memtable, key: &[u8]) -> bool {
        let (tree, arena) = table.points();
        self.settle(table, Position::at_or_below(tree, arena, key), Direction::Down)
    }

    fn first(&mut self, table: &'a Memtable) -> bool {
        let (tree, arena) = table.points();
        let landing = Landing::descend(tree, arena, Goal::First);
        self.settle(table, landing.map(Position::first_of), Direction::Up)
    }

    fn last(&mut self, table: &'a Memtable) -> bool {
        let (tree, arena) = table.points();
        let landing = Landing::descend(tree, arena, Goal::Last);
        self.settle(table, landing.map(Position::last_of), Direction::Down)
    }

    /// The first key from the present one on, in `direction`, that has a value; keys from `until` on are of
    /// no interest.
    fn next_value(
        &mut self,
        table: &'a Memtable,
        until: Option<&[u8]>,
        direction: Direction,
    ) -> Option<EntryRef<'a>> {
        let (tree, arena) = table.points();
        let looked = Cell::new(0);
        let search = Search { at: self.at, from: self.entry().key(), until, looked: &looked };
        let found = match direction {
            Direction::Up => tree.first_live(arena, search),
            Direction::Down => tree.last_live(arena, search),
        };
        self.passed += looked.get();
        found
    }

    /// To the first key from the present one on, in `direction`, that has a value, or the first from `until`
    /// on if that comes sooner.
    fn skip(&mut self, table: &'a Memtable, until: Option<&[u8]>, direction: Direction) -> bool {
        let value = self.next_value(table, until, direction).map(EntryRef::key);
        self.current = None;
        match (value.or(until), direction) {
            (Some(key), Direction::Up) => self.seek(table, key),
            (Some(key), Direction::Down) => self.seek_for_prev(table, key),
            (None, _) => false,
        }
    }

    pub(super) fn next(&mut self, table: &'a Memtable) -> bool {
        let (tree, arena) = table.points();
        let next = self.current.and_then(|(position, _)| position.next(tree, arena));
        self.settle(table, next, Direction::Up)
    }

    fn prev(&mut self, table: &'a Memtable) -> bool {
        let (tree, arena) = table.points();
        let prev = self.current.and_then(|(position, _)| position.prev(tree, arena));
        self.settle(table, prev, Direction::Down)
    }

    pub(super) fn entry(&self) -> EntryRef<'a> {
        self.current.expect("the cursor stands on an entry").1
    }

    fn found(&self) -> Found<'a> {
        let entry = self.entry();
        let covered = self.deletions.and_then(|steps| steps.covering(entry.key()));
        Found::of(entry, covered)
    }
}

/// Walks a memtable both ways, as it was at a sequence number. Owns what it needs.
///
/// It sees every version at or below its sequence number that was published before the cursor was made. What
/// is inserted while it is open neither disturbs it nor, being above its number, shows.
pub(crate) struct MemtableCursor {
    /// Leads into the arena of `table`; not to outlive it, so never handed out with this lifetime.
    walk: Walk<'static>,
    table: Arc<Memtable>,
}

// SAFETY: a walk is a set of references to nodes and entries, which any thread may read: what changes in them
// are atomics. The table, which is `Send` and `Sync`, moves along and keeps them alive.
unsafe impl Send for MemtableCursor {}
// SAFETY: as above; a shared cursor only reads.
unsafe impl Sync for MemtableCursor {}

impl MemtableCursor {
    pub(super) fn new(table: Arc<Memtable>, at: SequenceNumber, range: Arc<KeyRange>) -> Self {
        let walk = Walk::new(Self::extend(&table), at, range);
        Self { walk, table }
    }

    /// A reference to the table for use by the walk of the cursor that holds `table`.
    fn extend(table: &Arc<Memtable>) -> &'static Memtable {
        // SAFETY: the memtable stands in an `Arc` that the cursor holds for as long as its walk, and the
        // walk's references leave the cursor only with the lifetime of a borrow of the cursor.
        unsafe { &*Arc::as_ptr(table) }
    }

    /// Goes to the first entry at or above `key`.
    pub(crate) fn seek(&mut self, key: &[u8]) -> bool {
        self.walk.seek(Self::extend(&self.table), key)
    }

    /// Goes to the last entry at or below `key`.
    pub(crate) fn seek_for_prev(&mut self, key: &[u8]) -> bool {
        self.walk.seek_for_prev(Self::extend(&self.table), key)
    }

    /// Goes to the first entry.
    pub(crate) fn first(&mut self) -> bool {
        self.walk.first(Self::extend(&self.table))
    }

    /// Goes to the last entry.
    pub(crate) fn last(&mut self) -> bool {
        self.walk.last(Self::extend(&self.table))
    }

    /// From an entry on upward: to the first that is not deleted, at once, or to the first at or above
    /// `until` if that comes sooner.
    pub(crate) fn skip_up(&mut self, until: Option<&[u8]>) -> bool {
        self.walk.skip(Self::extend(&self.table), until, Direction::Up)
    }

    /// From an entry on downward: to the first that is not deleted, at once, or to the first at or below
    /// `until` if that comes sooner.
    pub(crate) fn skip_down(&mut self, until: Option<&[u8]>) -> bool {
        self.walk.skip(Self::extend(&self.table), until, Direction::Down)
    }

    /// The key to which [`skip_up`](Self::skip_up) would go, if that comes before `until`.
    pub(crate) fn next_value_up(&mut self, until: Option<&[u8]>) -> Option<&[u8]> {
        self.walk.next_value(Self::extend(&self.table), until, Direction::Up).map(EntryRef::key)
    }

    /// The key to which [`skip_down`](Self::skip_down) would go, if that comes before `until`.
    pub(crate) fn next_value_down(&mut self, until: Option<&[u8]>) -> Option<&[u8]> {
        self.walk.next_value(Self::extend(&self.table), until, Direction::Down).map(EntryRef::key)
    }

    /// Goes to the next entry. A cursor that stands nowhere stays there.
    pub(crate) fn next(&mut self) -> bool {
        self.walk.next(Self::extend(&self.table))
    }

    /// Goes to the entry before. A cursor that stands nowhere stays there.
    pub(crate) fn prev(&mut self) -> bool {
        self.walk.prev(Self::extend(&self.table))
    }

    /// The highest sequence number that was written to the memtable.
    pub(crate) fn last_sequence(&self) -> SequenceNumber {
        self.table.last_sequence()
    }

    /// Keys that the cursor passed over since they were written later than what it sees.
    pub(crate) fn passed(&self) -> u64 {
        self.walk.passed
    }

    /// Whether the cursor stands on an entry.
    #[inline]
    pub(crate) fn valid(&self) -> bool {
        self.walk.current.is_some()
    }

    /// The key of the entry; the cursor must stand on one.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        self.walk.entry().key()
    }

    /// The sequence number of the version that is seen; the cursor must stand on an entry.
    #[inline]
    #[cfg(test)]
    pub(crate) fn sequence(&self) -> SequenceNumber {
        self.walk.entry().sequence()
    }

    /// What the memtable says of the key, range deletions applied; the cursor must stand on an entry.
    #[inline]
    pub(crate) fn found(&self) -> Found<'_> {
        self.walk.found()
    }
}

/// All keys, ascending, each with its newest version.
pub(super) struct Newest<'a> {
    table: &'a Memtable,
    walk: Walk<'a>,
    started: bool,
}

impl<'a> Newest<'a> {
    pub(super) fn new(table: &'a Memtable) -> Self {
        Self { table, walk: Walk::new(table, SequenceNumber::MAX, Arc::default()), started: false }
    }
}

impl<'a> Iterator for Newest<'a> {
    type Item = (&'a [u8], SequenceNumber, Found<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let valid = if self.started { self.walk.next(self.table) } else { self.walk.first(self.table) };
        self.started = true;
        valid.then(|| {
            let entry = self.walk.entry();
            (entry.key(), entry.sequence(), self.walk.found())
        })
    }
}
