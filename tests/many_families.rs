//! Many column families: what one of them costs does not grow with their number.

mod common;

use std::collections::BTreeMap;

use common::random::Random;
use common::storage::{Strike, TestStorage};
use common::{assert_clean, failure, shrunken};
use peristyle::{ColumnFamily, ColumnFamilyDatabase, ErrorKind, FamilyOptions};

/// Bytes of the catalog that are written at once, at least.
const BLOCK: i64 = 4096;
/// Bytes of a superblock, both slots.
const SUPERBLOCK: i64 = 2 * 512;

fn open(storage: &TestStorage) -> ColumnFamilyDatabase {
    shrunken().automatic_maintenance(false).storage(storage.clone()).open("memory").unwrap()
}

fn named(numbers: std::ops::Range<usize>) -> impl Iterator<Item = (String, FamilyOptions)> {
    numbers.map(|number| (format!("family {number}"), FamilyOptions::default()))
}

fn create_many(db: &ColumnFamilyDatabase, count: usize) -> Vec<ColumnFamily> {
    db.create_column_families(named(0..count)).unwrap()
}

#[test]
fn a_new_family_costs_one_sync_and_a_few_bytes_however_many_there_are() {
    for count in [10, 1000] {
        let storage = TestStorage::new();
        let db = open(&storage);
        create_many(&db, count);
        let most = 50;
        let before = (storage.bytes_written(), storage.calls(Strike::Sync));
        for (name, options) in named(count..count + most) {
            db.create_column_family(&name, options).unwrap();
        }
        let bytes = storage.bytes_written() - before.0;
        let syncs = storage.calls(Strike::Sync) - before.1;
        let each = bytes / most as i64;
        // Now and then the whole catalog is written, at the latest when as many bytes were written behind it.
        assert!(each <= 6 * BLOCK + SUPERBLOCK, "{each} bytes for a family, of {count}");
        assert!(syncs <= 2 * most as i64, "{syncs} syncs for {most} families, of {count}");
        assert_eq!(db.column_family_names().len(), count + most);
        assert_eq!(open(&storage.copy()).column_family_names().len(), count + most);
    }
}

#[test]
fn several_families_come_into_being_in_two_syncs_or_not_at_all() {
    let storage = TestStorage::new();
    let db = open(&storage);
    db.create_column_family("family 700", FamilyOptions::default()).unwrap();
    failure(db.create_column_families(named(0..1000)), ErrorKind::FamilyExists);
    let twice = ["a", "b", "a"].map(|name| (name, FamilyOptions::default()));
    failure(db.create_column_families(twice), ErrorKind::FamilyExists);
    let nameless = ["a", ""].map(|name| (name, FamilyOptions::default()));
    failure(db.create_column_families(nameless), ErrorKind::InvalidFamilyName);
    let wrong = [("a", FamilyOptions::default()), ("b", FamilyOptions::default().page_fill(1))];
    failure(db.create_column_families(wrong), ErrorKind::InvalidArgument);
    assert_eq!(db.column_family_names(), ["family 700"]);
    let syncs = storage.calls(Strike::Sync);
    let families = db.create_column_families(named(0..700)).unwrap();
    assert!(storage.calls(Strike::Sync) - syncs <= 3);
    for (number, family) in families.iter().enumerate() {
        assert_eq!(family.name(), format!("family {number}"));
        family.put("number", number.to_string()).unwrap();
    }
    assert!(db.create_column_families(named(0..0)).unwrap().is_empty());
    let killed = open(&storage.copy());
    for number in 0..700 {
        let family = killed.column_family(&format!("family {number}")).unwrap();
        assert_eq!(family.get("number").unwrap().unwrap(), number.to_string().as_bytes());
    }
    assert_clean(&killed);
}

#[test]
fn a_checkpoint_writes_the_families_that_changed_and_no_others() {
    let storage = TestStorage::new();
    let db = open(&storage);
    let families = create_many(&db, 1000);
    for family in &families {
        family.put("key", "value").unwrap();
    }
    db.flush().unwrap();
    let before = storage.bytes_written();
    for round in 0..40 {
        let family = &families[round * 17];
        family.put("key", format!("value {round}")).unwrap();
        db.flush_column_family(family).unwrap();
    }
    // A leaf, a part of the catalog in both copies, now and then a whole one, and what the log makes ready.
    let each = (storage.bytes_written() - before) / 40;
    assert!(each <= 14 * BLOCK, "{each} bytes for a checkpoint of one family");
    let killed = open(&storage.copy());
    for round in 0..40 {
        let family = killed.column_family(&format!("family {}", round * 17)).unwrap();
        assert_eq!(family.get("key").unwrap().unwrap(), format!("value {round}").as_bytes());
    }
    assert_clean(&killed);
}

#[test]
fn whatever_becomes_of_families_is_there_after_every_kill() {
    for seed in 0..2 {
        let mut random = Random::new(seed);
        let mut storage = TestStorage::new();
        let mut db = open(&storage);
        let mut model: BTreeMap<String, u64> = BTreeMap::new();
        for step in 0..80 {
            let free = (0..).map(|number| format!("name {number}")).find(|name| !model.contains_key(name));
            let free = free.expect("a name that is free");
            let one = model.keys().nth(random.below(model.len().max(1) as u64) as usize).cloned();
            match (random.below(8), one) {
                (0 | 1, _) | (_, None) => {
                    let family = db.create_column_family(&free, FamilyOptions::default()).unwrap();
                    family.put("step", step.to_string()).unwrap();
                    model.insert(free, step);
                }
                (2, _) => {
                    let new = (0..9).map(|n| format!("batch {step} {n}"));
                    model.extend(new.clone().map(|name| (name, step)));
                    let families = new.map(|name| (name, FamilyOptions::default()));
                    for family in db.create_column_families(families).unwrap() {
                        family.put("step", step.to_string()).unwrap();
                    }
                }
                (3, Some(one)) => {
                    db.rename_column_family(&one, &free).unwrap();
                    let entry = model.remove(&one).expect("a name that is there");
                    model.insert(free, entry);
                }
                (4, Some(one)) => {
                    db.drop_column_family(&one).unwrap();
                    model.remove(&one);
                }
                (5, Some(one)) => {
                    let family = db.column_family(&one).unwrap();
                    family.put("step", step.to_string()).unwrap();
                    model.insert(one, step);
                    db.flush_column_family(&family).unwrap();
                }
                (6, Some(one)) => {
                    let family = db.column_family(&one).unwrap();
                    family.put("step", step.to_string()).unwrap();
                    model.insert(one, step);
                    match random.below(4) {
                        0 => db.compact().unwrap(),
                        1 => db.flush().unwrap(),
                        _ => db.checkpoint().unwrap(),
                    }
                }
                (_, Some(one)) => {
                    db.column_family(&one).unwrap().put("step", step.to_string()).unwrap();
                    model.insert(one, step);
                }
            }
            let copy = storage.copy();
            let killed = open(&copy);
            assert_eq!(
                killed.column_family_names(),
                model.keys().cloned().collect::<Vec<_>>(),
                "seed {seed}"
            );
            for (name, step) in &model {
                let value = killed.column_family(name).unwrap().get("step").unwrap().unwrap();
                assert_eq!(value, step.to_string().as_bytes(), "seed {seed}, {name}");
            }
            assert_clean(&killed);
            if random.below(3) == 0 {
                (db, storage) = (killed, copy);
            }
        }
    }
}

#[test]
fn a_checkpoint_that_found_no_room_leaves_the_log_of_what_it_looked_at() {
    let storage = TestStorage::new();
    // With so long a log that no round of it merges what is only logged.
    let builder = shrunken().log_limit_bytes(16 << 20).disk_reserve_bytes(0).automatic_maintenance(false);
    let db = builder.storage(storage.clone()).open("memory").unwrap();
    // They take a whole catalog, which has as much room again behind it.
    let families = create_many(&db, 1000);
    let (kept, busy) = (&families[0], &families[1]);
    kept.put("key", "kept").unwrap();
    storage.set_full(true);
    // Too much for that room; and for a whole catalog there is none.
    let many = (0..2000).map(|n| (format!("{n:0250}"), FamilyOptions::default()));
    failure(db.create_column_families(many), ErrorKind::OutOfSpace);
    // A small part has room: the next checkpoint writes one, and looks at what is touched alone.
    db.rename_column_family("family 2", "renamed").unwrap();
    storage.set_full(false);
    // Beyond the first segment of the log.
    for n in 0..40u32 {
        busy.put(n.to_be_bytes(), [0; 2000]).unwrap();
    }
    db.flush_column_family(busy).unwrap();
    let killed = open(&storage.copy());
    assert_eq!(killed.column_family("family 0").unwrap().get("key").unwrap().unwrap(), "kept");
}

#[test]
fn a_family_of_three_small_entries_takes_little_of_the_disk() {
    let storage = TestStorage::new();
    let db = ColumnFamilyDatabase::builder()
        .automatic_maintenance(false)
        .disk_reserve_bytes(0)
        .storage(storage.clone())
        .open("memory")
        .unwrap();
    let count = 300;
    let families = create_many(&db, count);
    for round in 0..4 {
        for family in &families {
            for key in ["a", "b", "c"] {
                family.put(key, format!("value {round}")).unwrap();
            }
        }
        db.flush().unwrap();
        let bytes = db.statistics().data_file_bytes;
        assert!(bytes <= count as u64 * (16 << 10) + (512 << 10), "{} bytes each", bytes / count as u64);
    }
}
