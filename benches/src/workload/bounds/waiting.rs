//! How long a single put may take while writers never pause, or keep to a rate.

use std::time::Instant;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{KEY_BYTES, Pace, Row, VALUE_BYTES, longest_milliseconds, p999_microseconds, setup};
use crate::child::Place;
use crate::engine::{Durability, Engine, Memory};
use crate::entries::{Values, random_key};
use crate::measure::{Figure, Latencies, Measured, Meter, histogram};
use crate::threads::{Count, counts, on_threads, watched};
use crate::usage::wait_for_processor_seconds;

/// A wait that a caller notices, in nanoseconds.
const LONG: u64 = 50_000_000;

/// Who writes, how fast and for how long.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Waiting {
    /// What engines are given.
    pub memory: Option<Memory>,
    /// Writers, each with a family of its own.
    pub writers: usize,
    /// Puts of each writer in a second; none for as fast as it goes.
    pub puts_per_second: Option<u64>,
    /// Positions that are written in each family.
    pub positions: u64,
    /// Seconds of writing, into a new database.
    pub seconds: f64,
}

impl Row for Waiting {
    fn name(&self) -> &'static str {
        "waiting"
    }

    fn description(&self) -> String {
        let speed = match self.puts_per_second {
            None => "as fast as it goes".into(),
            Some(puts) => format!("at {puts} puts/s each"),
        };
        format!(
            "{} writer(s), each with a family of its own, who put entries of {VALUE_BYTES} B at random among {} one by one, {speed}, \
             for {} s from the first put of a new database on.",
            self.writers, self.positions, self.seconds
        )
    }

    fn variant(&self) -> String {
        let plural = if self.writers == 1 { "" } else { "s" };
        let paced = if self.puts_per_second.is_some() { "-paced" } else { "" };
        format!("{}-writer{plural}{paced}", self.writers)
    }

    fn threads(&self) -> usize {
        self.writers
    }

    fn disk_bytes(&self) -> u64 {
        (self.seconds * 500e6) as u64 + 2_000_000_000
    }

    fn run(&self, place: &Place) -> Result<Measured> {
        let engine = place.open(&setup(self.writers, self.memory))?;
        let values = Values::new();
        let meter = Meter::start(place.directory())?;
        place.step("puts");
        let counts = counts(self.writers);
        let (outcome, progress) = watched("puts", &counts, || {
            on_threads(self.writers, |writer| self.put(engine.as_ref(), &values, writer, &counts[writer]))
        })?;
        let (of_writers, seconds) = outcome?;
        let (mut puts, mut without_processor) = (histogram()?, 0.0);
        for (of_writer, waited) in of_writers {
            puts.add(of_writer)?;
            without_processor += waited;
        }
        let without_processor = without_processor / (seconds * self.writers as f64) * 100.0;
        let mut figures = vec![
            Figure::lower("longest_put", longest_milliseconds(&puts), "ms"),
            Figure::lower("put_p99.9", p999_microseconds(&puts), "us"),
            Figure::higher("throughput", puts.len() as f64 / seconds, "puts/s"),
            Figure::lower("puts_of_more_than_50_ms", puts.count_between(LONG, u64::MAX) as f64, "puts")
                .aside(),
        ];
        // With more threads than processors, or beside other work, this is what is not the engine's.
        figures.push(Figure::lower("time_without_processor", without_processor, "%").aside());
        figures.extend(meter.figures()?);
        Ok(Measured {
            version: engine.version(),
            figures,
            latencies: Some(Latencies::new("put", &puts)),
            progress: Some(progress),
            fingerprint: None,
        })
    }
}

impl Waiting {
    /// Returns the times of the puts, and the seconds for which the writer was ready and had no processor.
    fn put(
        &self,
        engine: &dyn Engine,
        values: &Values,
        family: usize,
        count: &Count,
    ) -> Result<(Histogram<u64>, f64)> {
        let waited_before = wait_for_processor_seconds();
        let mut puts = histogram()?;
        let mut random = fastrand::Rng::with_seed(family as u64);
        let mut writer = engine.writer(Durability::Unsynced)?;
        let pace = self.puts_per_second.map(|puts| Pace::new(puts as f64));
        let start = Instant::now();
        let mut clock = start;
        while (clock - start).as_secs_f64() < self.seconds {
            if let Some(pace) = &pace {
                pace.wait(puts.len());
                clock = Instant::now();
            }
            let position = random.u64(..self.positions);
            let value = values.value(position ^ puts.len(), VALUE_BYTES);
            writer.put(family, &random_key::<KEY_BYTES>(position), value)?;
            let now = Instant::now();
            puts.saturating_record((now - clock).as_nanos() as u64);
            count.set(puts.len());
            clock = now;
        }
        Ok((puts, wait_for_processor_seconds() - waited_before))
    }
}
