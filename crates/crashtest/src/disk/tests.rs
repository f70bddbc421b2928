//! Each way to persist, and each way to fail, does what it says.

use std::io::ErrorKind;
use std::sync::Arc;

use peristyle::{FileMode, StorageBackend, StorageFile};

use super::*;

const SECTOR: usize = 512;

/// A disk with a durable file of two sectors of ones, and a durable directory.
fn fresh() -> (SimulatedDisk, Arc<dyn StorageFile>) {
    let disk = SimulatedDisk::new();
    disk.create_directory("wal").unwrap();
    let file = disk.open("data", FileMode::Create).unwrap();
    file.write_at(&[1; 2 * SECTOR], 0).unwrap();
    file.sync().unwrap();
    disk.sync_directory("").unwrap();
    (disk, file)
}

fn bytes(image: &Image, path: &str) -> Vec<u8> {
    let content = image.file(path).unwrap();
    let mut bytes = vec![0; content.len() as usize];
    content.read(&mut bytes, 0);
    bytes
}

fn read(file: &dyn StorageFile) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn now(disk: &SimulatedDisk, decisions: &mut dyn Decisions) -> Image {
    disk.crash(disk.operations(), decisions)
}

/// Unsynced thing `index` fares as `fate`, all else is lost, or is there.
fn single(index: usize, fate: Fate, others: Fate) -> Single {
    let unwritten = Unwritten::Zeros;
    Single { index, fate, data: others, metadata: others, unwritten, grain: Grain::Sector }
}

#[test]
fn what_was_synced_is_there_whatever_is_decided() {
    let (disk, _) = fresh();
    let image = now(&disk, &mut Nothing);
    assert_eq!(bytes(&image, "data"), [1; 2 * SECTOR]);
    assert_eq!(image.hash(), now(&disk, &mut Everything).hash());
}

#[test]
fn what_was_not_synced_is_there_or_not() {
    let (disk, file) = fresh();
    file.write_at(&[2; SECTOR], 0).unwrap();
    file.write_at(&[3; SECTOR], SECTOR as u64).unwrap();
    assert_eq!(bytes(&now(&disk, &mut Nothing), "data"), [1; 2 * SECTOR]);
    let all = now(&disk, &mut Everything);
    assert_eq!(bytes(&all, "data"), [[2; SECTOR], [3; SECTOR]].concat());
    assert_eq!(all.hash(), disk.cached().hash());
    let only = now(&disk, &mut single(1, Fate::Kept, Fate::Dropped));
    assert_eq!(bytes(&only, "data"), [[1; SECTOR], [3; SECTOR]].concat());
    let but = now(&disk, &mut single(1, Fate::Dropped, Fate::Kept));
    assert_eq!(bytes(&but, "data"), [[2; SECTOR], [1; SECTOR]].concat());
}

#[test]
fn a_crash_in_the_past_knows_nothing_of_what_came_later() {
    let (disk, file) = fresh();
    let before = disk.operations();
    file.write_at(&[2; SECTOR], 0).unwrap();
    file.sync().unwrap();
    assert_eq!(bytes(&disk.crash(before, &mut Everything), "data"), [1; 2 * SECTOR]);
    assert_eq!(bytes(&disk.crash(before + 1, &mut Nothing), "data"), [1; 2 * SECTOR]);
    assert_eq!(bytes(&disk.crash(before + 2, &mut Nothing), "data")[0], 2);
}

#[test]
fn a_write_is_torn_by_sectors_pages_and_bytes() {
    let (disk, file) = fresh();
    file.write_at(&[2; 2 * SECTOR - 100], 50).unwrap();
    let torn = |grain, fate| {
        let decisions = &mut Single { grain, ..single(0, fate, Fate::Kept) };
        bytes(&now(&disk, decisions), "data").iter().map(|&byte| usize::from(byte == 2)).sum::<usize>()
    };
    assert_eq!(torn(Grain::Sector, Fate::Prefix(1)), SECTOR - 50);
    assert_eq!(torn(Grain::Sector, Fate::Suffix(1)), SECTOR - 50);
    assert_eq!(torn(Grain::Page, Fate::Prefix(1)), 2 * SECTOR - 100);
    assert_eq!(torn(Grain::Page, Fate::Suffix(1)), 0);
    assert_eq!(torn(Grain::Byte, Fate::Prefix(3)), 3);
    assert_eq!(torn(Grain::Byte, Fate::Suffix(3)), 2 * SECTOR - 103);
    let picked = torn(Grain::Byte, Fate::Subset(7));
    assert!((200..700).contains(&picked), "{picked}");
}

#[test]
fn writes_reach_the_disk_in_another_order() {
    struct Backward;
    impl Decisions for Backward {
        fn fate(&mut self, _index: usize, _what: Unsynced) -> Fate {
            Fate::Kept
        }

        fn order(&mut self, count: usize) -> Option<Vec<usize>> {
            Some((0..count).rev().collect())
        }
    }
    let (disk, file) = fresh();
    file.write_at(&[2; SECTOR], 0).unwrap();
    file.write_at(&[3; 10], 0).unwrap();
    assert_eq!(bytes(&now(&disk, &mut Everything), "data")[0], 3);
    assert_eq!(bytes(&now(&disk, &mut Backward), "data")[0], 2);
}

#[test]
fn the_length_persists_apart_from_the_data() {
    let (disk, file) = fresh();
    file.write_at(&[2; SECTOR], 2 * SECTOR as u64).unwrap();
    assert_eq!(disk.timeline().unsynced(Grain::Sector), []);
    let mut timeline = disk.timeline();
    timeline.advance(disk.operations());
    assert_eq!(timeline.unsynced(Grain::Sector), [Unsynced::Data { grains: 1 }, Unsynced::Length]);
    let data_alone = now(&disk, &mut single(0, Fate::Kept, Fate::Dropped));
    assert_eq!(bytes(&data_alone, "data").len(), 2 * SECTOR);
    let length_alone = now(&disk, &mut single(1, Fate::Kept, Fate::Dropped));
    assert_eq!(bytes(&length_alone, "data")[2 * SECTOR..], [0; SECTOR]);
    let noisy = Single { unwritten: Unwritten::Noise(1), ..single(1, Fate::Kept, Fate::Dropped) };
    let noise = bytes(&now(&disk, &mut noisy.clone()), "data");
    assert_eq!(noise.len(), 3 * SECTOR);
    assert!(noise[2 * SECTOR..].iter().any(|&byte| byte != 0));
    assert_eq!(noise[..2 * SECTOR], [1; 2 * SECTOR]);
}

#[test]
fn what_a_file_that_is_gone_held_comes_to_light_where_nothing_was_written() {
    let (disk, _) = fresh();
    let old = disk.open("old", FileMode::Create).unwrap();
    old.write_at(&[9; SECTOR], 0).unwrap();
    old.sync().unwrap();
    disk.remove("old").unwrap();
    disk.open("new", FileMode::Create).unwrap().allocate(0, SECTOR as u64).unwrap();
    disk.sync_directory("").unwrap();
    let stale = Single { unwritten: Unwritten::Old(0), ..single(0, Fate::Kept, Fate::Dropped) };
    assert_eq!(bytes(&now(&disk, &mut stale.clone()), "new"), [9; SECTOR]);
    assert_eq!(bytes(&now(&disk, &mut Everything), "new"), [0; SECTOR]);
    assert!(now(&disk, &mut Nothing).file("new").unwrap().is_empty());
}

#[test]
fn entries_persist_when_their_directory_is_synced_and_may_before() {
    let (disk, _) = fresh();
    let file = disk.open("wal/1", FileMode::Create).unwrap();
    file.write_at(b"x", 0).unwrap();
    file.sync().unwrap();
    assert!(now(&disk, &mut Nothing).file("wal/1").is_none(), "a synced file needs an entry all the same");
    assert!(now(&disk, &mut Everything).file("wal/1").is_some());
    disk.sync_directory("").unwrap();
    assert!(now(&disk, &mut Nothing).file("wal/1").is_none(), "another directory was synced");
    disk.sync_directory("wal").unwrap();
    assert!(now(&disk, &mut Nothing).file("wal/1").is_some());
    disk.rename("wal/1", "wal/2").unwrap();
    let (before, after) = (now(&disk, &mut Nothing), now(&disk, &mut Everything));
    assert!(before.file("wal/1").is_some() && before.file("wal/2").is_none());
    assert!(after.file("wal/1").is_none() && after.file("wal/2").is_some());
    disk.sync_directory("wal").unwrap();
    disk.remove("wal/2").unwrap();
    assert!(now(&disk, &mut Nothing).file("wal/2").is_some());
    assert!(now(&disk, &mut Everything).file("wal/2").is_none());
}

#[test]
fn a_file_in_a_directory_whose_own_entry_is_lost_is_lost() {
    let disk = SimulatedDisk::new();
    disk.create_directory("wal").unwrap();
    disk.open("wal/1", FileMode::Create).unwrap();
    disk.sync_directory("wal").unwrap();
    assert!(now(&disk, &mut Nothing).file("wal/1").is_none());
    disk.sync_directory("").unwrap();
    assert!(now(&disk, &mut Nothing).file("wal/1").is_some());
}

#[test]
fn a_cut_and_a_hole_persist_or_not() {
    let (disk, file) = fresh();
    file.set_len(100).unwrap();
    assert_eq!(bytes(&now(&disk, &mut Nothing), "data").len(), 2 * SECTOR);
    assert_eq!(bytes(&now(&disk, &mut Everything), "data").len(), 100);
    file.sync().unwrap();
    file.deallocate(0, 50).unwrap();
    assert_eq!(bytes(&now(&disk, &mut Nothing), "data"), [1; 100]);
    assert_eq!(bytes(&now(&disk, &mut Everything), "data"), [[0; 50], [1; 50]].concat());
}

#[test]
fn after_a_restart_everything_is_read_and_nothing_more_is_durable() {
    let (disk, file) = fresh();
    file.write_at(&[2; SECTOR], 0).unwrap();
    let _lock = disk.lock("LOCK", false).unwrap();
    let next = disk.restart();
    drop(next.lock("LOCK", false).unwrap());
    let again = next.open("data", FileMode::Write).unwrap();
    assert_eq!(read(&*again)[0], 2);
    assert_eq!(bytes(&now(&next, &mut Nothing), "data")[0], 1);
    file.write_at(&[5; SECTOR], 0).unwrap();
    assert_eq!(read(&*again)[0], 2, "the killed process writes no more");
    again.sync().unwrap();
    assert_eq!(bytes(&now(&next, &mut Nothing), "data")[0], 2);
}

fn fail_sync(how: SyncFailure, chosen: Option<u64>) -> (SimulatedDisk, Arc<dyn StorageFile>) {
    let (disk, file) = fresh();
    file.write_at(&[2; SECTOR], 0).unwrap();
    disk.fail(Fault { kind: FaultKind::Sync(how, chosen), nth: 0, lasting: false });
    (disk, file)
}

#[test]
fn a_failed_sync_that_marks_clean_shows_what_no_later_sync_writes() {
    let (disk, file) = fail_sync(SyncFailure::MarkedClean, None);
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
    file.sync().unwrap();
    assert_eq!(read(&*file)[0], 2);
    assert_eq!(bytes(&now(&disk, &mut Everything), "data")[0], 1);
    assert_eq!(disk.restart().open("data", FileMode::Read).map(|file| read(&*file)[0]).unwrap(), 2);
    file.write_at(&[2; 10], 0).unwrap();
    file.sync().unwrap();
    assert_eq!(bytes(&now(&disk, &mut Nothing), "data")[..11], [[2; 10].as_slice(), &[1]].concat());
}

#[test]
fn a_failed_sync_that_reverts_shows_what_is_on_the_disk() {
    let (disk, file) = fail_sync(SyncFailure::Reverted, None);
    file.sync().unwrap_err();
    assert_eq!(read(&*file)[0], 1);
    assert_eq!(bytes(&now(&disk, &mut Everything), "data")[0], 1);
}

#[test]
fn a_failed_sync_that_is_reported_late_succeeds_and_the_next_fails() {
    let (disk, file) = fail_sync(SyncFailure::ReportedLate, None);
    file.sync().unwrap();
    assert_eq!(disk.lied_at(), Some(disk.operations()));
    assert_eq!(bytes(&now(&disk, &mut Everything), "data")[0], 1);
    assert_eq!(read(&*file)[0], 2);
    file.sync().unwrap_err();
    file.sync().unwrap();
}

#[test]
fn of_a_failed_sync_a_part_may_have_reached_the_disk() {
    let (disk, file) = fresh();
    for sector in 0..40 {
        file.write_at(&[2; SECTOR], sector * SECTOR as u64).unwrap();
    }
    let kind = FaultKind::Sync(SyncFailure::MarkedClean, Some(3));
    disk.fail(Fault { kind, nth: 0, lasting: false });
    file.sync().unwrap_err();
    let there = bytes(&now(&disk, &mut Everything), "data");
    let count = there.chunks(SECTOR).filter(|sector| sector[0] == 2).count();
    assert!((5..35).contains(&count), "{count}");
}

#[test]
fn the_nth_call_fails_once_or_from_then_on() {
    for lasting in [false, true] {
        let (disk, file) = fresh();
        disk.fail(Fault { kind: FaultKind::Io, nth: 2, lasting });
        let outcomes: Vec<bool> = (0..5).map(|_| file.write_at(b"x", 0).is_ok()).collect();
        assert_eq!(outcomes, [true, true, false, !lasting, !lasting]);
        assert_eq!((disk.calls(), disk.struck()), (5, if lasting { 3 } else { 1 }));
        disk.heal();
        file.write_at(b"x", 0).unwrap();
    }
}

#[test]
fn a_full_disk_refuses_what_takes_room_and_an_interruption_says_so() {
    let (disk, file) = fresh();
    disk.fail(Fault { kind: FaultKind::NoSpace, nth: 0, lasting: true });
    assert_eq!(file.allocate(0, 9999).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.open("x", FileMode::Create).unwrap_err().kind(), ErrorKind::StorageFull);
    file.sync().unwrap();
    file.set_len(10).unwrap();
    disk.fail(Fault { kind: FaultKind::Interrupted, nth: 0, lasting: true });
    assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::Interrupted);
}

#[test]
fn of_a_short_write_half_arrives() {
    let (disk, file) = fresh();
    disk.fail(Fault { kind: FaultKind::ShortWrite, nth: 0, lasting: false });
    assert_eq!(file.write_at(&[2; 100], 0).unwrap_err().kind(), ErrorKind::WriteZero);
    assert_eq!(read(&*file)[..51], [[2; 50].as_slice(), &[1]].concat());
}

#[test]
fn a_lost_write_and_a_misdirected_one_are_read_right_until_the_crash() {
    for honesty in [Honesty::Lost, Honesty::Misdirected(SECTOR as u64)] {
        let (disk, file) = fresh();
        disk.deceive(0, honesty);
        file.write_at(&[2; 10], 0).unwrap();
        assert!(disk.has_deceived());
        file.sync().unwrap();
        assert_eq!(read(&*file)[0], 2);
        let there = bytes(&now(&disk, &mut Everything), "data");
        assert_eq!(there[0], 1);
        assert_eq!(there[SECTOR], if honesty == Honesty::Lost { 1 } else { 2 });
    }
}

#[test]
fn stores_into_a_mapping_are_writes_like_others() {
    let (disk, file) = fresh();
    let before = disk.operations();
    file.map(SECTOR as u64).unwrap().unwrap().store(8, b"stored");
    assert_eq!(disk.operations(), before + 1);
    assert!(matches!(disk.timeline().operations()[before], Operation::Write { offset: 8, mapped: true, .. }));
    assert_eq!(bytes(&now(&disk, &mut Nothing), "data")[8], 1);
    file.sync().unwrap();
    assert_eq!(&bytes(&now(&disk, &mut Nothing), "data")[8..14], b"stored");
    let (disk, file) = fresh();
    let _disk = disk.with_mappings(false);
    assert!(file.map(SECTOR as u64).unwrap().is_none());
}

#[test]
fn the_same_seed_and_the_same_bytes_decide_alike() {
    let (disk, file) = fresh();
    for number in 0..20u8 {
        file.write_at(&[number; 3 * SECTOR], u64::from(number) * 700).unwrap();
    }
    let images: Vec<u128> = (0..40).map(|seed| now(&disk, &mut RandomDecisions::new(seed)).hash()).collect();
    let again: Vec<u128> = (0..40).map(|seed| now(&disk, &mut RandomDecisions::new(seed)).hash()).collect();
    assert_eq!(images, again);
    let different: std::collections::HashSet<&u128> = images.iter().collect();
    assert!(different.len() > 20, "{}", different.len());
    let choices: Vec<u8> = (0..100u8).map(|n| n.wrapping_mul(37)).collect();
    let by_bytes = || now(&disk, &mut ByteDecisions::new(&choices)).hash();
    assert_eq!(by_bytes(), by_bytes());
    assert_eq!(now(&disk, &mut ByteDecisions::new(&[])).hash(), now(&disk, &mut Nothing).hash());
}
