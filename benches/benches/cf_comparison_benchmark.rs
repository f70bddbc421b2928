//! Writes to 8 column families from 8 threads, beside the peers.
//!
//! Run it with `benches/run cf_comparison_benchmark`, or, where the peers' libraries are in place, with
//! `cargo bench -p peristyle-benches --bench cf_comparison_benchmark`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use peristyle_benches::arguments;
use peristyle_benches::child;
use peristyle_benches::engine::{Durability, Setup};
use peristyle_benches::machine;
use peristyle_benches::peers::Peer;
use peristyle_benches::report::{Comparison, EngineRounds, Report};
use peristyle_benches::workload::{Keys, VALUE_BYTES, WritePhase};

const BENCH: &str = "cf_comparison_benchmark";

/// Column families written to by one thread each: Peristyle beside its peers
#[derive(Parser)]
#[command(name = BENCH, bin_name = BENCH, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    hidden: Option<Hidden>,

    #[command(flatten)]
    comparison: arguments::Comparison,

    /// Workloads to run, by name; all by default
    #[arg(long, value_delimiter = ',', value_name = "NAMES", value_parser = PossibleValuesParser::new(workload_names()))]
    workload: Vec<String>,
}

#[derive(Subcommand)]
enum Hidden {
    /// Runs one engine once
    #[command(hide = true)]
    RunOne {
        /// The order, as JSON
        order: String,
    },
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

/// Stands for all workloads on the command line.
const ALL: &str = "cf_comparison";

fn workload_names() -> Vec<&'static str> {
    std::iter::once(ALL).chain(WORKLOADS.iter().map(|workload| workload.name)).collect()
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.hidden {
        Some(Hidden::RunOne { order }) => child::obey(order),
        None => compare(&arguments),
    }
}

fn compare(arguments: &Arguments) -> Result<()> {
    let output = arguments.comparison.output.clone().unwrap_or_else(default_output);
    std::fs::create_dir_all(&output).with_context(|| format!("{} cannot be made", output.display()))?;
    let output = output.canonicalize()?;
    let scratch = output.join(format!("{BENCH}.databases"));
    // What a run that was interrupted has left would take up the disk for ever.
    if scratch.exists() {
        std::fs::remove_dir_all(&scratch)?;
    }
    std::fs::create_dir(&scratch)?;

    let (engines, skipped): (Vec<Peer>, Vec<Peer>) =
        arguments.comparison.engines().into_iter().partition(|engine| engine.skipped().is_none());
    let phases = phases(arguments);
    let rounds = arguments.comparison.rounds();
    let bar = progress_bar(phases.len() as u64 * u64::from(rounds) * engines.len() as u64);
    let limit = Duration::from_secs(arguments.comparison.timeout);

    let mut comparisons = Vec::new();
    for (name, phase) in phases {
        let mut comparison = empty_comparison(name, &phase, &engines);
        for round in 1..=rounds {
            for engine in &mut comparison.engines {
                bar.set_message(format!(
                    "{}, {}: {}",
                    comparison.workload, comparison.durability, engine.engine
                ));
                match child::run(&engine.engine, &phase, &scratch, limit) {
                    Ok(measured) => engine.rounds.push((round, measured)),
                    Err(error) => {
                        bar.suspend(|| eprintln!("{} failed: {error:#}", engine.engine));
                        engine.failures.push(format!("{error:#}"));
                    }
                }
                bar.inc(1);
            }
        }
        comparisons.push(comparison);
    }
    bar.finish_and_clear();

    let failed = comparisons.iter().flat_map(|it| &it.engines).any(|engine| !engine.failures.is_empty());
    let named = |engines: &[Peer], what: fn(&Peer) -> Option<String>| {
        engines.iter().filter_map(|engine| Some((engine.name.to_owned(), what(engine)?))).collect()
    };
    let report = Report {
        bench: BENCH.into(),
        machine: machine::description(&scratch),
        command: command(),
        comparisons,
        skipped: named(&skipped, Peer::skipped),
        remarks: named(&engines, |engine| (!engine.remark.is_empty()).then(|| engine.remark.to_owned())),
    };
    std::fs::remove_dir_all(&scratch)?;
    println!("{}", report.markdown());
    for path in report.write_files(&output)? {
        println!("Written: {}", path.display());
    }
    anyhow::ensure!(!failed, "not all engines came through, see above");
    Ok(())
}

/// The chosen workloads in all their sizes and durabilities.
fn phases(arguments: &Arguments) -> Vec<(&'static str, WritePhase)> {
    let chosen = |name: &str| {
        arguments.workload.is_empty()
            || arguments.workload.iter().any(|wanted| wanted == name || wanted == ALL)
    };
    let mut phases = Vec::new();
    for workload in WORKLOADS.iter().filter(|workload| chosen(workload.name)) {
        let sizes = [(Durability::Unsynced, workload.unsynced), (Durability::Sync, workload.sync)];
        for ((durability, defined), quick) in sizes.into_iter().zip(workload.quick) {
            if arguments.comparison.durability.is_some_and(|wanted| wanted != durability) {
                continue;
            }
            let sizes = match arguments.comparison.entries {
                Some(entries) => vec![entries],
                None if arguments.comparison.quick => vec![quick],
                None => defined.to_vec(),
            };
            phases.extend(sizes.into_iter().map(|entries_per_family| {
                let setup = Setup::new(arguments.comparison.families.into(), durability);
                (
                    workload.name,
                    WritePhase { setup, keys: workload.keys, entries_per_family, batch: workload.batch },
                )
            }));
        }
    }
    phases
}

fn empty_comparison(name: &str, phase: &WritePhase, engines: &[Peer]) -> Comparison {
    let families = phase.setup.families;
    let keys = match phase.keys {
        Keys::Integer => "8-byte little-endian integer keys",
        Keys::Random => "16-byte random keys",
    };
    let portions =
        if phase.batch == 1 { "one by one".into() } else { format!("in batches of {}", phase.batch) };
    Comparison {
        workload: format!("{ALL}/{name}/{families}x{}", phase.entries_per_family),
        description: format!(
            "{families} families, a writing thread for each, {} entries each, {keys}, {VALUE_BYTES}-byte values, {portions}.",
            phase.entries_per_family
        ),
        threads: families,
        durability: phase.setup.durability,
        engines: engines
            .iter()
            .map(|engine| EngineRounds {
                engine: engine.name.into(),
                rounds: Vec::new(),
                failures: Vec::new(),
            })
            .collect(),
    }
}

/// `bench` in cargo's target directory, wherever that is.
fn default_output() -> PathBuf {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    temporary.parent().unwrap_or(temporary).join("bench")
}

/// The command that was given, as a user would give it.
fn command() -> String {
    let passed = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let mut command = format!("cargo bench -p peristyle-benches --bench {BENCH} --");
    for argument in passed {
        command.push(' ');
        command += &argument;
    }
    command
}

fn progress_bar(runs: u64) -> ProgressBar {
    let bar = ProgressBar::new(runs);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} runs, {elapsed}, {eta} left: {msg}")
    {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
