//! What many transactions did, and the checkers that judge it.
//!
//! Each commit gives its number, and numbers are the one order of commits. So nothing has to be inferred:
//! what a transaction read must be what there is when all commits up to a number, and its own writes, are
//! carried out in order. Which number that is depends on the level.

use std::collections::BTreeMap;

/// A family's number and a key.
pub(crate) type At = (u8, u8);

/// Keys and values of all families.
pub(crate) type State = BTreeMap<At, u32>;

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Put(At, u32),
    Delete(At),
    /// Family, first key, key behind the last one.
    DeleteRange(u8, u8, u8),
    /// What a key had.
    Get(At, Option<u32>),
    /// What a key had that was locked for it.
    GetLocked(At, Option<u32>),
    /// All that there was in a family from a key on up to another.
    Range(u8, u8, u8, Vec<(u8, u32)>),
}

fn range(family: u8, start: u8, end: u8) -> std::ops::Range<At> {
    (family, start)..(family, end.max(start))
}

impl Op {
    fn is_write(&self) -> bool {
        matches!(self, Self::Put(..) | Self::Delete(_) | Self::DeleteRange(..))
    }

    /// Whether this write touches a key that the other one does.
    fn meets(&self, other: &Self) -> bool {
        let keys = |op: &Self| match *op {
            Self::Put(at, _) | Self::Delete(at) => at..(at.0, at.1 + 1),
            Self::DeleteRange(family, start, end) => range(family, start, end),
            _ => (0, 0)..(0, 0),
        };
        let (own, other) = (keys(self), keys(other));
        own.start.max(other.start) < own.end.min(other.end)
    }

    /// Carries out a write. Of a read, says whether it is what there is.
    fn apply(&self, state: &mut State) -> bool {
        match self {
            Self::Put(at, value) => drop(state.insert(*at, *value)),
            Self::Delete(at) => drop(state.remove(at)),
            Self::DeleteRange(family, start, end) => {
                let range = range(*family, *start, *end);
                state.retain(|at, _| !range.contains(at));
            }
            Self::Get(at, found) | Self::GetLocked(at, found) => return state.get(at) == found.as_ref(),
            Self::Range(family, start, end, found) => {
                let there = state.range(range(*family, *start, *end)).map(|((_, key), value)| (*key, *value));
                return there.eq(found.iter().copied());
            }
        }
        true
    }
}

/// A transaction that was committed, or a plain write.
#[derive(Debug, Clone)]
pub(crate) struct Committed {
    /// The number at which it began.
    pub(crate) began: u64,
    /// Its own number; `None` if it wrote nothing.
    pub(crate) number: Option<u64>,
    pub(crate) ops: Vec<Op>,
}

#[derive(Debug, Default)]
pub(crate) struct History {
    /// What there was at first.
    pub(crate) first: State,
    pub(crate) committed: Vec<Committed>,
}

/// What a history breaks: the transaction, and the step of it.
#[derive(Debug)]
#[expect(dead_code, reason = "to be printed")]
pub(crate) enum Anomaly {
    /// It read what there was not.
    Read(Committed, Op),
    /// Another commit wrote what it writes while it was open.
    Lost(Committed, Committed),
}

impl History {
    fn in_order(&self) -> Vec<&Committed> {
        let mut writers: Vec<_> = self.committed.iter().filter(|one| one.number.is_some()).collect();
        writers.sort_by_key(|one| one.number);
        assert!(writers.is_sorted_by(|a, b| a.number < b.number), "two commits have one number");
        writers
    }

    /// The state after each commit, by its number.
    fn states(&self) -> BTreeMap<u64, State> {
        let mut state = self.first.clone();
        let mut states = BTreeMap::from([(0, state.clone())]);
        for one in self.in_order() {
            for write in one.ops.iter().filter(|op| op.is_write()) {
                write.apply(&mut state);
            }
            states.insert(one.number.unwrap(), state.clone());
        }
        states
    }

    /// What is there after the commit of a number, and all before it.
    pub(crate) fn at(&self, number: u64) -> State {
        self.states().range(..=number).next_back().expect("the first state is there").1.clone()
    }

    /// What is there in the end.
    pub(crate) fn last(&self) -> State {
        self.states().pop_last().unwrap().1
    }

    /// Everything that a transaction reads must be there right before the number that `sees` gives for it.
    fn check_reads(&self, sees: impl Fn(&Committed) -> u64) -> Result<(), Anomaly> {
        let states = self.states();
        for one in &self.committed {
            let (_, state) = states.range(..=sees(one)).next_back().expect("the first state is there");
            let mut state = state.clone();
            if let Some(op) = one.ops.iter().find(|op| !op.apply(&mut state)) {
                return Err(Anomaly::Read(one.clone(), op.clone()));
            }
        }
        Ok(())
    }

    /// Each transaction ran as if alone at the moment of its commit; one that wrote nothing, at the moment of
    /// its beginning.
    pub(crate) fn check_serializable(&self) -> Result<(), Anomaly> {
        self.check_reads(|one| one.number.map_or(one.began, |number| number - 1))
    }

    /// Each read of each transaction is of one moment from its beginning on, its own writes in front: nothing
    /// is read that was not committed, or was given up, and no range in part.
    pub(crate) fn check_committed(&self) -> Result<(), Anomaly> {
        let states = self.states();
        for one in &self.committed {
            let until = one.number.unwrap_or(u64::MAX);
            for (place, op) in one.ops.iter().enumerate().filter(|(_, op)| !op.is_write()) {
                let own = one.ops[..place].iter().filter(|op| op.is_write());
                let (began, _) = states.range(..=one.began).next_back().expect("the first state is there");
                let is_of = |state: &State| {
                    let mut state = state.clone();
                    for write in own.clone() {
                        write.apply(&mut state);
                    }
                    op.apply(&mut state)
                };
                if !states.range(*began..until).any(|(_, state)| is_of(state)) {
                    return Err(Anomaly::Read(one.clone(), op.clone()));
                }
            }
        }
        Ok(())
    }

    /// Puts something into the history that must not be: a value that nobody wrote, one that was overwritten
    /// before the reader began, and a range of which one half is older than the other.
    pub(crate) fn plant(&mut self, what: u32) {
        let last = self.committed.iter().filter_map(|one| one.number).max().unwrap_or_default();
        let put = |number, value| {
            let ops = vec![Op::Put((0, 1), value), Op::Put((0, 2), value)];
            Committed { began: number - 1, number: Some(number), ops }
        };
        self.committed.extend([put(last + 1, 1), put(last + 2, 2), put(last + 3, 3)]);
        let read = match what {
            0 => Op::Get((0, 1), Some(4)),
            1 => Op::Get((0, 1), Some(1)),
            _ => Op::Range(0, 1, 3, vec![(1, 2), (2, 3)]),
        };
        let began = if what == 1 { last + 2 } else { last };
        self.committed.push(Committed { began, number: None, ops: vec![read] });
    }

    /// What each transaction locked, and read then, is what there is right before its commit: so nobody's
    /// update was lost.
    pub(crate) fn check_locked(&self) -> Result<(), Anomaly> {
        let counts = |op: &&Op| op.is_write() || matches!(op, Op::GetLocked(..));
        let states = self.states();
        for one in &self.committed {
            let Some(number) = one.number else { continue };
            let mut state = states.range(..number).next_back().expect("the first state is there").1.clone();
            if let Some(op) = one.ops.iter().filter(counts).find(|op| !op.apply(&mut state)) {
                return Err(Anomaly::Read(one.clone(), op.clone()));
            }
        }
        Ok(())
    }

    /// Each transaction read the moment of its beginning, and nobody wrote what it writes from then until its
    /// commit.
    pub(crate) fn check_snapshot(&self) -> Result<(), Anomaly> {
        self.check_reads(|one| one.began)?;
        let writers = self.in_order();
        for one in &writers {
            let number = one.number.unwrap();
            let between =
                writers.iter().filter(|other| other.number.is_some_and(|n| one.began < n && n < number));
            for other in between {
                let meets =
                    |op: &Op| other.ops.iter().filter(|op| op.is_write()).any(|other| op.meets(other));
                if one.ops.iter().filter(|op| op.is_write()).any(meets) {
                    return Err(Anomaly::Lost((*one).clone(), (*other).clone()));
                }
            }
        }
        Ok(())
    }
}
