//! Options that change while a family is in use.

use crate::db::ColumnFamilyDatabase;
use crate::{FamilyOptions, MemoryStorage};

#[test]
fn shares_of_memory_follow_the_options() {
    let builder = ColumnFamilyDatabase::builder().write_buffer_bytes(64 << 20).storage(MemoryStorage::new());
    let db = builder.open_without_threads("memory").unwrap();
    let small = db.create_column_family("small", FamilyOptions::default()).unwrap();
    let large = db.create_column_family("large", FamilyOptions::default()).unwrap();
    let weights = || {
        let weights = db.shared().memory.weights();
        (weights.memtable, weights.cache)
    };
    assert_eq!(weights(), (2, 2));
    let before = large.family().memtable_bytes();
    let options = FamilyOptions::default().memtable_share(30).cache_share(5);
    large.set_options(options.clone()).unwrap();
    assert_eq!(weights(), (31, 6));
    let after = large.family().memtable_bytes();
    assert!(
        after > 6 * before,
        "a memtable takes {after} bytes, and {before} with a thirtieth of the weight"
    );
    large.set_options(options.memtable_share(1)).unwrap();
    assert_eq!(weights(), (2, 6));
    assert_eq!(large.family().memtable_bytes(), before);
    db.drop_column_family("large").unwrap();
    assert_eq!(weights(), (1, 1));
    drop(small);
    db.drop_column_family("small").unwrap();
    assert_eq!(weights(), (0, 0));
}

/// Records of options in the superblock, in parts of the catalog, and in a catalog that is written whole.
#[test]
fn options_are_durable_however_the_catalog_tells_of_them() {
    let storage = MemoryStorage::new();
    let open = || {
        let builder = ColumnFamilyDatabase::builder().automatic_maintenance(false).storage(storage.clone());
        builder.open("memory").unwrap()
    };
    let db = open();
    db.create_column_families((0..50).map(|n| (format!("family {n}"), FamilyOptions::default()))).unwrap();
    let mut share = 1;
    drop(db);
    for changes in 1..12 {
        let db = open();
        let family = db.column_family("family 7").unwrap();
        assert_eq!(family.options().cache_share, share);
        for _ in 0..changes {
            share += 1;
            family
                .set_options(family.options().cache_share(share).page_fill(50 + (share % 51) as u8))
                .unwrap();
        }
    }
    let db = open();
    for family in db.column_families().unwrap() {
        let expected = match &family.name()[..] {
            "family 7" => FamilyOptions::default().cache_share(share).page_fill(50 + (share % 51) as u8),
            _ => FamilyOptions::default(),
        };
        assert_eq!(family.options(), expected);
    }
}
