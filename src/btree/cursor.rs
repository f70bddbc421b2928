//! Walks a tree both ways.
//!
//! The cursor pins the leaf that it stands on. Of the nodes above it knows pointer and index, and reads them
//! again when it leaves the leaf: pages are immutable, so they are what they were, for as long as somebody
//! holds the tree.

use std::cell::OnceCell;
use std::cmp::Ordering;
use std::ops::{ControlFlow, Range};

use super::key_buffer::{KeyBuffer, put_together};
use super::locate::locate;
use super::node::{Fault, LeafValue, Node, Shape, USUAL_REST, usual_entry};
use super::records::ValuePointer;
use super::split_key::SplitKey;
use super::tree::{Tree, load_run};
use crate::codec::expiry::{self, Expiry, Now, STAMP_LEN};
use crate::error::{Error, Result};
use crate::page::{Ahead, HEADER_LEN, PagePointer, PinnedPage};
use crate::segment::PartitionedStorageBackend;
use crate::sync::Arc;
use crate::sync::epoch;

/// A position in a tree: at an entry, or nowhere. The tree's pages must not be released while it lives.
pub(crate) struct TreeCursor {
    tree: Tree,
    store: Arc<PartitionedStorageBackend>,
    /// The nodes from the root to the leaf's parent.
    path: Vec<Step>,
    leaf: Option<Leaf>,
    /// Whether the cursor stands at entry `index` of the leaf.
    valid: bool,
    index: usize,
    /// The key of a valid cursor; otherwise at least the prefix of the leaf stands there.
    key: KeyBuffer,
    /// Where in the leaf the value stands, or the pointer to its run.
    value: Range<usize>,
    /// What the entry is if its value does not stand in the leaf.
    unusual: Option<Unusual>,
    asked: Asked,
    /// At which second entries are judged.
    now: Now,
    /// Whether what has expired is passed over; otherwise it stands for a deletion.
    passes_expired: bool,
}

/// Leaves that the disk was asked for on one way from leaf to leaf.
#[derive(Clone, Copy, Default)]
struct Asked {
    way: Option<Way>,
    /// How many were to be asked for the last time.
    leaves: usize,
    /// How many of them are still to be entered.
    left: usize,
}

enum Unusual {
    /// Its value stands in a run.
    Run(Box<Run>),
    /// It says that the key is deleted.
    Deletion,
    /// Operands stand in place of its value; and what they come to, once somebody said so.
    Operands(Box<OnceCell<Box<[u8]>>>),
    /// Its value stands in the leaf, until this second.
    Expiring(Expiry),
}

struct Run {
    value: ValuePointer,
    /// Once it was asked for.
    page: OnceCell<PinnedPage>,
}

struct Step {
    pointer: PagePointer,
    index: u32,
    count: u32,
}

struct Leaf {
    page: PinnedPage,
    shape: Shape,
    pointer: PagePointer,
    prefix_len: usize,
    /// The leaf after this one.
    ahead: Ahead,
}

/// Which way to leave or enter a node.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Forward,
    Backward,
}

impl Way {
    fn opposite(self) -> Self {
        match self {
            Self::Forward => Self::Backward,
            Self::Backward => Self::Forward,
        }
    }

    /// The index that comes after `index` of `count`.
    fn next(self, index: usize, count: usize) -> Option<usize> {
        match self {
            Self::Forward => Some(index + 1).filter(|&next| next < count),
            Self::Backward => index.checked_sub(1),
        }
    }

    /// How a key compares with those that are met later.
    fn ordering(self) -> Ordering {
        match self {
            Self::Forward => Ordering::Less,
            Self::Backward => Ordering::Greater,
        }
    }
}

impl TreeCursor {
    /// A cursor that stands nowhere.
    pub(crate) fn new(tree: Tree, store: Arc<PartitionedStorageBackend>) -> Self {
        Self {
            tree,
            store,
            path: Vec::new(),
            leaf: None,
            valid: false,
            index: 0,
            key: KeyBuffer::default(),
            value: 0..0,
            unusual: None,
            asked: Asked::default(),
            now: Now::UNASKED,
            passes_expired: false,
        }
    }

    /// This cursor, for which what has expired at `now` is not there in a tree behind which nothing older
    /// stands, and elsewhere is deleted.
    pub(crate) fn judging(mut self, now: Now, is_last: bool) -> Self {
        self.now = now;
        self.passes_expired = is_last;
        self
    }

    /// Whether the cursor stands at an entry.
    pub(crate) fn valid(&self) -> bool {
        self.valid
    }

    /// The key of the entry. Panics if the cursor stands nowhere.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        assert!(self.valid, "a cursor that stands nowhere has no key");
        self.key.get()
    }

    /// Goes to the first entry at or above `key`. Whether there is one is what all moves return.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result<bool> {
        if !self.descend_to(key, Way::Forward)? {
            return Ok(false);
        }
        let (index, _) = self.search(key)?;
        self.go(index, Way::Forward)
    }

    /// Goes to the last entry at or below `key`.
    pub(crate) fn seek_for_prev(&mut self, key: &[u8]) -> Result<bool> {
        if !self.descend_to(key, Way::Backward)? {
            return Ok(false);
        }
        match self.search(key)? {
            (index, true) => self.go(index, Way::Backward),
            (0, false) => self.leave_leaf(Way::Backward),
            (index, false) => self.go(index - 1, Way::Backward),
        }
    }

    /// Goes to the last entry below `key`.
    pub(crate) fn seek_below(&mut self, key: &[u8]) -> Result<bool> {
        if self.seek_for_prev(key)? && self.key() == key {
            return self.prev();
        }
        Ok(self.valid)
    }

    /// Goes to the first entry.
    pub(crate) fn first(&mut self) -> Result<bool> {
        self.enter_edge(Way::Forward)
    }

    /// Goes to the last entry.
    pub(crate) fn last(&mut self) -> Result<bool> {
        self.enter_edge(Way::Backward)
    }

    /// Goes to the entry after this one; after the last, nowhere.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<bool> {
        if !self.valid {
            return Ok(false);
        }
        self.go(self.index + 1, Way::Forward)
    }

    /// Goes to the entry before this one; before the first, nowhere.
    #[inline]
    pub(crate) fn prev(&mut self) -> Result<bool> {
        if !self.valid {
            return Ok(false);
        }
        match self.index.checked_sub(1) {
            Some(index) => self.go(index, Way::Backward),
            None => self.leave_leaf(Way::Backward),
        }
    }

    /// Shows the entries of the leaf after the one that the cursor stands on to `visit`, until it breaks, as
    /// long as their keys are within. No key is within after one that is not. The cursor then stands on the
    /// entry that was shown last. May stop anywhere before the end of the leaf.
    #[inline]
    pub(crate) fn visit_next<B>(
        &mut self,
        is_within: impl Fn(&[u8]) -> bool,
        visit: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        self.visit_leaf(Way::Forward, |index| index + 1, is_within, visit)
    }

    /// As [`visit_next`](Self::visit_next), with the entries before.
    #[inline]
    pub(crate) fn visit_prev<B>(
        &mut self,
        is_within: impl Fn(&[u8]) -> bool,
        visit: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        self.visit_leaf(Way::Backward, |index| index.wrapping_sub(1), is_within, visit)
    }

    /// `after` gives the index of the entry that comes next on the way, or one that the leaf does not have.
    #[inline(always)]
    fn visit_leaf<B>(
        &mut self,
        way: Way,
        after: impl Fn(usize) -> usize,
        is_within: impl Fn(&[u8]) -> bool,
        visit: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>> {
        // What `visit` does is up to users.
        epoch::assert_left();
        let Some(leaf) = &mut self.leaf else { return Ok(ControlFlow::Continue(())) };
        if !self.valid || self.unusual.is_some() || !is_within(self.key.get()) {
            return Ok(ControlFlow::Continue(()));
        }
        // If `visit` panics, the cursor stands nowhere.
        self.valid = false;
        let (page, offsets) = (&leaf.page[..], leaf.shape.narrow_offsets(&leaf.page));
        let prefix_len = leaf.prefix_len;
        let room = self.key.room(prefix_len + USUAL_REST);
        let mut ahead = leaf.ahead;
        let mut index = self.index;
        let mut is_key_kept = true;
        let mut flow = ControlFlow::Continue(());
        while flow.is_continue()
            && let Some(&bounds) = offsets.get(after(index)..).and_then(<[_]>::first_chunk)
            && let Some((rest, value)) = usual_entry(page, bounds)
        {
            is_key_kept = false;
            let key = put_together(room, prefix_len, rest);
            if !is_within(key) {
                break;
            }
            ahead.fetch_some();
            index = after(index);
            flow = visit(key, value);
        }
        leaf.ahead = ahead;
        if is_key_kept {
            self.valid = true;
        } else {
            self.go(index, way)?;
        }
        Ok(flow)
    }

    /// Whether the value of the entry stands in a run of its own.
    pub(crate) fn value_is_large(&self) -> bool {
        matches!(self.unusual, Some(Unusual::Run(_)))
    }

    /// When the entry expires; 0 if it does not, or operands stand in place of its value.
    pub(crate) fn expiry(&self) -> Expiry {
        match &self.unusual {
            Some(Unusual::Expiring(expiry)) => *expiry,
            Some(Unusual::Run(run)) => run.value.expiry,
            _ => 0,
        }
    }

    /// Length of its value. Reads nothing.
    pub(crate) fn value_len(&self) -> usize {
        match &self.unusual {
            Some(Unusual::Run(run)) => run.value.len as usize,
            _ => self.value.len(),
        }
    }

    /// Whether the entry says that its key is deleted.
    #[inline]
    pub(crate) fn is_deletion(&self) -> bool {
        self.valid && matches!(self.unusual, Some(Unusual::Deletion))
    }

    /// Whether operands stand in place of the entry's value, which then is what they are encoded as.
    #[inline]
    pub(crate) fn is_operands(&self) -> bool {
        self.valid && matches!(self.unusual, Some(Unusual::Operands(_)))
    }

    /// Where what the entry's operands come to may be kept while the cursor stands here; `None` if it has
    /// none.
    pub(crate) fn folded(&self) -> Option<&OnceCell<Box<[u8]>>> {
        match &self.unusual {
            Some(Unusual::Operands(folded)) if self.valid => Some(folded),
            _ => None,
        }
    }

    /// The value of the entry if it stands in the leaf, as most do; the cursor must stand on one.
    #[inline]
    pub(crate) fn usual_value(&self) -> Option<&[u8]> {
        match (&self.unusual, &self.leaf) {
            (None, Some(leaf)) if self.valid => Some(&leaf.page[self.value.clone()]),
            _ => None,
        }
    }

    /// The value of the entry, empty if it is a deletion; reads its run if it has one. Panics if the cursor
    /// stands nowhere.
    #[inline]
    pub(crate) fn value(&self) -> Result<&[u8]> {
        match (&self.unusual, &self.leaf) {
            (None, Some(leaf)) if self.valid => Ok(&leaf.page[self.value.clone()]),
            _ => self.value_in_run(),
        }
    }

    #[inline(never)]
    fn value_in_run(&self) -> Result<&[u8]> {
        let (page, range) = self.place()?;
        Ok(&page[range])
    }

    /// The value of the entry, held independently of the cursor.
    pub(crate) fn pinned_value(&self) -> Result<(PinnedPage, Range<usize>)> {
        let (page, range) = self.place()?;
        Ok((page.clone(), range))
    }

    /// Where the value stands: in the leaf, or in its run, which is read the first time.
    fn place(&self) -> Result<(&PinnedPage, Range<usize>)> {
        assert!(self.valid, "a cursor that stands nowhere has no value");
        match (&self.unusual, &self.leaf) {
            (_, None) => unreachable!("a valid cursor has a leaf"),
            (None | Some(Unusual::Operands(_) | Unusual::Expiring(_)), Some(leaf)) => {
                Ok((&leaf.page, self.value.clone()))
            }
            (Some(Unusual::Deletion), Some(leaf)) => Ok((&leaf.page, 0..0)),
            (Some(Unusual::Run(run)), _) => {
                let range = HEADER_LEN..HEADER_LEN + run.value.len as usize;
                if let Some(page) = run.page.get() {
                    return Ok((page, range));
                }
                let page = load_run(&self.store, run.value.run, run.value.len)?;
                Ok((run.page.get_or_init(|| page), range))
            }
        }
    }

    #[cold]
    fn locate(&self, pointer: PagePointer, fault: Fault) -> Error {
        locate(&self.store, pointer, fault)
    }

    /// Goes to entry `index` of the leaf, or over its edge to the next leaf.
    #[inline]
    fn go(&mut self, index: usize, way: Way) -> Result<bool> {
        if self.stand_at_usual(index) { Ok(true) } else { self.go_any(index, way) }
    }

    /// Goes to an entry of the leaf, if there is one and it is like most. Otherwise does nothing.
    #[inline(always)]
    fn stand_at_usual(&mut self, index: usize) -> bool {
        let Some(leaf) = &mut self.leaf else { return false };
        let offsets = leaf.shape.narrow_offsets(&leaf.page);
        let Some(&bounds) = offsets.get(index..).and_then(<[_]>::first_chunk) else { return false };
        let Some((rest, value)) = usual_entry(&leaf.page, bounds) else { return false };
        if self.unusual.is_some() {
            return false;
        }
        leaf.ahead.fetch_some();
        self.key.set_rest(leaf.prefix_len, rest);
        let end = usize::from(u16::from_le_bytes(bounds[1]));
        self.value = end - value.len()..end;
        self.index = index;
        self.valid = true;
        true
    }

    #[inline(never)]
    fn go_any(&mut self, index: usize, way: Way) -> Result<bool> {
        let mut index = index;
        // One step after the other, also from leaf to leaf: there may be very many that have expired.
        while !self.stand_at(index)? {
            let Some(leaf) = &self.leaf else { return Ok(false) };
            index = match way.next(index, leaf.shape.count()) {
                Some(next) => next,
                None if !self.enter_next(way)? => return Ok(false),
                None => edge(self.leaf.as_ref().map_or(0, |leaf| leaf.shape.count()), way),
            };
        }
        Ok(true)
    }

    /// Goes to entry `index` of the leaf. `false` if there is none, or it is passed over.
    fn stand_at(&mut self, index: usize) -> Result<bool> {
        self.valid = false;
        self.unusual = None;
        let Some(leaf) = &mut self.leaf else { return Ok(false) };
        if index >= leaf.shape.count() {
            return Ok(false);
        }
        leaf.ahead.fetch_some();
        let node = Node::with_shape(&leaf.page, leaf.shape);
        let entry = node.entry(index).map_err(|fault| locate(&self.store, leaf.pointer, fault))?;
        let is_expired = self.now.judges() && node.is_expired(&entry.value, self.now);
        if is_expired && self.passes_expired {
            return Ok(false);
        }
        self.key.set_rest(leaf.prefix_len, entry.rest);
        match entry.value {
            _ if is_expired => self.unusual = Some(Unusual::Deletion),
            LeafValue::Inline(range) => self.value = range,
            LeafValue::Expiring(range) => {
                let expiry = expiry::split(&leaf.page[range.clone()]).map_or(0, |(expiry, _)| expiry);
                self.value = range.start + STAMP_LEN..range.end;
                self.unusual = Some(Unusual::Expiring(expiry));
            }
            LeafValue::Run(value) => {
                self.unusual = Some(Unusual::Run(Box::new(Run { value, page: OnceCell::new() })));
            }
            LeafValue::Deletion => self.unusual = Some(Unusual::Deletion),
            LeafValue::Operands(range) => {
                self.value = range;
                self.unusual = Some(Unusual::Operands(Box::default()));
            }
        }
        self.index = index;
        self.valid = true;
        Ok(true)
    }

    fn search(&self, key: &[u8]) -> Result<(usize, bool)> {
        let Some(leaf) = &self.leaf else { return Ok((0, false)) };
        let node = Node::with_shape(&leaf.page, leaf.shape);
        node.search(key).map_err(|fault| self.locate(leaf.pointer, fault))
    }

    /// Enters the leaf in whose range `key` lies. `false` if the tree is empty.
    fn descend_to(&mut self, key: &[u8], way: Way) -> Result<bool> {
        self.descend(way, |node| node.child_index(key))
    }

    /// Enters the first or last leaf, and stands at its first or last entry.
    fn enter_edge(&mut self, way: Way) -> Result<bool> {
        Ok(self.descend(way, |node| Ok(edge(node.count(), way)))? && self.stand_at_edge(way)?)
    }

    fn stand_at_edge(&mut self, way: Way) -> Result<bool> {
        let count = self.leaf.as_ref().map_or(0, |leaf| leaf.shape.count());
        self.go(edge(count, way), way)
    }

    /// Enters the leaf to which `choose` leads from the root.
    fn descend(
        &mut self,
        way: Way,
        choose: impl Fn(&Node<'_>) -> std::result::Result<usize, Fault>,
    ) -> Result<bool> {
        self.valid = false;
        self.leaf = None;
        self.path.clear();
        self.asked = Asked::default();
        match self.tree.top(&self.store)? {
            Some((root, level)) => self.descend_from(root, level, way, choose).map(|()| true),
            None => Ok(false),
        }
    }

    /// Goes down from the node at `pointer`, adding to the path, and enters the leaf, from which it will go
    /// on in this way.
    fn descend_from(
        &mut self,
        mut pointer: PagePointer,
        level: u8,
        way: Way,
        choose: impl Fn(&Node<'_>) -> std::result::Result<usize, Fault>,
    ) -> Result<()> {
        let mut ahead = Ahead::nothing();
        let mut guard = None;
        for level in (1..=level).rev() {
            let below = self.store.look(pointer, &mut guard, |page| {
                let node = Node::open(page, level)?;
                let index = choose(&node)?;
                let step = Step { pointer, index: index as u32, count: node.count() as u32 };
                let next = way.next(index, node.count()).map(|next| node.child(next)).transpose()?;
                Ok((step, node.child(index)?.pointer, next.map(|next| next.pointer)))
            })?;
            let (step, child, next) = below.map_err(|fault| self.locate(pointer, fault))?;
            self.path.push(step);
            pointer = child;
            if level == 1
                && let Some(next) = next
            {
                let guard = guard.get_or_insert_with(epoch::pin);
                ahead = self.store.ahead(next, way == Way::Forward, guard);
            }
        }
        drop(guard);
        let page = self.store.pin(pointer)?;
        let node = Node::open(&page, 0).map_err(|fault| self.locate(pointer, fault))?;
        let (shape, prefix) = (node.shape(), node.prefix());
        self.key.set_rest(0, prefix);
        let prefix_len = prefix.len();
        self.leaf = Some(Leaf { page, shape, pointer, prefix_len, ahead });
        Ok(())
    }

    /// Goes to the nearest entry of the next leaf.
    #[cold]
    fn leave_leaf(&mut self, way: Way) -> Result<bool> {
        Ok(self.enter_next(way)? && self.stand_at_edge(way)?)
    }

    /// Enters the next leaf, if there is one.
    fn enter_next(&mut self, way: Way) -> Result<bool> {
        self.valid = false;
        let left = self.leaf.take();
        let mut level = 0;
        while let Some(step) = self.path.pop() {
            level += 1;
            let Some(index) = way.next(step.index as usize, step.count as usize) else { continue };
            let mut guard = None;
            let below = self.store.look(step.pointer, &mut guard, |page| {
                let node = Node::open(page, level)?;
                let next = way.next(index, node.count()).map(|next| node.child(next)).transpose()?;
                let child = node.child(index)?.pointer;
                let asked = (level == 1).then(|| self.to_ask(&node, index, child, way));
                Ok((child, next.map(|next| next.pointer), asked))
            })?;
            let (child, next, asked) = below.map_err(|fault| self.locate(step.pointer, fault))?;
            let mut ahead = Ahead::nothing();
            if level == 1
                && let Some(next) = next
            {
                let guard = guard.get_or_insert_with(epoch::pin);
                ahead = self.store.ahead(next, way == Way::Forward, guard);
            }
            drop(guard);
            if let Some((asked, pointers)) = asked {
                self.asked = asked;
                self.store.read_ahead(&pointers);
            }
            self.path.push(Step { index: index as u32, ..step });
            self.descend_from(child, level - 1, way, |node| Ok(edge(node.count(), way)))?;
            if let Some(leaf) = &mut self.leaf
                && level == 1
            {
                leaf.ahead = ahead;
            }
            if let (Some(left), Some(entered)) = (&left, &self.leaf)
                && let Err(error) = self.check_beyond(left, entered, way)
            {
                self.leaf = None;
                return Err(error);
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Leaf `index` below `node`, which is `leaf`, is about to be entered: which leaves the disk is to read,
    /// that one and some that come after it, if it is not in memory and was not asked for. They are few for a
    /// short walk, and twice as many each time, until they are as many as the disk reads in about the time of
    /// one.
    fn to_ask(
        &self,
        node: &Node<'_>,
        index: usize,
        leaf: PagePointer,
        way: Way,
    ) -> (Asked, Vec<PagePointer>) {
        let asked = if self.asked.way == Some(way) { self.asked } else { Asked::default() };
        if asked.left > 0 {
            return (Asked { left: asked.left - 1, ..asked }, Vec::new());
        }
        if !self.store.is_absent(leaf, &epoch::pin()) {
            return (asked, Vec::new());
        }
        let leaves = (asked.leaves * 2).clamp(4, 32);
        let indexes = std::iter::successors(Some(index), |&index| way.next(index, node.count()));
        // What cannot be entered is met by who comes to it.
        let children = indexes.take(leaves).map_while(|index| node.child(index).ok());
        let pointers: Vec<_> = children.map(|child| child.pointer).collect();
        (Asked { way: Some(way), leaves, left: pointers.len() - 1 }, pointers)
    }

    /// Whether `entered` lies beyond the leaf left, from edge to edge. So no leaf is met twice, and a walk
    /// ends: inner nodes that share children would lead through more leaves than anyone can visit.
    fn check_beyond(&self, left: &Leaf, entered: &Leaf, way: Way) -> Result<()> {
        let last = self.edge_key(left, way.opposite())?;
        let (near, far) = (self.edge_key(entered, way)?, self.edge_key(entered, way.opposite())?);
        let goes_on = |from: SplitKey<'_>, to| from.compare(to).0 == way.ordering();
        if goes_on(last, near) && (entered.shape.count() == 1 || goes_on(near, far)) {
            return Ok(());
        }
        Err(self
            .locate(entered.pointer, Fault("the keys of a leaf do not lie beyond those of its neighbour")))
    }

    /// The first key to be met in a leaf on the way.
    fn edge_key<'l>(&self, leaf: &'l Leaf, way: Way) -> Result<SplitKey<'l>> {
        let node = Node::with_shape(&leaf.page, leaf.shape);
        let rest = node.rest(edge(node.count(), way)).map_err(|fault| self.locate(leaf.pointer, fault))?;
        Ok(SplitKey(node.prefix(), rest))
    }
}

/// The first index to be met in a node on the way.
fn edge(count: usize, way: Way) -> usize {
    match way {
        Way::Forward => 0,
        Way::Backward => count - 1,
    }
}
