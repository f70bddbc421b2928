//! The store of a consensus node: which block used a token last, and the blocks themselves.
//!
//! The node knows two small traits ([`model`]). The same program runs on Peristyle ([`peristyle_store`]) and
//! on a twin in memory ([`memory_store`]), and the sums over their signatures are equal:
//!
//! ```text
//! cargo run --release --example consensus_store -- --store both
//! ```

mod memory_store;
mod memory_used;
mod model;
mod peristyle_store;
mod progress;
mod random;
mod signature;
#[cfg(test)]
mod tests;
mod workload;

use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use peristyle::ColumnFamilyDatabase;

use crate::memory_store::MemoryStore;
use crate::memory_used::MemoryUsed;
use crate::model::{BlockStore, Result, TokenStore};
use crate::peristyle_store::PeristyleStore;
use crate::progress::{Progress, count};
use crate::workload::{Outcome, Workload};

/// The store of a consensus node: fills it with tokens, commits blocks to it, and generates signatures from
/// it
#[derive(Parser)]
struct Arguments {
    /// What keeps the tokens and blocks
    #[arg(long, value_enum, default_value_t = Store::Peristyle)]
    store: Store,

    /// Where the database lies; by default it lies among the temporary files and is removed in the end
    #[arg(long, value_name = "PATH")]
    directory: Option<PathBuf>,

    #[command(flatten)]
    workload: Workload,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Store {
    /// Column families of a Peristyle database
    Peristyle,
    /// Sorted maps in memory
    Memory,
    /// One after the other, to see that they come to the same; the memory used is told best by a run of one
    /// alone
    Both,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let workload = &arguments.workload;
    let peristyle = match arguments.store {
        Store::Memory => None,
        Store::Peristyle | Store::Both => Some(run_peristyle(workload, arguments.directory.as_deref())?),
    };
    let memory = match arguments.store {
        Store::Peristyle => None,
        Store::Memory | Store::Both => Some(run_memory(workload)?),
    };
    if let (Some(peristyle), Some(memory)) = (peristyle, memory) {
        if peristyle != memory {
            return Err(format!("the stores differ: {peristyle:?} and {memory:?}").into());
        }
        println!("the signatures of both stores are equal");
    }
    Ok(())
}

fn run_peristyle(workload: &Workload, directory: Option<&Path>) -> Result<Outcome> {
    let temporary = tempfile::tempdir()?;
    let path = directory.unwrap_or(temporary.path());
    println!("Peristyle, in {}", path.display());
    let store = PeristyleStore::open(ColumnFamilyDatabase::builder(), path)?;
    let outcome = run(workload, &store)?;

    let cache = store.database().aggregate_cache_stats();
    let statistics = store.database().statistics();
    println!(
        "engine  {} of read cache, {} of memtables, {} of data file, {} of log",
        mebibytes(cache.resident_bytes),
        mebibytes(statistics.memtable_bytes),
        mebibytes(statistics.data_file_bytes),
        mebibytes(statistics.log.bytes_on_disk),
    );
    store.close()?;
    println!();
    Ok(outcome)
}

fn run_memory(workload: &Workload) -> Result<Outcome> {
    println!("Sorted maps in memory");
    let outcome = run(workload, &MemoryStore::default())?;
    println!();
    Ok(outcome)
}

fn run(workload: &Workload, store: &(impl TokenStore + BlockStore)) -> Result<Outcome> {
    let before = MemoryUsed::now();
    let outcome = workload.run(store, &Progress { silent: false })?;
    if let (Some(before), Some(after)) = (before, MemoryUsed::now()) {
        println!(
            "memory  {} resident, {} of them since the start, {} at the most",
            mebibytes(after.resident),
            mebibytes(after.resident.saturating_sub(before.resident)),
            mebibytes(after.peak),
        );
    }
    println!("sum     {:016x} over {} matches", outcome.checksum, count(outcome.matches));
    Ok(outcome)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", count(bytes >> 20))
}
