//! The way of a page from being built to the file.

use super::cached_file::PagedCachedFile;
use super::frames::OwnedFrame;
use super::header::{self, PageHeader, PageKind, PagePointer};
use super::held::{NewMemory, NewPage, PinnedPage, RunBuffer};
use super::stats::count;
use super::table::{Inserted, Retired};
use super::write_buffer::{DirtyMemory, DirtyPage, Outgoing, WriteBuffer, neighbours};
use crate::codec::ids::PageId;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;
use crate::sync::atomic::Ordering;
use crate::sync::epoch;

impl PagedCachedFile {
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

    /// Seals `page` and enters it as dirty. `length` is what the header's length field says: of a node all
    /// its bytes with the header, of a value run the bytes of the value. Returns the pointer, and whether the
    /// write buffer is now beyond its budget. An error if the page is being read although it was free: the
    /// catalog's map of pages is wrong.
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
        Ok(match self.table.insert(page, frame.frame(), true, &epoch::pin()) {
            Inserted::Done => {
                let mapped = frame.frame();
                frame.into_mapped();
                DirtyMemory::Frame(mapped)
            }
            Inserted::Occupied(_) => {
                let error =
                    Error::corruption("a page that the catalog's map calls free is reached by the tree");
                // Who goes by that map overwrites what is reached.
                return Err(error
                    .beyond_damage()
                    .in_file(self.handle.pool().path())
                    .of_family(self.family.0)
                    .on_page(page.0));
            }
            Inserted::Refused => {
                let mut copy = RunBuffer::new(self.page_size);
                copy.copy_from_slice(&frame);
                DirtyMemory::Run(Arc::new(copy))
            }
        })
    }

    /// Writes everything that is dirty now, neighbours in the file by one write. No sync. On an error all of
    /// it stays dirty.
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
            let file = self.handle.file();
            let mut parts: Vec<&[u8]> = Vec::new();
            for run in neighbours(&outgoing) {
                parts.clear();
                parts.extend(run.iter().map(|page| &*page.bytes));
                let offset = run[0].dirty.offset;
                file.write_parts_at(&parts, offset).map_err(|error| {
                    let error = Error::io("writing pages", error).in_file(self.handle.pool().path());
                    error.at_offset(offset).of_family(self.family.0).on_page(run[0].page.0)
                })?;
                let len = parts.iter().map(|part| part.len()).sum();
                self.handle.pool().wrote(file, offset, len as u64);
                count(&self.counters.bytes_written, len);
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
                        let marked = self.table.mark_clean(*page, *frame, &epoch::pin());
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
            // Under the buffer's lock, so that no release can come between leaving the buffer and entering
            // the cache.
            for (page, run) in &written_runs {
                self.keep_run_without_making_room(*page, run, false);
            }
        }
        drop(turn);
        drop(outgoing);
        self.make_room();
        self.adjust_kept_memory();
        Ok(())
    }

    fn outgoing(&self, page: PageId, dirty: &DirtyPage) -> Outgoing {
        let bytes = match &dirty.memory {
            // SAFETY: a page in the write buffer is mapped, and is unmapped only under the buffer's lock,
            // which is held.
            DirtyMemory::Frame(frame) => unsafe { PinnedPage::frame(&self.frames, *frame) },
            DirtyMemory::Run(run) => PinnedPage::run(Arc::clone(run)),
        };
        Outgoing { page, dirty: dirty.clone(), bytes }
    }

    /// Forgets pages that nothing reaches any more; what is dirty is dropped unwritten.
    pub(crate) fn release(&self, pages: &[(PageId, u32)]) {
        let guard = epoch::pin();
        let mut retired = Retired::default();
        {
            let mut buffer = self.buffer.lock();
            for &(page, pages) in pages {
                let dirty = buffer.remove(page);
                if matches!(dirty, Some(DirtyPage { memory: DirtyMemory::Run(_), .. })) {
                    self.dirty_runs.fetch_sub(1, Ordering::Release);
                }
                if pages == 1 {
                    retired.frames.extend(self.table.remove(page, &guard, &mut retired.pieces));
                } else {
                    self.runs.remove(page);
                }
            }
        }
        self.frames.retire(retired.frames, retired.pieces, &guard);
    }

    /// Pages whose [`NewPage`] was dropped unpublished since this was last asked.
    pub(crate) fn take_unpublished(&self) -> Vec<(PageId, u32)> {
        self.frames.take_unpublished()
    }

    /// Forgets everything, dirty or not, and gives all memory back as its readers leave. Waits for writing
    /// under way; nothing is written after it.
    pub(crate) fn discard(&self) {
        let dirty = {
            let _turn = self.turn.lock();
            let nothing = WriteBuffer { discarded: true, ..WriteBuffer::default() };
            std::mem::replace(&mut *self.buffer.lock(), nothing)
        };
        self.dirty_runs.store(0, Ordering::Release);
        let guard = epoch::pin();
        let mut retired = Retired::default();
        for &page in dirty.pages.keys() {
            retired.frames.extend(self.table.remove(page, &guard, &mut retired.pieces));
        }
        self.clock.lock().sweep(&self.table, &self.frames, usize::MAX, &guard, &mut retired);
        self.runs.evict(usize::MAX);
        self.write_budget.store(0, Ordering::Relaxed);
        self.frames.set_keep(0);
        self.frames.retire(retired.frames, retired.pieces, &guard);
        let all = self.share.shrink(u64::MAX);
        self.share.give_back(all);
    }
}
