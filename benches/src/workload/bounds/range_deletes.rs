//! Reading while many range deletes were just made.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Row, VALUE_BYTES, median_microseconds, median_of_few, setup};
use crate::child::Place;
use crate::engine::{Batch, Direction, Durability, Engine, Feature, Memory};
use crate::entries::{Values, mix};
use crate::measure::{Figure, Measured};

const BATCH: u64 = 1000;
/// Entries for each range that is deleted, of which it holds one.
const ENTRIES_PER_RANGE: u64 = 4;

/// How many ranges are deleted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RangeDeletes {
    /// What engines are given.
    pub memory: Option<Memory>,
    /// Numbers of ranges, ascending: reads are measured whenever as many were deleted.
    pub ranges: Vec<u64>,
    /// Seconds of each measurement, four times over.
    pub seconds: f64,
}

impl Row for RangeDeletes {
    fn name(&self) -> &'static str {
        "range-deletes"
    }

    fn description(&self) -> String {
        format!(
            "{} entries are written and flushed, then ranges of one key each are deleted one by one. When {:?} were, entries are \
             looked up, sought and stepped from, and the first is looked for.",
            self.entries(),
            self.ranges
        )
    }

    fn needs(&self) -> Vec<Feature> {
        vec![Feature::RangeDeletes]
    }

    fn run(&self, place: &Place) -> Result<Measured> {
        let engine = place.open(&setup(1, self.memory))?;
        let values = Values::new();
        let mut writer = engine.writer(Durability::Unsynced)?;
        let mut batch = Batch::default();
        place.step("writing");
        for position in 0..self.entries() {
            batch.push(&position.to_be_bytes(), values.value(position, VALUE_BYTES));
            if batch.len() as u64 == BATCH || position + 1 == self.entries() {
                writer.write(0, &batch)?;
                batch.clear();
            }
        }
        engine.flush_until_quiet()?;
        let mut figures = Vec::new();
        let mut deleted = 0;
        for &ranges in &self.ranges {
            place.step(&format!("{ranges} ranges"));
            let delete = median_microseconds(f64::MAX, ranges - deleted, |number| {
                let first = (deleted + number) * ENTRIES_PER_RANGE;
                writer.remove_range(0, &first.to_be_bytes(), &(first + 1).to_be_bytes())
            })?;
            deleted = ranges;
            let engine = engine.as_ref();
            figures.extend([
                Figure::lower(format!("seek_after_{ranges}"), self.seek(engine, ranges)?, "us"),
                Figure::lower(format!("first_after_{ranges}"), self.first(engine)?, "us"),
                Figure::lower(format!("point_read_after_{ranges}"), self.get(engine, ranges)?, "us"),
                Figure::lower(format!("delete_until_{ranges}"), delete, "us").aside(),
            ]);
        }
        engine.read(0, &mut |reader| {
            let (count, expected) = (reader.count()?, self.entries() - deleted);
            ensure!(count == expected, "{count} entries of {expected}");
            Ok(())
        })?;
        Ok(Measured { version: engine.version(), figures, ..Measured::default() })
    }
}

impl RangeDeletes {
    fn entries(&self) -> u64 {
        self.ranges.iter().max().unwrap_or(&1) * ENTRIES_PER_RANGE
    }

    /// Steps over a deleted entry, wherever it is.
    fn seek(&self, engine: &dyn Engine, ranges: u64) -> Result<f64> {
        median_of_few(self.seconds, |number| {
            let deleted = mix(number) % ranges * ENTRIES_PER_RANGE;
            self.expect(engine, deleted, deleted + 1)
        })
    }

    fn first(&self, engine: &dyn Engine) -> Result<f64> {
        median_of_few(self.seconds, |_| self.expect(engine, 0, 1))
    }

    /// Looks up deleted entries and their neighbours in turn.
    fn get(&self, engine: &dyn Engine, ranges: u64) -> Result<f64> {
        median_of_few(self.seconds, |number| {
            let position = mix(number / 2) % ranges * ENTRIES_PER_RANGE + number % 2;
            engine.read(0, &mut |reader| {
                let found = reader.get(&position.to_be_bytes(), &mut |_| ())?;
                ensure!(found == (number % 2 == 1), "entry {position} is there, or is not");
                Ok(())
            })
        })
    }

    /// Fails if the first entry from a position on is not the one expected.
    fn expect(&self, engine: &dyn Engine, from: u64, expected: u64) -> Result<()> {
        engine.read(0, &mut |reader| {
            let mut right = false;
            reader.scan(&from.to_be_bytes(), Direction::Forward, &mut |key, _| {
                right = key == expected.to_be_bytes();
                false
            })?;
            ensure!(right, "entry {expected} does not follow {from}");
            Ok(())
        })
    }
}
