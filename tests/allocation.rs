//! A process whose memory runs out: every allocation of some size fails, one in each run of a child, while it
//! opens, recovers, reads, writes, merges and closes. What is mapped without the allocator (memory of
//! memtables and caches) counts as well. The policy is Rust's: where no error can be given, the process
//! aborts, which is a crash like any other. Then everything that was acknowledged is there.
//!
//! `PERISTYLE_CASES=100000 cargo test --test allocation` tries each of them, `PERISTYLE_SEED=<n>` others than
//! usual.

#![cfg(unix)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::sampling::seed;
use common::{assert_clean, cases, child, shrunken};
use peristyle::{ColumnFamily, ColumnFamilyDatabase, ErrorKind, FamilyOptions, Result, WriteBatch};

/// Fails one large allocation: the `FAILS`th from 1 on, if that is not 0.
struct Scarce;

static FAILS: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);
/// Of these, those that were to be mapped.
static MAPPED: AtomicU64 = AtomicU64::new(0);

/// Bytes from which on an allocation is large.
const LARGE: usize = 8 << 10;

#[global_allocator]
static ALLOCATOR: Scarce = Scarce;

fn is_refused(size: usize) -> bool {
    let fails = FAILS.load(Ordering::Relaxed);
    size >= LARGE && fails > 0 && SEEN.fetch_add(1, Ordering::Relaxed) + 1 == fails
}

#[cfg(debug_assertions)]
fn is_mapping_refused(size: usize) -> bool {
    MAPPED.fetch_add(u64::from(size >= LARGE), Ordering::Relaxed);
    is_refused(size)
}

// SAFETY: what is not refused is the system's, by its rules.
unsafe impl GlobalAlloc for Scarce {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_refused(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_refused(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if is_refused(size) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.realloc(start, layout, size) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(start, layout) }
    }
}

const NAMES: [&str; 2] = ["a", "b"];
const LONG: usize = 300_000;

fn open(path: &Path) -> Result<ColumnFamilyDatabase> {
    shrunken().merge_cost(0).open(path)
}

fn key(n: u32) -> [u8; 4] {
    n.to_be_bytes()
}

fn value(n: u32) -> Vec<u8> {
    vec![n as u8; if n % 50 == 7 { LONG } else { 100 + n as usize % 900 }]
}

/// A database with trees, deltas, and a log that is not merged.
fn prepare(path: &Path) {
    let db = open(path).unwrap();
    for name in NAMES {
        let family = db.create_column_family(name, FamilyOptions::default()).unwrap();
        for n in 0..300 {
            family.put(key(n), value(n)).unwrap();
        }
    }
    db.flush().unwrap();
    for name in NAMES {
        let family = db.column_family(name).unwrap();
        for n in 300..340 {
            family.put(key(n), value(n)).unwrap();
        }
    }
}

/// What the child does; each number is told once it is acknowledged for both families. Stops at the first
/// error.
fn work(path: &Path) -> Result<()> {
    let db = open(path)?;
    let families: Vec<ColumnFamily> =
        NAMES.iter().map(|name| db.column_family(name)).collect::<Result<_>>()?;
    let told = std::io::stdout();
    let acknowledge = |n: u32| {
        let mut told = told.lock();
        writeln!(told, "\nacknowledged {n}").unwrap();
        told.flush().unwrap();
    };
    for family in &families {
        for n in 0..340 {
            assert!(family.get(key(n))?.is_some_and(|found| found == value(n)), "key {n}");
        }
        assert_eq!(family.iter()?.collect::<Result<Vec<_>>>()?.len(), 340);
    }
    for n in 340..420 {
        if n % 4 == 0 {
            let mut batch = WriteBatch::new();
            for family in &families {
                batch.put(family, key(n), value(n));
            }
            db.write(&batch)?;
        } else {
            families.iter().try_for_each(|family| family.put(key(n), value(n)).map(drop))?;
        }
        acknowledge(n);
    }
    db.flush()?;
    db.compact()?;
    db.verify()?.into_result()?;
    db.close()
}

#[test]
fn whichever_allocation_fails_nothing_acknowledged_is_lost() {
    if let Some(role) = child::role() {
        let (fails, path) = role.split_once(' ').unwrap();
        #[cfg(debug_assertions)]
        peristyle::refuse_memory(is_mapping_refused);
        FAILS.store(fails.parse().unwrap(), Ordering::Relaxed);
        let outcome = work(Path::new(path));
        let seen = SEEN.load(Ordering::Relaxed);
        FAILS.store(0, Ordering::Relaxed);
        let maps = cfg!(all(debug_assertions, target_os = "linux")) && outcome.is_ok();
        assert!(!maps || MAPPED.load(Ordering::Relaxed) > 0, "nothing was mapped");
        println!("\nseen {seen}");
        match outcome {
            Ok(()) => println!("\nwell"),
            Err(error) => println!("\nerror {:?} {error}", error.kind()),
        }
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let template = directory.path().join("template");
    prepare(&template);
    let (_, all) = run(&template, directory.path(), u64::MAX);
    let all = all.expect("nothing failed");
    assert!(all > 50, "{all} large allocations");
    // From run to run there may be some more or fewer of them.
    let count = u64::from(cases(60)).min(all);
    let (mut aborted, mut told) = (0, 0);
    let seed = seed() % all;
    for case in 0..count {
        let fails = 1 + (case * all / count + seed) % all;
        match run(&template, directory.path(), fails) {
            (_, None) => aborted += 1,
            (true, _) => told += 1,
            _ => {}
        }
    }
    println!("{all} large allocations, of {count} that failed {aborted} aborted and {told} gave an error");
    assert!(aborted + told > count / 2, "{aborted} aborted, {told} gave an error");
}

/// Has a child work on a copy of `template`, and looks at what it leaves. Says whether it told of an error,
/// and how many large allocations it made if it did not abort.
fn run(template: &Path, directory: &Path, fails: u64) -> (bool, Option<u64>) {
    let path = directory.join("copy");
    let _ = std::fs::remove_dir_all(&path);
    copy(template, &path);
    let name = "whichever_allocation_fails_nothing_acknowledged_is_lost";
    let mut child = child::start(name, &format!("{fails} {}", path.display()));
    // Somebody has to take what it says, or it would wait for that; whether it ends is seen here.
    let said = BufReader::new(child.stdout.take().unwrap());
    let listener =
        std::thread::spawn(move || said.lines().map_while(std::io::Result::ok).collect::<Vec<_>>());
    let status = wait(&mut child, fails);
    let (mut last, mut seen, mut error) = (339, None, None);
    for line in listener.join().unwrap() {
        if let Some(n) = line.strip_prefix("acknowledged ") {
            last = n.parse().unwrap();
        } else if let Some(n) = line.strip_prefix("seen ") {
            seen = Some(n.parse().unwrap());
        } else if let Some(text) = line.strip_prefix("error ") {
            error = Some(text.to_owned());
        }
    }
    check_end(status, seen, error.as_deref(), fails);
    let db = open(&path).unwrap_or_else(|error| panic!("allocation {fails}: {error}"));
    for name in NAMES {
        let family = db.column_family(name).unwrap();
        for n in 0..=last {
            let found = family.get(key(n)).unwrap();
            assert!(found.is_some_and(|found| found == value(n)), "allocation {fails}: key {n} of {last}");
        }
        assert!(family.len().unwrap() <= u64::from(last) + 2, "allocation {fails}");
    }
    assert_clean(&db);
    (error.is_some(), seen)
}

/// It ended in good order, or by an abort.
fn check_end(status: std::process::ExitStatus, seen: Option<u64>, error: Option<&str>, fails: u64) {
    use std::os::unix::process::ExitStatusExt as _;
    const SIGABRT: i32 = 6;
    match seen {
        Some(_) => assert!(status.success(), "allocation {fails}: {status}"),
        None => assert_eq!(status.signal(), Some(SIGABRT), "allocation {fails}: {status}"),
    }
    if let Some(error) = error {
        let damage = [ErrorKind::Corruption, ErrorKind::FamilyDamaged, ErrorKind::WriteFailed];
        let is_damage = damage.iter().any(|kind| error.starts_with(&format!("{kind:?} ")));
        assert!(!is_damage, "allocation {fails}: {error}");
    }
}

/// How it ended; it is given a minute.
fn wait(child: &mut std::process::Child, fails: u64) -> std::process::ExitStatus {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    panic!("allocation {fails}: the child hangs");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
