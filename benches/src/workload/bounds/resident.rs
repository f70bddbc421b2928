//! Resident memory beside the one number that is to bound it.

use std::time::Instant;

use anyhow::{Result, ensure};
use peristyle::{ColumnFamilyDatabase, FamilyOptions, WriteBatch};
use serde::{Deserialize, Serialize};

use super::{KEY_BYTES, Row, VALUE_BYTES};
use crate::child::Place;
use crate::engine::Feature;
use crate::entries::{mix, random_key};
use crate::measure::{Figure, Measured};
use crate::usage::Usage;

const FAMILIES: u64 = 4;
const BATCH: u64 = 100;

/// What it is told, and what is done with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Resident {
    /// What `memory_bytes` is set to; `None`: nothing, so that the default counts.
    pub total: Option<u64>,
    /// Entries that are written.
    pub entries: u64,
    /// Seconds of overwriting and reading at random.
    pub seconds: f64,
}

impl Row for Resident {
    fn name(&self) -> &'static str {
        "resident"
    }

    fn variant(&self) -> String {
        self.total.map_or("default".into(), |total| format!("{}-mib", total >> 20))
    }

    fn description(&self) -> String {
        format!(
            "{} entries of {VALUE_BYTES} B are written to {FAMILIES} families in batches of {BATCH}, then overwritten and read at random \
             for {} s. Resident memory of the process at its peak, mapped files included, beyond that before the database was opened; \
             the total is what `memory_bytes` says.",
            self.entries, self.seconds
        )
    }

    fn disk_bytes(&self) -> u64 {
        self.entries * (VALUE_BYTES + KEY_BYTES) as u64 * 6 + 2_000_000_000
    }

    fn needs(&self) -> Vec<Feature> {
        vec![Feature::OwnApi]
    }

    fn run(&self, place: &Place) -> Result<Measured> {
        Usage::forget_peak_memory();
        let before = Usage::now()?.peak_memory_bytes;
        let mut builder = ColumnFamilyDatabase::builder();
        if let Some(total) = self.total {
            builder = builder.memory_bytes(total);
        }
        let db = builder.open(place.directory())?;
        let names = (0..FAMILIES).map(|number| (format!("family-{number}"), FamilyOptions::default()));
        let families = db.create_column_families(names)?;
        let family = |number: u64| &families[(number % FAMILIES) as usize];
        place.step("writing");
        let mut batch = WriteBatch::new();
        for number in 0..self.entries {
            batch.put(family(number), random_key::<KEY_BYTES>(number), [number as u8; VALUE_BYTES]);
            if batch.len() as u64 == BATCH {
                db.write(&batch)?;
                batch = WriteBatch::new();
            }
        }
        db.write(&batch)?;
        let loaded = Usage::now()?.peak_memory_bytes.saturating_sub(before) as f64;
        place.step("overwriting and reading");
        let (start, mut steps) = (Instant::now(), 0);
        while steps == 0 || start.elapsed().as_secs_f64() < self.seconds {
            for _ in 0..64 {
                steps += 1;
                let number = mix(steps) % self.entries;
                let key = random_key::<KEY_BYTES>(number);
                if steps % 2 == 0 {
                    family(number).put(key, [number as u8; VALUE_BYTES])?;
                } else {
                    let value = family(number).get(key)?;
                    ensure!(value.is_some_and(|value| value[0] == number as u8), "an entry is wrong");
                }
            }
        }
        let peak = Usage::now()?.peak_memory_bytes.saturating_sub(before) as f64;
        let report = db.memory_report();
        let total = report.budget_bytes as f64;
        drop(families);
        db.close()?;
        Ok(Measured {
            version: env!("PERISTYLE_VERSION").into(),
            figures: vec![
                Figure::lower("peak", peak, "B"),
                Figure::lower("peak_to_total", peak / total, "B/B"),
                Figure::lower("peak_while_loading", loaded, "B").aside(),
                Figure::lower("reported", report.total_bytes() as f64, "B").aside(),
                Figure::lower("total", total, "B").aside(),
            ],
            ..Measured::default()
        })
    }
}
