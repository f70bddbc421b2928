//! The memory that one database may take, or several that share it, and how its totals are split over all
//! their families.
//!
//! *Read caches* take what they need from one total by themselves, for as long as anything is left of it
//! ([`CacheTotal`]). Only when one is refused, others are made smaller, by as much as the refused ones missed
//! since and no more: first by what they hold and do not use, then by what they have beyond their part. Half
//! of the total is split into parts by the families' weights, as if there were at least eight families; the
//! rest belongs to those who were refused, by what they missed. So a family keeps what it holds for as long
//! as nobody else wants it, and its part of half the total for ever.
//!
//! *Memtables and write buffers* hold what was written lately and are empty otherwise. Half of their total is
//! split by weight, too; the other half goes where bytes were written lately. Families that are not written
//! to are not looked at.
//!
//! A family counts the same whichever of the databases it is in. A database that is closed takes its weights
//! along, and its caches give back what they hold, whoever still has handles.

use crate::column_family::family::Family;
use crate::column_family::options::FamilyOptions;
use crate::options::Budgets;
use crate::page::{Appetite, CacheBudgets, CacheTotal, Share};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::bell::Bell;

/// Families that the fixed half of a total is always split over.
const FEWEST_FAMILIES: u64 = 8;
/// Parts of a family's write budget: one for the active memtable, one for each frozen one, the rest for the
/// write buffer.
const WRITE_PARTS: u64 = 8;
const WRITE_BUFFER_PARTS: u64 = 3;
/// What a replay gets at least: a part of the budget for writing, and bytes.
const LEAST_LOAN_PART: u64 = 256;
const LEAST_LOAN: u64 = 256 << 10;
/// The smallest budgets of a family.
const LEAST_MEMTABLE: u64 = 4 << 10;
const LEAST_DIRTY_PAGES: u64 = 8;

/// What a family wrote, as of the last look.
#[derive(Default, Clone, Copy)]
pub(super) struct Writing {
    bytes: u64,
    /// Decaying average of bytes written between two looks.
    lately: f64,
}

impl Writing {
    /// For a family that is not watched yet: what was written to it before does not count.
    pub(super) fn from_now(family: &Family) -> Self {
        Self { bytes: family.counters.bytes_inserted.load(Ordering::Relaxed), lately: 0.0 }
    }

    /// Sees what `family` wrote since the last look, and says what it asks for.
    pub(super) fn look(&mut self, family: &Arc<Family>) -> Wish {
        let bytes = family.counters.bytes_inserted.load(Ordering::Relaxed);
        self.lately = self.lately / 2.0 + (bytes - self.bytes) as f64;
        self.bytes = bytes;
        Wish { family: Arc::clone(family), lately: self.lately }
    }
}

/// A family that was written to lately, and how much.
pub(super) struct Wish {
    family: Arc<Family>,
    lately: f64,
}

/// Sums of the weights of families.
#[derive(Default, Clone, Copy)]
pub(super) struct Weights {
    pub(super) memtable: u64,
    pub(super) cache: u64,
}

impl Weights {
    pub(super) fn of(family: &FamilyOptions) -> Self {
        Self { memtable: family.memtable_share.into(), cache: family.cache_share.into() }
    }
}

/// The memory that one database may take, or several together.
pub(super) struct Memory {
    /// Bytes for all that is kept in memory.
    pub(super) total: u64,
    cache: Arc<CacheTotal>,
    write_bytes: u64,
    /// What all families weigh.
    memtable_weights: AtomicU64,
    cache_weights: AtomicU64,
    /// Bytes for writing that replays under way may take.
    lent: AtomicU64,
}

/// What one of `weight` has of the half of `total` that is split by weight, where all weigh `weights`.
fn part(total: u64, weight: u64, weights: u64) -> u64 {
    total / 2 / weights.max(weight).max(FEWEST_FAMILIES) * weight
}

/// What is left of `total` when everybody has that.
fn free(total: u64, weights: u64) -> u64 {
    total - part(total, weights, weights)
}

/// What those of `(weight, activity)` have of `total`, where all weigh `weights`; see the module.
fn split(total: u64, weights: u64, families: &[(u64, f64)]) -> Vec<u64> {
    let busy: f64 = families.iter().map(|(_, activity)| activity).sum();
    let free = free(total, weights);
    let share = |&(weight, activity): &(u64, f64)| {
        let fixed = part(total, weight, weights);
        // Without any work it is split by weight, too.
        let more = if busy < 1.0 { fixed } else { (free as f64 * activity / busy) as u64 };
        fixed + more
    };
    families.iter().map(share).collect()
}

fn memtable_bytes(share: u64) -> usize {
    (share / WRITE_PARTS).max(LEAST_MEMTABLE) as usize
}

fn dirty_bytes(share: u64, page_size: usize) -> u64 {
    (share / WRITE_PARTS * WRITE_BUFFER_PARTS).max(LEAST_DIRTY_PAGES * page_size as u64)
}

/// What is to change for caches of `(weight, appetite)`, where all weigh `weights`, `limit` is for all of
/// them, and `left` is what none of them has: bytes that each gives, and bytes that each gets.
fn rebalance(limit: u64, left: u64, weights: u64, caches: &[(u64, Appetite)]) -> Vec<(u64, u64)> {
    let pressures: u64 = caches.iter().map(|(_, cache)| cache.pressure).sum();
    let target = |&(weight, cache): &(u64, Appetite)| {
        let refused = free(limit, weights) as f64 * cache.pressure as f64 / (pressures as f64).max(1.0);
        part(limit, weight, weights) + refused as u64
    };
    let wanted = |cache: &(u64, Appetite)| {
        cache.1.missed.map_or(0, |missed| missed.min(target(cache).saturating_sub(cache.1.share)))
    };
    let unused = |(_, cache): &(u64, Appetite)| match cache.missed {
        Some(_) => 0,
        None => cache.share.saturating_sub(cache.held),
    };
    // Beyond what it uses without need.
    let beyond = |cache: &(u64, Appetite)| (cache.1.share - unused(cache)).saturating_sub(target(cache));
    let sum = |of: &dyn Fn(&(u64, Appetite)) -> u64| caches.iter().map(of).sum::<u64>();
    let all_wanted = sum(&wanted);
    let (all_unused, all_beyond) = (sum(&unused), sum(&beyond));
    let first = all_wanted.saturating_sub(left).min(all_unused);
    let then = all_wanted.saturating_sub(left + first).min(all_beyond);
    let there = left + first + then;
    let of =
        |bytes: u64, part: u64, whole: u64| u128::from(bytes) * u128::from(part) / u128::from(whole.max(1));
    let change = |cache: &(u64, Appetite)| {
        // Rounded up, so that what is given makes up for what is got.
        let gives = |bytes: u64, part: u64, whole: u64| {
            (u128::from(bytes) * u128::from(part)).div_ceil(u128::from(whole.max(1))) as u64
        };
        let gives = gives(first, unused(cache), all_unused) + gives(then, beyond(cache), all_beyond);
        (gives, of(there.min(all_wanted), wanted(cache), all_wanted) as u64)
    };
    caches.iter().map(change).collect()
}

impl Memory {
    /// `bell` is rung when caches want more than they have.
    pub(super) fn new(budgets: Budgets, bell: &Arc<Bell>) -> Self {
        Self {
            total: budgets.total,
            cache: CacheTotal::new(budgets.cache, Arc::clone(bell)),
            write_bytes: budgets.write,
            memtable_weights: AtomicU64::new(0),
            cache_weights: AtomicU64::new(0),
            lent: AtomicU64::new(0),
        }
    }

    pub(super) fn write_bytes(&self) -> u64 {
        self.write_bytes
    }

    pub(super) fn cache_bytes(&self) -> u64 {
        self.cache.limit()
    }

    /// Families that weigh this are there from now on.
    pub(super) fn add_weights(&self, weights: Weights) {
        self.memtable_weights.fetch_add(weights.memtable, Ordering::Relaxed);
        self.cache_weights.fetch_add(weights.cache, Ordering::Relaxed);
    }

    /// Families that weigh this are gone.
    pub(super) fn subtract_weights(&self, weights: Weights) {
        self.memtable_weights.fetch_sub(weights.memtable, Ordering::Relaxed);
        self.cache_weights.fetch_sub(weights.cache, Ordering::Relaxed);
    }

    /// What all families weigh.
    pub(super) fn weights(&self) -> Weights {
        let cache = self.cache_weights.load(Ordering::Relaxed);
        Weights { memtable: self.memtable_weights(), cache }
    }

    /// What they weigh with memtables.
    pub(super) fn memtable_weights(&self) -> u64 {
        self.memtable_weights.load(Ordering::Relaxed)
    }

    /// Budgets of a family that has done nothing yet, where all weigh `weights` with memtables: of its page
    /// cache, and of a memtable.
    pub(super) fn initial(
        &self,
        own: &FamilyOptions,
        page_size: usize,
        weights: u64,
    ) -> (CacheBudgets, usize) {
        let write = 2 * part(self.write_bytes, own.memtable_share.into(), weights);
        let budgets =
            CacheBudgets { read: Share::of(&self.cache), write_bytes: dirty_bytes(write, page_size) };
        (budgets, memtable_bytes(write))
    }

    /// Whether a read cache wants more than there is, and others have not been looked through for it.
    pub(super) fn is_hungry(&self) -> bool {
        self.cache.is_hungry()
    }

    /// Gives more to read caches that were refused it, if any were. `families` are all that there are; costs
    /// a look at each then.
    pub(super) fn rebalance_caches(&self, families: impl FnOnce() -> Vec<Arc<Family>>) {
        if !self.cache.take_hunger() {
            return;
        }
        let families = families();
        let caches: Vec<_> = families
            .iter()
            .map(|family| (u64::from(family.options().cache_share), family.store().cache().appetite()))
            .collect();
        let changes = rebalance(self.cache.limit(), self.cache.left(), self.weights().cache, &caches);
        for (family, &(gives, _)) in families.iter().zip(&changes).filter(|(_, (gives, _))| *gives > 0) {
            family.store().cache().take_away(gives);
        }
        for (family, &(_, gets)) in families.iter().zip(&changes).filter(|(_, (_, gets))| *gets > 0) {
            family.store().cache().take_more(gets);
        }
    }

    /// Splits the write budget anew over all families that were written to lately.
    pub(super) fn rebalance_writing(&self, wishes: &[Wish]) {
        let weight = |family: &Family| u64::from(family.options().memtable_share);
        let shares: Vec<_> = wishes.iter().map(|wish| (weight(&wish.family), wish.lately)).collect();
        for (wish, share) in wishes.iter().zip(split(self.write_bytes, self.memtable_weights(), &shares)) {
            set_write_share(&wish.family, share);
        }
    }

    /// What a family has for writing before it is written to.
    pub(super) fn write_share_at_rest(&self, family: &Family) {
        let weight = u64::from(family.options().memtable_share);
        set_write_share(family, 2 * part(self.write_bytes, weight, self.memtable_weights()));
    }

    /// Lends what is left of the budget for writing to a replay, where `taken` bytes are in use. While
    /// several replays share it, none takes more than half of what is left.
    pub(super) fn lend(&self, taken: u64) -> Loan<'_> {
        let least = (self.write_bytes / LEAST_LOAN_PART).max(LEAST_LOAN);
        let mut lent = self.lent.load(Ordering::Relaxed);
        loop {
            let left = self.write_bytes.saturating_sub(taken).saturating_sub(lent);
            let bytes = (left / 2).max(least);
            match self.lent.compare_exchange(lent, lent + bytes, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Loan { memory: self, bytes },
                Err(now) => lent = now,
            }
        }
    }
}

/// Bytes that a replay may take until this is dropped.
pub(super) struct Loan<'m> {
    memory: &'m Memory,
    pub(super) bytes: u64,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        self.memory.lent.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn set_write_share(family: &Family, share: u64) {
    family.set_memtable_bytes(memtable_bytes(share));
    let store = family.store();
    store.cache().set_write_budget(dirty_bytes(share, store.page_size()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_idle_families_get_an_eighth_each_and_many_share_all() {
        assert_eq!(split(800, 1, &[(1, 0.0)]), [100]);
        assert_eq!(split(1000, 10, &[(1, 0.0); 10]), [100; 10]);
    }

    #[test]
    fn a_busy_family_gets_what_idle_ones_do_not_need_and_the_total_holds() {
        let shares = split(1600, 2, &[(1, 50.0), (1, 0.0)]);
        assert_eq!(shares, [1500, 100]);
        let shares = split(1 << 30, 7, &[(1, 10.0), (4, 20.0), (1, 0.0), (1, 5.0)]);
        assert!(shares.iter().sum::<u64>() <= 1 << 30);
    }

    fn idle(share: u64, held: u64) -> (u64, Appetite) {
        (1, Appetite { share, held, missed: None, pressure: 0 })
    }

    fn hungry(share: u64, missed: u64) -> (u64, Appetite) {
        (1, Appetite { share, held: share, missed: Some(missed), pressure: missed })
    }

    #[test]
    fn what_is_held_and_unwanted_elsewhere_stays() {
        assert_eq!(rebalance(800, 0, 2, &[idle(700, 700), idle(100, 100)]), [(0, 0); 2]);
        // Alone, a cache that is refused gets what there is, from nobody.
        assert_eq!(rebalance(800, 0, 1, &[hungry(800, 1000)]), [(0, 0)]);
    }

    #[test]
    fn what_is_not_used_goes_first_and_no_more_than_is_wanted() {
        let changes = rebalance(1600, 10, 3, &[idle(700, 400), idle(800, 800), hungry(90, 60)]);
        assert_eq!(changes, [(50, 0), (0, 0), (0, 60)]);
    }

    #[test]
    fn a_part_of_half_the_total_stays_with_everybody() {
        let changes = rebalance(1600, 0, 2, &[idle(1000, 1000), hungry(600, 5000)]);
        // 100 are the part of each, the rest goes to who was refused.
        assert_eq!(changes, [(900, 0), (0, 900)]);
        let changes = rebalance(1600, 0, 2, &[idle(100, 100), hungry(800, 5000)]);
        assert_eq!(changes[0], (0, 0));
    }

    #[test]
    fn who_is_refused_gets_by_what_it_misses() {
        let mut shares = [1 << 20, 0, 0];
        for _ in 0..1000 {
            let caches = [hungry(shares[0], 1000), hungry(shares[1], 3000), idle(shares[2], shares[2])];
            let left = (1 << 20) - shares.iter().sum::<u64>();
            for (share, (gives, gets)) in shares.iter_mut().zip(rebalance(1 << 20, left, 3, &caches)) {
                *share = *share - gives + gets;
            }
            assert!(shares.iter().sum::<u64>() <= 1 << 20);
        }
        // The part of each is a sixteenth of the whole; three quarters of the rest are for who missed three
        // times as much. What the third does not ask for stays where it is.
        let target = (1 << 20) / 16 + (1 << 20) / 16 * 13 / 4 * 3;
        assert!(shares[1].abs_diff(target) < 4096 && shares[0] + shares[1] > (1 << 20) - 4096, "{shares:?}");
    }
}
