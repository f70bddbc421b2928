//! A script: what several players do to one database, each to families of his own, in phases between which it
//! is closed or killed.

use std::thread;

use proptest::prelude::*;

use crate::common::operation::{End, Operation};
use crate::common::strategy;
use crate::common::world::World;

/// Players, phases, and operations of a player in a phase, at most.
const MOST_PLAYERS: usize = 3;
const MOST_PHASES: usize = 3;
const MOST_OPERATIONS: usize = 40;

#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) phases: Vec<Phase>,
}

#[derive(Debug, Clone)]
pub(crate) struct Phase {
    /// What each player does.
    pub(crate) operations: Vec<Vec<Operation>>,
    pub(crate) end: End,
}

impl Script {
    /// Number of players.
    pub(crate) fn parts(&self) -> u8 {
        self.phases.iter().map(|phase| phase.operations.len()).max().unwrap_or(0) as u8
    }
}

impl Phase {
    /// Operations of all players, one after the other, in turn.
    pub(crate) fn play_in_turn(&self, parts: &mut [World]) {
        let longest = self.operations.iter().map(Vec::len).max().unwrap_or(0);
        for turn in 0..longest {
            for (part, operations) in parts.iter_mut().zip(&self.operations) {
                operations.get(turn).into_iter().for_each(|operation| part.apply(operation));
            }
        }
    }

    /// Each player in a thread of his own.
    pub(crate) fn play_at_once(&self, parts: &mut [World]) {
        thread::scope(|scope| {
            let players: Vec<_> = parts
                .iter_mut()
                .zip(&self.operations)
                .map(|(part, operations)| {
                    scope.spawn(|| operations.iter().for_each(|operation| part.apply(operation)))
                })
                .collect();
            for player in players {
                if let Err(panic) = player.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        });
    }
}

/// What one player does. The end of the database is not his.
fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = strategy::operation()
        .prop_filter("ends the database", |operation| !matches!(operation, Operation::Reopen(_)));
    prop::collection::vec(operation, 0..MOST_OPERATIONS)
}

fn phase(players: usize) -> impl Strategy<Value = Phase> {
    (prop::collection::vec(operations(), players), strategy::end())
        .prop_map(|(operations, end)| Phase { operations, end })
}

pub(crate) fn script() -> impl Strategy<Value = Script> {
    (1..=MOST_PLAYERS)
        .prop_flat_map(|players| prop::collection::vec(phase(players), 1..=MOST_PHASES))
        .prop_map(|phases| Script { phases })
}
