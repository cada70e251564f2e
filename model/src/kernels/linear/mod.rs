//! Linear projection without a bias.
//!
//! Axis letters: `I` inputs, `O` outputs.

mod cpu;
mod few_rows;
mod packed;
pub mod reference;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::prelude::*;

use crate::kernels::flex::{is_flex_f32, is_flex_operand};
use crate::precision::Precision;

pub(crate) use cpu::rows_product;
pub(crate) use packed::packed_product;

/// Multiplies the last axis by a weight.
///
/// All axes before the last are rows of one product, however many there are: Burn's product of a
/// batch packs the weight once per row of the batch, on no more threads than the batch has rows.
///
/// Where `x` is bf16 or f16, the product's other operand is rounded to it, forward and backward; sums,
/// results and gradients are f32.
///
/// # Shapes
///
/// - `x`: `[.., I]`
/// - `weight`: `[I, O]`
/// - returns: `[.., O]`
///
/// # Panics
///
/// When the last axis of `x` is not `I` long.
pub fn linear<const R: usize>(x: Tensor<R>, weight: Tensor<2>) -> Tensor<R> {
    let [inputs, _] = weight.dims();
    assert_eq!(
        x.dims()[R - 1],
        inputs,
        "linear: last axis of x and inputs of weight"
    );
    if !(is_flex_operand(&x) && is_flex_f32(&weight)) {
        return reference::linear(x, weight);
    }
    Tensor::from_dispatch(Dispatch::linear_rows(
        x.into_dispatch(),
        weight.into_dispatch(),
    ))
}

/// The fused forward, tracked or not.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait LinearOps: Backend {
    fn linear_rows(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The fused backward; `Autodiff` has none, so a second derivative does not compile.
pub(crate) trait LinearBackwardOps: LinearOps {
    /// `grad * weight^T`, of operands in this precision.
    fn linear_x_grad(
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        precision: Precision,
    ) -> FloatTensor<Self>;

    /// `x^T * grad`, summed over all rows, of operands in the type of `x`.
    fn linear_weight_grad(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self>;
}

#[derive(Debug)]
struct LinearBackward;

impl<B: LinearBackwardOps> Backward<B, 2> for LinearBackward {
    /// The weight, where x is tracked, x, where the weight is, and the precision of x.
    type State = (Option<NodeId>, Option<NodeId>, Precision);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [x_node, weight_node] = ops.parents;
        let (weight, x, precision) = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        if let (Some(node), Some(weight)) = (x_node, weight) {
            let weight = checkpointer.retrieve_node_output::<FloatTensor<B>>(weight);
            let x_grad = B::linear_x_grad(weight, grad.clone(), precision);
            grads.register::<B>(node.id, x_grad);
        }
        if let (Some(node), Some(x)) = (weight_node, x) {
            let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(x);
            grads.register::<B>(node.id, B::linear_weight_grad(x, grad));
        }
    }
}

impl<B: LinearBackwardOps, C: CheckpointStrategy> LinearOps for Autodiff<B, C> {
    fn linear_rows(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x_is_tracked, weight_is_tracked) = (x.is_tracked(), weight.is_tracked());
        let precision = Precision::of_operand(x.dtype());
        let prepared = LinearBackward
            .prepare::<C>([x.node(), weight.node()])
            .compute_bound()
            .stateful();
        match prepared {
            OpsKind::Tracked(mut prepared) => {
                let weight_state = x_is_tracked.then(|| prepared.checkpoint(&weight));
                let x_state = weight_is_tracked.then(|| prepared.checkpoint(&x));
                let out = B::linear_rows(x.into_primitive(), weight.into_primitive());
                prepared.finish((weight_state, x_state, precision), out)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::linear_rows(x.into_primitive(), weight.into_primitive()))
            }
        }
    }
}
