//! Verifying a whole database, part by part.
//!
//! A part is some of the keys of one tree, of the version that is current when its turn comes; the next part
//! begins where it ended, in the version that is current then. So the pages of old versions are held for no
//! longer than a part takes.
//!
//! What is promised: every page that belongs to a tree or a delta when the verification begins, and still
//! does at its end, was read and checked against what points to it, wherever its keys stood; what is merged
//! meanwhile is checked as far as it is met. Whether all pages that count as in use are reached is known of
//! families whose trees did not change meanwhile: then all of its parts are of one version.

use std::fmt;
use std::time::Duration;

use crate::btree::{CheckOptions, Part, Tree};
use crate::codec::ids::{PageId, SequenceNumber};
use crate::column_family::delta::Delta;
use crate::column_family::family::Family;
use crate::column_family::trees::TreeVersion;
use crate::db::database::ColumnFamilyDatabase;
use crate::db::families::lost;
use crate::db::read_catalog::check_copies;
use crate::db::shared::Shared;
use crate::error::{Error, Result};
use crate::segment::{PageSet, Superblock};
use crate::sync::{Arc, Instant, thread};

/// Faults of one kind that are listed for one family.
const MAX_FAULTS: usize = 100;
/// Bytes of a part; where they are to be read slowly, as many as in a quarter of a second. A leaf and its
/// large values at least.
const PART: u64 = if cfg!(test) { 64 << 10 } else { 4 << 20 };
const PARTS_PER_SECOND: u64 = 4;
/// How long one that waits does not look whether the database is closed.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// What [`ColumnFamilyDatabase::verify`] found.
#[derive(Debug, Clone, Default)]
#[must_use = "what is wrong stands in the report; `into_result` makes it an error"]
#[non_exhaustive]
pub struct VerifyReport {
    /// Column families looked at.
    pub families: u64,
    /// Pages read and checked.
    pub pages: u64,
    /// Entries counted, those of deltas included.
    pub entries: u64,
    /// Everything that is wrong, each with file offset, family and page. At most a hundred of a kind per
    /// family.
    pub faults: Vec<Error>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// The first thing that is wrong, as an error.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, MemoryStorage};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// db.verify()?.into_result()?;
    /// # Ok(()) }
    /// ```
    pub fn into_result(self) -> Result<()> {
        self.faults.into_iter().next().map_or(Ok(()), Err)
    }
}

/// How far a verification has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Column families looked at so far.
    pub families: u64,
    /// Column families that there were at the beginning.
    pub families_in_all: u64,
    /// Bytes of pages read so far.
    pub bytes: u64,
    /// Bytes of pages that there were at the beginning.
    pub bytes_in_all: u64,
    /// For how long that has been going on.
    pub elapsed: Duration,
}

/// How a verification goes about it, see [`ColumnFamilyDatabase::verify_with`].
#[derive(Default)]
#[must_use]
pub struct VerifyOptions<'c> {
    bytes_per_second: Option<u64>,
    progress: Option<Box<dyn FnMut(VerifyProgress) + Send + 'c>>,
}

impl<'c> VerifyOptions<'c> {
    /// At full speed, and without a word until the end.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads no more than so many bytes a second (default: as many as the disk gives), apart from single
    /// values that are longer. 0 counts as 1.
    pub fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = Some(bytes.max(1));
        self
    }

    /// Called after every few MiB, at least four times a second if the rate is bounded, by the thread that
    /// verifies, which holds nothing meanwhile. If it panics, so does
    /// [`verify_with`](ColumnFamilyDatabase::verify_with).
    pub fn on_progress(mut self, callback: impl FnMut(VerifyProgress) + Send + 'c) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }
}

impl fmt::Debug for VerifyOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyOptions")
            .field("bytes_per_second", &self.bytes_per_second)
            .finish_non_exhaustive()
    }
}

impl ColumnFamilyDatabase {
    /// Reads everything that is merged, past the caches, and checks every checksum, the order of keys,
    /// separators, counts, and that every page is reachable or free, never both, and belongs to one family.
    /// Of the superblock and the catalog, of which there are two copies each, each is read: one that is
    /// damaged is a fault, though the other serves: in a database that was opened for reading alone also one
    /// that a crash left half written, which an opening for writing makes whole. Reads and writes go on.
    ///
    /// It goes from one range of keys to the next, each as it is when its turn comes, so it keeps next to
    /// nothing on the disk that merges would give back. Every page that was there at the beginning and still
    /// is at the end has been read and checked. Pages that nothing reaches and that count as used are found
    /// in families to which nothing is merged meanwhile.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::ErrorKind::Closed). What is wrong with the data stands in the report: see
    /// [`VerifyReport::into_result`].
    pub fn verify(&self) -> Result<VerifyReport> {
        self.verify_with(VerifyOptions::new())
    }

    /// As [`verify`](Self::verify), at a bounded rate or telling how far it has come.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// use peristyle::VerifyOptions;
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # db.create_column_family("blocks", FamilyOptions::default())?.put("key", "value")?;
    /// # db.flush()?;
    ///
    /// let mut read = 0;
    /// let options = VerifyOptions::new()
    ///     .bytes_per_second(50 << 20)
    ///     .on_progress(|progress| read = progress.bytes);
    /// let report = db.verify_with(options)?;
    /// assert!(report.is_clean() && read > 0);
    /// # Ok(()) }
    /// ```
    pub fn verify_with(&self, options: VerifyOptions<'_>) -> Result<VerifyReport> {
        self.pipeline().open()?;
        let families = self.shared().families();
        let mut pass = Pass::new(self.shared(), options, &families);
        for family in &families {
            pass.verify_family(family)?;
        }
        let mut report = pass.report;
        report.faults.extend(self.shared().registry.lock().lost().map(|(id, name)| lost(name, id)));
        self.shared().verify_space(&families, &mut report);
        self.shared().verify_copies(&mut report);
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

/// A verification under way.
struct Pass<'c> {
    shared: &'c Shared,
    options: VerifyOptions<'c>,
    report: VerifyReport,
    progress: VerifyProgress,
    began: Instant,
}

/// What is known of a family that is verified.
#[derive(Default)]
struct Seen {
    pages: PageSet,
    /// First pages that were met in two places.
    twice: Vec<PageId>,
    /// First pages that counted as free when they were met.
    free: Vec<PageId>,
    /// Faults of nodes so far.
    faults: usize,
}

impl<'c> Pass<'c> {
    fn new(shared: &'c Shared, options: VerifyOptions<'c>, families: &[Arc<Family>]) -> Self {
        let pages: u64 = families.iter().map(|family| family.store().space().pages_reachable).sum();
        let progress = VerifyProgress {
            families_in_all: families.len() as u64,
            bytes_in_all: pages * shared.data.page_size() as u64,
            ..VerifyProgress::default()
        };
        Self { shared, options, report: VerifyReport::default(), progress, began: Instant::now() }
    }

    fn verify_family(&mut self, family: &Arc<Family>) -> Result<()> {
        let mut seen = Seen::default();
        let Some((version, reachable)) = current(family) else { return Ok(()) };
        let first = version.number();
        let deltas = version.deltas.clone();
        drop(version);
        let mut is_unchanged = true;
        for delta in std::iter::once(None).chain(deltas.iter().map(Some)) {
            let mut from = Some(Vec::new());
            while let Some(start) = from.take() {
                // Of this part alone, so that its pages stay while they are read.
                let Some(version) = current_version(family) else { return Ok(()) };
                is_unchanged &= version.number() == first;
                let Some(tree) = tree_of(&version, delta) else { break };
                let read;
                (read, from) = self.verify_part(family, &tree, delta.is_some(), &start, &mut seen);
                drop(version);
                self.pause(read)?;
            }
        }
        is_unchanged &= current_version(family).is_some_and(|version| version.number() == first);
        self.report_pages(family, &seen, is_unchanged.then_some(&reachable));
        self.report_numbers(family);
        self.report.families += 1;
        self.progress.families += 1;
        self.pause(0)
    }

    /// Verifies what `tree`, which is held, has from `start` on, up to the end of the part. Gives the bytes
    /// read, and where the next one begins.
    fn verify_part(
        &mut self,
        family: &Family,
        tree: &Tree,
        deletions: bool,
        start: &[u8],
        seen: &mut Seen,
    ) -> (u64, Option<Vec<u8>>) {
        let store = family.store();
        let page_size = store.page_size() as u64;
        let bytes = self.options.bytes_per_second.map_or(PART, |bytes| PART.min(bytes / PARTS_PER_SECOND));
        let max_faults = MAX_FAULTS - seen.faults.min(MAX_FAULTS);
        let options = CheckOptions { max_faults, deletions };
        let part = Part { from: start, most_pages: bytes / page_size };
        let (check, next) = tree.check_part(store, &options, part);
        self.report.pages += check.pages.len();
        self.report.entries += check.entries;
        seen.faults += check.faults.len();
        let located = |fault: Error| fault.in_file("data").of_family(family.id().0);
        self.report.faults.extend(check.faults.into_iter().map(located));
        seen.free.extend(store.counted_free(&check.pages));
        for (first, count) in check.pages.iter_runs() {
            if !seen.pages.insert_run(first, count) {
                seen.twice.push(first);
            }
        }
        (check.pages.len() * page_size, next)
    }

    /// Tells how far the verification has come, after `bytes` more were read, and waits until more may be
    /// read.
    fn pause(&mut self, bytes: u64) -> Result<()> {
        self.progress.bytes += bytes;
        self.progress.elapsed = self.began.elapsed();
        if let Some(progress) = &mut self.options.progress {
            progress(self.progress);
        }
        self.shared.pipeline.open()?;
        if let Some(rate) = self.options.bytes_per_second {
            let due = Duration::from_secs_f64(self.progress.bytes as f64 / rate as f64);
            while let Some(ahead) = due.checked_sub(self.began.elapsed()).filter(|ahead| !ahead.is_zero()) {
                thread::sleep(ahead.min(LONGEST_SLEEP));
                self.shared.pipeline.open()?;
            }
        }
        Ok(())
    }

    /// What is wrong with the pages that were met; with `reachable`, which is of the version that all parts
    /// were of.
    fn report_pages(&mut self, family: &Family, seen: &Seen, reachable: Option<&PageSet>) {
        let fault = |page: PageId, message: &str| {
            let fault = Error::corruption(message).in_file("data").of_family(family.id().0).on_page(page.0);
            match family.store().file_offset(page) {
                Some(offset) => fault.at_offset(offset),
                None => fault,
            }
        };
        const FREE: &str = "a page that the tree reaches counts as free";
        let faults = &mut self.report.faults;
        let Some(reachable) = reachable else {
            faults.extend(seen.free.iter().take(MAX_FAULTS).map(|page| fault(*page, FREE)));
            return;
        };
        let twice = seen.twice.iter().take(MAX_FAULTS);
        faults.extend(twice.map(|page| fault(*page, "two trees reach a page")));
        faults.extend(missing(&seen.pages, reachable).map(|page| fault(page, FREE)));
        let unreached = missing(reachable, &seen.pages);
        faults.extend(
            unreached.map(|page| fault(page, "a page that the tree does not reach counts as in use")),
        );
    }

    fn report_numbers(&mut self, family: &Family) {
        let through = family.trees.lock().merged_through();
        let last = SequenceNumber(self.shared.pipeline.visible.watermark());
        if through > last {
            let message = format!("the tree holds commit {through}, but the last is {last}");
            self.report.faults.push(Error::corruption(message).of_family(family.id().0));
        }
    }
}

/// The trees of this moment, and the pages that they reach; `None` if the family was dropped.
fn current(family: &Family) -> Option<(Arc<TreeVersion>, PageSet)> {
    let trees = family.trees.lock();
    (!family.is_dropped()).then(|| (Arc::clone(trees.current()), family.store().reachable()))
}

fn current_version(family: &Family) -> Option<Arc<TreeVersion>> {
    let trees = family.trees.lock();
    (!family.is_dropped()).then(|| Arc::clone(trees.current()))
}

/// What has become of `delta` in `version`, or the tree behind all deltas; `None` if it is gone.
fn tree_of(version: &TreeVersion, delta: Option<&Delta>) -> Option<Tree> {
    match delta {
        None => Some(version.tree),
        Some(delta) => version.deltas.iter().find(|later| later.is_version_of(delta)).map(|later| later.tree),
    }
}

impl Shared {
    /// Each slot of the superblock and each copy of the catalog is whole, though one of two would do.
    fn verify_copies(&self, report: &mut VerifyReport) {
        // Nobody writes them meanwhile.
        let state = self.checkpoint.lock();
        let file = &**self.data.pool().permanent();
        report.faults.extend(Superblock::check_slots(file, "data"));
        report.faults.extend(check_copies(file, &state.superblock));
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
