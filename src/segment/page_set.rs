//! A set of a family's page numbers, as a catalog records it.
//!
//! ```text
//! varint number of runs
//! then for each run, ascending: varint pages between the end of the run before (or 0) and this one, varint length
//! ```
//!
//! Neighbouring runs are joined, so only the first distance may be 0.

use std::collections::BTreeMap;

use crate::codec::ids::PageId;
use crate::codec::varint;

/// A set of page numbers, held as runs: its size follows the number of runs, whatever the numbers are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PageSet {
    /// First page to length; runs neither overlap nor touch.
    runs: BTreeMap<u32, u32>,
    len: u64,
}

fn end_of((first, pages): (u32, u32)) -> u64 {
    u64::from(first) + u64::from(pages)
}

impl PageSet {
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Number of pages.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn contains(&self, page: PageId) -> bool {
        self.run_at_or_before(page.0).is_some_and(|run| u64::from(page.0) < end_of(run))
    }

    /// Adds `pages` pages from `first` on. Returns false, and changes nothing, if one of them is in the set
    /// already or beyond the last page number.
    pub(crate) fn insert_run(&mut self, first: PageId, pages: u32) -> bool {
        let (mut first, end) = (first.0, end_of((first.0, pages)));
        if pages == 0 {
            return true;
        }
        let before = self.run_at_or_before(first);
        let after = self.runs.range(first..).next().map(|(&first, &pages)| (first, pages));
        if end > 1 << 32
            || before.is_some_and(|run| end_of(run) > u64::from(first))
            || after.is_some_and(|run| u64::from(run.0) < end)
        {
            return false;
        }
        let mut joined = pages;
        if let Some(run) = after
            && u64::from(run.0) == end
        {
            self.runs.remove(&run.0);
            joined += run.1;
        }
        if let Some(run) = before
            && end_of(run) == u64::from(first)
        {
            first = run.0;
            joined += run.1;
        }
        self.runs.insert(first, joined);
        self.len += u64::from(pages);
        true
    }

    fn run_at_or_before(&self, page: u32) -> Option<(u32, u32)> {
        self.runs.range(..=page).next_back().map(|(&first, &pages)| (first, pages))
    }

    /// The runs, ascending.
    pub(crate) fn iter_runs(&self) -> impl Iterator<Item = (PageId, u32)> + '_ {
        self.runs.iter().map(|(&first, &pages)| (PageId(first), pages))
    }

    /// Appends the set.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        varint::put(out, self.runs.len() as u64);
        let mut end = 0;
        for (&first, &pages) in &self.runs {
            varint::put(out, u64::from(first) - end);
            varint::put(out, u64::from(pages));
            end = end_of((first, pages));
        }
    }

    /// Takes a set off the front of `bytes`. `None` if it is not what `encode` writes, or names a page at or
    /// above `limit`.
    pub(crate) fn decode(bytes: &mut &[u8], limit: u64) -> Option<Self> {
        let count = varint::take(bytes)?;
        let mut set = Self::default();
        let mut end = 0u64;
        for i in 0..count {
            let distance = varint::take(bytes)?;
            let pages = varint::take(bytes)?;
            let first = end.checked_add(distance)?;
            end = first.checked_add(pages)?;
            if (distance == 0 && i > 0) || pages == 0 || end > limit.min(1 << 32) {
                return None;
            }
            // A set of all pages there can be has a length that does not fit; no file is that large.
            set.runs.insert(u32::try_from(first).ok()?, u32::try_from(pages).ok()?);
            set.len += pages;
        }
        Some(set)
    }
}

impl FromIterator<(PageId, u32)> for PageSet {
    /// Runs that neither overlap nor touch, ascending.
    fn from_iter<I: IntoIterator<Item = (PageId, u32)>>(runs: I) -> Self {
        let mut len = 0;
        let runs = runs.into_iter().map(|(first, pages)| (first.0, pages));
        let runs = runs.inspect(|&(_, pages)| len += u64::from(pages)).collect();
        Self { runs, len }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn pages_of(set: &PageSet) -> BTreeSet<u32> {
        set.iter_runs().flat_map(|(first, pages)| first.0..first.0 + pages).collect()
    }

    proptest! {
        #![proptest_config(crate::sampling::config(256))]

        #[test]
        fn it_holds_what_was_inserted_and_comes_back(runs in prop::collection::vec((0u32..200, 0u32..12), 0..40)) {
            let (mut set, mut model) = (PageSet::new(), BTreeSet::new());
            for (first, pages) in runs {
                let new = (first..first + pages).all(|page| !model.contains(&page));
                prop_assert_eq!(set.insert_run(PageId(first), pages), new);
                if new {
                    model.extend(first..first + pages);
                }
            }
            prop_assert_eq!(pages_of(&set), model.clone());
            prop_assert_eq!(set.len(), model.len() as u64);
            for page in 0..220 {
                prop_assert_eq!(set.contains(PageId(page)), model.contains(&page));
            }
            let mut bytes = Vec::new();
            set.encode(&mut bytes);
            bytes.push(0xee);
            let mut rest = &bytes[..];
            prop_assert_eq!(PageSet::decode(&mut rest, 220), Some(set.clone()));
            prop_assert_eq!(rest, &[0xee][..]);
            let limit = model.last().map_or(0, |&last| u64::from(last));
            prop_assert_eq!(PageSet::decode(&mut &bytes[..], limit).is_some(), model.is_empty());
        }

        #[test]
        fn garbage_is_refused_or_means_what_it_encodes(bytes: Vec<u8>) {
            let mut rest = &bytes[..];
            if let Some(set) = PageSet::decode(&mut rest, 1 << 20) {
                let mut again = Vec::new();
                set.encode(&mut again);
                prop_assert_eq!(PageSet::decode(&mut &again[..], 1 << 20), Some(set));
            }
        }
    }

    #[test]
    fn the_last_page_number_is_the_limit() {
        let mut set = PageSet::new();
        assert!(!set.insert_run(PageId(u32::MAX), 2));
        assert!(set.insert_run(PageId(u32::MAX), 1));
        assert!(set.insert_run(PageId(u32::MAX - 1), 1));
        let mut bytes = Vec::new();
        set.encode(&mut bytes);
        assert_eq!(PageSet::decode(&mut &bytes[..], 1 << 32), Some(set));
        assert_eq!(PageSet::decode(&mut &bytes[..], u64::from(u32::MAX)), None);
    }
}
