//! A scan of few keys, with both bounds given, among keys that were deleted.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Row, VALUE_BYTES, median_of_few, setup};
use crate::child::Place;
use crate::engine::{Batch, Durability, Engine, Memory};
use crate::entries::{Values, mix};
use crate::measure::{Figure, Measured};

const BATCH: u64 = 1000;
/// Entries behind the deleted ones that stay.
const LIVE: u64 = 1000;

/// How many keys are deleted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeletedKeys {
    /// What engines are given.
    pub memory: Option<Memory>,
    /// Number of deleted keys, one after the other.
    pub deleted: u64,
    /// Seconds of each measurement, four times over.
    pub seconds: f64,
}

impl Row for DeletedKeys {
    fn name(&self) -> &'static str {
        "deleted-keys"
    }

    fn description(&self) -> String {
        format!(
            "{} entries are written, flushed and deleted in batches of {BATCH}; {LIVE} behind them stay. Then ranges of one and of \
             100 keys among the deleted ones are read, both bounds given: before and after another flush.",
            self.deleted
        )
    }

    fn run(&self, place: &Place) -> Result<Measured> {
        let engine = place.open(&setup(1, self.memory))?;
        let values = Values::new();
        let mut writer = engine.writer(Durability::Unsynced)?;
        let mut batch = Batch::default();
        place.step("writing");
        for position in 0..self.deleted + LIVE {
            batch.push(&position.to_be_bytes(), values.value(position, VALUE_BYTES));
            if batch.len() as u64 == BATCH || position + 1 == self.deleted + LIVE {
                writer.write(0, &batch)?;
                batch.clear();
            }
        }
        engine.flush_until_quiet()?;
        place.step("deleting");
        for position in 0..self.deleted {
            batch.remove(&position.to_be_bytes());
            if batch.len() as u64 == BATCH || position + 1 == self.deleted {
                writer.write(0, &batch)?;
                batch.clear();
            }
        }
        place.step("reading");
        let mut figures = Vec::new();
        for when in ["", "_after_flush"] {
            figures.push(Figure::lower(format!("range_of_1{when}"), self.range(engine.as_ref(), 1)?, "us"));
            figures.push(Figure::lower(
                format!("range_of_100{when}"),
                self.range(engine.as_ref(), 100)?,
                "us",
            ));
            engine.flush_until_quiet()?;
        }
        self.check(engine.as_ref())?;
        Ok(Measured { version: engine.version(), figures, ..Measured::default() })
    }
}

impl DeletedKeys {
    fn range(&self, engine: &dyn Engine, keys: u64) -> Result<f64> {
        median_of_few(self.seconds, |number| {
            let from = mix(number) % (self.deleted / 2);
            engine.read(0, &mut |reader| {
                let mut found = 0;
                reader.range(&from.to_be_bytes(), &(from + keys).to_be_bytes(), &mut |_, _| {
                    found += 1;
                    true
                })?;
                ensure!(found == 0, "a deleted key is there");
                Ok(())
            })
        })
    }

    fn check(&self, engine: &dyn Engine) -> Result<()> {
        engine.read(0, &mut |reader| {
            let count = reader.count()?;
            ensure!(count == LIVE, "{count} entries of {LIVE}");
            Ok(())
        })
    }
}
