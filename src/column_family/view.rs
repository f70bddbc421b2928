//! The view: what the whole database consists of at one moment.

use crate::codec::expiry::Now;
use crate::codec::ids::{BEYOND_COUNTING, FamilyId, SequenceNumber};
use crate::column_family::family::{Family, dropped};
use crate::column_family::slots::Slots;
use crate::column_family::trees::TreeVersion;
use crate::error::Result;
use crate::memtable::Memtable;
use crate::sync::arc_cell::ArcCell;
use crate::sync::sequencer::Sequencer;
use crate::sync::{Arc, Mutex};

/// A memtable that takes no more writes and waits to be merged.
#[derive(Clone)]
pub(crate) struct Frozen {
    pub(crate) table: Arc<Memtable>,
    /// Log segment that holds the oldest of its records; `u64::MAX` if it has none.
    pub(crate) first_segment: u64,
}

/// One family at one moment.
#[derive(Clone)]
pub(crate) struct FamilyView {
    pub(crate) family: Arc<Family>,
    pub(crate) active: Arc<Memtable>,
    /// Newest first.
    pub(crate) frozen: Vec<Frozen>,
    pub(crate) tree: Arc<TreeVersion>,
    pub(crate) measured: Measured,
}

/// Writes to one family that nobody else sees, in a memtable of their own, and the last of them that is seen.
///
/// Their numbers lie [above](OWN_WRITES) those of all commits: so they count as later than whatever a cursor
/// meets.
#[derive(Clone)]
pub(crate) struct OwnWrites {
    pub(crate) table: Arc<Memtable>,
    pub(crate) at: SequenceNumber,
}

/// Below the numbers of own writes.
pub(crate) const OWN_WRITES: SequenceNumber = SequenceNumber(BEYOND_COUNTING);

/// How many entries a family view was found to hold last, and at which number, so that they are not counted
/// again until something is written.
#[derive(Default)]
pub(crate) struct Measured(Mutex<Option<(SequenceNumber, u64)>>);

impl Measured {
    pub(crate) fn last(&self) -> Option<(SequenceNumber, u64)> {
        *self.0.lock()
    }

    pub(crate) fn set(&self, at: SequenceNumber, entries: u64) {
        *self.0.lock() = Some((at, entries));
    }
}

impl Clone for Measured {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.last()))
    }
}

impl FamilyView {
    /// The family as it is before anything was written to it.
    pub(crate) fn empty(family: &Arc<Family>) -> Arc<Self> {
        let (family, active) = (Arc::clone(family), Arc::clone(Memtable::create(0).table()));
        let tree = Arc::new(TreeVersion::default());
        Arc::new(Self { family, active, frozen: Vec::new(), tree, measured: Measured::default() })
    }

    /// Whether all that the memtables hold now is seen at `at`, and will be what is seen at it. For a moment
    /// of which a reader knows that it is visible.
    pub(crate) fn is_all_seen_at(&self, at: SequenceNumber) -> bool {
        self.memtables().all(|table| table.last_sequence() <= at)
    }

    /// The memtables that hold anything, newest first.
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active)
            .chain(self.frozen.iter().map(|frozen| &frozen.table))
            .filter(|table| !table.is_empty())
    }
}

/// Every family at one moment, each in the slot that it keeps for its life.
#[derive(Clone, Default)]
pub(crate) struct View {
    slots: Slots<FamilyView>,
}

impl View {
    /// The family `id` that lives in `slot`; `FamilyDropped` if it is not in this view.
    #[inline]
    pub(crate) fn family(&self, slot: usize, id: FamilyId) -> Result<&Arc<FamilyView>> {
        match self.slots.get(slot) {
            Some(view) if view.family.id() == id => Ok(view),
            _ => Err(dropped(id)),
        }
    }

    /// The families, by slot.
    pub(crate) fn families(&self) -> impl Iterator<Item = &Arc<FamilyView>> {
        self.slots.iter()
    }

    /// This view with one slot changed. Costs a copy of the way to that slot, whatever the number of
    /// families.
    pub(crate) fn with(&self, slot: usize, family: Option<Arc<FamilyView>>) -> Self {
        self.with_all([(slot, family)])
    }

    /// This view with several slots changed.
    pub(crate) fn with_all(
        &self,
        changes: impl IntoIterator<Item = (usize, Option<Arc<FamilyView>>)>,
    ) -> Self {
        let mut slots = self.slots.clone();
        changes.into_iter().for_each(|(slot, family)| slots.set(slot, family));
        Self { slots }
    }
}

/// A view and the sequence number up to which it is read.
#[derive(Clone)]
pub(crate) struct Moment {
    pub(crate) view: Arc<View>,
    pub(crate) at: SequenceNumber,
    /// When entries are judged.
    pub(crate) now: Now,
}

impl Moment {
    /// The present moment, at which nothing has expired.
    pub(crate) fn now(views: &ArcCell<View>, visible: &Sequencer) -> Self {
        let (view, at) = moment(views, visible);
        Self { view, at, now: Now::UNASKED }
    }
}

/// A view and a number that belong together: the view was the present one when the number was loaded.
///
/// A tree keeps one version of a key, so a view that is newer than the number may have merged what the number
/// excludes, and one that is older may lack the memtable that a commit went to.
fn moment<V: Send + Sync>(views: &ArcCell<V>, visible: &Sequencer) -> (Arc<V>, SequenceNumber) {
    loop {
        let view = views.load_full();
        let at = SequenceNumber(visible.watermark());
        if views.is_current(&view) {
            return (view, at);
        }
    }
}

/// The freeze, reduced to what races: a commit's number and insert under the write lock, the change of view
/// by a freeze and by a merge, and a reader that takes a moment.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::Mutex;
    use loom::thread;

    #[derive(Default)]
    struct Table(Mutex<Vec<u64>>);

    impl Table {
        fn numbers(&self) -> Vec<u64> {
            self.0.lock().clone()
        }
    }

    struct Tables {
        active: Arc<Table>,
        frozen: Option<Arc<Table>>,
        /// Numbers that a merge took.
        tree: Vec<u64>,
    }

    struct Database {
        views: ArcCell<Tables>,
        visible: Sequencer,
        /// The write lock: the memtable that takes inserts, and the next number.
        write: Mutex<(Arc<Table>, u64)>,
    }

    impl Database {
        fn new() -> Arc<Self> {
            let active = Arc::new(Table::default());
            let tables = Tables { active: Arc::clone(&active), frozen: None, tree: Vec::new() };
            Arc::new(Self {
                views: ArcCell::new(Arc::new(tables)),
                visible: Sequencer::new(0),
                write: Mutex::new((active, 1)),
            })
        }

        fn commit(&self) {
            let mut side = self.write.lock();
            let number = side.1;
            side.1 += 1;
            side.0.0.lock().push(number);
            drop(side);
            self.visible.complete(number);
        }

        fn freeze(&self) {
            let mut side = self.write.lock();
            let active = Arc::new(Table::default());
            self.views.update(|tables| {
                let frozen = Some(Arc::clone(&tables.active));
                (Tables { active: Arc::clone(&active), frozen, tree: tables.tree.clone() }, ())
            });
            side.0 = active;
        }

        fn merge(&self) {
            let view = self.views.load_full();
            let Some(frozen) = &view.frozen else { return };
            let numbers = frozen.numbers();
            if let Some(&last) = numbers.last() {
                self.visible.wait_for(last).unwrap();
            }
            self.views.update(|tables| {
                let active = Arc::clone(&tables.active);
                (Tables { active, frozen: None, tree: numbers }, ())
            });
        }

        /// A reader finds every commit up to its number, and the tree holds none beyond.
        fn read(&self) {
            let (view, at) = moment(&self.views, &self.visible);
            let mut found = view.tree.clone();
            assert!(found.iter().all(|&number| number <= at.0), "the tree holds {found:?} at {at}");
            found.extend(view.frozen.iter().flat_map(|table| table.numbers()));
            found.extend(view.active.numbers());
            assert!((1..=at.0).all(|number| found.contains(&number)), "{found:?} at {at}");
        }
    }

    #[test]
    fn loom_a_reader_beside_a_commit_and_a_freeze_finds_every_commit_of_its_moment() {
        loom::model(|| {
            let database = Database::new();
            let writer = Arc::clone(&database);
            let thread = thread::spawn(move || {
                writer.commit();
                writer.freeze();
                writer.commit();
            });
            database.read();
            thread.join().unwrap();
            database.read();
        });
    }

    #[test]
    fn loom_a_tree_never_holds_what_a_reader_of_its_moment_may_not_see() {
        loom::model(|| {
            let database = Database::new();
            let writer = Arc::clone(&database);
            let thread = thread::spawn(move || {
                writer.commit();
                writer.freeze();
                writer.merge();
            });
            database.read();
            thread.join().unwrap();
            database.read();
        });
    }

    #[test]
    fn loom_a_freeze_beside_a_commit_cuts_before_or_after_it() {
        loom::model(|| {
            let database = Database::new();
            let freezer = Arc::clone(&database);
            let thread = thread::spawn(move || {
                freezer.freeze();
                freezer.merge();
            });
            database.commit();
            database.read();
            thread.join().unwrap();
            database.read();
        });
    }
}
