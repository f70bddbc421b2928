//! Commits of large batches.
//!
//! Numbers become visible in order, so whoever has a number and is not complete holds up everybody who got a
//! later one, in whatever family. To insert a large batch takes hundreds of milliseconds. So what it has for
//! a family, if that would fill half of a memtable or more, is inserted *apart*, into a memtable of its own,
//! before the commit has a number and before any lock is taken:
//!
//! ```text
//! wait until there is room beside other batches that are inserted apart (`apart.rs`)
//! insert each large part into a memtable of its own
//! lock the write locks of its families, in ascending number, once each has places for what is frozen
//! sequence <- log.append(batch)
//! insert the small parts into the active memtables
//! give the memtables of large parts their number, and put each in front of its family's frozen ones:
//!     the active memtable is frozen first, since it is older
//! complete, unlock; from here on as every commit
//! ```
//!
//! A memtable of a large part shows all of its entries to readers at its number or later, and none to others,
//! so the views of several families need not change in one step.

use crate::column_family::family::{Counters, Family, WriteSide};
use crate::column_family::stall::MAX_FROZEN;
use crate::column_family::view::Frozen;
use crate::error::Result;
use crate::memtable::{BEFORE_ITS_NUMBER, Memtable};
use crate::options::Durability;
use crate::sync::Arc;
use crate::txn::apply::{Replaced, insert_all, placed};
use crate::txn::log_pace::Admitted;
use crate::txn::operation::Operation;
use crate::txn::pipeline::{
    Attempt, Condition, Interrupted, Locked, Pipeline, Standing, Write, account, lock,
};

/// What a large batch has for each of the families that it touches, ascending.
pub(super) struct Parts<'a> {
    payload: &'a [u8],
    replaced: Replaced,
    /// Bytes of each family's operations in the payload.
    bytes: Vec<usize>,
    /// Whether a family's part is inserted apart.
    is_large: Vec<bool>,
}

impl<'a> Parts<'a> {
    /// What `write` has for its `families`, ascending, if any part of it is large.
    pub(super) fn of(write: &Write<'a>, families: &[&Arc<Family>]) -> Option<Self> {
        let limit = |family: &Family| family.memtable_bytes() / 2;
        if families.iter().all(|family| write.payload.len() < limit(family)) {
            return None;
        }
        let mut bytes = vec![0; families.len()];
        let replaced = Replaced::of_write(write);
        for (place, operation) in placed(write.payload, families, &replaced) {
            bytes[place] += operation.bytes();
        }
        let is_large: Vec<bool> =
            families.iter().zip(&bytes).map(|(family, bytes)| *bytes >= limit(family)).collect();
        is_large.contains(&true).then_some(Self { payload: write.payload, replaced, bytes, is_large })
    }

    fn operations(
        &self,
        families: &[&Arc<Family>],
        large: bool,
    ) -> impl Iterator<Item = (usize, Operation<'a>)> {
        placed(self.payload, families, &self.replaced)
            .filter(move |(place, _)| self.is_large[*place] == large)
    }

    /// A memtable for every family, in which what is large stands.
    #[expect(clippy::vec_box, reason = "what is inserted into is dereferenced: a lock that is held, or this")]
    fn insert_apart(&self, families: &[&Arc<Family>]) -> Vec<Box<WriteSide>> {
        let hint = |(bytes, is_large): (&usize, &bool)| if *is_large { *bytes } else { 0 };
        let hints = self.bytes.iter().zip(&self.is_large).map(hint);
        let mut apart: Vec<_> =
            hints.map(|hint| Box::new(WriteSide { writer: Memtable::create(hint) })).collect();
        insert_all(self.operations(families, true), &mut apart, BEFORE_ITS_NUMBER);
        #[cfg(test)]
        WHILE_APART.with_borrow(|called| called.iter().for_each(|called| called()));
        apart
    }

    /// Bytes of the large parts' operations.
    fn large_bytes(&self) -> u64 {
        let large = self.bytes.iter().zip(&self.is_large).filter(|(_, is_large)| **is_large);
        large.map(|(bytes, _)| *bytes as u64).sum()
    }
}

#[cfg(test)]
std::thread_local! {
    /// What this thread calls while its batches are inserted apart.
    pub(crate) static WHILE_APART: std::cell::RefCell<Option<Box<dyn Fn()>>> =
        const { std::cell::RefCell::new(None) };
}

impl Pipeline {
    /// Writes a commit with large parts; see [`commit_if`](Self::commit_if).
    #[allow(clippy::too_many_arguments, reason = "what a commit is made of, passed on as it came")]
    pub(super) fn commit_large(
        &self,
        write: &Write<'_>,
        durability: Durability,
        families: &[&Arc<Family>],
        parts: &Parts<'_>,
        condition: &Condition<'_>,
        standing: Standing,
        admitted: Admitted<'_>,
    ) -> Result<Attempt> {
        let log = self.log()?;
        let mut entered = self.apart.enter(parts.large_bytes());
        let apart = parts.insert_apart(families);
        entered.came_to(apart.iter().map(|part| part.writer.table().bytes() as u64).sum());
        let (mut sides, others) = self.lock_with_places(families, parts, condition)?;
        if let Some(other_end) = self.ask(write, families, condition, standing) {
            return Ok(other_end);
        }
        let mut interrupted = Interrupted::watch(self);
        let segment = log.segment_of_next();
        let sequence = interrupted.step(self.append(log, write, durability, families, &sides))?;
        insert_all(parts.operations(families, false), &mut sides, sequence);
        let mut fullest: f64 = 0.0;
        for (place, part) in apart.into_iter().enumerate() {
            let (family, side) = (families[place], &mut sides[place]);
            if parts.is_large[place] {
                let first_segment = if durability == Durability::None { u64::MAX } else { segment };
                let frozen = Frozen { table: part.writer.number(sequence), first_segment };
                family.freeze_apart(side, frozen, &self.views);
                Counters::add(&family.counters.bytes_inserted, parts.bytes[place] as u64);
                self.work.request_merge(family);
            } else {
                fullest = fullest.max(account(family, side, parts.bytes[place]));
            }
        }
        interrupted.step(self.complete(sequence))?;
        drop((sides, others));
        drop((entered, admitted));
        interrupted.over();
        self.wait_until_visible(sequence)?;
        if durability == Durability::Sync {
            log.sync_through(sequence).map_err(|error| self.fail(error))?;
        }
        for (place, family) in families.iter().enumerate() {
            family.stall.slow_down(parts.bytes[place], family.memtable_bytes(), fullest);
        }
        Ok(Attempt::Made(sequence))
    }

    /// Takes the write locks, ascending, once no active memtable of a small part is full and there are places
    /// for what the large parts freeze.
    fn lock_with_places<'a>(
        &self,
        families: &[&'a Arc<Family>],
        parts: &Parts<'_>,
        condition: &Condition<'a>,
    ) -> Result<(Vec<Locked<'a>>, Vec<Locked<'a>>)> {
        'again: loop {
            let (mut sides, others) = lock(families, condition);
            self.writable()?;
            for (place, (family, side)) in families.iter().zip(&mut sides).enumerate() {
                let freezes = 1 + usize::from(!side.writer.table().is_empty());
                let has_room = if parts.is_large[place] {
                    family.check_takes_writes()?;
                    self.work.touch(family);
                    family.stall.waiting() + freezes <= MAX_FROZEN
                } else {
                    self.has_room(family, side)?
                };
                if !has_room {
                    drop((sides, others));
                    self.wait_for_merge(family, freezes)?;
                    continue 'again;
                }
            }
            return Ok((sides, others));
        }
    }
}
