//! A new value of a key that depends on the old one, in one step.
//!
//! ```text
//! until it is written:
//!     read the key at one moment
//!     unless that is the value which was read before: ask the caller's closure what it becomes
//!     commit that, if under the write lock the key is as it was at that moment
//!     else wait until what was written to it meanwhile is visible
//! ```
//!
//! The closure is called while no lock is held and nothing of the database waits for it, so it may block,
//! panic and use the database.
//!
//! *As it was at that moment* is a question of numbers, not of values: no commit above the moment's number
//! says anything of the key. All of them are in memtables of the present view, as long as that has the tree
//! version of the moment: a merge takes a memtable out of the view in the step that puts another version in.
//! Where the version is another one, by a merge or by something that merely moved pages, the key is read
//! again, and if its value is the same then what the closure said still counts. So a closure that takes
//! longer than merges do is not called again because of them.
//!
//! A try fails only because another commit changed the key, or a merge came in the microseconds between
//! reading and the lock. So somebody always gets on, but not always the same one.

use std::cell::Cell;

use crate::codec::ids::SequenceNumber;
use crate::column_family::reading::value::Value;
use crate::error::Result;
use crate::options::Durability;
use crate::sync::{Arc, epoch};
use crate::txn::family_snapshot::FamilySnapshot;
use crate::txn::handle::ColumnFamily;
use crate::txn::operation::{check_key_len, check_value, encode_delete, encode_put_until};
use crate::txn::pipeline::{Condition, Write};

/// What came of a [`compare_and_swap`](ColumnFamily::compare_and_swap).
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "whether the value was what was expected is in here"]
pub enum Swap {
    /// The key had the value that was expected, and has the new one: since the commit of this number.
    Done(SequenceNumber),
    /// The key has this value instead, or none. Nothing was written.
    Differs(Option<Value>),
}

impl Swap {
    /// Whether the new value was written.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// What is to become of a key.
enum Decision<V> {
    Set(V),
    Remove,
    Leave,
}

/// What became of it.
enum Outcome {
    Written(SequenceNumber),
    /// It was left as it was found at this moment.
    Left(SequenceNumber, Option<Value>),
}

impl ColumnFamily {
    /// Gives `key` the value that `change` makes of its present one, or none of none, as one step: no other
    /// write to the key comes between. `None` removes the key. With the database's default durability.
    ///
    /// Where another write did come between, `change` is called again, with what that one left; so it is
    /// called at least once, and what it did besides when it was called before has been done. It is called
    /// while no lock is held: it may take its time, panic, and read and write the database, but if it writes
    /// to this key itself, it is called for ever. To give up it returns what it was shown. If it returns
    /// that, nothing is written, and the number is that of the moment at which the key was read.
    ///
    /// Costs a read and a write.
    ///
    /// # Errors
    ///
    /// Those of [`put`](Self::put) and [`get`](Self::get).
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let visits = db.create_column_family("visits", FamilyOptions::default())?;
    /// let visit = |page: &str| {
    ///     let mut count = 0;
    ///     visits.update(page, |old| {
    ///         count = 1 + old.map_or(0, |old| u64::from_be_bytes(old.try_into().unwrap()));
    ///         Some(count.to_be_bytes())
    ///     })?;
    ///     Ok::<_, peristyle::Error>(count)
    /// };
    /// assert_eq!(visit("index")?, 1);
    /// assert_eq!(visit("index")?, 2);
    /// # Ok(()) }
    /// ```
    pub fn update<V: AsRef<[u8]>>(
        &self,
        key: impl AsRef<[u8]>,
        change: impl FnMut(Option<&[u8]>) -> Option<V>,
    ) -> Result<SequenceNumber> {
        self.update_with(key, change, self.durability)
    }

    /// Gives `key` the value that `change` makes of its present one with a durability of its own; see
    /// [`update`](Self::update). Where nothing is written what was read has that durability.
    pub fn update_with<V: AsRef<[u8]>>(
        &self,
        key: impl AsRef<[u8]>,
        mut change: impl FnMut(Option<&[u8]>) -> Option<V>,
        durability: Durability,
    ) -> Result<SequenceNumber> {
        let decide = |old: Option<&[u8]>| match change(old) {
            Some(new) if old == Some(new.as_ref()) => Decision::Leave,
            Some(new) => Decision::Set(new),
            None if old.is_none() => Decision::Leave,
            None => Decision::Remove,
        };
        match self.change(key.as_ref(), durability, decide)? {
            Outcome::Written(sequence) | Outcome::Left(sequence, _) => Ok(sequence),
        }
    }

    /// Gives `key` the value `new`, or removes it, if its value is `expected`, or it has none, as one step:
    /// no other write to the key comes between. With the database's default durability. If both are the same
    /// nothing is written, and the number is that of the moment at which the key was read.
    ///
    /// # Errors
    ///
    /// Those of [`put`](Self::put) and [`get`](Self::get).
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let leases = db.create_column_family("leases", FamilyOptions::default())?;
    /// use peristyle::Swap;
    ///
    /// assert!(leases.compare_and_swap("door", None, Some(b"ann"))?.is_done());
    /// match leases.compare_and_swap("door", None, Some(b"ben"))? {
    ///     Swap::Done(_) => unreachable!("ann has the lease"),
    ///     Swap::Differs(holder) => assert_eq!(holder.unwrap(), "ann"),
    /// }
    /// assert!(leases.compare_and_swap("door", Some(b"ann"), None)?.is_done());
    /// # Ok(()) }
    /// ```
    pub fn compare_and_swap(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<Swap> {
        self.compare_and_swap_with(key, expected, new, self.durability)
    }

    /// Compares and swaps with a durability of its own; see [`compare_and_swap`](Self::compare_and_swap).
    /// Where nothing is written what was read has that durability.
    pub fn compare_and_swap_with(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
        durability: Durability,
    ) -> Result<Swap> {
        let decide = |old: Option<&[u8]>| match new {
            _ if old != expected || expected == new => Decision::Leave,
            Some(new) => Decision::Set(new),
            None => Decision::Remove,
        };
        Ok(match self.change(key.as_ref(), durability, decide)? {
            Outcome::Written(sequence) => Swap::Done(sequence),
            Outcome::Left(at, found) if found.as_deref() == expected => Swap::Done(at),
            Outcome::Left(_, found) => Swap::Differs(found),
        })
    }

    fn change<V: AsRef<[u8]>>(
        &self,
        key: &[u8],
        durability: Durability,
        mut decide: impl FnMut(Option<&[u8]>) -> Decision<V>,
    ) -> Result<Outcome> {
        let key = &*self.family().stored_key(key)?;
        check_key_len(key.len())?;
        // The value that was shown last, and the commit that follows from it.
        let mut decided: Option<(Option<Value>, Vec<u8>)> = None;
        loop {
            let log = self.pipeline.writable()?;
            let seen = self.snapshot()?;
            let old = seen.get_stored(key)?;
            let payload = match decided.take() {
                Some((before, payload)) if before.as_deref() == old.as_deref() => payload,
                _ => {
                    epoch::assert_left();
                    let mut payload = Vec::new();
                    match decide(old.as_deref()) {
                        Decision::Leave => {
                            if durability == Durability::Sync {
                                log.sync_through(seen.at).map_err(|error| self.pipeline.fail(error))?;
                            }
                            return Ok(Outcome::Left(seen.at, old));
                        }
                        Decision::Set(new) => {
                            check_value(new.as_ref())?;
                            let expiry = self.usual_expiry(new.as_ref())?;
                            encode_put_until(&mut payload, self.id(), key, new.as_ref(), expiry);
                        }
                        Decision::Remove => encode_delete(&mut payload, self.id(), key),
                    }
                    payload
                }
            };
            if let Some(sequence) = self.commit_unless_changed(key, &payload, durability, &seen)? {
                return Ok(Outcome::Written(sequence));
            }
            decided = Some((old, payload));
        }
    }

    /// Commits `payload`, which writes `key`, if that is as it was `seen`. If it is not, returns when it can
    /// be read what it has become.
    fn commit_unless_changed(
        &self,
        key: &[u8],
        payload: &[u8],
        durability: Durability,
        seen: &FamilySnapshot,
    ) -> Result<Option<SequenceNumber>> {
        let families = std::slice::from_ref(self.family());
        let write = Write { families, payload, operations: 1, has_range_deletions: false };
        let changed_by = Cell::new(None);
        let is_as_seen = || {
            let views = self.pipeline.views.load_full();
            let Ok(now) = views.family(self.family().slot(), self.id()) else { return false };
            if !Arc::ptr_eq(&now.tree, &seen.view.tree) {
                return false;
            }
            changed_by.set(now.memtables().filter_map(|table| table.newest(key)).max());
            changed_by.get().is_none_or(|newest| newest <= seen.at)
        };
        let condition = Condition { families: &[], holds: &is_as_seen, minds_held: true, claimant: None };
        let committed = self.pipeline.commit_if(&write, durability, &condition)?;
        if committed.is_none()
            && let Some(newest) = changed_by.get()
        {
            self.pipeline.wait_until_visible(newest)?;
        }
        Ok(committed)
    }
}
