//! Rotary position embedding, rotate-half layout. Source: Su et al. 2021, arXiv:2104.09864,
//! eq. 34, with the pairing of Hugging Face (`i` with `i + H/2`).
//!
//! Axis letters: `B` batch, `T` positions, `N` heads, `H` head size, `P` rows of the tables.

mod cpu;
#[cfg(feature = "cube")]
mod cube;
pub mod reference;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::prelude::*;

use crate::kernels::is_fused_f32;

/// Rotates each head by its token's position.
///
/// With `a` and `b` the halves of a head: `[a * cos - b * sin, b * cos + a * sin]`.
///
/// # Shapes
///
/// - `x`: `[B, T, N, H]`
/// - `positions`: `[B, T]`, rows of the tables
/// - `cos`, `sin`: `[P, H/2]`, no gradient flows into them
/// - returns: `[B, T, N, H]`
///
/// # Panics
///
/// When the shapes disagree, `H` is odd, or a position is not a row of the tables; graphics cards do
/// not see the last.
pub fn rotary(
    x: Tensor<4>,
    positions: Tensor<2, Int>,
    cos: Tensor<2>,
    sin: Tensor<2>,
) -> Tensor<4> {
    let [batch, len, _, head_dim] = x.dims();
    assert_eq!(
        positions.dims(),
        [batch, len],
        "rotary: positions must be [B, T]"
    );
    assert_eq!(
        cos.dims(),
        sin.dims(),
        "rotary: cos and sin must have one shape"
    );
    assert_eq!(
        cos.dims()[1] * 2,
        head_dim,
        "rotary: tables must be [P, H/2]"
    );
    if !(is_fused_f32(&x) && is_fused_f32(&cos) && is_fused_f32(&sin)) {
        return reference::rotary(x, positions, cos, sin);
    }
    Tensor::from_dispatch(Dispatch::rotary(
        x.into_dispatch(),
        positions.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
    ))
}

/// The fused forward, tracked or not.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "cube"), Autodiff)]
pub(crate) trait RotaryOps: Backend {
    #[fusion(dtype = x, shape = x)]
    fn rotary(
        x: FloatTensor<Self>,
        positions: IntTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// The fused backward; `Autodiff` has none, so a second derivative does not compile.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "cube"))]
pub(crate) trait RotaryBackwardOps: RotaryOps {
    /// Gradient of x: the rotation undone.
    #[fusion(dtype = grad, shape = grad)]
    fn rotary_backward(
        grad: FloatTensor<Self>,
        positions: IntTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// What turns a head: the tables and the row each token reads.
pub(crate) struct Angles<B: Backend> {
    positions: IntTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
}

impl<B: Backend> Clone for Angles<B> {
    fn clone(&self) -> Self {
        Self {
            positions: self.positions.clone(),
            cos: self.cos.clone(),
            sin: self.sin.clone(),
        }
    }
}

impl<B: Backend> std::fmt::Debug for Angles<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Angles").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct RotaryBackward;

impl<B: RotaryBackwardOps> Backward<B, 1> for RotaryBackward {
    type State = Angles<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [node] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        if let Some(node) = node {
            let Angles {
                positions,
                cos,
                sin,
            } = ops.state;
            let grad = B::rotary_backward(grad, positions, cos, sin);
            grads.register::<B>(node.id, grad);
        }
    }
}

/// Computes the output once more where a checkpointing device did not keep it.
#[derive(Debug)]
struct RotaryAgain<B: Backend> {
    x: NodeId,
    angles: Angles<B>,
}

impl<B: RotaryOps> RetroForward for RotaryAgain<B> {
    fn forward(&self, states: &mut BackwardStates, out_node: NodeId) {
        let x = states.get_state::<FloatTensor<B>>(&self.x);
        let Angles {
            positions,
            cos,
            sin,
        } = self.angles.clone();
        states.save(out_node, B::rotary(x, positions, cos, sin));
    }
}

impl<B: RotaryBackwardOps, C: CheckpointStrategy> RotaryOps for Autodiff<B, C> {
    fn rotary(
        x: FloatTensor<Self>,
        positions: IntTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        let angles = Angles::<B> {
            positions,
            cos,
            sin,
        };
        let again = RotaryAgain {
            x: x.id(),
            angles: angles.clone(),
        };
        let prepared = RotaryBackward
            .prepare::<C>([x.node()])
            .memory_bound()
            .retro_forward(again)
            .parents([&x])
            .stateful();
        let Angles {
            positions,
            cos,
            sin,
        } = angles.clone();
        let out = B::rotary(x.into_primitive(), positions, cos, sin);
        match prepared {
            OpsKind::Tracked(prepared) => prepared.finish(angles, out),
            OpsKind::UnTracked(prepared) => prepared.finish(out),
        }
    }
}
