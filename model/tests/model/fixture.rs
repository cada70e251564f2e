//! Reads the recorded tensors and runs whole rows through a model.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::prelude::*;
use model::{CausalLm, hf};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde_json::Value;

/// Folder of a golden.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// A golden's model.
pub(crate) fn golden_model(name: &str, device: &Device) -> CausalLm {
    hf::load_model(&golden(name), device).unwrap()
}

/// A JSON file of a golden.
pub(crate) fn golden_json(name: &str, file: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(golden(name).join(file)).unwrap()).unwrap()
}

/// A recorded tensor; token ids are exact in f32.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recorded {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl Recorded {
    /// As `[B, T]` token ids.
    pub(crate) fn token_ids(&self) -> Vec<Vec<i64>> {
        let rows = self.values.chunks(self.shape[1]);
        rows.map(|row| row.iter().map(|id| *id as i64).collect())
            .collect()
    }
}

/// All tensors of a safetensors file.
pub(crate) fn recorded(path: &Path) -> BTreeMap<String, Recorded> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensors()
        .into_iter()
        .map(|(name, view)| {
            let data = view.data();
            let values = match view.dtype() {
                Dtype::F32 => data
                    .chunks_exact(4)
                    .map(|word| f32::from_le_bytes(word.try_into().unwrap()))
                    .collect(),
                Dtype::I64 => data
                    .chunks_exact(8)
                    .map(|word| i64::from_le_bytes(word.try_into().unwrap()) as f32)
                    .collect(),
                other => panic!("{name} is {other:?}"),
            };
            (
                name,
                Recorded {
                    shape: view.shape().to_vec(),
                    values,
                },
            )
        })
        .collect()
}

/// Rows of equal length as an integer tensor.
pub(crate) fn int_tensor(rows: &[Vec<i64>], device: &Device) -> Tensor<2, Int> {
    let shape = [rows.len(), rows[0].len()];
    Tensor::from_data(TensorData::new(rows.concat(), shape), device)
}

/// Positions of rows that hold one document each.
pub(crate) fn whole_rows(rows: &[Vec<i64>]) -> Vec<Vec<i64>> {
    rows.iter()
        .map(|row| (0..row.len() as i64).collect())
        .collect()
}

/// Hidden states of rows that hold one document each.
pub(crate) fn hidden(model: &CausalLm, rows: &[Vec<i64>], device: &Device) -> Tensor<3> {
    model.forward(
        int_tensor(rows, device),
        int_tensor(&whole_rows(rows), device),
    )
}

/// Logits of rows that hold one document each, on the host.
pub(crate) fn logits(model: &CausalLm, rows: &[Vec<i64>], device: &Device) -> Vec<f32> {
    model
        .logits(hidden(model, rows, device))
        .into_data()
        .try_into_vec()
        .unwrap()
}

/// The prompt and its most likely continuation, every step from the whole row.
pub(crate) fn greedy(model: &CausalLm, prompt: &[i64], len: usize, device: &Device) -> Vec<i64> {
    let mut ids = prompt.to_vec();
    while ids.len() < len {
        let logits = logits(model, &[ids.clone()], device);
        let last = &logits[logits.len() - model.config().vocab_size..];
        let best = (0..last.len())
            .max_by(|a, b| last[*a].total_cmp(&last[*b]))
            .unwrap();
        ids.push(best as i64);
    }
    ids
}

/// Largest absolute difference.
pub(crate) fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

/// Root of the sum of squares, in f64.
pub(crate) fn l2_norm(values: impl Iterator<Item = f32>) -> f64 {
    values
        .map(|value| f64::from(value).powi(2))
        .sum::<f64>()
        .sqrt()
}
