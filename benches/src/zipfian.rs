//! The keys that YCSB asks for: few of them often, or the latest ones.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, Zipf};

use crate::entries::mix;

/// YCSB's exponent.
const EXPONENT: f64 = 0.99;

/// Ranks from 0 of which the first come most often.
pub struct Zipfian {
    distribution: Zipf<f64>,
    random: SmallRng,
}

impl Zipfian {
    /// Ranks in `0..ranks`, the same ones each time for a seed.
    pub fn new(ranks: u64, seed: u64) -> Result<Self> {
        let distribution = Zipf::new(ranks as f64, EXPONENT).context("there are no ranks")?;
        Ok(Self { distribution, random: SmallRng::seed_from_u64(seed) })
    }

    /// The next rank.
    pub fn rank(&mut self) -> u64 {
        self.distribution.sample(&mut self.random) as u64 - 1
    }

    /// The next position in `0..count`, where the frequent ones lie anywhere.
    pub fn scattered(&mut self, count: u64) -> u64 {
        mix(self.rank()) % count
    }

    /// The next position in `0..count`, where the frequent ones are the last.
    pub fn latest(&mut self, count: u64) -> u64 {
        count - 1 - self.rank() % count
    }
}

/// Hands positions to threads that insert, and tells up to where all have been inserted.
pub struct Insertions {
    next: AtomicU64,
    /// For each thread, a position not above the one that it inserts now; the maximum if it inserts none.
    pending: Vec<AtomicU64>,
}

impl Insertions {
    /// Positions from `first` on, for some threads.
    pub fn new(first: u64, threads: usize) -> Self {
        let pending = (0..threads).map(|_| AtomicU64::new(u64::MAX)).collect();
        Self { next: AtomicU64::new(first), pending }
    }

    /// Inserts at the next position.
    pub fn insert(&self, thread: usize, insert: impl FnOnce(u64) -> Result<()>) -> Result<()> {
        let pending = &self.pending[thread];
        // Announced before it is taken, so that no one who sees it taken can miss it.
        pending.store(self.next.load(Ordering::SeqCst), Ordering::SeqCst);
        let position = self.next.fetch_add(1, Ordering::SeqCst);
        pending.store(position, Ordering::SeqCst);
        insert(position)?;
        pending.store(u64::MAX, Ordering::SeqCst);
        Ok(())
    }

    /// All positions below this one have been inserted.
    pub fn inserted(&self) -> u64 {
        let next = self.next.load(Ordering::SeqCst);
        self.pending.iter().map(|pending| pending.load(Ordering::SeqCst)).fold(next, u64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ranks_come_most_often_and_all_are_in_range() -> Result<()> {
        let mut zipfian = Zipfian::new(1000, 1)?;
        let mut counts = [0; 1000];
        (0..100_000).for_each(|_| counts[zipfian.rank() as usize] += 1);
        // With exponent 0.99 the harmonic sum over 1000 ranks is about 7.8.
        assert!((11_000..15_000).contains(&counts[0]), "{}", counts[0]);
        assert!(counts[0] > counts[9] && counts[9] > counts[499]);
        Ok(())
    }

    #[test]
    fn a_seed_gives_the_same_positions_each_time() -> Result<()> {
        let positions = |seed| {
            let mut zipfian = Zipfian::new(1000, seed)?;
            Ok::<_, anyhow::Error>((0..100).map(|_| zipfian.scattered(1000)).collect::<Vec<_>>())
        };
        assert_eq!(positions(7)?, positions(7)?);
        assert_ne!(positions(7)?, positions(8)?);
        Ok(())
    }

    #[test]
    fn the_latest_are_the_last() -> Result<()> {
        let mut zipfian = Zipfian::new(1000, 1)?;
        let latest: Vec<u64> = (0..10_000).map(|_| zipfian.latest(500)).collect();
        assert!(latest.iter().all(|position| *position < 500));
        assert!(latest.iter().filter(|position| **position >= 490).count() > 2000);
        Ok(())
    }

    #[test]
    fn a_position_counts_as_inserted_once_all_below_are() -> Result<()> {
        let insertions = Insertions::new(10, 2);
        insertions.insert(0, |position| {
            assert_eq!((position, insertions.inserted()), (10, 10));
            insertions.insert(1, |position| {
                assert_eq!(position, 11);
                Ok(())
            })?;
            assert_eq!(insertions.inserted(), 10);
            Ok(())
        })?;
        assert_eq!(insertions.inserted(), 12);
        Ok(())
    }
}
