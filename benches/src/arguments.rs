//! The command line that all benchmarks share.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, value_parser};

use crate::engine::Durability;
use crate::peers::{self, Peer, SUBJECT};

/// Options of a comparison.
#[derive(Args, Clone, Debug)]
pub struct Comparison {
    /// A smoke test: one round with few entries, in seconds
    #[arg(long)]
    pub quick: bool,

    /// Peers to compare with, by name; all by default
    #[arg(long, value_delimiter = ',', value_name = "NAMES", value_parser = PossibleValuesParser::new(peer_names()))]
    pub peers: Vec<String>,

    /// Times that each engine runs each workload; the median counts [default: 3, with --quick 1]
    #[arg(long, value_parser = value_parser!(u32).range(1..=100))]
    pub rounds: Option<u32>,

    /// Only this durability; both by default
    #[arg(long, value_enum)]
    pub durability: Option<Durability>,

    /// Number of column families, each with a thread that writes to it
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u16).range(1..=256))]
    pub families: u16,

    /// Entries for each family, instead of those that the workload defines
    #[arg(long, value_parser = value_parser!(u64).range(1..))]
    pub entries: Option<u64>,

    /// Seconds after which a run of one engine is given up
    #[arg(long, default_value_t = 900, value_parser = value_parser!(u64).range(1..))]
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

    /// The engines that take part, the subject first.
    pub fn engines(&self) -> Vec<Peer> {
        let chosen = |peer: &Peer| {
            self.peers.is_empty()
                || peer.name == SUBJECT
                || self.peers.iter().any(|name| is_meant(name, peer.name))
        };
        peers::all().into_iter().filter(chosen).collect()
    }
}

/// `rocksdb` means both of its configurations, since the better of the two counts.
fn is_meant(argument: &str, name: &str) -> bool {
    argument == name || (argument == "rocksdb" && name == "rocksdb-tuned")
}

fn peer_names() -> Vec<&'static str> {
    peers::all().into_iter().map(|peer| peer.name).collect()
}
