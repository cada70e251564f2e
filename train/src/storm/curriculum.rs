//! How reasoning goes away: schedules, what is left of a chain of thought, and noise in it.
//!
//! Sources: Deng et al. 2024, arXiv:2405.14838, section 3 (tokens are removed from the beginning of
//! the reasoning until none is left); the schedules and the noise are APT's Storm.

use std::f64::consts::PI;

use dataset::reasoned::ReasonedTokens;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// How a share falls over a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fade {
    /// `start (1 + cos(pi t / T)) / 2`.
    Cosine,
    /// `start (1 - t / T)`.
    #[default]
    Linear,
    /// `start`.
    Constant,
}

impl Fade {
    /// The share when `progress` of the run is over, from 0 to 1; beyond 1 it stays as at 1.
    pub fn at(self, start: f64, progress: f64) -> f64 {
        let progress = progress.clamp(0.0, 1.0);
        match self {
            Self::Cosine => start * f64::midpoint(1.0, (PI * progress).cos()),
            Self::Linear => start * (1.0 - progress),
            Self::Constant => start,
        }
    }
}

/// What becomes of one question at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Treatment {
    /// Share of the reasoning that is left, its end; 0 leaves no trace of it.
    pub kept: f64,
    /// Probability that a token of the reasoning is read as another one.
    pub noise: f64,
    /// Tokens to take others from: ids below this.
    pub vocab_size: u32,
}

/// A question as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreatedTokens {
    /// What is read.
    pub input_ids: Vec<u32>,
    /// What should have been read: labels come from here.
    pub clean_ids: Vec<u32>,
    /// Tokens of the prompt.
    pub num_prompt: usize,
    /// Tokens of the reasoning that are left, its marks included.
    pub num_reasoning: usize,
}

impl Treatment {
    /// The question with its reasoning shortened and made noisy; its answer is left alone.
    pub fn of(self, tokens: &ReasonedTokens, rng: &mut ChaCha8Rng) -> TreatedTokens {
        let len = tokens.reasoning.len();
        let num_kept = ((self.kept * len as f64).round() as usize).min(len);
        let kept = &tokens.reasoning[len - num_kept..];
        let before = match num_kept {
            0 => tokens.prompt.clone(),
            _ => [&tokens.explicit_prompt[..], &tokens.opening].concat(),
        };
        let after = match num_kept {
            0 => tokens.answer.clone(),
            _ => [&tokens.closing[..], &tokens.answer].concat(),
        };
        let num_prompt = match num_kept {
            0 => tokens.prompt.len(),
            _ => tokens.explicit_prompt.len(),
        };
        let read: Vec<u32> = kept
            .iter()
            .map(|&id| {
                if rng.random::<f64>() < self.noise {
                    rng.random_range(0..self.vocab_size)
                } else {
                    id
                }
            })
            .collect();
        let clean_ids = [&before[..], kept, &after].concat();
        TreatedTokens {
            input_ids: [&before[..], &read, &after].concat(),
            num_prompt,
            num_reasoning: clean_ids.len() - num_prompt - tokens.answer.len(),
            clean_ids,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn reasoned() -> ReasonedTokens {
        ReasonedTokens {
            prompt: vec![1, 2, 3],
            explicit_prompt: vec![1, 2, 3],
            opening: vec![90],
            reasoning: (10..20).collect(),
            closing: vec![91],
            answer: vec![50, 51, 2],
        }
    }

    fn treated(kept: f64, noise: f64, seed: u64) -> TreatedTokens {
        let treatment = Treatment {
            kept,
            noise,
            vocab_size: 100,
        };
        treatment.of(&reasoned(), &mut ChaCha8Rng::seed_from_u64(seed))
    }

    /// APT's values: 0.3 at the start, 0.15 half-way, nothing at the end, and a constant stays.
    #[test]
    fn shares_fall_as_they_should() {
        let cases = [
            (Fade::Cosine, [0.3, 0.15, 0.0]),
            (Fade::Linear, [0.3, 0.15, 0.0]),
            (Fade::Constant, [0.3, 0.3, 0.3]),
        ];
        for (fade, expected) in cases {
            for (progress, expected) in [0.0, 0.5, 1.0].into_iter().zip(expected) {
                let found = fade.at(0.3, progress);
                assert!((found - expected).abs() < 1e-12, "{fade:?} {progress}");
            }
        }
        // By hand: (1 + cos(pi / 4)) / 2 = 0.853553; a straight line has 0.75.
        assert!((Fade::Cosine.at(1.0, 0.25) - 0.853_553_390_593).abs() < 1e-9);
        assert!((Fade::Linear.at(1.0, 0.25) - 0.75).abs() < 1e-12);
        assert!(Fade::Linear.at(1.0, 7.0).abs() < 1e-12);
    }

    /// What is left is the reasoning's end; nothing left leaves no marks either.
    #[test]
    fn reasoning_is_removed_from_its_beginning() {
        let whole = treated(1.0, 0.0, 0);
        assert_eq!(whole.num_reasoning, 12);
        let some = treated(0.3, 0.0, 0);
        assert_eq!(some.input_ids, [1, 2, 3, 90, 17, 18, 19, 91, 50, 51, 2]);
        assert_eq!((some.num_prompt, some.num_reasoning), (3, 5));
        let none = treated(0.0, 0.9, 0);
        assert_eq!(none.input_ids, [1, 2, 3, 50, 51, 2]);
        let lens = [1.0, 0.8, 0.5, 0.2, 0.0].map(|kept| treated(kept, 0.0, 0).num_reasoning);
        assert!(lens.is_sorted_by(|a, b| a > b), "{lens:?}");
    }

    /// Of 10 tokens in 400 questions about 0.3 are replaced (1,200; 1 % of them by themselves;
    /// 5 sigma is 145); prompt, marks and answer never, and what should have been read is whole.
    #[test]
    fn noise_is_in_the_reasoning_only() {
        let mut num_changed = 0;
        for seed in 0..400 {
            let found = treated(1.0, 0.3, seed);
            assert_eq!(found.clean_ids, treated(1.0, 0.0, seed).input_ids);
            let pairs = found.input_ids.iter().zip(&found.clean_ids);
            for (place, (read, clean)) in pairs.enumerate() {
                let is_changed = read != clean;
                num_changed += usize::from(is_changed);
                assert!(!is_changed || (4..14).contains(&place), "{place}");
            }
        }
        assert!(num_changed.abs_diff(1188) < 145, "{num_changed}");
    }
}
