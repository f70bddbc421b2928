//! The report as Markdown tables, aligned so that they can be read as they are.

use std::fmt::Write;

use super::{
    BYTES_WRITTEN, CPU, Comparison, DISK, EngineRounds, MEMORY, Metric, Report, THROUGHPUT,
    THROUGHPUT_UNTIL_QUIET, TIME_UNTIL_QUIET,
};
use crate::peers::SUBJECT;

const HEADINGS: [&str; 12] = [
    "engine",
    "entries/s",
    "peristyle / it",
    "quiet after, s",
    "entries/s until quiet",
    "CPU, s",
    "written, MB",
    "on disk, MB",
    "peak memory, MB",
    "p50, us",
    "p99, us",
    "p99.9, us",
];

/// The whole report.
pub(super) fn render(report: &Report) -> String {
    let mut text = format!("# {}\n\n{}\n\n`{}`\n", report.bench, report.machine, report.command);
    for comparison in &report.comparisons {
        let _ = write!(text, "\n## {}, {}\n\n", comparison.workload, comparison.durability);
        let _ = writeln!(text, "{}\n", comparison.description);
        text += &table(comparison);
        text += &summary(comparison);
    }
    let mut notes = String::new();
    for (engine, reason) in &report.skipped {
        let _ = writeln!(notes, "- {engine}: skipped: {reason}");
    }
    for (engine, remark) in &report.remarks {
        let _ = writeln!(notes, "- {engine}: {remark}");
    }
    if !notes.is_empty() {
        text += "\n## Notes\n\n";
        text += &notes;
    }
    text
}

/// The rows of a comparison's table, the headings first.
pub(super) fn rows(comparison: &Comparison) -> Vec<[String; 12]> {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(comparison.engines.iter().map(|engine| row(comparison, engine)));
    rows
}

fn table(comparison: &Comparison) -> String {
    let rows = rows(comparison);
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let _ = if column == 0 {
                write!(text, "| {cell:<width$} ")
            } else {
                write!(text, "| {cell:>width$} ")
            };
        }
        text += "|\n";
        if number == 0 {
            for (column, &width) in widths.iter().enumerate() {
                let _ = write!(text, "|{}{}", "-".repeat(width + 1), if column == 0 { '-' } else { ':' });
            }
            text += "|\n";
        }
    }
    text
}

fn row(comparison: &Comparison, engine: &EngineRounds) -> [String; 12] {
    let shown =
        |metric: &Metric, unit: f64, digits: usize| number(engine.median(metric).map(|it| it / unit), digits);
    let ratio = if engine.engine == SUBJECT { None } else { comparison.ratio(engine) };
    [
        if engine.rounds.is_empty() { format!("{} (failed)", engine.engine) } else { engine.title() },
        shown(&THROUGHPUT, 1.0, 0),
        number(ratio, 2),
        shown(&TIME_UNTIL_QUIET, 1.0, 3),
        shown(&THROUGHPUT_UNTIL_QUIET, 1.0, 0),
        shown(&CPU, 1.0, 2),
        shown(&BYTES_WRITTEN, 1e6, 1),
        shown(&DISK, 1e6, 1),
        shown(&MEMORY, 1e6, 1),
        number(engine.latency(50.0), 1),
        number(engine.latency(99.0), 1),
        number(engine.latency(99.9), 1),
    ]
}

/// A line on the ratios that count, and one for each failed round.
fn summary(comparison: &Comparison) -> String {
    let mut text = String::new();
    let ratio = |prefix| {
        let peer = comparison.best_peer(prefix)?;
        Some((peer.engine.as_str(), comparison.ratio(peer)?))
    };
    if let Some((peer, ratio)) = ratio("") {
        let _ = write!(
            text,
            "\nThe fastest peer is {peer}: peristyle writes {ratio:.2} times as many entries per second."
        );
    }
    if let Some((peer, ratio)) = ratio("rocksdb") {
        let _ = write!(text, " RocksDB's better configuration is {peer}: {ratio:.2} times.");
    }
    if !text.is_empty() {
        text.push('\n');
    }
    for engine in &comparison.engines {
        for failure in &engine.failures {
            let _ = writeln!(text, "\n{} failed: {failure}", engine.engine);
        }
    }
    text
}

/// A number with thousands set apart, or a dash.
pub(super) fn number(value: Option<f64>, digits: usize) -> String {
    let Some(value) = value else { return "-".into() };
    let plain = format!("{value:.digits$}");
    let (whole, fraction) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut grouped = String::new();
    for (position, digit) in whole.chars().enumerate() {
        if position > 0 && (whole.len() - position).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(number(Some(1_234_567.8), 0), "1,234,568");
        assert_eq!(number(Some(999.5), 2), "999.50");
        assert_eq!(number(Some(1000.25), 1), "1,000.2");
        assert_eq!(number(None, 1), "-");
    }
}
