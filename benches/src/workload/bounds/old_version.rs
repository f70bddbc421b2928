//! A snapshot's value of a key that was overwritten very often since.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Row, median_of_few, setup};
use crate::child::Place;
use crate::engine::{Durability, Feature, Memory, Reader};
use crate::measure::{Figure, Measured};

const KEY: &[u8] = b"a hot key";
/// A key beside it, which is written once.
const BESIDE: &[u8] = b"a hotter key";

/// How many versions are newer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OldVersion {
    /// What engines are given.
    pub memory: Option<Memory>,
    /// Number of newer versions.
    pub versions: u64,
    /// Seconds after which no more are written.
    pub patience: f64,
    /// Seconds of each measurement, four times over.
    pub seconds: f64,
}

impl Row for OldVersion {
    fn name(&self) -> &'static str {
        "old-version"
    }

    fn description(&self) -> String {
        format!(
            "One key is put {} times (for {} s at most) while a snapshot from before is held; then the key is looked up in the \
             snapshot and in the present, and the snapshot's first entry is looked for.",
            self.versions, self.patience
        )
    }

    fn needs(&self) -> Vec<Feature> {
        vec![Feature::Snapshots]
    }

    fn run(&self, place: &Place) -> Result<Measured> {
        let engine = place.open(&setup(1, self.memory))?;
        let mut writer = engine.writer(Durability::Unsynced)?;
        for key in [KEY, BESIDE] {
            writer.put(0, key, &0_u64.to_be_bytes())?;
        }
        let held = engine.hold()?;
        place.step("writing");
        let start = Instant::now();
        let mut newest: u64 = 0;
        while newest < self.versions && start.elapsed().as_secs_f64() < self.patience {
            newest += 1;
            writer.put(0, KEY, &newest.to_be_bytes())?;
        }
        let seconds = start.elapsed().as_secs_f64();
        let expect = |reader: &mut dyn Reader, expected: u64| {
            let mut right = false;
            reader.get(KEY, &mut |value| right = value == expected.to_be_bytes())?;
            ensure!(right, "the key has not the value {expected}");
            Ok(())
        };
        place.step("reading");
        let limit = self.seconds;
        let old = median_of_few(limit, |_| held.read(0, &mut |reader| expect(reader, 0)))?;
        let new = median_of_few(limit, |_| engine.read(0, &mut |reader| expect(reader, newest)))?;
        let first = median_of_few(limit, |_| {
            held.read(0, &mut |reader| {
                let mut right = false;
                reader.range(KEY, BESIDE, &mut |_, value| {
                    right = value == 0_u64.to_be_bytes();
                    false
                })?;
                ensure!(right, "the snapshot's first entry is another");
                Ok(())
            })
        })?;
        Ok(Measured {
            version: engine.version(),
            figures: vec![
                Figure::lower("old_version", old, "us"),
                Figure::lower("newest_version", new, "us"),
                Figure::lower("first_of_snapshot", first, "us"),
                Figure::higher("puts_beside_snapshot", newest as f64 / seconds, "puts/s"),
                Figure::higher("versions_written", newest as f64, "puts").aside(),
            ],
            ..Measured::default()
        })
    }
}
