//! The gate of the feed-forward block. Source: Shazeer 2020, arXiv:2002.05202, eq. 6.

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

pub(crate) use cpu::{swiglu_backward_in_place, swiglu_into};

/// Multiplies the up projection by the SiLU of the gate projection.
///
/// `gate * sigmoid(gate) * up`
///
/// # Panics
///
/// When the two shapes differ.
pub fn swiglu<const R: usize>(gate: Tensor<R>, up: Tensor<R>) -> Tensor<R> {
    assert_eq!(
        gate.dims(),
        up.dims(),
        "swiglu: gate and up must have one shape"
    );
    if !is_fused_f32(&gate) {
        return reference::swiglu(gate, up);
    }
    Tensor::from_dispatch(Dispatch::swiglu(gate.into_dispatch(), up.into_dispatch()))
}

/// The fused forward, tracked or not.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "cube"), Autodiff)]
pub(crate) trait SwigluOps: Backend {
    #[fusion(dtype = gate, shape = gate)]
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The fused backward; `Autodiff` has none, so a second derivative does not compile.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "cube"))]
pub(crate) trait SwigluBackwardOps: SwigluOps {
    /// Gradients of gate and up.
    #[fusion(meta = |gate, up, _grad| (gate.clone(), up.clone()))]
    fn swiglu_backward(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

#[derive(Debug)]
struct SwigluBackward;

impl<B: SwigluBackwardOps> Backward<B, 2> for SwigluBackward {
    type State = (NodeId, NodeId);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [gate_node, up_node] = ops.parents;
        let (gate_id, up_id) = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        let gate = checkpointer.retrieve_node_output::<FloatTensor<B>>(gate_id);
        let up = checkpointer.retrieve_node_output::<FloatTensor<B>>(up_id);
        let (gate_grad, up_grad) = B::swiglu_backward(gate, up, grad);
        if let Some(node) = gate_node {
            grads.register::<B>(node.id, gate_grad);
        }
        if let Some(node) = up_node {
            grads.register::<B>(node.id, up_grad);
        }
    }
}

/// Computes the output once more where a checkpointing device did not keep it.
#[derive(Debug)]
struct SwigluAgain<B> {
    gate: NodeId,
    up: NodeId,
    backend: PhantomData<B>,
}

impl<B: SwigluOps> RetroForward for SwigluAgain<B> {
    fn forward(&self, states: &mut BackwardStates, out_node: NodeId) {
        let gate = states.get_state::<FloatTensor<B>>(&self.gate);
        let up = states.get_state::<FloatTensor<B>>(&self.up);
        states.save(out_node, B::swiglu(gate, up));
    }
}

impl<B: SwigluBackwardOps, C: CheckpointStrategy> SwigluOps for Autodiff<B, C> {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let again = SwigluAgain::<B> {
            gate: gate.id(),
            up: up.id(),
            backend: PhantomData,
        };
        let prepared = SwigluBackward
            .prepare::<C>([gate.node(), up.node()])
            .memory_bound()
            .retro_forward(again)
            .parents([&gate, &up])
            .stateful();
        match prepared {
            OpsKind::Tracked(mut prepared) => {
                let state = (prepared.checkpoint(&gate), prepared.checkpoint(&up));
                let out = B::swiglu(gate.into_primitive(), up.into_primitive());
                prepared.finish(state, out)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::swiglu(gate.into_primitive(), up.into_primitive()))
            }
        }
    }
}
