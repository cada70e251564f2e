//! Which curves a report draws: a line per run over the steps.

use std::collections::BTreeSet;

use serde::Serialize;

use super::chart::{Line, render_chart, smoothed};
use super::record::{ExpertsPoint, RunRecord, StepPoint, ValidationPoint};

/// Weight of the newest step in a smoothed curve.
const SMOOTHING: f64 = 0.05;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Chart {
    title: String,
    svg: String,
}

/// Charts of everything that moves over a run; those without two points are left out.
pub(super) fn charts(runs: &[RunRecord]) -> Vec<Chart> {
    let per_step = |value: &dyn Fn(&StepPoint) -> Option<f64>, is_noisy: bool| {
        let mut lines = Vec::new();
        for (color, run) in runs.iter().enumerate() {
            let points: Vec<(f64, f64)> = run
                .steps
                .iter()
                .filter_map(|step| Some((step.step as f64, value(step)?)))
                .collect();
            if is_noisy {
                lines.push(Line {
                    color,
                    points: smoothed(&points, SMOOTHING),
                    is_background: false,
                });
            }
            lines.push(Line {
                color,
                points,
                is_background: is_noisy,
            });
        }
        lines
    };
    let speed = |step: &StepPoint| Some(step.tokens as f64 / step.secs.filter(|secs| *secs > 0.0)?);
    let per_validation = |value: fn(&ValidationPoint) -> Option<f64>| {
        let lines = runs.iter().enumerate().map(|(color, run)| {
            let validations = run.validations.iter();
            let points = validations.filter_map(|point| Some((point.step as f64, value(point)?)));
            Line {
                color,
                points: points.collect(),
                is_background: false,
            }
        });
        lines.collect::<Vec<_>>()
    };
    let titles_and_lines = [
        (
            "training loss, nats per token",
            per_step(&|step| step.loss, true),
        ),
        (
            "held-out loss, nats per token",
            per_validation(|point| point.loss),
        ),
        (
            "held-out bits per byte",
            per_validation(|point| point.bits_per_byte),
        ),
        ("learning rate", per_step(&|step| step.lr, false)),
        (
            "gradient norm before clipping",
            per_step(&|step| step.grad_norm, true),
        ),
        ("tokens per second", per_step(&speed, true)),
    ];
    let mut charts: Vec<Chart> = titles_and_lines
        .into_iter()
        .filter_map(|(title, lines)| {
            let (title, svg) = (title.to_owned(), render_chart(&lines)?);
            Some(Chart { title, svg })
        })
        .collect();
    charts.extend(sittings(runs));
    charts.extend(runs.iter().filter_map(expert_loads));
    charts
}

/// A line per expert: its share of the tokens, over all layers.
fn expert_loads(run: &RunRecord) -> Option<Chart> {
    let layers = run.experts.iter().flat_map(|point| &point.layers);
    let num_experts = layers.map(|layer| layer.loads.len()).max()?;
    let share = |point: &ExpertsPoint, expert: usize| {
        let layers = point.layers.iter();
        let own: u64 = layers.filter_map(|layer| layer.loads.get(expert)).sum();
        let all: u64 = point.layers.iter().flat_map(|layer| &layer.loads).sum();
        (all > 0).then(|| (point.step as f64, own as f64 / all as f64))
    };
    let lines: Vec<Line> = (0..num_experts)
        .map(|expert| {
            let points = run.experts.iter();
            Line {
                color: expert,
                points: points.filter_map(|point| share(point, expert)).collect(),
                is_background: false,
            }
        })
        .collect();
    Some(Chart {
        title: format!("expert loads of {}, share of the tokens", run.name),
        svg: render_chart(&lines)?,
    })
}

/// A chart per exam that was sat on the way: accuracy over the steps.
fn sittings(runs: &[RunRecord]) -> Vec<Chart> {
    let points = runs.iter().flat_map(|run| &run.sittings);
    let names: BTreeSet<&String> = points.map(|point| &point.exam).collect();
    let chart = |name: &String| {
        let lines = runs.iter().enumerate().map(|(color, run)| {
            let sittings = run.sittings.iter().filter(|point| point.exam == *name);
            Line {
                color,
                points: sittings
                    .map(|point| (point.step as f64, point.accuracy))
                    .collect(),
                is_background: false,
            }
        });
        Some(Chart {
            title: format!("{name}, share of right answers"),
            svg: render_chart(&lines.collect::<Vec<_>>())?,
        })
    };
    names.into_iter().filter_map(chart).collect()
}
