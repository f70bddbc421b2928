//! YCSB's workloads A to F, beside the peers.
//!
//! Run it with `benches/run mixed_benchmark`.

use anyhow::{Result, ensure};
use clap::{Args, value_parser};
use peristyle_benches::comparison::{Benchmark, Case, Part};
use peristyle_benches::engine::Durability;
use peristyle_benches::workload::mixed::{KEY_BYTES, LONGEST_SCAN, MIXES, Mix, Mixed, VALUE_BYTES};

/// Stands for all workloads on the command line.
const ALL: &str = "mixed";

const BENCHMARK: Benchmark = Benchmark {
    name: "mixed_benchmark",
    about: "Reads, writes and scans mixed as in YCSB: Peristyle beside its peers",
    workloads: &[ALL, "ycsb-a", "ycsb-b", "ycsb-c", "ycsb-d", "ycsb-e", "ycsb-f"],
    peers: &[],
    temporary: env!("CARGO_TARGET_TMPDIR"),
};

#[derive(Args)]
struct Options {
    /// Entries that are loaded before [default: 10000000, with --quick 20000]
    #[arg(long, value_parser = value_parser!(u64).range(1..))]
    entries: Option<u64>,

    /// Numbers of threads
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8], value_parser = value_parser!(u16).range(1..=16))]
    threads: Vec<u16>,

    /// Seconds for each workload and number of threads [default: 10, with --quick 0.1]
    #[arg(long)]
    seconds: Option<f64>,

    /// What a write survives
    #[arg(long, value_enum, default_value_t = Durability::Unsynced)]
    durability: Durability,
}

fn main() -> Result<()> {
    BENCHMARK.main(|comparison, options: &Options| {
        let wanted = |mix: &Mix| comparison.wants(&format!("ycsb-{}", mix.letter), ALL);
        let mixed = Mixed {
            entries: options.entries.unwrap_or(if comparison.quick { 20_000 } else { 10_000_000 }),
            mixes: MIXES.into_iter().filter(wanted).collect(),
            threads: options.threads.iter().map(|threads| (*threads).into()).collect(),
            seconds: options.seconds.unwrap_or(if comparison.quick { 0.1 } else { 10.0 }),
            durability: options.durability,
        };
        ensure!(mixed.seconds > 0.0, "--seconds has to be above 0");
        Ok(vec![case(mixed)])
    })
}

/// One case with a part for each mix and number of threads, so that entries are loaded only once.
fn case(mixed: Mixed) -> Case<Mixed> {
    let parts =
        mixed.mixes.iter().flat_map(|mix| mixed.threads.iter().map(|threads| part(&mixed, mix, *threads)));
    let entry = (KEY_BYTES + VALUE_BYTES) as u64;
    Case { parts: parts.collect(), disk_bytes: mixed.entries * entry * 5 + 4_000_000_000, task: mixed }
}

fn part(mixed: &Mixed, mix: &Mix, threads: usize) -> Part {
    let inserts = 100 - mix.reads - mix.updates - mix.read_modify_writes - mix.scans;
    let shares = [
        (mix.reads, "reads"),
        (mix.updates, "overwrites"),
        (mix.read_modify_writes, "reads followed by an overwrite of the same entry"),
        (mix.scans, "scans"),
        (inserts, "inserts"),
    ];
    let shares: Vec<String> = shares
        .into_iter()
        .filter(|(share, _)| *share > 0)
        .map(|(share, kind)| format!("{share} % {kind}"))
        .collect();
    let entries = mixed.entries;
    Part {
        workload: format!("{ALL}/ycsb-{}/{entries}/{threads} threads", mix.letter),
        description: format!(
            "{entries} entries ({KEY_BYTES} B, {VALUE_BYTES} B), {threads} thread(s), {} s: {}; {}. Scans have 1 to {LONGEST_SCAN} \
             entries. {}",
            mixed.seconds,
            shares.join(", "),
            if mix.latest {
                "the latest entries most often"
            } else {
                "zipfian, the frequent entries lie anywhere"
            },
            if mix.reads == 100 {
                "Nothing is written: each thread keeps one view."
            } else {
                "Each read takes a view of its own, and so sees every write acknowledged before it."
            }
        ),
        threads,
        durability: mixed.durability,
    }
}
