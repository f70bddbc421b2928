//! Writes what the benchmarks found into the README's table and into `benches/RESULTS.md`; see
//! `benches/run --results`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use peristyle_benches::results;

/// Writes what the benchmarks found into the README's table and into RESULTS.md.
#[derive(Parser)]
struct Arguments {
    /// Directory with what the benchmarks wrote.
    found: PathBuf,
    /// The README.
    #[arg(long, default_value = "README.md")]
    readme: PathBuf,
    /// Where all tables go.
    #[arg(long, default_value = "benches/RESULTS.md")]
    results: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    results::write(&arguments.found, &arguments.readme, &arguments.results)
}
