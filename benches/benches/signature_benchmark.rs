//! Signatures, point reads, and blocks committed beside them, beside the peers.
//!
//! Run it with `benches/run signature_benchmark`.

use anyhow::{Result, ensure};
use clap::{Args, value_parser};
use peristyle_benches::child::{Place, Task};
use peristyle_benches::comparison::{Benchmark, Case, Part};
use peristyle_benches::engine::Durability;
use peristyle_benches::measure::Measured;
use peristyle_benches::workload::commit_block::{
    BLOCK_BYTES, CommitBlock, SIGNATURES_PER_BLOCK, TOKENS_PER_BLOCK,
};
use peristyle_benches::workload::signature::{
    KEY_BYTES, MATCH_IN, MATCHES, NEIGHBOURS, Signature, VALUE_BYTES,
};
use serde::{Deserialize, Serialize};

/// Stands for the signatures of all sizes that are not asked for by name.
const SIGNATURES: &str = "signature";
const COMMIT_BLOCK: &str = "commit_block";

/// Names of the sizes, the number of tokens, and whether they have to be asked for by name. Those are read
/// with limited memory.
const SIZES: [(&str, u64, bool); 3] = [
    ("signature-1m", 1_000_000, false),
    ("signature-10m", 10_000_000, false),
    ("signature-100m", 100_000_000, true),
];

const BENCHMARK: Benchmark = Benchmark {
    name: "signature_benchmark",
    about: "Point reads and long scans around random keys, alone and beside a writer: Peristyle beside its peers",
    workloads: &[SIGNATURES, SIZES[0].0, SIZES[1].0, SIZES[2].0, COMMIT_BLOCK],
    peers: &[],
    temporary: env!("CARGO_TARGET_TMPDIR"),
};

#[derive(Args)]
struct Options {
    /// Number of tokens, instead of those that the workloads define
    #[arg(long, value_parser = value_parser!(u64).range(5000..))]
    tokens: Option<u64>,

    /// Threads that read signatures beside the writer of blocks
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u16).range(1..=64))]
    readers: u16,

    /// Seconds of each phase of commit_block [default: 10, with --quick 0.3]
    #[arg(long)]
    seconds: Option<f64>,
}

/// What this benchmark has an engine do.
#[derive(Serialize, Deserialize)]
enum Work {
    /// Only the filling.
    Fill(Signature),
    Signature(Signature),
    CommitBlock(CommitBlock),
}

impl Task for Work {
    fn run(&self, place: &Place) -> Result<Vec<Measured>> {
        match self {
            Self::Fill(signature) => signature.fill(place).map(|()| Vec::new()),
            Self::Signature(signature) => {
                if signature.cache_bytes.is_some() {
                    let status = place.in_another_process(&Self::Fill(signature.clone()))?;
                    ensure!(status.success(), "the process that fills the database ended with {status}");
                    place.forget_cached_pages()?;
                }
                signature.run(place)
            }
            Self::CommitBlock(commit_block) => commit_block.run(place),
        }
    }
}

fn main() -> Result<()> {
    BENCHMARK.main(|comparison, options: &Options| {
        let quick = comparison.quick;
        let mut cases = Vec::new();
        let wanted = SIZES.iter().filter(|(name, _, by_name)| {
            comparison.wants_by_name(name) || (!by_name && comparison.wants(name, SIGNATURES))
        });
        let mut sizes: Vec<(u64, bool)> = wanted.map(|&(_, tokens, limited)| (tokens, limited)).collect();
        if let Some(tokens) = options.tokens.or(quick.then_some(50_000)) {
            sizes.iter_mut().for_each(|size| size.0 = tokens);
            sizes.dedup();
        }
        cases.extend(sizes.into_iter().map(|(tokens, limited)| {
            let (signatures, reads) = match (quick, limited) {
                (true, _) => (100, 20_000),
                (false, true) => (2_000, 100_000),
                (false, false) => (10_000, 1_000_000),
            };
            let data_bytes = tokens * (KEY_BYTES + VALUE_BYTES) as u64;
            signature_case(Signature {
                tokens,
                signatures,
                reads,
                cache_bytes: limited.then_some((data_bytes / 4).max(1 << 20)),
            })
        }));
        if comparison.wants(COMMIT_BLOCK, COMMIT_BLOCK) {
            let tokens = options.tokens.unwrap_or(if quick { 50_000 } else { 1_000_000 });
            let seconds = options.seconds.unwrap_or(if quick { 0.3 } else { 10.0 });
            ensure!(seconds > 0.0, "--seconds has to be above 0");
            let readers = options.readers.into();
            for durability in [Durability::Unsynced, Durability::Sync] {
                cases.push(commit_block_case(CommitBlock { tokens, readers, seconds, durability }));
            }
        }
        Ok(cases)
    })
}

fn disk_bytes(tokens: u64) -> u64 {
    tokens * (KEY_BYTES + VALUE_BYTES) as u64 * 4 + 2_000_000_000
}

fn signature_case(signature: Signature) -> Case<Work> {
    let tokens = signature.tokens;
    let limits = signature.cache_bytes.zip(signature.memory_bytes()).map(|(cache, memory)| {
        format!(
            " {} MiB of cache for engines that have one; all memory, the page cache included, is limited to {} MiB. Filled by \
             another process without these limits.",
            cache >> 20,
            memory >> 20
        )
    });
    let limited = if limits.is_some() { "-limited" } else { "" };
    let limits = limits.unwrap_or_default();
    let part = Part {
        workload: format!("{SIGNATURES}{limited}/{tokens}"),
        description: format!(
            "{tokens} tokens ({KEY_BYTES} B random key, {VALUE_BYTES} B value), one thread. A signature is one point read, then \
             {NEIGHBOURS} entries forward and {NEIGHBOURS} backward from the same key; until matches: until {MATCHES} are found \
             on each side, one of {MATCH_IN} being one. {} of each, then {} point reads. Read once from end to end before.{limits}",
            signature.signatures, signature.reads
        ),
        threads: 1,
        durability: Durability::Unsynced,
    };
    Case { parts: vec![part], disk_bytes: disk_bytes(tokens), task: Work::Signature(signature) }
}

fn commit_block_case(commit_block: CommitBlock) -> Case<Work> {
    let CommitBlock { tokens, readers, seconds, durability } = commit_block;
    let part = Part {
        workload: format!("{COMMIT_BLOCK}/{tokens}"),
        description: format!(
            "A block is one atomic batch over two families: {BLOCK_BYTES} B under a {KEY_BYTES} B key, and {TOKENS_PER_BLOCK} of \
             {tokens} tokens changed. {readers} reading thread(s) and one that writes, {seconds} s each: signatures alone; a block \
             after every {SIGNATURES_PER_BLOCK} signatures; blocks without a pause. Each signature takes a view of its own, and so \
             sees the blocks before it."
        ),
        threads: readers + 1,
        durability,
    };
    let of_blocks = (seconds * 1e9) as u64;
    Case {
        parts: vec![part],
        disk_bytes: disk_bytes(tokens) + of_blocks,
        task: Work::CommitBlock(commit_block),
    }
}
