//! A stage over made-up rows of uneven lengths, which can be told to go wrong.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use dataset::batch::{IGNORE_INDEX, PADDING_DOCUMENT, TokenBatch};
use model::CausalLm;
use model::config::{ModelConfig, ModelType};
use model::experts::ExpertsConfig;
use serde_json::Value;
use train::config::RouterSection;
use train::loss::{head_cross_entropy, to_device};
use train::routing::RouterTerms;
use train::stage::{Stage, StageError, SummedGradients, gradients_of_hidden};
use train::validate::HeldOutLoss;

const SEQ_LEN: usize = 12;
const VOCAB_SIZE: u32 = 24;

/// A decoder of a few thousand parameters.
pub(crate) fn model_config() -> ModelConfig {
    serde_json::from_value(serde_json::json!({
        "model_type": "llama",
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 32,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
        "bos_token_id": 1,
        "eos_token_id": 2
    }))
    .unwrap()
}

/// The same with four experts in the second layer, two per token, a shared one, and biases.
pub(crate) fn experts_config() -> ModelConfig {
    let mut config = model_config();
    config.model_type = ModelType::Ernie45Moe;
    config.experts = Some(ExpertsConfig {
        num_experts: 4,
        num_experts_per_tok: 2,
        moe_intermediate_size: 12,
        num_shared_experts: 1,
        norm_topk_prob: true,
        has_score_correction_bias: true,
        dense_layers: vec![0],
        router_aux_loss_coef: 0.01,
    });
    config
}

/// What goes wrong, and in which batches, counted from 0.
pub(crate) enum Mishap {
    None,
    StopAtBatch(u64),
    NanInBatches(Range<u64>),
    InfiniteGradientInBatches(Range<u64>),
    NoLabelsInBatches(Range<u64>),
    NoGradientsInBatches(Range<u64>),
}

/// Row `n` counts upwards from `n` in steps of `n % 3 + 1`, for `n % 9 + 3` tokens.
pub(crate) struct SyntheticStage {
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) mishap: Mishap,
    pub(crate) router: RouterSection,
    pub(crate) recomputes: bool,
    /// What losses are multiplied by before anybody sees them.
    pub(crate) loss_factor: f64,
    /// Losses that the next validations find, from the back; without any there is no held-out split.
    pub(crate) held_out: Vec<f64>,
    rows_per_batch: usize,
    num_batches: u64,
}

impl SyntheticStage {
    pub(crate) fn new(rows_per_batch: usize) -> Self {
        Self {
            stop: Arc::new(AtomicBool::new(false)),
            mishap: Mishap::None,
            router: RouterSection::default(),
            recomputes: false,
            loss_factor: 1.0,
            held_out: Vec::new(),
            rows_per_batch,
            num_batches: 0,
        }
    }

    fn has_mishap(&self, batch: u64) -> bool {
        match &self.mishap {
            Mishap::None => false,
            Mishap::StopAtBatch(at) => *at == batch,
            Mishap::NanInBatches(range)
            | Mishap::InfiniteGradientInBatches(range)
            | Mishap::NoLabelsInBatches(range)
            | Mishap::NoGradientsInBatches(range) => range.contains(&batch),
        }
    }
}

/// A batch and whether it is to go wrong.
pub(crate) struct SyntheticBatch {
    tokens: TokenBatch,
    goes_wrong: bool,
}

impl Stage for SyntheticStage {
    type Batch = SyntheticBatch;

    fn next_batch(&mut self) -> Result<SyntheticBatch, StageError> {
        let goes_wrong = self.has_mishap(self.num_batches);
        if goes_wrong && matches!(self.mishap, Mishap::StopAtBatch(_)) {
            self.stop.store(true, Ordering::Relaxed);
        }
        let mut tokens = TokenBatch {
            batch_size: self.rows_per_batch,
            seq_len: SEQ_LEN,
            input_ids: Vec::new(),
            labels: Vec::new(),
            positions: Vec::new(),
            gaps: Vec::new(),
            document_ids: Vec::new(),
        };
        for row in 0..self.rows_per_batch as u64 {
            let n = self.num_batches * self.rows_per_batch as u64 + row;
            let len = (n % 9 + 3) as usize;
            let id = |slot: usize| ((n + slot as u64 * (n % 3 + 1)) % u64::from(VOCAB_SIZE)) as u32;
            for slot in 0..SEQ_LEN {
                let is_padding = slot >= len;
                let is_last = slot + 1 >= len;
                let position = if is_padding { slot - len } else { slot };
                tokens.input_ids.push(if is_padding { 0 } else { id(slot) });
                tokens.labels.push(if is_last {
                    IGNORE_INDEX
                } else {
                    id(slot + 1) as i32
                });
                tokens.positions.push(position as u32);
                tokens
                    .document_ids
                    .push(if is_padding { PADDING_DOCUMENT } else { 0 });
            }
        }
        if goes_wrong && matches!(self.mishap, Mishap::NoLabelsInBatches(_)) {
            tokens.labels.fill(IGNORE_INDEX);
        }
        self.num_batches += 1;
        Ok(SyntheticBatch { tokens, goes_wrong })
    }

    fn num_tokens(&self, batch: &SyntheticBatch) -> usize {
        batch.tokens.num_tokens()
    }

    fn num_supervised(&self, batch: &SyntheticBatch) -> usize {
        batch.tokens.num_supervised()
    }

    fn gradients(&self, model: &CausalLm, batch: SyntheticBatch) -> SummedGradients {
        let num_labels = self.num_supervised(&batch) as f64;
        let device = model.lm_head_weight().device();
        let mut tensors = to_device(&batch.tokens, &device);
        if model.config().experts.is_some() {
            tensors.router = Some(RouterTerms::new(&self.router, &batch.tokens));
        }
        let mut summed = gradients_of_hidden(model, tensors, self.recomputes, |hidden, labels| {
            head_cross_entropy(model, hidden, labels).mul_scalar(self.loss_factor)
        });
        summed.metrics = vec![("labels", num_labels)];
        match &self.mishap {
            Mishap::NanInBatches(_) if batch.goes_wrong => {
                summed.loss = summed.loss.mul_scalar(f32::NAN);
            }
            Mishap::InfiniteGradientInBatches(_) if batch.goes_wrong => {
                summed.grads = infinite(model, summed.grads);
            }
            Mishap::NoGradientsInBatches(_) if batch.goes_wrong => {
                summed.grads = GradientsParams::new();
            }
            _ => {}
        }
        summed
    }

    fn epoch(&self) -> f64 {
        0.0
    }

    fn cursor(&self) -> Value {
        Value::from(self.num_batches)
    }

    fn seek(&mut self, cursor: &Value) -> Result<(), StageError> {
        self.num_batches = cursor.as_u64().expect("a cursor of this stage is a number");
        Ok(())
    }

    fn validate(&mut self, _model: &CausalLm) -> Result<Option<HeldOutLoss>, StageError> {
        Ok(self.held_out.pop().map(|loss| HeldOutLoss {
            loss,
            bits_per_byte: Some(loss),
            metrics: Vec::new(),
        }))
    }

    fn sample(&self, _model: &CausalLm, _prompt: &str) -> Result<String, StageError> {
        Ok(String::new())
    }
}

/// The same gradients, each multiplied by infinity.
fn infinite(model: &CausalLm, grads: GradientsParams) -> GradientsParams {
    struct Spoil {
        grads: GradientsParams,
        spoiled: GradientsParams,
    }
    impl ModuleVisitor for Spoil {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(grad) = self.grads.remove::<D>(param.id) {
                self.spoiled
                    .register(param.id, grad.mul_scalar(f32::INFINITY));
            }
        }
    }
    let mut spoil = Spoil {
        grads,
        spoiled: GradientsParams::new(),
    };
    model.visit(&mut spoil);
    spoil.spoiled
}
