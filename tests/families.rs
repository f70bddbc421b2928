//! Column families: their names, their life, what they share and what they do not.

mod common;

use std::collections::BTreeSet;

use common::storage::TestStorage;
use common::{assert_clean, eventually, failure, shrunken};
use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, Cursor, ErrorKind, FamilyOptions, FamilySnapshot, Iter,
    MemoryStorage, Snapshot, Value, WriteBatch,
};

fn memory() -> (ColumnFamilyDatabase, MemoryStorage) {
    let storage = MemoryStorage::new();
    (reopen(&storage), storage)
}

fn reopen(storage: &MemoryStorage) -> ColumnFamilyDatabase {
    shrunken().automatic_maintenance(false).storage(storage.clone()).open("memory").unwrap()
}

fn create(db: &ColumnFamilyDatabase, name: &str) -> ColumnFamily {
    db.create_column_family(name, FamilyOptions::default()).unwrap()
}

/// Writes about `kilobytes` of entries.
fn fill(family: &ColumnFamily, kilobytes: u32) {
    for n in 0..kilobytes {
        family.put(n.to_be_bytes(), [n as u8; 1020]).unwrap();
    }
}

#[test]
fn handles_and_readers_can_be_sent_and_kept_anywhere() {
    fn check<T: Send + 'static>() {}
    fn check_sync<T: Send + Sync + Clone + 'static>() {}
    check_sync::<ColumnFamilyDatabase>();
    check_sync::<ColumnFamily>();
    check_sync::<Snapshot>();
    check_sync::<FamilySnapshot>();
    check_sync::<Value>();
    check::<Cursor>();
    check::<Iter>();
    check::<WriteBatch>();
}

#[test]
fn families_are_created_listed_renamed_and_dropped_and_a_reopened_database_agrees() {
    let (db, storage) = memory();
    for name in ["b", "a", "c"] {
        create(&db, name).put("name", name).unwrap();
    }
    assert_eq!(db.column_family_names(), ["a", "b", "c"]);
    let kept = db.column_family("a").unwrap();
    db.rename_column_family("a", "z").unwrap();
    assert_eq!(kept.name(), "z");
    assert_eq!(kept.get("name").unwrap().unwrap(), "a");
    db.drop_column_family("b").unwrap();
    assert_eq!(db.column_family_names(), ["c", "z"]);
    // A freed name can be used again, by another family.
    let reused = create(&db, "b");
    assert!(reused.is_empty().unwrap());
    assert_ne!(reused.id(), kept.id());
    drop((kept, reused, db));
    let db = reopen(&storage);
    assert_eq!(db.column_family_names(), ["b", "c", "z"]);
    assert_eq!(db.column_family("z").unwrap().get("name").unwrap().unwrap(), "a");
    assert!(db.column_family("b").unwrap().is_empty().unwrap());
    assert_clean(&db);
}

#[test]
fn the_number_of_a_dropped_family_is_never_used_again() {
    let (db, storage) = memory();
    let first = create(&db, "first").id();
    db.drop_column_family("first").unwrap();
    db.close().unwrap();
    let db = reopen(&storage);
    assert_ne!(create(&db, "first").id(), first);
}

#[test]
fn what_cannot_be_done_to_a_family_says_so_by_kind() {
    let (db, _) = memory();
    create(&db, "there");
    create(&db, "too");
    let options = FamilyOptions::default;
    failure(db.create_column_family("there", options()), ErrorKind::FamilyExists);
    failure(db.rename_column_family("there", "too"), ErrorKind::FamilyExists);
    db.rename_column_family("there", "there").unwrap();
    failure(db.column_family("absent"), ErrorKind::FamilyNotFound);
    failure(db.drop_column_family("absent"), ErrorKind::FamilyNotFound);
    failure(db.rename_column_family("absent", "new"), ErrorKind::FamilyNotFound);
    let long = "x".repeat(256);
    for name in ["", &long] {
        failure(db.create_column_family(name, options()), ErrorKind::InvalidFamilyName);
        failure(db.column_family_or_create(name, options()), ErrorKind::InvalidFamilyName);
        failure(db.column_family(name), ErrorKind::InvalidFamilyName);
        failure(db.drop_column_family(name), ErrorKind::InvalidFamilyName);
        failure(db.rename_column_family("there", name), ErrorKind::InvalidFamilyName);
        failure(db.rename_column_family(name, "new"), ErrorKind::InvalidFamilyName);
    }
    for wrong in [
        options().page_fill(49),
        options().page_fill(101),
        options().cache_share(0),
        options().memtable_share(1001),
    ] {
        failure(db.create_column_family("new", wrong), ErrorKind::InvalidArgument);
    }
    assert_eq!(db.column_family_names(), ["there", "too"]);
}

#[test]
fn a_name_is_any_text_of_up_to_255_bytes() {
    let (db, storage) = memory();
    let names = ["é".repeat(127) + "e", "/".into(), "..".into(), "\0".into(), " ".into(), "🏛".into()];
    for name in &names {
        assert!(name.len() <= 255);
        create(&db, name).put("name", name).unwrap();
    }
    db.close().unwrap();
    let db = reopen(&storage);
    for name in &names {
        assert_eq!(db.column_family(name).unwrap().get("name").unwrap().unwrap(), *name);
    }
    assert_eq!(db.column_family_names().len(), names.len());
}

#[test]
fn hundreds_of_families_come_and_go() {
    let (db, storage) = memory();
    for n in 0..300 {
        create(&db, &format!("family {n:03}")).put("number", format!("{n}")).unwrap();
    }
    for n in (0..300).step_by(3) {
        db.drop_column_family(&format!("family {n:03}")).unwrap();
    }
    let expected: BTreeSet<_> = (0..300).filter(|n| n % 3 != 0).map(|n| format!("family {n:03}")).collect();
    let check = |db: &ColumnFamilyDatabase| {
        assert_eq!(db.column_family_names().into_iter().collect::<BTreeSet<_>>(), expected);
        for name in &expected {
            let number: u32 = name[7..].parse().unwrap();
            let value = db.column_family(name).unwrap().get("number").unwrap().unwrap();
            assert_eq!(value, number.to_string());
        }
        assert_clean(db);
    };
    check(&db);
    drop(db);
    check(&reopen(&storage));
}

#[test]
fn a_handle_to_a_dropped_family_says_so_and_harms_no_family_of_the_same_name() {
    let (db, _) = memory();
    let old = create(&db, "name");
    old.put("key", "old").unwrap();
    db.drop_column_family("name").unwrap();
    let new = create(&db, "name");
    failure(old.get("key"), ErrorKind::FamilyDropped);
    failure(old.contains_key("key"), ErrorKind::FamilyDropped);
    failure(old.multi_get(["key"]), ErrorKind::FamilyDropped);
    failure(old.put("key", "value"), ErrorKind::FamilyDropped);
    failure(old.delete("key"), ErrorKind::FamilyDropped);
    failure(old.delete_range(..), ErrorKind::FamilyDropped);
    failure(old.iter(), ErrorKind::FamilyDropped);
    failure(old.cursor(), ErrorKind::FamilyDropped);
    failure(old.snapshot(), ErrorKind::FamilyDropped);
    failure(old.len(), ErrorKind::FamilyDropped);
    failure(db.flush_column_family(&old), ErrorKind::FamilyDropped);
    failure(db.compact_column_family(&old), ErrorKind::FamilyDropped);
    failure(db.family_properties(&old), ErrorKind::FamilyDropped);
    let mut batch = WriteBatch::new();
    batch.put(&new, "key", "from the batch").put(&old, "key", "value");
    failure(db.write(&batch), ErrorKind::FamilyDropped);
    assert!(new.is_empty().unwrap(), "a batch was written in part");
}

#[test]
fn readers_of_a_dropped_family_finish_in_peace_and_its_space_is_free_afterwards() {
    let (db, _) = memory();
    create(&db, "stays").put("key", "value").unwrap();
    let family = create(&db, "goes");
    fill(&family, 2000);
    db.flush().unwrap();
    // Something in the memtable, too.
    family.put("in memory", "value").unwrap();
    let snapshot = db.snapshot().unwrap();
    let mut iter = family.iter().unwrap();
    let mut cursor = family.cursor().unwrap();
    assert!(cursor.seek(1000u32.to_be_bytes()).unwrap());
    let value = family.get(7u32.to_be_bytes()).unwrap().unwrap();
    for _ in 0..10 {
        iter.next().unwrap().unwrap();
    }
    db.drop_column_family("goes").unwrap();
    let used = |db: &ColumnFamilyDatabase| db.statistics().data_file_bytes - db.statistics().data_free_bytes;
    assert!(used(&db) > 2 << 20);
    // What others write now must not go where the readers still read.
    let other = create(&db, "other");
    fill(&other, 2000);
    db.flush().unwrap();
    assert_eq!(iter.by_ref().collect::<Result<Vec<_>, _>>().unwrap().len(), 1991);
    for n in 1000u32..2000 {
        assert_eq!(cursor.key(), n.to_be_bytes());
        assert_eq!(cursor.value().unwrap(), [n as u8; 1020]);
        cursor.next().unwrap();
    }
    assert_eq!(value, [7u8; 1020]);
    assert_eq!(snapshot.get(&family, "in memory").unwrap().unwrap(), "value");
    assert_eq!(snapshot.column_family(&family).unwrap().len().unwrap(), 2001);
    failure(db.snapshot().unwrap().get(&family, "in memory"), ErrorKind::FamilyNotFound);
    drop((snapshot, iter, cursor, value));
    // A drop, as any change of the families, looks after what readers have let go of.
    db.drop_column_family("other").unwrap();
    let mut statistics = db.statistics();
    eventually("the space of dropped families is free", || {
        db.compact().unwrap();
        statistics = db.statistics();
        statistics.data_file_bytes - statistics.data_free_bytes < 512 << 10 && statistics.old_trees_held == 0
    });
    assert_clean(&db);
}

#[test]
fn a_handle_keeps_the_database_open() {
    let (db, storage) = memory();
    let family = create(&db, "family");
    drop(db);
    family.put("key", "value").unwrap();
    failure(shrunken().storage(storage.clone()).open("memory"), ErrorKind::Locked);
    drop(family);
    assert_eq!(reopen(&storage).column_family("family").unwrap().get("key").unwrap().unwrap(), "value");
}

/// Descriptors of this process onto the file at `path`.
#[cfg(target_os = "linux")]
fn descriptors_onto(path: &std::path::Path) -> usize {
    let path = path.canonicalize().unwrap();
    let links =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| entry.ok()?.path().read_link().ok());
    links.filter(|target| *target == path).count()
}

#[cfg(target_os = "linux")]
#[test]
fn two_hundred_families_never_use_more_descriptors_than_the_cap() {
    const CAP: usize = 8;
    // The data file's lock has a descriptor of its own, through which nothing is read or written.
    const LOCK: usize = 1;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("database");
    let open = || shrunken().max_descriptors(CAP).open(&path).unwrap();
    let db = open();
    let families: Vec<_> = (0..200).map(|n| create(&db, &format!("family {n}"))).collect();
    for family in &families {
        fill(family, 6);
    }
    db.flush().unwrap();
    drop(families);
    db.close().unwrap();
    let db = open();
    let families: Vec<_> = (0..200).map(|n| db.column_family(&format!("family {n}")).unwrap()).collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let families = &families;
            let path = &path;
            scope.spawn(move || {
                for (n, family) in families.iter().enumerate().skip(thread) {
                    assert!(
                        (6..=7)
                            .contains(&family.iter().unwrap().collect::<Result<Vec<_>, _>>().unwrap().len())
                    );
                    if n % 5 == thread {
                        family.put("another", [n as u8; 3000]).unwrap();
                    }
                    // Looking takes a while, in which one may be closed and another opened that are both
                    // counted.
                    let open = (0..4).map(|_| descriptors_onto(&path.join("data"))).min().unwrap();
                    assert!(open <= CAP + LOCK, "{open} descriptors onto the data file are open");
                }
            });
        }
        scope.spawn(|| db.flush().unwrap());
    });
    let stats = db.statistics().descriptors;
    assert_eq!(stats.cap, CAP);
    assert!(stats.peak <= CAP, "{stats:?}");
    assert!(
        stats.misses < CAP as u64 && stats.sharing == 200,
        "families open anew instead of sharing: {stats:?}"
    );
    assert_clean(&db);
}

#[test]
fn caches_and_what_they_count_belong_to_each_family() {
    let (db, _) = memory();
    let (read, unread) = (create(&db, "read"), create(&db, "unread"));
    fill(&read, 500);
    fill(&unread, 500);
    db.flush().unwrap();
    let before = unread.cache_stats();
    for n in 0..500u32 {
        assert!(read.get(n.to_be_bytes()).unwrap().is_some());
    }
    let after = unread.cache_stats();
    assert_eq!((after.hits, after.misses, after.bytes_read), (before.hits, before.misses, before.bytes_read));
    let stats = read.cache_stats();
    assert!(stats.hits + stats.misses >= 500, "{stats:?}");
    let sum = db.aggregate_cache_stats();
    assert_eq!(sum.hits, stats.hits + before.hits);
    assert_eq!(sum.misses, stats.misses + before.misses);
    assert_eq!(sum.bytes_written, stats.bytes_written + before.bytes_written);
}

#[test]
fn properties_tell_what_a_family_holds() {
    let (db, _) = memory();
    let family = create(&db, "family");
    let empty = db.family_properties(&family).unwrap();
    assert_eq!((empty.entries_in_tree, empty.tree_height, empty.pages), (0, 0, 0));
    fill(&family, 1000);
    db.flush().unwrap();
    family.put("in memory", "value").unwrap();
    let full = db.family_properties(&family).unwrap();
    assert_eq!(full.entries_in_tree, 1000);
    assert_eq!(full.entries_in_memtables, 1);
    assert!(full.tree_height >= 2, "{full:?}");
    assert!(full.tree_bytes >= 1000 << 10 && full.tree_bytes < 1500 << 10, "{full:?}");
    assert!(full.bytes_on_disk >= full.tree_bytes, "{full:?}");
    assert!(full.fill > 0.0 && full.fill <= 1.0, "{full:?}");
    let (other, _) = memory();
    failure(other.compact_column_family(&family), ErrorKind::InvalidArgument);
    failure(other.flush_column_family(&family), ErrorKind::InvalidArgument);
    failure(other.family_properties(&family), ErrorKind::InvalidArgument);
}

#[test]
fn handles_lead_to_their_database_and_are_listed() {
    let (db, _) = memory();
    for name in ["b", "a"] {
        create(&db, name).put("name", name).unwrap();
    }
    let families = db.column_families().unwrap();
    let names: Vec<_> = families.iter().map(ColumnFamily::name).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(families[0].get("name").unwrap().unwrap(), "a");
    assert_eq!(families[0].id(), db.column_family("a").unwrap().id());
    drop(db);
    let db = families[1].database();
    drop(families);
    let mut batch = WriteBatch::new();
    batch.put(&db.column_family("b").unwrap(), "key", "value");
    db.write(&batch).unwrap();
    db.clone().close().unwrap();
    failure(db.column_families(), ErrorKind::Closed);
}

#[test]
fn options_are_read_back_changed_while_the_family_is_in_use_and_kept() {
    let (db, storage) = memory();
    let first = FamilyOptions::default().page_fill(90);
    let family = db.create_column_family("family", first.clone()).unwrap();
    let other = create(&db, "other");
    assert_eq!(family.options(), first);
    fill(&family, 100);
    let second = FamilyOptions::default().page_fill(50).cache_share(7).memtable_share(1000);
    family.set_options(second.clone()).unwrap();
    assert_eq!(family.options(), second);
    assert_eq!(other.options(), FamilyOptions::default());
    for wrong in
        [second.clone().page_fill(0), second.clone().cache_share(0), second.clone().memtable_share(0)]
    {
        failure(family.set_options(wrong), ErrorKind::InvalidArgument);
    }
    assert_eq!(family.options(), second);
    // What the next merge writes is filled as the new options say. Of entries that take a quarter of a page a
    // leaf may grow by pages until it wastes little, whatever it is to be filled to; of small ones it is one
    // page.
    for n in 0..10_000u32 {
        family.put(n.to_be_bytes(), [n as u8; 100]).unwrap();
    }
    db.flush().unwrap();
    db.compact().unwrap();
    let sparse = db.family_properties(&family).unwrap().tree_bytes;
    family.set_options(second.clone().page_fill(100)).unwrap();
    db.compact().unwrap();
    let dense = db.family_properties(&family).unwrap().tree_bytes;
    assert!(sparse > dense * 3 / 2, "{sparse} and {dense} bytes");
    // Durable at once, by the record in the superblock, by the next part of the catalog, and by a whole
    // catalog.
    let kept = |expected: &FamilyOptions| {
        let copy = TestStorage::over(storage.clone()).copy();
        let db = shrunken().automatic_maintenance(false).storage(copy).open("memory").unwrap();
        assert_eq!(db.column_family("family").unwrap().options(), *expected);
        assert_clean(&db);
    };
    for round in 0..100u16 {
        let options = second.clone().cache_share(1 + round);
        family.set_options(options.clone()).unwrap();
        kept(&options);
        if round % 7 == 0 {
            db.checkpoint().unwrap();
            kept(&options);
        }
    }
    let last = family.options();
    db.rename_column_family("family", "renamed").unwrap();
    assert_eq!(family.options(), last);
    db.drop_column_family("renamed").unwrap();
    failure(family.set_options(first.clone()), ErrorKind::FamilyDropped);
    db.close().unwrap();
    failure(other.set_options(first), ErrorKind::Closed);
    let db = reopen(&storage);
    assert_eq!(db.column_family("other").unwrap().options(), FamilyOptions::default());
}

#[test]
fn other_options_than_a_family_has_are_an_error_or_applied_as_is_asked() {
    let (db, storage) = memory();
    let (first, second) = (FamilyOptions::default(), FamilyOptions::default().cache_share(9));
    let family = db.column_family_or_create("family", first.clone()).unwrap();
    assert_eq!(db.column_family_or_create("family", first.clone()).unwrap().id(), family.id());
    let error = failure(db.column_family_or_create("family", second.clone()), ErrorKind::OptionsDiffer);
    assert!(
        error.to_string().contains("cache_share: 1") && error.to_string().contains("cache_share: 9"),
        "{error}"
    );
    assert_eq!(family.options(), first);
    assert_eq!(db.ensure_column_family("family", second.clone()).unwrap().id(), family.id());
    assert_eq!(family.options(), second);
    let new = db.ensure_column_family("new", second.clone()).unwrap();
    assert_eq!(new.options(), second);
    failure(db.ensure_column_family("new", second.clone().page_fill(1)), ErrorKind::InvalidArgument);
    failure(db.column_family_or_create("new", second.clone().page_fill(1)), ErrorKind::InvalidArgument);
    drop((family, new, db));
    let db = reopen(&storage);
    db.column_family_or_create("family", second.clone()).unwrap();
    db.column_family_or_create("new", second).unwrap();
}
