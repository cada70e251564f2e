//! What the experts of a step did, and `experts.png`: their loads over the run.

use std::fs;
use std::path::{Path, PathBuf};

use model::experts::max_violation;
use plotters::prelude::*;
use serde::{Deserialize, Deserializer, Serialize};

use super::plot::{PlotError, register_plot_font};
use crate::routing::LayerRouting;
use crate::run_folder::UNFINISHED_EXPERTS;

/// Work of the experts in one optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpertsReport {
    /// Optimizer steps done, this one included.
    pub step: u64,
    /// Tokens that did not reach an expert they were sent to: always 0, no expert has a capacity.
    pub dropped: u64,
    /// One for each layer that has experts.
    pub layers: Vec<LayerReport>,
}

/// Work of the experts of one layer in one optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Number of the layer, from 0.
    pub layer: usize,
    /// Tokens that each expert was sent.
    pub loads: Vec<u64>,
    /// Mean entropy of the router's scores, in nats; the logarithm of the number of experts where
    /// it has no preference.
    #[serde(deserialize_with = "number_or_nan")]
    pub entropy: f64,
    /// Auxiliary loss before its coefficient; 1 when all experts are equally busy.
    #[serde(deserialize_with = "number_or_nan")]
    pub balance: f64,
    /// How far the busiest expert is above an equal load, as a share of it.
    pub max_violation: f64,
}

impl ExpertsReport {
    /// The report of a step; `None` for a model without experts.
    pub fn new(step: u64, supervised: u64, work: &[LayerRouting]) -> Option<Self> {
        let layer = |work: &LayerRouting| LayerReport {
            layer: work.layer,
            loads: work.loads.clone(),
            entropy: work.entropy_sum / work.num_tokens.max(1) as f64,
            balance: work.balance_sum / supervised.max(1) as f64,
            max_violation: max_violation(&work.loads),
        };
        (!work.is_empty()).then(|| Self {
            step,
            dropped: 0,
            layers: work.iter().map(layer).collect(),
        })
    }

    /// Means over the layers: entropy, auxiliary loss, violation; and the worst violation.
    pub(super) fn summary(&self) -> [f64; 4] {
        let count = self.layers.len().max(1) as f64;
        let mean =
            |value: fn(&LayerReport) -> f64| self.layers.iter().map(value).sum::<f64>() / count;
        let worst = self.layers.iter().map(|layer| layer.max_violation);
        [
            mean(|layer| layer.entropy),
            mean(|layer| layer.balance),
            mean(|layer| layer.max_violation),
            worst.fold(0.0, f64::max),
        ]
    }
}

/// A number, where `null` is one that was not finite and that JSON has no sign for.
fn number_or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Option::<f64>::deserialize(deserializer).map(|number| number.unwrap_or(f64::NAN))
}

/// Columns of the picture at most: stretches of the run.
const MAX_COLUMNS: usize = 200;
const SIZE: (u32, u32) = (1600, 1000);
const INK: RGBColor = RGBColor(31, 41, 55);
const MUTED: RGBColor = RGBColor(107, 114, 128);

/// Loads of every expert over the run.
pub(super) struct LoadMap {
    path: PathBuf,
    layers: Vec<usize>,
    /// For each step the share of its layer's tokens that each expert had, against an equal one.
    shares: Vec<(u64, Vec<f32>)>,
}

impl LoadMap {
    /// An empty picture of the run in `run_dir`.
    pub(super) fn new(run_dir: &Path) -> Self {
        Self {
            path: run_dir.join("experts.png"),
            layers: Vec::new(),
            shares: Vec::new(),
        }
    }

    pub(super) fn record(&mut self, report: &ExpertsReport) {
        self.layers = report
            .layers
            .iter()
            .flat_map(|layer| std::iter::repeat_n(layer.layer, layer.loads.len()))
            .collect();
        let shares = report.layers.iter().flat_map(|layer| {
            let equal = layer.loads.iter().sum::<u64>() as f64 / layer.loads.len() as f64;
            let share = move |load: &u64| (*load as f64 / equal.max(1.0)) as f32;
            layer.loads.iter().map(share).collect::<Vec<_>>()
        });
        self.shares.push((report.step, shares.collect()));
    }

    /// Replaces the picture by one of all steps so far; without any it is left alone.
    pub(super) fn draw(&self) -> Result<(), PlotError> {
        let (Some((first, _)), Some((last, _))) = (self.shares.first(), self.shares.last()) else {
            return Ok(());
        };
        register_plot_font()?;
        let unfinished = self.path.with_file_name(UNFINISHED_EXPERTS);
        {
            let canvas = BitMapBackend::new(&unfinished, SIZE).into_drawing_area();
            canvas.fill(&WHITE)?;
            let title = ("sans-serif", 38).into_font().color(&INK);
            canvas.draw(&Text::new("load of every expert", (90, 24), title))?;
            let muted = ("sans-serif", 25).into_font().color(&MUTED);
            let legend = format!(
                "steps {first} to {last}   ·   white: equal share   ·   blue: idle   ·   orange: twice its share or more"
            );
            canvas.draw(&Text::new(legend, (90, 72), muted.clone()))?;
            let (left, top) = (90, 120);
            let (width, height) = (SIZE.0 as i32 - left - 30, SIZE.1 as i32 - top - 30);
            let columns = self.columns();
            let rows = self.layers.len() as i32;
            let num_columns = columns.len() as i32;
            for (column, shares) in (0..).zip(&columns) {
                for (row, share) in (0..).zip(shares) {
                    let corner = |column: i32, row: i32| {
                        (
                            left + column * width / num_columns,
                            top + row * height / rows,
                        )
                    };
                    let area = [corner(column, row), corner(column + 1, row + 1)];
                    canvas.draw(&Rectangle::new(area, load_color(*share).filled()))?;
                }
            }
            for (row, layer) in (0..).zip(&self.layers) {
                let y = top + row * height / rows;
                if row == 0 || self.layers[row as usize - 1] != *layer {
                    canvas.draw(&PathElement::new(
                        [(left, y), (left + width, y)],
                        MUTED.stroke_width(2),
                    ))?;
                    let name = format!("layer {layer}");
                    canvas.draw(&Text::new(name, (8, y + 6), muted.clone()))?;
                }
            }
            canvas.present()?;
        }
        fs::rename(&unfinished, &self.path)?;
        Ok(())
    }

    /// Means over stretches of the run.
    fn columns(&self) -> Vec<Vec<f32>> {
        let stretch = self.shares.len().div_ceil(MAX_COLUMNS);
        let mean = |steps: &[(u64, Vec<f32>)]| {
            let mut sum = vec![0.0; self.layers.len()];
            for (_, shares) in steps {
                for (sum, share) in sum.iter_mut().zip(shares) {
                    *sum += share / steps.len() as f32;
                }
            }
            sum
        };
        self.shares.chunks(stretch).map(mean).collect()
    }
}

/// White at an equal share, blue towards none, orange towards twice of it.
fn load_color(share: f32) -> RGBColor {
    let (end, weight) = if share < 1.0 {
        (RGBColor(37, 99, 235), 1.0 - share)
    } else {
        (RGBColor(234, 88, 12), (share - 1.0).min(1.0))
    };
    let mix = |end: u8| (255.0 - (255.0 - f32::from(end)) * weight).round() as u8;
    RGBColor(mix(end.0), mix(end.1), mix(end.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(layer: usize, loads: [u64; 4]) -> LayerRouting {
        LayerRouting {
            layer,
            loads: loads.to_vec(),
            entropy_sum: 10.0,
            balance_sum: 30.0,
            num_tokens: 10,
        }
    }

    /// By hand: sums over 10 tokens, 20 of them trained on; half of the load on one of four.
    #[test]
    fn a_report_holds_means_of_sums() {
        let work = [work(1, [10, 5, 3, 2]), work(2, [5, 5, 5, 5])];
        let report = ExpertsReport::new(7, 20, &work).unwrap();
        assert_eq!((report.step, report.dropped), (7, 0));
        let layer = &report.layers[0];
        assert_eq!(layer.loads, [10, 5, 3, 2]);
        for (found, expected) in [
            (layer.entropy, 1.0),
            (layer.balance, 1.5),
            (layer.max_violation, 1.0),
            (report.summary()[2], 0.5),
            (report.summary()[3], 1.0),
        ] {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        assert_eq!(ExpertsReport::new(7, 20, &[]), None);
    }

    /// White, blue and orange at 1, 0 and 2 or more.
    #[test]
    fn colors_say_idle_equal_and_busy() {
        assert_eq!(load_color(1.0), RGBColor(255, 255, 255));
        assert_eq!(load_color(0.0), RGBColor(37, 99, 235));
        assert_eq!(load_color(4.0), RGBColor(234, 88, 12));
    }

    /// More steps than columns, and one alone.
    #[test]
    fn a_run_is_drawn() {
        for num_steps in [1, 450] {
            let dir = tempfile::tempdir().unwrap();
            let mut map = LoadMap::new(dir.path());
            map.draw().unwrap();
            assert!(!dir.path().join("experts.png").exists());
            for step in 1..=num_steps {
                let work = [work(0, [step, 5, 3, 2]), work(1, [5, 5, 5, 5])];
                map.record(&ExpertsReport::new(step, 20, &work).unwrap());
            }
            map.draw().unwrap();
            let bytes = fs::read(dir.path().join("experts.png")).unwrap();
            assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
            assert!(bytes.len() > 5_000, "{} bytes", bytes.len());
        }
    }
}
