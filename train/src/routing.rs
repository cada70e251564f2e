//! What routers add to the loss of a batch, and what they did.

use burn::prelude::*;
use dataset::batch::{IGNORE_INDEX, PADDING_DOCUMENT, TokenBatch};
use model::experts::{RoutedTokens, Routing};
use model::{CausalLm, ModelConfig};

use crate::config::{BalanceKind, RouterSection};

/// What a batch's routing is judged by.
#[derive(Debug, Clone)]
pub struct RouterTerms {
    section: RouterSection,
    tokens: RoutedTokens,
}

/// Work of one layer's experts, summed over the batches of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerRouting {
    /// Number of the layer.
    pub layer: usize,
    /// Tokens of text that each expert was sent.
    pub loads: Vec<u64>,
    /// Sum over tokens of the entropy of their scores, in nats.
    pub entropy_sum: f64,
    /// Auxiliary loss, summed over what is trained on, before its coefficient.
    pub balance_sum: f64,
    /// Tokens of text that were routed.
    pub num_tokens: u64,
}

impl RouterTerms {
    /// The terms of a batch.
    ///
    /// The loss of a step is a sum over its trained tokens, divided by their number in the end. An
    /// auxiliary loss is a mean over rows; each row counts as often as it has trained tokens, so
    /// that cutting a batch into micro-batches changes nothing.
    pub fn new(section: &RouterSection, batch: &TokenBatch) -> Self {
        let is_text = batch.document_ids.iter();
        let supervised = |labels: &[i32]| {
            let trained = labels.iter().filter(|&&label| label != IGNORE_INDEX);
            trained.count() as f32
        };
        Self {
            section: section.clone(),
            tokens: RoutedTokens {
                is_text: is_text.map(|&id| id != PADDING_DOCUMENT).collect(),
                row_weights: batch
                    .labels
                    .chunks_exact(batch.seq_len)
                    .map(supervised)
                    .collect(),
            },
        }
    }

    /// The same where the summed loss has `num_terms` terms, not one per trained token.
    #[must_use]
    pub(crate) fn weighing(mut self, num_terms: usize) -> Self {
        let weights = &mut self.tokens.row_weights;
        let share = num_terms as f32 / weights.iter().sum::<f32>().max(1.0);
        for weight in weights {
            *weight *= share;
        }
        self
    }

    /// What a layer's routing adds to the summed loss, `[1]`, if anything, and its work.
    pub fn judge(
        &self,
        model: &CausalLm,
        layer: usize,
        routing: &Routing,
    ) -> (Option<Tensor<1>>, LayerRouting) {
        let scoring = model.config().model_type.scoring_func();
        let balance = match self.section.balance {
            BalanceKind::None | BalanceKind::Sequence => {
                routing.sequence_balance(&self.tokens, scoring)
            }
            BalanceKind::Batch => routing.batch_balance(&self.tokens, scoring),
        };
        let num_tokens = self
            .tokens
            .is_text
            .iter()
            .filter(|is_text| **is_text)
            .count();
        let work = LayerRouting {
            layer,
            loads: routing.loads(&self.tokens),
            entropy_sum: routing.entropy(&self.tokens) * num_tokens as f64,
            balance_sum: balance.value(),
            num_tokens: num_tokens as u64,
        };
        let mut added = None;
        let mut add = |term: Tensor<1>, coef: f64| {
            let term = term.mul_scalar(coef);
            added = Some(match added.take() {
                Some(sum) => sum + term,
                None => term,
            });
        };
        if self.section.balance != BalanceKind::None && self.section.balance_coef > 0.0 {
            add(balance.loss(), self.section.balance_coef);
        }
        if self.section.z_loss_coef > 0.0 {
            add(routing.z_loss(&self.tokens), self.section.z_loss_coef);
        }
        (added, work)
    }

    /// What all layers' routing adds to the summed loss, if anything, and their work.
    pub(crate) fn judge_all(
        &self,
        model: &CausalLm,
        routings: &[(usize, Routing)],
    ) -> (Option<Tensor<1>>, Vec<LayerRouting>) {
        let judged = routings
            .iter()
            .map(|(layer, routing)| self.judge(model, *layer, routing));
        let (added, work): (Vec<_>, Vec<_>) = judged.unzip();
        let sum = added.into_iter().flatten().reduce(|sum, term| sum + term);
        (sum, work)
    }
}

/// Adds the work of another batch, layer by layer.
pub(crate) fn add_work(sum: &mut Vec<LayerRouting>, batch: Vec<LayerRouting>) {
    if sum.is_empty() {
        *sum = batch;
        return;
    }
    for (sum, batch) in sum.iter_mut().zip(batch) {
        assert_eq!(sum.layer, batch.layer, "batches of one model");
        for (load, more) in sum.loads.iter_mut().zip(batch.loads) {
            *load += more;
        }
        sum.entropy_sum += batch.entropy_sum;
        sum.balance_sum += batch.balance_sum;
        sum.num_tokens += batch.num_tokens;
    }
}

/// Loads of the experts by layer, as the biases are moved by.
pub(crate) fn loads_by_layer(work: &[LayerRouting]) -> Vec<(usize, Vec<u64>)> {
    work.iter()
        .map(|work| (work.layer, work.loads.clone()))
        .collect()
}

/// What is known to go wrong with a mixture of experts of this shape.
pub(crate) fn router_warnings(model: &ModelConfig, router: &RouterSection) -> Vec<String> {
    let mut warnings = Vec::new();
    let Some(experts) = &model.experts else {
        return warnings;
    };
    if experts.leaves_router_without_gradient() {
        warnings.push(
            "a single expert per token with norm_topk_prob has the weight 1 whatever the router \
             says, so that only the auxiliary loss teaches it; in the model's config.json set \
             norm_topk_prob to false, or num_experts_per_tok to 2"
                .to_owned(),
        );
    }
    let has_loss = router.balance != BalanceKind::None && router.balance_coef > 0.0;
    let has_bias = experts.has_score_correction_bias && router.bias_rate > 0.0;
    if !has_loss && !has_bias && experts.num_experts > experts.num_experts_per_tok {
        warnings.push(
            "nothing keeps the experts equally busy: set router.balance and router.balance_coef, \
             or give the model a bias (moe_use_aux_free) and set router.bias_rate"
                .to_owned(),
        );
    }
    warnings
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn preset(name: &str) -> ModelConfig {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/model");
        ModelConfig::load(&folder.join(name)).unwrap()
    }

    /// MiniMind-3's mixture is told of its silent router; a loss or a bias is enough for balance.
    #[test]
    fn what_leaves_experts_alone_is_said() {
        let with_loss = RouterSection::default();
        let nothing = RouterSection {
            balance: BalanceKind::None,
            ..RouterSection::default()
        };
        let warnings = |name: &str, router| router_warnings(&preset(name), router);
        assert_eq!(warnings("v1-26m.json", &nothing).len(), 0);
        assert_eq!(warnings("v1-26m-moe.json", &with_loss).len(), 0);
        assert_eq!(warnings("debug-moe.json", &nothing).len(), 0);
        let [warning] = &warnings("v1-26m-moe.json", &nothing)[..] else {
            panic!("nothing keeps these experts busy");
        };
        assert!(warning.contains("router.balance_coef"), "{warning}");
        let [warning] = &warnings("v3-198m-moe.json", &with_loss)[..] else {
            panic!("the router has no gradient of the language-model loss");
        };
        assert!(warning.contains("set norm_topk_prob to false"), "{warning}");
    }
}
