//! How the totals of memory are split over the families.
//!
//! Half of a total is split by the families' weights, as if there were at least eight families; the rest goes where the
//! work is: by bytes written lately for memtables and write buffers, by cache misses lately for the read caches. Without any work it is
//! split by weight, too.

use std::collections::HashMap;

use crate::codec::ids::FamilyId;
use crate::column_family::options::FamilyOptions;
use crate::db::Shared;
use crate::options::Options;
use crate::page::CacheBudgets;
use crate::sync::atomic::Ordering;

/// Families that the fixed half of a total is always split over.
const FEWEST_FAMILIES: u64 = 8;
/// Parts of a family's write budget: one for the active memtable, one for each frozen one, the rest for the write buffer.
const WRITE_PARTS: u64 = 8;
const WRITE_BUFFER_PARTS: u64 = 3;
/// The smallest budgets of a family.
const LEAST_MEMTABLE: u64 = 4 << 10;
const LEAST_CACHE_PAGES: u64 = 8;

/// What the families did, as of the last look.
#[derive(Default)]
pub(super) struct Activity {
    families: HashMap<FamilyId, Seen>,
}

#[derive(Default, Clone, Copy)]
struct Seen {
    written: u64,
    missed: u64,
    /// Decaying averages of what was written (bytes) and missed (pages) between two looks.
    writing: f64,
    missing: f64,
}

/// A total split over weights and activity; see the module.
fn split(total: u64, weights: &[u64], activity: &[f64]) -> Vec<u64> {
    let weight: u64 = weights.iter().sum();
    let divisor = weight.max(FEWEST_FAMILIES);
    let busy: f64 = activity.iter().sum();
    if busy < 1.0 {
        return weights.iter().map(|weight| total / divisor * weight).collect();
    }
    let fixed: Vec<u64> = weights.iter().map(|weight| total / 2 / divisor * weight).collect();
    let free = (total - fixed.iter().sum::<u64>()) as f64;
    fixed.iter().zip(activity).map(|(fixed, active)| fixed + (free * active / busy) as u64).collect()
}

fn memtable_bytes(share: u64) -> usize {
    (share / WRITE_PARTS).max(LEAST_MEMTABLE) as usize
}

fn cache_budgets(cache_share: u64, write_share: u64, page_size: usize) -> CacheBudgets {
    let least = LEAST_CACHE_PAGES * page_size as u64;
    CacheBudgets {
        read_bytes: cache_share.max(least),
        write_bytes: (write_share / WRITE_PARTS * WRITE_BUFFER_PARTS).max(least),
    }
}

/// Budgets of a family that has done nothing yet, one of `families`: of its page cache, and of a memtable.
pub(super) fn initial(
    options: &Options,
    own: &FamilyOptions,
    page_size: usize,
    families: usize,
) -> (CacheBudgets, usize) {
    let share = |total: u64, weight: u16| {
        let weight = u64::from(weight);
        total / FEWEST_FAMILIES.max(families as u64).max(weight) * weight
    };
    let write = share(options.write_buffer_bytes, own.memtable_share);
    let cache = share(options.cache_bytes, own.cache_share);
    (cache_budgets(cache, write, page_size), memtable_bytes(write))
}

impl Shared {
    /// Splits the totals anew: after families came or went, and as the work moves.
    pub(super) fn rebalance(&self) {
        let families = self.families();
        let mut activity = self.activity.lock();
        activity.families.retain(|id, _| families.iter().any(|family| family.id() == *id));
        let seen: Vec<Seen> = families
            .iter()
            .map(|family| {
                let seen = activity.families.entry(family.id()).or_default();
                let written = family.counters.bytes_inserted.load(Ordering::Relaxed);
                let missed = family.store().cache_stats().misses;
                seen.writing = seen.writing / 2.0 + (written - seen.written) as f64;
                seen.missing = seen.missing / 2.0 + missed.saturating_sub(seen.missed) as f64;
                seen.written = written;
                seen.missed = missed;
                *seen
            })
            .collect();
        let by = |weight: fn(&FamilyOptions) -> u16| -> Vec<u64> {
            families.iter().map(|family| u64::from(weight(family.options()))).collect()
        };
        let writing: Vec<f64> = seen.iter().map(|seen| seen.writing).collect();
        let missing: Vec<f64> = seen.iter().map(|seen| seen.missing).collect();
        let write = split(self.options.write_buffer_bytes, &by(|options| options.memtable_share), &writing);
        let cache = split(self.options.cache_bytes, &by(|options| options.cache_share), &missing);
        for ((family, write), cache) in families.iter().zip(write).zip(cache) {
            family.set_memtable_bytes(memtable_bytes(write));
            family.store().set_budgets(cache_budgets(cache, write, self.data.page_size()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_idle_families_get_an_eighth_each_and_many_share_all() {
        assert_eq!(split(800, &[1], &[0.0]), [100]);
        assert_eq!(split(1000, &[1; 10], &[0.0; 10]), [100; 10]);
    }

    #[test]
    fn a_busy_family_gets_what_idle_ones_do_not_need_and_the_total_holds() {
        let shares = split(1600, &[1, 1], &[50.0, 0.0]);
        assert_eq!(shares, [1500, 100]);
        let shares = split(1 << 30, &[1, 4, 1, 1], &[10.0, 20.0, 0.0, 5.0]);
        assert!(shares.iter().sum::<u64>() <= 1 << 30);
    }
}
