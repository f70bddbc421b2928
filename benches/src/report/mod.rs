//! What comes out of a comparison: a table on the standard output, JSON lines, and a page with plots.
//!
//! Start with [`Report`], which the other files draw from.

mod json_lines;
mod markdown;
mod page;
mod plot;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::engine::Durability;
use crate::peers::SUBJECT;
use crate::workload::Measured;

/// Everything that one benchmark found out.
pub struct Report {
    /// Name of the benchmark.
    pub bench: String,
    /// The machine, in one line.
    pub machine: String,
    /// The command line that gives these figures again.
    pub command: String,
    /// One comparison for each workload, size and durability.
    pub comparisons: Vec<Comparison>,
    /// Engines that did not take part, and why.
    pub skipped: Vec<(String, String)>,
    /// Engines whose promise is not quite the one asked for, and in what.
    pub remarks: Vec<(String, String)>,
}

/// All engines on one workload.
pub struct Comparison {
    /// Name of the workload, size included.
    pub workload: String,
    /// What is written, in words.
    pub description: String,
    /// Number of writing threads.
    pub threads: usize,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// The engines, in the order in which they took turns.
    pub engines: Vec<EngineRounds>,
}

/// All rounds of one engine on one workload.
pub struct EngineRounds {
    /// Name of the engine.
    pub engine: String,
    /// The rounds that succeeded, with their numbers from 1.
    pub rounds: Vec<(u32, Measured)>,
    /// Why other rounds failed.
    pub failures: Vec<String>,
}

/// A figure that a round yields.
pub struct Metric {
    /// Name in the JSON lines.
    pub name: &'static str,
    /// Unit in the JSON lines.
    pub unit: &'static str,
    /// Takes it from what was measured.
    pub value: fn(&Measured) -> f64,
}

/// Entries acknowledged in a second.
pub const THROUGHPUT: Metric = Metric {
    name: "throughput",
    unit: "entries/s",
    value: |round| round.entries as f64 / round.write_seconds,
};
/// Entries in a second, counted until the engine was quiet.
pub const THROUGHPUT_UNTIL_QUIET: Metric = Metric {
    name: "throughput_until_quiet",
    unit: "entries/s",
    value: |round| round.entries as f64 / (round.write_seconds + round.quiet_seconds),
};
/// Time from the last acknowledgement until the engine was quiet.
pub const TIME_UNTIL_QUIET: Metric =
    Metric { name: "time_until_quiet", unit: "s", value: |round| round.quiet_seconds };
/// CPU time until quiet.
pub const CPU: Metric = Metric { name: "cpu_time", unit: "s", value: |round| round.cpu_seconds };
/// Bytes written to the disk until quiet.
pub const BYTES_WRITTEN: Metric =
    Metric { name: "bytes_written", unit: "B", value: |round| round.written_bytes as f64 };
/// Bytes on the disk when quiet.
pub const DISK: Metric = Metric { name: "size_on_disk", unit: "B", value: |round| round.disk_bytes as f64 };
/// Peak memory of the process.
pub const MEMORY: Metric =
    Metric { name: "peak_memory", unit: "B", value: |round| round.peak_memory_bytes as f64 };

/// The metrics that are written to the JSON lines, latencies aside.
pub const METRICS: [Metric; 7] =
    [THROUGHPUT, THROUGHPUT_UNTIL_QUIET, TIME_UNTIL_QUIET, CPU, BYTES_WRITTEN, DISK, MEMORY];

impl EngineRounds {
    /// The median of a metric over the rounds; `None` if no round succeeded.
    pub fn median(&self, metric: &Metric) -> Option<f64> {
        median(self.rounds.iter().map(|(_, round)| (metric.value)(round)).collect())
    }

    /// The median of a latency percentile over the rounds, in microseconds.
    pub fn latency(&self, percentile: f64) -> Option<f64> {
        let of_round = |round: &Measured| {
            round.latency_microseconds.iter().find(|(of, _)| *of == percentile).map(|(_, latency)| *latency)
        };
        median(self.rounds.iter().filter_map(|(_, round)| of_round(round)).collect())
    }

    /// The round whose throughput is the median one.
    pub fn median_round(&self) -> Option<&Measured> {
        let mut rounds: Vec<&Measured> = self.rounds.iter().map(|(_, round)| round).collect();
        rounds.sort_by(|a, b| (THROUGHPUT.value)(a).total_cmp(&(THROUGHPUT.value)(b)));
        rounds.get(rounds.len() / 2).copied()
    }

    /// Name and version, as in "fjall 3.1.0".
    pub fn title(&self) -> String {
        match self.rounds.first() {
            Some((_, round)) => format!("{} {}", self.engine, round.version),
            None => self.engine.clone(),
        }
    }
}

impl Comparison {
    /// The engine that the others are compared with, if it ran.
    pub fn subject(&self) -> Option<&EngineRounds> {
        self.engines.iter().find(|engine| engine.engine == SUBJECT && !engine.rounds.is_empty())
    }

    /// How many times as many entries per second the subject writes as `peer`.
    pub fn ratio(&self, peer: &EngineRounds) -> Option<f64> {
        Some(self.subject()?.median(&THROUGHPUT)? / peer.median(&THROUGHPUT)?)
    }

    /// The fastest of the engines other than the subject whose name starts with `prefix`.
    pub fn best_peer(&self, prefix: &str) -> Option<&EngineRounds> {
        self.engines
            .iter()
            .filter(|engine| engine.engine != SUBJECT && engine.engine.starts_with(prefix))
            .filter_map(|engine| Some((engine, engine.median(&THROUGHPUT)?)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(engine, _)| engine)
    }
}

impl Report {
    /// Writes the JSON lines and the page into `directory`; returns their paths.
    pub fn write_files(&self, directory: &Path) -> Result<[PathBuf; 2]> {
        fs::create_dir_all(directory).with_context(|| format!("{} cannot be made", directory.display()))?;
        let lines = directory.join(format!("{}.jsonl", self.bench));
        fs::write(&lines, json_lines::render(self)?).with_context(|| lines.display().to_string())?;
        let page = directory.join(format!("{}.html", self.bench));
        fs::write(&page, page::render(self)?).with_context(|| page.display().to_string())?;
        Ok([lines, page])
    }

    /// The report as Markdown.
    pub fn markdown(&self) -> String {
        markdown::render(self)
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::PERCENTILES;

    fn rounds(engine: &str, seconds: &[f64]) -> EngineRounds {
        let round = |seconds: f64| Measured {
            version: "1.0.0".into(),
            entries: 1000,
            write_seconds: seconds,
            quiet_seconds: 0.5,
            cpu_seconds: 1.0,
            written_bytes: 1_000_000,
            disk_bytes: 500_000,
            peak_memory_bytes: 2_000_000,
            latency_microseconds: PERCENTILES.iter().map(|&percentile| (percentile, percentile)).collect(),
            progress: vec![(0.0, 0), (seconds, 1000)],
        };
        let rounds = (1..).zip(seconds.iter().copied().map(round)).collect();
        EngineRounds { engine: engine.into(), rounds, failures: Vec::new() }
    }

    fn report() -> Report {
        let engines = vec![
            rounds(SUBJECT, &[1.0, 9.0, 1.0]),
            rounds("rocksdb", &[4.0, 4.0, 0.1]),
            rounds("rocksdb-tuned", &[3.0]),
            rounds("lmdb", &[2.0]),
            EngineRounds { failures: vec!["no <disk>".into()], ..rounds("redb", &[]) },
        ];
        let comparison = Comparison {
            workload: "made up".into(),
            description: "Nothing.".into(),
            threads: 8,
            durability: Durability::Sync,
            engines,
        };
        Report {
            bench: "test".into(),
            machine: "none".into(),
            command: "none".into(),
            comparisons: vec![comparison],
            skipped: vec![("sled".into(), "not compiled in".into())],
            remarks: Vec::new(),
        }
    }

    #[test]
    fn medians_are_compared_with_the_better_rocksdb_and_the_best_peer() {
        let markdown = report().markdown();
        assert!(markdown.contains("The fastest peer is lmdb: peristyle writes 2.00 times"), "{markdown}");
        assert!(
            markdown.contains("RocksDB's better configuration is rocksdb-tuned: 3.00 times"),
            "{markdown}"
        );
        assert!(markdown.contains("redb failed: no <disk>"), "{markdown}");
        assert!(markdown.contains("sled: skipped: not compiled in"), "{markdown}");
    }

    #[test]
    fn every_figure_of_every_round_is_a_line_of_json() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let [lines, page] = report().write_files(directory.path())?;
        let lines = fs::read_to_string(lines)?;
        assert_eq!(lines.lines().count(), (3 + 3 + 1 + 1) * (METRICS.len() + PERCENTILES.len()));
        for line in lines.lines() {
            let line: serde_json::Value = serde_json::from_str(line)?;
            assert_eq!(line["durability"], "sync");
            assert!(line["value"].is_number());
        }
        let page = fs::read_to_string(page)?;
        assert!(page.contains("Throughput ratios") && page.contains("no &lt;disk&gt;"));
        Ok(())
    }

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }
}
