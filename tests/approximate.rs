//! How much a range of keys holds, about, and where it is cut into equal parts: held against what is there,
//! wherever it is, in memtables, deltas and trees.

mod common;

use std::ops::Bound::{Excluded, Included, Unbounded};

use common::storage::TestStorage;
use peristyle::{ColumnFamily, ColumnFamilyDatabase, FamilyOptions, MemoryStorage};

fn key(n: u32) -> [u8; 4] {
    n.to_be_bytes()
}

fn fill(family: &ColumnFamily, keys: impl Iterator<Item = u32>) {
    keys.for_each(|n| {
        family.put(key(n), [n as u8; 50]).unwrap();
    });
}

/// A database that merges when it is told to.
fn quiet() -> (ColumnFamilyDatabase, ColumnFamily) {
    let builder = ColumnFamilyDatabase::builder().automatic_maintenance(false).page_size(4096);
    let db = builder.storage(MemoryStorage::new()).open("memory").unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    (db, family)
}

/// Entries in each of the parts.
fn parts(family: &ColumnFamily, range: std::ops::Range<[u8; 4]>, wanted: usize) -> Vec<usize> {
    let points = family.split_points(range.clone(), wanted).unwrap();
    assert!(points.len() < wanted);
    assert!(points.is_sorted_by(|a, b| a < b), "{points:?}");
    assert!(points.iter().all(|point| range.start[..] < point[..] && point[..] < range.end[..]));
    let starts =
        std::iter::once(Included(&range.start[..])).chain(points.iter().map(|key| Included(&key[..])));
    let ends = points.iter().map(|key| Excluded(&key[..])).chain([Excluded(&range.end[..])]);
    starts.zip(ends).map(|part| family.range(part).unwrap().count()).collect()
}

#[test]
fn a_merged_family_is_counted_exactly_and_cut_evenly() {
    let (db, family) = quiet();
    fill(&family, 0..20_000);
    db.compact().unwrap();
    for (start, end) in [(0, 20_000), (1, 2), (5000, 12_345), (19_999, 30_000), (8, 3)] {
        let range = key(start)..key(end);
        let there = family.range(range.clone()).unwrap().count();
        assert_eq!(family.approximate_len(range.clone()).unwrap(), there as u64);
        let size = family.approximate_size(range.clone()).unwrap();
        let most = there * 70 + 4096;
        assert!((there * 50..=most).contains(&(size as usize)), "{size} bytes for {there} entries");
        for wanted in [1, 2, 3, 16] {
            let parts = parts(&family, range.clone(), wanted);
            if there >= 1000 {
                let even = there / wanted;
                assert_eq!(parts.len(), wanted);
                assert!(parts.iter().all(|part| part.abs_diff(even) <= even / 8 + 1), "{parts:?}");
            }
        }
    }
    assert_eq!(family.approximate_len((Unbounded::<&str>, Unbounded)).unwrap(), 20_000);
    assert!(family.split_points(.., 0).unwrap().is_empty());
    assert_eq!(family.split_points(key(0)..key(3), usize::MAX).unwrap().len(), 2);
    let taken = db.family_properties(&family).unwrap().tree_bytes;
    let size = family.approximate_size(..).unwrap();
    assert!((taken / 10 * 9..=taken).contains(&size), "{size} of {taken} bytes");
}

#[test]
fn memtables_and_deltas_count_as_well() {
    let (db, family) = quiet();
    fill(&family, (0..40_000).step_by(2));
    assert_eq!(family.approximate_len(key(10)..key(60)).unwrap(), 25, "a few entries of a memtable");
    let half = family.approximate_len(key(10_000)..key(30_000)).unwrap();
    assert!((5000..=20_000).contains(&half), "{half} in half of a memtable with 20,000 entries");
    let quarters = parts(&family, key(0)..key(40_000), 4);
    assert!(quarters.iter().all(|part| (2000..=10_000).contains(part)), "{quarters:?} of a memtable");
    db.flush().unwrap();
    // What is new becomes a delta, or stays in memory.
    for step in [1, 3] {
        fill(&family, (step..40_000).step_by(40));
        if step == 1 {
            db.flush().unwrap();
        }
    }
    let properties = db.family_properties(&family).unwrap();
    let recent = properties.entries_in_deltas + properties.entries_in_memtables;
    assert!(recent >= 1000, "{recent} entries that are not in the tree");
    for (start, end) in [(0, 40_000), (10_000, 30_000), (777, 999)] {
        let there = family.range(key(start)..key(end)).unwrap().count() as u64;
        let found = family.approximate_len(key(start)..key(end)).unwrap();
        assert!(found.abs_diff(there) <= recent, "{found} for {there}, {recent} of them recent");
        if there > 1000 {
            assert!(found.abs_diff(there) <= there / 10, "{found} for {there}");
            let parts = parts(&family, key(start)..key(end), 8);
            assert!(
                parts.iter().all(|part| *part as u64 >= there / 16 && *part as u64 <= there / 4),
                "{parts:?}"
            );
        }
    }
}

#[test]
fn what_is_deleted_does_not_count() {
    let (db, family) = quiet();
    fill(&family, 0..10_000);
    db.compact().unwrap();
    family.delete_range(key(2000)..key(9000)).unwrap();
    for n in 0..50 {
        family.delete(key(n)).unwrap();
    }
    assert_eq!(family.approximate_len(..).unwrap(), 2950);
    assert_eq!(family.approximate_len(key(3000)..key(4000)).unwrap(), 0);
    assert_eq!(family.approximate_size(key(3000)..key(4000)).unwrap(), 0);
    let size = family.approximate_size(..).unwrap();
    assert!(size < 3000 * 70, "{size} bytes for 2950 entries");
    let parts = parts(&family, key(0)..key(10_000), 4);
    assert!(parts.iter().all(|part| (500..=1000).contains(part)), "{parts:?}");
    family.delete_range(..).unwrap();
    assert_eq!(family.approximate_len(..).unwrap(), 0);
    assert!(family.split_points(.., 9).unwrap().len() < 9);
}

#[test]
fn a_large_family_is_measured_in_few_reads() {
    let storage = TestStorage::new();
    let open = || {
        let builder = common::shrunken().automatic_maintenance(false).write_buffer_bytes(8 << 20);
        builder.storage(storage.clone()).open("db").unwrap()
    };
    let db = open();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    fill(&family, 0..50_000);
    db.compact().unwrap();
    db.close().unwrap();
    let db = open();
    let family = db.column_family("family").unwrap();
    let height = u64::from(db.family_properties(&family).unwrap().tree_height);
    assert!(height >= 3, "{height} levels");
    let reads = |what: &dyn Fn()| {
        let before = family.cache_stats().bytes_read;
        what();
        (family.cache_stats().bytes_read - before) / 4096
    };
    let range = || key(1234)..key(45_678);
    let len = reads(&|| assert_eq!(family.approximate_len(range()).unwrap(), 44_444));
    assert!(len <= 4 * height, "{len} pages for two descents and two looks");
    let size = reads(&|| assert!(family.approximate_size(range()).unwrap() > 44_444 * 50));
    assert!(size <= 4 * height, "{size} pages");
    let split = reads(&|| assert_eq!(family.split_points(range(), 8).unwrap().len(), 7));
    assert!(split <= 4 * 8 + 4 * height, "{split} pages for eight parts");
}
