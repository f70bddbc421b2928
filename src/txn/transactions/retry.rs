//! Running a transaction until no conflict stands in its way.

use std::any::Any;
use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::options::Durability;
use crate::sync::{Arc, thread};
use crate::txn::pipeline::Pipeline;
use crate::txn::transactions::level::{IsolationLevel, Settings};
use crate::txn::transactions::locking::is_passing;
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
    settings: Settings,
    tries: u32,
}

impl fmt::Debug for TransactionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionBuilder")
            .field("settings", &self.settings)
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
        Self { pipeline, keeper, settings: Settings::new(durability), tries: TRIES }
    }

    /// What the transaction is kept from (default: [`IsolationLevel::Serializable`]).
    pub fn level(mut self, level: IsolationLevel) -> Self {
        self.settings.level = level;
        self
    }

    /// What its commit survives (default: the database's).
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability;
        self
    }

    /// Whether it locks what it writes (default: no): each key that is put or deleted, and each range that is
    /// deleted, exclusively, when that is called. So nobody else writes it before this one ends, and a
    /// conflict shows at once. What is read is locked only by
    /// [`get_for_update`](Transaction::get_for_update), in either kind.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};
    /// use peristyle::{ErrorKind, IsolationLevel, LockMode};
    ///
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let counts = db.create_column_family("counts", FamilyOptions::default())?;
    /// let locking = db.transaction().level(IsolationLevel::ReadCommitted).pessimistic(true);
    /// let mut transaction = locking.begin()?;
    /// let count = transaction.get_for_update(&counts, "visits", LockMode::Exclusive)?.map_or(0, |count| count[0]);
    /// transaction.put(&counts, "visits", [count + 1])?;
    ///
    /// let mut other = locking.clone().lock_timeout(std::time::Duration::ZERO).begin()?;
    /// assert_eq!(other.put(&counts, "visits", [7]).unwrap_err().kind(), ErrorKind::LockTimeout);
    /// transaction.commit()?;
    /// other.put(&counts, "visits", [7])?;
    /// # Ok(()) }
    /// ```
    pub fn pessimistic(mut self, pessimistic: bool) -> Self {
        self.settings.pessimistic = pessimistic;
        self
    }

    /// How long it waits for each lock (default: a second; [`Duration::MAX`]: for as long as it takes). Then
    /// the call fails with [`LockTimeout`](crate::ErrorKind::LockTimeout), and the transaction may go on.
    /// The commit of one that has locked nothing waits as long for what others have locked, and holds nothing
    /// meanwhile.
    pub fn lock_timeout(mut self, limit: Duration) -> Self {
        self.settings.lock_timeout = limit;
        self
    }

    /// Whether it only reads (default: no): what it reads is not noted, and nothing is kept for it but the
    /// snapshot that it reads. To write or to lock is [`ReadOnly`](crate::ErrorKind::ReadOnly) then.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, ErrorKind, FamilyOptions, MemoryStorage};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let counts = db.create_column_family("counts", FamilyOptions::default())?;
    /// let mut report = db.transaction().read_only(true).begin()?;
    /// counts.put("visits", "1")?;
    /// assert!(report.get(&counts, "visits")?.is_none());
    /// assert_eq!(report.put(&counts, "visits", "2").unwrap_err().kind(), ErrorKind::ReadOnly);
    /// report.commit()?;
    /// # Ok(()) }
    /// ```
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.settings.read_only = read_only;
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
    /// [`Closed`](crate::ErrorKind::Closed).
    pub fn begin(&self) -> Result<Transaction> {
        Transaction::begin(Arc::clone(&self.pipeline), self.settings, Arc::clone(&self.keeper))
    }

    /// Begins a transaction, has `run` read and write in it, and commits it; and all of that again as long as
    /// the commit meets a [`Conflict`](crate::ErrorKind::Conflict) or a
    /// [`Deadlock`](crate::ErrorKind::Deadlock) or is
    /// [`TransactionTooOld`](crate::ErrorKind::TransactionTooOld), or `run` fails after a lock was refused
    /// for one of these; with growing pauses in between. So `run` may be called several times, and each call
    /// sees what is committed by then. What it gives the last time comes back.
    ///
    /// # Errors
    ///
    /// What `run` fails with: nothing is written then. Otherwise those of [`Transaction::commit`], the
    /// three named included if one of them was met at every try.
    pub fn run<R, E: From<Error>>(
        &self,
        mut run: impl FnMut(&mut Transaction) -> std::result::Result<R, E>,
    ) -> std::result::Result<R, E> {
        let mut tried = 0;
        loop {
            let mut transaction = self.begin()?;
            let id = transaction.id();
            let result = run(&mut transaction);
            tried += 1;
            let (error, is_passing) = match result {
                Ok(result) => match transaction.commit() {
                    Ok(_) => return Ok(result),
                    Err(error) => {
                        let is_passing = is_passing(&error);
                        (error.into(), is_passing)
                    }
                },
                Err(error) => {
                    let is_passing = transaction.is_turned_away();
                    drop(transaction);
                    (error, is_passing)
                }
            };
            if !is_passing || tried >= self.tries {
                return Err(error);
            }
            thread::sleep(pause(tried, id));
        }
    }
}

/// The pause after so many tries: some part of what grows with them, another one for each transaction.
fn pause(tried: u32, id: u64) -> Duration {
    let Some(doublings) = tried.checked_sub(2) else { return Duration::ZERO };
    let most = LONGEST_PAUSE.min(SHORTEST_PAUSE.saturating_mul(1 << doublings.min(16)));
    // Neighbouring numbers are scattered: the fractional part of their product with the golden ratio.
    let part = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
    most.mul_f64(part as f64 / 1024.0)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_scatter_transactions() {
        let longest = |tried| (0..1000).map(|id| pause(tried, id)).max().unwrap_or_default();
        assert_eq!(longest(1), Duration::ZERO, "the second try is made at once");
        for (tried, most) in [(2, 50), (3, 100), (4, 200), (9, 6400), (10, 10_000), (u32::MAX, 10_000)] {
            let most = Duration::from_micros(most);
            assert!(longest(tried) <= most && longest(tried) > most.mul_f64(0.98), "{tried}");
        }
        // Those that met each other have numbers that are close: they come back spread over all of the time.
        let mut pauses: Vec<_> = (100..108).map(|id| pause(20, id)).collect();
        pauses.sort_unstable();
        let gaps = pauses.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.min().is_some_and(|gap| gap > LONGEST_PAUSE / 40), "{pauses:?}");
    }
}
