//! Disks that are full, and disks that fail.

mod common;

use std::collections::BTreeMap;

use common::random::Random;
use common::storage::{Strike, TestStorage};
use common::world::{Entries, assert_same};
use common::{assert_clean, cases, eventually, failure, shrunken};
use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, DatabaseBuilder, Durability, Error, ErrorKind, FamilyOptions,
    MemoryStorage, WriteBatch,
};

fn create(db: &ColumnFamilyDatabase, name: &str) -> ColumnFamily {
    db.create_column_family(name, FamilyOptions::default()).unwrap()
}

/// Puts numbered entries from `*next` on until one is refused; gives the refusal.
fn fill_until_refused(
    family: &ColumnFamily,
    model: &mut Entries,
    next: &mut u32,
    durability: Durability,
) -> Error {
    loop {
        assert!(*next < 100_000, "the disk is never full");
        let (key, value) = (next.to_be_bytes(), vec![*next as u8; 400]);
        *next += 1;
        match family.put_with(key, &value, durability) {
            Ok(_) => drop(model.insert(key.to_vec(), value.into())),
            Err(error) => return error,
        }
    }
}

#[test]
fn a_full_disk_refuses_what_needs_space_changes_nothing_and_is_written_again_when_there_is_space() {
    for (automatic, durability) in [
        (true, Durability::Buffered),
        (false, Durability::Buffered),
        (true, Durability::Sync),
        (true, Durability::None),
    ] {
        let storage = MemoryStorage::with_capacity_limit(1 << 20);
        let open =
            || shrunken().automatic_maintenance(automatic).storage(storage.clone()).open("memory").unwrap();
        let db = open();
        let family = create(&db, "family");
        let (mut model, mut next) = (Entries::new(), 0);
        for limit in [3u64 << 19, 2 << 20] {
            for _ in 0..5 {
                let error = fill_until_refused(&family, &mut model, &mut next, durability);
                assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
                assert!(!family.contains_key((next - 1).to_be_bytes()).unwrap(), "what was refused is there");
                assert_eq!(family.len().unwrap(), model.len() as u64);
            }
            assert_same(&family.snapshot().unwrap(), &model);
            assert_clean(&db);
            storage.set_capacity_limit(limit);
            db.flush().unwrap();
            family.put("there is", "space").unwrap();
            model.insert(b"there is".to_vec(), (*b"space").into());
        }
        assert_same(&family.snapshot().unwrap(), &model);
        drop((family, db));
        // To open it takes a segment of the log.
        storage.set_capacity_limit(3 << 20);
        let db = open();
        assert_same(&db.column_family("family").unwrap().snapshot().unwrap(), &model);
        assert_clean(&db);
    }
}

#[test]
fn a_database_reopened_on_a_full_disk_has_everything_that_was_acknowledged() {
    let storage = MemoryStorage::with_capacity_limit(1 << 20);
    let open = || shrunken().storage(storage.clone()).open("memory");
    let db = open().unwrap();
    let family = create(&db, "family");
    let (mut model, mut next) = (Entries::new(), 0);
    let error = fill_until_refused(&family, &mut model, &mut next, Durability::Buffered);
    assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
    drop((family, db));
    // It may need space to open; if so it says so, and nothing is lost.
    match open() {
        Ok(db) => assert_same(&db.column_family("family").unwrap().snapshot().unwrap(), &model),
        Err(error) => assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}"),
    }
    storage.set_capacity_limit(4 << 20);
    let db = open().unwrap();
    let family = db.column_family("family").unwrap();
    assert_same(&family.snapshot().unwrap(), &model);
    family.put("there is", "space").unwrap();
    db.close().unwrap();
}

#[test]
fn dropping_a_family_makes_space_on_a_full_disk() {
    let storage = MemoryStorage::with_capacity_limit(2 << 20);
    let db = shrunken().storage(storage.clone()).open("memory").unwrap();
    let (large, family) = (create(&db, "large"), create(&db, "family"));
    for n in 0..2000u32 {
        large.put(n.to_be_bytes(), [n as u8; 400]).unwrap();
    }
    db.flush().unwrap();
    let (mut model, mut next) = (Entries::new(), 0);
    for _ in 0..3 {
        let error = fill_until_refused(&family, &mut model, &mut next, Durability::Buffered);
        assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
    }
    db.drop_column_family("large").unwrap();
    // As soon as the last reader of the family is gone.
    let before = model.len();
    eventually("the space of a dropped family is used", || {
        if let Err(error) = db.flush() {
            assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
        }
        let error = fill_until_refused(&family, &mut model, &mut next, Durability::Buffered);
        assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
        model.len() > before + 1000
    });
    assert_same(&family.snapshot().unwrap(), &model);
    assert_clean(&db);
}

#[test]
fn a_batch_refused_by_a_full_disk_is_refused_in_all_its_families() {
    let storage = MemoryStorage::with_capacity_limit(1 << 20);
    let db = shrunken().storage(storage.clone()).open("memory").unwrap();
    let (a, b) = (create(&db, "a"), create(&db, "b"));
    a.put("key", "old").unwrap();
    let mut batch = WriteBatch::new();
    batch.put(&a, "key", "new").put(&b, "large", vec![1; 2 << 20]).delete_range(&a, ..);
    failure(db.write(&batch), ErrorKind::OutOfSpace);
    failure(db.write_with(&batch, Durability::Sync), ErrorKind::OutOfSpace);
    assert_eq!(a.get("key").unwrap().unwrap(), "old");
    assert!(b.is_empty().unwrap());
    a.put("key", "newer").unwrap();
    storage.set_capacity_limit(16 << 20);
    db.write(&batch).unwrap();
    assert!(a.is_empty().unwrap());
    assert_eq!(b.get("large").unwrap().unwrap(), vec![1; 2 << 20]);
    drop((a, b, db));
    let db = shrunken().storage(storage).open("memory").unwrap();
    assert_eq!(db.column_family("b").unwrap().get("large").unwrap().unwrap(), vec![1; 2 << 20]);
    assert!(db.column_family("a").unwrap().is_empty().unwrap());
}

#[test]
fn a_disk_too_small_for_a_new_database_says_so_and_a_larger_one_will_do() {
    for limit in [0, 4096, 32 << 10, 68 << 10, 80 << 10, 100 << 10] {
        let storage = MemoryStorage::with_capacity_limit(limit);
        let open = || shrunken().storage(storage.clone()).open("memory");
        match open().map(|db| db.create_column_family("family", FamilyOptions::default()).map(drop)) {
            Err(error) | Ok(Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{limit}: {error}")
            }
            Ok(Ok(())) => {}
        }
        storage.set_capacity_limit(1 << 20);
        let db = open().unwrap();
        db.column_family_or_create("family", FamilyOptions::default()).unwrap().put("key", "value").unwrap();
        db.close().unwrap();
    }
}

#[test]
fn a_compaction_with_little_room_is_made_in_small_steps() {
    let storage = MemoryStorage::new();
    // Without deltas leaves are split, and a rewrite has something to pack.
    let db = shrunken().merge_cost(u32::MAX).storage(storage.clone()).open("memory").unwrap();
    let family = create(&db, "family");
    for n in 0..2000u32 {
        family.put(n.wrapping_mul(0x9e37_79b9).to_be_bytes(), [n as u8; 400]).unwrap();
        if n % 100 == 99 {
            db.flush().unwrap();
        }
    }
    db.wait_until_idle().unwrap();
    let before = storage.used_bytes();
    storage.set_capacity_limit(before);
    db.compact().unwrap();
    assert!(storage.used_bytes() < before / 8 * 7, "{} bytes of {before}", storage.used_bytes());
    assert_eq!(family.iter().unwrap().collect::<Result<Vec<_>, _>>().unwrap().len(), 2000);
    assert_clean(&db);
    family.put("key", "value").unwrap();
    storage.set_capacity_limit(u64::MAX);
    db.compact().unwrap();
    assert_eq!(family.len().unwrap(), 2001);
    assert_clean(&db);
}

/// Writes until it fails, or `commits` are made. Gives the model with every acknowledged commit, the model
/// with the failed one too, and the failure.
fn write_until_failure(
    db: &ColumnFamilyDatabase,
    models: &mut [Entries; 2],
    commits: u32,
    random: &mut Random,
) -> Option<([Entries; 2], Error)> {
    let families = ["a", "b"].map(|name| db.column_family(name).unwrap());
    for _ in 0..commits {
        let mut next = models.clone();
        let mut batch = WriteBatch::new();
        for _ in 0..1 + random.below(4) {
            let index = random.below(2) as usize;
            let key = (random.below(300) as u32).to_be_bytes().to_vec();
            if random.once_in(6) {
                batch.delete(&families[index], &key);
                next[index].remove(&key);
            } else {
                let len = if random.once_in(30) { 6000 } else { random.below(300) };
                let value = vec![random.next() as u8; len as usize];
                batch.put(&families[index], &key, &value);
                next[index].insert(key, value.into());
            }
        }
        let durability = if random.once_in(4) { Durability::Sync } else { Durability::Buffered };
        if let Err(error) = db.write_with(&batch, durability) {
            return Some((next, error));
        }
        *models = next;
        let kept = match random.below(40) {
            0 => db.flush(),
            1 => db.checkpoint(),
            _ => Ok(()),
        };
        if let Err(error) = kept {
            return Some((models.clone(), error));
        }
    }
    None
}

fn two_families(storage: &TestStorage, builder: DatabaseBuilder) -> ColumnFamilyDatabase {
    let db = builder.storage(storage.clone()).open("memory").unwrap();
    create(&db, "a");
    create(&db, "b");
    db
}

#[track_caller]
fn assert_models(db: &ColumnFamilyDatabase, models: &[Entries; 2]) {
    for (name, model) in ["a", "b"].iter().zip(models) {
        assert_same(&db.column_family(name).unwrap().snapshot().unwrap(), model);
    }
}

fn holds(db: &ColumnFamilyDatabase, models: &[Entries; 2]) -> bool {
    ["a", "b"].iter().zip(models).all(|(name, model)| {
        let found: BTreeMap<_, _> = db
            .column_family(name)
            .unwrap()
            .iter()
            .unwrap()
            .map(|entry| entry.map(|(key, value)| (key, value.to_vec())).unwrap())
            .collect();
        found.len() == model.len() && found.iter().zip(model).all(|(f, m)| f.0 == m.0 && f.1[..] == m.1[..])
    })
}

/// The chain of events after the write path failed for good, with the write that `with_failed` holds besides,
/// if it was one.
fn check_failed(db: &ColumnFamilyDatabase, models: &[Entries; 2], with_failed: &[Entries; 2], error: &Error) {
    assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::WriteFailed), "{:?} {error}", error.kind());
    let family = db.column_family("a").unwrap();
    for durability in [Durability::Sync, Durability::Buffered, Durability::None] {
        let later = failure(family.put_with("key", "value", durability), ErrorKind::WriteFailed);
        let cause = later.io_error().expect("the first cause is an error of the system");
        assert_eq!(cause.raw_os_error(), Some(5), "{later}");
        assert!(later.to_string().contains(&cause.to_string()), "{later}");
    }
    failure(db.flush(), ErrorKind::WriteFailed);
    failure(db.checkpoint(), ErrorKind::WriteFailed);
    failure(db.sync(), ErrorKind::WriteFailed);
    failure(db.create_column_family("new", FamilyOptions::default()), ErrorKind::WriteFailed);
    failure(db.drop_column_family("a"), ErrorKind::WriteFailed);
    // Reads go on, and see what was acknowledged; a commit is visible before the sync that it then may fail.
    if !holds(db, with_failed) {
        assert_models(db, models);
    }
}

fn a_failing_disk(strike: Strike) {
    let mut random = Random::announced();
    for case in 0..cases(25) {
        let storage = TestStorage::new();
        let builder = || shrunken().automatic_maintenance(case % 2 == 0);
        let db = two_families(&storage, builder());
        let mut models = [Entries::new(), Entries::new()];
        assert!(write_until_failure(&db, &mut models, random.below(100) as u32, &mut random).is_none());
        let most = if strike == Strike::Sync { 60 } else { 400 };
        storage.fail(strike, random.below(most) as u32, random.once_in(2));
        let Some((with_failed, error)) = write_until_failure(&db, &mut models, 3000, &mut random) else {
            panic!("case {case}: nothing failed, {} {strike:?} calls", storage.calls(strike))
        };
        check_failed(&db, &models, &with_failed, &error);
        if random.once_in(3) {
            // A failed database closes with that failure.
            failure(db.close(), ErrorKind::WriteFailed);
        } else {
            drop(db);
        }
        storage.heal();
        let db = builder().storage(storage.clone()).open("memory").unwrap();
        if !holds(&db, &with_failed) {
            assert_models(&db, &models);
        }
        assert_clean(&db);
        db.column_family("a").unwrap().put("key", "value").unwrap();
        db.close().unwrap();
    }
}

#[test]
fn after_a_failed_write_the_database_is_read_only_and_reopening_gives_what_was_acknowledged() {
    a_failing_disk(Strike::Write);
}

#[test]
fn after_a_failed_sync_the_database_is_read_only_and_reopening_gives_what_was_acknowledged() {
    a_failing_disk(Strike::Sync);
}

#[test]
fn threads_that_write_to_a_failing_disk_all_learn_of_it_and_lose_nothing() {
    let mut random = Random::announced();
    for _ in 0..cases(25) {
        let storage = TestStorage::new();
        let db = two_families(&storage, shrunken().background_threads(2));
        let strike = if random.once_in(2) { Strike::Write } else { Strike::Sync };
        let most = if strike == Strike::Sync { 60 } else { 400 };
        storage.fail(strike, random.below(most) as u32, random.once_in(2));
        let seeds: Vec<u64> = (0..6).map(|_| random.next()).collect();
        let acknowledged: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = seeds
                .iter()
                .enumerate()
                .map(|(thread, seed)| {
                    let db = &db;
                    scope.spawn(move || {
                        let mut random = Random::new(*seed);
                        let families = ["a", "b"].map(|name| db.column_family(name).unwrap());
                        for n in 0.. {
                            let mut batch = WriteBatch::new();
                            for family in &families {
                                let key = [&[thread as u8][..], &(n as u32).to_be_bytes()].concat();
                                batch.put(family, key, vec![n as u8; random.below(200) as usize]);
                            }
                            let durability =
                                if random.once_in(4) { Durability::Sync } else { Durability::Buffered };
                            if let Err(error) = db.write_with(&batch, durability) {
                                assert!(
                                    matches!(error.kind(), ErrorKind::Io | ErrorKind::WriteFailed),
                                    "{:?} {error}",
                                    error.kind()
                                );
                                return n;
                            }
                        }
                        unreachable!("a thread wrote for ever")
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let check = |db: &ColumnFamilyDatabase, at_most: u64| {
            let families = ["a", "b"].map(|name| db.column_family(name).unwrap());
            for (thread, acknowledged) in acknowledged.iter().enumerate() {
                let [a, b] = families.each_ref().map(|family| {
                    let numbers = family.prefix([thread as u8]).unwrap().map(|entry| {
                        let (key, _) = entry.unwrap();
                        u64::from(u32::from_be_bytes(key[1..].try_into().unwrap()))
                    });
                    numbers.collect::<Vec<_>>()
                });
                assert_eq!(a, b, "a batch is torn");
                assert!(a.iter().copied().eq(0..a.len() as u64), "there is a gap in {a:?}");
                let len = a.len() as u64;
                assert!(
                    len >= *acknowledged && len <= acknowledged + at_most,
                    "{len} commits of thread {thread}, {acknowledged} acknowledged"
                );
            }
        };
        // A commit that failed to be synced may be visible, whole.
        check(&db, 1);
        drop(db);
        storage.heal();
        let db = shrunken().storage(storage.clone()).open("memory").unwrap();
        check(&db, 1);
        assert_clean(&db);
    }
}

#[test]
fn a_failure_while_opening_is_reported_and_the_next_opening_finds_everything() {
    let mut random = Random::announced();
    let storage = TestStorage::new();
    let db = two_families(&storage, shrunken().automatic_maintenance(false));
    let mut models = [Entries::new(), Entries::new()];
    assert!(write_until_failure(&db, &mut models, 300, &mut random).is_none());
    drop(db);
    for strike in [Strike::Write, Strike::Sync, Strike::Read] {
        for calls in 0..200 {
            let copy = storage.copy();
            let open = || shrunken().automatic_maintenance(false).storage(copy.clone()).open("memory");
            copy.fail(strike, calls, false);
            let opened = open();
            let struck = copy.struck(strike) > 0;
            copy.heal();
            match opened {
                Err(error) => {
                    assert!(struck, "{error}");
                    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                }
                Ok(db) if !struck => {
                    assert_models(&db, &models);
                    break;
                }
                // It struck what opening does not need, or some thread in the background.
                Ok(db) => drop(db),
            }
            let db = open().unwrap();
            assert_models(&db, &models);
            assert_clean(&db);
        }
    }
}

#[test]
fn a_failed_read_is_reported_to_the_reader_and_to_nobody_else() {
    let storage = TestStorage::new();
    let db = shrunken().automatic_maintenance(false).storage(storage.clone()).open("memory").unwrap();
    let family = create(&db, "family");
    for n in 0..2000u32 {
        family.put(n.to_be_bytes(), [n as u8; 400]).unwrap();
    }
    db.close().unwrap();
    let db = shrunken().automatic_maintenance(false).storage(storage.clone()).open("memory").unwrap();
    let family = db.column_family("family").unwrap();
    storage.fail(Strike::Read, 0, true);
    let error = failure(family.get(5u32.to_be_bytes()), ErrorKind::Io);
    assert!(error.location().offset.is_some() && error.location().page.is_some(), "{error}");
    let mut iter = family.iter().unwrap();
    assert!(iter.next().unwrap().is_err());
    assert!(iter.next().is_none(), "an iterator went on behind a gap");
    storage.heal();
    assert_eq!(family.get(5u32.to_be_bytes()).unwrap().unwrap(), [5; 400]);
    assert_eq!(family.iter().unwrap().collect::<Result<Vec<_>, _>>().unwrap().len(), 2000);
    family.put("key", "value").unwrap();
    db.close().unwrap();
}
