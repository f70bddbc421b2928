//! The table's state against a model that knows, for each of few keys, who has it.

use proptest::prelude::*;

use super::held::Held;
use super::state::{Answer, Marks, State};
use super::want::{Mode, Want};
use crate::codec::ids::FamilyId;
use crate::error::LockOwner;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Condvar};
use crate::txn::keys::Keys;

const KEYS: u8 = 6;
const OWNERS: usize = 5;

/// Keys of one family, and how they are wanted.
type Ask = (u8, u8, Mode);

#[derive(Debug, Clone)]
enum Step {
    Ask(usize, Vec<Ask>),
    /// Gives up the last so many that it took; all if there are fewer.
    GiveUp(usize, usize),
    /// Waits no more, if it does.
    Leave(usize),
}

fn ask() -> impl Strategy<Value = Ask> {
    let mode = prop_oneof![2 => Just(Mode::Shared), 3 => Just(Mode::Exclusive), 1 => Just(Mode::Write)];
    (0..KEYS, prop_oneof![4 => Just(0u8), 1 => 1..KEYS], mode)
}

fn step() -> impl Strategy<Value = Step> {
    let asks = prop_oneof![4 => prop::collection::vec(ask(), 1), 1 => prop::collection::vec(ask(), 2..4)];
    prop_oneof![
        6 => (0..OWNERS, asks).prop_map(|(owner, asks)| Step::Ask(owner, asks)),
        2 => (0..OWNERS, 1usize..4).prop_map(|(owner, some)| Step::GiveUp(owner, some)),
        1 => (0..OWNERS).prop_map(|owner| Step::GiveUp(owner, usize::MAX)),
        1 => (0..OWNERS).prop_map(Step::Leave),
    ]
}

/// A range of one key that is no key, to begin with, for a length that is not zero.
fn want(&(start, len, mode): &Ask) -> Want {
    let (start, end) = ([start], [start.saturating_add(len)]);
    let keys = if len == 0 { Keys::One(&start) } else { Keys::Range(&start, Some(&end)) };
    Want::new(FamilyId(1), keys, mode)
}

fn who(owner: usize) -> LockOwner {
    LockOwner::Transaction(owner as u64)
}

fn holds_key((start, len, _): &Ask, key: u8) -> bool {
    if *len == 0 { *start == key } else { (*start..start + len).contains(&key) }
}

fn conflict(a: Mode, b: Mode) -> bool {
    !matches!((a, b), (Mode::Shared, Mode::Shared) | (Mode::Write, Mode::Write))
}

fn meet(a: &Ask, b: &Ask) -> bool {
    conflict(a.2, b.2) && (0..2 * KEYS).any(|key| holds_key(a, key) && holds_key(b, key))
}

#[derive(Default)]
struct Model {
    /// What each took, in order.
    taken: [Vec<Ask>; OWNERS],
    line: Vec<(usize, Vec<Ask>)>,
}

impl Model {
    fn covers(&self, owner: usize, ask: &Ask) -> bool {
        // By one lock: as the table has it, ranges that only together hold all do not count.
        let of_key = |taken: &&Ask| taken.1 == 0 && ask.1 == 0 && taken.0 == ask.0;
        let of_range = |taken: &&Ask| {
            taken.1 > 0 && (0..2 * KEYS).all(|key| !holds_key(ask, key) || holds_key(taken, key))
        };
        self.taken[owner]
            .iter()
            .filter(|taken| of_key(taken) || of_range(taken))
            .any(|taken| taken.2 >= ask.2)
    }

    fn holders(&self, owner: usize, asks: &[Ask]) -> Vec<usize> {
        let holds = |other: &usize| {
            *other != owner && self.taken[*other].iter().any(|taken| asks.iter().any(|ask| meet(taken, ask)))
        };
        (0..OWNERS).filter(holds).collect()
    }

    fn ahead(&self, owner: usize, asks: &[Ask], before: usize) -> Vec<usize> {
        let is_ahead = |(other, theirs): &&(usize, Vec<Ask>)| {
            *other != owner
                && theirs.iter().any(|their| asks.iter().any(|ask| meet(their, ask)))
                && !self.holders(*other, theirs).contains(&owner)
        };
        self.line[..before].iter().filter(is_ahead).map(|(other, _)| *other).collect()
    }

    /// Whom `owner` waits for.
    fn waits_for(&self, owner: usize) -> Vec<usize> {
        let Some(place) = self.line.iter().position(|(other, _)| *other == owner) else { return Vec::new() };
        let asks = &self.line[place].1;
        [self.holders(owner, asks), self.ahead(owner, asks, place)].concat()
    }

    fn is_in_circle(&self, owner: usize) -> bool {
        let mut reached = self.waits_for(owner);
        let mut at = 0;
        while at < reached.len() {
            for next in self.waits_for(reached[at]) {
                if !reached.contains(&next) {
                    reached.push(next);
                }
            }
            at += 1;
        }
        reached.contains(&owner)
    }

    fn take(&mut self, owner: usize, asks: &[Ask]) {
        for ask in asks {
            if !self.covers(owner, ask) {
                self.taken[owner].push(*ask);
            }
        }
    }

    fn let_go(&mut self) {
        let may_go =
            |model: &Self| (0..model.line.len()).find(|&at| model.waits_for(model.line[at].0).is_empty());
        while let Some(at) = may_go(self) {
            let (owner, asks) = self.line.remove(at);
            self.take(owner, &asks);
        }
    }

    /// The strongest way in which `owner` has `key`.
    fn mode(&self, owner: usize, key: u8) -> Option<Mode> {
        self.taken[owner].iter().filter(|taken| holds_key(taken, key)).map(|taken| taken.2).max()
    }
}

fn mode_in(held: &Held, owner: usize, key: u8) -> Option<Mode> {
    let key = [key];
    let of = |(other, want): (LockOwner, Want)| {
        (other == who(owner) && want.span.keys().overlaps(Keys::One(&key))).then_some(want.mode)
    };
    held.list().filter_map(of).max()
}

proptest! {
    #![proptest_config(crate::sampling::config(256))]

    #[test]
    fn the_state_is_as_the_model(steps in prop::collection::vec(step(), 1..60)) {
        let (mut state, marks, mut model) = (State::default(), Marks::default(), Model::default());
        let woken = Arc::new(Condvar::new());
        let mut tickets = [0; OWNERS];
        for step in steps {
            match step {
                Step::Ask(owner, mut asks) => {
                    // One is a plain write, and the others are none.
                    for ask in &mut asks {
                        ask.2 = match ask.2 {
                            _ if owner == 0 => Mode::Write,
                            Mode::Write => Mode::Exclusive,
                            mode => mode,
                        };
                    }
                    if model.line.iter().any(|(other, _)| *other == owner) {
                        continue;
                    }
                    let answer = state.ask(&marks, who(owner), asks.iter().map(want).collect(), Some(&woken));
                    let asks: Vec<Ask> = asks.into_iter().filter(|ask| !model.covers(owner, ask)).collect();
                    model.line.push((owner, asks.clone()));
                    let waits = !model.waits_for(owner).is_empty();
                    let circle = model.is_in_circle(owner);
                    let is_held = !model.holders(owner, &asks).is_empty();
                    if waits && !circle {
                        let Answer::Waits(ticket) = answer else { panic!("{answer:?}") };
                        tickets[owner] = ticket;
                    } else {
                        model.line.pop();
                        if circle && is_held {
                            let Answer::Deadlock(circle) = answer else { panic!("{answer:?}") };
                            prop_assert_eq!(circle[0].owner, who(owner));
                            for (edge, next) in circle.iter().zip(circle.iter().cycle().skip(1)) {
                                prop_assert_eq!(edge.waits_for, next.owner);
                            }
                        } else {
                            prop_assert_eq!(answer, Answer::Taken(!asks.is_empty()));
                            model.take(owner, &asks);
                        }
                    }
                }
                Step::GiveUp(owner, some) => {
                    let has = model.taken[owner].len();
                    let mark = has.saturating_sub(some);
                    state.give_up(&marks, who(owner), mark);
                    model.taken[owner].truncate(mark);
                    model.let_go();
                }
                Step::Leave(owner) => {
                    if state.line.holds(tickets[owner]) {
                        state.leave(&marks, tickets[owner]);
                        model.line.retain(|(other, _)| *other != owner);
                        model.let_go();
                    }
                }
            }
            let line: Vec<_> = state.line.0.iter().map(|waiter| waiter.owner).collect();
            prop_assert_eq!(line, model.line.iter().map(|(owner, _)| who(*owner)).collect::<Vec<_>>());
            for owner in 0..OWNERS {
                prop_assert_eq!(state.held.mark_of(who(owner)), model.taken[owner].len());
                prop_assert!(!model.is_in_circle(owner));
                for key in 0..2 * KEYS {
                    prop_assert_eq!(mode_in(&state.held, owner, key), model.mode(owner, key), "{} {}", owner, key);
                }
            }
            let held: Vec<_> = state.held.list().collect();
            for (at, (owner, want)) in held.iter().enumerate() {
                prop_assert!(held[..at].iter().all(|(other, theirs)| other == owner || !meets(want, theirs)));
            }
            let marked = held.iter().filter(|(_, want)| want.mode.is_marked()).count();
            prop_assert_eq!(marks.of(FamilyId(1)).load(Ordering::Relaxed), marked);
            prop_assert_eq!(state.held.count(), held.len() as u64);
            let steps: usize = model.taken.iter().map(Vec::len).sum();
            prop_assert_eq!(state.held.bytes() == 0, steps == 0);
        }
    }
}

fn meets(a: &Want, b: &Want) -> bool {
    conflict(a.mode, b.mode) && a.span.keys().overlaps(b.span.keys())
}
