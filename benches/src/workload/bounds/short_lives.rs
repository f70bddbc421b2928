//! Processes that open the database, write a little and are killed, one after the other.

use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Bound, Row, VALUE_BYTES, setup};
use crate::child::{Place, kill_this_process};
use crate::engine::{Durability, Feature, Memory};
use crate::entries::Values;
use crate::measure::{Figure, Measured};
use crate::usage::Footprint;

/// Entries that each process writes.
const ENTRIES: u64 = 10;

/// How many processes there are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShortLives {
    /// What engines are given.
    pub memory: Option<Memory>,
    /// Number of processes.
    pub lives: u64,
    /// The number of the process that writes; none if it is the one that starts the others.
    pub life: Option<u64>,
}

impl Row for ShortLives {
    fn name(&self) -> &'static str {
        "short-lives"
    }

    fn description(&self) -> String {
        format!(
            "{} processes, one after the other, each of which opens the database, puts {ENTRIES} entries of {VALUE_BYTES} B and is \
             killed; then it is opened once more.",
            self.lives
        )
    }

    fn needs(&self) -> Vec<Feature> {
        vec![Feature::Log]
    }

    fn run(&self, place: &Place) -> Result<Measured> {
        if let Some(life) = self.life {
            self.write(place, life)?;
            kill_this_process();
        }
        for life in 0..self.lives {
            let task = Bound::ShortLives(Self { life: Some(life), ..self.clone() });
            let status = place.in_another_process(&task)?;
            ensure!(status.signal() == Some(libc::SIGKILL), "a process that writes ended with {status}");
        }
        let before = Footprint::of(place.directory(), |_| false)?;
        let start = Instant::now();
        let engine = place.open(&setup(1, self.memory))?;
        let milliseconds = start.elapsed().as_secs_f64() * 1e3;
        engine.read(0, &mut |reader| {
            let count = reader.count()?;
            ensure!(count == self.lives * ENTRIES, "{count} entries of {}", self.lives * ENTRIES);
            Ok(())
        })?;
        let after = Footprint::of(place.directory(), |path| engine.is_log(path))?;
        Ok(Measured {
            version: engine.version(),
            figures: vec![
                Figure::lower("directory_after_last_kill", before.disk_bytes as f64, "B"),
                Figure::lower("directory_once_open", after.disk_bytes as f64, "B"),
                Figure::lower("log_once_open", after.log_bytes as f64, "B"),
                Figure::lower("open", milliseconds, "ms"),
            ],
            ..Measured::default()
        })
    }
}

impl ShortLives {
    fn write(&self, place: &Place, life: u64) -> Result<()> {
        let engine = place.open(&setup(1, self.memory))?;
        let values = Values::new();
        let mut writer = engine.writer(Durability::Unsynced)?;
        for number in 0..ENTRIES {
            let position = life * ENTRIES + number;
            writer.put(0, &position.to_be_bytes(), values.value(position, VALUE_BYTES))?;
        }
        Ok(())
    }
}
