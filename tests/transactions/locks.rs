//! What transactions lock: who waits, who is refused, and that nothing is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, Error, ErrorKind, FamilyOptions, IsolationLevel, LockMode, LockOwner,
    LockedWrites, MemoryStorage, Result, Transaction, TransactionBuilder, WriteBatch,
};

use crate::common::{failure, shrunken};

/// Longer than anybody has to wait, unless he is forgotten.
const LONG: Duration = Duration::from_secs(60);

const LEVELS: [IsolationLevel; 3] =
    [IsolationLevel::Serializable, IsolationLevel::Snapshot, IsolationLevel::ReadCommitted];

fn open(writes: LockedWrites) -> (ColumnFamilyDatabase, ColumnFamily) {
    let builder = shrunken().automatic_maintenance(false).locked_writes(writes);
    let db = builder.storage(MemoryStorage::new()).open("memory").unwrap();
    let cf = db.create_column_family("one", FamilyOptions::default()).unwrap();
    (db, cf)
}

fn settings(db: &ColumnFamilyDatabase, level: IsolationLevel) -> TransactionBuilder {
    db.transaction().level(level).pessimistic(true).lock_timeout(LONG)
}

/// Who waits for nothing.
fn hasty(db: &ColumnFamilyDatabase) -> Transaction {
    let settings = settings(db, IsolationLevel::ReadCommitted).lock_timeout(Duration::ZERO);
    settings.begin().unwrap()
}

/// Returns when `waiting` wait.
fn until_waiting(db: &ColumnFamilyDatabase, waiting: u64) {
    let since = Instant::now();
    while db.statistics().locks.waiting != waiting {
        assert!(since.elapsed() < LONG, "{waiting} do not come to wait");
        thread::yield_now();
    }
}

fn number(value: Option<peristyle::Value>) -> u64 {
    value.map_or(0, |value| u64::from_be_bytes(value[..].try_into().unwrap()))
}

/// A way to write to the key "f".
#[derive(Debug, Clone, Copy)]
enum Write {
    Put,
    LongPut,
    Delete,
    DeleteRange,
    Batch,
    ManyInABatch,
    LargeBatch,
    Update,
    Swap,
    Optimistic,
    OptimisticThatLocks,
}

const WRITES: [Write; 11] = [
    Write::Put,
    Write::LongPut,
    Write::Delete,
    Write::DeleteRange,
    Write::Batch,
    Write::ManyInABatch,
    Write::LargeBatch,
    Write::Update,
    Write::Swap,
    Write::Optimistic,
    Write::OptimisticThatLocks,
];

impl Write {
    fn run(self, db: &ColumnFamilyDatabase, cf: &ColumnFamily) -> Result<()> {
        let batch = |count: u8, len: usize| {
            let mut batch = WriteBatch::new();
            for n in 0..count {
                batch.put(cf, [b"z", &[n][..]].concat(), vec![n; len]);
            }
            db.write(batch.put(cf, "f", "new"))
        };
        match self {
            Self::Put => cf.put("f", "new"),
            Self::LongPut => cf.put("f", [7; 1000]),
            Self::Delete => cf.delete("f"),
            Self::DeleteRange => cf.delete_range("e".."g"),
            Self::Batch => batch(2, 10),
            Self::ManyInABatch => batch(100, 10),
            Self::LargeBatch => batch(20, 1500),
            Self::Update => cf.update("f", |old| Some([old.unwrap_or_default(), b"+"].concat())),
            Self::Swap => cf.compare_and_swap("f", Some(b"old"), Some(b"new")).map(|swap| {
                assert!(swap.is_done());
                peristyle::SequenceNumber(0)
            }),
            Self::Optimistic | Self::OptimisticThatLocks => {
                let mut transaction = db.transaction().lock_timeout(Duration::ZERO).begin().unwrap();
                if matches!(self, Self::OptimisticThatLocks) {
                    transaction.get_for_update(cf, "other", LockMode::Shared).unwrap();
                }
                transaction.put(cf, "f", "new").unwrap();
                transaction.commit()
            }
        }
        .map(drop)
    }
}

/// A way to lock the key "f", and what keeps nobody from other keys.
const LOCKS: [fn(&mut Transaction, &ColumnFamily); 4] = [
    |transaction, cf| drop(transaction.get_for_update(cf, "f", LockMode::Shared).unwrap()),
    |transaction, cf| drop(transaction.get_for_update(cf, "f", LockMode::Exclusive).unwrap()),
    |transaction, cf| transaction.put(cf, "f", "mine").unwrap(),
    |transaction, cf| transaction.delete_range(cf, "ee".."ff").unwrap(),
];

#[test]
fn whatever_is_written_to_a_locked_key_is_refused_as_a_whole() {
    for level in LEVELS {
        for (way, lock) in LOCKS.iter().enumerate() {
            let (db, cf) = open(LockedWrites::Fail);
            cf.put("f", "old").unwrap();
            let mut transaction = settings(&db, level).begin().unwrap();
            lock(&mut transaction, &cf);
            let before = db.snapshot().unwrap().sequence_number();
            for write in WRITES {
                let error = failure(write.run(&db, &cf), ErrorKind::LockTimeout);
                let awaited = &error.awaited()[0];
                assert_eq!(awaited.waits_for, LockOwner::Transaction(transaction.id()), "{write:?} {way}");
                assert_eq!(awaited.wanted.family_name, "one");
                assert!(error.to_string().contains("\"one\""), "{error}");
            }
            assert_eq!(db.snapshot().unwrap().sequence_number(), before, "{level:?} {way}");
            cf.put("g", "free").unwrap();
            transaction.rollback();
            cf.put("f", "old").unwrap();
            for write in WRITES {
                write.run(&db, &cf).unwrap();
                cf.put("f", "old").unwrap();
            }
            assert_eq!(db.statistics().locks.held, 0);
        }
    }
}

#[test]
fn whatever_is_written_to_a_locked_key_waits_and_comes_after() {
    for write in WRITES {
        // These have a time limit of their own.
        if matches!(write, Write::Optimistic | Write::OptimisticThatLocks) {
            continue;
        }
        let (db, cf) = open(LockedWrites::Wait(LONG));
        cf.put("f", "old").unwrap();
        let mut transaction = settings(&db, IsolationLevel::ReadCommitted).begin().unwrap();
        let read = transaction.get_for_update(&cf, "f", LockMode::Exclusive).unwrap();
        assert_eq!(read.unwrap(), "old");
        thread::scope(|scope| {
            let writer = scope.spawn(|| write.run(&db, &cf));
            until_waiting(&db, 1);
            transaction.put(&cf, "f", "old").unwrap();
            assert!(!writer.is_finished());
            transaction.commit().unwrap();
            writer.join().unwrap().unwrap();
        });
        let left = cf.get("f").unwrap();
        assert_ne!(left.as_deref(), Some(&b"old"[..]), "{write:?}");
        if matches!(write, Write::Update) {
            assert_eq!(left.unwrap(), "old+");
        }
        let locks = db.statistics().locks;
        assert_eq!((locks.held, locks.waits, locks.waiting), (0, 1, 0), "{write:?}");
        assert!(!locks.wait_time.is_zero());
    }
}

#[test]
fn a_commit_waits_for_what_others_have_locked_as_long_as_its_transaction_says() {
    // One that is short, one that is not, and one that is checked.
    let begins: [fn(&TransactionBuilder, &ColumnFamily) -> Transaction; 3] = [
        |settings, _| settings.begin().unwrap(),
        |settings, cf| {
            let mut transaction = settings.begin().unwrap();
            transaction.put(cf, "g", [7; 1000]).unwrap();
            transaction
        },
        |settings, cf| {
            let transaction = settings.begin().unwrap();
            assert!(transaction.get(cf, "h").unwrap().is_none());
            transaction
        },
    ];
    for begin in begins {
        for (plain, waits) in [(LockedWrites::Wait(LONG), false), (LockedWrites::Fail, true)] {
            let (db, cf) = open(plain);
            let mut holder = settings(&db, IsolationLevel::ReadCommitted).begin().unwrap();
            holder.put(&cf, "f", "held").unwrap();
            let limit = if waits { LONG } else { Duration::ZERO };
            let mut optimistic = begin(&db.transaction().lock_timeout(limit), &cf);
            optimistic.put(&cf, "f", "new").unwrap();
            let who = LockOwner::Transaction(optimistic.id());
            if !waits {
                let error = failure(optimistic.commit(), ErrorKind::LockTimeout);
                assert_eq!(error.awaited()[0].wanted.owner, who);
                continue;
            }
            thread::scope(|scope| {
                let commit = scope.spawn(|| optimistic.commit());
                until_waiting(&db, 1);
                assert_eq!(db.locks().awaited[0].wanted.owner, who);
                holder.rollback();
                commit.join().unwrap().unwrap();
            });
            assert_eq!(cf.get("f").unwrap().unwrap(), "new");
            assert_eq!(db.statistics().locks.held, 0);
        }
    }
}

#[test]
fn of_what_is_locked_the_newest_is_read_or_a_change_is_a_conflict_at_once() {
    for pessimistic in [false, true] {
        for level in LEVELS {
            let (db, cf) = open(LockedWrites::Fail);
            let mut transaction = db.transaction().level(level).pessimistic(pessimistic).begin().unwrap();
            cf.put("a", "1").unwrap();
            cf.put("range", "1").unwrap();
            let read = transaction.get_for_update(&cf, "a", LockMode::Exclusive);
            if level == IsolationLevel::ReadCommitted {
                assert_eq!(read.unwrap().unwrap(), "1");
                transaction.put(&cf, "range", "mine").unwrap();
                transaction.put(&cf, "a", "2").unwrap();
                assert_eq!(transaction.get_for_update(&cf, "a", LockMode::Shared).unwrap().unwrap(), "2");
                transaction.commit().unwrap();
                assert_eq!(cf.get("a").unwrap().unwrap(), "2");
                continue;
            }
            let refused = failure(read, ErrorKind::Conflict);
            assert_eq!(refused.conflict().unwrap().start, b"a");
            // It is as before: nothing of that is locked.
            cf.put("a", "2").unwrap();
            let range = transaction.delete_range(&cf, "q".."s");
            if pessimistic && level == IsolationLevel::Snapshot {
                failure(range, ErrorKind::Conflict);
                cf.put("range", "2").unwrap();
                failure(transaction.put(&cf, "a", "3"), ErrorKind::Conflict);
            } else {
                // Nobody relies on what is overwritten unread.
                range.unwrap();
            }
            transaction.put(&cf, "b", "1").unwrap();
            let committed = transaction.commit();
            if level == IsolationLevel::Snapshot && !pessimistic {
                failure(committed, ErrorKind::Conflict);
            } else {
                committed.unwrap();
            }
        }
    }
}

#[test]
fn no_update_of_what_was_read_for_update_is_lost() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 150;
    for (level, pessimistic) in LEVELS.into_iter().flat_map(|level| [(level, false), (level, true)]) {
        let (db, cf) = open(LockedWrites::Wait(LONG));
        let settings = settings(&db, level).pessimistic(pessimistic).tries(u32::MAX);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (settings, cf) = (&settings, &cf);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let keys = [(thread + round) % 2, (thread + round + 1) % 2];
                        if round % 5 == 0 {
                            let up = |old: Option<&[u8]>| {
                                old.map_or(0, |old| u64::from_be_bytes(old.try_into().unwrap()))
                            };
                            for key in keys {
                                cf.update([key as u8], |old| Some((up(old) + 1).to_be_bytes())).unwrap();
                            }
                            continue;
                        }
                        let mode = if round % 7 == 0 { LockMode::Shared } else { LockMode::Exclusive };
                        let run = |transaction: &mut Transaction| {
                            for key in keys {
                                let count = number(transaction.get_for_update(cf, [key as u8], mode)?);
                                transaction.put(cf, [key as u8], (count + 1).to_be_bytes())?;
                            }
                            Ok::<_, Error>(())
                        };
                        settings.run(run).unwrap();
                    }
                });
            }
        });
        for key in [0, 1] {
            assert_eq!(number(cf.get([key]).unwrap()), THREADS * ROUNDS, "{level:?} {pessimistic}");
        }
        let locks = db.statistics().locks;
        assert_eq!((locks.held, locks.waiting, locks.timeouts), (0, 0, 0));
    }
}

#[test]
fn a_deadlock_is_found_at_once_and_named_as_a_whole() {
    let (db, accounts) = open(LockedWrites::Fail);
    let journal = db.create_column_family("journal", FamilyOptions::default()).unwrap();
    let begin = || settings(&db, IsolationLevel::ReadCommitted).lock_timeout(LONG).begin().unwrap();
    let (mut ann, mut bob) = (begin(), begin());
    let who = [ann.id(), bob.id()].map(LockOwner::Transaction);
    ann.put(&accounts, "ann", "1").unwrap();
    bob.delete_range(&journal, "2026".."2027").unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| {
            ann.put(&journal, "2026-11", "ann").unwrap();
            ann.commit().unwrap();
        });
        until_waiting(&db, 1);
        let error = failure(bob.get_for_update(&accounts, "ann", LockMode::Shared), ErrorKind::Deadlock);
        let circle: Vec<_> = error
            .awaited()
            .iter()
            .map(|wait| {
                (wait.wanted.owner, wait.waits_for, &wait.wanted.family_name[..], &wait.wanted.start[..])
            })
            .collect();
        assert_eq!(circle, [(who[1], who[0], "one", &b"ann"[..]), (who[0], who[1], "journal", b"2026-11")]);
        for named in
            ["\"one\"", "\"journal\"", "\"ann\"", "\"2026-11\"", &who[0].to_string(), &who[1].to_string()]
        {
            assert!(error.to_string().contains(named), "{error}");
        }
        // He may go on with what he has.
        assert!(!waits.is_finished());
        bob.put(&journal, "2026-12", "bob").unwrap();
        bob.commit().unwrap();
    });
    assert_eq!(accounts.get("ann").unwrap().unwrap(), "1");
    assert_eq!(journal.len().unwrap(), 2);
    assert_eq!(db.statistics().locks.deadlocks, 1);
}

#[test]
fn who_met_a_deadlock_is_run_again() {
    let (db, cf) = open(LockedWrites::Fail);
    let (settings, first) = (settings(&db, IsolationLevel::ReadCommitted), AtomicBool::new(true));
    thread::scope(|scope| {
        for keys in [["a", "b"], ["b", "a"]] {
            let (settings, cf, db, first) = (&settings, &cf, &db, &first);
            scope.spawn(move || {
                let run = |transaction: &mut Transaction| {
                    transaction.put(cf, keys[0], keys[0])?;
                    // Once, both have the first.
                    while first.load(Ordering::SeqCst) && db.locks().held.len() < 2 {
                        thread::yield_now();
                    }
                    first.store(false, Ordering::SeqCst);
                    transaction.put(cf, keys[1], keys[0])
                };
                settings.run(run).unwrap();
            });
        }
    });
    assert_eq!(db.statistics().locks.deadlocks, 1);
    assert_eq!(cf.len().unwrap(), 2);
}

#[test]
fn what_was_locked_since_a_savepoint_is_free_after_rolling_back_to_it() {
    let (db, cf) = open(LockedWrites::Fail);
    let mut transaction = settings(&db, IsolationLevel::ReadCommitted).begin().unwrap();
    transaction.put(&cf, "before", "1").unwrap();
    transaction.get_for_update(&cf, "raised", LockMode::Shared).unwrap();
    let outer = transaction.savepoint();
    transaction.put(&cf, "since", "1").unwrap();
    transaction.put(&cf, "raised", "1").unwrap();
    let inner = transaction.savepoint();
    transaction.delete_range(&cf, "x"..).unwrap();
    failure(cf.put("y", "1"), ErrorKind::LockTimeout);
    transaction.rollback_to(&inner).unwrap();
    cf.put("y", "1").unwrap();
    failure(cf.put("since", "2"), ErrorKind::LockTimeout);
    transaction.release(&inner).unwrap();
    failure(cf.put("since", "2"), ErrorKind::LockTimeout);
    transaction.rollback_to(&outer).unwrap();
    cf.put("since", "2").unwrap();
    failure(cf.put("raised", "2"), ErrorKind::LockTimeout);
    let mut other = hasty(&db);
    other.get_for_update(&cf, "raised", LockMode::Shared).unwrap();
    failure(other.get_for_update(&cf, "before", LockMode::Shared), ErrorKind::LockTimeout);
    transaction.commit().unwrap();
    assert_eq!(other.get_for_update(&cf, "before", LockMode::Shared).unwrap().unwrap(), "1");
    assert_eq!(cf.get("since").unwrap().unwrap(), "2");
    assert!(cf.get("raised").unwrap().is_none());
}

#[test]
fn who_holds_and_awaits_what_is_listed_and_counted() {
    let (db, cf) = open(LockedWrites::Wait(LONG));
    let mut holder = settings(&db, IsolationLevel::ReadCommitted).begin().unwrap();
    holder.get_for_update(&cf, "a", LockMode::Shared).unwrap();
    holder.delete_range(&cf, "b".."c").unwrap();
    let mut waits = settings(&db, IsolationLevel::ReadCommitted).begin().unwrap();
    let id = LockOwner::Transaction(waits.id());
    thread::scope(|scope| {
        scope.spawn(|| waits.put(&cf, "a", "1").unwrap());
        until_waiting(&db, 1);
        scope.spawn(|| cf.put("bb", "1").unwrap());
        until_waiting(&db, 2);
        let locks = db.locks();
        let held: Vec<_> = locks
            .held
            .iter()
            .map(|lock| (lock.owner, &lock.start[..], lock.end.as_deref(), lock.mode))
            .collect();
        let owner = LockOwner::Transaction(holder.id());
        assert_eq!(
            held,
            [
                (owner, &b"a"[..], Some(&b"a\0"[..]), LockMode::Shared),
                (owner, b"b", Some(b"c"), LockMode::Exclusive)
            ]
        );
        let awaited: Vec<_> =
            locks.awaited.iter().map(|wait| (wait.waits_for, &wait.wanted.start[..])).collect();
        assert_eq!(awaited, [(owner, &b"a"[..]), (owner, b"bb")]);
        assert_eq!(locks.awaited[0].wanted.owner, id);
        assert!(matches!(locks.awaited[1].wanted.owner, LockOwner::Write(_)));
        let statistics = db.statistics().locks;
        assert_eq!((statistics.held, statistics.waiting, statistics.waits), (2, 2, 2));
        holder.rollback();
    });
}

#[test]
fn what_is_locked_and_what_is_prepared_keep_to_each_other() {
    for level in LEVELS {
        let builder = shrunken().locked_writes(LockedWrites::Fail).decision_wait(Duration::ZERO);
        let db = builder.storage(MemoryStorage::new()).open("memory").unwrap();
        let cf = db.create_column_family("one", FamilyOptions::default()).unwrap();
        let mut locks = hasty(&db);
        locks.get_for_update(&cf, "a", LockMode::Exclusive).unwrap();
        let optimistic = || db.transaction().level(level).lock_timeout(Duration::ZERO).begin().unwrap();
        let mut writes = optimistic();
        writes.put(&cf, "a", "prepared").unwrap();
        failure(writes.prepare("refused"), ErrorKind::LockTimeout);
        locks.rollback();

        let mut writes = settings(&db, level).begin().unwrap();
        writes.put(&cf, "a", "prepared").unwrap();
        writes.get_for_update(&cf, "b", LockMode::Shared).unwrap();
        writes.get_for_update(&cf, "c", LockMode::Exclusive).unwrap();
        let prepared = writes.prepare("one").unwrap();
        assert_eq!(db.statistics().locks.held, 0, "what was locked is held now");
        for key in ["a", "b", "c"] {
            failure(cf.put(key, "late"), ErrorKind::AwaitsDecision);
        }
        let mut late = hasty(&db);
        failure(late.get_for_update(&cf, "a", LockMode::Shared), ErrorKind::AwaitsDecision);
        failure(late.get_for_update(&cf, "b", LockMode::Exclusive), ErrorKind::AwaitsDecision);
        late.get_for_update(&cf, "b", LockMode::Shared).unwrap();
        // Who has a lock without reading keeps no decision.
        late.put(&cf, "a", "late").unwrap();
        prepared.commit().unwrap();
        assert_eq!(cf.get("a").unwrap().unwrap(), "prepared");
        late.commit().unwrap();
        assert_eq!(cf.get("a").unwrap().unwrap(), "late");
    }
}

#[test]
fn closing_ends_all_waiting() {
    let (db, cf) = open(LockedWrites::Wait(LONG));
    let mut holder = settings(&db, IsolationLevel::ReadCommitted).begin().unwrap();
    let mut waits = settings(&db, IsolationLevel::Snapshot).lock_timeout(LONG).begin().unwrap();
    holder.put(&cf, "a", "1").unwrap();
    thread::scope(|scope| {
        let put = scope.spawn(|| cf.put("a", "2"));
        let lock = scope.spawn(|| waits.get_for_update(&cf, "a", LockMode::Exclusive));
        until_waiting(&db, 2);
        db.clone().close().unwrap();
        failure(put.join().unwrap(), ErrorKind::Closed);
        failure(lock.join().unwrap(), ErrorKind::Closed);
    });
    failure(holder.put(&cf, "b", "1"), ErrorKind::Closed);
    failure(holder.commit(), ErrorKind::Closed);
}
