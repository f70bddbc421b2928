//! What the tests of the public interface share.
//!
//! [`operation`] says what can be done to a database, [`world`] does it to a database and to a model of
//! sorted maps at once and compares them, [`strategy`] makes operations up for proptest; the other two know
//! nothing of proptest, so that a fuzzer can drive them; [`entries`] is such a map. [`storage`] is a disk
//! that fails, or is copied in mid-flight, when a test asks for it. [`transaction`] does several things in
//! one transaction. [`sampling`] says what is drawn from, for the tests in `src` as well. [`child`] runs
//! parts of a test in a process of its own. [`kept`] packs the files of a database into one.

#![allow(dead_code, unused_imports, reason = "every test file uses a part of this")]

pub(crate) mod child;
pub(crate) mod entries;
pub(crate) mod kept;
pub(crate) mod operation;
pub(crate) mod random;
pub(crate) mod sampling;
pub(crate) mod storage;
#[cfg(not(fuzzing))]
pub(crate) mod strategy;
pub(crate) mod transaction;
pub(crate) mod world;

use std::time::Duration;

pub(crate) use sampling::cases;

use peristyle::{ColumnFamilyDatabase, DatabaseBuilder, Error, ErrorKind, Result};

/// Sizes at which few operations cross every boundary: memtables of 4 KiB, a log of 64 KiB, pages of 4 KiB,
/// caches of a few pages.
pub(crate) fn shrunken() -> DatabaseBuilder {
    ColumnFamilyDatabase::builder()
        .write_buffer_bytes(256 << 10)
        .log_limit_bytes(64 << 10)
        .page_size(4096)
        .cache_bytes(64 << 10)
        .background_threads(1)
}

/// The failure that `result` must be.
#[track_caller]
pub(crate) fn failure<T>(result: Result<T>, kind: ErrorKind) -> Error {
    match result {
        Ok(_) => panic!("succeeded, but should have failed with {kind:?}"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{error}");
            error
        }
    }
}

/// Fails with every fault that a verification of `db` finds.
#[track_caller]
pub(crate) fn assert_clean(db: &ColumnFamilyDatabase) {
    let report = db.verify().unwrap();
    assert!(
        report.is_clean(),
        "{} faults: {}",
        report.faults.len(),
        report.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    );
}

/// Waits until `is_so`, which is asked again and again: for what happens as soon as other threads let go of
/// something.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("never: {what}");
}
