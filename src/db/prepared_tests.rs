//! What prepared transactions hold, what becomes of them, and where they are found again.

use std::time::Duration;

use crate::codec::features::Features;
use crate::db::{ColumnFamilyDatabase, PreparedTransaction};
use crate::error::{Error, ErrorKind, LockMode, Result};
use crate::options::{DatabaseBuilder, LockedWrites};
use crate::segment::{EXTENTS_START, Superblock};
use crate::storage::{FileMode, MemoryStorage, StorageBackend};
use crate::txn::batch::WriteBatch;
use crate::txn::handle::ColumnFamily;
use crate::txn::transactions::level::IsolationLevel;
use crate::txn::transactions::transaction::Transaction;
use crate::{Durability, FamilyOptions};

/// Nobody waits for a decision.
fn builder() -> DatabaseBuilder {
    ColumnFamilyDatabase::builder()
        .page_size(4096)
        .write_buffer_bytes(256 << 10)
        .automatic_maintenance(false)
        .decision_wait(Duration::ZERO)
}

fn open(storage: &MemoryStorage) -> ColumnFamilyDatabase {
    builder().storage(storage.clone()).open("memory").unwrap()
}

fn failure<T>(result: Result<T>, kind: ErrorKind) -> Error {
    let error = result.err().expect("it failed");
    assert_eq!(error.kind(), kind, "{error}");
    error
}

/// What a process that is killed now leaves behind.
fn copy(storage: &MemoryStorage) -> MemoryStorage {
    let copy = MemoryStorage::new();
    for directory in ["", "wal"] {
        copy.create_directory(directory).unwrap();
        for name in storage.list(directory).unwrap() {
            let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            let file = storage.open(&path, FileMode::Read).unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            file.read_at(&mut bytes, 0).unwrap();
            copy.open(&path, FileMode::Create).unwrap().write_at(&bytes, 0).unwrap();
        }
    }
    copy
}

fn one_family() -> (MemoryStorage, ColumnFamilyDatabase, ColumnFamily) {
    let storage = MemoryStorage::new();
    let db = open(&storage);
    let family = db.create_column_family("one", FamilyOptions::default()).unwrap();
    (storage, db, family)
}

fn names(db: &ColumnFamilyDatabase) -> Vec<Vec<u8>> {
    let prepared = db.prepared_transactions().unwrap();
    assert_eq!(db.statistics().transactions_prepared, prepared.len() as u64);
    prepared.iter().map(|prepared| prepared.name().to_vec()).collect()
}

fn only(db: &ColumnFamilyDatabase) -> PreparedTransaction {
    let mut prepared = db.prepared_transactions().unwrap();
    assert_eq!(prepared.len(), 1);
    prepared.swap_remove(0)
}

/// Prepares a transaction that reads `read` and `r1..r5`, writes `written` and deletes `from..g`.
fn prepare(db: &ColumnFamilyDatabase, family: &ColumnFamily, name: &str) -> PreparedTransaction {
    let mut transaction = db.begin().unwrap();
    transaction.get(family, "read").unwrap();
    transaction.range(family, "r1".."r5").unwrap().for_each(|entry| drop(entry.unwrap()));
    transaction.put(family, "written", "new").unwrap();
    transaction.delete_range(family, "from".."g").unwrap();
    transaction.prepare(name).unwrap()
}

/// That whoever writes to what [`prepare`] has used is refused, in every way to write, and nobody else.
fn assert_held(db: &ColumnFamilyDatabase, family: &ColumnFamily) {
    let held = |result: Result<_>, key: &str| {
        let error = failure(result, ErrorKind::AwaitsDecision);
        assert_eq!(error.conflict().unwrap().family, family.id());
        assert!(error.to_string().contains(key), "{error}");
    };
    let last = db.snapshot().unwrap().sequence_number();
    for key in ["written", "read", "from", "fun", "r1", "r4"] {
        for durability in [Durability::None, Durability::Buffered, Durability::Sync] {
            held(family.put_with(key, "theirs", durability), key);
        }
        held(family.put(key, [1; 1000]), key);
        held(family.put(key, vec![1; 300_000]), key);
        held(family.delete(key), key);
        held(family.update(key, |_| Some("theirs")).map(|_| last), key);
        let mut batch = WriteBatch::new();
        batch.put(family, "free", "theirs").put(family, key, "theirs");
        held(db.write(&batch), key);
        for level in [IsolationLevel::Serializable, IsolationLevel::Snapshot, IsolationLevel::ReadCommitted] {
            let write = || {
                let mut transaction = db.transaction().level(level).begin().unwrap();
                transaction.put(family, key, "theirs").unwrap();
                transaction
            };
            held(write().commit(), key);
            held(write().prepare("another").map(|_| last), key);
        }
    }
    for range in ["a".."g", "fz".."z", "read".."reae", "r".."r2"] {
        held(family.delete_range(range.clone()), range.start);
    }
    held(family.delete_range(..), "on");
    assert_eq!(db.snapshot().unwrap().sequence_number(), last, "nothing was written");
    for key in ["a", "g", "r", "r5", "write", "written2"] {
        family.put(key, "theirs").unwrap();
        family.put(key, [2; 1000]).unwrap();
    }
    family.delete_range("a".."b").unwrap();
    family.delete_range("g".."h").unwrap();
    // Everybody may read what was there before.
    assert!(family.get("written").unwrap().is_none());
}

#[test]
fn what_is_prepared_is_seen_by_nobody_and_held_until_it_is_committed() {
    let (_, db, family) = one_family();
    family.put("fun", "old").unwrap();
    let prepared = prepare(&db, &family, "name");
    assert_eq!((prepared.name(), names(&db)), (&b"name"[..], vec![b"name".to_vec()]));
    assert_held(&db, &family);
    assert_eq!(family.get("fun").unwrap().unwrap(), "old");
    let mut twin = db.begin().unwrap();
    twin.put(&family, "free", "").unwrap();
    failure(twin.prepare("name"), ErrorKind::TransactionExists);

    let committed = prepared.commit().unwrap();
    assert_eq!(db.snapshot().unwrap().sequence_number(), committed);
    assert_eq!(family.get("written").unwrap().unwrap(), "new");
    assert!(family.get("fun").unwrap().is_none());
    assert!(names(&db).is_empty());
    family.put("read", "theirs").unwrap();
    family.delete_range(..).unwrap();
    for decided in [prepared.commit().map(drop), prepared.rollback()] {
        failure(decided, ErrorKind::TransactionNotFound);
    }
    // The name is free, and what was decided before has nothing to do with it.
    let again = prepare(&db, &family, "name");
    failure(prepared.rollback(), ErrorKind::TransactionNotFound);
    again.rollback().unwrap();
    assert!(family.get("written").unwrap().is_none());
    family.put("written", "theirs").unwrap();
    family.put("r3", "theirs").unwrap();
}

#[test]
fn preparations_and_decisions_are_durable_and_all_that_was_committed_before() {
    let (_, db, family) = one_family();
    let is_durable = || db.statistics().log.commits_not_durable == 0;
    for commits in [false, true] {
        family.put("free", "buffered").unwrap();
        assert!(!is_durable());
        let prepared = prepare(&db, &family, "name");
        assert!(is_durable());
        family.put("free", "buffered").unwrap();
        let decided = if commits { prepared.commit().map(|_| ()) } else { prepared.rollback() };
        decided.unwrap();
        assert!(is_durable());
    }
}

#[test]
fn what_is_prepared_is_there_in_every_later_life_until_it_is_decided() {
    let (storage, db, family) = one_family();
    family.put("fun", "old").unwrap();
    drop(prepare(&db, &family, "first"));
    let mut second = db.begin().unwrap();
    second.put(&family, "other", "2").unwrap();
    drop(second.prepare("second").unwrap());
    let killed = copy(&storage);
    drop(family);
    db.close().unwrap();
    for storage in [killed, storage] {
        for decides in [false, true] {
            let db = open(&storage);
            let family = db.column_family("one").unwrap();
            assert_eq!(names(&db), [b"first", &b"second"[..]]);
            assert_held(&db, &family);
            failure(family.put("other", "theirs"), ErrorKind::AwaitsDecision);
            if decides {
                let [first, second] = &db.prepared_transactions().unwrap()[..] else { panic!() };
                first.commit().unwrap();
                second.rollback().unwrap();
            }
            assert!(db.verify().unwrap().faults.is_empty());
            drop(family);
            db.close().unwrap();
        }
        let db = open(&copy(&storage));
        assert!(names(&db).is_empty());
        let family = db.column_family("one").unwrap();
        assert_eq!(family.get("written").unwrap().unwrap(), "new");
        assert!(family.get("fun").unwrap().is_none() && family.get("other").unwrap().is_none());
        family.delete_range(..).unwrap();
    }
}

#[test]
fn what_is_prepared_keeps_no_log() {
    let live = |decides: bool| {
        let (storage, db, family) = one_family();
        let prepared = prepare(&db, &family, "name");
        if decides {
            prepared.rollback().unwrap();
        }
        drop(prepared);
        for round in 0..200u32 {
            family.put([b'z', round as u8], vec![3; 10_000]).unwrap();
            if round % 20 == 0 {
                db.flush().unwrap();
            }
        }
        db.flush().unwrap();
        let live = db.statistics().log.bytes_live;
        drop(family);
        let reopened = open(&copy(&storage));
        assert_eq!(reopened.recovery_report().records_applied, 0);
        if !decides {
            assert_held(&reopened, &reopened.column_family("one").unwrap());
            only(&reopened).commit().unwrap();
        }
        live
    };
    assert!(live(false) <= live(true) + 1000);
}

fn begin<'a>(
    db: &'a ColumnFamilyDatabase,
    family: &'a ColumnFamily,
) -> impl Fn(&str, &str) -> Transaction + 'a {
    |read: &str, written: &str| {
        let mut transaction = db.begin().unwrap();
        transaction.get(family, read).unwrap();
        transaction.put(family, written, read).unwrap();
        transaction
    }
}

#[test]
fn nobody_prepares_what_another_has_prepared_but_to_read_it() {
    let (_, db, family) = one_family();
    let begin = begin(&db, &family);
    let first = begin("x", "y").prepare("first").unwrap();
    for (read, written) in [("a", "x"), ("a", "y"), ("y", "a")] {
        let refused = begin(read, written).prepare("second");
        failure(refused, ErrorKind::AwaitsDecision);
        // What was refused holds nothing, its name neither.
        family.put("a", "theirs").unwrap();
    }
    let second = begin("x", "z").prepare("second").unwrap();
    first.commit().unwrap();
    failure(family.put("x", "theirs"), ErrorKind::AwaitsDecision);
    second.rollback().unwrap();
    family.put("x", "theirs").unwrap();
}

#[test]
fn who_prepares_is_checked_as_who_commits() {
    let (_, db, family) = one_family();
    let begin = begin(&db, &family);
    let (skewed, free) = (begin("x", "y"), begin("z", "y"));
    begin("y", "x").commit().unwrap();
    let error = failure(skewed.prepare("name"), ErrorKind::Conflict);
    assert_eq!(error.conflict().unwrap().start, b"x");
    family.put("y", "nobody holds it").unwrap();
    free.prepare("name").unwrap();
}

#[test]
fn others_wait_for_a_decision_and_come_behind_it() {
    for decision in ["commit", "rollback"] {
        let storage = MemoryStorage::new();
        let db = builder().decision_wait(Duration::from_secs(600)).storage(storage).open("memory").unwrap();
        let family = db.create_column_family("one", FamilyOptions::default()).unwrap();
        let mut transaction = db.begin().unwrap();
        transaction.put(&family, "key", "prepared").unwrap();
        let prepared = transaction.prepare("name").unwrap();
        let mut late = db.begin().unwrap();
        let seen = late.get(&family, "key").unwrap();
        late.put(&family, "other", if seen.is_some() { "seen" } else { "unseen" }).unwrap();
        let mut next = db.begin().unwrap();
        next.put(&family, "key", "next").unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| family.put("key", "plain").unwrap());
            let next = scope.spawn(|| next.prepare("name 2").unwrap());
            // To be waiting is not needed for what follows, and makes it the more interesting.
            std::thread::sleep(Duration::from_millis(5));
            let decided = match decision {
                "commit" => Some(prepared.commit().unwrap()),
                _ => prepared.rollback().map(|()| None).unwrap(),
            };
            // One of the two waits for the other, too.
            next.join().unwrap().rollback().unwrap();
            let written = writer.join().unwrap();
            assert!(decided.is_none_or(|decided| decided < written));
        });
        assert_eq!(family.get("key").unwrap().unwrap(), "plain");
        failure(late.commit(), ErrorKind::Conflict);
    }
}

/// Longer than anybody has to wait, unless he is forgotten.
const LONG: Duration = Duration::from_secs(60);

/// Returns when so many wait, for locks or for decisions.
fn until_waiting(db: &ColumnFamilyDatabase, waiting: usize) {
    let since = std::time::Instant::now();
    while db.pipeline().prepared.waiting() + db.statistics().locks.waiting as usize != waiting {
        assert!(since.elapsed() < LONG, "{waiting} do not come to wait");
        std::thread::yield_now();
    }
}

#[test]
fn who_waits_for_a_decision_is_told_when_there_can_be_none_any_more() {
    type End = fn(&ColumnFamilyDatabase);
    let failed: End = |db| drop(db.pipeline().fail(Error::new(ErrorKind::Io, "as the test wants")));
    let ends: [(End, ErrorKind); 2] =
        [(|db| db.clone().close().unwrap(), ErrorKind::Closed), (failed, ErrorKind::WriteFailed)];
    for (end, kind) in ends {
        let builder = builder().decision_wait(LONG).locked_writes(LockedWrites::Wait(LONG));
        let db = builder.storage(MemoryStorage::new()).open("memory").unwrap();
        let family = db.create_column_family("one", FamilyOptions::default()).unwrap();
        let mut transaction = db.begin().unwrap();
        transaction.put(&family, "key", "prepared").unwrap();
        let prepared = transaction.prepare("name").unwrap();
        let settings = db.transaction().lock_timeout(LONG);
        let mut locks = settings.clone().level(IsolationLevel::ReadCommitted).begin().unwrap();
        let mut next = settings.begin().unwrap();
        next.put(&family, "key", "next").unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| family.put("key", "plain").map(drop));
            let preparing = scope.spawn(|| next.prepare("name 2").map(drop));
            // The two of them may wait for each other's locks as well.
            until_waiting(&db, 2);
            let locker = scope.spawn(|| locks.get_for_update(&family, "key", LockMode::Exclusive).map(drop));
            until_waiting(&db, 3);
            end(&db);
            for waited in [writer, preparing, locker] {
                let error = waited.join().unwrap().expect_err("nobody decides");
                assert_eq!(error.kind(), kind, "{error}");
            }
        });
        // Nor does anybody begin to wait.
        assert_eq!(family.put("key", "late").unwrap_err().kind(), kind);
        drop(prepared);
    }
}

#[test]
fn what_was_prepared_for_a_family_that_is_dropped_goes_with_it_and_a_new_name_changes_nothing() {
    for reopened in [false, true] {
        let (storage, db, dropped) = one_family();
        let renamed = db.create_column_family("two", FamilyOptions::default()).unwrap();
        let mut transaction = db.begin().unwrap();
        for family in [&dropped, &renamed] {
            transaction.get(family, "read").unwrap();
            transaction.put(family, "key", "value").unwrap();
        }
        drop(transaction.prepare("name").unwrap());
        db.drop_column_family("one").unwrap();
        db.rename_column_family("two", "deux").unwrap();
        db.create_column_family("one", FamilyOptions::default()).unwrap();
        let db = if reopened { open(&copy(&storage)) } else { db };
        failure(db.column_family("deux").unwrap().put("read", ""), ErrorKind::AwaitsDecision);
        db.column_family("one").unwrap().put("key", "another").unwrap();
        only(&db).commit().unwrap();
        assert_eq!(db.column_family("deux").unwrap().get("key").unwrap().unwrap(), "value");
        assert_eq!(db.column_family("one").unwrap().get("key").unwrap().unwrap(), "another");
    }
}

#[test]
fn a_family_that_is_dropped_before_is_an_error_of_who_prepares() {
    let (_, db, family) = one_family();
    let transaction = begin(&db, &family)("x", "y");
    db.drop_column_family("one").unwrap();
    failure(transaction.prepare("name"), ErrorKind::FamilyDropped);
    assert!(names(&db).is_empty());
}

#[test]
fn who_only_reads_a_database_lists_what_is_prepared_and_decides_nothing() {
    let (storage, db, family) = one_family();
    drop(prepare(&db, &family, "name"));
    drop((db, family));
    let db = builder().read_only(true).storage(storage.clone()).open("memory").unwrap();
    for decided in
        [only(&db).commit().map(drop), only(&db).rollback(), db.begin().unwrap().prepare("x").map(drop)]
    {
        failure(decided, ErrorKind::ReadOnly);
    }
    drop(db);
    let db = open(&storage);
    let prepared = only(&db);
    db.clone().close().unwrap();
    failure(db.prepared_transactions(), ErrorKind::Closed);
    failure(prepared.commit(), ErrorKind::Closed);
}

#[test]
fn a_prepared_transaction_may_be_larger_than_a_memtable() {
    let (storage, db, family) = one_family();
    let mut transaction = db.begin().unwrap();
    for n in 0..100u32 {
        transaction.put(&family, n.to_be_bytes(), vec![n as u8; 10_000]).unwrap();
    }
    drop(transaction.prepare("large").unwrap());
    let db = open(&copy(&storage));
    let family = db.column_family("one").unwrap();
    failure(family.put(7u32.to_be_bytes(), ""), ErrorKind::AwaitsDecision);
    only(&db).commit().unwrap();
    for n in 0..100u32 {
        assert_eq!(family.get(n.to_be_bytes()).unwrap().unwrap(), [n as u8; 10_000]);
    }
}

#[test]
fn a_full_disk_refuses_to_prepare_and_to_decide_and_changes_nothing() {
    let (storage, db, family) = one_family();
    let long = || {
        let mut transaction = db.begin().unwrap();
        transaction.put(&family, "key", vec![7; 3 << 20]).unwrap();
        transaction
    };
    prepare(&db, &family, "small").rollback().unwrap();
    storage.set_capacity_limit(storage.used_bytes() + (1 << 20));
    failure(long().prepare("long"), ErrorKind::OutOfSpace);
    assert!(names(&db).is_empty());
    family.put("key", "free").unwrap();
    storage.set_capacity_limit(u64::MAX);
    let prepared = long().prepare("long").unwrap();
    storage.set_capacity_limit(storage.used_bytes() + (1 << 20));
    failure(prepared.commit(), ErrorKind::OutOfSpace);
    assert_eq!(names(&db), [b"long"]);
    failure(family.put("key", "held"), ErrorKind::AwaitsDecision);
    storage.set_capacity_limit(u64::MAX);
    prepared.commit().unwrap();
    assert_eq!(family.get("key").unwrap().unwrap().len(), 3 << 20);
}

#[test]
fn where_it_is_kept_is_no_family_of_the_user_and_older_engines_do_not_write() {
    let (storage, db, family) = one_family();
    let features = || {
        let file = storage.open("data", FileMode::Read).unwrap();
        Superblock::load(&*file, "data").unwrap().0.features
    };
    assert_eq!(features(), Features::default());
    prepare(&db, &family, "name").rollback().unwrap();
    assert_eq!(features(), Features::OF_PREPARED);
    db.flush().unwrap();
    assert_eq!(features(), Features::OF_PREPARED);
    assert_eq!(db.column_family_names(), ["one"]);
    assert_eq!((db.column_families().unwrap().len(), db.statistics().families), (1, 1));
    failure(db.column_family(""), ErrorKind::InvalidFamilyName);
    failure(db.drop_column_family(""), ErrorKind::InvalidFamilyName);
    failure(db.rename_column_family("", "mine"), ErrorKind::InvalidFamilyName);
    db.drop_column_family("one").unwrap();
    drop((db, family));
    let db = open(&storage);
    assert!(db.column_family_names().is_empty() && names(&db).is_empty());
}

#[test]
fn what_is_prepared_and_cannot_be_read_keeps_the_database_from_being_written_to() {
    let (storage, db, family) = one_family();
    let mut transaction = db.begin().unwrap();
    transaction.put(&family, "key", "unmistakable").unwrap();
    drop(transaction.prepare("name").unwrap());
    drop(family);
    db.close().unwrap();
    let file = storage.open("data", FileMode::Write).unwrap();
    let mut bytes = vec![0; (file.len().unwrap() - EXTENTS_START) as usize];
    file.read_at(&mut bytes, EXTENTS_START).unwrap();
    let at = bytes.windows(12).position(|window| window == b"unmistakable").unwrap();
    file.write_at(b"X", EXTENTS_START + at as u64).unwrap();
    let error = failure(builder().storage(storage.clone()).open("memory"), ErrorKind::Corruption);
    assert!(error.location().family.is_some() && error.location().page.is_some(), "{error}");
    for builder in [builder().read_only(true), builder().give_up_lost_families(true)] {
        let db = builder.storage(storage.clone()).open("memory").unwrap();
        failure(db.prepared_transactions(), ErrorKind::Corruption);
        assert!(db.column_family("one").unwrap().get("key").unwrap().is_none());
    }
}
