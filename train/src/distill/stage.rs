//! The stage: batches, validation and samples of instruction tuning, with the teacher's loss.
//!
//! Axis letters: `B` batch, `T` positions, `D` hidden size, `S` trained tokens, `V` vocabulary.

use burn::prelude::*;
use dataset::batch::{IGNORE_INDEX, TokenBatch};
use model::CausalLm;
use model::experts::Routing;
use serde_json::Value;

use super::loss::{distill_loss, divergence, divergence_of_likeliest};
use super::teacher::Teacher;
use crate::loss::to_device;
use crate::stage::{Metrics, Stage, StageError, SummedGradients, scaled_gradients};
use crate::token_stage::TokenStage;
use crate::validate::HeldOutLoss;

/// Instruction tuning towards a teacher's distribution.
pub(super) struct DistillStage {
    pub(super) inner: TokenStage,
    pub(super) teacher: Teacher,
    /// Weight of the labels against the teacher.
    pub(super) alpha: f64,
}

/// Slots of a batch that have a label, and the labels.
pub(super) fn trained_slots(batch: &TokenBatch) -> (Vec<i32>, Vec<i32>) {
    let slots = batch.labels.iter().enumerate();
    slots
        .filter(|(_, label)| **label != IGNORE_INDEX)
        .map(|(slot, label)| (slot as i32, *label))
        .unzip()
}

/// Logits of some of a batch's slots, `[S, V]`.
pub(super) fn logits_of_slots(model: &CausalLm, batch: &TokenBatch, slots: &[i32]) -> Tensor<2> {
    routed_logits_of_slots(model, batch, slots).0
}

/// The same, and where the routers of the layers that have one sent the tokens.
fn routed_logits_of_slots(
    model: &CausalLm,
    batch: &TokenBatch,
    slots: &[i32],
) -> (Tensor<2>, Vec<(usize, Routing)>) {
    let device = model.lm_head_weight().device();
    let tensors = to_device(batch, &device);
    let embedded = model.embed_tokens.forward(tensors.input_ids); // [B, T, D]
    let (hidden, routings) = model.forward_embedded(embedded, tensors.positions); // [B, T, D]
    let [rows, len, hidden_size] = hidden.dims();
    let hidden = hidden.reshape([rows * len, hidden_size]); // [B * T, D]
    let hidden = hidden.select(0, Tensor::from_ints(slots, &device)); // [S, D]
    let logits = model.logits(hidden.unsqueeze::<3>()).squeeze_dim::<2>(0); // [S, V]
    (logits, routings)
}

impl Stage for DistillStage {
    type Batch = TokenBatch;

    fn next_batch(&mut self) -> Result<TokenBatch, StageError> {
        self.inner.next_batch()
    }

    fn teaches_chat(&self) -> bool {
        self.inner.teaches_chat()
    }

    fn num_tokens(&self, batch: &TokenBatch) -> usize {
        self.inner.num_tokens(batch)
    }

    fn num_supervised(&self, batch: &TokenBatch) -> usize {
        self.inner.num_supervised(batch)
    }

    fn gradients(&self, model: &CausalLm, batch: TokenBatch) -> SummedGradients {
        let device = model.embed_tokens.weight.device();
        let (slots, labels) = trained_slots(&batch);
        model.training_pass().begin(self.inner.pass_number());
        let (logits, routings) = routed_logits_of_slots(model, &batch, &slots); // [S, V]
        model.training_pass().end();
        let temperature = self.teacher.temperature;
        let divergence =
            if let Some(likeliest) = self.teacher.likeliest(&batch, &device.clone().inner()) {
                divergence_of_likeliest(likeliest.tracked(), logits.clone(), temperature)
            } else {
                let teacher = self.teacher.logits(&batch, &slots); // [S, V]
                // The teacher stands on the first device only.
                let teacher = Tensor::from_inner(teacher.to_device(&device.clone().inner()));
                divergence(teacher, logits.clone(), temperature)
            }; // [1]
        let labels = Tensor::from_ints(labels.as_slice(), &device); // [S]
        let loss = distill_loss(logits, labels, divergence, self.alpha, temperature); // [1]
        let (added, routing) = match self.inner.router_terms(model, &batch) {
            Some(terms) => terms.judge_all(model, &routings),
            None => (None, Vec::new()),
        };
        // As in MiniMind's recipe, what balances experts goes with the labels' share.
        let total = match added {
            Some(added) => loss.clone() + added.mul_scalar(self.alpha),
            None => loss.clone(),
        }; // [1]
        SummedGradients {
            loss: loss.inner(),
            grads: scaled_gradients(model, total),
            routing,
            metrics: Metrics::new(),
        }
    }

    fn epoch(&self) -> f64 {
        self.inner.epoch()
    }

    fn cursor(&self) -> Value {
        self.inner.cursor()
    }

    fn seek(&mut self, cursor: &Value) -> Result<(), StageError> {
        self.inner.seek(cursor)
    }

    fn validate(&mut self, model: &CausalLm) -> Result<Option<HeldOutLoss>, StageError> {
        self.inner.validate(model)
    }

    fn sample(&self, model: &CausalLm, prompt: &str) -> Result<String, StageError> {
        self.inner.sample(model, prompt)
    }
}
