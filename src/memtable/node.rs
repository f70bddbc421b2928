//! What leaves and branches have in common: the header, heads, and references to either.

use std::marker::PhantomData;
use std::ptr::NonNull;

use super::arena::Arena;
use super::entry::{EntryHeader, EntryRef};
use crate::codec::ids::SequenceNumber;
use crate::codec::key;
use crate::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering};

/// The first bytes of every node. But for its marks (see `dead`) never changed once the node is built.
#[repr(C)]
pub(super) struct NodeHeader {
    /// An entry whose key is the lower bound of all keys of the node; `None`: there is none below it.
    pub(super) low: Option<NonNull<EntryHeader>>,
    /// Leading bytes that all keys of the node share; its heads begin after them.
    pub(super) prefix: u32,
    /// 0 for a leaf, and for a branch whose children are entries.
    pub(super) level: u8,
    /// Children of a branch.
    pub(super) count: u8,
    /// Of a branch of range deletions: whether a boundary under it covers nothing.
    pub(super) has_gap: bool,
    /// Keys of a leaf that are deleted, for the writer.
    pub(super) deleted: AtomicU8,
    /// Number of the commit since which every key below is deleted; [`ALIVE`] if that is not known.
    pub(super) dead_since: AtomicU64,
}

/// No commit has this number.
pub(super) const ALIVE: u64 = u64::MAX;

impl NodeHeader {
    /// That of a branch whose children are not counted yet.
    pub(super) fn of_branch(
        low: Option<NonNull<EntryHeader>>,
        prefix: u32,
        level: u8,
        has_gap: bool,
    ) -> Self {
        let (deleted, dead_since) = (AtomicU8::new(0), AtomicU64::new(ALIVE));
        Self { low, prefix, level, count: 0, has_gap, deleted, dead_since }
    }

    /// Whether every key below is deleted, and was so at `at` and ever since.
    #[inline]
    pub(super) fn is_dead_at(&self, at: SequenceNumber) -> bool {
        let since = self.dead_since.load(Ordering::Acquire);
        since != ALIVE && since <= at.0
    }

    /// Every key below is deleted since `sequence`, or longer if that was known. Only the writer calls this.
    pub(super) fn set_dead(&self, sequence: SequenceNumber) {
        if self.dead_since.load(Ordering::Relaxed) == ALIVE {
            self.dead_since.store(sequence.0, Ordering::Release);
        }
    }

    /// A key below gets a value. Only the writer calls this.
    pub(super) fn set_alive(&self) {
        self.dead_since.store(ALIVE, Ordering::Release);
    }
}

/// A node of an arena that lives for `'a`.
#[derive(Clone, Copy)]
pub(super) struct NodeRef<'a> {
    start: NonNull<NodeHeader>,
    life: PhantomData<&'a NodeHeader>,
}

impl<'a> NodeRef<'a> {
    /// The node at `start`.
    ///
    /// # Safety
    ///
    /// `start` was got from [`NodeRef::as_ptr`] of a node whose arena lives for `'a`, and the node was
    /// published to this thread. It covers the whole node, not its header alone.
    #[inline]
    pub(super) unsafe fn from_ptr(start: NonNull<NodeHeader>) -> Self {
        Self { start, life: PhantomData }
    }

    #[inline]
    pub(super) fn as_ptr(self) -> NonNull<NodeHeader> {
        self.start
    }

    #[inline]
    pub(super) fn header(self) -> &'a NodeHeader {
        // SAFETY: a `NodeRef` points to a node, which begins with a header; what changes in it are atomics.
        unsafe { self.start.as_ref() }
    }

    /// An entry whose key is the lower bound of all keys of the node.
    #[inline]
    pub(super) fn low(self) -> Option<EntryRef<'a>> {
        // SAFETY: `low` came from an entry of the same arena that was written before the node.
        self.header().low.map(|start| unsafe { EntryRef::from_ptr(start) })
    }
}

/// Where a tree begins. Belongs to one arena: what is stored and what is loaded lies in that one.
pub(super) struct Root(AtomicPtr<NodeHeader>);

impl Root {
    pub(super) fn empty() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire).is_null()
    }

    #[inline]
    pub(super) fn load<'a>(&self, _arena: &'a Arena) -> Option<NodeRef<'a>> {
        let start = NonNull::new(self.0.load(Ordering::Acquire))?;
        // SAFETY: `publish` stored it, with a node of the same arena; the acquire load sees the node as it
        // was then.
        Some(unsafe { NodeRef::from_ptr(start) })
    }

    /// Makes `node`, and all that it leads to, what readers find from now on.
    pub(super) fn publish(&self, _arena: &Arena, node: NodeRef<'_>) {
        self.0.store(node.start.as_ptr(), Ordering::Release);
    }
}

/// The head of `key` in a node with that prefix.
#[inline]
pub(super) fn head(key: &[u8], prefix: u32) -> u64 {
    if prefix == 0 { key::head8(key) } else { head_after(key, prefix as usize) }
}

#[inline]
fn head_after(key: &[u8], prefix: usize) -> u64 {
    debug_assert!(key.len() >= prefix, "a key of {} bytes in a node with a prefix of {prefix}", key.len());
    key::head8(&key[prefix..])
}
