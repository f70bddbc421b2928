//! Lets the engines take turns on the cases of a benchmark, and reports.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::builder::PossibleValuesParser;
use clap::{Args, CommandFactory, FromArgMatches};
use indicatif::{ProgressBar, ProgressStyle};

use crate::arguments::{self, Arguments, Hidden};
use crate::child::{self, Task};
use crate::engine::{Durability, Feature};
use crate::machine;
use crate::measure::Measured;
use crate::peers::Peer;
use crate::report::{Comparison, EngineRounds, Report};
use crate::usage::free_bytes;

/// A benchmark: a command with workloads.
pub struct Benchmark {
    /// Its name, which is that of the command.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub about: &'static str,
    /// Names that `--workload` takes.
    pub workloads: &'static [&'static str],
    /// Peers that take part where `--peers` names none; empty for all.
    pub peers: &'static [&'static str],
    /// `CARGO_TARGET_TMPDIR`, which only the benchmark itself is told.
    pub temporary: &'static str,
}

/// What every engine does in one run, and how the measurements it returns are called.
pub struct Case<T> {
    /// What to do.
    pub task: T,
    /// One for each measurement that the task returns, in the same order.
    pub parts: Vec<Part>,
    /// Space on the disk that an engine may need for it, in bytes.
    pub disk_bytes: u64,
}

/// A part of a case: engines are compared on each by itself.
#[derive(Clone, Debug)]
pub struct Part {
    /// Name of the workload, size included.
    pub workload: String,
    /// What is done, in words.
    pub description: String,
    /// Number of threads that write or read.
    pub threads: usize,
    /// What an acknowledged write survives.
    pub durability: Durability,
}

impl Benchmark {
    /// The whole program: reads the command line, runs the cases that it asks for, prints and writes the
    /// report.
    pub fn main<Own: Args, T: Task>(
        &self,
        cases: impl FnOnce(&arguments::Comparison, &Own) -> Result<Vec<Case<T>>>,
    ) -> Result<()> {
        let names = PossibleValuesParser::new(self.workloads);
        let command = Arguments::<Own>::command()
            .name(self.name)
            .bin_name(self.name)
            .about(self.about)
            .mut_arg("workload", |argument| argument.value_parser(names));
        let arguments = Arguments::<Own>::from_arg_matches(&command.get_matches())?;
        match &arguments.hidden {
            Some(Hidden::RunOne { order }) => child::obey::<T>(order),
            None => {
                let cases = cases(&arguments.comparison, &arguments.own)?;
                self.compare(&arguments.comparison, cases)
            }
        }
    }

    fn compare<T: Task>(&self, options: &arguments::Comparison, cases: Vec<Case<T>>) -> Result<()> {
        ensure!(!cases.is_empty(), "nothing of {} is asked for", self.name);
        let output = options.output.clone().unwrap_or_else(|| self.default_output());
        let scratch = prepare(&output, self.name)?;
        let output = output.canonicalize()?;
        check_space(&cases, &scratch)?;

        let (engines, skipped): (Vec<Peer>, Vec<Peer>) =
            options.engines(self.peers).into_iter().partition(|engine| engine.skipped().is_none());
        let named = |engines: &[Peer], what: fn(&Peer) -> Option<String>| {
            engines.iter().filter_map(|engine| Some((engine.name.to_owned(), what(engine)?))).collect()
        };
        let mut report = Report {
            bench: self.name.into(),
            machine: machine::description(&scratch),
            command: self.command(),
            comparisons: Vec::new(),
            skipped: named(&skipped, Peer::skipped),
            remarks: named(&engines, |engine| (!engine.remark.is_empty()).then(|| engine.remark.to_owned())),
        };

        let rounds = options.rounds();
        let bar = progress_bar(cases.len() as u64 * u64::from(rounds) * engines.len() as u64);
        for case in &cases {
            let (engines, absent) = who_can(&case.task.needs(), &engines);
            let mut comparisons: Vec<Comparison> =
                case.parts.iter().map(|part| empty(part, &engines, &absent)).collect();
            for round in 1..=rounds {
                for (position, engine) in engines.iter().enumerate() {
                    let title = format!("{}: {}", case.title(), engine.name);
                    bar.set_message(title.clone());
                    let told = |step: &str| bar.set_message(format!("{title}: {step}"));
                    let outcome = child::run(engine.name, &case.task, &scratch, options.limit(), told)
                        .and_then(|parts| case.check(parts));
                    if let Err(error) = &outcome {
                        bar.suspend(|| eprintln!("{} failed: {error:#}", engine.name));
                    }
                    record(&mut comparisons, position, round, outcome);
                    bar.inc(1);
                }
                bar.inc(absent.len() as u64);
            }
            comparisons.iter_mut().for_each(Comparison::fail_those_who_read_something_else);
            report.comparisons.extend(comparisons);
            // What is known is worth keeping, should a later case never end.
            report.write_files(&output)?;
        }
        bar.finish_and_clear();
        std::fs::remove_dir_all(&scratch)?;

        println!("{}", report.markdown());
        for path in report.write_files(&output)? {
            println!("Written: {}", path.display());
        }
        let failed =
            report.comparisons.iter().flat_map(|it| &it.engines).any(|engine| !engine.failures.is_empty());
        ensure!(!failed, "not all engines came through, see above");
        Ok(())
    }

    /// `bench` in cargo's target directory, wherever that is.
    fn default_output(&self) -> PathBuf {
        let temporary = Path::new(self.temporary);
        temporary.parent().unwrap_or(temporary).join("bench")
    }

    /// The command that was given, as a user would give it: without the place of its results.
    fn command(&self) -> String {
        let mut command = format!("benches/run {}", self.name);
        let mut passed = std::env::args().skip(1);
        while let Some(argument) = passed.next() {
            match argument.as_str() {
                "--output" => drop(passed.next()),
                "--bench" => {}
                other if other.starts_with("--output=") => {}
                other => {
                    command.push(' ');
                    command += other;
                }
            }
        }
        command
    }
}

impl<T> Case<T> {
    fn title(&self) -> &str {
        self.parts.first().map_or("", |part| &part.workload)
    }

    fn check(&self, measured: Vec<Measured>) -> Result<Vec<Measured>> {
        let (found, expected) = (measured.len(), self.parts.len());
        ensure!(found == expected, "{found} measurements instead of {expected}");
        Ok(measured)
    }
}

/// Makes the directory for the results, and in it an empty one for the databases.
fn prepare(output: &Path, bench: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(output).with_context(|| format!("{} cannot be made", output.display()))?;
    let scratch = output.canonicalize()?.join(format!("{bench}.databases"));
    // What a run that was interrupted has left would take up the disk for ever.
    if scratch.exists() {
        std::fs::remove_dir_all(&scratch)?;
    }
    std::fs::create_dir(&scratch)?;
    Ok(scratch)
}

fn check_space<T>(cases: &[Case<T>], scratch: &Path) -> Result<()> {
    let free = free_bytes(scratch)?;
    for case in cases {
        ensure!(
            case.disk_bytes <= free,
            "{} may need {} GB on the disk of {}, which has {} GB free: leave it out, make it smaller, or choose \
             another disk with --output",
            case.title(),
            case.disk_bytes.div_ceil(1_000_000_000),
            scratch.display(),
            free / 1_000_000_000,
        );
    }
    Ok(())
}

/// The engines that have all that is needed, and the names of the others, each with the reason.
fn who_can(needs: &[Feature], engines: &[Peer]) -> (Vec<Peer>, Vec<(String, String)>) {
    let absent = engines.iter().filter_map(|peer| Some((peer.name.into(), peer.lacks_one_of(needs)?.into())));
    let able = engines.iter().copied().filter(|peer| peer.lacks_one_of(needs).is_none());
    (able.collect(), absent.collect())
}

fn empty(part: &Part, engines: &[Peer], absent: &[(String, String)]) -> Comparison {
    Comparison {
        part: part.clone(),
        absent: absent.to_vec(),
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

/// Hands each part of a run its measurement, or all parts the failure.
fn record(comparisons: &mut [Comparison], engine: usize, round: u32, outcome: Result<Vec<Measured>>) {
    match outcome {
        Ok(measured) => {
            for (comparison, measured) in comparisons.iter_mut().zip(measured) {
                comparison.engines[engine].rounds.push((round, measured));
            }
        }
        Err(error) => {
            for comparison in comparisons {
                comparison.engines[engine].failures.push(format!("{error:#}"));
            }
        }
    }
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
