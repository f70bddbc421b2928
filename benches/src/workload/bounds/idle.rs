//! What a database costs that is open and that nobody uses.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{KEY_BYTES, Row, VALUE_BYTES, setup};
use crate::child::Place;
use crate::engine::{Durability, Memory};
use crate::entries::Values;
use crate::measure::{Figure, Measured};
use crate::usage::{Threads, Usage, own_memory_bytes};
use crate::workload::load::Load;

/// How much is in it, and for how long it is left alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Idle {
    /// What engines are given.
    pub memory: Option<Memory>,
    /// Number of families.
    pub families: usize,
    /// Entries in each.
    pub entries: u64,
    /// Seconds before something is measured, and as many again in which it is.
    pub seconds: f64,
}

impl Row for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn description(&self) -> String {
        format!(
            "{} families of {} entries each, flushed until quiet and left alone for {2} s; then, for {2} s, how often its threads \
             come to run and what processor time they take.",
            self.families, self.entries, self.seconds
        )
    }

    fn run(&self, place: &Place) -> Result<Measured> {
        let threads_before = Threads::now()?.count;
        let engine = place.open(&setup(self.families, self.memory))?;
        let values = Values::new();
        for family in 0..self.families {
            let load = Load {
                family,
                entries: self.entries,
                value_bytes: VALUE_BYTES,
                batch: 1000,
                durability: Durability::Unsynced,
            };
            load.write::<KEY_BYTES>(engine.as_ref(), &values, |_| ())?;
        }
        place.step("resting");
        let rest = Duration::from_secs_f64(self.seconds);
        std::thread::sleep(rest);
        let (threads, usage, start) = (Threads::now()?, Usage::now()?, Instant::now());
        std::thread::sleep(rest);
        let seconds = start.elapsed().as_secs_f64();
        let (threads_now, usage_now) = (Threads::now()?, Usage::now()?);
        let wake_ups = threads_now.wake_ups.saturating_sub(threads.wake_ups) as f64 / seconds;
        let cpu = (usage_now.cpu_seconds - usage.cpu_seconds) / seconds;
        Ok(Measured {
            version: engine.version(),
            figures: vec![
                Figure::lower("wake_ups", wake_ups, "times/s"),
                Figure::lower("idle_cpu", cpu * 1e3, "ms/s"),
                Figure::lower("threads", threads_now.count.saturating_sub(threads_before) as f64, "threads"),
                Figure::lower("memory", own_memory_bytes()? as f64, "B").aside(),
            ],
            ..Measured::default()
        })
    }
}
