//! What was committed since the open transactions began: memtables that are merged, kept for them to look
//! into when they commit.
//!
//! A transaction that began at *s* is refused if a commit after *s* changed what it relied on. Whatever was
//! committed to a family after *s* stands in memtables: those in the present view, and those that a merge has
//! taken out of it. Of the latter the ones whose last number is above the number of the oldest open
//! transaction are kept here, by the merge itself. So writers know nothing of transactions.
//!
//! # Why none is missed
//!
//! 1. A merge begins when the last number of its memtables is visible, and asks here, under the lock, before
//!    it takes them out of the view.
//! 2. A transaction takes its number under the same lock. If it does so after the merge asked, its number is
//!    not below that last number, and it needs the memtable no more. If it does so before, the merge finds
//!    it.
//! 3. Who commits loads the view first and then asks here: what leaves the view was put here before.
//!
//! What is kept may take so many bytes. Where it would take more the oldest transactions lose their places,
//! until what is left needs no more: those can not commit any more what has to be checked. Numbers do not
//! fall under the lock, so the oldest are those that came first, and one number says who is put out: all up
//! to it.
//!
//! Who commits holds write locks, and asks without the lock: how many memtables there are, and, after it, who
//! is put out. Both are stored under the lock, and a memtable is counted before it leaves the view, and goes
//! only after those who need it are put out. So who misses one in the view finds it counted, or himself put
//! out.
//!
//! The rejected alternative, memtables that know their successors, lets every reader that holds an old view
//! keep all that was written since, and a transaction would have to hold the newest memtable of every family
//! from its first moment on.

use std::collections::{BTreeMap, BTreeSet};

use crate::codec::ids::{FamilyId, SequenceNumber};
use crate::column_family::view::Moment;
use crate::memtable::Memtable;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};

/// The open transactions, and what is kept for those whose commits are checked.
pub(crate) struct Remembered {
    state: Mutex<State>,
    /// Bytes of memtables that are kept at most.
    most: usize,
    /// Memtables that are kept. Stored under the lock.
    kept: AtomicUsize,
    /// All who began up to this one have lost their places. Stored under the lock.
    put_out_through: AtomicU64,
    /// Those for which nothing is kept.
    unchecked: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Of those that need what is kept: the number that each began at, and one of its own. Both grow.
    open: BTreeSet<(SequenceNumber, u64)>,
    began: u64,
    /// Those that have a place, also if they lost it.
    places: u64,
    /// By family and last number.
    tables: BTreeMap<(FamilyId, SequenceNumber), Arc<Memtable>>,
    oldest_first: BTreeSet<(SequenceNumber, FamilyId)>,
    bytes: usize,
    put_out: u64,
}

impl State {
    /// Takes out what no open transaction needs.
    fn prune(&mut self) -> Vec<Arc<Memtable>> {
        let oldest = self.open.first().map(|(number, _)| *number);
        let mut pruned = Vec::new();
        while let Some(&(last, family)) = self.oldest_first.first()
            && oldest.is_none_or(|oldest| last <= oldest)
        {
            self.oldest_first.pop_first();
            let table = self.tables.remove(&(family, last)).expect("both lists hold the same memtables");
            self.bytes -= table.bytes();
            pruned.push(table);
        }
        pruned
    }
}

/// What is kept, and for how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) open: u64,
    pub(crate) bytes: u64,
    /// Transactions that lost their places so far.
    pub(crate) put_out: u64,
}

impl Remembered {
    /// Keeps `most` bytes of memtables at most.
    pub(crate) fn up_to(most: usize) -> Self {
        let (kept, put_out_through, unchecked) = Default::default();
        Self { state: Mutex::default(), most, kept, put_out_through, unchecked }
    }

    /// Opens a transaction at the moment that `now` gives.
    pub(crate) fn open(self: &Arc<Self>, now: impl FnOnce() -> Moment) -> (Place, Moment) {
        let mut state = self.state.lock();
        let moment = now();
        state.began += 1;
        state.places += 1;
        let place = (moment.at, state.began);
        state.open.insert(place);
        (Place { remembered: Arc::clone(self), place: Some(place) }, moment)
    }

    /// Opens a transaction for which nothing is kept.
    pub(crate) fn open_unchecked(self: &Arc<Self>) -> Place {
        self.unchecked.fetch_add(1, Ordering::Relaxed);
        Place { remembered: Arc::clone(self), place: None }
    }

    /// `table`, whose commits are all visible, is about to leave the view of `family`: keeps it if an open
    /// transaction may ask for it.
    pub(crate) fn keep(&self, family: FamilyId, table: &Arc<Memtable>) {
        let mut state = self.state.lock();
        let last = table.last_sequence();
        if state.open.first().is_none_or(|(oldest, _)| last <= *oldest) {
            return;
        }
        if state.tables.insert((family, last), Arc::clone(table)).is_none() {
            state.oldest_first.insert((last, family));
            state.bytes += table.bytes();
        }
        let mut pruned = Vec::new();
        while state.bytes > self.most {
            if let Some((_, began)) = state.open.pop_first() {
                self.put_out_through.store(began, Ordering::Release);
            }
            state.put_out += 1;
            pruned.append(&mut state.prune());
        }
        self.kept.store(state.tables.len(), Ordering::Release);
        drop(state);
        // Not under the lock: giving memory back takes long.
        drop(pruned);
    }

    /// The memtables of `family` that are kept and hold anything of commits after `since`.
    pub(crate) fn tables(&self, family: FamilyId, since: SequenceNumber) -> Vec<Arc<Memtable>> {
        if self.kept.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let state = self.state.lock();
        let range = (family, since.next())..=(family, SequenceNumber::MAX);
        state.tables.range(range).map(|(_, table)| Arc::clone(table)).collect()
    }

    pub(crate) fn kept(&self) -> Kept {
        let state = self.state.lock();
        let open = state.places + self.unchecked.load(Ordering::Relaxed);
        Kept { open, bytes: state.bytes as u64, put_out: state.put_out }
    }
}

/// The place of an open transaction; given up when it is dropped.
pub(crate) struct Place {
    remembered: Arc<Remembered>,
    /// `None`: nothing is kept for it.
    place: Option<(SequenceNumber, u64)>,
}

impl Place {
    /// Whether all that was committed since is still known. To be asked after [`Remembered::tables`].
    pub(crate) fn is_kept(&self) -> bool {
        self.place.is_some_and(|(_, began)| self.remembered.put_out_through.load(Ordering::Acquire) < began)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(place) = &self.place else {
            self.remembered.unchecked.fetch_sub(1, Ordering::Relaxed);
            return;
        };
        let mut state = self.remembered.state.lock();
        state.open.remove(place);
        state.places -= 1;
        let pruned = state.prune();
        if !pruned.is_empty() {
            self.remembered.kept.store(state.tables.len(), Ordering::Release);
        }
        drop(state);
        drop(pruned);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::column_family::view::View;

    const FAMILY: FamilyId = FamilyId(1);

    fn table(numbers: impl IntoIterator<Item = u64>) -> Arc<Memtable> {
        let mut writer = Memtable::create(0);
        for number in numbers {
            writer.put(&number.to_be_bytes(), &[7; 100], SequenceNumber(number));
        }
        Arc::clone(writer.table())
    }

    fn open(remembered: &Arc<Remembered>, at: u64) -> Place {
        remembered
            .open(|| Moment {
                view: Arc::new(View::default()),
                at: SequenceNumber(at),
                now: crate::codec::expiry::Now::UNASKED,
            })
            .0
    }

    fn lasts(remembered: &Remembered, since: u64) -> Vec<u64> {
        let tables = remembered.tables(FAMILY, SequenceNumber(since));
        tables.iter().map(|table| table.last_sequence().0).collect()
    }

    #[test]
    fn what_the_oldest_open_transaction_may_ask_for_is_kept_and_nothing_else() {
        let remembered = Arc::new(Remembered::up_to(usize::MAX));
        remembered.keep(FAMILY, &table(1..=3));
        assert_eq!(remembered.kept().bytes, 0, "nobody is open");
        let old = open(&remembered, 3);
        remembered.keep(FAMILY, &table(1..=3));
        remembered.keep(FAMILY, &table(4..=6));
        let young = open(&remembered, 6);
        remembered.keep(FAMILY, &table(7..=9));
        remembered.keep(FamilyId(2), &table(10..=12));
        assert_eq!((lasts(&remembered, 3), lasts(&remembered, 6)), (vec![6, 9], vec![9]));
        drop(old);
        assert_eq!(lasts(&remembered, 3), [9]);
        drop(young);
        assert_eq!(remembered.kept(), Kept::default());
    }

    #[test]
    fn beyond_the_limit_the_oldest_go_until_what_is_left_needs_no_more() {
        let (first, second) = (table(1..=5), table(6..=9));
        let remembered = Arc::new(Remembered::up_to(first.bytes().max(second.bytes())));
        let places = [0, 0, 5].map(|at| open(&remembered, at));
        remembered.keep(FAMILY, &first);
        assert!(places.iter().all(Place::is_kept));
        remembered.keep(FAMILY, &second);
        assert_eq!(places.each_ref().map(Place::is_kept), [false, false, true]);
        assert_eq!(lasts(&remembered, 5), [9]);
        assert_eq!(
            (remembered.kept().open, remembered.kept().put_out),
            (3, 2),
            "who is put out is still open"
        );
        drop(places);
        assert_eq!(remembered.kept(), Kept { put_out: 2, ..Kept::default() });
        assert!(lasts(&remembered, 0).is_empty());
        let later = open(&remembered, 9);
        assert!(later.is_kept());
        let unchecked = remembered.open_unchecked();
        assert_eq!(remembered.kept().open, 2);
        drop((later, unchecked));
        assert_eq!(remembered.kept().open, 0);
    }
}
