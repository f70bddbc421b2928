//! A leaf: up to 14 keys, each with its newest version, in four cache lines.
//!
//! Slots are written once, in the order in which keys arrive, and never moved; one word, the *order*, says
//! how many there are and how their keys are sorted. To insert is to fill the next slot and then to store a
//! new order. A reader that loaded an order sees every slot that it names, and is not disturbed by what is
//! added later. Only the pointer of a slot is replaced, by that of a newer version of the same key.
//!
//! Source: Y. Mao, E. Kohler, R. Morris, "Cache Craftiness for Fast Multicore Key-Value Storage", EuroSys
//! 2012, 4.6.2.

use std::ptr::NonNull;

use super::arena::{Arena, Bump};
use super::entry::{EntryHeader, EntryRef};
use super::node::{ALIVE, NodeHeader, NodeRef, head};
use crate::codec::key;
use crate::codec::prefetch::{self, LINE};
use crate::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering};

/// Keys that a leaf can hold.
#[cfg(not(loom))]
pub(super) const LEAF_SLOTS: usize = 14;
#[cfg(loom)]
pub(super) const LEAF_SLOTS: usize = 2;

#[repr(C, align(64))]
pub(super) struct Leaf {
    header: NodeHeader,
    order: AtomicU64,
    /// The largest number where no slot was filled yet, so that such heads count as above every key.
    heads: [AtomicU64; LEAF_SLOTS],
    entries: [AtomicPtr<EntryHeader>; LEAF_SLOTS],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Leaf>() == 4 * LINE || size_of::<usize>() != 8);

/// How the slots of a leaf are sorted: the number of slots in bits 0..4, then four bits for each rank, the
/// slot of the key of that rank; bit 63 says that the leaf's upper neighbour was split off for keys that come
/// in ascending order, bit 62 that other leaves have taken the leaf's place. The writer alone looks at these
/// two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Order(u64);

impl Order {
    const SPLIT_OFF: u64 = 1 << 63;
    const REPLACED: u64 = 1 << 62;

    /// `count` slots that were filled in the order of their keys.
    fn ascending(count: usize) -> Self {
        let mut word = count as u64;
        for slot in 0..count {
            word |= (slot as u64) << (4 * (slot + 1));
        }
        Self(word)
    }

    #[inline]
    pub(super) fn count(self) -> usize {
        (self.0 & 15) as usize
    }

    /// Whether the leaf has had the same range of keys, and been part of the tree, ever since it was built.
    #[inline]
    pub(super) fn is_settled(self) -> bool {
        self.0 & (Self::SPLIT_OFF | Self::REPLACED) == 0
    }

    #[inline]
    fn slot(self, rank: usize) -> usize {
        debug_assert!(rank < self.count(), "rank {rank} of {}", self.count());
        (self.0 >> (4 * (rank + 1)) & 15) as usize
    }

    /// This order with the next slot put at `rank`.
    #[inline]
    fn with_next_slot_at(self, rank: usize) -> Self {
        let slot = self.count();
        debug_assert!(rank <= slot && slot < LEAF_SLOTS, "rank {rank}, slot {slot}");
        let shift = 4 * (rank + 1);
        let below = self.0 & ((1 << shift) - 1);
        let above = self.0 >> shift << shift << 4;
        Self((below | (slot as u64) << shift | above) + 1)
    }
}

/// Where a key is, or belongs, in a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The key is the one of this rank.
    At(usize),
    /// The key is absent; keys below it have the ranks below this one.
    Before(usize),
}

impl Place {
    /// Number of keys at or below the one that was looked for.
    pub(super) fn end(self) -> usize {
        match self {
            Self::At(rank) => rank + 1,
            Self::Before(rank) => rank,
        }
    }

    /// Rank of the first key at or above the one that was looked for.
    pub(super) fn rank(self) -> usize {
        let (Self::At(rank) | Self::Before(rank)) = self;
        rank
    }
}

/// A key's head in its leaf and its newest version.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) head: u64,
    pub(super) entry: EntryRef<'a>,
}

impl Leaf {
    /// A new leaf with `items`, which are sorted and whose heads are those of a node with `prefix`. `deleted`
    /// of their keys are.
    pub(super) fn build<'a>(
        arena: &'a Arena,
        bump: &mut Bump,
        low: Option<EntryRef<'a>>,
        prefix: u32,
        items: &[Item<'a>],
        deleted: usize,
    ) -> &'a Self {
        debug_assert!(!items.is_empty() && items.len() <= LEAF_SLOTS, "a leaf of {} entries", items.len());
        let item = |slot| items.get(slot);
        let newest = || items.iter().map(|item| item.entry.sequence().0).fold(0, u64::max);
        let dead_since = if deleted == items.len() { newest() } else { ALIVE };
        let leaf = Self {
            header: NodeHeader {
                low: low.map(EntryRef::as_ptr),
                prefix,
                level: 0,
                count: 0,
                has_gap: false,
                deleted: AtomicU8::new(deleted as u8),
                dead_since: AtomicU64::new(dead_since),
            },
            order: AtomicU64::new(Order::ascending(items.len()).0),
            heads: std::array::from_fn(|slot| AtomicU64::new(item(slot).map_or(u64::MAX, |item| item.head))),
            entries: std::array::from_fn(|slot| {
                AtomicPtr::new(item(slot).map_or(std::ptr::null_mut(), |item| item.entry.as_ptr().as_ptr()))
            }),
        };
        let start = bump.allocate(arena, size_of::<Self>(), LINE).cast::<Self>();
        // SAFETY: the allocation has a leaf's size and alignment and lives as long as the arena, for 'a.
        unsafe {
            start.write(leaf);
            start.as_ref()
        }
    }

    #[inline]
    pub(super) fn prefix(&self) -> u32 {
        self.header.prefix
    }

    #[inline]
    pub(super) fn low(&self) -> Option<EntryRef<'_>> {
        NodeRef::from(self).low()
    }

    /// The keys that are there now.
    #[inline]
    pub(super) fn order(&self) -> Order {
        Order(self.order.load(Ordering::Acquire))
    }

    /// The newest version of the key of this rank.
    #[inline]
    pub(super) fn entry(&self, order: Order, rank: usize) -> EntryRef<'_> {
        self.entry_in(order.slot(rank))
    }

    #[inline]
    fn entry_in(&self, slot: usize) -> EntryRef<'_> {
        let start = NonNull::new(self.entries[slot].load(Ordering::Acquire));
        let start = start.unwrap_or_else(|| panic!("slot {slot} of a leaf was named before it was filled"));
        // SAFETY: `build`, `insert` or `replace` stored it, with an entry of the leaf's arena. The acquire
        // load sees the entry as it was then.
        unsafe { EntryRef::from_ptr(start) }
    }

    pub(super) fn items<'a>(&'a self, order: Order) -> impl Iterator<Item = Item<'a>> {
        (0..order.count()).map(move |rank| {
            let slot = order.slot(rank);
            Item { head: self.heads[slot].load(Ordering::Relaxed), entry: self.entry_in(slot) }
        })
    }

    /// The slots of `order` whose heads are below, and those whose heads equal `head`, one bit each.
    #[inline]
    fn compare_heads(&self, order: Order, head: u64) -> (u32, u32) {
        let (mut below, mut equal) = (0, 0);
        for (slot, other) in self.heads.iter().enumerate() {
            let other = other.load(Ordering::Relaxed);
            below |= u32::from(other < head) << slot;
            equal |= u32::from(other == head) << slot;
        }
        // A slot beyond the order may be in the middle of being filled.
        let named = (1 << order.count()) - 1;
        (below & named, equal & named)
    }

    /// The newest version of `key`.
    #[inline]
    pub(super) fn find(&self, key: &[u8]) -> Option<EntryRef<'_>> {
        let (_, mut equal) = self.compare_heads(self.order(), head(key, self.prefix()));
        while equal != 0 {
            let entry = self.entry_in(equal.trailing_zeros() as usize);
            if entry.key() == key {
                return Some(entry);
            }
            equal &= equal - 1;
        }
        None
    }

    /// Where `key` is, or belongs, among the keys of `order`.
    #[inline]
    pub(super) fn search(&self, order: Order, key: &[u8]) -> Place {
        let (below, equal) = self.compare_heads(order, head(key, self.prefix()));
        let mut low = below.count_ones() as usize;
        let mut high = low + equal.count_ones() as usize;
        while low < high {
            let middle = low.midpoint(high);
            match key::compare(self.entry(order, middle).key(), key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Place::At(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Place::Before(low)
    }

    /// Adds a new key at `rank`. Only the writer calls this, with the newest order, on a leaf that is not
    /// full.
    #[inline]
    pub(super) fn insert(&self, order: Order, rank: usize, item: Item<'_>) {
        let slot = order.count();
        self.heads[slot].store(item.head, Ordering::Relaxed);
        self.entries[slot].store(item.entry.as_ptr().as_ptr(), Ordering::Relaxed);
        self.order.store(order.with_next_slot_at(rank).0, Ordering::Release);
    }

    /// Puts a newer version on top of the key of this rank. Only the writer calls this.
    #[inline]
    pub(super) fn replace(&self, order: Order, rank: usize, entry: EntryRef<'_>) {
        self.entries[order.slot(rank)].store(entry.as_ptr().as_ptr(), Ordering::Release);
    }

    /// The rank of the key that was added last.
    pub(super) fn newest_rank(&self, order: Order) -> usize {
        let newest = order.count() - 1;
        (0..=newest).find(|&rank| order.slot(rank) == newest).expect("an order names every slot")
    }

    /// Whether this is the first time that the leaf's upper neighbour is split off for ascending keys. Only
    /// the writer calls this.
    pub(super) fn split_off_once(&self) -> bool {
        let order = self.order().0;
        self.order.store(order | Order::SPLIT_OFF, Ordering::Release);
        order & Order::SPLIT_OFF == 0
    }

    /// Keys that are deleted, as the writer knows it.
    #[inline]
    pub(super) fn deleted(&self) -> usize {
        usize::from(self.header.deleted.load(Ordering::Relaxed))
    }

    /// Whether all keys are deleted, as the writer knows it.
    pub(super) fn is_deleted(&self) -> bool {
        self.deleted() == self.order().count()
    }

    /// Whether the leaf is marked as dead, as the writer knows it.
    #[inline]
    pub(super) fn is_dead(&self) -> bool {
        self.header.dead_since.load(Ordering::Relaxed) != ALIVE
    }

    /// One more key is deleted, or one less. Only the writer calls this.
    #[inline]
    pub(super) fn count_deleted(&self, more: bool) {
        let deleted = self.header.deleted.load(Ordering::Relaxed);
        self.header.deleted.store(if more { deleted + 1 } else { deleted - 1 }, Ordering::Relaxed);
    }

    /// Other leaves take the place of this one. Only the writer calls this.
    pub(super) fn mark_replaced(&self) {
        self.order.store(self.order().0 | Order::REPLACED, Ordering::Release);
    }

    /// Asks for the whole leaf ahead of its use.
    #[inline]
    pub(super) fn prefetch(node: NodeRef<'_>) {
        let start = node.as_ptr().as_ptr().cast::<u8>();
        for line in 0..size_of::<Self>() / LINE {
            prefetch::line(start.wrapping_add(line * LINE));
        }
    }

    /// Asks for the entries ahead of their use.
    pub(super) fn prefetch_entries(&self, order: Order) {
        for slot in 0..order.count() {
            self.entry_in(slot).prefetch();
        }
    }
}

impl<'a> From<&'a Leaf> for NodeRef<'a> {
    fn from(leaf: &'a Leaf) -> Self {
        // SAFETY: a leaf begins with its header, and the reference covers all of it.
        unsafe { Self::from_ptr(NonNull::from(leaf).cast()) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_order_names_every_slot_once_wherever_slots_are_put() {
        for ranks in [[0; LEAF_SLOTS], std::array::from_fn(|i| i), std::array::from_fn(|i| i / 2)] {
            let mut order = Order::ascending(0);
            let mut model = Vec::new();
            for (slot, rank) in ranks.into_iter().enumerate() {
                order = order.with_next_slot_at(rank);
                model.insert(rank, slot);
                let slots: Vec<_> = (0..order.count()).map(|rank| order.slot(rank)).collect();
                assert_eq!(slots, model);
            }
        }
    }

    #[test]
    fn an_ascending_order_is_that_of_slots_put_at_the_end() {
        let mut order = Order::ascending(0);
        for count in 0..LEAF_SLOTS {
            order = order.with_next_slot_at(count);
            assert!(order == Order::ascending(count + 1), "{count}");
        }
    }
}
