//! One JSON object for each figure of each round.

use anyhow::Result;
use serde::Serialize;

use super::Report;
use crate::engine::Durability;

#[derive(Serialize)]
struct Line<'r> {
    bench: &'r str,
    workload: &'r str,
    engine: &'r str,
    version: &'r str,
    threads: usize,
    durability: Durability,
    metric: &'r str,
    value: f64,
    unit: &'r str,
    round: u32,
}

/// All figures, in the order in which they were measured.
pub(super) fn render(report: &Report) -> Result<String> {
    let mut lines = String::new();
    for comparison in &report.comparisons {
        let part = &comparison.part;
        for engine in &comparison.engines {
            for (round, measured) in &engine.rounds {
                let mut line = Line {
                    bench: &report.bench,
                    workload: &part.workload,
                    engine: &engine.engine,
                    version: &measured.version,
                    threads: part.threads,
                    durability: part.durability,
                    metric: "",
                    value: 0.0,
                    unit: "us",
                    round: *round,
                };
                if let Some(latencies) = &measured.latencies {
                    for (percentile, microseconds) in &latencies.microseconds {
                        let metric = format!("{}_latency_p{percentile}", latencies.operation);
                        push(&mut lines, &Line { metric: &metric, value: *microseconds, ..line })?;
                    }
                }
                for figure in &measured.figures {
                    line.threads = figure.threads.unwrap_or(part.threads);
                    line.durability = figure.durability.unwrap_or(part.durability);
                    push(
                        &mut lines,
                        &Line { metric: &figure.metric, value: figure.value, unit: &figure.unit, ..line },
                    )?;
                }
            }
        }
    }
    Ok(lines)
}

fn push(lines: &mut String, line: &Line<'_>) -> Result<()> {
    *lines += &serde_json::to_string(line)?;
    lines.push('\n');
    Ok(())
}
