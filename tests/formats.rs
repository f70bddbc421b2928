//! A database of every version of the format so far, and of what else a reader must know, is kept as a file,
//! opened and read.
//!
//! Each was made by the engine of its time, as a killed process leaves it. `cargo test --test formats --
//! --ignored make` makes those of today anew, as `tests/formats/new-<kind>.kept`.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::assert_clean;
use common::kept::{Files, pack, storage, unpack};
use peristyle::{
    ColumnFamilyDatabase, ErrorKind, FamilyOptions, FileMode, KeyOrder, MemoryStorage, MergeOperands,
    MergeOperator, MergeResult, StorageBackend, WriteBatch,
};

/// By the version of the format, that of the catalog where they were counted apart, and what is in use. They
/// all hold the same.
const KEPT: [&str; 6] = ["1-catalog-1", "1-catalog-2", "1-catalog-3", "2", "2-pages-of-32-kib", "2-prepared"];
/// As the others, with a family beside theirs whose record is lost and was given up.
const LOST: &str = "2-lost";
/// As the others, with a family beside theirs that has a merge operator, [`Lists`].
const OPERANDS: &str = "2-operands";

/// As the others, with a family beside theirs of which entries expire, and that has a merge operator,
/// [`Lists`]. Written at second 1000.
const EXPIRY: &str = "2-expiry";

/// As the others, with families beside theirs that have key orders of their own: `reverse`, `integers`, and
/// `ends`, of the order [`by_end`].
const KEY_ORDERS: &str = "2-key-orders";

/// By the keys read backward.
fn by_end() -> KeyOrder {
    KeyOrder::new("by end", |key, sort_key| {
        sort_key.extend(key.iter().rev());
        Ok(())
    })
}

/// The time at so many seconds.
fn at(seconds: u64) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)
}

/// Operands are members of a list, and nothing is made of several of them.
struct Lists {
    /// Whether it fails on the key `stuck`.
    fails: bool,
}

impl MergeOperator for Lists {
    fn name(&self) -> &str {
        "lists"
    }

    fn merge(&self, key: &[u8], existing: Option<&[u8]>, operands: MergeOperands<'_>) -> MergeResult {
        if self.fails && key == b"stuck" {
            return Err("it is stuck".into());
        }
        Ok(existing.into_iter().chain(operands).collect::<Vec<_>>().join(&b","[..]))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(format!("{name}.kept"))
}

fn kept(name: &str) -> MemoryStorage {
    storage(&unpack(&std::fs::read(file(name)).unwrap()))
}

type Contents = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// What the program leaves.
fn expected() -> Contents {
    let mut numbers = BTreeMap::new();
    for i in 0..400u32 {
        numbers.insert(format!("{i:05}").into_bytes(), vec![b'a' + (i % 26) as u8; 40 + i as usize % 17]);
    }
    let gone = |key: &[u8]| {
        let ranges = [&b"00100"[..]..&b"00120"[..], &b"00200"[..]..&b"00210"[..]];
        key == b"00011" || key == b"00051" || ranges.iter().any(|range| range.contains(&key))
    };
    numbers.retain(|key, _| !gone(key));
    for (key, value) in [("00010", "second"), ("00050", "third"), ("batch", "one")] {
        numbers.insert(key.into(), value.into());
    }
    let others = [
        (Vec::new(), b"empty key".to_vec()),
        (b"empty value".to_vec(), Vec::new()),
        (b"large".to_vec(), vec![b'L'; 9000]),
        (vec![b'k'; 3000], b"long key".to_vec()),
        (vec![b'k'; 3001], b"longer key".to_vec()),
        (b"batch".to_vec(), vec![b'B'; 5000]),
    ];
    let late = [(b"only".to_vec(), b"in the log".to_vec())];
    BTreeMap::from([
        ("numbers".into(), numbers),
        ("renamed".into(), others.into()),
        ("late".into(), late.into()),
    ])
}

fn contents(db: &ColumnFamilyDatabase) -> Contents {
    let names = db.column_family_names().into_iter();
    let entries = |name: &str| {
        let family = db.column_family(name).unwrap();
        let entry = |entry: peristyle::Result<(peristyle::Key, peristyle::Value)>| {
            let (key, value) = entry.unwrap();
            (key.to_vec(), value.to_vec())
        };
        family.iter().unwrap().map(entry).collect()
    };
    names.map(|name| (name.clone(), entries(&name))).collect()
}

fn open(storage: &MemoryStorage) -> peristyle::Result<ColumnFamilyDatabase> {
    ColumnFamilyDatabase::builder().create_if_missing(false).storage(storage.clone()).open("kept")
}

#[test]
fn a_database_of_every_version_so_far_is_read() {
    for name in KEPT {
        let storage = kept(name);
        let db = ColumnFamilyDatabase::builder().read_only(true).storage(storage.clone()).open("kept");
        let db = db.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(contents(&db) == expected(), "{name}");
        assert_clean(&db);
    }
}

#[test]
fn a_database_of_every_version_so_far_is_written_to() {
    for name in KEPT {
        let storage = kept(name);
        let mut model = expected();
        for round in 0..3 {
            let db = open(&storage).unwrap_or_else(|error| panic!("{name}, round {round}: {error}"));
            assert!(contents(&db) == model, "{name}, round {round}");
            assert_clean(&db);
            for (family, entries) in &mut model {
                let key = format!("round {round}").into_bytes();
                db.column_family(family).unwrap().put(&key, family).unwrap();
                entries.insert(key, family.clone().into_bytes());
            }
            let new = format!("family {round}");
            db.create_column_family(&new, FamilyOptions::default()).unwrap();
            model.insert(new, BTreeMap::new());
            match round {
                // As a killed process leaves it.
                0 => drop(db),
                1 => drop((db.compact().unwrap(), db)),
                _ => db.close().unwrap(),
            }
        }
    }
}

#[test]
fn a_killed_process_leaves_every_version_as_good_as_it_was() {
    for name in KEPT {
        let storage = kept(name);
        let db = open(&storage).unwrap();
        db.column_family("numbers").unwrap().put("new", "entry").unwrap();
        db.sync().unwrap();
        let mut model = expected();
        model.get_mut("numbers").unwrap().insert(b"new".to_vec(), b"entry".to_vec());
        let copy = common::kept::storage(&common::kept::files(&storage));
        assert!(contents(&open(&copy).unwrap()) == model, "{name}");
    }
}

#[test]
fn a_version_that_never_was_is_refused_by_name() {
    for version in [0u32, 3] {
        let storage = kept("2");
        let data = storage.open("data", FileMode::Write).unwrap();
        for slot in [0, 32 << 10] {
            let mut bytes = [0; 512];
            data.read_at(&mut bytes, slot).unwrap();
            bytes[8..12].copy_from_slice(&version.to_le_bytes());
            let sum = crc32fast::hash(&bytes[..508]);
            bytes[508..].copy_from_slice(&sum.to_le_bytes());
            data.write_at(&bytes, slot).unwrap();
        }
        let error = open(&storage).unwrap_err();
        let kind = if version == 0 { ErrorKind::Corruption } else { ErrorKind::NewerFormat };
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(&format!("format version {version}")), "{error}");
    }
}

/// Makes the checksum of the catalog's frame at `at`, and of its body, right again.
fn seal_frame(copy: &mut [u8], at: usize, number: u64) {
    let len = u32_at(copy, at + 8) as usize;
    let body = crc32fast::hash(&copy[at + 40..][..len]);
    copy[at + 4..][..4].copy_from_slice(&body.to_le_bytes());
    let place = [number.to_le_bytes(), (at as u64).to_le_bytes()].concat();
    let sum = crc32fast::hash(&[&copy[at + 4..at + 40], &place].concat());
    copy[at..][..4].copy_from_slice(&sum.to_le_bytes());
}

/// Where the whole records of the family with this name stand in the data file: the beginning of a copy of
/// the catalog, that of a frame in it, and the catalog's number.
fn records_of(data: &[u8], name: &str) -> Vec<(usize, usize, u64)> {
    let newest = [0, 32 << 10].into_iter().max_by_key(|&slot| u64_at(data, slot + 16)).unwrap();
    let (len, number) = (u64_at(data, newest + 72) as usize, u64_at(data, newest + 80));
    let page_size = u64::from(u32_at(data, newest + 12));
    // Behind the number of the family stand kind and length of the name, a byte each.
    let begins = [&[4, name.len() as u8], name.as_bytes()].concat();
    let mut found = Vec::new();
    for copy in [56, 64] {
        let start = ((64 << 10) + u64_at(data, newest + copy) * page_size) as usize;
        let copy = &data[start..start + len];
        let is_record = |&at: &usize| copy[at + 32] == 2 && copy[at + 41..].starts_with(&begins);
        found.extend((0..len - 40).step_by(8).filter(is_record).map(|at| (start, at, number)));
    }
    assert!(found.len() >= 2, "no record of {name}");
    found
}

fn data(files: &mut Files) -> &mut Vec<u8> {
    &mut files.iter_mut().find(|(path, _)| path == "data").unwrap().1
}

/// Changes the bodies of all whole records of the family with this name, in both copies of the catalog.
fn change_record(files: &mut Files, name: &str, change: impl Fn(&mut [u8])) {
    let data = data(files);
    for (start, at, number) in records_of(data, name) {
        let copy = &mut data[start..];
        change(&mut copy[at + 40..]);
        seal_frame(copy, at, number);
    }
}

/// Changes the headers of all segments of the log.
fn change_segments(files: &mut Files, change: impl Fn(&mut [u8])) {
    for (_, bytes) in files.iter_mut().filter(|(_, bytes)| bytes.starts_with(b"PERISLOG")) {
        change(bytes);
        let sum = crc32fast::hash(&[&bytes[..12], &bytes[16..128]].concat());
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    }
}

#[test]
fn what_was_prepared_is_held_until_it_is_decided() {
    for commits in [false, true] {
        let storage = kept("2-prepared");
        let db = open(&storage).unwrap();
        let numbers = db.column_family("numbers").unwrap();
        let prepared = db.prepared_transactions().unwrap();
        assert_eq!(prepared.iter().map(|prepared| prepared.name()).collect::<Vec<_>>(), [b"name"]);
        let mut model = expected();
        if commits {
            prepared[0].commit().unwrap();
            let entries = model.get_mut("numbers").unwrap();
            entries.insert(b"prepared".to_vec(), b"value".to_vec());
            entries.retain(|key, _| !(&b"00300"[..]..&b"00310"[..]).contains(&&key[..]));
        } else {
            prepared[0].rollback().unwrap();
        }
        assert_eq!(numbers.get("prepared").unwrap().is_some(), commits);
        drop((numbers, prepared, db));
        let db = open(&storage).unwrap();
        assert!(db.prepared_transactions().unwrap().is_empty());
        assert!(contents(&db) == model);
        assert_clean(&db);
    }
}

#[test]
fn a_family_that_was_given_up_stays_so_until_it_is_dropped() {
    let storage = kept(LOST);
    let db = open(&storage).unwrap();
    assert_eq!(db.column_family("lost").unwrap_err().kind(), ErrorKind::Corruption);
    assert_eq!(db.verify().unwrap().faults.len(), 1);
    db.column_family("late").unwrap().put("new", "entry").unwrap();
    db.drop_column_family("lost").unwrap();
    drop(db);
    let mut model = expected();
    model.get_mut("late").unwrap().insert(b"new".to_vec(), b"entry".to_vec());
    let db = open(&storage).unwrap();
    assert!(contents(&db) == model);
    assert_clean(&db);
}

#[test]
fn operands_are_folded_onto_what_is_older_wherever_they_stand() {
    let storage = kept(OPERANDS);
    let mut model = expected();
    let lists = [
        ("folded", "a,b,c"),
        ("in the log", "a"),
        ("new", "a,b"),
        ("open", "a,b,c,d"),
        ("put again", "b,c"),
        ("stuck", "a,b"),
    ];
    let bytes = |(key, value): (&str, &str)| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
    model.insert("lists".into(), lists.map(bytes).into());
    let open = |fails| {
        let builder = ColumnFamilyDatabase::builder().merge_operator(Lists { fails });
        builder.storage(storage.clone()).open("kept").unwrap()
    };
    let get = |db: &ColumnFamilyDatabase, key: &str| db.column_family("lists").unwrap().get(key);
    let without =
        ColumnFamilyDatabase::builder().read_only(true).storage(storage.clone()).open("kept").unwrap();
    for key in ["folded", "in the log", "new", "open", "stuck"] {
        assert_eq!(get(&without, key).unwrap_err().kind(), ErrorKind::MergeOperatorMissing, "{key}");
    }
    drop(without);
    assert_eq!(get(&open(true), "stuck").unwrap_err().kind(), ErrorKind::MergeFailed);
    for _ in 0..2 {
        let db = open(false);
        assert!(contents(&db) == model);
        assert_clean(&db);
        db.column_family("lists").unwrap().merge("open", "e").unwrap();
        let open = model.get_mut("lists").unwrap().get_mut(&b"open"[..]).unwrap();
        open.extend_from_slice(b",e");
        db.compact().unwrap();
        assert!(contents(&db) == model);
        db.close().unwrap();
    }
}

#[test]
fn what_expires_does_so_wherever_it_stands() {
    let storage = kept(EXPIRY);
    let lists = || Lists { fails: false };
    for (now, expected) in [
        (1004, vec!["delta", "folded", "hidden", "log", "run", "stays", "tree"]),
        (1005, vec!["delta", "folded", "log", "run", "stays", "tree"]),
        (1010, vec!["folded", "stays", "tree"]),
        (1015, vec!["stays"]),
    ] {
        let builder = ColumnFamilyDatabase::builder().merge_operator(lists()).clock(move || at(now));
        let db = builder.storage(storage.clone()).open("kept").unwrap();
        let family = db.column_family("expiring").unwrap();
        for _ in 0..2 {
            let keys = family.iter().unwrap().map(|entry| entry.unwrap().0.to_vec());
            assert!(keys.eq(expected.iter().map(|key| key.as_bytes().to_vec())), "{now}");
            assert_eq!(family.len().unwrap(), expected.len() as u64);
            if now < 1015 {
                assert_eq!(family.get("folded").unwrap().unwrap(), "a,b,c");
                assert_eq!(family.get("tree").unwrap().unwrap(), "a,b");
            }
            db.compact().unwrap();
        }
        assert_clean(&db);
        db.close().unwrap();
    }
}

#[test]
fn keys_stand_in_the_orders_of_their_families_wherever_they_stand() {
    let storage = kept(KEY_ORDERS);
    let without =
        ColumnFamilyDatabase::builder().read_only(true).storage(storage.clone()).open("kept").unwrap();
    assert_eq!(without.column_family("ends").unwrap_err().kind(), ErrorKind::KeyOrderMissing);
    assert_eq!(without.column_family("reverse").unwrap().len().unwrap(), 4);
    drop(without);
    for _ in 0..2 {
        let builder = ColumnFamilyDatabase::builder().key_order(by_end());
        let db = builder.storage(storage.clone()).open("kept").unwrap();
        let walk = |name: &str| -> Vec<(Vec<u8>, Vec<u8>)> {
            let entries = db.column_family(name).unwrap().iter().unwrap();
            entries.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
        };
        let texts = |entries: &[(&str, &str)]| -> Vec<(Vec<u8>, Vec<u8>)> {
            entries.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
        };
        let reverse = [("b", "tree"), ("ab", "log"), ("a\0", "delta"), ("a", "tree")];
        assert_eq!(walk("reverse"), texts(&reverse));
        assert_eq!(walk("ends"), texts(&[("", "tree"), ("ba", "delta"), ("ab", "tree"), ("b\0c", "log")]));
        let integers = [-300i64, -1, 0, 256].map(|n| (n.to_le_bytes().to_vec(), n.to_string().into_bytes()));
        assert_eq!(walk("integers"), integers);
        assert_eq!(db.column_family("ends").unwrap().get("ab").unwrap().unwrap(), "tree");
        db.compact().unwrap();
        assert_clean(&db);
        db.close().unwrap();
    }
}

#[test]
fn what_nobody_here_may_write_to_is_read() {
    let unknown = 0x40;
    for part in ["family", "log"] {
        let mut files = unpack(&std::fs::read(file("2")).unwrap());
        match part {
            // Behind the name stand the features to read, and those to write.
            "family" => change_record(&mut files, "numbers", |body| body[11] |= unknown),
            _ => change_segments(&mut files, |header| header[72] |= unknown),
        }
        let storage = storage(&files);
        let error = open(&storage).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NewerFormat, "{part}: {error}");
        assert!(error.to_string().contains("0x40"), "{error}");
        assert!(common::kept::files(&storage) == files, "{part}: something was written");
        let db = ColumnFamilyDatabase::builder().read_only(true).storage(storage).open("kept").unwrap();
        assert!(contents(&db) == expected(), "{part}");
    }
}

#[test]
fn a_log_that_says_more_is_not_given_up_as_a_damaged_one() {
    let mut files = unpack(&std::fs::read(file("2")).unwrap());
    change_segments(&mut files, |header| header[127] = 1);
    let storage = storage(&files);
    for read_only in [false, true] {
        let builder = ColumnFamilyDatabase::builder().skip_damaged_log(true).read_only(read_only);
        let error = builder.storage(storage.clone()).open("kept").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NewerFormat, "{error}");
        assert!(common::kept::files(&storage) == files, "something was written");
    }
}

#[test]
fn a_record_of_a_kind_that_nobody_here_knows_is_refused_and_loses_no_family() {
    let mut files = unpack(&std::fs::read(file("2")).unwrap());
    change_record(&mut files, "numbers", |body| body[1] = 99);
    for read_only in [false, true] {
        let builder = ColumnFamilyDatabase::builder().give_up_lost_families(true).read_only(read_only);
        let error = builder.storage(storage(&files)).open("kept").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NewerFormat, "{error}");
        assert!(error.to_string().contains("kind 99"), "{error}");
    }
}

/// What all of them hold.
fn fill(db: &ColumnFamilyDatabase) -> peristyle::Result<()> {
    let numbers = db.create_column_family("numbers", FamilyOptions::default().page_fill(90))?;
    let others = db.create_column_family("old name", FamilyOptions::default())?;
    let dropped = db.create_column_family("dropped", FamilyOptions::default())?;
    for i in 0..400u32 {
        numbers.put(format!("{i:05}"), vec![b'a' + (i % 26) as u8; 40 + i as usize % 17])?;
    }
    others.put("", "empty key")?;
    others.put("empty value", "")?;
    others.put("large", vec![b'L'; 9000])?;
    others.put(vec![b'k'; 3000], "long key")?;
    others.put(vec![b'k'; 3001], "longer key")?;
    dropped.put("key", "value")?;
    db.flush()?;
    db.checkpoint()?;
    numbers.put("00010", "second")?;
    numbers.delete("00011")?;
    numbers.delete_range("00100".."00120")?;
    db.flush()?;
    db.checkpoint()?;
    db.rename_column_family("old name", "renamed")?;
    db.drop_column_family("dropped")?;
    db.checkpoint()?;
    db.create_column_family("late", FamilyOptions::default())?.put("only", "in the log")?;
    numbers.put("00050", "third")?;
    numbers.delete("00051")?;
    numbers.delete_range("00200".."00210")?;
    let mut batch = WriteBatch::new();
    batch.put(&numbers, "batch", "one").put(&others, "batch", vec![b'B'; 5000]);
    db.write(&batch)?;
    db.sync()
}

/// A database of today, as a killed process leaves it.
fn make(kind: &str) -> peristyle::Result<Files> {
    let storage = MemoryStorage::new();
    let page_size = if kind == "2-pages-of-32-kib" { 32 << 10 } else { 4096 };
    let mut builder = ColumnFamilyDatabase::builder().page_size(page_size).storage(storage.clone());
    builder = builder.clock(|| at(1000));
    if [OPERANDS, EXPIRY, KEY_ORDERS].contains(&kind) {
        // Every merge that finds a tree writes a delta.
        builder = builder.merge_cost(0);
    }
    let db = builder.open("kept")?;
    fill(&db)?;
    match kind {
        "2-prepared" => {
            let numbers = db.column_family("numbers")?;
            let mut transaction = db.begin()?;
            transaction.get(&numbers, "00001")?;
            transaction.put(&numbers, "prepared", "value")?;
            transaction.delete_range(&numbers, "00300".."00310")?;
            transaction.prepare("name")?;
        }
        OPERANDS => {
            let options = FamilyOptions::default().merge_operator(Lists { fails: true });
            let lists = db.create_column_family("lists", options)?;
            for key in ["folded", "stuck", "put again"] {
                lists.put(key, "a")?;
                lists.merge(key, "b")?;
            }
            lists.put("open", "a")?;
            db.flush()?;
            for (key, operand) in [("open", "b"), ("open", "c"), ("new", "a"), ("new", "b")] {
                lists.merge(key, operand)?;
            }
            lists.put("put again", "b")?;
            lists.merge("put again", "c")?;
            db.flush()?;
            db.checkpoint()?;
            for (key, operand) in [("open", "d"), ("folded", "c"), ("in the log", "a")] {
                lists.merge(key, operand)?;
            }
            db.sync()?;
        }
        EXPIRY => {
            let options = FamilyOptions::default().merge_operator(Lists { fails: false }).expire_each();
            let family = db.create_column_family("expiring", options)?;
            let put = |key: &str, value: &str, seconds| {
                family.put_with_ttl(key, value, std::time::Duration::from_secs(seconds))
            };
            put("tree", "a", 10)?;
            put("folded", "a", 10)?;
            put("run", &"a".repeat(9000), 10)?;
            put("hidden", "a", 20)?;
            family.put("stays", "a")?;
            db.flush()?;
            put("delta", "a", 10)?;
            put("hidden", "b", 5)?;
            family.merge("folded", "b")?;
            db.flush()?;
            db.checkpoint()?;
            put("log", "a", 10)?;
            family.set_options(FamilyOptions::default().expire_after(std::time::Duration::from_secs(15)))?;
            family.merge("folded", "c")?;
            family.merge("tree", "b")?;
            db.sync()?;
        }
        KEY_ORDERS => {
            let create =
                |name: &str, order| db.create_column_family(name, FamilyOptions::default().key_order(order));
            let reverse = create("reverse", KeyOrder::reverse())?;
            let ends = create("ends", by_end())?;
            let integers = create("integers", KeyOrder::native_i64())?;
            let number = |n: i64| integers.put(n.to_ne_bytes(), n.to_string());
            reverse.put("a", "tree")?;
            reverse.put("b", "tree")?;
            ends.put("ab", "tree")?;
            ends.put("", "tree")?;
            ends.put("gone", "tree")?;
            number(0)?;
            number(-1)?;
            db.flush()?;
            reverse.put("a\0", "delta")?;
            ends.put("ba", "delta")?;
            ends.delete("gone")?;
            number(256)?;
            db.flush()?;
            db.checkpoint()?;
            reverse.put("ab", "log")?;
            ends.put("b\0c", "log")?;
            number(-300)?;
            db.sync()?;
        }
        LOST => {
            let lost = db.create_column_family("lost", FamilyOptions::default())?;
            lost.put("key", "value")?;
            db.flush()?;
            db.checkpoint()?;
            let mut files = common::kept::files(&storage);
            let data = data(&mut files);
            for (start, at, _) in records_of(data, "lost") {
                data[start + at + 40] ^= 1;
            }
            let damaged = common::kept::storage(&files);
            let builder = ColumnFamilyDatabase::builder().storage(damaged.clone());
            let db = builder.give_up_lost_families(true).open("kept")?;
            db.checkpoint()?;
            return Ok(common::kept::files(&damaged));
        }
        _ => {}
    }
    Ok(common::kept::files(&storage))
}

#[test]
#[ignore = "makes databases for the repository"]
fn make_the_databases_of_today() {
    for kind in ["2", "2-pages-of-32-kib", "2-prepared", LOST, OPERANDS, EXPIRY, KEY_ORDERS] {
        let mut files = make(kind).unwrap();
        for (path, bytes) in &mut files {
            if path != "data" {
                // Room that was reserved and not written to.
                let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                bytes.truncate(used.next_multiple_of(4096));
            }
        }
        files.retain(|(_, bytes)| !bytes.is_empty());
        let packed = pack(&files);
        assert!(unpack(&packed) == files);
        std::fs::write(file(&format!("new-{kind}")), packed).unwrap();
    }
}
