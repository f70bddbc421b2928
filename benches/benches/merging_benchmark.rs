//! Operands folded on few keys: counters that are added to without reading, beside RocksDB's.
//!
//! Run it with `benches/run merging_benchmark`. Ten million operands of eight bytes are merged into a
//! thousand keys, in batches, unsynced and logged; then all is flushed, and each key is read once. The time
//! is that of all three. Beside it stand puts of as many values in the same batches, and what a merge takes
//! for what a put does. Every round has new databases; kinds take turns, and the medians of the rounds are
//! printed.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;
use peristyle::{ColumnFamily, ColumnFamilyDatabase, FamilyOptions, WriteBatch, merge_operators};

#[derive(Parser)]
#[command(about = "Merge operators: Peristyle beside RocksDB")]
struct Arguments {
    #[arg(long, default_value_t = 10_000_000)]
    operands: u64,
    #[arg(long, default_value_t = 1000)]
    keys: u64,
    /// Operands of a batch
    #[arg(long, default_value_t = 1000)]
    batch: u64,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Little of everything
    #[arg(long)]
    quick: bool,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// A database of counters.
trait Kind {
    /// Adds one to each key, in one batch.
    fn add(&mut self, keys: &[[u8; 8]]) -> Result<()>;
    fn flush(&self) -> Result<()>;
    fn count(&self, key: &[u8]) -> Result<u64>;
}

const ONE: [u8; 8] = 1u64.to_le_bytes();

struct Peristyle {
    db: ColumnFamilyDatabase,
    counts: ColumnFamily,
    /// Puts instead, of the same sizes.
    puts: bool,
    batch: WriteBatch,
}

impl Peristyle {
    fn open(path: &Path, puts: bool) -> Result<Box<dyn Kind>> {
        let db = ColumnFamilyDatabase::open(path)?;
        let options = FamilyOptions::default().merge_operator(merge_operators::add_u64());
        let counts = db.create_column_family("counts", options)?;
        Ok(Box::new(Self { db, counts, puts, batch: WriteBatch::new() }))
    }
}

impl Kind for Peristyle {
    fn add(&mut self, keys: &[[u8; 8]]) -> Result<()> {
        self.batch.clear();
        for key in keys {
            if self.puts {
                self.batch.put(&self.counts, key, ONE);
            } else {
                self.batch.merge(&self.counts, key, ONE);
            }
        }
        self.db.write(&self.batch)?;
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(self.db.flush()?)
    }

    fn count(&self, key: &[u8]) -> Result<u64> {
        let value = self.counts.get(key)?;
        Ok(value.map_or(Ok(0), |value| value[..].try_into().map(u64::from_le_bytes))?)
    }
}

#[cfg(feature = "rocksdb")]
mod rocks {
    use std::path::Path;

    use anyhow::Result;
    use peristyle_benches::peers::provide_missing_symbols;
    use rocksdb::{DB, MergeOperands, Options, WriteBatch};

    use super::{Kind, ONE};

    fn add(_: &[u8], existing: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
        let start = existing.map_or(Some(0), number)?;
        let sum = operands.iter().try_fold(start, |sum, operand| Some(sum.wrapping_add(number(operand)?)))?;
        Some(sum.to_le_bytes().to_vec())
    }

    pub(super) struct Rocks {
        db: DB,
        puts: bool,
    }

    impl Rocks {
        pub(super) fn open(path: &Path, puts: bool) -> Result<Box<dyn Kind>> {
            provide_missing_symbols();
            let mut options = Options::default();
            options.create_if_missing(true);
            options.increase_parallelism(std::thread::available_parallelism().map_or(2, |n| n.get() as i32));
            options.set_merge_operator_associative("add", add);
            Ok(Box::new(Self { db: DB::open(&options, path)?, puts }))
        }
    }

    impl Kind for Rocks {
        fn add(&mut self, keys: &[[u8; 8]]) -> Result<()> {
            let mut batch = WriteBatch::default();
            for key in keys {
                if self.puts {
                    batch.put(key, ONE);
                } else {
                    batch.merge(key, ONE);
                }
            }
            Ok(self.db.write(batch)?)
        }

        fn flush(&self) -> Result<()> {
            Ok(self.db.flush()?)
        }

        fn count(&self, key: &[u8]) -> Result<u64> {
            let value = self.db.get(key)?;
            Ok(value.map_or(Ok(0), |value| value[..].try_into().map(u64::from_le_bytes))?)
        }
    }
}

type Open = fn(&Path, bool) -> Result<Box<dyn Kind>>;

/// Name, how to open it, and whether it puts.
fn kinds() -> Vec<(&'static str, Open, bool)> {
    let mut kinds: Vec<(_, Open, _)> =
        vec![("Peristyle, merges", Peristyle::open, false), ("Peristyle, puts", Peristyle::open, true)];
    #[cfg(feature = "rocksdb")]
    kinds.extend::<[(_, Open, _); 2]>([
        ("RocksDB, merges", rocks::Rocks::open, false),
        ("RocksDB, puts", rocks::Rocks::open, true),
    ]);
    kinds
}

/// Seconds for writing, flushing and reading.
fn measure(open: Open, puts: bool, arguments: &Arguments) -> Result<[f64; 3]> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut kind = open(&directory.path().join("database"), puts)?;
    let mut random = fastrand::Rng::with_seed(1);
    let mut added = vec![0u64; usize::try_from(arguments.keys)?];
    let mut keys = Vec::new();
    let started = Instant::now();
    for first in (0..arguments.operands).step_by(usize::try_from(arguments.batch)?) {
        keys.clear();
        for _ in first..arguments.operands.min(first + arguments.batch) {
            let key = random.u64(0..arguments.keys);
            added[key as usize] += 1;
            keys.push(key.to_be_bytes());
        }
        kind.add(&keys)?;
    }
    let written = started.elapsed().as_secs_f64();
    kind.flush()?;
    let flushed = started.elapsed().as_secs_f64();
    for (key, added) in (0u64..).zip(&added) {
        let expected = if puts { u64::from(*added > 0) } else { *added };
        let count = kind.count(&key.to_be_bytes())?;
        ensure!(count == expected, "key {key} has {count}, not {expected}");
    }
    let read = started.elapsed().as_secs_f64();
    Ok([written, flushed - written, read - flushed])
}

fn median(figures: &[[f64; 3]], seconds: fn(&[f64; 3]) -> f64) -> f64 {
    let mut all: Vec<_> = figures.iter().map(seconds).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        (arguments.operands, arguments.rounds) = (200_000, 1);
    }
    let kinds = kinds();
    let mut figures = vec![Vec::new(); kinds.len()];
    for _ in 0..arguments.rounds {
        for ((_, open, puts), figures) in kinds.iter().zip(&mut figures) {
            figures.push(measure(*open, *puts, &arguments)?);
        }
    }
    println!(
        "| {} operands on {} keys | operands/s | writing, s | flushing, s | reading each key, ms |",
        arguments.operands, arguments.keys
    );
    println!("|---|---:|---:|---:|---:|");
    for ((name, ..), figures) in kinds.iter().zip(&mut figures) {
        figures.sort_by(|a, b| a.iter().sum::<f64>().total_cmp(&b.iter().sum()));
        let [written, flushed, read] = figures[figures.len() / 2];
        let rate = arguments.operands as f64 / (written + flushed + read);
        println!("| {name} | {rate:.0} | {written:.2} | {flushed:.2} | {:.1} |", read * 1000.0);
    }
    println!("\n| medians of rounds in which both took their turn | writing | all |\n|---|---:|---:|");
    for ((name, ..), both) in
        kinds.iter().zip(&figures).collect::<Vec<_>>().chunks(2).map(|both| (both[0].0, both))
    {
        let ratio = |seconds: fn(&[f64; 3]) -> f64| median(both[0].1, seconds) / median(both[1].1, seconds);
        let (writing, all) = (ratio(|figures| figures[0]), ratio(|figures| figures.iter().sum()));
        println!("| time of {name}, for that of its puts | {writing:.2} | {all:.2} |");
    }
    Ok(())
}
