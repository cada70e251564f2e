//! Line charts as inline SVG.
//!
//! Written here, not by a plotting library, so that lines and letters take the page's own colours
//! and font and a chart is a few kilobytes.

use std::fmt::Write as _;

/// Size of a chart, in the units of its view box.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 30.0;

/// Colours of the page; later lines take them again.
const NUM_COLORS: usize = 8;

/// Points of a line at most; more would not be seen.
const MAX_POINTS: usize = 400;
/// About so many labels on an axis.
const NUM_TICKS: f64 = 5.0;

/// A line with the number of its colour.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// Which colour of the page, from 0.
    pub(super) color: usize,
    /// Steps and values, in the order of the steps.
    pub(super) points: Vec<(f64, f64)>,
    /// Drawn thin and pale, behind the others.
    pub(super) is_background: bool,
}

/// The chart of some lines; `None` where they have no two points to draw between.
pub(super) fn render_chart(lines: &[Line]) -> Option<String> {
    let points = || lines.iter().flat_map(|line| &line.points);
    if lines.iter().all(|line| line.points.len() < 2) {
        return None;
    }
    let (x_low, x_high) = range(points().map(|point| point.0));
    let (y_low, y_high) = range(points().map(|point| point.1));
    let pad = (y_high - y_low).max(y_high.abs() * 1e-3).max(1e-12) * 0.05;
    let (y_low, y_high) = (y_low - pad, y_high + pad);
    let x_of = |x: f64| LEFT + (x - x_low) / (x_high - x_low).max(1e-12) * (WIDTH - LEFT - RIGHT);
    let y_of = |y: f64| TOP + (y_high - y) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM);

    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
    for tick in ticks(y_low, y_high) {
        let (y, right) = (y_of(tick), WIDTH - RIGHT);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            label(tick)
        );
    }
    for tick in ticks(x_low, x_high) {
        let _ = write!(
            svg,
            "<text class=\"x\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x_of(tick),
            HEIGHT - 10.0,
            label(tick)
        );
    }
    let behind = lines.iter().filter(|line| line.is_background);
    let before = lines.iter().filter(|line| !line.is_background);
    for line in behind.chain(before) {
        let points = thinned(&line.points);
        let places: Vec<String> = points
            .iter()
            .map(|&(x, y)| format!("{:.1},{:.1}", x_of(x), y_of(y)))
            .collect();
        let kind = if line.is_background { " pale" } else { "" };
        let _ = write!(
            svg,
            "<polyline class=\"c{}{kind}\" points=\"{}\"/>",
            line.color % NUM_COLORS,
            places.join(" ")
        );
    }
    svg += "</svg>";
    Some(svg)
}

/// Each value averaged with those before it: the newest counts `weight`.
pub(super) fn smoothed(points: &[(f64, f64)], weight: f64) -> Vec<(f64, f64)> {
    let mut mean = None;
    points
        .iter()
        .map(|&(x, y)| {
            let next = mean.map_or(y, |mean: f64| mean + weight * (y - mean));
            mean = Some(next);
            (x, next)
        })
        .collect()
}

/// Means of neighbouring points, where there are more than a chart can show.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let per_point = points.len().div_ceil(MAX_POINTS).max(1);
    let mean = |points: &[(f64, f64)]| {
        let count = points.len() as f64;
        let (x, y) = points
            .iter()
            .fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (x / count, y / count)
    };
    points.chunks(per_point).map(mean).collect()
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    })
}

/// Round numbers between two others: multiples of 1, 2 or 5 times a power of ten.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let span = (high - low).max(1e-12);
    let power = 10_f64.powf((span / NUM_TICKS).log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| span / (power * factor) <= NUM_TICKS)
        .unwrap_or(10.0);
    let step = power * factor;
    let (first, last) = (
        (low / step - 1e-9).ceil() as i64,
        (high / step + 1e-9).floor() as i64,
    );
    (first..=last).map(|tick| tick as f64 * step).collect()
}

fn label(value: f64) -> String {
    let size = value.abs();
    let shortest = |text: String| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text
        }
    };
    if size < 1e-12 {
        "0".to_owned()
    } else if size < 1e-3 {
        format!("{value:.1e}").replace(".0e", "e")
    } else if size >= 1e6 {
        shortest(format!("{:.2}", value / 1e6)) + "M"
    } else if size >= 1e4 {
        shortest(format!("{:.2}", value / 1e3)) + "k"
    } else {
        shortest(format!("{value:.4}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_labelled_shortly() {
        let labels =
            |low, high| -> Vec<String> { ticks(low, high).into_iter().map(label).collect() };
        assert_eq!(labels(1.9, 8.8), ["2", "4", "6", "8"]);
        assert_eq!(labels(0.0, 3e-4), ["0", "1e-4", "2e-4", "3e-4"]);
        assert_eq!(labels(0.0, 23_000.0), ["0", "5000", "10k", "15k", "20k"]);
    }

    /// 1,000 points become means of three; their ends stay within the plot's frame.
    #[test]
    fn a_chart_has_a_line_within_its_frame() {
        let points: Vec<(f64, f64)> = (0..1000)
            .map(|x| (f64::from(x), 10.0 - f64::from(x) / 200.0))
            .collect();
        let line = Line {
            color: 1,
            points: points.clone(),
            is_background: false,
        };
        let svg = render_chart(&[line]).unwrap();
        let start = svg.find("points=\"").unwrap() + 8;
        let places: Vec<(f64, f64)> = svg[start..]
            .split('"')
            .next()
            .unwrap()
            .split(' ')
            .map(|place| place.split_once(',').unwrap())
            .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
            .collect();
        assert_eq!(places.len(), 334);
        assert!(
            places
                .iter()
                .all(|&(x, y)| (LEFT..=WIDTH - RIGHT).contains(&x)
                    && (TOP..=HEIGHT - BOTTOM).contains(&y))
        );
        assert!(
            places.is_sorted_by(|a, b| a.1 <= b.1),
            "down the page as the loss falls"
        );
        assert!(svg.contains("class=\"c1\""));
        assert_eq!(render_chart(&[]), None);
        let second = smoothed(&points[..2], 0.5)[1].1;
        assert!((second - (10.0 - 0.0025)).abs() < 1e-12, "{second}");
    }
}
