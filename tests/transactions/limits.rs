//! What transactions may cost, and what they refuse besides conflicts.

use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, Error, ErrorKind, FamilyOptions, IsolationLevel, LockMode,
    MemoryStorage, Transaction, WriteBatch,
};

use crate::common::{failure, shrunken};

fn open(bytes: u64) -> (ColumnFamilyDatabase, ColumnFamily) {
    let builder = shrunken().automatic_maintenance(false).transaction_memory_bytes(bytes);
    let db = builder.storage(MemoryStorage::new()).open("memory").unwrap();
    let cf = db.create_column_family("one", FamilyOptions::default()).unwrap();
    (db, cf)
}

fn write_much(db: &ColumnFamilyDatabase, cf: &ColumnFamily) {
    for n in 0..200u32 {
        cf.put(n.to_be_bytes(), [7; 500]).unwrap();
    }
    db.flush().unwrap();
}

#[test]
fn beyond_its_memory_the_oldest_transaction_is_too_old_and_later_ones_are_not() {
    let (db, cf) = open(64 << 10);
    let mut old = db.begin().unwrap();
    let mut writer = db.begin().unwrap();
    assert!(old.get(&cf, "a").unwrap().is_none());
    writer.put(&cf, "blind", "1").unwrap();
    write_much(&db, &cf);
    let mut young = db.begin().unwrap();
    assert!(young.get(&cf, "a").unwrap().is_none());
    cf.put("b", "1").unwrap();
    assert!(db.statistics().transaction_bytes_kept <= 64 << 10);
    assert_eq!(db.statistics().transactions_put_out, 2);
    assert!(old.get(&cf, 7u32.to_be_bytes()).unwrap().is_none(), "it still reads its moment");
    old.put(&cf, "a", "old").unwrap();
    failure(old.commit(), ErrorKind::TransactionTooOld);
    young.put(&cf, "a", "young").unwrap();
    young.commit().unwrap();
    // Nothing of it is to be checked.
    writer.commit().unwrap();
}

#[test]
fn who_has_locked_what_it_writes_is_not_too_old_to_prepare_or_commit_it() {
    for prepares in [false, true] {
        let (db, cf) = open(64 << 10);
        let mut old = db.transaction().level(IsolationLevel::Snapshot).pessimistic(true).begin().unwrap();
        old.put(&cf, "mine", "1").unwrap();
        write_much(&db, &cf);
        assert_eq!((db.statistics().transactions_put_out, db.statistics().transactions_open), (1, 1));
        if prepares {
            old.prepare("old").unwrap().commit().unwrap();
        } else {
            old.commit().unwrap();
        }
        assert_eq!(cf.get("mine").unwrap().unwrap(), "1");
    }
}

#[test]
fn who_only_reads_costs_a_snapshot_and_neither_writes_nor_locks() {
    let (db, cf) = open(64 << 20);
    cf.put("a", "1").unwrap();
    for level in [IsolationLevel::Serializable, IsolationLevel::Snapshot, IsolationLevel::ReadCommitted] {
        let mut reader = db.transaction().level(level).read_only(true).begin().unwrap();
        assert_eq!(db.statistics().transactions_open, 1);
        for refused in [
            reader.put(&cf, "a", "2"),
            reader.delete(&cf, "a"),
            reader.delete_range(&cf, "a".."b"),
            reader.merge(&cf, "a", "2"),
            reader.get_for_update(&cf, "a", LockMode::Shared).map(drop),
        ] {
            failure(refused, ErrorKind::ReadOnly);
        }
        assert_eq!(reader.iter(&cf).unwrap().count() as u64, cf.len().unwrap());
        write_much(&db, &cf);
        assert_eq!((db.statistics().transaction_bytes_kept, db.statistics().transactions_put_out), (0, 0));
        assert_eq!(reader.get(&cf, "a").unwrap().unwrap(), "1");
        reader.commit().unwrap();
        assert_eq!(db.statistics().transactions_open, 0);
        let reader = db.transaction().level(level).read_only(true).begin().unwrap();
        failure(reader.prepare("name").map(drop), ErrorKind::ReadOnly);
        assert!(db.prepared_transactions().unwrap().is_empty());
    }
}

#[test]
fn a_savepoint_of_another_transaction_is_refused() {
    let ((db, cf), (stranger, _)) = (open(64 << 20), open(64 << 20));
    let mut transaction = db.begin().unwrap();
    transaction.put(&cf, "a", "1").unwrap();
    let own = transaction.savepoint();
    transaction.put(&cf, "a", "2").unwrap();
    for other in [&db, &stranger] {
        let mut other = other.begin().unwrap();
        let point = other.savepoint();
        failure(transaction.rollback_to(&point), ErrorKind::InvalidArgument);
        failure(transaction.release(&point), ErrorKind::InvalidArgument);
    }
    assert_eq!(transaction.len(), 2);
    transaction.rollback_to(&own).unwrap();
    transaction.commit().unwrap();
    assert_eq!(cf.get("a").unwrap().unwrap(), "1");
}

#[test]
fn who_is_too_old_is_run_again_as_often_as_tries_allow() {
    let (db, cf) = open(64 << 10);
    let mut runs = 0;
    let mut run = |much: usize, tries: u32| {
        runs = 0;
        db.transaction().tries(tries).run(|transaction| {
            let before = transaction.get(&cf, "a")?.map_or(0, |value| value.len());
            transaction.put(&cf, "a", vec![0; before + 1])?;
            runs += 1;
            if runs <= much {
                write_much(&db, &cf);
            }
            Ok::<_, Error>(runs)
        })
    };
    assert_eq!(run(2, 3).unwrap(), 3);
    failure(run(3, 3), ErrorKind::TransactionTooOld);
    assert_eq!(cf.get("a").unwrap().unwrap().len(), 1);
}

#[test]
fn what_is_kept_for_a_transaction_is_counted_and_goes_with_it() {
    let (db, cf) = open(64 << 20);
    let transaction = db.begin().unwrap();
    write_much(&db, &cf);
    let statistics = db.statistics();
    assert_eq!(statistics.transactions_open, 1);
    assert!(statistics.transaction_bytes_kept > 100_000, "{statistics:?}");
    assert!(statistics.memtable_bytes_pinned >= statistics.transaction_bytes_kept, "{statistics:?}");
    drop(transaction);
    let statistics = db.statistics();
    assert_eq!((statistics.transactions_open, statistics.transaction_bytes_kept), (0, 0));
    // Who is not checked keeps nothing.
    let batch = db.transaction().level(IsolationLevel::ReadCommitted).begin().unwrap();
    write_much(&db, &cf);
    assert_eq!((db.statistics().transactions_open, db.statistics().transaction_bytes_kept), (1, 0));
    drop(batch);
    assert_eq!(db.statistics().transactions_open, 0);
}

#[test]
fn a_commit_that_is_refused_leaves_nothing_behind() {
    let (db, cf) = open(64 << 20);
    let mut transaction = db.begin().unwrap();
    assert!(transaction.get(&cf, "a").unwrap().is_none());
    for n in 0..200u32 {
        transaction.put(&cf, n.to_be_bytes(), [7; 500]).unwrap();
    }
    cf.put("a", "1").unwrap();
    failure(transaction.commit(), ErrorKind::Conflict);
    assert_eq!(cf.len().unwrap(), 1);
    db.flush().unwrap();
    cf.put("b", "1").unwrap();
    assert_eq!(cf.len().unwrap(), 2);
}

#[test]
fn what_cannot_be_written_is_refused_at_once_and_the_rest_stands() {
    let (db, cf) = open(64 << 20);
    let (stranger, foreign) = open(64 << 20);
    let mut transaction = db.begin().unwrap();
    transaction.put(&cf, "a", "1").unwrap();
    failure(transaction.put(&cf, vec![7; 70_000], "1"), ErrorKind::KeyTooLarge);
    failure(transaction.put(&foreign, "a", "1"), ErrorKind::InvalidArgument);
    failure(transaction.get(&foreign, "a"), ErrorKind::InvalidArgument);
    failure(transaction.range(&foreign, ..), ErrorKind::InvalidArgument);
    failure(transaction.cursor(&foreign), ErrorKind::InvalidArgument);
    assert_eq!(transaction.len(), 1);
    transaction.commit().unwrap();
    assert_eq!(cf.get("a").unwrap().unwrap(), "1");
    stranger.close().unwrap();
    let mut late = db.begin().unwrap();
    late.put(&cf, "b", "1").unwrap();
    db.close().unwrap();
    failure(late.commit(), ErrorKind::Closed);
}

/// Bytes that cannot be had.
struct Panics;

impl AsRef<[u8]> for Panics {
    fn as_ref(&self) -> &[u8] {
        panic!("as the test wants")
    }
}

#[test]
fn a_panic_of_a_key_or_a_value_leaves_savepoints_as_they_were() {
    let (db, cf) = open(64 << 20);
    let mut transaction = db.begin().unwrap();
    transaction.put(&cf, [1], [1]).unwrap();
    let savepoint = transaction.savepoint();
    transaction.put(&cf, [1], [2]).unwrap();
    let panics = |write: &mut dyn FnMut() -> Result<(), Error>| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(write)).expect_err("it panics")
    };
    panics(&mut || transaction.put(&cf, Panics, [3]));
    panics(&mut || transaction.put(&cf, [3], Panics));
    panics(&mut || transaction.delete(&cf, Panics));
    panics(&mut || transaction.delete_range(&cf, Panics..));
    assert_eq!(transaction.len(), 2);
    transaction.rollback_to(&savepoint).unwrap();
    assert_eq!(transaction.get(&cf, [1]).unwrap().unwrap(), [1]);
    transaction.commit().unwrap();
    assert_eq!(cf.len().unwrap(), 1);
}

#[test]
fn savepoints_nest_and_end_with_those_before_them() {
    let (db, cf) = open(64 << 20);
    let mut transaction = db.begin().unwrap();
    // So many that they are looked up in the index.
    for n in 0..40u8 {
        transaction.put(&cf, [n], [0]).unwrap();
    }
    let outer = transaction.savepoint();
    transaction.put(&cf, [1], [1]).unwrap();
    let inner = transaction.savepoint();
    transaction.delete_range(&cf, [0]..[10]).unwrap();
    assert!(transaction.get(&cf, [1]).unwrap().is_none());
    transaction.rollback_to(&inner).unwrap();
    assert_eq!(transaction.get(&cf, [1]).unwrap().unwrap(), [1]);
    transaction.put(&cf, [2], [2]).unwrap();
    transaction.release(&inner).unwrap();
    failure(transaction.rollback_to(&inner), ErrorKind::InvalidArgument);
    let late = transaction.savepoint();
    transaction.rollback_to(&outer).unwrap();
    failure(transaction.release(&late), ErrorKind::InvalidArgument);
    assert_eq!(transaction.get(&cf, [1]).unwrap().unwrap(), [0]);
    transaction.put(&cf, [3], [3]).unwrap();
    transaction.rollback_to(&outer).unwrap();
    assert_eq!(transaction.iter(&cf).unwrap().filter(|entry| entry.as_ref().unwrap().1 == [0]).count(), 40);
    transaction.commit().unwrap();
    assert_eq!(cf.len().unwrap(), 40);
}

#[test]
fn what_a_cursor_of_a_transaction_steps_over_is_there_for_all_others() {
    let (db, cf) = open(64 << 20);
    for n in 0..200u8 {
        cf.put([n], "1").unwrap();
    }
    db.flush().unwrap();
    let mut transaction = db.begin().unwrap();
    for n in 10..190 {
        transaction.delete(&cf, [n]).unwrap();
    }
    for _ in 0..2 {
        assert_eq!(transaction.iter(&cf).unwrap().count(), 20);
        assert_eq!(transaction.iter(&cf).unwrap().rev().count(), 20);
    }
    assert_eq!(cf.iter().unwrap().count(), 200);
    assert_eq!(cf.iter().unwrap().rev().count(), 200);
    // What others have noted as deleted a transaction may put.
    cf.delete_range([50]..[60]).unwrap();
    let mut batch = WriteBatch::new();
    for n in 100..180 {
        batch.delete(&cf, [n]);
    }
    db.write(&batch).unwrap();
    assert_eq!(cf.iter().unwrap().count(), 110);
    let mut writer = db.begin().unwrap();
    writer.put(&cf, [140], "mine").unwrap();
    writer.put(&cf, [55], "mine").unwrap();
    assert_eq!(writer.iter(&cf).unwrap().count(), 112);
    assert_eq!(writer.iter(&cf).unwrap().rev().count(), 112);
}

#[test]
fn a_closure_is_run_again_until_it_meets_no_conflict_and_no_more_often_than_allowed() {
    let (db, cf) = open(64 << 20);
    let mut runs = 0;
    let mut disturbed = |transaction: &mut Transaction| {
        runs += 1;
        let seen = transaction.get(&cf, "a")?.map_or(0, |value| value[0]);
        if runs <= 3 {
            cf.put("a", [10 * runs])?;
        }
        transaction.put(&cf, "a", [seen + 1])?;
        Ok::<_, Error>(seen)
    };
    assert_eq!(db.transact(&mut disturbed).unwrap(), 30);
    assert_eq!((runs, cf.get("a").unwrap().unwrap()[0]), (4, 31));
    let mut runs = 0;
    let always = db.transaction().tries(3).run(|transaction| {
        runs += 1;
        transaction.get(&cf, "a")?;
        cf.put("a", "theirs")?;
        transaction.put(&cf, "a", "mine")
    });
    failure(always, ErrorKind::Conflict);
    assert_eq!(runs, 3);
    assert_eq!(cf.get("a").unwrap().unwrap(), "theirs");
    // What a closure fails with ends it.
    let failed: Result<(), Error> = db.transact(|transaction| {
        transaction.put(&cf, "b", "1")?;
        transaction.put(&cf, vec![0; 70_000], "1")
    });
    failure(failed, ErrorKind::KeyTooLarge);
    assert!(cf.get("b").unwrap().is_none());
    assert_eq!(db.statistics().transactions_open, 0);
}

#[test]
fn a_transaction_may_be_sent_to_another_thread_and_panic_there() {
    fn is_send<T: Send + 'static>(value: T) -> T {
        value
    }
    let (db, cf) = open(64 << 20);
    let mut transaction = is_send(db.begin().unwrap());
    transaction.put(&cf, "a", "1").unwrap();
    let panicked = std::thread::spawn(move || {
        let _held = transaction;
        panic!("with a transaction");
    });
    assert!(panicked.join().is_err());
    assert!(cf.get("a").unwrap().is_none());
    assert_eq!(db.statistics().transactions_open, 0);
    db.transact(|transaction| transaction.put(&cf, "a", "2")).unwrap();
}
