//! Opening a database again: after its process was killed, and after it was closed.

use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::load::Load;
use crate::child::{Place, Task, kill_this_process};
use crate::engine::{Durability, Engine, Setup};
use crate::entries::{Values, has_tag, mix, random_key};
use crate::measure::{Figure, Measured, Meter};
use crate::usage::disk_bytes;

/// Size of a key, in bytes.
pub const KEY_BYTES: usize = 24;
/// Size of a value, in bytes.
pub const VALUE_BYTES: usize = 150;
/// Entries in one commit.
pub const BATCH: u64 = 10_000;

/// Entries that are looked up after the first.
const SPOT_CHECKS: u64 = 1000;

/// How the database was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// The process was killed after the last commit.
    Killed,
    /// It was flushed and closed, and nothing of it is in the page cache any more.
    Closed,
}

/// What is opened again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recovery {
    /// The setup, both times.
    pub setup: Setup,
    /// Entries in the database.
    pub entries: u64,
    /// How it was left.
    pub end: End,
    /// Whether to fill the database, or to open it again.
    pub fill: bool,
}

impl Task for Recovery {
    fn run(&self, place: &Place) -> Result<Vec<Measured>> {
        if self.fill {
            self.fill(place)?;
            return Ok(Vec::new());
        }
        place.step("filling");
        let status = place.in_another_process(&Self { fill: true, ..self.clone() })?;
        let killed = status.signal() == Some(libc::SIGKILL);
        ensure!(
            killed == (self.end == End::Killed),
            "the process that fills the database ended with {status}"
        );
        let size_before = disk_bytes(place.directory())?;
        if self.end == End::Closed {
            place.forget_cached_pages()?;
        }
        place.step("opening");
        self.open(place, size_before).map(|measured| vec![measured])
    }
}

impl Recovery {
    fn fill(&self, place: &Place) -> Result<()> {
        let engine = place.open(&self.setup)?;
        let values = Values::new();
        let load = Load {
            family: 0,
            entries: self.entries,
            value_bytes: VALUE_BYTES,
            batch: BATCH,
            durability: Durability::Unsynced,
        };
        load.write::<KEY_BYTES>(engine.as_ref(), &values, |acknowledged| {
            if self.end == End::Killed
                && acknowledged == self.entries
                && self.write_last(engine.as_ref(), &values).is_ok()
            {
                kill_this_process();
            }
        })?;
        drop(engine);
        Ok(())
    }

    /// One more entry, synced, after which every engine has acknowledged that all of them survive.
    fn write_last(&self, engine: &dyn Engine, values: &Values) -> Result<()> {
        let mut value = [0; VALUE_BYTES];
        values.fill_tagged(self.entries, 0, &mut value);
        engine.writer(Durability::Sync)?.put(0, &random_key::<KEY_BYTES>(self.entries), &value)
    }

    fn open(&self, place: &Place, size_before: u64) -> Result<Measured> {
        let meter = Meter::start_without_disk()?;
        let start = Instant::now();
        let engine = place.open(&self.setup)?;
        let open_milliseconds = start.elapsed().as_secs_f64() * 1e3;
        check(engine.as_ref(), 0)?;
        let read_milliseconds = start.elapsed().as_secs_f64() * 1e3;
        let consumed = meter.figures()?;
        for number in 0..SPOT_CHECKS {
            check(engine.as_ref(), mix(number) % self.entries)?;
        }
        (self.entries.saturating_sub(BATCH)..self.entries)
            .try_for_each(|last| check(engine.as_ref(), last))?;
        let mut figures = vec![
            Figure::lower("open", open_milliseconds, "ms"),
            Figure::lower("open_and_first_read", read_milliseconds, "ms"),
        ];
        figures.extend(consumed);
        figures.push(Figure::lower("size_on_disk_before", size_before as f64, "B").aside());
        Ok(Measured { version: engine.version(), figures, ..Measured::default() })
    }
}

/// Looks an entry up.
fn check(engine: &dyn Engine, position: u64) -> Result<()> {
    engine.read(0, &mut |reader| {
        let mut right = false;
        let key = random_key::<KEY_BYTES>(position);
        reader.get(&key, &mut |value| right = value.len() == VALUE_BYTES && has_tag(value, position))?;
        ensure!(right, "entry {position} is lost or has another value");
        Ok(())
    })
}
