//! What a transaction locks when it reads and writes.

use crate::column_family::held::Use;
use crate::column_family::reading::value::Value;
use crate::error::{Error, ErrorKind, LockMode, Result};
use crate::txn::handle::ColumnFamily;
use crate::txn::keys::Keys;
use crate::txn::locks::want::{Mode, Want};
use crate::txn::operation::check_key_len;
use crate::txn::transactions::check::{Relied, check, look_ahead};
use crate::txn::transactions::level::IsolationLevel;
use crate::txn::transactions::transaction::Transaction;

impl Transaction {
    /// Its number, which no other one of this opening of the database has: in errors and lists of locks it is
    /// [`LockOwner::Transaction`](crate::LockOwner::Transaction).
    pub fn id(&self) -> u64 {
        self.locking.number()
    }

    /// The value of `key`, or `None`, locked: until the transaction ends, or rolls back to an earlier
    /// savepoint, nobody else writes the key, nor locks it
    /// [`Exclusive`](LockMode::Exclusive)ly. Where others have locked it this waits, in order of arrival.
    ///
    /// At [`ReadCommitted`](IsolationLevel::ReadCommitted) it is the value that stands when the lock is
    /// there. At the other levels it is that of the transaction's moment, and if it was changed since, that
    /// is a conflict at once.
    ///
    /// # Errors
    ///
    /// [`LockTimeout`](crate::ErrorKind::LockTimeout) after [the time that it may
    /// wait](crate::TransactionBuilder::lock_timeout); [`Deadlock`](crate::ErrorKind::Deadlock) as soon as
    /// those for whom it would wait wait for it, [`Conflict`](crate::ErrorKind::Conflict) and
    /// [`TransactionTooOld`](crate::ErrorKind::TransactionTooOld): the key is not locked then, and the
    /// transaction is as before. After the first it may go on, after the others it is best dropped and begun
    /// again. [`AwaitsDecision`](crate::ErrorKind::AwaitsDecision) if a prepared transaction has read or
    /// written the key. Otherwise those of [`get`](Self::get).
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// use peristyle::{IsolationLevel, LockMode};
    ///
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let counts = db.create_column_family("counts", FamilyOptions::default())?;
    /// let settings = db.transaction().level(IsolationLevel::ReadCommitted);
    /// std::thread::scope(|scope| {
    ///     for _ in 0..4 {
    ///         scope.spawn(|| -> peristyle::Result<()> {
    ///             let mut transaction = settings.begin()?;
    ///             let count = transaction.get_for_update(&counts, "visits", LockMode::Exclusive)?;
    ///             transaction.put(&counts, "visits", [count.map_or(0, |count| count[0]) + 1])?;
    ///             transaction.commit()?;
    ///             Ok(())
    ///         });
    ///     }
    /// });
    /// assert_eq!(counts.get("visits")?.unwrap(), [4]);
    /// # Ok(()) }
    /// ```
    pub fn get_for_update(
        &mut self,
        family: &ColumnFamily,
        key: impl AsRef<[u8]>,
        mode: LockMode,
    ) -> Result<Option<Value>> {
        let key = &*family.family().stored_key(key.as_ref())?;
        self.check_database(family)?;
        self.check_writes()?;
        check_key_len(key.len())?;
        let mark = self.locking.mark();
        self.lock(family, Keys::One(key), mode.into())?;
        let used = if mode == LockMode::Shared { Use::Read } else { Use::Write };
        let own = self.own.find(family.id(), key);
        if !own.is_final() {
            self.settle(family, Keys::One(key), used).map_err(|error| self.turn_away(mark, error))?;
            self.note(family, key);
        }
        self.read_behind(own, family, key)
    }

    /// Locks what is going to be written, if this transaction does so.
    pub(super) fn lock_written(&mut self, family: &ColumnFamily, keys: Keys<'_>) -> Result<()> {
        self.check_writes()?;
        if !self.settings.pessimistic {
            return Ok(());
        }
        self.check_database(family)?;
        let mark = self.locking.mark();
        let is_new = self.lock(family, keys, Mode::Exclusive)?;
        if is_new && self.settings.level == IsolationLevel::Snapshot {
            self.settle(family, keys, Use::Write).map_err(|error| self.turn_away(mark, error))?;
        }
        Ok(())
    }

    /// Whether the last lock that it asked for was refused in a way that a new beginning may mend.
    pub(super) fn is_turned_away(&self) -> bool {
        self.locking.is_turned_away()
    }

    /// Refuses to write where the transaction only reads.
    pub(crate) fn check_writes(&self) -> Result<()> {
        match self.settings.read_only {
            false => Ok(()),
            true => Err(Error::new(ErrorKind::ReadOnly, "the transaction was begun for reading only")),
        }
    }

    fn lock(&mut self, family: &ColumnFamily, keys: Keys<'_>, mode: Mode) -> Result<bool> {
        let wants = vec![Want::new(family.id(), keys, mode)];
        self.locking.acquire(&self.pipeline, wants, self.settings.lock_timeout)
    }

    fn turn_away(&mut self, mark: usize, error: Error) -> Error {
        self.locking.turn_away(mark, error)
    }

    /// Of `keys`, which were just locked to be `used` so: returns when all that was committed to them before
    /// is visible, and nobody who is prepared holds them. Fails if any of it was after the moment that is
    /// read.
    fn settle(&self, family: &ColumnFamily, keys: Keys<'_>, used: Use) -> Result<()> {
        let (pipeline, family) = (&self.pipeline, family.family());
        let relied = [Relied { family, keys: vec![keys.into()] }];
        let mut patience = pipeline.prepared.patience();
        loop {
            let read = match &self.moment {
                Some(moment) => Some((moment.at, look_ahead(pipeline, moment.at, &relied)?)),
                None => None,
            };
            // Who looked for locks before this one was taken, and writes, is done.
            let side = family.write.lock();
            if let Some(held) = pipeline.held_of(family, used, keys) {
                drop(side);
                patience.wait(held)?;
                continue;
            }
            if let Some((since, ahead)) = read {
                return check(pipeline, &self.place, since, &relied, &ahead);
            }
            let Keys::One(key) = keys else { return Ok(()) };
            let views = pipeline.views.load_full();
            let view = views.family(family.slot(), family.id())?;
            let newest = view.memtables().filter_map(|table| table.newest(key)).max();
            drop(side);
            return newest.map_or(Ok(()), |newest| pipeline.wait_until_visible(newest));
        }
    }
}
