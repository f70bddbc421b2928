//! Damaged files: whatever stands in data file and log, opening, reading, scanning and verifying answers with a value or an
//! error. Nothing panics or hangs.
//!
//! Run with `cargo +nightly fuzz run corrupt_database`.
#![no_main]

use std::sync::OnceLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use peristyle::{
    ColumnFamilyDatabase, FamilyOptions, FileMode, MemoryStorage, Result, StorageBackend, WriteBatch,
};

/// One change to the bytes of a file.
#[derive(Arbitrary, Debug)]
enum Damage {
    Flip { file: u8, at: u32, bits: u8 },
    Fill { file: u8, at: u32, len: u16, byte: u8 },
    Cut { file: u8, len: u32 },
    Copy { file: u8, from: u32, to: u32, len: u16 },
}

/// The files of a small database that holds merged and unmerged entries, large values and a dropped family.
fn files() -> &'static [(String, Vec<u8>)] {
    static FILES: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| make().expect("the sample database is made"))
}

fn builder(storage: &MemoryStorage) -> peristyle::DatabaseBuilder {
    ColumnFamilyDatabase::builder()
        .storage(storage.clone())
        .page_size(4096)
        .cache_bytes(1 << 20)
        .write_buffer_bytes(256 << 10)
        .log_limit_bytes(64 << 10)
        .background_threads(1)
        .automatic_maintenance(false)
}

fn make() -> Result<Vec<(String, Vec<u8>)>> {
    let storage = MemoryStorage::new();
    let db = builder(&storage).open("sample")?;
    let families = ["a", "b", "gone"].map(|name| db.create_column_family(name, FamilyOptions::default()));
    for family in &families {
        let family = family.as_ref().map_err(Clone::clone)?;
        for i in 0..300u32 {
            family.put(i.to_be_bytes(), vec![i as u8; 40])?;
        }
        family.put("large", vec![7; 20_000])?;
    }
    db.drop_column_family("gone")?;
    db.flush()?;
    let mut batch = WriteBatch::new();
    for family in families.into_iter().take(2) {
        let family = family?;
        batch.put(&family, "late", "entry");
        batch.delete_range(&family, 10u32.to_be_bytes()..20u32.to_be_bytes());
    }
    db.write(&batch)?;
    drop((batch, db));
    let mut files = Vec::new();
    for directory in ["", "wal/"] {
        let mut names = storage.list(directory.trim_end_matches('/')).unwrap_or_default();
        names.sort();
        for name in names.iter().filter(|name| *name != "LOCK" && *name != "wal") {
            let path = format!("{directory}{name}");
            if let Ok(file) = storage.open(&path, FileMode::Read) {
                let mut bytes = vec![0; file.len().unwrap_or(0) as usize];
                if file.read_at(&mut bytes, 0).is_ok() {
                    files.push((path, bytes));
                }
            }
        }
    }
    Ok(files)
}

fn damage(files: &mut [(String, Vec<u8>)], damage: &Damage) {
    let count = files.len();
    let (Damage::Flip { file, .. }
    | Damage::Fill { file, .. }
    | Damage::Cut { file, .. }
    | Damage::Copy { file, .. }) = damage;
    let bytes = &mut files[usize::from(*file) % count].1;
    let len = bytes.len();
    if len == 0 {
        return;
    }
    let place = |at: u32| at as usize % len;
    match *damage {
        Damage::Flip { at, bits, .. } => bytes[place(at)] ^= bits,
        Damage::Fill { at, len: run, byte, .. } => {
            let start = place(at);
            bytes[start..(start + usize::from(run)).min(len)].fill(byte);
        }
        Damage::Cut { len: to, .. } => bytes.truncate(place(to)),
        Damage::Copy { from, to, len: run, .. } => {
            let (from, to) = (place(from), place(to));
            let run = usize::from(run).min(len - from).min(len - to);
            bytes.copy_within(from..from + run, to);
        }
    }
}

fn read_all(storage: &MemoryStorage) -> Result<()> {
    let db = builder(storage).open("damaged")?;
    let report = db.verify()?;
    for name in db.column_family_names() {
        let family = db.column_family(&name)?;
        for entry in family.iter()?.take(2000) {
            let Ok((key, _)) = entry else { break };
            let _ = family.get(&key);
        }
        for entry in family.iter()?.rev().take(2000) {
            if entry.is_err() {
                break;
            }
        }
        let _ = family.put("new", "entry");
        let _ = family.len();
    }
    let _ = db.flush();
    if report.is_clean() {
        let _ = db.compact();
    }
    db.close()
}

fuzz_target!(|changes: Vec<Damage>| {
    let mut files = files().to_vec();
    changes.iter().take(16).for_each(|change| damage(&mut files, change));
    let storage = MemoryStorage::new();
    storage.create_directory("").expect("a directory in memory");
    storage.create_directory("wal").expect("a directory in memory");
    for (path, bytes) in &files {
        let file = storage.open(path, FileMode::Create).expect("a file in memory");
        file.write_at(bytes, 0).expect("a write in memory");
    }
    // An error is a fine answer; only panics and hangs are not.
    let _ = read_all(&storage);
});
