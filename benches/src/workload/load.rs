//! Filling a family with random keys before something else is measured, and looking whether it is filled.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::engine::{Batch, Direction, Durability, Engine};
use crate::entries::{Values, random_key};

/// Entries of one kind: those at the positions `0..entries`, each with a tagged value.
#[derive(Clone, Copy)]
pub struct Load {
    /// The family that is filled.
    pub family: usize,
    /// Number of entries.
    pub entries: u64,
    /// Size of each value, in bytes.
    pub value_bytes: usize,
    /// Entries in one commit.
    pub batch: u64,
    /// What each commit survives.
    pub durability: Durability,
}

impl Load {
    /// Writes all entries, in an order in which their keys are random; returns the seconds that commits took,
    /// and the seconds from the last one until the engine was quiet.
    pub fn write<const KEY: usize>(
        &self,
        engine: &dyn Engine,
        values: &Values,
        mut acknowledged: impl FnMut(u64),
    ) -> Result<(f64, f64)> {
        let mut writer = engine.writer(self.durability)?;
        let mut batch = Batch::default();
        let mut value = vec![0; self.value_bytes];
        let mut next = 0;
        let start = Instant::now();
        while next < self.entries {
            let end = (next + self.batch).min(self.entries);
            batch.clear();
            for position in next..end {
                values.fill_tagged(position, 0, &mut value);
                batch.push(&random_key::<KEY>(position), &value);
            }
            writer.write(self.family, &batch)?;
            next = end;
            acknowledged(next);
        }
        let end = Instant::now();
        engine.flush_until_quiet()?;
        Ok(((end - start).as_secs_f64(), end.elapsed().as_secs_f64()))
    }

    /// Reads the family from end to end, which also brings it into the caches; fails if its entries are not
    /// as many as were written, or out of order.
    pub fn check(&self, engine: &dyn Engine) -> Result<()> {
        engine.read(self.family, &mut |reader| {
            let (mut count, mut ordered, mut previous) = (0, true, Vec::new());
            reader.scan(&[], Direction::Forward, &mut |key, value| {
                ordered &= (count == 0 || previous.as_slice() < key) && value.len() == self.value_bytes;
                previous.clear();
                previous.extend_from_slice(key);
                count += 1;
                true
            })?;
            ensure!(count == self.entries, "{count} entries of {}", self.entries);
            ensure!(ordered, "the entries are out of order or have values of a wrong size");
            Ok(())
        })
    }
}
