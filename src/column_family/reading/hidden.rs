//! What memtables delete by range, seen from what is older.
//!
//! Nothing is gathered ahead: a cursor asks for the stretch of keys that it is about to meet, and each
//! question takes a logarithmic number of steps in each memtable. So what a reader does not come to costs it
//! nothing, however many ranges are deleted.
//!
//! Stretches of different memtables that touch each other are put together, up to [`MOST_PIECES`] at once.
//! The bound that is then given lies within a longer stretch, and who seeks there asks anew: so a tree that
//! has no more keys there is not asked for the sake of each piece, and where it has, no more pieces are
//! looked at than it has keys.

use std::cmp::Ordering;

use crate::codec::ids::SequenceNumber;
use crate::codec::key;
use crate::memtable::Memtable;
use crate::sync::Arc;

/// Stretches of single memtables that are put together at once.
const MOST_PIECES: usize = 32;

/// The age of what is older than all memtables.
pub(crate) const TREE: usize = usize::MAX;

/// The range deletions of a family's memtables at one moment. They hide what is older than their memtable:
/// what has a higher *age*, counted from the newest memtable on.
pub(crate) struct Hidden {
    /// Newest first.
    tables: Vec<Hiding>,
    at: SequenceNumber,
}

/// A memtable that deletes ranges.
struct Hiding {
    age: usize,
    table: Arc<Memtable>,
    /// What it deletes at this number counts.
    at: SequenceNumber,
}

impl Hidden {
    /// What no memtable hides at `at`, yet.
    pub(crate) fn at(at: SequenceNumber) -> Self {
        Self { tables: Vec::new(), at }
    }

    /// Adds what `table` hides, which is older than those that were added before.
    pub(crate) fn add(&mut self, age: usize, table: &Arc<Memtable>) {
        self.add_at(age, table, self.at);
    }

    /// Adds what `table`, which has a moment of its own, hides.
    pub(crate) fn add_at(&mut self, age: usize, table: &Arc<Memtable>, at: SequenceNumber) {
        if table.deletes_ranges(at) {
            self.tables.push(Hiding { age, table: Arc::clone(table), at });
        }
    }

    /// Whether nothing is hidden.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    fn newer_than(&self, age: usize) -> impl Iterator<Item = &Hiding> {
        self.tables.iter().take_while(move |hiding| hiding.age < age)
    }

    /// Whether `key` is hidden from what has this age.
    #[inline]
    pub(crate) fn covers(&self, key: &[u8], age: usize) -> bool {
        self.newer_than(age).any(|hiding| hiding.table.covering(key, hiding.at).is_some())
    }

    /// A bound such that all keys from `key` up to it are hidden; `None`: `key` is not.
    pub(crate) fn end(&self, key: &[u8], age: usize) -> Option<&[u8]> {
        let mut end: Option<&[u8]> = None;
        for _ in 0..MOST_PIECES {
            let from = end.unwrap_or(key);
            let Some(further) = self
                .newer_than(age)
                .filter_map(|hiding| hiding.table.end_of_stretch(from, hiding.at))
                .max_by(|a, b| key::compare(a, b))
            else {
                break;
            };
            end = Some(further);
        }
        end
    }

    /// A key such that it and all keys up to `key` are hidden; `None`: `key` is not.
    pub(crate) fn start(&self, key: &[u8], age: usize) -> Option<&[u8]> {
        let lowest = |start_of: &dyn Fn(&'_ Hiding) -> Option<&'_ [u8]>| {
            self.newer_than(age).filter_map(start_of).min_by(|a, b| key::compare(a, b))
        };
        let mut start = lowest(&|hiding| hiding.table.start_of_stretch(key, hiding.at))?;
        for _ in 1..MOST_PIECES {
            let further = lowest(&|hiding| hiding.table.start_of_stretch_below(start, hiding.at));
            let Some(further) = further else { break };
            start = further;
        }
        Some(start)
    }

    /// The first key above `key` that is hidden from the tree. Not for a key that is hidden itself.
    pub(crate) fn next(&self, key: &[u8]) -> Option<&[u8]> {
        let tables = self.newer_than(TREE);
        tables
            .filter_map(|hiding| hiding.table.next_stretch(key, hiding.at))
            .min_by(|a, b| key::compare(a, b))
    }

    /// The bound of the last keys below `key` that are hidden from the tree: those from it up to `key` are
    /// not. Not for a key that is hidden itself.
    pub(crate) fn last_end(&self, key: &[u8]) -> Option<&[u8]> {
        let tables = self.newer_than(TREE);
        tables
            .filter_map(|hiding| hiding.table.end_of_last_stretch(key, hiding.at))
            .max_by(|a, b| key::compare(a, b))
    }
}

/// The bounds up to which sources were sought, on the way since a cursor was placed or turned. In a tree
/// whose keys are out of order, as only a crafted file has them, a search may end before the place where it
/// began, and the cursor would go round for ever: so each bound must lie beyond the source's last.
pub(crate) struct Skipped<S>(Vec<(S, Vec<u8>)>);

impl<S: PartialEq> Skipped<S> {
    pub(crate) fn nothing() -> Self {
        Self(Vec::new())
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Notes that `source` is about to be sought up to `bound`; `false`: that is not `beyond` its last one.
    #[must_use]
    pub(crate) fn note(&mut self, source: S, bound: &[u8], beyond: Ordering) -> bool {
        match self.0.iter_mut().find(|(other, _)| *other == source) {
            None => self.0.push((source, bound.to_vec())),
            Some((_, last)) if key::compare(bound, last) == beyond => {
                last.clear();
                last.extend_from_slice(bound);
            }
            Some(_) => return false,
        }
        true
    }
}
