//! A full disk is left from inside: whatever frees something is taken there, in every order.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::random::Random;
use common::storage::TestStorage;
use common::world::{Entries, assert_same};
use common::{assert_clean, cases, shrunken};
use peristyle::{
    ColumnFamily, ColumnFamilyDatabase, DatabaseBuilder, Durability, Error, ErrorKind, FamilyOptions,
    MemoryStorage,
};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// What is done on a full disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    /// Every second key of one family, one by one.
    Deletes,
    /// The lower half of another, by one deletion of a range.
    DeleteRange,
    /// A third family.
    Drop,
    Compact,
    Flush,
    Checkpoint,
    Idle,
    /// Closed and opened again.
    Close,
    /// Dropped and opened again.
    Abandon,
}

const CALLS: [Call; 9] = [
    Call::Deletes,
    Call::DeleteRange,
    Call::Drop,
    Call::Compact,
    Call::Flush,
    Call::Checkpoint,
    Call::Idle,
    Call::Close,
    Call::Abandon,
];

/// A database and what should be in it.
struct Filled {
    open: Box<dyn Fn() -> ColumnFamilyDatabase>,
    db: Option<ColumnFamilyDatabase>,
    models: [Entries; 3],
    durability: Durability,
}

impl Filled {
    fn new(open: impl Fn() -> ColumnFamilyDatabase + 'static, durability: Durability) -> Self {
        let db = Some(open());
        Self { open: Box::new(open), db, models: Default::default(), durability }
    }

    fn db(&self) -> &ColumnFamilyDatabase {
        self.db.as_ref().expect("the database is open")
    }

    fn family(&self, index: usize) -> ColumnFamily {
        self.db().column_family(NAMES[index]).unwrap()
    }

    /// Puts entries of up to `longest` bytes into all families until each has refused several.
    fn fill(&mut self, random: &mut Random, longest: u64) {
        for name in NAMES {
            self.db().create_column_family(name, FamilyOptions::default()).unwrap();
        }
        let families = [0, 1, 2].map(|index| self.family(index));
        let mut refused = [0; 3];
        for n in 0u32.. {
            assert!(n < 10_000_000, "the disk is never full");
            let index = random.below(3) as usize;
            // Ascending in one family, scattered in the others, some of them written anew.
            let key = if index == 0 {
                n
            } else {
                (random.below(u64::from(n) + 100) as u32).wrapping_mul(0x9e37_79b9)
            };
            let value = vec![n as u8; random.below(longest) as usize];
            match families[index].put_with(key.to_be_bytes(), &value, self.durability) {
                Ok(_) => drop(self.models[index].insert(key.to_be_bytes().to_vec(), value.into())),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
                    refused[index] += 1;
                    if refused.iter().all(|&refused| refused >= 3) {
                        return;
                    }
                }
            }
        }
    }

    fn call(&mut self, call: Call) {
        match call {
            Call::Deletes => {
                let family = self.family(0);
                let keys: Vec<_> = self.models[0].keys().step_by(2).cloned().collect();
                for (n, key) in keys.iter().enumerate() {
                    let deleted = family.delete_with(key, self.durability);
                    deleted.unwrap_or_else(|error| panic!("delete {n} of {}: {error}", keys.len()));
                    self.models[0].remove(key);
                }
            }
            Call::DeleteRange => {
                let Some(middle) = self.models[1].keys().nth(self.models[1].len() / 2).cloned() else {
                    return;
                };
                self.family(1).delete_range(..&middle[..]).unwrap();
                self.models[1] = self.models[1].split_off(&middle);
            }
            Call::Drop => {
                self.db().drop_column_family(NAMES[2]).unwrap();
                self.models[2].clear();
            }
            Call::Compact => self.db().compact().unwrap(),
            Call::Flush => self.db().flush().unwrap(),
            Call::Checkpoint => self.db().checkpoint().unwrap(),
            // It wants more than there may be room for.
            Call::Idle => {
                let idle = self.db().wait_until_idle();
                assert!(idle.is_ok() || is_full(&idle), "{idle:?}");
            }
            Call::Close => {
                self.db.take().unwrap().close().unwrap();
                self.db = Some((self.open)());
            }
            Call::Abandon => {
                drop(self.db.take());
                self.db = Some((self.open)());
            }
        }
    }

    fn check(&self) {
        let dropped = self.db().column_family(NAMES[2]).is_err();
        for index in 0..if dropped { 2 } else { 3 } {
            assert_same(&self.family(index).snapshot().unwrap(), &self.models[index]);
        }
        assert_clean(self.db());
    }

    /// There is space again: as many bytes as were deleted, or some of them.
    fn assert_writable(&mut self, entries: u32) {
        let family = self.family(0);
        for n in 0..entries {
            let put = family.put_with(n.to_le_bytes(), [7; 300], self.durability);
            put.unwrap_or_else(|error| panic!("put {n} of {entries}: {error}"));
            self.models[0].insert(n.to_le_bytes().to_vec(), vec![7; 300].into());
        }
        self.check();
    }
}

fn is_full<R>(result: &Result<R, Error>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == ErrorKind::OutOfSpace)
}

/// The calls in an order that is drawn.
fn shuffled(random: &mut Random) -> Vec<Call> {
    let mut calls = CALLS.to_vec();
    for last in (1..calls.len()).rev() {
        calls.swap(last, random.below(last as u64 + 1) as usize);
    }
    calls
}

#[test]
fn a_full_disk_is_left_by_every_order_of_calls() {
    for case in 0..u64::from(cases(9)) {
        let mut random = Random::new(case);
        let capacity = [1 << 20, 2 << 20, 4 << 20][(case % 3) as usize];
        let storage = TestStorage::over(MemoryStorage::with_capacity_limit(capacity));
        let builder =
            move || shrunken().automatic_maintenance(case % 2 == 0).background_threads(1 + case as usize % 2);
        let durability = [Durability::Buffered, Durability::Sync, Durability::None][(case / 2 % 3) as usize];
        let disk = storage.clone();
        let open = move || builder().storage(disk.clone()).open("memory").unwrap();
        let mut filled = Filled::new(open, durability);
        let started = Instant::now();
        filled.fill(&mut random, [400, 1500, 6000][(case / 3 % 3) as usize]);
        let calls = shuffled(&mut random);
        println!(
            "case {case}: {capacity} bytes, {durability:?}, {calls:?}, filled in {:?}",
            started.elapsed()
        );
        for call in calls {
            let started = Instant::now();
            let free = capacity - storage.memory().used_bytes();
            filled.call(call);
            println!("  {call:?}, {free} bytes free, took {:?}", started.elapsed());
        }
        filled.check();
        filled.assert_writable(capacity as u32 / 16 / 300);
        filled.db.take().unwrap().close().unwrap();
    }
}

#[test]
fn processes_that_are_killed_on_a_full_disk_can_be_started_again_for_ever() {
    let full = |storage: &TestStorage| storage.memory().set_capacity_limit(storage.memory().used_bytes());
    let mut storage = TestStorage::over(MemoryStorage::with_capacity_limit(2 << 20));
    let open = |storage: &TestStorage| {
        shrunken().automatic_maintenance(false).storage(storage.clone()).open("memory").unwrap()
    };
    let db = open(&storage);
    let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
    let mut model = Entries::new();
    for n in 0u32.. {
        match family.put(n.to_be_bytes(), [n as u8; 500]) {
            Ok(_) => drop(model.insert(n.to_be_bytes().to_vec(), vec![n as u8; 500].into())),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::OutOfSpace);
                break;
            }
        }
    }
    drop((family, db));
    for _ in 0..20 {
        full(&storage);
        let db = open(&storage);
        let family = db.column_family("family").unwrap();
        assert_same(&family.snapshot().unwrap(), &model);
        let (key, _) = model.pop_first().unwrap();
        family.delete(key).unwrap();
        // What is left of it when it is killed.
        storage = storage.copy();
    }
}

#[test]
fn a_database_without_a_reserve_keeps_nothing() {
    let used = |reserve: Option<u64>| {
        let storage = MemoryStorage::new();
        let builder = ColumnFamilyDatabase::builder().storage(storage.clone());
        let builder = match reserve {
            Some(bytes) => builder.disk_reserve_bytes(bytes),
            None => builder,
        };
        builder.open("memory").unwrap().close().unwrap();
        storage.used_bytes()
    };
    let nothing = used(Some(0));
    assert!(nothing <= 128 << 10, "{nothing}");
    assert!(used(None) >= nothing + (192 << 10));
    let much = used(Some(8 << 20));
    assert!((nothing + (12 << 20)..nothing + (13 << 20)).contains(&much), "{much}");
}

/// The order of the calls that users have with this number, below 120. Neighbouring numbers have orders that
/// differ much.
fn order(number: usize) -> Vec<Call> {
    let mut number = number * 49 % 120;
    let mut left = vec![Call::Deletes, Call::DeleteRange, Call::Drop, Call::Compact, Call::Close];
    let mut order = Vec::new();
    while !left.is_empty() {
        let choices = left.len();
        order.push(left.remove(number % choices));
        number /= choices;
    }
    order
}

#[test]
fn there_are_as_many_orders_as_numbers() {
    let orders: std::collections::BTreeSet<String> =
        (0..120).map(|number| format!("{:?}", order(number))).collect();
    assert_eq!(orders.len(), 120);
}

/// From full to working, in as many orders of calls as `PERISTYLE_CASES` says, 120 of which are all, in the
/// directory that `PERISTYLE_FULL_DISK` names, which should be on a small file system of its own: see
/// `tests/small_disks`. Or in memory of so many bytes: `memory:67108864`. No order begins after
/// `PERISTYLE_SECONDS`, or before that of the number `PERISTYLE_FIRST`.
#[test]
fn a_real_disk_is_left_from_inside() {
    let Ok(place) = std::env::var("PERISTYLE_FULL_DISK") else { return };
    let number = |name: &str| std::env::var(name).ok().map(|number| number.parse::<u64>().unwrap());
    let until = number("PERISTYLE_SECONDS").map(Duration::from_secs);
    let first = number("PERISTYLE_FIRST").unwrap_or(0) as usize;
    let memory = place.strip_prefix("memory:").map(|bytes| bytes.parse().unwrap());
    let directory = Path::new(&place).join("peristyle-test");
    let started = Instant::now();
    for case in first..cases(120) as usize {
        if until.is_some_and(|until| started.elapsed() > until) {
            println!("{} orders in {:?}", case - first, started.elapsed());
            break;
        }
        if memory.is_none() {
            let _ = std::fs::remove_dir_all(&directory);
        }
        let path = directory.clone();
        let storage = memory.map(|bytes| TestStorage::over(MemoryStorage::with_capacity_limit(bytes)));
        let open = move || {
            let builder: DatabaseBuilder =
                ColumnFamilyDatabase::builder().memory_bytes([256 << 20, 8 << 20][case % 2]);
            match storage.clone() {
                Some(storage) => builder.storage(storage).open("memory").unwrap(),
                None => builder.open(&path).unwrap(),
            }
        };
        // Many small entries take long, and their syncs longer.
        let longest = if case % 40 == 7 { 200 } else { [20_000, 2000, 60_000][case % 3] };
        let durability = [Durability::Buffered, Durability::Sync][usize::from(case % 6 == 5)];
        let mut filled = Filled::new(open, durability);
        let began = Instant::now();
        filled.fill(&mut Random::new(case as u64), longest);
        let entries: Vec<_> = filled.models.iter().map(|model| model.len()).collect();
        let calls = order(case % 120);
        println!("case {case}: {entries:?} entries, filled in {:?}, {calls:?}", began.elapsed());
        for call in calls {
            let began = Instant::now();
            filled.call(call);
            println!("  {call:?} took {:?}", began.elapsed());
        }
        let began = Instant::now();
        filled.assert_writable(1000);
        filled.db.take().unwrap().close().unwrap();
        println!("  works and closes, {:?}", began.elapsed());
    }
    if memory.is_none() {
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
