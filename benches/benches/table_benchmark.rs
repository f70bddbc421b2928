//! The rows of redb's public comparison, beside the peers.
//!
//! Run it with `benches/run table_benchmark`.

use anyhow::Result;
use clap::{Args, value_parser};
use peristyle_benches::comparison::{Benchmark, Case, Part};
use peristyle_benches::engine::Durability;
use peristyle_benches::workload::table::{KEY_BYTES, RANGE, Table, VALUE_BYTES};

/// Stands for all workloads on the command line.
const ALL: &str = "table";

/// Names of the sizes, in entries of the bulk load.
const SIZES: [(&str, u64); 2] = [("table-1m", 1_000_000), ("table-5m", 5_000_000)];

const BENCHMARK: Benchmark = Benchmark {
    name: "table_benchmark",
    about: "One table, written, read, halved and compacted: Peristyle beside its peers",
    workloads: &[ALL, SIZES[0].0, SIZES[1].0],
    peers: &[],
    temporary: env!("CARGO_TARGET_TMPDIR"),
};

#[derive(Args)]
struct Options {
    /// Entries of the bulk load, instead of those that the workloads define
    #[arg(long, value_parser = value_parser!(u64).range(2..))]
    entries: Option<u64>,
}

fn main() -> Result<()> {
    BENCHMARK.main(|comparison, options: &Options| {
        let sizes: Vec<u64> = match options.entries {
            Some(entries) => vec![entries],
            None if comparison.quick => vec![20_000],
            None => {
                let wanted = SIZES.iter().filter(|(name, _)| comparison.wants(name, ALL));
                wanted.map(|(_, entries)| *entries).collect()
            }
        };
        Ok(sizes.into_iter().map(|entries| case(table(entries, comparison.quick))).collect())
    })
}

/// The rows as redb has them, or a tenth or less of each.
fn table(entries: u64, quick: bool) -> Table {
    let threads = vec![4, 8, 16, 32];
    if quick {
        let (sync_commits, sync_batches, batch, unsynced_commits) = (20, 5, 100, 1000);
        Table {
            entries,
            sync_commits,
            sync_batches,
            batch,
            unsynced_commits,
            reads: 20_000,
            ranges: 5000,
            threads,
        }
    } else {
        let (sync_commits, sync_batches, batch, unsynced_commits) = (1000, 100, 1000, 50_000);
        let (reads, ranges) = (1_000_000, 500_000);
        Table { entries, sync_commits, sync_batches, batch, unsynced_commits, reads, ranges, threads }
    }
}

fn case(table: Table) -> Case<Table> {
    let part = Part {
        workload: format!("{ALL}/{}", table.entries),
        description: format!(
            "{} random pairs ({KEY_BYTES} B, {VALUE_BYTES} B) in one synced batch; {} synced commits of one pair; {} of {}; \
             {} unsynced commits of one; wait until quiet; len; {} random reads; {} range reads of {RANGE}; the random reads \
             again, divided among more threads; removal of half the pairs in one synced batch; wait until quiet; compaction. \
             Peak memory includes the batch of all pairs that every engine is handed.",
            table.entries,
            table.sync_commits,
            table.sync_batches,
            table.batch,
            table.unsynced_commits,
            table.reads,
            table.ranges
        ),
        threads: 1,
        durability: Durability::Unsynced,
    };
    let pair = (KEY_BYTES + VALUE_BYTES) as u64;
    Case { parts: vec![part], disk_bytes: table.entries * pair * 5 + 500_000_000, task: table }
}
