//! Large batches while they are inserted apart: nobody waits for them, and their memory is bounded.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::column_family::options::FamilyOptions;
use crate::db::ColumnFamilyDatabase;
use crate::storage::MemoryStorage;
use crate::txn::batch::WriteBatch;
use crate::txn::handle::ColumnFamily;
use crate::txn::large::WHILE_APART;

/// Long enough for a machine that does much else, and nothing that a test waits for if all is well.
const PATIENCE: Duration = Duration::from_secs(60);
const WRITE_BYTES: u64 = 1 << 20;

fn open() -> ColumnFamilyDatabase {
    let builder = ColumnFamilyDatabase::builder().page_size(4096).write_buffer_bytes(WRITE_BYTES);
    builder.storage(MemoryStorage::new()).open("memory").unwrap()
}

fn create(db: &ColumnFamilyDatabase, name: &str) -> ColumnFamily {
    db.create_column_family(name, FamilyOptions::default()).unwrap()
}

/// More than an eighth of what is for writing.
fn large_batch(family: &ColumnFamily) -> WriteBatch {
    let mut batch = WriteBatch::new();
    (0..1000u32).for_each(|n| {
        batch.put(family, n.to_be_bytes(), [1; 300]);
    });
    batch
}

/// The thread that calls it says when its batches are inserted apart, and goes on when it is told to.
fn stop_while_apart() -> (impl FnOnce() + Send, Receiver<()>, Sender<()>) {
    let (inside, is_inside) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let called = move || {
        inside.send(()).unwrap();
        // An error: whoever would say so has gone.
        let _ = may_go.recv();
    };
    (move || WHILE_APART.set(Some(Box::new(called))), is_inside, go)
}

#[test]
fn a_large_batch_that_is_being_inserted_holds_up_nobody_else_and_is_counted() {
    let db = open();
    let (large, small) = (create(&db, "large"), create(&db, "small"));
    thread::scope(|scope| {
        // In here, so that the thread goes on if anything fails.
        let (stop, is_inside, go) = stop_while_apart();
        let writer = scope.spawn(|| {
            stop();
            db.write(&large_batch(&large)).unwrap();
        });
        is_inside.recv_timeout(PATIENCE).unwrap();
        assert!(db.memory_report().large_batches >= 1000 * 300);
        // More than there are slots for commits that are not complete.
        for n in 0..10_000u32 {
            small.put(n.to_be_bytes(), "value").unwrap();
        }
        let mut batch = WriteBatch::new();
        batch.put(&small, "other", "value").put(&large, "other", "value");
        db.write(&batch).unwrap();
        assert_eq!(small.len().unwrap(), 10_001);
        assert_eq!(large.len().unwrap(), 1);
        go.send(()).unwrap();
        writer.join().unwrap();
    });
    assert_eq!(large.len().unwrap(), 1001);
    assert_eq!(db.memory_report().large_batches, 0);
    db.close().unwrap();
}

#[test]
fn a_large_batch_waits_while_others_take_an_eighth_of_what_is_for_writing() {
    let db = open();
    let (first, second) = (create(&db, "first"), create(&db, "second"));
    thread::scope(|scope| {
        let (stop, is_inside, go) = stop_while_apart();
        let (stop_other, other_is_inside, other_go) = stop_while_apart();
        let writer = scope.spawn(|| {
            stop();
            db.write(&large_batch(&first)).unwrap();
        });
        is_inside.recv_timeout(PATIENCE).unwrap();
        let other = scope.spawn(|| {
            stop_other();
            db.write(&large_batch(&second)).unwrap();
        });
        let apart = &db.pipeline().apart;
        let since = Instant::now();
        while apart.waiting() == 0 {
            assert!(since.elapsed() < PATIENCE, "the second one does not wait");
            thread::sleep(Duration::from_millis(1));
        }
        assert!(other_is_inside.try_recv().is_err());
        let alone = apart.bytes();
        go.send(()).unwrap();
        writer.join().unwrap();
        other_is_inside.recv_timeout(PATIENCE).unwrap();
        assert!(apart.bytes() <= alone, "{} bytes of one batch, {alone} of another", apart.bytes());
        other_go.send(()).unwrap();
        other.join().unwrap();
    });
    assert_eq!(db.pipeline().apart.waited().0, 1);
    assert_eq!(second.len().unwrap(), 1000);
    db.close().unwrap();
}
