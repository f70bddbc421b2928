//! Opening a database after its process was killed, and after it was closed, beside the peers.
//!
//! Run it with `benches/run recovery_benchmark`.

use anyhow::Result;
use clap::{Args, value_parser};
use peristyle_benches::comparison::{Benchmark, Case, Part};
use peristyle_benches::engine::{Durability, Memory, Setup};
use peristyle_benches::workload::recovery::{BATCH, End, KEY_BYTES, Recovery, VALUE_BYTES};

/// Stands for all workloads on the command line.
const ALL: &str = "recovery";
const KILLED: &str = "recovery-killed";
const CLOSED: &str = "recovery-closed";

const BENCHMARK: Benchmark = Benchmark {
    name: "recovery_benchmark",
    about: "Time to open a database again, after a crash and after a clean end: Peristyle beside its peers",
    workloads: &[ALL, KILLED, CLOSED],
    peers: &[],
    temporary: env!("CARGO_TARGET_TMPDIR"),
};

#[derive(Args)]
struct Options {
    /// Keys and values written before the process is killed, in MB [default: 1000, with --quick 2]
    #[arg(long, value_name = "MB", value_parser = value_parser!(u64).range(1..))]
    log: Option<u64>,

    /// Keys and values in the database that is closed, in MB [default: 10000, with --quick 5]
    #[arg(long, value_name = "MB", value_parser = value_parser!(u64).range(1..))]
    data: Option<u64>,
}

fn main() -> Result<()> {
    BENCHMARK.main(|comparison, options: &Options| {
        let quick = comparison.quick;
        let sizes = [
            (KILLED, End::Killed, options.log.unwrap_or(if quick { 2 } else { 1000 })),
            (CLOSED, End::Closed, options.data.unwrap_or(if quick { 5 } else { 10_000 })),
        ];
        let wanted = sizes.into_iter().filter(|(name, _, _)| comparison.wants(name, ALL));
        Ok(wanted.map(|(name, end, megabytes)| case(name, end, megabytes)).collect())
    })
}

fn case(name: &str, end: End, megabytes: u64) -> Case<Recovery> {
    let Memory { cache_bytes, mut write_buffer_bytes } = Memory::of_comparisons();
    let (durability, description) = match end {
        End::Killed => {
            // Room for all that is written, so that it waits in the log and not in tables or trees.
            write_buffer_bytes = write_buffer_bytes.max(megabytes * 4_000_000);
            let what = format!(
                "{megabytes} MB written in batches of {BATCH}, the last commit synced, then SIGKILL; opened again in another process. Write \
                 buffers of {} MiB hold all of it in engines that can be told, so that it is the log that has to be read.",
                write_buffer_bytes >> 20
            );
            (Durability::Sync, what)
        }
        End::Closed => {
            let what = format!(
                "{megabytes} MB written in batches of {BATCH}, flushed until quiet, closed; opened again in another process, \
                 with nothing of the files in the page cache."
            );
            (Durability::Unsynced, what)
        }
    };
    let part = Part {
        workload: format!("{name}/{megabytes}mb"),
        description: format!("{description} Entries of {KEY_BYTES} B random key and {VALUE_BYTES} B value."),
        threads: 1,
        durability,
    };
    let setup = Setup::with_memory(1, cache_bytes, write_buffer_bytes);
    let entries = megabytes * 1_000_000 / (KEY_BYTES + VALUE_BYTES) as u64;
    let disk_bytes = megabytes * 3_500_000 + 1_000_000_000;
    Case { parts: vec![part], disk_bytes, task: Recovery { setup, entries, end, fill: false } }
}
