//! What a family gives back to the space map: free segments, and long runs of free pages inside of others.
//!
//! The numbers of pages that were given back have no page until a new segment takes them. What is given back
//! is in none of the allocator's bitmaps, so no tree that anybody reads, and no superblock, reaches it; the
//! space map keeps it until the superblock that omits it is durable.

use std::cmp::Reverse;

use super::allocator::Placement;
use super::map::{Segment, SegmentMap};
use super::partitioned::PartitionedStorageBackend;

/// A run inside a segment is given back if it has this many pages at least.
const LEAST_RUN: u64 = 4;
/// And one in so many of the family's, or `LONG_RUN` if that is less; in any case one in `LEAST_SHARE`, which
/// is enough at the end of a segment: that one gets shorter, and there are no more.
const SHARE: u64 = MOST_SEGMENTS as u64;
const LONG_RUN: u64 = 64;
const LEAST_SHARE: u64 = 1024;

/// Segments are not cut in parts once a family has this many.
const MOST_SEGMENTS: usize = 256;

impl PartitionedStorageBackend {
    /// Takes free segments and long runs of free pages out of the family, if they have `least` pages
    /// together, and returns them for [`free_cut`](Self::free_cut). Takes none while a compaction says where
    /// pages are placed.
    pub(crate) fn cut_free(&self, least: u64) -> Vec<Segment> {
        let shortest = |pages: u64| {
            let at_end = (pages / LEAST_SHARE).max(1);
            (at_end, LEAST_RUN.max(LONG_RUN.min(pages / SHARE)).max(at_end))
        };
        self.cut_runs(least, shortest, MOST_SEGMENTS)
    }

    /// Takes all free pages out of the family, as [`cut_free`](Self::cut_free) does, however short their runs
    /// are, as long as that makes no more than `more` segments of those there are.
    pub(crate) fn cut_every_free_page(&self, more: usize) -> Vec<Segment> {
        self.cut_runs(1, |_| (1, 1), self.segment_count() + more)
    }

    pub(crate) fn segment_count(&self) -> usize {
        self.map().segments().len()
    }

    /// What is `shortest`, of so many pages of the family, at the end of a segment and inside of one.
    fn cut_runs(
        &self,
        least: u64,
        shortest: impl Fn(u64) -> (u64, u64),
        most_segments: usize,
    ) -> Vec<Segment> {
        let allocator = self.lock_allocator();
        if *allocator.pages.placement() != Placement::Anywhere {
            return Vec::new();
        }
        let mut map = SegmentMap::clone(&self.map());
        map.join();
        let pages = map.pages();
        let (at_end, inside) = shortest(pages);
        let free = map.segments().iter().flat_map(|segment| {
            let runs = allocator.pages.free_runs(segment, at_end.min(u64::from(segment.pages)));
            runs.into_iter().map(|(first_page, pages)| {
                let end = u64::from(first_page) + u64::from(pages);
                (first_page, pages, first_page > segment.first_page && end < segment.end())
            })
        });
        let mut runs: Vec<(u32, u32, bool)> = free.collect();
        // The longest first, for as long as the segments do not get too many.
        runs.sort_unstable_by_key(|&(_, pages, _)| Reverse(pages));
        let mut cuts = most_segments.saturating_sub(map.segments().len());
        runs.retain(|&(_, pages, divides)| {
            let goes = !divides || cuts > 0 && u64::from(pages) >= inside;
            cuts -= usize::from(goes && divides);
            goes
        });
        let pages: u64 = runs.iter().map(|&(_, pages, _)| u64::from(pages)).sum();
        if pages < least.max(1) {
            return Vec::new();
        }
        let cut: Vec<_> = runs.iter().map(|&(first_page, pages, _)| map.cut(first_page, pages)).collect();
        cut.iter().for_each(|segment| allocator.pages.check_unused(segment));
        self.set_map(map);
        cut
    }

    /// Gives what was cut out back to the space map. The next checkpoint must record the family's segments.
    pub(crate) fn free_cut(&self, cut: Vec<Segment>) {
        for segment in cut {
            self.shared.space().free(segment.file_page, u64::from(segment.pages));
        }
    }

    /// Both; returns whether there was anything.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn give_back(&self, least: u64) -> bool {
        let cut = self.cut_free(least);
        let any = !cut.is_empty();
        self.free_cut(cut);
        any
    }
}
