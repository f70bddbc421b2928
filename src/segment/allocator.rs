//! Which of a family's pages are free.
//!
//! Invariants:
//! 1. A page is handed out only if it is in none of `in_use`, `durable`, `pending` (law 2: nothing that a
//!    view or the durable superblock reaches is overwritten).
//! 2. Every reachable page is in use.
//! 3. Pages below `lowest` are taken; so are all runs of `no_run_of` pages or more.

use super::map::{Segment, SegmentMap};
use super::page_bits::{Bit, PageBits};
use super::page_set::PageSet;
use crate::codec::ids::PageId;
use crate::error::{Error, Result};
use std::ops::Range;

/// Where pages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Placement {
    Anywhere,
    /// Segments that were added since, known by their first page.
    Fresh(Vec<u32>),
    /// The pages before this one.
    Before(u64),
    /// Pages that stand before this page of the file.
    Below(u64),
}

impl Placement {
    /// The end of those pages of `segment` that may be handed out; its first page if none may.
    fn end_in(&self, segment: &Segment) -> u64 {
        let first = u64::from(segment.first_page);
        match self {
            Self::Anywhere => segment.end(),
            Self::Fresh(fresh) => {
                if fresh.contains(&segment.first_page) {
                    segment.end()
                } else {
                    first
                }
            }
            Self::Before(end) => segment.end().min(*end).max(first),
            Self::Below(file_page) => first + below(segment, *file_page),
        }
    }
}

/// How many pages of `segment` stand before `file_page` in the file.
fn below(segment: &Segment, file_page: u64) -> u64 {
    file_page.saturating_sub(segment.file_page).min(u64::from(segment.pages))
}

/// The bitmaps of one family's pages.
pub(crate) struct PageAllocator {
    bits: PageBits,
    in_use: u64,
    reachable: u64,
    /// Pages that are in no use, but of the durable superblock or a checkpoint under way.
    superseded: u64,
    /// No page below is free.
    lowest: u64,
    /// Where the search for a run of several pages goes on.
    run_from: u64,
    /// No run of this length or longer is free.
    no_run_of: u64,
    placement: Placement,
}

impl PageAllocator {
    /// Bytes of memory of the maps.
    pub(crate) fn memory(&self) -> usize {
        self.bits.memory()
    }

    /// Nothing is in use.
    pub(crate) fn new() -> Self {
        Self {
            bits: PageBits::default(),
            in_use: 0,
            reachable: 0,
            superseded: 0,
            lowest: 0,
            run_from: 0,
            no_run_of: u64::MAX,
            placement: Placement::Anywhere,
        }
    }

    /// What the durable superblock reaches is in use, and nothing else. An error if a page of it lies outside
    /// of the segments.
    pub(crate) fn restore(map: &SegmentMap, reachable: &PageSet) -> Result<Self> {
        let mut allocator = Self::new();
        for (first, pages) in reachable.iter_runs() {
            // A run of the set may span segments that are neighbours in the numbering.
            let (mut at, end) = (u64::from(first.0), u64::from(first.0) + u64::from(pages));
            while at < end {
                let segment = map.segments().get(map.index_from(at));
                let Some(segment) = segment.filter(|segment| u64::from(segment.first_page) <= at) else {
                    let message =
                        "the catalog says that a page is in use which is in none of the family's segments";
                    return Err(Error::corruption(message).on_page(at as u32));
                };
                at = segment.end();
            }
            for bit in [Bit::InUse, Bit::Reachable, Bit::Durable] {
                allocator.bits.set(bit, u64::from(first.0), u64::from(pages));
            }
        }
        allocator.in_use = reachable.len();
        allocator.reachable = reachable.len();
        Ok(allocator)
    }

    /// Hands out a free run inside one of the segments, the lowest page if it is one. `None` if there is
    /// none.
    pub(crate) fn allocate(&mut self, map: &SegmentMap, pages: u32) -> Option<PageId> {
        let wanted = u64::from(pages);
        let first = if pages == 1 { self.find_page(map) } else { self.find_run(map, wanted) }?;
        let before = self.bits.set(Bit::InUse, first, wanted);
        assert_eq!(before, 0, "of {pages} pages from {first} on, {before} were in use");
        self.in_use += wanted;
        Some(PageId(first as u32))
    }

    fn find_page(&mut self, map: &SegmentMap) -> Option<u64> {
        let segments = &map.segments()[map.index_from(self.lowest)..];
        let found = segments.iter().find_map(|segment| {
            let from = self.lowest.max(u64::from(segment.first_page));
            self.bits.first_free(from, self.placement.end_in(segment))
        });
        self.lowest = found.map_or(u64::MAX, |page| page + 1);
        found
    }

    fn find_run(&mut self, map: &SegmentMap, pages: u64) -> Option<u64> {
        if pages >= self.no_run_of {
            return None;
        }
        let found = self.find_run_from(map, self.run_from, pages);
        let found = found.or_else(|| self.find_run_from(map, self.lowest, pages));
        match found {
            Some(first) => self.run_from = first + pages,
            None => self.no_run_of = pages,
        }
        found
    }

    fn find_run_from(&self, map: &SegmentMap, from: u64, pages: u64) -> Option<u64> {
        for segment in &map.segments()[map.index_from(from)..] {
            let end = self.placement.end_in(segment);
            let mut at = from.max(u64::from(segment.first_page));
            while let Some(first) = self.bits.first_free(at, end) {
                if first + pages > end {
                    break;
                }
                match self.bits.first_taken(first, first + pages) {
                    None => return Some(first),
                    Some(taken) => at = taken + 1,
                }
            }
        }
        None
    }

    /// A segment was added; its pages are free.
    pub(crate) fn add_segment(&mut self, segment: &Segment) {
        if let Placement::Fresh(fresh) = &mut self.placement {
            fresh.push(segment.first_page);
        }
        self.freed(u64::from(segment.first_page));
        self.run_from = u64::from(segment.first_page);
    }

    /// Pages from `first` on may be free now.
    fn freed(&mut self, first: u64) {
        self.lowest = self.lowest.min(first);
        self.no_run_of = u64::MAX;
    }

    /// Gives the placement that was in force.
    pub(crate) fn set_placement(&mut self, placement: Placement) -> Placement {
        self.freed(0);
        std::mem::replace(&mut self.placement, placement)
    }

    pub(crate) fn placement(&self) -> &Placement {
        &self.placement
    }

    /// How many pages the placement allows for, taken ones included.
    pub(crate) fn placed_pages(&self, map: &SegmentMap) -> u64 {
        let placed = |segment: &Segment| self.placement.end_in(segment) - u64::from(segment.first_page);
        map.segments().iter().map(placed).sum()
    }

    /// The lowest page from which on everything that the tree reaches, `most` pages or fewer, fits into the
    /// free pages before it, where `spare` pages are left over; and how many pages that is. Somewhat higher,
    /// since pages are looked at a few at a time.
    pub(crate) fn movable_from(&self, map: &SegmentMap, spare: u64, most: u64) -> (u64, u64) {
        let step = (map.pages() / 1024).clamp(1, 64);
        let whole = |segment: &Segment| self.bits.count_free(u64::from(segment.first_page), segment.end());
        let mut free_before: u64 = map.segments().iter().map(whole).sum();
        let mut moving = 0;
        let mut from = map.segments().last().map_or(0, Segment::end);
        for segment in map.segments().iter().rev() {
            let mut end = segment.end();
            while end > u64::from(segment.first_page) {
                let first = end.saturating_sub(step).max(u64::from(segment.first_page));
                free_before -= self.bits.count_free(first, end);
                let reachable = self.bits.count(Bit::Reachable, first, end - first);
                if moving + reachable + spare > free_before || moving + reachable > most {
                    return (from, moving);
                }
                moving += reachable;
                (from, end) = (first, first);
            }
        }
        (from, moving)
    }

    /// Pages that stand at `file_page` or behind it, of which the tree reaches `most` or few more; ascending,
    /// none if the tree reaches none there.
    pub(crate) fn movable_below(&self, map: &SegmentMap, file_page: u64, most: u64) -> Vec<Range<u64>> {
        let (mut moving, mut runs) = (0, Vec::new());
        for segment in map.segments() {
            let (mut at, end) = (u64::from(segment.first_page) + below(segment, file_page), segment.end());
            while at < end && moving < most {
                let next = (at + 64).min(end);
                let reachable = self.bits.count(Bit::Reachable, at, next - at);
                if reachable > 0 {
                    runs.push(at..next);
                }
                moving += reachable;
                at = next;
            }
        }
        runs
    }

    /// A new tree replaced the old one: it reaches `written` and no longer `retired`. An error, and nothing
    /// changed, if the old tree was not reaching a retired page, or was by two pointers: then its bytes on
    /// disk are wrong.
    pub(crate) fn install(&mut self, written: &[(PageId, u32)], retired: &[(PageId, u32)]) -> Result<()> {
        for (i, &(first, pages)) in retired.iter().enumerate() {
            let (from, len) = (u64::from(first.0), u64::from(pages));
            if self.bits.count(Bit::Reachable, from, len) != len {
                for &(first, pages) in &retired[..i] {
                    self.bits.set(Bit::Reachable, u64::from(first.0), u64::from(pages));
                    self.reachable += u64::from(pages);
                }
                let message = "the tree reaches a page twice, or one that the catalog's map calls free";
                return Err(Error::corruption(message).on_page(first.0));
            }
            self.reachable -= self.bits.clear(Bit::Reachable, from, len);
        }
        for &(first, pages) in written {
            let in_use = self.bits.count(Bit::InUse, u64::from(first.0), u64::from(pages));
            assert_eq!(in_use, u64::from(pages), "page {first} was written but not allocated");
            let before = self.bits.set(Bit::Reachable, u64::from(first.0), u64::from(pages));
            assert_eq!(before, 0, "page {first} was written while the tree reached it");
            self.reachable += u64::from(pages);
        }
        Ok(())
    }

    /// Pages that nothing reaches any more are free for the next allocation, unless a superblock reaches
    /// them.
    pub(crate) fn release(&mut self, pages: &[(PageId, u32)]) {
        for &(first, pages) in pages {
            let cleared = self.bits.clear(Bit::InUse, u64::from(first.0), u64::from(pages));
            assert_eq!(cleared, u64::from(pages), "of {pages} pages from {first} on, {cleared} were in use");
            self.in_use -= cleared;
            let from = u64::from(first.0);
            self.superseded += cleared - self.bits.count_free(from, from + cleared);
            self.freed(from);
        }
    }

    /// A checkpoint begins: what is reachable now must stay until its superblock is durable or given up.
    pub(crate) fn begin_checkpoint(&mut self, map: &SegmentMap) -> PageSet {
        self.bits.copy(Bit::Reachable, Bit::Pending);
        self.reachable(map)
    }

    /// The checkpoint's superblock is `durable`, or will never be.
    pub(crate) fn end_checkpoint(&mut self, durable: bool) {
        if durable {
            self.bits.copy(Bit::Pending, Bit::Durable);
        }
        self.bits.clear_all(Bit::Pending);
        self.superseded = self.bits.count_durable_alone();
        self.bits.tidy();
        self.run_from = 0;
        self.freed(0);
    }

    /// Whether all of these pages are in use: a tree that somebody holds, or a merge under way, reaches them.
    pub(crate) fn are_in_use(&self, first: PageId, pages: u32) -> bool {
        self.bits.count(Bit::InUse, u64::from(first.0), u64::from(pages)) == u64::from(pages)
    }

    /// Whether the durable superblock reaches `page`; if that is `None`, or the current tree does not reach
    /// it, whether it reaches all that the tree does.
    pub(crate) fn is_in_checkpoint(&self, page: Option<u32>) -> bool {
        let is_set = |bit, page: u32| self.bits.count(bit, u64::from(page), 1) == 1;
        match page.filter(|&page| is_set(Bit::Reachable, page)) {
            Some(page) => is_set(Bit::Durable, page),
            None => self.bits.is_within(Bit::Reachable, Bit::Durable),
        }
    }

    /// What the current tree reaches.
    pub(crate) fn reachable(&self, map: &SegmentMap) -> PageSet {
        let mut runs: Vec<(PageId, u32)> = Vec::new();
        for segment in map.segments() {
            let (mut at, end) = (u64::from(segment.first_page), segment.end());
            while let Some(first) = self.bits.first_with(Bit::Reachable, true, at, end) {
                at = self.bits.first_with(Bit::Reachable, false, first, end).unwrap_or(end);
                let pages = (at - first) as u32;
                match runs.last_mut() {
                    Some(last) if u64::from(last.0.0) + u64::from(last.1) == first => last.1 += pages,
                    _ => runs.push((PageId(first as u32), pages)),
                }
            }
        }
        runs.into_iter().collect()
    }

    /// The runs of at least `least` pages of `segment` that are in none of `in_use`, `durable`, `pending`.
    /// First page and length.
    pub(crate) fn free_runs(&self, segment: &Segment, least: u64) -> Vec<(u32, u32)> {
        let (mut at, end) = (u64::from(segment.first_page), segment.end());
        let mut runs = Vec::new();
        while let Some(first) = self.bits.first_free(at, end) {
            at = self.bits.first_taken(first, end).unwrap_or(end);
            if at - first >= least {
                runs.push((first as u32, (at - first) as u32));
            }
        }
        runs
    }

    /// A segment, or a part of one, is taken away: none of its pages may be used.
    pub(crate) fn check_unused(&self, segment: &Segment) {
        assert_eq!(self.placement, Placement::Anywhere, "{segment:?} was taken away while pages were placed");
        let taken = self.bits.first_taken(u64::from(segment.first_page), segment.end());
        assert!(taken.is_none(), "{segment:?} was taken away, but page {taken:?} is used");
    }

    /// Pages in use.
    pub(crate) fn pages_in_use(&self) -> u64 {
        self.in_use
    }

    /// Pages that the current tree reaches.
    pub(crate) fn pages_reachable(&self) -> u64 {
        self.reachable
    }

    /// Pages that nothing reaches but the durable superblock, or a checkpoint under way: free once the next
    /// one is durable.
    pub(crate) fn pages_superseded(&self) -> u64 {
        self.superseded
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn map_of(segments: &[(u32, u32)]) -> SegmentMap {
        let segment =
            |&(first_page, pages)| Segment { first_page, pages, file_page: u64::from(first_page) * 2 };
        SegmentMap::restore(segments.iter().map(segment).collect()).unwrap()
    }

    fn pages_of(runs: &[(PageId, u32)]) -> impl Iterator<Item = u32> + '_ {
        runs.iter().flat_map(|&(first, pages)| first.0..first.0 + pages)
    }

    #[derive(Debug, Clone)]
    enum Step {
        Allocate(u32),
        Install { written: usize, retired: usize },
        Abandon,
        Release,
        BeginCheckpoint,
        EndCheckpoint(bool),
        Grow(u32),
        Place(bool),
        PlaceBefore(u64),
        PlaceBelow(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (1u32..6).prop_map(|pages| Step::Allocate(if pages > 3 { pages } else { 1 })),
            4 => (0usize..20, 0usize..20).prop_map(|(written, retired)| Step::Install { written, retired }),
            1 => Just(Step::Abandon),
            4 => Just(Step::Release),
            2 => Just(Step::BeginCheckpoint),
            2 => any::<bool>().prop_map(Step::EndCheckpoint),
            1 => (8u32..80).prop_map(Step::Grow),
            1 => any::<bool>().prop_map(Step::Place),
            1 => (0..200u64).prop_map(Step::PlaceBefore),
            1 => (0..300u64).prop_map(Step::PlaceBelow),
        ]
    }

    proptest! {
        #![proptest_config(crate::sampling::config(256))]

        #[test]
        fn no_page_is_handed_out_that_anything_reaches(steps in prop::collection::vec(step(), 1..120)) {
            let mut map = map_of(&[(0, 8), (8, 8)]);
            let mut allocator = PageAllocator::new();
            let (mut in_use, mut durable) = (BTreeSet::<u32>::new(), BTreeSet::new());
            let mut pending: Option<BTreeSet<u32>> = None;
            let mut tree = BTreeMap::<u32, u32>::new();
            let mut building: Vec<(PageId, u32)> = Vec::new();
            let mut retired: Vec<Vec<(PageId, u32)>> = Vec::new();
            let mut fresh: Option<Vec<Segment>> = None;
            let (mut end, mut line) = (u64::MAX, u64::MAX);
            for step in steps {
                match step {
                    Step::Allocate(pages) => {
                        let taken = |page: u32| {
                            in_use.contains(&page)
                                || durable.contains(&page)
                                || pending.as_ref().is_some_and(|pending| pending.contains(&page))
                        };
                        let segments = fresh.as_deref().unwrap_or(map.segments());
                        let fits = |first: u32| {
                            let inside = segments.iter().any(|segment| {
                                let in_file = |page: u32| segment.file_page + u64::from(page - segment.first_page);
                                segment.first_page <= first
                                    && u64::from(first + pages) <= segment.end().min(end)
                                    && in_file(first + pages) <= line
                            });
                            inside && !(first..first + pages).any(taken)
                        };
                        let possible = (0..2000).find(|&first| fits(first));
                        let first = allocator.allocate(&map, pages);
                        prop_assert_eq!(first.is_some(), possible.is_some());
                        if let Some(first) = first {
                            prop_assert!(fits(first.0));
                            if pages == 1 {
                                prop_assert_eq!(Some(first.0), possible, "single pages come lowest first");
                            }
                            in_use.extend(first.0..first.0 + pages);
                            building.push((first, pages));
                        }
                    }
                    Step::Install { written, retired: count } => {
                        let written: Vec<_> = building.drain(..written.min(building.len())).collect();
                        let gone: Vec<_> = tree.iter().take(count).map(|(&first, &pages)| (PageId(first), pages)).collect();
                        allocator.install(&written, &gone).unwrap();
                        tree.retain(|first, _| !gone.iter().any(|run| run.0.0 == *first));
                        tree.extend(written.iter().map(|&(first, pages)| (first.0, pages)));
                        retired.push(gone);
                    }
                    Step::Abandon => {
                        allocator.release(&building);
                        pages_of(&building).for_each(|page| { in_use.remove(&page); });
                        building.clear();
                    }
                    Step::Release => {
                        if !retired.is_empty() {
                            let gone = retired.remove(0);
                            allocator.release(&gone);
                            pages_of(&gone).for_each(|page| { in_use.remove(&page); });
                        }
                    }
                    Step::BeginCheckpoint => {
                        if pending.is_none() {
                            let set = allocator.begin_checkpoint(&map);
                            let runs: Vec<_> = set.iter_runs().collect();
                            let tree_runs: Vec<_> = tree.iter().map(|(&first, &pages)| (PageId(first), pages)).collect();
                            let reached: BTreeSet<u32> = pages_of(&runs).collect();
                            prop_assert_eq!(&reached, &pages_of(&tree_runs).collect());
                            pending = Some(reached);
                        }
                    }
                    Step::EndCheckpoint(worked) => {
                        if let Some(reached) = pending.take() {
                            allocator.end_checkpoint(worked);
                            if worked {
                                durable = reached;
                            }
                        }
                    }
                    Step::Grow(pages) => {
                        let first_page = map.room_for(pages).unwrap();
                        let segment = Segment { first_page, pages, file_page: u64::from(first_page) * 2 };
                        map.insert(segment);
                        allocator.add_segment(&segment);
                        if let Some(fresh) = &mut fresh {
                            fresh.push(segment);
                        }
                    }
                    Step::Place(only_fresh) => {
                        let placement = if only_fresh { Placement::Fresh(Vec::new()) } else { Placement::Anywhere };
                        allocator.set_placement(placement);
                        (fresh, end, line) = (only_fresh.then(Vec::new), u64::MAX, u64::MAX);
                    }
                    Step::PlaceBefore(first) => {
                        allocator.set_placement(Placement::Before(first));
                        (fresh, end, line) = (None, first, u64::MAX);
                    }
                    Step::PlaceBelow(file_page) => {
                        allocator.set_placement(Placement::Below(file_page));
                        (fresh, end, line) = (None, u64::MAX, file_page);
                        let moving = allocator.movable_below(&map, file_page, u64::MAX);
                        for segment in map.segments() {
                            for page in segment.first_page..segment.end() as u32 {
                                let behind = segment.file_page + u64::from(page - segment.first_page) >= file_page;
                                let moves = moving.iter().any(|run| run.contains(&u64::from(page)));
                                let reached = tree.iter().any(|(&first, &pages)| (first..first + pages).contains(&page));
                                prop_assert!(!moves || behind, "{} stands before {}", page, file_page);
                                prop_assert!(!(behind && reached) || moves, "{} stays behind {}", page, file_page);
                            }
                        }
                    }
                }
                let is_taken = |page: u32| {
                    in_use.contains(&page)
                        || durable.contains(&page)
                        || pending.as_ref().is_some_and(|pending| pending.contains(&page))
                };
                let (from, moving) = allocator.movable_from(&map, 2, 40);
                let all = map.segments().iter().flat_map(|segment| segment.first_page..segment.end() as u32);
                let (before, behind): (Vec<u32>, Vec<u32>) = all.partition(|&page| u64::from(page) < from);
                let reached = tree.iter().flat_map(|(&first, &pages)| first..first + pages);
                prop_assert_eq!(moving, reached.filter(|page| behind.contains(page)).count() as u64);
                let room = before.iter().filter(|&&page| !is_taken(page)).count() as u64;
                prop_assert!(moving == 0 || moving <= 40 && moving + 2 <= room, "{} pages to {}", moving, room);
                prop_assert_eq!(allocator.pages_in_use(), in_use.len() as u64);
                let kept: BTreeSet<u32> = durable.iter().chain(pending.iter().flatten()).copied().collect();
                prop_assert_eq!(allocator.pages_superseded(), kept.difference(&in_use).count() as u64);
                prop_assert_eq!(allocator.pages_reachable(), tree.values().map(|&pages| u64::from(pages)).sum::<u64>());
                for segment in map.segments() {
                    let free = (segment.first_page..segment.end() as u32).filter(|page| {
                        !in_use.contains(page)
                            && !durable.contains(page)
                            && !pending.as_ref().is_some_and(|pending| pending.contains(page))
                    });
                    let free: Vec<u32> = free.collect();
                    let runs: Vec<_> = free.chunk_by(|page, next| page + 1 == *next).collect();
                    let runs = runs.iter().filter(|run| run.len() >= 3).map(|run| (run[0], run.len() as u32));
                    prop_assert_eq!(allocator.free_runs(segment, 3), runs.collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn a_restored_family_has_in_use_what_its_superblock_reaches() {
        let map = map_of(&[(0, 8), (8, 8), (64, 8)]);
        let reachable: PageSet = [(PageId(2), 10), (PageId(70), 1)].into_iter().collect();
        let mut allocator = PageAllocator::restore(&map, &reachable).unwrap();
        assert_eq!(allocator.reachable(&map), reachable);
        assert_eq!((allocator.pages_in_use(), allocator.pages_reachable()), (11, 11));
        allocator.install(&[], &[(PageId(2), 10)]).unwrap();
        allocator.release(&[(PageId(2), 10)]);
        assert_eq!(
            allocator.allocate(&map, 4),
            Some(PageId(12)),
            "the superblock still reaches the pages before"
        );
        assert_eq!(allocator.allocate(&map, 8), None);
        allocator.begin_checkpoint(&map);
        allocator.end_checkpoint(true);
        assert_eq!(allocator.allocate(&map, 8), Some(PageId(0)));
    }

    #[test]
    fn a_map_of_pages_outside_of_the_segments_is_refused() {
        let map = map_of(&[(0, 8), (16, 8)]);
        for (first, pages) in [(8, 1), (7, 2), (15, 2), (23, 2), (24, 1), (u32::MAX, 1)] {
            let set = [(PageId(first), pages)].into_iter().collect();
            assert!(PageAllocator::restore(&map, &set).is_err(), "{first}+{pages}");
        }
    }

    #[test]
    fn a_page_that_is_retired_twice_is_an_error_that_changes_nothing() {
        let map = map_of(&[(0, 8)]);
        let reachable: PageSet = [(PageId(0), 4)].into_iter().collect();
        let mut allocator = PageAllocator::restore(&map, &reachable).unwrap();
        let twice = [(PageId(0), 1), (PageId(2), 1), (PageId(2), 2)];
        assert_eq!(allocator.install(&[], &twice).unwrap_err().location().page, Some(2));
        assert_eq!(allocator.reachable(&map), reachable);
        assert_eq!(allocator.pages_reachable(), 4);
    }
}
