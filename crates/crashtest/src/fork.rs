//! Children that a process forks while a database is at work in it: each has copies of the handles and of the
//! descriptors, calls everything, lets go of everything and ends, and may have done nothing to the database.

use std::time::{Duration, Instant};

use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, Cursor, Durability, ErrorKind, FamilyOptions, Iter, LockMode,
    PreparedTransaction, SequenceNumber, Snapshot, Transaction, WriteBatch,
};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::violation::{Checked, Kind, Violation};

/// How long a child may take, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a child inherits.
struct Inheritance {
    db: ColumnFamilyDatabase,
    family: ColumnFamily,
    snapshot: Snapshot,
    cursor: Cursor,
    /// It has more to give, unless the family is empty.
    iter: Option<Iter>,
    batch: WriteBatch,
    /// One is committed, the other prepared.
    transactions: [Transaction; 2],
    prepared: Vec<PreparedTransaction>,
}

impl Inheritance {
    fn new(db: ColumnFamilyDatabase, family: &str) -> peristyle::Result<Self> {
        let family = db.column_family(family)?;
        let mut batch = WriteBatch::new();
        batch.put(&family, KEY, "child");
        let begin = || {
            let mut transaction = db.begin()?;
            transaction.put(&family, KEY, "child").map(|_| transaction)
        };
        let mut iter = family.iter()?;
        let is_empty = iter.next().transpose()?.is_none();
        Ok(Self {
            snapshot: db.snapshot()?,
            cursor: family.cursor()?,
            iter: (!is_empty).then_some(iter),
            batch,
            transactions: [begin()?, begin()?],
            prepared: db.prepared_transactions()?,
            family,
            db,
        })
    }

    /// What the child does: everything, each with the same answer. Says what was let in.
    fn use_all(mut self) -> Result<(), &'static str> {
        let mut first = None;
        let mut refused = |what: &'static str, error: Option<peristyle::Error>| {
            if error.is_none_or(|error| error.kind() != ErrorKind::ForkedChild) {
                first.get_or_insert(what);
            }
        };
        let Self { db, family, snapshot, batch, .. } = &self;
        refused("put", family.put(KEY, "child").err());
        refused("put_with", family.put_with(KEY, "child", Durability::Sync).err());
        refused("merge", family.merge(KEY, "child").err());
        refused("delete", family.delete(KEY).err());
        refused("delete_range", family.delete_range(..).err());
        refused("update", family.update(KEY, |_| Some("child")).err());
        refused("write", db.write(batch).err());
        refused("get", family.get(KEY).err());
        refused("a snapshot's get", snapshot.get(family, KEY).err());
        refused("iter", family.iter().err());
        refused("create", db.create_column_family("child", FamilyOptions::default()).err());
        refused("drop", db.drop_column_family(&family.name()).err());
        refused("rename", db.rename_column_family(&family.name(), "child").err());
        refused("sync", db.sync().err());
        refused("on_synced", db.on_synced(SequenceNumber(1), |_| ()).err());
        refused("wait_until_idle", db.wait_until_idle().err());
        refused("flush", db.flush().err());
        refused("checkpoint", db.checkpoint().err());
        refused("compact", db.compact().err());
        refused("verify", db.verify().err());
        refused("snapshot", db.snapshot().err());
        refused("begin", db.begin().err());
        refused("prepared_transactions", db.prepared_transactions().err());
        refused("a cursor", self.cursor.first().err());
        if let Some(mut iter) = self.iter {
            refused("an iterator", iter.next().and_then(Result::err));
        }
        let [mut committed, prepared] = self.transactions;
        let lock = committed.get_for_update(&self.family, KEY, LockMode::Shared);
        refused("a lock", lock.err());
        refused("a commit", committed.commit().err());
        refused("a preparation", prepared.prepare("by a child").err());
        for prepared in &self.prepared {
            refused("a decision", prepared.commit().err());
        }
        refused("close", self.db.close().err());
        first.map_or(Ok(()), Err)
    }
}

/// No writer's: what a child wrote there would be found.
const KEY: &[u8] = b"\xffchild";

/// Forks a child that uses `db` and ends, and waits for that.
///
/// # Errors
/// A broken promise.
pub fn fork(db: ColumnFamilyDatabase, family: &str, random: &mut ChaCha8Rng) -> Checked<()> {
    let inherited = Inheritance::new(db, family)
        .map_err(|error| Violation::new(Kind::Wrong, format!("before a fork: {error}")))?;
    let (uses, exits): (bool, bool) = (random.random(), random.random());
    // SAFETY: the child ends without returning to the caller. It takes no lock but the engine's, which are
    // what is tried, and the allocator's, which the C library makes usable in it.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Ok(());
    }
    if child == 0 {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            if uses {
                return inherited.use_all();
            }
            drop(inherited);
            Ok(())
        }));
        let status = match outcome {
            Ok(Ok(())) => 0,
            Ok(Err(what)) => {
                let what = format!("violation a forked child was let into {what}\n");
                // SAFETY: the bytes live for the whole call.
                unsafe { libc::write(1, what.as_ptr().cast(), what.len()) };
                1
            }
            Err(_) => 2,
        };
        // SAFETY: the first ends the process as it is, the other runs what is to be run at exit before.
        unsafe { if exits { libc::exit(status) } else { libc::_exit(status) } };
    }
    wait(child)
}

/// Waits for the end of a child.
fn wait(child: libc::pid_t) -> Checked<()> {
    let begun = Instant::now();
    let mut status = 0;
    // SAFETY: waits for a child of this process, which nobody else waits for.
    while unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } == 0 {
        if begun.elapsed() > PATIENCE {
            // SAFETY: the child is there until it is waited for.
            unsafe { libc::kill(child, libc::SIGKILL) };
            return Err(Violation::new(Kind::Hung, "a forked child hangs"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 {
        return Ok(());
    }
    Err(Violation::new(Kind::Wrong, format!("a forked child ended with status {status:#x}")))
}
