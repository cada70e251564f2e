//! Root-mean-square normalisation over the last axis. Source: Zhang and Sennrich 2019,
//! arXiv:1910.07467, eq. 4, with `eps` inside the root as in Llama.

mod cpu;
#[cfg(feature = "cube")]
mod cube;
pub mod reference;

use std::marker::PhantomData;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::prelude::*;

use crate::kernels::is_fused_f32;

/// Scales every row to unit root mean square, then by a learned weight.
///
/// `x / sqrt(mean(x^2) + eps) * weight`
///
/// # Shapes
///
/// - `x`: `[.., D]`
/// - `weight`: `[D]`
/// - returns: `[.., D]`
///
/// # Panics
///
/// When the last axis of `x` is not as long as `weight`.
pub fn rms_norm<const R: usize>(x: Tensor<R>, weight: Tensor<1>, eps: f64) -> Tensor<R> {
    let [width] = weight.dims();
    assert_eq!(
        x.dims()[R - 1],
        width,
        "rms_norm: last axis of x and length of weight"
    );
    if !(is_fused_f32(&x) && is_fused_f32(&weight)) {
        return reference::rms_norm(x, weight, eps);
    }
    Tensor::from_dispatch(Dispatch::rms_norm(
        x.into_dispatch(),
        weight.into_dispatch(),
        eps,
    ))
}

/// The fused forward, tracked or not.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "cube"), Autodiff)]
pub(crate) trait RmsNormOps: Backend {
    #[fusion(dtype = x, shape = x)]
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self>;
}

/// The fused backward; `Autodiff` has none, so a second derivative does not compile.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "cube"))]
pub(crate) trait RmsNormBackwardOps: RmsNormOps {
    /// Gradients of x and weight.
    #[fusion(meta = |x, weight, _grad, _eps| (x.clone(), weight.clone()))]
    fn rms_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

#[derive(Debug)]
struct RmsNormBackward;

impl<B: RmsNormBackwardOps> Backward<B, 2> for RmsNormBackward {
    type State = (NodeId, NodeId, f64);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [x_node, weight_node] = ops.parents;
        let (x_id, weight_id, eps) = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(x_id);
        let weight = checkpointer.retrieve_node_output::<FloatTensor<B>>(weight_id);
        let (x_grad, weight_grad) = B::rms_norm_backward(x, weight, grad, eps);
        if let Some(node) = x_node {
            grads.register::<B>(node.id, x_grad);
        }
        if let Some(node) = weight_node {
            grads.register::<B>(node.id, weight_grad);
        }
    }
}

/// Computes the output once more where a checkpointing device did not keep it.
#[derive(Debug)]
struct RmsNormAgain<B> {
    x: NodeId,
    weight: NodeId,
    eps: f64,
    backend: PhantomData<B>,
}

impl<B: RmsNormOps> RetroForward for RmsNormAgain<B> {
    fn forward(&self, states: &mut BackwardStates, out_node: NodeId) {
        let x = states.get_state::<FloatTensor<B>>(&self.x);
        let weight = states.get_state::<FloatTensor<B>>(&self.weight);
        states.save(out_node, B::rms_norm(x, weight, self.eps));
    }
}

impl<B: RmsNormBackwardOps, C: CheckpointStrategy> RmsNormOps for Autodiff<B, C> {
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        let again = RmsNormAgain::<B> {
            x: x.id(),
            weight: weight.id(),
            eps,
            backend: PhantomData,
        };
        let prepared = RmsNormBackward
            .prepare::<C>([x.node(), weight.node()])
            .memory_bound()
            .retro_forward(again)
            .parents([&x, &weight])
            .stateful();
        match prepared {
            OpsKind::Tracked(mut prepared) => {
                let state = (prepared.checkpoint(&x), prepared.checkpoint(&weight), eps);
                let out = B::rms_norm(x.into_primitive(), weight.into_primitive(), eps);
                prepared.finish(state, out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::rms_norm(
                x.into_primitive(),
                weight.into_primitive(),
                eps,
            )),
        }
    }
}
