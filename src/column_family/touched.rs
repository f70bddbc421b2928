//! Which families the next checkpoint has to look at.
//!
//! A family is listed before what a checkpoint must know of it happens: a record that only its memtables
//! hold, new trees, segments that are given back. A checkpoint takes the whole list, clears the mark of each
//! family, and then looks at it.
//!
//! Invariant: what was done to a family before it was listed is seen by the checkpoint that takes it, or the
//! family is listed again. For either the mark was clear, and the family is put into the list anew; or it was
//! set, and then the checkpoint, which clears it before it looks, looks later.

use crate::codec::ids::FamilyId;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The list, one for a database.
#[derive(Default)]
pub(crate) struct Touched {
    families: Mutex<Vec<FamilyId>>,
    /// How often a family got new trees.
    installed: AtomicU64,
}

/// Whether a family is in the list.
#[derive(Default)]
pub(crate) struct Mark(AtomicBool);

impl Touched {
    /// Lists a family, if it is not.
    pub(super) fn touch(&self, family: FamilyId, mark: &Mark) {
        // Both under the lock: who finds the mark set finds the family in the list, or taken out of it and
        // not looked at yet.
        let mut families = self.families.lock();
        if !mark.0.swap(true, Ordering::SeqCst) {
            families.push(family);
        }
    }

    /// Takes the list. Whoever does looks at each family after he [cleared](Mark::clear) its mark.
    pub(crate) fn take(&self) -> Vec<FamilyId> {
        std::mem::take(&mut self.families.lock())
    }

    pub(super) fn count_installed(&self) {
        self.installed.fetch_add(1, Ordering::SeqCst);
    }

    /// How often families got new trees since the database was opened.
    pub(crate) fn installed(&self) -> u64 {
        self.installed.load(Ordering::SeqCst)
    }
}

impl Mark {
    pub(super) fn clear(&self) {
        self.0.swap(false, Ordering::SeqCst);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::Arc;
    use loom::thread;

    #[derive(Default)]
    struct Database {
        touched: Touched,
        mark: Mark,
        /// The family's oldest log segment, which a checkpoint must not miss.
        segment: AtomicU64,
        released: AtomicU64,
    }

    impl Database {
        fn note(&self) {
            self.segment.store(1, Ordering::SeqCst);
            self.touched.touch(FamilyId(1), &self.mark);
        }

        /// Whether the segment was seen.
        fn look(&self) -> bool {
            let mut seen = false;
            for _ in self.touched.take() {
                self.mark.clear();
                seen |= self.segment.load(Ordering::SeqCst) == 1;
            }
            if seen {
                self.touched.touch(FamilyId(1), &self.mark);
            }
            seen
        }
    }

    /// Whoever finds that somebody else lists the family goes on only when it is listed.
    #[test]
    fn loom_of_two_who_touch_a_family_neither_goes_on_before_it_is_listed() {
        loom::model(|| {
            let database = Arc::new(Database::default());
            let other = Arc::clone(&database);
            let thread = thread::spawn(move || other.touched.touch(FamilyId(1), &other.mark));
            database.note();
            assert!(database.look(), "a checkpoint missed what was noted before it");
            thread.join().unwrap();
        });
    }

    #[test]
    fn loom_a_checkpoint_that_begins_after_a_family_was_touched_sees_why() {
        loom::model(|| {
            let database = Arc::new(Database::default());
            // Listed already, for another reason.
            database.touched.touch(FamilyId(1), &database.mark);
            let other = Arc::clone(&database);
            let thread = thread::spawn(move || {
                other.note();
                other.released.store(1, Ordering::SeqCst);
            });
            let was_noted = database.released.load(Ordering::SeqCst) == 1;
            let seen = database.look();
            assert!(seen || !was_noted, "a checkpoint missed what was noted before it");
            thread.join().unwrap();
            assert!(database.look(), "the family is listed no more");
        });
    }
}
