//! What a stage hands to the training loop: batches, their loss, and ways to look at the model.
//!
//! Axis letters: `B` batch, `T` positions, `D` hidden size.

use std::io;
use std::ops::ControlFlow;

use burn::optim::GradientsParams;
use burn::prelude::*;
use dataset::chat::ChatError;
use dataset::loader::LoaderError;
use model::CausalLm;
use model::generate::GenerateError;
use serde_json::Value;

use crate::device_error::DeviceError;
use crate::loss::{BatchTensors, head_cross_entropy, routed_hidden};
use crate::recompute::recomputing_gradients;
use crate::reward::RewardError;
use crate::routing::LayerRouting;
use crate::validate::HeldOutLoss;

/// Why a stage could not go on.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The saved place in the data is none.
    #[error("the checkpoint's place in the data has another form")]
    CursorForm(#[source] serde_json::Error),
    /// The saved place in the data does not fit the data.
    #[error(transparent)]
    Cursor(LoaderError),
    /// A prompt does not fit the chat template.
    #[error("the prompt does not fit the chat template")]
    Prompt(#[source] ChatError),
    /// A prompt cannot be continued.
    #[error(transparent)]
    Sample(#[from] GenerateError),
    /// An answer of the model has no reward.
    #[error(transparent)]
    Reward(#[from] RewardError),
    /// A device gave no result.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The batches asked for by `train.dump_curve_inputs` cannot be written.
    #[error("the batches for train.dump_curve_inputs cannot be written")]
    CurveInputs(#[source] io::Error),
}

/// Named numbers besides the loss, the most telling first: the terminal shows that one.
pub type Metrics = Vec<(&'static str, f64)>;

/// Adds the numbers of another batch, name by name.
pub(crate) fn add_metrics(sums: &mut Metrics, batch: Metrics) {
    if sums.is_empty() {
        *sums = batch;
        return;
    }
    for ((name, sum), (other, value)) in sums.iter_mut().zip(batch) {
        debug_assert_eq!(*name, other, "batches of one stage");
        *sum += value;
    }
}

/// Loss and gradients of one micro-batch, summed over what is trained on.
pub struct SummedGradients {
    /// Summed loss, `[1]`, outside autodiff.
    pub loss: Tensor<1>,
    /// Gradients of the sum, and of what routers add to it, times the pass's loss scale.
    pub grads: GradientsParams,
    /// Work of the experts, layer by layer; nothing where there are none.
    pub routing: Vec<LayerRouting>,
    /// Other numbers of the batch, summed over the same terms as the loss.
    pub metrics: Metrics,
}

/// Rows, batches and loss of one kind of training.
pub trait Stage: Send {
    /// What one forward and backward pass works on.
    type Batch;

    /// Makes what the next step's micro-batches are drawn from, where the model itself makes it.
    ///
    /// `on_progress` is told how much of how much is made. When it breaks off, nothing is made: the
    /// step is not taken then, and the place in the data stays that of the last one.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    fn begin_step(
        &mut self,
        _model: &CausalLm,
        _on_progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<(), StageError> {
        Ok(())
    }

    /// The next micro-batch; data never ends, it starts another pass.
    ///
    /// # Errors
    ///
    /// When the data cannot be read.
    fn next_batch(&mut self) -> Result<Self::Batch, StageError>;

    /// Whether the model learns to answer in its tokenizer's chat template.
    fn teaches_chat(&self) -> bool {
        false
    }

    /// Tokens of a batch, padding not counted.
    fn num_tokens(&self, batch: &Self::Batch) -> usize;

    /// Terms that the batch's summed loss has: the weight of the batch within its step.
    fn num_supervised(&self, batch: &Self::Batch) -> usize;

    /// Summed loss of a batch and its gradients.
    fn gradients(&self, model: &CausalLm, batch: Self::Batch) -> SummedGradients;

    /// Passes over the data so far, the present one as a share.
    fn epoch(&self) -> f64;

    /// Place in the data after the last batch that was handed out.
    fn cursor(&self) -> Value;

    /// Goes to a place in the data, before the first batch is asked for.
    ///
    /// # Errors
    ///
    /// When the place does not fit the data.
    ///
    /// # Panics
    ///
    /// May panic when a batch was handed out already.
    fn seek(&mut self, cursor: &Value) -> Result<(), StageError>;

    /// Loss on the held-out split; `None` when nothing is held out.
    ///
    /// # Errors
    ///
    /// When the data cannot be read.
    fn validate(&mut self, model: &CausalLm) -> Result<Option<HeldOutLoss>, StageError>;

    /// What the model writes after a prompt.
    ///
    /// # Errors
    ///
    /// When the prompt cannot be continued.
    fn sample(&self, model: &CausalLm, prompt: &str) -> Result<String, StageError>;
}

/// Gradients of a loss, times the pass's loss scale.
pub(crate) fn scaled_gradients(model: &CausalLm, loss: Tensor<1>) -> GradientsParams {
    let scaled = model.training_pass().scaled(loss); // [1]
    GradientsParams::from_grads(scaled.backward(), model)
}

/// Summed cross entropy of a batch of tokens, and its gradients with what routers add to it.
///
/// `recomputes` keeps each layer's input only and runs the layer again in the backward pass.
pub fn gradients_of_tokens(
    model: &CausalLm,
    batch: BatchTensors,
    recomputes: bool,
) -> SummedGradients {
    gradients_of_hidden(model, batch, recomputes, |hidden, labels| {
        head_cross_entropy(model, hidden, labels)
    })
}

/// The same for any loss of the hidden states after the final norm, `[B, T, D]`, and of the labels,
/// `[B * T]`.
pub fn gradients_of_hidden(
    model: &CausalLm,
    batch: BatchTensors,
    recomputes: bool,
    loss_of: impl FnOnce(Tensor<3>, Tensor<1, Int>) -> Tensor<1>,
) -> SummedGradients {
    if recomputes {
        return recomputing_gradients(model, batch, loss_of);
    }
    let (router, labels) = (batch.router.clone(), batch.labels.clone()); // [B * T]
    let (hidden, routings) = routed_hidden(model, batch); // [B, T, D]
    let loss = loss_of(hidden, labels); // [1]
    let (added, routing) = match router {
        Some(terms) => terms.judge_all(model, &routings),
        None => (None, Vec::new()),
    };
    let total = match added {
        Some(added) => loss.clone() + added,
        None => loss.clone(),
    }; // [1]
    SummedGradients {
        loss: loss.inner(),
        grads: scaled_gradients(model, total),
        routing,
        metrics: Metrics::new(),
    }
}
