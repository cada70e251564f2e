//! Log-probabilities of chosen tokens, without the logits of a whole text in memory at once.
//!
//! Axis letters: `M` positions, `D` hidden size, `V` vocabulary, `C` choices per position.

use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use model::CausalLm;

/// Positions whose logits are held at once: 6 MiB with MiniMind's vocabulary.
const POSITIONS_PER_CHUNK: usize = 256;

/// Log-probabilities that each position gives to each of its choices as the next token, in nats.
///
/// In f32, as `transformers` computes them for an f32 model.
///
/// # Shapes
///
/// - `hidden`: `[M, D]`
/// - `choices`: `[M, C]`, position by position
/// - returns: `[M, C]`, position by position
///
/// # Panics
///
/// If the choices are not the same number for each position.
pub fn next_token_logps(model: &CausalLm, hidden: &Tensor<2>, choices: &[u32]) -> Vec<f32> {
    let [num_positions, hidden_size] = hidden.dims();
    if num_positions == 0 {
        return Vec::new();
    }
    assert!(
        choices.len().is_multiple_of(num_positions),
        "{} choices for {num_positions} positions",
        choices.len()
    );
    let num_choices = choices.len() / num_positions;
    let device = hidden.device();
    let mut logps = Vec::with_capacity(choices.len());
    for start in (0..num_positions).step_by(POSITIONS_PER_CHUNK) {
        let end = num_positions.min(start + POSITIONS_PER_CHUNK);
        let len = end - start;
        let rows = hidden.clone().slice([start..end, 0..hidden_size]); // [M, D]
        let logits = model.logits(rows.reshape([1, len, hidden_size])); // [1, M, V]
        let chosen: Vec<i32> = choices[start * num_choices..end * num_choices]
            .iter()
            .map(|&id| id as i32)
            .collect();
        let chosen = TensorData::new(chosen, [1, len, num_choices]);
        let chosen = Tensor::<3, Int>::from_data(chosen, &device); // [1, M, C]
        let chosen_logps = log_softmax(logits, 2).gather(2, chosen); // [1, M, C]
        logps.extend(chosen_logps.into_data().convert::<f32>().iter::<f32>());
    }
    logps
}
