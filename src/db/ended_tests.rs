//! What still runs when a database is closed leaves the files alone: they may be somebody else's by then.

use std::collections::BTreeMap;

use crate::db::ColumnFamilyDatabase;
use crate::error::ErrorKind;
use crate::storage::{FileMode, MemoryStorage, StorageBackend};
use crate::sync::Arc;
use crate::{Durability, FamilyOptions};

fn contents(storage: &MemoryStorage) -> BTreeMap<String, Vec<u8>> {
    let mut contents = BTreeMap::new();
    for directory in ["", "wal/"] {
        for name in storage.list(directory.trim_end_matches('/')).unwrap() {
            let path = format!("{directory}{name}");
            let file = storage.open(&path, FileMode::Read).unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            file.read_at(&mut bytes, 0).unwrap();
            contents.insert(path, bytes);
        }
    }
    contents
}

#[test]
fn nothing_is_written_after_the_files_were_given_back() {
    let storage = MemoryStorage::new();
    let builder = ColumnFamilyDatabase::builder().automatic_maintenance(false).storage(storage.clone());
    let db = builder.open("memory").unwrap();
    let family = db.create_column_family("a", FamilyOptions::default()).unwrap();
    family.put_with("key", "value", Durability::Sync).unwrap();
    let shared = Arc::clone(db.shared());
    db.close().unwrap();
    let before = contents(&storage);
    // As a flush or a compaction in another thread would that had passed its own look at whether the database
    // is open.
    let checkpoint = shared.checkpoint();
    assert_eq!(checkpoint.unwrap_err().kind(), ErrorKind::Closed);
    assert!(contents(&storage) == before, "a file has changed");
}

/// What something is, and whether it is still in memory.
type Trace = (&'static str, Box<dyn Fn() -> bool>);

/// Handles that tell whether what they name is still in memory.
struct Traces {
    what: Vec<Trace>,
}

impl Traces {
    fn follow<T: 'static>(&mut self, what: &'static str, item: &Arc<T>) {
        let weak = Arc::downgrade(item);
        self.what.push((what, Box::new(move || weak.strong_count() > 0)));
    }

    /// What stands for the memory of a family at this moment.
    fn follow_family(&mut self, family: &crate::ColumnFamily) {
        let view = family.snapshot().unwrap().view;
        self.follow("a view", &view);
        self.follow("a memtable", &view.active);
        self.follow("a tree", &view.tree);
        self.follow("a family", &view.family);
        self.follow("the pages of a family", view.family.store());
    }

    fn assert_gone(&self) {
        for (what, is_there) in &self.what {
            assert!(!is_there(), "{what} is still in memory");
        }
    }
}

#[cfg(not(shuttle))]
#[test]
fn nothing_stays_in_memory_once_the_last_handle_is_gone() {
    for close in [true, false] {
        let db = ColumnFamilyDatabase::builder()
            .cache_bytes(4 << 20)
            .write_buffer_bytes(4 << 20)
            .storage(MemoryStorage::new())
            .open("memory")
            .unwrap();
        let mut traces = Traces { what: Vec::new() };
        traces.follow("the database", db.shared());
        // Threads that write and merge, and then neither end nor come by again.
        let (end, is_over) = std::sync::mpsc::channel::<()>();
        let is_over = Arc::new(crate::sync::Mutex::new(is_over));
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let db = db.clone();
                let family =
                    db.create_column_family(&format!("family {n}"), FamilyOptions::default()).unwrap();
                traces.follow_family(&family);
                let is_over = Arc::clone(&is_over);
                let (done, is_done) = std::sync::mpsc::channel();
                let thread = std::thread::spawn(move || {
                    for round in 0..4u32 {
                        for key in 0..500u32 {
                            family.put(key.to_be_bytes(), [round as u8; 500]).unwrap();
                        }
                        db.flush().unwrap();
                        assert_eq!(family.iter().unwrap().count(), 500);
                    }
                    let snapshot = family.snapshot().unwrap();
                    drop((db, family));
                    done.send(snapshot).unwrap();
                    drop(done);
                    let _ = is_over.lock().recv();
                });
                (is_done.recv().unwrap(), thread)
            })
            .collect();
        for n in 0..3 {
            traces.follow_family(&db.column_family(&format!("family {n}")).unwrap());
        }
        let snapshots: Vec<_> = threads.iter().map(|(snapshot, _)| snapshot.clone()).collect();
        let threads: Vec<_> = threads.into_iter().map(|(_, thread)| thread).collect();
        if close {
            drop(snapshots);
            db.close().unwrap();
        } else {
            drop(db);
            // Readers may outlive the database; what they hold goes with them.
            assert!(snapshots.iter().all(|snapshot| snapshot.get(7u32.to_be_bytes()).unwrap().is_some()));
            drop(snapshots);
        }
        traces.assert_gone();
        drop(end);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
