//! The report on made-up measurements.

use super::*;
use crate::engine::Durability;
use crate::measure::{Latencies, PERCENTILES, Progress};

fn rounds(engine: &str, seconds: &[f64], fingerprint: u64) -> EngineRounds {
    let round = |seconds: f64| Measured {
        version: "1.0.0".into(),
        figures: vec![
            Figure::higher("throughput", 1000.0 / seconds, "entries/s"),
            Figure::lower("peak_memory", 2_000_000.0, "B").aside(),
        ],
        latencies: Some(Latencies {
            operation: "commit".into(),
            microseconds: PERCENTILES.iter().map(|&percentile| (percentile, percentile)).collect(),
        }),
        progress: Some(Progress { what: "entries".into(), points: vec![(0.0, 0), (seconds, 1000)] }),
        fingerprint: Some(fingerprint),
    };
    let rounds = (1..).zip(seconds.iter().copied().map(round)).collect();
    EngineRounds { engine: engine.into(), rounds, failures: Vec::new() }
}

fn report() -> Report {
    let engines = vec![
        rounds(SUBJECT, &[1.0, 9.0, 1.0], 7),
        rounds("rocksdb", &[4.0, 4.0, 0.1], 7),
        rounds("rocksdb-tuned", &[3.0], 7),
        rounds("lmdb", &[2.0], 7),
        EngineRounds { failures: vec!["no <disk>".into()], ..rounds("redb", &[], 7) },
    ];
    let part = Part {
        workload: "made up".into(),
        description: "Nothing.".into(),
        threads: 8,
        durability: Durability::Sync,
    };
    Report {
        bench: "test".into(),
        machine: "none".into(),
        command: "none".into(),
        comparisons: vec![Comparison {
            part,
            engines,
            absent: vec![("lmdb".into(), "it has no log".into())],
        }],
        skipped: vec![("sled".into(), "not compiled in".into())],
        remarks: Vec::new(),
    }
}

#[test]
fn medians_are_compared_with_the_better_rocksdb_and_the_best_peer() {
    let markdown = report().markdown();
    assert!(
        markdown.contains("The best of the others is lmdb: peristyle's throughput is 2.00 times as good"),
        "{markdown}"
    );
    assert!(markdown.contains("RocksDB's better configuration is rocksdb-tuned: 3.00 times"), "{markdown}");
    assert!(markdown.contains("redb failed: no <disk>"), "{markdown}");
    assert!(markdown.contains("sled: skipped: not compiled in"), "{markdown}");
    assert!(markdown.contains("lmdb takes no part: it has no log"), "{markdown}");
}

#[test]
fn a_row_in_which_the_subject_is_not_first_is_named() {
    let mut report = report();
    report.comparisons[0].engines.push(rounds("fjall", &[0.5], 7));
    let markdown = report.markdown();
    assert!(markdown.contains("first in 0 of 1"), "{markdown}");
    assert!(markdown.contains("made up, sync: throughput (fjall: 2.00 times)"), "{markdown}");
}

#[test]
fn several_headlines_become_rows_with_the_best_engine_marked() {
    let mut report = report();
    for engine in &mut report.comparisons[0].engines {
        let value = if engine.engine == "lmdb" { 1.0 } else { 4.0 };
        for (_, round) in &mut engine.rounds {
            round.figures.push(Figure::lower("open_time", value, "ms").with_threads(1));
        }
    }
    let markdown = report.markdown();
    let row = markdown.lines().find(|line| line.starts_with("| open time, ms")).unwrap_or_default();
    assert!(row.contains("**1.0**") && row.contains("0.25"), "{markdown}");
}

#[test]
fn every_figure_of_every_round_is_a_line_of_json() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let [lines, page, markdown] = report().write_files(directory.path())?;
    let lines = fs::read_to_string(lines)?;
    assert_eq!(lines.lines().count(), (3 + 3 + 1 + 1) * (2 + PERCENTILES.len()));
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line)?;
        assert_eq!(line["durability"], "sync");
        assert!(line["value"].is_number());
    }
    assert_eq!(fs::read_to_string(markdown)?, report().markdown());
    let page = fs::read_to_string(page)?;
    assert!(page.contains("Peristyle beside each of the others") && page.contains("no &lt;disk&gt;"));
    Ok(())
}

#[test]
fn who_reads_other_entries_than_most_has_failed() {
    let mut report = report();
    report.comparisons[0].engines.push(rounds("fjall", &[0.5], 8));
    report.comparisons[0].fail_those_who_read_something_else();
    let failed: Vec<&str> = report.comparisons[0]
        .engines
        .iter()
        .filter(|engine| engine.rounds.is_empty())
        .map(|engine| engine.engine.as_str())
        .collect();
    assert_eq!(failed, ["redb", "fjall"]);
}

#[test]
fn the_median_lies_in_the_middle() {
    assert_eq!(median(vec![]), None);
    assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
}
