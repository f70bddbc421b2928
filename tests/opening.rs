//! Opening, closing, and everything that a path may hold instead of a database.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::Duration;

use common::storage::{Strike, TestStorage};
use common::{assert_clean, child, failure, shrunken};
use peristyle::{
    ColumnFamilyDatabase, DatabaseBuilder, Durability, ErrorKind, FamilyOptions, MemoryStorage,
    StorageBackend, WriteBatch,
};

/// Bytes of a superblock slot, and where the two stand.
const SLOT: usize = 512;
const SLOTS: [usize; 2] = [0, 32 << 10];

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("database");
    (directory, path)
}

/// Everything under `path`: bytes of files, nothing for directories.
fn image(path: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut image = BTreeMap::new();
    let mut left = vec![path.to_path_buf()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            image.insert(path, None);
        } else {
            let bytes = fs::read(&path).unwrap();
            image.insert(path, Some(bytes));
        }
    }
    image
}

#[track_caller]
fn assert_unchanged(path: &Path, before: &BTreeMap<PathBuf, Option<Vec<u8>>>) {
    let after = image(path);
    let names = |image: &BTreeMap<PathBuf, Option<Vec<u8>>>| image.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(before));
    for (path, bytes) in before {
        assert!(after[path] == *bytes, "{} was changed", path.display());
    }
}

/// A small database with something in its tree and something only in its log.
fn populate(path: &Path) {
    let db = shrunken().automatic_maintenance(false).open(path).unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for n in 0..200u32 {
        family.put(n.to_be_bytes(), [n as u8; 300]).unwrap();
    }
    db.flush().unwrap();
    for n in 200..210u32 {
        family.put(n.to_be_bytes(), [n as u8; 300]).unwrap();
    }
}

#[track_caller]
fn assert_populated(db: &ColumnFamilyDatabase) {
    let family = db.column_family("family").unwrap();
    assert_eq!(family.len().unwrap(), 210);
    for (n, entry) in family.iter().unwrap().enumerate() {
        let (key, value) = entry.unwrap();
        assert_eq!(key, (n as u32).to_be_bytes());
        assert_eq!(value, [n as u8; 300]);
    }
}

fn overwrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_second_opener_in_this_process_is_told_that_the_database_is_open() {
    let (_directory, path) = fresh();
    let db = ColumnFamilyDatabase::open(&path).unwrap();
    let locked = failure(ColumnFamilyDatabase::open(&path), ErrorKind::Locked);
    assert_eq!(locked.to_string().matches(path.to_str().unwrap()).count(), 1, "{locked}");
    failure(ColumnFamilyDatabase::builder().read_only(true).open(&path), ErrorKind::Locked);
    drop(db);
    ColumnFamilyDatabase::open(&path).unwrap();
    let storage = MemoryStorage::new();
    let open = || shrunken().storage(storage.clone()).open("memory");
    let db = open().unwrap();
    failure(open(), ErrorKind::Locked);
    db.close().unwrap();
    open().unwrap();
}

#[test]
fn a_second_opener_in_another_process_is_told_that_the_database_is_open() {
    if let Some(path) = child::role() {
        match ColumnFamilyDatabase::open(&path) {
            Ok(_) => println!("\nopened"),
            Err(error) => println!("\n{:?}", error.kind()),
        }
        return;
    }
    let (_directory, path) = fresh();
    let says = || {
        let name = "a_second_opener_in_another_process_is_told_that_the_database_is_open";
        let mut child = child::start(name, path.to_str().unwrap());
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(child.wait().unwrap().success(), "{said}");
        said
    };
    let db = ColumnFamilyDatabase::open(&path).unwrap();
    assert!(says().lines().any(|line| line == "Locked"));
    db.close().unwrap();
    assert!(says().lines().any(|line| line == "opened"));
}

#[test]
fn several_readers_may_have_a_database_open_but_none_beside_a_writer() {
    let (_directory, path) = fresh();
    populate(&path);
    let open = || shrunken().read_only(true).open(&path);
    let readers = [open().unwrap(), open().unwrap()];
    readers.iter().for_each(assert_populated);
    failure(shrunken().open(&path), ErrorKind::Locked);
    drop(readers);
    assert_populated(&shrunken().open(&path).unwrap());
}

#[test]
fn what_is_no_database_is_refused_and_left_alone() {
    let (directory, path) = fresh();
    let file = directory.path().join("file");
    fs::write(&file, "text").unwrap();
    let foreign = directory.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("letter.txt"), "dear").unwrap();
    let nested = directory.path().join("nested");
    fs::create_dir_all(nested.join("wal")).unwrap();
    fs::write(nested.join("wal/diary.txt"), "dear").unwrap();
    let orphaned = directory.path().join("orphaned");
    populate(&orphaned);
    fs::remove_file(orphaned.join("data")).unwrap();
    let same_name = directory.path().join("same name");
    fs::create_dir(&same_name).unwrap();
    fs::write(same_name.join("data"), "a file that happens to have this name".repeat(3000)).unwrap();
    let short = directory.path().join("short");
    fs::create_dir(&short).unwrap();
    fs::write(short.join("data"), "too short").unwrap();
    for path in [&file, &foreign, &nested, &orphaned, &same_name, &short] {
        let before = image(path);
        let errors = [
            failure(ColumnFamilyDatabase::open(path), ErrorKind::NotADatabase),
            failure(ColumnFamilyDatabase::builder().read_only(true).open(path), ErrorKind::NotADatabase),
        ];
        for error in errors {
            assert_eq!(error.location().directory.as_deref(), Some(path.as_path()));
            assert_eq!(error.to_string().matches(path.to_str().unwrap()).count(), 1, "{error}");
        }
        assert_unchanged(path, &before);
    }
    fs::create_dir(&path).unwrap();
    ColumnFamilyDatabase::open(&path).unwrap();
}

#[test]
fn settings_decide_whether_a_database_is_created() {
    let (_directory, path) = fresh();
    failure(
        ColumnFamilyDatabase::builder().create_if_missing(false).open(&path),
        ErrorKind::DatabaseNotFound,
    );
    failure(ColumnFamilyDatabase::builder().read_only(true).open(&path), ErrorKind::DatabaseNotFound);
    assert!(!path.exists(), "a database that was not to be created left traces");
    fs::create_dir(&path).unwrap();
    failure(
        ColumnFamilyDatabase::builder().create_if_missing(false).open(&path),
        ErrorKind::DatabaseNotFound,
    );
    failure(ColumnFamilyDatabase::builder().read_only(true).open(&path), ErrorKind::DatabaseNotFound);
    assert_eq!(image(&path).len(), 1, "a database that was not to be created left traces");
    let new = || ColumnFamilyDatabase::builder().error_if_exists(true);
    new().open(&path).unwrap().close().unwrap();
    let before = image(&path);
    let exists = failure(new().open(&path), ErrorKind::DatabaseExists);
    assert_eq!(exists.to_string().matches(path.to_str().unwrap()).count(), 1, "{exists}");
    assert_unchanged(&path, &before);
    ColumnFamilyDatabase::builder().create_if_missing(false).open(&path).unwrap();
}

#[test]
fn settings_out_of_range_are_refused_before_anything_is_touched() {
    let (_directory, path) = fresh();
    let builder = ColumnFamilyDatabase::builder;
    let wrong: [DatabaseBuilder; 12] = [
        builder().page_size(0),
        builder().page_size(5000),
        builder().page_size(65536),
        builder().cache_bytes(0),
        builder().write_buffer_bytes(1000),
        builder().max_descriptors(1),
        builder().log_limit_bytes(100),
        builder().background_threads(0),
        builder().background_threads(usize::MAX),
        builder().sync_interval(Duration::ZERO),
        builder().error_if_exists(true).read_only(true),
        builder().error_if_exists(true).create_if_missing(false),
    ];
    for builder in wrong {
        let error = failure(builder.open(&path), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    assert!(!path.exists());
}

#[test]
fn settings_at_the_ends_of_their_ranges_work() {
    for pages in [4096, 8192, 16384, 32768] {
        let db = shrunken()
            .page_size(pages)
            .cache_bytes(u64::MAX)
            .log_limit_bytes(u64::MAX)
            .write_buffer_bytes(1 << 40)
            .max_descriptors(2)
            .sync_interval(Duration::MAX)
            .storage(MemoryStorage::new())
            .open("memory")
            .unwrap();
        let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
        family.put("key", vec![1; 100_000]).unwrap();
        db.flush().unwrap();
        assert_eq!(family.get("key").unwrap().unwrap(), vec![1; 100_000]);
        db.close().unwrap();
    }
}

#[test]
fn the_page_size_of_a_database_is_that_of_its_creation() {
    let storage = MemoryStorage::new();
    let open = |size| shrunken().page_size(size).storage(storage.clone()).open("memory").unwrap();
    let db = open(4096);
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    family.put("key", "value").unwrap();
    db.close().unwrap();
    let db = open(32768);
    assert_eq!(db.column_family("family").unwrap().get("key").unwrap().unwrap(), "value");
    db.close().unwrap();
}

#[test]
fn a_database_of_a_newer_format_is_refused_and_left_alone() {
    let (_directory, path) = fresh();
    populate(&path);
    overwrite(&path.join("data"), |bytes| {
        for start in SLOTS {
            let slot = &mut bytes[start..start + SLOT];
            slot[8..12].copy_from_slice(&3u32.to_le_bytes());
            let sum = crc32fast::hash(&slot[..SLOT - 4]);
            slot[SLOT - 4..].copy_from_slice(&sum.to_le_bytes());
        }
    });
    let before = image(&path);
    failure(shrunken().open(&path), ErrorKind::NewerFormat);
    failure(shrunken().read_only(true).open(&path), ErrorKind::NewerFormat);
    assert_unchanged(&path, &before);
}

#[test]
fn one_damaged_superblock_slot_costs_nothing() {
    for start in SLOTS {
        for damage in [0..SLOT, 0..8, 40..41, SLOT - 4..SLOT] {
            let (_directory, path) = fresh();
            populate(&path);
            overwrite(&path.join("data"), |bytes| {
                bytes[start..start + SLOT][damage.clone()].iter_mut().for_each(|byte| *byte ^= 0x55);
            });
            assert_populated(&shrunken().read_only(true).open(&path).unwrap());
            let db = shrunken().open(&path).unwrap();
            assert_populated(&db);
            assert_clean(&db);
            db.close().unwrap();
            // The checkpoint of closing mended it: now the other one may go.
            let other = SLOTS[0] + SLOTS[1] - start;
            overwrite(&path.join("data"), |bytes| bytes[other..other + SLOT].fill(0xaa));
            assert_populated(&shrunken().open(&path).unwrap());
        }
    }
}

#[test]
fn two_damaged_superblock_slots_are_a_clear_error_that_changes_nothing() {
    let (_directory, path) = fresh();
    populate(&path);
    overwrite(&path.join("data"), |bytes| {
        for start in SLOTS {
            bytes[start + 40] ^= 1;
        }
    });
    let before = image(&path);
    for builder in [shrunken(), shrunken().read_only(true)] {
        let error = failure(builder.open(&path), ErrorKind::Corruption);
        assert_eq!(error.location().file.as_deref(), Some("data"), "{error}");
    }
    assert_unchanged(&path, &before);
}

#[test]
fn a_catalog_damaged_in_both_copies_is_a_clear_error_that_changes_nothing() {
    let (_directory, path) = fresh();
    populate(&path);
    overwrite(&path.join("data"), |bytes| {
        let field = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        let (copies, len) = ([field(56), field(64)], field(72));
        for copy in copies {
            bytes[(64 << 10) + copy * 4096..][..len].fill(0x55);
        }
    });
    let before = image(&path);
    let error = failure(shrunken().open(&path), ErrorKind::Corruption);
    assert_eq!(error.location().file.as_deref(), Some("data"), "{error}");
    assert!(error.location().offset.is_some(), "{error}");
    assert_unchanged(&path, &before);
}

#[test]
fn a_data_file_cut_short_is_an_error_that_changes_nothing() {
    let (_directory, path) = fresh();
    populate(&path);
    let whole = fs::read(path.join("data")).unwrap();
    for len in [0, 100, SLOT, 40_000, 64 << 10, (64 << 10) + 4096] {
        fs::write(path.join("data"), &whole[..len]).unwrap();
        let before = image(&path);
        let error = shrunken().open(&path).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::NotADatabase | ErrorKind::Corruption),
            "cut at {len}: {:?} {error}",
            error.kind()
        );
        assert_unchanged(&path, &before);
    }
}

#[test]
fn a_damaged_page_is_found_by_reading_and_by_verifying() {
    let (_directory, path) = fresh();
    populate(&path);
    overwrite(&path.join("data"), |bytes| {
        // A byte in the middle of a value in some leaf.
        let place = bytes.windows(100).rposition(|window| window == [77; 100]).unwrap();
        bytes[place] ^= 1;
    });
    let db = shrunken().open(&path).unwrap();
    let family = db.column_family("family").unwrap();
    let error = failure(family.get(77u32.to_be_bytes()), ErrorKind::Corruption);
    let location = error.location();
    assert_eq!(location.file.as_deref(), Some("data"), "{error}");
    assert_eq!(location.family, Some(1), "{error}");
    assert!(location.offset.is_some() && location.page.is_some(), "{error}");
    assert!(family.iter().unwrap().any(|entry| entry.is_err()));
    assert_eq!(family.get(1u32.to_be_bytes()).unwrap().unwrap(), [1; 300]);
    let report = db.verify().unwrap();
    assert!(!report.is_clean());
    assert_eq!(report.faults[0].kind(), ErrorKind::Corruption);
    assert_eq!(report.faults[0].location().page, location.page, "{:?}", report.faults);
}

#[test]
fn a_log_damaged_below_what_was_synced_is_corruption_and_changes_nothing() {
    let (_directory, path) = fresh();
    let db = shrunken().automatic_maintenance(false).log_limit_bytes(1 << 30).open(&path).unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for n in 0..20u32 {
        family.put_with(n.to_be_bytes(), [0xc3; 100], Durability::Sync).unwrap();
    }
    drop((family, db));
    let mut logs: Vec<_> =
        fs::read_dir(path.join("wal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    logs.sort();
    let log = logs
        .iter()
        .find(|log| fs::read(log).unwrap().windows(100).any(|window| window == [0xc3; 100]))
        .unwrap();
    overwrite(log, |bytes| {
        let place = bytes.windows(100).position(|window| window == [0xc3; 100]).unwrap();
        bytes[place] ^= 1;
    });
    let before = image(&path);
    for builder in [shrunken(), shrunken().read_only(true)] {
        let error = failure(builder.open(&path), ErrorKind::Corruption);
        assert!(error.location().file.as_deref().is_some_and(|file| file.starts_with("wal/")), "{error}");
        assert!(error.location().offset.is_some(), "{error}");
    }
    assert_unchanged(&path, &before);
}

#[test]
fn a_torn_tail_of_the_log_is_cut_off_reported_and_stays_cut_off() {
    let (_directory, path) = fresh();
    let open = || shrunken().automatic_maintenance(false).log_limit_bytes(1 << 30);
    let db = open().sync_interval(Duration::from_secs(3600)).open(&path).unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for n in 0..20u32 {
        family.put(n.to_be_bytes(), [0xc3; 100]).unwrap();
    }
    // What a power failure leaves: the copy of an unsynced log that lacks the end of its last record.
    let (_copied, copy) = fresh();
    for (file, bytes) in image(&path) {
        let to = copy.join(file.strip_prefix(&path).unwrap());
        match bytes {
            None => fs::create_dir_all(to).unwrap(),
            Some(mut bytes) => {
                if file.extension().is_some_and(|extension| extension == "log")
                    && let Some(place) = bytes.windows(100).rposition(|window| window == [0xc3; 100])
                {
                    bytes[place + 90..place + 100].fill(0);
                }
                fs::write(to, bytes).unwrap();
            }
        }
    }
    drop((family, db));
    let read_only = shrunken().read_only(true).open(&copy).unwrap();
    assert!(read_only.recovery_report().torn_tail.is_some(), "{:?}", read_only.recovery_report());
    assert_eq!(read_only.column_family("family").unwrap().len().unwrap(), 19);
    drop(read_only);
    let db = open().open(&copy).unwrap();
    let report = db.recovery_report();
    assert!(report.torn_tail.is_some(), "{report:?}");
    assert_eq!((report.records, report.records_applied), (19, 19), "{report:?}");
    let family = db.column_family("family").unwrap();
    assert_eq!(family.len().unwrap(), 19);
    family.put("after", "the cut").unwrap();
    drop((family, db));
    let db = open().open(&copy).unwrap();
    let family = db.column_family("family").unwrap();
    assert_eq!(family.len().unwrap(), 20);
    assert_eq!(family.get("after").unwrap().unwrap(), "the cut");
    assert_clean(&db);
}

#[test]
fn opening_to_read_changes_nothing_and_sees_what_only_the_log_holds() {
    let (_directory, path) = fresh();
    populate(&path);
    let before = image(&path);
    let db = shrunken().read_only(true).open(&path).unwrap();
    assert!(db.recovery_report().records_applied >= 10, "{:?}", db.recovery_report());
    assert_populated(&db);
    assert_clean(&db);
    let family = db.column_family("family").unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&family, "key", "value");
    failure(family.put("key", "value"), ErrorKind::ReadOnly);
    failure(db.write(&batch), ErrorKind::ReadOnly);
    failure(db.create_column_family("new", FamilyOptions::default()), ErrorKind::ReadOnly);
    failure(db.drop_column_family("family"), ErrorKind::ReadOnly);
    failure(db.rename_column_family("family", "new"), ErrorKind::ReadOnly);
    failure(db.flush(), ErrorKind::ReadOnly);
    failure(db.checkpoint(), ErrorKind::ReadOnly);
    failure(db.compact(), ErrorKind::ReadOnly);
    failure(db.sync(), ErrorKind::ReadOnly);
    let snapshot = db.snapshot().unwrap();
    assert_eq!(snapshot.get(&family, 0u32.to_be_bytes()).unwrap().unwrap(), [0; 300]);
    db.close().unwrap();
    assert_unchanged(&path, &before);
}

#[cfg(unix)]
#[test]
fn files_belong_to_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (_directory, path) = fresh();
    populate(&path);
    for (file, bytes) in image(&path) {
        let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        let expected = if bytes.is_some() { 0o600 } else { 0o700 };
        assert_eq!(mode, expected, "{} has mode {mode:o}", file.display());
    }
}

#[cfg(unix)]
#[test]
fn an_empty_database_takes_less_than_a_mebibyte() {
    use std::os::unix::fs::MetadataExt;
    let (_directory, path) = fresh();
    let taken = || -> (u64, u64) {
        let files = image(&path).into_keys().filter(|file| file.is_file());
        let sizes =
            files.map(|file| fs::metadata(file).unwrap()).map(|data| (data.blocks() * 512, data.len()));
        sizes.fold((0, 0), |sum, file| (sum.0 + file.0, sum.1 + file.1))
    };
    let db = ColumnFamilyDatabase::open(&path).unwrap();
    let (blocks, bytes) = taken();
    assert!(blocks < 1 << 20 && bytes < 1 << 20, "{bytes} bytes in {blocks} bytes of blocks while open");
    db.close().unwrap();
    let (blocks, bytes) = taken();
    assert!(blocks < 1 << 20 && bytes < 1 << 20, "{bytes} bytes in {blocks} bytes of blocks when closed");
}

#[test]
fn a_database_dropped_without_closing_loses_nothing_whatever_the_durability() {
    for automatic in [false, true] {
        let (_directory, path) = fresh();
        let db = shrunken().automatic_maintenance(automatic).open(&path).unwrap();
        let a = db.create_column_family("a", FamilyOptions::default()).unwrap();
        let b = db.create_column_family("b", FamilyOptions::default()).unwrap();
        for n in 0..300u32 {
            let durability = [Durability::None, Durability::Buffered, Durability::Sync][(n % 3) as usize];
            let mut batch = WriteBatch::new();
            batch.put(&a, n.to_be_bytes(), [n as u8; 40]).put(&b, n.to_be_bytes(), [n as u8; 50]);
            db.write_with(&batch, durability).unwrap();
        }
        drop((a, b, db));
        let db = shrunken().open(&path).unwrap();
        for name in ["a", "b"] {
            assert_eq!(db.column_family(name).unwrap().len().unwrap(), 300);
        }
        assert_clean(&db);
    }
}

#[test]
fn a_closed_database_replays_nothing() {
    let (_directory, path) = fresh();
    populate(&path);
    let db = shrunken().open(&path).unwrap();
    assert_populated(&db);
    let family = db.column_family("family").unwrap();
    family.put_with("unlogged", "value", Durability::None).unwrap();
    db.close().unwrap();
    let db = shrunken().open(&path).unwrap();
    let report = db.recovery_report();
    assert_eq!((report.records, report.records_applied, report.torn_tail), (0, 0, None));
    assert_eq!(db.column_family("family").unwrap().get("unlogged").unwrap().unwrap(), "value");
}

#[test]
fn a_merged_database_dropped_without_closing_replays_nothing() {
    let storage = MemoryStorage::new();
    let open = || ColumnFamilyDatabase::builder().storage(storage.clone()).open("memory").unwrap();
    let db = open();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for n in 0..6000u32 {
        family.put(n.to_be_bytes(), [n as u8; 1000]).unwrap();
    }
    db.flush().unwrap();
    drop((family, db));
    let db = open();
    let report = db.recovery_report();
    assert_eq!((report.records, report.records_applied, report.torn_tail), (0, 0, None));
    let family = db.column_family("family").unwrap();
    assert_eq!(family.len().unwrap(), 6000);
    // What is not merged stays in the log, and is there all the same.
    family.put("one more", vec![1; 2 << 20]).unwrap();
    drop((family, db));
    let db = open();
    assert_eq!(db.recovery_report().records_applied, 1);
    assert_eq!(db.column_family("family").unwrap().len().unwrap(), 6001);
}

#[test]
fn after_closing_every_handle_says_so_and_what_is_held_is_read_on() {
    let storage = MemoryStorage::new();
    let db = shrunken().storage(storage.clone()).open("memory").unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for n in 0..500u32 {
        family.put(n.to_be_bytes(), [n as u8; 100]).unwrap();
    }
    let other = db.clone();
    let snapshot = db.snapshot().unwrap();
    let iter = family.iter().unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&family, "key", "value");
    db.close().unwrap();
    failure(family.get("key"), ErrorKind::Closed);
    failure(family.put("key", "value"), ErrorKind::Closed);
    failure(family.delete_range(..), ErrorKind::Closed);
    failure(family.iter(), ErrorKind::Closed);
    failure(other.write(&batch), ErrorKind::Closed);
    failure(other.write(&WriteBatch::new()), ErrorKind::Closed);
    failure(other.snapshot(), ErrorKind::Closed);
    failure(other.column_family("family"), ErrorKind::Closed);
    failure(other.create_column_family("new", FamilyOptions::default()), ErrorKind::Closed);
    failure(other.flush(), ErrorKind::Closed);
    failure(other.compact(), ErrorKind::Closed);
    failure(other.verify(), ErrorKind::Closed);
    assert_eq!(iter.collect::<Result<Vec<_>, _>>().unwrap().len(), 500);
    assert_eq!(snapshot.get(&family, 300u32.to_be_bytes()).unwrap().unwrap(), [300u32 as u8; 100]);
    other.close().unwrap();
    drop((snapshot, family));
    shrunken().storage(storage).open("memory").unwrap();
}

#[test]
fn of_several_that_close_each_returns_when_the_files_are_given_back() {
    for _ in 0..20 {
        let storage = MemoryStorage::new();
        let db = shrunken().storage(storage.clone()).open("memory").unwrap();
        let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
        for n in 0..200u32 {
            family.put(n.to_be_bytes(), [n as u8; 100]).unwrap();
        }
        let barrier = Barrier::new(3);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let db = db.clone();
                let (barrier, storage) = (&barrier, &storage);
                scope.spawn(move || {
                    barrier.wait();
                    db.close().unwrap();
                    storage.lock("LOCK", true).expect("closed, and still locked");
                });
            }
        });
    }
}

#[test]
fn closing_again_tells_what_kept_the_first_from_making_all_durable() {
    let storage = TestStorage::new();
    let db = shrunken().storage(storage.clone()).open("memory").unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    family.put("key", "value").unwrap();
    let other = db.clone();
    storage.fail(Strike::Sync, 0, true);
    let first = failure(db.close(), ErrorKind::WriteFailed);
    storage.heal();
    assert_eq!(failure(other.close(), ErrorKind::WriteFailed).to_string(), first.to_string());
    drop(family);
    let db = shrunken().storage(storage).open("memory").unwrap();
    assert_eq!(db.column_family("family").unwrap().get("key").unwrap().unwrap(), "value");
}

#[test]
fn a_batch_for_another_database_is_refused_whole() {
    let open = || {
        let db = shrunken().storage(MemoryStorage::new()).open("memory").unwrap();
        let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
        (db, family)
    };
    let ((first_db, first), (second_db, second)) = (open(), open());
    let mut batch = WriteBatch::new();
    batch.put(&first, "key", "value");
    failure(second_db.write(&batch), ErrorKind::InvalidArgument);
    batch.put(&second, "key", "value");
    failure(first_db.write(&batch), ErrorKind::InvalidArgument);
    failure(second_db.write(&batch), ErrorKind::InvalidArgument);
    assert!(first.is_empty().unwrap() && second.is_empty().unwrap());
    failure(first_db.snapshot().unwrap().get(&second, "key"), ErrorKind::InvalidArgument);
    batch.clear();
    batch.put(&first, "key", "value");
    first_db.write(&batch).unwrap();
    assert_eq!(first.len().unwrap(), 1);
}

#[test]
fn keys_and_values_end_at_their_limits() {
    let (_directory, path) = fresh();
    let db = shrunken().open(&path).unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    let (longest, too_long) = (vec![0xff; 65_536], vec![0xff; 65_537]);
    family.put(&longest, "longest").unwrap();
    family.put("", "shortest").unwrap();
    failure(family.put(&too_long, "value"), ErrorKind::KeyTooLarge);
    failure(family.delete(&too_long), ErrorKind::KeyTooLarge);
    let told = |result: peristyle::Result<_>| failure(result, ErrorKind::KeyTooLarge).to_string();
    let lengths = [65_537, 65_538, 70_000].map(|len| vec![b'a'; len]);
    for bound in &lengths {
        let says = |message: String| {
            assert!(message.contains(&format!(" {} bytes", bound.len())), "{message}");
        };
        says(told(family.delete_range((Bound::Excluded(bound), Bound::Unbounded))));
        says(told(family.delete_range(..=bound)));
        if bound.len() > 65_537 {
            says(told(family.delete_range(bound..)));
            says(told(family.delete_range(..bound)));
        }
        let mut batch = WriteBatch::new();
        batch.delete_range(&family, ..=bound);
        says(told(db.write(&batch)));
    }
    // Right behind the longest key there is a place for a bound.
    family.delete_range(&too_long[..]..).unwrap();
    family.delete_range(vec![0xff; 70_000]..).unwrap();
    assert!(family.get(&too_long).unwrap().is_none());
    let mut batch = WriteBatch::new();
    batch.put(&family, "a", "value").put(&family, &too_long, "value");
    failure(db.write(&batch), ErrorKind::KeyTooLarge);
    assert_eq!(family.len().unwrap(), 2, "a batch was written in part");
    db.flush().unwrap();
    let (key, value) = family.last().unwrap().unwrap();
    assert!(key == longest && value == family.get(&longest).unwrap().unwrap());
    assert_eq!(family.first().unwrap().unwrap().1, "shortest");
    family.delete_range(&longest[..]..=&longest[..]).unwrap();
    assert_eq!(family.len().unwrap(), 1);
    family.delete_range(..).unwrap();
    assert!(family.is_empty().unwrap());
    db.flush().unwrap();
    assert!(family.is_empty().unwrap());
    assert_clean(&db);
}

#[cfg(target_pointer_width = "64")]
#[test]
fn a_value_beyond_four_gibibytes_is_refused() {
    let db = shrunken().storage(MemoryStorage::new()).open("memory").unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    // Zeroed memory that nobody touches costs no memory.
    let value = vec![0u8; 1 << 32];
    failure(family.put("key", &value), ErrorKind::ValueTooLarge);
    let mut batch = WriteBatch::new();
    batch.put(&family, "key", &value);
    failure(db.write(&batch), ErrorKind::ValueTooLarge);
    assert!(family.is_empty().unwrap());
}
