//! Writes to 8 column families from 8 threads, beside the peers.
//!
//! Run it with `benches/run cf_comparison_benchmark`, or, where the peers' libraries are in place, with
//! `cargo bench -p peristyle-benches --bench cf_comparison_benchmark`.

use anyhow::Result;
use clap::{Args, value_parser};
use peristyle_benches::arguments::Comparison;
use peristyle_benches::comparison::{Benchmark, Case, Part};
use peristyle_benches::engine::{Durability, Setup};
use peristyle_benches::workload::write_phase::{Keys, VALUE_BYTES, WritePhase};

/// Stands for all workloads on the command line.
const ALL: &str = "cf_comparison";

const BENCHMARK: Benchmark = Benchmark {
    name: "cf_comparison_benchmark",
    about: "Column families written to by one thread each: Peristyle beside its peers",
    workloads: &[ALL, "integer-batches", "integer-singles", "random-batches", "random-singles"],
    peers: &[],
    temporary: env!("CARGO_TARGET_TMPDIR"),
};

#[derive(Args)]
struct Options {
    /// Only this durability; both by default
    #[arg(long, value_enum)]
    durability: Option<Durability>,

    /// Number of column families, each with a thread that writes to it
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u16).range(1..=256))]
    families: u16,

    /// Entries for each family, instead of those that the workload defines
    #[arg(long, value_parser = value_parser!(u64).range(1..))]
    entries: Option<u64>,
}

/// A workload, with its sizes in entries per family.
struct Workload {
    name: &'static str,
    keys: Keys,
    batch: u64,
    unsynced: &'static [u64],
    sync: &'static [u64],
    quick: [u64; 2],
}

/// Synced commits of single entries are few: each waits for the disk.
const WORKLOADS: [Workload; 4] = [
    Workload {
        name: "integer-batches",
        keys: Keys::Integer,
        batch: 1000,
        unsynced: &[50_000, 500_000],
        sync: &[50_000, 500_000],
        quick: [5000, 5000],
    },
    Workload {
        name: "integer-singles",
        keys: Keys::Integer,
        batch: 1,
        unsynced: &[50_000],
        sync: &[1000],
        quick: [2000, 50],
    },
    Workload {
        name: "random-batches",
        keys: Keys::Random,
        batch: 1000,
        unsynced: &[50_000],
        sync: &[50_000],
        quick: [5000, 5000],
    },
    Workload {
        name: "random-singles",
        keys: Keys::Random,
        batch: 1,
        unsynced: &[50_000],
        sync: &[1000],
        quick: [2000, 50],
    },
];

fn main() -> Result<()> {
    BENCHMARK.main(|comparison, options: &Options| Ok(cases(comparison, options)))
}

/// The chosen workloads in all their sizes and durabilities.
fn cases(comparison: &Comparison, options: &Options) -> Vec<Case<WritePhase>> {
    let mut cases = Vec::new();
    for workload in WORKLOADS.iter().filter(|workload| comparison.wants(workload.name, ALL)) {
        let sizes = [(Durability::Unsynced, workload.unsynced), (Durability::Sync, workload.sync)];
        for ((durability, defined), quick) in sizes.into_iter().zip(workload.quick) {
            if options.durability.is_some_and(|wanted| wanted != durability) {
                continue;
            }
            let sizes = match options.entries {
                Some(entries) => vec![entries],
                None if comparison.quick => vec![quick],
                None => defined.to_vec(),
            };
            cases.extend(sizes.into_iter().map(|entries_per_family| {
                let setup = Setup::new(options.families.into());
                let (keys, batch) = (workload.keys, workload.batch);
                case(workload.name, WritePhase { setup, durability, keys, entries_per_family, batch })
            }));
        }
    }
    cases
}

fn case(name: &str, phase: WritePhase) -> Case<WritePhase> {
    let (families, entries) = (phase.setup.families, phase.entries_per_family);
    let keys = match phase.keys {
        Keys::Integer => "8-byte little-endian integer keys",
        Keys::Random => "16-byte random keys",
    };
    let portions =
        if phase.batch == 1 { "one by one".into() } else { format!("in batches of {}", phase.batch) };
    let part = Part {
        workload: format!("{ALL}/{name}/{families}x{entries}"),
        description: format!(
            "{families} families, a writing thread for each, {entries} entries each, {keys}, {VALUE_BYTES}-byte values, {portions}."
        ),
        threads: families,
        durability: phase.durability,
    };
    Case { parts: vec![part], disk_bytes: families as u64 * entries * VALUE_BYTES as u64 * 10, task: phase }
}
