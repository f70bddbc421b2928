//! What must not grow, whatever the load: one file for each bound.
//!
//! Every row runs with nothing but the engine's defaults, unless memory is given. What is measured are bytes,
//! times of single calls and counts; whether what was read is right is looked at as well. [`Row`] is what
//! they have in common.

#[cfg(feature = "engine")]
mod absent_keys;
mod beside;
mod deleted_keys;
#[cfg(feature = "engine")]
mod descriptors;
mod families;
mod held_snapshot;
mod idle;
#[cfg(feature = "engine")]
mod iterating;
mod log;
mod memory;
mod old_version;
mod queue;
mod range_deletes;
#[cfg(feature = "engine")]
mod resident;
mod short_lives;
mod value_sizes;
mod waiting;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

#[cfg(feature = "engine")]
pub use self::absent_keys::AbsentKeys;
pub use self::beside::Beside;
pub use self::deleted_keys::DeletedKeys;
#[cfg(feature = "engine")]
pub use self::descriptors::Descriptors;
pub use self::families::Families;
pub use self::held_snapshot::HeldSnapshot;
pub use self::idle::Idle;
#[cfg(feature = "engine")]
pub use self::iterating::Iterating;
pub use self::log::Log;
pub use self::memory::HeldMemory;
pub use self::old_version::OldVersion;
pub use self::queue::Queue;
pub use self::range_deletes::RangeDeletes;
#[cfg(feature = "engine")]
pub use self::resident::Resident;
pub use self::short_lives::ShortLives;
pub use self::value_sizes::{SIZES, ValueSizes};
pub use self::waiting::Waiting;

use crate::child::{Place, Task};
use crate::comparison::Part;
use crate::engine::{Durability, Engine, Feature, Memory, Setup};
use crate::measure::{Measured, PERCENTILES};
use crate::usage::Footprint;

/// Size of a key, in bytes, where a row does not say otherwise.
pub const KEY_BYTES: usize = 16;
/// Size of a value, in bytes, where a row does not say otherwise.
pub const VALUE_BYTES: usize = 100;

/// One bound.
pub trait Row {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// What is done, in words.
    fn description(&self) -> String;

    /// What tells it from rows of the same name; empty if there is but one.
    fn variant(&self) -> String {
        String::new()
    }

    /// Threads that write or read.
    fn threads(&self) -> usize {
        1
    }

    /// What an engine has to have to take part.
    fn needs(&self) -> Vec<Feature> {
        Vec::new()
    }

    /// Space on the disk that an engine may need, in bytes.
    fn disk_bytes(&self) -> u64 {
        5_000_000_000
    }

    /// Does it.
    fn run(&self, place: &Place) -> Result<Measured>;
}

/// Any of the rows, as a task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Bound {
    /// Space beside a held snapshot.
    HeldSnapshot(HeldSnapshot),
    /// The log under many busy families.
    Log(Log),
    /// Processes that live for a few writes.
    ShortLives(ShortLives),
    /// A buffered writer beside others.
    Beside(Beside),
    /// The longest wait.
    Waiting(Waiting),
    /// A queue.
    Queue(Queue),
    /// A bounded scan among deleted keys.
    DeletedKeys(DeletedKeys),
    /// Many range deletes.
    RangeDeletes(RangeDeletes),
    /// An old version of a hot key.
    OldVersion(OldVersion),
    /// Values of every size on the disk.
    ValueSizes(ValueSizes),
    /// Thousands of families.
    Families(Families),
    /// A database that nobody uses.
    Idle(Idle),
    /// Memory held and given back.
    HeldMemory(HeldMemory),
    /// Steps of an iterator beside those of a cursor.
    #[cfg(feature = "engine")]
    Iterating(Iterating),
    /// More families than descriptors.
    #[cfg(feature = "engine")]
    Descriptors(Descriptors),
    /// Absent keys where deltas were there at opening.
    #[cfg(feature = "engine")]
    AbsentKeys(AbsentKeys),
    /// Resident memory beside its bound.
    #[cfg(feature = "engine")]
    Resident(Resident),
}

impl Bound {
    fn row(&self) -> &dyn Row {
        match self {
            Self::HeldSnapshot(row) => row,
            Self::Log(row) => row,
            Self::ShortLives(row) => row,
            Self::Beside(row) => row,
            Self::Waiting(row) => row,
            Self::Queue(row) => row,
            Self::DeletedKeys(row) => row,
            Self::RangeDeletes(row) => row,
            Self::OldVersion(row) => row,
            Self::ValueSizes(row) => row,
            Self::Families(row) => row,
            Self::Idle(row) => row,
            Self::HeldMemory(row) => row,
            #[cfg(feature = "engine")]
            Self::Iterating(row) => row,
            #[cfg(feature = "engine")]
            Self::Descriptors(row) => row,
            #[cfg(feature = "engine")]
            Self::AbsentKeys(row) => row,
            #[cfg(feature = "engine")]
            Self::Resident(row) => row,
        }
    }

    /// Its name on the command line.
    pub fn name(&self) -> &'static str {
        self.row().name()
    }

    /// Space on the disk that an engine may need, in bytes.
    pub fn disk_bytes(&self) -> u64 {
        self.row().disk_bytes()
    }

    /// How its measurement is called.
    pub fn part(&self, memory: Option<Memory>) -> Part {
        let row = self.row();
        let setup = match memory {
            None => "Every engine runs with nothing but its defaults.".to_owned(),
            Some(memory) => format!(
                "{} MiB of cache and {} MiB of write buffers for every engine that can be told.",
                memory.cache_bytes >> 20,
                memory.write_buffer_bytes >> 20
            ),
        };
        let variant = row.variant();
        let slash = if variant.is_empty() { "" } else { "/" };
        Part {
            workload: format!("{}{slash}{variant}", row.name()),
            description: format!("{} {setup}", row.description()),
            threads: row.threads(),
            durability: Durability::Unsynced,
        }
    }
}

impl Task for Bound {
    fn run(&self, place: &Place) -> Result<Vec<Measured>> {
        Ok(vec![self.row().run(place)?])
    }

    fn needs(&self) -> Vec<Feature> {
        self.row().needs()
    }
}

/// The setup of a row.
fn setup(families: usize, memory: Option<Memory>) -> Setup {
    Setup { families, memory }
}

/// Does something while another thread looks at the directory every 20 ms; returns the most that it took.
fn with_peak<T>(
    engine: &dyn Engine,
    directory: &Path,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Footprint)> {
    let look = || Footprint::of(directory, |path| engine.is_log(path));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = look()?;
            while !done.load(Ordering::Acquire) {
                std::thread::park_timeout(Duration::from_millis(20));
                peak = peak.max(look()?);
            }
            Ok(peak)
        });
        let result = work();
        done.store(true, Ordering::Release);
        watch.thread().unpark();
        let peak: Result<Footprint> = watch.join().map_err(|_| anyhow!("the watch panicked"))?;
        Ok((result?, peak?))
    })
}

/// Keeps to so many steps a second, with pauses of a millisecond and more.
struct Pace {
    start: Instant,
    seconds_per_step: f64,
}

impl Pace {
    fn new(steps_per_second: f64) -> Self {
        Self { start: Instant::now(), seconds_per_step: 1.0 / steps_per_second }
    }

    /// Waits until the time of step `number` has come.
    fn wait(&self, number: u64) {
        let due = Duration::from_secs_f64(number as f64 * self.seconds_per_step);
        let ahead = due.saturating_sub(self.start.elapsed());
        if ahead > Duration::from_millis(1) {
            std::thread::sleep(ahead);
        }
    }
}

/// Does something over and over for `seconds` and `most` times at most, but once at least; returns the
/// median, in microseconds.
fn median_microseconds(seconds: f64, most: u64, mut step: impl FnMut(u64) -> Result<()>) -> Result<f64> {
    let mut times = Vec::new();
    let start = Instant::now();
    let mut clock = start;
    while times.is_empty() || ((times.len() as u64) < most && (clock - start).as_secs_f64() < seconds) {
        step(times.len() as u64)?;
        let now = Instant::now();
        times.push((now - clock).as_nanos() as u64);
        clock = now;
    }
    times.sort_unstable();
    Ok(times[times.len() / 2] as f64 / 1e3)
}

/// The median of a few steps, in microseconds, for what is to be seen before background work takes it away.
fn median_of_few(seconds: f64, step: impl FnMut(u64) -> Result<()>) -> Result<f64> {
    median_microseconds(seconds / 4.0, 25, step)
}

/// The percentile 99.9 of a histogram of nanoseconds, in microseconds.
fn p999_microseconds(latencies: &Histogram<u64>) -> f64 {
    latencies.value_at_percentile(PERCENTILES[3]) as f64 / 1e3
}

/// The longest time in a histogram of nanoseconds, in milliseconds.
fn longest_milliseconds(latencies: &Histogram<u64>) -> f64 {
    latencies.max() as f64 / 1e6
}
