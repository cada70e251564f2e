//! Batches that were recorded, handed out as a stage.

use std::collections::VecDeque;

use dataset::batch::TokenBatch;
use model::CausalLm;
use safetensors::SafeTensors;
use serde_json::Value;
use train::loss::{BatchTensors, to_device};
use train::stage::{Stage, StageError, SummedGradients, gradients_of_tokens};
use train::validate::HeldOutLoss;

/// Hands out recorded batches in their order.
pub(crate) struct RecordedBatches {
    pub(crate) batches: VecDeque<TokenBatch>,
    pub(crate) recomputes: bool,
}

impl Stage for RecordedBatches {
    type Batch = TokenBatch;

    fn next_batch(&mut self) -> Result<TokenBatch, StageError> {
        Ok(self
            .batches
            .pop_front()
            .expect("as many batches as steps need"))
    }

    fn num_tokens(&self, batch: &TokenBatch) -> usize {
        batch.num_tokens()
    }

    fn num_supervised(&self, batch: &TokenBatch) -> usize {
        batch.num_supervised()
    }

    fn gradients(&self, model: &CausalLm, batch: TokenBatch) -> SummedGradients {
        let device = model.lm_head_weight().device();
        let batch: BatchTensors = to_device(&batch, &device);
        gradients_of_tokens(model, batch, self.recomputes)
    }

    fn epoch(&self) -> f64 {
        0.0
    }

    fn cursor(&self) -> Value {
        Value::Null
    }

    fn seek(&mut self, _cursor: &Value) -> Result<(), StageError> {
        Ok(())
    }

    fn validate(&mut self, _model: &CausalLm) -> Result<Option<HeldOutLoss>, StageError> {
        Ok(None)
    }

    fn sample(&self, _model: &CausalLm, _prompt: &str) -> Result<String, StageError> {
        Ok(String::new())
    }
}

/// Numbers of a tensor of 64-bit integers.
pub(crate) fn integers(file: &SafeTensors<'_>, name: &str) -> (Vec<usize>, Vec<i64>) {
    let view = file.tensor(name).unwrap();
    let numbers = view
        .data()
        .chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()));
    (view.shape().to_vec(), numbers.collect())
}

/// Numbers of a tensor of 32-bit floats.
pub(crate) fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let view = file.tensor(name).unwrap();
    let numbers = view.data().chunks_exact(4);
    numbers
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}
