//! Scans: what they read ahead, and what they leave behind.

mod common;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::shrunken;
use common::storage::TestStorage;
use peristyle::{Cursor, FamilyOptions, MemoryStorage};

const PAGE: u64 = 4096;
const ENTRIES: u32 = 40_000;

/// All entries on the way, counted.
fn scan(cursor: &mut Cursor, back: bool, most: u32) -> u32 {
    let mut shown = 0;
    let visit = |_: &[u8], _: &[u8]| {
        shown += 1;
        if shown < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let stands = if back { cursor.scan_back(visit) } else { cursor.scan(visit) };
    assert_eq!(stands.unwrap().is_break(), shown == most);
    shown
}

#[test]
fn a_scan_has_the_disk_read_leaves_ahead_each_once_and_only_what_is_not_in_memory() {
    let storage = TestStorage::new();
    // All in one merge, so that neighbours in the tree are neighbours in the file.
    let builder = || shrunken().cache_bytes(64 << 20).write_buffer_bytes(64 << 20).log_limit_bytes(64 << 20);
    let open = || builder().storage(storage.clone()).open("memory").unwrap();
    let db = open();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for n in 0..ENTRIES {
        family.put(n.to_be_bytes(), [n as u8; 100]).unwrap();
    }
    db.flush().unwrap();
    drop(family);
    db.close().unwrap();
    for back in [false, true] {
        let db = open();
        let family = db.column_family("family").unwrap();
        let pages = db.family_properties(&family).unwrap().pages;
        assert!(pages > 1000, "{pages} pages are few");
        storage.take_announced();

        // Who looks around in one leaf reads no other.
        family.get((ENTRIES / 2).to_be_bytes()).unwrap().unwrap();
        let mut cursor = family.cursor().unwrap();
        assert!(if back { cursor.last().unwrap() } else { cursor.first().unwrap() });
        assert_eq!(scan(&mut cursor, back, 2), 2);
        assert_eq!(storage.take_announced(), []);

        // 200 entries are in about six leaves.
        assert_eq!(scan(&mut cursor, back, 200), 200);
        let few: u64 = storage.take_announced().iter().map(|(_, len)| len / PAGE).sum();
        assert!((4..=12).contains(&few), "{few} pages for 200 entries");

        assert!(scan(&mut cursor, back, u32::MAX) > ENTRIES - 300);
        let announced = storage.take_announced();
        let numbers = announced.iter().flat_map(|(offset, len)| offset / PAGE..(offset + len) / PAGE);
        let (count, distinct) =
            (numbers.clone().count() as u64, numbers.collect::<BTreeSet<_>>().len() as u64);
        assert_eq!(count, distinct, "a page was announced twice");
        // All but those met so far, the inner nodes and the first leaf below each.
        assert!(count > pages / 10 * 9 && count <= pages, "{count} of {pages} pages were announced");
        assert!(announced.len() as u64 <= count / 6, "{count} pages in {} pieces", announced.len());

        // Now all is in memory.
        assert_eq!(scan(&mut family.cursor().unwrap(), back, u32::MAX), ENTRIES);
        assert_eq!(storage.take_announced(), []);
    }
}

#[test]
fn leaves_of_several_pages_are_read_ahead_too() {
    let storage = TestStorage::new();
    let builder = || shrunken().cache_bytes(64 << 20).write_buffer_bytes(64 << 20).log_limit_bytes(64 << 20);
    let open = || builder().storage(storage.clone()).open("memory").unwrap();
    let db = open();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    // Three of them make a leaf of two pages.
    for n in 0..1000u32 {
        family.put(n.to_be_bytes(), [n as u8; 2200]).unwrap();
    }
    db.flush().unwrap();
    drop(family);
    db.close().unwrap();
    for back in [false, true] {
        let db = open();
        let family = db.column_family("family").unwrap();
        storage.take_announced();
        assert_eq!(scan(&mut family.cursor().unwrap(), back, u32::MAX), 1000);
        let announced = storage.take_announced();
        let numbers = announced.iter().flat_map(|(offset, len)| offset / PAGE..(offset + len) / PAGE);
        let (count, distinct) = (numbers.clone().count(), numbers.collect::<BTreeSet<_>>().len());
        assert_eq!(count, distinct, "a page was announced twice");
        assert!((600..=668).contains(&count), "{count} of 668 pages were announced");
        assert_eq!(scan(&mut family.cursor().unwrap(), back, u32::MAX), 1000);
        assert_eq!(storage.take_announced(), []);
    }
}

#[test]
fn a_cursor_whose_scan_panicked_stands_nowhere_and_is_of_use() {
    let db = shrunken().storage(MemoryStorage::new()).open("memory").unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    for n in 0..100u32 {
        family.put(n.to_be_bytes(), n.to_le_bytes()).unwrap();
    }
    db.flush().unwrap();
    for back in [false, true] {
        let mut cursor = family.cursor().unwrap();
        let mut shown = 0;
        let mut visit = |_: &[u8], _: &[u8]| {
            shown += 1;
            assert!(shown < 5, "as the test wants");
            ControlFlow::<()>::Continue(())
        };
        let scan = || if back { cursor.scan_back(&mut visit) } else { cursor.scan(&mut visit) };
        assert!(catch_unwind(AssertUnwindSafe(scan)).is_err());
        assert!(!cursor.is_valid());
        assert_eq!((cursor.key(), cursor.value().unwrap()), (&b""[..], &b""[..]));
        assert!(cursor.next().unwrap());
        assert_eq!(cursor.key(), 0u32.to_be_bytes());
    }
}
