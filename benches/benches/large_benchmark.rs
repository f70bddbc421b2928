//! Data eight times as large as the memory, beside the peers.
//!
//! Run it with `benches/run large_benchmark`.

use anyhow::{Result, ensure};
use clap::{Args, value_parser};
use peristyle_benches::comparison::{Benchmark, Case, Part};
use peristyle_benches::engine::{Durability, Setup};
use peristyle_benches::workload::large::{
    KEY_BYTES, LOAD_BATCH, Large, OVERWRITE_BATCH, PATIENCE, VALUE_BYTES,
};

/// The one workload.
const ALL: &str = "large";

const BENCHMARK: Benchmark = Benchmark {
    name: "large_benchmark",
    about: "Data eight times as large as the memory that engines are given: Peristyle beside its peers",
    workloads: &[ALL],
    peers: &[],
    temporary: env!("CARGO_TARGET_TMPDIR"),
};

#[derive(Args)]
struct Options {
    /// Memory for cache and write buffers together, in MiB; three quarters are cache [default: 512, with
    /// --quick 4]
    #[arg(long, value_name = "MIB", value_parser = value_parser!(u64).range(4..))]
    memory: Option<u64>,

    /// How many times as large as the memory the data is
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u64).range(1..))]
    times: u64,

    /// Threads that overwrite and read
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u16).range(1..=64))]
    threads: u16,

    /// Seconds of each phase of overwriting and reading [default: 30, with --quick 0.2]
    #[arg(long)]
    seconds: Option<f64>,
}

fn main() -> Result<()> {
    BENCHMARK.main(|comparison, options: &Options| {
        let memory = options.memory.unwrap_or(if comparison.quick { 4 } else { 512 }) << 20;
        let setup = Setup::with_memory(1, memory / 4 * 3, memory / 4);
        let seconds = options.seconds.unwrap_or(if comparison.quick { 0.2 } else { 30.0 });
        ensure!(seconds > 0.0, "--seconds has to be above 0");
        let entries = memory * options.times / (KEY_BYTES + VALUE_BYTES) as u64;
        Ok(vec![case(Large { setup, entries, threads: options.threads.into(), seconds })])
    })
}

fn case(large: Large) -> Case<Large> {
    let Large { setup, entries, threads, seconds } = large;
    let data = entries * (KEY_BYTES + VALUE_BYTES) as u64;
    let mebibytes = |bytes: u64| bytes >> 20;
    let (cache_bytes, write_buffer_bytes) =
        setup.memory.map_or((0, 0), |memory| (memory.cache_bytes, memory.write_buffer_bytes));
    let memory = format!(
        "{entries} entries ({KEY_BYTES} B random key, {VALUE_BYTES} B value), {} MiB; {} MiB of cache and {} MiB of write buffers \
         for every engine that can be told. All of them also have the page cache of the system, through which alone LMDB reads.",
        mebibytes(data),
        mebibytes(cache_bytes),
        mebibytes(write_buffer_bytes)
    );
    let part = |name: &str, threads, what: String| Part {
        workload: format!("{ALL}/{}mib/{name}", mebibytes(data)),
        description: format!("{what} {memory}"),
        threads,
        durability: Durability::Unsynced,
    };
    let parts = vec![
        part(
            "load",
            1,
            format!(
                "Load in batches of {LOAD_BATCH}; bytes written until quiet, for each byte of keys and values."
            ),
        ),
        part(
            "overwrite",
            threads,
            format!(
                "As many entries as there are overwritten at random in batches of {OVERWRITE_BATCH} by {threads} threads, for {} s \
                 at most; bytes written until quiet, for each byte of keys and values.",
                f64::from(PATIENCE) * seconds
            ),
        ),
        part(
            "tail",
            1,
            format!("Entries overwritten at random one by one, without a pause, for {seconds} s."),
        ),
        part("read", threads, format!("Random reads by {threads} threads for {seconds} s.")),
        part("scan", 1, "One scan from end to end.".into()),
    ];
    Case { parts, disk_bytes: data * 5 + 4_000_000_000, task: large }
}
