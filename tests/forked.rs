//! Processes that were forked: a child has its parent's memory and files, and can do the parent's database no
//! harm.

#![cfg(unix)]

mod common;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{assert_clean, child, shrunken};
use peristyle::{
    ColumnFamilyDatabase, Durability, ErrorKind, FamilyOptions, Iter, LockMode, Result, WriteBatch,
};

const ENTRIES: u32 = 5000;

/// What `role` says on its standard output, played by this test in a process of its own.
fn play(test: &str, path: &Path) -> String {
    let mut process = child::start(test, path.to_str().unwrap());
    let mut said = String::new();
    process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(process.wait().unwrap().success(), "{said}");
    said
}

/// A fork of this process, which runs a closure and ends.
struct Fork(libc::pid_t);

impl Fork {
    fn start(child: impl FnOnce()) -> Self {
        // SAFETY: the child ends without returning into the test harness. The C library makes its allocator
        // usable in it.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "no process to be had");
        if pid == 0 {
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).is_ok();
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(if ended { 0 } else { 1 }) };
        }
        Self(pid)
    }

    /// Waits for its end. Says whether the closure came to its own, and fails if that takes long.
    fn came_to_its_end(self) -> bool {
        let begun = Instant::now();
        loop {
            let mut status = 0;
            // SAFETY: waits for the child, and for nobody else.
            match unsafe { libc::waitpid(self.0, &raw mut status, libc::WNOHANG) } {
                0 if begun.elapsed() < Duration::from_secs(60) => {
                    std::thread::sleep(Duration::from_millis(5))
                }
                0 => {
                    // SAFETY: the child is ours and hangs.
                    unsafe { libc::kill(self.0, libc::SIGKILL) };
                    panic!("the child hangs");
                }
                _ => return libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
            }
        }
    }
}

/// Runs `child` in a fork of this process, and says whether it came to its end.
fn fork(child: impl FnOnce()) -> bool {
    Fork::start(child).came_to_its_end()
}

#[track_caller]
fn refused<T>(outcome: Result<T>) {
    match outcome {
        Ok(_) => panic!("a child was let in"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ForkedChild, "{error}"),
    }
}

fn key(n: u32) -> [u8; 4] {
    n.wrapping_mul(2_654_435_761).to_be_bytes()
}

fn data(path: &Path) -> Vec<u8> {
    fs::read(path.join("data")).unwrap()
}

/// Uses everything that a child can inherit, and sees it refused.
fn use_all(db: &ColumnFamilyDatabase, mut iter: Iter) {
    refused(db.column_family("family"));
    refused(db.create_column_family("other", FamilyOptions::default()));
    refused(db.drop_column_family("family"));
    refused(db.rename_column_family("family", "renamed"));
    refused(db.snapshot());
    refused(db.sync());
    refused(db.flush());
    refused(db.checkpoint());
    refused(db.compact());
    refused(db.wait_until_idle());
    refused(db.verify());
    assert!(db.column_family_names().is_empty());
    let statistics = db.statistics();
    assert_eq!((statistics.families, statistics.log.records), (0, 0));
    assert_eq!(db.memory_report().total_bytes(), 0);
    assert_eq!(db.aggregate_cache_stats(), Default::default());
    refused(iter.next().unwrap());
    assert!(iter.next().is_none());
    refused(db.clone().close());
}

/// Opens a database, has children do to it all that they can, goes on, and is killed.
fn parent(path: &Path) {
    let db = shrunken().automatic_maintenance(false).open(path).unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for n in 0..ENTRIES {
        family.put(key(n), [n as u8; 100]).unwrap();
    }
    let snapshot = db.snapshot().unwrap();
    let of_family = family.snapshot().unwrap();
    let mut cursor = family.cursor().unwrap();
    assert!(cursor.first().unwrap());
    let mut batch = WriteBatch::new();
    batch.put(&family, "batch", "value");
    let mut iter = Some(family.iter().unwrap());
    let mut begun = db.begin().unwrap();
    begun.put(&family, "own", "value").unwrap();
    begun.get_for_update(&family, "locked", LockMode::Exclusive).unwrap();
    let mut transaction = Some(begun);
    let begin = || {
        let mut transaction = db.begin().unwrap();
        transaction.put(&family, "prepared", "value").unwrap();
        transaction
    };
    let mut prepared = Some(begin().prepare("by the parent").unwrap());
    let mut to_prepare = Some(begin());
    iter.as_mut().unwrap().next().unwrap().unwrap();
    let value = family.get(key(1)).unwrap();
    db.wait_until_idle().unwrap();
    for n in 0..100 {
        family.put(key(n), [n as u8; 100]).unwrap();
    }
    let before = data(path);

    let mut everything =
        Some((db.clone(), family.clone(), snapshot.clone(), of_family.clone(), cursor, batch, value));
    assert!(fork(|| {
        let (db, family, snapshot, of_family, mut cursor, batch, value) = everything.take().unwrap();
        refused(family.put(key(1), "child"));
        refused(family.put_with(key(1), "child", Durability::Sync));
        refused(family.delete(key(1)));
        refused(family.delete_range(..));
        refused(db.write(&batch));
        refused(family.get(key(1)));
        refused(family.contains_key(key(1)));
        refused(family.len());
        refused(family.iter());
        refused(family.cursor());
        refused(snapshot.get(&family, key(1)));
        refused(snapshot.column_family(&family));
        refused(of_family.get(key(1)));
        refused(of_family.len());
        refused(of_family.first());
        refused(cursor.next());
        refused(cursor.prev());
        refused(cursor.seek("x"));
        refused(cursor.value());
        refused(family.update(key(1), |_| Some("child")));
        refused(db.sync_through(peristyle::SequenceNumber(1)));
        refused(db.on_synced(peristyle::SequenceNumber(1), |_| ()));
        refused(family.set_options(FamilyOptions::default()));
        refused(db.column_families());
        assert_eq!((family.name().as_str(), db.synced_through().0), ("", 0));
        assert_eq!(family.options(), FamilyOptions::default());
        assert_eq!(family.cache_stats(), Default::default());
        refused(of_family.iter().next().unwrap());
        refused(db.family_properties(&family));
        use_all(&db, iter.take().unwrap());
        let mut transaction = transaction.take().unwrap();
        refused(transaction.put(&family, key(1), "child"));
        refused(transaction.get(&family, key(1)));
        refused(transaction.iter(&family));
        refused(transaction.get_for_update(&family, "other", LockMode::Shared));
        let savepoint = transaction.savepoint();
        transaction.rollback_to(&savepoint).unwrap();
        assert!(db.locks().held.is_empty());
        refused(transaction.commit());
        refused(db.begin());
        refused(db.prepared_transactions());
        let prepared = prepared.take().unwrap();
        refused(prepared.commit());
        refused(prepared.rollback());
        drop(prepared);
        refused(to_prepare.take().unwrap().prepare("by the child"));
        match ColumnFamilyDatabase::open(path) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Locked, "{error}"),
            Ok(_) => panic!("a child opened the database beside its parent"),
        }
        drop((db, family, snapshot, of_family, cursor, batch, value));
    }));
    assert!(data(path) == before, "a child changed its parent's data");

    assert_eq!(family.put("prepared", "late").unwrap_err().kind(), ErrorKind::AwaitsDecision);
    drop((everything, iter, snapshot, of_family, transaction, prepared, to_prepare));
    // The child drops the very last handles, as it does when it returns from `main`.
    let mut last = Some((db, family));
    assert!(fork(|| drop(last.take())));
    let (db, family) = last.take().unwrap();
    assert!(data(path) == before, "a child that dropped the database changed its data");
    assert_eq!(ColumnFamilyDatabase::open(path).unwrap_err().kind(), ErrorKind::Locked);

    // And so on beside merges and checkpoints.
    for round in 0..4 {
        for n in ENTRIES * (round + 1)..ENTRIES * (round + 2) {
            family.put(key(n), [n as u8; 100]).unwrap();
        }
        let mut handles = Some((db.clone(), family.clone()));
        assert!(fork(|| {
            let (db, family) = handles.take().unwrap();
            refused(family.put(key(0), "child"));
            drop(family);
            refused(db.close());
        }));
        if round % 2 == 0 {
            db.flush().unwrap();
        }
    }
    println!("\nput {}", ENTRIES * 5);
    // SAFETY: ends this process as if it was killed.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

#[test]
fn a_child_can_do_its_parents_database_no_harm() {
    if let Some(path) = child::role() {
        return parent(Path::new(&path));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("database");
    let mut process = child::start("a_child_can_do_its_parents_database_no_harm", path.to_str().unwrap());
    let mut said = String::new();
    process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    process.wait().unwrap();
    assert!(said.lines().any(|line| line == format!("put {}", ENTRIES * 5)), "{said}");
    let db = shrunken().open(&path).unwrap();
    let family = db.column_family("family").unwrap();
    for n in 0..ENTRIES * 5 {
        assert_eq!(family.get(key(n)).unwrap().as_deref(), Some(&[n as u8; 100][..]), "entry {n}");
    }
    let prepared = db.prepared_transactions().unwrap();
    assert_eq!(prepared.iter().map(|one| one.name()).collect::<Vec<_>>(), [b"by the parent"]);
    assert!(family.get("prepared").unwrap().is_none());
    prepared[0].commit().unwrap();
    assert_eq!(family.get("prepared").unwrap().unwrap(), "value");
    assert_clean(&db);
}

/// Has a child that was forked beside busy threads drop what it inherited, and open the database for itself
/// once the parent has closed it. What it reads tells rounds apart.
fn hand_down(path: &Path, round: u32) {
    let db = shrunken().open(path).unwrap();
    let family = db.column_family_or_create("family", FamilyOptions::default()).unwrap();
    for n in 0..200 {
        family.put(key(n), round.to_be_bytes()).unwrap();
    }
    let mut handles = Some((db, family));
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut writer = Some(writer);
    let child = Fork::start(|| {
        drop((writer.take(), handles.take()));
        // Ends once the parent has closed the database.
        let _ = reader.read(&mut [0]);
        let db = shrunken().open(path).unwrap();
        let family = db.column_family("family").unwrap();
        for n in 0..200 {
            assert_eq!(family.get(key(n)).unwrap().unwrap(), round.to_be_bytes());
            family.put(key(n), "child").unwrap();
        }
        db.flush().unwrap();
        assert_eq!(family.get(key(1)).unwrap().unwrap(), "child");
        db.close().unwrap();
    });
    let (db, family) = handles.take().unwrap();
    drop(family);
    db.close().unwrap();
    drop(writer.take());
    assert!(child.came_to_its_end(), "the child failed in round {round}");
}

#[test]
fn a_child_that_dropped_what_it_inherited_keeps_no_lock_and_opens_for_itself() {
    if let Some(path) = child::role() {
        (0..10).for_each(|round| hand_down(Path::new(&path), round));
        println!("\ndone");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("database");
    let said = play("a_child_that_dropped_what_it_inherited_keeps_no_lock_and_opens_for_itself", &path);
    assert!(said.lines().any(|line| line == "done"), "{said}");
    let db = shrunken().open(&path).unwrap();
    assert_eq!(db.column_family("family").unwrap().get(key(1)).unwrap().unwrap(), "child");
}
