//! The families of an open database: by number, by name, and the slots of the view that they live in.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::codec::ids::FamilyId;
use crate::column_family::family::Family;
use crate::column_family::options::FamilyOptions;
use crate::db::budget::{Memory, Weights};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;

/// Families by number and name, and those that were dropped and are still read.
pub(super) struct Registry {
    families: BTreeMap<FamilyId, Arc<Family>>,
    /// Every family whose creation is durable, by its name.
    names: BTreeMap<Arc<str>, Arc<Family>>,
    /// Families of which the catalog has no whole record, by name.
    lost: BTreeMap<String, FamilyId>,
    pub(super) dying: Vec<Arc<Family>>,
    next_family: u32,
    slots: FreeSlots,
    /// What the families weigh, as long as they count.
    weights: Weights,
    counts: bool,
    memory: Arc<Memory>,
}

impl Registry {
    /// No families yet; the next one gets the number `next_family`. They count when `memory` is split.
    pub(super) fn new(next_family: u32, memory: &Arc<Memory>) -> Self {
        Self {
            lost: BTreeMap::new(),
            families: BTreeMap::new(),
            names: BTreeMap::new(),
            dying: Vec::new(),
            next_family,
            slots: FreeSlots::default(),
            weights: Weights::default(),
            counts: true,
            memory: Arc::clone(memory),
        }
    }

    /// The families, by number. Those whose creation is under way are among them.
    pub(super) fn families(&self) -> impl ExactSizeIterator<Item = &Arc<Family>> {
        self.families.values()
    }

    /// From now on the families count no more when memory is split.
    pub(super) fn stop_counting(&mut self) {
        if std::mem::replace(&mut self.counts, false) {
            self.memory.subtract_weights(self.weights);
        }
    }

    pub(super) fn get(&self, id: FamilyId) -> Option<&Arc<Family>> {
        self.families.get(&id)
    }

    pub(super) fn next_family(&self) -> u32 {
        self.next_family
    }

    /// `count` numbers in a row that no family had before. Returns the first.
    pub(super) fn take_numbers(&mut self, count: usize) -> Result<FamilyId> {
        let first = FamilyId(self.next_family);
        let next = u32::try_from(count).ok().and_then(|count| self.next_family.checked_add(count));
        self.next_family = next.ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "all 4 billion numbers of column families are used up")
        })?;
        Ok(first)
    }

    /// The lowest slot that no family lives in.
    pub(super) fn take_slot(&mut self) -> usize {
        self.slots.take()
    }

    /// No view shows a family in `slot` any more, but those that readers hold.
    pub(super) fn give_slot(&mut self, slot: usize) {
        self.slots.give(slot);
    }

    /// Adds a family that is not known by its name yet.
    pub(super) fn add(&mut self, family: &Arc<Family>) {
        let before = self.families.insert(family.id(), Arc::clone(family));
        assert!(before.is_none(), "family {} exists already", family.id());
        self.count(Weights::of(&family.options()));
    }

    fn count(&mut self, weights: Weights) {
        self.weights.memtable += weights.memtable;
        self.weights.cache += weights.cache;
        if self.counts {
            self.memory.add_weights(weights);
        }
    }

    fn subtract(&mut self, weights: Weights) {
        self.weights.memtable -= weights.memtable;
        self.weights.cache -= weights.cache;
        if self.counts {
            self.memory.subtract_weights(weights);
        }
    }

    pub(super) fn remove(&mut self, family: &Family) {
        if self.families.remove(&family.id()).is_some() {
            self.subtract(Weights::of(&family.options()));
        }
    }

    /// Gives a family other options.
    pub(super) fn set_options(&mut self, family: &Family, options: &FamilyOptions) {
        self.subtract(Weights::of(&family.options()));
        self.count(Weights::of(options));
        family.set_options(options.clone());
    }

    /// From now on `family` is found by `name`.
    pub(super) fn set_name(&mut self, name: Arc<str>, family: &Arc<Family>) {
        self.names.insert(name, Arc::clone(family));
    }

    /// From now on no family is found by `name`.
    pub(super) fn forget_name(&mut self, name: &str) {
        self.names.remove(name);
    }

    pub(super) fn named(&self, name: &str) -> Option<&Arc<Family>> {
        self.names.get(name)
    }

    /// The families whose creation is durable, by name.
    pub(super) fn by_name(&self) -> impl Iterator<Item = &Arc<Family>> {
        self.names.values()
    }

    /// The names, also of those that are lost.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(|name| &**name).chain(self.lost.keys().map(String::as_str))
    }

    /// Whether a family has this name.
    pub(super) fn is_taken(&self, name: &str) -> bool {
        self.names.contains_key(name) || self.lost.contains_key(name)
    }

    /// The family is there, and cannot be opened.
    pub(super) fn add_lost(&mut self, id: FamilyId, name: &str) {
        self.lost.insert(name.to_owned(), id);
    }

    pub(super) fn lost_named(&self, name: &str) -> Option<FamilyId> {
        self.lost.get(name).copied()
    }

    pub(super) fn remove_lost(&mut self, name: &str) {
        self.lost.remove(name);
    }

    pub(super) fn lost(&self) -> impl Iterator<Item = (FamilyId, &str)> {
        self.lost.iter().map(|(name, &id)| (id, name.as_str()))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop_counting();
    }
}

/// Slots below the highest that was ever taken of which nobody has one.
#[derive(Default)]
struct FreeSlots {
    free: BinaryHeap<Reverse<usize>>,
    end: usize,
}

impl FreeSlots {
    fn take(&mut self) -> usize {
        self.free.pop().map_or_else(
            || {
                self.end += 1;
                self.end - 1
            },
            |slot| slot.0,
        )
    }

    fn give(&mut self, slot: usize) {
        self.free.push(Reverse(slot));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::options::Budgets;

    #[test]
    fn the_lowest_slot_is_taken_first_and_none_twice() {
        let mut slots = FreeSlots::default();
        assert_eq!([slots.take(), slots.take(), slots.take(), slots.take()], [0, 1, 2, 3]);
        slots.give(2);
        slots.give(1);
        assert_eq!([slots.take(), slots.take(), slots.take()], [1, 2, 4]);
    }

    #[test]
    fn numbers_are_given_once_and_end() {
        let memory = Memory::new(Budgets { total: 1 << 20, cache: 1 << 19, write: 1 << 18 }, &Arc::default());
        let mut registry = Registry::new(u32::MAX - 3, &Arc::new(memory));
        assert_eq!(registry.take_numbers(1).unwrap(), FamilyId(u32::MAX - 3));
        assert_eq!(registry.take_numbers(3).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(registry.take_numbers(2).unwrap(), FamilyId(u32::MAX - 2));
        assert_eq!(registry.take_numbers(1).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}
