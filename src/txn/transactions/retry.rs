//! Running a transaction until no conflict stands in its way.

use std::any::Any;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::options::Durability;
use crate::sync::{Arc, thread};
use crate::txn::pipeline::Pipeline;
use crate::txn::transactions::level::IsolationLevel;
use crate::txn::transactions::transaction::Transaction;

/// Tries, if nobody asks for another number.
const TRIES: u32 = 32;
/// The pause before the third try is so long at most, that before each later one twice as long, up to the
/// longest. The second is made at once.
const SHORTEST_PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// Settings of a transaction. Made by
/// [`ColumnFamilyDatabase::transaction`](crate::ColumnFamilyDatabase::transaction).
///
/// ```
/// # fn main() -> peristyle::Result<()> {
/// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
/// use peristyle::{Durability, IsolationLevel};
///
/// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
/// # let counts = db.create_column_family("counts", FamilyOptions::default())?;
/// let settings = db.transaction().level(IsolationLevel::Snapshot).durability(Durability::Sync);
/// let mut transaction = settings.begin()?;
/// transaction.put(&counts, "visits", "1")?;
/// transaction.commit()?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "settings do nothing until `begin` or `run` is called"]
pub struct TransactionBuilder {
    pipeline: Arc<Pipeline>,
    keeper: Arc<dyn Any + Send + Sync>,
    level: IsolationLevel,
    durability: Durability,
    tries: u32,
}

impl fmt::Debug for TransactionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionBuilder")
            .field("level", &self.level)
            .field("durability", &self.durability)
            .field("tries", &self.tries)
            .finish_non_exhaustive()
    }
}

impl TransactionBuilder {
    pub(crate) fn new(
        pipeline: Arc<Pipeline>,
        durability: Durability,
        keeper: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        Self { pipeline, keeper, level: IsolationLevel::default(), durability, tries: TRIES }
    }

    /// What the transaction is kept from (default: [`IsolationLevel::Serializable`]).
    pub fn level(mut self, level: IsolationLevel) -> Self {
        self.level = level;
        self
    }

    /// What its commit survives (default: the database's).
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How often [`run`](Self::run) tries at most (default: 32 times, at least once).
    pub fn tries(mut self, tries: u32) -> Self {
        self.tries = tries;
        self
    }

    /// Begins a transaction at the present moment.
    ///
    /// # Errors
    ///
    /// [`Closed`](ErrorKind::Closed).
    pub fn begin(&self) -> Result<Transaction> {
        Transaction::begin(Arc::clone(&self.pipeline), self.level, self.durability, Arc::clone(&self.keeper))
    }

    /// Begins a transaction, has `run` read and write in it, and commits it; and all of that again as long as
    /// the commit meets a [`Conflict`](ErrorKind::Conflict) or is
    /// [`TransactionTooOld`](ErrorKind::TransactionTooOld), with growing pauses in between. So `run` may be
    /// called several times, and each call sees what is committed by then. What it gives the last time comes
    /// back.
    ///
    /// # Errors
    ///
    /// What `run` fails with: nothing is written then. Otherwise those of [`Transaction::commit`], the
    /// two named included if one of them was met at every try.
    pub fn run<R, E: From<Error>>(
        &self,
        mut run: impl FnMut(&mut Transaction) -> std::result::Result<R, E>,
    ) -> std::result::Result<R, E> {
        let mut tried = 0;
        loop {
            let mut transaction = self.begin()?;
            let result = run(&mut transaction)?;
            tried += 1;
            match transaction.commit() {
                Ok(_) => return Ok(result),
                Err(error) if is_passing(&error) && tried < self.tries => pause(tried),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether a transaction that begins anew need not meet the error again.
fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Conflict | ErrorKind::TransactionTooOld)
}

/// Waits after so many tries: some part, by chance, of what grows with them.
fn pause(tried: u32) {
    let Some(doublings) = tried.checked_sub(2) else { return };
    let most = LONGEST_PAUSE.min(SHORTEST_PAUSE.saturating_mul(1 << doublings.min(16)));
    let part = RandomState::new().hash_one(tried) % 1024;
    thread::sleep(most.mul_f64(part as f64 / 1024.0));
}
