//! Answers of the model in training, with the log-probabilities that they were drawn with.
//!
//! All answers go through one continuous batch: one that ends makes room for the next at once. The
//! log-probabilities are those of the sampler, at its temperature, so that what is learned from is
//! what was drawn from; nothing is ever ruled out (top-k, top-p), which would make the two differ.

use std::ops::ControlFlow;

use model::CausalLm;
use model::batch::{Batch, BatchLimits, Event, Request};
use model::generate::{FinishReason, GenerateConfig, GenerateError, Prompt};

/// How answers are written.
#[derive(Debug, Clone)]
pub(crate) struct WritingOptions {
    pub(crate) max_new_tokens: usize,
    /// 0 takes the likeliest token each time.
    pub(crate) temperature: f64,
    /// Answers that are written together.
    pub(crate) max_rows: usize,
    /// Tokens that end an answer.
    pub(crate) eos_token_id: Vec<u32>,
}

/// What the model wrote after a prompt.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Completion {
    /// The tokens, the one that ends the answer included.
    pub(crate) ids: Vec<u32>,
    /// Log-probability of each, in nats, at the temperature.
    pub(crate) logps: Vec<f32>,
    /// Summed entropy of the distributions that they were drawn from, in nats.
    pub(crate) entropy_sum: f64,
    /// Whether the answer was cut off.
    pub(crate) is_truncated: bool,
}

/// An answer to each prompt, in their order; `None` when `on_progress` broke off.
///
/// `on_progress` is told how many answers are done after each token.
pub(crate) fn write_answers(
    model: &CausalLm,
    prompts: Vec<Prompt>,
    options: &WritingOptions,
    on_progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Vec<Completion>>, GenerateError> {
    let longest = prompts.iter().map(|prompt| prompt.input_ids.len()).max();
    let limits = BatchLimits {
        max_rows: options.max_rows,
        pieces_per_step: usize::MAX,
        // A group's prompts follow each other, so that a few of them are enough to keep.
        max_cached_tokens: 4 * longest.unwrap_or(0),
    };
    let config = GenerateConfig {
        do_sample: options.temperature > 0.0,
        temperature: options.temperature,
        eos_token_id: options.eos_token_id.clone(),
        ..GenerateConfig::greedy(options.max_new_tokens)
    };
    let mut batch = Batch::new(model, limits);
    let mut completions = vec![Completion::default(); prompts.len()];
    for prompt in prompts {
        batch.submit(Request::new(prompt, &config))?;
    }
    // Greedy answers are scored as they would be at temperature 1.
    let scale = if config.do_sample {
        options.temperature
    } else {
        1.0
    };
    let mut drawn_from = vec![Distribution::default(); completions.len()];
    let mut num_done = 0;
    while batch.num_requests() > 0 {
        let events = batch.step_with(&mut |id, logits| drawn_from[id].read(logits, scale));
        for (id, event) in events {
            let completion = &mut completions[id];
            match event {
                Event::Prompt(_) => {}
                Event::Token { token_id, .. } => {
                    completion.ids.push(token_id);
                    completion.logps.push(drawn_from[id].logp(token_id));
                    completion.entropy_sum += drawn_from[id].entropy;
                }
                Event::Finished(reason) => {
                    completion.is_truncated = reason == FinishReason::Length;
                    drawn_from[id] = Distribution::default();
                    num_done += 1;
                }
                Event::Failed(error) => return Err(error),
            }
        }
        if on_progress(num_done).is_break() {
            return Ok(None);
        }
    }
    Ok(Some(completions))
}

/// What a token is drawn from.
#[derive(Debug, Clone, Default)]
struct Distribution {
    logits: Vec<f32>,
    scale: f64,
    normaliser: f64,
    entropy: f64,
}

impl Distribution {
    /// `softmax(logits / scale)`; sums are in f64.
    fn read(&mut self, logits: &[f32], scale: f64) {
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        self.scale = scale;
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let largest = f64::from(largest) / scale;
        let (mut sum, mut weighted) = (0.0, 0.0);
        for &logit in logits {
            let centred = f64::from(logit) / scale - largest;
            let weight = centred.exp();
            sum += weight;
            // A weight of 0 adds nothing, however large its logarithm is.
            weighted += if weight > 0.0 { weight * centred } else { 0.0 };
        }
        self.normaliser = largest + sum.ln();
        self.entropy = sum.ln() - weighted / sum;
    }

    fn logp(&self, token_id: u32) -> f32 {
        (f64::from(self.logits[token_id as usize]) / self.scale - self.normaliser) as f32
    }
}

#[cfg(test)]
mod tests {
    use burn::prelude::*;
    use model::ModelConfig;

    use super::*;

    const DEBUG: &str = include_str!("../../configs/model/debug.json");

    fn model() -> CausalLm {
        let config: ModelConfig = serde_json::from_str(DEBUG).unwrap();
        CausalLm::new(&config, 3, &Device::flex())
    }

    fn prompts(num: u32) -> Vec<Prompt> {
        let prompt = |n: u32| Prompt {
            input_ids: (0..2 + n).map(|place| 5 + 3 * place + n).collect(),
            seed: u64::from(n),
        };
        (0..num).map(prompt).collect()
    }

    fn options(max_rows: usize) -> WritingOptions {
        WritingOptions {
            max_new_tokens: 6,
            temperature: 0.7,
            max_rows,
            eos_token_id: vec![2],
        }
    }

    fn answers(max_rows: usize) -> Vec<Completion> {
        let options = options(max_rows);
        let mut all = |_| ControlFlow::Continue(());
        let written = write_answers(&model(), prompts(5), &options, &mut all);
        written.unwrap().unwrap()
    }

    /// By hand: shares 1/2, 1/4 and 1/4 have an entropy of 1.5 ln 2; at temperature 0.5 shares are
    /// squared, 2/3, 1/6 and 1/6.
    #[test]
    fn the_distribution_is_that_of_the_temperature() {
        let logits = [2.0_f32.ln(), 0.0, 0.0];
        let mut found = Distribution::default();
        found.read(&logits, 1.0);
        assert!((found.entropy - 1.5 * 2.0_f64.ln()).abs() < 1e-6);
        assert!((found.logp(0) - 0.5_f32.ln()).abs() < 1e-6);
        found.read(&logits, 0.5);
        assert!((found.logp(0) - (2.0_f32 / 3.0).ln()).abs() < 1e-6);
        assert!((found.logp(2) - (1.0_f32 / 6.0).ln()).abs() < 1e-6);
    }

    /// Two rows at a time or all together: the same answers with the same numbers.
    #[test]
    fn an_answer_does_not_depend_on_who_is_written_beside_it() {
        let together = answers(5);
        assert_eq!(together, answers(2));
        assert!(together.iter().all(|answer| {
            let ends = answer.ids.last() == Some(&2);
            answer.ids.len() == answer.logps.len() && ends != answer.is_truncated
        }));
    }

    /// The caller is told how far it is, and can end it.
    #[test]
    fn writing_can_be_broken_off() {
        let mut seen = Vec::new();
        let written = write_answers(&model(), prompts(3), &options(1), &mut |done| {
            seen.push(done);
            if done == 2 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert_eq!(written.unwrap(), None);
        assert_eq!((seen.first(), seen.last()), (Some(&0), Some(&2)));
    }
}
