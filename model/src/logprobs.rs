//! Log-probabilities of tokens and how sure a choice is, from the logits of one position.

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

/// What a token was drawn from, at some temperature and with nothing ruled out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenScore {
    /// The token's log-probability, in nats.
    pub logp: f32,
    /// Entropy of the distribution, in nats.
    pub entropy: f64,
}

impl TokenScore {
    /// Of one token under `softmax(logits / temperature)`; sums are in f64.
    ///
    /// # Panics
    ///
    /// If there is no logit for the token.
    pub fn of(logits: &[f32], token_id: u32, temperature: f64) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let largest = f64::from(largest) / temperature;
        let (mut sum, mut weighted) = (0.0, 0.0);
        for &logit in logits {
            let centred = f64::from(logit) / temperature - largest;
            let weight = centred.exp();
            sum += weight;
            // A weight of 0 adds nothing, however large its logarithm is.
            weighted += if weight > 0.0 { weight * centred } else { 0.0 };
        }
        let normaliser = largest + sum.ln();
        let logit = f64::from(logits[token_id as usize]);
        Self {
            logp: (logit / temperature - normaliser) as f32,
            entropy: sum.ln() - weighted / sum,
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

    /// By hand: shares 1/2, 1/4 and 1/4 have an entropy of 1.5 ln 2; at temperature 0.5 shares are
    /// squared, 2/3, 1/6 and 1/6.
    #[test]
    fn scores_are_those_of_the_temperature() {
        let logits = [2.0_f32.ln(), 0.0, 0.0];
        let found = TokenScore::of(&logits, 0, 1.0);
        assert!((found.entropy - 1.5 * 2.0_f64.ln()).abs() < 1e-6);
        assert!((found.logp - 0.5_f32.ln()).abs() < 1e-6);
        let logp = |id| TokenScore::of(&logits, id, 0.5).logp;
        assert!((logp(0) - (2.0_f32 / 3.0).ln()).abs() < 1e-6);
        assert!((logp(2) - (1.0_f32 / 6.0).ln()).abs() < 1e-6);
    }
}
