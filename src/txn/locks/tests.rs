//! What locks do, one situation at a time.

use std::time::Duration;

use super::owner::Owner;
use super::table::{LockTable, Refusal};
use super::want::{Edge, Mode, Want};
use crate::codec::ids::FamilyId;
use crate::error::LockOwner;
use crate::sync::{Arc, Instant, thread};
use crate::txn::keys::Keys;

const FAMILY: FamilyId = FamilyId(3);
/// Longer than anybody has to wait, unless he is forgotten.
const LONG: Duration = Duration::from_secs(60);

fn key(key: &str, mode: Mode) -> Vec<Want> {
    vec![Want::new(FAMILY, Keys::One(key.as_bytes()), mode)]
}

fn range(start: &str, end: Option<&str>, mode: Mode) -> Vec<Want> {
    vec![Want::new(FAMILY, Keys::Range(start.as_bytes(), end.map(str::as_bytes)), mode)]
}

fn owners<const N: usize>(table: &Arc<LockTable>) -> [Owner; N] {
    std::array::from_fn(|_| owner(table).0)
}

fn owner(table: &Arc<LockTable>) -> (Owner, LockOwner) {
    let who = LockOwner::Transaction(table.new_number());
    (Owner::new(table, who), who)
}

fn write(table: &Arc<LockTable>) -> Owner {
    Owner::new(table, LockOwner::Write(table.new_number()))
}

fn at_once(owner: &mut Owner, wants: Vec<Want>) -> bool {
    match owner.acquire(wants, Duration::ZERO) {
        Ok(_) => true,
        Err(Refusal::Timeout(_)) => false,
        Err(other) => panic!("{other:?}"),
    }
}

/// Returns when `waiting` wait.
fn until_waiting(table: &LockTable, waiting: u64) {
    let since = Instant::now();
    while table.counts().waiting != waiting {
        assert!(since.elapsed() < LONG, "{waiting} do not come to wait");
        thread::yield_now();
    }
}

#[test]
fn what_an_owner_holds_is_listed_once_with_what_it_was_raised_to() {
    let table = Arc::default();
    let [mut a, mut b] = owners(&table);
    assert!(at_once(&mut a, key("k", Mode::Shared)));
    assert!(at_once(&mut b, range("a", Some("c"), Mode::Shared)));
    assert!(at_once(&mut a, range("a", Some("b"), Mode::Shared)));
    let mark = a.mark();
    assert!(at_once(&mut a, key("k", Mode::Exclusive)));
    assert!(at_once(&mut a, range("m", None, Mode::Exclusive)));
    assert!(at_once(&mut a, range("m", None, Mode::Shared)));
    let (shared, raised) = (key("k", Mode::Shared), key("k", Mode::Exclusive));
    let rest = range("a", Some("b"), Mode::Shared);
    assert_eq!(a.locks(), [raised, rest.clone(), range("m", None, Mode::Exclusive)].concat());
    a.release(mark);
    assert_eq!(a.locks(), [shared, rest].concat());
    assert_eq!(b.locks(), range("a", Some("c"), Mode::Shared));
    // Of two with the same bounds each gives up his own.
    let [mut c, mut d] = owners(&table);
    assert!(at_once(&mut c, range("x", Some("y"), Mode::Shared)));
    assert!(at_once(&mut d, range("x", Some("y"), Mode::Shared)));
    drop(d);
    assert_eq!(c.locks(), range("x", Some("y"), Mode::Shared));
}

#[test]
fn shared_locks_go_together_and_exclusive_ones_with_none() {
    let table = Arc::default();
    let [mut a, mut b, mut c] = owners(&table);
    assert!(at_once(&mut a, key("k", Mode::Shared)));
    assert!(at_once(&mut b, key("k", Mode::Shared)));
    assert!(!at_once(&mut c, key("k", Mode::Exclusive)));
    assert!(at_once(&mut c, key("l", Mode::Exclusive)));
    assert!(!at_once(&mut a, key("l", Mode::Shared)));
    assert!(at_once(&mut a, vec![Want::new(FamilyId(4), Keys::One(b"l"), Mode::Exclusive)]));
    drop(c);
    assert!(at_once(&mut a, key("l", Mode::Shared)));
    assert_eq!(table.counts().held, 4);
    assert_eq!(table.counts().timeouts, 2);
}

#[test]
fn ranges_meet_keys_and_ranges_that_they_share_keys_with() {
    let table = Arc::default();
    let [mut a, mut b] = owners(&table);
    assert!(at_once(&mut a, range("f", Some("m"), Mode::Exclusive)));
    for (wants, is_free) in [
        (key("e", Mode::Shared), true),
        (key("f", Mode::Shared), false),
        (key("lz", Mode::Shared), false),
        (key("m", Mode::Shared), true),
        (range("a", Some("f"), Mode::Exclusive), true),
        (range("a", Some("f\0"), Mode::Exclusive), false),
        (range("m", None, Mode::Exclusive), true),
        (range("l", None, Mode::Exclusive), false),
    ] {
        assert_eq!(at_once(&mut b, wants.clone()), is_free, "{wants:?}");
    }
    // What is in an own range is locked already, what reaches beyond it is not.
    assert_eq!(a.acquire(key("g", Mode::Exclusive), LONG), Ok(false));
    assert_eq!(a.acquire(range("g", Some("h"), Mode::Exclusive), LONG), Ok(false));
    assert!(!at_once(&mut a, range("g", Some("n"), Mode::Exclusive)));
    drop(b);
    assert!(at_once(&mut a, range("g", Some("n"), Mode::Exclusive)));
}

#[test]
fn who_came_first_goes_first() {
    let table: Arc<LockTable> = Arc::default();
    let (mut first, who) = owner(&table);
    assert!(at_once(&mut first, key("k", Mode::Shared)));
    let order = crate::sync::Mutex::new(Vec::new());
    thread::scope(|scope| {
        for (number, mode) in [(1, Mode::Exclusive), (2, Mode::Shared), (3, Mode::Exclusive)] {
            let (table, order) = (&table, &order);
            scope.spawn(move || {
                let (mut owner, _) = owner(table);
                assert_eq!(owner.acquire(key("k", mode), LONG), Ok(true));
                order.lock().push(number);
            });
            until_waiting(table, number);
        }
        // The second would go with the present holder, but not before the first who waits.
        let waits = table.list().1;
        assert_eq!(waits.iter().filter(|edge| edge.waits_for == who).count(), 2);
        drop(first);
    });
    assert_eq!(*order.lock(), [1, 2, 3]);
    let counts = table.counts();
    assert_eq!((counts.waits, counts.waiting, counts.held), (3, 0, 0));
    assert!(!counts.waited.is_zero());
}

#[test]
fn who_has_a_shared_lock_gets_the_exclusive_one_before_those_who_wait() {
    let table: Arc<LockTable> = Arc::default();
    let [mut a, mut b, mut c] = owners(&table);
    assert!(at_once(&mut a, key("k", Mode::Shared)) && at_once(&mut b, key("k", Mode::Shared)));
    thread::scope(|scope| {
        let waits = scope.spawn(|| {
            assert_eq!(c.acquire(key("k", Mode::Exclusive), LONG), Ok(true));
            c
        });
        until_waiting(&table, 1);
        let upgrades = scope.spawn(|| {
            assert_eq!(a.acquire(key("k", Mode::Exclusive), LONG), Ok(true));
            a
        });
        until_waiting(&table, 2);
        drop(b);
        let a = upgrades.join().unwrap();
        assert!(!waits.is_finished());
        drop(a);
        drop(waits.join().unwrap());
    });
}

#[test]
fn two_who_share_and_both_want_more_are_a_deadlock() {
    let table: Arc<LockTable> = Arc::default();
    let ((mut a, first), (mut b, second)) = (owner(&table), owner(&table));
    let who = [first, second];
    assert!(at_once(&mut a, key("k", Mode::Shared)) && at_once(&mut b, key("k", Mode::Shared)));
    thread::scope(|scope| {
        let waits = scope.spawn(move || a.acquire(key("k", Mode::Exclusive), LONG));
        until_waiting(&table, 1);
        let refused = b.acquire(key("k", Mode::Exclusive), LONG).unwrap_err();
        let want = key("k", Mode::Exclusive).remove(0);
        let edge = |owner, waits_for| Edge { owner, want: want.clone(), waits_for };
        assert_eq!(refused, Refusal::Deadlock(vec![edge(who[1], who[0]), edge(who[0], who[1])]));
        drop(b);
        assert_eq!(waits.join().unwrap(), Ok(true));
    });
    assert_eq!(table.counts().deadlocks, 1);
}

#[test]
fn a_circle_of_three_is_named_as_a_whole() {
    let table: Arc<LockTable> = Arc::default();
    let ((mut a, first), (mut b, second), (mut c, third)) = (owner(&table), owner(&table), owner(&table));
    let who = [first, second, third];
    for (owner, has) in [(&mut a, "a"), (&mut b, "b"), (&mut c, "c")] {
        assert!(at_once(owner, key(has, Mode::Exclusive)));
    }
    thread::scope(|scope| {
        scope.spawn(move || a.acquire(key("b", Mode::Shared), LONG));
        until_waiting(&table, 1);
        scope.spawn(move || b.acquire(range("c", None, Mode::Exclusive), LONG));
        until_waiting(&table, 2);
        let Err(Refusal::Deadlock(circle)) = c.acquire(key("a", Mode::Exclusive), LONG) else { panic!() };
        let said: Vec<_> =
            circle.iter().map(|edge| (edge.owner, edge.waits_for, vec![edge.want.clone()])).collect();
        assert_eq!(
            said,
            [
                (who[2], who[0], key("a", Mode::Exclusive)),
                (who[0], who[1], key("b", Mode::Shared)),
                (who[1], who[2], range("c", None, Mode::Exclusive)),
            ]
        );
        drop(c);
    });
    assert_eq!(table.counts().held, 0);
}

#[test]
fn who_waits_in_line_only_is_no_deadlock() {
    let table: Arc<LockTable> = Arc::default();
    let [mut a, mut b] = owners(&table);
    assert!(at_once(&mut a, key("b", Mode::Exclusive)));
    thread::scope(|scope| {
        // Wants both, has none: `a` may take what nobody has, although somebody waits for it.
        let both = [key("a", Mode::Exclusive), key("b", Mode::Exclusive)].concat();
        let waits = scope.spawn(move || b.acquire(both, LONG));
        until_waiting(&table, 1);
        assert!(at_once(&mut a, key("a", Mode::Exclusive)));
        assert!(!waits.is_finished());
        drop(a);
        assert_eq!(waits.join().unwrap(), Ok(true));
    });
}

#[test]
fn what_is_not_free_in_time_is_refused_and_those_behind_go_on() {
    let table: Arc<LockTable> = Arc::default();
    let (mut a, who) = owner(&table);
    let [mut b, mut c] = owners(&table);
    assert!(at_once(&mut a, key("k", Mode::Shared)));
    thread::scope(|scope| {
        let gives_up = scope.spawn(|| b.acquire(key("k", Mode::Exclusive), Duration::from_millis(50)));
        until_waiting(&table, 1);
        // In line behind who gives up.
        assert_eq!(c.acquire(key("k", Mode::Shared), LONG), Ok(true));
        let Err(Refusal::Timeout(edges)) = gives_up.join().unwrap() else { panic!() };
        assert_eq!(edges[0].waits_for, who);
    });
    assert_eq!(table.counts().timeouts, 1);
}

#[test]
fn what_was_taken_since_a_mark_is_given_up_and_no_more() {
    let table = Arc::default();
    let [mut a, mut b] = owners(&table);
    assert!(at_once(&mut a, key("before", Mode::Exclusive)) && at_once(&mut a, key("raised", Mode::Shared)));
    let mark = a.mark();
    assert!(
        at_once(&mut a, key("raised", Mode::Exclusive)) && at_once(&mut a, key("since", Mode::Exclusive))
    );
    assert!(at_once(&mut a, range("x", None, Mode::Exclusive)));
    assert!(!at_once(&mut b, key("raised", Mode::Shared)) && !at_once(&mut b, key("y", Mode::Shared)));
    a.release(mark);
    assert!(at_once(&mut b, key("raised", Mode::Shared)) && at_once(&mut b, key("since", Mode::Exclusive)));
    assert!(at_once(&mut b, key("y", Mode::Exclusive)));
    assert!(
        !at_once(&mut b, key("raised", Mode::Exclusive)) && !at_once(&mut b, key("before", Mode::Shared))
    );
}

#[test]
fn plain_writes_go_with_each_other_and_leave_no_mark() {
    let table: Arc<LockTable> = Arc::default();
    let [mut a] = owners(&table);
    let writes = || [(FAMILY, Keys::One(b"k"))].into_iter();
    let (mut one, mut other) = (write(&table), write(&table));
    assert!(at_once(&mut one, key("k", Mode::Write)) && at_once(&mut other, range("a", None, Mode::Write)));
    assert!(!table.is_marked(FAMILY) && !table.keeps_from(writes()));
    assert!(!at_once(&mut a, key("k", Mode::Shared)) && !at_once(&mut a, key("q", Mode::Exclusive)));
    drop((one, other));
    assert!(at_once(&mut a, key("k", Mode::Shared)));
    assert!(table.is_marked(FAMILY) && table.keeps_from(writes()));
    assert!(!table.keeps_from([(FAMILY, Keys::One(b"l"))].into_iter()));
    assert!(table.keeps_from([(FAMILY, Keys::Range(b"a", None))].into_iter()));
    drop(a);
    assert!(!table.is_marked(FAMILY));
}

#[test]
fn nobody_waits_for_locks_of_a_database_that_is_closed() {
    let table: Arc<LockTable> = Arc::default();
    let [mut a, mut b] = owners(&table);
    assert!(at_once(&mut a, key("k", Mode::Exclusive)));
    thread::scope(|scope| {
        let waits = scope.spawn(move || b.acquire(key("k", Mode::Shared), Duration::MAX));
        until_waiting(&table, 1);
        table.close();
        assert_eq!(waits.join().unwrap(), Err(Refusal::Closed));
    });
    assert_eq!(a.acquire(key("other", Mode::Shared), LONG), Err(Refusal::Closed));
}
