//! Completions as packed rows, and their log-probabilities one completion per row.
//!
//! Axis letters: `B` packed rows, `T` slots of a row, `M` all slots (`B * T`), `D` hidden size, `S`
//! completions, `L` tokens of the longest one.

use burn::prelude::*;
use dataset::batch::{IGNORE_INDEX, TokenBatch};
use dataset::pack::{PackMode, PackOptions, pack_documents};
use model::CausalLm;

use crate::logps::hidden_logps;
use crate::loss::{routed_hidden, to_device};

/// A prompt with the answer that is scored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sequence<'a> {
    pub(super) prompt_ids: &'a [u32],
    pub(super) completion_ids: &'a [u32],
}

impl Sequence<'_> {
    fn len(&self) -> usize {
        self.prompt_ids.len() + self.completion_ids.len()
    }
}

/// Sequences as packed rows, and where their answers are in them.
#[derive(Debug, Clone, Default)]
pub(super) struct PackedCompletions {
    /// Labels are the answers' tokens.
    pub(super) tokens: TokenBatch,
    /// For each completion and token the slot of `M` that predicts it; behind a completion's end a
    /// slot that predicts nothing, whose log-probability is 0. `[S, L]`
    slots: Vec<i32>,
    /// Tokens of the longest completion, `L`.
    pub(super) longest: usize,
    /// Completions, `S`.
    pub(super) num_completions: usize,
}

impl PackedCompletions {
    /// Packs sequences into rows of `seq_len`, which none of them may exceed.
    pub(super) fn new(sequences: &[Sequence<'_>], seq_len: usize, pad_id: u32) -> Self {
        let options = PackOptions {
            seq_len,
            mode: PackMode::Truncate,
            order: None,
        };
        let len_of = |index: u32| sequences[index as usize].len() as u64;
        let index = pack_documents((0..sequences.len() as u32).collect(), len_of, options);
        let longest = sequences.iter().map(|it| it.completion_ids.len());
        let longest = longest.max().unwrap_or(0);
        let mut tokens = TokenBatch::with_capacity(index.num_rows(), seq_len);
        let mut slots = vec![0; sequences.len() * longest];
        for row in 0..index.num_rows() {
            let mut pieces = Vec::new();
            let mut start = row * seq_len;
            for piece in index.row(row) {
                let number = piece.document as usize;
                let Sequence {
                    prompt_ids,
                    completion_ids,
                } = sequences[number];
                let ids = [prompt_ids, completion_ids].concat();
                let num_unanswered = prompt_ids.len() - 1;
                let mut labels = vec![IGNORE_INDEX; num_unanswered];
                labels.extend(completion_ids.iter().map(|&id| id as i32));
                labels.push(IGNORE_INDEX);
                let first = start + num_unanswered;
                let own = &mut slots[number * longest..(number + 1) * longest];
                for (token, slot) in own.iter_mut().enumerate() {
                    // The last slot of a sequence predicts nothing.
                    *slot = (first + token.min(completion_ids.len())) as i32;
                }
                start += ids.len();
                pieces.push((ids, labels));
            }
            tokens.push_row(
                pieces.iter().map(|(ids, labels)| (&ids[..], &labels[..])),
                pad_id,
            );
        }
        Self {
            tokens,
            slots,
            longest,
            num_completions: sequences.len(),
        }
    }

    /// Log-probabilities of the answers' tokens at a temperature, from the hidden states after the
    /// final norm; exactly 0 behind an answer's end.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[B, T, D]`
    /// - `labels`: `[M]`
    /// - returns: `[S, L]`, in nats
    pub(super) fn logps(
        &self,
        model: &CausalLm,
        hidden: Tensor<3>,
        labels: Tensor<1, Int>,
        temperature: f64,
    ) -> Tensor<2> {
        // Logits are linear in the hidden states, so that dividing these divides those.
        let logps = hidden_logps(model, hidden / temperature, labels); // [M]
        let slots = Tensor::from_ints(self.slots.as_slice(), &logps.device()); // [S * L]
        let shape = [self.num_completions, self.longest];
        logps.select(0, slots).reshape(shape) // [S, L]
    }

    /// The same for a model that does not learn, completion by completion.
    pub(super) fn scored_by(&self, model: &CausalLm, temperature: f64) -> Vec<Vec<f32>> {
        let device = model.lm_head_weight().device();
        let tensors = to_device(&self.tokens, &device);
        let labels = tensors.labels.clone(); // [M]
        let (hidden, _) = routed_hidden(model, tensors); // [B, T, D]
        let logps = self.logps(model, hidden, labels, temperature).into_data(); // [S, L]
        let logps: Vec<f32> = logps.iter::<f32>().collect();
        let rows = logps.chunks(self.longest.max(1));
        rows.map(<[f32]>::to_vec).collect()
    }

    /// One number per token of `S` lists as `[S, L]`, 0 behind their ends.
    pub(super) fn padded(&self, lists: &[&[f32]], device: &Device) -> Tensor<2> {
        let mut values = Vec::with_capacity(self.num_completions * self.longest);
        for list in lists {
            values.extend_from_slice(list);
            values.resize(values.len() + self.longest - list.len(), 0.0);
        }
        let shape = [self.num_completions, self.longest];
        Tensor::from_data(TensorData::new(values, shape), device)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::activation::log_softmax;
    use model::ModelConfig;

    use super::*;

    const DEBUG: &str = include_str!("../../../configs/model/debug.json");

    /// Each sequence alone, through whole logits at the temperature, is the expected value; packing
    /// and the padding behind a short answer change nothing.
    #[test]
    fn completions_are_scored_as_if_each_were_alone() {
        let device = Device::flex();
        let config: ModelConfig = serde_json::from_str(DEBUG).unwrap();
        let model = CausalLm::new(&config, 3, &device);
        let sequences = [
            ([5_u32, 9, 7].as_slice(), [11_u32, 2].as_slice()),
            (&[8], &[3, 4, 6, 2]),
            (&[5, 9, 7], &[12]),
        ]
        .map(|(prompt_ids, completion_ids)| Sequence {
            prompt_ids,
            completion_ids,
        });
        let temperature = 0.7;
        let packed = PackedCompletions::new(&sequences, 10, 0);
        assert_eq!(packed.tokens.batch_size, 2);
        assert_eq!(packed.tokens.num_supervised(), 7);
        let found = packed.scored_by(&model, temperature);
        for (sequence, found) in sequences.iter().zip(found) {
            let ids = [sequence.prompt_ids, sequence.completion_ids].concat();
            let len = ids.len();
            let ints = |values: Vec<i32>| {
                Tensor::<2, Int>::from_data(TensorData::new(values, [1, len]), &device)
            };
            let hidden = model.forward(
                ints(ids.iter().map(|&id| id as i32).collect()),
                ints((0..len as i32).collect()),
            ); // [1, T, D]
            let logits = model.logits(hidden) / temperature; // [1, T, V]
            let logps: Vec<f32> = log_softmax(logits, 2).into_data().iter().collect();
            let start = sequence.prompt_ids.len() - 1;
            for (place, found) in found.iter().enumerate() {
                match sequence.completion_ids.get(place) {
                    Some(&id) => {
                        let expected = logps[(start + place) * config.vocab_size + id as usize];
                        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
                    }
                    None => assert_eq!(found.abs().to_bits(), 0),
                }
            }
        }
    }
}
