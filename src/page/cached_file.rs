//! One family's pages of the data file, as they stand in memory.
//!
//! The way of a read: [`PagedCachedFile::find`] looks into the frame table (a run: into the run cache); if nothing is there,
//! [`PagedCachedFile::load`] reads, verifies, and puts the page into the table. The way of a write: a
//! [`NewPage`] is built in place, [`publish`](PagedCachedFile::publish) seals it and enters it as dirty, and
//! [`write_out`](PagedCachedFile::write_out) writes what is dirty in the order of the file.
//!
//! Locks, each held for short and never across I/O, save `turn`: `turn` > `buffer` > the run cache's; `clock` > the run
//! cache's; the free list's. None is shared with another family, and none is held across a call into the epoch module,
//! which runs what any module deferred.

use super::clock::Clock;
use super::frames::{Frame, FrameStore, OwnedFrame};
use super::header::{self, PageHeader, PageKind, PagePointer};
use super::held::{NewMemory, NewPage, PageRef, PinnedPage, RunBuffer};
use super::run_cache::RunCache;
use super::stats::{CacheStats, Counters, StripedCounter, count};
use super::table::{FrameTable, Inserted};
use super::write_buffer::{DirtyMemory, DirtyPage, Outgoing, WriteBuffer, neighbours};
use crate::codec::ids::{FamilyId, PageId};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::FileHandlePool;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::epoch::{self, Guard};
use crate::sync::{Arc, Mutex};

/// How much memory a family's pages may take.
///
/// The sum of both is kept, whatever readers hold, and reads keep to the read budget. Beyond it go only: a cache with room for
/// fewer than [`LEAST_FRAMES`](PagedCachedFile::LEAST_FRAMES) pages, the page or run that makes the write buffer write itself
/// out, and written pages whose evicted predecessors wait for their readers, for as long as those read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheBudgets {
    /// Bytes of clean pages and runs.
    pub(crate) read_bytes: u64,
    /// Bytes of dirty pages and runs.
    pub(crate) write_bytes: u64,
}

/// One family's cache of the data file: frame table, frames, run cache, write buffer.
pub(crate) struct PagedCachedFile {
    family: FamilyId,
    page_size: usize,
    pool: Arc<FileHandlePool>,
    table: FrameTable,
    frames: Arc<FrameStore>,
    clock: Mutex<Clock>,
    runs: RunCache,
    buffer: Mutex<WriteBuffer>,
    /// Dirty pages that stand in a run buffer, so that readers ask for the buffer's lock only if there are any.
    dirty_runs: AtomicUsize,
    /// Held by the one thread that writes pages out.
    turn: Mutex<()>,
    read_budget: AtomicU64,
    write_budget: AtomicU64,
    hits: StripedCounter,
    counters: Counters,
}

/// Where a page was found in memory.
enum Place {
    /// In a frame, while the guard lives.
    Frame(Frame),
    Run(Arc<RunBuffer>),
}

impl PagedCachedFile {
    /// Room that every read cache has, in pages.
    pub(crate) const LEAST_FRAMES: usize = 8;

    pub(crate) fn new(
        family: FamilyId,
        page_size: usize,
        pool: Arc<FileHandlePool>,
        budgets: CacheBudgets,
    ) -> Self {
        let file = Self {
            family,
            page_size,
            pool,
            table: FrameTable::new(),
            frames: FrameStore::new(page_size, 0),
            clock: Mutex::new(Clock::default()),
            runs: RunCache::new(),
            buffer: Mutex::new(WriteBuffer::default()),
            dirty_runs: AtomicUsize::new(0),
            turn: Mutex::new(()),
            read_budget: AtomicU64::new(budgets.read_bytes),
            write_budget: AtomicU64::new(budgets.write_bytes),
            hits: StripedCounter::new(),
            counters: Counters::new(),
        };
        file.frames.set_keep(file.most_frames());
        file
    }

    // ---- reading ----

    /// What `pointer` names, if it is in memory.
    #[inline]
    pub(crate) fn find<'g>(&self, pointer: PagePointer, guard: &'g Guard) -> Option<PageRef<'g>> {
        if pointer.pages == 1
            && let Some(frame) = self.table.lookup(pointer.page, guard)
        {
            // SAFETY: the entry was loaded under the guard.
            let bytes: &'g [u8] = unsafe { self.frames.bytes(frame) };
            // A pointer that names another state of the page than the one in memory is for `load` to judge.
            if header::stated_checksum(bytes) == pointer.checksum {
                self.hits.add_one();
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
            if header::stated_checksum(&page) == pointer.checksum {
                self.hits.add_one();
                return Some(page);
            }
        }
        self.find_run(pointer).map(PinnedPage::run)
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
        self.hits.add_one();
        Some(run)
    }

    /// Reads what `pointer` names from `offset` of the file. The caller has checked that the range belongs to the family.
    pub(crate) fn load<'g>(
        &self,
        pointer: PagePointer,
        offset: u64,
        guard: &'g Guard,
    ) -> Result<PageRef<'g>> {
        Ok(match self.fetch(pointer, offset, guard)? {
            // SAFETY: the entry was loaded, or made, under the guard.
            Place::Frame(frame) => PageRef::Frame(unsafe { self.frames.bytes(frame) }),
            Place::Run(run) => PageRef::Run(run),
        })
    }

    /// As [`load`](Self::load), but what was read is held without a guard.
    pub(crate) fn load_pinned(&self, pointer: PagePointer, offset: u64) -> Result<PinnedPage> {
        let guard = epoch::pin();
        Ok(match self.fetch(pointer, offset, &guard)? {
            // SAFETY: the entry was loaded, or made, under the guard, which still lives.
            Place::Frame(frame) => unsafe { PinnedPage::frame(&self.frames, frame) },
            Place::Run(run) => PinnedPage::run(run),
        })
    }

    fn fetch(&self, pointer: PagePointer, offset: u64, guard: &Guard) -> Result<Place> {
        count(&self.counters.misses, 1);
        if pointer.pages == 1
            && let Some(mut frame) = self.frame_for_reading(guard)
        {
            self.read_verified(pointer, offset, &mut frame)?;
            frame.set_page(pointer.page);
            return Ok(match self.table.insert(pointer.page, frame.frame(), false) {
                Inserted::Done => {
                    let mapped = frame.frame();
                    frame.into_mapped();
                    Place::Frame(mapped)
                }
                // SAFETY: the entry was loaded under the guard.
                Inserted::Occupied(other)
                    if header::stated_checksum(unsafe { self.frames.bytes(other) }) == pointer.checksum =>
                {
                    Place::Frame(other)
                }
                Inserted::Occupied(_) | Inserted::Refused => {
                    let mut copy = RunBuffer::new(self.page_size);
                    copy.copy_from_slice(&frame);
                    Place::Run(Arc::new(copy))
                }
            });
        }
        let mut buffer = RunBuffer::new(self.len_of(pointer));
        self.read_verified(pointer, offset, &mut buffer)?;
        let run = Arc::new(buffer);
        if pointer.pages > 1 {
            self.keep_run(pointer.page, &run, true, guard);
        }
        Ok(Place::Run(run))
    }

    /// A frame to read into; `None` if all that the budget allows wait for their readers.
    fn frame_for_reading(&self, guard: &Guard) -> Option<OwnedFrame> {
        self.make_room(guard);
        let runs = self.runs.bytes().div_ceil(self.page_size);
        self.frames.take((self.read_frames() + self.table.dirty()).saturating_sub(runs))
    }

    fn read_verified(&self, pointer: PagePointer, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.pool
            .get(self.family)?
            .read_at(buffer, offset)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof => Error::corruption("the file ends before the page does"),
                _ => Error::io("reading a page", error),
            })
            .and_then(|()| {
                count(&self.counters.bytes_read, buffer.len());
                header::verify(buffer, self.family, pointer)
            })
            .map(|_| ())
            .map_err(|error| {
                let error = error.in_file(self.pool.path()).at_offset(offset);
                error.of_family(self.family.0).on_page(pointer.page.0)
            })
    }

    /// Reads past the cache, so that what is verified is what the file holds; a dirty page, which the file does not hold yet,
    /// is copied from memory.
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

    // ---- building and writing ----

    /// Memory for `pages` pages that will stand at `offset` of the file.
    pub(crate) fn new_page(&self, page: PageId, pages: u32, offset: u64) -> NewPage {
        assert!(pages > 0, "page {page} has no length");
        let frame = if pages == 1 { self.frame_for_building() } else { None };
        let memory = match frame {
            Some(frame) => NewMemory::Frame(frame),
            None => NewMemory::Run(RunBuffer::new(pages as usize * self.page_size)),
        };
        NewPage::new(page, pages, offset, Arc::clone(&self.frames), memory)
    }

    fn frame_for_building(&self) -> Option<OwnedFrame> {
        let runs = self.runs.bytes().div_ceil(self.page_size);
        self.frames.take(self.most_frames().saturating_sub(runs))
    }

    /// Seals `page` and enters it as dirty. `length` is what the header's length field says: of a node all its bytes with
    /// the header, of a value run the bytes of the value. Returns the pointer, and whether the write buffer is now
    /// beyond its budget. An error if the page is being read although it was free: the catalog's map of pages is wrong.
    pub(crate) fn publish(
        &self,
        mut page: NewPage,
        kind: PageKind,
        level: u8,
        generation: u64,
        length: u64,
    ) -> Result<(PagePointer, bool)> {
        let length = u32::try_from(length).unwrap_or_else(|_| panic!("a page of {length} bytes"));
        let (id, pages, offset) = (page.page(), page.pages(), page.offset());
        let header = PageHeader { family: self.family, page: id, pages, kind, level, generation, length };
        let checksum = header::seal(&mut page, &header);
        let len = page.len();

        let mut buffer = self.buffer.lock();
        if buffer.discarded {
            let error = Error::new(ErrorKind::FamilyDropped, "the column family was dropped");
            return Err(error.of_family(self.family.0));
        }
        let memory = match page.into_memory() {
            NewMemory::Frame(frame) => self.map_dirty(id, frame)?,
            NewMemory::Run(run) => DirtyMemory::Run(Arc::new(run)),
        };
        if matches!(memory, DirtyMemory::Run(_)) {
            self.dirty_runs.fetch_add(1, Ordering::Release);
        }
        buffer.insert(id, DirtyPage { offset, len, memory });
        let full = buffer.bytes > self.write_budget.load(Ordering::Relaxed);
        Ok((PagePointer { page: id, pages, checksum }, full))
    }

    fn map_dirty(&self, page: PageId, frame: OwnedFrame) -> Result<DirtyMemory> {
        frame.set_page(page);
        Ok(match self.table.insert(page, frame.frame(), true) {
            Inserted::Done => {
                let mapped = frame.frame();
                frame.into_mapped();
                DirtyMemory::Frame(mapped)
            }
            Inserted::Occupied(_) => {
                let error =
                    Error::corruption("a page that the catalog's map calls free is reached by the tree");
                return Err(error.in_file(self.pool.path()).of_family(self.family.0).on_page(page.0));
            }
            Inserted::Refused => {
                let mut copy = RunBuffer::new(self.page_size);
                copy.copy_from_slice(&frame);
                DirtyMemory::Run(Arc::new(copy))
            }
        })
    }

    /// Writes everything that is dirty now, neighbours in the file by one write. No sync. On an error all of it stays dirty.
    pub(crate) fn write_out(&self) -> Result<()> {
        let turn = self.turn.lock();
        let mut outgoing: Vec<Outgoing> = {
            let buffer = self.buffer.lock();
            buffer.pages.iter().map(|(&page, dirty)| self.outgoing(page, dirty)).collect()
        };
        if outgoing.is_empty() {
            return Ok(());
        }
        outgoing.sort_unstable_by_key(|page| page.dirty.offset);
        {
            let file = self.pool.get(self.family)?;
            let mut parts: Vec<&[u8]> = Vec::new();
            for run in neighbours(&outgoing) {
                parts.clear();
                parts.extend(run.iter().map(|page| &*page.bytes));
                let offset = run[0].dirty.offset;
                file.write_parts_at(&parts, offset).map_err(|error| {
                    let error = Error::io("writing pages", error).in_file(self.pool.path());
                    error.at_offset(offset).of_family(self.family.0).on_page(run[0].page.0)
                })?;
                count(&self.counters.bytes_written, parts.iter().map(|part| part.len()).sum());
            }
        }
        let mut written_runs = Vec::new();
        {
            let mut buffer = self.buffer.lock();
            for Outgoing { page, dirty, .. } in &outgoing {
                // What was released meanwhile, and perhaps published anew, is not what was written.
                let same = buffer.pages.get(page).is_some_and(|now| now.memory.is_same(&dirty.memory));
                if !same {
                    continue;
                }
                buffer.remove(*page);
                match &dirty.memory {
                    DirtyMemory::Frame(frame) => {
                        let marked = self.table.mark_clean(*page, *frame);
                        assert!(
                            marked,
                            "page {page} was dirty in frame {}, but the table does not say so",
                            frame.0
                        );
                    }
                    DirtyMemory::Run(run) => {
                        self.dirty_runs.fetch_sub(1, Ordering::Release);
                        if run.len() > self.page_size {
                            written_runs.push((*page, Arc::clone(run)));
                        }
                    }
                }
            }
            // Under the buffer's lock, so that no release can come between leaving the buffer and entering the cache.
            for (page, run) in &written_runs {
                self.keep_run_without_making_room(*page, run, false);
            }
        }
        drop(turn);
        drop(outgoing);
        self.make_room(&epoch::pin());
        self.adjust_kept_memory();
        Ok(())
    }

    fn outgoing(&self, page: PageId, dirty: &DirtyPage) -> Outgoing {
        let bytes = match &dirty.memory {
            // SAFETY: a page in the write buffer is mapped, and is unmapped only under the buffer's lock, which is held.
            DirtyMemory::Frame(frame) => unsafe { PinnedPage::frame(&self.frames, *frame) },
            DirtyMemory::Run(run) => PinnedPage::run(Arc::clone(run)),
        };
        Outgoing { page, dirty: dirty.clone(), bytes }
    }

    /// Forgets pages that nothing reaches any more; what is dirty is dropped unwritten.
    pub(crate) fn release(&self, pages: &[(PageId, u32)]) {
        let guard = epoch::pin();
        let mut retired = Vec::new();
        {
            let mut buffer = self.buffer.lock();
            for &(page, pages) in pages {
                let dirty = buffer.remove(page);
                if matches!(dirty, Some(DirtyPage { memory: DirtyMemory::Run(_), .. })) {
                    self.dirty_runs.fetch_sub(1, Ordering::Release);
                }
                if pages == 1 {
                    retired.extend(self.table.remove(page));
                } else {
                    self.runs.remove(page);
                }
            }
        }
        self.frames.retire(retired, &guard);
    }

    /// Pages whose [`NewPage`] was dropped unpublished since this was last asked.
    pub(crate) fn take_unpublished(&self) -> Vec<(PageId, u32)> {
        self.frames.take_unpublished()
    }

    /// Forgets everything, dirty or not, and gives all memory back as its readers leave. Waits for writing under way;
    /// nothing is written after it.
    pub(crate) fn discard(&self) {
        let dirty = {
            let _turn = self.turn.lock();
            let nothing = WriteBuffer { discarded: true, ..WriteBuffer::default() };
            std::mem::replace(&mut *self.buffer.lock(), nothing)
        };
        self.dirty_runs.store(0, Ordering::Release);
        let guard = epoch::pin();
        let mut retired: Vec<Frame> =
            dirty.pages.keys().filter_map(|&page| self.table.remove(page)).collect();
        retired.extend(self.clock.lock().sweep(&self.table, &self.frames, usize::MAX));
        self.runs.evict(usize::MAX);
        self.read_budget.store(0, Ordering::Relaxed);
        self.write_budget.store(0, Ordering::Relaxed);
        self.frames.set_keep(0);
        self.frames.retire(retired, &guard);
    }

    // ---- budgets ----

    /// Frames that the read budget has room for.
    fn read_frames(&self) -> usize {
        let frames = self.read_budget.load(Ordering::Relaxed) / self.page_size as u64;
        (frames as usize).clamp(Self::LEAST_FRAMES, Frame::LIMIT as usize / 2)
    }

    /// Frames that both budgets have room for.
    fn most_frames(&self) -> usize {
        let write_frames = self.write_budget.load(Ordering::Relaxed) / self.page_size as u64;
        self.read_frames() + (write_frames as usize).clamp(1, Frame::LIMIT as usize / 2)
    }

    /// Frames kept out of use, so that there are free ones while evicted ones wait for their readers.
    fn reserve(read_frames: usize) -> usize {
        (read_frames / 8).clamp(1, 128)
    }

    /// Changes the budgets; what is beyond them leaves now, its memory as its last readers do.
    pub(crate) fn set_budgets(&self, budgets: CacheBudgets) {
        self.read_budget.store(budgets.read_bytes, Ordering::Relaxed);
        self.write_budget.store(budgets.write_bytes, Ordering::Relaxed);
        self.make_room(&epoch::pin());
        self.adjust_kept_memory();
    }

    fn adjust_kept_memory(&self) {
        let runs = self.runs.bytes().div_ceil(self.page_size);
        self.frames.set_keep(self.most_frames().saturating_sub(runs));
    }

    /// Evicts, if the read cache is all but full, a batch. Frames and runs may each use what the other leaves; under
    /// pressure from both, each gets half.
    fn make_room(&self, guard: &Guard) {
        let frames = self.read_frames();
        let reserve = Self::reserve(frames);
        let limit = (frames - reserve) * self.page_size;
        let held = || self.table.clean() * self.page_size + self.runs.bytes();
        if held() <= limit {
            return;
        }
        let mut clock = self.clock.lock();
        let mut over = held().saturating_sub(limit);
        if over == 0 {
            return;
        }
        let half = frames * self.page_size / 2;
        let runs = self.runs.bytes();
        if runs > half {
            over = over.saturating_sub(self.evict_runs(over.min(runs - half)));
        }
        let mut evicted = Vec::new();
        if over > 0 {
            let batch = (reserve / 4).max(1);
            evicted = clock.sweep(&self.table, &self.frames, over.div_ceil(self.page_size).max(batch));
            over = over.saturating_sub(evicted.len() * self.page_size);
        }
        if over > 0 {
            self.evict_runs(over);
        }
        drop(clock);
        count(&self.counters.evictions, evicted.len());
        self.frames.retire(evicted, guard);
    }

    fn evict_runs(&self, bytes: usize) -> usize {
        let (evicted, freed) = self.runs.evict(bytes);
        count(&self.counters.evictions, evicted);
        freed
    }

    fn keep_run(&self, page: PageId, run: &Arc<RunBuffer>, read: bool, guard: &Guard) {
        self.keep_run_without_making_room(page, run, read);
        self.make_room(guard);
        self.adjust_kept_memory();
    }

    /// A run beyond a quarter of the budget would push out too much.
    fn keep_run_without_making_room(&self, page: PageId, run: &Arc<RunBuffer>, read: bool) {
        if run.len() <= self.read_frames() * self.page_size / 4 {
            self.runs.insert(page, Arc::clone(run), read);
        }
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let dirty_bytes = self.buffer.lock().bytes;
        let frames = self.frames.busy().saturating_sub(self.table.dirty()) * self.page_size;
        CacheStats {
            hits: self.hits.sum(),
            misses: self.counters.misses.load(Ordering::Relaxed),
            evictions: self.counters.evictions.load(Ordering::Relaxed),
            resident_bytes: (frames + self.runs.bytes()) as u64,
            budget_bytes: self.read_budget.load(Ordering::Relaxed),
            dirty_bytes,
            dirty_budget_bytes: self.write_budget.load(Ordering::Relaxed),
            bytes_read: self.counters.bytes_read.load(Ordering::Relaxed),
            bytes_written: self.counters.bytes_written.load(Ordering::Relaxed),
        }
    }

    /// Holds every lock of this family.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn lock_all(&self) -> impl Sized + '_ {
        (self.turn.lock(), self.buffer.lock(), self.clock.lock())
    }
}
