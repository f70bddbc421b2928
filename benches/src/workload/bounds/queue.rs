//! A queue: pushed at its end, popped at its beginning, so that what was deleted lies before what is there.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Row, VALUE_BYTES, median_of_few, setup};
use crate::child::Place;
use crate::engine::{Batch, Direction, Durability, Engine, Memory, Writer};
use crate::entries::Values;
use crate::measure::{Figure, Measured};

/// Entries that wait in the queue.
const BACKLOG: u64 = 1000;
const BATCH: u64 = 1000;

/// How often is pushed and popped.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Queue {
    /// What engines are given.
    pub memory: Option<Memory>,
    /// Pairs of a push and a pop.
    pub pairs: u64,
    /// Seconds after which no more pairs are made.
    pub patience: f64,
    /// Entries that are deleted in batches before the first is looked for, nothing being flushed.
    pub deleted: u64,
}

impl Row for Queue {
    fn name(&self) -> &'static str {
        "queue"
    }

    fn description(&self) -> String {
        format!(
            "{} pairs of a push (at the end) and a pop (the first is looked for and deleted) on {BACKLOG} entries, for {} s at most; \
             then {} more entries are pushed and popped in batches of {BATCH}, and the first is looked for.",
            self.pairs, self.patience, self.deleted
        )
    }

    fn run(&self, place: &Place) -> Result<Measured> {
        let engine = place.open(&setup(1, self.memory))?;
        let values = Values::new();
        let mut writer = engine.writer(Durability::Unsynced)?;
        let push = |writer: &mut dyn Writer, position: u64| {
            writer.put(0, &position.to_be_bytes(), values.value(position, VALUE_BYTES))
        };
        (0..BACKLOG).try_for_each(|position| push(writer.as_mut(), position))?;
        place.step("pairs");
        let mut times = Vec::new();
        let start = Instant::now();
        let mut clock = start;
        let mut head = 0;
        while head < self.pairs && (clock - start).as_secs_f64() < self.patience {
            push(writer.as_mut(), head + BACKLOG)?;
            let first = first(engine.as_ref())?;
            ensure!(first == head, "entry {first} is the first instead of {head}");
            writer.remove(0, &first.to_be_bytes())?;
            head += 1;
            let now = Instant::now();
            times.push((now - clock).as_secs_f64() * 1e6);
            clock = now;
        }
        let seconds = (clock - start).as_secs_f64();
        let tenth = (times.len() / 10).max(1);
        let mean = |times: &[f64]| times.iter().sum::<f64>() / times.len() as f64;
        let (early, late) = (mean(&times[..tenth]), mean(&times[times.len() - tenth..]));

        place.step("deletions");
        let end = head + BACKLOG + self.deleted;
        for (from, remove) in [(head + BACKLOG, false), (head, true)] {
            let mut batch = Batch::default();
            for position in from..from + self.deleted {
                if remove {
                    batch.remove(&position.to_be_bytes());
                } else {
                    batch.push(&position.to_be_bytes(), values.value(position, VALUE_BYTES));
                }
                if batch.len() as u64 == BATCH || position + 1 == from + self.deleted {
                    writer.write(0, &batch)?;
                    batch.clear();
                }
            }
        }
        head = end - BACKLOG;
        let look = |seconds| {
            median_of_few(seconds, |_| {
                let first = first(engine.as_ref())?;
                ensure!(first == head, "entry {first} is the first instead of {head}");
                Ok(())
            })
        };
        let in_memory = look(1.0)?;
        engine.flush_until_quiet()?;
        let flushed = look(1.0)?;
        Ok(Measured {
            version: engine.version(),
            figures: vec![
                Figure::lower("pair_in_first_tenth", early, "us"),
                Figure::lower("pair_in_last_tenth", late, "us"),
                Figure::lower("last_tenth_by_first", late / early, "ratio"),
                Figure::lower("first_after_deletions", in_memory, "us"),
                Figure::lower("first_after_deletions_and_flush", flushed, "us"),
                Figure::higher("pairs", times.len() as f64 / seconds, "pairs/s"),
                Figure::higher("pairs_made", times.len() as f64, "pairs").aside(),
            ],
            ..Measured::default()
        })
    }
}

/// The position of the first entry.
fn first(engine: &dyn Engine) -> Result<u64> {
    let mut first = None;
    engine.read(0, &mut |reader| {
        reader.scan(&[], Direction::Forward, &mut |key, _| {
            first = key.first_chunk().map(|key| u64::from_be_bytes(*key));
            false
        })
    })?;
    first.context("the queue is empty")
}
