//! What a family with hardly anything in it takes of the process's memory: alone in its test binary, whose
//! allocator counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use peristyle::{ColumnFamilyDatabase, FamilyOptions};

/// The system's allocator, which counts bytes that are in use.
struct Counting;

static IN_USE: AtomicI64 = AtomicI64::new(0);

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        IN_USE.fetch_add(size as i64 - layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const FAMILIES: usize = 1000;
/// Of which the resident memory is looked at: what threads and their allocators take is little beside them.
const MANY: usize = 4000;
/// Bytes of memory for each, and for one that is being written to besides.
const MOST: u64 = 16 << 10;
const MOST_WRITTEN_TO: u64 = 20 << 10;

/// One test after the other: each looks at the memory of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

/// Memory of the process that belongs to nobody's file, in bytes.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    anonymous.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[cfg(target_os = "linux")]
#[test]
fn a_family_of_three_small_entries_takes_little_of_the_systems_memory() {
    let _alone = ALONE.lock();
    let directory = tempfile::tempdir().unwrap();
    let db = ColumnFamilyDatabase::builder().open(directory.path().join("db")).unwrap();
    let before = resident();
    let names = (0..MANY).map(|number| (format!("family {number}"), FamilyOptions::default()));
    let families = db.create_column_families(names).unwrap();
    for family in &families {
        for key in ["a", "b", "c"] {
            family.put(key, "value").unwrap();
        }
    }
    let each = |when: &str| {
        let each = (resident() - before) / MANY as u64;
        println!("{when}: {each} bytes for each family");
        each
    };
    each("in memtables");
    db.flush().unwrap();
    let in_trees = each("in trees");
    // Where pages are cleared though they are zero it takes 4 KiB more.
    assert!(in_trees <= MOST - (2 << 10), "{in_trees} bytes for each family");
    drop(families);
    db.close().unwrap();
}

#[test]
fn a_family_of_three_small_entries_takes_little_memory() {
    let _alone = ALONE.lock();
    let directory = tempfile::tempdir().unwrap();
    let builder = ColumnFamilyDatabase::builder().automatic_maintenance(false);
    let db = builder.open(directory.path().join("db")).unwrap();
    // What the allocator gave, and the frames of pages, which come from the kernel.
    let in_use = || {
        let report = db.memory_report();
        IN_USE.load(Ordering::Relaxed) as u64 + report.read_cache + report.write_buffers
    };
    let (before, reported_before) = (in_use(), db.memory_report().total_bytes());
    let check = |when: &str, most: u64| {
        let each = (in_use() - before) / FAMILIES as u64;
        let report = db.memory_report();
        let reported = (report.total_bytes() - reported_before) / FAMILIES as u64;
        println!("{when}: {each} bytes, {reported} of them reported: {report:?}");
        assert!(each <= most, "{when}: {each} bytes for each family");
        assert!(reported <= most, "{when}: {reported} bytes reported for each family");
    };
    let names = (0..FAMILIES).map(|number| (format!("family {number}"), FamilyOptions::default()));
    let families = db.create_column_families(names).unwrap();
    check("empty", MOST / 2);
    for family in &families {
        for key in ["a", "b", "c"] {
            family.put(key, "value").unwrap();
        }
    }
    check("in memtables", MOST);
    db.flush().unwrap();
    check("in trees", MOST);
    for family in &families {
        assert_eq!(family.iter().unwrap().count(), 3);
        family.put("b", "other").unwrap();
    }
    check("in both", MOST_WRITTEN_TO);
    db.flush().unwrap();
    drop(families);
    db.close().unwrap();
    let builder = ColumnFamilyDatabase::builder().automatic_maintenance(false);
    let db = builder.open(directory.path().join("db")).unwrap();
    let each = db.memory_report().total_bytes() / FAMILIES as u64;
    assert!(each <= MOST / 2, "{each} bytes for each family that nobody asked for");
}
