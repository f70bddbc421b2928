//! The write phase of `cf_comparison`: one thread for each family, each writing its own entries.
//!
//! Keys and values are functions of the family and the position, so they cost no memory and can be
//! told again when the entries are checked. Values are incompressible.

use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::engine::{Batch, Direction, Engine, Setup};
use crate::usage::{Usage, disk_bytes};

/// Size of a value, in bytes.
pub const VALUE_BYTES: usize = 150;

/// Entries of each family that are looked up one by one after the write phase.
const SPOT_CHECKS: u64 = 200;

/// The keys of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keys {
    /// The integers from 0, as 8 bytes, little-endian.
    Integer,
    /// 16 random bytes.
    Random,
}

/// A run of one engine: what is written, by how many, in what portions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WritePhase {
    /// The setup of the engine.
    pub setup: Setup,
    /// The keys to write.
    pub keys: Keys,
    /// Entries written to each family.
    pub entries_per_family: u64,
    /// Entries in one commit.
    pub batch: u64,
}

/// What one run of a write phase measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Version of the engine that ran.
    pub version: String,
    /// Entries written by all threads together.
    pub entries: u64,
    /// From the start of the writers to the last acknowledgement, in seconds.
    pub write_seconds: f64,
    /// From the last acknowledgement until everything is durable and no work is left, in seconds.
    pub quiet_seconds: f64,
    /// CPU time of the process over both, in seconds.
    pub cpu_seconds: f64,
    /// Bytes written to the disk over both.
    pub written_bytes: u64,
    /// Bytes that the files of the database occupy in the end.
    pub disk_bytes: u64,
    /// The most memory that the process held.
    pub peak_memory_bytes: u64,
    /// Percentiles of the time of a commit: pairs of percentile and microseconds.
    pub latency_microseconds: Vec<(f64, f64)>,
    /// Entries acknowledged over time: pairs of seconds and total.
    pub progress: Vec<(f64, u64)>,
}

/// Percentiles of the commit times that are reported.
pub const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 99.99];

impl WritePhase {
    /// Runs the phase on an open, empty database that lies in `directory`.
    pub fn run(&self, engine: &dyn Engine, directory: &Path) -> Result<Measured> {
        let values = Values::new();
        let before = Usage::now()?;
        let written = self.write(engine, &values)?;
        engine.flush_until_quiet().context("flushing failed")?;
        let quiet_seconds = written.end.elapsed().as_secs_f64();
        let after = Usage::now()?;
        let disk_bytes = disk_bytes(directory)?;
        for family in 0..self.setup.families {
            self.check(engine, family, &values)
                .with_context(|| format!("family {family} is not what was written"))?;
        }
        Ok(Measured {
            version: engine.version(),
            entries: self.entries_per_family * self.setup.families as u64,
            write_seconds: (written.end - written.start).as_secs_f64(),
            quiet_seconds,
            cpu_seconds: after.cpu_seconds - before.cpu_seconds,
            written_bytes: after.written_bytes - before.written_bytes,
            disk_bytes,
            peak_memory_bytes: after.peak_memory_bytes,
            latency_microseconds: PERCENTILES
                .iter()
                .map(|&percentile| {
                    (percentile, written.latencies.value_at_percentile(percentile) as f64 / 1e3)
                })
                .collect(),
            progress: written.progress,
        })
    }

    fn write(&self, engine: &dyn Engine, values: &Values) -> Result<Written> {
        let acknowledged: Vec<AtomicU64> = (0..self.setup.families).map(|_| AtomicU64::new(0)).collect();
        let count = || acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u64>();
        let barrier = Barrier::new(self.setup.families + 1);
        let done = AtomicBool::new(false);
        let (of_families, progress) = std::thread::scope(|scope| {
            let writers: Vec<_> = acknowledged
                .iter()
                .enumerate()
                .map(|(family, acknowledged)| {
                    let barrier = &barrier;
                    scope.spawn(move || self.write_family(engine, family, values, barrier, acknowledged))
                })
                .collect();
            let watch = scope.spawn(|| {
                barrier.wait();
                let start = Instant::now();
                let mut progress = vec![(0.0, 0)];
                let mut pause = Duration::from_millis(10);
                while !done.load(Ordering::Acquire) {
                    std::thread::park_timeout(pause);
                    progress.push((start.elapsed().as_secs_f64(), count()));
                    // Long runs are looked at less often: a curve wants no more than some hundred points.
                    pause = pause.max(start.elapsed() / 200);
                }
                progress
            });
            let of_families: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
            done.store(true, Ordering::Release);
            watch.thread().unpark();
            (of_families, watch.join())
        });
        let mut latencies = histogram();
        let mut first_start: Option<Instant> = None;
        let mut last_end: Option<Instant> = None;
        for of_family in of_families {
            let of_family = of_family.map_err(|_| anyhow!("a writer panicked"))??;
            first_start = Some(first_start.map_or(of_family.start, |start| start.min(of_family.start)));
            last_end = Some(last_end.map_or(of_family.end, |end| end.max(of_family.end)));
            latencies.add(of_family.latencies)?;
        }
        let (start, end) = first_start.zip(last_end).context("there are no families")?;
        let progress = progress.map_err(|_| anyhow!("the watch panicked"))?;
        Ok(Written { start, end, latencies, progress })
    }

    /// Writes one family's entries, after all writers have come to the barrier.
    fn write_family(
        &self,
        engine: &dyn Engine,
        family: usize,
        values: &Values,
        barrier: &Barrier,
        acknowledged: &AtomicU64,
    ) -> Result<WrittenByOne> {
        let writer = engine.writer(family);
        let mut latencies = histogram();
        let mut batch = Batch::default();
        barrier.wait();
        let mut writer = writer?;
        let mut next = 0;
        let start = Instant::now();
        let mut clock = start;
        while next < self.entries_per_family {
            let end = (next + self.batch).min(self.entries_per_family);
            if self.batch == 1 {
                let key = self.keys.key(family, next);
                writer.put(key.as_ref(), values.value(family, next))?;
            } else {
                batch.clear();
                for position in next..end {
                    batch.push(self.keys.key(family, position).as_ref(), values.value(family, position));
                }
                writer.write(&batch)?;
            }
            next = end;
            acknowledged.store(next, Ordering::Relaxed);
            let now = Instant::now();
            latencies.saturating_record((now - clock).as_nanos() as u64);
            clock = now;
        }
        Ok(WrittenByOne { start, end: clock, latencies })
    }

    /// Checks that the family holds exactly the entries written, in order, and that some have their values.
    fn check(&self, engine: &dyn Engine, family: usize, values: &Values) -> Result<()> {
        engine.read(family, &mut |reader| {
            let mut count = 0;
            let mut ordered = true;
            let mut previous = Vec::new();
            reader.scan(&[], Direction::Forward, &mut |key, value| {
                ordered &= (count == 0 || previous.as_slice() < key) && value.len() == VALUE_BYTES;
                previous.clear();
                previous.extend_from_slice(key);
                count += 1;
                true
            })?;
            ensure!(count == self.entries_per_family, "{count} entries of {}", self.entries_per_family);
            ensure!(ordered, "the entries are out of order or have values of a wrong size");
            let step = (self.entries_per_family / SPOT_CHECKS).max(1);
            for position in (0..self.entries_per_family).step_by(step as usize) {
                let expected = values.value(family, position);
                let mut equal = false;
                let key = self.keys.key(family, position);
                let found = reader.get(key.as_ref(), &mut |value| equal = value == expected)?;
                ensure!(found, "entry {position} is missing");
                ensure!(equal, "entry {position} has another value");
            }
            Ok(())
        })
    }
}

/// What all writers did: from the first start to the last acknowledgement.
struct Written {
    start: Instant,
    end: Instant,
    latencies: Histogram<u64>,
    progress: Vec<(f64, u64)>,
}

/// What one writer did.
struct WrittenByOne {
    start: Instant,
    end: Instant,
    latencies: Histogram<u64>,
}

/// For nanoseconds up to ten minutes, to two digits.
fn histogram() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, 600_000_000_000, 2) {
        Ok(histogram) => histogram,
        Err(error) => unreachable!("the bounds of the histogram are constants: {error}"),
    }
}

/// A key of at most 16 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    bytes: [u8; 16],
    len: usize,
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Keys {
    /// The key at a position of a family; no two positions of a family have the same.
    pub fn key(self, family: usize, position: u64) -> Key {
        let mut bytes = [0; 16];
        let len = match self {
            Self::Integer => {
                bytes[..8].copy_from_slice(&position.to_le_bytes());
                8
            }
            Self::Random => {
                let first = mix(position.wrapping_add((family as u64) << 48));
                bytes[..8].copy_from_slice(&first.to_le_bytes());
                bytes[8..].copy_from_slice(&mix(!first).to_le_bytes());
                16
            }
        };
        Key { bytes, len }
    }
}

/// The finalizer of SplitMix64: a bijection whose results look random.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Random bytes of which every value is a part.
struct Values {
    pool: Vec<u8>,
}

impl Values {
    fn new() -> Self {
        let mut pool = vec![0; 1 << 20];
        fastrand::Rng::with_seed(1).fill(&mut pool);
        Self { pool }
    }

    fn value(&self, family: usize, position: u64) -> &[u8] {
        let offset =
            mix(!position.wrapping_add((family as u64) << 48)) as usize % (self.pool.len() - VALUE_BYTES);
        &self.pool[offset..offset + VALUE_BYTES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn keys_of_a_family_are_distinct_and_the_same_each_time() {
        for keys in [Keys::Integer, Keys::Random] {
            let distinct: BTreeSet<Vec<u8>> =
                (0..10_000).map(|position| keys.key(3, position).as_ref().to_vec()).collect();
            assert_eq!(distinct.len(), 10_000);
            assert_eq!(keys.key(3, 77).as_ref(), keys.key(3, 77).as_ref());
        }
    }

    #[test]
    fn integer_keys_are_little_endian() {
        assert_eq!(Keys::Integer.key(0, 258).as_ref(), [2, 1, 0, 0, 0, 0, 0, 0]);
    }
}
