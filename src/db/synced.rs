//! What is durable, waiting for it, and telling whoever asked.
//!
//! Callbacks wait in a queue, by the number of the commit that they were given for. A thread of their own,
//! which starts with the first of them, has the log synced through the highest number that is waited for, in
//! a group with all others who wait for a sync, and then calls those whose number is durable:
//!
//! ```text
//! until the database has ended:
//!     wait until anybody waits
//!     log.sync_through(the highest number waited for)
//!     call, lowest number first, whoever's number is durable; all, if the sync failed
//! ```
//!
//! Invariants: 1. A callback that was taken in is called once: with `Ok` only if the log is durable through
//! its number, and with an error
//!    only if it will not be before the database is opened again.
//! 2. Of callbacks that wait at the same time those with lower numbers are called before; of equal numbers,
//! whoever came first. 3. It is called on that thread alone, while no lock is held and with nobody waiting
//! for the thread, not even `close`: so it
//!    may block, panic, write, ask again, and close or drop the database. What it holds up is the callbacks
//!    behind it.
//!
//! The rejected alternative, that whoever leads a sync calls those whom it covered, has a writer run what
//! others wrote, and the thread that keeps the log late for its next sync.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::codec::ids::SequenceNumber;
use crate::db::database::ColumnFamilyDatabase;
use crate::db::shared::Shared;
use crate::db::waiting::{Callback, Next, closed};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, epoch, thread};
use crate::wal::Log;

/// Calls what a user gave.
fn call(callback: Callback, outcome: Result<()>) {
    epoch::assert_left();
    if catch_unwind(AssertUnwindSafe(|| callback(outcome))).is_err() {
        tracing::error!("a callback given to `on_synced` panicked");
    }
}

impl ColumnFamilyDatabase {
    /// The number up to which every commit that is in the log is durable: it survives a loss of power. Costs
    /// one load.
    ///
    /// Commits of [`Durability::None`](crate::Durability::None) have numbers, too, but are not in the log:
    /// nothing is said about them, and [`flush`](Self::flush) makes them durable. 0 if the database was
    /// opened for reading only.
    pub fn synced_through(&self) -> SequenceNumber {
        let log = self.pipeline().log.as_ref().filter(|_| self.is_ours());
        log.map_or(SequenceNumber(0), Log::durable)
    }

    /// Returns once every commit up to `sequence` that is in the log is durable. Syncs the log, together with
    /// all others who wait for that, unless it is so already; blocks meanwhile.
    ///
    /// # Errors
    ///
    /// Those of [`sync`](Self::sync), and [`InvalidArgument`](ErrorKind::InvalidArgument) for a number that
    /// no commit has yet.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, Durability, FamilyOptions, MemoryStorage};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let log = db.create_column_family("log", FamilyOptions::default())?;
    /// let entry = log.put_with(7u64.to_be_bytes(), "set x to 1", Durability::Buffered)?;
    /// db.sync_through(entry)?;
    /// assert!(db.synced_through() >= entry);
    /// # Ok(()) }
    /// ```
    pub fn sync_through(&self, sequence: SequenceNumber) -> Result<()> {
        self.pipeline().open()?;
        let log = self.shared().log_with(sequence)?;
        log.sync_through(sequence).map_err(|error| self.pipeline().fail(error))
    }

    /// Has `callback` called once every commit up to `sequence` that is in the log is durable, and the log
    /// synced for it, in one sync for all who wait then. Returns at once: no thread of the caller waits.
    ///
    /// It is called with `Ok` when that is so, also if it was before; or with the error because of which it
    /// will not be: a sync failed, and only opening the database again tells what of it survived. It is
    /// called once, on a thread that calls nothing else. Those with lower numbers come first, and of equal
    /// numbers whoever asked first. A callback may do whatever it likes: one that blocks holds up those
    /// behind it, and nothing else; if one panics that is noted through `tracing`, and the next is called.
    ///
    /// When the database is closed, or its last handle dropped, whatever was committed before is synced, and
    /// who still waits is called, perhaps after `close` has returned. What
    /// [`synced_through`](Self::synced_through) says of commits that are not in the log holds here, too.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a number that no commit has yet,
    /// [`Closed`](ErrorKind::Closed), [`ReadOnly`](ErrorKind::ReadOnly), and [`Io`](ErrorKind::Io) if no
    /// thread could be started. The callback is dropped then, and never called.
    ///
    /// ```
    /// # fn main() -> peristyle::Result<()> {
    /// # use peristyle::{ColumnFamilyDatabase, Durability, FamilyOptions, MemoryStorage};
    /// # let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory")?;
    /// # let log = db.create_column_family("log", FamilyOptions::default())?;
    /// // A follower appends an entry, and acknowledges it to its leader as soon as it is durable.
    /// let (acknowledge, acknowledged) = std::sync::mpsc::channel();
    /// let entry = log.put_with(7u64.to_be_bytes(), "set x to 1", Durability::Buffered)?;
    /// db.on_synced(entry, move |outcome| {
    ///     let _ = acknowledge.send(outcome.map(|()| 7));
    /// })?;
    /// assert_eq!(acknowledged.recv().unwrap()?, 7);
    /// # Ok(()) }
    /// ```
    pub fn on_synced(
        &self,
        sequence: SequenceNumber,
        callback: impl FnOnce(Result<()>) + Send + 'static,
    ) -> Result<()> {
        self.pipeline().open()?;
        let shared = self.shared();
        shared.log_with(sequence)?;
        shared.waiting.add(sequence, Box::new(callback), || shared.start_telling())
    }
}

impl Shared {
    /// The log, if there is a commit `sequence`.
    fn log_with(&self, sequence: SequenceNumber) -> Result<&Log> {
        let log = self.pipeline.log()?;
        let last = SequenceNumber(self.pipeline.visible.watermark());
        if sequence > last {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("there is no commit {sequence} yet; the last one is {last}"),
            ));
        }
        Ok(log)
    }

    fn start_telling(self: &Arc<Self>) -> Result<()> {
        let shared = Arc::clone(self);
        let builder = thread::Builder::new().name("peristyle-synced".into());
        // Nobody joins it: a callback may be what ends the database, or never return.
        let thread = builder.spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| shared.tell_who_waits())).is_err() {
                let panicked = Error::new(ErrorKind::WriteFailed, "a background thread panicked");
                shared.pipeline.fail(panicked);
                shared.waiting.end();
                shared.tell_who_waits();
            }
            // It may be the last that has it.
            drop(shared);
            epoch::drain();
        });
        thread.map(drop).map_err(|error| Error::io("starting the thread that calls back", error))
    }

    fn tell_who_waits(&self) {
        let Some(log) = &self.pipeline.log else { return };
        loop {
            let next = self.waiting.next();
            let failure = match next {
                Next::SyncThrough(highest) => {
                    let synced = log.sync_through(highest);
                    synced.err().map(|error| self.pipeline.fail(error))
                }
                Next::End => {
                    let failed = log.failed().map(|error| error.as_first_cause());
                    Some(failed.or_else(|| self.pipeline.latch.check().err()).unwrap_or_else(closed))
                }
            };
            let through = if failure.is_some() { SequenceNumber::MAX } else { log.durable() };
            while let Some((sequence, callback)) = self.waiting.take(through) {
                match &failure {
                    Some(error) if sequence > log.durable() => call(callback, Err(error.clone())),
                    _ => call(callback, Ok(())),
                }
            }
            if next == Next::End {
                return;
            }
        }
    }
}
