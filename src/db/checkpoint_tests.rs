//! Merges beside a checkpoint.

use std::io;
use std::sync::Arc;

use crate::column_family::options::FamilyOptions;
use crate::db::ColumnFamilyDatabase;
use crate::options::DatabaseBuilder;
use crate::storage::{FileMode, MemoryStorage, StorageBackend, StorageFile, StorageLock};
use crate::sync::Mutex;

type Hook = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// A disk in memory that does something else before the next write into the data file.
#[derive(Clone, Default)]
struct Hooked {
    memory: MemoryStorage,
    before_write: Hook,
}

struct HookedFile {
    file: Arc<dyn StorageFile>,
    before_write: Hook,
}

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.memory.fmt(f)
    }
}

impl std::fmt::Debug for HookedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.file.fmt(f)
    }
}

impl StorageBackend for Hooked {
    fn open(&self, path: &str, mode: FileMode) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.memory.open(path, mode)?;
        if path != "data" {
            return Ok(file);
        }
        Ok(Arc::new(HookedFile { file, before_write: Arc::clone(&self.before_write) }))
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

impl StorageFile for HookedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let hook = self.before_write.lock().take();
        if let Some(hook) = hook {
            hook();
        }
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
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

/// What a process killed now leaves behind.
fn copy(memory: &MemoryStorage) -> MemoryStorage {
    let copy = MemoryStorage::new();
    for directory in ["", "wal"] {
        copy.create_directory(directory).unwrap();
        for name in memory.list(directory).unwrap() {
            let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            let file = memory.open(&path, FileMode::Read).unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            file.read_at(&mut bytes, 0).unwrap();
            copy.open(&path, FileMode::Create).unwrap().write_at(&bytes, 0).unwrap();
        }
    }
    copy
}

fn manual() -> DatabaseBuilder {
    ColumnFamilyDatabase::builder().page_size(4096).automatic_maintenance(false)
}

#[test]
fn a_checkpoint_writes_the_trees_that_it_names_although_merges_replace_them_meanwhile() {
    let storage = Hooked::default();
    let db = manual().storage(storage.clone()).open("memory").unwrap();
    let first = db.create_column_family("first", FamilyOptions::default()).unwrap();
    let second = db.create_column_family("second", FamilyOptions::default()).unwrap();
    for n in 0..1000u32 {
        first.put(n.to_be_bytes(), [1; 100]).unwrap();
        second.put(n.to_be_bytes(), [1; 100]).unwrap();
    }
    db.shared().drain(first.family()).unwrap();
    db.shared().drain(second.family()).unwrap();

    // The first family's pages are written first. Then the second one's are another tree's.
    let (merging, family) = (db.clone(), second.clone());
    *storage.before_write.lock() = Some(Box::new(move || {
        for n in 0..1000u32 {
            family.put(n.to_be_bytes(), [2; 100]).unwrap();
        }
        merging.shared().drain(family.family()).unwrap();
        family.family().release_unread();
    }));
    db.checkpoint().unwrap();
    assert!(storage.before_write.lock().is_none(), "the checkpoint wrote nothing");

    let left = manual().storage(copy(&storage.memory)).open("memory").unwrap();
    assert!(left.verify().unwrap().is_clean(), "{:?}", left.verify().unwrap().faults);
    for (name, byte) in [("first", 1), ("second", 2)] {
        let family = left.column_family(name).unwrap();
        assert!((0..1000u32).all(|n| *family.get(n.to_be_bytes()).unwrap().unwrap() == [byte; 100]));
    }
}
