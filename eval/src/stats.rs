//! What a count of right answers does and does not say.

use serde::{Deserialize, Serialize};

/// 97.5 % of a standard normal distribution lie below this.
const Z_95: f64 = 1.959_963_984_540_054;

/// A share of right answers with its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Right answers.
    pub num_right: usize,
    /// Questions.
    pub num_total: usize,
    /// Right answers as a share of the questions, from 0 to 1; 0 without questions.
    pub share: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Rate {
    /// Wilson's score interval (Wilson 1927; Brown, Cai and DasGupta 2001, eq. 4): unlike the normal
    /// approximation it holds for few questions and for shares near 0 and 1.
    ///
    /// `(p + z²/2n ± z·sqrt(p(1 − p)/n + z²/4n²)) / (1 + z²/n)`
    pub fn new(num_right: usize, num_total: usize) -> Self {
        if num_total == 0 {
            return Self {
                num_right,
                num_total,
                share: 0.0,
                low: 0.0,
                high: 1.0,
            };
        }
        let (n, z2) = (num_total as f64, Z_95 * Z_95);
        let share = num_right as f64 / n;
        let centre = share + z2 / (2.0 * n);
        let reach = Z_95 * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
        let scale = 1.0 + z2 / n;
        Self {
            num_right,
            num_total,
            share,
            low: ((centre - reach) / scale).max(0.0),
            high: ((centre + reach) / scale).min(1.0),
        }
    }

    /// Whether the interval holds this share, so that the count does not speak against it.
    pub fn may_be(&self, share: f64) -> bool {
        (self.low..=self.high).contains(&share)
    }
}

/// Expected calibration error (Guo et al. 2017, arXiv:1706.04599, eq. 3): how far confidence and
/// accuracy are apart, on average over equally wide bins of confidence; `None` without predictions.
///
/// Each prediction is the probability of the chosen answer and whether it was right.
pub fn expected_calibration_error(predictions: &[(f64, bool)], num_bins: usize) -> Option<f64> {
    if predictions.is_empty() {
        return None;
    }
    let mut bins = vec![(0.0, 0.0); num_bins]; // summed confidence, right answers
    for &(confidence, is_right) in predictions {
        // A bin is open on the left, as in the paper; the first takes 0 as well.
        let bin = (confidence * num_bins as f64).ceil() as usize;
        let bin = &mut bins[bin.clamp(1, num_bins) - 1];
        bin.0 += confidence;
        bin.1 += f64::from(u8::from(is_right));
    }
    let gaps: f64 = bins
        .iter()
        .map(|(confidence, right)| (confidence - right).abs())
        .sum();
    Some(gaps / predictions.len() as f64)
}

/// Probabilities of a few alternatives from their log-probabilities, whatever else was possible.
pub fn softmax(logps: &[f64]) -> Vec<f64> {
    let largest = logps.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logps.iter().map(|logp| (logp - largest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// Place of the largest value; of equal ones the first, as MiniMind decides.
pub fn argmax(values: &[f64]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 81 of 263 is the example of Newcombe 1998 (Statistics in Medicine 17, table I, method 3):
    /// 0.2553 to 0.3662; of 0 of 20 the same table has 0 to 0.1611.
    #[test]
    fn wilson_intervals_are_those_of_newcombes_table() {
        let rate = Rate::new(81, 263);
        assert!((rate.low - 0.2553).abs() < 5e-5, "{rate:?}");
        assert!((rate.high - 0.3662).abs() < 5e-5, "{rate:?}");
        let none = Rate::new(0, 20);
        assert!(none.low.abs() < 1e-12, "{none:?}");
        assert!((none.high - 0.1611).abs() < 5e-5, "{none:?}");
        assert!(Rate::new(0, 0).may_be(0.25));
    }

    /// MiniMind's published 344 of 1346 may be chance, 417 (30.98 %) may not.
    #[test]
    fn an_interval_tells_chance_from_skill() {
        assert!(Rate::new(344, 1346).may_be(0.25));
        assert!(!Rate::new(417, 1346).may_be(0.25));
    }

    /// By hand, two bins: confidences .4 and .3 (one right) and .9 (right):
    /// (|.7 - 1| + |.9 - 1|) / 3.
    #[test]
    fn calibration_error_by_hand() {
        let predictions = [(0.4, true), (0.3, false), (0.9, true)];
        let error = expected_calibration_error(&predictions, 2).unwrap();
        assert!((error - 0.4 / 3.0).abs() < 1e-12, "{error}");
        assert_eq!(expected_calibration_error(&[], 2), None);
        let ends = expected_calibration_error(&[(0.0, false), (1.0, true)], 10).unwrap();
        assert!(ends.abs() < 1e-12);
    }

    /// `ln 3` apart is three to one, whatever is added to both.
    #[test]
    fn softmax_by_hand() {
        let found = softmax(&[-1000.0, -1000.0 + 3.0_f64.ln()]);
        assert!((found[0] - 0.25).abs() < 1e-12 && (found[1] - 0.75).abs() < 1e-12);
        assert_eq!(argmax(&[0.1, 0.4, 0.4, 0.1]), 1);
    }
}
