//! Tokens to rows sorted by expert, and rows back to tokens.

use std::sync::Arc;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, backend_extension};

use crate::experts::Routes;

/// The fused forward, tracked or not.
#[backend_extension(Flex, Cube: cfg(feature = "cube"), Autodiff)]
pub(crate) trait DispatchOps: Backend {
    /// Tokens `[N, D]` as rows `[R, D]`, once for each expert they are sent to.
    fn gather_rows(x: FloatTensor<Self>, routes: Arc<Routes>) -> FloatTensor<Self>;

    /// For each token the sum of its rows `[R, D]` times their weights `[N, K]`: `[N, D]`.
    fn combine_rows(
        rows: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        routes: Arc<Routes>,
    ) -> FloatTensor<Self>;
}

/// The fused backward; `Autodiff` has none, so a second derivative does not compile.
pub(crate) trait DispatchBackwardOps: DispatchOps {
    /// For each token the sum of its rows' gradients.
    fn gather_backward(grad: FloatTensor<Self>, routes: &Routes) -> FloatTensor<Self>;

    /// Gradients of the rows and of the weights.
    fn combine_backward(
        rows: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        routes: &Routes,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

#[derive(Debug)]
struct GatherBackward;

impl<B: DispatchBackwardOps> Backward<B, 1> for GatherBackward {
    type State = Arc<Routes>;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [node] = ops.parents;
        let grad = grads.consume::<B>(&ops.node);
        if let Some(node) = node {
            grads.register::<B>(node.id, B::gather_backward(grad, &ops.state));
        }
    }
}

#[derive(Debug)]
struct CombineBackward;

impl<B: DispatchBackwardOps> Backward<B, 2> for CombineBackward {
    /// Rows, weights and their routes.
    type State = (NodeId, NodeId, Arc<Routes>);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [rows_node, weights_node] = ops.parents;
        let (rows, weights, routes) = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        let rows = checkpointer.retrieve_node_output::<FloatTensor<B>>(rows);
        let weights = checkpointer.retrieve_node_output::<FloatTensor<B>>(weights);
        let (rows_grad, weights_grad) = B::combine_backward(rows, weights, grad, &routes);
        if let Some(node) = rows_node {
            grads.register::<B>(node.id, rows_grad);
        }
        if let Some(node) = weights_node {
            grads.register::<B>(node.id, weights_grad);
        }
    }
}

impl<B: DispatchBackwardOps, C: CheckpointStrategy> DispatchOps for Autodiff<B, C> {
    fn gather_rows(x: FloatTensor<Self>, routes: Arc<Routes>) -> FloatTensor<Self> {
        let prepared = GatherBackward
            .prepare::<C>([x.node()])
            .compute_bound()
            .stateful();
        let out = B::gather_rows(x.into_primitive(), routes.clone());
        match prepared {
            OpsKind::Tracked(prepared) => prepared.finish(routes, out),
            OpsKind::UnTracked(prepared) => prepared.finish(out),
        }
    }

    fn combine_rows(
        rows: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        routes: Arc<Routes>,
    ) -> FloatTensor<Self> {
        let prepared = CombineBackward
            .prepare::<C>([rows.node(), weights.node()])
            .compute_bound()
            .stateful();
        match prepared {
            OpsKind::Tracked(mut prepared) => {
                let state = (
                    prepared.checkpoint(&rows),
                    prepared.checkpoint(&weights),
                    routes.clone(),
                );
                let out = B::combine_rows(rows.into_primitive(), weights.into_primitive(), routes);
                prepared.finish(state, out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::combine_rows(
                rows.into_primitive(),
                weights.into_primitive(),
                routes,
            )),
        }
    }
}
