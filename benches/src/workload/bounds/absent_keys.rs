//! Keys that are not there, in a database that is only read and was opened with deltas.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use peristyle::{ColumnFamily, ColumnFamilyDatabase, FamilyOptions, WriteBatch};
use serde::{Deserialize, Serialize};

use super::{KEY_BYTES, Row, VALUE_BYTES, median_microseconds};
use crate::child::Place;
use crate::engine::Feature;
use crate::entries::random_key;
use crate::measure::{Figure, Measured};

const BATCH: u64 = 1000;
/// Seconds to wait for filters.
const PATIENCE: f64 = 10.0;
/// Look-ups that are timed together.
const TOGETHER: u64 = 64;

/// How much is there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AbsentKeys {
    /// Entries in the tree, a tenth of which are written anew and stand in deltas.
    pub entries: u64,
    /// Seconds of each measurement.
    pub seconds: f64,
}

impl Row for AbsentKeys {
    fn name(&self) -> &'static str {
        "absent-keys"
    }

    fn description(&self) -> String {
        format!(
            "{} entries of {VALUE_BYTES} B are merged, a tenth of them is written again in four parts that stay deltas, and the \
             database is closed and opened for reading only. Random keys that are there and that are not are looked up, at once and \
             when filters of the deltas were built.",
            self.entries
        )
    }

    fn needs(&self) -> Vec<Feature> {
        vec![Feature::OwnApi]
    }

    fn run(&self, place: &Place) -> Result<Measured> {
        // Where merges into the tree may cost nothing, what is merged becomes a delta.
        let builder = ColumnFamilyDatabase::builder().merge_cost(0).automatic_maintenance(false);
        let db = builder.open(place.directory())?;
        let family = db.create_column_family("read", FamilyOptions::default())?;
        self.write(&db, &family, 0..self.entries)?;
        db.compact()?;
        for part in 0..4 {
            let len = self.entries / 40;
            self.write(&db, &family, part * len..(part + 1) * len)?;
            db.flush()?;
        }
        drop(family);
        drop(db);
        let db = ColumnFamilyDatabase::builder().read_only(true).open(place.directory())?;
        let family = db.column_family("read")?;
        let deltas = db.family_properties(&family)?.deltas;
        ensure!(deltas > 0, "no deltas were left");
        let look_up = |first: u64| {
            let step = |number: u64| {
                for key in number * TOGETHER..(number + 1) * TOGETHER {
                    let _ = family.get(random_key::<KEY_BYTES>(first + key % self.entries))?;
                }
                Ok(())
            };
            Ok::<_, anyhow::Error>(median_microseconds(self.seconds, u64::MAX, step)? / TOGETHER as f64 * 1e3)
        };
        // Brings pages into the cache.
        look_up(0)?;
        let at_once = look_up(self.entries)?;
        let start = Instant::now();
        while db.family_properties(&family)?.filter_bytes == 0 && start.elapsed().as_secs_f64() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        let filter_bytes = db.family_properties(&family)?.filter_bytes;
        let (absent, present) = (look_up(self.entries)?, look_up(0)?);
        drop(family);
        db.close()?;
        Ok(Measured {
            version: env!("PERISTYLE_VERSION").into(),
            figures: vec![
                Figure::lower("absent_key", absent, "ns"),
                Figure::lower("absent_key_after_opening", at_once, "ns"),
                Figure::lower("present_key", present, "ns"),
                Figure::lower("filters", filter_bytes as f64, "B").aside(),
                Figure::lower("deltas", deltas as f64, "deltas").aside(),
            ],
            ..Measured::default()
        })
    }
}

impl AbsentKeys {
    fn write(
        &self,
        db: &ColumnFamilyDatabase,
        family: &ColumnFamily,
        keys: std::ops::Range<u64>,
    ) -> Result<()> {
        let mut batch = WriteBatch::new();
        for number in keys {
            batch.put(family, random_key::<KEY_BYTES>(number), [number as u8; VALUE_BYTES]);
            if batch.len() as u64 == BATCH {
                db.write(&batch)?;
                batch = WriteBatch::new();
            }
        }
        db.write(&batch)?;
        Ok(())
    }
}
