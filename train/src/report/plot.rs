//! `loss.png`: the learning curve of a run, with the learning rate below it.
//!
//! The font is Ubuntu Light, embedded, so that the picture is the same on every machine.

use std::error::Error;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use epaint_default_fonts::UBUNTU_LIGHT;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use super::metrics::Row;

type Canvas<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
type PlotError = Box<dyn Error + Send + Sync>;

const SIZE: (u32, u32) = (1600, 1000);
const LEFT: u32 = 120;
const RIGHT: u32 = 50;
/// Points of a drawn line: about one per pixel column.
const MAX_POINTS: usize = 1500;

const INK: RGBColor = RGBColor(31, 41, 55);
const MUTED: RGBColor = RGBColor(107, 114, 128);
const GRID: RGBColor = RGBColor(229, 231, 235);
const TRAIN: RGBColor = RGBColor(37, 99, 235);
const VALIDATION: RGBColor = RGBColor(234, 88, 12);
const RATE: RGBColor = RGBColor(13, 148, 136);

/// Points of the curve so far, and where they are drawn.
pub(super) struct Plot {
    path: PathBuf,
    title: String,
    loss: Vec<(f64, f64)>,
    lr: Vec<(f64, f64)>,
    validation: Vec<(f64, f64)>,
}

impl Plot {
    /// An empty curve of the run in `run_dir`, titled with the folder's name.
    pub(super) fn new(run_dir: &Path) -> Self {
        let title = run_dir.file_name().unwrap_or(run_dir.as_os_str());
        Self {
            path: run_dir.join("loss.png"),
            title: title.to_string_lossy().into_owned(),
            loss: Vec::new(),
            lr: Vec::new(),
            validation: Vec::new(),
        }
    }

    pub(super) fn record_step(&mut self, step: u64, loss: f64, lr: f64) {
        push_finite(&mut self.loss, step, loss);
        push_finite(&mut self.lr, step, lr);
    }

    pub(super) fn record_validation(&mut self, step: u64, loss: f64) {
        push_finite(&mut self.validation, step, loss);
    }

    /// Takes over a line of `metrics.jsonl` that an earlier part of the run wrote.
    pub(super) fn record_row(&mut self, row: Row) {
        match row {
            Row::Step { step, loss, lr } => {
                self.record_step(step, loss.unwrap_or(f64::NAN), lr.unwrap_or(f64::NAN));
            }
            Row::Validation { step, loss } => {
                self.record_validation(step, loss.unwrap_or(f64::NAN));
            }
            Row::Sample { .. } | Row::Note { .. } => {}
        }
    }

    /// Replaces the picture by one of all points so far; a curve without points leaves it alone.
    pub(super) fn draw(&self) -> Result<(), PlotError> {
        let (Some(first), Some(last)) = (self.loss.first(), self.loss.last()) else {
            return Ok(());
        };
        let steps = first.0.min(1.0)..last.0.max(first.0 + 1.0);
        if register_font("sans-serif", FontStyle::Normal, UBUNTU_LIGHT).is_err() {
            return Err("the embedded font is not valid".into());
        }
        // A viewer that watches the file must never see half a picture.
        let unfinished = self.path.with_file_name(".loss.unfinished.png");
        {
            let canvas = BitMapBackend::new(&unfinished, SIZE).into_drawing_area();
            canvas.fill(&WHITE)?;
            let (head, body) = canvas.split_vertically(96);
            let (upper, lower) = body.split_vertically(628);
            self.draw_head(&head)?;
            self.draw_losses(&upper, steps.clone())?;
            self.draw_rate(&lower, steps)?;
            canvas.present()?;
        }
        fs::rename(&unfinished, &self.path)?;
        Ok(())
    }

    /// The run's name and where it stands.
    fn draw_head(&self, area: &Canvas<'_>) -> Result<(), PlotError> {
        let smoothed = smooth(&self.loss);
        let mut facts = Vec::new();
        if let Some((step, loss)) = smoothed.last() {
            facts.push(format!("step {}", step_label(*step)));
            facts.push(format!("training loss {loss:.3}"));
        }
        if let Some((_, loss)) = self.validation.last() {
            facts.push(format!("validation loss {loss:.3}"));
        }
        let left = LEFT as i32;
        area.draw(&Text::new(
            self.title.clone(),
            (left, 20),
            ("sans-serif", 40).into_font().color(&INK),
        ))?;
        area.draw(&Text::new(
            facts.join("   ·   "),
            (left, 66),
            ("sans-serif", 25).into_font().color(&MUTED),
        ))?;
        Ok(())
    }

    /// Training loss of each step and smoothed, validation loss as points.
    fn draw_losses(&self, area: &Canvas<'_>, steps: Range<f64>) -> Result<(), PlotError> {
        let smoothed = smooth(&self.loss);
        let heights = bounds(smoothed.iter().chain(&self.validation));
        let mut chart = ChartBuilder::on(area)
            .margin_top(16)
            .margin_right(RIGHT)
            .x_label_area_size(40)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(steps, heights.clone())?;
        chart
            .configure_mesh()
            .x_labels(12)
            .y_labels(10)
            .y_desc("loss (nats per token)")
            .x_label_formatter(&|step| step_label(*step))
            .y_label_formatter(&|loss| format!("{loss:.1}"))
            .label_style(("sans-serif", 23).into_font().color(&MUTED))
            .axis_desc_style(("sans-serif", 25).into_font().color(&INK))
            .axis_style(GRID.stroke_width(2))
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .draw()?;

        let shown = |(step, loss): (f64, f64)| (step, loss.clamp(heights.start, heights.end));
        let faint = TRAIN.mix(0.28).stroke_width(1);
        chart
            .draw_series(LineSeries::new(
                thin(&self.loss).into_iter().map(shown),
                faint,
            ))?
            .label("training, each step")
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 34, y)], faint));
        let strong = TRAIN.stroke_width(3);
        chart
            .draw_series(LineSeries::new(thin(&smoothed), strong))?
            .label("training, smoothed")
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 34, y)], strong));
        if !self.validation.is_empty() {
            chart.draw_series(LineSeries::new(
                self.validation.iter().copied(),
                VALIDATION.mix(0.55).stroke_width(2),
            ))?;
            // A white rim makes the points stand out on the lines below them.
            let dots = |radius: i32, style: ShapeStyle| {
                self.validation
                    .iter()
                    .map(move |point| Circle::new(*point, radius, style))
            };
            chart.draw_series(dots(9, WHITE.filled()))?;
            chart
                .draw_series(dots(6, VALIDATION.filled()))?
                .label("validation")
                .legend(|(x, y)| Circle::new((x + 17, y), 6, VALIDATION.filled()));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .margin(22)
            .legend_area_size(50)
            .label_font(("sans-serif", 24).into_font().color(&INK))
            .background_style(WHITE.mix(0.9))
            .border_style(GRID)
            .draw()?;
        Ok(())
    }

    /// The learning rate on the same steps.
    fn draw_rate(&self, area: &Canvas<'_>, steps: Range<f64>) -> Result<(), PlotError> {
        let highest = self
            .lr
            .iter()
            .map(|point| point.1)
            .fold(f64::MIN_POSITIVE, f64::max);
        let mut chart = ChartBuilder::on(area)
            .margin_top(10)
            .margin_bottom(14)
            .margin_right(RIGHT)
            .x_label_area_size(74)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(steps, 0.0..highest * 1.08)?;
        chart
            .configure_mesh()
            .x_labels(12)
            .y_labels(4)
            .x_desc("optimizer step")
            .y_desc("learning rate")
            .x_label_formatter(&|step| step_label(*step))
            .y_label_formatter(&|rate| rate_label(*rate))
            .label_style(("sans-serif", 23).into_font().color(&MUTED))
            .axis_desc_style(("sans-serif", 25).into_font().color(&INK))
            .axis_style(GRID.stroke_width(2))
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .draw()?;
        chart.draw_series(LineSeries::new(thin(&self.lr), RATE.stroke_width(3)))?;
        Ok(())
    }
}

fn push_finite(points: &mut Vec<(f64, f64)>, step: u64, value: f64) {
    if value.is_finite() {
        points.push((step as f64, value));
    }
}

/// Exponential mean over about a fortieth of the run, without the bias of its start.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let span = (points.len() as f64 / 40.0).clamp(1.0, 500.0);
    let keep = 1.0 - 1.0 / span;
    let mut sum = 0.0;
    let mut weight = 0.0;
    points
        .iter()
        .map(|(step, value)| {
            sum = keep * sum + value;
            weight = keep * weight + 1.0;
            (*step, sum / weight)
        })
        .collect()
}

/// At most `MAX_POINTS` points that keep the outline: the lowest and highest of each stretch.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MAX_POINTS {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(MAX_POINTS / 2);
    let mut kept = Vec::with_capacity(MAX_POINTS);
    for part in points.chunks(stretch) {
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let low = part.iter().min_by(by_value).copied();
        let high = part.iter().max_by(by_value).copied();
        let mut pair: Vec<_> = low.into_iter().chain(high).collect();
        pair.sort_by(|a, b| a.0.total_cmp(&b.0));
        kept.extend(pair);
    }
    kept
}

/// The values' range with a margin, never empty.
fn bounds<'a>(points: impl Iterator<Item = &'a (f64, f64)>) -> Range<f64> {
    let (low, high) = points.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), point| {
        (low.min(point.1), high.max(point.1))
    });
    let margin = (0.06 * (high - low)).max(0.05);
    low - margin..high + margin
}

/// `800`, `12.5k`, `1.5M`.
fn step_label(step: f64) -> String {
    match step {
        _ if step >= 1e6 => format!("{}M", (step / 1e4).round() / 100.0),
        _ if step >= 1e4 => format!("{}k", (step / 1e2).round() / 10.0),
        _ => format!("{}", step.round()),
    }
}

/// `0`, `5e-4`, `1.5e-3`.
fn rate_label(rate: f64) -> String {
    if rate == 0.0 {
        return "0".to_string();
    }
    let text = format!("{rate:.1e}");
    text.replace(".0e", "e")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Width and height as the PNG header has them, and whether the picture has several colours.
    fn read_png(path: &Path) -> (u32, u32, usize) {
        let bytes = fs::read(path).unwrap();
        assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        (number(16), number(20), bytes.len())
    }

    /// A white page of this size is under 10 kB; text, grid and curves are not.
    #[test]
    fn a_run_is_drawn_with_its_gaps() {
        let dir = tempfile::tempdir().unwrap();
        let mut plot = Plot::new(dir.path());
        for step in 1_u32..=300 {
            let loss = if step == 7 {
                f64::NAN
            } else {
                8.8 / f64::from(step).powf(0.15)
            };
            plot.record_step(u64::from(step), loss, 1e-3);
        }
        plot.record_validation(300, 4.0);
        plot.draw().unwrap();
        let (width, height, num_bytes) = read_png(&dir.path().join("loss.png"));
        assert_eq!((width, height), SIZE);
        assert!(num_bytes > 20_000, "{num_bytes} bytes");
        assert!(!dir.path().join(".loss.unfinished.png").exists());
    }

    /// The first validation may come after a single step, before any, and with no learning rate.
    #[test]
    fn one_step_and_no_step_are_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut plot = Plot::new(dir.path());
        plot.record_validation(0, 8.7);
        plot.draw().unwrap();
        assert!(!dir.path().join("loss.png").exists());
        plot.record_step(1, 8.75, 0.0);
        plot.draw().unwrap();
        assert!(dir.path().join("loss.png").exists());
    }

    /// A folder that is gone stands for every way in which the file cannot be written.
    #[test]
    fn a_picture_that_cannot_be_written_is_an_error_and_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        let mut plot = Plot::new(&dir.path().join("gone"));
        plot.record_step(1, 8.75, 1e-3);
        assert!(plot.draw().is_err());
    }

    /// By hand: 40 points keep half of the past, so 8, 4 gives (0.5 * 8 + 4) / 1.5.
    #[test]
    fn smoothing_starts_without_bias() {
        let points: Vec<_> = (0..80)
            .map(|i| (f64::from(i), if i == 0 { 8.0 } else { 4.0 }))
            .collect();
        let smoothed = smooth(&points);
        assert_eq!(smoothed[0].1, 8.0);
        assert!((smoothed[1].1 - 8.0 / 1.5).abs() < 1e-12);
    }

    /// A single spike among 100,000 steps is still seen.
    #[test]
    fn thinning_keeps_the_outline() {
        let mut points: Vec<_> = (0..100_000).map(|i| (f64::from(i), 1.0)).collect();
        points[54_321].1 = 9.0;
        let kept = thin(&points);
        assert!(kept.len() <= MAX_POINTS);
        assert!(kept.contains(&(54_321.0, 9.0)));
        assert!(kept.is_sorted_by(|a, b| a.0 <= b.0));
    }

    /// By hand.
    #[test]
    fn labels_are_short() {
        let steps = [0.0, 800.0, 2500.0, 12_500.0, 1.5e6].map(step_label);
        assert_eq!(steps, ["0", "800", "2500", "12.5k", "1.5M"]);
        assert_eq!([0.0, 5e-4, 1.5e-3].map(rate_label), ["0", "5e-4", "1.5e-3"]);
    }
}
