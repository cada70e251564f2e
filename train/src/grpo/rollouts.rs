//! Rollouts of the stage: prompts in a drawn order, the model's answers to them, and what each answer
//! is worth.

use std::ops::ControlFlow;

use burn::module::Module;
use dataset::Tokenizer;
use dataset::prompts::PromptRow;
use model::CausalLm;
use model::generate::Prompt;
use serde::{Deserialize, Serialize};

use super::advantages::advantages;
use super::micro_batch::{PackedCompletions, Sequence};
use super::rollout_metrics::{RolloutMetrics, metrics_of_groups};
use super::stage::GrpoStage;
use crate::order::shuffled;
use crate::reward::{Answered, Judgement, Rewards};
use crate::rollout::{Completion, WritingOptions, write_answers};
use crate::stage::StageError;

/// Streams of draws, so that the order of prompts says nothing about the answers.
const PROMPT_STREAM: u64 = 0x9a0e;
const ANSWER_STREAM: u64 = 0xa45e;

/// Answers that are learned from, group by group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Rollout {
    pub(super) answers: Vec<Answer>,
    pub(super) metrics: RolloutMetrics,
}

/// An answer and what it is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) prompt: usize,
    pub(super) ids: Vec<u32>,
    #[serde(with = "bits")]
    pub(super) old: Vec<f32>,
    #[serde(with = "bits")]
    pub(super) reference: Vec<f32>,
    #[serde(with = "bits")]
    pub(super) advantage: Vec<f32>,
    pub(super) is_truncated: bool,
}

/// A decimal need not read back as the same number; its bits do.
mod bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        values: &[f32],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
        bits.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<f32>, D::Error> {
        let bits = Vec::<u32>::deserialize(deserializer)?;
        Ok(bits.into_iter().map(f32::from_bits).collect())
    }
}

impl GrpoStage {
    pub(super) fn writing(&self, temperature: f64) -> WritingOptions {
        WritingOptions {
            max_new_tokens: self.parts.rollout.max_new_tokens,
            temperature,
            max_rows: self.parts.rollout.max_rows,
            eos_token_id: self.parts.tokenizer.eos_id().into_iter().collect(),
        }
    }

    /// Places of the next rollout's prompts; passes over the prompts follow each other.
    fn next_prompts(&self) -> Vec<usize> {
        let (num_prompts, len) = (self.parts.rollout.num_prompts, self.parts.prompts.len());
        let first = self.num_rollouts * num_prompts as u64;
        let seed = self.parts.train.seed ^ PROMPT_STREAM;
        let (mut pass, mut order) = (u64::MAX, Vec::new());
        let numbers = first..first + num_prompts as u64;
        let places = numbers.map(|number| {
            if pass != number / len as u64 {
                pass = number / len as u64;
                order = shuffled(len, seed, pass);
            }
            order[(number % len as u64) as usize]
        });
        places.collect()
    }

    /// Answers the next prompts and judges the answers; `None` when it was broken off.
    pub(super) fn make_rollout(
        &mut self,
        model: &CausalLm,
        on_progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Option<Rollout>, StageError> {
        let section = &self.parts.rollout;
        let total = section.num_completions();
        let first_seed = self.num_rollouts.wrapping_mul(total as u64);
        let seed = (self.parts.train.seed ^ ANSWER_STREAM).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let places: Vec<usize> = self
            .next_prompts()
            .into_iter()
            .flat_map(|place| std::iter::repeat_n(place, section.num_generations))
            .collect();
        let prompts = places
            .iter()
            .zip(first_seed..)
            .map(|(&place, number)| Prompt {
                input_ids: self.parts.prompts[place].input_ids.clone(),
                seed: seed.wrapping_add(number),
            });
        let options = self.writing(section.temperature);
        let written = write_answers(&model.valid(), prompts.collect(), &options, &mut |done| {
            on_progress(done, total)
        })?;
        let Some(completions) = written else {
            return Ok(None);
        };
        let rows: Vec<&PromptRow> = places.iter().map(|&at| &self.parts.prompts[at]).collect();
        let texts = texts_of(&self.parts.tokenizer, &rows, &completions);
        let judgement = judge(&mut self.parts.rewards, &rows, &completions, &texts)?;
        let (section, grpo) = (&self.parts.rollout, &self.parts.grpo);
        let advantages = advantages(
            &judgement.totals,
            section.num_generations,
            grpo.advantage,
            grpo.biased_std,
        );
        let metrics = metrics_of_groups(&judgement, &completions, section.num_generations);
        let references = self.reference_logps(&rows, &completions);
        let answers = completions.into_iter().enumerate();
        let answers = answers.map(|(index, completion)| Answer {
            prompt: places[index],
            ids: completion.ids,
            old: completion.logps,
            reference: references.get(index).cloned().unwrap_or_default(),
            advantage: vec![advantages[index] as f32],
            is_truncated: completion.is_truncated,
        });
        Ok(Some(Rollout {
            answers: answers.collect(),
            metrics,
        }))
    }

    /// What the reference gives each token, completion by completion; nothing without a reference.
    fn reference_logps(&self, rows: &[&PromptRow], completions: &[Completion]) -> Vec<Vec<f32>> {
        let Some(reference) = &self.parts.reference else {
            return Vec::new();
        };
        let sequences: Vec<Sequence<'_>> = rows
            .iter()
            .zip(completions)
            .map(|(row, completion)| Sequence {
                prompt_ids: &row.input_ids,
                completion_ids: &completion.ids,
            })
            .collect();
        let pad_id = self.parts.tokenizer.pad_id();
        let temperature = self.parts.rollout.temperature;
        let scored = sequences
            .chunks(self.parts.train.micro_batch_size)
            .flat_map(|sequences| {
                let packed = PackedCompletions::new(sequences, self.parts.seq_len, pad_id);
                packed.scored_by(reference, temperature)
            });
        scored
            .zip(completions)
            .map(|(mut logps, completion)| {
                logps.truncate(completion.ids.len());
                logps
            })
            .collect()
    }
}

/// Answers as text, with the beginning that the template wrote of them and without their ends.
pub(crate) fn texts_of(
    tokenizer: &Tokenizer,
    rows: &[&PromptRow],
    completions: &[Completion],
) -> Vec<String> {
    rows.iter()
        .zip(completions)
        .map(|(row, completion)| {
            let said = match completion.ids.split_last() {
                Some((_, said)) if !completion.is_truncated => said,
                _ => &completion.ids,
            };
            // Marks of thoughts may be special tokens, and rewards ask for them.
            format!("{}{}", row.opening, tokenizer.decode(said, false))
        })
        .collect()
}

/// What answers are worth.
pub(crate) fn judge(
    rewards: &mut Rewards,
    rows: &[&PromptRow],
    completions: &[Completion],
    texts: &[String],
) -> Result<Judgement, StageError> {
    let answers: Vec<Answered<'_>> = rows
        .iter()
        .zip(completions)
        .zip(texts)
        .map(|((row, completion), text)| Answered {
            prompt: &row.messages,
            expected: &row.expected,
            other: &row.other,
            prompt_ids: &row.input_ids,
            completion_ids: &completion.ids,
            text,
        })
        .collect();
    Ok(rewards.judge(&answers)?)
}
