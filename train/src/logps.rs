//! Log-probabilities of a batch's labels, one by one: what preference and reward objectives are
//! made of.
//!
//! Axis letters: `B` batch, `T` positions, `D` hidden size.

use burn::prelude::*;
use model::CausalLm;
use model::experts::Routing;
use model::kernels::token_cross_entropy;

use crate::loss::{BatchTensors, routed_hidden};

/// Log-probability of each label; exactly 0, with no gradient, where nothing is learned.
///
/// # Shapes
///
/// - returns: `[B * T]`, in nats
pub fn token_logps(model: &CausalLm, batch: BatchTensors) -> Tensor<1> {
    routed_token_logps(model, batch).0
}

/// The same, and where the routers of the layers that have one sent the tokens.
pub fn routed_token_logps(
    model: &CausalLm,
    batch: BatchTensors,
) -> (Tensor<1>, Vec<(usize, Routing)>) {
    let labels = batch.labels.clone(); // [B * T]
    let (hidden, routings) = routed_hidden(model, batch); // [B, T, D]
    (hidden_logps(model, hidden, labels), routings)
}

/// The same of hidden states after the final norm.
///
/// # Shapes
///
/// - `hidden`: `[B, T, D]`
/// - `labels`: `[B * T]`
/// - returns: `[B * T]`, in nats
pub fn hidden_logps(model: &CausalLm, hidden: Tensor<3>, labels: Tensor<1, Int>) -> Tensor<1> {
    let [rows, len, hidden_size] = hidden.dims();
    let hidden = hidden.reshape([rows * len, hidden_size]); // [B * T, D]
    let hidden = model.training_pass().operand(hidden);
    token_cross_entropy(hidden, model.lm_head_weight(), labels).neg() // [B * T]
}

#[cfg(test)]
mod tests {
    use dataset::batch::{IGNORE_INDEX, TokenBatch};
    use model::ModelConfig;
    use model::precision::Precision;

    use super::*;
    use crate::loss::{head_cross_entropy, masked_cross_entropy, read_scalars, to_device};

    const DEBUG: &str = include_str!("../../configs/model/debug.json");

    /// The head takes part in the pass's precision: by half a unit in the last place at most.
    #[test]
    fn the_heads_product_is_rounded_too() {
        let config: ModelConfig = serde_json::from_str(DEBUG).unwrap();
        let device = Device::flex();
        let model = CausalLm::new(&config, 1, &device);
        let values: Vec<f32> = (0..config.hidden_size).map(|i| (i as f32).sin()).collect();
        let hidden =
            Tensor::from_data(TensorData::new(values, [1, 1, config.hidden_size]), &device);
        let value = || {
            let labels = Tensor::from_data([3_i32], &device);
            let logps = hidden_logps(&model, hidden.clone(), labels);
            let loss =
                head_cross_entropy(&model, hidden.clone(), Tensor::from_data([3_i32], &device));
            read_scalars(vec![logps, loss]).unwrap()
        };
        let plain = value();
        for precision in [Precision::Bf16, Precision::F16] {
            let rounded = model.training_pass().in_precision(precision, value);
            for (plain, rounded) in plain.iter().zip(rounded) {
                let difference = (plain - rounded).abs();
                assert!(
                    difference > 0.0 && difference < 1e-2,
                    "{plain} and {rounded} in {precision}"
                );
            }
        }
    }

    fn batch() -> TokenBatch {
        TokenBatch {
            batch_size: 2,
            seq_len: 4,
            input_ids: vec![5, 9, 2, 7, 3, 3, 8, 1],
            labels: vec![9, 2, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, 8, 1, 4],
            positions: vec![0, 1, 2, 0, 0, 1, 2, 3],
            gaps: Vec::new(),
            document_ids: vec![0, 0, 0, 1, 0, 0, 0, 0],
        }
    }

    /// Whole logits, normalised by Burn, are the expected value.
    #[test]
    fn each_label_has_its_log_probability_and_ignored_ones_have_zero() {
        let device = Device::flex();
        let config: ModelConfig = serde_json::from_str(DEBUG).unwrap();
        let model = CausalLm::new(&config, 3, &device);
        let batch = batch();
        let found = token_logps(&model, to_device(&batch, &device));
        let found: Vec<f32> = found.into_data().iter().collect();

        let tensors = to_device(&batch, &device);
        let hidden = model.forward(tensors.input_ids, tensors.positions); // [B, T, D]
        let logps = burn::tensor::activation::log_softmax(model.logits(hidden), 2); // [B, T, V]
        let logps: Vec<f32> = logps.into_data().iter().collect();
        for (slot, label) in batch.labels.iter().enumerate() {
            if *label == IGNORE_INDEX {
                assert_eq!(found[slot].abs().to_bits(), 0, "slot {slot}");
            } else {
                let expected = logps[slot * config.vocab_size + *label as usize];
                assert!((found[slot] - expected).abs() < 1e-5, "slot {slot}");
            }
        }
        let summed = masked_cross_entropy(&model, to_device(&batch, &device)).into_scalar::<f32>();
        assert!((summed + found.iter().sum::<f32>()).abs() < 1e-4);
    }
}
