//! Threads that write, read, walk, keep and change the families of one database at the same time.

mod common;

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;

use common::random::Random;
use common::storage::TestStorage;
use common::{assert_clean, cases, failure, shrunken};
use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, Durability, ErrorKind, FamilyOptions, Iter, MemoryStorage, Snapshot,
    WriteBatch,
};

const FAMILIES: usize = 8;
const WRITERS: usize = 8;
/// Accounts of each writer in each family.
const ACCOUNTS: u64 = 12;
/// What an account holds at first.
const OPENING_BALANCE: u64 = 1000;
/// Entries of its journal that each writer keeps.
const JOURNAL: u64 = 10;

fn account(writer: usize, number: u64) -> Vec<u8> {
    [&b"account"[..], &[writer as u8], &number.to_be_bytes()].concat()
}

fn journal(writer: usize, round: u64) -> Vec<u8> {
    [&b"journal"[..], &[writer as u8], &round.to_be_bytes()].concat()
}

fn balance(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().unwrap())
}

/// A balance, and padding so that memtables, leaves and value runs all have their share.
fn value(balance: u64, random: &mut Random) -> Vec<u8> {
    let padding = match random.below(40) {
        0 => 3000,
        n => n * 4,
    };
    [&balance.to_le_bytes()[..], &vec![7; padding as usize]].concat()
}

fn families(db: &ColumnFamilyDatabase) -> Vec<ColumnFamily> {
    let name = |n| format!("family {n}");
    (0..FAMILIES).map(|n| db.column_family_or_create(&name(n), FamilyOptions::default()).unwrap()).collect()
}

/// Moves money between one writer's accounts: nobody may ever see any on the way.
fn transfer_forever(
    db: &ColumnFamilyDatabase,
    families: &[ColumnFamily],
    writer: usize,
    rounds: u64,
    mut random: Random,
) {
    let mut balances = vec![[OPENING_BALANCE; ACCOUNTS as usize]; FAMILIES];
    let home = &families[writer % FAMILIES];
    for round in 0..rounds {
        let (from, to) = (random.below(FAMILIES as u64) as usize, random.below(FAMILIES as u64) as usize);
        let (payer, payee) = (random.below(ACCOUNTS), random.below(ACCOUNTS));
        let amount = random.below(balances[from][payer as usize] + 1);
        balances[from][payer as usize] -= amount;
        balances[to][payee as usize] += amount;
        let mut batch = WriteBatch::new();
        for (family, number) in [(from, payer), (to, payee)] {
            let value = value(balances[family][number as usize], &mut random);
            batch.put(&families[family], account(writer, number), value);
        }
        batch.put(home, journal(writer, round), value(round, &mut random));
        let kept_from = (round + 1).saturating_sub(JOURNAL);
        batch.delete_range(home, journal(writer, 0)..journal(writer, kept_from));
        let durability = match random.below(16) {
            0 => Durability::Sync,
            1 => Durability::None,
            _ => Durability::Buffered,
        };
        db.write_with(&batch, durability).unwrap();
    }
}

/// Money that each writer has, and the rounds in its journal.
fn audit(snapshot: &Snapshot, families: &[ColumnFamily], backward: bool) -> BTreeMap<usize, (u64, Vec<u64>)> {
    let mut audited: BTreeMap<usize, (u64, Vec<u64>)> = BTreeMap::new();
    for family in families {
        let view = snapshot.column_family(family).unwrap();
        let mut iter = view.iter();
        let mut count = 0;
        while let Some(entry) = if backward { iter.next_back() } else { iter.next() } {
            let (key, value) = entry.unwrap();
            let of = audited.entry(key[7] as usize).or_default();
            if key.starts_with(b"account") {
                of.0 += balance(&value);
            } else {
                of.1.push(balance(&value));
            }
            count += 1;
        }
        assert_eq!(view.len().unwrap(), count);
    }
    audited
}

#[track_caller]
fn assert_balanced(audited: &BTreeMap<usize, (u64, Vec<u64>)>) {
    for (writer, (sum, rounds)) in audited {
        let expected = OPENING_BALANCE * ACCOUNTS * FAMILIES as u64;
        assert_eq!(*sum, expected, "writer {writer}'s accounts do not add up");
        let mut rounds = rounds.clone();
        rounds.sort_unstable();
        if let Some(last) = rounds.last() {
            let first = (last + 1).saturating_sub(JOURNAL);
            assert!(rounds.iter().copied().eq(first..=*last), "writer {writer}'s journal reads {rounds:?}");
        }
    }
}

#[test]
fn nobody_ever_sees_a_part_of_a_batch() {
    let mut random = Random::announced();
    let storage = MemoryStorage::new();
    let open = || shrunken().background_threads(2).storage(storage.clone()).open("memory").unwrap();
    let db = open();
    let families = families(&db);
    let mut opening = WriteBatch::new();
    for writer in 0..WRITERS {
        for family in &families {
            for number in 0..ACCOUNTS {
                opening.put(family, account(writer, number), value(OPENING_BALANCE, &mut random));
            }
        }
    }
    db.write(&opening).unwrap();
    let writing = AtomicUsize::new(WRITERS);
    let rounds = u64::from(cases(250));
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let random = Random::new(random.next());
            let (db, families, writing) = (&db, &families, &writing);
            scope.spawn(move || {
                let _ended = Ended(writing);
                transfer_forever(db, families, writer, rounds, random);
            });
        }
        for reader in 0..2 {
            let (db, families, writing) = (&db, &families, &writing);
            scope.spawn(move || {
                let held = db.snapshot().unwrap();
                let at_first = audit(&held, families, false);
                assert_balanced(&at_first);
                let mut last = held.sequence_number();
                loop {
                    let ending = writing.load(Ordering::SeqCst) == 0;
                    let snapshot = db.snapshot().unwrap();
                    assert!(snapshot.sequence_number() >= last, "time went back");
                    last = snapshot.sequence_number();
                    let audited = audit(&snapshot, families, reader == 1);
                    assert_balanced(&audited);
                    assert_eq!(audit(&snapshot.clone(), families, reader == 0), normal(&audited));
                    if ending {
                        break;
                    }
                }
                // A snapshot from before all that still reads what it read then.
                assert_eq!(audit(&held, families, false), at_first);
            });
        }
        let (db, writing) = (&db, &writing);
        let families = &families;
        scope.spawn(move || {
            let mut round = 0;
            // At least once round, however late this thread comes.
            while round < 5 || writing.load(Ordering::SeqCst) > 0 {
                match round % 5 {
                    0 => db.flush().unwrap(),
                    1 => db.checkpoint().unwrap(),
                    2 => db.compact_column_family(&families[round % FAMILIES]).unwrap(),
                    3 => db.flush_column_family(&families[round % FAMILIES]).unwrap(),
                    _ => assert_clean(db),
                }
                round += 1;
            }
        });
    });
    let last = audit(&db.snapshot().unwrap(), &families, false);
    assert_balanced(&last);
    assert_clean(&db);
    let statistics = db.statistics();
    assert!(statistics.merges > 0 && statistics.checkpoints > 0, "{statistics:?}");
    drop((families, db));
    let db = open();
    assert_eq!(audit(&db.snapshot().unwrap(), &self::families(&db), false), last);
    assert_clean(&db);
}

/// An audit reads journals in the order of its walk; two walks of one moment agree up to that order.
fn normal(audited: &BTreeMap<usize, (u64, Vec<u64>)>) -> BTreeMap<usize, (u64, Vec<u64>)> {
    let turned = audited.iter().map(|(writer, (sum, rounds))| {
        let mut rounds = rounds.clone();
        rounds.reverse();
        (*writer, (*sum, rounds))
    });
    turned.collect()
}

/// Counts a thread down, also when it panics, so that nobody waits for it in vain.
struct Ended<'a>(&'a AtomicUsize);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn what_is_acknowledged_is_read_at_once_by_everybody() {
    let db = shrunken().storage(MemoryStorage::new()).open("memory").unwrap();
    let families = families(&db);
    let acknowledged: Vec<_> = (0..FAMILIES).map(|_| AtomicU64::new(0)).collect();
    let writing = AtomicUsize::new(FAMILIES);
    let rounds = u64::from(cases(400));
    std::thread::scope(|scope| {
        for (family, acknowledged) in families.iter().zip(&acknowledged) {
            let writing = &writing;
            scope.spawn(move || {
                let _ended = Ended(writing);
                for round in 1..=rounds {
                    let mut value = vec![0; 8 + (round % 300) as usize];
                    value[..8].copy_from_slice(&round.to_le_bytes());
                    family.put("counter", &value).unwrap();
                    acknowledged.store(round, Ordering::SeqCst);
                    assert_eq!(balance(&family.get("counter").unwrap().unwrap()), round);
                    family.put(round.to_be_bytes(), value).unwrap();
                    family.delete((round - 1).to_be_bytes()).unwrap();
                    assert!(!family.contains_key((round - 1).to_be_bytes()).unwrap());
                }
            });
        }
        for _ in 0..2 {
            let (families, acknowledged, writing) = (&families, &acknowledged, &writing);
            scope.spawn(move || {
                while writing.load(Ordering::SeqCst) > 0 {
                    for (family, acknowledged) in families.iter().zip(acknowledged) {
                        let before = acknowledged.load(Ordering::SeqCst);
                        let read = family.get("counter").unwrap().map_or(0, |value| balance(&value));
                        assert!(read >= before, "read {read} after {before} was acknowledged");
                        let snapshot = family.snapshot().unwrap();
                        let held = snapshot.get("counter").unwrap().map_or(0, |value| balance(&value));
                        assert!(held >= read, "a snapshot saw {held} after {read} was read");
                        let len = snapshot.len().unwrap();
                        assert_eq!(len, snapshot.iter().collect::<Result<Vec<_>, _>>().unwrap().len() as u64);
                        // The counter, and one or two numbered entries.
                        assert!(len <= 3, "{len} entries");
                    }
                }
            });
        }
    });
    assert_clean(&db);
}

/// A commit that waits for its sync is visible before it is acknowledged, and holds up no commit of any other
/// family or durability.
#[test]
fn a_commit_that_waits_for_its_sync_holds_up_nobody_else() {
    let storage = TestStorage::new();
    let db = ColumnFamilyDatabase::builder().storage(storage.clone()).open("memory").unwrap();
    let slow = db.create_column_family("slow", FamilyOptions::default()).unwrap();
    let quick = db.create_column_family("quick", FamilyOptions::default()).unwrap();
    let acknowledged = AtomicU64::new(0);
    std::thread::scope(|scope| {
        storage.with_syncs_held_up(|| {
            scope.spawn(|| {
                slow.put_with("key", "synced", Durability::Sync).unwrap();
                acknowledged.store(1, Ordering::SeqCst);
            });
            while slow.get("key").unwrap().is_none() {
                std::thread::yield_now();
            }
            // More than there are slots for commits that are not complete.
            for n in 0..10_000u32 {
                quick.put(n.to_be_bytes(), "buffered").unwrap();
            }
            let mut batch = WriteBatch::new();
            batch.put(&slow, "other", "buffered").put(&quick, "other", "buffered");
            db.write(&batch).unwrap();
            let snapshot = db.snapshot().unwrap();
            assert_eq!(snapshot.get(&slow, "key").unwrap().unwrap(), "synced");
            assert_eq!(snapshot.column_family(&quick).unwrap().len().unwrap(), 10_001);
            assert_eq!(acknowledged.load(Ordering::SeqCst), 0, "acknowledged before it was synced");
        });
    });
    assert_eq!(acknowledged.load(Ordering::SeqCst), 1);
    db.close().unwrap();
}

#[test]
fn iterators_are_walked_from_both_ends_in_other_threads_while_all_changes() {
    let mut random = Random::announced();
    let db = shrunken().storage(MemoryStorage::new()).open("memory").unwrap();
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    type Task = (Iter, BTreeMap<Vec<u8>, Vec<u8>>, Random);
    let (tasks, received) = mpsc::sync_channel::<Task>(4);
    let received = std::sync::Mutex::new(received);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let received = &received;
            scope.spawn(move || {
                loop {
                    let Ok((mut iter, model, mut random)) = received.lock().unwrap().recv() else { break };
                    let mut model = model.into_iter();
                    loop {
                        let (found, expected) = if random.once_in(2) {
                            (iter.next(), model.next())
                        } else {
                            (iter.next_back(), model.next_back())
                        };
                        let found =
                            found.transpose().unwrap().map(|(key, value)| (key.to_vec(), value.to_vec()));
                        assert!(found == expected, "an iterator went astray");
                        if expected.is_none() {
                            break;
                        }
                    }
                }
            });
        }
        for round in 0..u64::from(cases(60)) {
            for _ in 0..20 {
                let key = (random.below(500) as u32).to_be_bytes().to_vec();
                match random.below(8) {
                    0 => {
                        family.delete(&key).unwrap();
                        model.remove(&key);
                    }
                    1 if random.once_in(4) => {
                        let end =
                            (u32::from_be_bytes(key[..].try_into().unwrap()) + 50).to_be_bytes().to_vec();
                        family.delete_range(&key[..]..&end[..]).unwrap();
                        model.retain(|other, _| *other < key || *other >= end);
                    }
                    _ => {
                        let value = value(random.next(), &mut random);
                        family.put(&key, &value).unwrap();
                        model.insert(key, value);
                    }
                }
            }
            if tasks.send((family.iter().unwrap(), model.clone(), Random::new(random.next()))).is_err() {
                break;
            }
            match round % 10 {
                3 => db.flush().unwrap(),
                7 => db.compact().unwrap(),
                _ => {}
            }
        }
        drop(tasks);
    });
    assert_clean(&db);
}

#[test]
fn families_are_created_and_dropped_while_others_are_written_read_and_kept() {
    let storage = MemoryStorage::new();
    let open = || shrunken().background_threads(2).storage(storage.clone()).open("memory").unwrap();
    let db = open();
    let steady = db.create_column_family("steady", FamilyOptions::default()).unwrap();
    let rounds = cases(12).min(60);
    let working = AtomicUsize::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let (db, steady, working) = (&db, &steady, &working);
            scope.spawn(move || {
                let _ended = Ended(working);
                for round in 0..rounds {
                    let name = format!("thread {thread} round {round}");
                    let family = db.create_column_family(&name, FamilyOptions::default()).unwrap();
                    for n in 0..60u32 {
                        let mut batch = WriteBatch::new();
                        let key = [&thread.to_be_bytes()[..], &n.to_be_bytes()].concat();
                        batch.put(&family, &key, [n as u8; 200]).put(steady, &key, round.to_be_bytes());
                        db.write(&batch).unwrap();
                    }
                    let snapshot = db.snapshot().unwrap();
                    assert_eq!(family.len().unwrap(), 60);
                    let renamed = format!("{name} renamed");
                    db.rename_column_family(&name, &renamed).unwrap();
                    if round % 3 != 0 {
                        db.drop_column_family(&renamed).unwrap();
                        failure(family.put("key", "value"), ErrorKind::FamilyDropped);
                    }
                    assert_eq!(snapshot.column_family(&family).unwrap().iter().count(), 60);
                }
            });
        }
        let (db, steady, working) = (&db, &steady, &working);
        scope.spawn(move || {
            while working.load(Ordering::SeqCst) > 0 {
                db.flush().unwrap();
                db.compact().unwrap();
                assert_clean(db);
            }
        });
        scope.spawn(move || {
            while working.load(Ordering::SeqCst) > 0 {
                for name in db.column_family_names() {
                    // It may be gone, or renamed, by now.
                    let Ok(family) = db.column_family(&name) else { continue };
                    match family.iter() {
                        Ok(iter) => assert!(iter.collect::<Result<Vec<_>, _>>().unwrap().len() <= 4 * 60),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::FamilyDropped, "{error}"),
                    }
                }
                assert!(steady.len().unwrap() <= 4 * 60);
            }
        });
    });
    let mut expected: Vec<_> = (0..4)
        .flat_map(|thread| {
            (0..rounds).step_by(3).map(move |round| format!("thread {thread} round {round} renamed"))
        })
        .chain(["steady".into()])
        .collect();
    expected.sort_unstable();
    assert_eq!(db.column_family_names(), expected);
    assert_clean(&db);
    drop((steady, db));
    let db = open();
    assert_eq!(db.column_family_names(), expected);
    for name in &expected {
        let entries = if name == "steady" { 240 } else { 60 };
        assert_eq!(db.column_family(name).unwrap().len().unwrap(), entries, "{name}");
    }
    assert_clean(&db);
}

#[test]
fn of_several_threads_that_create_one_name_exactly_one_succeeds() {
    let db = shrunken().storage(MemoryStorage::new()).open("memory").unwrap();
    let barrier = Barrier::new(4);
    for round in 0..10 {
        let name = format!("round {round}");
        let created = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    barrier.wait();
                    match db.create_column_family(&name, FamilyOptions::default()) {
                        Ok(_) => drop(created.fetch_add(1, Ordering::SeqCst)),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::FamilyExists, "{error}"),
                    }
                    db.column_family_or_create(&name, FamilyOptions::default()).unwrap();
                });
            }
        });
        assert_eq!(created.into_inner(), 1);
    }
}

#[test]
fn closing_while_others_write_keeps_what_was_acknowledged() {
    for automatic in [false, true] {
        let storage = MemoryStorage::new();
        let open =
            || shrunken().automatic_maintenance(automatic).storage(storage.clone()).open("memory").unwrap();
        let db = open();
        let families = families(&db);
        let acknowledged: Vec<_> = (0..FAMILIES).map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            for (n, (family, acknowledged)) in families.iter().zip(&acknowledged).enumerate() {
                let other = &families[(n + 1) % FAMILIES];
                let db = db.clone();
                scope.spawn(move || {
                    for round in 1u64.. {
                        let durability =
                            [Durability::None, Durability::Buffered, Durability::Sync][(round % 3) as usize];
                        let mut batch = WriteBatch::new();
                        batch.put(family, round.to_be_bytes(), [1; 100]);
                        batch.put(other, [n as u8], round.to_be_bytes());
                        match db.write_with(&batch, durability) {
                            Ok(_) => acknowledged.store(round, Ordering::SeqCst),
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                                break;
                            }
                        }
                    }
                });
            }
            while acknowledged.iter().any(|rounds| rounds.load(Ordering::SeqCst) < 100) {
                std::thread::yield_now();
            }
            db.clone().close().unwrap();
        });
        drop((families, db));
        let db = open();
        assert_eq!(db.recovery_report().records_applied, 0);
        let families = self::families(&db);
        for (n, (family, acknowledged)) in families.iter().zip(&acknowledged).enumerate() {
            let rounds = acknowledged.load(Ordering::SeqCst);
            // Those that were acknowledged, and the note that the neighbour left.
            assert_eq!(family.len().unwrap(), rounds + 1);
            let noted = families[(n + 1) % FAMILIES].get([n as u8]).unwrap().unwrap();
            assert_eq!(noted, rounds.to_be_bytes());
        }
        assert_clean(&db);
    }
}
