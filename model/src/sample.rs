//! From logits to the next token of a row: penalties first, then the choice.
//!
//! Penalties are the host's affair; a choice without them can be made where the logits are
//! ([`choose_tokens`](crate::kernels::choose_tokens)).
//!
//! Penalties: repetition after Keskar et al. 2019, arXiv:1909.05858, with the sign corrected for
//! negative logits; presence and frequency as OpenAI's API defines them.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::candidates::{candidates, draw};
use crate::generate_config::GenerateConfig;

/// Chooses the tokens of one row; its random numbers depend on its own seed only, so a row's text
/// does not depend on the batch it is in.
#[derive(Debug, Clone)]
pub struct Sampler {
    config: GenerateConfig,
    /// Ids of the prompt and the answer, with how often the answer holds each.
    seen: BTreeMap<u32, u32>,
    rng: ChaCha8Rng,
}

/// The logits hold a NaN or a positive infinity, or nothing but negative infinities: no token can
/// be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the logits are not finite")]
pub struct LogitsNotFinite;

impl Sampler {
    /// A sampler for one row; the prompt counts for the repetition penalty only.
    pub fn new(config: &GenerateConfig, prompt_ids: &[u32], seed: u64) -> Self {
        Self {
            config: config.clone(),
            seen: prompt_ids.iter().map(|&id| (id, 0)).collect(),
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// Chooses the next token and remembers it; `logits` is scratch space afterwards.
    ///
    /// Among equally likely tokens the lowest id comes first.
    ///
    /// # Errors
    ///
    /// Logits that are not finite. Negative infinity is allowed where another token is possible.
    pub fn sample(&mut self, logits: &mut [f32]) -> Result<u32, LogitsNotFinite> {
        self.penalise(logits);
        let id = self.next_choice().of(logits)?;
        self.remember(id);
        Ok(id)
    }

    /// Whether a token's logit depends on the tokens before it.
    pub fn has_penalties(&self) -> bool {
        let config = &self.config;
        [
            config.repetition_penalty - 1.0,
            config.presence_penalty,
            config.frequency_penalty,
        ]
        .iter()
        .any(|&penalty| penalty != 0.0)
    }

    /// How the next token is chosen of logits that hold the penalties; each call is one token's.
    pub fn next_choice(&mut self) -> Choice<'_> {
        // One number per token, whatever the filters leave: a setting shifts no later draw.
        let uniform = if self.config.is_greedy() {
            0.0
        } else {
            self.rng.random::<f64>()
        };
        Choice {
            config: &self.config,
            uniform,
        }
    }

    /// Says which token was chosen.
    pub fn remember(&mut self, token_id: u32) {
        *self.seen.entry(token_id).or_insert(0) += 1;
    }

    fn penalise(&self, logits: &mut [f32]) {
        let repetition = self.config.repetition_penalty as f32;
        let presence = self.config.presence_penalty as f32;
        let frequency = self.config.frequency_penalty as f32;
        for (&id, &count) in &self.seen {
            let Some(logit) = logits.get_mut(id as usize) else {
                continue;
            };
            // A division would make a negative logit likelier.
            *logit = if *logit > 0.0 {
                *logit / repetition
            } else {
                *logit * repetition
            };
            if count > 0 {
                *logit -= presence + frequency * count as f32;
            }
        }
    }
}

/// How one token is chosen.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// Temperature and filters; the penalties are in the logits already.
    pub config: &'a GenerateConfig,
    /// Where in the distribution the token lies, in [0, 1), likeliest tokens first; greedy choices
    /// do not ask.
    pub uniform: f64,
}

impl Choice<'_> {
    /// The token that is chosen of these logits; among equally likely ones the lowest id comes first.
    ///
    /// # Errors
    ///
    /// Logits that are not finite. Negative infinity is allowed where another token is possible.
    pub fn of(&self, logits: &[f32]) -> Result<u32, LogitsNotFinite> {
        let (likeliest, top_logit) = likeliest_token(logits)?;
        if self.config.is_greedy() {
            return Ok(likeliest);
        }
        let candidates = candidates(self.config, logits, top_logit);
        Ok(draw(&candidates, self.uniform))
    }
}

/// The lowest id among the tokens with the largest logit, and that logit.
fn likeliest_token(logits: &[f32]) -> Result<(u32, f32), LogitsNotFinite> {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &logit) in (0..).zip(logits) {
        if logit.is_nan() || logit == f32::INFINITY {
            return Err(LogitsNotFinite);
        }
        if logit > best.1 {
            best = (id, logit);
        }
    }
    if best.1.is_finite() {
        Ok(best)
    } else {
        Err(LogitsNotFinite)
    }
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

    fn chosen(config: &GenerateConfig, prompt_ids: &[u32], logits: &[f32]) -> u32 {
        Sampler::new(config, prompt_ids, 0)
            .sample(&mut logits.to_vec())
            .unwrap()
    }

    /// Ids 1 and 3 tie.
    #[test]
    fn greedy_takes_the_lowest_of_the_likeliest_ids() {
        assert_eq!(
            chosen(&GenerateConfig::greedy(1), &[], &[0.0, 2.0, 1.0, 2.0]),
            1
        );
    }

    /// By definition; the seed would choose id 2 in about a third of the draws.
    #[test]
    fn temperature_zero_is_greedy() {
        let config = GenerateConfig {
            temperature: 0.0,
            ..sampling()
        };
        let mut sampler = Sampler::new(&config, &[], 5);
        for _ in 0..32 {
            assert_eq!(sampler.sample(&mut [0.0, 0.1, 0.0]).unwrap(), 1);
        }
    }

    /// A temperature below 1e-38 would make infinities of the scaled logits.
    #[test]
    fn a_tiny_temperature_takes_the_likeliest_token() {
        let config = GenerateConfig {
            temperature: 1e-300,
            ..sampling()
        };
        assert_eq!(chosen(&config, &[], &[50.0, 80.0, 79.0]), 1);
    }

    /// By hand: 3 / 2 = 1.5 and -1 * 2 = -2; a division of the negative logit would have left -0.5.
    #[test]
    fn repetition_penalty_divides_positive_and_multiplies_negative_logits() {
        let config = GenerateConfig {
            repetition_penalty: 2.0,
            ..sampling()
        };
        let mut logits = [3.0, -1.0, 0.5, -0.25];
        Sampler::new(&config, &[0, 1, 1], 0).penalise(&mut logits);
        assert_eq!(
            logits.map(f32::to_bits),
            [1.5, -2.0, 0.5, -0.25].map(f32::to_bits)
        );
    }

    /// By hand: id 0 is in the prompt only, id 1 was answered once, id 2 twice; 4 - 0.5 - n * 0.25.
    #[test]
    fn presence_and_frequency_count_the_answer_and_not_the_prompt() {
        let config = GenerateConfig {
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            ..GenerateConfig::greedy(1)
        };
        let mut sampler = Sampler::new(&config, &[0, 1], 0);
        for id in [2_usize, 1, 2] {
            let mut logits = [0.0; 4];
            logits[id] = 100.0;
            assert_eq!(sampler.sample(&mut logits).unwrap(), id as u32);
        }
        let mut logits = [4.0; 4];
        sampler.penalise(&mut logits);
        assert_eq!(
            logits.map(f32::to_bits),
            [4.0, 3.25, 3.0, 4.0].map(f32::to_bits)
        );
    }

    /// The prompt of one model may hold ids that another's vocabulary lacks.
    #[test]
    fn seen_ids_beyond_the_logits_are_passed_over() {
        let config = GenerateConfig {
            repetition_penalty: 2.0,
            ..GenerateConfig::greedy(1)
        };
        assert_eq!(chosen(&config, &[9], &[1.0, 2.0]), 1);
    }

    /// Counts over 20,000 draws; five standard deviations of the rarest share are 0.0124.
    #[test]
    fn tokens_come_up_as_often_as_they_are_likely() {
        let probabilities = [0.15, 0.5, 0.35];
        let mut sampler = Sampler::new(&sampling(), &[], 11);
        let logits = probabilities.map(f32::ln);
        let mut counts = [0_u32; 3];
        for _ in 0..20_000 {
            counts[sampler.sample(&mut logits.clone()).unwrap() as usize] += 1;
        }
        for (count, probability) in counts.into_iter().zip(probabilities) {
            let share = f64::from(count) / 20_000.0;
            assert!(
                (share - f64::from(probability)).abs() < 0.0124,
                "{counts:?}"
            );
        }
    }

    /// A filter that leaves one token must not move the random numbers of the tokens after it.
    #[test]
    fn the_seed_alone_decides_the_draws() {
        let draws = |seed, peaks: bool| -> Vec<u32> {
            let mut sampler = Sampler::new(&sampling(), &[], seed);
            (0..40)
                .map(|step| {
                    let mut logits = [0.0; 16];
                    if peaks && step % 2 == 0 {
                        logits[3] = 1e9;
                    }
                    sampler.sample(&mut logits).unwrap()
                })
                .collect()
        };
        let every_second =
            |ids: Vec<u32>| -> Vec<u32> { ids.into_iter().skip(1).step_by(2).collect() };
        assert_eq!(draws(1, false), draws(1, false));
        assert_ne!(draws(1, false), draws(2, false));
        assert_eq!(every_second(draws(1, true)), every_second(draws(1, false)));
    }

    /// What transformers 5.23 leaves of seeded logits; `tests/golden/sampling.py` is the recipe.
    #[test]
    fn filters_leave_what_transformers_leaves() {
        #[derive(serde::Deserialize)]
        struct Golden {
            cases: Vec<Case>,
        }
        #[derive(serde::Deserialize)]
        struct Case {
            repetition_penalty: f64,
            temperature: f64,
            top_k: usize,
            top_p: f64,
            min_p: f64,
            prompt: Vec<u32>,
            logits: Vec<f32>,
            kept: Vec<(u32, f64)>,
        }
        let text = include_str!("../tests/golden/sampling.json");
        let golden: Golden = serde_json::from_str(text).unwrap();
        assert_eq!(golden.cases.len(), 24);
        for (number, case) in golden.cases.into_iter().enumerate() {
            let config = GenerateConfig {
                repetition_penalty: case.repetition_penalty,
                temperature: case.temperature,
                top_k: case.top_k,
                top_p: case.top_p,
                min_p: case.min_p,
                ..sampling()
            };
            let mut logits = case.logits;
            let sampler = Sampler::new(&config, &case.prompt, 0);
            sampler.penalise(&mut logits);
            let (_, top_logit) = likeliest_token(&logits).unwrap();
            let mut candidates = candidates(&config, &logits, top_logit);
            candidates.sort_unstable_by_key(|candidate| candidate.id);
            let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
            assert_eq!(candidates.len(), case.kept.len(), "case {number}");
            for (found, (id, probability)) in candidates.iter().zip(case.kept) {
                assert_eq!(found.id, id, "case {number}");
                let difference = (found.weight / total - probability).abs();
                assert!(
                    difference < TOLERANCE,
                    "case {number}, id {id}: off by {difference}"
                );
            }
        }
    }

    /// A token with negative infinity has been ruled out, which is no fault of the model.
    #[test]
    fn logits_that_allow_no_choice_are_an_error() {
        let mut greedy = Sampler::new(&GenerateConfig::greedy(1), &[], 0);
        assert_eq!(greedy.sample(&mut [f32::NEG_INFINITY, -1.0]), Ok(1));
        assert_eq!(
            greedy.sample(&mut [f32::NEG_INFINITY; 2]),
            Err(LogitsNotFinite)
        );
        assert_eq!(greedy.sample(&mut [5.0, f32::NAN]), Err(LogitsNotFinite));
        assert_eq!(
            greedy.sample(&mut [f32::INFINITY, 0.0]),
            Err(LogitsNotFinite)
        );
        assert_eq!(greedy.sample(&mut []), Err(LogitsNotFinite));
        assert_eq!(LogitsNotFinite.to_string(), "the logits are not finite");

        let mut sampler = Sampler::new(&sampling(), &[], 0);
        for _ in 0..32 {
            assert_eq!(sampler.sample(&mut [f32::NEG_INFINITY, -1.0]), Ok(1));
        }
    }
}
