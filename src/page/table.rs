//! Where a page stands in memory: one 32-bit entry for each page number.
//!
//! ```text
//! bit 0      referenced since the clock hand last came by
//! bit 1      dirty: not yet written, never evicted
//! bits 2..32 frame + 1; 0: the page is not in memory
//! ```
//!
//! Entries stand in pieces of 64. A piece is made when the first of its pages enters, and let go when the
//! last one leaves, so that pieces take memory in proportion to what is cached, not to the file: four bytes
//! for each page where neighbours are cached together, at most a piece where each stands alone. A directory
//! names the pieces. It stands in chunks, each as large as all before it together, made when first needed and
//! never moved, of eight bytes for 64 page numbers. So a look-up is three loads, the first from a few cache
//! lines, the second from an eighth of a byte for each page of the file.
//!
//! A transition is one compare-and-swap, so every entry that is taken out is taken out by exactly one thread,
//! which then owns retiring the frame. [`FrameTable::clean`] and [`FrameTable::dirty`] follow the
//! transitions.
//!
//! How a piece goes:
//!
//! 1. Its count of users goes up before an entry is filled and down after one was emptied, so it is never
//!    below the number of entries that are filled.
//! 2. Who takes the count to zero tries to replace zero by [`GONE`]. Who succeeds takes the piece out of the
//!    directory and retires it, under a guard that was taken before.
//! 3. Who finds the count to be `GONE` fills nothing there, but helps to take the piece out, and makes
//!    another.
//! 4. A piece is touched only under a guard that was taken before it was looked up.

#[cfg(not(loom))]
use std::alloc::Layout;
use std::ptr::null_mut;

use crossbeam_utils::CachePadded;

use super::frames::Frame;
use crate::codec::ids::PageId;
use crate::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use crate::sync::epoch::{self, Guard};

const REFERENCED: u32 = 1;
const DIRTY: u32 = 2;
const FRAME_SHIFT: u32 = 2;
const EMPTY: u32 = 0;

/// The number of users of a piece that is let go.
const GONE: u32 = u32::MAX;

#[cfg(not(loom))]
const PIECE_BITS: u32 = 6;
#[cfg(loom)]
const PIECE_BITS: u32 = 1;

#[cfg(not(loom))]
const FIRST_CHUNK_BITS: u32 = 3;
#[cfg(loom)]
const FIRST_CHUNK_BITS: u32 = 1;

#[cfg(not(loom))]
const CHUNKS: usize = (33 - PIECE_BITS - FIRST_CHUNK_BITS) as usize;
#[cfg(loom)]
const CHUNKS: usize = 2;

/// The entries of neighbouring pages.
struct Piece {
    /// Entries that are filled, or about to be.
    users: AtomicU32,
    entries: [AtomicU32; 1 << PIECE_BITS],
}

/// A piece that is out of the directory: to be dropped after every guard that lives now is gone.
pub(super) struct RetiredPiece(#[expect(dead_code, reason = "held until it is dropped")] Box<Piece>);

/// What left the table: to be used anew, or given back, after every guard that lives now is gone.
#[derive(Default)]
pub(super) struct Retired {
    pub(super) frames: Vec<Frame>,
    /// Let go with the last of the frames' pages.
    pub(super) pieces: Vec<RetiredPiece>,
}

pub(super) struct FrameTable {
    directory: [AtomicPtr<AtomicPtr<Piece>>; CHUNKS],
    counts: CachePadded<Counts>,
}

/// What changes with every insertion, apart from what every hit reads.
struct Counts {
    clean: AtomicUsize,
    dirty: AtomicUsize,
    pieces: AtomicUsize,
}

/// What became of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inserted {
    Done,
    /// The page is in memory already, in this frame.
    Occupied(Frame),
    /// There is no memory for the entry.
    Refused,
}

/// What the clock hand did to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aged {
    /// It was taken out; the caller retires the frame.
    Evicted,
    /// It lost its mark, or was marked just now.
    Spared,
    /// It is dirty, or the frame no longer holds the page.
    Skipped,
}

/// Where the directory names the page's piece, by chunk and slot.
#[inline]
fn place(page: PageId) -> (usize, usize) {
    let index = (page.0 >> PIECE_BITS) + (1 << FIRST_CHUNK_BITS);
    let bits = index.ilog2();
    ((bits - FIRST_CHUNK_BITS) as usize, (index - (1 << bits)) as usize)
}

fn chunk_len(chunk: usize) -> usize {
    1 << (chunk + FIRST_CHUNK_BITS as usize)
}

#[inline]
fn frame_of(value: u32) -> Option<Frame> {
    (value >> FRAME_SHIFT).checked_sub(1).map(Frame)
}

#[inline]
fn value_of(frame: Frame, flags: u32) -> u32 {
    assert!(frame.0 < Frame::LIMIT, "frame {} is beyond the limit {}", frame.0, Frame::LIMIT);
    (frame.0 + 1) << FRAME_SHIFT | flags
}

impl FrameTable {
    pub(super) fn new() -> Self {
        Self {
            directory: std::array::from_fn(|_| AtomicPtr::new(null_mut())),
            counts: CachePadded::new(Counts {
                clean: AtomicUsize::new(0),
                dirty: AtomicUsize::new(0),
                pieces: AtomicUsize::new(0),
            }),
        }
    }

    /// Bytes of pieces and directory.
    pub(super) fn memory(&self) -> usize {
        self.piece_bytes() + self.directory_bytes()
    }

    /// Pages in memory that may be evicted.
    pub(super) fn clean(&self) -> usize {
        self.counts.clean.load(Ordering::Relaxed)
    }

    /// Pages in memory that are not yet written.
    pub(super) fn dirty(&self) -> usize {
        self.counts.dirty.load(Ordering::Relaxed)
    }

    /// Bytes of the pieces.
    pub(super) fn piece_bytes(&self) -> usize {
        self.counts.pieces.load(Ordering::Relaxed) * size_of::<Piece>()
    }

    /// Bytes of the directory. Of a large chunk only what was used takes memory.
    pub(super) fn directory_bytes(&self) -> usize {
        let is_there = |chunk: &usize| !self.directory[*chunk].load(Ordering::Relaxed).is_null();
        (0..CHUNKS).filter(is_there).map(|chunk| chunk_len(chunk) * size_of::<AtomicPtr<Piece>>()).sum()
    }

    /// The frame that holds `page`, marked as referenced. Its bytes stay as they are while the guard lives.
    #[inline]
    pub(super) fn lookup(&self, page: PageId, guard: &Guard) -> Option<Frame> {
        let entry = self.entry(page, guard)?;
        let value = entry.load(Ordering::Acquire);
        let frame = frame_of(value)?;
        if value & REFERENCED == 0 {
            // Lost to a neighbour's change of the entry, the mark is not worth a second try.
            let _ = entry.compare_exchange(value, value | REFERENCED, Ordering::Relaxed, Ordering::Relaxed);
        }
        Some(frame)
    }

    /// The frame that holds `page`, which is not marked as referenced.
    pub(super) fn peek(&self, page: PageId, guard: &Guard) -> Option<Frame> {
        frame_of(self.entry(page, guard)?.load(Ordering::Acquire))
    }

    /// The frame that holds `page` if the page is dirty.
    pub(super) fn lookup_dirty(&self, page: PageId, guard: &Guard) -> Option<Frame> {
        let value = self.entry(page, guard)?.load(Ordering::Acquire);
        if value & DIRTY == 0 { None } else { frame_of(value) }
    }

    /// Makes `frame`, whose bytes are final, what holds `page`.
    pub(super) fn insert(&self, page: PageId, frame: Frame, dirty: bool, guard: &Guard) -> Inserted {
        let Some(piece) = self.piece_to_fill(page, guard) else {
            return Inserted::Refused;
        };
        // Counted first: an entry that is visible can be taken out, and uncounted, at once.
        let count = if dirty { &self.counts.dirty } else { &self.counts.clean };
        count.fetch_add(1, Ordering::Relaxed);
        let value = value_of(frame, if dirty { DIRTY } else { 0 });
        let entry = piece.entry(page);
        match entry.compare_exchange(EMPTY, value, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Inserted::Done,
            Err(other) => {
                count.fetch_sub(1, Ordering::Relaxed);
                let mut retired = Vec::new();
                self.leave(piece, page, &mut retired);
                if !retired.is_empty() {
                    epoch::defer(guard, move || drop(retired));
                }
                Inserted::Occupied(frame_of(other).expect("an entry that is not empty names a frame"))
            }
        }
    }

    /// Takes `page` out, dirty or not; the caller retires the frame, and what is added to `retired`.
    pub(super) fn remove(
        &self,
        page: PageId,
        guard: &Guard,
        retired: &mut Vec<RetiredPiece>,
    ) -> Option<Frame> {
        let piece = self.piece(page, guard)?;
        let value = piece.entry(page).swap(EMPTY, Ordering::AcqRel);
        let frame = frame_of(value)?;
        let count = if value & DIRTY == 0 { &self.counts.clean } else { &self.counts.dirty };
        count.fetch_sub(1, Ordering::Relaxed);
        self.leave(piece, page, retired);
        Some(frame)
    }

    /// `page` was written out of `frame`: it may be evicted from now on. Says whether it still stood there.
    pub(super) fn mark_clean(&self, page: PageId, frame: Frame, guard: &Guard) -> bool {
        let Some(entry) = self.entry(page, guard) else { return false };
        let mut value = entry.load(Ordering::Acquire);
        while frame_of(value) == Some(frame) && value & DIRTY != 0 {
            // As in `insert`, counted before it can be taken out.
            self.counts.clean.fetch_add(1, Ordering::Relaxed);
            match entry.compare_exchange(value, value & !DIRTY, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.counts.dirty.fetch_sub(1, Ordering::Relaxed);
                    return true;
                }
                Err(now) => {
                    self.counts.clean.fetch_sub(1, Ordering::Relaxed);
                    value = now;
                }
            }
        }
        false
    }

    /// The clock hand comes by at `frame`, which was last made to hold `page`. The caller retires what is
    /// added to `retired`.
    pub(super) fn age(
        &self,
        page: PageId,
        frame: Frame,
        guard: &Guard,
        retired: &mut Vec<RetiredPiece>,
    ) -> Aged {
        let Some(piece) = self.piece(page, guard) else { return Aged::Skipped };
        let entry = piece.entry(page);
        let value = entry.load(Ordering::Acquire);
        if frame_of(value) != Some(frame) || value & DIRTY != 0 {
            return Aged::Skipped;
        }
        let aged = if value & REFERENCED != 0 { value & !REFERENCED } else { EMPTY };
        match entry.compare_exchange(value, aged, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) if aged == EMPTY => {
                self.counts.clean.fetch_sub(1, Ordering::Relaxed);
                self.leave(piece, page, retired);
                Aged::Evicted
            }
            _ => Aged::Spared,
        }
    }

    #[inline]
    fn entry<'g>(&'g self, page: PageId, guard: &'g Guard) -> Option<&'g AtomicU32> {
        self.piece(page, guard).map(|piece| piece.entry(page))
    }

    /// Where the page's piece is named.
    #[inline]
    fn slot(&self, page: PageId) -> Option<&AtomicPtr<Piece>> {
        let (chunk, slot) = place(page);
        let slots = self.directory[chunk].load(Ordering::Acquire);
        if slots.is_null() {
            return None;
        }
        // SAFETY: a chunk that is not null has `chunk_len(chunk)` slots, stays where it is until `self` is
        // dropped, and `place` gives slots below that length.
        Some(unsafe { &*slots.add(slot) })
    }

    /// The page's piece, which may be let go at any time, but stays in memory while the guard lives.
    #[inline]
    fn piece<'g>(&'g self, page: PageId, _guard: &'g Guard) -> Option<&'g Piece> {
        let piece = self.slot(page)?.load(Ordering::Acquire);
        // SAFETY: a piece that the directory names was made by `make_piece`, and is dropped only after the
        // guards that lived when it was taken out are gone, or with `self`.
        unsafe { piece.as_ref() }
    }

    /// The page's piece, with one more user. `None` if there is no memory for it.
    fn piece_to_fill<'g>(&'g self, page: PageId, guard: &'g Guard) -> Option<&'g Piece> {
        let slot = self.slot(page).or_else(|| self.grow(page))?;
        loop {
            match self.piece(page, guard) {
                Some(piece) if piece.join() => return Some(piece),
                Some(gone) => {
                    // Whoever let it go retires it, whether or not it was he who took it out.
                    let gone = std::ptr::from_ref(gone).cast_mut();
                    let _ = slot.compare_exchange(gone, null_mut(), Ordering::AcqRel, Ordering::Relaxed);
                }
                None => {
                    let made = make_piece()?;
                    self.counts.pieces.fetch_add(1, Ordering::Relaxed);
                    let there = slot.compare_exchange(null_mut(), made, Ordering::AcqRel, Ordering::Relaxed);
                    if there.is_err() {
                        self.counts.pieces.fetch_sub(1, Ordering::Relaxed);
                        // SAFETY: `make_piece` gave it just now, and nobody else saw it.
                        drop(unsafe { Box::from_raw(made) });
                    }
                }
            }
        }
    }

    /// Makes the chunk of the directory where the page's piece is to be named.
    fn grow(&self, page: PageId) -> Option<&AtomicPtr<Piece>> {
        let (chunk, _) = place(page);
        let made = make_chunk(chunk_len(chunk))?;
        if self.directory[chunk]
            .compare_exchange(null_mut(), made, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            // SAFETY: `made` came from `make_chunk` with this length just now, and nobody else saw it.
            unsafe { free_chunk(made, chunk_len(chunk)) };
        }
        self.slot(page)
    }

    /// One user of the page's piece is gone. If it was the last, the piece is let go.
    fn leave(&self, piece: &Piece, page: PageId, retired: &mut Vec<RetiredPiece>) {
        let users = piece.users.fetch_sub(1, Ordering::AcqRel);
        assert!(users > 0 && users < GONE, "a piece of the frame table had {users} users");
        if users > 1 || piece.users.compare_exchange(0, GONE, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return;
        }
        let slot = self.slot(page).expect("a piece is named in a chunk that stays");
        let piece = std::ptr::from_ref(piece).cast_mut();
        // Who wants to fill it may have been here before.
        let _ = slot.compare_exchange(piece, null_mut(), Ordering::AcqRel, Ordering::Relaxed);
        self.counts.pieces.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: it came from `make_piece`; this thread alone turned its count to `GONE`, so it is retired
        // once; it is out of the directory, where nothing names it again.
        retired.push(RetiredPiece(unsafe { Box::from_raw(piece) }));
    }
}

impl Piece {
    #[inline]
    fn entry(&self, page: PageId) -> &AtomicU32 {
        &self.entries[page.0 as usize % (1 << PIECE_BITS)]
    }

    /// Adds a user, unless the piece is let go.
    fn join(&self) -> bool {
        let mut users = self.users.load(Ordering::Acquire);
        while users != GONE {
            match self.users.compare_exchange_weak(users, users + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(now) => users = now,
            }
        }
        false
    }
}

impl Drop for FrameTable {
    fn drop(&mut self) {
        for (chunk, slots) in self.directory.iter().enumerate() {
            let slots = slots.load(Ordering::Relaxed);
            if slots.is_null() {
                continue;
            }
            for slot in 0..chunk_len(chunk) {
                // SAFETY: the chunk has that many slots.
                let piece = unsafe { &*slots.add(slot) }.load(Ordering::Relaxed);
                if !piece.is_null() {
                    // SAFETY: it came from `make_piece`; what the directory names is not retired; nobody else
                    // has access any more.
                    drop(unsafe { Box::from_raw(piece) });
                }
            }
            // SAFETY: it came from `make_chunk` with this length; nobody else has access any more.
            unsafe { free_chunk(slots, chunk_len(chunk)) };
        }
    }
}

/// A piece of empty entries, to be freed as a box.
#[cfg(not(loom))]
fn make_piece() -> Option<*mut Piece> {
    // SAFETY: the layout is not empty; all zeros is a valid `Piece`: no users, and entries that are `EMPTY`.
    let piece = unsafe { std::alloc::alloc_zeroed(Layout::new::<Piece>()) };
    if piece.is_null() { None } else { Some(piece.cast()) }
}

#[cfg(loom)]
fn make_piece() -> Option<*mut Piece> {
    let entries = std::array::from_fn(|_| AtomicU32::new(EMPTY));
    Some(Box::into_raw(Box::new(Piece { users: AtomicU32::new(0), entries })))
}

/// Slots that name nothing. Zeroed by the allocator, so that of a large chunk only what is used takes memory.
#[cfg(not(loom))]
fn make_chunk(len: usize) -> Option<*mut AtomicPtr<Piece>> {
    let layout = Layout::array::<AtomicPtr<Piece>>(len).ok()?;
    // SAFETY: the layout is not empty; all zeros is a valid `AtomicPtr`, namely null.
    let slots = unsafe { std::alloc::alloc_zeroed(layout) };
    if slots.is_null() { None } else { Some(slots.cast()) }
}

#[cfg(loom)]
fn make_chunk(len: usize) -> Option<*mut AtomicPtr<Piece>> {
    let slots: Box<[AtomicPtr<Piece>]> = (0..len).map(|_| AtomicPtr::new(null_mut())).collect();
    Some(Box::into_raw(slots).cast())
}

/// # Safety
/// `slots` came from `make_chunk(len)`, and nobody uses it any more.
unsafe fn free_chunk(slots: *mut AtomicPtr<Piece>, len: usize) {
    // SAFETY: `make_chunk` allocated it with the layout of a boxed slice of this length.
    drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(slots, len)) });
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn places_are_dense_and_inside_their_chunk() {
        let mut expected = (0, 0);
        for piece in 0..5000 {
            assert_eq!(place(PageId(piece << PIECE_BITS)), expected);
            assert_eq!(place(PageId((piece << PIECE_BITS) + 63)), expected);
            expected.1 += 1;
            if expected.1 == chunk_len(expected.0) {
                expected = (expected.0 + 1, 0);
            }
        }
        let (chunk, slot) = place(PageId(u32::MAX));
        assert!(chunk < CHUNKS && slot < chunk_len(chunk));
    }

    #[test]
    fn an_entry_is_found_until_it_is_removed() {
        let table = FrameTable::new();
        let guard = epoch::pin();
        let mut retired = Vec::new();
        assert_eq!(table.lookup(PageId(70), &guard), None);
        assert_eq!(table.insert(PageId(70), Frame(0), false, &guard), Inserted::Done);
        assert_eq!(table.insert(PageId(70), Frame(1), false, &guard), Inserted::Occupied(Frame(0)));
        assert_eq!(table.lookup(PageId(70), &guard), Some(Frame(0)));
        assert_eq!(table.lookup(PageId(71), &guard), None);
        assert_eq!(table.clean(), 1);
        assert_eq!(table.remove(PageId(70), &guard, &mut retired), Some(Frame(0)));
        assert_eq!(table.remove(PageId(70), &guard, &mut retired), None);
        assert_eq!((table.clean(), table.dirty(), retired.len()), (0, 0, 1));
    }

    #[test]
    fn the_hand_spares_what_was_referenced_and_skips_what_is_dirty() {
        let table = FrameTable::new();
        let guard = epoch::pin();
        let mut retired = Vec::new();
        let mut age = |page, frame| table.age(PageId(page), Frame(frame), &guard, &mut retired);
        table.insert(PageId(1), Frame(5), false, &guard);
        assert_eq!(age(1, 4), Aged::Skipped);
        table.lookup(PageId(1), &guard);
        assert_eq!(age(1, 5), Aged::Spared);
        assert_eq!(age(1, 5), Aged::Evicted);
        assert_eq!(table.lookup(PageId(1), &guard), None);

        table.insert(PageId(2), Frame(6), true, &guard);
        assert_eq!(table.lookup_dirty(PageId(2), &guard), Some(Frame(6)));
        assert_eq!(age(2, 6), Aged::Skipped);
        assert!(!table.mark_clean(PageId(2), Frame(7), &guard));
        assert!(table.mark_clean(PageId(2), Frame(6), &guard));
        assert_eq!((table.clean(), table.dirty()), (1, 0));
        assert_eq!(age(2, 6), Aged::Evicted);
    }

    #[test]
    fn memory_follows_what_is_cached_and_not_the_file() {
        let table = FrameTable::new();
        let guard = epoch::pin();
        let piece = size_of::<Piece>();
        // Neighbours share a piece; pages far apart, as of a file of terabytes, have one each.
        let dense: Vec<u32> = (0..6400).collect();
        let apart = if cfg!(miri) { 4000 } else { 40_000_000 };
        let sparse: Vec<u32> = (0..100).map(|n| n * apart).collect();
        for (pages, pieces) in [(&dense, 100), (&sparse, 100)] {
            let mut retired = Vec::new();
            for (frame, page) in pages.iter().enumerate() {
                let inserted = table.insert(PageId(*page), Frame(frame as u32), false, &guard);
                assert_eq!(inserted, Inserted::Done);
            }
            assert_eq!(table.piece_bytes(), pieces * piece);
            for page in pages {
                table.remove(PageId(*page), &guard, &mut retired).unwrap();
            }
            assert_eq!((table.piece_bytes(), retired.len()), (0, pieces));
        }
        // An eighth of a byte for each page number that there is, and at most twice that is set aside.
        assert!(table.directory_bytes() <= 1 << 29, "{} bytes", table.directory_bytes());
        assert!(piece <= 64 * 4 + 8);
    }

    #[test]
    fn pieces_that_come_and_go_beside_readers_lose_no_page() {
        let table = FrameTable::new();
        let rounds = if cfg!(miri) { 50 } else { 20_000 };
        std::thread::scope(|scope| {
            for thread in 0..4u32 {
                let table = &table;
                scope.spawn(move || {
                    for round in 0..rounds {
                        // Each has its own page of the one piece.
                        let guard = epoch::pin();
                        let mut retired = Vec::new();
                        let frame = Frame(thread * rounds + round);
                        assert_eq!(table.insert(PageId(thread), frame, false, &guard), Inserted::Done);
                        assert_eq!(table.lookup(PageId(thread), &guard), Some(frame));
                        table.lookup(PageId((thread + 1) % 4), &guard);
                        assert_eq!(table.remove(PageId(thread), &guard, &mut retired), Some(frame));
                        epoch::defer(&guard, move || drop(retired));
                    }
                });
            }
        });
        assert_eq!((table.clean(), table.piece_bytes()), (0, 0));
    }
}
