//! Where a family's pages stand in the data file.

use crate::codec::ids::PageId;
use crate::error::{Error, Result};

/// A contiguous run of pages of the data file that belongs to one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The family's number of its first page.
    pub first_page: u32,
    /// Its length in pages.
    pub pages: u32,
    /// The file page at which it starts.
    pub file_page: u64,
}

impl Segment {
    /// The family's number of the page behind its last one.
    pub(crate) fn end(&self) -> u64 {
        u64::from(self.first_page) + u64::from(self.pages)
    }
}

/// Page numbers of one family are below this.
const PAGE_NUMBERS: u64 = 1 << 32;

/// A family's segments, ordered by their first page. They do not overlap; between them there may be numbers
/// without a page.
#[derive(Debug, Clone, Default)]
pub(crate) struct SegmentMap {
    segments: Vec<Segment>,
}

impl SegmentMap {
    /// The segments that a catalog names; an error if they overlap or are empty.
    pub(crate) fn restore(mut segments: Vec<Segment>) -> Result<Self> {
        segments.sort_unstable_by_key(|segment| segment.first_page);
        for segment in &segments {
            if segment.pages == 0 || segment.end() > PAGE_NUMBERS {
                return Err(Error::corruption(format!(
                    "the catalog names a segment of {} pages from page {} on",
                    segment.pages, segment.first_page
                )));
            }
        }
        if let Some(pair) = segments.windows(2).find(|pair| pair[0].end() > u64::from(pair[1].first_page)) {
            return Err(Error::corruption(format!(
                "the catalog names segments that overlap: {:?} and {:?}",
                pair[0], pair[1]
            )));
        }
        Ok(Self { segments })
    }

    /// The segments, ascending.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Pages of all segments.
    pub(crate) fn pages(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.pages)).sum()
    }

    /// The index of the first segment that ends behind `page`.
    pub(crate) fn index_from(&self, page: u64) -> usize {
        self.segments.partition_point(|segment| segment.end() <= page)
    }

    /// The file page of `page`, if it and the `pages - 1` behind it are in one segment.
    pub(crate) fn locate(&self, page: PageId, pages: u32) -> Option<u64> {
        let segment = self.segments.get(self.index_from(u64::from(page.0)))?;
        let skip = u64::from(page.0).checked_sub(u64::from(segment.first_page))?;
        let fits = pages > 0 && skip + u64::from(pages) <= u64::from(segment.pages);
        fits.then_some(segment.file_page + skip)
    }

    /// The lowest page number from which on `pages` numbers have no page.
    pub(crate) fn room_for(&self, pages: u32) -> Option<u32> {
        let mut end = 0;
        for segment in &self.segments {
            if u64::from(segment.first_page) - end >= u64::from(pages) {
                break;
            }
            end = segment.end();
        }
        if end + u64::from(pages) <= PAGE_NUMBERS { u32::try_from(end).ok() } else { None }
    }

    /// Adds a segment at numbers that [`room_for`](Self::room_for) gave.
    pub(crate) fn insert(&mut self, segment: Segment) {
        let index = self.index_from(u64::from(segment.first_page));
        if let Some(next) = self.segments.get(index) {
            assert!(segment.end() <= u64::from(next.first_page), "{segment:?} overlaps {next:?}");
        }
        self.segments.insert(index, segment);
    }

    /// Takes `pages` pages from `first_page` on, which are in one segment, out of it; what lies before and
    /// behind them stays. Returns what was taken.
    pub(crate) fn cut(&mut self, first_page: u32, pages: u32) -> Segment {
        let file_page = self.locate(PageId(first_page), pages);
        let file_page = file_page.unwrap_or_else(|| panic!("{first_page}+{pages} is in no segment"));
        let cut = Segment { first_page, pages, file_page };
        let index = self.index_from(u64::from(first_page));
        let whole = self.segments[index];
        let before = Segment { pages: first_page - whole.first_page, ..whole };
        let behind = Segment {
            first_page: cut.end() as u32,
            pages: (whole.end() - cut.end()) as u32,
            file_page: file_page + u64::from(pages),
        };
        let left = [before, behind].into_iter().filter(|segment| segment.pages > 0);
        self.segments.splice(index..=index, left);
        cut
    }

    /// Makes one segment of those that follow each other both in the numbering and in the file.
    pub(crate) fn join(&mut self) {
        self.segments.dedup_by(|next, segment| {
            let follows = segment.end() == u64::from(next.first_page)
                && segment.file_page + u64::from(segment.pages) == next.file_page;
            match segment.pages.checked_add(next.pages) {
                Some(pages) if follows => {
                    segment.pages = pages;
                    true
                }
                _ => false,
            }
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn segment(first_page: u32, pages: u32, file_page: u64) -> Segment {
        Segment { first_page, pages, file_page }
    }

    #[test]
    fn pages_are_located_inside_one_segment_only() {
        let map =
            SegmentMap::restore(vec![segment(8, 8, 100), segment(0, 8, 50), segment(32, 8, 108)]).unwrap();
        assert_eq!(map.locate(PageId(0), 8), Some(50));
        assert_eq!(map.locate(PageId(7), 1), Some(57));
        assert_eq!(map.locate(PageId(7), 2), None);
        assert_eq!(map.locate(PageId(15), 1), Some(107));
        assert_eq!(map.locate(PageId(16), 1), None);
        assert_eq!(map.locate(PageId(31), 1), None);
        assert_eq!(map.locate(PageId(39), 1), Some(115));
        assert_eq!(map.locate(PageId(40), 1), None);
        assert_eq!(map.locate(PageId(u32::MAX), u32::MAX), None);
        assert_eq!(map.locate(PageId(0), 0), None);
    }

    #[test]
    fn overlapping_and_empty_segments_are_refused() {
        assert!(SegmentMap::restore(vec![segment(0, 8, 0), segment(7, 8, 8)]).is_err());
        assert!(SegmentMap::restore(vec![segment(0, 0, 0)]).is_err());
        assert!(SegmentMap::restore(vec![segment(u32::MAX, 2, 0)]).is_err());
        assert!(SegmentMap::restore(vec![segment(u32::MAX, 1, 0)]).is_ok());
    }

    #[test]
    fn holes_in_the_numbering_are_used_again() {
        let mut map = SegmentMap::default();
        for (first, pages) in [(0, 8), (8, 8), (16, 16)] {
            assert_eq!(map.room_for(pages), Some(first));
            map.insert(segment(first, pages, u64::from(first)));
        }
        assert_eq!(map.cut(8, 8), segment(8, 8, 8));
        assert_eq!(map.room_for(9), Some(32));
        assert_eq!(map.room_for(8), Some(8));
        map.insert(segment(8, 8, 99));
        assert_eq!(map.locate(PageId(9), 1), Some(100));
        assert_eq!(map.room_for(u32::MAX), None);
    }

    #[test]
    fn what_is_cut_out_of_a_segment_leaves_both_ends() {
        let mut map = SegmentMap::restore(vec![segment(0, 8, 50), segment(u32::MAX - 7, 8, 100)]).unwrap();
        assert_eq!(map.cut(2, 3), segment(2, 3, 52));
        assert_eq!(map.segments()[..2], [segment(0, 2, 50), segment(5, 3, 55)]);
        assert_eq!((map.locate(PageId(1), 1), map.locate(PageId(2), 1)), (Some(51), None));
        assert_eq!(map.locate(PageId(5), 3), Some(55));
        assert_eq!(map.cut(0, 2), segment(0, 2, 50));
        assert_eq!(map.cut(7, 1), segment(7, 1, 57));
        assert_eq!(map.cut(u32::MAX - 1, 2), segment(u32::MAX - 1, 2, 106));
        assert_eq!(map.segments(), [segment(5, 2, 55), segment(u32::MAX - 7, 6, 100)]);
    }

    #[test]
    fn segments_are_joined_that_follow_each_other_in_numbering_and_file() {
        let parts = [
            segment(0, 8, 50),
            segment(8, 8, 58),
            segment(16, 1, 66),
            segment(17, 4, 80),
            segment(22, 4, 84),
        ];
        let mut map = SegmentMap::restore(parts.to_vec()).unwrap();
        map.join();
        assert_eq!(map.segments(), [segment(0, 17, 50), segment(17, 4, 80), segment(22, 4, 84)]);
    }
}
