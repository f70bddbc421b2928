//! Commits in destructors: while a thread unwinds, and when it ends.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use crate::db::ColumnFamilyDatabase;
use crate::error::{ErrorKind, Result};
use crate::storage::MemoryStorage;
use crate::txn::batch::WriteBatch;
use crate::txn::handle::ColumnFamily;
use crate::txn::pipeline::Write;
use crate::{Durability, FamilyOptions};

fn open() -> (ColumnFamilyDatabase, [ColumnFamily; 2]) {
    let builder = ColumnFamilyDatabase::builder().write_buffer_bytes(1 << 20);
    let db = builder.storage(MemoryStorage::new()).open("memory").unwrap();
    let families = ["a", "b"].map(|name| db.create_column_family(name, FamilyOptions::default()).unwrap());
    (db, families)
}

/// Commits in each of the ways that there are, and reads what they wrote.
fn commit_in_every_way(db: &ColumnFamilyDatabase, [a, b]: &[ColumnFamily; 2]) -> Result<()> {
    a.put("single", "value")?;
    a.put_with("synced", "value", Durability::Sync)?;
    let mut batch = WriteBatch::new();
    batch.put(a, "both", "value").put(b, "both", "value");
    db.write(&batch)?;
    batch.clear();
    batch.put(a, "large", vec![7; 2 << 20]);
    db.write(&batch)?;
    assert_eq!(a.iter()?.collect::<Result<Vec<_>>>()?.len(), 4);
    assert_eq!(b.get("both")?.unwrap(), "value");
    db.flush()?;
    assert_eq!(a.get("single")?.unwrap(), "value");
    Ok(())
}

/// Commits when it is dropped, and tells of it.
struct AtEnd {
    db: ColumnFamilyDatabase,
    families: [ColumnFamily; 2],
    told: Sender<Result<()>>,
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.told.send(commit_in_every_way(&self.db, &self.families)).unwrap();
    }
}

#[test]
fn a_commit_while_its_thread_unwinds_is_one_like_any_other() {
    let (db, families) = open();
    let (told, heard) = channel();
    let at_end = AtEnd { db: db.clone(), families: families.clone(), told };
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _at_end = at_end;
        panic!("as the test wants");
    }));
    assert!(unwound.is_err());
    heard.recv().unwrap().unwrap();
    families[0].put("later", "value").unwrap();
    db.close().unwrap();
}

thread_local! {
    static LAST: RefCell<Option<AtEnd>> = const { RefCell::new(None) };
}

#[cfg(not(miri))]
#[test]
fn a_commit_while_its_thread_ends_is_one_like_any_other() {
    // What a thread has first, it gives up last.
    for commits_before in [false, true] {
        let (db, families) = open();
        let (told, heard) = channel();
        let at_end = AtEnd { db: db.clone(), families: families.clone(), told };
        let thread = thread::spawn(move || {
            if commits_before {
                at_end.families[0].put("single", "before").unwrap();
            }
            LAST.with(|last| {
                let mut last = last.borrow_mut();
                let at_end = last.insert(at_end);
                at_end.families[0].put("single", "before").unwrap();
            });
        });
        thread.join().unwrap();
        heard.recv().unwrap().unwrap();
        families[0].put("later", "value").unwrap();
        db.close().unwrap();
    }
}

/// Commits what does not decode, once it has a number.
struct Breaks(ColumnFamilyDatabase, ColumnFamily);

impl Breaks {
    fn commit(&self) {
        let families = [self.1.family().clone()];
        let write =
            Write { families: &families, payload: &[0xff; 20], operations: 1, has_range_deletions: false };
        let commit = || self.0.pipeline().commit(&write, Durability::Buffered);
        assert!(catch_unwind(AssertUnwindSafe(commit)).is_err(), "it decodes");
    }
}

impl Drop for Breaks {
    fn drop(&mut self) {
        self.commit();
    }
}

#[test]
fn a_commit_that_panics_ends_all_writing_whatever_its_thread_does() {
    for unwinds in [false, true] {
        let (db, families) = open();
        let breaks = Breaks(db.clone(), families[0].clone());
        let dropped = catch_unwind(AssertUnwindSafe(|| {
            let _breaks = breaks;
            assert!(!unwinds, "as the test wants");
        }));
        assert_eq!(dropped.is_err(), unwinds);
        let error = families[1].put("later", "value").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WriteFailed);
        assert!(error.to_string().contains("panicked halfway"), "{error}");
    }
}
