//! Free space goes back to the disk, and a compaction rewrites only what is worth it.

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use common::{assert_clean, eventually, shrunken};
use peristyle::{ColumnFamily, ColumnFamilyDatabase, FamilyOptions, MemoryStorage, WriteBatch};

/// Held by every test here: what readers of one database hold up is not given back in another of the same
/// process, either.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(storage: &MemoryStorage) -> ColumnFamilyDatabase {
    shrunken().automatic_maintenance(false).storage(storage.clone()).open("memory").unwrap()
}

/// Every merge changes the tree itself.
fn open_without_deltas(storage: &MemoryStorage) -> ColumnFamilyDatabase {
    let builder = shrunken().automatic_maintenance(false).merge_cost(u32::MAX);
    builder.storage(storage.clone()).open("memory").unwrap()
}

fn create(db: &ColumnFamilyDatabase) -> ColumnFamily {
    db.create_column_family("family", FamilyOptions::default()).unwrap()
}

fn scattered(n: u32) -> [u8; 8] {
    u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

fn fill(db: &ColumnFamilyDatabase, family: &ColumnFamily, entries: u32, value: usize) {
    let numbers: Vec<u32> = (0..entries).collect();
    for numbers in numbers.chunks(500) {
        let mut batch = WriteBatch::new();
        for &n in numbers {
            batch.put(family, scattered(n), vec![n as u8; value]);
        }
        db.write(&batch).unwrap();
    }
}

fn assert_holds(family: &ColumnFamily, entries: impl Iterator<Item = u32>, value: usize) {
    let mut count = 0;
    for n in entries {
        assert_eq!(family.get(scattered(n)).unwrap().unwrap(), vec![n as u8; value]);
        count += 1;
    }
    assert_eq!(family.len().unwrap(), count);
}

/// A database of small pages, in which nothing happens by itself.
fn open_by_hand(storage: &MemoryStorage) -> ColumnFamilyDatabase {
    let builder = ColumnFamilyDatabase::builder().page_size(4096).automatic_maintenance(false);
    builder.storage(storage.clone()).open("memory").unwrap()
}

#[test]
fn an_idle_database_takes_little_more_than_its_trees() {
    let _alone = alone();
    let storage = MemoryStorage::new();
    // With memory for all of it, so that each round is one merge, which frees pages in long runs.
    let open = || open_by_hand(&storage);
    let db = open();
    let family = create(&db);
    for round in 0..4 {
        fill(&db, &family, 20_000, 100);
        for n in (0..20_000).filter(|n| n % 2 == round % 2) {
            family.delete(scattered(n)).unwrap();
        }
        db.flush().unwrap();
        let before = storage.used_bytes();
        eventually("free pages are given back", || {
            db.wait_until_idle().unwrap();
            let properties = db.family_properties(&family).unwrap();
            properties.bytes_on_disk < properties.tree_bytes * 3 / 2
        });
        let tree = db.family_properties(&family).unwrap().tree_bytes;
        // Removed files of the log go a moment later.
        eventually("the disk holds little more than the tree", || {
            used_but_for_log(&storage, &db) < tree * 3 / 2 + (256 << 10)
        });
        assert!(storage.used_bytes() <= before);
        assert_clean(&db);
    }
    drop((family, db));
    let db = open();
    assert_clean(&db);
    assert_holds(&db.column_family("family").unwrap(), (0..20_000).filter(|n| n % 2 == 0), 100);
}

#[test]
fn scattered_pages_are_moved_together_and_snapshots_keep_theirs() {
    let _alone = alone();
    let storage = MemoryStorage::new();
    let open = || open_by_hand(&storage);
    let db = open();
    let family = create(&db);
    // Values in leaves and in runs, then holes of single pages all over.
    fill(&db, &family, 20_000, 100);
    (0..200).for_each(|n| {
        family.put(scattered(n), vec![n as u8; 6000]).unwrap();
    });
    db.flush().unwrap();
    let size =
        |db: &ColumnFamilyDatabase| db.family_properties(&db.column_family("family").unwrap()).unwrap();
    let is_packed = |db: &ColumnFamilyDatabase| size(db).bytes_on_disk < size(db).tree_bytes * 5 / 4;
    for round in 0..3u32 {
        for n in (200..20_000).filter(|n| n % 64 > round * 10 + 20) {
            family.delete(scattered(n)).unwrap();
        }
        db.flush().unwrap();
        let snapshot = db.snapshot().unwrap();
        let entries = snapshot.column_family(&family).unwrap().len().unwrap();
        fill(&db, &family, 20_000, 100);
        (0..200).for_each(|n| {
            family.put(scattered(n), vec![n as u8; 6000]).unwrap();
        });
        family.delete_range([0x20].as_slice()..[0x40].as_slice()).unwrap();
        db.wait_until_idle().unwrap();
        assert_clean(&db);
        assert_eq!(
            snapshot.column_family(&family).unwrap().iter().filter_map(Result::ok).count() as u64,
            entries
        );
        for n in (0..200).map(scattered).filter(|key| !(0x20..0x40).contains(&key[0])) {
            assert_eq!(family.get(n).unwrap().unwrap().len(), 6000);
        }
        drop(snapshot);
        eventually("the pages lie together", || {
            db.wait_until_idle().unwrap();
            is_packed(&db)
        });
        assert_clean(&db);
    }
    let entries = family.len().unwrap();
    drop((family, db));
    let db = open();
    assert_clean(&db);
    assert_eq!(db.column_family("family").unwrap().len().unwrap(), entries);
}

/// Bytes of keys and values that [`fill`] writes.
fn live(entries: u32, value: usize) -> u64 {
    u64::from(entries) * (8 + value as u64)
}

/// Bytes of the data file and whatever else is used, but the log. Files of the log come and go meanwhile, and
/// one that is being given back counts until that is done.
fn used_but_for_log(storage: &MemoryStorage, db: &ColumnFamilyDatabase) -> u64 {
    loop {
        let (used, log) = (storage.used_bytes(), db.statistics().log.bytes_on_disk);
        match used.checked_sub(log) {
            Some(rest) if storage.used_bytes() == used => return rest,
            _ => std::thread::yield_now(),
        }
    }
}

#[test]
fn overwriting_under_a_held_snapshot_takes_no_more_than_what_it_sees_and_what_is_live() {
    let _alone = alone();
    let storage = MemoryStorage::new();
    let db = open_without_deltas(&storage);
    let family = create(&db);
    let (entries, value) = (6000, 500);
    let live = live(entries, value);
    let overwrite = |round: u32| {
        for quarter in 0..4 {
            let mut keys: Vec<u32> = (0..entries).collect();
            keys.sort_unstable_by_key(|&n| scattered(n));
            for &n in &keys[(entries / 4 * quarter) as usize..][..(entries / 4) as usize] {
                family.put(scattered(n), vec![round as u8; value]).unwrap();
            }
            // The pages that the last checkpoint reaches stay until there is another.
            db.flush().unwrap();
        }
    };
    overwrite(0);
    let snapshot = db.snapshot().unwrap();
    let before = Instant::now();
    overwrite(1);
    let replaced = Instant::now();
    for round in 2..=100 {
        overwrite(round);
        let used = used_but_for_log(&storage, &db);
        assert!(used <= 3 * live, "{used} bytes in round {round}");
    }
    assert_clean(&db);
    let read = snapshot.column_family(&family).unwrap().iter().map(|entry| entry.unwrap().1.to_vec());
    assert!(read.inspect(|value| assert!(value.iter().all(|&byte| byte == 0))).count() == entries as usize);
    let least = replaced.elapsed();
    let statistics = db.statistics();
    assert!((live..live * 5 / 4).contains(&statistics.pinned_bytes), "{} bytes", statistics.pinned_bytes);
    // What the snapshot reads was replaced by the first round.
    let age = statistics.oldest_reader.unwrap();
    assert!((least..=before.elapsed()).contains(&age), "{age:?} since {least:?}");
    drop(snapshot);
    eventually("nothing is pinned", || {
        let statistics = db.statistics();
        (statistics.pinned_bytes, statistics.oldest_reader, statistics.old_trees_held) == (0, None, 0)
    });
}

/// Deltas, joining, draining and checkpoints, all of it as it comes.
#[test]
fn overwriting_under_a_held_snapshot_takes_as_little_where_nothing_is_done_by_hand() {
    let _alone = alone();
    let storage = MemoryStorage::new();
    let builder = ColumnFamilyDatabase::builder().page_size(4096).write_buffer_bytes(2 << 20);
    let db = builder.storage(storage.clone()).open("memory").unwrap();
    let family = create(&db);
    // So much that a checkpoint more or less, which goes by bytes, is little of it.
    let (entries, value) = (24_000, 2000);
    let live = live(entries, value);
    let mut keys: Vec<u32> = (0..entries).collect();
    keys.sort_unstable_by_key(|&n| scattered(n.wrapping_mul(77)));
    let mut most = 0;
    let mut overwrite = |round: u32| {
        for (count, &n) in keys.iter().enumerate() {
            family.put(scattered(n), vec![round as u8; value]).unwrap();
            if count % 1000 == 0 {
                most = most.max(used_but_for_log(&storage, &db));
            }
        }
        most
    };
    overwrite(0);
    db.wait_until_idle().unwrap();
    let snapshot = db.snapshot().unwrap();
    for round in 1..=6 {
        let used = overwrite(round);
        // What the snapshot sees, what is live, and a merge that rewrites all of it; and of each what pages
        // and segments are longer by.
        assert!(used <= 7 * live / 2, "{used} bytes in round {round}, of which {live} are live");
    }
    assert_eq!(snapshot.column_family(&family).unwrap().len().unwrap(), u64::from(entries));
    for n in (0..entries).step_by(7) {
        assert_eq!(snapshot.get(&family, scattered(n)).unwrap().unwrap(), vec![0; value]);
    }
    assert_clean(&db);
    db.close().unwrap();
}

/// What is still to come of what a reader holds.
type Entries = Box<dyn Iterator<Item = Vec<u8>>>;

#[test]
fn readers_of_many_moments_keep_what_they_see_and_nothing_of_the_moments_between() {
    let _alone = alone();
    let storage = MemoryStorage::new();
    let db = open(&storage);
    let family = create(&db);
    let (entries, value) = (1500, 500);
    let fill_with = |byte: u8| {
        (0..entries).for_each(|n| {
            family.put(scattered(n), vec![byte; value]).unwrap();
        });
        db.flush().unwrap();
    };
    let mut held: Vec<(u8, Entries)> = Vec::new();
    for round in 0..60u8 {
        fill_with(round);
        match round % 6 {
            0 => {
                let snapshot = family.snapshot().unwrap();
                let later =
                    std::iter::once_with(move || snapshot.iter().map(|entry| entry.unwrap().1.to_vec()));
                held.push((round, Box::new(later.flatten())));
            }
            2 => held.push((round, Box::new(family.iter().unwrap().map(|entry| entry.unwrap().1.to_vec())))),
            4 => {
                let mut cursor = family.cursor().unwrap();
                let step = move || cursor.next().unwrap().then(|| cursor.value().unwrap().to_vec());
                held.push((round, Box::new(std::iter::from_fn(step))));
            }
            _ => {}
        }
    }
    fill_with(60);
    let pinned = || db.statistics().pinned_bytes;
    // All of them were merged the same way: what one reaches is as large as what is reached now.
    let moment = db.family_properties(&family).unwrap().tree_bytes;
    // Whoever goes, from the middle, the beginning or the end, leaves what the others see.
    while !held.is_empty() {
        let count = held.len();
        // What merges keep for themselves goes with the next one.
        fill_with(61);
        let most = (count as u64 + 1) * moment;
        eventually("moments that nobody holds are free", || pinned() <= most);
        let (round, mut values) = held.remove(count * 2 / 3);
        let mut seen = 0;
        assert!(values.all(|value| {
            seen += 1;
            value.iter().all(|&byte| byte == round)
        }));
        assert_eq!(seen, entries);
    }
    eventually("nothing is pinned", || pinned() == 0);
    assert_clean(&db);
    drop(db.snapshot().unwrap());
    assert!(db.statistics().log.bytes_on_disk <= 1 << 20, "readers keep no log");
}

#[test]
fn a_closed_database_takes_little_more_than_what_is_live() {
    let _alone = alone();
    // Memtables that are a part of the data, as deltas and as merges of all of it.
    for write_buffer in [4 << 20, 64 << 20] {
        let storage = MemoryStorage::new();
        let open = || ColumnFamilyDatabase::builder().storage(storage.clone());
        let db = open().write_buffer_bytes(write_buffer).open("memory").unwrap();
        let family = create(&db);
        let (entries, value) = (36_000, 500);
        fill(&db, &family, entries, value);
        let snapshot = db.snapshot().unwrap();
        for _ in 0..3 {
            fill(&db, &family, entries, value);
        }
        drop(snapshot);
        db.close().unwrap();
        let (used, live) = (storage.used_bytes(), live(entries, value));
        assert!(used <= live * 6 / 5, "{used} bytes for {live}");
        let db = open().open("memory").unwrap();
        assert_clean(&db);
        assert_holds(&db.column_family("family").unwrap(), 0..entries, value);
        db.close().unwrap();
    }
}

#[test]
fn a_closed_database_keeps_no_room_of_the_log_although_a_handle_lives() {
    let _alone = alone();
    let storage = MemoryStorage::new();
    let db = ColumnFamilyDatabase::builder().storage(storage.clone()).open("memory").unwrap();
    let family = create(&db);
    fill(&db, &family, 50_000, 500);
    db.close().unwrap();
    let used = storage.used_bytes();
    assert!(used < 35 << 20, "{used} bytes are used");
    drop(family);
}

#[test]
fn a_database_at_rest_gives_free_space_back_by_itself() {
    let _alone = alone();
    let storage = MemoryStorage::new();
    let db = ColumnFamilyDatabase::builder().storage(storage.clone()).open("memory").unwrap();
    let family = create(&db);
    fill(&db, &family, 50_000, 500);
    fill(&db, &family, 50_000, 500);
    db.flush().unwrap();
    family.delete_range(scattered(0)..[0xf0; 8]).unwrap();
    eventually("the space of what was deleted is given back", || storage.used_bytes() < 8 << 20);
    assert!(family.len().unwrap() > 1000);
    assert_clean(&db);
}

#[test]
fn a_compaction_cuts_the_file_although_what_is_free_is_scattered() {
    let _alone = alone();
    let storage = MemoryStorage::new();
    let db = open_by_hand(&storage);
    let families = ["gone", "left", "large"]
        .map(|name| db.create_column_family(name, FamilyOptions::default()).unwrap());
    let [gone, left, large] = &families;
    // They grow in turn, so that the segments of what is left stand between those of what goes.
    for round in 0..30u32 {
        let numbers = round * 1000..(round + 1) * 1000;
        numbers.clone().for_each(|n| {
            gone.put(n.to_be_bytes(), vec![n as u8; 400]).unwrap();
        });
        numbers.step_by(5).for_each(|n| {
            left.put(n.to_be_bytes(), vec![n as u8; 400]).unwrap();
        });
        large.put(round.to_be_bytes(), vec![round as u8; 20_000]).unwrap();
        db.flush().unwrap();
    }
    db.compact().unwrap();
    let before = db.statistics().data_file_bytes;
    gone.delete_range(10u32.to_be_bytes()..).unwrap();
    db.compact().unwrap();
    let trees: u64 = families.iter().map(|family| db.family_properties(family).unwrap().tree_bytes).sum();
    let after = db.statistics().data_file_bytes;
    assert!(after <= trees * 5 / 4 + (512 << 10), "{after} bytes for {trees}, {before} before");
    assert_clean(&db);
    drop(families);
    drop(db);
    let db = open_by_hand(&storage);
    assert_clean(&db);
    let left = db.column_family("left").unwrap();
    assert_eq!(left.len().unwrap(), 6000);
    (0..30_000u32)
        .step_by(5)
        .for_each(|n| assert_eq!(left.get(n.to_be_bytes()).unwrap().unwrap(), vec![n as u8; 400]));
    let large = db.column_family("large").unwrap();
    (0..30u32).for_each(|n| assert_eq!(large.get(n.to_be_bytes()).unwrap().unwrap(), vec![n as u8; 20_000]));
}

#[test]
fn a_compaction_rewrites_nothing_that_is_packed() {
    let _alone = alone();
    let storage = MemoryStorage::new();
    let db = open(&storage);
    let family = create(&db);
    fill(&db, &family, 30_000, 100);
    db.compact().unwrap();
    let written = db.statistics().pages_written;
    eventually("the compaction left nothing to be gained", || {
        let before = db.statistics().pages_written;
        db.compact().unwrap();
        db.statistics().pages_written == before
    });
    // Space that was given back is no reason to rewrite anything.
    assert!(db.statistics().pages_written <= written * 2);
    family.put("key", "value").unwrap();
    let before = db.statistics().pages_written;
    db.compact().unwrap();
    assert!(db.statistics().pages_written < before + 8, "a commit of one entry made it rewrite the tree");
    family.delete("key").unwrap();
    db.compact().unwrap();
    assert_holds(&family, 0..30_000, 100);
    assert_clean(&db);
}

#[test]
fn a_compaction_rewrites_sparse_leaves_although_no_page_is_free() {
    let _alone = alone();
    let storage = MemoryStorage::new();
    let db = open_without_deltas(&storage);
    let family = create(&db);
    fill(&db, &family, 20_000, 100);
    db.compact().unwrap();
    // One in eight stays in every leaf.
    let gone = |n: &u32| scattered(*n)[7] & 7 != 0;
    for numbers in (0..20_000).filter(gone).collect::<Vec<_>>().chunks(64) {
        // A few at a time, so that leaves are changed one by one and not packed together.
        for &n in numbers {
            family.delete(scattered(n)).unwrap();
        }
        db.flush().unwrap();
    }
    let tree = || db.family_properties(&family).unwrap().tree_bytes;
    let before = tree();
    db.compact().unwrap();
    assert!(tree() * 3 / 2 < before, "{} bytes, {before} before", tree());
    assert_holds(&family, (0..20_000).filter(|n| !gone(n)), 100);
    assert_clean(&db);
}
