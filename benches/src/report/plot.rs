//! The plots of the page, as SVG.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::markdown::{number, ratio};
use crate::peers::{self, SUBJECT};

/// Width of every plot, in pixels.
const WIDTH: u32 = 440;
/// Height of the plots with axes, in pixels.
const HEIGHT: u32 = 260;
/// Height of a bar with the space around it, in pixels.
const BAR: i32 = 26;
/// Where bars begin; their labels stand to the left, in pixels.
const LABELS: i32 = 105;
/// Space to the right of the longest bar, for its figure, in pixels.
const FIGURES: i32 = 80;

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 48);
const GRID: RGBColor = RGBColor(225, 225, 230);

/// A curve: the engine and its points.
pub(super) struct Curve<'r> {
    pub(super) engine: &'r str,
    pub(super) points: Vec<(f64, f64)>,
}

/// The colour of an engine, the same in all plots.
pub(super) fn colour(engine: &str) -> RGBColor {
    const PEERS: [RGBColor; 8] = [
        RGBColor(31, 119, 180),
        RGBColor(120, 180, 225),
        RGBColor(90, 90, 200),
        RGBColor(44, 140, 80),
        RGBColor(148, 103, 189),
        RGBColor(230, 150, 30),
        RGBColor(140, 86, 75),
        RGBColor(130, 130, 130),
    ];
    if engine == SUBJECT {
        return RGBColor(214, 39, 40);
    }
    let position =
        peers::all().iter().filter(|peer| peer.name != SUBJECT).position(|peer| peer.name == engine);
    PEERS[position.unwrap_or(PEERS.len() - 1) % PEERS.len()]
}

/// Horizontal bars, one for each engine, with the figures that `show` makes of the values.
pub(super) fn bars(bars: &[(&str, f64)], show: impl Fn(f64) -> String) -> Result<String> {
    let longest = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let scale = f64::from(WIDTH as i32 - LABELS - FIGURES) / longest;
    drawing(height_of(bars), |area| {
        let ends = bars.iter().map(|(_, value)| (LABELS, LABELS + (value * scale).round() as i32));
        draw_bars(area, bars, show, ends)
    })
}

/// Horizontal bars, one for each ratio, on a logarithmic scale: to the right of a line at 1, or to its left.
pub(super) fn ratios(bars: &[(&str, f64)]) -> Result<String> {
    let exponents: Vec<f64> = bars.iter().map(|(_, times)| times.max(1e-6).log10()).collect();
    let lowest = exponents.iter().copied().fold(0.0, f64::min);
    // However near to 1 all are, small differences do not take the whole width.
    let highest = exponents.iter().copied().fold((lowest + 0.5).max(0.0), f64::max);
    let scale = f64::from(WIDTH as i32 - LABELS - FIGURES) / (highest - lowest);
    let to_pixels = |exponent: f64| LABELS + ((exponent - lowest) * scale).round() as i32;
    drawing(height_of(bars), |area| {
        let line = to_pixels(0.0);
        let ends = exponents.iter().map(|exponent| (line, to_pixels(*exponent)));
        draw_bars(area, bars, |value| ratio(Some(value)), ends)?;
        area.draw(&PathElement::new(vec![(line, 2), (line, height_of(bars) as i32 - 2)], INK))?;
        Ok(())
    })
}

fn height_of(bars: &[(&str, f64)]) -> u32 {
    bars.len().max(1) as u32 * BAR as u32 + 8
}

/// Bars from and to given pixels, with the engine at the left edge and the figure at the right end.
fn draw_bars(
    area: &Area<'_>,
    bars: &[(&str, f64)],
    show: impl Fn(f64) -> String,
    ends: impl Iterator<Item = (i32, i32)>,
) -> Drawn {
    let label = text_style(HPos::Right);
    let figure = text_style(HPos::Left);
    for (position, ((engine, value), (from, to))) in bars.iter().zip(ends).enumerate() {
        let top = position as i32 * BAR + 6;
        let bottom = top + BAR - 6;
        let middle = (top + bottom) / 2;
        area.draw(&Text::new((*engine).to_owned(), (LABELS - 8, middle), label.clone()))?;
        let corners = [(from.min(to), top), (from.max(to), bottom)];
        area.draw(&Rectangle::new(corners, colour(engine).filled()))?;
        area.draw(&Text::new(show(*value), (from.max(to) + 6, middle), figure.clone()))?;
    }
    Ok(())
}

/// Latency curves over percentiles, the time on a logarithmic scale.
pub(super) fn latencies(curves: &[Curve<'_>], percentiles: &[f64], operation: &str) -> Result<String> {
    let all = || curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.1));
    let low = all().fold(f64::INFINITY, f64::min).max(0.01) * 0.8;
    let high = all().fold(low * 10.0, f64::max) * 1.25;
    drawing(HEIGHT, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(-0.2..percentiles.len() as f64 - 0.8, (low..high).log_scale())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .label_style((FONT, 12).into_font().color(&INK))
            .x_labels(percentiles.len())
            .x_label_formatter(&|x| {
                let position = x.round();
                let percentile = percentiles.get(position.max(0.0) as usize);
                percentile
                    .filter(|_| (x - position).abs() < 1e-6)
                    .map_or(String::new(), |of| format!("p{of}"))
            })
            .y_label_formatter(&|y| logarithmic_label(*y, high / low))
            .y_desc(format!("{operation}, us"))
            .draw()?;
        for curve in curves {
            let style = colour(curve.engine).stroke_width(2);
            chart.draw_series(LineSeries::new(curve.points.iter().copied(), style))?;
            let dot = |point: &(f64, f64)| Circle::new(*point, 3, colour(curve.engine).filled());
            chart.draw_series(curve.points.iter().map(dot))?;
        }
        Ok(())
    })
}

/// Labels of a logarithmic axis: the powers of ten, and on a short axis their doubles and fives too.
fn logarithmic_label(value: f64, span: f64) -> String {
    let leading = value / 10f64.powf(value.log10().floor());
    let shown = |digit: f64| (leading - digit).abs() < 1e-3;
    if shown(1.0) || shown(10.0) || (span < 300.0 && (shown(2.0) || shown(5.0))) {
        number(Some(value), if value < 1.0 { 2 } else { 0 })
    } else {
        String::new()
    }
}

/// Curves of rates over seconds.
pub(super) fn rates(curves: &[Curve<'_>], unit: &str) -> Result<String> {
    let all = || curves.iter().flat_map(|curve| curve.points.iter());
    let seconds = all().map(|point| point.0).fold(0.001, f64::max);
    let rate = all().map(|point| point.1).fold(0.001, f64::max) * 1.05;
    drawing(HEIGHT, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..seconds, 0.0..rate)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .label_style((FONT, 12).into_font().color(&INK))
            .x_labels(8)
            .y_labels(6)
            .y_label_formatter(&|y| number(Some(*y), 0))
            .x_desc("seconds")
            .y_desc(unit)
            .draw()?;
        for curve in curves {
            let style = colour(curve.engine).stroke_width(2);
            chart.draw_series(LineSeries::new(curve.points.iter().copied(), style))?;
        }
        Ok(())
    })
}

type Area<'s> = DrawingArea<SVGBackend<'s>, Shift>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn drawing(height: u32, draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        draw(&area).map_err(|error| anyhow!("a plot cannot be drawn: {error}"))?;
        area.present()?;
    }
    Ok(svg)
}

fn text_style(horizontal: HPos) -> TextStyle<'static> {
    (FONT, 13).into_font().color(&INK).pos(Pos::new(horizontal, VPos::Center))
}
