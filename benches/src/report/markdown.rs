//! The report as Markdown tables, aligned so that they can be read as they are.

use std::fmt::Write;

use super::{Comparison, EngineRounds, Report, row_title};
use crate::measure::{Figure, PERCENTILES};
use crate::peers::SUBJECT;

/// A table: rows of cells, the headings first. A cell between two pairs of asterisks is the best of its row.
pub(super) type Table = Vec<Vec<String>>;

/// The whole report.
pub(super) fn render(report: &Report) -> String {
    let mut text = format!("# {}\n\n{}\n\n`{}`\n", report.bench, report.machine, report.command);
    for comparison in &report.comparisons {
        let part = &comparison.part;
        let _ = write!(text, "\n## {}, {}\n\n", part.workload, part.durability);
        let _ = writeln!(text, "{}\n", part.description);
        text += &aligned(&table(comparison));
        text += &summary(comparison);
    }
    let _ = write!(text, "\n## Peristyle beside each of the others\n\n{}\n\n", standing(report));
    text += &aligned(&overview(report));
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

/// The table of a comparison: a row for each engine, or where there are several headlines a row for each
/// figure.
pub(super) fn table(comparison: &Comparison) -> Table {
    match comparison.headlines().as_slice() {
        [headline] => engines_as_rows(comparison, headline),
        _ => figures_as_rows(comparison),
    }
}

fn engines_as_rows(comparison: &Comparison, headline: &Figure) -> Table {
    let asides: Vec<&Figure> = comparison.figures().into_iter().filter(|figure| !figure.headline).collect();
    let percentiles = percentiles(comparison);
    let mut headings = vec!["engine".into(), headline.heading(), "peristyle / it".into()];
    headings.extend(asides.iter().map(|figure| figure.heading()));
    headings.extend(percentiles.iter().map(|percentile| format!("p{percentile}, us")));
    let row = |engine: &EngineRounds| {
        let times = if engine.engine == SUBJECT { None } else { comparison.ratio(headline, engine) };
        let mut row = vec![engine.title(), headline.show(engine.median(&headline.metric)), ratio(times)];
        row.extend(asides.iter().map(|figure| figure.show(engine.median(&figure.metric))));
        row.extend(percentiles.iter().map(|percentile| number(engine.latency(*percentile), 1)));
        row
    };
    std::iter::once(headings).chain(comparison.engines.iter().map(row)).collect()
}

fn figures_as_rows(comparison: &Comparison) -> Table {
    let mut headings = vec![String::new()];
    headings.extend(comparison.engines.iter().map(EngineRounds::title));
    headings.push("peristyle / best other".into());
    let mut table = vec![headings];
    for figure in comparison.figures() {
        let times = comparison.ratio_to_best(figure);
        let best = match (times, comparison.best_peer(figure, "")) {
            (Some(times), _) if times >= 1.0 => Some(SUBJECT),
            (_, best) => best.map(|engine| engine.engine.as_str()),
        };
        let mut row = vec![figure.heading()];
        for engine in &comparison.engines {
            let cell = figure.show(engine.median(&figure.metric));
            let is_best = figure.headline && best == Some(engine.engine.as_str());
            row.push(if is_best { format!("**{cell}**") } else { cell });
        }
        row.push(ratio(times));
        table.push(row);
    }
    for percentile in percentiles(comparison) {
        let mut row = vec![format!("{} p{percentile}, us", operation(comparison))];
        row.extend(comparison.engines.iter().map(|engine| number(engine.latency(percentile), 1)));
        row.push("-".into());
        table.push(row);
    }
    table
}

/// The percentiles that the comparison has.
fn percentiles(comparison: &Comparison) -> Vec<f64> {
    let known =
        |percentile: &f64| comparison.engines.iter().any(|engine| engine.latency(*percentile).is_some());
    PERCENTILES.into_iter().filter(known).collect()
}

/// What the latencies of a comparison are those of.
pub(super) fn operation(comparison: &Comparison) -> &str {
    let mut rounds = comparison.engines.iter().flat_map(|engine| &engine.rounds);
    rounds.find_map(|(_, round)| round.latencies.as_ref()).map_or("", |latencies| &latencies.operation)
}

/// How many times as good as that of each other engine every headline of Peristyle is.
pub(super) fn overview(report: &Report) -> Table {
    let mut peers: Vec<&str> = Vec::new();
    for engine in report.comparisons.iter().flat_map(|comparison| &comparison.engines) {
        if engine.engine != SUBJECT && !peers.contains(&engine.engine.as_str()) {
            peers.push(&engine.engine);
        }
    }
    let mut table = vec![vec!["peristyle / it".into()]];
    table[0].extend(peers.iter().map(|peer| (*peer).to_owned()));
    for (comparison, figure) in report.headlines() {
        let mut row = vec![row_title(comparison, figure)];
        for peer in &peers {
            let engine = comparison.engines.iter().find(|engine| engine.engine == *peer);
            row.push(ratio(engine.and_then(|engine| comparison.ratio(figure, engine))));
        }
        table.push(row);
    }
    table
}

/// In how many rows Peristyle is first, and in which it is not.
pub(super) fn standing(report: &Report) -> String {
    let (first, behind, total) = report.standing();
    let mut text = format!(
        "How many times as good Peristyle is: above 1 it is better, below 1 the other. It is first in {first} of {total}."
    );
    if !behind.is_empty() {
        let _ = write!(text, " Not first in: {}.", behind.join("; "));
    }
    text
}

fn aligned(table: &Table) -> String {
    let columns = table.first().map_or(0, Vec::len);
    let width_of = |column: usize| table.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width_of).collect();
    let mut text = String::new();
    for (number, row) in table.iter().enumerate() {
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

/// A line on the ratios that count, where there is one headline, and one for each failed round.
fn summary(comparison: &Comparison) -> String {
    let mut text = String::new();
    if let [headline] = comparison.headlines().as_slice() {
        let ratio = |prefix| {
            let peer = comparison.best_peer(headline, prefix)?;
            Some((peer.engine.as_str(), comparison.ratio(headline, peer)?))
        };
        if let Some((peer, ratio)) = ratio("") {
            let metric = super::words(&headline.metric);
            let _ = write!(
                text,
                "\nThe best of the others is {peer}: peristyle's {metric} is {ratio:.2} times as good."
            );
        }
        if let Some((peer, ratio)) = ratio("rocksdb") {
            let _ = write!(text, " RocksDB's better configuration is {peer}: {ratio:.2} times.");
        }
    }
    if !text.is_empty() {
        text.push('\n');
    }
    for (engine, reason) in &comparison.absent {
        let _ = writeln!(text, "\n{engine} takes no part: {reason}");
    }
    for engine in &comparison.engines {
        for failure in &engine.failures {
            let _ = writeln!(text, "\n{} failed: {failure}", engine.engine);
        }
    }
    text
}

/// A ratio; a small one with more digits, since 0.00 says nothing.
pub(super) fn ratio(ratio: Option<f64>) -> String {
    number(ratio, if ratio.is_some_and(|ratio| ratio < 0.1) { 4 } else { 2 })
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
