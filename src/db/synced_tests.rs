//! Numbers of commits, and who is told when they are durable.

use std::io;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use crate::codec::ids::SequenceNumber;
use crate::db::ColumnFamilyDatabase;
use crate::error::{ErrorKind, Result};
use crate::storage::{FileMode, MemoryStorage, StorageBackend, StorageFile, StorageLock};
use crate::sync::{Arc, Condvar, Mutex};
use crate::txn::handle::ColumnFamily;
use crate::{Durability, FamilyOptions, WriteBatch};

/// Long enough for a machine that does much else, and nothing that a test waits for if all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// What happens to syncs of files.
#[derive(Debug, Default)]
struct Syncs {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: bool,
    failing: bool,
    begun: u64,
}

impl Syncs {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.changed.notify_all();
    }

    fn pass(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begun += 1;
        self.changed.notify_all();
        while state.held {
            state = self.changed.wait(state);
        }
        if state.failing { Err(io::Error::other("the disk is broken")) } else { Ok(()) }
    }

    fn wait_for_one(&self) {
        let mut state = self.state.lock();
        while state.begun == 0 {
            state = self.changed.wait(state);
        }
    }
}

#[derive(Debug, Clone)]
struct Disk {
    memory: MemoryStorage,
    syncs: Arc<Syncs>,
}

impl StorageBackend for Disk {
    fn open(&self, path: &str, mode: FileMode) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(File { file: self.memory.open(path, mode)?, syncs: Arc::clone(&self.syncs) }))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        self.memory.list(directory)
    }

    fn create_directory(&self, directory: &str) -> io::Result<()> {
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

#[derive(Debug)]
struct File {
    file: Arc<dyn StorageFile>,
    syncs: Arc<Syncs>,
}

impl StorageFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.syncs.pass()?;
        self.file.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.allocate(offset, len)
    }

    fn deallocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.deallocate(offset, len)
    }
}

/// A database that is synced when a test asks for it and at no other time, with one family.
fn open() -> (ColumnFamilyDatabase, ColumnFamily, Disk) {
    let disk = Disk { memory: MemoryStorage::new(), syncs: Arc::default() };
    let builder = ColumnFamilyDatabase::builder().sync_interval(Duration::from_secs(1 << 20));
    let builder = builder.write_buffer_bytes(1 << 20);
    let db = builder.automatic_maintenance(false).storage(disk.clone()).open("memory").unwrap();
    let family = db.create_column_family("log", FamilyOptions::default()).unwrap();
    disk.syncs.set(|state| state.begun = 0);
    (db, family, disk)
}

fn told<T>(tells: &Receiver<T>) -> T {
    tells.recv_timeout(PATIENCE).expect("a callback was never called")
}

/// Asks to be told of `sequence`, and notes what was durable when the callback was called.
fn ask(db: &ColumnFamilyDatabase, sequence: SequenceNumber) -> Receiver<(Result<()>, SequenceNumber)> {
    let (tell, tells) = mpsc::channel();
    let asked = db.clone();
    db.on_synced(sequence, move |outcome| tell.send((outcome, asked.synced_through())).unwrap()).unwrap();
    tells
}

#[test]
fn every_write_gives_the_number_of_its_commit_and_what_writes_nothing_that_of_the_last() {
    let (db, family, _) = open();
    let first = family.put("a", "1").unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&family, "b", "2").delete(&family, "a");
    let numbers = [
        db.write(&batch).unwrap(),
        family.delete_with("b", Durability::Sync).unwrap(),
        family.put_with("c", "3", Durability::None).unwrap(),
        family.delete_range("a".."b").unwrap(),
        family.put("large", vec![0; 1 << 20]).unwrap(),
    ];
    for (place, number) in numbers.into_iter().enumerate() {
        assert_eq!(number.0, first.0 + 1 + place as u64);
    }
    let last = db.snapshot().unwrap().sequence_number();
    assert_eq!(last, numbers[4]);
    assert_eq!(db.write(&WriteBatch::new()).unwrap(), last);
    assert_eq!(family.delete_range("b".."a").unwrap(), last);
    db.close().unwrap();
}

#[test]
fn what_is_synced_is_told_and_can_be_waited_for() {
    let (db, family, disk) = open();
    let synced = family.put_with("a", "1", Durability::Sync).unwrap();
    let buffered = family.put("b", "2").unwrap();
    assert_eq!(db.synced_through(), synced);
    db.sync_through(synced).unwrap();
    assert_eq!(db.synced_through(), synced, "what was durable was synced again");
    db.sync_through(buffered).unwrap();
    assert_eq!(db.synced_through(), buffered);
    let begun = disk.syncs.state.lock().begun;
    db.sync_through(buffered).unwrap();
    assert_eq!(disk.syncs.state.lock().begun, begun);
    let beyond = db.sync_through(buffered.next()).unwrap_err();
    assert_eq!(beyond.kind(), ErrorKind::InvalidArgument, "{beyond}");
    db.close().unwrap();
}

/// The second callback comes while the sync for the first is under way, and for a commit that this sync does
/// not cover.
#[test]
fn nobody_is_told_before_a_sync_that_began_after_the_commit_has_ended() {
    let (db, family, disk) = open();
    disk.syncs.set(|state| state.held = true);
    let first = family.put("a", "1").unwrap();
    let first_told = ask(&db, first);
    disk.syncs.wait_for_one();
    let second = family.put("b", "2").unwrap();
    let second_told = ask(&db, second);
    assert!(first_told.try_recv().is_err() && second_told.try_recv().is_err());
    disk.syncs.set(|state| state.held = false);
    let (outcome, durable) = told(&first_told);
    outcome.unwrap();
    assert!(durable >= first);
    let (outcome, durable) = told(&second_told);
    outcome.unwrap();
    assert!(durable >= second, "told of {second} when {durable} was durable");
    // Of what is durable one is told as well.
    told(&ask(&db, first)).0.unwrap();
    db.close().unwrap();
}

#[test]
fn commits_that_others_have_synced_are_told_of_and_one_sync_serves_many() {
    let (db, family, disk) = open();
    disk.syncs.set(|state| state.held = true);
    let first = family.put("a", "1").unwrap();
    let first_told = ask(&db, first);
    disk.syncs.wait_for_one();
    let others: Vec<_> = (0..100u32).map(|n| family.put(n.to_be_bytes(), "buffered").unwrap()).collect();
    let (tell, tells) = mpsc::channel();
    for number in others.iter().rev() {
        let (tell, number) = (tell.clone(), *number);
        db.on_synced(number, move |outcome| tell.send((number, outcome)).unwrap()).unwrap();
    }
    disk.syncs.set(|state| state.held = false);
    told(&first_told).0.unwrap();
    for number in others {
        let (told_of, outcome) = told(&tells);
        outcome.unwrap();
        assert_eq!(told_of, number, "lower numbers come first");
    }
    assert_eq!(disk.syncs.state.lock().begun, 2);
    db.close().unwrap();
}

#[test]
fn after_a_failed_sync_all_are_told_but_those_whose_commit_was_durable() {
    let (db, family, disk) = open();
    let durable = family.put_with("a", "1", Durability::Sync).unwrap();
    let lost = family.put("b", "2").unwrap();
    disk.syncs.set(|state| state.failing = true);
    let (outcome, through) = told(&ask(&db, lost));
    let error = outcome.unwrap_err();
    assert!([ErrorKind::Io, ErrorKind::WriteFailed].contains(&error.kind()), "{error}");
    assert!(error.to_string().contains("the disk is broken"), "{error}");
    assert_eq!(error.to_string().matches("no more writes").count(), 1, "{error}");
    assert_eq!(through, durable);
    told(&ask(&db, durable)).0.unwrap();
    disk.syncs.set(|state| state.failing = false);
    assert_eq!(
        told(&ask(&db, lost)).0.unwrap_err().kind(),
        ErrorKind::WriteFailed,
        "a failed sync was tried again"
    );
    assert_eq!(db.sync_through(lost).unwrap_err().kind(), ErrorKind::WriteFailed);
    assert_eq!(family.put("c", "3").unwrap_err().kind(), ErrorKind::WriteFailed);
    assert_eq!(db.synced_through(), durable);
}

#[test]
fn a_callback_may_panic_write_and_ask_again() {
    let (db, family, _) = open();
    let number = family.put("a", "1").unwrap();
    db.on_synced(number, |_| panic!("as the test wants")).unwrap();
    let (tell, tells) = mpsc::channel();
    let (asked, written) = (db.clone(), family.clone());
    let again = move |outcome: Result<()>| {
        outcome.unwrap();
        let next = written.put_with("b", "2", Durability::Sync).unwrap();
        asked.on_synced(next, move |outcome| tell.send(outcome).unwrap()).unwrap();
    };
    db.on_synced(number, again).unwrap();
    told(&tells).unwrap();
    db.close().unwrap();
}

#[test]
fn a_callback_that_blocks_holds_up_neither_writers_nor_closing() {
    let (db, family, _) = open();
    let number = family.put("a", "1").unwrap();
    let (release, released) = mpsc::channel::<()>();
    let (begin, begun) = mpsc::channel();
    db.on_synced(number, move |_| {
        begin.send(()).unwrap();
        released.recv().unwrap();
    })
    .unwrap();
    told(&begun);
    family.put_with("b", "2", Durability::Sync).unwrap();
    let last = family.put("c", "3").unwrap();
    let behind = ask(&db, last);
    db.flush().unwrap();
    db.clone().close().unwrap();
    assert!(behind.try_recv().is_err());
    release.send(()).unwrap();
    told(&behind).0.unwrap();
    assert_eq!(db.on_synced(last, |_| panic!("never")).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(db.sync_through(last).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_callback_may_close_the_database_and_drop_its_last_handle() {
    let (db, family, disk) = open();
    let number = family.put("a", "1").unwrap();
    let (tell, tells) = mpsc::channel();
    let closed = db.clone();
    let close = tell.clone();
    db.on_synced(number, move |_| close.send(closed.close()).unwrap()).unwrap();
    told(&tells).unwrap();
    drop((db, family));
    let builder = ColumnFamilyDatabase::builder().storage(disk.clone());
    let db = builder.clone().open("memory").unwrap();
    let family = db.column_family("log").unwrap();
    let number = family.put("b", "2").unwrap();
    let (go_on, gone_on) = mpsc::channel::<()>();
    let last = (db.clone(), family.clone());
    db.on_synced(number, move |outcome| {
        gone_on.recv().unwrap();
        drop(last);
        tell.send(outcome).unwrap();
    })
    .unwrap();
    drop((db, family));
    go_on.send(()).unwrap();
    told(&tells).unwrap();
    let db = builder.open("memory").unwrap();
    assert_eq!(db.column_family("log").unwrap().get("b").unwrap().unwrap(), "2");
    db.close().unwrap();
}

#[test]
fn what_cannot_be_waited_for_is_refused_and_the_callback_dropped() {
    let (db, family, disk) = open();
    let last = family.put("a", "1").unwrap();
    let kept = Arc::new(());
    let held = Arc::clone(&kept);
    let refused = db.on_synced(last.next(), move |_| drop(held)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert_eq!(Arc::strong_count(&kept), 1);
    db.close().unwrap();
    let reader = ColumnFamilyDatabase::builder().read_only(true).storage(disk).open("memory").unwrap();
    assert_eq!(reader.synced_through(), SequenceNumber(0));
    assert_eq!(reader.on_synced(SequenceNumber(0), |_| ()).unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(reader.sync_through(SequenceNumber(0)).unwrap_err().kind(), ErrorKind::ReadOnly);
}
