//! The head and its loss on the CPU: logits of one chunk of tokens at a time in a reused buffer,
//! turned into their own gradient where they stand.

use std::borrow::Cow;

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;
use burn_flex::FlexTensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::per_token::{Operands, TokenCrossEntropyBackwardOps, TokenCrossEntropyOps};
use super::{HeadGradients, LinearCrossEntropyBackwardOps, LinearCrossEntropyOps, Wanted};
use crate::kernels::IGNORE_INDEX;
use crate::kernels::flex::{contiguous, integers, scale_in_place, tensor_of, unzeroed};
use crate::kernels::matmul::{Into, Matrix};
use crate::kernels::rounded::{Operand, product, widened};
use crate::kernels::simd::{exp, max, vectorized};
use crate::precision::Precision;

/// Tokens whose logits are held at once. Fewer save memory, more let the products run longer
/// between packing the weight.
const CHUNK_TOKENS: usize = 512;

impl LinearCrossEntropyOps for Flex {
    fn linear_cross_entropy(
        hidden: FlexTensor,
        weight: FlexTensor,
        labels: FlexTensor,
    ) -> FlexTensor {
        let hidden = contiguous(hidden);
        let head = Head::new(&hidden, &weight, &labels);
        let losses = head.run(&mut Targets::none());
        tensor_of(vec![total(&losses)], Shape::new([1]))
    }
}

impl LinearCrossEntropyBackwardOps for Flex {
    fn linear_cross_entropy_gradients(
        hidden: FlexTensor,
        weight: FlexTensor,
        labels: FlexTensor,
        wanted: Wanted,
    ) -> (FlexTensor, HeadGradients<Self>) {
        let hidden = contiguous(hidden);
        let head = Head::new(&hidden, &weight, &labels);
        let (losses, gradients) = head.gradients(wanted, None);
        let loss = tensor_of(vec![total(&losses)], Shape::new([1]));
        (loss, gradients)
    }

    fn scale_by(mut gradient: FlexTensor, upstream: FlexTensor) -> FlexTensor {
        // It owns its memory whole, so every element is scaled whatever the layout.
        let factor = contiguous(upstream).storage::<f32>()[0];
        scale_in_place(gradient.storage_mut::<f32>(), factor);
        gradient
    }
}

impl TokenCrossEntropyOps for Flex {
    fn token_cross_entropy(
        hidden: FlexTensor,
        weight: FlexTensor,
        labels: FlexTensor,
    ) -> FlexTensor {
        let hidden = contiguous(hidden);
        let head = Head::new(&hidden, &weight, &labels);
        let losses = head.run(&mut Targets::none());
        let mut per_token = vec![0.0; labels.shape().num_elements()];
        for (row, loss) in head.supervised.iter().zip(losses) {
            per_token[row.token] = loss;
        }
        tensor_of(per_token, labels.shape())
    }
}

impl TokenCrossEntropyBackwardOps for Flex {
    fn token_cross_entropy_backward(
        operands: Operands<Self>,
        upstream: FlexTensor,
        wanted: Wanted,
    ) -> HeadGradients<Self> {
        let (hidden, upstream) = (contiguous(operands.hidden), contiguous(upstream));
        let head = Head::new(&hidden, &operands.weight, &operands.labels);
        head.gradients(wanted, Some(upstream.storage::<f32>())).1
    }
}

/// Sum of the tokens' losses, in f64 and in order: that of many must not depend on the threads.
fn total(losses: &[f32]) -> f32 {
    losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() as f32
}

/// Where gradients go, every element of which is written.
struct Targets<'a> {
    hidden: Option<&'a mut [f32]>,
    weight: Option<&'a mut [f32]>,
    /// Gradient that reaches each token's loss; without it, 1.
    upstream: Option<&'a [f32]>,
}

impl Targets<'_> {
    fn none() -> Self {
        Self {
            hidden: None,
            weight: None,
            upstream: None,
        }
    }

    fn is_any(&self) -> bool {
        self.hidden.is_some() || self.weight.is_some()
    }

    /// Factor of a token's gradient; `None` when nobody asks for gradients.
    fn scale_of(&self, token: usize) -> Option<f32> {
        self.is_any()
            .then(|| self.upstream.map_or(1.0, |upstream| upstream[token]))
    }
}

/// The operands as slices, and the tokens that are trained on.
struct Head<'a> {
    hidden: Cow<'a, [f32]>,
    hidden_shape: Shape,
    weight: Matrix<'a>,
    precision: Precision,
    width: usize,
    vocab_size: usize,
    supervised: Vec<Supervised>,
}

/// A token that has a label.
#[derive(Clone, Copy)]
struct Supervised {
    token: usize,
    label: usize,
}

impl<'a> Head<'a> {
    fn new(hidden: &'a FlexTensor, weight: &'a FlexTensor, labels: &FlexTensor) -> Self {
        let weight = Matrix::of(weight);
        let [vocab_size, width] = weight.dims();
        let mut supervised = Vec::new();
        for (token, label) in integers(labels).into_iter().enumerate() {
            if label == i64::from(IGNORE_INDEX) {
                continue;
            }
            match usize::try_from(label) {
                Ok(label) if label < vocab_size => supervised.push(Supervised { token, label }),
                _ => panic!(
                    "label {label} of token {token}, expected {IGNORE_INDEX} or 0 to {}",
                    vocab_size - 1
                ),
            }
        }
        Self {
            hidden: widened(hidden),
            hidden_shape: hidden.shape(),
            weight,
            precision: Precision::of_operand(hidden.dtype()),
            width,
            vocab_size,
            supervised,
        }
    }

    /// Loss of each supervised token, and the gradients that are wanted.
    fn gradients(
        &self,
        wanted: Wanted,
        upstream: Option<&[f32]>,
    ) -> (Vec<f32>, HeadGradients<Flex>) {
        let mut hidden = wanted.hidden.then(|| unzeroed(self.hidden.len()));
        let mut weight = wanted
            .weight
            .then(|| unzeroed(self.vocab_size * self.width));
        let losses = self.run(&mut Targets {
            hidden: hidden.as_deref_mut(),
            weight: weight.as_deref_mut(),
            upstream,
        });
        let gradients = HeadGradients {
            hidden: hidden.map(|values| tensor_of(values, self.hidden_shape.clone())),
            weight: weight.map(|values| {
                if self.weight.is_column_major() {
                    // Laid out like the weight, so that nobody has to turn it for the update.
                    let turned = Shape::new([self.width, self.vocab_size]);
                    tensor_of(values, turned).transpose(0, 1)
                } else {
                    tensor_of(values, Shape::new([self.vocab_size, self.width]))
                }
            }),
        };
        (losses, gradients)
    }

    /// Fills the targets and returns the loss of each supervised token.
    fn run(&self, targets: &mut Targets<'_>) -> Vec<f32> {
        if let Some(grad) = targets.hidden.as_deref_mut() {
            self.zero_unsupervised(grad);
        }
        if self.supervised.is_empty()
            && let Some(grad) = targets.weight.as_deref_mut()
        {
            grad.fill(0.0);
        }
        let rows = self.supervised.len().min(CHUNK_TOKENS);
        let mut inputs = unzeroed(rows * self.width); // [chunk, D]
        let mut logits = unzeroed(rows * self.vocab_size); // [chunk, V]
        let mut losses = vec![0.0_f32; self.supervised.len()];
        let weight = Operand::new(self.weight, self.precision);
        let mut into = Into::Place;
        let chunks = self.supervised.chunks(CHUNK_TOKENS);
        for (chunk, losses) in chunks.zip(losses.chunks_mut(CHUNK_TOKENS)) {
            let inputs = &mut inputs[..chunk.len() * self.width];
            let logits = &mut logits[..chunk.len() * self.vocab_size];
            self.gather(chunk, inputs);
            let hidden = Matrix::new(inputs, chunk.len(), self.width);
            let hidden = Operand::new(hidden, self.precision);
            product(logits, hidden.view(), weight.transposed(), Into::Place);

            let asked: &Targets<'_> = targets;
            logits
                .par_chunks_mut(self.vocab_size)
                .zip(losses.par_iter_mut())
                .zip(chunk)
                .for_each(|((logits, loss), row)| {
                    *loss = vectorized(TokenLoss {
                        logits,
                        label: row.label,
                        gradient_scale: asked.scale_of(row.token),
                    });
                });

            let logit_grads = Matrix::new(logits, chunk.len(), self.vocab_size);
            let precision = if asked.is_any() {
                self.precision
            } else {
                Precision::F32
            };
            let logit_grads = Operand::new(logit_grads, precision);
            if let Some(grad) = targets.weight.as_deref_mut() {
                if self.weight.is_column_major() {
                    product(grad, hidden.transposed(), logit_grads.view(), into);
                } else {
                    product(grad, logit_grads.transposed(), hidden.view(), into);
                }
                into = Into::Sum;
            }
            if let Some(grad) = targets.hidden.as_deref_mut() {
                product(inputs, logit_grads.view(), weight.view(), Into::Place);
                self.scatter(chunk, inputs, grad);
            }
        }
        losses
    }

    /// Copies the hidden rows of a chunk next to each other, so that ignored tokens cost nothing.
    fn gather(&self, chunk: &[Supervised], inputs: &mut [f32]) {
        for (row, input) in chunk.iter().zip(inputs.chunks_exact_mut(self.width)) {
            let start = row.token * self.width;
            input.copy_from_slice(&self.hidden[start..start + self.width]);
        }
    }

    fn scatter(&self, chunk: &[Supervised], rows: &[f32], grad: &mut [f32]) {
        for (row, values) in chunk.iter().zip(rows.chunks_exact(self.width)) {
            let start = row.token * self.width;
            grad[start..start + self.width].copy_from_slice(values);
        }
    }

    fn zero_unsupervised(&self, grad: &mut [f32]) {
        let mut supervised = self.supervised.iter().map(|row| row.token).peekable();
        for (token, row) in grad.chunks_exact_mut(self.width).enumerate() {
            if supervised.next_if_eq(&token).is_none() {
                row.fill(0.0);
            }
        }
    }
}

/// The loss of one token; on request its logits become their gradient, `softmax - one_hot(label)`,
/// times a factor.
struct TokenLoss<'a> {
    logits: &'a mut [f32],
    label: usize,
    gradient_scale: Option<f32>,
}

impl WithSimd for TokenLoss<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let largest = max(simd, self.logits);
        let of_label = self.logits[self.label];
        let shift = simd.splat_f32s(-largest);
        let (body, tail) = S::as_mut_simd_f32s(self.logits);
        let mut totals = [simd.splat_f32s(0.0); 2];
        let (pairs, rest) = pulp::as_arrays_mut::<2, _>(body);
        for pair in pairs {
            for lane in 0..2 {
                pair[lane] = exp(simd, simd.add_f32s(pair[lane], shift));
                totals[lane] = simd.add_f32s(totals[lane], pair[lane]);
            }
        }
        for x in rest {
            *x = exp(simd, simd.add_f32s(*x, shift));
            totals[0] = simd.add_f32s(totals[0], *x);
        }
        let mut sum = simd.reduce_sum_f32s(simd.add_f32s(totals[0], totals[1]));
        let last = exp(simd, simd.add_f32s(simd.partial_load_f32s(tail), shift));
        simd.partial_store_f32s(tail, last);
        sum += tail.iter().sum::<f32>();

        if let Some(factor) = self.gradient_scale {
            let scale = simd.splat_f32s(factor / sum);
            for x in body {
                *x = simd.mul_f32s(*x, scale);
            }
            for x in tail {
                *x *= factor / sum;
            }
            self.logits[self.label] -= factor;
        }
        sum.ln() + largest - of_label
    }
}
