//! The language-model head and its loss in one operation, so that the logits of a batch are never
//! in memory at once.
//!
//! Axis letters: `M` tokens, `D` hidden size, `V` vocabulary.

mod cpu;
#[cfg(feature = "cube")]
mod cube;
mod per_token;
pub mod reference;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::prelude::*;

use crate::kernels::{is_fused_f32, is_fused_operand};

pub use per_token::token_cross_entropy;

/// Sums the negative log-likelihood of the labels under `softmax(hidden * weight^T)`.
///
/// Labels equal to [`IGNORE_INDEX`](super::IGNORE_INDEX) count nothing and their rows of the hidden
/// gradient are exactly zero; when every label is ignored, so is the loss. Where `hidden` is bf16 or
/// f16, the products' other operands are rounded to it; everything else is f32.
///
/// # Shapes
///
/// - `hidden`: `[M, D]`
/// - `weight`: `[V, D]`
/// - `labels`: `[M]`
/// - returns: `[1]`, in nats
///
/// # Panics
///
/// When the shapes disagree, or, on the CPU, a label is neither ignored nor below `V`.
pub fn linear_cross_entropy(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    labels: Tensor<1, Int>,
) -> Tensor<1> {
    assert_shapes("linear_cross_entropy", &hidden, &weight, &labels);
    if !(is_fused_operand(&hidden) && is_fused_f32(&weight)) {
        return reference::linear_cross_entropy(hidden, weight, labels);
    }
    Tensor::from_dispatch(Dispatch::linear_cross_entropy(
        hidden.into_dispatch(),
        weight.into_dispatch(),
        labels.into_dispatch(),
    ))
}

fn assert_shapes(operation: &str, hidden: &Tensor<2>, weight: &Tensor<2>, labels: &Tensor<1, Int>) {
    let [num_tokens, width] = hidden.dims();
    assert_eq!(
        weight.dims()[1],
        width,
        "{operation}: width of hidden and weight"
    );
    assert_eq!(
        labels.dims(),
        [num_tokens],
        "{operation}: one label per token"
    );
}

/// The loss, tracked or not.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait LinearCrossEntropyOps: Backend {
    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        labels: IntTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// The loss with its gradients; `Autodiff` has none, so a second derivative does not compile.
pub(crate) trait LinearCrossEntropyBackwardOps: LinearCrossEntropyOps {
    /// Loss and gradients in one pass, while the logits of a chunk are at hand.
    fn linear_cross_entropy_gradients(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        labels: IntTensor<Self>,
        wanted: Wanted,
    ) -> (FloatTensor<Self>, HeadGradients<Self>);

    /// A gradient of the loss times the gradient that reaches the loss, a tensor of one element.
    fn scale_by(gradient: FloatTensor<Self>, upstream: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Which gradients somebody will ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    hidden: bool,
    weight: bool,
}

/// Gradients of the loss, computed with it.
pub(crate) struct HeadGradients<B: Backend> {
    hidden: Option<FloatTensor<B>>,
    weight: Option<FloatTensor<B>>,
}

impl<B: Backend> Clone for HeadGradients<B> {
    fn clone(&self) -> Self {
        Self {
            hidden: self.hidden.clone(),
            weight: self.weight.clone(),
        }
    }
}

impl<B: Backend> std::fmt::Debug for HeadGradients<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeadGradients").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct LinearCrossEntropyBackward;

impl<B: LinearCrossEntropyBackwardOps> Backward<B, 2> for LinearCrossEntropyBackward {
    type State = HeadGradients<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let upstream = grads.consume::<B>(&ops.node);
        let gradients = [ops.state.hidden, ops.state.weight];
        for (node, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<B>(node.id, B::scale_by(gradient, upstream.clone()));
            }
        }
    }
}

impl<B: LinearCrossEntropyBackwardOps, C: CheckpointStrategy> LinearCrossEntropyOps
    for Autodiff<B, C>
{
    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        labels: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let wanted = Wanted {
            hidden: hidden.is_tracked(),
            weight: weight.is_tracked(),
        };
        let prepared = LinearCrossEntropyBackward
            .prepare::<C>([hidden.node(), weight.node()])
            .compute_bound()
            .stateful();
        let (hidden, weight) = (hidden.into_primitive(), weight.into_primitive());
        match prepared {
            OpsKind::Tracked(prepared) => {
                let (loss, gradients) =
                    B::linear_cross_entropy_gradients(hidden, weight, labels, wanted);
                prepared.finish(gradients, loss)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::linear_cross_entropy(hidden, weight, labels))
            }
        }
    }
}
