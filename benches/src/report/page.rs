//! The report as one HTML page that needs nothing else.

use std::fmt::Write;

use anyhow::Result;

use super::plot::{self, Curve};
use super::{Comparison, EngineRounds, Report, THROUGHPUT, markdown};
use crate::workload::{Measured, PERCENTILES};

const STYLE: &str = "
body { font: 15px/1.5 sans-serif; color: #28282f; background: #fff; max-width: 1440px; margin: 2em auto; padding: 0 1em }
h1 { margin-bottom: 0.2em } h2 { margin: 2em 0 0.2em; border-top: 1px solid #ddd; padding-top: 1em }
h3 { font-size: 1em; margin: 0.6em 0 0.2em }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 0.5em 2em }
svg { max-width: 100%; height: auto }
table { border-collapse: collapse; margin: 1em 0; font-size: 0.87em } td, th { padding: 0.25em 0.7em; text-align: right; border-bottom: 1px solid #eee }
td:first-child, th:first-child { text-align: left } .legend span { margin-right: 1.4em; white-space: nowrap }
.legend i { display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.4em } .small { color: #666; font-size: 0.9em }
.scroll { overflow-x: auto } code { background: #f4f4f6; padding: 0.1em 0.3em }
";

/// The whole page.
pub(super) fn render(report: &Report) -> Result<String> {
    let mut page = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    let bench = escape(&report.bench);
    let _ =
        write!(page, "<title>{bench}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{bench}</h1>\n");
    let _ = writeln!(
        page,
        "<p class=\"small\">{}<br><code>{}</code></p>",
        escape(&report.machine),
        escape(&report.command)
    );
    for (engine, reason) in &report.skipped {
        let _ =
            writeln!(page, "<p class=\"small\"><b>{}</b>: skipped: {}</p>", escape(engine), escape(reason));
    }
    for (engine, remark) in &report.remarks {
        let _ = writeln!(page, "<p class=\"small\"><b>{}</b>: {}</p>", escape(engine), escape(remark));
    }
    overview(&mut page, report)?;
    for comparison in &report.comparisons {
        section(&mut page, comparison)?;
    }
    page += "</body>\n</html>\n";
    Ok(page)
}

/// The ratios of all workloads, if the subject took part.
fn overview(page: &mut String, report: &Report) -> Result<()> {
    if report.comparisons.iter().all(|comparison| comparison.subject().is_none()) {
        return Ok(());
    }
    *page += "<h2>Throughput ratios</h2>\n<p>How many times as many entries per second Peristyle acknowledges; the line marks 1.</p>\n<div class=\"plots\">\n";
    for comparison in &report.comparisons {
        let ratios: Vec<(&str, f64)> = comparison
            .engines
            .iter()
            .filter(|engine| engine.engine != crate::peers::SUBJECT)
            .filter_map(|engine| Some((engine.engine.as_str(), comparison.ratio(engine)?)))
            .collect();
        let _ = write!(
            page,
            "<div><h3>{}</h3>\n{}</div>\n",
            title(comparison),
            plot::bars(&ratios, 2, Some(1.0))?
        );
    }
    *page += "</div>\n";
    Ok(())
}

fn section(page: &mut String, comparison: &Comparison) -> Result<()> {
    let ran: Vec<&EngineRounds> =
        comparison.engines.iter().filter(|engine| !engine.rounds.is_empty()).collect();
    let _ = writeln!(page, "<h2>{}</h2>\n<p>{}</p>", title(comparison), escape(&comparison.description));
    *page += "<p class=\"legend\">";
    for engine in &ran {
        let (red, green, blue) = {
            let it = plot::colour(&engine.engine);
            (it.0, it.1, it.2)
        };
        let name = escape(&engine.title());
        let _ = write!(page, "<span><i style=\"background:rgb({red},{green},{blue})\"></i>{name}</span>");
    }
    *page += "</p>\n<div class=\"plots\">\n";

    let throughput: Vec<(&str, f64)> =
        ran.iter().filter_map(|engine| Some((engine.engine.as_str(), engine.median(&THROUGHPUT)?))).collect();
    let _ = write!(
        page,
        "<div><h3>Entries acknowledged per second</h3>\n{}</div>\n",
        plot::bars(&throughput, 0, None)?
    );

    let latencies: Vec<Curve<'_>> = ran.iter().map(|engine| latency_curve(engine)).collect();
    let _ = write!(
        page,
        "<div><h3>Latency of a commit</h3>\n{}</div>\n",
        plot::latencies(&latencies, &PERCENTILES)?
    );

    let rates: Vec<Curve<'_>> = ran
        .iter()
        .filter_map(|engine| {
            Some(Curve { engine: &engine.engine, points: rate_curve(engine.median_round()?) })
        })
        .collect();
    let _ = write!(page, "<div><h3>Throughput over time</h3>\n{}</div>\n", plot::rates(&rates)?);
    *page += "</div>\n";

    *page += "<div class=\"scroll\"><table>\n";
    for (position, row) in markdown::rows(comparison).iter().enumerate() {
        let tag = if position == 0 { "th" } else { "td" };
        *page += "<tr>";
        for cell in row {
            let _ = write!(page, "<{tag}>{}</{tag}>", escape(cell));
        }
        *page += "</tr>\n";
    }
    *page += "</table></div>\n";
    for engine in &comparison.engines {
        for failure in &engine.failures {
            let _ = writeln!(page, "<p><b>{}</b> failed: {}</p>", escape(&engine.engine), escape(failure));
        }
    }
    Ok(())
}

fn latency_curve(engine: &EngineRounds) -> Curve<'_> {
    let point = |(position, percentile): (usize, &f64)| Some((position as f64, engine.latency(*percentile)?));
    Curve { engine: &engine.engine, points: PERCENTILES.iter().enumerate().filter_map(point).collect() }
}

/// Thousands of entries per second over time, from at most some forty looks at the progress: over
/// shorter times the rate would show how threads are scheduled, not how an engine writes.
fn rate_curve(round: &Measured) -> Vec<(f64, f64)> {
    let step = round.progress.len().div_ceil(40).max(1);
    let last = round.progress.last().copied();
    let mut looks: Vec<(f64, u64)> = round.progress.iter().copied().step_by(step).collect();
    looks.extend(last.filter(|last| looks.last() != Some(last)));
    let rate = |pair: &[(f64, u64)]| {
        let [(start, before), (end, after)] = pair else { return None };
        let seconds = end - start;
        (seconds > 5e-3).then(|| (*end, (after - before) as f64 / seconds / 1e3))
    };
    looks.windows(2).filter_map(rate).collect()
}

fn title(comparison: &Comparison) -> String {
    format!("{}, {}", escape(&comparison.workload), comparison.durability)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_break_the_page() {
        assert_eq!(escape("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }

    #[test]
    fn a_rate_is_the_slope_of_the_progress() {
        let round = Measured {
            version: String::new(),
            entries: 3000,
            write_seconds: 2.0,
            quiet_seconds: 0.0,
            cpu_seconds: 0.0,
            written_bytes: 0,
            disk_bytes: 0,
            peak_memory_bytes: 0,
            latency_microseconds: vec![],
            progress: vec![(0.0, 0), (1.0, 1000), (2.0, 3000)],
        };
        assert_eq!(rate_curve(&round), [(1.0, 1.0), (2.0, 2.0)]);
    }
}
