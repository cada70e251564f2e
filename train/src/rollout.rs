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
    // Greedy answers are scored as they would be at temperature 1.
    let score_temperature = if config.do_sample {
        options.temperature
    } else {
        1.0
    };
    for prompt in prompts {
        batch.submit(Request {
            score_temperature: Some(score_temperature),
            ..Request::new(prompt, &config)
        })?;
    }
    let mut num_done = 0;
    while batch.num_requests() > 0 {
        for (id, event) in batch.step() {
            let completion = &mut completions[id];
            match event {
                Event::Prompt(_) => {}
                Event::Token {
                    token_id, score, ..
                } => {
                    let score = score.expect("every answer's tokens are scored");
                    completion.ids.push(token_id);
                    completion.logps.push(score.logp);
                    completion.entropy_sum += score.entropy;
                }
                Event::Finished(reason) => {
                    completion.is_truncated = reason == FinishReason::Length;
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
