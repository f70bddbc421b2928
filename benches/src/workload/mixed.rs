//! The workloads A to F of YCSB, one after the other on one family.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::load::Load;
use crate::child::{Place, Task};
use crate::engine::{Direction, Durability, Engine, Reader, Setup, Writer};
use crate::entries::{Values, has_tag, mix, random_key};
use crate::measure::{Figure, Latencies, Measured, Meter, histogram};
use crate::threads::{Count, counts, on_threads, watched};
use crate::zipfian::{Insertions, Zipfian};

/// Size of a key, in bytes.
pub const KEY_BYTES: usize = 16;
/// Size of a value, in bytes.
pub const VALUE_BYTES: usize = 100;
/// Entries of the longest scan; lengths are uniform from 1.
pub const LONGEST_SCAN: u64 = 100;

/// One of YCSB's workloads: how many of a hundred operations are of which kind; the rest are inserts.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Mix {
    /// Its letter, in lower case.
    pub letter: char,
    /// Lookups.
    pub reads: u8,
    /// Overwrites.
    pub updates: u8,
    /// Lookups, each followed by an overwrite of the same entry.
    pub read_modify_writes: u8,
    /// Scans.
    pub scans: u8,
    /// Whether the entries inserted last are read most.
    pub latest: bool,
}

/// In the order that YCSB recommends, so that inserts come last.
pub const MIXES: [Mix; 6] = [
    Mix { letter: 'a', reads: 50, updates: 50, read_modify_writes: 0, scans: 0, latest: false },
    Mix { letter: 'b', reads: 95, updates: 5, read_modify_writes: 0, scans: 0, latest: false },
    Mix { letter: 'c', reads: 100, updates: 0, read_modify_writes: 0, scans: 0, latest: false },
    Mix { letter: 'f', reads: 50, updates: 0, read_modify_writes: 50, scans: 0, latest: false },
    Mix { letter: 'd', reads: 95, updates: 0, read_modify_writes: 0, scans: 0, latest: true },
    Mix { letter: 'e', reads: 0, updates: 0, read_modify_writes: 0, scans: 95, latest: false },
];

impl Mix {
    fn only_reads(&self) -> bool {
        self.reads + self.scans == 100
    }
}

/// Which mixes, on how many entries, by how many threads, for how long.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mixed {
    /// Entries loaded before.
    pub entries: u64,
    /// What to run; each with each number of threads.
    pub mixes: Vec<Mix>,
    /// Numbers of threads.
    pub threads: Vec<usize>,
    /// Seconds for each.
    pub seconds: f64,
    /// What each write survives.
    pub durability: Durability,
}

impl Task for Mixed {
    fn run(&self, place: &Place) -> Result<Vec<Measured>> {
        let engine = place.open(&Setup::new(1))?;
        let values = Values::new();
        place.step("loading");
        let load = Load {
            family: 0,
            entries: self.entries,
            value_bytes: VALUE_BYTES,
            batch: 1000,
            durability: Durability::Unsynced,
        };
        load.write::<KEY_BYTES>(engine.as_ref(), &values, |_| ())?;
        load.check(engine.as_ref())?;
        let mut measured = Vec::new();
        let mut entries = self.entries;
        for mix in &self.mixes {
            for &threads in &self.threads {
                place.step(&format!("{} with {threads} threads", mix.letter));
                let insertions = Insertions::new(entries, threads);
                let phase = Phase {
                    mixed: self,
                    mix: *mix,
                    threads,
                    engine: engine.as_ref(),
                    values: &values,
                    insertions: &insertions,
                };
                measured.push(phase.run(place)?);
                entries = insertions.inserted();
            }
        }
        let all = Load { entries, ..load };
        all.check(engine.as_ref())?;
        Ok(measured)
    }
}

/// One mix with one number of threads.
struct Phase<'r> {
    mixed: &'r Mixed,
    mix: Mix,
    threads: usize,
    engine: &'r dyn Engine,
    values: &'r Values,
    insertions: &'r Insertions,
}

impl Phase<'_> {
    fn run(&self, place: &Place) -> Result<Measured> {
        let counts = counts(self.threads);
        let meter = Meter::start(place.directory())?;
        let (outcome, progress) = watched("operations", &counts, || {
            on_threads(self.threads, |thread| self.work(thread, &counts[thread]))
        })?;
        let (of_threads, seconds) = outcome?;
        let quiet = Instant::now();
        self.engine.flush_until_quiet()?;
        let quiet_seconds = quiet.elapsed().as_secs_f64();
        let operations: u64 = counts.iter().map(Count::get).sum();
        ensure!(operations > 0, "nothing was done");
        let mut latencies = histogram()?;
        for of_thread in of_threads {
            latencies.add(of_thread)?;
        }
        let mut figures = vec![
            Figure::higher("throughput", operations as f64 / seconds, "operations/s"),
            Figure::lower("time_until_quiet", quiet_seconds, "s").aside(),
        ];
        figures.extend(meter.figures()?);
        Ok(Measured {
            version: self.engine.version(),
            figures,
            latencies: Some(Latencies::new("operation", &latencies)),
            progress: Some(progress),
            fingerprint: None,
        })
    }

    /// What one thread does; returns the times of its operations.
    fn work(&self, thread: usize, count: &Count) -> Result<Histogram<u64>> {
        let seed = mix((thread as u64) << 8 | u64::from(u32::from(self.mix.letter)));
        let mut worker = Worker {
            phase: self,
            thread,
            random: fastrand::Rng::with_seed(seed),
            zipfian: Zipfian::new(self.mixed.entries, seed)?,
            writer: self.engine.writer(self.mixed.durability)?,
            value: [0; VALUE_BYTES],
            version: seed,
        };
        // Nothing is written, so that a view held all the time is never out of date.
        if self.mix.only_reads() {
            let mut latencies = None;
            self.engine.read(0, &mut |reader| {
                latencies = Some(worker.repeat(&mut View::Held(reader), count)?);
                Ok(())
            })?;
            return latencies.map_or_else(histogram, Ok);
        }
        worker.repeat(&mut View::Fresh(self.engine), count)
    }
}

/// Where reads look.
enum View<'v> {
    /// At a view of their own, taken when they start: they see every write acknowledged before.
    Fresh(&'v dyn Engine),
    /// All at the same view.
    Held(&'v mut dyn Reader),
}

impl View<'_> {
    fn read(&mut self, work: &mut dyn FnMut(&mut dyn Reader) -> Result<()>) -> Result<()> {
        match self {
            Self::Fresh(engine) => engine.read(0, work),
            Self::Held(reader) => work(*reader),
        }
    }
}

/// A thread's state.
struct Worker<'r> {
    phase: &'r Phase<'r>,
    thread: usize,
    random: fastrand::Rng,
    zipfian: Zipfian,
    writer: Box<dyn Writer + 'r>,
    value: [u8; VALUE_BYTES],
    version: u64,
}

impl Worker<'_> {
    /// Operates until the time is over.
    fn repeat(&mut self, view: &mut View<'_>, count: &Count) -> Result<Histogram<u64>> {
        let mut latencies = histogram()?;
        let length = Duration::from_secs_f64(self.phase.mixed.seconds);
        let start = Instant::now();
        let mut clock = start;
        let mut done = 0;
        while clock - start < length {
            self.operate(view)?;
            done += 1;
            count.set(done);
            let now = Instant::now();
            latencies.saturating_record((now - clock).as_nanos() as u64);
            clock = now;
        }
        Ok(latencies)
    }

    fn operate(&mut self, view: &mut View<'_>) -> Result<()> {
        let mix = self.phase.mix;
        let kind = self.random.u8(..100);
        if kind < mix.reads {
            let position = self.position();
            read(view, position)
        } else if kind < mix.reads + mix.updates {
            let position = self.position();
            self.write(position)
        } else if kind < mix.reads + mix.updates + mix.read_modify_writes {
            let position = self.position();
            read(view, position)?;
            self.write(position)
        } else if kind < mix.reads + mix.updates + mix.read_modify_writes + mix.scans {
            let position = self.position();
            scan(view, position, self.random.u64(1..=LONGEST_SCAN))
        } else {
            let insertions = self.phase.insertions;
            insertions.insert(self.thread, |position| self.write(position))
        }
    }

    /// The position of an entry that is there.
    fn position(&mut self) -> u64 {
        let count = self.phase.insertions.inserted();
        if self.phase.mix.latest { self.zipfian.latest(count) } else { self.zipfian.scattered(count) }
    }

    fn write(&mut self, position: u64) -> Result<()> {
        self.version += 1;
        self.phase.values.fill_tagged(position, self.version, &mut self.value);
        self.writer.put(0, &random_key::<KEY_BYTES>(position), &self.value)
    }
}

fn read(view: &mut View<'_>, position: u64) -> Result<()> {
    let key = random_key::<KEY_BYTES>(position);
    let mut right = false;
    view.read(&mut |reader| {
        reader.get(&key, &mut |value| right = value.len() == VALUE_BYTES && has_tag(value, position))?;
        Ok(())
    })?;
    ensure!(right, "entry {position} is missing or has the value of another");
    Ok(())
}

fn scan(view: &mut View<'_>, position: u64, entries: u64) -> Result<()> {
    let from = random_key::<KEY_BYTES>(position);
    let (mut shown, mut right) = (0, false);
    view.read(&mut |reader| {
        reader.scan(&from, Direction::Forward, &mut |key, value| {
            right |= shown == 0 && key == from && has_tag(value, position);
            shown += 1;
            shown < entries
        })
    })?;
    ensure!(right, "a scan from entry {position} does not begin with it");
    Ok(())
}
