//! A database of every version of the format so far, kept as a file, is opened and read.
//!
//! Each was made by `make_a_database`, which ends as a killed process does, with the engine of its time, and
//! packed by `pack_a_database` into `tests/formats/new.kept`:
//! `PERISTYLE_KEEP=<directory> cargo test --test formats -- --ignored make`, then the same with `pack`.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::assert_clean;
use common::kept::{pack, storage, unpack};
use peristyle::{
    ColumnFamilyDatabase, ErrorKind, FamilyOptions, FileMode, MemoryStorage, StorageBackend, WriteBatch,
};

/// By the version of the format, and that of the catalog where they were counted apart.
const KEPT: [&str; 4] = ["1-catalog-1", "1-catalog-2", "1-catalog-3", "2"];

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

fn directory() -> PathBuf {
    PathBuf::from(std::env::var_os("PERISTYLE_KEEP").expect("PERISTYLE_KEEP names a directory"))
}

#[test]
#[ignore = "makes a database for the repository, and ends the process"]
fn make_a_database() {
    let make = || -> peristyle::Result<()> {
        let db = ColumnFamilyDatabase::builder().page_size(4096).open(directory())?;
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
        db.sync()?;
        std::process::abort()
    };
    make().unwrap();
}

#[test]
#[ignore = "packs a database for the repository"]
fn pack_a_database() {
    let directory = directory();
    let mut files = vec![("data".to_owned(), std::fs::read(directory.join("data")).unwrap())];
    let mut logs: Vec<_> =
        std::fs::read_dir(directory.join("wal")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    logs.sort();
    for log in logs {
        let mut bytes = std::fs::read(directory.join("wal").join(&log)).unwrap();
        // Room that was reserved and not written to.
        let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(used.next_multiple_of(4096));
        if used > 0 {
            files.push((format!("wal/{}", log.to_str().unwrap()), bytes));
        }
    }
    let packed = pack(&files);
    assert!(unpack(&packed) == files);
    std::fs::write(file("new"), packed).unwrap();
}
