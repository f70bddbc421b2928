//! What a compaction leaves takes little more than what is live, and another one finds nothing to do.

mod common;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::assert_clean;
use common::storage::TestStorage;
use peristyle::{ColumnFamily, ColumnFamilyDatabase, DatabaseBuilder, FamilyOptions, WriteBatch};

/// Held by every test here: what readers of one database hold up is not given back in another of the same
/// process, either.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbers that look random, the same in every run.
fn mix(n: u64) -> u64 {
    let n = (n ^ n >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (n ^ n >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ n >> 32
}

/// How long values are, by a number that looks random.
type Lengths = fn(u64) -> usize;

const MIXTURES: [(&str, Lengths); 6] = [
    ("small", |n| (n % 300) as usize),
    ("leaves of several pages", |n| 1000 + (n % 11_000) as usize),
    ("just above a page", |n| 4050 + (n % 200) as usize),
    ("runs", |n| 12_000 + (n % 90_000) as usize),
    ("a few large among small", |n| if n.is_multiple_of(50) { 2500 + (n % 60_000) as usize } else { 90 }),
    // As many of each doubling.
    ("all", |n| (1 << (n % 17)) - 1 + ((n >> 8) % (1 << (n % 17))) as usize),
];

/// One family with its entries as they should be.
struct Kept {
    family: ColumnFamily,
    model: BTreeMap<Vec<u8>, Vec<u8>>,
    lengths: Lengths,
}

impl Kept {
    /// Keys of one byte to some hundred, most of them short.
    fn key(n: u64) -> Vec<u8> {
        let random = mix(n);
        let len = [1, 2, 4, 8, 8, 16, 16, 150][(random % 8) as usize];
        [random.to_be_bytes(), n.to_be_bytes()].concat().into_iter().cycle().take(len).collect()
    }

    fn put(&mut self, db: &ColumnFamilyDatabase, numbers: impl Iterator<Item = u64>, round: u64) {
        for n in numbers {
            let value = vec![n as u8; (self.lengths)(mix(n * 31 + round))];
            let mut batch = WriteBatch::new();
            batch.put(&self.family, Self::key(n), &value);
            db.write(&batch).unwrap();
            self.model.insert(Self::key(n), value);
        }
    }

    fn delete(&mut self, numbers: impl Iterator<Item = u64>) {
        for key in numbers.map(Self::key) {
            self.family.delete(&key).unwrap();
            self.model.remove(&key);
        }
    }

    fn live(&self) -> u64 {
        self.model.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }

    fn assert_holds(&self) {
        let mut expected = self.model.iter();
        for entry in self.family.iter().unwrap() {
            let (key, value) = entry.unwrap();
            let (expected_key, expected_value) = expected.next().unwrap();
            assert!(*key == **expected_key && *value == **expected_value);
        }
        assert!(expected.next().is_none());
    }
}

/// A family of `entries` entries, some of which were overwritten, and others deleted, after they were merged.
fn changed_often(db: &ColumnFamilyDatabase, name: &str, lengths: Lengths, entries: u64) -> Kept {
    let family = db.create_column_family(name, FamilyOptions::default()).unwrap();
    let mut kept = Kept { family, model: BTreeMap::new(), lengths };
    kept.put(db, 0..entries, 0);
    db.flush().unwrap();
    kept.put(db, (0..entries).filter(|n| n % 3 == 0), 1);
    db.flush().unwrap();
    kept.delete((0..entries).filter(|n| n % 4 == 1));
    db.flush().unwrap();
    kept.put(db, (0..entries).filter(|n| n % 7 == 0), 2);
    kept
}

fn builder(storage: &TestStorage, page_size: u32) -> DatabaseBuilder {
    let builder = ColumnFamilyDatabase::builder().page_size(page_size).automatic_maintenance(false);
    // Trees of more than two MiB are compacted in steps.
    builder.write_buffer_bytes(1 << 20).storage(storage.clone())
}

fn open(storage: &TestStorage, page_size: u32) -> ColumnFamilyDatabase {
    builder(storage, page_size).open("memory").unwrap()
}

/// Bytes that a compaction writes, be it pages or catalogs.
fn compact(db: &ColumnFamilyDatabase, storage: &TestStorage) -> u64 {
    let before = storage.bytes_written();
    db.compact().unwrap();
    (storage.bytes_written() - before) as u64
}

/// As many moves of the catalog as there are, and superblocks.
const MOVED_CATALOG: u64 = 128 << 10;

#[test]
fn what_was_compacted_is_not_written_again_whatever_its_entries_and_however_many() {
    let _alone = alone();
    for page_size in [4096, 8192] {
        for (name, lengths) in MIXTURES {
            for entries in [1, 2, 3, 5, 10, 40, 150, 600] {
                if (0..entries).map(|n| lengths(mix(n))).sum::<usize>() > 4 << 20 {
                    continue;
                }
                let storage = TestStorage::new();
                let db = open(&storage, page_size);
                let mut kept = changed_often(&db, "family", lengths, entries);
                compact(&db, &storage);
                let assert_nothing_is_left = |db: &ColumnFamilyDatabase| {
                    let what = format!("{entries} entries, {name}, pages of {page_size} bytes");
                    // Where the catalog was before there may be a gap that is worth filling.
                    let family = db.column_family("family").unwrap();
                    let tree = db.family_properties(&family).unwrap().tree_bytes;
                    let again = compact(db, &storage);
                    assert!(again <= (256 << 10) + tree / 16 + MOVED_CATALOG, "{again} bytes: {what}");
                    assert_eq!(compact(db, &storage), 0, "{what}");
                };
                assert_nothing_is_left(&db);
                db.close().unwrap();
                let db = open(&storage, page_size);
                assert_nothing_is_left(&db);
                kept.family = db.column_family("family").unwrap();
                kept.assert_holds();
                assert_clean(&db);
            }
        }
    }
}

#[test]
fn compacted_files_take_little_more_than_what_is_live() {
    let _alone = alone();
    for page_size in [4096, 8192] {
        let storage = TestStorage::new();
        // Beside what is kept for a full disk.
        let db = builder(&storage, page_size).disk_reserve_bytes(0).open("memory").unwrap();
        let families: Vec<Kept> = MIXTURES
            .iter()
            .zip([20_000, 400, 600, 60, 4000, 500])
            .map(|((name, lengths), entries)| changed_often(&db, name, *lengths, entries))
            .collect();
        compact(&db, &storage);
        let live: u64 = families.iter().map(Kept::live).sum();
        let file = db.statistics().data_file_bytes;
        compact(&db, &storage);
        assert_eq!(compact(&db, &storage), 0);
        assert!(file <= live * 6 / 5, "{file} bytes for {live}");
        for kept in &families {
            kept.assert_holds();
        }
        assert_clean(&db);
    }
}

/// What is free in the middle of the file cannot be filled while a reader holds what stands at its end.
#[test]
fn where_nothing_can_be_moved_a_compaction_writes_nothing() {
    let _alone = alone();
    let storage = TestStorage::new();
    let db = open(&storage, 4096);
    let create = |name| db.create_column_family(name, FamilyOptions::default()).unwrap();
    let (front, behind) = (create("front"), create("behind"));
    for (family, entries) in [(&front, 9000), (&behind, 3000u32)] {
        (0..entries).for_each(|n| {
            family.put(n.to_be_bytes(), [n as u8; 1000]).unwrap();
        });
        db.flush().unwrap();
    }
    front.delete_range(&0u32.to_be_bytes()[..]..).unwrap();
    db.flush().unwrap();
    let snapshot = db.snapshot().unwrap();
    compact(&db, &storage);
    let before = (db.statistics().checkpoints, db.statistics().data_file_bytes);
    assert!(db.statistics().data_free_bytes > 2 << 20, "{} bytes are free", db.statistics().data_free_bytes);
    assert_eq!(compact(&db, &storage), 0);
    assert_eq!((db.statistics().checkpoints, db.statistics().data_file_bytes), before);
    drop(snapshot);
    compact(&db, &storage);
    assert!(db.statistics().data_file_bytes + (2 << 20) < before.1, "what was held is given back");
    assert_eq!(behind.len().unwrap(), 3000);
    assert_clean(&db);
}

/// The catalog was written behind a value that is gone.
#[test]
fn a_compaction_moves_the_catalog_and_its_spare_place_to_the_front() {
    let _alone = alone();
    let storage = TestStorage::new();
    let db = open(&storage, 4096);
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    family.put("large", vec![1; 8 << 20]).unwrap();
    db.flush().unwrap();
    // Parts of it fill the place at the front.
    for n in 0..40 {
        db.create_column_family(&format!("family {n}"), FamilyOptions::default()).unwrap();
    }
    family.delete("large").unwrap();
    db.flush().unwrap();
    let long = db.statistics().data_file_bytes;
    assert!(long > 8 << 20, "{long} bytes");
    compact(&db, &storage);
    let short = db.statistics().data_file_bytes;
    assert!(short < 2 << 20, "{short} bytes are left of {long}");
    assert_eq!(compact(&db, &storage), 0);
    assert_clean(&db);
}
