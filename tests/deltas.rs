//! Deltas: what is written in front of a tree reads like everything else, and is drained in the end.

mod common;

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use common::{assert_clean, shrunken};
use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, DatabaseBuilder, FamilyOptions, FamilySnapshot, MemoryStorage,
};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn key(number: u32) -> Vec<u8> {
    format!("key {number:06}").into_bytes()
}

fn value(number: u32, version: u32) -> Vec<u8> {
    format!("value {number} of version {version} ").repeat(3).into_bytes()
}

/// Every merge that finds a tree writes a delta, and nothing drains it but a call.
fn builder(storage: &MemoryStorage) -> DatabaseBuilder {
    shrunken().merge_cost(0).automatic_maintenance(false).storage(storage.clone())
}

struct Written {
    db: ColumnFamilyDatabase,
    family: ColumnFamily,
    model: Model,
}

impl Written {
    /// A tree of 2000 entries.
    fn new(storage: &MemoryStorage) -> Self {
        let db = builder(storage).open("memory").unwrap();
        let family = db.create_column_family("tokens", FamilyOptions::default()).unwrap();
        let mut written = Self { db, family, model: Model::new() };
        for number in 0..2000 {
            written.put(number, 0);
        }
        written.db.wait_until_idle().unwrap();
        assert_eq!(written.deltas(), 0);
        written
    }

    fn put(&mut self, number: u32, version: u32) {
        self.family.put(key(number), value(number, version)).unwrap();
        self.model.insert(key(number), value(number, version));
    }

    fn delete(&mut self, number: u32) {
        self.family.delete(key(number)).unwrap();
        self.model.remove(&key(number));
    }

    fn deltas(&self) -> u64 {
        self.db.family_properties(&self.family).unwrap().deltas
    }

    /// Flushes, which has to write a delta.
    fn flush(&self) {
        self.db.flush().unwrap();
        assert!(self.deltas() > 0, "nothing is left to drain");
    }

    fn check(&self) {
        check(&self.family.snapshot().unwrap(), &self.model);
        for number in (0..2100).step_by(7) {
            let found = self.family.get(key(number)).unwrap().map(Vec::from);
            assert_eq!(found.as_ref(), self.model.get(&key(number)), "key {number}");
        }
        assert_eq!(self.family.len().unwrap(), self.model.len() as u64);
        assert_clean(&self.db);
    }
}

/// Both ways, and turning around at every seventh entry.
fn check(snapshot: &FamilySnapshot, model: &Model) {
    let mut cursor = snapshot.cursor();
    for (key, value) in model {
        assert!(cursor.next().unwrap());
        assert_eq!((cursor.key(), cursor.value().unwrap()), (&key[..], &value[..]));
    }
    assert!(!cursor.next().unwrap());
    let mut cursor = snapshot.cursor();
    for (key, value) in model.iter().rev() {
        assert!(cursor.prev().unwrap());
        assert_eq!((cursor.key(), cursor.value().unwrap()), (&key[..], &value[..]));
    }
    assert!(!cursor.prev().unwrap());
    let mut expected = model.iter();
    let mut scan = |key: &[u8], value: &[u8]| {
        assert_eq!(expected.next(), Some((&key.to_vec(), &value.to_vec())));
        ControlFlow::<()>::Continue(())
    };
    assert!(snapshot.cursor().scan(&mut scan).unwrap().is_continue());
    assert_eq!(expected.next(), None);
    let mut expected = model.iter().rev();
    let mut scan = |key: &[u8], value: &[u8]| {
        assert_eq!(expected.next(), Some((&key.to_vec(), &value.to_vec())));
        ControlFlow::<()>::Continue(())
    };
    assert!(snapshot.cursor().scan_back(&mut scan).unwrap().is_continue());
    assert_eq!(expected.next(), None);
    for key in model.keys().step_by(7) {
        let mut cursor = snapshot.cursor();
        assert!(cursor.seek(key).unwrap());
        assert_eq!(cursor.key(), &key[..]);
        let below = model.range::<Vec<u8>, _>(..key).next_back();
        assert_eq!(cursor.prev().unwrap(), below.is_some());
        if let Some((below, _)) = below {
            assert_eq!(cursor.key(), &below[..]);
            assert!(cursor.next().unwrap());
            assert_eq!(cursor.key(), &key[..]);
        }
        let above = model.range::<Vec<u8>, _>((Bound::Excluded(key), Bound::Unbounded)).next();
        if below.is_some() {
            assert_eq!(cursor.next().unwrap(), above.is_some());
        }
    }
}

#[test]
fn deltas_overwrite_and_delete_what_is_behind_them() {
    let storage = MemoryStorage::new();
    let mut written = Written::new(&storage);
    for version in 1..=6 {
        for number in (version * 3..2000).step_by(11) {
            written.put(number, version);
        }
        for number in (version..2000).step_by(13) {
            written.delete(number);
        }
        written.put(2000 + version, version);
        written.flush();
        written.check();
    }
    written.db.wait_until_idle().unwrap();
    assert_eq!(written.deltas(), 0);
    let properties = written.db.family_properties(&written.family).unwrap();
    assert_eq!(properties.entries_in_tree, written.model.len() as u64);
    written.check();
}

#[test]
fn range_deletions_reach_into_deltas_and_the_tree() {
    let storage = MemoryStorage::new();
    let mut written = Written::new(&storage);
    for number in (0..2000).step_by(3) {
        written.put(number, 1);
    }
    written.flush();
    written.family.delete_range(key(500)..key(900)).unwrap();
    written.model.retain(|at, _| *at < key(500) || *at >= key(900));
    written.check();
    written.put(600, 2);
    written.flush();
    written.check();
    written.family.delete_range(key(0)..key(1_000_000)).unwrap();
    written.model.clear();
    written.put(42, 3);
    written.db.flush().unwrap();
    written.check();
    written.db.wait_until_idle().unwrap();
    written.check();
}

#[test]
fn deltas_outlive_the_process_and_compaction_drains_them() {
    let storage = MemoryStorage::new();
    let mut written = Written::new(&storage);
    for number in (0..2000).step_by(2) {
        written.put(number, 1);
    }
    for number in (0..2000).step_by(5) {
        written.delete(number);
    }
    written.flush();
    let Written { db, family, model } = written;
    drop(family);
    db.close().unwrap();

    let db = builder(&storage).open("memory").unwrap();
    let family = db.column_family("tokens").unwrap();
    let written = Written { db, family, model };
    assert!(written.deltas() >= 1);
    written.check();
    written.db.compact().unwrap();
    assert_eq!(written.deltas(), 0);
    written.check();
}

#[test]
fn snapshots_stay_what_they_are_while_deltas_come_and_go() {
    let storage = MemoryStorage::new();
    let mut written = Written::new(&storage);
    let mut snapshots = vec![(written.family.snapshot().unwrap(), written.model.clone())];
    for version in 1..=4 {
        for number in (version..2000).step_by(17) {
            written.put(number, version);
            written.delete(number + 1);
        }
        snapshots.push((written.family.snapshot().unwrap(), written.model.clone()));
        written.flush();
    }
    written.db.wait_until_idle().unwrap();
    written.db.checkpoint().unwrap();
    for (snapshot, model) in &snapshots {
        check(snapshot, model);
    }
    written.check();
}

#[test]
fn large_values_are_drained_whole() {
    let storage = MemoryStorage::new();
    let mut written = Written::new(&storage);
    let large = |seed: u8| (0..300_000u32).map(|i| (i % 251) as u8 ^ seed).collect::<Vec<u8>>();
    for (number, seed) in [(10, 1), (700, 2), (1900, 3)] {
        written.family.put(key(number), large(seed)).unwrap();
        written.model.insert(key(number), large(seed));
    }
    written.flush();
    written.check();
    written.db.wait_until_idle().unwrap();
    assert_eq!(written.deltas(), 0);
    written.check();
}

#[test]
fn there_are_never_many_deltas_however_often_one_flushes() {
    let storage = MemoryStorage::new();
    let mut written = Written::new(&storage);
    let mut most = 0;
    for version in 1..=200 {
        written.put(version * 7 % 2000, version);
        written.db.flush().unwrap();
        most = most.max(written.deltas());
    }
    assert!((10..=40).contains(&most), "{most} deltas");
    written.check();
}

#[test]
fn ascending_keys_need_no_deltas() {
    let storage = MemoryStorage::new();
    let db = shrunken().automatic_maintenance(false).storage(storage).open("memory").unwrap();
    let family = db.create_column_family("blocks", FamilyOptions::default()).unwrap();
    for number in 0..5000 {
        family.put(key(number), value(number, 0)).unwrap();
    }
    db.flush().unwrap();
    assert_eq!(db.family_properties(&family).unwrap().deltas, 0);
}
