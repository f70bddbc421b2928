//! The locks of one family stand in no other family's way.

use std::sync::mpsc;
use std::time::Duration;

use crate::column_family::options::FamilyOptions;
use crate::db::ColumnFamilyDatabase;
use crate::storage::MemoryStorage;
use crate::txn::handle::ColumnFamily;

/// Long enough for a machine that does much else, and nothing that the test waits for if all is well.
const PATIENCE: Duration = Duration::from_secs(60);

fn write_merge_and_read(db: &ColumnFamilyDatabase, family: &ColumnFamily) {
    for n in 0..500u32 {
        family.put(n.to_be_bytes(), [n as u8; 300]).unwrap();
    }
    family.delete_range(..100u32.to_be_bytes()).unwrap();
    db.shared().drain(family.family()).unwrap();
    assert!(db.statistics().merges > 0);
    for n in 0..500u32 {
        assert_eq!(family.contains_key(n.to_be_bytes()).unwrap(), n >= 100);
    }
    assert_eq!(family.iter().unwrap().collect::<Result<Vec<_>, _>>().unwrap().len(), 400);
    assert_eq!(db.snapshot().unwrap().column_family(family).unwrap().len().unwrap(), 400);
}

/// A family that has its descriptor asks nothing of what all families share to read what is not cached.
#[test]
fn a_miss_takes_no_lock_that_other_families_take() {
    let db = ColumnFamilyDatabase::builder()
        .cache_bytes(64 << 10)
        .page_size(4096)
        .automatic_maintenance(false)
        .storage(MemoryStorage::new())
        .open("memory")
        .unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for n in 0..4000u32 {
        family.put(n.to_be_bytes(), [n as u8; 300]).unwrap();
    }
    db.flush().unwrap();
    assert!(family.get(0u32.to_be_bytes()).unwrap().is_some());
    let misses = family.cache_stats().misses;
    let (done, finished) = mpsc::channel();
    let shared = db.shared();
    let registry = shared.registry.lock();
    let (space, pool) = (shared.data.space().hold(), shared.data.pool().hold());
    let reader = family.clone();
    let thread = std::thread::spawn(move || {
        for n in (0..4000u32).rev().step_by(7).chain((0..4000).step_by(11)) {
            assert_eq!(reader.get(n.to_be_bytes()).unwrap().unwrap(), [n as u8; 300]);
        }
        assert_eq!(reader.iter().unwrap().count(), 4000);
        done.send(()).unwrap();
    });
    let outcome = finished.recv_timeout(PATIENCE);
    drop((registry, space, pool));
    thread.join().unwrap();
    outcome.expect("a miss waited for a lock of all families");
    assert!(family.cache_stats().misses > misses + 300, "pages were cached");
    db.close().unwrap();
}

#[test]
fn with_every_lock_of_one_family_held_another_writes_merges_and_reads() {
    let db = ColumnFamilyDatabase::builder()
        .write_buffer_bytes(256 << 10)
        .cache_bytes(64 << 10)
        .page_size(4096)
        .automatic_maintenance(false)
        .storage(MemoryStorage::new())
        .open("memory")
        .unwrap();
    let held = db.create_column_family("held", FamilyOptions::default()).unwrap();
    let free = db.create_column_family("free", FamilyOptions::default()).unwrap();
    held.put("key", "value").unwrap();
    let family = held.family();
    let (done, finished) = mpsc::channel();
    let write = family.write.lock();
    let merging = family.merging.lock();
    let storage = family.store().lock_all();
    let (other_db, other) = (db.clone(), free.clone());
    let thread = std::thread::spawn(move || {
        write_merge_and_read(&other_db, &other);
        done.send(()).unwrap();
    });
    let outcome = finished.recv_timeout(PATIENCE);
    // Readers of the family itself need none of these locks for what is in memory.
    assert_eq!(held.get("key").unwrap().unwrap(), "value");
    drop((storage, merging, write));
    thread.join().unwrap();
    outcome.expect("one family waited for the locks of another");
    db.close().unwrap();
}
