//! The report as one HTML page that needs nothing else.

use std::fmt::Write;

use anyhow::Result;

use super::plot::{self, Curve};
use super::{Comparison, EngineRounds, Report, markdown, words};
use crate::measure::{PERCENTILES, Progress};
use crate::peers::SUBJECT;

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

/// The ratios of all workloads, if the subject took part: as a table whose colours show who is better, and as
/// bars where a workload has one headline.
fn overview(page: &mut String, report: &Report) -> Result<()> {
    if report.comparisons.iter().all(|comparison| comparison.subject().is_none()) {
        return Ok(());
    }
    let _ = writeln!(
        page,
        "<h2>Peristyle beside each of the others</h2>\n<p>{}</p>\n<div class=\"scroll\"><table>",
        escape(&markdown::standing(report))
    );
    for (number, row) in markdown::overview(report).iter().enumerate() {
        *page += "<tr>";
        for (column, cell) in row.iter().enumerate() {
            let ratio = cell.replace(',', "").parse::<f64>().ok().filter(|_| number > 0 && column > 0);
            match ratio {
                Some(ratio) => {
                    let _ = write!(page, "<td style=\"background:{}\">{cell}</td>", shade(ratio));
                }
                None => push_cell(page, if number == 0 { "th" } else { "td" }, cell),
            }
        }
        *page += "</tr>\n";
    }
    *page += "</table></div>\n<div class=\"plots\">\n";
    for comparison in &report.comparisons {
        let headlines = comparison.headlines();
        let [headline] = headlines.as_slice() else { continue };
        let ratios: Vec<(&str, f64)> = comparison
            .engines
            .iter()
            .filter(|engine| engine.engine != SUBJECT)
            .filter_map(|engine| Some((engine.engine.as_str(), comparison.ratio(headline, engine)?)))
            .collect();
        let _ = write!(
            page,
            "<div><h3>{}: {}, times as good, the line marks 1</h3>\n{}</div>\n",
            title(comparison),
            escape(&words(&headline.metric)),
            plot::ratios(&ratios)?
        );
    }
    *page += "</div>\n";
    Ok(())
}

/// Green above 1, red below, the stronger the further from it; full at 10 times.
fn shade(ratio: f64) -> String {
    let strength = ratio.max(1e-6).log10().clamp(-1.0, 1.0);
    let faded = 255.0 - 125.0 * strength.abs().sqrt();
    let (red, green) = if strength < 0.0 { (255.0, faded) } else { (faded, 235.0) };
    format!("rgb({red:.0},{green:.0},{faded:.0})")
}

fn section(page: &mut String, comparison: &Comparison) -> Result<()> {
    let ran: Vec<&EngineRounds> =
        comparison.engines.iter().filter(|engine| !engine.rounds.is_empty()).collect();
    let description = escape(&comparison.part.description);
    let _ = writeln!(page, "<h2>{}</h2>\n<p>{description}</p>", title(comparison));
    for (engine, reason) in &comparison.absent {
        let _ = writeln!(page, "<p class=\"small\">{}: {}</p>", escape(engine), escape(reason));
    }
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
    bars(page, comparison, &ran, true)?;
    curves(page, comparison, &ran)?;
    bars(page, comparison, &ran, false)?;
    *page += "</div>\n";

    *page += "<div class=\"scroll\"><table>\n";
    for (position, row) in markdown::table(comparison).iter().enumerate() {
        *page += "<tr>";
        row.iter().for_each(|cell| push_cell(page, if position == 0 { "th" } else { "td" }, cell));
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

/// Bars of every headline, or of the bytes that they cost.
fn bars(page: &mut String, comparison: &Comparison, ran: &[&EngineRounds], headlines: bool) -> Result<()> {
    for figure in comparison.figures() {
        if figure.headline != headlines || (!headlines && figure.unit != "B") {
            continue;
        }
        let values: Vec<(&str, f64)> = ran
            .iter()
            .filter_map(|engine| Some((engine.engine.as_str(), engine.median(&figure.metric)?)))
            .collect();
        let _ = write!(
            page,
            "<div><h3>{}</h3>\n{}</div>\n",
            escape(&figure.heading()),
            plot::bars(&values, |value| figure.show(Some(value)))?
        );
    }
    Ok(())
}

/// Latencies and throughput over time, where there are any.
fn curves(page: &mut String, comparison: &Comparison, ran: &[&EngineRounds]) -> Result<()> {
    let latencies: Vec<Curve<'_>> =
        ran.iter().map(|engine| latency_curve(engine)).filter(|curve| !curve.points.is_empty()).collect();
    if !latencies.is_empty() {
        let operation = markdown::operation(comparison);
        let _ = write!(
            page,
            "<div><h3>Latency: {}</h3>\n{}</div>\n",
            escape(operation),
            plot::latencies(&latencies, &PERCENTILES, operation)?
        );
    }
    let progress = |engine: &&EngineRounds| engine.median_round().and_then(|round| round.progress.clone());
    let what = ran.iter().find_map(progress).map(|progress| progress.what);
    if let Some(what) = what {
        let rates: Vec<Curve<'_>> = ran
            .iter()
            .filter_map(|engine| {
                Some(Curve { engine: &engine.engine, points: rate_curve(&progress(engine)?) })
            })
            .collect();
        let _ = write!(
            page,
            "<div><h3>Throughput over time</h3>\n{}</div>\n",
            plot::rates(&rates, &format!("thousand {what}/s"))?
        );
    }
    Ok(())
}

fn latency_curve(engine: &EngineRounds) -> Curve<'_> {
    let point = |(position, percentile): (usize, &f64)| Some((position as f64, engine.latency(*percentile)?));
    Curve { engine: &engine.engine, points: PERCENTILES.iter().enumerate().filter_map(point).collect() }
}

/// Thousands per second over time. Short runs are cut into some forty pieces, long ones into seconds or a
/// hundred and twenty pieces: over shorter times the rate would show how threads are scheduled, not how an
/// engine works.
fn rate_curve(progress: &Progress) -> Vec<(f64, f64)> {
    let seconds = progress.points.last().map_or(0.0, |point| point.0);
    let piece = (seconds / 40.0).min(1.0).max(seconds / 120.0).max(5e-3);
    let mut curve = Vec::new();
    let mut from = (0.0, 0);
    for &(until, total) in &progress.points {
        let long = until - from.0;
        if long >= piece {
            curve.push((until, (total - from.1) as f64 / long / 1e3));
            from = (until, total);
        }
    }
    curve
}

fn title(comparison: &Comparison) -> String {
    format!("{}, {}", escape(&comparison.part.workload), comparison.part.durability)
}

fn push_cell(page: &mut String, tag: &str, cell: &str) {
    let best = cell.strip_prefix("**").and_then(|cell| cell.strip_suffix("**"));
    let _ = match best {
        Some(best) => write!(page, "<{tag}><b>{}</b></{tag}>", escape(best)),
        None => write!(page, "<{tag}>{}</{tag}>", escape(cell)),
    };
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
        let points = vec![(0.0, 0), (1.0, 1000), (2.0, 3000)];
        assert_eq!(rate_curve(&Progress { what: "entries".into(), points }), [(1.0, 1.0), (2.0, 2.0)]);
    }

    #[test]
    fn the_better_one_has_green() {
        assert_eq!(shade(10.0), "rgb(130,235,130)");
        assert_eq!(shade(0.01), "rgb(255,130,130)");
    }
}
