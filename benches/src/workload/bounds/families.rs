//! Thousands of families.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Row, median_microseconds, setup};
use crate::child::Place;
use crate::engine::{Durability, Engine, Feature, Memory};
use crate::entries::mix;
use crate::measure::{Figure, Measured};
use crate::usage::{Usage, disk_bytes, own_memory_bytes};

/// Tiny entries in each family.
const ENTRIES: u64 = 3;
/// Families that puts are compared with.
const FEW: usize = 8;

/// How many there are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Families {
    /// What engines are given.
    pub memory: Option<Memory>,
    /// Number of families.
    pub families: usize,
    /// Seconds after which no more are created one by one; what follows is measured with those that there
    /// are.
    pub patience: f64,
    /// Seconds of each measurement, at most.
    pub seconds: f64,
}

impl Row for Families {
    fn name(&self) -> &'static str {
        "families"
    }

    fn description(&self) -> String {
        format!(
            "{} families are created one by one (for about {} s at most), {ENTRIES} tiny entries are put into each, all is flushed, closed, \
             and opened again with every family at hand. Memory and disk are those beyond what the database took with none. Where \
             the engine has a call for it, as many are created at once in another database.",
            self.families, self.patience
        )
    }

    fn needs(&self) -> Vec<Feature> {
        vec![Feature::Families]
    }

    fn run(&self, place: &Place) -> Result<Measured> {
        let one_by_one = place.beside("one-by-one")?;
        let mut engine = one_by_one.open(&setup(0, self.memory))?;
        let memory_before = own_memory_bytes()?;
        let disk_before = disk_bytes(one_by_one.directory())?;

        place.step("creating one by one");
        let mut times = Vec::new();
        let mut put_among_few = 0.0;
        let mut created = 0.0;
        while times.len() < self.families && (times.len() < FEW || created < self.patience) {
            let start = Instant::now();
            engine.create_family()?;
            let seconds = start.elapsed().as_secs_f64();
            created += seconds;
            times.push(seconds);
            if times.len() == FEW.min(self.families) {
                put_among_few = self.put(engine.as_ref(), times.len())?;
            }
        }
        let families = times.len();
        let last = &times[families - (families / 100).max(1)..];
        let last_milliseconds = last.iter().sum::<f64>() / last.len() as f64 * 1e3;

        place.step("putting");
        let mut writer = engine.writer(Durability::Unsynced)?;
        for family in 0..families {
            for entry in 0..ENTRIES {
                writer.put(family, &entry.to_be_bytes(), b"tiny")?;
            }
        }
        drop(writer);
        let start = Instant::now();
        engine.flush_until_quiet()?;
        let flush_seconds = start.elapsed().as_secs_f64();
        let each = |bytes: u64, before: u64| bytes.saturating_sub(before) as f64 / families as f64;
        let memory_each = each(own_memory_bytes()?, memory_before);
        let disk_each = each(disk_bytes(one_by_one.directory())?, disk_before);
        let put_among_all = self.put(engine.as_ref(), families)?;
        let look_up = self.look_up(engine.as_ref(), families)?;
        let before = Usage::now()?;
        let start = Instant::now();
        std::thread::sleep(std::time::Duration::from_secs_f64(self.seconds));
        let idle = (Usage::now()?.cpu_seconds - before.cpu_seconds) / start.elapsed().as_secs_f64();
        let start = Instant::now();
        drop(engine);
        let close_seconds = start.elapsed().as_secs_f64();

        place.step("opening");
        let start = Instant::now();
        let engine = one_by_one.open(&setup(families, self.memory))?;
        let open_seconds = start.elapsed().as_secs_f64();
        check(engine.as_ref(), families)?;
        let version = engine.version();
        drop(engine);

        let mut figures = vec![
            Figure::lower("create_each_one_by_one", created / families as f64 * 1e3, "ms"),
            Figure::lower("create_the_last_ones", last_milliseconds, "ms"),
            Figure::lower("flush", flush_seconds, "s"),
            Figure::lower("open_with_all_at_hand", open_seconds, "s"),
            Figure::lower("close", close_seconds, "s"),
            Figure::lower("disk_of_each", disk_each, "bytes"),
            Figure::lower("memory_of_each", memory_each, "bytes"),
            Figure::lower("put_among_all", put_among_all, "us"),
            Figure::lower("put_among_all_by_among_8", put_among_all / put_among_few, "ratio"),
            Figure::lower("idle_cpu", idle * 1e3, "ms/s"),
        ];
        figures.extend(look_up.map(|microseconds| Figure::lower("look_up_by_name", microseconds, "us")));
        place.step("creating at once");
        figures.extend(
            self.create_at_once(place, families)?
                .map(|seconds| Figure::lower("create_at_once", seconds, "s")),
        );
        figures.push(Figure::higher("families_created", families as f64, "families").aside());
        Ok(Measured { version, figures, ..Measured::default() })
    }
}

impl Families {
    /// The time of a put into a family at random, in microseconds.
    fn put(&self, engine: &dyn Engine, families: usize) -> Result<f64> {
        let mut writer = engine.writer(Durability::Unsynced)?;
        median_microseconds(self.seconds, 100_000, |number| {
            let family = (mix(number) % families as u64) as usize;
            writer.put(family, &(number % ENTRIES).to_be_bytes(), b"tiny")
        })
    }

    /// The time to look a family up by its name, in microseconds, if the engine has such a call.
    fn look_up(&self, engine: &dyn Engine, families: usize) -> Result<Option<f64>> {
        if !engine.look_up(0)? {
            return Ok(None);
        }
        let microseconds = median_microseconds(self.seconds, 100_000, |number| {
            engine.look_up((mix(number) % families as u64) as usize).map(drop)
        })?;
        Ok(Some(microseconds))
    }

    fn create_at_once(&self, place: &Place, families: usize) -> Result<Option<f64>> {
        let at_once = place.beside("at-once")?;
        let mut engine = at_once.open(&setup(0, self.memory))?;
        let start = Instant::now();
        let has_call = engine.create_families(families)?;
        Ok(has_call.then(|| start.elapsed().as_secs_f64()))
    }
}

/// Every family has its entries, or the last put of those that were measured.
fn check(engine: &dyn Engine, families: usize) -> Result<()> {
    for family in 0..families {
        engine.read(family, &mut |reader| {
            let count = reader.count()?;
            ensure!(count == ENTRIES, "family {family} has {count} entries");
            Ok(())
        })?;
    }
    Ok(())
}
