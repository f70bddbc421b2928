//! What values of every size take on the disk once compacted, and what it costs to read them.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{KEY_BYTES, Row, median_microseconds, setup};
use crate::child::Place;
use crate::engine::{Batch, Durability, Memory};
use crate::entries::{Values, mix, random_key};
use crate::measure::{Figure, Measured};
use crate::usage::disk_bytes;

/// Bytes of one commit, at least one entry.
const BATCH_BYTES: usize = 1 << 20;
/// Entries of one size, at most.
const MOST_ENTRIES: u64 = 500_000;
/// Entries of one size, at least.
const FEWEST_ENTRIES: u64 = 8;

/// The sizes that are measured where no others are asked for: from the smallest to the largest, and on both
/// sides of the parts of a page where engines change how they store a value.
pub const SIZES: [usize; 24] = [
    1,
    8,
    32,
    100,
    300,
    500,
    1000,
    1500,
    2000,
    2040,
    2049,
    2100,
    2600,
    3000,
    4000,
    4100,
    6000,
    8100,
    8200,
    12_000,
    20_000,
    65_536,
    200_000,
    1 << 20,
];

/// What is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ValueSizes {
    /// What engines are given.
    pub memory: Option<Memory>,
    /// Sizes of values, in bytes.
    pub sizes: Vec<usize>,
    /// Bytes of keys and values of each size.
    pub bytes: u64,
    /// Seconds of reading of each size, at most.
    pub seconds: f64,
}

impl Row for ValueSizes {
    fn name(&self) -> &'static str {
        "value-sizes"
    }

    fn description(&self) -> String {
        format!(
            "For each size of a value a database of its own with {} MB of keys ({KEY_BYTES} B, random) and values, {MOST_ENTRIES} \
             entries at most: written, compacted, closed. Bytes on the disk for each byte of keys and values; then it is opened, and \
             values are read at random.",
            self.bytes / 1_000_000
        )
    }

    fn run(&self, place: &Place) -> Result<Measured> {
        let mut measured = Measured::default();
        let (mut on_disk, mut reads) = (Vec::new(), Vec::new());
        for &size in &self.sizes {
            place.step(&format!("values of {size} B"));
            let place = place.beside(&size.to_string())?;
            let entries = self.entries(size);
            measured.version = self.write(&place, size)?;
            let per_byte =
                disk_bytes(place.directory())? as f64 / (entries * (KEY_BYTES + size) as u64) as f64;
            on_disk.push(Figure::lower(format!("disk_of_{size}_byte_values"), per_byte, "B/B"));
            reads.push(Figure::lower(format!("read_of_{size}_byte_values"), self.read(&place, size)?, "us"));
            std::fs::remove_dir_all(place.directory())?;
        }
        measured.figures = on_disk.into_iter().chain(reads).collect();
        Ok(measured)
    }
}

impl ValueSizes {
    fn entries(&self, size: usize) -> u64 {
        (self.bytes / (KEY_BYTES + size) as u64).clamp(FEWEST_ENTRIES, MOST_ENTRIES)
    }

    fn write(&self, place: &Place, size: usize) -> Result<String> {
        let engine = place.open(&setup(1, self.memory))?;
        let values = values_of(size);
        {
            let mut writer = engine.writer(Durability::Unsynced)?;
            let mut batch = Batch::default();
            let (mut bytes, entries) = (0, self.entries(size));
            for position in 0..entries {
                batch.push_borrowed(&random_key::<KEY_BYTES>(position), values.value(position, size));
                bytes += KEY_BYTES + size;
                if bytes >= BATCH_BYTES || position + 1 == entries {
                    writer.write(0, &batch)?;
                    batch.clear();
                    bytes = 0;
                }
            }
        }
        engine.flush_until_quiet()?;
        let engine = engine.compact()?;
        Ok(engine.version())
    }

    fn read(&self, place: &Place, size: usize) -> Result<f64> {
        let engine = place.open(&setup(1, self.memory))?;
        let values = values_of(size);
        let read = |number: u64| {
            let position = mix(number) % self.entries(size);
            engine.read(0, &mut |reader| {
                let (mut right, expected) = (false, values.value(position, size));
                // Every value is touched alike; comparing all of it would be what is measured.
                reader.get(&random_key::<KEY_BYTES>(position), &mut |value| {
                    right = value.len() == size && value.first() == expected.first();
                })?;
                ensure!(right, "entry {position} is lost or has another value");
                Ok(())
            })
        };
        // Once to bring what is read into the caches.
        median_microseconds(self.seconds, 10_000, read)?;
        median_microseconds(self.seconds, 10_000, read)
    }
}

/// Values of a size that the usual stock of random bytes may be too short for.
fn values_of(size: usize) -> Values {
    Values::of_stock((256 << 10).max(size * 2))
}
