//! More families than descriptors.

use std::time::Instant;

use anyhow::{Result, ensure};
use peristyle::{ColumnFamilyDatabase, FamilyOptions, WriteBatch};
use serde::{Deserialize, Serialize};

use super::{KEY_BYTES, Row};
use crate::child::Place;
use crate::engine::Feature;
use crate::entries::{mix, random_key};
use crate::measure::{Figure, Measured};

/// Bytes of a value.
const VALUE_BYTES: usize = 1000;
/// Bytes of memory for all, of which the read caches hold a fraction of what is read.
const MEMORY_BYTES: u64 = 32 << 20;

/// How many families, with how many descriptors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Descriptors {
    /// Number of families.
    pub families: usize,
    /// Descriptors onto the data file at most.
    pub cap: usize,
    /// Entries in each family.
    pub entries: u64,
    /// Seconds of reading.
    pub seconds: f64,
}

impl Row for Descriptors {
    fn name(&self) -> &'static str {
        "descriptors"
    }

    fn description(&self) -> String {
        format!(
            "{} families of {} entries of {VALUE_BYTES} B and at most {} descriptors onto the data file, {} MiB of memory; then random \
             reads of all families, of which most miss the read caches.",
            self.families,
            self.entries,
            self.cap,
            MEMORY_BYTES >> 20
        )
    }

    fn needs(&self) -> Vec<Feature> {
        vec![Feature::OwnApi]
    }

    fn run(&self, place: &Place) -> Result<Measured> {
        let builder = ColumnFamilyDatabase::builder().max_descriptors(self.cap).memory_bytes(MEMORY_BYTES);
        let db = builder.open(place.directory())?;
        let names = (0..self.families).map(|number| (format!("family-{number}"), FamilyOptions::default()));
        let families = db.create_column_families(names)?;
        place.step("writing");
        for family in &families {
            let mut batch = WriteBatch::new();
            for number in 0..self.entries {
                batch.put(family, random_key::<KEY_BYTES>(number), [number as u8; VALUE_BYTES]);
            }
            db.write(&batch)?;
        }
        db.flush()?;
        db.wait_until_idle()?;
        place.step("reading");
        let before = db.statistics().descriptors;
        let misses_before = db.aggregate_cache_stats().misses;
        let (start, mut reads) = (Instant::now(), 0);
        while reads == 0 || start.elapsed().as_secs_f64() < self.seconds {
            for _ in 0..64 {
                let random = mix(reads);
                let family = &families[(random % families.len() as u64) as usize];
                let number = (random >> 32) % self.entries;
                let value = family.get(random_key::<KEY_BYTES>(number))?;
                ensure!(value.is_some_and(|value| value[0] == number as u8), "an entry is wrong");
                reads += 1;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let after = db.statistics().descriptors;
        let misses = db.aggregate_cache_stats().misses - misses_before;
        ensure!(after.peak <= self.cap, "{} descriptors were open", after.peak);
        drop(families);
        db.close()?;
        Ok(Measured {
            version: env!("PERISTYLE_VERSION").into(),
            figures: vec![
                Figure::lower("opens", (after.misses - before.misses) as f64 / seconds, "opens/s"),
                Figure::higher("reads", reads as f64 / seconds, "reads/s"),
                Figure::lower("reads_of_the_file", misses as f64 / seconds, "reads/s").aside(),
                Figure::lower("descriptors_at_most", after.peak as f64, "descriptors").aside(),
            ],
            ..Measured::default()
        })
    }
}
