//! What of a damaged database opens.

use std::io;
use std::ops::Range;

use crate::column_family::options::FamilyOptions;
use crate::db::ColumnFamilyDatabase;
use crate::db::read_catalog::read_catalog;
use crate::error::{ErrorKind, Result};
use crate::segment::{EXTENTS_START, Superblock};
use crate::storage::{FileMode, MemoryStorage, StorageBackend, StorageFile, StorageLock};
use crate::sync::{Arc, Mutex};

const NAMES: [&str; 3] = ["one", "another", "third"];

/// A closed database of three families with an entry each.
fn database() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let db = ColumnFamilyDatabase::builder().storage(storage.clone()).open("memory").unwrap();
    for name in NAMES {
        db.create_column_family(name, FamilyOptions::default()).unwrap().put("key", name).unwrap();
    }
    db.close().unwrap();
    storage
}

fn open(storage: &MemoryStorage, read_only: bool) -> Result<ColumnFamilyDatabase> {
    ColumnFamilyDatabase::builder()
        .read_only(read_only)
        .automatic_maintenance(false)
        .storage(storage.clone())
        .open("memory")
}

fn give_up(storage: &MemoryStorage) -> Result<ColumnFamilyDatabase> {
    let builder = ColumnFamilyDatabase::builder().give_up_lost_families(true).automatic_maintenance(false);
    builder.storage(storage.clone()).open("memory")
}

fn data(storage: &MemoryStorage) -> Arc<dyn StorageFile> {
    storage.open("data", FileMode::Write).unwrap()
}

/// Where the copies of the catalog stand, and how long they are.
fn copies(storage: &MemoryStorage) -> ([u64; 2], u64) {
    let (superblock, _) = Superblock::load(&*data(storage), "data").unwrap();
    let start = |page: Option<u64>| EXTENTS_START + page.unwrap() * u64::from(superblock.page_size);
    (superblock.catalog.copies.map(start), superblock.catalog.len)
}

/// Where the family's segments stand, and what is in them.
fn pages_of(storage: &MemoryStorage, name: &str) -> Vec<(u64, Vec<u8>)> {
    let file = data(storage);
    let (superblock, _) = Superblock::load(&*file, "data").unwrap();
    let catalog = read_catalog(&*file, &superblock).unwrap().catalog;
    let family = catalog.families.values().find(|family| family.name == name).unwrap();
    let page_size = u64::from(superblock.page_size);
    let pages = family.segments.iter().map(|segment| {
        let at = EXTENTS_START + segment.file_page * page_size;
        let mut bytes = vec![0; (u64::from(segment.pages) * page_size) as usize];
        file.read_at(&mut bytes, at).unwrap();
        (at, bytes)
    });
    pages.collect()
}

fn flip(storage: &MemoryStorage, at: u64) {
    let mut byte = [0];
    let file = data(storage);
    file.read_at(&mut byte, at).unwrap();
    file.write_at(&[byte[0] ^ 1 << (at % 8)], at).unwrap();
}

/// Families that can be read hold what they should, the others say that they are damaged. Returns how many
/// those are.
fn count_lost(db: &ColumnFamilyDatabase) -> usize {
    let mut lost = 0;
    for name in db.column_family_names() {
        match db.column_family(&name) {
            Ok(family) => assert_eq!(family.get("key").unwrap().unwrap(), name.as_bytes()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corruption);
                assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
                lost += 1;
            }
        }
    }
    lost
}

#[test]
fn a_byte_changed_in_one_copy_of_the_catalog_costs_nothing() {
    let storage = database();
    let (starts, len) = copies(&storage);
    for start in starts {
        for at in (start..start + len).step_by(len as usize / 71) {
            flip(&storage, at);
            let db = open(&storage, true).unwrap();
            assert_eq!((db.column_family_names().len(), count_lost(&db)), (3, 0), "byte {at}");
            drop(db);
            flip(&storage, at);
        }
    }
}

#[test]
fn a_damaged_copy_is_written_anew_by_the_next_opening() {
    for copy in [0, 1] {
        let storage = database();
        let (starts, len) = copies(&storage);
        data(&storage).write_at(&vec![0xff; len as usize], starts[copy]).unwrap();
        open(&storage, false).unwrap().close().unwrap();
        let (starts, len) = copies(&storage);
        data(&storage).write_at(&vec![0xff; len as usize], starts[1 - copy]).unwrap();
        assert_eq!(count_lost(&open(&storage, true).unwrap()), 0);
    }
}

#[test]
fn a_byte_changed_in_both_copies_costs_one_family_at_most() {
    let storage = database();
    let (starts, len) = copies(&storage);
    let mut losses = 0;
    for skip in (0..len).step_by(len as usize / 97) {
        starts.iter().for_each(|start| flip(&storage, start + skip));
        let db = open(&storage, true).unwrap();
        assert_eq!(db.column_family_names().len(), 3);
        let lost = count_lost(&db);
        assert!(lost <= 1, "byte {skip}");
        assert_eq!(db.verify().unwrap().faults.len(), lost + 2, "each copy is damaged");
        losses += lost;
        drop(db);
        if lost > 0 {
            // The loss is not made permanent by somebody who did not ask for that.
            let error = open(&storage, false).expect_err("a family is lost");
            assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
            assert!(error.location().family.is_some(), "{error}");
            assert!(error.to_string().contains("give_up_lost_families"), "{error}");
        }
        starts.iter().for_each(|start| flip(&storage, start + skip));
    }
    assert!(losses > 0, "{losses}");
}

#[test]
fn where_the_record_of_what_is_prepared_is_lost_nobody_takes_it_for_nothing() {
    let storage = database();
    let db = open(&storage, false).unwrap();
    let family = db.column_family("another").unwrap();
    let mut transaction = db.begin().unwrap();
    transaction.put(&family, "held", "prepared").unwrap();
    drop(transaction.prepare("name").unwrap());
    drop(family);
    db.close().unwrap();
    let (starts, len) = copies(&storage);
    let mut lost_at = None;
    for skip in (0..len).step_by(len as usize / 97) {
        starts.iter().for_each(|start| flip(&storage, start + skip));
        let db = open(&storage, true).unwrap();
        match db.prepared_transactions() {
            Ok(prepared) => assert_eq!(prepared.len(), 1, "byte {skip}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
                drop(db);
                assert_eq!(open(&storage, false).unwrap_err().kind(), ErrorKind::Corruption);
                lost_at = Some(skip);
            }
        }
        starts.iter().for_each(|start| flip(&storage, start + skip));
    }
    let skip = lost_at.expect("some byte belongs to that record");
    starts.iter().for_each(|start| flip(&storage, start + skip));
    let db = give_up(&storage).unwrap();
    assert_eq!(db.prepared_transactions().unwrap_err().kind(), ErrorKind::Corruption);
    db.column_family("another").unwrap().put("held", "free").unwrap();
    db.close().unwrap();
    let db = open(&storage, false).unwrap();
    assert!(db.prepared_transactions().unwrap().is_empty());
    assert_eq!(db.column_family("another").unwrap().get("held").unwrap().unwrap(), "free");
}

#[test]
fn a_lost_family_is_refused_until_it_is_dropped_and_its_pages_stay() {
    let storage = database();
    let (starts, len) = copies(&storage);
    let file_len = data(&storage).len().unwrap();
    let pages = pages_of(&storage, "another");
    // The last that the catalog says of the family is a record.
    let mut bytes = vec![0; len as usize];
    data(&storage).read_at(&mut bytes, starts[0]).unwrap();
    let record = bytes.windows(7).rposition(|name| name == b"another").unwrap();
    starts.iter().for_each(|start| flip(&storage, start + record as u64 + 1));
    for round in 0..3 {
        // Once somebody gave it up nobody is asked again.
        let db = if round == 0 { give_up(&storage) } else { open(&storage, false) }.unwrap();
        assert_eq!(count_lost(&db), 1);
        let taken = db.create_column_family("another", FamilyOptions::default());
        assert_eq!(taken.unwrap_err().kind(), ErrorKind::FamilyExists);
        assert_eq!(db.rename_column_family("one", "another").unwrap_err().kind(), ErrorKind::FamilyExists);
        assert_eq!(db.rename_column_family("another", "two").unwrap_err().kind(), ErrorKind::Corruption);
        // The others are written to, and no page is taken that may be the lost family's.
        let one = db.column_family("one").unwrap();
        for key in 0..200u32 {
            one.put(key.to_be_bytes(), vec![round; 500]).unwrap();
        }
        db.compact().unwrap();
        db.close().unwrap();
    }
    for (at, bytes) in &pages {
        let mut now = vec![0; bytes.len()];
        data(&storage).read_at(&mut now, *at).unwrap();
        assert!(now == *bytes, "what stood at {at} was overwritten");
    }
    let db = open(&storage, false).unwrap();
    assert!(data(&storage).len().unwrap() > file_len);
    db.drop_column_family("another").unwrap();
    assert_eq!(db.column_family_names(), ["one", "third"]);
    db.create_column_family("another", FamilyOptions::default()).unwrap().put("key", "another").unwrap();
    db.close().unwrap();
    let db = open(&storage, false).unwrap();
    assert_eq!((db.column_family_names().len(), count_lost(&db)), (3, 0));
    db.compact().unwrap();
    assert!(db.verify().unwrap().is_clean());
    assert!(data(&storage).len().unwrap() <= file_len + (1 << 20));
}

/// A disk in memory that does not give certain bytes of the data file.
#[derive(Clone, Debug, Default)]
struct Sick {
    memory: MemoryStorage,
    unreadable: std::sync::Arc<Mutex<Vec<Range<u64>>>>,
}

#[derive(Debug)]
struct SickFile {
    file: Arc<dyn StorageFile>,
    unreadable: std::sync::Arc<Mutex<Vec<Range<u64>>>>,
}

impl StorageBackend for Sick {
    fn open(&self, path: &str, mode: FileMode) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.memory.open(path, mode)?;
        if path != "data" {
            return Ok(file);
        }
        Ok(Arc::new(SickFile { file, unreadable: std::sync::Arc::clone(&self.unreadable) }))
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

impl StorageFile for SickFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        if self.unreadable.lock().iter().any(|range| range.start < end && offset < range.end) {
            return Err(io::Error::other("the sector cannot be read"));
        }
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
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

#[test]
fn a_record_that_cannot_be_read_for_a_while_costs_nothing_unless_its_family_is_given_up() {
    const FAMILIES: usize = 60;
    let disk = Sick::default();
    let builder = || ColumnFamilyDatabase::builder().automatic_maintenance(false).storage(disk.clone());
    let db = builder().open("memory").unwrap();
    for n in 0..FAMILIES {
        let name = format!("family number {n}");
        db.create_column_family(&name, FamilyOptions::default()).unwrap().put("key", &*name).unwrap();
    }
    db.close().unwrap();
    let (starts, len) = copies(&disk.memory);
    let mut losing = None;
    for skip in (0..len).step_by(512) {
        *disk.unreadable.lock() = starts.map(|start| start + skip..start + skip + 1).to_vec();
        // The catalog as a whole is refused if nobody can say whose records are missing.
        let Ok(reader) = builder().read_only(true).open("memory") else { continue };
        let lost = count_lost(&reader);
        drop(reader);
        if lost > 0 {
            losing = Some(skip);
            let error = builder().open("memory").expect_err("a family is lost");
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert!(error.io_error().is_some() && error.location().family.is_some(), "{error}");
        }
    }
    // It passed, and all is there.
    disk.unreadable.lock().clear();
    assert_eq!(
        (copies(&disk.memory), count_lost(&builder().read_only(true).open("memory").unwrap())),
        ((starts, len), 0)
    );
    let skip = losing.expect("some record was lost");
    *disk.unreadable.lock() = starts.map(|start| start + skip..start + skip + 1).to_vec();
    let db = builder().give_up_lost_families(true).open("memory").unwrap();
    let lost = count_lost(&db);
    assert!((1..FAMILIES).contains(&lost), "{lost}");
    let named = db.column_family_names();
    let well = named.iter().find_map(|name| db.column_family(name).ok()).unwrap();
    well.put("another", "value").unwrap();
    db.close().unwrap();
    disk.unreadable.lock().clear();
    let db = builder().open("memory").unwrap();
    assert_eq!((db.column_family_names().len(), count_lost(&db)), (FAMILIES, lost));
}
