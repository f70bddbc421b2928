//! Histories of many transactions at once: interleaved by chance in one thread, the same ones for the same
//! seed, and by several threads.

use std::thread;
use std::time::Duration;

use peristyle::{ColumnFamily, ColumnFamilyDatabase, FamilyOptions, IsolationLevel, LockedWrites};

use crate::common::random::Random;
use crate::common::storage::TestStorage;
use crate::common::{assert_clean, cases, shrunken};
use crate::history::{History, State};
use crate::player::{FAMILIES, Manner, Player, Undecided, decode};

const PLAYERS: u32 = 4;

/// For how long a player in a thread of his own waits for a lock.
const PATIENCE: Duration = Duration::from_millis(20);

const SERIALIZABLE: Manner = Manner {
    level: IsolationLevel::Serializable,
    untracked: false,
    locks: false,
    pretends: false,
    prepares: false,
    patience: Duration::ZERO,
};
const SNAPSHOT: Manner = Manner { level: IsolationLevel::Snapshot, ..SERIALIZABLE };
const READ_COMMITTED: Manner = Manner { level: IsolationLevel::ReadCommitted, ..SERIALIZABLE };

fn preparing(manner: Manner) -> Manner {
    Manner { prepares: true, ..manner }
}

fn locking(manner: Manner, patience: Duration) -> Manner {
    Manner { locks: true, patience, ..manner }
}

fn open(storage: &TestStorage, manner: Manner) -> ColumnFamilyDatabase {
    let builder = shrunken().locked_writes(LockedWrites::Wait(manner.patience));
    builder.decision_wait(manner.patience).storage(storage.clone()).open("memory").unwrap()
}

fn families(db: &ColumnFamilyDatabase) -> Vec<ColumnFamily> {
    let name = |n| format!("family {n}");
    (0..FAMILIES).map(|n| db.column_family_or_create(&name(n), FamilyOptions::default()).unwrap()).collect()
}

fn read(families: &[ColumnFamily]) -> State {
    let mut state = State::new();
    for (number, family) in families.iter().enumerate() {
        for entry in family.iter().unwrap() {
            let (key, value) = entry.unwrap();
            state.insert((number as u8, key[0]), decode(&value));
        }
    }
    state
}

/// Players in one thread, each of whom does a step when chance calls on him.
fn interleaved(manner: Manner, seed: u64, steps: u32) -> History {
    let storage = TestStorage::new();
    let db = open(&storage, manner);
    let families = families(&db);
    let mut random = Random::new(seed);
    let mut players: Vec<_> = (0..PLAYERS)
        .map(|number| Player::new(number, manner, Random::new(random.next()), families.clone()))
        .collect();
    for _ in 0..steps {
        players[random.below(u64::from(PLAYERS)) as usize].step(&db);
        match random.below(200) {
            0 => db.flush().unwrap(),
            1 => db.checkpoint().unwrap(),
            _ => {}
        }
    }
    for player in &mut players {
        while !player.undecided.is_empty() {
            player.decide(&db);
        }
    }
    let committed = players.into_iter().flat_map(|player| player.committed).collect();
    let history = History { first: State::new(), committed };
    assert_eq!(read(&families), history.last());
    history
}

/// Commits after which a process is killed while others are made.
const IN_THE_MIDDLE: u64 = 30;

/// A process that was killed while commits were made has left all up to some number, and nothing else.
fn assert_killed(left: &TestStorage, manner: Manner, history: &History, seen: u64) {
    let db = open(left, manner);
    let last = db.snapshot().unwrap().sequence_number().0;
    assert!(last >= seen, "{seen} was visible before the end, and {last} is left");
    assert_eq!(read(&families(&db)), history.at(last), "what is left at {last}");
    for prepared in db.prepared_transactions().unwrap() {
        prepared.rollback().unwrap();
    }
    assert_eq!(read(&families(&db)), history.at(last), "what was prepared and not decided");
    assert_clean(&db);
}

/// Players in threads of their own; in the middle a copy is killed, and between the rounds the database ends
/// in one way or another.
fn threaded(manner: Manner, random: &mut Random, rounds: u32, steps: u32) -> Vec<History> {
    let mut storage = TestStorage::new();
    let mut first = State::new();
    let mut histories = Vec::new();
    let mut undecided: Vec<Vec<Undecided>> = (0..PLAYERS).map(|_| Vec::new()).collect();
    for round in 0..rounds {
        let db = open(&storage, manner);
        let handles = families(&db);
        assert_eq!(read(&handles), first, "what was committed before the end is there after it");
        let left: usize = undecided.iter().map(Vec::len).sum();
        assert_eq!(
            db.prepared_transactions().unwrap().len(),
            left,
            "what is prepared is there, and nothing else"
        );
        let players = (0..PLAYERS).zip(&mut undecided).map(|(number, undecided)| {
            // Names and values of one player in several rounds are others.
            let number = round * PLAYERS + number;
            let mut player = Player::new(number, manner, Random::new(random.next()), handles.clone());
            player.undecided = std::mem::take(undecided);
            player
        });
        let (began, mut seen) = (db.snapshot().unwrap().sequence_number().0, 0);
        let mut killed = None;
        let players: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = players
                .map(|mut player| {
                    let db = &db;
                    scope.spawn(move || {
                        (0..steps).for_each(|_| player.step(db));
                        player
                    })
                })
                .collect();
            while seen < began + IN_THE_MIDDLE && !threads.iter().all(|thread| thread.is_finished()) {
                seen = db.snapshot().unwrap().sequence_number().0;
            }
            killed = Some(storage.copy());
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut committed = Vec::new();
        for (player, undecided) in players.into_iter().zip(&mut undecided) {
            committed.extend(player.committed);
            let left = player.undecided.into_iter();
            undecided.extend(left.map(|undecided| undecided.of_later_life(manner.level)));
        }
        let history = History { first, committed };
        first = history.last();
        assert_eq!(read(&handles), first);
        assert_killed(&killed.unwrap(), manner, &history, seen);
        histories.push(history);
        assert_clean(&db);
        drop(handles);
        match random.below(3) {
            0 => db.close().unwrap(),
            1 => drop(db),
            // All that the killed process leaves is what it wrote.
            _ => storage = storage.copy(),
        }
    }
    histories
}

#[test]
fn transactions_that_are_to_be_serializable_are() {
    let mut commits = 0;
    for seed in 0..u64::from(cases(12)) {
        let ways = [SERIALIZABLE, locking(SERIALIZABLE, Duration::ZERO), preparing(SERIALIZABLE)];
        for manner in ways {
            let history = interleaved(manner, seed, 1500);
            if let Err(anomaly) = history.check_serializable().and_then(|()| history.check_locked()) {
                panic!("seed {seed}: {manner:?} {anomaly:?}");
            }
            commits += history.committed.len();
        }
    }
    assert!(commits > 1000, "{commits} commits say little");
}

#[test]
fn snapshots_read_one_moment_and_lose_no_update() {
    for seed in 0..u64::from(cases(12)) {
        for manner in [SNAPSHOT, locking(SNAPSHOT, Duration::ZERO), preparing(SNAPSHOT)] {
            let history = interleaved(manner, seed, 1500);
            if let Err(anomaly) = history.check_snapshot().and_then(|()| history.check_locked()) {
                panic!("seed {seed}: {manner:?} {anomaly:?}");
            }
        }
    }
}

#[test]
fn what_is_locked_stays_as_it_was_read() {
    for seed in 0..u64::from(cases(12)) {
        for manner in [READ_COMMITTED, preparing(READ_COMMITTED)] {
            let history = interleaved(locking(manner, Duration::ZERO), seed, 1500);
            if let Err(anomaly) = history.check_locked() {
                panic!("seed {seed}: {anomaly:?}");
            }
        }
    }
}

#[test]
fn who_is_never_checked_reads_what_was_committed_and_nothing_torn() {
    for seed in 0..u64::from(cases(12)) {
        for manner in [READ_COMMITTED, preparing(READ_COMMITTED)] {
            if let Err(anomaly) = interleaved(manner, seed, 1500).check_committed() {
                panic!("seed {seed}: {manner:?} {anomaly:?}");
            }
        }
    }
    for history in threaded(READ_COMMITTED, &mut Random::announced(), cases(4), 500) {
        if let Err(anomaly) = history.check_committed() {
            panic!("{anomaly:?}");
        }
    }
}

#[test]
fn so_it_is_with_threads_and_ends_in_between() {
    let mut random = Random::announced();
    for (manner, check) in [
        (SERIALIZABLE, History::check_serializable as fn(&History) -> _),
        (SNAPSHOT, History::check_snapshot),
        (preparing(SERIALIZABLE), History::check_serializable),
        (preparing(SNAPSHOT), History::check_snapshot),
        (preparing(locking(SNAPSHOT, PATIENCE)), History::check_snapshot),
        (locking(SERIALIZABLE, PATIENCE), History::check_serializable),
        (locking(SNAPSHOT, PATIENCE), History::check_snapshot),
        (locking(READ_COMMITTED, PATIENCE), History::check_locked),
    ] {
        for history in threaded(manner, &mut random, cases(4), 500) {
            if let Err(anomaly) = check(&history).and_then(|()| history.check_locked()) {
                panic!("{manner:?}: {anomaly:?}");
            }
        }
    }
}

/// Of so many histories, how many break what `check` demands.
fn anomalies<A>(manner: Manner, check: impl Fn(&History) -> Result<(), A>) -> usize {
    (0..4).filter(|&seed| check(&interleaved(manner, seed, 1500)).is_err()).count()
}

#[test]
fn the_checkers_find_what_weaker_levels_allow() {
    let read_committed = READ_COMMITTED;
    let untracked = Manner { untracked: true, ..SERIALIZABLE };
    assert_eq!(anomalies(SNAPSHOT, History::check_serializable), 4, "write skew and phantoms");
    assert_eq!(anomalies(untracked, History::check_serializable), 4, "reads that nobody checks");
    assert_eq!(anomalies(untracked, History::check_snapshot), 4, "lost updates");
    assert_eq!(anomalies(read_committed, History::check_snapshot), 4, "reads of several moments");
    let pretending = Manner { pretends: true, ..READ_COMMITTED };
    assert_eq!(anomalies(pretending, History::check_locked), 4, "reads that nobody locks");
    for planted in 0..3 {
        let mut history = interleaved(READ_COMMITTED, 1, 1500);
        history.check_committed().unwrap();
        history.plant(planted);
        assert!(history.check_committed().is_err(), "planted {planted}");
    }
    // Who is serializable may overwrite what another wrote and he did not read.
    assert_eq!(anomalies(SERIALIZABLE, History::check_snapshot), 4, "blind writes");
}
