//! Copies of a live database: each is what the database was at one number, whatever happens meanwhile, and
//! whole or refused, whatever fails.

mod common;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::storage::{Lack, Strike, TestStorage};
use common::{assert_clean, eventually, failure};
use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, DatabaseBuilder, Durability, ErrorKind, FamilyOptions, FileMode,
    MemoryStorage, StorageBackend, StorageFile, StorageLock, WriteBatch, merge_operators,
};

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

fn key(n: u32) -> [u8; 4] {
    n.to_be_bytes()
}

fn entries(family: &ColumnFamily) -> Entries {
    family
        .iter()
        .unwrap()
        .map(|entry| entry.map(|(key, value)| (key.into(), value.to_vec())).unwrap())
        .collect()
}

/// With the operator of families that have one.
fn builder() -> DatabaseBuilder {
    common::shrunken().merge_operator(merge_operators::append(","))
}

fn open(storage: &(impl StorageBackend + Clone)) -> ColumnFamilyDatabase {
    builder().storage(storage.clone()).open("db").unwrap()
}

fn quiet() -> DatabaseBuilder {
    builder().automatic_maintenance(false).write_buffer_bytes(8 << 20).log_limit_bytes(8 << 20)
}

/// What `db` holds, by the names of its families.
fn content(db: &ColumnFamilyDatabase) -> BTreeMap<String, Entries> {
    let family = |name: &String| (name.clone(), entries(&db.column_family(name).unwrap()));
    db.column_family_names().iter().map(family).collect()
}

#[test]
fn a_copy_made_while_it_is_written_to_is_the_database_at_its_number() {
    let storage = TestStorage::new();
    let db = open(&storage);
    let families: Vec<_> = ["a", "b"]
        .iter()
        .map(|name| db.create_column_family(name, FamilyOptions::default()).unwrap())
        .collect();
    // What is written, by number: the same key in both families, always.
    let history = std::sync::Mutex::new(BTreeMap::new());
    let ends = AtomicBool::new(false);
    let copies = std::thread::scope(|scope| {
        for thread in 0..2u32 {
            let (history, ends, families, db) = (&history, &ends, &families, &db);
            scope.spawn(move || {
                for n in 0u32.. {
                    if ends.load(Ordering::Relaxed) {
                        break;
                    }
                    let (key, value) = (key(n % 700 * 2 + thread), [n.to_be_bytes(); 40].concat());
                    let mut batch = WriteBatch::new();
                    families.iter().for_each(|family| {
                        batch.put(family, key, &value);
                    });
                    let number = db.write(&batch).unwrap();
                    history.lock().unwrap().insert(number, (key.to_vec(), value));
                }
            });
        }
        let copies: Vec<_> = (0..12)
            .map(|round| {
                let copy = MemoryStorage::new();
                let report = db.checkpoint_into(copy.clone()).unwrap();
                assert_eq!(report.bytes, report.bytes_copied);
                if round % 4 == 3 {
                    db.compact().unwrap();
                }
                (report.sequence_number, copy)
            })
            .collect();
        ends.store(true, Ordering::Relaxed);
        copies
    });
    let history = history.into_inner().unwrap();
    for (number, copy) in copies {
        let model: Entries = history.range(..=number).map(|(_, entry)| entry.clone()).collect();
        let copy = open(&copy);
        assert_clean(&copy);
        assert_eq!(copy.recovery_report().last_sequence, number);
        for name in ["a", "b"] {
            assert!(entries(&copy.column_family(name).unwrap()) == model, "{name} at {number}");
        }
        // It is a database of its own.
        let family = copy.column_family("a").unwrap();
        assert!(family.put_with("new", "value", Durability::Sync).unwrap() > number);
        copy.close().unwrap();
    }
    assert_clean(&db);
}

#[test]
fn writers_and_all_else_go_on_while_a_copy_is_stopped_in_the_middle() {
    // At a read of the log, of the first page, and further on.
    for reads in [0, 1, 2, 4] {
        let storage = TestStorage::new();
        let db = quiet().storage(storage.clone()).open("db").unwrap();
        let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
        let dropped = db.create_column_family("dropped", FamilyOptions::default()).unwrap();
        for n in 0..2000 {
            family.put(key(n), [n as u8; 400]).unwrap();
            dropped.put(key(n), [1; 30]).unwrap();
        }
        db.flush().unwrap();
        for n in 0..200 {
            family.put(key(n), [0xaa; 100]).unwrap();
        }
        family.delete_range(key(1900)..).unwrap();
        let before = content(&db);
        let copy = MemoryStorage::new();
        storage.hold_read(reads);
        let report = std::thread::scope(|scope| {
            let copying = scope.spawn(|| db.checkpoint_into(copy.clone()));
            let _let_go = LetGo(&storage);
            eventually("the copy is held", || storage.is_held());
            // None of this waits for the copy.
            let log_files = |db: &ColumnFamilyDatabase| db.statistics().log.bytes_live;
            for round in 0..3u8 {
                for n in 0..2000 {
                    family.put(key(n), vec![round; 350]).unwrap();
                }
                family.put_with("synced", [round], Durability::Sync).unwrap();
                db.compact().unwrap();
                db.checkpoint().unwrap();
            }
            assert!(log_files(&db) < 4 << 20, "the log is let go of");
            let space = db.space_report().unwrap();
            assert_eq!(space.copies_under_way, 1);
            assert!(space.log_held_bytes > 0 && space.oldest_reader.is_some(), "{space:?}");
            db.create_column_family("new", FamilyOptions::default()).unwrap().put("key", "value").unwrap();
            db.drop_column_family("dropped").unwrap();
            db.rename_column_family("family", "renamed").unwrap();
            storage.let_go();
            copying.join().unwrap().unwrap()
        });
        assert!(report.log_bytes > 0 && report.bytes > 2000 * 400);
        let space = db.space_report().unwrap();
        assert_eq!((space.copies_under_way, space.log_held_bytes), (0, 0));
        let copy = open(&copy);
        assert_clean(&copy);
        assert!(content(&copy) == before, "held at read {reads}");
        assert_clean(&db);
        drop((db, family, dropped));
        let db = open(&storage);
        assert_eq!(db.column_family_names(), ["new", "renamed"]);
        assert_clean(&db);
        // What was kept for the copy alone is gone.
        let logs = storage.list("wal").unwrap();
        assert!(logs.len() < 12, "{logs:?}");
    }
}

#[test]
fn a_copy_in_files_opens_on_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let (path, copy) = (directory.path().join("db"), directory.path().join("below").join("copy"));
    let db = ColumnFamilyDatabase::open(&path).unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for n in 0..20_000 {
        family.put(key(n), [n as u8; 200]).unwrap();
        if n == 15_000 {
            db.flush().unwrap();
        }
    }
    let report = db.checkpoint_to(&copy).unwrap();
    println!("{report:?}");
    assert_eq!(report.bytes, report.bytes_shared + report.bytes_copied_in_system + report.bytes_copied);
    assert!(report.bytes > 20_000 * 200 && report.log_bytes > 4000 * 200, "{report:?}");
    let error = failure(db.checkpoint_to(&copy), ErrorKind::DatabaseExists);
    assert!(error.to_string().contains("copy"), "{error}");
    family.put(key(0), "later").unwrap();
    let opened = ColumnFamilyDatabase::open(&copy).unwrap();
    assert_clean(&opened);
    let copied = opened.column_family("family").unwrap();
    assert_eq!(copied.len().unwrap(), 20_000);
    assert_eq!(copied.get(key(0)).unwrap().unwrap(), [0; 200]);
    opened.close().unwrap();
    db.close().unwrap();
    // Files of the one are none of the other.
    let logs = |path: &std::path::Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(path.join("wal")).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.retain(|name| name.extension().is_some_and(|extension| extension == "log"));
        names
    };
    for log in logs(&copy) {
        std::fs::remove_file(log).unwrap();
    }
    for log in logs(&path) {
        std::fs::copy(&log, copy.join("wal").join(log.file_name().unwrap())).unwrap();
    }
    let error = failure(ColumnFamilyDatabase::open(&copy), ErrorKind::Corruption);
    assert!(error.to_string().contains("another database"), "{error}");
}

#[test]
fn a_directory_that_is_not_empty_is_refused_and_stays_as_it_is() {
    let db = open(&TestStorage::new());
    for name in ["data.new", "LOCK", "something", "wal/1.log", "copy.unfinished"] {
        let storage = MemoryStorage::new();
        storage.create_directory("").unwrap();
        storage.create_directory("wal").unwrap();
        storage.open(name, peristyle::FileMode::Create).unwrap();
        failure(db.checkpoint_into(storage.clone()), ErrorKind::NotADatabase);
        storage.open(name, peristyle::FileMode::Read).unwrap();
    }
    let storage = TestStorage::new();
    drop(open(&storage));
    failure(db.checkpoint_into(storage.clone()), ErrorKind::DatabaseExists);
    drop(open(&storage));
}

/// Lets go of the read that a storage holds, also where a test fails: who reads is waited for.
struct LetGo<'s>(&'s TestStorage);

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

fn is_refusal(error: &peristyle::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotADatabase | ErrorKind::DatabaseNotFound)
}

/// A database with something in every place: tree, deltas, memtables, log, operands, what is prepared.
fn full(storage: &TestStorage) -> ColumnFamilyDatabase {
    let options = || FamilyOptions::default().merge_operator(merge_operators::append(","));
    let db = quiet().storage(storage.clone()).open("db").unwrap();
    let (a, b) =
        (db.create_column_family("a", options()).unwrap(), db.create_column_family("b", options()).unwrap());
    for n in 0..600 {
        a.put(key(n), [n as u8; 100]).unwrap();
        b.put(key(n), vec![n as u8; n as usize * 20]).unwrap();
    }
    db.flush().unwrap();
    for n in (0..600).step_by(50) {
        a.put(key(n), "delta").unwrap();
        b.merge(key(n), "operand").unwrap();
    }
    db.flush().unwrap();
    a.put("memtable", "value").unwrap();
    b.merge(key(3), "operand").unwrap();
    let mut transaction = db.begin().unwrap();
    transaction.put(&a, "prepared", "value").unwrap();
    transaction.prepare("it").unwrap();
    db
}

#[test]
fn whatever_fails_leaves_the_database_whole_and_no_copy() {
    let source = TestStorage::new();
    let db = full(&source);
    let before = content(&db);
    let mut failed = 0;
    for (strike, lasting) in
        [(Strike::Write, true), (Strike::Write, false), (Strike::Sync, true), (Strike::Sync, false)]
    {
        for calls in 0.. {
            assert!(calls < 1000, "a copy never succeeds");
            let target = TestStorage::new();
            target.fail(strike, calls, lasting);
            let made = db.checkpoint_into(target.clone());
            target.heal();
            let opened = builder().storage(target.copy()).create_if_missing(false).open("copy");
            match made {
                Ok(_) => {
                    assert!(content(&opened.unwrap()) == before);
                    break;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                    failed += 1;
                    // All is taken away again, unless that fails, too; or, once it has its name, whole.
                    match opened {
                        Ok(opened) => assert!(content(&opened) == before),
                        Err(error) if lasting => assert!(is_refusal(&error), "{error}"),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::DatabaseNotFound, "{error}"),
                    }
                }
            }
        }
    }
    assert!(failed > 20, "{failed} failures");
    // What the source cannot read is in no copy, and no reason to end writing.
    for calls in 0..5 {
        source.fail(Strike::Read, calls, false);
        let error = failure(db.checkpoint_into(MemoryStorage::new()), ErrorKind::Io);
        assert!(error.location().file.is_some(), "{error}");
        source.heal();
    }
    for lack in Lack::ALL {
        let target = TestStorage::new();
        target.refuse(lack, 1, 1000);
        match db.checkpoint_into(target.clone()) {
            // Nothing needed it.
            Ok(_) => assert_eq!(target.refused(), 0),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::OutOfSpace | ErrorKind::OutOfResources)),
        }
    }
    assert_clean(&db);
    db.column_family("a").unwrap().put("still", "written").unwrap();
}

#[test]
fn what_a_killed_process_leaves_of_a_copy_is_refused_or_whole() {
    let source = TestStorage::new();
    let db = full(&source);
    let before = content(&db);
    // The copy is stopped at a read of the source; what it has made so far is all that is left of it.
    let (mut refused, mut stopped) = (0, true);
    for reads in 0.. {
        if !stopped {
            break;
        }
        let target = TestStorage::new();
        source.hold_read(reads);
        let left = std::thread::scope(|scope| {
            let copying = scope.spawn(|| db.checkpoint_into(target.clone()));
            let _let_go = LetGo(&source);
            eventually("it is held or done", || source.is_held() || copying.is_finished());
            stopped = source.is_held();
            let left = target.copy();
            source.let_go();
            copying.join().unwrap().unwrap();
            left
        });
        for create in [false, true] {
            match builder().storage(left.copy()).create_if_missing(create).open("copy") {
                Ok(copy) => assert!(!stopped && content(&copy) == before),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NotADatabase, "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 10, "{refused} copies were cut short");
}

#[test]
fn what_is_prepared_can_be_decided_in_the_copy() {
    let db = full(&TestStorage::new());
    let copy = MemoryStorage::new();
    db.checkpoint_into(copy.clone()).unwrap();
    let copy = open(&copy);
    let prepared = copy.prepared_transactions().unwrap();
    assert_eq!(prepared.len(), 1);
    prepared[0].commit().unwrap();
    let a = copy.column_family("a").unwrap();
    assert_eq!(a.get("prepared").unwrap().unwrap(), "value");
    assert!(db.column_family("a").unwrap().get("prepared").unwrap().is_none());
    assert_clean(&copy);
}

#[test]
fn a_database_that_is_closed_meanwhile_gives_no_copy() {
    for reads in 0.. {
        let storage = TestStorage::new();
        let db = full(&storage);
        let target = MemoryStorage::new();
        storage.hold_read(reads);
        let stopped = std::thread::scope(|scope| {
            let copying = scope.spawn(|| db.checkpoint_into(target.clone()));
            let _let_go = LetGo(&storage);
            eventually("the copy is held or done", || storage.is_held() || copying.is_finished());
            let stopped = storage.is_held();
            let mut log = Vec::new();
            if stopped {
                db.clone().close().unwrap();
                log = storage.list("wal").unwrap();
            }
            storage.let_go();
            let made = copying.join().unwrap();
            if stopped {
                failure(made, ErrorKind::Closed);
                // Somebody else may have the directory by now, and files of these names.
                assert_eq!(storage.list("wal").unwrap(), log);
            }
            stopped
        });
        if !stopped {
            assert!(reads > 10, "{reads} reads");
            break;
        }
        assert!(target.list("").unwrap().is_empty(), "{:?}", target.list(""));
        drop(db);
        assert_clean(&open(&storage));
    }
}

/// An empty storage in which a database is made once somebody has looked that it is empty.
#[derive(Debug, Clone, Default)]
struct Contested {
    memory: MemoryStorage,
    is_taken: Arc<AtomicBool>,
}

impl StorageBackend for Contested {
    fn open(&self, path: &str, mode: FileMode) -> io::Result<Arc<dyn StorageFile>> {
        self.memory.open(path, mode)
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.memory.list(directory)
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
        if !self.is_taken.swap(true, Ordering::SeqCst) {
            let db = open(&self.memory);
            let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
            family.put_with("key", "value", Durability::Sync).unwrap();
        }
        self.memory.create_directory(directory)
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        self.memory.sync_directory(directory)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.memory.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.memory.remove(path)
    }

    fn lock(&self, path: &str, shared: bool) -> io::Result<Box<dyn StorageLock>> {
        self.memory.lock(path, shared)
    }
}

#[test]
fn a_database_that_is_made_where_a_copy_is_to_come_stays() {
    let db = full(&TestStorage::new());
    let contested = Contested::default();
    failure(db.checkpoint_into(contested.clone()), ErrorKind::NotADatabase);
    assert!(contested.is_taken.load(Ordering::SeqCst));
    let other = open(&contested.memory);
    assert_eq!(other.column_family("family").unwrap().get("key").unwrap().unwrap(), "value");
    assert_clean(&other);
}

#[test]
fn commits_without_a_record_are_in_a_copy_that_was_made_later() {
    let db = open(&TestStorage::new());
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    family.put_with("key", "value", Durability::None).unwrap();
    let copy = MemoryStorage::new();
    db.checkpoint_into(copy.clone()).unwrap();
    assert_eq!(open(&copy).column_family("family").unwrap().get("key").unwrap().unwrap(), "value");
    let reader = common::shrunken().storage(copy).read_only(true).open("copy").unwrap();
    failure(reader.checkpoint_into(MemoryStorage::new()), ErrorKind::ReadOnly);
}
