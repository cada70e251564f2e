//! The head and its loss on the CPU: logits of one chunk of tokens at a time in a reused buffer,
//! turned into their own gradient where they stand.

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;
use burn_flex::FlexTensor;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{HeadGradients, LinearCrossEntropyBackwardOps, LinearCrossEntropyOps, Wanted};
use crate::kernels::IGNORE_INDEX;
use crate::kernels::flex::{contiguous, integers, scale_in_place, tensor_of, unzeroed};
use crate::kernels::matmul::{Into, Matrix, matmul};
use crate::kernels::simd::{exp, max, vectorized};

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
        let loss = head.run(&mut Targets {
            hidden: None,
            weight: None,
        });
        tensor_of(vec![loss], Shape::new([1]))
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
        let (hidden_shape, mut weight_shape) = (hidden.shape(), weight.shape());
        let head = Head::new(&hidden, &weight, &labels);
        let mut hidden_grad = wanted.hidden.then(|| unzeroed(hidden_shape.num_elements()));
        let mut weight_grad = wanted.weight.then(|| unzeroed(weight_shape.num_elements()));
        let loss = head.run(&mut Targets {
            hidden: hidden_grad.as_deref_mut(),
            weight: weight_grad.as_deref_mut(),
        });
        let gradients = HeadGradients {
            hidden: hidden_grad.map(|values| tensor_of(values, hidden_shape)),
            weight: weight_grad.map(|values| {
                if head.weight.is_column_major() {
                    // Laid out like the weight, so that nobody has to turn it for the update.
                    weight_shape.swap(0, 1);
                    tensor_of(values, weight_shape).transpose(0, 1)
                } else {
                    tensor_of(values, weight_shape)
                }
            }),
        };
        (tensor_of(vec![loss], Shape::new([1])), gradients)
    }

    fn scale_by(mut gradient: FlexTensor, upstream: FlexTensor) -> FlexTensor {
        // It owns its memory whole, so every element is scaled whatever the layout.
        let factor = contiguous(upstream).storage::<f32>()[0];
        scale_in_place(gradient.storage_mut::<f32>(), factor);
        gradient
    }
}

/// Where gradients go, every element of which is written.
struct Targets<'a> {
    hidden: Option<&'a mut [f32]>,
    weight: Option<&'a mut [f32]>,
}

/// The operands as slices, and the tokens that are trained on.
struct Head<'a> {
    hidden: &'a [f32],
    weight: Matrix<'a>,
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
                    "linear_cross_entropy: label {label} of token {token}, \
                     expected {IGNORE_INDEX} or 0 to {}",
                    vocab_size - 1
                ),
            }
        }
        Self {
            hidden: hidden.storage::<f32>(),
            weight,
            width,
            vocab_size,
            supervised,
        }
    }

    /// Sums the loss and fills the targets.
    fn run(&self, targets: &mut Targets<'_>) -> f32 {
        if let Some(grad) = targets.hidden.as_deref_mut() {
            self.zero_unsupervised(grad);
        }
        if self.supervised.is_empty()
            && let Some(grad) = targets.weight.as_deref_mut()
        {
            grad.fill(0.0);
        }
        let wants_gradients = targets.hidden.is_some() || targets.weight.is_some();
        let rows = self.supervised.len().min(CHUNK_TOKENS);
        let mut inputs = unzeroed(rows * self.width); // [chunk, D]
        let mut logits = unzeroed(rows * self.vocab_size); // [chunk, V]
        let mut losses = vec![0.0_f32; rows];
        let mut total = 0.0_f64;
        let mut into = Into::Place;
        for chunk in self.supervised.chunks(CHUNK_TOKENS) {
            let inputs = &mut inputs[..chunk.len() * self.width];
            let logits = &mut logits[..chunk.len() * self.vocab_size];
            let losses = &mut losses[..chunk.len()];
            self.gather(chunk, inputs);
            let weight = self.weight;
            let hidden = Matrix::new(inputs, chunk.len(), self.width);
            matmul(logits, hidden, weight.transposed(), Into::Place);

            logits
                .par_chunks_mut(self.vocab_size)
                .zip(losses.par_iter_mut())
                .zip(chunk)
                .for_each(|((logits, loss), row)| {
                    let label = row.label;
                    *loss = vectorized(TokenLoss {
                        logits,
                        label,
                        wants_gradients,
                    });
                });
            // In f64 and in order: the sum of many tokens must not depend on the threads.
            total += losses.iter().map(|loss| f64::from(*loss)).sum::<f64>();

            let logit_grads = Matrix::new(logits, chunk.len(), self.vocab_size);
            if let Some(grad) = targets.weight.as_deref_mut() {
                if weight.is_column_major() {
                    matmul(grad, hidden.transposed(), logit_grads, into);
                } else {
                    matmul(grad, logit_grads.transposed(), hidden, into);
                }
                into = Into::Sum;
            }
            if let Some(grad) = targets.hidden.as_deref_mut() {
                matmul(inputs, logit_grads, weight, Into::Place);
                self.scatter(chunk, inputs, grad);
            }
        }
        total as f32
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

/// The loss of one token; on request its logits become their gradient, `softmax - one_hot(label)`.
struct TokenLoss<'a> {
    logits: &'a mut [f32],
    label: usize,
    wants_gradients: bool,
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

        if self.wants_gradients {
            let scale = simd.splat_f32s(1.0 / sum);
            for x in body {
                *x = simd.mul_f32s(*x, scale);
            }
            for x in tail {
                *x /= sum;
            }
            self.logits[self.label] -= 1.0;
        }
        sum.ln() + largest - of_label
    }
}
