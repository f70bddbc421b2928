//! A family's own storage: what its tree reads, builds and frees pages through.
//!
//! Locks: the space map's is taken under the allocator's. Readers take none.

use std::ops::Range;

use super::allocator::{PageAllocator, Placement};
use super::data_file::DataFile;
use super::map::{Segment, SegmentMap};
use super::page_set::PageSet;
use super::space::Access;
use crate::codec::ids::{FamilyId, PageId};
use crate::error::{Error, ErrorKind, Result};
use crate::page::{
    Ahead, CacheBudgets, CacheStats, NewPage, PageKind, PagePointer, PageRef, PagedCachedFile, PinnedPage,
};
use crate::sync::arc_cell::ArcCell;
use crate::sync::epoch::{self, Guard};
use crate::sync::{Arc, Mutex, MutexGuard};

/// The largest segment that is made unless a run needs more, in bytes. The first one is a page.
const LARGEST_SEGMENT: u64 = 512 << 20;
/// Up to this many bytes a family's segments double; then each is at least as large, and one in so many of
/// what the family has.
const DOUBLED: u64 = 1 << 20;
const SHARE: u64 = 8;

/// One family's pages: where they stand, which are free, and the cache in front of them.
pub(crate) struct PartitionedStorageBackend {
    family: FamilyId,
    pub(super) shared: Arc<DataFile>,
    cache: PagedCachedFile,
    allocator: Mutex<Allocator>,
    /// Changed under the allocator's lock only.
    map: ArcCell<SegmentMap>,
}

pub(super) struct Allocator {
    pub(super) pages: PageAllocator,
    /// The family was dropped and gave its segments back.
    discarded: bool,
}

/// What a family takes of the data file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SegmentSpace {
    pub(crate) segments: usize,
    /// Pages of all segments.
    pub(crate) pages_total: u64,
    /// Pages that the current tree, a view, or a merge under way reaches.
    pub(crate) pages_in_use: u64,
    /// Pages that the current tree reaches.
    pub(crate) pages_reachable: u64,
    /// Pages that nothing reaches but the last checkpoint, or one under way.
    pub(crate) pages_superseded: u64,
    /// Bytes of all segments.
    pub(crate) bytes: u64,
}

impl PartitionedStorageBackend {
    /// A new family without segments.
    pub(crate) fn new(family: FamilyId, shared: Arc<DataFile>, budgets: CacheBudgets) -> Arc<Self> {
        Self::with(family, shared, budgets, SegmentMap::default(), PageAllocator::new())
    }

    /// A family as a catalog describes it: its segments, and what its tree reaches in them.
    pub(crate) fn restore(
        family: FamilyId,
        shared: Arc<DataFile>,
        budgets: CacheBudgets,
        segments: Vec<Segment>,
        reachable: &PageSet,
    ) -> Result<Arc<Self>> {
        let located = |error: Error| error.in_file(shared.pool().path()).of_family(family.0);
        let map = SegmentMap::restore(segments).map_err(located)?;
        let pages = PageAllocator::restore(&map, reachable).map_err(located)?;
        Ok(Self::with(family, shared, budgets, map, pages))
    }

    fn with(
        family: FamilyId,
        shared: Arc<DataFile>,
        budgets: CacheBudgets,
        map: SegmentMap,
        pages: PageAllocator,
    ) -> Arc<Self> {
        let cache = PagedCachedFile::new(family, shared.page_size(), Arc::clone(shared.pool()), budgets);
        Arc::new(Self {
            family,
            shared,
            cache,
            allocator: Mutex::new(Allocator { pages, discarded: false }),
            map: ArcCell::new(Arc::new(map)),
        })
    }

    pub(crate) fn family(&self) -> FamilyId {
        self.family
    }

    /// Bytes of a page.
    pub(crate) fn page_size(&self) -> usize {
        self.shared.page_size()
    }

    // ---- reading ----

    /// The page or run that `pointer` names, if it is in memory, which costs one indexed load.
    #[inline(always)]
    pub(crate) fn find<'g>(&'g self, pointer: PagePointer, guard: &'g Guard) -> Option<PageRef<'g>> {
        self.cache.find(pointer, guard)
    }

    /// Shows `look` the page or run that `pointer` names. If it is not in memory, the guard is given up, and
    /// another is taken by who looks next: so a descent holds one while it finds what it wants, and none
    /// while it waits for the disk.
    #[inline(always)]
    pub(crate) fn look<R>(
        &self,
        pointer: PagePointer,
        guard: &mut Option<Guard>,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Result<R> {
        if let Some(page) = self.cache.find(pointer, guard.get_or_insert_with(epoch::pin)) {
            return Ok(look(&page));
        }
        *guard = None;
        self.load(pointer).map(|page| look(&page))
    }

    /// Reads what `pointer` names from the file, and verifies it. The caller holds no guard.
    #[cold]
    pub(crate) fn load(&self, pointer: PagePointer) -> Result<PinnedPage> {
        let loaded = self.cache.load(pointer, self.locate(pointer)?);
        loaded.map_err(|error| self.shared.judge_reading(error))
    }

    /// The page or run that `pointer` names, from memory or from the file, held until it is dropped. The
    /// caller holds no guard.
    pub(crate) fn pin(&self, pointer: PagePointer) -> Result<PinnedPage> {
        match self.cache.find_pinned(pointer) {
            Some(page) => Ok(page),
            None => self.load(pointer),
        }
    }

    /// Where `pointer`'s page stands in memory, to be fetched from there ahead of its use.
    pub(crate) fn ahead(&self, pointer: PagePointer, forward: bool, guard: &Guard) -> Ahead {
        self.cache.ahead(pointer, forward, guard)
    }

    /// Reads what `pointer` names into `buffer` and verifies it, past the cache; what is not yet written
    /// comes from memory. The caller holds no guard.
    pub(crate) fn read_uncached(&self, pointer: PagePointer, buffer: &mut Vec<u8>) -> Result<()> {
        self.cache.read_uncached(pointer, self.locate(pointer)?, buffer)
    }

    /// Has the disk begin to read what `pointers` name and is not in memory, neighbours in one piece, and
    /// does not wait for it. Of what is wrong with it hears who reads it. The caller holds no guard: the
    /// system may wait for room in its queue.
    pub(crate) fn read_ahead(&self, pointers: &[PagePointer]) {
        let page_size = self.shared.page_size() as u64;
        let mut pieces: Vec<Range<u64>> = Vec::new();
        if !pointers.is_empty() {
            let guard = epoch::pin();
            for pointer in pointers.iter().filter(|pointer| self.is_absent(**pointer, &guard)) {
                let Ok(start) = self.locate(*pointer) else { break };
                let end = start + u64::from(pointer.pages) * page_size;
                match pieces.last_mut() {
                    Some(piece) if start == piece.end => piece.end = end,
                    Some(piece) if end == piece.start => piece.start = start,
                    _ => pieces.push(start..end),
                }
            }
        }
        pieces.iter().for_each(|piece| self.cache.begin_reading(piece));
    }

    /// Whether what `pointer` names is not in memory. Of a run that is not yet written it may say so, too.
    pub(crate) fn is_absent(&self, pointer: PagePointer, guard: &Guard) -> bool {
        self.cache.is_absent(pointer, guard)
    }

    /// The byte of the file at which `pointer`'s pages start: an error if they are not in one segment of the
    /// family. So no pointer makes anyone read, or allocate, more than the file holds.
    fn locate(&self, pointer: PagePointer) -> Result<u64> {
        let file_page = self.map.load(&epoch::pin()).locate(pointer.page, pointer.pages);
        let file_page = file_page.ok_or_else(|| {
            Error::corruption(format!(
                "a pointer names {} pages outside of the family's segments",
                pointer.pages
            ))
            .in_file(self.shared.pool().path())
            .of_family(self.family.0)
            .on_page(pointer.page.0)
        })?;
        Ok(self.shared.offset(file_page))
    }

    pub(super) fn map(&self) -> Arc<SegmentMap> {
        self.map.load_full()
    }

    // ---- building: the family's one merge at a time ----

    /// Allocates `pages` contiguous pages and memory to build them in, which is **not zeroed** (see
    /// [`NewPage`]). `OutOfSpace` if the disk is full: then nothing was changed.
    pub(crate) fn new_page(&self, pages: u32) -> Result<NewPage> {
        assert!(pages > 0, "a run of no pages");
        let mut allocator = self.lock_allocator();
        self.check_alive(&allocator)?;
        let mut map = self.map();
        let page = match allocator.pages.allocate(&map, pages) {
            Some(page) => page,
            None if matches!(allocator.pages.placement(), Placement::Before(_)) => {
                return Err(self.no_room_to_move());
            }
            None => {
                map = self.grow(&mut allocator, &map, pages)?;
                let page = allocator.pages.allocate(&map, pages);
                page.unwrap_or_else(|| panic!("a new segment has no room for {pages} pages"))
            }
        };
        drop(allocator);
        let file_page = map.locate(page, pages).expect("pages are handed out inside one segment");
        Ok(self.cache.new_page(page, pages, self.shared.offset(file_page)))
    }

    fn no_room_to_move(&self) -> Error {
        let error = Error::new(ErrorKind::OutOfSpace, "no pages are free before those that are moved");
        error.of_family(self.family.0)
    }

    fn check_alive(&self, allocator: &Allocator) -> Result<()> {
        if allocator.discarded {
            let error = Error::new(ErrorKind::FamilyDropped, "the column family was dropped");
            return Err(error.of_family(self.family.0));
        }
        Ok(())
    }

    /// The allocator, after it took back the pages of what was dropped unpublished.
    pub(super) fn lock_allocator(&self) -> MutexGuard<'_, Allocator> {
        let mut allocator = self.allocator.lock();
        let unpublished = self.cache.take_unpublished();
        if !allocator.discarded {
            allocator.pages.release(&unpublished);
        }
        allocator
    }

    /// Adds a segment with room for `pages` pages.
    fn grow(&self, allocator: &mut Allocator, map: &SegmentMap, pages: u32) -> Result<Arc<SegmentMap>> {
        let least = u64::from(pages);
        let size = self.segment_pages(&allocator.pages, map).max(least);
        let found = match *allocator.pages.placement() {
            Placement::Below(end) => {
                let found = self.shared.space().allocate_below(end, size, least)?;
                Ok(found.ok_or_else(|| self.no_room_to_move())?)
            }
            _ => self.shared.space().allocate(size, least),
        };
        let (file_page, size) = found.map_err(|error| error.of_family(self.family.0))?;
        let size = u32::try_from(size).expect("a segment has fewer than 2^32 pages");
        let Some(first_page) = map.room_for(size) else {
            self.shared.space().free_unused(file_page, u64::from(size));
            let error = Error::new(ErrorKind::OutOfSpace, "the column family has used up its page numbers");
            return Err(error.of_family(self.family.0));
        };
        let segment = Segment { first_page, pages: size, file_page };
        let mut map = map.clone();
        map.insert(segment);
        if *allocator.pages.placement() == Placement::Anywhere {
            map.join();
        }
        allocator.pages.add_segment(&segment);
        Ok(self.set_map(map))
    }

    /// The size of the next segment: what the family has already, later an eighth of that, so that segments
    /// stay few and little of the file is held in reserve. A compaction, which knows how much it will write,
    /// asks for what is missing.
    fn segment_pages(&self, pages: &PageAllocator, map: &SegmentMap) -> u64 {
        let page_size = self.page_size() as u64;
        let largest = LARGEST_SEGMENT / page_size;
        match pages.placement() {
            Placement::Fresh(_) => {
                pages.pages_reachable().saturating_sub(pages.placed_pages(map)).clamp(1, largest)
            }
            _ => map.pages().min(DOUBLED / page_size).max(map.pages() / SHARE).clamp(1, largest),
        }
    }

    pub(super) fn set_map(&self, map: SegmentMap) -> Arc<SegmentMap> {
        let map = Arc::new(map);
        self.map.replace(Arc::clone(&map));
        map
    }

    /// Fills in the header, seals the page, and enters it into the cache and the write buffer, which writes
    /// itself out when it is beyond its budget. `len` is what the header's length field says: of a node all
    /// its bytes, header included; of a value run the bytes of the value alone.
    ///
    /// On an error the page is given back: the caller abandons only what was published before.
    pub(crate) fn publish(
        &self,
        page: NewPage,
        kind: PageKind,
        level: u8,
        generation: u64,
        len: u64,
    ) -> Result<PagePointer> {
        let run = [(page.page(), page.pages())];
        let published = self.cache.publish(page, kind, level, generation, len);
        let written = published.and_then(|(pointer, full)| {
            if full {
                self.cache.write_out()?;
            }
            Ok(pointer)
        });
        written.inspect_err(|_| self.abandon(&run))
    }

    /// A merge failed: the pages that it published are free again.
    pub(crate) fn abandon(&self, pages: &[(PageId, u32)]) {
        self.release(pages);
    }

    /// While what it gives lives, this thread writes what memtables hold, for which room is kept.
    pub(crate) fn for_memtables(&self) -> Access<'_> {
        self.shared.space().for_memtables()
    }

    /// While what it gives lives, this thread may take of what is kept for a full disk.
    pub(crate) fn open_reserve(&self) -> Access<'_> {
        self.shared.space().open_reserve()
    }

    // ---- the life of pages ----

    /// A new tree replaced the old one: it reaches `written`, and no longer `retired`. `Corruption`, and
    /// nothing changed, if the old tree reached a retired page by two pointers, or one that the catalog's map
    /// calls free.
    pub(crate) fn install(&self, written: &[(PageId, u32)], retired: &[(PageId, u32)]) -> Result<()> {
        let mut allocator = self.allocator.lock();
        self.check_alive(&allocator)?;
        let installed = allocator.pages.install(written, retired);
        installed.map_err(|error| {
            // Who goes by that map overwrites what is reached.
            error.beyond_damage().in_file(self.shared.pool().path()).of_family(self.family.0)
        })
    }

    /// No view reaches these pages any more: they leave the cache, what is dirty of them unwritten, and are
    /// free unless a superblock reaches them.
    pub(crate) fn release(&self, retired: &[(PageId, u32)]) {
        // The cache first: once free, a page may be handed out at once.
        self.cache.release(retired);
        let mut allocator = self.allocator.lock();
        if !allocator.discarded {
            allocator.pages.release(retired);
        }
    }

    // ---- checkpoints ----

    /// The segments and the pages that the current tree reaches, which stay until the checkpoint ends. Called
    /// while no merge can install, and after
    /// [`SpaceMap::begin_checkpoint`](super::SpaceMap::begin_checkpoint).
    pub(crate) fn begin_checkpoint(&self) -> (Vec<Segment>, PageSet) {
        let mut allocator = self.lock_allocator();
        let map = self.map();
        let reachable = allocator.pages.begin_checkpoint(&map);
        (map.segments().to_vec(), reachable)
    }

    /// Writes the whole write buffer, neighbours in the file by one write. No sync.
    pub(crate) fn write_dirty(&self) -> Result<()> {
        self.cache.write_out()
    }

    /// The superblock of the checkpoint is `durable`, or will never be written.
    pub(crate) fn end_checkpoint(&self, durable: bool) {
        self.allocator.lock().pages.end_checkpoint(durable);
    }

    // ---- where pages are placed: compactions and moves ----

    /// From now on, pages are allocated only in segments that are new after this call, and in those of
    /// `fresh`, known by their first page.
    pub(crate) fn place_afresh(&self, fresh: Vec<u32>) {
        self.allocator.lock().pages.set_placement(Placement::Fresh(fresh));
    }

    /// If pages that the tree reaches at the end, `most` or fewer, fit into free pages of the front, with
    /// `spare` pages besides, then from now on pages are allocated only there; where there is no room, none
    /// are. Returns the first page of the end.
    pub(crate) fn place_before_end(&self, spare: u64, most: u64) -> Option<PageId> {
        let mut allocator = self.lock_allocator();
        let (first, moving) = allocator.pages.movable_from(&self.map(), spare, most);
        if moving == 0 {
            return None;
        }
        allocator.pages.set_placement(Placement::Before(first));
        // There is a page behind it.
        Some(PageId(first as u32))
    }

    /// If the tree reaches pages at `file_page` of the file or behind it, then from now on pages are
    /// allocated only before it; where there is no room, none are. Returns which pages are behind it; the
    /// tree reaches about `most` of them, if not fewer.
    pub(crate) fn place_below(&self, file_page: u64, most: u64) -> Option<Vec<Range<u64>>> {
        let mut allocator = self.lock_allocator();
        let moving = allocator.pages.movable_below(&self.map(), file_page, most);
        if moving.is_empty() {
            return None;
        }
        allocator.pages.set_placement(Placement::Below(file_page));
        Some(moving)
    }

    /// Ends what [`place_afresh`](Self::place_afresh), [`place_before_end`](Self::place_before_end) or
    /// [`place_below`](Self::place_below) began. Returns the segments that were new.
    pub(crate) fn place_anywhere(&self) -> Vec<u32> {
        match self.allocator.lock().pages.set_placement(Placement::Anywhere) {
            Placement::Fresh(fresh) => fresh,
            _ => Vec::new(),
        }
    }

    // ---- watching ----

    pub(crate) fn cache_stats(&self) -> CacheStats {
        self.cache.stats()
    }

    /// Bytes of memory of what says which pages there are, where, and which of them are in use.
    pub(crate) fn map_bytes(&self) -> u64 {
        let pages = self.allocator.lock().pages.memory();
        (pages + std::mem::size_of_val(self.map().segments())) as u64
    }

    /// The family's pages in memory, for who sees to their budgets.
    pub(crate) fn cache(&self) -> &PagedCachedFile {
        &self.cache
    }

    pub(crate) fn space(&self) -> SegmentSpace {
        let allocator = self.allocator.lock();
        let map = self.map();
        SegmentSpace {
            segments: map.segments().len(),
            pages_total: map.pages(),
            pages_in_use: allocator.pages.pages_in_use(),
            pages_reachable: allocator.pages.pages_reachable(),
            pages_superseded: allocator.pages.pages_superseded(),
            bytes: map.pages() * self.page_size() as u64,
        }
    }

    /// The segments, by page number.
    pub(crate) fn segments(&self) -> Vec<Segment> {
        self.map().segments().to_vec()
    }

    /// Whether the last durable checkpoint holds `page`, so that no log could rebuild it. Of a page that is
    /// not known, or that the current tree does not reach: whether that checkpoint holds all that is reached.
    pub(crate) fn is_in_checkpoint(&self, page: Option<u32>) -> bool {
        self.allocator.lock().pages.is_in_checkpoint(page)
    }

    /// What the current tree reaches, as the allocator believes.
    pub(crate) fn reachable(&self) -> PageSet {
        let allocator = self.allocator.lock();
        allocator.pages.reachable(&self.map())
    }

    /// The first pages of those runs of `pages` that count as free, at least in part. What reaches them is
    /// held by the caller.
    pub(crate) fn counted_free(&self, pages: &PageSet) -> Vec<PageId> {
        let allocator = self.allocator.lock();
        let free = pages.iter_runs().filter(|&(first, count)| !allocator.pages.are_in_use(first, count));
        if allocator.discarded { Vec::new() } else { free.map(|(first, _)| first).collect() }
    }

    /// The byte of the file at which `page` starts; `None` if no segment holds it.
    pub(crate) fn file_offset(&self, page: PageId) -> Option<u64> {
        let file_page = self.map.load(&epoch::pin()).locate(page, 1);
        file_page.map(|file_page| self.shared.offset(file_page))
    }

    /// The family was dropped and nobody reads it: its segments go back to the space map, its memory to the
    /// system. Nothing is written after this.
    pub(crate) fn discard(&self) {
        let segments = {
            let mut allocator = self.allocator.lock();
            if std::mem::replace(&mut allocator.discarded, true) {
                return;
            }
            allocator.pages = PageAllocator::new();
            let map = self.map();
            self.set_map(SegmentMap::default());
            map
        };
        self.cache.discard();
        for segment in segments.segments() {
            self.shared.space().free(segment.file_page, u64::from(segment.pages));
        }
    }

    /// Takes the page out of the cache.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn cache_forget(&self, pointer: PagePointer) {
        self.cache.release(&[(pointer.page, pointer.pages)]);
    }

    /// Holds every lock of this family's storage.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn lock_all(&self) -> impl Sized + '_ {
        (self.allocator.lock(), self.cache.lock_all())
    }
}
