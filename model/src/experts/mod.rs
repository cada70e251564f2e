//! A mixture of experts: a router sends each token to a few of many feed-forward networks.
//!
//! Sources: Shazeer et al. 2017, arXiv:1701.06538 (routing to the best few); Dai et al. 2024,
//! arXiv:2401.06066 (shared experts beside routed ones). No expert has a capacity: every token
//! reaches all the experts it was sent to.
//!
//! Axis letters: `B` batch, `T` positions, `N` tokens (`B · T`), `D` hidden size, `E` experts,
//! `K` experts per token.

mod balance;
mod config;
mod mlp;
mod noise;
mod router;
mod routes;
mod upcycle;

use std::sync::Arc;

use burn::module::Module;
use burn::prelude::*;

pub use self::balance::{Balance, RoutedTokens, max_violation};
pub use self::config::{ExpertsConfig, ScoringFunc};
pub use self::mlp::Mlp;
pub use self::router::Router;
pub use self::routes::Routes;
use crate::config::ModelConfig;
use crate::feed_forward::FeedForward;
use crate::kernels::experts::reference::dispatch;
use crate::kernels::experts::{ExpertWeights, experts};
use crate::packed::WeightType;
use crate::training_pass::TrainingPass;

/// What the router of one layer decided for every token of a batch.
#[derive(Debug, Clone)]
pub struct Routing {
    /// Before the scoring function, `[N, E]`.
    pub logits: Tensor<2>,
    /// After it, `[N, E]`.
    pub scores: Tensor<2>,
    /// The same on the host, row by row: experts are chosen there, and reports ask no device again.
    pub host_scores: Vec<f32>,
    /// Which experts were chosen.
    pub routes: Arc<Routes>,
}

/// A feed-forward part of many experts, of which each token meets a few.
#[derive(Module, Debug)]
pub struct SparseExperts {
    /// Scores the experts of each token.
    pub gate: Router,
    /// Routed to.
    pub experts: Vec<FeedForward>,
    /// Sees every token.
    pub shared_experts: Option<FeedForward>,
    #[module(skip)]
    pass: TrainingPass,
}

impl SparseExperts {
    pub(crate) fn empty(
        config: &ModelConfig,
        experts: &ExpertsConfig,
        pass: &TrainingPass,
        device: &Device,
    ) -> Self {
        let hidden_size = config.hidden_size;
        let network = |width| FeedForward::empty(hidden_size, width, pass, device);
        let shared = experts.shared_intermediate_size();
        Self {
            gate: Router::empty(config, experts, device),
            experts: (0..experts.num_experts)
                .map(|_| network(experts.moe_intermediate_size))
                .collect(),
            shared_experts: (shared > 0).then(|| network(shared)),
            pass: pass.clone(),
        }
    }

    pub(crate) fn packed(self, weight_type: WeightType) -> Self {
        let pack = |network: FeedForward| network.packed(weight_type);
        Self {
            // The router's rounding would change which experts are chosen, and it is small.
            gate: self.gate,
            experts: self.experts.into_iter().map(pack).collect(),
            shared_experts: self.shared_experts.map(pack),
            pass: self.pass,
        }
    }

    /// The weighted sum of what the chosen experts make of each token, plus the shared ones'.
    ///
    /// # Shapes
    ///
    /// - `x`: `[B, T, D]`
    /// - returns: `[B, T, D]`, and how tokens were routed
    ///
    /// # Panics
    ///
    /// If the last axis is not `D` long.
    pub fn forward(&self, x: Tensor<3>) -> (Tensor<3>, Routing) {
        let [batch, len, hidden_size] = x.dims();
        let tokens = x.clone().reshape([batch * len, hidden_size]); // [N, D]
        // The router sees what was not rounded: which experts are chosen hangs on small differences.
        let (weights, routing) = self.gate.route(tokens.clone());
        let tokens = self.pass.operand(tokens); // [N, D]
        let routed = self.routed(tokens, weights, &routing.routes); // [N, D]
        let routed = routed.reshape([batch, len, hidden_size]); // [B, T, D]
        let out = match &self.shared_experts {
            Some(shared) => shared.forward(x) + routed,
            None => routed,
        };
        (out, routing)
    }

    /// One fused operation where the experts are plain matrices; where they are packed or have
    /// adapters, each runs as the network it is.
    fn routed(&self, x: Tensor<2>, weights: Tensor<2>, routes: &Arc<Routes>) -> Tensor<2> {
        let plain: Option<Vec<ExpertWeights>> = self
            .experts
            .iter()
            .map(FeedForward::plain_weights)
            .collect();
        if let Some(plain) = plain {
            return experts(x, weights, routes, plain);
        }
        let network = |expert: usize, x: Tensor<2>| self.experts[expert].forward(x);
        dispatch(x, weights, routes, network)
    }
}
