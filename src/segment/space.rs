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
//! to it that what that made free comes back. Until it has, the map is *short*.
//!
//! *What is owed.* The log holds what merges of memtables will need room for. Before it takes more, it is
//! seen to that the disk has as much ([`keep_room`](SpaceMap::keep_room)), and from then on this is room for
//! [those merges](SpaceMap::for_memtables) alone: all else that is written (deltas that are joined or
//! drained, compactions, catalogs) leaves it on the disk, be it still free there or reserved already.
//!
//! | who asks for an extent | leaves with room on the disk |
//! |---|---|
//! | whoever else | the reserve and what is owed |
//! | a merge of memtables | the reserve |
//! | whoever has the reserve open | half of it, and what is owed |
//! | a merge of memtables, or a catalog, that has it open | nothing |
//!
//! More pages than are needed at once, by which segments grow, are never taken of what is kept.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::thread::{self, ThreadId};

/// Where the first extent starts; before it stand the superblock's slots.
pub(crate) const EXTENTS_START: u64 = 64 << 10;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::{StorageBackend, StorageFile};
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
/// Whoever has the reserve open leaves one page in so many of it to merges of memtables and to catalogs.
const LEFT_OF_RESERVE: u64 = 2;
/// Pages that an extent has at most if it comes out of what is kept and less would do: so that segments are
/// not a page each.
const MOST_OF_KEPT: u64 = 4;
/// And if it is a family's who merges memtables while there is little room: others have some to merge, too.
const MOST_OF_OWED: u64 = 64;

/// The extents of one data file.
pub(crate) struct SpaceMap {
    file: Arc<dyn StorageFile>,
    path: String,
    page_size: usize,
    extents: Mutex<Extents>,
    /// Whether less than the reserve is there.
    short: AtomicBool,
}

/// What a thread may take of what is kept, for as long as this lives.
pub(crate) struct Access<'s> {
    space: &'s SpaceMap,
    thread: ThreadId,
    to: Kept,
}

/// Part of what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Reserve,
    /// The whole reserve, for a catalog.
    WholeReserve,
    /// What is owed to merges of memtables.
    Owed,
}

impl Drop for Access<'_> {
    fn drop(&mut self) {
        let mut extents = self.space.extents.lock();
        let mine = |&(thread, to): &(ThreadId, Kept)| (thread, to) == (self.thread, self.to);
        if let Some(place) = extents.accesses.iter().position(mine) {
            extents.accesses.swap_remove(place);
        }
    }
}

/// What the pages of the file are for. Those that are in no other part are used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileParts {
    pub(crate) pages: u64,
    /// With the two that follow.
    pub(crate) free: u64,
    /// Free, and the file system has them back.
    pub(crate) holes: u64,
    /// To be kept free for a full disk.
    pub(crate) kept: u64,
    /// Given back, and free after the next checkpoint.
    pub(crate) waiting: u64,
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
    /// Says how much room the disk has left.
    disk: Option<Arc<dyn StorageBackend>>,
    /// Pages that merges of what the log holds may take.
    owed: u64,
    /// Of these, pages that are kept at the end besides the reserve, since the disk has not plenty.
    promised: u64,
    /// The threads that may take of what is kept.
    accesses: Vec<(ThreadId, Kept)>,
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

    /// From now on so much is kept for a full `disk`.
    pub(crate) fn set_reserve(&self, reserve: ReserveSize, disk: Arc<dyn StorageBackend>) {
        let mut extents = self.extents.lock();
        extents.reserve = reserve;
        extents.disk = Some(disk);
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

    /// Whether the disk has no plenty of room for merging `bytes` of log.
    pub(crate) fn is_tight(&self, bytes: u64) -> bool {
        let extents = self.extents.lock();
        let (reserve, owed) = (extents.reserve_pages(self.page_size), self.pages_to_merge(bytes));
        reserve > 0 && !self.has_plenty(reserve.saturating_add(owed), extents.free_on_disk())
    }

    fn pages_to_merge(&self, bytes: u64) -> u64 {
        bytes.saturating_mul(MERGED_PER_LOGGED).div_ceil(self.page_size as u64)
    }

    fn has_plenty(&self, pages: u64, free: Option<u64>) -> bool {
        free.is_none_or(|free| free / self.page_size as u64 >= pages.saturating_mul(PLENTY))
    }

    /// Makes sure that what `bytes` of log hold can be merged beside the reserve, whatever else fills the
    /// disk. `OutOfSpace` if there is no room for that.
    pub(crate) fn keep_room(&self, bytes: u64) -> Result<()> {
        let mut extents = self.extents.lock();
        let reserve = extents.reserve_pages(self.page_size);
        if reserve == 0 {
            return Ok(());
        }
        let owed = self.pages_to_merge(bytes);
        let wanted = reserve.saturating_add(owed);
        if self.has_plenty(wanted, extents.free_on_disk()) {
            (extents.owed, extents.promised) = (owed, 0);
            return Ok(());
        }
        if extents.reserved_pages() < wanted {
            let missing = wanted - extents.reserved_pages();
            let tail = extents.tail_pages();
            self.extend_tail(&mut extents, tail + missing)?;
        }
        (extents.owed, extents.promised) = (owed, owed);
        Ok(())
    }

    /// The log holds `bytes` that are not merged: for these nobody else may take the room, if there is any.
    pub(crate) fn owe(&self, bytes: u64) {
        let mut extents = self.extents.lock();
        extents.owed = self.pages_to_merge(bytes);
        extents.promised = extents.promised.min(extents.owed);
    }

    /// The log holds no more than `bytes` that are not merged: what was kept for more need not be kept.
    pub(crate) fn keep_no_more(&self, bytes: u64) {
        let mut extents = self.extents.lock();
        let owed = self.pages_to_merge(bytes);
        extents.owed = extents.owed.min(owed);
        extents.promised = extents.promised.min(owed);
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
    pub(crate) fn open_reserve(&self) -> Access<'_> {
        self.give_access(Kept::Reserve)
    }

    /// The same for a catalog, which is what makes room: of the whole reserve.
    pub(crate) fn open_whole_reserve(&self) -> Access<'_> {
        self.give_access(Kept::WholeReserve)
    }

    /// While what it gives lives, this thread writes what memtables hold.
    pub(crate) fn for_memtables(&self) -> Access<'_> {
        self.give_access(Kept::Owed)
    }

    fn give_access(&self, to: Kept) -> Access<'_> {
        let thread = thread::current().id();
        self.extents.lock().accesses.push((thread, to));
        Access { space: self, thread, to }
    }

    /// Finds, or makes at the end of the file, `pages` contiguous file pages, or fewer where there is little
    /// room, `least` at least, and reserves them on the disk. Returns the first, and how many they are.
    /// `OutOfSpace` if the disk has no room beside what the caller has to leave: then nothing was changed.
    pub(crate) fn allocate(&self, pages: u64, least: u64) -> Result<(u64, u64)> {
        assert!(0 < least && least <= pages, "an extent of {least} to {pages} pages");
        let mut extents = self.extents.lock();
        let reserve = extents.reserve_pages(self.page_size);
        let thread = thread::current().id();
        let is_owed = extents.accesses.contains(&(thread, Kept::Owed));
        let mut size = match self.owed(&extents, pages) {
            owed if owed > 0 && is_owed => least.max(MOST_OF_OWED.min(pages)),
            _ => pages,
        };
        let refused = loop {
            let owed = if is_owed { 0 } else { self.owed(&extents, size) };
            match self.allocate_beside(&mut extents, size, reserve + owed) {
                Err(error) if error.is_refusal() && size == least => break error,
                // Not the least at once: segments of a page each would be many.
                Err(error) if error.is_refusal() => size = (size / 2).max(least),
                first => {
                    extents.promised = extents.promised.max(owed);
                    extents.note_taken(size, is_owed);
                    return first.map(|first| (first, size));
                }
            }
        };
        let owed = if is_owed { 0 } else { self.owed(&extents, least) };
        let left = extents.left_by(thread, reserve, owed);
        if left < reserve + owed {
            for size in [least.max(MOST_OF_KEPT.min(pages)), least] {
                match self.allocate_beside(&mut extents, size, left) {
                    Err(error) if error.is_refusal() => {}
                    first => {
                        extents.note_taken(size, is_owed);
                        self.short.store(extents.reserved_pages() < reserve, Ordering::Relaxed);
                        return first.map(|first| (first, size));
                    }
                }
            }
        }
        Err(refused)
    }

    /// Pages that are owed and have to be kept reserved, while `pages` are taken: none where the disk has
    /// plenty of room for them.
    fn owed(&self, extents: &Extents, pages: u64) -> u64 {
        let reserve = extents.reserve_pages(self.page_size);
        if reserve == 0 || extents.owed == extents.promised {
            return extents.promised;
        }
        let beside = reserve + pages;
        let free = extents.free_on_disk();
        let wanted = extents.owed.saturating_mul(PLENTY).saturating_add(beside);
        let is_plenty = free.is_none_or(|free| free / self.page_size as u64 >= wanted);
        if is_plenty { extents.promised } else { extents.owed }
    }

    /// Reserves `pages` pages if `kept` free ones with room on the disk are left then.
    fn allocate_beside(&self, extents: &mut Extents, pages: u64, kept: u64) -> Result<u64> {
        let mut refused = None;
        let mut reserve = |first, pages| match self.reserve_on_disk(first, pages) {
            Err(error) if error.is_refusal() => {
                refused.get_or_insert(error);
                Ok(false)
            }
            reserved => reserved.map(|()| true),
        };
        let tail = extents.end - extents.tail_pages();
        let first = extents.find(pages);
        if first < tail && extents.reserved_without(first, pages) >= kept {
            if reserve(first, pages)? {
                extents.take(first, pages);
                return Ok(first);
            }
            self.mend_hole(extents, first, pages);
        }
        // In front of what is kept, which begins behind it.
        let behind = tail + pages + kept;
        let wanted = if behind > extents.end { behind - tail } else { pages };
        // What the disk says that it has not need not be asked for, which may take long.
        let lacks = behind.saturating_sub(extents.end).saturating_mul(self.page_size as u64);
        if (lacks == 0 || extents.free_on_disk().is_none_or(|free| free >= lacks)) && reserve(tail, wanted)? {
            extents.extend_to(behind);
            extents.take(tail, pages);
            return Ok(tail);
        }
        // The last of the file first, since nothing made holes there.
        let fitting = extents.free.iter().rev().filter(|(_, free)| free.pages >= pages);
        let tried = fitting.filter(|(_, free)| free.room != Room::Hole).take(MOST_TRIED);
        let firsts: Vec<u64> = tried.map(|(first, free)| first + free.pages - pages).collect();
        for first in firsts {
            if extents.reserved_without(first, pages) >= kept && reserve(first, pages)? {
                extents.take(first, pages);
                return Ok(first);
            }
        }
        Err(refused.unwrap_or_else(|| {
            let error = Error::new(ErrorKind::OutOfSpace, "what is left of the disk is kept");
            error.in_file(&self.path)
        }))
    }

    /// Room for pages of a hole was refused: a file system may have reserved some of them nevertheless, which
    /// nobody would give back.
    fn mend_hole(&self, extents: &Extents, first: u64, pages: u64) {
        let hole = extents.free.range(..=first).next_back().filter(|(_, free)| free.room == Room::Hole);
        if hole.is_some()
            && let Err(error) = self.file.deallocate(self.offset(first), pages * self.page_size as u64)
        {
            tracing::debug!(%error, first, pages, "part of a hole may keep room");
        }
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

    /// What the pages of the file are for, at one moment.
    pub(crate) fn parts(&self) -> FileParts {
        let extents = self.extents.lock();
        let waiting = extents.waiting.iter().chain(&extents.closing).map(|(_, pages)| pages).sum();
        let free_of = |is_so: fn(&Free) -> bool| -> u64 {
            extents.free.values().filter(|free| is_so(free)).map(|free| free.pages).sum()
        };
        FileParts {
            pages: extents.end,
            free: free_of(|_| true),
            holes: free_of(|free| free.room == Room::Hole),
            kept: extents.reserve_pages(self.page_size) + extents.promised,
            waiting,
        }
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
        // Else it would come to stand in front of what is kept at the end, for a full disk and for merges.
        let is_kept = map.reserved_without(map.find(pages), copies * pages)
            >= map.reserve_pages(self.page_size) + map.promised;
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
    /// Bytes that the disk has left, if that is known: what a system does not say of it is no obstacle.
    fn free_on_disk(&self) -> Option<u64> {
        self.disk.as_ref().and_then(|disk| disk.free_bytes().unwrap_or(None))
    }

    /// An extent was taken, by a merge of memtables if it `was_owed`.
    fn note_taken(&mut self, pages: u64, was_owed: bool) {
        if was_owed {
            self.owed = self.owed.saturating_sub(pages);
            self.promised = self.promised.min(self.owed);
        }
    }

    /// Free pages with room on the disk that `thread` has to leave, of a reserve and what is owed.
    fn left_by(&self, thread: ThreadId, reserve: u64, owed: u64) -> u64 {
        let has = |to| self.accesses.contains(&(thread, to));
        if has(Kept::WholeReserve) {
            return 0;
        }
        match (has(Kept::Reserve), has(Kept::Owed)) {
            (true, true) => 0,
            (true, false) => reserve / LEFT_OF_RESERVE + owed,
            (false, true) => reserve,
            (false, false) => reserve + owed,
        }
    }

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
