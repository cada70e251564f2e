//! The stage: rollouts cut into steps, steps into micro-batches, and the loss of one of them.
//!
//! Axis letters: `S` completions of a micro-batch, `L` tokens of the longest.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::prelude::*;
use dataset::Tokenizer;
use dataset::prompts::PromptRow;
use model::CausalLm;
use model::generate::Prompt;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::loss::{LossOptions, PolicyTensors, StepSize, divergences, token_losses, token_weight};
use super::micro_batch::{PackedCompletions, Sequence};
use super::rollout_metrics::{RolloutMetrics, metrics_of_groups};
use super::rollouts::{Answer, Rollout, judge, texts_of};
use crate::config::{GrpoSection, RolloutSection, RouterSection, TrainSection};
use crate::loss::to_device;
use crate::order::shuffled;
use crate::reward::Rewards;
use crate::rollout::write_answers;
use crate::routing::RouterTerms;
use crate::sampler::Sampler;
use crate::stage::{Metrics, Stage, StageError, SummedGradients, gradients_of_hidden};
use crate::validate::HeldOutLoss;

/// Stream of the draws that order a rollout's answers.
const STEP_STREAM: u64 = 0x57e9;

/// What a stage is made of.
pub(super) struct GrpoParts {
    pub(super) prompts: Vec<PromptRow>,
    pub(super) held_out: Vec<PromptRow>,
    /// Longest sequence that can come up.
    pub(super) seq_len: usize,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) sampler: Sampler,
    pub(super) rewards: Rewards,
    /// The model that training started from, where the loss asks for it.
    pub(super) reference: Option<CausalLm>,
    pub(super) train: TrainSection,
    pub(super) rollout: RolloutSection,
    pub(super) grpo: GrpoSection,
    pub(super) router: RouterSection,
    /// Held-out prompts that are answered per validation; 0 is all of them.
    pub(super) max_validation_prompts: usize,
}

/// Learning from answers that the model writes itself.
pub(super) struct GrpoStage {
    pub(super) parts: GrpoParts,
    options: LossOptions,
    /// Rollouts made so far.
    pub(super) num_rollouts: u64,
    /// Steps begun from the present rollout.
    num_begun: usize,
    rollout: Option<Rollout>,
    /// Micro-batches of the present step.
    planned: VecDeque<MicroBatch>,
}

/// Place in the data: a checkpoint between two steps of one rollout holds the rollout too.
#[derive(Debug, Serialize, Deserialize)]
struct Cursor {
    num_rollouts: u64,
    num_begun: usize,
    rollout: Option<Rollout>,
}

/// Completions of one forward and backward pass.
pub(super) struct MicroBatch {
    packed: PackedCompletions,
    /// Per completion and token, ragged.
    old: Vec<Vec<f32>>,
    reference: Vec<Vec<f32>>,
    weights: Vec<Vec<f32>>,
    advantages: Vec<f32>,
    num_supervised: usize,
    metrics: RolloutMetrics,
}

impl GrpoStage {
    /// A stage before its first rollout.
    pub(super) fn new(parts: GrpoParts) -> Self {
        Self {
            options: parts.grpo.loss_options(),
            parts,
            num_rollouts: 0,
            num_begun: 0,
            rollout: None,
            planned: VecDeque::new(),
        }
    }

    fn completions_per_step(&self) -> usize {
        self.parts.train.micro_batch_size * self.parts.train.grad_accumulation_steps
    }

    fn steps_per_pass(&self) -> usize {
        self.parts.rollout.num_completions() / self.completions_per_step()
    }

    fn steps_per_rollout(&self) -> usize {
        self.steps_per_pass() * self.parts.grpo.num_iterations
    }

    /// Micro-batches of the next step of the present rollout.
    fn plan_step(&self, rollout: &Rollout) -> VecDeque<MicroBatch> {
        let (pass, step) = (
            self.num_begun / self.steps_per_pass(),
            self.num_begun % self.steps_per_pass(),
        );
        let draw = self.num_rollouts * self.parts.grpo.num_iterations as u64 + pass as u64;
        let order = shuffled(
            rollout.answers.len(),
            self.parts.train.seed ^ STEP_STREAM,
            draw,
        );
        let per_step = self.completions_per_step();
        let chosen: Vec<&Answer> = order[step * per_step..(step + 1) * per_step]
            .iter()
            .map(|&place| &rollout.answers[place])
            .collect();
        let num_learned =
            |answers: &[&Answer]| -> usize { answers.iter().map(|it| self.num_learned(it)).sum() };
        let size = StepSize {
            num_completions: chosen.len(),
            num_tokens: num_learned(&chosen),
            num_micro_batches: self.parts.train.grad_accumulation_steps,
            max_completion_tokens: self.parts.rollout.max_new_tokens,
        };
        chosen
            .chunks(self.parts.train.micro_batch_size)
            .map(|answers| self.micro_batch(answers, num_learned(answers), size, rollout))
            .collect()
    }

    /// Tokens of an answer that count in the step's means.
    fn num_learned(&self, answer: &Answer) -> usize {
        if self.parts.grpo.mask_truncated && answer.is_truncated {
            0
        } else {
            answer.ids.len()
        }
    }

    fn micro_batch(
        &self,
        answers: &[&Answer],
        num_supervised: usize,
        step: StepSize,
        rollout: &Rollout,
    ) -> MicroBatch {
        // An answer no better and no worse than the others has no gradient unless the reference
        // pulls at it; it counts in every mean without being read.
        let teaches = |answer: &&&Answer| {
            self.num_learned(answer) > 0
                && (answer.advantage[0] != 0.0 || self.parts.reference.is_some())
        };
        let answers: Vec<&Answer> = answers.iter().filter(teaches).copied().collect();
        let sequences: Vec<Sequence<'_>> = answers
            .iter()
            .map(|answer| Sequence {
                prompt_ids: &self.parts.prompts[answer.prompt].input_ids,
                completion_ids: &answer.ids,
            })
            .collect();
        let pad_id = self.parts.tokenizer.pad_id();
        // The loop divides a step's sum by its supervised tokens.
        let weight = |len| {
            let weight = token_weight(self.options.kind, len, num_supervised, step);
            (weight * step.num_tokens as f64) as f32
        };
        MicroBatch {
            packed: PackedCompletions::new(&sequences, self.parts.seq_len, pad_id),
            old: answers.iter().map(|answer| answer.old.clone()).collect(),
            reference: answers
                .iter()
                .map(|answer| answer.reference.clone())
                .collect(),
            weights: answers
                .iter()
                .map(|answer| vec![weight(answer.ids.len()); answer.ids.len()])
                .collect(),
            advantages: answers.iter().map(|answer| answer.advantage[0]).collect(),
            num_supervised,
            metrics: rollout.metrics.clone(),
        }
    }

    /// What is measured on a micro-batch besides its rollout, summed over its tokens.
    fn batch_metrics(&self, batch: &MicroBatch, policy: Option<Tensor<2>>) -> Metrics {
        let count = batch.num_supervised as f64;
        let mut metrics = batch.metrics.named(&self.parts.rewards);
        for (_, value) in &mut metrics {
            *value *= count;
        }
        let (mut low, mut high) = (0.0, 0.0);
        let mut divergence = 0.0;
        if let Some(policy) = policy {
            let device = policy.device();
            if self.parts.reference.is_some() {
                let lists: Vec<&[f32]> = batch.reference.iter().map(Vec::as_slice).collect();
                let reference = batch.packed.padded(&lists, &device); // [S, L]
                // Behind an answer's end both are 0, and so is the divergence.
                let found = divergences(policy.clone(), reference, self.options.kl).sum(); // [1]
                divergence = found.into_data().iter::<f64>().sum();
            }
            let values: Vec<f32> = policy.into_data().iter::<f32>().collect();
            let rows = values.chunks(batch.packed.longest);
            for ((row, old), advantage) in rows.zip(&batch.old).zip(&batch.advantages) {
                for (new, old) in row.iter().zip(old) {
                    let ratio = f64::from(new - old).exp();
                    let is_low = *advantage < 0.0 && ratio < 1.0 - self.options.epsilon;
                    let is_high = *advantage > 0.0 && ratio > 1.0 + self.options.epsilon_high;
                    low += f64::from(u8::from(is_low));
                    high += f64::from(u8::from(is_high));
                }
            }
        }
        metrics.extend([("clip_ratio/low", low), ("clip_ratio/high", high)]);
        if self.parts.reference.is_some() {
            metrics.push(("kl", divergence));
        }
        metrics
    }
}

impl Stage for GrpoStage {
    type Batch = MicroBatch;

    fn begin_step(
        &mut self,
        model: &CausalLm,
        on_progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<(), StageError> {
        let rollout = match self.rollout.take() {
            Some(rollout) if self.num_begun < self.steps_per_rollout() => rollout,
            _ => {
                let Some(rollout) = self.make_rollout(model, on_progress)? else {
                    return Ok(());
                };
                self.num_rollouts += 1;
                self.num_begun = 0;
                rollout
            }
        };
        self.planned = self.plan_step(&rollout);
        self.num_begun += 1;
        self.rollout = Some(rollout);
        Ok(())
    }

    fn next_batch(&mut self) -> Result<MicroBatch, StageError> {
        Ok(self
            .planned
            .pop_front()
            .expect("a step has as many micro-batches as were planned"))
    }

    fn teaches_chat(&self) -> bool {
        true
    }

    fn num_tokens(&self, batch: &MicroBatch) -> usize {
        batch.packed.tokens.num_tokens()
    }

    fn num_supervised(&self, batch: &MicroBatch) -> usize {
        batch.num_supervised
    }

    fn gradients(&self, model: &CausalLm, batch: MicroBatch) -> SummedGradients {
        let device = model.embed_tokens.weight.device();
        if batch.packed.num_completions == 0 {
            return SummedGradients {
                loss: Tensor::zeros([1], &model.valid().embed_tokens.weight.device()),
                grads: GradientsParams::new(),
                routing: Vec::new(),
                metrics: self.batch_metrics(&batch, None),
            };
        }
        let mut tensors = to_device(&batch.packed.tokens, &device);
        let has_experts = model.config().experts.is_some();
        tensors.router =
            has_experts.then(|| RouterTerms::new(&self.parts.router, &batch.packed.tokens));
        let recomputes = self.parts.train.activation_checkpointing;
        let temperature = self.parts.rollout.temperature;
        let padded = |lists: &[Vec<f32>]| {
            let lists: Vec<&[f32]> = lists.iter().map(Vec::as_slice).collect();
            batch.packed.padded(&lists, &device) // [S, L]
        };
        let weights = padded(&batch.weights); // [S, L]
        let shape = [batch.advantages.len(), 1];
        let mut policy_seen = None;
        let mut summed = gradients_of_hidden(model, tensors, recomputes, |hidden, labels| {
            let policy = batch.packed.logps(model, hidden, labels, temperature); // [S, L]
            policy_seen = Some(policy.clone().inner());
            let losses = token_losses(
                PolicyTensors {
                    policy,
                    old: padded(&batch.old),
                    reference: self
                        .parts
                        .reference
                        .is_some()
                        .then(|| padded(&batch.reference)),
                    mask: weights.clone().greater_elem(0.0).float(),
                    advantages: Tensor::from_data(
                        TensorData::new(batch.advantages.clone(), shape),
                        &device,
                    ), // [S, 1]
                },
                &self.options,
            ); // [S, L]
            (losses * weights).sum()
        });
        summed.metrics = self.batch_metrics(&batch, policy_seen);
        summed
    }

    fn epoch(&self) -> f64 {
        let answered = self.num_rollouts * self.parts.rollout.num_prompts as u64;
        answered as f64 / self.parts.prompts.len() as f64
    }

    fn cursor(&self) -> Value {
        let is_used_up = self.num_begun >= self.steps_per_rollout();
        let cursor = Cursor {
            num_rollouts: self.num_rollouts,
            num_begun: self.num_begun,
            rollout: self.rollout.clone().filter(|_| !is_used_up),
        };
        serde_json::to_value(cursor).expect("integers are JSON")
    }

    fn seek(&mut self, cursor: &Value) -> Result<(), StageError> {
        let cursor: Cursor =
            serde_json::from_value(cursor.clone()).map_err(StageError::CursorForm)?;
        self.num_rollouts = cursor.num_rollouts;
        self.num_begun = cursor.num_begun;
        self.rollout = cursor.rollout;
        Ok(())
    }

    fn validate(&mut self, model: &CausalLm) -> Result<Option<HeldOutLoss>, StageError> {
        let most = match self.parts.max_validation_prompts {
            0 => usize::MAX,
            most => most,
        };
        let rows: Vec<&PromptRow> = self.parts.held_out.iter().take(most).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let prompts = rows.iter().map(|row| Prompt {
            input_ids: row.input_ids.clone(),
            seed: 0,
        });
        let options = self.writing(0.0);
        let written = write_answers(&model.valid(), prompts.collect(), &options, &mut |_| {
            ControlFlow::Continue(())
        })?;
        let completions = written.expect("nothing breaks it off");
        let texts = texts_of(&self.parts.tokenizer, &rows, &completions);
        let judgement = judge(&mut self.parts.rewards, &rows, &completions, &texts)?;
        let metrics = metrics_of_groups(&judgement, &completions, 1).named(&self.parts.rewards);
        let of_held_out = |(name, _): &(&str, f64)| {
            !matches!(*name, "reward_std" | "frac_reward_zero_std" | "entropy")
        };
        let metrics: Metrics = metrics.into_iter().filter(of_held_out).collect();
        Ok(Some(HeldOutLoss {
            loss: -metrics[0].1,
            bits_per_byte: None,
            metrics,
        }))
    }

    fn sample(&self, model: &CausalLm, prompt: &str) -> Result<String, StageError> {
        self.parts.sampler.sample(model, prompt)
    }
}
