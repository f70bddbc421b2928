//! What must not grow, whatever the load: space, log, waiting, memory, the cost of what is gone. Peristyle
//! beside some peers.
//!
//! Run it with `benches/run bounds_benchmark`.

use anyhow::{Result, ensure};
use clap::{Args, value_parser};
use peristyle_benches::comparison::{Benchmark, Case};
use peristyle_benches::engine::Memory;
use peristyle_benches::workload::bounds::{
    AbsentKeys, Beside, Bound, DeletedKeys, Descriptors, Families, HeldMemory, HeldSnapshot, Idle, Iterating,
    Log, OldVersion, Queue, RangeDeletes, Resident, SIZES, ShortLives, ValueSizes, Waiting,
};

/// Stands for all workloads on the command line.
const ALL: &str = "bounds";

const BENCHMARK: Benchmark = Benchmark {
    name: "bounds_benchmark",
    about: "What must stay within bounds whatever the load, with default settings: Peristyle beside its peers",
    workloads: &[
        ALL,
        "held-snapshot",
        "log",
        "short-lives",
        "beside",
        "waiting",
        "queue",
        "deleted-keys",
        "range-deletes",
        "old-version",
        "value-sizes",
        "families",
        "idle",
        "memory",
        "iterating",
        "descriptors",
        "absent-keys",
        "resident",
    ],
    peers: &["rocksdb", "leveldb", "canopydb"],
    temporary: env!("CARGO_TARGET_TMPDIR"),
};

#[derive(Args)]
struct Options {
    /// Memory for cache and write buffers together, in MiB, half for each; the engines' defaults if not given
    #[arg(long, value_name = "MIB", value_parser = value_parser!(u64).range(4..))]
    memory: Option<u64>,

    /// Seconds of each phase of writing [default: 60, with --quick 0.1]
    #[arg(long)]
    seconds: Option<f64>,

    /// Megabytes that are live beside a snapshot [default: 50, with --quick 2]
    #[arg(long, value_name = "MB", value_parser = value_parser!(u64).range(1..))]
    live: Option<u64>,

    /// Megabytes that are overwritten in a second beside a snapshot
    #[arg(long, value_name = "MB", default_value_t = 20, value_parser = value_parser!(u64).range(1..))]
    rate: u64,

    /// Families that are written to at the same time, in `log`, and writers in `waiting`
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u16).range(2..=64))]
    writers: u16,

    /// Puts in a second where a writer keeps to a rate
    #[arg(long, default_value_t = 50_000, value_parser = value_parser!(u64).range(1..))]
    puts: u64,

    /// Processes that live for ten puts [default: 700, with --quick 3]
    #[arg(long, value_parser = value_parser!(u64).range(1..))]
    lives: Option<u64>,

    /// Megabytes in a huge batch [default: 85, with --quick 1]
    #[arg(long, value_name = "MB", value_parser = value_parser!(u64).range(1..))]
    huge: Option<u64>,

    /// Pairs of a push and a pop [default: 100000, with --quick 1000]
    #[arg(long, value_parser = value_parser!(u64).range(10..))]
    pairs: Option<u64>,

    /// Keys that are deleted, in `queue` and `deleted-keys` [default: 500000, with --quick 2000]
    #[arg(long, value_parser = value_parser!(u64).range(1000..))]
    deleted: Option<u64>,

    /// Versions of a hot key [default: 1000000, with --quick 2000]
    #[arg(long, value_parser = value_parser!(u64).range(1..))]
    versions: Option<u64>,

    /// Sizes of values, in bytes [default: 24 of them, with --quick 4]
    #[arg(long, value_delimiter = ',', value_parser = value_parser!(u32).range(1..=64 << 20))]
    sizes: Vec<u32>,

    /// Megabytes of values of each size [default: 32, with --quick 1]
    #[arg(long, value_name = "MB", value_parser = value_parser!(u64).range(1..))]
    values: Option<u64>,

    /// Number of families in `families` [default: 10000, with --quick 20]
    #[arg(long, value_parser = value_parser!(u32).range(1..=1_000_000))]
    families: Option<u32>,

    /// Megabytes that are written in `memory` [default: 1000, with --quick 4]
    #[arg(long, value_name = "MB", value_parser = value_parser!(u64).range(1..))]
    written: Option<u64>,
}

fn main() -> Result<()> {
    BENCHMARK.main(|comparison, options: &Options| {
        let memory = options
            .memory
            .map(|memory| Memory { cache_bytes: memory << 19, write_buffer_bytes: memory << 19 });
        let rows = rows(options, memory, comparison.quick)?;
        let wanted = rows.into_iter().filter(|row| comparison.wants(row.name(), ALL));
        Ok(wanted
            .map(|row| Case { parts: vec![row.part(memory)], disk_bytes: row.disk_bytes(), task: row })
            .collect())
    })
}

fn rows(options: &Options, memory: Option<Memory>, quick: bool) -> Result<Vec<Bound>> {
    fn sized<T>(asked_for: Option<T>, full: T, quickly: T, quick: bool) -> T {
        asked_for.unwrap_or(if quick { quickly } else { full })
    }
    let seconds = sized(options.seconds, 60.0, 0.1, quick);
    ensure!(seconds > 0.0, "--seconds has to be above 0");
    // Of what is measured over and over, and need not be measured for long.
    let short = if quick { 0.02 } else { 1.0 };
    let patience = seconds.max(short);
    let writers = usize::from(options.writers);
    let deleted = sized(options.deleted, 500_000, 2000, quick);
    let sizes = match options.sizes.as_slice() {
        [] if quick => vec![1, 100, 2049, 1 << 20],
        [] => SIZES.to_vec(),
        sizes => sizes.iter().map(|size| *size as usize).collect(),
    };
    let waiting = |writers, puts_per_second| {
        let positions = if quick { 10_000 } else { 5_000_000 };
        Bound::Waiting(Waiting { memory, writers, puts_per_second, positions, seconds })
    };
    let resident = |total: Option<u64>| {
        // Of data that is larger than the memory that is given.
        let bytes = if quick { 4 << 20 } else { total.unwrap_or(512 << 20) * 3 };
        Bound::Resident(Resident { total, entries: bytes / 116, seconds: seconds / 4.0 })
    };
    Ok(vec![
        Bound::HeldSnapshot(HeldSnapshot {
            memory,
            live_bytes: sized(options.live, 50, 2, quick) * 1_000_000,
            bytes_per_second: options.rate * 1_000_000,
            seconds,
        }),
        Bound::Log(Log { memory, families: writers, seconds, fill: false }),
        Bound::ShortLives(ShortLives { memory, lives: sized(options.lives, 700, 3, quick), life: None }),
        Bound::Beside(Beside {
            memory,
            seconds: seconds / 4.0,
            huge_bytes: sized(options.huge, 85, 1, quick) * 1_000_000,
        }),
        waiting(1, None),
        waiting(writers, None),
        waiting(1, Some(options.puts)),
        Bound::Queue(Queue { memory, pairs: sized(options.pairs, 100_000, 1000, quick), patience, deleted }),
        Bound::DeletedKeys(DeletedKeys { memory, deleted, seconds: short }),
        Bound::RangeDeletes(RangeDeletes {
            memory,
            ranges: if quick { vec![100, 1000] } else { vec![10_000, 100_000] },
            seconds: short,
        }),
        Bound::OldVersion(OldVersion {
            memory,
            versions: sized(options.versions, 1_000_000, 2000, quick),
            patience,
            seconds: short,
        }),
        Bound::ValueSizes(ValueSizes {
            memory,
            sizes,
            bytes: sized(options.values, 32, 1, quick) * 1_000_000,
            seconds: short / 4.0,
        }),
        Bound::Families(Families {
            memory,
            families: sized(options.families, 10_000, 20, quick) as usize,
            patience,
            seconds: short,
        }),
        Bound::Idle(Idle {
            memory,
            families: 8,
            entries: if quick { 100 } else { 10_000 },
            seconds: if quick { 0.05 } else { (seconds / 6.0).min(10.0) },
        }),
        Bound::HeldMemory(HeldMemory {
            memory,
            families: 8,
            bytes: sized(options.written, 1000, 4, quick) * 1_000_000,
            value_bytes: 2048,
            kept: 400,
            seconds: short,
        }),
        Bound::Iterating(Iterating { seconds: short }),
        Bound::Descriptors(Descriptors {
            families: if quick { 80 } else { 512 },
            cap: if quick { 8 } else { 64 },
            entries: if quick { 20 } else { 200 },
            seconds: short * 5.0,
        }),
        Bound::AbsentKeys(AbsentKeys { entries: if quick { 4000 } else { 1_000_000 }, seconds: short }),
        resident(Some(64 << 20)),
        resident(Some(512 << 20)),
        resident(None),
    ])
}
