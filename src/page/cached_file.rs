//! One family's pages of the data file, as they stand in memory.
//!
//! The way of a read: [`PagedCachedFile::find`] looks into the frame table (a run: into the run cache); if
//! nothing is there, [`PagedCachedFile::load`] reads, verifies, and puts the page into the table, or the run
//! into its cache, unless that is full and the page was not missed shortly before (`admission`). A guard
//! covers the look and the entry into the table, never the reading between them. The way of a write: a
//! [`NewPage`](super::NewPage) is built in place, [`publish`](PagedCachedFile::publish) seals it and enters
//! it as dirty, and [`write_out`](PagedCachedFile::write_out) writes what is dirty in the order of the file;
//! that is in `writing`. What has to leave when memory gets short is in `budgets`.
//!
//! Locks, each held for short and never across I/O, save `turn`: `turn` > `buffer` > the run cache's;
//! `clock` > the run cache's; the free list's. None is shared with another family, and none is held across
//! a call into the epoch module, which runs what any module deferred.

use std::ops::Range;

use crossbeam_utils::CachePadded;

use super::admission::Admission;
use super::ahead::Ahead;
use super::clock::Clock;
use super::frames::{FrameStore, OwnedFrame};
use super::header::{self, PagePointer};
use super::held::{PageRef, PinnedPage, RunBuffer};
use super::run_cache::RunCache;
use super::share::{CacheBudgets, Share};
use super::stats::{CacheStats, Counters, ReadCounters};
use super::table::{FrameTable, Inserted};
use super::write_buffer::{DirtyMemory, DirtyPage, WriteBuffer};
use crate::codec::ids::{FamilyId, PageId};
use crate::codec::prefetch;
use crate::error::{Error, Result};
use crate::storage::{FileHandle, FileHandlePool};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::epoch::{self, Guard};
use crate::sync::{Arc, Mutex};

/// One family's cache of the data file: frame table, frames, run cache, write buffer.
///
/// What changes at every miss or publication stands in cache lines of its own, away from what every hit
/// reads.
pub(crate) struct PagedCachedFile {
    pub(super) family: FamilyId,
    pub(super) page_size: usize,
    pub(super) handle: FileHandle,
    pub(super) table: FrameTable,
    pub(super) frames: Arc<FrameStore>,
    pub(super) admission: Admission,
    pub(super) clock: CachePadded<Mutex<Clock>>,
    pub(super) runs: RunCache,
    pub(super) buffer: CachePadded<Mutex<WriteBuffer>>,
    /// Dirty pages that stand in a run buffer, so that readers ask for the buffer's lock only if there are
    /// any.
    pub(super) dirty_runs: AtomicUsize,
    /// Held by the one thread that writes pages out.
    pub(super) turn: Mutex<()>,
    pub(super) share: Share,
    pub(super) write_budget: AtomicU64,
    pub(super) reads: ReadCounters,
    pub(super) counters: CachePadded<Counters>,
}

/// Bytes at the beginning of a page that are fetched as soon as it is found: what a search of a node looks at
/// before it knows where to look next. A node of a hundred entries has its header, heads and offsets there.
const FRONT: usize = 704;

impl PagedCachedFile {
    pub(crate) fn new(
        family: FamilyId,
        page_size: usize,
        pool: Arc<FileHandlePool>,
        budgets: CacheBudgets,
    ) -> Self {
        let file = Self {
            family,
            page_size,
            handle: FileHandle::new(pool, family),
            table: FrameTable::new(),
            frames: FrameStore::new(page_size, 0),
            admission: Admission::new(),
            clock: CachePadded::new(Mutex::new(Clock::default())),
            runs: RunCache::new(),
            buffer: CachePadded::new(Mutex::new(WriteBuffer::default())),
            dirty_runs: AtomicUsize::new(0),
            turn: Mutex::new(()),
            share: budgets.read,
            write_budget: AtomicU64::new(budgets.write_bytes),
            reads: ReadCounters::new(),
            counters: CachePadded::new(Counters::new()),
        };
        file.frames.set_keep(file.most_frames());
        file
    }

    /// What `pointer` names, if it is in memory.
    #[inline(always)]
    pub(crate) fn find<'g>(&'g self, pointer: PagePointer, guard: &'g Guard) -> Option<PageRef<'g>> {
        if pointer.pages == 1
            && let Some(frame) = self.table.lookup(pointer.page, guard)
        {
            // SAFETY: the entry was loaded under the guard, and the bytes are borrowed from the store as
            // well.
            let bytes: &'g [u8] = unsafe { self.frames.bytes(frame) };
            prefetch::front(bytes, FRONT);
            // A pointer that names another state of the page than the one in memory is for `load` to judge.
            if header::stated_checksum(bytes) == pointer.checksum {
                self.reads.count_hit();
                return Some(PageRef::Frame(bytes));
            }
        }
        self.find_run(pointer).map(PageRef::Run)
    }

    /// As [`find`](Self::find), but what is found is held without a guard.
    pub(crate) fn find_pinned(&self, pointer: PagePointer) -> Option<PinnedPage> {
        let guard = epoch::pin();
        if pointer.pages == 1
            && let Some(frame) = self.table.lookup(pointer.page, &guard)
        {
            // SAFETY: the entry was loaded under the guard, which still lives.
            let page = unsafe { PinnedPage::frame(&self.frames, frame) };
            prefetch::front(&page, FRONT);
            if header::stated_checksum(&page) == pointer.checksum {
                self.reads.count_hit();
                return Some(page);
            }
        }
        self.find_run(pointer).map(PinnedPage::run)
    }

    /// Where the page that `pointer` names stands in memory, if it is one page and does.
    pub(crate) fn ahead(&self, pointer: PagePointer, forward: bool, guard: &Guard) -> Ahead {
        match self.table.peek(pointer.page, guard) {
            // SAFETY: the entry was loaded under the guard.
            Some(frame) if pointer.pages == 1 => Ahead::page(unsafe { self.frames.bytes(frame) }, forward),
            _ => Ahead::nothing(),
        }
    }

    /// Whether what `pointer` names is not in memory. Of a run that is not yet written it may say so, too.
    pub(crate) fn is_absent(&self, pointer: PagePointer, guard: &Guard) -> bool {
        match pointer.pages {
            1 => self.table.peek(pointer.page, guard).is_none(),
            _ => !self.runs.holds(pointer.page),
        }
    }

    /// Has the disk begin to read a range of the file, and does not wait for it.
    pub(crate) fn begin_reading(&self, range: &Range<u64>) {
        self.handle.file().begin_reading(range.start, range.end - range.start);
    }

    #[inline(never)]
    fn find_run(&self, pointer: PagePointer) -> Option<Arc<RunBuffer>> {
        let mut found = if pointer.pages > 1 { self.runs.get(pointer.page) } else { None };
        if found.is_none() && self.dirty_runs.load(Ordering::Acquire) > 0 {
            found = match self.buffer.lock().pages.get(&pointer.page) {
                Some(DirtyPage { memory: DirtyMemory::Run(run), .. }) => Some(Arc::clone(run)),
                _ => None,
            };
        }
        let run = found?;
        if header::stated_checksum(&run) != pointer.checksum || run.len() != self.len_of(pointer) {
            return None;
        }
        self.reads.count_hit();
        Some(run)
    }

    /// Reads what `pointer` names from `offset` of the file. The caller has checked that the range belongs to
    /// the family, and holds no guard.
    pub(crate) fn load(&self, pointer: PagePointer, offset: u64) -> Result<PinnedPage> {
        self.reads.count_miss();
        if pointer.pages == 1
            && self.admits(pointer.page)
            && let Some(mut frame) = self.frame_for_reading()
        {
            self.read_verified(pointer, offset, &mut frame)?;
            return Ok(self.enter(pointer, frame));
        }
        let mut buffer = RunBuffer::to_read_into(self.len_of(pointer));
        self.read_verified(pointer, offset, &mut buffer)?;
        let run = Arc::new(buffer);
        if pointer.pages > 1 && self.admits(pointer.page) {
            self.keep_run(pointer.page, &run, true);
        }
        Ok(PinnedPage::run(run))
    }

    /// Has `frame`, into which the page was read, hold it, unless somebody was faster.
    fn enter(&self, pointer: PagePointer, frame: OwnedFrame) -> PinnedPage {
        frame.set_page(pointer.page);
        let guard = epoch::pin();
        let entered = match self.table.insert(pointer.page, frame.frame(), false, &guard) {
            Inserted::Done => {
                let mapped = frame.frame();
                frame.into_mapped();
                // SAFETY: the entry was made under the guard, which still lives.
                return unsafe { PinnedPage::frame(&self.frames, mapped) };
            }
            Inserted::Occupied(other) => Some(other),
            Inserted::Refused => None,
        };
        if let Some(other) = entered {
            // SAFETY: the entry was loaded under the guard, which still lives.
            let page = unsafe { PinnedPage::frame(&self.frames, other) };
            if header::stated_checksum(&page) == pointer.checksum {
                return page;
            }
        }
        drop(guard);
        let mut copy = RunBuffer::to_read_into(self.page_size);
        copy.copy_from_slice(&frame);
        PinnedPage::run(Arc::new(copy))
    }

    /// Whether a page that was just missed is to enter the cache. Asking tells that it was missed.
    fn admits(&self, page: PageId) -> bool {
        !self.is_full() || self.admission.missed_lately(page, self.read_frames())
    }

    /// A frame to read into; `None` if all that the budget allows wait for their readers.
    fn frame_for_reading(&self) -> Option<OwnedFrame> {
        self.make_room();
        let runs = self.runs.bytes().div_ceil(self.page_size);
        self.frames.take((self.read_frames() + self.table.dirty()).saturating_sub(runs))
    }

    fn read_verified(&self, pointer: PagePointer, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.handle
            .file()
            .read_at(buffer, offset)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => Error::corruption("the file ends before the page does"),
                _ => Error::reading("reading a page", error),
            })
            .and_then(|()| {
                self.reads.add_bytes_read(buffer.len());
                header::verify(buffer, self.family, pointer)
            })
            .map(|_| ())
            .map_err(|error| {
                let error = error.in_file(self.handle.pool().path()).at_offset(offset);
                error.of_family(self.family.0).on_page(pointer.page.0)
            })
    }

    /// Reads past the cache, so that what is verified is what the file holds; a dirty page, which the file
    /// does not hold yet, is copied from memory.
    pub(crate) fn read_uncached(
        &self,
        pointer: PagePointer,
        offset: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<()> {
        buffer.clear();
        let guard = epoch::pin();
        if pointer.pages == 1
            && let Some(frame) = self.table.lookup_dirty(pointer.page, &guard)
        {
            // SAFETY: the entry was loaded under the guard.
            buffer.extend_from_slice(unsafe { self.frames.bytes(frame) });
        } else if self.dirty_runs.load(Ordering::Acquire) > 0
            && let Some(DirtyPage { memory: DirtyMemory::Run(run), .. }) =
                self.buffer.lock().pages.get(&pointer.page)
        {
            buffer.extend_from_slice(run);
        }
        drop(guard);
        if buffer.is_empty() {
            buffer.resize(self.len_of(pointer), 0);
            return self.read_verified(pointer, offset, buffer);
        }
        if buffer.len() != self.len_of(pointer) {
            let message =
                format!("the pointer names {} bytes, in memory are {}", self.len_of(pointer), buffer.len());
            return Err(Error::corruption(message).of_family(self.family.0).on_page(pointer.page.0));
        }
        header::verify(buffer, self.family, pointer).map(|_| ())
    }

    fn len_of(&self, pointer: PagePointer) -> usize {
        pointer.pages as usize * self.page_size
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let dirty_bytes = self.buffer.lock().bytes;
        let frames = self.frames.busy().saturating_sub(self.table.dirty()) * self.page_size;
        CacheStats {
            hits: self.reads.hits(),
            misses: self.reads.misses(),
            evictions: self.counters.evictions.load(Ordering::Relaxed),
            resident_bytes: (frames + self.runs.bytes()) as u64,
            budget_bytes: self.share.bytes(),
            dirty_bytes,
            dirty_budget_bytes: self.write_budget.load(Ordering::Relaxed),
            table_bytes: self.table.memory() as u64,
            bytes_read: self.reads.bytes_read(),
            bytes_written: self.counters.bytes_written.load(Ordering::Relaxed),
        }
    }

    /// Holds every lock of this family.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn lock_all(&self) -> impl Sized + '_ {
        (self.turn.lock(), self.buffer.lock(), self.clock.lock())
    }
}
