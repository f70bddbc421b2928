//! Preparing a transaction, deciding it, and finding those that are prepared when a database is opened.

use std::cell::{Cell, RefCell};

use crate::codec::expiry::Now;
use crate::codec::ids::{FamilyId, SequenceNumber};
use crate::codec::key_range::KeyRange;
use crate::column_family::family::Family;
use crate::column_family::held::{Stretch, Use};
use crate::column_family::reading::value::Value;
use crate::error::{Error, ErrorKind, Result};
use crate::options::Durability;
use crate::sync::Arc;
use crate::txn::keys::Keys;
use crate::txn::operation::{
    Operation, Operations, check_key_len, check_value, encode_delete, encode_delete_range, encode_merge,
    encode_merge_stamped, encode_put, encode_put_expiring,
};
use crate::txn::pipeline::{Condition, Pipeline, Write};
use crate::txn::prepared::stored::{Stored, stretch};
use crate::txn::prepared::table::{Decision, Undecided};
use crate::txn::prepared::waiting::HeldBack;

/// Why a transaction is not prepared, yet or for good.
enum Refused {
    HeldBack(HeldBack),
    For(Error),
}

impl Pipeline {
    /// What prepared transactions hold of what `write` writes to, if anything. Call under the write locks of
    /// `families`, which are all that it touches, ascending.
    #[inline]
    pub(in crate::txn) fn held_back(&self, write: &Write<'_>, families: &[&Arc<Family>]) -> Option<HeldBack> {
        if families.iter().all(|family| family.held.is_free()) {
            return None;
        }
        self.find_held(write, families)
    }

    /// What prepared transactions hold of `keys`, if that keeps others from using them so. Call under the
    /// write lock of the family.
    pub(in crate::txn) fn held_of(&self, family: &Family, used: Use, keys: Keys<'_>) -> Option<HeldBack> {
        if family.held.is_free() {
            return None;
        }
        let seen = self.prepared.decisions.count();
        let keys = match keys {
            Keys::One(key) => Stretch::key(key),
            Keys::Range(start, end) => Stretch::range(start, end),
        };
        family.held.keeps_from(used, keys).then(|| HeldBack::new(seen, family, keys))
    }

    #[cold]
    fn find_held(&self, write: &Write<'_>, families: &[&Arc<Family>]) -> Option<HeldBack> {
        let seen = self.prepared.decisions.count();
        Operations::new(write.payload).map_while(Result::ok).find_map(|(id, operation)| {
            let place = families.binary_search_by_key(&id, |family| family.id()).ok()?;
            let (family, keys) = (families[place], stretch(&operation));
            family.held.keeps_from(Use::Write, keys).then(|| HeldBack::new(seen, family, keys))
        })
    }

    /// Prepares a transaction as `name`, in the family `kept_in`. `value` is how it is stored, `families` are
    /// all that it has read or written, ascending; `check` fails if it may not be committed, and is asked
    /// under their write locks. Durable when this returns.
    pub(in crate::txn) fn prepare(
        &self,
        kept_in: &Arc<Family>,
        name: &[u8],
        value: &[u8],
        families: Vec<Arc<Family>>,
        check: &dyn Fn() -> Result<()>,
    ) -> Result<Arc<Undecided>> {
        check_key_len(name.len())?;
        check_value(value)?;
        let stored = Stored::decode(value)?;
        let taken = self.prepared.take_name(name)?;
        let mut payload = Vec::new();
        encode_put(&mut payload, kept_in.id(), name, value);
        let write = Write {
            families: std::slice::from_ref(kept_in),
            payload: &payload,
            operations: 1,
            has_range_deletions: false,
        };
        let (refused, holds) = (RefCell::new(None), Cell::new(false));
        let may_be_prepared = || {
            // On a full disk the commit is tried again, and its own hold is not to be in its way.
            if holds.replace(false) {
                stored.let_go(&families);
                self.prepared.decisions.announce();
            }
            let looked = check().map_err(Refused::For).and_then(|()| self.look_at_uses(stored, &families));
            if let Err(why) = looked {
                refused.replace(Some(why));
                return false;
            }
            stored.hold(&families);
            holds.set(true);
            true
        };
        let used: Vec<_> = families.iter().collect();
        let condition =
            Condition { families: &used, holds: &may_be_prepared, minds_held: true, claimant: None };
        let mut patience = self.prepared.patience();
        loop {
            match self.commit_if(&write, Durability::Sync, &condition) {
                Ok(Some(_)) => break,
                Ok(None) => match refused.take().expect("what is refused has a reason") {
                    Refused::HeldBack(held) => patience.wait(held)?,
                    Refused::For(error) => return Err(error),
                },
                Err(error) => {
                    if holds.get() {
                        stored.let_go(&families);
                        self.prepared.decisions.announce();
                    }
                    return Err(error);
                }
            }
        }
        let undecided = Arc::new(Undecided::new(name, kept_in, families));
        taken.list(&undecided);
        Ok(undecided)
    }

    /// Fails unless all that is used may be.
    fn look_at_uses(&self, stored: Stored<'_>, families: &[Arc<Family>]) -> std::result::Result<(), Refused> {
        let seen = self.prepared.decisions.count();
        for (used, family, keys) in stored.used_of(families) {
            let takes_it = match used {
                Use::Read => family.check_not_dropped(),
                Use::Write => family.check_takes_writes(),
            };
            takes_it.map_err(Refused::For)?;
            if family.held.keeps_from(used, keys) {
                return Err(Refused::HeldBack(HeldBack::new(seen, family, keys)));
            }
        }
        Ok(())
    }

    /// Decides a prepared transaction. Durable when this returns; gives the number of the decision.
    ///
    /// # Errors
    /// [`TransactionNotFound`](ErrorKind::TransactionNotFound) if it was decided before. Else it stays
    /// prepared, unless all writing has ended: then its state turns out when the database is opened again.
    pub(crate) fn decide(&self, undecided: &Undecided, decision: Decision) -> Result<SequenceNumber> {
        self.writable()?;
        let mut decided = undecided.decision.lock();
        if let Some(earlier) = *decided {
            let what = match earlier {
                Decision::Commit => "committed",
                Decision::Rollback => "rolled back",
            };
            let name = undecided.name.escape_ascii();
            let message = format!("the transaction that was prepared as \"{name}\" was {what} before");
            return Err(Error::new(ErrorKind::TransactionNotFound, message));
        }
        let Undecided { name, kept_in, families, .. } = undecided;
        let value = self.stored(undecided)?;
        let value = value.ok_or_else(|| self.fail(Error::corruption("a prepared transaction is gone")))?;
        let stored = Stored::decode(&value).map_err(|error| error.of_family(kept_in.id().0))?;
        let sequence = loop {
            let batch = Batch::of(undecided, stored, decision);
            match self.commit_if(&batch.as_write(), Durability::Sync, &Condition::WHATEVER_IS_HELD) {
                Ok(Some(sequence)) => break sequence,
                Ok(None) => unreachable!("a commit on no condition was not made"),
                // What it has for a family that is dropped meanwhile goes with the family.
                Err(error) if batch.writes_to_dropped() && error.kind() == ErrorKind::FamilyDropped => {}
                Err(error) => {
                    // Made, and perhaps not durable: who lists what is prepared sees what readers see.
                    if self.latch.check().is_err() && matches!(self.stored(undecided), Ok(None)) {
                        self.prepared.forget(name);
                    }
                    return Err(error);
                }
            }
        };
        stored.let_go(families);
        self.prepared.forget(name);
        *decided = Some(decision);
        drop(decided);
        self.prepared.decisions.announce();
        Ok(sequence)
    }

    fn stored(&self, undecided: &Undecided) -> Result<Option<Value>> {
        let (family, now) = (&undecided.kept_in, self.now());
        now.view.family(family.slot(), family.id())?.get(&undecided.name, now.at, Now::UNASKED)
    }

    /// Finds what is prepared, in the family `kept_in`, and has it hold what it uses again; `find` gives
    /// families by number. Nobody else has the database yet.
    pub(crate) fn find_prepared(
        &self,
        kept_in: &Arc<Family>,
        find: impl Fn(FamilyId) -> Option<Arc<Family>>,
    ) -> Result<()> {
        let now = self.now();
        let view = now.view.family(kept_in.slot(), kept_in.id())?;
        let mut cursor = view.cursor(now.at, Now::UNASKED, KeyRange::default());
        let mut is_there = cursor.first()?;
        while is_there {
            let (name, value) = (cursor.key().to_vec(), cursor.value()?);
            let stored = Stored::decode(value).map_err(|error| error.of_family(kept_in.id().0))?;
            let families: Vec<_> = stored.families().into_iter().filter_map(&find).collect();
            stored.hold(&families);
            let taken = self.prepared.take_name(&name)?;
            taken.list(&Arc::new(Undecided::new(&name, kept_in, families)));
            is_there = cursor.next()?;
        }
        Ok(())
    }
}

/// A decision, and what it does.
struct Batch {
    families: Vec<Arc<Family>>,
    payload: Vec<u8>,
    operations: u64,
    has_range_deletions: bool,
}

impl Batch {
    fn of(undecided: &Undecided, stored: Stored<'_>, decision: Decision) -> Self {
        let kept_in = &undecided.kept_in;
        let mut batch = Self {
            families: vec![Arc::clone(kept_in)],
            payload: Vec::new(),
            operations: 1,
            has_range_deletions: false,
        };
        encode_delete(&mut batch.payload, kept_in.id(), &undecided.name);
        if decision == Decision::Commit {
            for (id, operation) in stored.writes() {
                if let Some(family) = undecided.family(id).filter(|family| !family.is_dropped()) {
                    batch.add(family, &operation);
                }
            }
        }
        batch
    }

    fn add(&mut self, family: &Arc<Family>, operation: &Operation<'_>) {
        let id = family.id();
        match *operation {
            Operation::Put { key, value } => encode_put(&mut self.payload, id, key, value),
            Operation::PutExpiring { key, value } => {
                encode_put_expiring(&mut self.payload, id, key, value.stamped);
            }
            Operation::Merge { key, operand } => encode_merge(&mut self.payload, id, key, operand),
            Operation::MergeExpiring { key, operand } => {
                encode_merge_stamped(&mut self.payload, id, key, operand.stamped);
            }
            Operation::Delete { key } => encode_delete(&mut self.payload, id, key),
            Operation::DeleteRange { start, end } => {
                encode_delete_range(&mut self.payload, id, start, end);
                self.has_range_deletions = true;
            }
        }
        self.operations += 1;
        if self.families.iter().rev().all(|listed| listed.id() != id) {
            self.families.push(Arc::clone(family));
        }
    }

    fn as_write(&self) -> Write<'_> {
        Write {
            families: &self.families,
            payload: &self.payload,
            operations: self.operations,
            has_range_deletions: self.has_range_deletions,
        }
    }

    fn writes_to_dropped(&self) -> bool {
        self.families.iter().any(|family| family.is_dropped())
    }
}
