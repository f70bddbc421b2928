//! The rows of redb's public comparison, one after the other on one table.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::child::{Place, Task};
use crate::engine::{Batch, Direction, Durability, Engine, Setup, Writer};
use crate::entries::{Values, random_key};
use crate::measure::{Figure, Fingerprint, Measured, Meter};
use crate::threads::on_threads;
use crate::usage::disk_bytes;

/// Size of a key, in bytes.
pub const KEY_BYTES: usize = 24;
/// Size of a value, in bytes.
pub const VALUE_BYTES: usize = 150;
/// Entries that one range read shows.
pub const RANGE: u64 = 10;

/// How much each row does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    /// Entries of the bulk load.
    pub entries: u64,
    /// Synced commits of one entry.
    pub sync_commits: u64,
    /// Synced commits of `batch` entries.
    pub sync_batches: u64,
    /// Entries in each of these.
    pub batch: u64,
    /// Unsynced commits of one entry.
    pub unsynced_commits: u64,
    /// Random reads, on one thread and again on all threads together.
    pub reads: u64,
    /// Range reads.
    pub ranges: u64,
    /// Numbers of threads that read at random.
    pub threads: Vec<usize>,
}

/// A table that is worked on.
struct Open<'t> {
    table: &'t Table,
    place: &'t Place,
    values: Values,
    figures: Vec<Figure>,
    fingerprint: Fingerprint,
    /// Entries in the table now; their positions are `0..written` unless some are removed.
    written: u64,
}

impl Task for Table {
    fn run(&self, place: &Place) -> Result<Vec<Measured>> {
        let mut engine = place.open(&Setup::new(1))?;
        let meter = Meter::start(place.directory())?;
        let mut open = Open {
            table: self,
            place,
            values: Values::new(),
            figures: Vec::new(),
            fingerprint: Fingerprint::default(),
            written: 0,
        };
        open.write(engine.as_ref())?;
        let quiet_seconds = open.settle(engine.as_ref())?;
        open.read(engine.as_ref())?;
        open.remove(engine.as_ref())?;
        let quiet_after_removal = open.settle(engine.as_ref())?;
        engine = open.compact(engine)?;
        let mut figures = open.figures;
        figures.push(Figure::lower("time_until_quiet_after_writes", quiet_seconds, "s").aside());
        figures.push(Figure::lower("time_until_quiet_after_removal", quiet_after_removal, "s").aside());
        figures.extend(meter.figures()?);
        Ok(vec![Measured {
            version: engine.version(),
            figures,
            fingerprint: Some(open.fingerprint.0),
            ..Measured::default()
        }])
    }
}

impl Open<'_> {
    /// Times a row of one thread, in milliseconds.
    fn row(
        &mut self,
        metric: &str,
        durability: Durability,
        work: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        self.place.step(metric);
        let start = Instant::now();
        work(self).with_context(|| format!("in the row {metric}"))?;
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        self.figures.push(Figure::lower(metric, milliseconds, "ms").with_durability(durability));
        Ok(())
    }

    fn write(&mut self, engine: &dyn Engine) -> Result<()> {
        let mut batch = Batch::default();
        self.fill(&mut batch, self.table.entries);
        let mut synced = engine.writer(Durability::Sync)?;
        self.row("bulk_load", Durability::Sync, |_| synced.write(0, &batch))?;
        drop(batch);
        self.row("sync_commits", Durability::Sync, |open| {
            open.commit_one_by_one(synced.as_mut(), open.table.sync_commits)
        })?;
        self.row("sync_batches", Durability::Sync, |open| {
            let mut batch = Batch::default();
            for _ in 0..open.table.sync_batches {
                open.fill(&mut batch, open.table.batch);
                synced.write(0, &batch)?;
            }
            Ok(())
        })?;
        drop(synced);
        let mut unsynced = engine.writer(Durability::Unsynced)?;
        self.row("unsynced_commits", Durability::Unsynced, |open| {
            open.commit_one_by_one(unsynced.as_mut(), open.table.unsynced_commits)
        })
    }

    /// Makes a batch of the next entries.
    fn fill(&mut self, batch: &mut Batch, entries: u64) {
        batch.clear();
        for position in self.written..self.written + entries {
            batch.push(&random_key::<KEY_BYTES>(position), self.values.value(position, VALUE_BYTES));
        }
        self.written += entries;
    }

    fn commit_one_by_one(&mut self, writer: &mut dyn Writer, commits: u64) -> Result<()> {
        for position in self.written..self.written + commits {
            writer.put(0, &random_key::<KEY_BYTES>(position), self.values.value(position, VALUE_BYTES))?;
        }
        self.written += commits;
        Ok(())
    }

    fn settle(&self, engine: &dyn Engine) -> Result<f64> {
        self.place.step("waiting until it is quiet");
        let start = Instant::now();
        engine.flush_until_quiet()?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn read(&mut self, engine: &dyn Engine) -> Result<()> {
        let mut count = 0;
        self.row("len", Durability::Unsynced, |_| {
            engine.read(0, &mut |reader| {
                count = reader.count()?;
                Ok(())
            })
        })?;
        ensure!(count == self.written, "{count} entries of {}", self.written);
        self.row("random_reads", Durability::Unsynced, |open| {
            let fingerprint = open.read_at_random(engine, 0, open.table.reads)?;
            open.fingerprint.merge(fingerprint);
            Ok(())
        })?;
        self.row("range_reads", Durability::Unsynced, |open| {
            let fingerprint = open.read_ranges(engine)?;
            open.fingerprint.merge(fingerprint);
            Ok(())
        })?;
        for &threads in &self.table.threads {
            self.place.step(&format!("random reads by {threads} threads"));
            let (read, seconds) = on_threads(threads, |thread| {
                self.read_at_random(engine, thread as u64, self.table.reads / threads as u64)
            })?;
            read.into_iter().for_each(|fingerprint| self.fingerprint.merge(fingerprint));
            let metric = format!("random_reads_{threads}_threads");
            self.figures.push(Figure::lower(metric, seconds * 1e3, "ms").with_threads(threads));
        }
        Ok(())
    }

    /// Looks up entries of the bulk load, each of which must be there with its value.
    fn read_at_random(&self, engine: &dyn Engine, seed: u64, reads: u64) -> Result<Fingerprint> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut fingerprint = Fingerprint::default();
        engine.read(0, &mut |reader| {
            for _ in 0..reads {
                let position = random.u64(..self.table.entries);
                let key = random_key::<KEY_BYTES>(position);
                let expected = self.values.value(position, VALUE_BYTES);
                let mut equal = false;
                reader.get(&key, &mut |value| {
                    equal = value == expected;
                    fingerprint.add(&key, value);
                })?;
                ensure!(equal, "entry {position} is missing or has another value");
            }
            Ok(())
        })?;
        Ok(fingerprint)
    }

    fn read_ranges(&self, engine: &dyn Engine) -> Result<Fingerprint> {
        let mut random = fastrand::Rng::with_seed(1);
        let mut fingerprint = Fingerprint::default();
        let mut shown = 0;
        engine.read(0, &mut |reader| {
            for _ in 0..self.table.ranges {
                let from = random_key::<KEY_BYTES>(random.u64(..self.table.entries));
                let mut left = RANGE;
                reader.scan(&from, Direction::Forward, &mut |key, value| {
                    fingerprint.add(key, value);
                    left -= 1;
                    left > 0
                })?;
                shown += RANGE - left;
            }
            Ok(())
        })?;
        ensure!(shown > self.table.ranges * RANGE / 2, "the ranges show only {shown} entries");
        Ok(fingerprint)
    }

    /// Removes every other entry of the bulk load.
    fn remove(&mut self, engine: &dyn Engine) -> Result<()> {
        let mut batch = Batch::default();
        for position in (0..self.table.entries).step_by(2) {
            batch.remove(&random_key::<KEY_BYTES>(position));
        }
        let mut writer = engine.writer(Durability::Sync)?;
        self.row("removal", Durability::Sync, |_| writer.write(0, &batch))?;
        self.written -= batch.len() as u64;
        Ok(())
    }

    fn compact(&mut self, mut engine: Box<dyn Engine>) -> Result<Box<dyn Engine>> {
        let size = |metric: &str, place: &Place| {
            Ok::<_, anyhow::Error>(Figure::lower(metric, disk_bytes(place.directory())? as f64, "B"))
        };
        self.figures.push(size("size_before_compaction", self.place)?);
        if engine.has_compaction() {
            self.place.step("compaction");
            let start = Instant::now();
            engine = engine.compact()?;
            let milliseconds = start.elapsed().as_secs_f64() * 1e3;
            self.figures.push(size("size_after_compaction", self.place)?);
            self.figures.push(Figure::lower("compaction", milliseconds, "ms"));
        }
        let mut count = 0;
        engine.read(0, &mut |reader| {
            count = reader.count()?;
            ensure!(!reader.get(&random_key::<KEY_BYTES>(0), &mut |_| ())?, "a removed entry is there");
            ensure!(
                reader.get(&random_key::<KEY_BYTES>(1), &mut |_| ())?,
                "an entry is gone that was not removed"
            );
            Ok(())
        })?;
        ensure!(count == self.written, "{count} entries of {} after the removal", self.written);
        Ok(engine)
    }
}
