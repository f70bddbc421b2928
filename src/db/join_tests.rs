//! Deltas that are joined, and drained meanwhile, against a model.

use std::collections::BTreeMap;

use crate::column_family::delta::Stage;
use crate::column_family::merging::drain::Drained;
use crate::column_family::merging::merge::Pace;
use crate::column_family::stall::WORTH_A_MERGE;
use crate::db::ColumnFamilyDatabase;
use crate::storage::MemoryStorage;
use crate::sync::atomic::Ordering;
use crate::{ColumnFamily, DatabaseBuilder, FamilyOptions, FamilySnapshot};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

const KEYS: u32 = 4000;
/// Bytes of a memtable, which steps take at most.
const MEMTABLE: usize = 64 << 10;

fn key(number: u32) -> Vec<u8> {
    format!("key {number:06}").into_bytes()
}

struct Written {
    db: ColumnFamilyDatabase,
    family: ColumnFamily,
    model: Model,
}

impl Written {
    /// A tree of all keys, and memtables of 64 KiB: a step takes a small part of a delta.
    fn new() -> Self {
        Self::on(&MemoryStorage::new())
    }

    fn on(storage: &MemoryStorage) -> Self {
        let db = open(storage);
        let family = db.create_column_family("tokens", FamilyOptions::default()).unwrap();
        let mut written = Self { db, family, model: Model::new() };
        written.write(0, 1);
        written.db.wait_until_idle().unwrap();
        assert_eq!(written.stages(), (0, 0));
        written
    }

    /// Every `step`th key gets a new value, some others are deleted, one by one and as a range.
    fn write(&mut self, version: u32, step: usize) {
        for number in (version % step as u32..KEYS).step_by(step) {
            let value = format!("version {version} of {number} ").repeat(9).into_bytes();
            self.family.put(key(number), &value).unwrap();
            self.model.insert(key(number), value);
        }
        if version > 0 {
            for number in (version..KEYS).step_by(101) {
                self.family.delete(key(number)).unwrap();
                self.model.remove(&key(number));
            }
        }
        if version % 4 == 3 {
            let range = key(version * 40)..key(version * 40 + 25);
            self.family.delete_range(range.clone()).unwrap();
            self.model.retain(|key, _| !range.contains(key));
        }
    }

    /// Merges what is in memory, without asking a background thread for anything.
    fn merge(&self) {
        let (family, shared) = (self.family.family(), self.db.shared());
        family.freeze(&mut family.write.lock(), &shared.pipeline.views).unwrap();
        assert!(family.merge(&shared.pipeline.merge_context(&|| false), Pace::Now).unwrap());
    }

    fn join(&self) -> bool {
        // The clock gives the memtables of busy families more, and a step would take more, too.
        self.family.family().set_memtable_bytes(MEMTABLE);
        self.family.family().join_step(&self.db.shared().pipeline.merge_context(&|| false)).unwrap()
    }

    fn drain(&self) -> bool {
        self.family.family().set_memtable_bytes(MEMTABLE);
        let context = self.db.shared().pipeline.merge_context(&|| false);
        self.family.family().drain_step(&context).unwrap() != Drained::Nothing
    }

    /// Deltas that were not joined, and all others.
    fn stages(&self) -> (usize, usize) {
        let version = std::sync::Arc::clone(self.family.family().trees.lock().current());
        let fresh = version.deltas.iter().filter(|delta| delta.stage == Stage::Fresh).count();
        (fresh, version.deltas.len() - fresh)
    }

    fn check(&self) {
        check(&self.family.snapshot().unwrap(), &self.model);
        for number in (0..KEYS).step_by(29) {
            let found = self.family.get(key(number)).unwrap().map(Vec::from);
            assert_eq!(found.as_ref(), self.model.get(&key(number)), "key {number}");
        }
    }
}

fn builder(storage: &MemoryStorage) -> DatabaseBuilder {
    ColumnFamilyDatabase::builder()
        .automatic_maintenance(false)
        .merge_cost(0)
        .page_size(4096)
        .write_buffer_bytes(4 << 20)
        .cache_bytes(1 << 20)
        .storage(storage.clone())
}

fn open(storage: &MemoryStorage) -> ColumnFamilyDatabase {
    builder(storage).open("memory").unwrap()
}

fn check(snapshot: &FamilySnapshot, model: &Model) {
    let mut cursor = snapshot.cursor();
    for (key, value) in model {
        assert!(cursor.next().unwrap());
        assert_eq!((cursor.key(), cursor.value().unwrap()), (&key[..], &value[..]));
    }
    assert!(!cursor.next().unwrap());
}

#[test]
fn six_deltas_become_one_step_by_step_and_read_the_same() {
    let mut written = Written::new();
    for version in 1..=5 {
        written.write(version, 24);
        written.merge();
    }
    assert!(!written.join(), "five deltas are not joined");
    let five = (written.family.snapshot().unwrap(), written.model.clone());
    written.write(6, 24);
    written.merge();
    assert_eq!(written.stages(), (6, 0));
    let mut steps = 0;
    while written.join() {
        written.check();
        steps += 1;
        if steps == 2 {
            // What comes meanwhile stays in front.
            written.write(7, 31);
            written.merge();
            written.check();
        }
    }
    assert!(steps >= 3, "{steps} steps");
    assert_eq!(written.stages(), (1, 1));
    check(&five.0, &five.1);
    drop(five);
    let report = written.db.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn joining_draining_and_merging_do_not_mind_one_another() {
    let mut written = Written::new();
    let (mut joins, mut drains, mut most) = (0, 0, 0);
    for version in 1..=80 {
        written.write(version, 24);
        written.merge();
        for turn in 0..2 {
            if (version * 2 + turn) % 13 == 0 {
                drains += u32::from(written.drain());
            } else {
                joins += u32::from(written.join());
            }
            written.check();
        }
        most = most.max(written.stages().1);
    }
    assert!(joins > 10 && drains > 3 && most > 1, "{joins} joins, {drains} drains, {most} joined deltas");
    let report = written.db.verify().unwrap();
    assert!(report.is_clean(), "{report:?}");
    written.db.wait_until_idle().unwrap();
    assert_eq!(written.stages(), (0, 0));
    written.check();
}

#[test]
fn a_merge_that_is_due_goes_before_joining_and_draining() {
    let db = builder(&MemoryStorage::new()).open_without_threads("memory").unwrap();
    let family = db.create_column_family("tokens", FamilyOptions::default()).unwrap();
    let mut written = Written { db, family, model: Model::new() };
    for version in 0..=6 {
        written.write(version, 24);
        written.merge();
    }
    written.write(7, 24);
    let (family, shared) = (written.family.family(), written.db.shared());
    family.freeze(&mut family.write.lock(), &shared.pipeline.views).unwrap();
    family.set_hurried();
    // As if as many more were frozen meanwhile.
    family.stall.frozen(WORTH_A_MERGE);
    let joins = || family.counters.joins.load(Ordering::Relaxed);
    let merges = || family.counters.merges.load(Ordering::Relaxed);
    let before = merges();
    shared.merge_in_background(family);
    assert_eq!((merges(), joins()), (before + 1, 0));
    family.stall.not_frozen(WORTH_A_MERGE);
    // It asked to be called again.
    shared.work_off();
    assert!(joins() > 0);
    written.check();
}

#[test]
fn what_was_joined_so_far_may_go_while_the_rest_is_joined() {
    for through_draining in [false, true] {
        let mut written = Written::new();
        for version in 1..=6 {
            written.write(version, 24);
            written.merge();
        }
        assert!(written.join());
        assert_eq!(written.stages(), (0, 7));
        if through_draining {
            // As many bytes as the step joined, or more: beside its keys there are none.
            assert!(written.drain());
        } else {
            // A range that begins with the lowest key and ends behind what was joined.
            let range = key(0)..key(KEYS / 2);
            written.family.delete_range(range.clone()).unwrap();
            written.model.retain(|key, _| !range.contains(key));
            written.merge();
        }
        written.check();
        while written.join() {
            written.check();
        }
        assert_eq!(written.stages(), (0, 1));
        assert!(written.db.verify().unwrap().is_clean());
        // All that is leaving goes, too.
        for version in 7..=12 {
            written.write(version, 24);
            written.merge();
        }
        assert!(written.join());
        written.family.delete_range(key(0)..key(KEYS)).unwrap();
        written.model.clear();
        written.merge();
        assert!(!written.join());
        written.check();
        assert!(written.db.verify().unwrap().is_clean());
    }
}

#[test]
fn joined_deltas_outlive_the_database() {
    let storage = MemoryStorage::new();
    let mut written = Written::on(&storage);
    for version in 1..=9 {
        written.write(version, 24);
        written.merge();
    }
    assert!(written.join() && written.join());
    let (fresh, others) = written.stages();
    assert_eq!((fresh, others), (3, 7));
    let Written { db, family, model } = written;
    drop(family);
    db.close().unwrap();

    let db = open(&storage);
    let family = db.column_family("tokens").unwrap();
    let mut written = Written { db, family, model };
    // What was there before is drained, but not joined.
    assert_eq!(written.stages(), (0, 10));
    written.check();
    assert!(!written.join());
    // A merge of one entry does not make what was there before too much.
    written.family.put(key(7), "new").unwrap();
    written.model.insert(key(7), b"new".to_vec());
    written.merge();
    let excess = written.family.family().trees.lock().current().excess();
    assert!(excess < 100.0, "too much by {excess} merges");
    assert!(written.drain());
    written.check();
}
