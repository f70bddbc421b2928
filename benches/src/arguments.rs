//! The command line that all benchmarks share.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, value_parser};

use crate::peers::{self, Peer, SUBJECT};

/// The command line of a benchmark that has further options of its own.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments<Own: Args> {
    /// What the benchmark asks of itself.
    #[command(subcommand)]
    pub hidden: Option<Hidden>,

    /// Options of every comparison.
    #[command(flatten)]
    pub comparison: Comparison,

    /// Options of this benchmark.
    #[command(flatten)]
    pub own: Own,
}

/// What a benchmark asks of itself.
#[derive(Subcommand)]
pub enum Hidden {
    /// Runs one engine once
    #[command(hide = true)]
    RunOne {
        /// The order, as JSON
        order: String,
    },
}

/// Options of a comparison.
#[derive(Args, Clone, Debug)]
pub struct Comparison {
    /// A smoke test: one round with few entries, in seconds
    #[arg(long)]
    pub quick: bool,

    /// Peers to compare with, by name; all by default, or those that a benchmark names
    #[arg(long, value_delimiter = ',', value_name = "NAMES", value_parser = PossibleValuesParser::new(peer_names()))]
    pub peers: Vec<String>,

    /// Times that each engine runs each workload; the median counts [default: 3, with --quick 1]
    #[arg(long, value_parser = value_parser!(u32).range(1..=100))]
    pub rounds: Option<u32>,

    /// Workloads to run, by name; all by default
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub workload: Vec<String>,

    /// Seconds after which a run of one engine is given up
    #[arg(long, default_value_t = 3600, value_parser = value_parser!(u64).range(1..))]
    pub timeout: u64,

    /// Directory for the results and, while it runs, the databases [default: target/bench]
    #[arg(long, value_name = "DIRECTORY")]
    pub output: Option<PathBuf>,

    /// Passed by `cargo bench`; without effect
    #[arg(long, hide = true)]
    pub bench: bool,
}

impl Comparison {
    /// How often each engine runs each workload.
    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    /// How long a run of one engine may take.
    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// Whether a workload was asked for, by its name or by that of all, or because nothing else was.
    pub fn wants(&self, workload: &str, all: &str) -> bool {
        self.workload.is_empty() || self.wants_by_name(workload) || self.wants_by_name(all)
    }

    /// Whether a workload was asked for by its name.
    pub fn wants_by_name(&self, workload: &str) -> bool {
        self.workload.iter().any(|wanted| wanted == workload)
    }

    /// The engines that take part, the subject first: those that were asked for, or else the default ones, or
    /// else all.
    pub fn engines(&self, default: &[&str]) -> Vec<Peer> {
        let asked_for: Vec<&str> = self.peers.iter().map(String::as_str).collect();
        let wanted = if asked_for.is_empty() { default } else { &asked_for };
        let chosen = |peer: &Peer| {
            wanted.is_empty() || peer.name == SUBJECT || wanted.iter().any(|name| is_meant(name, peer.name))
        };
        peers::all().into_iter().filter(chosen).collect()
    }
}

/// No further options.
#[derive(Args, Clone, Copy, Debug)]
pub struct NoOptions {}

/// `rocksdb` means both of its configurations, since the better of the two counts.
fn is_meant(argument: &str, name: &str) -> bool {
    argument == name || (argument == "rocksdb" && name == "rocksdb-tuned")
}

fn peer_names() -> Vec<&'static str> {
    peers::all().into_iter().map(|peer| peer.name).collect()
}
