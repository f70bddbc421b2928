//! A process that uses its database while it exits: in destructors of what its last thread has for itself,
//! and in what the C library calls behind that.

#![cfg(target_os = "linux")]

mod common;

use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::OnceLock;

use common::{assert_clean, child, shrunken};
use peristyle::{ColumnFamilyDatabase, Durability, FamilyOptions, Result, WriteBatch};

/// What everybody uses until the very end, which drops nothing that is static.
static DATABASE: OnceLock<ColumnFamilyDatabase> = OnceLock::new();

/// Reads and writes in each of the ways that there are.
fn work(who: &str) -> Result<()> {
    let db = DATABASE.get().expect("it is open");
    let family = db.column_family("family")?;
    assert_eq!(family.get("before")?.unwrap(), "value");
    family.put(format!("{who}: single"), "value")?;
    family.put_with(format!("{who}: synced"), "value", Durability::Sync)?;
    let mut batch = WriteBatch::new();
    batch.put(&family, format!("{who}: batch"), vec![7; 300_000]);
    db.write(&batch)?;
    db.flush()?;
    assert!(family.iter()?.collect::<Result<Vec<_>>>()?.len() >= 4);
    println!("\n{who} is done");
    Ok(())
}

struct AtEnd(&'static str);

impl Drop for AtEnd {
    fn drop(&mut self) {
        work(self.0).unwrap();
    }
}

thread_local! {
    /// Of a thread's own values those that it used first are dropped last: when those of the engine are gone.
    static FIRST: RefCell<Option<AtEnd>> = const { RefCell::new(None) };
    static LAST: RefCell<Option<AtEnd>> = const { RefCell::new(None) };
}

extern "C" fn at_exit() {
    work("handler").unwrap();
    DATABASE.get().expect("it is open").clone().close().unwrap();
    println!("\nclosed");
}

#[test]
fn a_process_that_exits_reads_writes_and_closes_to_the_end() {
    if let Some(path) = child::role() {
        FIRST.set(Some(AtEnd("first")));
        let db = shrunken().open(Path::new(&path)).unwrap();
        let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
        family.put("before", "value").unwrap();
        DATABASE.set(db).unwrap();
        LAST.set(Some(AtEnd("last")));
        // SAFETY: the function takes nothing, and does not unwind: a panic in it aborts.
        assert_eq!(unsafe { libc::atexit(at_exit) }, 0);
        std::process::exit(0);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("database");
    let name = "a_process_that_exits_reads_writes_and_closes_to_the_end";
    let mut child = child::start(name, path.to_str().unwrap());
    let said: Vec<String> =
        BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap()).collect();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}: {said:?}");
    for line in ["last is done", "first is done", "handler is done", "closed"] {
        assert!(said.iter().any(|said| said == line), "{line}: {said:?}");
    }
    let db = shrunken().open(&path).unwrap();
    let family = db.column_family("family").unwrap();
    assert_eq!(family.len().unwrap(), 1 + 3 * 3);
    assert_eq!(db.recovery_report().records, 0, "it was closed");
    assert_clean(&db);
}
