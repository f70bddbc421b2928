//! Which extents of the data file are used: one [`SpaceMap`] for each database.
//!
//! Invariants:
//! 1. Every file page below the end is in exactly one of: a used extent, a free one, one that waits.
//! 2. An extent that was given back waits until the superblock that omits it is durable: those given back
//!    before a checkpoint began are reused only after that checkpoint, or a later one, is durable.
//! 3. An extent is reserved on the disk before it is handed out, and is accounted as used before anybody
//!    writes to it.
//! 4. Free extents neither overlap nor touch.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::ErrorKind;

/// Where the first extent starts; before it stand the superblock's slots.
pub(crate) const EXTENTS_START: u64 = 64 << 10;

use crate::error::{Error, Result};
use crate::storage::StorageFile;
use crate::sync::{Arc, Mutex};

/// The extents of one data file.
pub(crate) struct SpaceMap {
    file: Arc<dyn StorageFile>,
    path: String,
    page_size: usize,
    extents: Mutex<Extents>,
}

#[derive(Debug, Default)]
struct Extents {
    /// File pages that exist, used or not.
    end: u64,
    /// First file page to length and whether it was given back to the file system.
    free: BTreeMap<u64, Free>,
    /// Given back since the last checkpoint began.
    waiting: Vec<Extent>,
    /// Given back before the checkpoint under way began.
    closing: Vec<Extent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Free {
    pages: u64,
    /// The file system has it back.
    hole: bool,
}

/// First file page and length.
type Extent = (u64, u64);

impl SpaceMap {
    /// The map of a new file, in which nothing is used.
    pub(crate) fn new(file: Arc<dyn StorageFile>, path: &str, page_size: usize) -> Self {
        Self { file, path: path.to_owned(), page_size, extents: Mutex::new(Extents::default()) }
    }

    /// The map of a file in which just the extents `used` (first file page, pages) are used. An error if they
    /// overlap or lie outside of the file.
    pub(crate) fn restore(
        file: Arc<dyn StorageFile>,
        path: &str,
        page_size: usize,
        used: impl IntoIterator<Item = (u64, u64)>,
    ) -> Result<Self> {
        let map = Self::new(file, path, page_size);
        let end = map.len()?.saturating_sub(EXTENTS_START) / page_size as u64;
        let mut used: Vec<Extent> = used.into_iter().collect();
        used.sort_unstable();
        let mut extents = Extents { end, ..Extents::default() };
        let mut free_from = 0;
        for (first, pages) in used {
            let corrupt = |what: &str| {
                let message = format!("the catalog names an extent of {pages} pages that {what}");
                Error::corruption(message)
                    .in_file(path)
                    .at_offset(first.saturating_mul(page_size as u64).saturating_add(EXTENTS_START))
            };
            if first < free_from {
                return Err(corrupt("overlaps another"));
            }
            match first.checked_add(pages) {
                Some(behind) if pages > 0 && behind <= end => {
                    extents.add_free(free_from, first - free_from);
                    free_from = behind;
                }
                _ => return Err(corrupt("lies outside of the file")),
            }
        }
        extents.add_free(free_from, end - free_from);
        *map.extents.lock() = extents;
        Ok(map)
    }

    /// From now on nothing that is free now is handed out: somebody of whom nobody knows which extents are
    /// his may have it.
    pub(crate) fn keep_what_is_free(&self) {
        self.extents.lock().free.clear();
    }

    /// Finds, or makes at the end of the file, `pages` contiguous file pages and reserves them on the disk.
    /// Returns the first. `OutOfSpace` if the disk has no room: then nothing was changed.
    pub(crate) fn allocate(&self, pages: u64) -> Result<u64> {
        assert!(pages > 0, "an extent of no pages");
        let mut extents = self.extents.lock();
        let first = extents.find(pages);
        self.file
            .allocate(self.offset(first), pages * self.page_size as u64)
            .map_err(|error| Error::io("reserving space", error).in_file(&self.path))?;
        extents.take(first, pages);
        Ok(first)
    }

    /// Reserves the largest free extent before file page `end`, or `pages` pages of it if it is larger. First
    /// page and pages; `None` if none has `least` pages.
    pub(crate) fn allocate_below(&self, end: u64, pages: u64, least: u64) -> Result<Option<(u64, u64)>> {
        let mut extents = self.extents.lock();
        let before = extents.free.range(..end).map(|(&first, free)| (free.pages.min(end - first), first));
        let Some((room, first)) = before.max_by_key(|&(room, first)| (room, Reverse(first))) else {
            return Ok(None);
        };
        if room < least {
            return Ok(None);
        }
        let pages = room.min(pages.max(least));
        self.file
            .allocate(self.offset(first), pages * self.page_size as u64)
            .map_err(|error| Error::io("reserving space", error).in_file(&self.path))?;
        extents.take(first, pages);
        Ok(Some((first, pages)))
    }

    /// Gives an extent back. It is reused once a checkpoint that began after this is durable.
    pub(crate) fn free(&self, first: u64, pages: u64) {
        let mut extents = self.extents.lock();
        assert!(first + pages <= extents.end, "extent {first}+{pages} ends behind {}", extents.end);
        extents.waiting.push((first, pages));
    }

    /// Gives back an extent that no superblock, durable or under way, can name: it is free at once.
    pub(crate) fn free_unused(&self, first: u64, pages: u64) {
        let mut extents = self.extents.lock();
        assert!(first + pages <= extents.end, "extent {first}+{pages} ends behind {}", extents.end);
        extents.add_free(first, pages);
    }

    /// A checkpoint begins: what was given back before this will not be in its superblock. Called before the
    /// families are asked for their segments.
    pub(crate) fn begin_checkpoint(&self) {
        let mut extents = self.extents.lock();
        let waiting = std::mem::take(&mut extents.waiting);
        extents.closing.extend(waiting);
    }

    /// The superblock of the checkpoint that began last is durable.
    pub(crate) fn checkpoint_durable(&self) {
        let mut extents = self.extents.lock();
        for (first, pages) in std::mem::take(&mut extents.closing) {
            extents.add_free(first, pages);
        }
    }

    /// Gives free space back to the file system: cuts the file behind the last extent that is used or waits,
    /// and makes holes of the free extents before. Returns whether anything was given back.
    pub(crate) fn shrink(&self) -> Result<bool> {
        let mut extents = self.extents.lock();
        let mut changed = false;
        if let Some((&first, &Free { pages, .. })) = extents.free.last_key_value()
            && first + pages == extents.end
        {
            let len = self.offset(first);
            self.file.set_len(len).map_err(|error| self.failed("cutting the file", len, error))?;
            extents.free.remove(&first);
            extents.end = first;
            changed = true;
        }
        for (&first, free) in extents.free.iter_mut().filter(|(_, free)| !free.hole) {
            let offset = self.offset(first);
            match self.file.deallocate(offset, free.pages * self.page_size as u64) {
                Ok(()) => {
                    free.hole = true;
                    changed = true;
                }
                // On a full disk even a hole may want room. Nothing is lost; the next call tries again.
                Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                    break;
                }
                Err(error) => return Err(self.failed("giving space back", offset, error)),
            }
        }
        Ok(changed)
    }

    /// File pages that exist: used, free, or waiting.
    pub(crate) fn file_pages(&self) -> u64 {
        self.extents.lock().end
    }

    /// File pages that could be handed out now.
    pub(crate) fn free_pages(&self) -> u64 {
        self.extents.lock().free.values().map(|free| free.pages).sum()
    }

    /// File pages that are used, or were given back and wait for a checkpoint.
    pub(crate) fn used_pages(&self) -> u64 {
        let extents = self.extents.lock();
        extents.end - extents.free.values().map(|free| free.pages).sum::<u64>()
    }

    /// Free file pages that the file system has not got back.
    pub(crate) fn kept_pages(&self) -> u64 {
        self.extents.lock().free.values().filter(|free| !free.hole).map(|free| free.pages).sum()
    }

    /// File pages that were given back and wait for a checkpoint.
    #[cfg(test)]
    pub(crate) fn waiting_pages(&self) -> u64 {
        let extents = self.extents.lock();
        extents.waiting.iter().chain(&extents.closing).map(|extent| extent.1).sum()
    }

    fn offset(&self, file_page: u64) -> u64 {
        EXTENTS_START + file_page * self.page_size as u64
    }

    fn len(&self) -> Result<u64> {
        self.file.len().map_err(|error| Error::io("asking for the file's length", error).in_file(&self.path))
    }

    fn failed(&self, operation: &str, offset: u64, error: std::io::Error) -> Error {
        Error::io(operation, error).in_file(&self.path).at_offset(offset)
    }
}

impl Extents {
    /// Where `pages` pages fit: the lowest free extent that is large enough, or the end, which a free extent
    /// may reach.
    fn find(&self, pages: u64) -> u64 {
        if let Some((&first, _)) = self.free.iter().find(|(_, free)| free.pages >= pages) {
            return first;
        }
        match self.free.last_key_value() {
            Some((&first, free)) if first + free.pages == self.end => first,
            _ => self.end,
        }
    }

    /// Takes what [`find`](Self::find) found.
    fn take(&mut self, first: u64, pages: u64) {
        if let Some(free) = self.free.remove(&first)
            && free.pages > pages
        {
            self.free.insert(first + pages, Free { pages: free.pages - pages, hole: free.hole });
        }
        self.end = self.end.max(first + pages);
    }

    fn add_free(&mut self, mut first: u64, pages: u64) {
        if pages == 0 {
            return;
        }
        let mut free = Free { pages, hole: false };
        if let Some((&before, &neighbour)) = self.free.range(..first).next_back() {
            let end = before + neighbour.pages;
            assert!(end <= first, "extent {first}+{pages} is free already up to {end}");
            if end == first {
                self.free.remove(&before);
                first = before;
                free.pages += neighbour.pages;
            }
        }
        if let Some((&after, &neighbour)) = self.free.range(first..).next() {
            let end = first + free.pages;
            assert!(end <= after, "extent {first}+{} is free already from {after} on", free.pages);
            if end == after {
                self.free.remove(&after);
                free.pages += neighbour.pages;
            }
        }
        self.free.insert(first, free);
    }
}
