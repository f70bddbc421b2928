//! Verifying a whole database.

use crate::btree::CheckOptions;
use crate::codec::ids::{PageId, SequenceNumber};
use crate::column_family::family::Family;
use crate::db::database::ColumnFamilyDatabase;
use crate::db::shared::Shared;
use crate::error::{Error, Result};
use crate::segment::PageSet;
use crate::sync::Arc;

/// Faults of one kind that are listed for one family.
const MAX_FAULTS: usize = 100;

/// What [`ColumnFamilyDatabase::verify`] found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Column families looked at.
    pub families: u64,
    /// Pages read and checked.
    pub pages: u64,
    /// Entries counted, those of deltas included.
    pub entries: u64,
    /// Everything that is wrong, each with file offset, family and page. At most a hundred of a kind per family.
    pub faults: Vec<Error>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }
}

impl ColumnFamilyDatabase {
    /// Reads everything that is merged, past the caches, and checks every checksum, the order of keys, separators, counts, and that every page is
    /// reachable or free, never both, and belongs to one family. Reads and writes go on meanwhile.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::ErrorKind::Closed). What is wrong with the data stands in the report.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.pipeline().open()?;
        let mut report = VerifyReport::default();
        let families = self.shared().families();
        for family in &families {
            report.families += 1;
            self.shared().verify_family(family, &mut report);
        }
        self.shared().verify_space(&families, &mut report);
        Ok(report)
    }
}

/// The first pages of `some` that are not in `others`.
fn missing<'a>(some: &'a PageSet, others: &'a PageSet) -> impl Iterator<Item = PageId> + 'a {
    // A run may end with the highest page number that there is.
    let pages =
        some.iter_runs().flat_map(|(first, pages)| (0..pages).map(move |page| PageId(first.0 + page)));
    pages.filter(|page| !others.contains(*page)).take(MAX_FAULTS)
}

impl Shared {
    fn verify_family(&self, family: &Arc<Family>, report: &mut VerifyReport) {
        // Tree and pages of one moment; the version is held, so its pages stay while they are read.
        let (version, reachable) = {
            let trees = family.trees.lock();
            if family.is_dropped() {
                return;
            }
            (Arc::clone(trees.current()), family.store().reachable())
        };
        let mut pages = PageSet::default();
        let mut twice = Vec::new();
        let deltas = version.deltas.iter().map(|delta| (&delta.tree, true));
        for (tree, deletions) in std::iter::once((&version.tree, false)).chain(deltas) {
            let check = tree.check(family.store(), &CheckOptions { max_faults: MAX_FAULTS, deletions });
            report.pages += check.pages.len();
            report.entries += check.entries;
            report
                .faults
                .extend(check.faults.into_iter().map(|fault| fault.in_file("data").of_family(family.id().0)));
            let overlaps = check.pages.iter_runs().filter(|&(first, count)| !pages.insert_run(first, count));
            twice.extend(overlaps.map(|(first, _)| first).take(MAX_FAULTS));
        }
        let fault = |page: PageId, message: &str| {
            let fault = Error::corruption(message).in_file("data").of_family(family.id().0).on_page(page.0);
            match family.store().file_offset(page) {
                Some(offset) => fault.at_offset(offset),
                None => fault,
            }
        };
        for page in twice {
            report.faults.push(fault(page, "two trees reach a page"));
        }
        for page in missing(&pages, &reachable) {
            report.faults.push(fault(page, "a page that the tree reaches counts as free"));
        }
        for page in missing(&reachable, &pages) {
            report.faults.push(fault(page, "a page that the tree does not reach counts as in use"));
        }
        let through = family.trees.lock().merged_through();
        let last = SequenceNumber(self.pipeline.visible.watermark());
        if through > last {
            report.faults.push(
                Error::corruption(format!("the tree holds commit {through}, but the last is {last}"))
                    .of_family(family.id().0),
            );
        }
    }

    /// Every extent of the file belongs to one owner, and lies in the file.
    fn verify_space(&self, families: &[Arc<Family>], report: &mut VerifyReport) {
        let mut extents = Vec::new();
        for family in families {
            for segment in family.store().segments() {
                extents.push((segment.file_page, u64::from(segment.pages), family.id().0));
            }
        }
        extents.sort_unstable();
        for pair in extents.windows(2) {
            let ((page, pages, owner), (next, _, other)) = (pair[0], pair[1]);
            if page + pages > next {
                report.faults.push(
                    Error::corruption(format!("a segment of family {owner} overlaps one of family {other}"))
                        .in_file("data")
                        .at_offset(self.data.offset(next))
                        .of_family(other),
                );
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_page_number_is_missed_like_any_other() {
        let all: PageSet = [(PageId(3), 1), (PageId(u32::MAX - 1), 2)].into_iter().collect();
        let some: PageSet = [(PageId(u32::MAX - 1), 1)].into_iter().collect();
        assert_eq!(missing(&all, &some).collect::<Vec<_>>(), [PageId(3), PageId(u32::MAX)]);
        assert_eq!(missing(&some, &all).count(), 0);
    }
}
