//! Logs that are replayed in parts, whole and damaged, and what is told meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::column_family::options::FamilyOptions;
use crate::db::ColumnFamilyDatabase;
use crate::options::DatabaseBuilder;
use crate::storage::{FileMode, MemoryStorage, StorageBackend};
use crate::sync::Mutex;
use crate::txn::batch::WriteBatch;

/// What is in the families after each commit.
type Model = BTreeMap<(usize, u32), Vec<u8>>;

fn builder(write_buffer: u64) -> DatabaseBuilder {
    ColumnFamilyDatabase::builder()
        .page_size(4096)
        .write_buffer_bytes(write_buffer)
        .cache_bytes(64 << 10)
        .automatic_maintenance(false)
        .sync_interval(Duration::from_secs(3600))
}

fn copy(storage: &MemoryStorage) -> MemoryStorage {
    let copy = MemoryStorage::new();
    for directory in ["", "wal"] {
        copy.create_directory(directory).unwrap();
        for name in storage.list(directory).unwrap() {
            let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            let file = storage.open(&path, FileMode::Read).unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            file.read_at(&mut bytes, 0).unwrap();
            copy.open(&path, FileMode::Create).unwrap().write_at(&bytes, 0).unwrap();
        }
    }
    copy
}

/// A log of several segments that no sync covers, and what each of its commits makes of the families.
fn written(families: usize, commits: u32) -> (MemoryStorage, Vec<Model>) {
    let storage = MemoryStorage::new();
    let db = builder(64 << 20).storage(storage.clone()).open("memory").unwrap();
    let create = |n| db.create_column_family(&format!("family {n}"), FamilyOptions::default()).unwrap();
    let families: Vec<_> = (0..families).map(create).collect();
    let mut model = Model::new();
    let mut models = vec![model.clone()];
    for n in 0..commits {
        let mut batch = WriteBatch::new();
        for part in 0..4u32 {
            let number = n.wrapping_mul(7 + part) as usize % families.len();
            let key = (n * 31 + part * 17) % 300;
            let value = vec![n as u8; 50 + (n as usize * 13) % 900];
            batch.put(&families[number], key.to_be_bytes(), &value);
            model.insert((number, key), value);
        }
        let number = n as usize % families.len();
        if n % 5 == 0 {
            let key = n % 300;
            batch.delete(&families[number], key.to_be_bytes());
            model.remove(&(number, key));
        }
        if n % 9 == 0 {
            let range = (n * 3) % 250..(n * 3) % 250 + 20;
            batch.delete_range(&families[number], range.start.to_be_bytes()..range.end.to_be_bytes());
            model.retain(|(family, key), _| *family != number || !range.contains(key));
        }
        db.write(&batch).unwrap();
        models.push(model.clone());
    }
    (copy(&storage), models)
}

fn contents(db: &ColumnFamilyDatabase, families: usize) -> Model {
    assert!(db.verify().unwrap().is_clean());
    let mut found = Model::new();
    for number in 0..families {
        for entry in db.column_family(&format!("family {number}")).unwrap().iter().unwrap() {
            let (key, value) = entry.unwrap();
            found.insert((number, u32::from_be_bytes(key[..].try_into().unwrap())), value.to_vec());
        }
    }
    found
}

#[test]
fn parts_that_are_replayed_beside_one_another_give_what_one_after_the_other_gives() {
    for families in [1, 5] {
        let (storage, models) = written(families, 400);
        // With room for all of it, for a part of it, and for next to nothing of it.
        for (write_buffer, merges) in [(64 << 20, false), (1 << 20, true), (64 << 10, true)] {
            let storage = copy(&storage);
            for _ in 0..2 {
                let db = builder(write_buffer).storage(storage.clone()).open("memory").unwrap();
                assert!(db.recovery_report().segments >= 3, "{:?}", db.recovery_report());
                assert_eq!(db.recovery_report().records_applied, 400);
                let statistics = db.statistics();
                assert_eq!(statistics.merges > 0, merges, "{statistics:?}");
                assert!(statistics.memtable_bytes <= write_buffer / 2);
                assert!(contents(&db, families) == *models.last().unwrap());
                // Kills leave the log as it is.
                std::mem::forget(db.clone());
                db.shared().stop();
            }
            let db = builder(write_buffer).storage(storage).open("memory").unwrap();
            let family = db.column_family("family 0").unwrap();
            family.put(1000u32.to_be_bytes(), "more").unwrap();
            db.flush().unwrap();
            let mut expected = models.last().unwrap().clone();
            expected.insert((0, 1000), b"more".to_vec());
            assert!(contents(&db, families) == expected);
        }
    }
}

#[test]
fn a_log_that_breaks_off_in_one_part_gives_nothing_of_those_behind() {
    let (storage, models) = written(3, 400);
    let mut names = storage.list("wal").unwrap();
    names.sort();
    let mut tried = 0;
    let segment_of = |path: &str| storage.open(path, FileMode::Read).unwrap();
    for name in names {
        let path = format!("wal/{name}");
        let len = segment_of(&path).len().unwrap();
        for part in [3, 7] {
            let damaged = copy(&storage);
            let file = damaged.open(&path, FileMode::Write).unwrap();
            let offset = len * part / 16;
            // More than there is between two records.
            let mut bytes = [0; 16];
            file.read_at(&mut bytes, offset).unwrap();
            if bytes == [0; 16] {
                // Made ahead of need.
                continue;
            }
            tried += 1;
            file.write_at(&bytes.map(|byte| !byte), offset).unwrap();
            let db = builder(1 << 20).storage(damaged.clone()).open("memory").unwrap();
            let report = db.recovery_report().clone();
            assert!(report.records < 400, "{report:?}");
            assert_eq!(report.records_applied, report.records);
            let prefix = &models[report.records as usize];
            assert!(contents(&db, 3) == *prefix, "{report:?}");
            db.column_family("family 0").unwrap().put(1000u32.to_be_bytes(), "more").unwrap();
            drop(db);
            let db = builder(1 << 20).storage(damaged).open("memory").unwrap();
            let mut expected = prefix.clone();
            expected.insert((0, 1000), b"more".to_vec());
            assert!(contents(&db, 3) == expected);
        }
    }
    assert_eq!(tried, 6, "two places in each of three segments");
}

#[test]
fn whoever_wants_to_know_is_told_how_far_a_replay_is_and_may_panic() {
    let (storage, models) = written(2, 200);
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    let builder = builder(64 << 20).on_recovery_progress(move |progress| {
        listener.lock().push(progress);
        panic!("as the test wants");
    });
    let db = builder.storage(storage).open("memory").unwrap();
    assert!(contents(&db, 2) == *models.last().unwrap());
    let told = told.lock();
    assert_eq!(told.len(), 1, "a callback that panicked was called again");
    assert!(told[0].bytes > 0 && told[0].bytes <= told[0].bytes_in_all);
}

#[test]
fn what_is_told_of_a_replay_rises_and_ends_with_all_of_it() {
    let (storage, models) = written(2, 200);
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    let builder = builder(64 << 20).on_recovery_progress(move |progress| listener.lock().push(progress));
    let db = builder.storage(storage).open("memory").unwrap();
    assert!(contents(&db, 2) == *models.last().unwrap());
    let told = told.lock();
    assert!(told.len() > 10, "{} calls", told.len());
    assert!(told.windows(2).all(|two| two[0].bytes <= two[1].bytes && two[0].elapsed <= two[1].elapsed));
    assert!(told.iter().all(|progress| progress.bytes > 0 && progress.bytes <= progress.bytes_in_all));
    let (first, last) = (told[0], told[told.len() - 1]);
    assert_eq!((last.bytes, last.bytes_in_all), (db.recovery_report().bytes, db.recovery_report().bytes));
    assert!(first.bytes < last.bytes / 2, "{first:?}");
}
