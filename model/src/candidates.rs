//! Which tokens sampling may choose: temperature, top-k, top-p and min-p, in that order.
//!
//! The order is that of transformers' logits processors. One deviation: top-k keeps exactly `k`
//! tokens and takes the lowest ids among equals, where transformers keeps every token that ties
//! with the last one. Sources: Holtzman et al. 2020, arXiv:1904.09751 (top-p); Nguyen et al. 2024,
//! arXiv:2407.01082 (min-p).

use std::cmp::Ordering;

use crate::generate_config::GenerateConfig;

/// A token that is still in play, with its probability up to a common factor: 1 for the likeliest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) id: u32,
    pub(crate) weight: f64,
}

/// What the filters leave of finite logits, of which `top_logit` is the largest; likeliest first.
pub(crate) fn candidates(
    config: &GenerateConfig,
    logits: &[f32],
    top_logit: f32,
) -> Vec<Candidate> {
    let temperature = config.temperature;
    let mut candidates: Vec<Candidate> = (0..)
        .zip(logits)
        .map(|(id, &logit)| {
            // The maximum goes first, so that no small temperature can overflow.
            let weight = (f64::from(logit - top_logit) / temperature).exp();
            Candidate { id, weight }
        })
        .filter(|candidate| candidate.weight > 0.0)
        .collect();

    let top_k = config.top_k;
    if top_k > 0 && top_k < candidates.len() {
        candidates.select_nth_unstable_by(top_k - 1, likelier_first);
        candidates.truncate(top_k);
    }
    candidates.sort_unstable_by(likelier_first);

    if config.top_p < 1.0 {
        let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
        let enough = config.top_p * total;
        let mut before = 0.0;
        let kept = candidates
            .iter()
            .take_while(|candidate| {
                let is_needed = before < enough;
                before += candidate.weight;
                is_needed
            })
            .count();
        candidates.truncate(kept);
    }
    candidates.retain(|candidate| candidate.weight >= config.min_p);
    candidates
}

fn likelier_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id))
}

/// The candidate at the share `uniform`, in [0, 1), of the whole weight.
pub(crate) fn draw(candidates: &[Candidate], uniform: f64) -> u32 {
    let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    let target = uniform * total;
    let mut reached = 0.0;
    for candidate in candidates {
        reached += candidate.weight;
        if reached > target {
            return candidate.id;
        }
    }
    // Only where `uniform * total` is rounded up to `total`.
    candidates
        .last()
        .expect("the likeliest token passes every filter")
        .id
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Absolute bound on probabilities, whose logits are f32.
    const TOLERANCE: f64 = 1e-6;

    fn sampling() -> GenerateConfig {
        GenerateConfig {
            do_sample: true,
            ..GenerateConfig::greedy(1)
        }
    }

    fn logits_of(probabilities: &[f32]) -> Vec<f32> {
        // The constant shift shows that only differences count.
        probabilities.iter().map(|p| p.ln() + 3.0).collect()
    }

    fn survivors(config: &GenerateConfig, probabilities: &[f32]) -> Vec<Candidate> {
        let logits = logits_of(probabilities);
        let top_logit = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        candidates(config, &logits, top_logit)
    }

    fn surviving_ids(config: &GenerateConfig, probabilities: &[f32]) -> Vec<u32> {
        survivors(config, probabilities)
            .iter()
            .map(|candidate| candidate.id)
            .collect()
    }

    /// Ids 0, 2 and 3 are equally likely behind id 1.
    #[test]
    fn top_k_keeps_exactly_k_and_the_lowest_ids_among_equals() {
        let config = GenerateConfig {
            top_k: 3,
            ..sampling()
        };
        assert_eq!(surviving_ids(&config, &[0.2, 0.4, 0.2, 0.2]), [1, 0, 2]);
        let wide = GenerateConfig {
            top_k: 9,
            ..sampling()
        };
        assert_eq!(surviving_ids(&wide, &[0.2, 0.4, 0.2, 0.2]), [1, 0, 2, 3]);
    }

    /// By hand: the sums before each token are 0, 0.5, 0.8, 0.95.
    #[test]
    fn top_p_keeps_the_smallest_set_that_reaches_it() {
        let probabilities = [0.05, 0.5, 0.15, 0.3];
        for (top_p, expected) in [
            (1e-9, vec![1]),
            (0.49, vec![1]),
            (0.51, vec![1, 3]),
            (0.81, vec![1, 3, 2]),
            (0.96, vec![1, 3, 2, 0]),
            (1.0, vec![1, 3, 2, 0]),
        ] {
            let config = GenerateConfig {
                top_p,
                ..sampling()
            };
            assert_eq!(
                surviving_ids(&config, &probabilities),
                expected,
                "top_p {top_p}"
            );
        }
    }

    /// By hand: 0.2 / 0.5 = 0.4 and 0.05 / 0.5 = 0.1 of the likeliest.
    #[test]
    fn min_p_is_a_share_of_the_likeliest() {
        let probabilities = [0.2, 0.5, 0.25, 0.05];
        let config = GenerateConfig {
            min_p: 0.39,
            ..sampling()
        };
        assert_eq!(surviving_ids(&config, &probabilities), [1, 2, 0]);
        let config = GenerateConfig {
            min_p: 0.41,
            ..sampling()
        };
        assert_eq!(surviving_ids(&config, &probabilities), [1, 2]);
        let config = GenerateConfig {
            min_p: 1.0,
            ..sampling()
        };
        assert_eq!(surviving_ids(&config, &probabilities), [1]);
    }

    /// By hand: alone, top-p 0.5 keeps 0.4 and 0.35; among the two that top-k leaves, the first has
    /// 0.533.
    #[test]
    fn top_p_counts_what_top_k_left() {
        let probabilities = [0.4, 0.35, 0.25];
        let config = GenerateConfig {
            top_p: 0.5,
            ..sampling()
        };
        assert_eq!(surviving_ids(&config, &probabilities), [0, 1]);
        let config = GenerateConfig {
            top_p: 0.5,
            top_k: 2,
            ..sampling()
        };
        assert_eq!(surviving_ids(&config, &probabilities), [0]);
    }

    /// By hand: at temperature 0.5 the shares 0.5, 0.3, 0.2 become 0.658, 0.237, 0.105.
    #[test]
    fn temperature_comes_before_top_p() {
        let probabilities = [0.5, 0.3, 0.2];
        let config = GenerateConfig {
            top_p: 0.6,
            ..sampling()
        };
        assert_eq!(surviving_ids(&config, &probabilities), [0, 1]);
        let config = GenerateConfig {
            top_p: 0.6,
            temperature: 0.5,
            ..sampling()
        };
        assert_eq!(surviving_ids(&config, &probabilities), [0]);
    }

    /// By hand: weights are probabilities over the largest one.
    #[test]
    fn weights_are_relative_probabilities() {
        let candidates = survivors(&sampling(), &[0.2, 0.5, 0.3]);
        for (candidate, (id, weight)) in candidates.iter().zip([(1, 1.0), (2, 0.6), (0, 0.4)]) {
            assert_eq!(candidate.id, id);
            assert!(
                (candidate.weight - weight).abs() < TOLERANCE,
                "{candidate:?}"
            );
        }
    }

    /// By hand: the borders of [0.5, 0.3, 0.2] lie at 0.5 and 0.8.
    #[test]
    fn a_draw_takes_the_candidate_whose_share_it_falls_into() {
        let candidates =
            [(7, 0.5), (1, 0.3), (4, 0.2)].map(|(id, weight)| Candidate { id, weight });
        for (uniform, id) in [
            (0.0, 7),
            (0.49, 7),
            (0.51, 1),
            (0.79, 1),
            (0.81, 4),
            (1.0, 4),
        ] {
            assert_eq!(draw(&candidates, uniform), id, "uniform {uniform}");
        }
    }
}
