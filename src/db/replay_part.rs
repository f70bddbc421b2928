//! A part of the log that is replayed: from one segment to another, by one thread.
//!
//! Parts are inserted beside one another, and take *turns* in coming to the families: a part whose turn has
//! not come inserts into memtables of its own. Its turn comes when the part before it is done and the thread
//! that reads all of the log has come to it; then its memtables go in front of those of the part before, and
//! the rest, if it did not have room enough before, goes into them there.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::codec::ids::{FamilyId, SequenceNumber};
use crate::column_family::family::WriteSide;
use crate::db::replayer::{Replayed, Replayer};
use crate::error::{Error, ErrorKind, Result};
use crate::memtable::Memtable;
use crate::storage::StorageBackend;
use crate::sync::{Arc, Condvar, Mutex};
use crate::txn::apply::{Replaced, insert_all};
use crate::txn::operation::{Operation, Operations};
use crate::wal::{Plan, StoppedAt};

/// Whose turn it is.
#[derive(Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Parts that are done.
    done: usize,
    /// The last part to which the reading of all of the log has come.
    confirmed: usize,
    /// That reading is over: it comes to no other part.
    ended: bool,
    failed: bool,
}

impl Turns {
    /// The reading of all of the log has come to `part`.
    pub(super) fn confirm(&self, part: usize) {
        let mut state = self.state.lock();
        state.confirmed = state.confirmed.max(part);
        self.changed.notify_all();
    }

    /// The reading of all of the log is over.
    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits for the turn of `part`. `false` if it will not come.
    fn wait_for(&self, part: usize) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.failed || state.ended && state.confirmed < part {
                return false;
            }
            if state.done == part && state.confirmed >= part {
                return true;
            }
            state = self.changed.wait(state);
        }
    }

    /// If what it gives is dropped, by an error or a panic, no turn comes any more.
    pub(super) fn hold(&self) -> Turn<'_> {
        Turn { turns: self, is_over: false }
    }
}

pub(super) struct Turn<'t> {
    turns: &'t Turns,
    is_over: bool,
}

impl Turn<'_> {
    /// A part is done.
    pub(super) fn finish(mut self) {
        self.is_over = true;
        self.turns.state.lock().done += 1;
        self.turns.changed.notify_all();
    }

    /// Nothing failed.
    pub(super) fn keep(mut self) {
        self.is_over = true;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.turns.state.lock().failed = true;
            self.turns.changed.notify_all();
        }
    }
}

/// What a part has of a family.
#[derive(Default)]
struct Table {
    /// The writer of its own memtable, until its turn has come.
    own: Option<Box<Mutex<WriteSide>>>,
    /// Bytes of memtables in front of the tree that it does not write to.
    before: u64,
    /// Bytes of those, and of the one that it writes to.
    bytes: u64,
}

/// One part of a replay.
pub(super) struct Part<'r> {
    replayer: &'r Replayer<'r>,
    turns: &'r Turns,
    number: usize,
    starts: &'r [u64],
    /// Whether its turn has come: it writes to the families' active memtables.
    is_first: bool,
    tables: BTreeMap<FamilyId, Table>,
    /// Bytes of all memtables of `tables`.
    bytes: u64,
    replayed: Replayed,
}

impl<'r> Part<'r> {
    /// The part with this `number` of those that begin with the segments `starts`.
    pub(super) fn new(
        replayer: &'r Replayer<'r>,
        turns: &'r Turns,
        number: usize,
        starts: &'r [u64],
    ) -> Self {
        Self {
            replayer,
            turns,
            number,
            starts,
            is_first: number == 0,
            tables: BTreeMap::new(),
            bytes: 0,
            replayed: Replayed::default(),
        }
    }

    pub(super) fn replayed(self) -> Replayed {
        self.replayed
    }

    /// Reads and inserts a part behind the first. `None` if it is no part of the log, or something else
    /// failed.
    pub(super) fn read(
        mut self,
        backend: &dyn StorageBackend,
        plan: &Plan,
    ) -> Result<Option<(Replayed, StoppedAt)>> {
        let turn = self.turns.hold();
        let (first, before) = (self.starts[self.number], self.starts.get(self.number + 1).copied());
        let read =
            plan.read_part(backend, first, before, &mut |_, sequence, payload| self.apply(sequence, payload));
        if !self.turns.wait_for(self.number) {
            turn.keep();
            return Ok(None);
        }
        let stop = read?;
        self.come_first()?;
        turn.finish();
        Ok(Some((self.replayed, stop)))
    }

    /// Applies one commit.
    pub(super) fn apply(&mut self, sequence: SequenceNumber, payload: &[u8]) -> Result<()> {
        let mut touched: Vec<FamilyId> = Vec::new();
        let mut missing = Vec::new();
        let mut deletes_ranges = false;
        let mut last: Option<(FamilyId, Option<usize>)> = None;
        for (index, operation) in Operations::new(payload).enumerate() {
            let (id, operation) = operation?;
            self.replayed.operations += 1;
            deletes_ranges |= matches!(operation, Operation::DeleteRange { .. });
            let place = match last {
                Some((family, place)) if family == id => place,
                _ => self.place(id, sequence, &mut touched),
            };
            last = Some((id, place));
            if let Some(place) = place {
                missing.push((index, place, operation));
            }
        }
        self.replayer.progress.advance(payload.len() as u64);
        if touched.is_empty() {
            return Ok(());
        }
        let replaced = if deletes_ranges { Replaced::of(payload) } else { Replaced::default() };
        let missing = missing.into_iter().filter(|(index, _, _)| !replaced.contains(*index));
        self.replayed.applied += 1;
        {
            let mut sides = Vec::with_capacity(touched.len());
            for id in &touched {
                let family = &self.replayer.families[id].family;
                sides.push(match &self.tables[id].own {
                    Some(own) => own.lock(),
                    None => {
                        family.note_segment(self.starts[self.number]);
                        family.write.lock()
                    }
                });
            }
            insert_all(missing.map(|(_, place, operation)| (place, operation)), &mut sides, sequence);
        }
        for id in touched {
            self.measure(id);
        }
        self.make_room()
    }

    /// The place of a family among the `touched` ones; `None` if it does not take the commit `sequence`.
    fn place(
        &mut self,
        id: FamilyId,
        sequence: SequenceNumber,
        touched: &mut Vec<FamilyId>,
    ) -> Option<usize> {
        let known = self.replayer.families.get(&id).filter(|known| sequence > known.merged_through)?;
        if let Entry::Vacant(vacant) = self.tables.entry(id) {
            let own = (!self.is_first).then(|| {
                let writer = Memtable::create(known.family.memtable_bytes());
                Box::new(Mutex::new(WriteSide { writer }))
            });
            vacant.insert(Table { own, before: 0, bytes: 0 });
        }
        Some(touched.iter().rposition(|touched| *touched == id).unwrap_or_else(|| {
            touched.push(id);
            touched.len() - 1
        }))
    }

    fn measure(&mut self, id: FamilyId) {
        let family = &self.replayer.families[&id].family;
        let Some(table) = self.tables.get_mut(&id) else { return };
        let side = table.own.as_ref().map_or(&family.write, |own| own).lock();
        let written = side.writer.table();
        // Of an empty one a merge frees nothing.
        let bytes = table.before + if written.is_empty() { 0 } else { written.bytes() as u64 };
        self.bytes = self.bytes - table.bytes + bytes;
        table.bytes = bytes;
    }

    /// Merges the largest memtables until the others are within the budget, as soon as its turn has come.
    fn make_room(&mut self) -> Result<()> {
        let budget = &self.replayer.budget;
        if !self.is_first && self.bytes > budget.of_parts(1, self.starts.len()) {
            if !self.turns.wait_for(self.number) {
                return Err(Error::new(ErrorKind::Closed, "the log does not come to this part"));
            }
            self.come_first()?;
        }
        while self.is_first
            && self.bytes > budget.of_parts(self.number + 1, self.starts.len())
            && let Some(id) = self.largest()
        {
            if self.replayer.merge(&self.replayer.families[&id].family)?
                && let Some(table) = self.tables.get_mut(&id)
            {
                table.before = 0;
            }
            self.measure(id);
        }
        Ok(())
    }

    /// The family with the most bytes in memtables, of those that can be merged.
    fn largest(&self) -> Option<FamilyId> {
        let is_stuck = |id: &FamilyId| self.replayer.families[id].family.damage.is_stuck();
        let tables = self.tables.iter().filter(|(id, _)| !is_stuck(id));
        tables.max_by_key(|(_, table)| table.bytes).map(|(id, _)| *id)
    }

    /// Puts its memtables in front of those of the parts before, and writes to them there from now on. Its
    /// turn has come.
    fn come_first(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.is_first, true) {
            return Ok(());
        }
        for (id, table) in &mut self.tables {
            let Some(own) = table.own.take() else { continue };
            let family = &self.replayer.families[id].family;
            let table = Arc::clone(own.lock().writer.table());
            if !table.is_empty() {
                self.replayer.put_in_front(family, table, self.starts[self.number])?;
            }
        }
        // What the parts before left counts as well from now on.
        for (&id, known) in &self.replayer.families {
            let bytes = self.replayer.memtable_bytes(&known.family);
            if bytes > 0 {
                let side = known.family.write.lock();
                let active = side.writer.table();
                let active = if active.is_empty() { 0 } else { active.bytes() as u64 };
                drop(side);
                let table = self.tables.entry(id).or_default();
                table.before = bytes.saturating_sub(active);
            }
        }
        self.tables.keys().copied().collect::<Vec<_>>().into_iter().for_each(|id| self.measure(id));
        Ok(())
    }
}
