//! What comes out of a benchmark: tables on the standard output, JSON lines, and a page with plots.
//!
//! Start with [`Report`], which the other files draw from.

mod json_lines;
mod markdown;
mod page;
mod plot;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::comparison::Part;
use crate::measure::{Better, Figure, Measured};
use crate::peers::SUBJECT;

/// Everything that one benchmark found out.
pub struct Report {
    /// Name of the benchmark.
    pub bench: String,
    /// The machine, in one line.
    pub machine: String,
    /// The command line that gives these figures again.
    pub command: String,
    /// One comparison for each part of each case.
    pub comparisons: Vec<Comparison>,
    /// Engines that did not take part, and why.
    pub skipped: Vec<(String, String)>,
    /// Engines whose promise is not quite the one asked for, and in what.
    pub remarks: Vec<(String, String)>,
}

/// All engines on one workload.
pub struct Comparison {
    /// The workload.
    pub part: Part,
    /// The engines, in the order in which they took turns.
    pub engines: Vec<EngineRounds>,
    /// Engines that do not have what the workload needs, and why.
    pub absent: Vec<(String, String)>,
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

impl EngineRounds {
    /// The median of a metric over the rounds; `None` if no round yields it.
    pub fn median(&self, metric: &str) -> Option<f64> {
        median(self.rounds.iter().filter_map(|(_, round)| Some(round.figure(metric)?.value)).collect())
    }

    /// The median of a latency percentile over the rounds, in microseconds.
    pub fn latency(&self, percentile: f64) -> Option<f64> {
        let of_round = |round: &Measured| {
            let latencies = &round.latencies.as_ref()?.microseconds;
            latencies.iter().find(|(of, _)| *of == percentile).map(|(_, latency)| *latency)
        };
        median(self.rounds.iter().filter_map(|(_, round)| of_round(round)).collect())
    }

    /// The round whose first figure is the median one.
    pub fn median_round(&self) -> Option<&Measured> {
        let mut rounds: Vec<&Measured> = self.rounds.iter().map(|(_, round)| round).collect();
        let first = |round: &Measured| round.figures.first().map_or(0.0, |figure| figure.value);
        rounds.sort_by(|a, b| first(a).total_cmp(&first(b)));
        rounds.get(rounds.len() / 2).copied()
    }

    /// Name and version, as in "fjall 3.1.0", or what became of it.
    pub fn title(&self) -> String {
        match self.rounds.first() {
            Some((_, round)) => format!("{} {}", self.engine, round.version),
            None => format!("{} (failed)", self.engine),
        }
    }
}

impl Comparison {
    /// Every figure that any engine has, as the first such engine has it.
    pub fn figures(&self) -> Vec<&Figure> {
        let mut figures: Vec<&Figure> = Vec::new();
        for figure in
            self.engines.iter().filter_map(|it| it.rounds.first()).flat_map(|(_, round)| &round.figures)
        {
            if figures.iter().all(|known| known.metric != figure.metric) {
                figures.push(figure);
            }
        }
        figures
    }

    /// The figures that the workload is run for.
    pub fn headlines(&self) -> Vec<&Figure> {
        self.figures().into_iter().filter(|figure| figure.headline).collect()
    }

    /// The engine that the others are compared with, if it ran.
    pub fn subject(&self) -> Option<&EngineRounds> {
        self.engines.iter().find(|engine| engine.engine == SUBJECT && !engine.rounds.is_empty())
    }

    /// How many times as good as that of `peer` the subject's figure is.
    pub fn ratio(&self, figure: &Figure, peer: &EngineRounds) -> Option<f64> {
        let (subject, peer) = (self.subject()?.median(&figure.metric)?, peer.median(&figure.metric)?);
        let ratio = match figure.better {
            Better::Higher => subject / peer,
            Better::Lower => peer / subject,
        };
        ratio.is_finite().then_some(ratio)
    }

    /// Of the engines other than the subject whose name starts with `prefix`, the one with the best figure.
    pub fn best_peer(&self, figure: &Figure, prefix: &str) -> Option<&EngineRounds> {
        let peers = self.engines.iter();
        peers
            .filter(|engine| engine.engine != SUBJECT && engine.engine.starts_with(prefix))
            .filter_map(|engine| Some((engine, goodness(figure, engine.median(&figure.metric)?))))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(engine, _)| engine)
    }

    /// The subject's figure beside the best of the others.
    pub fn ratio_to_best(&self, figure: &Figure) -> Option<f64> {
        self.ratio(figure, self.best_peer(figure, "")?)
    }

    /// All engines read the same entries: those that did not are failures, whatever they measured.
    pub fn fail_those_who_read_something_else(&mut self) {
        let fingerprints = |engine: &EngineRounds| {
            engine.rounds.iter().filter_map(|(_, round)| round.fingerprint).collect::<Vec<_>>()
        };
        let mut counted: Vec<(u64, usize)> = Vec::new();
        for fingerprint in self.engines.iter().flat_map(fingerprints) {
            match counted.iter_mut().find(|(known, _)| *known == fingerprint) {
                Some((_, count)) => *count += 1,
                None => counted.push((fingerprint, 1)),
            }
        }
        let Some((right, _)) = counted.into_iter().max_by_key(|(_, count)| *count) else { return };
        for engine in &mut self.engines {
            if fingerprints(engine).iter().any(|fingerprint| *fingerprint != right) {
                engine.rounds.clear();
                engine.failures.push("it read other entries than most engines".into());
            }
        }
    }
}

/// Larger is better, whichever figure it is.
fn goodness(figure: &Figure, value: f64) -> f64 {
    match figure.better {
        Better::Higher => value,
        Better::Lower => -value,
    }
}

impl Report {
    /// Writes the JSON lines, the page and the Markdown into `directory`; returns their paths.
    pub fn write_files(&self, directory: &Path) -> Result<[PathBuf; 3]> {
        fs::create_dir_all(directory).with_context(|| format!("{} cannot be made", directory.display()))?;
        let lines = directory.join(format!("{}.jsonl", self.bench));
        fs::write(&lines, json_lines::render(self)?).with_context(|| lines.display().to_string())?;
        let page = directory.join(format!("{}.html", self.bench));
        fs::write(&page, page::render(self)?).with_context(|| page.display().to_string())?;
        let markdown = directory.join(format!("{}.md", self.bench));
        fs::write(&markdown, self.markdown()).with_context(|| markdown.display().to_string())?;
        Ok([lines, page, markdown])
    }

    /// The report as Markdown.
    pub fn markdown(&self) -> String {
        markdown::render(self)
    }

    /// Every headline of every comparison.
    fn headlines(&self) -> Vec<(&Comparison, &Figure)> {
        let of = |comparison| Comparison::headlines(comparison).into_iter().map(move |it| (comparison, it));
        self.comparisons.iter().flat_map(of).collect()
    }

    /// In how many headlines the subject has the best figure, those in which another has, and how many there
    /// are in all.
    fn standing(&self) -> (usize, Vec<String>, usize) {
        let (mut first, mut behind, mut total) = (0, Vec::new(), 0);
        for (comparison, figure) in self.headlines() {
            let Some(ratio) = comparison.ratio_to_best(figure) else { continue };
            total += 1;
            if ratio >= 1.0 {
                first += 1;
            } else {
                let peer = comparison.best_peer(figure, "").map_or("", |peer| &peer.engine);
                behind.push(format!("{} ({peer}: {:.2} times)", row_title(comparison, figure), 1.0 / ratio));
            }
        }
        (first, behind, total)
    }
}

/// Names a headline among those of all comparisons.
fn row_title(comparison: &Comparison, figure: &Figure) -> String {
    let Part { workload, durability, .. } = &comparison.part;
    format!("{workload}, {}: {}", figure.durability.unwrap_or(*durability), words(&figure.metric))
}

/// The name of a metric, for people.
fn words(metric: &str) -> String {
    metric.replace('_', " ")
}

/// How values of a unit are shown.
struct Shown {
    unit: &'static str,
    per: f64,
    digits: usize,
}

/// Bytes are shown as megabytes; rates and whatever else keep their unit, which is then empty here.
fn shown(unit: &str) -> Shown {
    let (unit, per, digits) = match unit {
        "B" => ("MB", 1e6, 1),
        "B/B" => ("bytes per byte", 1.0, 2),
        "ratio" => ("ratio", 1.0, 3),
        "s" => ("s", 1.0, 3),
        "ms" => ("ms", 1.0, 1),
        "us" => ("us", 1.0, 1),
        "ns" => ("ns", 1.0, 0),
        _ => ("", 1.0, 0),
    };
    Shown { unit, per, digits }
}

impl Figure {
    /// The name with the unit in which [`show`](Self::show) shows values.
    fn heading(&self) -> String {
        let Shown { unit, .. } = shown(&self.unit);
        format!("{}, {}", words(&self.metric), if unit.is_empty() { &self.unit } else { unit })
    }

    /// A value of this metric, without its unit.
    fn show(&self, value: Option<f64>) -> String {
        let Shown { per, digits, .. } = shown(&self.unit);
        let value = value.map(|value| value / per);
        // What is below 1 would otherwise be shown as nothing.
        let digits = if value.is_some_and(|value| value != 0.0 && value.abs() < 1.0) { 3 } else { digits };
        markdown::number(value, digits)
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
