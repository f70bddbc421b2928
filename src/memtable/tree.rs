//! The ordered map from keys to version chains: one writer, any number of readers.
//!
//! A full leaf is replaced by two, in a copy of the branch above, which takes the place of the old branch
//! with one store into the branch above that (or the root). A full branch is split by the same step, one
//! level up. So readers see either none of a split or all of it; see the invariants of the folder.

use super::arena::{Arena, Bump};
use super::branch::{BranchRef, Child, Target, most_children};
use super::entry::EntryRef;
use super::leaf::{Item, LEAF_SLOTS, Leaf, Order, Place};
use super::node::{NodeRef, Root, head};
use super::opened::Node;
use crate::codec::entry::EntryKind;
#[cfg(test)]
use crate::codec::ids::SequenceNumber;
use crate::codec::key;
#[cfg(test)]
use crate::sync::atomic::Ordering;

pub(super) struct Tree {
    root: Root,
}

/// The memory into which the writer builds nodes.
pub(super) struct NodeMemory<'a, 'w> {
    pub(super) arena: &'a Arena,
    pub(super) bump: &'w mut Bump,
}

/// Where the writer puts a key.
pub(super) struct Spot<'a> {
    leaf: &'a Leaf,
    order: Order,
    place: Place,
}

impl<'a> Spot<'a> {
    /// The spot of `key` in the leaf in whose range it lies.
    #[inline]
    fn within(leaf: &'a Leaf, key: &[u8]) -> Self {
        let order = leaf.order();
        Self { leaf, order, place: leaf.search(order, key) }
    }

    /// The spot of `key` in the leaf in whose range it lay some time ago, if it still does for certain.
    #[inline]
    pub(super) fn still_within(leaf: NodeRef<'a>, key: &[u8]) -> Option<Self> {
        match leaf.open() {
            Node::Leaf(leaf) if leaf.order().is_settled() => Some(Self::within(leaf, key)),
            _ => None,
        }
    }

    /// The newest version of the key.
    #[inline]
    pub(super) fn newest(&self) -> Option<EntryRef<'a>> {
        match self.place {
            Place::At(rank) => Some(self.leaf.entry(self.order, rank)),
            Place::Before(_) => None,
        }
    }
}

/// What became of a node into which a key was put.
enum Grown<'a> {
    /// It stands where it stood.
    InPlace,
    /// This node of the same range takes its place.
    Replaced(NodeRef<'a>),
    /// These two take its place. `ascending`: the lower one is the node itself, its keys come in ascending
    /// order.
    Split { lower: NodeRef<'a>, upper: Child<'a>, upper_prefix: u32, ascending: bool },
}

/// The upper bound of a node, as the lower bound of what comes after it; `None`: there is none. It is looked
/// at only where it is needed, for it lies apart from what a split touches.
type High<'a> = Option<Child<'a>>;

impl Tree {
    pub(super) fn new() -> Self {
        Self { root: Root::empty() }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.root.is_empty()
    }

    #[inline]
    pub(super) fn root<'a>(&self, arena: &'a Arena) -> Option<NodeRef<'a>> {
        self.root.load(arena)
    }

    /// The newest version of `key`.
    #[inline]
    pub(super) fn find<'a>(&self, arena: &'a Arena, key: &[u8]) -> Option<EntryRef<'a>> {
        leaf_for(self.root(arena)?, key).find(key)
    }

    /// The leaf in whose range `key` lies, which is asked for and not yet looked at; `None` while the tree is
    /// empty.
    #[inline]
    pub(super) fn leaf_ahead<'a>(&self, arena: &'a Arena, key: &[u8]) -> Option<NodeRef<'a>> {
        let mut node = self.root(arena)?;
        let mut level = node.header().level;
        while level > 0 {
            let Node::Branch(branch) = node.open() else { unreachable!("a leaf of level {level}") };
            node = branch.child(branch.index_for(key));
            level -= 1;
        }
        Leaf::prefetch(node);
        Some(node)
    }

    /// Where the writer is to put `key`; `None` while the tree is empty.
    #[inline]
    pub(super) fn spot<'a>(&self, arena: &'a Arena, key: &[u8]) -> Option<Spot<'a>> {
        Some(Spot::within(leaf_for(self.root(arena)?, key), key))
    }

    /// Puts `entry`, whose chain begins with what `spot` holds, at `spot`, which is what [`Tree::spot`] says
    /// now.
    #[inline]
    pub(super) fn put<'a>(
        &self,
        memory: &mut NodeMemory<'a, '_>,
        spot: Option<Spot<'a>>,
        entry: EntryRef<'a>,
    ) {
        let deletes = entry.kind() == EntryKind::Delete;
        let Some(Spot { leaf, order, place }) = spot else { return self.plant(memory, entry) };
        let revives = !deletes && leaf.is_dead();
        if revives {
            self.revive(memory.arena, entry.key());
        }
        match place {
            Place::At(rank) => {
                let deleted = leaf.entry(order, rank).kind() == EntryKind::Delete;
                leaf.replace(order, rank, entry);
                if deletes != deleted {
                    leaf.count_deleted(deletes);
                }
            }
            Place::Before(rank) if order.count() < LEAF_SLOTS => {
                leaf.insert(order, rank, Item { head: head(entry.key(), leaf.prefix()), entry });
                if deletes {
                    leaf.count_deleted(true);
                }
            }
            Place::Before(_) => {
                self.grow(memory, entry);
                if deletes {
                    self.mark_dead(memory.arena, entry.key(), entry.sequence());
                } else if revives {
                    // The old leaf may have stayed as it was.
                    let last = leaf.entry(order, order.count() - 1);
                    self.mark_dead(memory.arena, last.key(), entry.sequence());
                }
                return;
            }
        }
        if deletes && leaf.is_deleted() && !leaf.is_dead() {
            self.mark_dead(memory.arena, entry.key(), entry.sequence());
        }
    }

    fn plant<'a>(&self, memory: &mut NodeMemory<'a, '_>, entry: EntryRef<'a>) {
        let item = Item { head: head(entry.key(), 0), entry };
        let leaf = Leaf::build(memory.arena, memory.bump, None, 0, &[item], deleted_of(&[item]));
        self.root.publish(memory.arena, leaf.into());
    }

    /// Puts a new key into a tree whose leaf for it is full.
    #[cold]
    fn grow<'a>(&self, memory: &mut NodeMemory<'a, '_>, entry: EntryRef<'a>) {
        let root = self.root(memory.arena).expect("a tree that grows has a root");
        match grow_node(memory, root, None, entry) {
            Grown::InPlace => {}
            Grown::Replaced(node) => self.root.publish(memory.arena, node),
            Grown::Split { lower, upper, upper_prefix, .. } => {
                let children = [Child::node(lower, 0), upper.with_prefix(upper_prefix, 0)];
                let level = root.header().level + 1;
                let root = BranchRef::build(memory.arena, memory.bump, None, level, 0, &children);
                self.root.publish(memory.arena, root.node());
            }
        }
    }
}

#[cfg(test)]
impl Tree {
    /// Checks that every node's keys are sorted, lie in its range, share its prefix and have their heads,
    /// that every separator is the lower bound of its child, and that all leaves are on one level.
    pub(super) fn check(&self, arena: &Arena) {
        if let Some(root) = self.root(arena) {
            check_node(root, None, None, false);
        }
    }
}

#[cfg(test)]
fn check_node(node: NodeRef<'_>, low: Option<&[u8]>, high: Option<&[u8]>, below_mark: bool) {
    assert_eq!(node.low().map(EntryRef::key), low, "a node's lower bound is its separator");
    let prefix = node.header().prefix;
    let is_marked = node.header().is_dead_at(SequenceNumber::MAX);
    if prefix > 0 {
        let (low, high) = (low.expect("a prefix needs a lower bound"), high.expect("and an upper one"));
        assert_eq!(low[..prefix as usize], high[..prefix as usize], "bounds share the prefix");
    }
    match node.open() {
        Node::Leaf(leaf) => {
            let order = leaf.order();
            assert!((1..=LEAF_SLOTS).contains(&order.count()), "a leaf of {} keys", order.count());
            let mut last = None;
            for item in leaf.items(order) {
                let key = item.entry.key();
                assert!(last.is_none_or(|last| last < key), "{last:?} stands before {key:?}");
                assert!(low.is_none_or(|low| low <= key), "{key:?} stands above {low:?}");
                assert!(high.is_none_or(|high| key < high), "{key:?} stands below {high:?}");
                assert_eq!(item.head, head(key, prefix), "the head of {key:?}");
                last = Some(key);
            }
            let items: Vec<_> = leaf.items(order).collect();
            assert_eq!(leaf.deleted(), deleted_of(&items), "keys that are deleted");
            assert_eq!(is_marked, leaf.is_deleted(), "a leaf is marked if all its keys are deleted");
            assert!(is_marked || !below_mark, "a leaf below a mark is marked");
            let since = SequenceNumber(node.header().dead_since.load(Ordering::Relaxed));
            let is_deleted_since = |item: &Item<'_>| {
                let versions = std::iter::successors(Some(item.entry), |entry| entry.older());
                let mut later = versions.take_while(|entry| entry.sequence() > since);
                let then = item.entry.visible(since).into_iter();
                later.all(|entry| entry.kind() == EntryKind::Delete)
                    && then.into_iter().all(|entry| entry.kind() == EntryKind::Delete)
            };
            assert!(!is_marked || items.iter().all(is_deleted_since), "a mark says too much");
        }
        Node::Branch(branch) => {
            let children: Vec<_> = branch.children().collect();
            assert!(
                (1..=most_children(branch.level())).contains(&children.len()),
                "{} children",
                children.len()
            );
            for (i, child) in children.iter().enumerate() {
                assert_eq!(branch.child(i).header().level + 1, branch.level(), "levels follow each other");
                let low = if i == 0 { low } else { Some(child.separator().unwrap().key()) };
                assert_eq!(child.head, low.map_or(0, |low| head(low, prefix)), "the head of {low:?}");
                let high = children.get(i + 1).map_or(high, |next| Some(next.separator().unwrap().key()));
                assert!(
                    low.is_none_or(|low| high.is_none_or(|high| low < high)),
                    "{low:?} is below {high:?}"
                );
                check_node(branch.child(i), low, high, is_marked || below_mark);
            }
        }
    }
}

/// The leaf in whose range `key` lies.
#[inline]
fn leaf_for<'a>(mut node: NodeRef<'a>, key: &[u8]) -> &'a Leaf {
    loop {
        match node.open() {
            Node::Leaf(leaf) => return leaf,
            Node::Branch(branch) => {
                node = branch.child(branch.index_for(key));
            }
        }
    }
}

/// Puts `entry` under `node`, whose keys are below `high`. Nothing that readers reach changes before the one
/// store that publishes a node in the place of one of the same range.
fn grow_node<'a>(
    memory: &mut NodeMemory<'a, '_>,
    node: NodeRef<'a>,
    high: High<'a>,
    entry: EntryRef<'a>,
) -> Grown<'a> {
    let branch = match node.open() {
        Node::Leaf(leaf) => return split_leaf(memory, leaf, high, entry),
        Node::Branch(branch) => branch,
    };
    let (level, prefix) = (branch.level(), branch.prefix());
    let index = branch.index_for(entry.key());
    let next = branch.get(index + 1);
    match grow_node(memory, branch.child(index), next.or(high), entry) {
        Grown::InPlace => Grown::InPlace,
        Grown::Replaced(child) => {
            branch.publish(index, child);
            Grown::InPlace
        }
        Grown::Split { upper, upper_prefix, ascending: true, .. }
            if next.is_none() && branch.count() == most_children(level) =>
        {
            // The lower child stands where it stood, so this branch may stay as it is, full.
            let first = upper.with_prefix(upper_prefix, prefix);
            let upper = build_branch(memory, first.separator(), high, level, prefix, &[first]);
            Grown::Split { lower: node, upper: first.of_parent(upper), upper_prefix: prefix, ascending: true }
        }
        Grown::Split { lower, upper, upper_prefix, .. } => {
            replace_child(memory, branch, high, index, lower, upper.with_prefix(upper_prefix, prefix))
        }
    }
}

/// A copy of `branch`, or two if one cannot hold them, in which `lower` and `upper` stand in the place of
/// child `index`.
fn replace_child<'a>(
    memory: &mut NodeMemory<'a, '_>,
    branch: BranchRef<'a>,
    high: High<'a>,
    index: usize,
    lower: NodeRef<'a>,
    upper: Child<'a>,
) -> Grown<'a> {
    let (level, prefix) = (branch.level(), branch.prefix());
    let mut children = Children::new(upper);
    for (i, child) in branch.children().enumerate() {
        if i == index {
            children.push(Child { target: Target::Node(lower), ..child });
            children.push(upper);
        } else {
            children.push(child);
        }
    }
    let children = children.as_slice();
    if children.len() <= most_children(level) {
        return Grown::Replaced(build_branch(memory, branch.low(), high, level, prefix, children));
    }
    let (lower, upper) = children.split_at(children.len() / 2);
    let first = upper[0];
    let lower = build_branch(memory, branch.low(), Some(first), level, prefix, lower);
    let upper = build_branch(memory, first.separator(), high, level, prefix, upper);
    BranchRef::new(lower).mark_built();
    BranchRef::new(upper).mark_built();
    Grown::Split { lower, upper: first.of_parent(upper), upper_prefix: prefix, ascending: false }
}

/// A branch of `children`, whose heads are those of a node with `old_prefix`.
fn build_branch<'a>(
    memory: &mut NodeMemory<'a, '_>,
    low: Option<EntryRef<'a>>,
    high: High<'a>,
    level: u8,
    old_prefix: u32,
    children: &[Child<'a>],
) -> NodeRef<'a> {
    let heads = children.iter().map(|child| child.head);
    let prefix = choose_prefix(old_prefix, low, high, heads);
    if prefix == old_prefix {
        return BranchRef::build(memory.arena, memory.bump, low, level, prefix, children).node();
    }
    let mut renewed = Children::new(children[0]);
    for child in children {
        renewed.push(child.with_prefix(old_prefix, prefix));
    }
    BranchRef::build(memory.arena, memory.bump, low, level, prefix, renewed.as_slice()).node()
}

/// Splits a full leaf around `entry`, a new key.
fn split_leaf<'a>(
    memory: &mut NodeMemory<'a, '_>,
    leaf: &'a Leaf,
    high: High<'a>,
    entry: EntryRef<'a>,
) -> Grown<'a> {
    let order = leaf.order();
    let (count, rank) = (order.count(), leaf.search(order, entry.key()).rank());
    let item = Item { head: head(entry.key(), leaf.prefix()), entry };
    let newest = leaf.newest_rank(order);
    // Where nothing was deleted no entry is looked at.
    let none_is = leaf.deleted() == 0 && entry.kind() != EntryKind::Delete;
    let deleted = |items: &[Item<'a>]| if none_is { 0 } else { deleted_of(items) };
    let upper_child =
        |first: Item<'a>, node: &'a Leaf| Child { head: first.head, target: Target::Node(node.into()) };

    if rank == count && newest + 1 == count && leaf.split_off_once() {
        // Ascending keys: the leaf stays as it is, full.
        let upper = upper_child(
            item,
            build_leaf(memory, Some(entry), high, leaf.prefix(), &[item], deleted(&[item])),
        );
        return Grown::Split { lower: leaf.into(), upper, upper_prefix: leaf.prefix(), ascending: true };
    }
    leaf.mark_replaced();
    let mut items = [item; LEAF_SLOTS + 1];
    for (i, old) in leaf.items(order).enumerate() {
        items[if i < rank { i } else { i + 1 }] = old;
    }
    // Where the key follows the one before it, more will follow; where they descend, more will come before.
    let middle = if newest + 1 == rank && rank < count {
        rank + 1
    } else if newest == rank && rank == 0 {
        1
    } else {
        items.len().div_ceil(2)
    };
    let (lower, upper) = items.split_at(middle);
    let first = upper[0];
    let between = Child { head: first.head, target: Target::Entry(first.entry) };
    let lower = build_leaf(memory, leaf.low(), Some(between), leaf.prefix(), lower, deleted(lower));
    let upper = build_leaf(memory, Some(first.entry), high, leaf.prefix(), upper, deleted(upper));
    let upper = upper_child(first, upper);
    Grown::Split { lower: lower.into(), upper, upper_prefix: leaf.prefix(), ascending: false }
}

/// A leaf of `items`, whose heads are those of a node with `old_prefix`.
fn build_leaf<'a>(
    memory: &mut NodeMemory<'a, '_>,
    low: Option<EntryRef<'a>>,
    high: High<'a>,
    old_prefix: u32,
    items: &[Item<'a>],
    deleted: usize,
) -> &'a Leaf {
    let prefix = choose_prefix(old_prefix, low, high, items.iter().map(|item| item.head));
    if prefix == old_prefix {
        return Leaf::build(memory.arena, memory.bump, low, prefix, items, deleted);
    }
    let mut renewed = [items[0]; LEAF_SLOTS];
    for (new, item) in renewed.iter_mut().zip(items) {
        *new = Item { head: head(item.entry.key(), prefix), ..*item };
    }
    Leaf::build(memory.arena, memory.bump, low, prefix, &renewed[..items.len()], deleted)
}

/// How many of the keys of `items` are deleted.
fn deleted_of(items: &[Item<'_>]) -> usize {
    items.iter().filter(|item| item.entry.kind() == EntryKind::Delete).count()
}

/// The prefix of a node that takes over sorted `heads` from a node with prefix `old` and covers
/// `[low, high)`.
///
/// All keys of the range share what its bounds share. It is left out of the heads only where they do not tell
/// the keys apart as they are, since new heads cost a look at every key.
fn choose_prefix<'a>(
    old: u32,
    low: Option<EntryRef<'a>>,
    high: High<'a>,
    mut heads: impl Iterator<Item = u64>,
) -> u32 {
    let Some(mut last) = heads.next() else { return old };
    if !heads.any(|head| std::mem::replace(&mut last, head) == head) {
        return old;
    }
    match (low, high.and_then(|high| high.separator())) {
        (Some(low), Some(high)) => old.max(key::common_prefix(low.key(), high.key()) as u32),
        _ => old,
    }
}

/// Room for the children of any branch and one more.
struct Children<'a> {
    slots: [Child<'a>; most_children(u8::MAX) + 1],
    count: usize,
}

impl<'a> Children<'a> {
    fn new(filler: Child<'a>) -> Self {
        Self { slots: [filler; most_children(u8::MAX) + 1], count: 0 }
    }

    fn push(&mut self, child: Child<'a>) {
        self.slots[self.count] = child;
        self.count += 1;
    }

    fn as_slice(&self) -> &[Child<'a>] {
        &self.slots[..self.count]
    }
}
