//! Lines of `metrics.jsonl`: as they are written, and what must be read back of them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ExamReport, ExpertsReport, SampleReport, StepReport, ValidationReport};

/// A line to be written; its `kind` is the variant's name.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Record<'a> {
    Step(&'a StepReport),
    Experts(&'a ExpertsReport),
    Validation(&'a ValidationReport),
    Sample(&'a SampleReport),
    Exam(&'a ExamReport),
    Note { step: u64, text: &'a str },
}

impl Record<'_> {
    /// Numbers of the record that JSON may be unable to hold.
    fn floats(&self) -> Vec<(String, f64)> {
        let named = |floats: &[(&str, f64)]| -> Vec<(String, f64)> {
            let floats = floats.iter();
            floats
                .map(|(name, float)| ((*name).to_owned(), *float))
                .collect()
        };
        match self {
            Self::Step(report) => {
                let own = [
                    ("epoch", report.epoch),
                    ("loss", report.loss),
                    ("lr", report.lr),
                    ("grad_norm", report.grad_norm),
                    ("secs", report.secs),
                    ("data_wait_secs", report.data_wait_secs),
                ];
                named(&[&own, report.metrics.as_slice()].concat())
            }
            Self::Validation(report) => {
                let mut floats = vec![("loss", report.loss)];
                floats.extend(report.bits_per_byte.map(|bits| ("bits_per_byte", bits)));
                floats.extend(report.metrics.iter().copied());
                named(&floats)
            }
            Self::Experts(report) => {
                let layers = report.layers.iter().enumerate();
                let floats = layers.flat_map(|(place, layer)| {
                    [
                        (format!("layers.{place}.entropy"), layer.entropy),
                        (format!("layers.{place}.balance"), layer.balance),
                    ]
                });
                floats.collect()
            }
            Self::Sample(_) | Self::Exam(_) | Self::Note { .. } => Vec::new(),
        }
    }

    /// The line without its line feed; `non_finite` keeps what JSON has no number for.
    pub(super) fn to_json(&self) -> serde_json::Result<String> {
        let mut value = serde_json::to_value(self)?;
        let non_finite: Map<String, Value> = self
            .floats()
            .into_iter()
            .filter(|(_, number)| !number.is_finite())
            .map(|(name, number)| (name, Value::String(number.to_string())))
            .collect();
        if !non_finite.is_empty() {
            value["non_finite"] = Value::Object(non_finite);
        }
        serde_json::to_string(&value)
    }
}

/// What a line must hold to be continued and drawn; `None` is a number that was not finite.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Row {
    Step {
        step: u64,
        loss: Option<f64>,
        lr: Option<f64>,
    },
    Experts(ExpertsReport),
    Validation {
        step: u64,
        loss: Option<f64>,
        bits_per_byte: Option<f64>,
    },
    Sample {
        step: u64,
    },
    Exam {
        step: u64,
    },
    Note {
        step: u64,
    },
}

impl Row {
    pub(super) fn step(&self) -> u64 {
        match self {
            Self::Step { step, .. }
            | Self::Validation { step, .. }
            | Self::Sample { step }
            | Self::Exam { step }
            | Self::Note { step } => *step,
            Self::Experts(report) => report.step,
        }
    }
}
