//! Memory while much is written and a few values are kept, and what of it is given back.

use std::any::Any;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{KEY_BYTES, Row, setup};
use crate::child::Place;
use crate::engine::{Batch, Durability, Memory};
use crate::entries::{Values, has_tag, random_key};
use crate::measure::{Figure, Measured};
use crate::usage::{Usage, own_memory_bytes};

const BATCH: u64 = 10;

/// How much is written, and how many values are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HeldMemory {
    /// What engines are given.
    pub memory: Option<Memory>,
    /// Number of families, written to in turn.
    pub families: usize,
    /// Bytes of keys and values that are written.
    pub bytes: u64,
    /// Size of a value, in bytes.
    pub value_bytes: usize,
    /// Values that are read as soon as they are written, and kept.
    pub kept: u64,
    /// Seconds after closing when memory is looked at once more.
    pub seconds: f64,
}

impl Row for HeldMemory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn description(&self) -> String {
        format!(
            "{} MB of values of {} B written to {} families in batches of {BATCH}; {} of them are read right after they were \
             written, spread over all, and kept in the form in which the engine returns them. Then a flush, they are let go, and \
             the database is closed. Memory beyond that of the process before it was opened; the peak has mapped files in it, the \
             others do not.",
            self.bytes / 1_000_000,
            self.value_bytes,
            self.families,
            self.kept
        )
    }

    fn disk_bytes(&self) -> u64 {
        self.bytes * 5 + 2_000_000_000
    }

    fn run(&self, place: &Place) -> Result<Measured> {
        let values = Values::new();
        let before = own_memory_bytes()?;
        let beyond = || Ok::<_, anyhow::Error>(own_memory_bytes()?.saturating_sub(before) as f64);
        Usage::forget_peak_memory();
        let resident_before = Usage::now()?.peak_memory_bytes;
        let engine = place.open(&setup(self.families, self.memory))?;
        let version = engine.version();

        place.step("writing");
        let batches = (self.bytes / (BATCH * (KEY_BYTES + self.value_bytes) as u64)).max(1);
        let between = (batches / self.kept.max(1)).max(1);
        let mut kept: Vec<Box<dyn Any>> = Vec::new();
        {
            let mut writer = engine.writer(Durability::Unsynced)?;
            let mut batch = Batch::default();
            let mut value = vec![0; self.value_bytes];
            for number in 0..batches {
                let family = (number % self.families as u64) as usize;
                batch.clear();
                for position in number * BATCH..(number + 1) * BATCH {
                    values.fill_tagged(position, 0, &mut value);
                    batch.push(&random_key::<KEY_BYTES>(position), &value);
                }
                writer.write(family, &batch)?;
                if number % between == 0 {
                    kept.push(engine.keep(family, &random_key::<KEY_BYTES>(number * BATCH))?);
                }
            }
        }
        let peak = Usage::now()?.peak_memory_bytes.saturating_sub(resident_before) as f64;
        let written = beyond()?;
        place.step("flushing");
        engine.flush_until_quiet()?;
        let with_kept = beyond()?;
        let count = kept.len();
        drop(kept);
        let without_kept = beyond()?;
        engine.read(0, &mut |reader| {
            let mut right = false;
            reader.get(&random_key::<KEY_BYTES>(0), &mut |value| right = has_tag(value, 0))?;
            ensure!(right, "the first entry is lost");
            Ok(())
        })?;
        drop(engine);
        let closed = beyond()?;
        std::thread::sleep(Duration::from_secs_f64(self.seconds));
        let later = beyond()?;
        Ok(Measured {
            version,
            figures: vec![
                Figure::lower("peak_while_writing", peak, "B"),
                Figure::lower("flushed_with_kept_values", with_kept, "B"),
                Figure::lower("flushed", without_kept, "B"),
                Figure::lower("closed", closed, "B"),
                Figure::lower("closed_for_a_while", later, "B").aside(),
                Figure::lower("written", written, "B").aside(),
                Figure::lower("kept", (count * self.value_bytes) as f64, "B").aside(),
            ],
            ..Measured::default()
        })
    }
}
