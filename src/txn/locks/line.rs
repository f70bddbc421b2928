//! Who waits for locks, in order of arrival, and who for whom.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use crate::error::LockOwner;
use crate::sync::{Arc, Condvar};
use crate::txn::locks::held::Held;
use crate::txn::locks::want::{Edge, Want};

/// Somebody who waits.
pub(super) struct Waiter {
    pub(super) ticket: u64,
    pub(super) owner: LockOwner,
    pub(super) wants: Vec<Want>,
    pub(super) woken: Arc<Condvar>,
}

/// What keeps somebody from what he wants.
#[derive(Default)]
pub(super) struct Obstacles {
    /// By who holds it.
    pub(super) held: Vec<Edge>,
    /// By who came earlier.
    pub(super) ahead: Vec<Edge>,
}

impl Obstacles {
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.ahead.is_empty()
    }

    pub(super) fn into_edges(self) -> Vec<Edge> {
        self.held.into_iter().chain(self.ahead).collect()
    }
}

/// All who wait, in order of arrival.
#[derive(Default)]
pub(super) struct Line(pub(super) Vec<Waiter>);

impl Line {
    /// Bytes of memory that waiting takes.
    pub(super) fn bytes(&self) -> usize {
        let wants = self.0.iter().flat_map(|waiter| &waiter.wants);
        let wants: usize = wants.map(|want| size_of::<Want>() + want.span.memory()).sum();
        wants + self.0.len() * (size_of::<Waiter>() + size_of::<Condvar>())
    }

    pub(super) fn holds(&self, ticket: u64) -> bool {
        self.0.iter().any(|waiter| waiter.ticket == ticket)
    }

    pub(super) fn leave(&mut self, ticket: u64) {
        self.0.retain(|waiter| waiter.ticket != ticket);
    }

    /// What keeps `owner`, with `before` waiters ahead of him, from `wants`.
    pub(super) fn obstacles(
        &self,
        held: &Held,
        owner: LockOwner,
        wants: &[Want],
        before: usize,
    ) -> Obstacles {
        let edge = |want: &Want, waits_for| Edge { owner, want: want.clone(), waits_for };
        let mut obstacles = Obstacles::default();
        for want in wants {
            obstacles.held.extend(held.in_the_way(owner, want).map(|other| edge(want, other)));
        }
        for waiter in &self.0[..before] {
            if waiter.owner == owner {
                continue;
            }
            let conflict =
                wants.iter().find(|want| waiter.wants.iter().any(|other| want.conflicts_with(other)));
            let Some(want) = conflict else { continue };
            // Nobody waits for who waits for him.
            let is_kept_by_this = |want| held.in_the_way(waiter.owner, want).any(|holder| holder == owner);
            if !waiter.wants.iter().any(is_kept_by_this) {
                obstacles.ahead.push(edge(want, waiter.owner));
            }
        }
        obstacles
    }

    /// Whether nothing keeps the waiter at `place` any more.
    fn may_go(&self, held: &Held, place: usize) -> bool {
        let Waiter { owner, wants, .. } = &self.0[place];
        let is_held = wants.iter().any(|want| held.in_the_way(*owner, want).next().is_some());
        !is_held && self.obstacles(held, *owner, wants, place).is_empty()
    }

    /// Takes the first out of the line, at or behind `from`, whom nothing keeps any more; with his place.
    pub(super) fn next_to_go(&mut self, held: &Held, from: usize) -> Option<(usize, Waiter)> {
        let place = (from..self.0.len()).find(|&place| self.may_go(held, place))?;
        Some((place, self.0.remove(place)))
    }

    /// The circle that would be closed if `owner` came into the line with `first` in his way: from each to
    /// whom he waits for, beginning with `owner`. The shortest one.
    pub(super) fn circle(&self, held: &Held, owner: LockOwner, first: &Obstacles) -> Option<Vec<Edge>> {
        // Nobody waits for who holds nothing and comes last.
        if held.mark_of(owner) == 0 {
            return None;
        }
        let mut reached: HashMap<LockOwner, Edge> = HashMap::new();
        let mut edges: Vec<Edge> = first.held.iter().chain(&first.ahead).cloned().collect();
        let mut next = VecDeque::new();
        loop {
            for edge in edges.drain(..) {
                if edge.waits_for == owner {
                    let mut circle = vec![edge];
                    while circle.last().is_some_and(|edge| edge.owner != owner) {
                        let before = &reached[&circle[circle.len() - 1].owner];
                        circle.push(before.clone());
                    }
                    circle.reverse();
                    return Some(circle);
                }
                if let Entry::Vacant(vacant) = reached.entry(edge.waits_for) {
                    next.push_back(edge.waits_for);
                    vacant.insert(edge);
                }
            }
            let other = next.pop_front()?;
            if let Some(place) = self.0.iter().position(|waiter| waiter.owner == other) {
                let waiter = &self.0[place];
                edges = self.obstacles(held, waiter.owner, &waiter.wants, place).into_edges();
            }
        }
    }
}
