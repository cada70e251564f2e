//! Log-probabilities of tokens, from the logits of one position.

use std::cmp::Ordering;

/// A token's log-probability in nats, and those of the likeliest tokens in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// The token.
    pub token_id: u32,
    /// Its log-probability.
    pub logprob: f32,
    /// Ids with their log-probabilities, likeliest first, the lowest id first among equals.
    pub top: Vec<(u32, f32)>,
}

impl TokenLogprobs {
    /// Of one token under the softmax of all logits; sums are in f64.
    ///
    /// # Panics
    ///
    /// If there is no logit for the token.
    pub fn of(logits: &[f32], token_id: u32, num_top: usize) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits
            .iter()
            .map(|&logit| f64::from(logit - largest).exp())
            .sum();
        let normaliser = f64::from(largest) + sum.ln();
        let logprob = |logit: f32| (f64::from(logit) - normaliser) as f32;
        let mut top: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        let likelier_first = |a: &(u32, f32), b: &(u32, f32)| -> Ordering {
            b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
        };
        if num_top < top.len() {
            top.select_nth_unstable_by(num_top, likelier_first);
            top.truncate(num_top);
        }
        top.sort_unstable_by(likelier_first);
        for (_, logit) in &mut top {
            *logit = logprob(*logit);
        }
        Self {
            token_id,
            logprob: logprob(logits[token_id as usize]),
            top,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: the shares are 1/8, 1/2, 1/4 and 1/8, whatever is added to all logits.
    #[test]
    fn log_probabilities_are_those_of_the_softmax() {
        let logits = [1.0_f32, 4.0, 2.0, 1.0].map(|share| share.ln() + 50.0);
        let found = TokenLogprobs::of(&logits, 2, 3);
        let expected = [(1, 0.5_f32), (2, 0.25), (0, 0.125)];
        assert!((found.logprob - 0.25_f32.ln()).abs() < 1e-5);
        assert_eq!(found.top.len(), 3);
        for ((id, logprob), (expected_id, share)) in found.top.into_iter().zip(expected) {
            assert_eq!(id, expected_id);
            assert!((logprob - share.ln()).abs() < 1e-5);
        }
        assert!(TokenLogprobs::of(&logits, 0, 0).top.is_empty());
        assert_eq!(TokenLogprobs::of(&logits, 0, 9).top.len(), 4);
    }
}
