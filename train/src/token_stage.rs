//! The stage of plain language modelling: packed rows, cross entropy on the labels.
//!
//! Pretraining and instruction tuning differ in how rows are made, not in what is done with them.
//!
//! Axis letters: `B` batch, `T` positions, `D` hidden size.

use std::sync::Arc;

use burn::prelude::*;
use dataset::Tokenizer;
use dataset::batch::TokenBatch;
use dataset::loader::{Loader, LoaderCursor, Prefetcher};
use model::CausalLm;
use serde::Serialize;
use serde_json::Value;

use crate::config::{ConfigError, FieldDocs, LoopConfig, RouterSection};
use crate::curve_inputs::{CURVE_INPUTS, CurveInputs};
use crate::data::{HeldOut, TokenData};
use crate::export::write_folder;
use crate::loss::to_device;
use crate::neftune::embedding_noise;
use crate::plan::TrainPlan;
use crate::routing::RouterTerms;
use crate::run::{Outcome, Prepared, RunOptions, TrainError, run_noting_start};
use crate::run_folder::RunFolder;
use crate::sampler::{PromptKind, Sampler};
use crate::stage::{Stage, StageError, SummedGradients, gradients_of_tokens};
use crate::start::Start;
use crate::validate::{HeldOutLoss, score_batches};

/// Batches made ahead of the one that is trained on.
const PREFETCH_DEPTH: usize = 2;

/// Rows as they come: the loader itself until the first batch, then a thread that runs ahead.
#[derive(Debug)]
enum Feed {
    Waiting(Box<Loader>),
    Running(Prefetcher),
    Empty,
}

/// Packed rows of tokens, trained on by cross entropy.
#[derive(Debug)]
pub(crate) struct TokenStage {
    feed: Feed,
    cursor: LoaderCursor,
    rows_per_epoch: usize,
    held_out: Option<HeldOut>,
    max_validation_batches: usize,
    sampler: Sampler,
    seed: u64,
    recomputes: bool,
    router: RouterSection,
    /// Strength of the noise on embeddings; 0 is none.
    pub(crate) neftune_alpha: f64,
    pub(crate) curve_inputs: Option<CurveInputs>,
}

impl TokenStage {
    /// A stage at the beginning of its data.
    pub(crate) fn new(
        data: TokenData,
        tokenizer: Arc<Tokenizer>,
        prompt_kind: PromptKind,
        config: &LoopConfig,
    ) -> Self {
        Self {
            cursor: data.loader.cursor(),
            rows_per_epoch: data.loader.rows_per_epoch(),
            feed: Feed::Waiting(Box::new(data.loader)),
            held_out: data.held_out,
            max_validation_batches: config.validation.max_batches,
            sampler: Sampler {
                tokenizer,
                prompt_kind,
                samples: config.samples.clone(),
                seed: config.train.seed,
            },
            seed: config.train.seed,
            recomputes: config.train.activation_checkpointing,
            router: config.router.clone(),
            neftune_alpha: 0.0,
            curve_inputs: None,
        }
    }

    /// What a batch's routing is judged by; `None` where the model has no experts.
    pub(crate) fn router_terms(&self, model: &CausalLm, batch: &TokenBatch) -> Option<RouterTerms> {
        let has_experts = model.config().experts.is_some();
        has_experts.then(|| RouterTerms::new(&self.router, batch))
    }

    /// A number for the present micro-batch that is the same in a resumed run.
    pub(crate) fn pass_number(&self) -> u64 {
        (self.cursor.epoch << 32) + self.cursor.row + 1
    }
}

impl Stage for TokenStage {
    type Batch = TokenBatch;

    fn next_batch(&mut self) -> Result<TokenBatch, StageError> {
        let mut prefetcher = match std::mem::replace(&mut self.feed, Feed::Empty) {
            Feed::Waiting(loader) => Prefetcher::new(*loader, PREFETCH_DEPTH),
            Feed::Running(prefetcher) => prefetcher,
            Feed::Empty => unreachable!("the feed is put back below"),
        };
        let prefetched = prefetcher.next_batch();
        self.feed = Feed::Running(prefetcher);
        self.cursor = prefetched.cursor;
        if let Some(inputs) = &mut self.curve_inputs {
            let is_complete = inputs
                .note(&prefetched.batch)
                .map_err(StageError::CurveInputs)?;
            if is_complete {
                self.curve_inputs = None;
            }
        }
        Ok(prefetched.batch)
    }

    fn teaches_chat(&self) -> bool {
        self.sampler.prompt_kind == PromptKind::Chat
    }

    fn num_tokens(&self, batch: &TokenBatch) -> usize {
        batch.num_tokens()
    }

    fn num_supervised(&self, batch: &TokenBatch) -> usize {
        batch.num_supervised()
    }

    fn gradients(&self, model: &CausalLm, batch: TokenBatch) -> SummedGradients {
        let device = model.embed_tokens.weight.device();
        let mut tensors = to_device(&batch, &device);
        tensors.router = self.router_terms(model, &batch);
        if self.neftune_alpha > 0.0 {
            let shape = [batch.batch_size, batch.seq_len, model.config().hidden_size];
            let pass = self.pass_number();
            let noise = embedding_noise(self.neftune_alpha, shape, self.seed, pass);
            tensors.noise = Some(Tensor::from_data(noise, &device)); // [B, T, D]
        }
        model.training_pass().begin(self.pass_number());
        let gradients = gradients_of_tokens(model, tensors, self.recomputes);
        model.training_pass().end();
        gradients
    }

    fn epoch(&self) -> f64 {
        self.cursor.epoch as f64 + self.cursor.row as f64 / self.rows_per_epoch as f64
    }

    fn cursor(&self) -> Value {
        serde_json::to_value(self.cursor).expect("three integers are JSON")
    }

    fn seek(&mut self, cursor: &Value) -> Result<(), StageError> {
        let Feed::Waiting(loader) = &mut self.feed else {
            panic!("a stage goes to a place in its data before its first batch");
        };
        let cursor: LoaderCursor =
            serde_json::from_value(cursor.clone()).map_err(StageError::CursorForm)?;
        loader.seek(cursor).map_err(StageError::Cursor)?;
        self.cursor = cursor;
        Ok(())
    }

    fn validate(&mut self, model: &CausalLm) -> Result<Option<HeldOutLoss>, StageError> {
        let Some(held_out) = &self.held_out else {
            return Ok(None);
        };
        let most = match self.max_validation_batches {
            0 => usize::MAX,
            batches => batches,
        };
        let batches = held_out.batches.iter().take(most);
        let (nll_sum, num_supervised) = score_batches(model, batches)?;
        // Bytes are known per document; of a part, as many count as its share of the tokens.
        let share = num_supervised as f64 / held_out.num_supervised as f64;
        let num_bytes = held_out.num_bytes as f64 * share;
        Ok(Some(HeldOutLoss::new(nll_sum, num_supervised, num_bytes)))
    }

    fn sample(&self, model: &CausalLm, prompt: &str) -> Result<String, StageError> {
        self.sampler.sample(model, prompt)
    }
}

/// A token stage that is ready to train: data opened, nothing written yet.
#[derive(Debug)]
pub(crate) struct TokenRun {
    pub(crate) plan: TrainPlan,
    pub(crate) stage: TokenStage,
    pub(crate) start: Start,
    pub(crate) data_fingerprint: String,
    pub(crate) loop_config: LoopConfig,
}

impl TokenRun {
    /// A run of the stage `name` at the beginning of its data.
    pub(crate) fn new(
        name: &'static str,
        prompt_kind: PromptKind,
        start: Start,
        data: TokenData,
        loop_config: LoopConfig,
    ) -> Result<Self, ConfigError> {
        let plan = TrainPlan::new(
            name,
            &loop_config,
            &start.model_config,
            data.seq_len(),
            data.size,
        )?;
        let data_fingerprint = data.fingerprint.clone();
        let tokenizer = start.tokenizer.clone();
        Ok(Self {
            plan,
            stage: TokenStage::new(data, tokenizer, prompt_kind, &loop_config),
            start,
            data_fingerprint,
            loop_config,
        })
    }

    /// Trains to the end, or until a stop is requested, and exports the model.
    pub(crate) fn run<C: Serialize + FieldDocs>(
        self,
        config: &C,
        options: RunOptions,
    ) -> Result<Outcome, TrainError> {
        let prepared = Prepared::new(
            config,
            self.loop_config,
            self.plan,
            self.start,
            self.data_fingerprint,
        )?;
        run_noting_start(
            prepared,
            options,
            |_, _| Ok(Some(self.stage)),
            begin_curve_inputs,
        )
    }
}

/// Writes the initial weights for `train.dump_curve_inputs`, and has the first batches noted.
fn begin_curve_inputs(
    prepared: &Prepared,
    stage: &mut TokenStage,
    model: &CausalLm,
    folder: &RunFolder,
) -> Result<(), TrainError> {
    let train = &prepared.loop_config.train;
    let num_steps = train.dump_curve_inputs;
    if num_steps > 0 {
        let folder = folder.path().join(CURVE_INPUTS);
        write_folder(&folder.join("init"), model, &prepared.start.tokenizer)?;
        let schedule = &prepared.plan.schedule;
        let lrs = (1..=num_steps)
            .map(|step| schedule.lr_at(step as f64) as f32)
            .collect();
        let inputs = CurveInputs::new(&folder, lrs, train.grad_accumulation_steps);
        stage.curve_inputs = Some(inputs);
    }
    Ok(())
}
