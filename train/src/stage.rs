//! What a stage hands to the training loop: batches, their loss, and ways to look at the model.

use burn::optim::GradientsParams;
use burn::prelude::*;
use model::CausalLm;
use serde_json::Value;

use crate::loss::{BatchTensors, masked_cross_entropy};
use crate::recompute::recomputing_gradients;
use crate::validate::HeldOutLoss;

/// Why a stage could not go on.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The training data cannot be read.
    #[error("the training data cannot be read")]
    Data(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A prompt cannot be continued.
    #[error("the prompt cannot be continued: {0}")]
    Sample(String),
    /// The saved place in the data does not fit the data.
    #[error("the checkpoint's place in the data cannot be found: {expected}")]
    Cursor {
        /// What is wrong with it.
        expected: String,
    },
}

/// Loss and gradients of one micro-batch, summed over what is trained on.
pub struct SummedGradients {
    /// Summed loss, `[1]`, outside autodiff.
    pub loss: Tensor<1>,
    /// Gradients of the sum.
    pub grads: GradientsParams,
}

/// Rows, batches and loss of one kind of training.
pub trait Stage {
    /// What one forward and backward pass works on.
    type Batch;

    /// The next micro-batch; data never ends, it starts another pass.
    ///
    /// # Errors
    ///
    /// When the data cannot be read.
    fn next_batch(&mut self) -> Result<Self::Batch, StageError>;

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

    /// Goes to a place in the data.
    ///
    /// # Errors
    ///
    /// When the place does not fit the data.
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

/// Summed cross entropy of a batch of tokens and its gradients.
///
/// `recomputes` keeps each layer's input only and runs the layer again in the backward pass.
pub fn gradients_of_tokens(
    model: &CausalLm,
    batch: BatchTensors,
    recomputes: bool,
) -> SummedGradients {
    if recomputes {
        return recomputing_gradients(model, batch);
    }
    let loss = masked_cross_entropy(model, batch); // [1]
    let grads = GradientsParams::from_grads(loss.backward(), model);
    SummedGradients {
        loss: loss.inner(),
        grads,
    }
}
