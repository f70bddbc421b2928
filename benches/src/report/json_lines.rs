//! One JSON object for each figure of each round.

use anyhow::Result;
use serde::Serialize;

use super::{METRICS, Report};

#[derive(Serialize)]
struct Line<'r> {
    bench: &'r str,
    workload: &'r str,
    engine: &'r str,
    version: &'r str,
    threads: usize,
    durability: crate::engine::Durability,
    metric: &'r str,
    value: f64,
    unit: &'r str,
    round: u32,
}

/// All figures, in the order in which they were measured.
pub(super) fn render(report: &Report) -> Result<String> {
    let mut lines = String::new();
    for comparison in &report.comparisons {
        for engine in &comparison.engines {
            for (round, measured) in &engine.rounds {
                let plain = METRICS
                    .iter()
                    .map(|metric| (metric.name.to_owned(), (metric.value)(measured), metric.unit));
                let latencies = measured
                    .latency_microseconds
                    .iter()
                    .map(|(percentile, latency)| (format!("commit_latency_p{percentile}"), *latency, "us"));
                for (metric, value, unit) in plain.chain(latencies) {
                    lines += &serde_json::to_string(&Line {
                        bench: &report.bench,
                        workload: &comparison.workload,
                        engine: &engine.engine,
                        version: &measured.version,
                        threads: comparison.threads,
                        durability: comparison.durability,
                        metric: &metric,
                        value,
                        unit,
                        round: *round,
                    })?;
                    lines.push('\n');
                }
            }
        }
    }
    Ok(lines)
}
