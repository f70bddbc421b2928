//! What one run of one engine measured: named figures, latency percentiles, and progress over time.

use std::path::Path;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::engine::Durability;
use crate::usage::{Disk, Usage};

/// Percentiles of latencies that are reported.
pub const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 99.99];

/// Which values of a figure are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Small ones, as of times and sizes.
    Lower,
    /// Large ones, as of rates.
    Higher,
}

/// One number that a run yields.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// Its name, in `snake_case`; unique among the figures of a measurement.
    pub metric: String,
    /// The number itself.
    pub value: f64,
    /// What the number counts: `s`, `ms`, `us`, `ns`, `B`, a rate such as `entries/s`, or `B/B` for a ratio
    /// of bytes.
    pub unit: String,
    /// Which values are good.
    pub better: Better,
    /// Whether it is what the workload is run for, or only what that costs (memory, disk, CPU time).
    pub headline: bool,
    /// Threads, where they are not those of the whole workload.
    pub threads: Option<usize>,
    /// Durability, where it is not that of the whole workload.
    pub durability: Option<Durability>,
}

impl Figure {
    /// A headline of which small values are good.
    pub fn lower(metric: impl Into<String>, value: f64, unit: &str) -> Self {
        Self::new(metric.into(), value, unit, Better::Lower)
    }

    /// A headline of which large values are good.
    pub fn higher(metric: impl Into<String>, value: f64, unit: &str) -> Self {
        Self::new(metric.into(), value, unit, Better::Higher)
    }

    fn new(metric: String, value: f64, unit: &str, better: Better) -> Self {
        Self { metric, value, unit: unit.into(), better, headline: true, threads: None, durability: None }
    }

    /// Not a headline, but what the headlines cost.
    pub fn aside(self) -> Self {
        Self { headline: false, ..self }
    }

    /// Measured with a number of threads of its own.
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads: Some(threads), ..self }
    }

    /// Measured with a durability of its own.
    pub fn with_durability(self, durability: Durability) -> Self {
        Self { durability: Some(durability), ..self }
    }
}

/// Times of one kind of operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latencies {
    /// The operation, in the singular.
    pub operation: String,
    /// Pairs of a percentile and the time in microseconds.
    pub microseconds: Vec<(f64, f64)>,
}

impl Latencies {
    /// Takes the percentiles of a histogram of nanoseconds.
    pub fn new(operation: &str, nanoseconds: &Histogram<u64>) -> Self {
        let point = |percentile| (percentile, nanoseconds.value_at_percentile(percentile) as f64 / 1e3);
        Self { operation: operation.into(), microseconds: PERCENTILES.into_iter().map(point).collect() }
    }
}

/// What was done over time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// What is counted, in the plural.
    pub what: String,
    /// Pairs of seconds and the total until then.
    pub points: Vec<(f64, u64)>,
}

/// What one run of one engine measured on one workload.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    /// Version of the engine that ran.
    pub version: String,
    /// The figures, headlines first.
    pub figures: Vec<Figure>,
    /// Latencies, if operations were timed one by one.
    pub latencies: Option<Latencies>,
    /// Progress, if it was watched.
    pub progress: Option<Progress>,
    /// What the run read, in one number that has to be the same for all engines; `None` if it depends on
    /// time.
    pub fingerprint: Option<u64>,
}

impl Measured {
    /// The figure of a name.
    pub fn figure(&self, metric: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.metric == metric)
    }
}

/// What a phase consumed: reads the totals when it starts and when it ends.
pub struct Meter {
    /// And what was written to it before.
    disk: Option<(Disk, u64)>,
    before: Usage,
}

impl Meter {
    /// Starts a phase in which an engine works in `directory`. What was written before is on the disk then.
    pub fn start(directory: &Path) -> Result<Self> {
        let disk = Disk::under(directory)?;
        let written = disk.as_ref().map(Disk::written_bytes).transpose()?;
        Ok(Self { disk: disk.zip(written), ..Self::start_without_disk()? })
    }

    /// Starts a phase that finds what waits in memory as it is: what is written to the disk is not counted.
    pub fn start_without_disk() -> Result<Self> {
        Usage::forget_peak_memory();
        Ok(Self { disk: None, before: Usage::now()? })
    }

    /// CPU time, the peak of the memory, and bytes written to the disk since the start, where the system
    /// counts them: what still waited in memory is written now and counts, what was changed or removed before
    /// it got to the disk does not.
    pub fn figures(&self) -> Result<Vec<Figure>> {
        let now = Usage::now()?;
        let mut figures = vec![Figure::lower("cpu_time", now.cpu_seconds - self.before.cpu_seconds, "s")];
        if let Some((disk, before)) = &self.disk {
            let written = disk.written_bytes()?.saturating_sub(*before);
            figures.push(Figure::lower(BYTES_WRITTEN, written as f64, "B"));
        }
        figures.push(Figure::lower("peak_memory", now.peak_memory_bytes as f64, "B"));
        Ok(figures.into_iter().map(Figure::aside).collect())
    }
}

/// The figure that says how many bytes were written to the disk.
pub const BYTES_WRITTEN: &str = "bytes_written";

/// A histogram for nanoseconds up to ten minutes, to two digits.
pub fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 600_000_000_000, 2).context("the bounds of the histogram are wrong")
}

/// One number that stands for entries that were read, in whatever order.
///
/// Engines that read the same entries have the same; adding an entry looks at its key and at its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// Adds an entry.
    #[inline]
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        let word =
            |bytes: &[u8]| bytes.first_chunk().map_or(bytes.len() as u64, |chunk| u64::from_le_bytes(*chunk));
        self.0 = self.0.wrapping_add(word(key) ^ word(value).rotate_left(17));
    }

    /// Adds what another part of the run has read.
    pub fn merge(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_entries_apart_and_not_their_order() {
        let of = |entries: &[(&[u8], &[u8])]| {
            let mut fingerprint = Fingerprint::default();
            entries.iter().for_each(|(key, value)| fingerprint.add(key, value));
            fingerprint
        };
        let entries: [(&[u8], &[u8]); 2] = [(b"longer than a word", b"1"), (b"key", b"another value")];
        let [first, second] = entries;
        assert_eq!(of(&[first, second]), of(&[second, first]));
        assert_ne!(of(&[first, second]), of(&[first]));
        assert_ne!(of(&[(b"key", b"its value")]), of(&[(b"key", b"another value")]));
    }

    #[test]
    fn percentiles_are_told_in_microseconds() -> Result<()> {
        let mut nanoseconds = histogram()?;
        nanoseconds.record_n(2000, 99)?;
        nanoseconds.record(4_000_000)?;
        let latencies = Latencies::new("commit", &nanoseconds);
        assert!((latencies.microseconds[0].1 - 2.0).abs() < 0.1);
        assert!((latencies.microseconds[4].1 - 4000.0).abs() < 100.0);
        Ok(())
    }
}
