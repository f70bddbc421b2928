//! Data several times as large as the memory: load, overwrite, overwrite without end, read, scan.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::load::Load;
use crate::child::{Place, Task};
use crate::engine::{Batch, Durability, Engine, Setup};
use crate::entries::{Values, has_tag, mix, random_key};
use crate::measure::{BYTES_WRITTEN, Figure, Latencies, Measured, Meter, Progress, histogram};
use crate::threads::{Count, counts, on_threads, watched};
use crate::usage::disk_bytes;

/// Size of a key, in bytes.
pub const KEY_BYTES: usize = 24;
/// Size of a value, in bytes.
pub const VALUE_BYTES: usize = 150;
/// Entries in one commit of the load.
pub const LOAD_BATCH: u64 = 1000;
/// Entries in one commit of the overwriting.
pub const OVERWRITE_BATCH: u64 = 100;

/// The setup, the data, and how long each phase takes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Large {
    /// The memory that engines are given.
    pub setup: Setup,
    /// Number of entries.
    pub entries: u64,
    /// Threads that overwrite and read.
    pub threads: usize,
    /// Seconds of each phase of overwriting and reading.
    pub seconds: f64,
}

/// The phase of overwriting in batches ends when as many entries were written as there are, so that what was
/// written to the disk for them is comparable; or after so many times the seconds of the other phases.
pub const PATIENCE: u32 = 6;

/// What a phase on threads came to.
struct Phase {
    operations: u64,
    seconds: f64,
    latencies: Histogram<u64>,
    progress: Progress,
}

impl Task for Large {
    /// One measurement for each phase: load, overwrite, tail, read, scan.
    fn run(&self, place: &Place) -> Result<Vec<Measured>> {
        let engine = place.open(&self.setup)?;
        let values = Values::new();
        let load = Load {
            family: 0,
            entries: self.entries,
            value_bytes: VALUE_BYTES,
            batch: LOAD_BATCH,
            durability: Durability::Unsynced,
        };
        let mut measured = Vec::new();
        place.step("load");
        measured.push(self.load(engine.as_ref(), place, &values, &load)?);
        place.step("overwrite at random");
        measured.push(self.overwrite(engine.as_ref(), place, &values)?);
        place.step("tail");
        measured.push(self.tail(engine.as_ref(), place, &values)?);
        place.step("read at random");
        measured.push(self.read(engine.as_ref(), place)?);
        place.step("scan");
        measured.push(self.scan(engine.as_ref(), place, &load)?);
        for measured in &mut measured {
            measured.version = engine.version();
        }
        Ok(measured)
    }
}

impl Large {
    fn load(&self, engine: &dyn Engine, place: &Place, values: &Values, load: &Load) -> Result<Measured> {
        let meter = Meter::start(place.directory())?;
        let counts = counts(1);
        let (seconds, progress) = watched("entries", &counts, || {
            load.write::<KEY_BYTES>(engine, values, |count| counts[0].set(count))
        })?;
        let (seconds, quiet_seconds) = seconds?;
        let consumed = meter.figures()?;
        let mut figures = vec![Figure::higher("throughput", self.entries as f64 / seconds, "entries/s")];
        figures.extend(bytes_per_byte(&consumed, self.entries));
        figures.push(Figure::lower("time_until_quiet", quiet_seconds, "s").aside());
        figures.extend(consumed);
        figures.push(Figure::lower("size_on_disk", disk_bytes(place.directory())? as f64, "B").aside());
        Ok(Measured { figures, progress: Some(progress), ..Measured::default() })
    }

    /// Batches of entries at random, by all threads.
    fn overwrite(&self, engine: &dyn Engine, place: &Place, values: &Values) -> Result<Measured> {
        let meter = Meter::start(place.directory())?;
        let phase = self.on_threads("entries", self.threads, OVERWRITE_BATCH, |thread, timer| {
            timer.length *= PATIENCE;
            timer.most = self.entries / self.threads as u64;
            let mut random = fastrand::Rng::with_seed(thread as u64);
            let mut writer = engine.writer(Durability::Unsynced)?;
            let mut batch = Batch::default();
            let mut value = [0; VALUE_BYTES];
            timer.repeat(|number| {
                batch.clear();
                for _ in 0..OVERWRITE_BATCH {
                    let position = random.u64(..self.entries);
                    values.fill_tagged(position, number + 1, &mut value);
                    batch.push(&random_key::<KEY_BYTES>(position), &value);
                }
                writer.write(0, &batch)
            })
        })?;
        let quiet_seconds = settle(engine)?;
        let consumed = meter.figures()?;
        let throughput = phase.operations as f64 / phase.seconds;
        let mut figures = vec![Figure::higher("throughput", throughput, "entries/s")];
        figures.extend(bytes_per_byte(&consumed, phase.operations));
        figures.push(Figure::lower("time_until_quiet", quiet_seconds, "s").aside());
        figures.extend(consumed);
        Ok(phase.measured("commit", figures))
    }

    /// Entries one by one at random, by one thread, as fast as it goes: how long may one of them take?
    fn tail(&self, engine: &dyn Engine, place: &Place, values: &Values) -> Result<Measured> {
        let meter = Meter::start(place.directory())?;
        let phase = self.on_threads("entries", 1, 1, |_, timer| {
            let mut writer = engine.writer(Durability::Unsynced)?;
            let mut value = [0; VALUE_BYTES];
            timer.repeat(|number| {
                let position = mix(!number) % self.entries;
                values.fill_tagged(position, number + 1, &mut value);
                writer.put(0, &random_key::<KEY_BYTES>(position), &value)
            })
        })?;
        let quiet_seconds = settle(engine)?;
        let p999 = phase.latencies.value_at_percentile(99.9) as f64 / 1e3;
        let longest = phase.latencies.max() as f64 / 1e6;
        let mut figures = vec![
            Figure::higher("throughput", phase.operations as f64 / phase.seconds, "entries/s"),
            Figure::lower("commit_p99.9", p999, "us"),
            Figure::lower("longest_stall", longest, "ms"),
            Figure::lower("time_until_quiet", quiet_seconds, "s").aside(),
        ];
        figures.extend(meter.figures()?);
        Ok(phase.measured("commit", figures))
    }

    fn read(&self, engine: &dyn Engine, place: &Place) -> Result<Measured> {
        let meter = Meter::start(place.directory())?;
        let phase = self.on_threads("reads", self.threads, 1, |thread, timer| {
            let mut random = fastrand::Rng::with_seed(!(thread as u64));
            engine.read(0, &mut |reader| {
                timer.repeat(|_| {
                    let position = random.u64(..self.entries);
                    let mut right = false;
                    let key = random_key::<KEY_BYTES>(position);
                    reader.get(&key, &mut |value| right = has_tag(value, position))?;
                    ensure!(right, "entry {position} is missing or has the value of another");
                    Ok(())
                })
            })
        })?;
        let mut figures =
            vec![Figure::higher("throughput", phase.operations as f64 / phase.seconds, "reads/s")];
        figures.extend(meter.figures()?);
        Ok(phase.measured("read", figures))
    }

    fn scan(&self, engine: &dyn Engine, place: &Place, load: &Load) -> Result<Measured> {
        let meter = Meter::start(place.directory())?;
        let start = Instant::now();
        load.check(engine)?;
        let seconds = start.elapsed().as_secs_f64();
        let mut figures = vec![Figure::higher("throughput", self.entries as f64 / seconds, "entries/s")];
        figures.extend(meter.figures()?);
        Ok(Measured { figures, ..Measured::default() })
    }

    /// Runs `work` on threads, each with a timer that repeats for as long as a phase takes; every repetition
    /// counts for `each` operations.
    fn on_threads(
        &self,
        what: &str,
        threads: usize,
        each: u64,
        work: impl Fn(usize, &mut Timer<'_>) -> Result<()> + Sync,
    ) -> Result<Phase> {
        let counts = counts(threads);
        let (outcome, progress) = watched(what, &counts, || {
            on_threads(threads, |thread| {
                let length = Duration::from_secs_f64(self.seconds);
                let (count, latencies) = (&counts[thread], histogram()?);
                let mut timer = Timer { length, most: u64::MAX, each, count, latencies };
                work(thread, &mut timer)?;
                Ok(timer.latencies)
            })
        })?;
        let (of_threads, seconds) = outcome?;
        let mut latencies = histogram()?;
        for of_thread in of_threads {
            latencies.add(of_thread)?;
        }
        let operations = counts.iter().map(Count::get).sum();
        ensure!(operations > 0, "nothing was done");
        Ok(Phase { operations, seconds, latencies, progress })
    }
}

impl Phase {
    fn measured(self, operation: &str, figures: Vec<Figure>) -> Measured {
        Measured {
            figures,
            latencies: Some(Latencies::new(operation, &self.latencies)),
            progress: Some(self.progress),
            ..Measured::default()
        }
    }
}

/// Repeats an operation for a time, or a number of times, and times each.
struct Timer<'c> {
    length: Duration,
    /// Operations at which it ends before.
    most: u64,
    each: u64,
    count: &'c Count,
    latencies: Histogram<u64>,
}

impl Timer<'_> {
    fn repeat(&mut self, mut operate: impl FnMut(u64) -> Result<()>) -> Result<()> {
        let start = Instant::now();
        let mut clock = start;
        let mut number = 0;
        while clock - start < self.length && number * self.each < self.most {
            operate(number)?;
            number += 1;
            self.count.set(number * self.each);
            let now = Instant::now();
            self.latencies.saturating_record((now - clock).as_nanos() as u64);
            clock = now;
        }
        Ok(())
    }
}

fn settle(engine: &dyn Engine) -> Result<f64> {
    let start = Instant::now();
    engine.flush_until_quiet()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Bytes written to the disk for each byte of keys and values.
fn bytes_per_byte(consumed: &[Figure], entries: u64) -> Option<Figure> {
    let written = consumed.iter().find(|figure| figure.metric == BYTES_WRITTEN)?.value;
    let user_bytes = entries * (KEY_BYTES + VALUE_BYTES) as u64;
    Some(Figure::lower("bytes_written_per_byte", written / user_bytes as f64, "B/B"))
}
