//! What is reported: a step's measurements, a validation, a sample, an exam's score.

use serde::{Serialize, Serializer};

use crate::examiner::ExamScore;
use crate::stage::Metrics;

/// Measurements of one optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// Optimizer steps done, this one included.
    pub step: u64,
    /// Steps the whole run will take, where that is known (a run limited by minutes does not know).
    #[serde(skip)]
    pub total_steps: Option<u64>,
    /// Passes over the training data, as a fraction.
    pub epoch: f64,
    /// Mean loss per term of the step: in nats per supervised token, or per pair of answers.
    pub loss: f64,
    /// Learning rate that the step used.
    pub lr: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Useful tokens of the step: all but padding.
    pub tokens: u64,
    /// Terms of the step's loss: tokens that carry a label, or pairs of answers.
    pub supervised: u64,
    /// Useful tokens since the start of the run, this step included.
    pub total_tokens: u64,
    /// Wall time of the step, in seconds.
    pub secs: f64,
    /// Share of `secs` spent waiting for the loader, in seconds.
    pub data_wait_secs: f64,
    /// Steps skipped since the start of the run (not finite, or without a supervised token).
    pub skipped: u64,
    /// What else the stage measures, each number a field of its own.
    #[serde(flatten, serialize_with = "as_fields")]
    pub metrics: Metrics,
}

/// Result of one pass over the held-out split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValidationReport {
    /// Optimizer steps done before the pass.
    pub step: u64,
    /// Mean negative log-likelihood per supervised token, in nats.
    pub loss: f64,
    /// Negative log-likelihood in bits per UTF-8 byte of text: comparable between tokenizers.
    /// `None` where the loss is no likelihood of text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_byte: Option<f64>,
    /// What else the stage measures, each number a field of its own.
    #[serde(flatten, serialize_with = "as_fields")]
    pub metrics: Metrics,
}

/// A continuation of a fixed prompt by the model in training.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SampleReport {
    /// Optimizer steps done before sampling.
    pub step: u64,
    /// Text the model was given.
    pub prompt: String,
    /// Text the model added.
    pub text: String,
}

/// Score of an exam that the model in training has sat.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExamReport {
    /// Optimizer steps done before the exam.
    pub step: u64,
    /// Right answers and their interval.
    #[serde(flatten)]
    pub score: ExamScore,
}

fn as_fields<S: Serializer>(metrics: &Metrics, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(metrics.iter().copied())
}
