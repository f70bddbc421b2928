//! What a filter is asked as trees are written, and what becomes of its answers.
//!
//! 1. It sees what a key comes to: a value that operands in newer deltas or memtables are to be folded onto
//!    is not shown, nor are operands. Nor is what something newer hides.
//! 2. What it drops is deleted as by an operation: in a delta that is an entry, which hides what is older.
//! 3. Once it has failed it is not asked any more, and what is left stays as it is. So nothing depends on it:
//!    memtables become part of the trees whatever it does.
//! 4. It sees values without their expiry, which they keep, and nothing that has expired, also where that
//!    stays for operands that may yet be folded onto it.
//! 5. Where there is little room it is not asked: what it changes may be longer than it was.

use std::cell::{Cell, OnceCell, RefCell};

use crate::btree::{Combine, Combined, MergeOp, Old, Sift, TreeCursor, Verdict};
use crate::codec::expiry::{self, Expiry, Now};
use crate::codec::ids::SequenceNumber;
use crate::column_family::delta::Delta;
use crate::column_family::family::{Counters, Family};
use crate::column_family::trees::TreeVersion;
use crate::column_family::view::{Frozen, View};
use crate::error::{Error, Result};
use crate::memtable::Memtable;
use crate::operator::filter::{FilterVerdict, FilteredEntry, NamedFilter};
use crate::sync::arc_cell::ArcCell;
use crate::sync::{Arc, epoch};

/// Asks a family's filter, for one change of its trees.
pub(super) struct Sieve<'f> {
    family: &'f Family,
    filter: NamedFilter,
    /// What has expired by then is not shown.
    now: Now,
    /// Where operands may be that are still to be folded; `None` in families without such.
    newer: Option<Newer>,
    /// What an entry that was changed is to be, on its way to the tree.
    made: Cell<Option<Combined>>,
    failure: RefCell<Option<Error>>,
    dropped: Cell<u64>,
    changed: Cell<u64>,
}

/// What is newer than the entries that are shown.
struct Newer {
    tables: Vec<Arc<Memtable>>,
    /// All that stand in front of the tree.
    deltas: Vec<Delta>,
    /// How many of these stand in front of what is merged.
    before_merged: usize,
}

/// Where an entry that is shown comes from.
#[derive(Clone, Copy)]
enum From {
    Merged,
    Tree,
}

impl Family {
    /// What a change of `version` asks the filter with, if the family has one. What is merged is of the
    /// memtables `merged`, or of deltas behind the first `before`; `now` is when expiry is judged. The caller
    /// holds the lock of merges.
    pub(super) fn sieve(
        &self,
        views: &ArcCell<View>,
        now: Now,
        version: &TreeVersion,
        before: usize,
        merged: &[Frozen],
    ) -> Option<Sieve<'_>> {
        let filter = self.filter()?;
        let newer = self.options().merge_operator.map(|_| {
            let is_merged =
                |table: &Arc<Memtable>| merged.iter().any(|frozen| Arc::ptr_eq(&frozen.table, table));
            let view = views.load_full();
            let tables = view.family(self.slot(), self.id()).map_or_else(
                |_| Vec::new(),
                |view| view.memtables().filter(|table| !is_merged(table)).cloned().collect(),
            );
            Newer { tables, deltas: version.deltas.clone(), before_merged: before }
        });
        Some(Sieve {
            family: self,
            filter,
            now,
            newer,
            made: Cell::default(),
            failure: RefCell::default(),
            dropped: Cell::new(0),
            changed: Cell::new(0),
        })
    }
}

impl Sieve<'_> {
    fn verdict<'v>(
        &self,
        from: From,
        key: &[u8],
        expiry: Expiry,
        len: usize,
        value: &'v dyn Fn() -> Result<&'v [u8]>,
    ) -> Verdict {
        if self.now.is_past(expiry) {
            return Verdict::Keep;
        }
        if self.failure.borrow().is_some() || self.is_unfolded(key, from) {
            return Verdict::Keep;
        }
        // What it does is up to users.
        epoch::assert_left();
        let unread = RefCell::new(None);
        let read = || value().inspect_err(|error| *unread.borrow_mut() = Some(error.clone()));
        let shown = self.family.user_key(key);
        let verdict = self.filter.judge(&FilteredEntry::new(&shown, len, &read));
        match unread.take().map_or(verdict, Err) {
            Ok(FilterVerdict::Keep) => Verdict::Keep,
            Ok(FilterVerdict::Drop) => {
                self.dropped.set(self.dropped.get() + 1);
                Verdict::Drop
            }
            Ok(FilterVerdict::Change(new)) => {
                if new.len() == len && value().is_ok_and(|old| old == new) {
                    return Verdict::Keep;
                }
                self.changed.set(self.changed.get() + 1);
                Verdict::Change(new)
            }
            Err(error) => {
                *self.failure.borrow_mut() = Some(error.of_family(self.family.id().0));
                Verdict::Keep
            }
        }
    }

    /// Whether something newer says anything of `key`, in a family where that may be operands.
    fn is_unfolded(&self, key: &[u8], from: From) -> bool {
        let Some(Newer { tables, deltas, before_merged }) = &self.newer else { return false };
        let deltas = match from {
            From::Merged => &deltas[..*before_merged],
            From::Tree => deltas,
        };
        tables.iter().any(|table| table.get(key, SequenceNumber::MAX).is_some())
            || deltas.iter().any(|delta| delta.may_hold(key) && self.holds(delta, key))
    }

    /// Whether `delta` says anything of `key`. Where that cannot be read it may.
    fn holds(&self, delta: &Delta, key: &[u8]) -> bool {
        let mut cursor = TreeCursor::new(delta.tree, Arc::clone(self.family.store()));
        cursor.seek(key).map_or(true, |stands| stands && cursor.key() == key)
    }

    /// Why it is not asked any more.
    pub(super) fn take_failure(&self) -> Option<Error> {
        self.failure.take()
    }

    /// What it said was done.
    pub(super) fn conclude(self) {
        let counters = &self.family.counters;
        Counters::add(&counters.filter_dropped, self.dropped.get());
        Counters::add(&counters.filter_changed, self.changed.get());
        if let Some(error) = self.failure.take() {
            Counters::add(&counters.filter_failures, 1);
            tracing::warn!(%error, family = self.family.id().0, "a filter is not asked any more in a merge");
        }
    }
}

impl Sift for Sieve<'_> {
    fn sift<'v>(
        &self,
        key: &[u8],
        expiry: Expiry,
        len: usize,
        value: &'v dyn Fn() -> Result<&'v [u8]>,
    ) -> Verdict {
        self.verdict(From::Tree, key, expiry, len, value)
    }
}

/// What operands come to, and what a filter says of that.
pub(super) struct Folded<'m> {
    by: &'m dyn Combine,
    sieve: &'m Sieve<'m>,
}

impl Combine for Folded<'_> {
    fn combine(&self, key: &[u8], list: &[u8], old: Old<'_>, is_last: bool) -> Result<Combined> {
        let combined = self.by.combine(key, list, old, is_last)?;
        let (expiry, value) = match &combined {
            Combined::Value(value) => (0, &value[..]),
            Combined::Expiring(stamped) => {
                expiry::split(stamped).ok_or_else(|| self.sieve.family.nonsense())?
            }
            Combined::Nothing | Combined::Operands(_) => return Ok(combined),
        };
        Ok(match self.sieve.verdict(From::Merged, key, expiry, value.len(), &|| Ok(value)) {
            Verdict::Keep => combined,
            Verdict::Drop => Combined::Nothing,
            Verdict::Change(new) => made(expiry, new),
        })
    }
}

/// An entry of this value, which expires or has 0.
fn made(expiry: Expiry, value: Vec<u8>) -> Combined {
    match expiry {
        0 => Combined::Value(value),
        _ => Combined::Expiring(expiry::stamped(expiry, &value)),
    }
}

/// `op` as it is to be done if there is a sieve. All operands that come with one `folded` are folded by one.
pub(super) fn sift_op<'m>(
    sieve: Option<&'m Sieve<'m>>,
    folded: &'m OnceCell<Folded<'m>>,
    (key, op): (&'m [u8], MergeOp<'m>),
) -> (&'m [u8], MergeOp<'m>) {
    let Some(sieve) = sieve else { return (key, op) };
    let (expiry, value) = match op {
        MergeOp::Put(value) => (0, value),
        MergeOp::PutExpiring(stamped) => match expiry::split(stamped) {
            Some(parts) => parts,
            // Who writes it says so.
            None => return (key, op),
        },
        MergeOp::Operands { list, by } => {
            let by = folded.get_or_init(|| Folded { by, sieve });
            return (key, MergeOp::Operands { list, by });
        }
        MergeOp::Delete | MergeOp::Made(_) => return (key, op),
    };
    let op = match sieve.verdict(From::Merged, key, expiry, value.len(), &|| Ok(value)) {
        Verdict::Keep => op,
        Verdict::Drop => MergeOp::Delete,
        Verdict::Change(new) => {
            sieve.made.set(Some(made(expiry, new)));
            MergeOp::Made(&sieve.made)
        }
    };
    (key, op)
}
