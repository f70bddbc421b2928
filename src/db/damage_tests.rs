//! One family whose pages cannot be read, beside others.

use std::collections::BTreeMap;

use crate::codec::ids::PageId;
use crate::db::ColumnFamilyDatabase;
use crate::error::{Error, ErrorKind, Result};
use crate::options::DatabaseBuilder;
use crate::segment::EXTENTS_START;
use crate::storage::{FileMode, MemoryStorage, StorageBackend};
use crate::txn::batch::WriteBatch;
use crate::txn::handle::ColumnFamily;
use crate::{Durability, FamilyOptions, merge_operators};

const PAGE: usize = 4096;
const KEYS: u32 = 2000;

fn builder() -> DatabaseBuilder {
    ColumnFamilyDatabase::builder()
        .page_size(PAGE as u32)
        .cache_bytes(1 << 20)
        .write_buffer_bytes(8 << 20)
        .background_threads(1)
}

fn key(n: u32) -> [u8; 4] {
    n.to_be_bytes()
}

fn failure<T>(result: Result<T>, kind: ErrorKind) -> Error {
    let error = result.err().expect("it failed");
    assert_eq!(error.kind(), kind, "{error}");
    error
}

/// A database with the families `hurt` and `well`, both of which have all keys in their trees.
fn two_families() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let db = builder().storage(storage.clone()).open("memory").unwrap();
    for name in ["hurt", "well"] {
        let family = db.create_column_family(name, FamilyOptions::default()).unwrap();
        for n in 0..KEYS {
            family.put(key(n), [n as u8; 100]).unwrap();
        }
    }
    db.close().unwrap();
    storage
}

/// Flips a bit in the leaf of the first family that holds the middle key.
fn flip_a_bit(storage: &MemoryStorage) {
    let file = storage.open("data", FileMode::Write).unwrap();
    let mut page = vec![0; PAGE];
    let middle = [(KEYS / 2) as u8; 100];
    let mut places = Vec::new();
    for at in (EXTENTS_START..file.len().unwrap()).step_by(PAGE) {
        file.read_at(&mut page, at).unwrap();
        // A leaf of family 1, by its header.
        if page[24] == 1 && page[4] == 1 {
            places.push((at, page.windows(100).position(|window| window == middle)));
        }
    }
    // Values are alike for every 256th key.
    let found: Vec<_> = places.iter().filter_map(|(at, place)| place.map(|place| (*at, place))).collect();
    let (at, place) = found[found.len() / 2];
    let mut byte = [0];
    file.read_at(&mut byte, at + place as u64).unwrap();
    file.write_at(&[byte[0] ^ 4], at + place as u64).unwrap();
}

struct Two {
    db: ColumnFamilyDatabase,
    hurt: ColumnFamily,
    well: ColumnFamily,
}

impl Two {
    fn open(builder: DatabaseBuilder, storage: &MemoryStorage) -> Self {
        let db = builder.storage(storage.clone()).open("memory").unwrap();
        let (hurt, well) = (db.column_family("hurt").unwrap(), db.column_family("well").unwrap());
        Self { db, hurt, well }
    }

    /// Keys of the leaf that cannot be read.
    fn unreadable(&self) -> Vec<u32> {
        let is_unreadable = |n: &u32| match self.hurt.get(key(*n)) {
            Ok(_) => false,
            Err(error) => error.kind() == ErrorKind::Corruption,
        };
        (0..KEYS).filter(is_unreadable).collect()
    }

    fn damage(&self) -> Option<String> {
        self.db.family_properties(&self.hurt).unwrap().damage
    }

    fn is_damaged(&self) -> bool {
        let is_damaged = self.damage().is_some();
        assert_eq!(self.db.statistics().families_damaged, u64::from(is_damaged));
        is_damaged
    }
}

#[test]
fn a_damaged_leaf_ends_writing_to_its_family_alone_and_loses_nothing_of_it() {
    for automatic in [false, true] {
        let storage = two_families();
        flip_a_bit(&storage);
        let builder = || builder().automatic_maintenance(automatic);
        let two = Two::open(builder(), &storage);
        let unreadable = two.unreadable();
        assert!((5..100).contains(&unreadable.len()), "{unreadable:?}");
        let mut written: Vec<u32> = Vec::new();
        two.hurt.put_with(key(KEYS), "without a record", Durability::None).unwrap();
        for n in (0..KEYS).step_by(3) {
            two.well.put(key(n), [1; 50]).unwrap();
            match two.hurt.put(key(n), [1; 50]) {
                Ok(_) => written.push(n),
                // The clock was faster.
                Err(error) if automatic => assert_eq!(error.kind(), ErrorKind::FamilyDamaged),
                Err(error) => panic!("{error}"),
            }
        }
        two.db.flush().unwrap();
        assert!(two.is_damaged());
        let error = failure(two.hurt.put("key", "value"), ErrorKind::FamilyDamaged);
        assert_eq!(error.location().family, Some(1), "{error}");
        assert!(error.location().page.is_some() && error.location().offset.is_some(), "{error}");
        failure(two.hurt.delete_range(..key(1)), ErrorKind::FamilyDamaged);
        failure(two.db.flush_column_family(&two.hurt), ErrorKind::FamilyDamaged);
        failure(two.db.compact_column_family(&two.hurt), ErrorKind::FamilyDamaged);
        let mut batch = WriteBatch::new();
        batch.put(&two.well, "of a batch", "value").put(&two.hurt, "of a batch", "value");
        failure(two.db.write(&batch), ErrorKind::FamilyDamaged);
        batch.put(&two.hurt, "large", vec![0; 4 << 20]);
        failure(two.db.write(&batch), ErrorKind::FamilyDamaged);
        assert!(two.well.get("of a batch").unwrap().is_none());
        for _ in 0..2 {
            for n in 0..KEYS {
                two.well.put(key(n), [2; 50]).unwrap();
            }
            two.db.flush().unwrap();
        }
        failure(two.db.compact(), ErrorKind::FamilyDamaged);
        two.db.wait_until_idle().unwrap();
        two.db.sync().unwrap();
        assert!(two.db.statistics().log.replay_weight < 10_000, "{:?}", two.db.statistics().log);
        let check = |two: &Two| {
            for n in 0..KEYS {
                assert_eq!(two.well.get(key(n)).unwrap().unwrap(), [2; 50]);
                let found = two.hurt.get(key(n));
                match (written.contains(&n), unreadable.contains(&n)) {
                    (true, _) => assert_eq!(found.unwrap().unwrap(), [1; 50], "key {n}"),
                    (false, true) => drop(failure(found, ErrorKind::Corruption)),
                    (false, false) => assert_eq!(found.unwrap().unwrap(), [n as u8; 100], "key {n}"),
                }
            }
            assert_eq!(two.hurt.get(key(KEYS)).unwrap().unwrap(), "without a record");
        };
        check(&two);
        two.db.close().unwrap();
        let two = Two::open(builder(), &storage);
        assert_eq!(two.db.recovery_report().records_applied, 0);
        check(&two);
        // Dropped while it is damaged, and while it is not known to be.
        if automatic {
            two.hurt.put(key(unreadable[0]), "new").unwrap();
            two.db.flush().unwrap();
        }
        two.db.drop_column_family("hurt").unwrap();
        failure(two.hurt.put("key", "value"), ErrorKind::FamilyDropped);
        let Two { db, hurt, well } = two;
        drop(hurt);
        let hurt = db.create_column_family("hurt", FamilyOptions::default()).unwrap();
        hurt.put("key", "value").unwrap();
        drop((hurt, well));
        db.flush().unwrap();
        assert!(db.verify().unwrap().is_clean());
        assert_eq!(db.statistics().families_damaged, 0);
        db.close().unwrap();
    }
}

/// A range deletion that begins or ends in the leaf that cannot be read, so that no delta can hold what was
/// written.
#[test]
fn what_of_a_damaged_family_cannot_be_written_is_carried_along_in_the_log_which_stays_short() {
    for close in [false, true] {
        let storage = two_families();
        flip_a_bit(&storage);
        let limit = 256 << 10;
        let builder = || builder().log_limit_bytes(limit).automatic_maintenance(false);
        let two = Two::open(builder(), &storage);
        let unreadable = two.unreadable();
        let middle = unreadable[unreadable.len() / 2];
        let mut model = BTreeMap::new();
        for n in (0..KEYS).step_by(5) {
            two.hurt.put(key(n), [3; 40]).unwrap();
            model.insert(n, Some([3; 40]));
        }
        let range = middle..middle + 500;
        two.hurt.delete_range(key(range.start)..key(range.end)).unwrap();
        for n in range.clone() {
            model.insert(n, None);
        }
        two.hurt.put(key(range.start + 3), [4; 40]).unwrap();
        model.insert(range.start + 3, Some([4; 40]));
        two.hurt.delete(key(1)).unwrap();
        model.insert(1, None);
        two.hurt.put_with(key(2), [5; 40], Durability::None).unwrap();
        model.insert(2, Some([5; 40]));
        two.db.flush().unwrap();
        assert!(two.is_damaged());
        assert!(two.hurt.family().damage.is_stuck());
        failure(two.hurt.put("key", "value"), ErrorKind::FamilyDamaged);
        let mut most = 0;
        for round in 0..40u8 {
            for n in 0..250 {
                two.well.put(key(n), [round; 100]).unwrap();
            }
            two.db.sync().unwrap();
            most = most.max(two.db.statistics().log.replay_weight);
        }
        assert!(most <= limit + limit / 4, "the log came to {most}");
        let check = |two: &Two| {
            for (n, value) in &model {
                let found = two.hurt.get(key(*n)).unwrap();
                assert_eq!(found.as_deref(), value.as_ref().map(|value| &value[..]), "key {n}");
            }
            for n in (0..KEYS).filter(|n| !model.contains_key(n) && !unreadable.contains(n)) {
                assert_eq!(two.hurt.get(key(n)).unwrap().unwrap(), [n as u8; 100], "key {n}");
            }
            assert_eq!(two.well.get(key(7)).unwrap().unwrap(), [39; 100]);
        };
        check(&two);
        if close {
            two.db.close().unwrap();
        } else {
            drop(two);
        }
        // Again, with a budget into which what is replayed does not fit.
        for bytes in [8 << 20, 64 << 10] {
            let two = Two::open(builder().write_buffer_bytes(bytes), &storage);
            check(&two);
            two.db.flush().unwrap();
            check(&two);
            two.well.put("key", "value").unwrap();
            two.db.close().unwrap();
        }
    }
}

/// What is carried along is replayed beside what it says once more: an operand counts once nevertheless.
/// Where operands cannot be folded, since they are for a key that cannot be read, nothing is carried and
/// nothing lost.
#[test]
fn operands_of_a_damaged_family_that_are_carried_along_count_once() {
    for can_be_folded in [true, false] {
        let storage = two_families();
        flip_a_bit(&storage);
        let builder = || {
            let builder = builder().log_limit_bytes(256 << 10).automatic_maintenance(false);
            builder.merge_operator(merge_operators::append(""))
        };
        let two = Two::open(builder(), &storage);
        let options = FamilyOptions::default().merge_operator(merge_operators::append(""));
        two.db.ensure_column_family("hurt", options).unwrap();
        let unreadable = two.unreadable();
        let middle = unreadable[unreadable.len() / 2];
        let merged: Vec<u32> = (0..KEYS).step_by(9).filter(|n| !unreadable.contains(n)).collect();
        for operand in ["a", "b"] {
            for n in &merged {
                two.hurt.merge(key(*n), operand).unwrap();
            }
        }
        if !can_be_folded {
            two.hurt.merge(key(unreadable[0]), "a").unwrap();
        }
        let range = middle..middle + 500;
        two.hurt.delete_range(key(range.start)..key(range.end)).unwrap();
        two.hurt.merge(key(range.start), "c").unwrap();
        two.db.flush().unwrap();
        assert!(two.hurt.family().damage.is_stuck());
        assert_eq!(two.hurt.family().damage.is_carried(), can_be_folded);
        if can_be_folded {
            for round in 0..20u8 {
                for n in 0..250 {
                    two.well.put(key(n), [round; 100]).unwrap();
                }
            }
            two.db.sync().unwrap();
        }
        let check = |two: &Two| {
            for n in &merged {
                let found = two.hurt.get(key(*n)).unwrap();
                let expected = [&[*n as u8; 100][..], b"ab"].concat();
                let expected = (!range.contains(n)).then_some(expected);
                assert_eq!(found.as_deref(), expected.as_deref(), "key {n}");
            }
            assert_eq!(two.hurt.get(key(range.start)).unwrap().unwrap(), "c");
        };
        check(&two);
        drop(two);
        for bytes in [8 << 20, 64 << 10, 8 << 20] {
            let two = Two::open(builder().write_buffer_bytes(bytes), &storage);
            check(&two);
            two.db.flush().unwrap();
            check(&two);
        }
    }
}

/// A range deletion that covers all of the leaf that cannot be read is the cure: nobody needs that leaf any
/// more.
#[test]
fn a_damaged_leaf_that_is_deleted_whole_is_no_damage() {
    let storage = two_families();
    flip_a_bit(&storage);
    let two = Two::open(builder().automatic_maintenance(false), &storage);
    two.hurt.delete_range(key(100)..key(KEYS - 100)).unwrap();
    two.db.flush().unwrap();
    assert!(!two.is_damaged());
    two.hurt.put("key", "value").unwrap();
    two.db.compact().unwrap();
    assert!(two.db.verify().unwrap().is_clean());
    assert_eq!(two.hurt.len().unwrap(), 201);
}

/// What is carried weighs more than the limit: others write on, and it is carried only now and then.
#[test]
fn what_is_carried_along_in_the_log_neither_stops_others_nor_is_written_without_end() {
    let storage = two_families();
    flip_a_bit(&storage);
    let limit = 64 << 10;
    let builder = || builder().log_limit_bytes(limit).automatic_maintenance(false);
    let two = Two::open(builder(), &storage);
    let unreadable = two.unreadable();
    let middle = unreadable[unreadable.len() / 2];
    let mut batch = WriteBatch::new();
    batch.delete_range(&two.hurt, key(middle)..key(middle + 1));
    for n in (0..KEYS).step_by(2) {
        batch.put(&two.hurt, key(n), [3; 40]);
    }
    two.db.write(&batch).unwrap();
    two.db.flush().unwrap();
    assert!(two.hurt.family().damage.is_stuck());
    let carried = two.hurt.family().damage.carried();
    assert!(carried > limit, "{carried} weigh less than the limit");
    let (mut written, mut most) = (0, 0);
    let before = two.db.statistics().log.bytes_appended;
    for round in 0..40u8 {
        for n in 0..250 {
            two.well.put(key(n), [round; 100]).unwrap();
            written += 100;
        }
        two.db.sync().unwrap();
        most = most.max(two.db.statistics().log.replay_weight);
    }
    let appended = two.db.statistics().log.bytes_appended - before;
    assert!(
        most <= 2 * carried + limit + limit / 2,
        "the log came to {most}, of which {carried} are carried"
    );
    assert!(appended <= 12 * written, "{appended} bytes of log for {written} that were written");
    drop(two);
    let two = Two::open(builder(), &storage);
    assert_eq!(two.hurt.get(key(2)).unwrap().unwrap(), [3; 40]);
    assert_eq!(two.well.get(key(7)).unwrap().unwrap(), [39; 100]);
}

/// The checkpoint and the log behind it say what stood there, so neither is let go of.
#[test]
fn a_page_that_the_log_can_rebuild_ends_all_writing_and_is_there_again_after_reopening() {
    let storage = two_families();
    let two = Two::open(builder().automatic_maintenance(false), &storage);
    let (family, shared) = (two.hurt.family(), two.db.shared());
    let store = family.store();
    let durable = store.reachable();
    let write =
        || (0..KEYS).step_by(100).try_for_each(|n| two.hurt.put(key(n), [9; 50]).map(|_| ())).unwrap();
    write();
    shared.drain(family).unwrap();
    store.write_dirty().unwrap();
    store.cache().take_away(1 << 30);
    let file = storage.open("data", FileMode::Write).unwrap();
    let pages = store.reachable();
    let pages = pages.iter_runs().flat_map(|(first, count)| first.0..first.0 + count).map(PageId);
    let younger: Vec<_> = pages.filter(|page| !durable.contains(*page)).collect();
    assert!(!younger.is_empty());
    for page in younger {
        assert!(!store.is_in_checkpoint(Some(page.0)));
        file.write_at(&[0xa5; 64], store.file_offset(page).unwrap()).unwrap();
    }
    failure(two.hurt.get(key(100)), ErrorKind::Corruption);
    write();
    let error = two.db.compact_column_family(&two.hurt).unwrap_err();
    assert_ne!(error.kind(), ErrorKind::FamilyDamaged, "{error}");
    assert!(!two.is_damaged());
    failure(two.hurt.put("key", "value"), ErrorKind::WriteFailed);
    failure(two.well.put("key", "value"), ErrorKind::WriteFailed);
    failure(two.db.flush(), ErrorKind::WriteFailed);
    drop(two);

    let two = Two::open(builder(), &storage);
    assert!(two.db.recovery_report().records_applied > 0);
    for n in 0..KEYS {
        let value = two.hurt.get(key(n)).unwrap().unwrap();
        if n % 100 == 0 {
            assert_eq!(value, [9; 50], "key {n}");
        } else {
            assert_eq!(value, [n as u8; 100], "key {n}");
        }
    }
    two.db.compact().unwrap();
    assert!(!two.is_damaged());
    assert!(two.db.verify().unwrap().is_clean());
}
