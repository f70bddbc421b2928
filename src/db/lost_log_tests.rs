//! Logs that are damaged, or lack segments that were synced.

use crate::codec::checksum::crc32;
use crate::db::ColumnFamilyDatabase;
use crate::error::ErrorKind;
use crate::options::DatabaseBuilder;
use crate::storage::{FileMode, MemoryStorage, StorageBackend};
use crate::{Durability, FamilyOptions};

fn builder(storage: &MemoryStorage) -> DatabaseBuilder {
    ColumnFamilyDatabase::builder()
        .automatic_maintenance(false)
        .write_buffer_bytes(1 << 20)
        .storage(storage.clone())
}

/// Keys below 10 are in the tree, the others in the log alone; all of them were synced.
fn written(count: u32) -> MemoryStorage {
    let storage = MemoryStorage::new();
    let db = builder(&storage).open("memory").unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for n in 0..count {
        family.put_with(n.to_be_bytes(), [0xc3; 500], Durability::Sync).unwrap();
        if n == 9 {
            db.flush().unwrap();
        }
    }
    storage
}

/// Names of the segments of the log, the oldest first.
fn segments(storage: &MemoryStorage) -> Vec<String> {
    let mut names = storage.list("wal").unwrap();
    names.retain(|name| !name.starts_with("reserve-"));
    names.sort();
    names.into_iter().map(|name| format!("wal/{name}")).collect()
}

fn bytes(storage: &MemoryStorage, path: &str) -> Vec<u8> {
    let file = storage.open(path, FileMode::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// What a process that is killed leaves.
fn copy(storage: &MemoryStorage) -> MemoryStorage {
    let copy = MemoryStorage::new();
    copy.create_directory("wal").unwrap();
    let data = storage.list("").unwrap().into_iter().filter(|name| name != "wal");
    let log = storage.list("wal").unwrap().into_iter().map(|name| format!("wal/{name}"));
    for path in data.chain(log) {
        let file = copy.open(&path, FileMode::Create).unwrap();
        file.write_at(&bytes(storage, &path), 0).unwrap();
    }
    copy
}

/// Opens what is damaged: refused, then with what is whole. Gives how many keys are there.
fn open_what_is_whole(storage: &MemoryStorage) -> usize {
    let refused = builder(storage).open("memory").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corruption, "{refused}");
    let before: Vec<_> = segments(storage).iter().map(|path| (path.clone(), bytes(storage, path))).collect();
    let reader = builder(storage).read_only(true).skip_damaged_log(true).open("memory").unwrap();
    assert!(reader.recovery_report().lost.as_ref().unwrap().kept_in.is_none());
    drop(reader);
    let db = builder(storage).skip_damaged_log(true).open("memory").unwrap();
    let lost = db.recovery_report().lost.clone().unwrap();
    let family = db.column_family("family").unwrap();
    let count = family.len().unwrap() as usize;
    for n in 0..count as u32 {
        assert_eq!(family.get(n.to_be_bytes()).unwrap().unwrap(), [0xc3; 500]);
    }
    assert_eq!(lost.through.0, count as u64, "{lost:?}");
    assert!(lost.last_seen.is_none_or(|last| last.0 > lost.through.0), "{lost:?}");
    // All of it that was not replayed is kept.
    let kept_in = lost.kept_in.unwrap();
    for (path, bytes_before) in before {
        let name = path.strip_prefix("wal/").unwrap();
        let id = u64::from_str_radix(name.strip_suffix(".log").unwrap(), 16).unwrap();
        if id >= lost.from.0 {
            assert!(bytes(storage, &format!("{kept_in}/{name}")) == bytes_before, "{name} is not kept");
        }
    }
    // Numbers go on behind what was lost, and what is written stays.
    let next = family.put("after", "the damage").unwrap();
    assert!(next.0 > lost.last_seen.unwrap_or(lost.through).0);
    drop((family, db));
    let db = builder(storage).open("memory").unwrap();
    assert!(db.recovery_report().lost.is_none());
    let family = db.column_family("family").unwrap();
    assert_eq!(family.len().unwrap() as usize, count + 1);
    assert_eq!(family.get("after").unwrap().unwrap(), "the damage");
    drop(family);
    db.close().unwrap();
    assert!(builder(storage).open("memory").unwrap().recovery_report().lost.is_none());
    count
}

#[test]
fn a_damaged_record_ends_the_log_for_who_asks_for_it_and_nothing_is_thrown_away() {
    let storage = written(60);
    let path = segments(&storage)
        .into_iter()
        .find(|path| bytes(&storage, path).windows(500).any(|window| window == [0xc3; 500]))
        .unwrap();
    let content = bytes(&storage, &path);
    let mut records = content.windows(500).enumerate().filter(|(_, window)| *window == [0xc3; 500]);
    let (place, _) = records.next_back().unwrap();
    storage.open(&path, FileMode::Write).unwrap().write_at(&[0], place as u64 + 7).unwrap();
    let count = open_what_is_whole(&storage);
    assert!((10..60).contains(&count), "{count}");
}

#[test]
fn what_was_committed_before_a_change_of_families_is_missed_if_it_is_damaged() {
    type Change = fn(&ColumnFamilyDatabase) -> crate::Result<()>;
    let create: Change = |db| db.create_column_family("new", FamilyOptions::default()).map(drop);
    let rename: Change = |db| db.rename_column_family("old", "new");
    let drop_old: Change = |db| db.drop_column_family("old");
    let prepare: Change = |db| {
        let family = db.column_family("old")?;
        let mut transaction = db.begin()?;
        transaction.put(&family, "key", "value")?;
        transaction.prepare("name").map(drop)
    };
    // The last bytes of the value are damaged, or the first ones of the segment in which it is alone.
    for change in [create, rename, drop_old, prepare] {
        for header in [false, true] {
            let storage = MemoryStorage::new();
            let db = builder(&storage).open("memory").unwrap();
            let options = FamilyOptions::default;
            let families = db.create_column_families([("family", options()), ("old", options())]).unwrap();
            // With this the catalog gets room for the change to come, which then needs no whole checkpoint.
            db.create_column_family("other", options()).unwrap();
            let put = |n: u8, len| families[0].put_with([n], vec![0xc3; len], Durability::Buffered).unwrap();
            put(0, 500);
            put(1, 100_000);
            change(&db).unwrap();
            // Who drops a database may write a checkpoint.
            let storage = copy(&storage);
            drop((families, db));
            let is_in = |path: &String| bytes(&storage, path).windows(9000).any(|part| part == [0xc3; 9000]);
            let path = segments(&storage).into_iter().find(is_in).unwrap();
            let content = bytes(&storage, &path);
            let last = content.iter().rposition(|&byte| byte == 0xc3).unwrap();
            let file = storage.open(&path, FileMode::Write).unwrap();
            if header {
                file.write_at(&[0; 128], 0).unwrap()
            } else {
                file.write_at(&[0], last as u64).unwrap()
            }
            let refused = builder(&storage).open("memory").unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Corruption, "{refused}");
        }
    }
}

#[test]
fn a_segment_that_is_gone_is_missed_whichever_it_is() {
    let (mut missed, mut gone) = (0, 0);
    loop {
        let storage = written(200);
        let Some(path) = segments(&storage).into_iter().nth(gone) else { break };
        // Of one that was made ahead of need nobody knows.
        let is_used = bytes(&storage, &path).iter().any(|&byte| byte != 0);
        storage.remove(&path).unwrap();
        if is_used {
            assert!(open_what_is_whole(&storage) < 200, "{path}");
            missed += 1;
        }
        gone += 1;
    }
    assert!(missed >= 2, "{missed}");
}

#[test]
fn a_segment_whose_header_is_refused_is_damage_whichever_it_is() {
    let (mut refused, mut place) = (0, 0);
    loop {
        let storage = written(200);
        let Some(path) = segments(&storage).into_iter().nth(place) else { break };
        place += 1;
        let mut header = bytes(&storage, &path);
        header.truncate(128);
        if header.iter().all(|&byte| byte == 0) {
            continue;
        }
        // Another database's, and the sum is right.
        header[24] ^= 1;
        let sum = crc32(&[&header[..12], &header[16..]]);
        header[12..16].copy_from_slice(&sum.to_le_bytes());
        storage.open(&path, FileMode::Write).unwrap().write_at(&header, 0).unwrap();
        assert!(open_what_is_whole(&storage) < 200, "{path}");
        refused += 1;
    }
    assert!(refused >= 2, "{refused}");
}

#[test]
fn what_was_prepared_before_the_damage_is_prepared_again_and_what_was_decided_after_it_is_not() {
    let storage = MemoryStorage::new();
    let db = builder(&storage).open("memory").unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    let prepare = |name: &str| {
        let mut transaction = db.begin().unwrap();
        transaction.put(&family, name, "prepared").unwrap();
        transaction.prepare(name).unwrap()
    };
    prepare("decided before").commit().unwrap();
    let first = prepare("first");
    family.put_with("damaged", [0xc3; 500], Durability::Sync).unwrap();
    drop(prepare("second"));
    first.commit().unwrap();
    let storage = copy(&storage);
    drop((first, family, db));
    let is_in = |path: &String| bytes(&storage, path).windows(500).any(|part| part == [0xc3; 500]);
    let path = segments(&storage).into_iter().find(is_in).unwrap();
    let last = bytes(&storage, &path).iter().rposition(|&byte| byte == 0xc3).unwrap();
    storage.open(&path, FileMode::Write).unwrap().write_at(&[0], last as u64).unwrap();
    assert_eq!(builder(&storage).open("memory").unwrap_err().kind(), ErrorKind::Corruption);

    let wait = std::time::Duration::ZERO;
    let db = builder(&storage).decision_wait(wait).skip_damaged_log(true).open("memory").unwrap();
    let family = db.column_family("family").unwrap();
    let prepared = db.prepared_transactions().unwrap();
    assert_eq!(prepared.iter().map(|one| one.name()).collect::<Vec<_>>(), [b"first"]);
    assert_eq!(family.get("decided before").unwrap().unwrap(), "prepared");
    assert!(family.get("first").unwrap().is_none());
    assert_eq!(family.put("first", "late").unwrap_err().kind(), ErrorKind::AwaitsDecision);
    family.put("second", "free").unwrap();
    prepared[0].commit().unwrap();
    drop((family, prepared));
    db.close().unwrap();
    let db = builder(&storage).open("memory").unwrap();
    assert!(db.prepared_transactions().unwrap().is_empty());
    let family = db.column_family("family").unwrap();
    assert_eq!(family.get("first").unwrap().unwrap(), "prepared");
    assert_eq!(family.get("second").unwrap().unwrap(), "free");
}

#[test]
fn the_only_segment_of_a_process_is_missed() {
    let storage = written(5);
    let db = builder(&storage).open("memory").unwrap();
    let before = segments(&storage);
    db.column_family("family").unwrap().put_with(5u32.to_be_bytes(), [0xc3; 500], Durability::Sync).unwrap();
    drop(db);
    let newest = segments(&storage).pop().unwrap();
    assert!(before.contains(&newest));
    storage.remove(&newest).unwrap();
    assert_eq!(open_what_is_whole(&storage), 5);
}

#[test]
fn the_setting_changes_nothing_where_nothing_is_damaged() {
    let storage = written(60);
    let db = builder(&storage).skip_damaged_log(true).open("memory").unwrap();
    assert!(db.recovery_report().lost.is_none());
    assert_eq!(db.column_family("family").unwrap().len().unwrap(), 60);
    assert!(storage.list("").unwrap().iter().all(|name| !name.starts_with("wal.damaged")));
}
