//! Whose turn it is at shared threads, and what becomes of others if something done for one panics.

use crate::column_family::merging::desk::{DatabaseNumber, Due};
use crate::column_family::options::FamilyOptions;
use crate::db::ColumnFamilyDatabase;
use crate::db::resources::SharedResources;
use crate::db::shared::Shared;
use crate::error::ErrorKind;
use crate::options::Budgets;
use crate::storage::MemoryStorage;
use crate::sync::Arc;
use crate::sync::thread;
use crate::txn::handle::ColumnFamily;

fn resources() -> SharedResources {
    SharedResources::without_threads(Budgets { total: 32 << 20, cache: 16 << 20, write: 8 << 20 })
}

/// A database that nobody looks after yet, with families.
fn open(resources: &SharedResources, families: usize) -> (ColumnFamilyDatabase, Vec<ColumnFamily>) {
    let builder = ColumnFamilyDatabase::builder().shared(resources).page_size(4096);
    let db = builder.storage(MemoryStorage::new()).open_without_threads("memory").unwrap();
    let create = |n| db.create_column_family(&format!("family {n}"), FamilyOptions::default()).unwrap();
    let families = (0..families).map(create).collect();
    (db, families)
}

fn number(db: &ColumnFamilyDatabase) -> DatabaseNumber {
    db.pipeline().database
}

#[test]
fn databases_take_turns_however_much_one_brings() {
    let resources = resources();
    let desk = &resources.crew().desk;
    let (busy, families) = open(&resources, 4);
    let (other, others) = open(&resources, 2);
    let request =
        |db: &ColumnFamilyDatabase, family: &ColumnFamily| db.pipeline().work.request_merge(family.family());
    families.iter().for_each(|family| request(&busy, family));
    [&busy, &other].iter().for_each(|db| desk.admit(number(db)));
    others.iter().for_each(|family| request(&other, family));
    others.iter().for_each(|family| request(&other, family));
    let order: Vec<_> = (0..6)
        .map(|_| {
            let (database, family) = desk.next_merge().unwrap();
            desk.finish_merge(database, &family);
            database
        })
        .collect();
    let (busy_one, other_one) = (number(&busy), number(&other));
    assert_eq!(order, [busy_one, other_one, busy_one, other_one, busy_one, busy_one]);
    // Checkpoints, too; and a database whose checkpoint is under way lets others go first.
    for db in [&busy, &other] {
        db.pipeline().work.request_shorter_log();
        db.pipeline().work.request_checkpoint();
    }
    let due = || desk.next_checkpoint().unwrap();
    assert_eq!(due(), (busy_one, Due::Checkpoint));
    assert_eq!(due(), (other_one, Due::Checkpoint));
    desk.finish_checkpoint(other_one);
    assert_eq!(due(), (other_one, Due::ShorterLog));
    desk.finish_checkpoint(busy_one);
    assert_eq!(due(), (busy_one, Due::ShorterLog));
    [busy_one, other_one].iter().for_each(|database| desk.finish_checkpoint(*database));
    assert!(busy.pipeline().work.is_idle() && other.pipeline().work.is_idle());
}

#[test]
fn a_family_is_merged_by_one_thread_at_a_time_and_a_merge_that_was_put_off_lets_others_go_first() {
    let resources = resources();
    let desk = &resources.crew().desk;
    let (one, families) = open(&resources, 2);
    let work = &one.pipeline().work;
    desk.admit(number(&one));
    let next = || desk.next_merge().unwrap().1;
    work.request_merge(families[0].family());
    let first = next();
    // While it is at that, others come first, though they came later.
    work.request_merge(families[0].family());
    work.request_merge(families[1].family());
    let second = next();
    assert!(Arc::ptr_eq(&second, families[1].family()));
    desk.finish_merge(number(&one), &first);
    let again = next();
    assert!(Arc::ptr_eq(&again, families[0].family()));
    [&second, &again].iter().for_each(|family| desk.finish_merge(number(&one), family));
    work.request_later_merge(families[0].family());
    work.request_merge(families[1].family());
    assert!(Arc::ptr_eq(&next(), families[1].family()));
    assert!(!work.is_idle());
    assert!(Arc::ptr_eq(&next(), families[0].family()), "at last");
}

#[test]
fn a_merge_that_writers_wait_for_overtakes_others_but_none_of_them_for_ever() {
    let resources = resources();
    let desk = &resources.crew().desk;
    let (one, families) = open(&resources, 3);
    let work = &one.pipeline().work;
    desk.admit(number(&one));
    let request = |at: usize| work.request_merge(families[at].family());
    let next = || {
        let (database, family) = desk.next_merge().unwrap();
        desk.finish_merge(database, &family);
        families.iter().position(|other| Arc::ptr_eq(other.family(), &family)).unwrap()
    };
    let wait = |at: usize, memtables| families[at].family().stall.frozen(memtables);
    wait(0, 2);
    wait(1, 3);
    wait(2, 4);
    (0..3).for_each(request);
    assert_eq!([next(), next(), next()], [2, 1, 0], "the least room is left to the last");
    // What is not due is overtaken, though not without end; what is comes in its turn.
    request(0);
    let overtaken = (0..100)
        .take_while(|_| {
            request(1);
            next() == 1
        })
        .count();
    assert!((1..100).contains(&overtaken), "{overtaken} times");
    assert_eq!(next(), 1);
    for (family, memtables) in families.iter().zip([2, 3, 4]) {
        family.family().stall.not_frozen(memtables);
    }
}

#[test]
fn what_a_stopped_database_left_is_gone_and_nobody_waits_for_it() {
    let resources = resources();
    let desk = Arc::clone(&resources.crew().desk);
    let (one, families) = open(&resources, 3);
    let (other, others) = open(&resources, 1);
    [&one, &other].iter().for_each(|db| desk.admit(number(db)));
    families.iter().for_each(|family| one.pipeline().work.request_merge(family.family()));
    one.pipeline().work.request_checkpoint();
    one.pipeline().work.stop();
    families.iter().for_each(|family| one.pipeline().work.request_merge(family.family()));
    assert!(one.pipeline().work.is_idle());
    other.pipeline().work.request_merge(others[0].family());
    assert_eq!(desk.next_merge().unwrap().0, number(&other));
    let waiting = thread::spawn(move || desk.next_merge().is_none());
    resources.crew().dismiss();
    assert!(waiting.join().unwrap());
}

#[test]
fn a_panic_ends_writing_to_the_database_that_it_was_met_for_and_no_other() {
    let resources = resources();
    let crew = resources.crew();
    let ((struck, families), (well, others)) = (open(&resources, 1), open(&resources, 1));
    [&struck, &well].iter().for_each(|db| crew.join(db.shared()));
    let panicking = |_: &Shared| panic!("as a broken invariant would");
    crew.serve(number(&struck), panicking);
    assert_eq!(families[0].put("key", "value").unwrap_err().kind(), ErrorKind::WriteFailed);
    others[0].put("key", "value").unwrap();
    // Others are served; so is the one, as long as it is there: its log is kept, say.
    let mut served = 0;
    [&struck, &well].iter().for_each(|db| crew.serve(number(db), |_| served += 1));
    assert_eq!(served, 2);
    let before = number(&struck);
    drop((struck, families));
    crew.serve(before, |_| served += 1);
    assert_eq!((served, crew.databases().len()), (2, 1));
}

#[test]
fn who_leaves_waits_for_those_who_are_inside() {
    let resources = resources();
    let (db, families) = open(&resources, 1);
    let crew = resources.crew();
    crew.join(db.shared());
    families[0].put("key", "value").unwrap();
    let database = number(&db);
    let (inside, came) = std::sync::mpsc::channel();
    let (let_go, go) = std::sync::mpsc::channel::<()>();
    thread::scope(|scope| {
        // Goes with this closure, so that nobody waits for it for ever.
        let let_go = let_go;
        scope.spawn(move || {
            crew.serve(database, |shared| {
                inside.send(true).unwrap();
                go.recv().unwrap();
                inside.send(shared.lock.lock().is_some()).unwrap();
            });
        });
        came.recv().unwrap();
        let closing = scope.spawn(|| db.close());
        while !crew.databases().is_empty() {
            thread::yield_now();
        }
        // Long enough to end, if it did not wait.
        thread::sleep(std::time::Duration::from_millis(100));
        let_go.send(()).unwrap();
        assert!(came.recv().unwrap(), "its files were given back");
        closing.join().unwrap().unwrap();
    });
}

#[test]
fn a_family_counts_whichever_database_it_is_in_until_that_is_closed() {
    let resources = resources();
    let memory = &resources.crew().memory;
    let (one, _families) = open(&resources, 3);
    let (other, _) = open(&resources, 2);
    assert_eq!(memory.memtable_weights(), 5);
    other.drop_column_family("family 1").unwrap();
    assert_eq!(memory.memtable_weights(), 4);
    one.close().unwrap();
    assert_eq!(memory.memtable_weights(), 1, "handles of the closed one are still there");
    drop(other);
    assert_eq!(memory.memtable_weights(), 0);
}

#[test]
fn replays_under_way_share_what_is_left_for_writing() {
    let resources = resources();
    let memory = &resources.crew().memory;
    let loans: Vec<_> = (0..40).map(|_| memory.lend(2 << 20)).collect();
    assert_eq!(loans[0].bytes, 3 << 20);
    assert_eq!(loans[1].bytes, 3 << 19);
    let least = loans.last().unwrap().bytes;
    assert!(least <= 256 << 10);
    drop(loans);
    assert_eq!(memory.lend(0).bytes, 4 << 20);
    assert_eq!(memory.lend(u64::MAX).bytes, least);
}
