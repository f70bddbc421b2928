//! What every backend does: each behaviour is asked of real files and of memory.

use std::io::ErrorKind;
use std::sync::Arc;

use proptest::prelude::*;

use super::{FileMode, FileStorage, MemoryStorage, StorageBackend, StorageFile};

/// Runs `behaviour` on an empty directory of each kind.
fn on_each(behaviour: impl Fn(&dyn StorageBackend)) {
    behaviour(&MemoryStorage::new());
    if cfg!(not(miri)) {
        let directory = tempfile::tempdir().unwrap();
        behaviour(&FileStorage::new(directory.path()));
    }
}

fn create(storage: &dyn StorageBackend, path: &str) -> Arc<dyn StorageFile> {
    storage.open(path, FileMode::Create).unwrap()
}

fn read(file: &dyn StorageFile, offset: u64, len: usize) -> Vec<u8> {
    let mut buffer = vec![0xee; len];
    file.read_at(&mut buffer, offset).unwrap();
    buffer
}

fn error_of<T>(outcome: std::io::Result<T>) -> ErrorKind {
    outcome.err().expect("an error").kind()
}

#[test]
fn what_is_written_is_read_through_every_descriptor() {
    on_each(|storage| {
        let file = create(storage, "data");
        assert!(file.is_empty().unwrap());
        file.write_at(b"hello", 3).unwrap();
        assert_eq!(file.len().unwrap(), 8);
        assert_eq!(read(&*file, 0, 8), b"\0\0\0hello");
        let other = storage.open("data", FileMode::Write).unwrap();
        other.write_at(b"J", 3).unwrap();
        file.sync().unwrap();
        assert_eq!(read(&*storage.open("data", FileMode::Read).unwrap(), 3, 5), b"Jello");
    });
}

#[test]
fn reading_beyond_the_end_is_an_error() {
    on_each(|storage| {
        let file = create(storage, "data");
        file.write_at(b"12345", 0).unwrap();
        assert_eq!(error_of(file.read_at(&mut [0; 6], 0)), ErrorKind::UnexpectedEof);
        assert_eq!(error_of(file.read_at(&mut [0; 1], 5)), ErrorKind::UnexpectedEof);
        assert_eq!(error_of(file.read_at(&mut [0; 1], 1 << 40)), ErrorKind::UnexpectedEof);
        file.read_at(&mut [], 5).unwrap();
    });
}

#[test]
fn parts_are_written_one_after_the_other_however_many() {
    on_each(|storage| {
        let file = create(storage, "data");
        let pieces: Vec<Vec<u8>> = (0..2500_usize).map(|i| vec![i as u8; i % 4]).collect();
        let parts: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        file.write_parts_at(&parts, 7).unwrap();
        let expected = pieces.concat();
        assert_eq!(file.len().unwrap(), 7 + expected.len() as u64);
        assert_eq!(read(&*file, 7, expected.len()), expected);
        file.write_parts_at(&[], 1 << 30).unwrap();
        file.write_parts_at(&[b"", b""], 1 << 30).unwrap();
        assert_eq!(file.len().unwrap(), 7 + expected.len() as u64);
    });
}

#[test]
fn files_open_in_the_way_that_the_mode_says() {
    on_each(|storage| {
        for mode in [FileMode::Read, FileMode::Write] {
            assert_eq!(error_of(storage.open("data", mode)), ErrorKind::NotFound);
        }
        create(storage, "data").write_at(b"kept", 0).unwrap();
        assert_eq!(error_of(storage.open("data", FileMode::Create)), ErrorKind::AlreadyExists);
        let reader = storage.open("data", FileMode::Read).unwrap();
        assert!(reader.write_at(b"x", 0).is_err());
        assert!(reader.set_len(0).is_err());
        assert!(reader.allocate(0, 100).is_err());
        assert_eq!(read(&*reader, 0, 4), b"kept");
        assert_eq!(error_of(storage.open("none/data", FileMode::Create)), ErrorKind::NotFound);
    });
}

#[test]
fn directories_list_their_own_files() {
    on_each(|storage| {
        assert_eq!(error_of(storage.list("wal")), ErrorKind::NotFound);
        assert_eq!(error_of(storage.sync_directory("wal")), ErrorKind::NotFound);
        storage.create_directory("").unwrap();
        storage.create_directory("wal").unwrap();
        create(storage, "data");
        for name in ["wal/2.log", "wal/1.log"] {
            create(storage, name);
        }
        storage.create_directory("wal").unwrap();
        assert_eq!(storage.list("").unwrap(), ["data"]);
        let mut names = storage.list("wal").unwrap();
        names.sort();
        assert_eq!(names, ["1.log", "2.log"]);
        storage.sync_directory("").unwrap();
        storage.sync_directory("wal").unwrap();
        assert!(storage.create_directory("data").is_err());
    });
}

#[test]
fn renaming_replaces_and_descriptors_follow_the_file() {
    on_each(|storage| {
        let first = create(storage, "a");
        first.write_at(b"first", 0).unwrap();
        let second = create(storage, "b");
        second.write_at(b"second", 0).unwrap();
        storage.rename("a", "b").unwrap();
        assert_eq!(error_of(storage.open("a", FileMode::Read)), ErrorKind::NotFound);
        assert_eq!(read(&*storage.open("b", FileMode::Read).unwrap(), 0, 5), b"first");
        assert_eq!(read(&*second, 0, 6), b"second");
        first.write_at(b"F", 0).unwrap();
        assert_eq!(read(&*storage.open("b", FileMode::Read).unwrap(), 0, 5), b"First");
        storage.rename("b", "b").unwrap();
        assert_eq!(error_of(storage.rename("a", "c")), ErrorKind::NotFound);
        assert_eq!(error_of(storage.rename("b", "none/b")), ErrorKind::NotFound);
        assert_eq!(storage.list("").unwrap(), ["b"]);
    });
}

#[test]
fn a_removed_file_lives_on_for_those_who_have_it_open() {
    on_each(|storage| {
        let file = create(storage, "a");
        file.write_at(b"alive", 0).unwrap();
        storage.remove("a").unwrap();
        assert_eq!(error_of(storage.remove("a")), ErrorKind::NotFound);
        assert_eq!(read(&*file, 0, 5), b"alive");
        assert!(create(storage, "a").is_empty().unwrap());
    });
}

#[test]
fn cutting_and_extending_leaves_zeros() {
    on_each(|storage| {
        let file = create(storage, "data");
        file.write_at(&[7; 10_000], 0).unwrap();
        file.set_len(4_100).unwrap();
        file.set_len(10_000).unwrap();
        let mut expected = vec![7; 4_100];
        expected.resize(10_000, 0);
        assert_eq!(read(&*file, 0, 10_000), expected);
        file.set_len(0).unwrap();
        assert!(file.is_empty().unwrap());
    });
}

#[test]
fn allocating_extends_with_zeros_and_keeps_what_is_there() {
    on_each(|storage| {
        let file = create(storage, "data");
        file.write_at(b"data", 100).unwrap();
        file.allocate(0, 64 << 10).unwrap();
        assert_eq!(file.len().unwrap(), 64 << 10);
        assert_eq!(read(&*file, 100, 4), b"data");
        assert_eq!(read(&*file, 104, 1000), [0; 1000]);
        file.allocate(50, 60).unwrap();
        file.allocate(1 << 20, 0).unwrap();
        assert_eq!(file.len().unwrap(), 64 << 10);
        file.allocate(100 << 10, 1).unwrap();
        assert_eq!(file.len().unwrap(), (100 << 10) + 1);
        assert_eq!(read(&*file, 100, 4), b"data");
        assert!(file.allocate(u64::MAX - 5, 10).is_err());
        assert!(file.allocate(1 << 63, 10).is_err());
    });
}

#[test]
fn deallocating_keeps_the_length_and_what_is_around() {
    on_each(|storage| {
        let file = create(storage, "data");
        file.write_at(&[7; 40_000], 0).unwrap();
        file.deallocate(5_000, 20_000).unwrap();
        file.deallocate(30_000, 1 << 30).unwrap();
        file.deallocate(0, 0).unwrap();
        assert_eq!(file.len().unwrap(), 40_000);
        assert_eq!(read(&*file, 0, 5_000), [7; 5_000]);
        assert_eq!(read(&*file, 25_000, 5_000), [7; 5_000]);
        let hole = read(&*file, 5_000, 20_000);
        assert!(hole.iter().all(|&byte| byte == hole[0]) && [0, 7].contains(&hole[0]));
    });
}

#[test]
fn an_exclusive_lock_excludes_everyone_until_it_is_dropped() {
    on_each(|storage| {
        let held = storage.lock("LOCK", false).unwrap();
        assert_eq!(storage.list("").unwrap(), ["LOCK"]);
        for shared in [false, true] {
            assert_eq!(error_of(storage.lock("LOCK", shared)), ErrorKind::WouldBlock);
        }
        drop(held);
        storage.lock("LOCK", false).unwrap();
        storage.lock("LOCK", true).unwrap();
    });
}

#[test]
fn shared_locks_exclude_only_exclusive_ones() {
    on_each(|storage| {
        drop(storage.lock("LOCK", false).unwrap());
        let first = storage.lock("LOCK", true).unwrap();
        let second = storage.lock("LOCK", true).unwrap();
        assert_eq!(error_of(storage.lock("LOCK", false)), ErrorKind::WouldBlock);
        drop(first);
        assert_eq!(error_of(storage.lock("LOCK", false)), ErrorKind::WouldBlock);
        drop(second);
        storage.lock("LOCK", false).unwrap();
    });
}

#[test]
fn a_shared_lock_creates_no_file() {
    on_each(|storage| {
        let _lock = storage.lock("LOCK", true).unwrap();
        assert!(storage.list("").unwrap().is_empty());
    });
}

#[test]
fn stores_into_a_mapping_are_seen_by_readers() {
    on_each(|storage| {
        let file = create(storage, "log");
        file.write_at(&[1; 9_001], 0).unwrap();
        let Some(mapping) = file.map(9_001).unwrap() else { return };
        mapping.store(4_088, b"across a page");
        mapping.store(8_992, b"!");
        mapping.store(9_000, b"");
        drop(file);
        let file = storage.open("log", FileMode::Read).unwrap();
        assert_eq!(read(&*file, 4_087, 14), b"\x01across a page");
        assert_eq!(read(&*file, 8_991, 2), b"\x01!");
        assert_eq!(read(&*file, 9_000, 1), b"\x01");
        assert_eq!(file.len().unwrap(), 9_001);
        for (offset, len) in [(9_000, 1), (8_996, 2), (9_008, 0), (u64::MAX, 1), (0, 9_001)] {
            let store = || mapping.store(offset, &vec![0; len]);
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(store));
            assert!(outcome.is_err(), "{len} bytes at {offset} must be refused");
        }
    });
}

#[test]
fn a_mapping_does_not_reach_beyond_the_file() {
    on_each(|storage| {
        let file = create(storage, "log");
        file.write_at(&[1; 100], 0).unwrap();
        assert!(!matches!(file.map(101), Ok(Some(_))));
    });
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Parts(u64, Vec<Vec<u8>>),
    SetLen(u64),
    Allocate(u64, u64),
    Deallocate(u64, u64),
}

fn change() -> impl Strategy<Value = Change> {
    let offset = || 0..20_000_u64;
    let bytes = || prop::collection::vec(any::<u8>(), 0..6_000);
    prop_oneof![
        (offset(), bytes()).prop_map(|(offset, bytes)| Change::Write(offset, bytes)),
        (offset(), prop::collection::vec(bytes(), 0..4))
            .prop_map(|(offset, parts)| Change::Parts(offset, parts)),
        offset().prop_map(Change::SetLen),
        (offset(), offset()).prop_map(|(offset, len)| Change::Allocate(offset, len)),
        (offset(), offset()).prop_map(|(offset, len)| Change::Deallocate(offset, len)),
    ]
}

fn apply(file: &dyn StorageFile, change: &Change) {
    match change {
        Change::Write(offset, bytes) => file.write_at(bytes, *offset),
        Change::Parts(offset, parts) => {
            file.write_parts_at(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>(), *offset)
        }
        Change::SetLen(len) => file.set_len(*len),
        Change::Allocate(offset, len) => file.allocate(*offset, *len),
        Change::Deallocate(offset, len) => file.deallocate(*offset, *len),
    }
    .unwrap();
}

/// The plainest file there is. A range that was given back reads as zeros, as it does in memory.
fn apply_to_model(model: &mut Vec<u8>, change: &Change) {
    let mut write = |offset: u64, bytes: &[u8]| {
        let range = offset as usize..offset as usize + bytes.len();
        if !bytes.is_empty() {
            model.resize(model.len().max(range.end), 0);
            model[range].copy_from_slice(bytes);
        }
    };
    match change {
        Change::Write(offset, bytes) => write(*offset, bytes),
        Change::Parts(offset, parts) => write(*offset, &parts.concat()),
        Change::SetLen(len) => model.resize(*len as usize, 0),
        Change::Allocate(_, 0) => {}
        Change::Allocate(offset, len) => model.resize(model.len().max((offset + len) as usize), 0),
        Change::Deallocate(offset, len) => {
            let end = model.len().min((offset + len) as usize);
            if let Some(hole) = model.get_mut(*offset as usize..end) {
                hole.fill(0);
            }
        }
    }
}

proptest! {
    #![proptest_config(crate::sampling::config(64))]

    #[test]
    #[cfg_attr(miri, ignore)]
    fn files_in_memory_are_what_the_plainest_model_says(changes in prop::collection::vec(change(), 1..30)) {
        let storage = MemoryStorage::new();
        let file = create(&storage, "data");
        let mut model = Vec::new();
        for change in &changes {
            apply(&*file, change);
            apply_to_model(&mut model, change);
            prop_assert_eq!(file.len().unwrap(), model.len() as u64);
            prop_assert!(read(&*file, 0, model.len()) == model, "bytes differ after {change:?}");
        }
    }

    /// Without giving ranges back, of which file systems may make nothing.
    #[test]
    #[cfg_attr(miri, ignore)]
    fn real_files_are_what_the_plainest_model_says(changes in prop::collection::vec(change(), 1..30)) {
        let directory = tempfile::tempdir().unwrap();
        let file = create(&FileStorage::new(directory.path()), "data");
        let mut model = Vec::new();
        for change in changes.iter().filter(|change| !matches!(change, Change::Deallocate(..))) {
            apply(&*file, change);
            apply_to_model(&mut model, change);
        }
        prop_assert_eq!(file.len().unwrap(), model.len() as u64);
        prop_assert!(read(&*file, 0, model.len()) == model);
    }
}
