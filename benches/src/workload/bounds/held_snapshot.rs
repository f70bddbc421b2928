//! Space beside a snapshot that is held while everything is overwritten many times.

use std::time::Instant;

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{KEY_BYTES, Pace, Row, VALUE_BYTES, p999_microseconds, setup, with_peak};
use crate::child::Place;
use crate::engine::{Batch, Direction, Durability, Engine, Feature, Held, Memory};
use crate::entries::{Values, random_key};
use crate::measure::{Figure, Fingerprint, Latencies, Measured, histogram};
use crate::usage::Footprint;
use crate::workload::load::Load;

const BATCH: u64 = 100;
const ENTRY_BYTES: u64 = (KEY_BYTES + VALUE_BYTES) as u64;

/// How much is overwritten beside the snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HeldSnapshot {
    /// What engines are given.
    pub memory: Option<Memory>,
    /// Bytes of keys and values that are live.
    pub live_bytes: u64,
    /// Bytes of keys and values that are overwritten in a second.
    pub bytes_per_second: u64,
    /// Seconds with, and before that without, a snapshot.
    pub seconds: f64,
}

/// What a phase of overwriting came to.
struct Phase {
    peak: Footprint,
    entries: u64,
    seconds: f64,
    latencies: Histogram<u64>,
}

impl Row for HeldSnapshot {
    fn name(&self) -> &'static str {
        "held-snapshot"
    }

    fn description(&self) -> String {
        format!(
            "{} MB live, overwritten at random in batches of {BATCH} at up to {} MB/s for {} s without a snapshot, then for as long \
             beside one, which is read before and after; then it is let go, the database flushed until quiet, closed, opened and \
             compacted. Bytes on the disk, log included, for each byte of live keys and values.",
            self.live_bytes / 1_000_000,
            self.bytes_per_second / 1_000_000,
            self.seconds
        )
    }

    fn needs(&self) -> Vec<Feature> {
        vec![Feature::Snapshots]
    }

    fn disk_bytes(&self) -> u64 {
        (self.bytes_per_second as f64 * self.seconds * 10.0) as u64 + 2_000_000_000
    }

    fn run(&self, place: &Place) -> Result<Measured> {
        let setup = setup(1, self.memory);
        let engine = place.open(&setup)?;
        let values = Values::new();
        place.step("load");
        self.load().write::<KEY_BYTES>(engine.as_ref(), &values, |_| ())?;
        place.step("without a snapshot");
        let without = self.overwrite(engine.as_ref(), place, &values, 1)?;
        engine.flush_until_quiet()?;
        place.step("beside a snapshot");
        let with = {
            let held = engine.hold()?;
            let before = self.read(held.as_ref())?;
            let with = self.overwrite(engine.as_ref(), place, &values, 2)?;
            ensure!(before == self.read(held.as_ref())?, "the snapshot has changed");
            with
        };

        let disk = || Footprint::of(place.directory(), |_| false);
        engine.flush_until_quiet()?;
        let at_rest = disk()?.disk_bytes;
        let version = engine.version();
        drop(engine);
        let closed = disk()?.disk_bytes;
        place.step("compacting");
        let engine = place.open(&setup)?.compact()?;
        let compacted = disk()?.length;
        self.load().check(engine.as_ref())?;
        drop(engine);

        let live = (self.entries() * ENTRY_BYTES) as f64;
        let per_live = |metric: &str, bytes: u64| Figure::lower(metric, bytes as f64 / live, "B/B");
        Ok(Measured {
            version,
            figures: vec![
                per_live("peak_beside_snapshot", with.peak.disk_bytes),
                per_live("peak_without_snapshot", without.peak.disk_bytes),
                per_live("peak_beside_snapshot_without_log", with.peak.data_bytes),
                per_live("at_rest_afterwards", at_rest),
                per_live("closed", closed),
                per_live("length_of_files_after_compaction", compacted),
                Figure::higher("rate_beside_snapshot", with.rate(), "entries/s"),
                Figure::higher("rate_without_snapshot", without.rate(), "entries/s").aside(),
                Figure::lower("p99.9_beside_snapshot", p999_microseconds(&with.latencies), "us").aside(),
                Figure::lower("peak_of_directory", with.peak.disk_bytes as f64, "B").aside(),
                Figure::lower("peak_of_log", with.peak.log_bytes as f64, "B").aside(),
                Figure::higher(
                    "times_overwritten_beside_snapshot",
                    with.entries as f64 / self.entries() as f64,
                    "times",
                )
                .aside(),
            ],
            latencies: Some(Latencies::new("commit", &with.latencies)),
            ..Measured::default()
        })
    }
}

impl Phase {
    fn rate(&self) -> f64 {
        self.entries as f64 / self.seconds
    }
}

impl HeldSnapshot {
    fn entries(&self) -> u64 {
        (self.live_bytes / ENTRY_BYTES).max(BATCH)
    }

    fn load(&self) -> Load {
        Load {
            family: 0,
            entries: self.entries(),
            value_bytes: VALUE_BYTES,
            batch: 1000,
            durability: Durability::Unsynced,
        }
    }

    fn overwrite(&self, engine: &dyn Engine, place: &Place, values: &Values, seed: u64) -> Result<Phase> {
        let mut latencies = histogram()?;
        let mut random = fastrand::Rng::with_seed(seed);
        let mut writer = engine.writer(Durability::Unsynced)?;
        let mut batch = Batch::default();
        let mut value = [0; VALUE_BYTES];
        let mut batches = 0;
        let start = Instant::now();
        let ((), peak) = with_peak(engine, place.directory(), || {
            let pace = Pace::new(self.bytes_per_second as f64 / (BATCH * ENTRY_BYTES) as f64);
            while start.elapsed().as_secs_f64() < self.seconds {
                pace.wait(batches);
                batch.clear();
                for _ in 0..BATCH {
                    let position = random.u64(..self.entries());
                    values.fill_tagged(position, seed << 48 | batches, &mut value);
                    batch.push(&random_key::<KEY_BYTES>(position), &value);
                }
                let before = Instant::now();
                writer.write(0, &batch)?;
                latencies.saturating_record(before.elapsed().as_nanos() as u64);
                batches += 1;
            }
            Ok(())
        })?;
        Ok(Phase { peak, entries: batches * BATCH, seconds: start.elapsed().as_secs_f64(), latencies })
    }

    /// Everything that the snapshot shows, as one number.
    fn read(&self, held: &dyn Held) -> Result<Fingerprint> {
        let mut fingerprint = Fingerprint::default();
        let mut count = 0;
        held.read(0, &mut |reader| {
            reader.scan(&[], Direction::Forward, &mut |key, value| {
                // The last bytes tell versions apart, the first ones only positions.
                fingerprint.add(key, value.last_chunk::<8>().map_or(value, |last| last));
                count += 1;
                true
            })
        })?;
        ensure!(count == self.entries(), "the snapshot shows {count} entries of {}", self.entries());
        Ok(fingerprint)
    }
}
