//! Where the pages of a copy stand in its file.

use crate::column_family::record::FamilyRecord;
use crate::segment::Segment;

/// Pages that are copied although nothing reaches them, if they stand between others that are: to begin anew
/// behind them would cost more.
const GAP: u64 = 8;

/// File pages of the source that go to the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) pages: u64,
}

/// The file of the copy, as far as it is laid out.
#[derive(Default)]
pub(super) struct Layout {
    end: u64,
}

impl Layout {
    /// Takes so many pages. Returns the first.
    pub(super) fn take(&mut self, pages: u64) -> u64 {
        self.end += pages;
        self.end - pages
    }

    /// Pages of the file.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Gives the family of `record` its segments of the copy, in place of those that it has in the source:
    /// the same without what is not reached at their ends. Returns what is to be copied into them.
    pub(super) fn place(&mut self, record: &mut FamilyRecord) -> Vec<Run> {
        let sources = std::mem::take(&mut record.segments);
        let mut reached = record.reachable.iter_runs().map(|(first, pages)| {
            let first = u64::from(first.0);
            first..first + u64::from(pages)
        });
        let mut runs = Vec::new();
        let mut next = reached.next();
        for source in sources {
            let (mut parts, start) = (Vec::<std::ops::Range<u64>>::new(), u64::from(source.first_page));
            // A run may go on in the segment that follows.
            while let Some(run) = next.clone().filter(|run| run.start < source.end()) {
                let part = run.start.max(start)..run.end.min(source.end());
                next = if run.end > source.end() { Some(source.end()..run.end) } else { reached.next() };
                match parts.last_mut() {
                    Some(last) if part.start - last.end <= GAP => last.end = part.end,
                    _ => parts.push(part),
                }
            }
            let (Some(first), Some(last)) = (parts.first(), parts.last()) else { continue };
            let (first_page, end) = (first.start, last.end);
            let in_source = |page: u64| source.file_page + (page - start);
            let pages = end - first_page;
            let file_page = self.take(pages);
            runs.extend(parts.iter().map(|part| Run {
                from: in_source(part.start),
                to: file_page + (part.start - first_page),
                pages: part.end - part.start,
            }));
            record.segments.push(Segment { first_page: first_page as u32, pages: pages as u32, file_page });
        }
        runs
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::codec::ids::{FamilyId, PageId};
    use crate::column_family::options::FamilyOptions;
    use crate::segment::PageSet;

    #[test]
    fn segments_follow_each_other_without_what_is_free_at_their_ends() {
        let mut record = FamilyRecord::new(FamilyId(1), "family", FamilyOptions::default());
        let segment = |first_page, pages, file_page| Segment { first_page, pages, file_page };
        record.segments = vec![segment(0, 100, 50), segment(100, 100, 500), segment(300, 10, 20)];
        record.reachable = PageSet::new();
        // One gap that is short, one that is long, and a run over two segments.
        for (first, pages) in [(5, 5), (12, 3), (60, 1), (90, 30), (130, 1)] {
            assert!(record.reachable.insert_run(PageId(first), pages));
        }
        let mut layout = Layout::default();
        assert_eq!(layout.take(7), 0);
        let runs = layout.place(&mut record);
        assert_eq!(record.segments, [segment(5, 95, 7), segment(100, 31, 102)]);
        let run = |from, to, pages| Run { from, to, pages };
        assert_eq!(
            runs,
            [run(55, 7, 10), run(110, 62, 1), run(140, 92, 10), run(500, 102, 20), run(530, 132, 1)]
        );
        assert_eq!(layout.end(), 133);
    }
}
