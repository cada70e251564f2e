//! The stage: each step sees less of the reasoning than the one before.

use std::ops::ControlFlow;

use burn::module::Module;
use burn::prelude::*;
use dataset::batch::{IGNORE_INDEX, TokenBatch};
use dataset::pack::{PackMode, PackOptions, pack_documents};
use dataset::reasoned::ReasonedTokens;
use model::CausalLm;
use model::generate::Prompt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::curriculum::{TreatedTokens, Treatment};
use crate::config::{RouterSection, StormSection, TrainSection};
use crate::logps::hidden_logps;
use crate::loss::to_device;
use crate::order::shuffled;
use crate::rollout::{Completion, WritingOptions, write_answers};
use crate::routing::RouterTerms;
use crate::sampler::Sampler;
use crate::stage::{Metrics, Stage, StageError, SummedGradients, gradients_of_hidden};
use crate::validate::{HeldOutLoss, score_batches};

/// Streams of draws, so that the order of rows says nothing about their noise.
const ORDER_STREAM: u64 = 0x0de4;
const NOISE_STREAM: u64 = 0x5707;
/// Answers that are written together in validation.
const MAX_ROWS: usize = 64;

/// What a stage is made of.
pub(crate) struct StormParts {
    pub(super) rows: Vec<ReasonedTokens>,
    pub(super) held_out: Vec<ReasonedTokens>,
    /// Steps of the whole run.
    pub(super) num_steps: usize,
    pub(super) seq_len: usize,
    pub(super) vocab_size: u32,
    pub(super) sampler: Sampler,
    pub(super) storm: StormSection,
    pub(super) train: TrainSection,
    pub(super) router: RouterSection,
    /// Held-out rows that are asked per validation; 0 is all of them.
    pub(super) max_validation_rows: usize,
}

/// Learning to answer without the reasoning that came first.
pub(crate) struct StormStage {
    parts: StormParts,
    cursor: Cursor,
}

/// Place in the data and in the run.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Cursor {
    /// Steps begun.
    num_steps: usize,
    /// Rows handed out.
    num_rows: u64,
}

/// Rows of one forward and backward pass.
pub(crate) struct StormBatch {
    tokens: TokenBatch,
    /// Weight of each slot's label.
    weights: Vec<f32>,
    metrics: Metrics,
}

impl StormStage {
    /// A stage at the beginning of its run.
    pub(super) fn new(parts: StormParts) -> Self {
        Self {
            parts,
            cursor: Cursor::default(),
        }
    }

    /// How far reasoning has gone away, from 0 to 1, in the step that was begun last.
    fn progress(&self) -> f64 {
        let fading = self.parts.num_steps as f64 * self.parts.storm.fade_ratio;
        self.cursor.num_steps.saturating_sub(1) as f64 / fading
    }

    /// The next row, as it is to be learned now.
    fn next_row(&mut self, order: &mut (u64, Vec<usize>)) -> TreatedTokens {
        let (len, seed) = (self.parts.rows.len() as u64, self.parts.train.seed);
        let pass = self.cursor.num_rows / len;
        if order.0 != pass || order.1.is_empty() {
            *order = (pass, shuffled(len as usize, seed ^ ORDER_STREAM, pass));
        }
        let row = &self.parts.rows[order.1[(self.cursor.num_rows % len) as usize]];
        let mut key = [0; 32];
        key[..8].copy_from_slice(&(seed ^ NOISE_STREAM).to_le_bytes());
        key[8..16].copy_from_slice(&self.cursor.num_rows.to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(key);
        let (storm, progress) = (&self.parts.storm, self.progress());
        let is_explicit = rand::RngExt::random::<f64>(&mut rng)
            < storm.explicit_fade.at(storm.explicit, progress);
        let treatment = Treatment {
            kept: if is_explicit {
                storm.kept_fade.at(storm.kept, progress)
            } else {
                0.0
            },
            noise: storm.noise_fade.at(storm.noise, progress),
            vocab_size: self.parts.vocab_size,
        };
        let treated = treatment.of(row, &mut rng);
        self.cursor.num_rows += 1;
        treated
    }

    fn pack(&self, rows: &[TreatedTokens]) -> StormBatch {
        let (seq_len, storm) = (self.parts.seq_len, &self.parts.storm);
        let options = PackOptions {
            seq_len,
            mode: PackMode::Truncate,
            order: None,
        };
        let len_of = |row: u32| rows[row as usize].input_ids.len() as u64;
        let index = pack_documents((0..rows.len() as u32).collect(), len_of, options);
        let pad_id = self.parts.sampler.tokenizer.pad_id();
        let mut tokens = TokenBatch::with_capacity(index.num_rows(), seq_len);
        let mut weights = Vec::with_capacity(index.num_rows() * seq_len);
        for number in 0..index.num_rows() {
            let pieces: Vec<(&[u32], Vec<i32>)> = index
                .row(number)
                .iter()
                .map(|piece| {
                    let row = &rows[piece.document as usize];
                    let end = row.num_prompt + row.num_reasoning;
                    let labels = (1..=row.clean_ids.len()).map(|place| {
                        let is_learned = place >= row.num_prompt
                            && (place >= end || storm.reasoning_weight > 0.0);
                        match row.clean_ids.get(place) {
                            Some(&id) if is_learned => id as i32,
                            _ => IGNORE_INDEX,
                        }
                    });
                    weights.extend((1..=row.clean_ids.len()).map(|place| {
                        if place < end {
                            storm.reasoning_weight as f32
                        } else {
                            storm.answer_weight as f32
                        }
                    }));
                    (&row.input_ids[..], labels.collect())
                })
                .collect();
            tokens.push_row(
                pieces.iter().map(|(ids, labels)| (*ids, &labels[..])),
                pad_id,
            );
            weights.resize((number + 1) * seq_len, 0.0);
        }
        let count = tokens.num_supervised() as f64 / rows.len() as f64;
        let (num_explicit, num_reasoning) = rows.iter().fold((0, 0), |(explicit, tokens), row| {
            let is_explicit = usize::from(row.num_reasoning > 0);
            (explicit + is_explicit, tokens + row.num_reasoning)
        });
        StormBatch {
            tokens,
            weights,
            metrics: vec![
                ("explicit", num_explicit as f64 * count),
                ("reasoning_tokens", num_reasoning as f64 * count),
            ],
        }
    }

    /// Answers of the model to held-out questions, at once or after reasoning.
    fn answers(
        &self,
        model: &CausalLm,
        rows: &[&ReasonedTokens],
        thinks: bool,
    ) -> Result<Vec<Completion>, StageError> {
        let prompts = rows.iter().map(|row| Prompt {
            input_ids: if thinks {
                [&row.explicit_prompt[..], &row.opening].concat()
            } else {
                row.prompt.clone()
            },
            seed: 0,
        });
        let options = WritingOptions {
            max_new_tokens: self.parts.storm.max_new_tokens,
            temperature: 0.0,
            max_rows: MAX_ROWS,
            eos_token_id: self.parts.sampler.tokenizer.eos_id().into_iter().collect(),
        };
        let all = &mut |_| ControlFlow::Continue(());
        let written = write_answers(&model.valid(), prompts.collect(), &options, all)?;
        Ok(written.expect("nothing breaks it off"))
    }

    /// Share of right answers and their mean length in tokens.
    fn score(&self, rows: &[&ReasonedTokens], answers: &[Completion]) -> (f64, f64) {
        let tokenizer = &self.parts.sampler.tokenizer;
        let is_right = |(row, answer): &(&&ReasonedTokens, &Completion)| {
            let text = tokenizer.decode(&answer.ids, false);
            let said = text.rsplit_once("</think>");
            let said = said.map_or(text.as_str(), |(_, said)| said);
            said.trim() == tokenizer.decode(&row.answer, false).trim()
        };
        let num_right = rows.iter().zip(answers).filter(is_right).count();
        let num_tokens: usize = answers.iter().map(|answer| answer.ids.len()).sum();
        let count = rows.len() as f64;
        (num_right as f64 / count, num_tokens as f64 / count)
    }
}

impl Stage for StormStage {
    type Batch = StormBatch;

    fn begin_step(
        &mut self,
        _model: &CausalLm,
        _on_progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<(), StageError> {
        self.cursor.num_steps += 1;
        Ok(())
    }

    fn next_batch(&mut self) -> Result<StormBatch, StageError> {
        let mut order = (0, Vec::new());
        let rows: Vec<TreatedTokens> = (0..self.parts.train.micro_batch_size)
            .map(|_| self.next_row(&mut order))
            .collect();
        Ok(self.pack(&rows))
    }

    fn teaches_chat(&self) -> bool {
        true
    }

    fn num_tokens(&self, batch: &StormBatch) -> usize {
        batch.tokens.num_tokens()
    }

    fn num_supervised(&self, batch: &StormBatch) -> usize {
        batch.tokens.num_supervised()
    }

    fn gradients(&self, model: &CausalLm, batch: StormBatch) -> SummedGradients {
        let device = model.embed_tokens.weight.device();
        let mut tensors = to_device(&batch.tokens, &device);
        let has_experts = model.config().experts.is_some();
        tensors.router = has_experts.then(|| RouterTerms::new(&self.parts.router, &batch.tokens));
        let weights = Tensor::<1>::from_floats(batch.weights.as_slice(), &device); // [B * T]
        let recomputes = self.parts.train.activation_checkpointing;
        model.training_pass().begin(self.cursor.num_rows);
        let mut summed = gradients_of_hidden(model, tensors, recomputes, |hidden, labels| {
            let logps = hidden_logps(model, hidden, labels); // [B * T]
            (logps * weights).sum().neg()
        });
        model.training_pass().end();
        summed.metrics = batch.metrics;
        summed
    }

    fn epoch(&self) -> f64 {
        self.cursor.num_rows as f64 / self.parts.rows.len() as f64
    }

    fn cursor(&self) -> Value {
        serde_json::to_value(self.cursor).expect("integers are JSON")
    }

    fn seek(&mut self, cursor: &Value) -> Result<(), StageError> {
        self.cursor = serde_json::from_value(cursor.clone()).map_err(StageError::CursorForm)?;
        Ok(())
    }

    fn validate(&mut self, model: &CausalLm) -> Result<Option<HeldOutLoss>, StageError> {
        let most = match self.parts.max_validation_rows {
            0 => usize::MAX,
            most => most,
        };
        let rows: Vec<&ReasonedTokens> = self.parts.held_out.iter().take(most).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let at_once = Treatment {
            kept: 0.0,
            noise: 0.0,
            vocab_size: self.parts.vocab_size,
        };
        let mut rng = ChaCha8Rng::from_seed([0; 32]);
        let treated: Vec<TreatedTokens> =
            rows.iter().map(|row| at_once.of(row, &mut rng)).collect();
        let batches = treated
            .chunks(self.parts.train.micro_batch_size)
            .map(|rows| self.pack(rows).tokens);
        let (nll_sum, num_supervised) = score_batches(model, batches)?;
        let mut metrics = Metrics::new();
        let answers = self.answers(model, &rows, false)?;
        let (right, tokens) = self.score(&rows, &answers);
        metrics.extend([("right/at_once", right), ("tokens/at_once", tokens)]);
        let answers = self.answers(model, &rows, true)?;
        let (right, tokens) = self.score(&rows, &answers);
        metrics.extend([("right/reasoned", right), ("tokens/reasoned", tokens)]);
        Ok(Some(HeldOutLoss {
            loss: nll_sum / num_supervised as f64,
            bits_per_byte: None,
            metrics,
        }))
    }

    fn sample(&self, model: &CausalLm, prompt: &str) -> Result<String, StageError> {
        self.parts.sampler.sample(model, prompt)
    }
}
