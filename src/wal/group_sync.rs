//! Group sync: one sync of the disk serves every commit that waits for it. No I/O in here.
//!
//! Syncs come in *rounds*, one at a time. Who wants a number durable that no round covers yet, and finds none
//! under way, *leads* the next: it takes as its target everything that was assigned so far, does the work,
//! and wakes those whom the round covered. Who comes during a round waits for it if the target covers him,
//! else for the next one, which one of those who wait so will lead.
//!
//! Invariants:
//! 1. `durable` grows only after the work of a round whose target it is has succeeded.
//! 2. While anybody waits, a round is under way, or someone has been woken who will lead one or find his
//!    number durable.
//! 3. After a failure no round begins, and everybody who waits or comes is told, unless his number was
//!    durable already.
//!
//! Those who wait for this round and those who wait for the next are on condition variables of their own, by
//! the parity of the round: the end of a round wakes all whom it covered, and only one of the others.

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex};

/// Nothing more becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed;

pub(super) struct GroupSync {
    rounds: Mutex<Rounds>,
    /// Ends of even and of odd rounds.
    over: [Condvar; 2],
    durable: AtomicU64,
}

struct Rounds {
    /// The round under way, or the last one.
    number: u64,
    /// Target of the round under way.
    target: Option<u64>,
    failed: bool,
}

impl GroupSync {
    /// Everything up to `durable` is durable.
    pub(super) fn new(durable: u64) -> Self {
        Self {
            rounds: Mutex::new(Rounds { number: 0, target: None, failed: false }),
            over: [Condvar::new(), Condvar::new()],
            durable: AtomicU64::new(durable),
        }
    }

    /// The number up to which all is durable.
    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Returns when everything up to `sequence`, which was assigned before, is durable.
    ///
    /// `begin` gives a round's target, at least `sequence`, and what `perform` needs to make everything up to
    /// it durable; it is called under a lock and must be short.
    pub(super) fn sync_through<W>(
        &self,
        sequence: u64,
        begin: impl FnOnce() -> (u64, W),
        perform: impl FnOnce(W) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        if self.durable() >= sequence {
            return Ok(());
        }
        let mut rounds = self.rounds.lock();
        loop {
            if self.durable() >= sequence {
                return Ok(());
            }
            if rounds.failed {
                return Err(Failed);
            }
            let Some(target) = rounds.target else { break };
            let awaited = if sequence <= target { rounds.number } else { rounds.number + 1 };
            rounds = self.end_of(awaited).wait(rounds);
        }
        let (target, work) = begin();
        assert!(target >= sequence, "a sync through {sequence}, but only {target} was assigned");
        rounds.number += 1;
        rounds.target = Some(target);
        drop(rounds);

        let round = Round { group: self, durable: None };
        perform(work)?;
        round.succeed(target);
        Ok(())
    }

    /// Ends all waiting: what is not durable will not be.
    pub(super) fn fail(&self) {
        self.rounds.lock().failed = true;
        self.over[0].notify_all();
        self.over[1].notify_all();
    }

    fn end_of(&self, round: u64) -> &Condvar {
        &self.over[(round % 2) as usize]
    }
}

/// A round under way. One that is dropped without success, by an error or a panic, fails the group.
struct Round<'g> {
    group: &'g GroupSync,
    durable: Option<u64>,
}

impl Round<'_> {
    fn succeed(mut self, durable: u64) {
        self.durable = Some(durable);
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        let group = self.group;
        let mut rounds = group.rounds.lock();
        rounds.target = None;
        match self.durable {
            Some(durable) => group.durable.store(durable, Ordering::Release),
            None => rounds.failed = true,
        }
        let (number, failed) = (rounds.number, rounds.failed);
        drop(rounds);
        group.end_of(number).notify_all();
        if failed {
            group.end_of(number + 1).notify_all();
        } else {
            group.end_of(number + 1).notify_one();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_round_covers_everything_assigned_when_it_began() {
        let group = GroupSync::new(3);
        assert_eq!(group.sync_through(5, || (9, ()), |()| Ok(())), Ok(()));
        assert_eq!(group.durable(), 9);
        assert_eq!(group.sync_through(9, || unreachable!("9 is durable"), |()| Ok(())), Ok(()));
    }

    #[test]
    fn a_failed_round_is_the_last() {
        let group = GroupSync::new(3);
        assert_eq!(group.sync_through(5, || (5, ()), |()| Err(Failed)), Err(Failed));
        assert_eq!(
            group.sync_through(5, || unreachable!("no round after a failure"), |()| Ok(())),
            Err(Failed)
        );
        assert_eq!(group.sync_through(3, || unreachable!("3 is durable"), |()| Ok(())), Ok(()));
        assert_eq!(group.durable(), 3);
    }

    #[test]
    fn a_leader_that_panics_fails_the_group() {
        let group = GroupSync::new(0);
        let lead = || group.sync_through(1, || (1, ()), |()| panic!("as the test wants"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(lead)).is_err());
        assert_eq!(group.sync_through(1, || (1, ()), |()| Ok(())), Err(Failed));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::thread;
    use std::sync::Arc;

    struct Model {
        assigned: AtomicU64,
        synced: AtomicU64,
        group: GroupSync,
    }

    impl Model {
        fn new() -> Arc<Self> {
            let (assigned, synced) = (AtomicU64::new(0), AtomicU64::new(0));
            Arc::new(Self { assigned, synced, group: GroupSync::new(0) })
        }

        /// One commit: a number, then a sync through it. The disk's own sync covers its target.
        fn commit(&self, sync: impl Fn(u64) -> Result<(), Failed>) -> Result<(), Failed> {
            let sequence = self.assigned.fetch_add(1, Ordering::SeqCst) + 1;
            let begin = || {
                let target = self.assigned.load(Ordering::SeqCst);
                (target, target)
            };
            let perform = |target| {
                sync(target)?;
                self.synced.store(target, Ordering::Relaxed);
                Ok(())
            };
            self.group.sync_through(sequence, begin, perform)?;
            let synced = self.synced.load(Ordering::Relaxed);
            assert!(synced >= sequence, "{sequence} was acknowledged, {synced} was synced");
            Ok(())
        }
    }

    #[test]
    fn loom_nothing_is_acknowledged_before_the_sync_that_covers_it() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let model = Model::new();
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let model = Arc::clone(&model);
                    thread::spawn(move || model.commit(|_| Ok(())))
                })
                .collect();
            assert_eq!(model.commit(|_| Ok(())), Ok(()));
            for thread in threads {
                assert_eq!(thread.join().unwrap(), Ok(()));
            }
            assert_eq!(model.group.durable(), 3);
        });
    }

    #[test]
    fn loom_a_failed_sync_reaches_all_whom_no_earlier_one_covered() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let model = Model::new();
            // The first sync of the disk succeeds if it covers the first commit alone; every other fails.
            let sync = |target| if target == 1 { Ok(()) } else { Err(Failed) };
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    let model = Arc::clone(&model);
                    thread::spawn(move || model.commit(sync))
                })
                .collect();
            let mut outcomes = vec![model.commit(sync)];
            outcomes.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
            let acknowledged = outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64;
            assert_eq!(acknowledged, model.group.durable());
            assert!(acknowledged <= 1);
        });
    }

    #[test]
    fn loom_a_failure_from_outside_wakes_those_who_wait() {
        loom::model(|| {
            let model = Model::new();
            let other = Arc::clone(&model);
            let thread = thread::spawn(move || other.commit(|_| Ok(())));
            model.group.fail();
            let outcome = thread.join().unwrap();
            assert_eq!(outcome.is_ok(), model.group.durable() == 1);
            assert_eq!(model.commit(|_| Ok(())), Err(Failed));
        });
    }
}
