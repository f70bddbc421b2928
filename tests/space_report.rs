//! The report of space says of every byte of the files what it is for.

mod common;

use std::fs;
use std::path::Path;

use common::eventually;
use peristyle::{ColumnFamily, ColumnFamilyDatabase, FamilyOptions, SpaceReport};

fn fill(family: &ColumnFamily, keys: std::ops::Range<u32>, len: usize) {
    keys.for_each(|n| {
        family.put(n.to_be_bytes(), vec![n as u8; len]).unwrap();
    });
}

/// Bytes of the files in a folder.
fn bytes_in(folder: &Path) -> u64 {
    // What is removed meanwhile has no length.
    let len =
        |file: std::io::Result<fs::DirEntry>| file.and_then(|file| file.metadata()).map_or(0, |it| it.len());
    fs::read_dir(folder).unwrap().map(len).sum()
}

/// Holds the sums of the report against each other and against the files.
#[track_caller]
fn report(db: &ColumnFamilyDatabase, path: &Path) -> SpaceReport {
    let mut report = db.space_report().unwrap();
    // Files of the log come and go in the background. Removed ones take room until the disk has it back, and
    // have no names.
    eventually("the log's files take what is said", || {
        report = db.space_report().unwrap();
        let range = report.log_bytes - report.log_spare_bytes..=report.log_bytes;
        range.contains(&bytes_in(&path.join("wal")))
    });
    let data = fs::metadata(path.join("data")).unwrap().len();
    assert_eq!(report.data_file_bytes, data, "bytes of the data file");
    let families: u64 = report.families.iter().map(|family| family.total_bytes).sum();
    let parts = [
        families,
        report.superblock_bytes,
        report.catalog_bytes,
        report.waiting_bytes,
        report.free_bytes,
        report.other_bytes,
    ];
    assert_eq!(parts.iter().sum::<u64>(), data, "{report:?}");
    for family in &report.families {
        let parts = [
            family.live_bytes,
            family.pinned_bytes,
            family.superseded_bytes,
            family.changing_bytes,
            family.free_bytes,
        ];
        assert_eq!(parts.iter().sum::<u64>(), family.total_bytes, "{family:?}");
        assert!(
            family.delta_bytes <= family.live_bytes && family.unfilled_bytes.unwrap() <= family.live_bytes
        );
    }
    assert_eq!(
        report.log_bytes,
        report.log_live_bytes + report.log_spare_bytes + report.log_held_bytes + report.log_kept_bytes
    );
    assert!(report.hole_bytes + report.reserve_bytes <= 2 * report.free_bytes);
    report
}

#[test]
fn every_byte_of_the_files_is_said_what_it_is_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let builder = ColumnFamilyDatabase::builder().automatic_maintenance(false).page_size(4096);
    let db = builder.open(&path).unwrap();
    let new = |name| db.create_column_family(name, FamilyOptions::default()).unwrap();
    let (large, small) = (new("large"), new("small"));
    fill(&large, 0..20_000, 100);
    fill(&small, 0..100, 3000);
    let found = report(&db, &path);
    assert!(found.families[0].memtable_bytes > 20_000 * 100 && found.log_live_bytes > 20_000 * 100);
    db.flush().unwrap();
    let found = report(&db, &path);
    assert!(found.families[0].live_bytes > 20_000 * 100 && found.families[1].live_bytes > 100 * 3000);
    assert_eq!((found.other_bytes, found.oldest_reader), (0, None));

    let reader = large.snapshot().unwrap();
    fill(&large, 0..20_000, 101);
    db.compact().unwrap();
    fill(&large, 0..20_000, 102);
    db.compact().unwrap();
    let found = report(&db, &path);
    assert!(found.families[0].pinned_bytes > 20_000 * 100, "{found:?}");
    assert!(found.oldest_reader.is_some() && found.oldest_reader == found.families[0].oldest_reader);
    assert_eq!((found.old_trees_held, found.families[1].oldest_reader), (1, None));
    assert_eq!(reader.get(0u32.to_be_bytes()).unwrap().unwrap().len(), 100);
    drop(reader);
    eventually("what only the reader kept is free", || {
        let found = report(&db, &path);
        found.families[0].pinned_bytes == 0 && found.oldest_reader.is_none()
    });

    let transaction = db.begin().unwrap();
    assert_eq!(report(&db, &path).transactions_open, 1);
    drop(transaction);

    // Nobody reads the family any more, and its segments are free after a checkpoint.
    db.drop_column_family("large").unwrap();
    drop(large);
    eventually("the segments of a family that was dropped wait", || {
        let found = report(&db, &path);
        found.other_bytes == 0 && found.families.len() == 1
    });
    db.checkpoint().unwrap();
    db.checkpoint().unwrap();
    let found = report(&db, &path);
    assert_eq!(found.waiting_bytes, 0);
    assert!(found.free_bytes > 20_000 * 100, "{found:?}");
    db.close().unwrap();
}

#[test]
fn pages_that_are_not_full_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let builder = ColumnFamilyDatabase::builder().automatic_maintenance(false).page_size(4096);
    let db = builder.open(&path).unwrap();
    let full = db.create_column_family("full", FamilyOptions::default()).unwrap();
    let half = db.create_column_family("half", FamilyOptions::default().page_fill(50)).unwrap();
    let runs = db.create_column_family("runs", FamilyOptions::default()).unwrap();
    fill(&full, 0..5000, 50);
    fill(&half, 0..5000, 50);
    // Five pages each, a little more than four of them used.
    fill(&runs, 0..100, 4 * 4096);
    db.flush().unwrap();
    let found = report(&db, &path);
    let share = |i: usize| {
        let family = &found.families[i];
        family.unfilled_bytes.unwrap() as f64 / family.live_bytes as f64
    };
    assert!(share(0) < 0.05, "{} of full pages hold nothing", share(0));
    assert!((0.4..0.6).contains(&share(1)), "{} of half full pages", share(1));
    assert!((0.1..0.25).contains(&share(2)), "{} of runs", share(2));
}
