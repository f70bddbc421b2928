//! The memory of a family's pages: frames, cut from slabs of geometric size, and who owns each of them.
//!
//! A frame is in one of these states:
//!
//! ```text
//! free ----take----> owned (OwnedFrame: one thread reads or builds a page in it)
//! owned ---insert--> mapped (an entry of the frame table names it; its bytes are final)
//! mapped --remove, evict--> retired (no entry names it; readers of its time may still look at it)
//! retired -grace period, no pins--> free
//! retired -grace period, pins-----> limbo --pins gone--> free
//! ```
//!
//! Invariants:
//! 1. The bytes of a frame change only while it is owned.
//! 2. A reader uses a mapped frame only under an epoch guard that was taken before it loaded the entry, or
//!    under a pin.
//! 3. Pins are taken under such a guard, from another pin, or while something else keeps the frame mapped. So
//!    when the grace period of a retired frame is over, its pins only go down.
//! 4. The lock of the free list is never held across a call into the epoch module, which runs what others
//!    deferred, and that takes this lock.
//!
//! The rejected alternative, a reference count that every reader takes, makes all readers of a hot page write
//! to one cache line.

use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::OnceLock;

use crossbeam_utils::CachePadded;

use super::slab::Slab;
use crate::codec::ids::PageId;
use crate::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use crate::sync::epoch::{self, Guard};
use crate::sync::{Arc, Mutex};
use crate::system::page_size;

/// Number of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame(pub(super) u32);

impl Frame {
    /// Frames are numbered below this, so that an entry of the frame table holds the number and two flags.
    pub(super) const LIMIT: u32 = (1 << 30) - 1;
}

/// Bytes between the ends of frames and the starts of the next ones. Without them the headers of all pages
/// would fall into the same few sets of a processor's caches, and push each other out.
const COLOUR: usize = 64;

/// Frames of the first slab; each further one is twice as large as the one before it.
const FIRST_SLAB_BITS: u32 = 2;
#[cfg(not(loom))]
const SLABS: usize = 29;
#[cfg(loom)]
const SLABS: usize = 2;

struct FrameSlab {
    memory: Slab,
    frames: Box<[FrameState]>,
}

impl FrameSlab {
    /// `slots`, and up to `most` bare frames on either side: a page of the system goes back once all frames
    /// in it are bare.
    fn with_bare_neighbours(&self, slots: Range<usize>, most: usize) -> Range<usize> {
        let (before, after) = (&self.frames[..slots.start], &self.frames[slots.end..]);
        let before = before.iter().rev().take(most).take_while(|frame| frame.is_bare()).count();
        let after = after.iter().take(most).take_while(|frame| frame.is_bare()).count();
        slots.start - before..slots.end + after
    }
}

#[derive(Debug)]
struct FrameState {
    /// Holders that keep the frame beyond their epoch guard.
    pins: AtomicU32,
    /// The page that it was last made to hold; [`NO_PAGE`] while it is free.
    page: AtomicU32,
    /// Whether it is free and has no memory: never used, or given back to the system. Guarded by the lock of
    /// the free list.
    is_bare: AtomicBool,
}

impl FrameState {
    fn new() -> Self {
        Self { pins: AtomicU32::new(0), page: AtomicU32::new(NO_PAGE), is_bare: AtomicBool::new(true) }
    }

    fn is_bare(&self) -> bool {
        self.is_bare.load(Ordering::Relaxed)
    }

    fn set_bare(&self, yes: bool) {
        self.is_bare.store(yes, Ordering::Relaxed);
    }
}

/// Tells the clock at a glance that there is nothing to see. The one page that has this number is never
/// evicted.
const NO_PAGE: u32 = u32::MAX;

/// The frames of one family.
pub(super) struct FrameStore {
    page_size: usize,
    /// Where each slab begins, which is all that a reader asks.
    starts: [AtomicPtr<u8>; SLABS],
    slabs: [OnceLock<Box<FrameSlab>>; SLABS],
    /// Frames that real memory is kept for; beyond it, what gets free goes back to the system.
    keep: AtomicUsize,
    list: CachePadded<Mutex<FreeList>>,
}

#[derive(Debug, Default)]
struct FreeList {
    /// Free, with memory behind them.
    free: Vec<Frame>,
    /// Free, their memory given back to the system.
    bare: Vec<Frame>,
    /// Retired and past their grace period, but pinned.
    limbo: Vec<Frame>,
    /// Every frame from here on was never used.
    next: u32,
    /// Pages that were allocated for a `NewPage` which was dropped unpublished.
    unpublished: Vec<(PageId, u32)>,
}

impl FreeList {
    /// Frames in any state but free.
    fn busy(&self) -> usize {
        self.next as usize - self.free.len() - self.bare.len()
    }
}

#[inline]
fn place(frame: Frame) -> (usize, usize) {
    let index = frame.0 + (1 << FIRST_SLAB_BITS);
    let bits = index.ilog2();
    ((bits - FIRST_SLAB_BITS) as usize, (index - (1 << bits)) as usize)
}

impl FrameStore {
    /// No frames yet, each to be of `page_size` bytes. Memory of `keep` frames is kept for use again.
    pub(super) fn new(page_size: usize, keep: usize) -> Arc<Self> {
        Arc::new(Self {
            page_size,
            starts: std::array::from_fn(|_| AtomicPtr::new(std::ptr::null_mut())),
            slabs: std::array::from_fn(|_| OnceLock::new()),
            keep: AtomicUsize::new(keep),
            list: CachePadded::new(Mutex::new(FreeList::default())),
        })
    }

    /// Takes a frame, unless `ceiling` frames are busy or there is no memory.
    pub(super) fn take(self: &Arc<Self>, ceiling: usize) -> Option<OwnedFrame> {
        let mut list = self.list.lock();
        if list.busy() >= ceiling && !list.limbo.is_empty() {
            self.leave_limbo(&mut list);
        }
        if list.busy() >= ceiling {
            return None;
        }
        let frame = match list.free.pop().or_else(|| self.pop_bare(&mut list)) {
            Some(frame) => frame,
            None => self.fresh(&mut list)?,
        };
        drop(list);
        Some(OwnedFrame { store: Arc::clone(self), frame })
    }

    fn pop_bare(&self, list: &mut FreeList) -> Option<Frame> {
        let frame = list.bare.pop()?;
        self.state(frame).set_bare(false);
        Some(frame)
    }

    fn fresh(&self, list: &mut FreeList) -> Option<Frame> {
        let frame = Frame(list.next);
        if frame.0 >= Frame::LIMIT {
            return None;
        }
        let (slab, _) = place(frame);
        let cell = self.slabs.get(slab)?;
        if cell.get().is_none() {
            let len = 1usize << (slab as u32 + FIRST_SLAB_BITS);
            let memory = Slab::new(len.checked_mul(self.page_size + COLOUR)?)?;
            let frames = (0..len).map(|_| FrameState::new()).collect();
            // SAFETY: a slab has at least one byte.
            let start = unsafe { memory.at(0) };
            let set = cell.set(Box::new(FrameSlab { memory, frames }));
            assert!(set.is_ok(), "slab {slab} was made twice");
            self.starts[slab].store(start.as_ptr(), Ordering::Release);
        }
        list.next += 1;
        self.state(frame).set_bare(false);
        Some(frame)
    }

    /// Retires frames that were just taken out of the frame table under `guard`; `beside` is dropped with
    /// them.
    pub(super) fn retire(self: &Arc<Self>, frames: Vec<Frame>, beside: impl Send + 'static, guard: &Guard) {
        if !frames.is_empty() {
            // A store that is gone has nobody who could look at its frames.
            let store = Arc::downgrade(self);
            epoch::defer(guard, move || {
                drop(beside);
                if let Some(store) = store.upgrade() {
                    store.reclaim(frames);
                }
            });
        }
    }

    /// The grace period of `frames` is over.
    fn reclaim(&self, frames: Vec<Frame>) {
        let mut list = self.list.lock();
        list.limbo.extend(frames);
        self.leave_limbo(&mut list);
    }

    /// Frees the frames in limbo whose pins are gone.
    fn leave_limbo(&self, list: &mut FreeList) {
        let mut limbo = std::mem::take(&mut list.limbo);
        limbo.retain(|&frame| {
            // Acquire: what the last holder read happened before the frame is written anew.
            let pinned = self.state(frame).pins.load(Ordering::Acquire) != 0;
            if !pinned {
                self.free(list, frame);
            }
            pinned
        });
        list.limbo = limbo;
        self.give_back(list);
    }

    fn free(&self, list: &mut FreeList, frame: Frame) {
        self.state(frame).page.store(NO_PAGE, Ordering::Relaxed);
        list.free.push(frame);
    }

    /// Keeps real memory for no more than `keep` frames, busy ones included.
    pub(super) fn set_keep(&self, keep: usize) {
        self.keep.store(keep, Ordering::Relaxed);
        self.give_back(&mut self.list.lock());
    }

    /// Gives the memory of free frames beyond what is kept back to the system, that of neighbours together:
    /// the pages of the system do not end where frames do, and may be larger than one.
    fn give_back(&self, list: &mut FreeList) {
        let real = list.next as usize - list.bare.len();
        let surplus = real.saturating_sub(self.keep.load(Ordering::Relaxed)).min(list.free.len());
        if surplus == 0 {
            return;
        }
        list.free.sort_unstable_by_key(|frame| frame.0);
        let gone = list.free.split_off(list.free.len() - surplus);
        for run in gone.chunk_by(|a, b| a.0 + 1 == b.0 && place(*a).0 == place(*b).0) {
            let (slab, slot) = self.find(run[0]);
            let slots = slot..slot + run.len();
            slab.frames[slots.clone()].iter().for_each(|frame| frame.set_bare(true));
            let stride = self.page_size + COLOUR;
            let Range { start, end } = slab.with_bare_neighbours(slots, page_size().div_ceil(stride));
            // SAFETY: the caller holds the lock of the free list and the frames are free, so nobody uses them
            // (invariants 1 to 3).
            unsafe { slab.memory.give_back(start * stride, (end - start) * stride) };
        }
        list.bare.extend(gone);
    }

    /// Frames in use, whether mapped, owned, or waiting for readers to leave.
    pub(super) fn busy(&self) -> usize {
        self.list.lock().busy()
    }

    /// Bytes of all frames that have memory, and of what is known of each frame.
    pub(super) fn memory(&self) -> (usize, usize) {
        let list = self.list.lock();
        let frames = (list.next as usize - list.bare.len()) * (self.page_size + COLOUR);
        let lists =
            (list.free.capacity() + list.bare.capacity() + list.limbo.capacity()) * size_of::<Frame>();
        drop(list);
        let states = self.slabs.iter().filter_map(OnceLock::get);
        let states = states.map(|slab| size_of::<FrameSlab>() + size_of_val(&*slab.frames));
        (frames, states.sum::<usize>() + lists)
    }

    /// Frames that have ever been used: the clock's dial.
    pub(super) fn dial(&self) -> u32 {
        self.list.lock().next
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let list = self.list.lock();
        (list.free.len(), list.bare.len(), list.limbo.len())
    }

    /// The page that `frame` was last made to hold; `None` if it is free.
    pub(super) fn page(&self, frame: Frame) -> Option<PageId> {
        let page = self.state(frame).page.load(Ordering::Relaxed);
        (page != NO_PAGE).then_some(PageId(page))
    }

    /// Pins `frame`: it is not reused until the matching [`unpin`](Self::unpin). Invariant 3 says when this
    /// is allowed.
    pub(super) fn pin(&self, frame: Frame) {
        self.state(frame).pins.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn unpin(&self, frame: Frame) {
        // Release: what the holder read happened before the frame is written anew.
        let before = self.state(frame).pins.fetch_sub(1, Ordering::Release);
        assert!(before > 0, "frame {} was unpinned more often than pinned", frame.0);
    }

    /// Remembers pages whose `NewPage` was dropped unpublished, until someone frees them.
    pub(super) fn note_unpublished(&self, page: PageId, pages: u32) {
        self.list.lock().unpublished.push((page, pages));
    }

    /// Takes the pages that were noted as unpublished.
    pub(super) fn take_unpublished(&self) -> Vec<(PageId, u32)> {
        std::mem::take(&mut self.list.lock().unpublished)
    }

    #[inline]
    fn find(&self, frame: Frame) -> (&FrameSlab, usize) {
        let (slab, slot) = place(frame);
        (self.slabs[slab].get().expect("a frame's slab was made before the frame"), slot)
    }

    fn state(&self, frame: Frame) -> &FrameState {
        let (slab, slot) = self.find(frame);
        &slab.frames[slot]
    }

    #[inline]
    pub(super) fn start(&self, frame: Frame) -> NonNull<u8> {
        let (slab, slot) = place(frame);
        let start = NonNull::new(self.starts[slab].load(Ordering::Acquire));
        let start = start.expect("a frame's slab was made before the frame");
        // SAFETY: the slab, which goes with the store, has as many frames of this size as `place` gives slots
        // of it.
        unsafe { start.add(slot * (self.page_size + COLOUR)) }
    }

    pub(super) fn page_size(&self) -> usize {
        self.page_size
    }

    /// The bytes of a mapped frame.
    ///
    /// # Safety
    /// While the bytes are borrowed, the caller is entitled to the frame by invariant 2.
    #[inline]
    pub(super) unsafe fn bytes(&self, frame: Frame) -> &[u8] {
        // SAFETY: the frame lies inside its slab; nobody writes to it while it is held (invariants 1 to 3);
        // the slab goes with the store, which is borrowed.
        unsafe { std::slice::from_raw_parts(self.start(frame).as_ptr(), self.page_size) }
    }
}

/// A frame that belongs to one thread, to be filled. Goes back to the free list unless it is mapped.
pub(super) struct OwnedFrame {
    store: Arc<FrameStore>,
    frame: Frame,
}

impl OwnedFrame {
    pub(super) fn frame(&self) -> Frame {
        self.frame
    }

    /// Says which page the frame is about to hold; the clock finds the entry by it.
    pub(super) fn set_page(&self, page: PageId) {
        self.store.state(self.frame).page.store(page.0, Ordering::Relaxed);
    }

    /// The frame was mapped: it belongs to the frame table now.
    pub(super) fn into_mapped(self) {
        let mut this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never used or dropped again, so the `Arc` is dropped once.
        unsafe { std::ptr::drop_in_place(&mut this.store) };
    }
}

impl Deref for OwnedFrame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the frame is owned: nobody else reads or writes it (invariant 1), and `self` holds the
        // store.
        unsafe { std::slice::from_raw_parts(self.store.start(self.frame).as_ptr(), self.store.page_size) }
    }
}

impl DerefMut for OwnedFrame {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.store.start(self.frame).as_ptr(), self.store.page_size) }
    }
}

impl Drop for OwnedFrame {
    fn drop(&mut self) {
        let mut list = self.store.list.lock();
        self.store.free(&mut list, self.frame);
        self.store.give_back(&mut list);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn places_are_dense_over_doubling_slabs() {
        let mut expected = (0, 0);
        for frame in 0..1000 {
            assert_eq!(place(Frame(frame)), expected);
            expected.1 += 1;
            if expected.1 == 1 << (expected.0 as u32 + FIRST_SLAB_BITS) {
                expected = (expected.0 + 1, 0);
            }
        }
        assert!(place(Frame(Frame::LIMIT - 1)).0 < SLABS);
    }

    #[test]
    fn the_ceiling_holds_and_dropped_frames_are_taken_again() {
        let store = FrameStore::new(512, 10);
        let mut owned: Vec<_> = (0..10).map(|_| store.take(10).unwrap()).collect();
        assert!(store.take(10).is_none());
        for (i, frame) in owned.iter_mut().enumerate() {
            frame.fill(i as u8);
        }
        for (i, frame) in owned.iter().enumerate() {
            assert!(frame.iter().all(|&byte| byte == i as u8));
        }
        let last = owned.pop().unwrap().frame();
        assert_eq!(store.take(10).unwrap().frame(), last);
    }

    #[test]
    fn memory_beyond_what_is_kept_goes_back() {
        let store = FrameStore::new(512, 4);
        let owned: Vec<_> = (0..6).map(|_| store.take(6).unwrap()).collect();
        drop(owned);
        assert_eq!(store.counts(), (4, 2, 0));
        store.set_keep(1);
        assert_eq!(store.counts(), (1, 5, 0));
        let again: Vec<_> = (0..6).map(|_| store.take(6).unwrap()).collect();
        assert!(store.take(6).is_none());
        drop(again);
    }

    #[test]
    fn memory_that_goes_back_is_never_that_of_a_busy_frame_whatever_the_page_size() {
        const FRAMES: usize = if cfg!(miri) { 60 } else { 900 };
        for frame_size in [512, 4096, 8192, 32768] {
            let store = FrameStore::new(frame_size, 0);
            let mut random = 1u64;
            let mut busy: Vec<(OwnedFrame, u8)> = Vec::new();
            for round in 1..=8 {
                while let Some(mut frame) = store.take(FRAMES) {
                    frame.fill(round);
                    busy.push((frame, round));
                }
                busy.retain(|_| {
                    random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    random >> 62 != 0
                });
                for (frame, round) in &busy {
                    // Compared as a whole, which miri does at once.
                    assert!(frame[..] == vec![*round; frame_size][..], "a frame of {frame_size} bytes");
                }
            }
        }
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn no_memory_stays_once_all_frames_are_free_whatever_the_page_size() {
        let store = FrameStore::new(8192, 0);
        let mut owned: Vec<_> = (0..500).map(|_| store.take(500).unwrap()).collect();
        owned.iter_mut().for_each(|frame| frame.fill(1));
        // One after the other, so that hardly any is as long as a page of the system.
        while !owned.is_empty() {
            owned.swap_remove(owned.len() * 7 / 13);
        }
        let stride = 8192 + COLOUR;
        for slab in store.slabs.iter().filter_map(OnceLock::get) {
            let len = crate::system::whole_pages(0..slab.frames.len() * stride).end;
            // SAFETY: nobody uses the memory, which is readable to its end.
            let bytes = unsafe { std::slice::from_raw_parts(slab.memory.at(0).as_ptr(), len) };
            assert!(bytes.iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn a_pinned_frame_waits_in_limbo() {
        let store = FrameStore::new(512, 4);
        let owned = store.take(1).unwrap();
        let frame = owned.frame();
        owned.into_mapped();
        store.pin(frame);
        store.reclaim(vec![frame]);
        assert!(store.take(1).is_none());
        assert_eq!(store.counts(), (0, 0, 1));
        store.unpin(frame);
        assert_eq!(store.take(1).unwrap().frame(), frame);
    }
}
