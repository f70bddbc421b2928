//! The README's table of figures, and the document with all tables: both from what one command's benchmarks
//! wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::measure::Better;
use crate::peers::SUBJECT;

/// Between these lines the README's table stands.
const BEGIN: &str = "<!-- figures: begin -->\n";
const END: &str = "<!-- figures: end -->\n";

/// Columns of the prose that is written.
const WIDTH: usize = 110;

/// One row of the README's table.
struct Row {
    title: &'static str,
    /// The beginning of the workload's name.
    workload: &'static str,
    durability: &'static str,
    threads: Option<u64>,
    metric: &'static str,
    better: Better,
}

const fn row(
    title: &'static str,
    workload: &'static str,
    durability: &'static str,
    metric: &'static str,
) -> Row {
    Row { title, workload, durability, threads: None, metric, better: Better::Lower }
}

impl Row {
    const fn higher(self) -> Self {
        Self { better: Better::Higher, ..self }
    }

    const fn by(self, threads: u64) -> Self {
        Self { threads: Some(threads), ..self }
    }
}

/// At most twelve.
const ROWS: [Row; 12] = [
    row("8 families, 8 writers, batches of 1000", "cf_comparison/integer-batches", "unsynced", "throughput")
        .higher(),
    row("the same, synced", "cf_comparison/integer-batches", "sync", "throughput").higher(),
    row("the same, one by one, random keys", "cf_comparison/random-singles", "unsynced", "throughput")
        .higher(),
    row("1000 synced commits of one entry", "table/", "sync", "sync_commits"),
    row("a million random reads", "table/", "unsynced", "random_reads"),
    row("size on disk after compaction", "table/", "unsynced", "size_after_compaction"),
    row("data 8 times the memory: load", "large/", "unsynced", "throughput").higher(),
    row("its longest wait of a single overwrite", "large/", "unsynced", "longest_stall"),
    row("point read, then 1000 entries each way", "signature/", "unsynced", "signature"),
    row("YCSB A, 8 threads", "mixed/ycsb-a", "unsynced", "throughput").higher().by(8),
    row("YCSB B, 8 threads", "mixed/ycsb-b", "unsynced", "throughput").higher().by(8),
    row("opening after a kill, 1 GB in the log", "recovery-killed/", "sync", "open"),
];

/// One figure of one round, as the benchmarks write it.
#[derive(Deserialize)]
struct Line {
    workload: String,
    engine: String,
    version: String,
    threads: u64,
    durability: String,
    metric: String,
    value: f64,
    unit: String,
}

/// Reads what the benchmarks wrote into `found`; writes the table of the `readme`, and all tables into
/// `results`.
pub fn write(found: &Path, readme: &Path, results: &Path) -> Result<()> {
    let (lines, reports) = read(found)?;
    let text = fs::read_to_string(readme).with_context(|| readme.display().to_string())?;
    let figures = format!("{}\n{}", table(&lines), circumstances(&lines, &reports));
    fs::write(readme, replaced(&text, &figures)?)?;
    let mut all = String::from(
        "# Results\n\nAll tables of one run of `benches/run --results`, on one state of the engine. Read ratios: absolute\n\
         figures are of the machine that is named.\n",
    );
    for report in reports {
        // One level down, below this document's title.
        let report = report.replace("\n#", "\n##");
        all.push_str("\n#");
        for line in report.trim_end().lines() {
            match line.starts_with(['|', '#']) {
                true => all.extend([line, "\n"]),
                false => all.push_str(&wrapped(line)),
            }
        }
    }
    fs::write(results, all).with_context(|| results.display().to_string())
}

/// All lines, and the reports as Markdown, in the order of their names.
fn read(found: &Path) -> Result<(Vec<Line>, Vec<String>)> {
    let mut paths: Vec<_> = fs::read_dir(found)
        .with_context(|| found.display().to_string())?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.sort();
    let (mut lines, mut reports) = (Vec::new(), Vec::new());
    for path in paths {
        let is = |extension: &str| path.extension().is_some_and(|is| is == extension);
        if is("jsonl") {
            let text = fs::read_to_string(&path)?;
            for line in text.lines() {
                lines.push(serde_json::from_str(line).with_context(|| path.display().to_string())?);
            }
        } else if is("md") {
            reports.push(fs::read_to_string(&path)?);
        }
    }
    ensure!(!lines.is_empty(), "{} holds no results of benchmarks", found.display());
    Ok((lines, reports))
}

/// `text` with `table` where the README's table stands.
fn replaced(text: &str, table: &str) -> Result<String> {
    let begin = text.find(BEGIN).context("the README has no place for figures")? + BEGIN.len();
    let end = text[begin..].find(END).context("the README's place for figures has no end")? + begin;
    Ok(format!("{}{table}{}", &text[..begin], &text[end..]))
}

fn table(lines: &[Line]) -> String {
    let mut text =
        String::from("| | Peristyle | RocksDB | best other | times as good |\n|---|---:|---:|---:|---:|\n");
    for row in &ROWS {
        let Some(cells) = cells(row, lines) else { continue };
        let _ = writeln!(text, "| {} | {} |", row.title, cells.join(" | "));
    }
    text
}

/// What ran, and on what.
fn circumstances(lines: &[Line], reports: &[String]) -> String {
    let versions: BTreeSet<String> =
        lines.iter().map(|line| format!("{} {}", line.engine, line.version)).collect();
    let versions: Vec<String> = versions.into_iter().collect();
    // The first report's third line.
    let machine = reports.first().and_then(|report| report.lines().nth(2)).unwrap_or("unknown machine");
    let rounds = rounds(lines);
    let rounds = if rounds == 1 { "One round".to_owned() } else { format!("Medians of {rounds} rounds") };
    wrapped(&format!("{rounds}, {machine}. {}.", versions.join(", ")))
}

/// How many rounds were measured: how often the first figure is there.
fn rounds(lines: &[Line]) -> usize {
    let key = |line: &Line| {
        let Line { workload, engine, threads, durability, metric, .. } = line;
        (workload.clone(), engine.clone(), *threads, durability.clone(), metric.clone())
    };
    let first = lines.first().map(key);
    lines.iter().filter(|line| Some(key(line)) == first).count()
}

/// `text` in lines of at most [`WIDTH`] columns.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n") + "\n"
}

/// What stands in a row behind its title; `None` if it was not measured.
fn cells(row: &Row, lines: &[Line]) -> Option<[String; 4]> {
    let mut rounds: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut unit = "";
    for line in lines {
        let is_meant = line.workload.starts_with(row.workload)
            && line.durability == row.durability
            && line.metric == row.metric
            && row.threads.is_none_or(|threads| threads == line.threads);
        if is_meant {
            rounds.entry(&line.engine).or_default().push(line.value);
            unit = &line.unit;
        }
    }
    let medians: BTreeMap<&str, f64> =
        rounds.into_iter().map(|(engine, values)| (engine, median(values))).collect();
    let best = |is_meant: &dyn Fn(&str) -> bool| {
        let meant = medians.iter().filter(|(engine, _)| is_meant(engine));
        meant.reduce(|a, b| if goodness(row, *b.1) > goodness(row, *a.1) { b } else { a })
    };
    let subject = *medians.get(SUBJECT)?;
    let is_rocksdb = |engine: &str| engine.starts_with("rocksdb");
    let rocksdb = best(&is_rocksdb);
    let other = best(&|engine| engine != SUBJECT && !is_rocksdb(engine));
    let strongest = best(&|engine| engine != SUBJECT);
    let ratio = strongest.map(|(_, value)| match row.better {
        Better::Higher => subject / value,
        Better::Lower => value / subject,
    });
    let none = || "-".to_owned();
    Some([
        shown(subject, unit),
        rocksdb.map_or_else(none, |(_, value)| shown(*value, unit)),
        other.map_or_else(none, |(engine, value)| format!("{engine} {}", shown(*value, unit))),
        ratio.map_or_else(
            none,
            |ratio| if ratio < 1.0 { format!("**{ratio:.2}**") } else { format!("{ratio:.1}") },
        ),
    ])
}

fn goodness(row: &Row, value: f64) -> f64 {
    match row.better {
        Better::Higher => value,
        Better::Lower => -value,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// A value for people.
fn shown(value: f64, unit: &str) -> String {
    match unit {
        "B" => format!("{:.1} MB", value / 1e6),
        rate if rate.ends_with("/s") && value >= 1e6 => format!("{:.2} M/s", value / 1e6),
        rate if rate.ends_with("/s") => format!("{:.0} K/s", value / 1e3),
        unit if value < 10.0 => format!("{value:.2} {unit}"),
        unit if value < 100.0 => format!("{value:.1} {unit}"),
        unit => format!("{value:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(engine: &str, value: f64) -> Line {
        Line {
            workload: "table/1000".into(),
            engine: engine.into(),
            version: "1".into(),
            threads: 1,
            durability: "sync".into(),
            metric: "sync_commits".into(),
            value,
            unit: "ms".into(),
        }
    }

    #[test]
    fn a_row_has_medians_the_better_rocksdb_and_the_strongest_of_the_others() {
        let mut lines: Vec<Line> = [1.0, 50.0, 60.0].map(|value| line(SUBJECT, value)).into();
        lines.extend([
            line("rocksdb", 80.0),
            line("rocksdb-tuned", 75.0),
            line("lmdb", 400.0),
            line("fjall", 40.0),
        ]);
        let text = table(&lines);
        assert!(text.ends_with("| 50.0 ms | 75.0 ms | fjall 40.0 ms | **0.80** |\n"), "{text}");
        assert_eq!(text.lines().count(), 3, "rows that were not measured are left out");
    }

    #[test]
    fn what_ran_is_wrapped_and_says_how_many_rounds() {
        let lines = [line("peristyle", 1.0), line("lmdb", 1.0), line("peristyle", 2.0)];
        let machine = "a machine with many words ".repeat(8);
        let text = circumstances(&lines, &[format!("# a\n\n{machine}\n")]);
        assert!(
            text.starts_with("Medians of 2 rounds, a machine") && text.ends_with("lmdb 1, peristyle 1.\n"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
    }

    #[test]
    fn the_table_takes_the_place_of_the_one_before() {
        let text = format!("before\n{BEGIN}old\n{END}after");
        assert_eq!(replaced(&text, "new\n").unwrap(), format!("before\n{BEGIN}new\n{END}after"));
        assert!(replaced("nothing", "new").is_err());
    }

    #[test]
    fn what_no_benchmark_wrote_is_an_error_and_what_one_wrote_is_all_there() {
        let directory = tempfile::tempdir().unwrap();
        let (readme, results) = (directory.path().join("README"), directory.path().join("RESULTS"));
        fs::write(&readme, format!("{BEGIN}{END}")).unwrap();
        assert!(write(directory.path(), &readme, &results).is_err());
        fs::write(directory.path().join("a.md"), "# a\n\n## b\n").unwrap();
        let figure = r#"{"workload":"table/1","engine":"peristyle","version":"1","threads":1,"durability":"sync","metric":"sync_commits","value":1.0,"unit":"ms"}"#;
        fs::write(directory.path().join("a.jsonl"), figure).unwrap();
        write(directory.path(), &readme, &results).unwrap();
        assert!(
            fs::read_to_string(&readme)
                .unwrap()
                .contains("| 1000 synced commits of one entry | 1.00 ms | - | - | - |")
        );
        assert!(fs::read_to_string(&results).unwrap().ends_with("\n## a\n\n### b\n"));
    }
}
