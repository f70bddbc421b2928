//! What the system lacks for a moment (descriptors, memory, room) refuses one operation, and nothing more.

mod common;

use common::random::Random;
use common::storage::{Lack, TestStorage};
use common::world::{Entries, assert_same};
use common::{assert_clean, eventually, shrunken};
use peristyle::{ColumnFamilyDatabase, Durability, Error, ErrorKind, FamilyOptions};

/// A database and what is in it, by name of the family.
struct World {
    db: ColumnFamilyDatabase,
    models: Vec<(&'static str, Entries)>,
    refused: u32,
}

impl World {
    fn open(storage: &TestStorage) -> Result<ColumnFamilyDatabase, Error> {
        shrunken().automatic_maintenance(false).storage(storage.clone()).open("memory")
    }

    /// Whether it was done; else it was refused.
    fn is_done<T>(&mut self, result: Result<T, Error>) -> bool {
        match result {
            Ok(_) => true,
            Err(error) => {
                let kinds = [ErrorKind::OutOfSpace, ErrorKind::OutOfResources];
                assert!(kinds.contains(&error.kind()), "{:?}: {error}", error.kind());
                self.refused += 1;
                false
            }
        }
    }

    fn put(&mut self, index: usize, n: u32, durability: Durability) {
        let (name, _) = self.models[index];
        let value = vec![n as u8; 700];
        let put = self
            .db
            .column_family(name)
            .and_then(|family| family.put_with(n.to_be_bytes(), &value, durability));
        if self.is_done(put) {
            self.models[index].1.insert(n.to_be_bytes().to_vec(), value.into());
        }
    }

    /// A workload in which everything happens that may be refused something.
    fn work(&mut self) {
        for n in 0..120 {
            let durability = if n % 9 == 0 { Durability::Sync } else { Durability::Buffered };
            self.put(n as usize % 2, n, durability);
            if n % 40 == 39 {
                let flushed = self.db.flush();
                self.is_done(flushed);
            }
        }
        // It may be there because it could not be dropped.
        let is_there = self.models.len() == 3;
        let created = is_there || {
            let created = self.db.create_column_family("new", FamilyOptions::default()).map(drop);
            self.is_done(created)
        };
        if created {
            if !is_there {
                self.models.push(("new", Entries::new()));
            }
            self.put(2, 1, Durability::Buffered);
            let dropped = self.db.drop_column_family("new");
            if self.is_done(dropped) {
                self.models.pop();
            }
        }
        let family = self.db.column_family("a").unwrap();
        let deleted = family.delete_range(..40u32.to_be_bytes());
        if self.is_done(deleted) {
            self.models[0].1 = self.models[0].1.split_off(40u32.to_be_bytes().as_slice());
        }
        let checkpoint = self.db.checkpoint();
        self.is_done(checkpoint);
        let compacted = self.db.compact();
        self.is_done(compacted);
        let idle = self.db.wait_until_idle();
        self.is_done(idle);
    }

    fn check(&self) {
        for (name, model) in &self.models {
            assert_same(&self.db.column_family(name).unwrap().snapshot().unwrap(), model);
        }
        assert_eq!(self.db.column_family_names().len(), self.models.len());
        assert_clean(&self.db);
    }
}

fn base() -> TestStorage {
    let storage = TestStorage::new();
    let db = World::open(&storage).unwrap();
    for name in ["a", "b"] {
        db.create_column_family(name, FamilyOptions::default()).unwrap();
    }
    db.close().unwrap();
    storage
}

#[test]
fn what_the_system_lacks_for_a_moment_refuses_what_needs_it_and_ends_nothing() {
    let base = base();
    for lack in Lack::ALL {
        let mut random = Random::new(lack as u64);
        let (mut call, mut refused) = (0, 0);
        loop {
            let times = [1, 2, 20, 1000][random.below(4) as usize];
            let storage = base.copy();
            let models = vec![("a", Entries::new()), ("b", Entries::new())];
            let mut world = World { db: World::open(&storage).unwrap(), models, refused: 0 };
            storage.refuse(lack, call, times);
            world.work();
            let struck = storage.refused();
            storage.heal();
            println!("{lack:?}, {times} from call {call} on: {struck} refused, {} operations", world.refused);
            refused += world.refused;
            // It is over: everything goes on, as soon as what waited a moment to try again has.
            eventually("it goes on", || {
                world.put(0, 999, Durability::Buffered);
                world.put(1, 999, Durability::Buffered);
                world.db.flush().is_ok()
                    && world.models[..2]
                        .iter()
                        .all(|(_, model)| model.contains_key(999u32.to_be_bytes().as_slice()))
            });
            let before = world.refused;
            world.work();
            assert_eq!(world.refused, before, "something is refused though nothing is lacking");
            world.check();
            let World { db, models, .. } = world;
            if random.once_in(2) {
                db.close().unwrap();
            } else {
                drop(db);
            }
            let world = World { db: World::open(&storage).unwrap(), models, refused: 0 };
            world.check();
            if struck == 0 {
                break;
            }
            call += 1 + call / 6;
        }
        // The log may do without longer files: it has some that are kept for a full disk.
        assert!(call > 3 && (refused > 0 || lack == Lack::Length), "{lack:?}");
    }
}

#[test]
fn an_opening_that_is_refused_something_can_be_repeated() {
    let base = base();
    {
        let models = vec![("a", Entries::new()), ("b", Entries::new())];
        let mut world = World { db: World::open(&base).unwrap(), models, refused: 0 };
        (0..60).for_each(|n| world.put(n as usize % 2, n, Durability::Buffered));
    }
    for lack in Lack::ALL {
        for call in 0.. {
            let storage = base.copy();
            storage.refuse(lack, call, 1);
            match World::open(&storage) {
                Ok(_) if storage.refused() == 0 => break,
                Ok(db) => drop(db),
                Err(error) => {
                    let kinds = [ErrorKind::OutOfSpace, ErrorKind::OutOfResources];
                    assert!(kinds.contains(&error.kind()), "{lack:?}, call {call}: {error}");
                }
            }
            storage.heal();
            let db = World::open(&storage).unwrap();
            assert_eq!(db.column_family("a").unwrap().len().unwrap(), 30);
            assert_clean(&db);
        }
    }
}

/// What the kernel itself refuses, in processes of their own.
#[cfg(target_os = "linux")]
mod by_the_kernel {
    use std::io::Read as _;
    use std::path::Path;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::common::child;
    use super::*;

    /// Runs the test `name` in a child that finds `role`; it must end well.
    fn in_child(name: &str, role: &str) {
        let mut child = child::start(&format!("by_the_kernel::{name}"), role);
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}: {said}");
    }

    /// Has the system refuse what is beyond `most` of a resource.
    fn limit(resource: Resource, most: Option<u64>) {
        let maximum = getrlimit(resource).maximum;
        setrlimit(resource, Rlimit { current: most.or(maximum), maximum }).unwrap();
    }

    fn open(path: &Path) -> ColumnFamilyDatabase {
        let builder = ColumnFamilyDatabase::builder().memory_bytes(8 << 20).background_threads(1);
        builder.max_descriptors(64).open(path).unwrap()
    }

    #[test]
    fn without_descriptors_what_is_open_serves_and_it_goes_on() {
        if child::role().is_none() {
            return in_child("without_descriptors_what_is_open_serves_and_it_goes_on", "child");
        }
        let directory = tempfile::tempdir().unwrap();
        let db = open(directory.path());
        let families: Vec<_> = (0..20)
            .map(|n| db.create_column_family(&n.to_string(), FamilyOptions::default()).unwrap())
            .collect();
        families[0].put("key", "value").unwrap();
        db.flush().unwrap();
        // The next descriptor would have the lowest number that is free.
        let free = std::fs::File::open("/dev/null").unwrap();
        let lowest = std::os::fd::AsRawFd::as_raw_fd(&free) as u64;
        drop(free);
        limit(Resource::Nofile, Some(lowest));
        assert!(std::fs::File::open("/dev/null").is_err());
        let (mut done, mut refused) = (0u32, 0);
        for n in 0..20_000u32 {
            match families[n as usize % 20].put(n.to_be_bytes(), [n as u8; 500]) {
                Ok(_) => done += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::OutOfResources, "{error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0 && done > 60, "{done} done, {refused} refused");
        // Families that never had one share the descriptor that is always open.
        assert_eq!(families[0].get("key").unwrap().unwrap(), "value");
        if let Err(error) = db.flush() {
            assert_eq!(error.kind(), ErrorKind::OutOfResources, "{error}");
        }
        limit(Resource::Nofile, None);
        for n in 0..1000u32 {
            families[n as usize % 20].put(n.to_le_bytes(), "again").unwrap();
        }
        db.flush().unwrap();
        assert_clean(&db);
        drop(families);
        db.close().unwrap();
        let db = open(directory.path());
        let entries: u64 = (0..20).map(|n| db.column_family(&n.to_string()).unwrap().len().unwrap()).sum();
        assert!(entries > u64::from(done), "{entries}");
    }

    #[test]
    fn files_that_may_not_become_longer_refuse_puts_and_kill_nobody() {
        if child::role().is_none() {
            return in_child("files_that_may_not_become_longer_refuse_puts_and_kill_nobody", "child");
        }
        let directory = tempfile::tempdir().unwrap();
        let db = open(directory.path());
        let family = db.create_column_family("family", FamilyOptions::default()).unwrap();
        // The signal that comes with it is neither handled nor ignored here.
        limit(Resource::Fsize, Some(2 << 20));
        let put = |from: u32| {
            (from..).find_map(|n| family.put(n.to_be_bytes(), [n as u8; 500]).err().map(|error| (n, error)))
        };
        let (first, error) = put(0).unwrap();
        assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
        assert!(first > 1000, "{first}");
        (0..first).step_by(2).for_each(|n| _ = family.delete(n.to_be_bytes()).unwrap());
        // What needs longer files is refused, and nothing else comes of it.
        if let Err(error) = db.compact() {
            assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
        }
        let again = first + 1;
        limit(Resource::Fsize, None);
        (again..again + 5000).for_each(|n| _ = family.put(n.to_be_bytes(), [n as u8; 500]).unwrap());
        db.flush().unwrap();
        assert_clean(&db);
        drop(family);
        db.close().unwrap();
    }
}
