//! What of a damaged database opens.

use crate::column_family::options::FamilyOptions;
use crate::db::ColumnFamilyDatabase;
use crate::error::ErrorKind;
use crate::segment::{EXTENTS_START, Superblock};
use crate::storage::{FileMode, MemoryStorage, StorageBackend};

#[test]
fn a_catalog_with_any_byte_changed_is_refused() {
    let storage = MemoryStorage::new();
    let open = || ColumnFamilyDatabase::builder().read_only(true).storage(storage.clone()).open("memory");
    let db = ColumnFamilyDatabase::builder().storage(storage.clone()).open("memory").unwrap();
    for name in ["one", "another"] {
        db.create_column_family(name, FamilyOptions::default()).unwrap().put("key", "value").unwrap();
    }
    db.close().unwrap();
    let file = storage.open("data", FileMode::Write).unwrap();
    let (superblock, _) = Superblock::load(&*file, "data").unwrap();
    let catalog = superblock.catalog;
    let start = EXTENTS_START + catalog.file_page * u64::from(superblock.page_size);
    for at in start..start + catalog.len {
        let mut byte = [0];
        file.read_at(&mut byte, at).unwrap();
        file.write_at(&[byte[0] ^ 1 << (at % 8)], at).unwrap();
        let error = open().unwrap_err();
        assert_eq!((error.kind(), error.location().file.as_deref()), (ErrorKind::Corruption, Some("data")));
        file.write_at(&byte, at).unwrap();
    }
    open().unwrap();
}
