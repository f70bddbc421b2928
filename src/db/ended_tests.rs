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
    // As a flush or a compaction in another thread would that had passed its own look at whether the database is open.
    let checkpoint = shared.checkpoint();
    assert_eq!(checkpoint.unwrap_err().kind(), ErrorKind::Closed);
    assert!(contents(&storage) == before, "a file has changed");
}
