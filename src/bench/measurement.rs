//! One measurement, ours or a peer's, in the form that is printed and exchanged.

use ::train::memory::peak_resident;
use serde::{Deserialize, Serialize};

use super::ModelArgs;

/// How fast one program was at one thing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Measurement {
    /// Who was measured.
    pub(super) peer: String,
    /// Trainable numbers of the model.
    pub(super) params: usize,
    /// Type of the weights and of the arithmetic.
    pub(super) dtype: String,
    /// Median tokens per second, over all rows.
    pub(super) tok_s_median: f64,
    /// Tokens per second of the best repetition.
    pub(super) tok_s_best: f64,
    /// Median tokens per second of the prompt, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) prefill_tok_s: Option<f64>,
    /// Largest resident memory of the process, in MiB; none where the system does not say.
    pub(super) peak_mib: Option<f64>,
    /// Threads of the arithmetic.
    pub(super) threads: usize,
    /// Model arithmetic per second (6·N + 6·L·D·T per trained token), in GFLOP/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gflop_s: Option<f64>,
    /// Best large matrix product of the same run, in GFLOP/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) roof_gflop_s: Option<f64>,
}

/// Largest resident memory of this process so far, in MiB; none where the system does not say, nor
/// on a card, which has memory of its own.
pub(super) fn peak_mib(model: &ModelArgs) -> Option<f64> {
    let peak = (model.device == "cpu").then(peak_resident).flatten();
    peak.map(|bytes| bytes as f64 / f64::from(1 << 20))
}

/// Middle value; the mean of the two in the middle of an even number.
///
/// # Panics
///
/// When there is no value.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert!((median(&[4.0, 1.0, 3.0, 100.0]) - 3.5).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 3.0]) - 3.0).abs() < f64::EPSILON);
    }
}
