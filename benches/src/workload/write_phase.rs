//! The write phase of `cf_comparison`: one thread for each family, each writing its own entries.
//!
//! After it all entries are counted, and some are looked up.

use std::sync::Barrier;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::child::{Place, Task};
use crate::engine::{Batch, Direction, Durability, Engine, Setup};
use crate::entries::{Values, random_key};
use crate::measure::{Figure, Latencies, Measured, Meter, Progress, histogram};
use crate::threads::{Count, counts, watched};
use crate::usage::disk_bytes;

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
    /// What every acknowledged write must survive.
    pub durability: Durability,
    /// The keys to write.
    pub keys: Keys,
    /// Entries written to each family.
    pub entries_per_family: u64,
    /// Entries in one commit.
    pub batch: u64,
}

impl Task for WritePhase {
    fn run(&self, place: &Place) -> Result<Vec<Measured>> {
        let engine = place.open(&self.setup)?;
        let values = Values::new();
        let meter = Meter::start(place.directory())?;
        let written = self.write(engine.as_ref(), &values)?;
        engine.flush_until_quiet().context("flushing failed")?;
        let seconds = (written.end - written.start).as_secs_f64();
        let quiet_seconds = written.end.elapsed().as_secs_f64();
        let consumed = meter.figures()?;
        let disk_bytes = disk_bytes(place.directory())?;
        for family in 0..self.setup.families {
            self.check(engine.as_ref(), family, &values)
                .with_context(|| format!("family {family} is not what was written"))?;
        }
        let entries = (self.entries_per_family * self.setup.families as u64) as f64;
        let until_quiet = entries / (seconds + quiet_seconds);
        let mut figures = vec![
            Figure::higher("throughput", entries / seconds, "entries/s"),
            Figure::lower("time_until_quiet", quiet_seconds, "s").aside(),
            Figure::higher("throughput_until_quiet", until_quiet, "entries/s").aside(),
        ];
        figures.extend(consumed);
        figures.push(Figure::lower("size_on_disk", disk_bytes as f64, "B").aside());
        Ok(vec![Measured {
            version: engine.version(),
            figures,
            latencies: Some(Latencies::new("commit", &written.latencies)),
            progress: Some(written.progress),
            fingerprint: None,
        }])
    }
}

impl WritePhase {
    fn write(&self, engine: &dyn Engine, values: &Values) -> Result<Written> {
        let acknowledged = counts(self.setup.families);
        let barrier = Barrier::new(self.setup.families);
        let (of_families, progress) = watched("entries", &acknowledged, || {
            std::thread::scope(|scope| {
                let start = |(family, acknowledged)| {
                    let barrier = &barrier;
                    scope.spawn(move || self.write_family(engine, family, values, barrier, acknowledged))
                };
                let writers: Vec<_> = acknowledged.iter().enumerate().map(start).collect();
                writers.into_iter().map(|writer| writer.join()).collect::<Vec<_>>()
            })
        })?;
        let mut latencies = histogram()?;
        let mut first_start: Option<Instant> = None;
        let mut last_end: Option<Instant> = None;
        for of_family in of_families {
            let of_family = of_family.map_err(|_| anyhow!("a writer panicked"))??;
            first_start = Some(first_start.map_or(of_family.start, |start| start.min(of_family.start)));
            last_end = Some(last_end.map_or(of_family.end, |end| end.max(of_family.end)));
            latencies.add(of_family.latencies)?;
        }
        let (start, end) = first_start.zip(last_end).context("there are no families")?;
        Ok(Written { start, end, latencies, progress })
    }

    /// Writes one family's entries, after all writers have come to the barrier.
    fn write_family(
        &self,
        engine: &dyn Engine,
        family: usize,
        values: &Values,
        barrier: &Barrier,
        acknowledged: &Count,
    ) -> Result<WrittenByOne> {
        let writer = engine.writer(self.durability);
        let latencies = histogram();
        let mut batch = Batch::default();
        barrier.wait();
        let (mut writer, mut latencies) = (writer?, latencies?);
        let mut next = 0;
        let start = Instant::now();
        let mut clock = start;
        while next < self.entries_per_family {
            let end = (next + self.batch).min(self.entries_per_family);
            if self.batch == 1 {
                let key = self.keys.key(family, next);
                writer.put(family, key.as_ref(), value(values, family, next))?;
            } else {
                batch.clear();
                for position in next..end {
                    batch.push_borrowed(
                        self.keys.key(family, position).as_ref(),
                        value(values, family, position),
                    );
                }
                writer.write(family, &batch)?;
            }
            next = end;
            acknowledged.set(next);
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
                let expected = value(values, family, position);
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
    progress: Progress,
}

/// What one writer did.
struct WrittenByOne {
    start: Instant,
    end: Instant,
    latencies: Histogram<u64>,
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
                bytes = random_key(of_family(family, position));
                16
            }
        };
        Key { bytes, len }
    }
}

/// A number for a position of a family that no other position of any family has.
fn of_family(family: usize, position: u64) -> u64 {
    position.wrapping_add((family as u64) << 48)
}

fn value(values: &Values, family: usize, position: u64) -> &[u8] {
    values.value(of_family(family, position), VALUE_BYTES)
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
