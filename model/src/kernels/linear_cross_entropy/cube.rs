//! The head and its loss on graphics cards: Burn's products over chunks of tokens, and between them
//! one kernel that turns a chunk's logits into losses and into their own gradient.
//!
//! Axis letters: `M` tokens, `C` tokens of a chunk, `D` hidden size, `V` vocabulary.

use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Cube, TensorMetadata, backend_extension};
use burn::tensor::{FloatDType, Shape, Slice};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::per_token::{Operands, TokenCrossEntropyBackwardOps, TokenCrossEntropyOps};
use super::{HeadGradients, LinearCrossEntropyBackwardOps, LinearCrossEntropyOps, Wanted};
use crate::kernels::cube::{
    CUBE_UNITS, contiguous, cubes_for, i32s, team_max, team_sum, unwritten,
};

/// Logits that are held at once, 64 MiB of them: enough rows to keep a card's products busy.
const CHUNK_LOGITS: usize = 1 << 24;

impl LinearCrossEntropyOps for Cube {
    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        labels: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        total(Self::token_cross_entropy(hidden, weight, labels))
    }
}

impl LinearCrossEntropyBackwardOps for Cube {
    fn linear_cross_entropy_gradients(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        labels: IntTensor<Self>,
        wanted: Wanted,
    ) -> (FloatTensor<Self>, HeadGradients<Self>) {
        let upstream = Self::float_ones(labels.shape(), &hidden.device(), FloatDType::F32); // [M]
        let head = Head {
            hidden,
            weight,
            labels,
        };
        let (losses, gradients) = head.gradients(&upstream, wanted);
        (total(losses), gradients)
    }

    fn scale_by(gradient: FloatTensor<Self>, upstream: FloatTensor<Self>) -> FloatTensor<Self> {
        let factor = Self::float_reshape(upstream, Shape::new([1, 1]));
        Self::float_mul(gradient, factor)
    }
}

impl TokenCrossEntropyOps for Cube {
    fn token_cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        labels: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let head = Head {
            hidden,
            weight,
            labels,
        };
        let losses = head.chunks().map(|chunk| {
            let (_, logits, labels) = head.logits(chunk);
            Self::logit_losses(logits, labels)
        });
        join(losses.collect())
    }
}

impl TokenCrossEntropyBackwardOps for Cube {
    fn token_cross_entropy_backward(
        operands: Operands<Self>,
        upstream: FloatTensor<Self>,
        wanted: Wanted,
    ) -> HeadGradients<Self> {
        let head = Head {
            hidden: operands.hidden,
            weight: operands.weight,
            labels: operands.labels,
        };
        head.gradients(&upstream, wanted).1
    }
}

/// The operands of the head, cut into chunks of tokens.
struct Head {
    hidden: FloatTensor<Cube>, // [M, D]
    weight: FloatTensor<Cube>, // [V, D]
    labels: IntTensor<Cube>,   // [M]
}

impl Head {
    /// Ranges of tokens whose logits are held together.
    fn chunks(&self) -> impl Iterator<Item = Slice> + use<> {
        let [num_tokens, _] = self.hidden.shape().dims();
        let [vocab_size, _] = self.weight.shape().dims();
        let len = (CHUNK_LOGITS / vocab_size).max(1);
        let starts = (0..num_tokens).step_by(len);
        starts.map(move |start| Slice::from(start..num_tokens.min(start + len)))
    }

    /// A chunk's inputs `[C, D]`, logits `[C, V]` and labels `[C]`.
    fn logits(&self, chunk: Slice) -> (FloatTensor<Cube>, FloatTensor<Cube>, IntTensor<Cube>) {
        let inputs = Cube::float_slice(self.hidden.clone(), &[chunk, Slice::full()]);
        let weight = Cube::float_transpose(self.weight.clone());
        let logits = Cube::float_matmul(inputs.clone(), weight);
        let labels = Cube::int_slice(self.labels.clone(), &[chunk]);
        (inputs, logits, labels)
    }

    /// Losses `[M]`, and gradients under the gradient that reaches each of them, `[M]`.
    fn gradients(
        &self,
        upstream: &FloatTensor<Cube>,
        wanted: Wanted,
    ) -> (FloatTensor<Cube>, HeadGradients<Cube>) {
        let mut losses = Vec::new();
        let mut hidden_grads = Vec::new();
        let mut weight_grad = None;
        for chunk in self.chunks() {
            let (inputs, logits, labels) = self.logits(chunk);
            let upstream = Cube::float_slice(upstream.clone(), &[chunk]);
            let (chunk_losses, logit_grads) = Cube::logit_gradients(logits, labels, upstream);
            losses.push(chunk_losses);
            if wanted.weight {
                let grads = Cube::float_transpose(logit_grads.clone());
                let part = Cube::float_matmul(grads, inputs); // [V, D]
                weight_grad = Some(match weight_grad {
                    Some(sum) => Cube::float_add(sum, part),
                    None => part,
                });
            }
            if wanted.hidden {
                hidden_grads.push(Cube::float_matmul(logit_grads, self.weight.clone())); // [C, D]
            }
        }
        let gradients = HeadGradients {
            hidden: wanted.hidden.then(|| join(hidden_grads)),
            weight: weight_grad,
        };
        (join(losses), gradients)
    }
}

/// The sum of all losses. Burn's sum over everything adds atomically, in any order; along an axis it
/// does not.
fn total(losses: FloatTensor<Cube>) -> FloatTensor<Cube> {
    Cube::float_sum_dim(losses, 0)
}

/// Chunks one after another; a single one is not copied.
fn join(mut chunks: Vec<FloatTensor<Cube>>) -> FloatTensor<Cube> {
    match chunks.len() {
        1 => chunks.remove(0),
        _ => Cube::float_cat(chunks, 0),
    }
}

/// What happens to the logits of a chunk.
#[backend_extension(Cube, Fusion)]
pub(crate) trait LogitOps: Backend {
    /// Loss of each token, `[C]`, from logits `[C, V]`; zero without a label.
    #[fusion(dtype = logits, shape = labels)]
    fn logit_losses(logits: FloatTensor<Self>, labels: IntTensor<Self>) -> FloatTensor<Self>;

    /// The same, and the logits' gradient `(softmax - one_hot(label)) * upstream`, `[C, V]`.
    #[fusion(meta = |logits, _labels, upstream| (upstream.clone(), logits.clone()))]
    fn logit_gradients(
        logits: FloatTensor<Self>,
        labels: IntTensor<Self>,
        upstream: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

impl LogitOps for CubeBackend {
    fn logit_losses(logits: CubeTensor, labels: CubeTensor) -> CubeTensor {
        let logits = contiguous(logits);
        let [num_tokens, vocab_size] = logits.shape().dims();
        let losses = unwritten(&logits, Shape::new([num_tokens]));
        let cube_dim = CubeDim::new_1d(CUBE_UNITS as u32);
        losses_of::launch(
            &losses.client,
            cubes_for(&losses, num_tokens * CUBE_UNITS, cube_dim),
            cube_dim,
            logits.into_buffer_arg(),
            i32s(labels).into_buffer_arg(),
            losses.clone().into_buffer_arg(),
            vocab_size,
        );
        losses
    }

    fn logit_gradients(
        logits: CubeTensor,
        labels: CubeTensor,
        upstream: CubeTensor,
    ) -> (CubeTensor, CubeTensor) {
        let logits = contiguous(logits);
        let [num_tokens, vocab_size] = logits.shape().dims();
        let losses = unwritten(&logits, Shape::new([num_tokens]));
        let grads = unwritten(&logits, logits.shape());
        let cube_dim = CubeDim::new_1d(CUBE_UNITS as u32);
        gradients_of::launch(
            &losses.client,
            cubes_for(&losses, num_tokens * CUBE_UNITS, cube_dim),
            cube_dim,
            logits.into_buffer_arg(),
            i32s(labels).into_buffer_arg(),
            contiguous(upstream).into_buffer_arg(),
            losses.clone().into_buffer_arg(),
            grads.clone().into_buffer_arg(),
            vocab_size,
        );
        (losses, grads)
    }
}

/// A cube per token.
#[cube(launch)]
fn losses_of(logits: &[f32], labels: &[i32], losses: &mut [f32], #[comptime] vocab_size: usize) {
    let token = CUBE_POS;
    if token >= losses.len() {
        terminate!();
    }
    let first = token * vocab_size;
    let (largest, sum) = softmax_terms(logits, first, vocab_size);
    if UNIT_POS == 0 {
        losses[token] = loss_of(logits, first, labels[token], largest + sum.ln());
    }
}

/// A cube per token.
#[cube(launch)]
fn gradients_of(
    logits: &[f32],
    labels: &[i32],
    upstream: &[f32],
    losses: &mut [f32],
    grads: &mut [f32],
    #[comptime] vocab_size: usize,
) {
    let token = CUBE_POS;
    if token >= losses.len() {
        terminate!();
    }
    let first = token * vocab_size;
    let label = labels[token];
    let (largest, sum) = softmax_terms(logits, first, vocab_size);
    if UNIT_POS == 0 {
        losses[token] = loss_of(logits, first, label, largest + sum.ln());
    }
    let mut factor = 0.0_f32;
    if label >= 0 {
        factor = upstream[token];
    }
    for column in range_stepped(UNIT_POS as usize, vocab_size, CUBE_UNITS) {
        let mut share = (logits[first + column] - largest).exp() / sum;
        if column as i32 == label {
            share -= 1.0_f32;
        }
        grads[first + column] = share * factor;
    }
}

/// The largest logit of a token, and the sum of `exp(logit - largest)`, the same in each unit.
#[cube]
fn softmax_terms(logits: &[f32], first: usize, #[comptime] vocab_size: usize) -> (f32, f32) {
    let unit = UNIT_POS as usize;
    let mut largest = f32::min_value();
    for column in range_stepped(unit, vocab_size, CUBE_UNITS) {
        largest = max(largest, logits[first + column]);
    }
    let largest = team_max(largest, CUBE_UNITS);
    let mut sum = 0.0_f32;
    for column in range_stepped(unit, vocab_size, CUBE_UNITS) {
        sum += (logits[first + column] - largest).exp();
    }
    (largest, team_sum(sum, CUBE_UNITS))
}

/// `log_sum - logit[label]`, and zero without a label.
#[cube]
fn loss_of(logits: &[f32], first: usize, label: i32, log_sum: f32) -> f32 {
    let mut loss = 0.0_f32;
    if label >= 0 {
        loss = log_sum - logits[first + label as usize];
    }
    loss
}
