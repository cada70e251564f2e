//! The loss of each token by itself, for objectives that are not a plain sum over tokens.
//!
//! What reaches a token's loss is known only in the backward pass, so the logits are made twice
//! rather than kept. Axis letters: `M` tokens, `D` hidden size, `V` vocabulary.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::prelude::*;

use super::{HeadGradients, Wanted, assert_shapes, reference};
use crate::kernels::{is_fused_f32, is_fused_operand};

/// Negative log-likelihood of each label under `softmax(hidden * weight^T)`.
///
/// It is exactly zero, as are its gradients, where the label is
/// [`IGNORE_INDEX`](crate::kernels::IGNORE_INDEX). Rounded `hidden` is taken as by
/// [`linear_cross_entropy`](super::linear_cross_entropy).
///
/// # Shapes
///
/// - `hidden`: `[M, D]`
/// - `weight`: `[V, D]`
/// - `labels`: `[M]`
/// - returns: `[M]`, in nats
///
/// # Panics
///
/// When the shapes disagree, or, on the CPU, a label is neither ignored nor below `V`.
pub fn token_cross_entropy(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    labels: Tensor<1, Int>,
) -> Tensor<1> {
    assert_shapes("token_cross_entropy", &hidden, &weight, &labels);
    if !(is_fused_operand(&hidden) && is_fused_f32(&weight)) {
        return reference::token_cross_entropy(hidden, weight, labels);
    }
    Tensor::from_dispatch(Dispatch::token_cross_entropy(
        hidden.into_dispatch(),
        weight.into_dispatch(),
        labels.into_dispatch(),
    ))
}

/// The losses, tracked or not.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait TokenCrossEntropyOps: Backend {
    fn token_cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        labels: IntTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// The backward pass; `Autodiff` has none, so a second derivative does not compile.
pub(crate) trait TokenCrossEntropyBackwardOps: TokenCrossEntropyOps {
    /// Gradients under the gradient that reaches each token's loss, `[M]`.
    fn token_cross_entropy_backward(
        operands: Operands<Self>,
        upstream: FloatTensor<Self>,
        wanted: Wanted,
    ) -> HeadGradients<Self>;
}

/// What the backward pass reads.
pub(crate) struct Operands<B: Backend> {
    pub(super) hidden: FloatTensor<B>,
    pub(super) weight: FloatTensor<B>,
    pub(super) labels: IntTensor<B>,
}

#[derive(Debug)]
struct TokenCrossEntropyBackward;

impl<B: TokenCrossEntropyBackwardOps> Backward<B, 2> for TokenCrossEntropyBackward {
    type State = ([NodeId; 2], IntTensor<B>, Wanted);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let upstream = grads.consume::<B>(&ops.node);
        let ([hidden, weight], labels, wanted) = ops.state;
        let operands = Operands {
            hidden: checkpointer.retrieve_node_output::<FloatTensor<B>>(hidden),
            weight: checkpointer.retrieve_node_output::<FloatTensor<B>>(weight),
            labels,
        };
        let gradients = B::token_cross_entropy_backward(operands, upstream, wanted);
        let gradients = [gradients.hidden, gradients.weight];
        for (node, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: TokenCrossEntropyBackwardOps, C: CheckpointStrategy> TokenCrossEntropyOps
    for Autodiff<B, C>
{
    fn token_cross_entropy(
        hidden: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        labels: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let wanted = Wanted {
            hidden: hidden.is_tracked(),
            weight: weight.is_tracked(),
        };
        let prepared = TokenCrossEntropyBackward
            .prepare::<C>([hidden.node(), weight.node()])
            .compute_bound()
            .stateful();
        match prepared {
            OpsKind::Tracked(mut prepared) => {
                let nodes = [&hidden, &weight].map(|operand| prepared.checkpoint(operand));
                let losses = B::token_cross_entropy(
                    hidden.into_primitive(),
                    weight.into_primitive(),
                    labels.clone(),
                );
                prepared.finish((nodes, labels, wanted), losses)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::token_cross_entropy(
                hidden.into_primitive(),
                weight.into_primitive(),
                labels,
            )),
        }
    }
}
