//! One expert's network on its run of rows, in the place of their input.
//!
//! Rows of other experts pass through, so that a chain of these operations, one per expert, turns
//! the gathered inputs into outputs in one buffer, forward and backward.

use std::ops::Range;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, backend_extension};

use crate::precision::Precision;

/// The fused forward, tracked or not.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait SegmentOps: Backend {
    /// `rows [R, D]` with those of the segment replaced by `down(silu(gate(x)) · up(x))`.
    fn segment_feed_forward(
        rows: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        down: FloatTensor<Self>,
        segment: Segment,
    ) -> FloatTensor<Self>;
}

/// The rows of one expert, and how its products are computed.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(super) rows: Range<usize>,
    /// What operands are rounded to.
    pub(super) precision: Precision,
}

/// The fused backward; `Autodiff` has none, so a second derivative does not compile.
pub(crate) trait SegmentBackwardOps: SegmentOps {
    /// The output, and what the backward pass needs.
    fn segment_saving(
        rows: FloatTensor<Self>,
        weights: [FloatTensor<Self>; 3],
        segment: Segment,
    ) -> (FloatTensor<Self>, Saved<Self>);

    /// Gradients of the rows and, where they are asked for, of gate, up and down.
    fn segment_backward(
        saved: Saved<Self>,
        grad: FloatTensor<Self>,
        asked: [bool; 3],
    ) -> (FloatTensor<Self>, [Option<FloatTensor<Self>>; 3]);
}

/// What the forward pass leaves for the backward pass.
pub(crate) struct Saved<B: Backend> {
    /// The segment's rows before the network, `[S, D]`.
    pub(super) x: FloatTensor<B>,
    /// After the gate projection, `[S, I]`.
    pub(super) gated: FloatTensor<B>,
    /// After the up projection, `[S, I]`.
    pub(super) raised: FloatTensor<B>,
    /// Gate, up and down.
    pub(super) weights: [FloatTensor<B>; 3],
    pub(super) segment: Segment,
}

impl<B: Backend> Clone for Saved<B> {
    fn clone(&self) -> Self {
        Self {
            x: self.x.clone(),
            gated: self.gated.clone(),
            raised: self.raised.clone(),
            weights: self.weights.clone(),
            segment: self.segment.clone(),
        }
    }
}

impl<B: Backend> std::fmt::Debug for Saved<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Saved").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct SegmentBackward;

impl<B: SegmentBackwardOps> Backward<B, 4> for SegmentBackward {
    type State = Saved<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 4>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [rows_node, weight_nodes @ ..] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        let asked = weight_nodes.each_ref().map(Option::is_some);
        let (rows_grad, weight_grads) = B::segment_backward(ops.state, grad, asked);
        if let Some(node) = rows_node {
            grads.register::<B>(node.id, rows_grad);
        }
        for (node, grad) in weight_nodes.into_iter().zip(weight_grads) {
            if let (Some(node), Some(grad)) = (node, grad) {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

impl<B: SegmentBackwardOps, C: CheckpointStrategy> SegmentOps for Autodiff<B, C> {
    fn segment_feed_forward(
        rows: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        down: FloatTensor<Self>,
        segment: Segment,
    ) -> FloatTensor<Self> {
        let nodes = [rows.node(), gate.node(), up.node(), down.node()];
        let prepared = SegmentBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful();
        let rows = rows.into_primitive();
        let [gate, up, down] = [gate, up, down].map(FloatTensor::<Self>::into_primitive);
        match prepared {
            OpsKind::Tracked(prepared) => {
                let (out, saved) = B::segment_saving(rows, [gate, up, down], segment);
                prepared.finish(saved, out)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::segment_feed_forward(rows, gate, up, down, segment))
            }
        }
    }
}
