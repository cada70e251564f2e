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

use super::curve::{bounds, push_finite, smooth, thin};
use super::record::Row;
use crate::run_folder::UNFINISHED_LOSS;

type Canvas<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
pub(super) type PlotError = Box<dyn Error + Send + Sync>;

/// Drawn at twice the size and averaged down, because thick lines come out with rough edges.
const DRAWN: (u32, u32) = (2 * SIZE.0, 2 * SIZE.1);
const SIZE: (u32, u32) = (1600, 1000);
// What follows is in pixels of the drawing, twice those of the picture.
const LEFT: u32 = 180;
const RIGHT: u32 = 120;
const TITLE: u32 = 76;
const TEXT: u32 = 50;
const LABEL: u32 = 46;

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
    loss: Vec<(u64, f64)>,
    lr: Vec<(u64, f64)>,
    validation: Vec<(u64, f64)>,
    bits_per_byte: f64,
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
            bits_per_byte: f64::NAN,
        }
    }

    pub(super) fn record_step(&mut self, step: u64, loss: f64, lr: f64) {
        push_finite(&mut self.loss, step, loss);
        push_finite(&mut self.lr, step, lr);
    }

    pub(super) fn record_validation(&mut self, step: u64, loss: f64, bits_per_byte: f64) {
        push_finite(&mut self.validation, step, loss);
        self.bits_per_byte = bits_per_byte;
    }

    /// Takes over a line of `metrics.jsonl` that an earlier part of the run wrote.
    pub(super) fn record_row(&mut self, row: &Row) {
        let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
        match *row {
            Row::Step { step, loss, lr } => self.record_step(step, number(loss), number(lr)),
            Row::Validation {
                step,
                loss,
                bits_per_byte,
            } => self.record_validation(step, number(loss), number(bits_per_byte)),
            Row::Experts(_) | Row::Sample { .. } | Row::Exam { .. } | Row::Note { .. } => {}
        }
    }

    /// Replaces the picture by one of all points so far; a curve without points leaves it alone.
    pub(super) fn draw(&self) -> Result<(), PlotError> {
        let (Some(first), Some(last)) = (self.loss.first(), self.loss.last()) else {
            return Ok(());
        };
        let steps = first.0.min(1)..last.0.max(first.0 + 1);
        register_plot_font()?;
        let mut drawn = vec![0; 3 * (DRAWN.0 * DRAWN.1) as usize];
        {
            let canvas = BitMapBackend::with_buffer(&mut drawn, DRAWN).into_drawing_area();
            canvas.fill(&WHITE)?;
            let (head, body) = canvas.split_vertically(230);
            let (upper, lower) = body.split_vertically(1200);
            self.draw_head(&head)?;
            self.draw_losses(&upper, steps.clone())?;
            self.draw_rate(&lower, steps)?;
            canvas.present()?;
        }
        // A viewer that watches the file must never see half a picture.
        let unfinished = self.path.with_file_name(UNFINISHED_LOSS);
        let averaged = BitMapElement::with_owned_buffer((0, 0), SIZE, half_size(&drawn))
            .ok_or("the picture has another size than its buffer")?;
        let canvas = BitMapBackend::new(&unfinished, SIZE).into_drawing_area();
        canvas.draw(&averaged)?;
        canvas.present()?;
        fs::rename(&unfinished, &self.path)?;
        Ok(())
    }

    /// The run's name, where it stands, and what the lines are.
    fn draw_head(&self, area: &Canvas<'_>) -> Result<(), PlotError> {
        let left = LEFT as i32;
        let title = ("sans-serif", TITLE).into_font().color(&INK);
        area.draw(&Text::new(self.title.clone(), (left, 40), title))?;
        let muted = ("sans-serif", TEXT).into_font().color(&MUTED);
        area.draw(&Text::new(self.standing(), (left, 136), muted.clone()))?;

        let mut x = (DRAWN.0 - RIGHT) as i32;
        for (name, mark) in [
            ("validation", None),
            ("smoothed", Some(TRAIN.stroke_width(6))),
            ("training", Some(TRAIN.mix(0.35).stroke_width(4))),
        ] {
            x -= area.estimate_text_size(name, &muted)?.0 as i32;
            area.draw(&Text::new(name, (x, 136), muted.clone()))?;
            x -= 70;
            let y = 148;
            match mark {
                Some(stroke) => area.draw(&PathElement::new([(x, y), (x + 54, y)], stroke))?,
                None => area.draw(&Circle::new((x + 38, y), 12, VALIDATION.filled()))?,
            }
            x -= 50;
        }
        Ok(())
    }

    /// `step 300 · training 4.123 · validation 4.210 · 1.932 bits/byte`.
    fn standing(&self) -> String {
        let recent = &self.loss[self.loss.len() - self.loss.len().div_ceil(40)..];
        let mean = recent.iter().map(|point| point.1).sum::<f64>() / recent.len() as f64;
        let last_step = self.loss.last().map_or(0, |point| point.0);
        let mut parts = vec![format!("step {last_step}"), format!("training {mean:.3}")];
        if let Some((_, loss)) = self.validation.last() {
            parts.push(format!("validation {loss:.3}"));
        }
        if self.bits_per_byte.is_finite() {
            parts.push(format!("{:.3} bits/byte", self.bits_per_byte));
        }
        parts.join("   ·   ")
    }

    /// Training loss of each step and smoothed, validation loss as points.
    fn draw_losses(&self, area: &Canvas<'_>, steps: Range<u64>) -> Result<(), PlotError> {
        draw_caption(area, "loss, nats per token")?;
        let smoothed = smooth(&self.loss);
        let heights = bounds(smoothed.iter().chain(&self.validation));
        let mut chart = ChartBuilder::on(area)
            .margin_top(80)
            .margin_right(RIGHT)
            .x_label_area_size(20)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(steps, heights.clone())?;
        chart
            .configure_mesh()
            .x_labels(12)
            .y_labels(10)
            .x_label_formatter(&|_| String::new())
            .y_label_formatter(&|loss| loss_label(*loss, &heights))
            .label_style(("sans-serif", LABEL).into_font().color(&MUTED))
            .axis_style(GRID.stroke_width(4))
            .bold_line_style(GRID.stroke_width(2))
            .light_line_style(TRANSPARENT)
            .draw()?;

        let shown = |(step, loss): (u64, f64)| (step, loss.clamp(heights.start, heights.end));
        let each_step = thin(&self.loss).into_iter().map(shown);
        // Wider lines would get spikes where they turn back sharply.
        let faint = TRAIN.mix(0.5).stroke_width(1);
        chart.draw_series(LineSeries::new(each_step, faint))?;
        chart.draw_series(LineSeries::new(thin(&smoothed), TRAIN.stroke_width(6)))?;
        chart.draw_series(LineSeries::new(
            self.validation.iter().copied(),
            VALIDATION.mix(0.6).stroke_width(4),
        ))?;
        // A white rim makes the points stand out on the lines below them.
        for (radius, color) in [(17, WHITE), (12, VALIDATION)] {
            let dots = self.validation.iter();
            chart.draw_series(dots.map(|point| Circle::new(*point, radius, color.filled())))?;
        }
        Ok(())
    }

    /// The learning rate on the same steps.
    fn draw_rate(&self, area: &Canvas<'_>, steps: Range<u64>) -> Result<(), PlotError> {
        draw_caption(area, "learning rate")?;
        let highest = self
            .lr
            .iter()
            .map(|point| point.1)
            .fold(f64::MIN_POSITIVE, f64::max);
        let mut chart = ChartBuilder::on(area)
            .margin_top(80)
            .margin_bottom(30)
            .margin_right(RIGHT)
            .x_label_area_size(140)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(steps, 0.0..highest * 1.08)?;
        chart
            .configure_mesh()
            .x_labels(12)
            .y_labels(5)
            .x_desc("optimizer step")
            .x_label_formatter(&|step| step_label(*step))
            .y_label_formatter(&|rate| rate_label(*rate))
            .label_style(("sans-serif", LABEL).into_font().color(&MUTED))
            .axis_desc_style(("sans-serif", TEXT).into_font().color(&INK))
            .axis_style(GRID.stroke_width(4))
            .bold_line_style(GRID.stroke_width(2))
            .light_line_style(TRANSPARENT)
            .draw()?;
        chart.draw_series(LineSeries::new(thin(&self.lr), RATE.stroke_width(6)))?;
        Ok(())
    }
}

/// Makes the embedded font the one that is drawn with.
pub(super) fn register_plot_font() -> Result<(), PlotError> {
    register_font("sans-serif", FontStyle::Normal, UBUNTU_LIGHT)
        .map_err(|_| "the embedded font is not valid".into())
}

fn draw_caption(area: &Canvas<'_>, text: &'static str) -> Result<(), PlotError> {
    let style = ("sans-serif", TEXT).into_font().color(&INK);
    area.draw(&Text::new(text, (LEFT as i32, 14), style))?;
    Ok(())
}

/// The RGB picture at half its size, each pixel the mean of four.
fn half_size(drawn: &[u8]) -> Vec<u8> {
    let stride = 3 * DRAWN.0 as usize;
    let mut half = Vec::with_capacity(drawn.len() / 4);
    for rows in drawn.chunks_exact(2 * stride) {
        let (upper, lower) = rows.split_at(stride);
        for (a, b) in upper.chunks_exact(6).zip(lower.chunks_exact(6)) {
            for channel in 0..3 {
                let four = [a[channel], a[channel + 3], b[channel], b[channel + 3]];
                half.push((four.map(u16::from).iter().sum::<u16>() / 4) as u8);
            }
        }
    }
    half
}

/// As many decimals as the axis needs: one where it spans whole nats.
fn loss_label(loss: f64, heights: &Range<f64>) -> String {
    let decimals = if heights.end - heights.start > 0.5 {
        1
    } else {
        2
    };
    format!("{loss:.decimals$}")
}

/// `800`, `12.5k`, `1.5M`.
fn step_label(step: u64) -> String {
    match step as f64 {
        step if step >= 1e6 => format!("{}M", (step / 1e4).round() / 100.0),
        step if step >= 1e4 => format!("{}k", (step / 1e2).round() / 10.0),
        step => format!("{step}"),
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
        plot.record_validation(300, 4.0, 1.5);
        plot.draw().unwrap();
        let (width, height, num_bytes) = read_png(&dir.path().join("loss.png"));
        assert_eq!((width, height), SIZE);
        assert!(num_bytes > 20_000, "{num_bytes} bytes");
        assert!(!dir.path().join(UNFINISHED_LOSS).exists());
    }

    /// The first validation may come after a single step, before any, and with no learning rate.
    #[test]
    fn one_step_and_no_step_are_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut plot = Plot::new(dir.path());
        plot.record_validation(0, 8.7, 3.5);
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

    /// By hand: the training loss is the mean of the last fortieth, four of 160 losses.
    #[test]
    fn the_head_says_where_the_run_stands() {
        let mut plot = Plot::new(Path::new("out/1-pretrain"));
        for step in 1..=160 {
            plot.record_step(step, if step > 156 { 3.0 } else { 9.0 }, 1e-3);
        }
        assert_eq!(plot.standing(), "step 160   ·   training 3.000");
        plot.record_validation(160, 3.5, 1.25);
        assert_eq!(
            plot.standing(),
            "step 160   ·   training 3.000   ·   validation 3.500   ·   1.250 bits/byte"
        );
    }

    /// By hand.
    #[test]
    fn labels_are_short() {
        let steps = [0, 800, 2500, 12_500, 1_500_000].map(step_label);
        assert_eq!(steps, ["0", "800", "2500", "12.5k", "1.5M"]);
        assert_eq!([0.0, 5e-4, 1.5e-3].map(rate_label), ["0", "5e-4", "1.5e-3"]);
    }
}
