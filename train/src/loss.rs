//! Cross entropy of a packed batch, summed over its trained tokens.
//!
//! Axis letters: `B` batch, `T` positions, `D` hidden size.

use burn::prelude::*;
use burn::tensor::DType;
use dataset::batch::TokenBatch;
use model::experts::Routing;
use model::kernels::linear_cross_entropy;
use model::{CausalLm, Positions};

use crate::device_error::DeviceError;
use crate::routing::RouterTerms;

/// A batch of packed rows on the device.
#[derive(Debug, Clone)]
pub struct BatchTensors {
    /// `[B, T]`.
    pub input_ids: Tensor<2, Int>,
    /// Places `[B, T]`, counted from 0 within each document of a row.
    pub positions: Positions,
    /// `[B * T]`, shifted; -100 where nothing is learned.
    pub labels: Tensor<1, Int>,
    /// `[B, T, D]`, added to the embeddings.
    pub noise: Option<Tensor<3>>,
    /// What routers add to the loss; without it experts are not kept in balance.
    pub router: Option<RouterTerms>,
}

/// A batch moved from the host to the device.
pub fn to_device(batch: &TokenBatch, device: &Device) -> BatchTensors {
    let dims = [batch.batch_size, batch.seq_len];
    let as_ids = |ids: &[u32]| ids.iter().map(|&id| id as i32).collect::<Vec<i32>>();
    let rows = |ids: &[u32]| Tensor::from_data(TensorData::new(as_ids(ids), dims), device);
    BatchTensors {
        input_ids: rows(&batch.input_ids), // [B, T]
        positions: Positions {
            places: rows(&batch.positions), // [B, T]
            gaps: gaps(batch, device),
        },
        labels: Tensor::from_data(
            TensorData::new(batch.labels.clone(), [batch.labels.len()]),
            device,
        ), // [B * T]
        noise: None,
        router: None,
    }
}

/// `[B, T, 2]`; `None` where no piece of the batch forks.
fn gaps(batch: &TokenBatch, device: &Device) -> Option<Tensor<3, Int>> {
    if batch.gaps.is_empty() {
        return None;
    }
    let gaps = batch.gaps.iter();
    let values: Vec<i32> = gaps
        .flat_map(|gap| [gap.since as i32, gap.len as i32])
        .collect();
    let dims = [batch.batch_size, batch.seq_len, 2];
    Some(Tensor::from_data(TensorData::new(values, dims), device))
}

/// Summed negative log-likelihood of a batch's trained tokens, in nats.
///
/// # Shapes
///
/// - returns: `[1]`
pub fn masked_cross_entropy(model: &CausalLm, batch: BatchTensors) -> Tensor<1> {
    let labels = batch.labels.clone(); // [B * T]
    let (hidden, _) = routed_hidden(model, batch); // [B, T, D]
    head_cross_entropy(model, hidden, labels)
}

/// Hidden states after the final norm, `[B, T, D]`, and where routers sent the tokens.
pub(crate) fn routed_hidden(
    model: &CausalLm,
    batch: BatchTensors,
) -> (Tensor<3>, Vec<(usize, Routing)>) {
    let embedded = model.embed_tokens.forward(batch.input_ids); // [B, T, D]
    let embedded = match batch.noise {
        Some(noise) => embedded + noise,
        None => embedded,
    }; // [B, T, D]
    model.forward_embedded(embedded, batch.positions)
}

/// Summed negative log-likelihood under the hidden states after the final norm, in nats.
///
/// # Shapes
///
/// - `hidden`: `[B, T, D]`
/// - `labels`: `[B * T]`
/// - returns: `[1]`
pub fn head_cross_entropy(
    model: &CausalLm,
    hidden: Tensor<3>,
    labels: Tensor<1, Int>,
) -> Tensor<1> {
    let [batch, len, hidden_size] = hidden.dims();
    let hidden = hidden.reshape([batch * len, hidden_size]); // [B * T, D]
    let hidden = model.training_pass().operand(hidden);
    linear_cross_entropy(hidden, model.lm_head_weight(), labels)
}

/// Values of short tensors one after the other, read at once from the device of the first.
///
/// # Errors
///
/// When a device failed at anything that it was given to do before.
pub(crate) fn read_scalars(scalars: Vec<Tensor<1>>) -> Result<Vec<f64>, DeviceError> {
    let Some(device) = scalars.first().map(Tensor::device) else {
        return Ok(Vec::new());
    };
    let here = scalars.into_iter().map(|scalar| scalar.to_device(&device));
    let data = Tensor::cat(here.collect(), 0).try_into_data()?; // [scalars]
    debug_assert_eq!(data.dtype(), DType::F32);
    Ok(data.iter::<f64>().collect())
}
