//! The report of memory: every kind of it is counted, and goes when what it was for is gone.

mod common;

use common::{eventually, shrunken};
use peristyle::{ColumnFamily, ColumnFamilyDatabase, FamilyOptions, LockMode, MemoryReport, MemoryStorage};

const TOTAL: u64 = 32 << 20;

fn open(storage: &MemoryStorage) -> ColumnFamilyDatabase {
    let builder = ColumnFamilyDatabase::builder().memory_bytes(TOTAL).automatic_maintenance(false);
    builder.page_size(4096).storage(storage.clone()).open("memory").unwrap()
}

fn create(db: &ColumnFamilyDatabase) -> ColumnFamily {
    db.create_column_family("family", FamilyOptions::default()).unwrap()
}

fn fill(family: &ColumnFamily, len: u32) {
    (0..len).for_each(|n| {
        family.put(n.to_be_bytes(), [n as u8; 100]).unwrap();
    });
}

fn assert_within(report: &MemoryReport) {
    assert_eq!(report.budget_bytes, TOTAL);
    assert!(report.total_bytes() <= TOTAL, "{report:?}");
}

#[test]
fn what_is_written_moves_from_memtables_to_pages_and_leaves_nothing_behind() {
    let db = open(&MemoryStorage::new());
    let empty = db.memory_report();
    assert_eq!((empty.memtables, empty.read_cache, empty.write_buffers), (0, 0, 0));
    let family = create(&db);
    assert!(db.memory_report().families > empty.families);
    fill(&family, 3000);
    let written = db.memory_report();
    assert!(written.memtables > 3000 * 100, "{written:?}");
    db.flush().unwrap();
    let flushed = db.memory_report();
    assert_eq!((flushed.memtables, flushed.write_buffers), (0, 0), "{flushed:?}");
    assert!(flushed.read_cache > 3000 * 100 && flushed.tables > written.tables, "{flushed:?}");
    assert_within(&flushed);
    drop(family);
    db.drop_column_family("family").unwrap();
    let dropped = db.memory_report();
    assert_eq!(dropped.total_bytes() - dropped.log, empty.total_bytes() - empty.log, "{dropped:?}");
}

#[test]
fn a_merged_memtable_that_a_snapshot_holds_is_counted_until_it_goes() {
    let db = open(&MemoryStorage::new());
    let family = create(&db);
    fill(&family, 1000);
    let snapshot = db.snapshot().unwrap();
    db.flush().unwrap();
    assert!(db.memory_report().pinned_by_readers > 1000 * 100);
    drop(snapshot);
    for _ in 0..1000 {
        db.flush().unwrap();
        if db.memory_report().pinned_by_readers == 0 {
            return;
        }
    }
    panic!("{:?}", db.memory_report());
}

#[test]
fn a_dropped_family_is_counted_until_nobody_reads_it() {
    let db = open(&MemoryStorage::new());
    let empty = db.memory_report();
    let family = create(&db);
    fill(&family, 1000);
    db.flush().unwrap();
    fill(&family, 500);
    let snapshot = db.snapshot().unwrap();
    let before = db.memory_report();
    assert!(before.read_cache > 1000 * 100 && before.memtables > 500 * 100, "{before:?}");
    db.drop_column_family("family").unwrap();
    let dropped = db.memory_report();
    assert_eq!(dropped.memtables, empty.memtables, "{dropped:?}");
    assert!(dropped.pinned_by_readers > 500 * 100, "{dropped:?}");
    assert_eq!((dropped.read_cache, dropped.families), (before.read_cache, before.families));
    assert_eq!(snapshot.get(&family, 7u32.to_be_bytes()).unwrap().unwrap(), [7; 100]);
    drop((snapshot, family));
    eventually("nothing is left of it", || {
        db.flush().unwrap();
        let report = db.memory_report();
        report.total_bytes() - report.log == empty.total_bytes() - empty.log
    });
}

#[test]
fn a_memtable_of_a_dropped_family_is_counted_once() {
    let db = open(&MemoryStorage::new());
    let family = create(&db);
    fill(&family, 1000);
    let first = db.snapshot().unwrap();
    // This one is in the tree and in the snapshot when the family goes, the next one is not merged then.
    db.flush().unwrap();
    let merged = db.memory_report().pinned_by_readers;
    fill(&family, 1000);
    let second = db.snapshot().unwrap();
    let active = db.memory_report().memtables;
    db.drop_column_family("family").unwrap();
    assert_eq!(db.memory_report().pinned_by_readers, merged + active);
    drop((first, second, family));
    eventually("both are gone", || {
        db.flush().unwrap();
        db.memory_report().pinned_by_readers == 0
    });
}

#[test]
fn what_transactions_write_and_read_is_counted_until_they_end() {
    let db = open(&MemoryStorage::new());
    let family = create(&db);
    fill(&family, 1000);
    let taken = || db.memory_report().transactions;
    assert_eq!(taken(), 0);
    let mut transaction = db.begin().unwrap();
    let open = taken();
    assert!(open > 0, "an open transaction takes something");
    for n in 0..1000u32 {
        transaction.put(&family, [&[1; 60][..], &n.to_be_bytes()].concat(), [0; 100]).unwrap();
    }
    let written = taken();
    assert!(written >= open + 1000 * 164, "{written}");
    // The first read makes an index of what was written.
    assert!(transaction.get(&family, "none").unwrap().is_none());
    let indexed = taken();
    assert!(indexed >= written + 1000 * 164, "{indexed}");
    for n in 0..1000u32 {
        let _ = transaction.get(&family, [&[2; 60][..], &n.to_be_bytes()].concat()).unwrap();
    }
    let read = taken();
    assert!(read >= indexed + 1000 * 64, "{read}");
    let mut cursor = transaction.cursor(&family).unwrap();
    for n in 0..500u32 {
        let _ = cursor.seek((2 * n).to_be_bytes()).unwrap();
    }
    let walked = taken();
    assert!(walked >= read + 300 * 32, "{walked}, {read}");
    let mut iterator_count = 0;
    for _ in 0..300 {
        iterator_count += transaction.prefix(&family, 5u32.to_be_bytes()).unwrap().count();
    }
    assert_eq!(iterator_count, 300);
    // The walks of iterators that are gone are put together.
    assert!(taken() < walked + 300 * 300, "{} after {walked}", taken());
    transaction.commit().unwrap();
    assert!(taken() < walked - indexed + (8 << 10), "{} for a cursor", taken());
    drop(cursor);
    assert_eq!(taken(), 0);
}

#[test]
fn what_is_rolled_back_takes_no_index() {
    let db = open(&MemoryStorage::new());
    let family = create(&db);
    let mut transaction = db.begin().unwrap();
    let point = transaction.savepoint();
    for n in 0..1000u32 {
        transaction.put(&family, n.to_be_bytes(), [0; 100]).unwrap();
    }
    assert!(transaction.get(&family, "none").unwrap().is_none());
    let indexed = db.memory_report().transactions;
    transaction.rollback_to(&point).unwrap();
    assert!(db.memory_report().transactions + 1000 * 100 < indexed);
}

#[test]
fn locks_and_what_prepared_transactions_hold_are_counted_until_they_go() {
    let db = open(&MemoryStorage::new());
    let family = create(&db);
    let taken = || db.memory_report().locks;
    assert_eq!(taken(), 0);
    let mut transaction = db.begin().unwrap();
    for n in 0..1000u32 {
        let key = [&[1; 60][..], &n.to_be_bytes()].concat();
        let _ = transaction.get_for_update(&family, key, LockMode::Shared).unwrap();
    }
    let shared = taken();
    assert!(shared >= 1000 * 64, "{shared}");
    for n in 0..1000u32 {
        let key = [&[1; 60][..], &n.to_be_bytes()].concat();
        let _ = transaction.get_for_update(&family, key, LockMode::Exclusive).unwrap();
    }
    assert!(taken() > shared);
    drop(transaction);
    assert_eq!(taken(), 0);
    let mut transaction = db.begin().unwrap();
    for n in 0..1000u32 {
        transaction.put(&family, [&[1; 60][..], &n.to_be_bytes()].concat(), "").unwrap();
    }
    let prepared = transaction.prepare("transfer").unwrap();
    assert!(taken() >= 1000 * 64, "{}", taken());
    prepared.commit().unwrap();
    assert_eq!(taken(), 0);
}

#[test]
fn what_is_known_of_pages_that_readers_keep_is_counted_until_they_go() {
    let db = open(&MemoryStorage::new());
    let family = create(&db);
    fill(&family, 20_000);
    db.flush().unwrap();
    let before = db.memory_report().page_ages;
    let snapshot = db.snapshot().unwrap();
    for _ in 0..3 {
        fill(&family, 20_000);
        db.compact().unwrap();
    }
    // Sixteen bytes for each page that is kept for the snapshot alone.
    let pages = db.statistics().pinned_bytes / 4096;
    let kept = db.memory_report().page_ages;
    assert!(pages > 400 && kept >= before + 16 * pages, "{kept} bytes, {before} before, for {pages} pages");
    drop(snapshot);
    eventually("nobody reads old trees", || {
        db.flush().unwrap();
        db.memory_report().page_ages < kept / 10
    });
}

#[test]
fn filters_of_deltas_are_counted_while_there_are_deltas() {
    let builder = shrunken().merge_cost(0).automatic_maintenance(false);
    let db = builder.storage(MemoryStorage::new()).open("memory").unwrap();
    let family = create(&db);
    fill(&family, 1000);
    db.flush().unwrap();
    assert_eq!(db.memory_report().filters, 0);
    // In front of a tree that is there.
    fill(&family, 1000);
    db.flush().unwrap();
    let properties = db.family_properties(&family).unwrap();
    assert_eq!(db.memory_report().filters > 0, properties.deltas > 0);
    assert!(properties.deltas > 0);
    db.compact().unwrap();
    assert_eq!(db.memory_report().filters, 0);
}

#[test]
fn spares_of_memtables_are_counted() {
    let builder = ColumnFamilyDatabase::builder().memory_bytes(1 << 30).automatic_maintenance(false);
    let db = builder.storage(MemoryStorage::new()).open("memory").unwrap();
    let family = create(&db);
    fill(&family, 50_000);
    // Keeps a mapping of the first memtable in use.
    let snapshot = db.snapshot().unwrap();
    db.flush().unwrap();
    assert_eq!(db.memory_report().memtable_spares, 0, "{:?}", db.memory_report());
    fill(&family, 50_000);
    db.flush().unwrap();
    let spares = |db: &ColumnFamilyDatabase| db.memory_report().memtable_spares;
    eventually("mappings of the second one are kept", || spares(&db) > 0);
    assert!(spares(&db).is_multiple_of(2 << 20), "{:?}", db.memory_report());
    drop(snapshot);
    db.flush().unwrap();
    eventually("no memtable has such a mapping", || spares(&db) == 0);
}

#[test]
fn what_the_log_maps_is_counted_and_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let builder = ColumnFamilyDatabase::builder().memory_bytes(TOTAL);
    let db = builder.open(directory.path().join("db")).unwrap();
    let family = create(&db);
    for _ in 0..5 {
        fill(&family, 20_000);
        let report = db.memory_report();
        assert!(report.log <= TOTAL / 4, "{report:?}");
    }
    db.close().unwrap();
}

#[test]
fn one_number_bounds_everything_under_a_mixed_load() {
    let db = open(&MemoryStorage::new());
    let families: Vec<_> = (0..8)
        .map(|n| db.create_column_family(&format!("family {n}"), FamilyOptions::default()).unwrap())
        .collect();
    for round in 0..4u32 {
        for family in &families {
            for n in 0..10_000u32 {
                let key = (n ^ round).wrapping_mul(2_654_435_761).to_be_bytes();
                family.put(key, [round as u8; 200]).unwrap();
                if n % 4 == 0 {
                    let _ = family.get(n.wrapping_mul(2_654_435_761).to_be_bytes()).unwrap();
                }
            }
            let report = db.memory_report();
            assert!(report.total_bytes() <= TOTAL + TOTAL / 10, "{report:?}");
        }
    }
}
