//! Causal grouped-query attention over packed documents. Sources: Vaswani et al. 2017,
//! arXiv:1706.03762, eq. 1; Ainslie et al. 2023, arXiv:2305.13245 (grouped queries); Dao et al.
//! 2022, arXiv:2205.14135, algorithms 1 and 4 (tiles, running softmax, recomputation backward).
//!
//! Axis letters: `B` batch, `T` query positions, `S` key slots, `N` query heads, `K` key/value
//! heads, `H` head size.

mod backward;
mod cpu;
#[cfg(feature = "cube")]
mod cube;
mod decode;
mod forward;
mod heads;
mod product;
pub mod reference;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
#[cfg(feature = "cube")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, backend_extension};
use burn::prelude::*;

#[cfg(feature = "cube")]
use crate::kernels::flex::is_flex_f32;
use crate::kernels::is_fused_f32;
use crate::positions::Positions;

/// Attends from each query to the slots of its own document up to its own.
///
/// The `T` queries are the last `T` of the `S` slots (`S > T` when a cache holds earlier ones).
/// Query `t` sits in slot `s = S - T + t` and sees the slots from `s - places[b, t]` to `s`, which
/// covers packed documents and left padding alike; gaps move its first slot and hide what is between
/// ([`Positions`]). Scores are scaled by `1 / sqrt(H)`.
///
/// # Shapes
///
/// - `q`: `[B, T, N, H]`
/// - `k`, `v`: `[B, S, K, H]`, `N` a multiple of `K`; query head `n` reads key head `n / (N / K)`
/// - `positions`: places `[B, T]`, gaps `[B, T, 2]`
/// - returns: `[B, T, N, H]`
///
/// # Panics
///
/// When the shapes disagree, `S < T`, or `N` is no multiple of `K`.
pub fn causal_attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    positions: impl Into<Positions>,
) -> Tensor<4> {
    let positions = positions.into();
    let [batch, len, num_heads, head_dim] = q.dims();
    let [_, slots, num_kv_heads, _] = k.dims();
    assert_eq!(
        k.dims(),
        [batch, slots, num_kv_heads, head_dim],
        "causal_attention: k must be [B, S, K, H] with the B and H of q"
    );
    assert_eq!(
        k.dims(),
        v.dims(),
        "causal_attention: k and v must have one shape"
    );
    assert_eq!(
        positions.places.dims(),
        [batch, len],
        "causal_attention: places must be [B, T]"
    );
    if let Some(gaps) = &positions.gaps {
        assert_eq!(
            gaps.dims(),
            [batch, len, 2],
            "causal_attention: gaps must be [B, T, 2]"
        );
    }
    assert!(
        slots >= len,
        "causal_attention: {len} queries in {slots} slots"
    );
    assert!(
        num_heads.is_multiple_of(num_kv_heads),
        "causal_attention: {num_heads} query heads over {num_kv_heads} key heads"
    );
    if ![&q, &k, &v].into_iter().all(has_fused_body) {
        return reference::causal_attention(q, k, v, positions);
    }
    Tensor::from_dispatch(Dispatch::causal_attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        match positions.gaps {
            None => positions.places.into_dispatch(),
            Some(gaps) => {
                let places = positions.places.reshape([batch, len, 1]); // [B, T, 1]
                Tensor::cat(vec![places, gaps], 2).into_dispatch() // [B, T, 3]
            }
        },
    ))
}

/// Whether a fused body takes these heads: that for graphics cards has a limit to their size.
fn has_fused_body(heads: &Tensor<4>) -> bool {
    #[cfg(feature = "cube")]
    if heads.dims()[3] > cube::MAX_HEAD_DIM {
        return is_flex_f32(heads);
    }
    is_fused_f32(heads)
}

/// The fused forward, tracked or not.
///
/// `sight` is `[B, T]`, the places, or `[B, T, 3]`, each with its gap: an extension takes no tensor
/// that may be missing.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "cube"), Autodiff)]
pub(crate) trait CausalAttentionOps: Backend {
    #[fusion(dtype = q, shape = q)]
    fn causal_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        sight: IntTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// The fused backward; `Autodiff` has none, so a second derivative does not compile.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Fusion: cfg(feature = "cube"))]
pub(crate) trait CausalAttentionBackwardOps: CausalAttentionOps {
    /// The output with the log of each softmax's denominator, which the backward pass needs.
    #[fusion(meta = |q, _k, _v, _sight| (q.clone(), log_sums_of(q)))]
    fn causal_attention_saving(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        sight: IntTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Gradients of q, k and v.
    #[fusion(meta = |q, k, v, _sight, _out, _log_sums, _grad| (q.clone(), k.clone(), v.clone()))]
    fn causal_attention_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        sight: IntTensor<Self>,
        out: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// A number per query of a head, `[B, T, N]`.
#[cfg(feature = "cube")]
fn log_sums_of(q: &TensorSpec) -> TensorSpec {
    let [batch, len, num_heads, _] = q.shape.dims();
    TensorSpec::new(Shape::new([batch, len, num_heads]), q.dtype)
}

/// What the forward pass leaves for the backward pass.
pub(crate) struct Outcome<B: Backend> {
    sight: IntTensor<B>,
    out: FloatTensor<B>,
    log_sums: FloatTensor<B>,
}

impl<B: Backend> Clone for Outcome<B> {
    fn clone(&self) -> Self {
        Self {
            sight: self.sight.clone(),
            out: self.out.clone(),
            log_sums: self.log_sums.clone(),
        }
    }
}

impl<B: Backend> std::fmt::Debug for Outcome<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outcome").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct CausalAttentionBackward;

impl<B: CausalAttentionBackwardOps> Backward<B, 3> for CausalAttentionBackward {
    type State = ([NodeId; 3], Outcome<B>);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let grad = grads.consume::<B>(&ops.node);
        let ([q, k, v], outcome) = ops.state;
        let (q_grad, k_grad, v_grad) = B::causal_attention_backward(
            checkpointer.retrieve_node_output::<FloatTensor<B>>(q),
            checkpointer.retrieve_node_output::<FloatTensor<B>>(k),
            checkpointer.retrieve_node_output::<FloatTensor<B>>(v),
            outcome.sight,
            outcome.out,
            outcome.log_sums,
            grad,
        );
        let gradients = [q_grad, k_grad, v_grad];
        for (node, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: CausalAttentionBackwardOps, C: CheckpointStrategy> CausalAttentionOps for Autodiff<B, C> {
    fn causal_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        sight: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let prepared = CausalAttentionBackward
            .prepare::<C>([q.node(), k.node(), v.node()])
            .compute_bound()
            .stateful();
        match prepared {
            OpsKind::Tracked(mut prepared) => {
                let nodes = [&q, &k, &v].map(|operand| prepared.checkpoint(operand));
                let (out, log_sums) = B::causal_attention_saving(
                    q.into_primitive(),
                    k.into_primitive(),
                    v.into_primitive(),
                    sight.clone(),
                );
                let outcome = Outcome {
                    sight,
                    out: out.clone(),
                    log_sums,
                };
                prepared.finish((nodes, outcome), out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::causal_attention(
                q.into_primitive(),
                k.into_primitive(),
                v.into_primitive(),
                sight,
            )),
        }
    }
}
