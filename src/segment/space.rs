//! Which extents of the data file are used: one [`SpaceMap`] for each database.
//!
//! Invariants:
//! 1. Every file page below the end is in exactly one of: a used extent, a free one, one that waits.
//! 2. An extent that was given back waits until the superblock that omits it is durable: those given back
//!    before a checkpoint began are reused only after that checkpoint, or a later one, is durable.
//! 3. An extent is reserved on the disk before it is handed out, and is accounted as used before anybody
//!    writes to it.
//! 4. Free extents neither overlap nor touch.
//!
//! *The reserve.* Behind what is used stay as many free pages, their room reserved on the disk, as a full
//! disk needs to become less full: merges and catalogs write before they free. An extent at the end of the
//! file comes out of them, and as many are reserved behind it. Where the disk has no more, it is refused,
//! unless somebody has the reserve [open](SpaceMap::open_reserve), who writes little at a time and then sees
//! to it that what that made free comes back. Until it has, the map is *short*. Before the log takes what
//! merges will need room for, as much is reserved besides ([`keep_room`](SpaceMap::keep_room)).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::thread::{self, ThreadId};

/// Where the first extent starts; before it stand the superblock's slots.
pub(crate) const EXTENTS_START: u64 = 64 << 10;

use crate::error::{Error, Result};
use crate::storage::StorageFile;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex};

/// The reserve is one page in so many of the file, and bytes at most.
const RESERVE_SHARE: u64 = 32;
const MOST_RESERVE_BYTES: u64 = 16 << 20;
/// Pages that it has at least, so that a deletion of a range finds room: it rewrites the edges of a tree and
/// of all its deltas. Of a small file it is one page in so many, and as many as a merge of next to nothing
/// takes.
const RESERVE_PAGES: u64 = 64;
const SMALL_RESERVE_SHARE: u64 = 4;
const LEAST_RESERVE_PAGES: u64 = 16;
/// Bytes that merging a byte of log may write: a value of a little more than a quarter page takes a page.
const MERGED_PER_LOGGED: u64 = 4;
/// Room is reserved for what the log holds, where the disk has not so many times as much left.
const PLENTY: u64 = 2;
/// Free extents that are tried on a full disk: some are holes, which have no room.
const MOST_TRIED: usize = 256;

/// The extents of one data file.
pub(crate) struct SpaceMap {
    file: Arc<dyn StorageFile>,
    path: String,
    page_size: usize,
    extents: Mutex<Extents>,
    /// Whether less than the reserve is there.
    short: AtomicBool,
}

/// Lets extents come out of the reserve.
pub(crate) struct OpenReserve<'s>(&'s SpaceMap, ThreadId);

impl Drop for OpenReserve<'_> {
    fn drop(&mut self) {
        let mut extents = self.0.extents.lock();
        if let Some(place) = extents.opened.iter().position(|thread| *thread == self.1) {
            extents.opened.swap_remove(place);
        }
    }
}

/// How much is kept for a full disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ReserveSize {
    #[default]
    Nothing,
    /// In proportion to the file.
    Share,
    /// So many bytes.
    Bytes(u64),
}

#[derive(Debug, Default)]
struct Extents {
    reserve: ReserveSize,
    /// Pages that are kept at the end besides the reserve: the log holds what will need them.
    promised: u64,
    /// The threads that have the reserve open.
    opened: Vec<ThreadId>,
    /// File pages that exist, used or not.
    end: u64,
    /// By first file page.
    free: BTreeMap<u64, Free>,
    /// Given back since the last checkpoint began.
    waiting: Vec<Extent>,
    /// Given back before the checkpoint under way began.
    closing: Vec<Extent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Free {
    pages: u64,
    room: Room,
}

/// Whether free pages have room on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Reserved,
    /// Part of them may have none, or all.
    Unknown,
    /// The file system has it back.
    Hole,
}

/// First file page and length.
type Extent = (u64, u64);

impl SpaceMap {
    /// The map of a new file, in which nothing is used.
    pub(crate) fn new(file: Arc<dyn StorageFile>, path: &str, page_size: usize) -> Self {
        let (extents, short) = (Mutex::new(Extents::default()), AtomicBool::new(false));
        Self { file, path: path.to_owned(), page_size, extents, short }
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
                    extents.add_free_with(free_from, first - free_from, Room::Unknown);
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

    /// From now on so much is kept for a full disk.
    pub(crate) fn set_reserve(&self, reserve: ReserveSize) {
        self.extents.lock().reserve = reserve;
    }

    /// Bytes that are kept for a full disk if there is room.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        self.extents.lock().reserve_pages(self.page_size) * self.page_size as u64
    }

    /// Whether the reserve was used and could not be made good yet.
    pub(crate) fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// Makes good what was taken of the reserve, if there is room. Says whether it is whole.
    pub(crate) fn fill_reserve(&self) -> bool {
        let mut extents = self.extents.lock();
        let wanted = extents.reserve_pages(self.page_size);
        let is_whole = extents.reserved_pages() >= wanted
            || self.extend_tail(&mut extents, wanted).is_ok()
                && (wanted == 0 || self.reserve_on_disk(extents.end - wanted, wanted).is_ok());
        self.short.store(!is_whole, Ordering::Relaxed);
        is_whole
    }

    /// Whether a disk that has `free` bytes left, if that is known, has no plenty of room for merging `bytes`
    /// of log.
    pub(crate) fn is_tight(&self, bytes: u64, free: Option<u64>) -> bool {
        let extents = self.extents.lock();
        let (reserve, promised) = (extents.reserve_pages(self.page_size), self.pages_to_merge(bytes));
        reserve > 0 && !self.has_plenty(reserve.saturating_add(promised), free)
    }

    fn pages_to_merge(&self, bytes: u64) -> u64 {
        bytes.saturating_mul(MERGED_PER_LOGGED).div_ceil(self.page_size as u64)
    }

    fn has_plenty(&self, pages: u64, free: Option<u64>) -> bool {
        free.is_none_or(|free| free / self.page_size as u64 >= pages.saturating_mul(PLENTY))
    }

    /// Makes sure that what `bytes` of log hold can be merged beside the reserve, whatever else fills a disk
    /// that has `free` bytes left, if that is known. `OutOfSpace` if there is no room for that.
    pub(crate) fn keep_room(&self, bytes: u64, free: Option<u64>) -> Result<()> {
        let mut extents = self.extents.lock();
        let reserve = extents.reserve_pages(self.page_size);
        if reserve == 0 {
            return Ok(());
        }
        let promised = self.pages_to_merge(bytes);
        let wanted = reserve.saturating_add(promised);
        if self.has_plenty(wanted, free) {
            extents.promised = 0;
            return Ok(());
        }
        if extents.reserved_pages() < wanted {
            let missing = wanted - extents.reserved_pages();
            let tail = extents.tail_pages();
            self.extend_tail(&mut extents, tail + missing)?;
        }
        extents.promised = promised;
        Ok(())
    }

    /// The log holds no more than `bytes` that are not merged: what was kept for more need not be kept.
    pub(crate) fn keep_no_more(&self, bytes: u64) {
        let mut extents = self.extents.lock();
        let promised = self.pages_to_merge(bytes);
        extents.promised = extents.promised.min(promised);
    }

    /// Reserves free pages at the end of the file until there are `wanted`.
    fn extend_tail(&self, extents: &mut Extents, wanted: u64) -> Result<()> {
        let missing = wanted.saturating_sub(extents.tail_pages());
        if missing > 0 {
            let end = extents.end;
            self.reserve_on_disk(end, missing)?;
            extents.end = end + missing;
            extents.add_free(end, missing);
        }
        Ok(())
    }

    fn reserve_on_disk(&self, first: u64, pages: u64) -> Result<()> {
        let reserved = self.file.allocate(self.offset(first), pages.saturating_mul(self.page_size as u64));
        reserved.map_err(|error| Error::io("reserving space", error).in_file(&self.path))
    }

    /// While what it gives lives, extents that this thread asks for come out of the reserve as well where the
    /// disk has no more.
    pub(crate) fn open_reserve(&self) -> OpenReserve<'_> {
        let thread = thread::current().id();
        self.extents.lock().opened.push(thread);
        OpenReserve(self, thread)
    }

    /// Finds, or makes at the end of the file, `pages` contiguous file pages and reserves them on the disk.
    /// Returns the first. `OutOfSpace` if the disk has no room, and the reserve neither or it is not
    /// [open](Self::open_reserve): then nothing was changed.
    pub(crate) fn allocate(&self, pages: u64) -> Result<u64> {
        assert!(pages > 0, "an extent of no pages");
        let mut extents = self.extents.lock();
        let first = extents.find(pages);
        let reserve = extents.reserve_pages(self.page_size);
        let uses_reserve = reserve > 0 && extents.reserved_without(first, pages) < reserve;
        let tail = extents.end - extents.tail_pages();
        if uses_reserve || first >= tail {
            // As many as there is room for in front of the reserve, which begins behind them.
            let behind = tail + pages + reserve;
            if behind > extents.end {
                match self.reserve_on_disk(tail, behind - tail) {
                    Ok(()) => {
                        extents.extend_to(behind);
                        extents.take(tail, pages);
                        self.short.store(false, Ordering::Relaxed);
                        return Ok(tail);
                    }
                    Err(error) if !error.is_refusal() => return Err(error),
                    Err(error) if uses_reserve && !extents.opened.contains(&thread::current().id()) => {
                        return Err(error);
                    }
                    Err(_) => self.short.store(uses_reserve, Ordering::Relaxed),
                }
            }
        }
        let first = match self.reserve_on_disk(first, pages) {
            Ok(()) => first,
            Err(error) if error.is_refusal() => self.reserve_anywhere(&extents, pages).ok_or(error)?,
            Err(error) => return Err(error),
        };
        extents.take(first, pages);
        Ok(first)
    }

    /// Reserves `pages` pages that are free and have room on a full disk: the last of the file first, since
    /// nothing made holes there.
    fn reserve_anywhere(&self, extents: &Extents, pages: u64) -> Option<u64> {
        let fitting = extents.free.iter().rev().filter(|(_, free)| free.pages >= pages);
        let tried = fitting.filter(|(_, free)| free.room != Room::Hole).take(MOST_TRIED);
        tried
            .map(|(first, free)| first + free.pages - pages)
            .find(|&first| self.reserve_on_disk(first, pages).is_ok())
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
        self.reserve_on_disk(first, pages)?;
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

    /// Gives free space back to the file system: cuts the file behind the last extent that is used or waits
    /// and the reserve, and makes holes of the free extents before. Returns whether anything was given back.
    pub(crate) fn shrink(&self) -> Result<bool> {
        let mut extents = self.extents.lock();
        let kept = extents.reserve_pages(self.page_size) + extents.promised;
        let mut changed = false;
        let tail = extents.tail_pages();
        if tail > kept {
            let (first, end) = (extents.end - tail, extents.end - tail + kept);
            // Some of it may be a hole. If there is no room for that now, there is when the rest is cut off.
            let is_reserved = kept == 0 || self.reserve_on_disk(first, kept).is_ok();
            let len = self.offset(end);
            self.file.set_len(len).map_err(|error| self.failed("cutting the file", len, error))?;
            extents.free.remove(&first);
            extents.end = end;
            extents.add_free(first, kept);
            if !is_reserved && let Err(error) = self.reserve_on_disk(first, kept) {
                tracing::debug!(%error, "the reserve is not whole");
            }
            changed = true;
        }
        changed |= self.make_holes(&mut extents, kept.saturating_sub(tail))?;
        Ok(changed)
    }

    /// Makes holes of the free extents before the end. `missing` pages of the reserve are moved to the end,
    /// where large extents fit, piece by piece, so that little is free for others to take meanwhile; what
    /// cannot be moved stays where it is. Returns whether anything was given back.
    fn make_holes(&self, extents: &mut Extents, mut missing: u64) -> Result<bool> {
        let tail = extents.end - extents.tail_pages();
        let with_room = extents.free.range(..tail).filter(|(_, free)| free.room != Room::Hole);
        let mut with_room: Vec<(u64, Free)> = with_room.map(|(&first, &free)| (first, free)).collect();
        with_room.sort_by_key(|(_, free)| free.room == Room::Reserved);
        let (mut changed, mut is_movable) = (false, true);
        for (first, free) in with_room {
            let is_kept = missing > 0 && free.room == Room::Reserved;
            if is_kept && !is_movable {
                missing = missing.saturating_sub(free.pages);
                continue;
            }
            let offset = self.offset(first);
            if let Err(error) = self.file.deallocate(offset, free.pages * self.page_size as u64) {
                let error = self.failed("giving space back", offset, error);
                // On a full disk even a hole may want room. Nothing is lost; the next call tries again.
                if error.is_refusal() {
                    break;
                }
                return Err(error);
            }
            changed = true;
            extents.free.insert(first, Free { room: Room::Hole, ..free });
            let moved = missing.min(free.pages);
            if moved == 0 {
                continue;
            }
            let tail = extents.tail_pages();
            match self.extend_tail(extents, tail + moved) {
                Ok(()) => missing -= moved,
                Err(error) if error.is_refusal() => {
                    is_movable = false;
                    if is_kept && self.reserve_on_disk(first, free.pages).is_ok() {
                        extents.free.insert(first, free);
                        missing -= moved;
                    }
                }
                Err(error) => return Err(error),
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

    /// Free file pages beside those that are kept for a full disk: by so many the file could be shorter.
    pub(crate) fn excess_pages(&self) -> u64 {
        let extents = self.extents.lock();
        let free = extents.free.values().map(|free| free.pages).sum::<u64>();
        free.saturating_sub(extents.reserve_pages(self.page_size) + extents.promised)
    }

    /// Free file pages that the file system has not got back and could have.
    pub(crate) fn kept_pages(&self) -> u64 {
        let extents = self.extents.lock();
        let kept = extents.free.values().filter(|free| free.room != Room::Hole).map(|free| free.pages);
        let wanted = extents.reserve_pages(self.page_size) + extents.promised;
        kept.sum::<u64>().saturating_sub(wanted)
    }

    /// Whether extents were given back that are free after the next checkpoint.
    pub(crate) fn has_waiting(&self) -> bool {
        let extents = self.extents.lock();
        !(extents.waiting.is_empty() && extents.closing.is_empty())
    }

    /// Whether the file can be cut once one of `extents`, each of `room` pages, is written elsewhere: it is
    /// the last that is used, and wholly before it `copies` extents of `pages` pages are free.
    pub(crate) fn is_longer_for(&self, extents: &[u64], room: u64, copies: u64, pages: u64) -> bool {
        let map = self.extents.lock();
        let end = map.used_end();
        let Some(&first) = extents.iter().find(|&&first| first + room == end) else { return false };
        // Else it would come to stand in front of what is kept for a full disk, which is at the end.
        let is_kept =
            map.reserved_without(map.find(pages), copies * pages) >= map.reserve_pages(self.page_size);
        let fitting = map.free.range(..first).map(|(_, free)| free.pages / pages.max(1));
        is_kept && fitting.sum::<u64>() >= copies
    }

    /// Nobody else gets at the map meanwhile.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> impl Sized + '_ {
        self.extents.lock()
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
    /// Pages that are kept for a full disk.
    fn reserve_pages(&self, page_size: usize) -> u64 {
        match self.reserve {
            ReserveSize::Nothing => 0,
            ReserveSize::Share => {
                let most = (MOST_RESERVE_BYTES / page_size as u64).max(RESERVE_PAGES);
                let used = self.end - self.free.values().map(|free| free.pages).sum::<u64>();
                let least = (used / SMALL_RESERVE_SHARE).clamp(LEAST_RESERVE_PAGES, RESERVE_PAGES);
                (used / RESERVE_SHARE).clamp(least, most)
            }
            ReserveSize::Bytes(bytes) => bytes.div_ceil(page_size as u64),
        }
    }

    /// Free pages at the end of the file.
    fn tail_pages(&self) -> u64 {
        match self.free.last_key_value() {
            Some((first, free)) if first + free.pages == self.end => free.pages,
            _ => 0,
        }
    }

    /// Where the last extent that is used ends.
    fn used_end(&self) -> u64 {
        let by_end = |&(first, pages): &Extent| (first + pages, first);
        let given_back: BTreeMap<u64, u64> = self.waiting.iter().chain(&self.closing).map(by_end).collect();
        let free_before = |end: u64| {
            let (&first, free) = self.free.range(..end).next_back()?;
            (first + free.pages == end).then_some(first)
        };
        let mut end = self.end;
        while let Some(first) = given_back.get(&end).copied().or_else(|| free_before(end)) {
            end = first;
        }
        end
    }

    /// Free pages that have room on the disk.
    fn reserved_pages(&self) -> u64 {
        self.free.values().filter(|free| free.room == Room::Reserved).map(|free| free.pages).sum()
    }

    /// Free pages that have room on the disk, but for `pages` from `first` on.
    fn reserved_without(&self, first: u64, pages: u64) -> u64 {
        let extent = self.free.range(..=first).next_back().map(|(&start, &free)| (start, free));
        let extent = extent.filter(|(start, free)| start + free.pages > first && free.room == Room::Reserved);
        let taken = extent.map_or(0, |(start, free)| pages.min(start + free.pages - first));
        self.reserved_pages() - taken
    }

    /// The file is as long as this: what is new is free.
    fn extend_to(&mut self, end: u64) {
        let (old, new) = (self.end, self.end.max(end));
        self.end = new;
        self.add_free(old, new - old);
    }

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

    /// Takes pages that are free, or stand behind the end.
    fn take(&mut self, first: u64, pages: u64) {
        let before = self.free.range(..=first).next_back().map(|(&start, &free)| (start, free));
        if let Some((start, free)) = before.filter(|(start, free)| start + free.pages > first) {
            self.free.remove(&start);
            let (end, behind) = (start + free.pages, first + pages);
            for (from, to) in [(start, first), (behind, end)] {
                if from < to {
                    self.free.insert(from, Free { pages: to - from, ..free });
                }
            }
        }
        self.end = self.end.max(first + pages);
    }

    /// Adds pages that have room on the disk.
    fn add_free(&mut self, first: u64, pages: u64) {
        self.add_free_with(first, pages, Room::Reserved);
    }

    fn add_free_with(&mut self, mut first: u64, pages: u64, room: Room) {
        if pages == 0 {
            return;
        }
        let mut free = Free { pages, room };
        let together = |one: Room, other: Room| if one == other { one } else { Room::Unknown };
        if let Some((&before, &neighbour)) = self.free.range(..first).next_back() {
            let end = before + neighbour.pages;
            assert!(end <= first, "extent {first}+{pages} is free already up to {end}");
            if end == first {
                self.free.remove(&before);
                first = before;
                free.pages += neighbour.pages;
                free.room = together(free.room, neighbour.room);
            }
        }
        if let Some((&after, &neighbour)) = self.free.range(first..).next() {
            let end = first + free.pages;
            assert!(end <= after, "extent {first}+{} is free already from {after} on", free.pages);
            if end == after {
                self.free.remove(&after);
                free.pages += neighbour.pages;
                free.room = together(free.room, neighbour.room);
            }
        }
        self.free.insert(first, free);
    }
}
