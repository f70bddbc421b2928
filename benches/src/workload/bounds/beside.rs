//! A buffered writer of one family beside writers of another: buffered, synced, or with huge batches.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{KEY_BYTES, Row, VALUE_BYTES, longest_milliseconds, p999_microseconds, setup};
use crate::child::Place;
use crate::engine::{Batch, Durability, Engine, Feature, Memory};
use crate::entries::{Values, random_key};
use crate::measure::{Figure, Latencies, Measured, histogram};

const MEASURED: usize = 0;
const OTHER: usize = 1;
/// Positions that are written in each family.
const POSITIONS: u64 = 1_000_000;

/// How long each phase takes, and how huge a batch is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Beside {
    /// What engines are given.
    pub memory: Option<Memory>,
    /// Seconds of each phase.
    pub seconds: f64,
    /// Bytes of keys and values in a huge batch.
    pub huge_bytes: u64,
}

/// What the other writer does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Other {
    Nothing,
    Puts(Durability),
    HugeBatches,
}

/// What a phase came to.
struct Phase {
    puts: Histogram<u64>,
    rate: f64,
    /// Commits of the other writer in a second.
    other_rate: f64,
}

impl Row for Beside {
    fn name(&self) -> &'static str {
        "beside"
    }

    fn description(&self) -> String {
        format!(
            "One writer who puts entries of {VALUE_BYTES} B at random, unsynced, as fast as it goes, for {0} s each: alone, beside a \
             writer of another family who does the same, beside one who syncs every put, and beside one who writes batches of {1} \
             MB. What is kept is the rate beside the second or third as a part of that beside the first.",
            self.seconds,
            self.huge_bytes / 1_000_000
        )
    }

    fn threads(&self) -> usize {
        2
    }

    fn needs(&self) -> Vec<Feature> {
        vec![Feature::MixedDurabilities]
    }

    fn disk_bytes(&self) -> u64 {
        (self.seconds * 1e9) as u64 + 5_000_000_000
    }

    fn run(&self, place: &Place) -> Result<Measured> {
        let engine = place.open(&setup(2, self.memory))?;
        let values = Values::new();
        let huge = self.huge_batch(&values);
        let phase = |step: &str, other| {
            place.step(step);
            let phase = self.phase(engine.as_ref(), &values, other, &huge);
            // What is left to do belongs to nobody's figures.
            engine.flush_until_quiet()?;
            phase
        };
        let alone = phase("alone", Other::Nothing)?;
        let buffered = phase("beside a buffered writer", Other::Puts(Durability::Unsynced))?;
        let synced = phase("beside a synced writer", Other::Puts(Durability::Sync))?;
        let huge = phase("beside huge batches", Other::HugeBatches)?;

        let mut figures = vec![
            Figure::higher("kept_beside_synced", synced.rate / buffered.rate, "ratio"),
            Figure::higher("kept_beside_huge_batches", huge.rate / buffered.rate, "ratio"),
        ];
        for (name, phase) in [("buffered", &buffered), ("synced", &synced), ("huge_batches", &huge)] {
            let puts = &phase.puts;
            figures.extend([
                Figure::higher(format!("rate_beside_{name}"), phase.rate, "puts/s"),
                Figure::lower(format!("p99.9_beside_{name}"), p999_microseconds(puts), "us"),
                Figure::lower(format!("longest_beside_{name}"), longest_milliseconds(puts), "ms"),
                Figure::higher(format!("commits_of_{name}"), phase.other_rate, "commits/s").aside(),
            ]);
        }
        figures.push(Figure::higher("rate_alone", alone.rate, "puts/s").aside());
        let latencies = Some(Latencies::new("put beside a synced writer", &synced.puts));
        Ok(Measured { version: engine.version(), figures, latencies, ..Measured::default() })
    }
}

impl Beside {
    fn huge_batch(&self, values: &Values) -> Batch<'static> {
        let mut batch = Batch::default();
        for position in 0..(self.huge_bytes / (KEY_BYTES + VALUE_BYTES) as u64).max(1) {
            batch.push(&random_key::<KEY_BYTES>(position), values.value(position, VALUE_BYTES));
        }
        batch
    }

    fn phase(&self, engine: &dyn Engine, values: &Values, other: Other, huge: &Batch<'_>) -> Result<Phase> {
        let done = AtomicBool::new(false);
        let start = Instant::now();
        let (puts, others) = std::thread::scope(|scope| {
            let others = scope.spawn(|| -> Result<u64> {
                let mut commits = 0;
                match other {
                    Other::Nothing => (),
                    Other::Puts(durability) => {
                        let mut writer = engine.writer(durability)?;
                        let mut random = fastrand::Rng::with_seed(1);
                        while !done.load(Ordering::Acquire) {
                            let position = random.u64(..POSITIONS);
                            let value = values.value(position ^ commits, VALUE_BYTES);
                            writer.put(OTHER, &random_key::<KEY_BYTES>(position), value)?;
                            commits += 1;
                        }
                    }
                    Other::HugeBatches => {
                        let mut writer = engine.writer(Durability::Unsynced)?;
                        while !done.load(Ordering::Acquire) {
                            writer.write(OTHER, huge)?;
                            commits += 1;
                        }
                    }
                }
                Ok(commits)
            });
            let puts = self.put(engine, values);
            done.store(true, Ordering::Release);
            (puts, others.join())
        });
        let (puts, seconds) = puts?;
        let others = others.map_err(|_| anyhow!("the other writer panicked"))??;
        let rate = puts.len() as f64 / seconds;
        Ok(Phase { puts, rate, other_rate: others as f64 / start.elapsed().as_secs_f64() })
    }

    /// Puts for some seconds; returns the times of the puts and the seconds that it took.
    fn put(&self, engine: &dyn Engine, values: &Values) -> Result<(Histogram<u64>, f64)> {
        let mut puts = histogram()?;
        let mut random = fastrand::Rng::with_seed(2);
        let mut writer = engine.writer(Durability::Unsynced)?;
        let start = Instant::now();
        let mut clock = start;
        while (clock - start).as_secs_f64() < self.seconds {
            let position = random.u64(..POSITIONS);
            let value = values.value(position ^ puts.len(), VALUE_BYTES);
            writer.put(MEASURED, &random_key::<KEY_BYTES>(position), value)?;
            let now = Instant::now();
            puts.saturating_record((now - clock).as_nanos() as u64);
            clock = now;
        }
        Ok((puts, (clock - start).as_secs_f64()))
    }
}
