//! The log while many families are written to at full speed, and opening after a kill.

use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Bound, KEY_BYTES, Row, VALUE_BYTES, longest_milliseconds, p999_microseconds, setup, with_peak};
use crate::child::{Place, kill_this_process};
use crate::engine::{Batch, Durability, Engine, Feature, Memory};
use crate::entries::{Values, has_tag, random_key};
use crate::measure::{Figure, Measured, histogram};
use crate::threads::on_threads;

const BATCH: u64 = 100;
/// Positions that are written in each family.
const POSITIONS: u64 = 1_000_000;

/// Who writes for how long.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Log {
    /// What engines are given.
    pub memory: Option<Memory>,
    /// Families, with a writer each.
    pub families: usize,
    /// Seconds of writing.
    pub seconds: f64,
    /// Whether to write until killed, or to open what was written then.
    pub fill: bool,
}

/// What the process that wrote leaves before it is killed.
#[derive(Serialize, Deserialize)]
struct Left {
    figures: Vec<Figure>,
    /// The last position written in each family.
    last: Vec<u64>,
}

impl Row for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    fn description(&self) -> String {
        format!(
            "{} families with a writer each, who overwrite at random in batches of {BATCH} for {} s as fast as it goes; then \
             SIGKILL, and the database is opened again in another process.",
            self.families, self.seconds
        )
    }

    fn threads(&self) -> usize {
        self.families
    }

    fn needs(&self) -> Vec<Feature> {
        vec![Feature::Log]
    }

    fn disk_bytes(&self) -> u64 {
        (self.seconds * 500e6) as u64 + 2_000_000_000
    }

    fn run(&self, place: &Place) -> Result<Measured> {
        if self.fill {
            self.write(place)?;
            kill_this_process();
        }
        place.step("writing");
        let status = place.in_another_process(&Bound::Log(Self { fill: true, ..self.clone() }))?;
        ensure!(status.signal() == Some(libc::SIGKILL), "the process that writes ended with {status}");
        let Left { mut figures, last } = place.take_up()?;
        place.step("opening");
        let start = Instant::now();
        let engine = place.open(&setup(self.families, self.memory))?;
        figures.insert(2, Figure::lower("open_after_kill", start.elapsed().as_secs_f64() * 1e3, "ms"));
        for (family, position) in last.into_iter().enumerate() {
            engine.read(family, &mut |reader| {
                let mut right = false;
                let key = random_key::<KEY_BYTES>(position);
                reader.get(&key, &mut |value| right = has_tag(value, position))?;
                ensure!(right, "the last entry of family {family} is lost");
                Ok(())
            })?;
        }
        Ok(Measured { version: engine.version(), figures, ..Measured::default() })
    }
}

impl Log {
    fn write(&self, place: &Place) -> Result<()> {
        let engine = place.open(&setup(self.families, self.memory))?;
        let values = Values::new();
        let (written, peak) = with_peak(engine.as_ref(), place.directory(), || {
            on_threads(self.families, |family| self.write_family(engine.as_ref(), &values, family))
        })?;
        let (written, seconds) = written;
        let mut latencies = histogram()?;
        let mut entries = 0;
        let mut last = Vec::new();
        for (position, of_family) in written {
            entries += of_family.len() * BATCH;
            latencies.add(of_family)?;
            last.push(position);
        }
        let figures = vec![
            Figure::lower("peak_of_log", peak.log_bytes as f64, "B"),
            Figure::lower("peak_of_directory", peak.disk_bytes as f64, "B"),
            Figure::higher("throughput", entries as f64 / seconds, "entries/s"),
            Figure::lower("commit_p99.9", p999_microseconds(&latencies), "us"),
            Figure::lower("longest_commit", longest_milliseconds(&latencies), "ms"),
        ];
        place.leave(&Left { figures, last })
    }

    fn write_family(
        &self,
        engine: &dyn Engine,
        values: &Values,
        family: usize,
    ) -> Result<(u64, hdrhistogram::Histogram<u64>)> {
        let mut latencies = histogram()?;
        let mut random = fastrand::Rng::with_seed(family as u64);
        let mut writer = engine.writer(Durability::Unsynced)?;
        let mut batch = Batch::default();
        let mut value = [0; VALUE_BYTES];
        let mut position = 0;
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < self.seconds || latencies.is_empty() {
            batch.clear();
            for _ in 0..BATCH {
                position = random.u64(..POSITIONS);
                values.fill_tagged(position, latencies.len(), &mut value);
                batch.push(&random_key::<KEY_BYTES>(position), &value);
            }
            let before = Instant::now();
            writer.write(family, &batch)?;
            latencies.saturating_record(before.elapsed().as_nanos() as u64);
        }
        Ok((position, latencies))
    }
}
