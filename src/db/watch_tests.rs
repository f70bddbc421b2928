//! What the clock does for families that nothing is done to: nothing.

use crate::db::background::{Clock, LogKeeper};
use crate::db::watch::RESTED;
use crate::{ColumnFamilyDatabase, FamilyOptions, MemoryStorage};

/// A database whose clock is moved by hand.
fn open(storage: &MemoryStorage) -> ColumnFamilyDatabase {
    let builder = ColumnFamilyDatabase::builder().page_size(4096).storage(storage.clone());
    builder.open_without_threads("memory").unwrap()
}

/// Looks around until the clock would sleep until it is called. Says how often.
fn rest(db: &ColumnFamilyDatabase, clock: &mut Clock) -> u32 {
    for looks in 1..10_000 {
        if looks > 300 {
            // Readers of other tests may keep what was replaced from being let go of.
            crate::sync::thread::sleep(std::time::Duration::from_millis(1));
        }
        db.shared().look_around(clock);
        db.shared().work_off();
        if db.shared().until_due(clock).is_none() {
            return looks;
        }
    }
    panic!("the clock never sleeps");
}

#[test]
fn an_idle_database_sleeps_and_a_write_wakes_it() {
    let storage = MemoryStorage::new();
    let db = open(&storage);
    let create = |n| db.create_column_family(&format!("family {n}"), FamilyOptions::default()).unwrap();
    let families: Vec<_> = (0..20).map(create).collect();
    let mut clock = Clock::new();
    assert_eq!(rest(&db, &mut clock), 1, "nothing was written yet");
    for round in 0..3u8 {
        families[7].put([round], "value").unwrap();
        // Of one family only: the others are at rest all the time.
        db.shared().look_around(&mut clock);
        assert_eq!(clock.watched.len(), 1);
        assert!(db.shared().until_due(&clock).is_some());
        rest(&db, &mut clock);
        assert_eq!(db.family_properties(&families[7]).unwrap().entries_in_tree, u64::from(round) + 1);
        assert!(!db.pipeline().work.is_watched() && !db.shared().has_merges_to_checkpoint());
    }
    drop((families, db));
    // What is opened is looked after until all of it was looked at.
    let db = open(&storage);
    db.shared().look_around(&mut clock);
    assert_eq!(clock.watched.len(), 20);
    rest(&db, &mut clock);
}

#[test]
fn a_family_that_is_merged_and_at_rest_is_not_watched_for_long() {
    let db = open(&MemoryStorage::new());
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    let mut clock = Clock::new();
    family.put("key", "value").unwrap();
    db.flush().unwrap();
    let mut looks = 0;
    while looks == 0 || db.pipeline().work.is_watched() {
        db.shared().look_around(&mut clock);
        db.shared().work_off();
        looks += 1;
        if db.statistics().old_trees_held > 0 {
            // By readers of other tests.
            looks -= 1;
            crate::sync::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(looks <= 4 * RESTED, "it is still watched after {looks} looks");
    }
}

#[test]
fn little_waits_as_long_in_a_family_that_was_not_watched_meanwhile() {
    let db = open(&MemoryStorage::new());
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    let mut clock = Clock::new();
    // Ten minutes, a put every fifteen seconds, two looks around in each second.
    for look in 0..1200u32 {
        if look % (3 * RESTED) == 0 {
            family.put(look.to_be_bytes(), [1; 50]).unwrap();
        }
        db.shared().look_around(&mut clock);
        db.shared().work_off();
    }
    let merges = db.statistics().merges;
    assert!((10..=20).contains(&merges), "{merges} merges");
}

#[test]
fn a_family_is_watched_while_an_older_tree_of_it_is_held() {
    let db = open(&MemoryStorage::new());
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    let mut clock = Clock::new();
    family.put("key", "value").unwrap();
    rest(&db, &mut clock);
    let snapshot = db.snapshot().unwrap();
    family.put("key", "other").unwrap();
    for _ in 0..200 {
        db.shared().look_around(&mut clock);
        db.shared().work_off();
    }
    assert_eq!(db.statistics().old_trees_held, 1);
    drop(snapshot);
    rest(&db, &mut clock);
    assert_eq!(db.statistics().old_trees_held, 0);
}

#[test]
fn a_dropped_family_that_is_read_keeps_the_clock_awake_until_it_is_gone() {
    let db = open(&MemoryStorage::new());
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    let mut clock = Clock::new();
    family.put("key", "value").unwrap();
    rest(&db, &mut clock);
    let snapshot = db.snapshot().unwrap();
    db.drop_column_family("family").unwrap();
    for _ in 0..200 {
        db.shared().look_around(&mut clock);
        assert!(db.shared().until_due(&clock).is_some());
    }
    assert_eq!(db.shared().registry.lock().dying.len(), 1);
    drop((snapshot, family));
    rest(&db, &mut clock);
    assert!(db.shared().registry.lock().dying.is_empty());
}

#[test]
fn a_write_after_a_rest_wakes_the_thread_of_the_clock() {
    let db = ColumnFamilyDatabase::builder().storage(MemoryStorage::new()).open("memory").unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for n in 0..2000u32 {
        family.put(n.to_be_bytes(), [1; 2000]).unwrap();
    }
    let began = crate::sync::Instant::now();
    while db.family_properties(&family).unwrap().entries_in_tree < 2000 {
        assert!(began.elapsed().as_secs() < 60, "nobody merges");
        crate::sync::thread::yield_now();
    }
}

#[test]
fn a_family_whose_readers_pass_much_that_is_deleted_is_merged_though_it_is_written_to() {
    let db = open(&MemoryStorage::new());
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    let mut clock = Clock::new();
    let in_memory = || db.family_properties(&family).unwrap().entries_in_memtables;
    for (round, passed) in [(0u8, 0), (1, 1 << 10), (2, 1 << 20)] {
        family.put([round], "value").unwrap();
        crate::column_family::family::Counters::add(&family.family().counters.entries_passed, passed);
        db.shared().look_around(&mut clock);
        db.shared().work_off();
        assert_eq!(in_memory() == 0, passed == 1 << 20, "{passed} were passed");
    }
    // Once: what was passed before counts no more.
    family.put([3], "value").unwrap();
    db.shared().look_around(&mut clock);
    db.shared().work_off();
    assert_eq!(in_memory(), 1);
}

#[test]
fn what_is_written_while_whoever_keeps_the_log_rests_calls_him_at_the_next_look() {
    let db = open(&MemoryStorage::new());
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    let shared = db.shared();
    let (mut clock, mut keeper) = (Clock::new(), LogKeeper::new(shared));
    family.put("key", "value").unwrap();
    db.sync().unwrap();
    let rounds = (0..10).take_while(|_| shared.keep_log(&mut keeper).is_some()).count();
    assert!(rounds < 10, "all is durable, and nobody writes");
    let (log, work) = (shared.pipeline.log.as_ref().unwrap(), &shared.pipeline.work);
    assert!(work.is_watched() && work.log.take());
    family.put("key", "other").unwrap();
    shared.keep_time(&mut clock, false);
    assert!(!work.log.take(), "the family is watched already");
    shared.see(&mut clock);
    shared.keep_time(&mut clock, true);
    assert!(work.log.take());
    // Half of the interval may have passed by then.
    let began = crate::sync::Instant::now();
    loop {
        let tick = shared.keep_log(&mut keeper);
        if log.durable() >= log.last_assigned() {
            break;
        }
        crate::sync::thread::sleep(tick.expect("it rests though there is something to sync"));
    }
    assert!(began.elapsed() >= std::time::Duration::from_millis(500), "not for every write");
    while shared.keep_log(&mut keeper).is_some() {}
    shared.keep_time(&mut clock, true);
    assert!(!work.log.take(), "there is nothing to sync");
}
