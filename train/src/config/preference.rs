//! `[data]`, `[dpo]` of the preference stages: which pairs, and what is learned of them.

use std::path::PathBuf;

use dataset::conversations::Thinking;
use dataset::rows::RowFormat;
use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use super::{ConfigError, check_rows};

/// `[data]` of the preference stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct PairDataSection {
    /// Files of preferences (.jsonl, .json or .csv, each also with .gz, or .parquet), each a path or
    /// a pattern with * and **.
    pub files: Vec<String>,
    /// Format of their rows: "auto" (by the first rows of each file) or "preference"; of 7-loyalty
    /// "auto" or "loyalty".
    pub format: RowFormat,
    /// Share of a file's rows that may be broken and are left out, from 0 to 1; more of them are an
    /// error.
    pub max_bad_ratio: f64,
    /// Jinja file that turns conversations into text; empty: the tokenizer's own template.
    pub chat_template: PathBuf,
    /// What becomes of the thoughts before the answers: "keep" or "strip".
    pub thinking: Thinking,
    /// Tokens per answer with its prompt, at least 2 and at most the model's
    /// max_position_embeddings; longer answers are cut, and pairs left out that are then the same.
    pub seq_len: usize,
    /// Share of the prompts that is held out for validation, with all their pairs, from 0 to below
    /// 1.
    pub validation_fraction: f64,
}

impl Default for PairDataSection {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            format: RowFormat::Auto,
            max_bad_ratio: 0.01,
            chat_template: PathBuf::new(),
            thinking: Thinking::Keep,
            seq_len: 512,
            validation_fraction: 0.02,
        }
    }
}

impl PairDataSection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        check_rows(self.seq_len, self.validation_fraction)?;
        if self.files.is_empty() {
            let expected = "at least one file";
            return Err(ConfigError::field("data.files", "none", expected));
        }
        ConfigError::check_share("data.max_bad_ratio", self.max_bad_ratio)
    }
}

/// What is made of the log-probabilities of two answers. The formulas stand in `dpo::loss`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DpoLoss {
    /// Rafailov et al. 2023.
    #[default]
    Sigmoid,
    /// Azar et al. 2023, per token.
    Ipo,
    /// Zhao et al. 2023.
    Hinge,
    /// Chowdhury et al. 2024: labels that are wrong with the probability of the label smoothing.
    Robust,
    /// Ji et al. 2024.
    ExoPair,
    /// Chen et al. 2024.
    NcaPair,
    /// Jung et al. 2024, without a moving reward shift.
    BcoPair,
    /// Wu et al. 2024.
    SppoHard,
    /// Melnyk et al. 2024, pairs sorted within a micro-batch.
    Aot,
    /// The same with both answers sorted apart.
    AotUnpaired,
    /// D'Oosterlinck et al. 2024.
    ApoZero,
    /// The same for answers that are worse than the model's own.
    ApoDown,
    /// Lu et al. 2024.
    Discopop,
    /// Meng et al. 2024, without a reference.
    Simpo,
    /// Hong et al. 2024, without a reference.
    Orpo,
    /// Xu et al. 2024, without a reference.
    Cpo,
}

impl DpoLoss {
    /// Whether the answers' lead enters by one sigmoid, hinge or power of it: there a margin has a
    /// meaning.
    fn is_of_the_lead(self) -> bool {
        !matches!(
            self,
            Self::Ipo
                | Self::NcaPair
                | Self::BcoPair
                | Self::SppoHard
                | Self::ApoZero
                | Self::ApoDown
                | Self::Orpo
        )
    }

    /// Whether the loss knows labels that are wrong.
    fn smooths_labels(self) -> bool {
        matches!(
            self,
            Self::Sigmoid
                | Self::Robust
                | Self::ExoPair
                | Self::Aot
                | Self::AotUnpaired
                | Self::Simpo
                | Self::Cpo
        )
    }
}

/// How far an answer's log-ratio to the reference counts (Wang et al. 2023, arXiv:2309.16240).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divergence {
    /// As it is.
    #[default]
    ReverseKl,
    /// `-exp(-s)`.
    ForwardKl,
    /// `ln sigmoid(s)`: Jensen and Shannon's.
    Js,
    /// `exp((a - 1) s) / (a - 1)` with `a` 0.5.
    Alpha,
}

/// What a preference stage trains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trained {
    /// Every weight.
    #[default]
    Weights,
    /// Adapters beside the weights, which do not change.
    Adapters,
}

/// `[dpo]`: what is learned of pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct DpoSection {
    /// Loss of a pair: "sigmoid" (DPO), "ipo", "hinge", "robust", "exo_pair", "nca_pair",
    /// "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", or without
    /// a reference "simpo", "orpo", "cpo".
    pub loss: DpoLoss,
    /// How much an answer's log-ratio to the reference counts as reward, above 0: the larger, the
    /// nearer the model stays to where it starts.
    pub beta: f64,
    /// Share of the pairs whose labels are taken to be wrong, from 0 to below 0.5; only "exo_pair"
    /// needs some.
    pub label_smoothing: f64,
    /// Divergence from the reference that is held down: "reverse_kl", "forward_kl", "js" or "alpha".
    pub divergence: Divergence,
    /// Divide each answer's log-probability by its number of tokens ("ipo", "simpo" and "orpo" always
    /// do).
    pub length_normalized: bool,
    /// Least lead in reward that the better answer is to have, 0 or more; SimPO's gamma.
    pub margin: f64,
    /// Weight of the better answer's cross entropy per token, 0 or more: it keeps its likelihood from
    /// falling.
    pub sft_coef: f64,
    /// Compare the answers' log-probabilities themselves, not their ratios to the start's.
    pub reference_free: bool,
    /// What is trained: "weights" (all of them) or "adapters" (those of the section lora, the weights
    /// frozen; the reference is the model without them).
    pub trains: Trained,
    /// Folder that keeps the reference's log-probabilities between runs.
    pub cache_dir: PathBuf,
}

impl Default for DpoSection {
    fn default() -> Self {
        Self {
            loss: DpoLoss::Sigmoid,
            beta: 0.1,
            label_smoothing: 0.0,
            divergence: Divergence::ReverseKl,
            length_normalized: false,
            margin: 0.0,
            sft_coef: 0.0,
            reference_free: false,
            trains: Trained::Weights,
            cache_dir: PathBuf::from("out/cache"),
        }
    }
}

impl DpoSection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::check_positive("dpo.beta", self.beta)?;
        ConfigError::check_not_negative("dpo.margin", self.margin)?;
        ConfigError::check_not_negative("dpo.sft_coef", self.sft_coef)?;
        let name = || {
            let value = serde_json::to_value(self.loss).expect("a loss is a word");
            format!("dpo.loss = {value}")
        };
        if !(0.0..0.5).contains(&self.label_smoothing) {
            let expected = "0 or more and below 0.5";
            let found = self.label_smoothing;
            return Err(ConfigError::field("dpo.label_smoothing", found, expected));
        }
        if self.label_smoothing > 0.0 && !self.loss.smooths_labels() {
            let expected = format!("0 while {}", name());
            let found = self.label_smoothing;
            return Err(ConfigError::field("dpo.label_smoothing", found, expected));
        }
        if self.label_smoothing <= 0.0 && self.loss == DpoLoss::ExoPair {
            let expected = format!("above 0 while {}", name());
            let found = self.label_smoothing;
            return Err(ConfigError::field("dpo.label_smoothing", found, expected));
        }
        if self.margin > 0.0 {
            self.check_margins("dpo.margin", self.margin)?;
        }
        let has_other_divergence = self.divergence != Divergence::ReverseKl;
        if has_other_divergence && (!self.loss.is_of_the_lead() || self.is_reference_free()) {
            let expected = format!("\"reverse_kl\" while {}", name());
            return Err(ConfigError::field("dpo.divergence", "another", expected));
        }
        Ok(())
    }

    /// Refuses a margin where the loss has no place for one.
    pub(crate) fn check_margins(&self, field: &'static str, found: f64) -> Result<(), ConfigError> {
        if self.loss.is_of_the_lead() {
            return Ok(());
        }
        let value = serde_json::to_value(self.loss).expect("a loss is a word");
        let expected = format!("0 while dpo.loss = {value}");
        Err(ConfigError::field(field, found, expected))
    }

    /// Whether no reference is asked.
    pub fn is_reference_free(&self) -> bool {
        let never = matches!(self.loss, DpoLoss::Simpo | DpoLoss::Orpo | DpoLoss::Cpo);
        never || self.reference_free
    }

    /// Whether answers are compared by their means per token.
    pub fn is_per_token(&self) -> bool {
        let always = matches!(self.loss, DpoLoss::Ipo | DpoLoss::Simpo | DpoLoss::Orpo);
        always || self.length_normalized
    }
}

/// `[loyalty]`: what the identity of who asks is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct LoyaltySection {
    /// Lead in reward that the owner's answer is to have for the owner, per unit of a row's
    /// reward_bonus, 0 or more.
    pub margin_per_bonus: f64,
}

impl Default for LoyaltySection {
    fn default() -> Self {
        Self {
            margin_per_bonus: 0.25,
        }
    }
}

impl LoyaltySection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::check_not_negative("loyalty.margin_per_bonus", self.margin_per_bonus)
    }
}

/// `[reward]`: how rewards are learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct RewardSection {
    /// Weight of the squared sum of both answers' rewards, 0 or more: it holds rewards around 0.
    pub center_coef: f64,
}

impl Default for RewardSection {
    fn default() -> Self {
        Self { center_coef: 0.01 }
    }
}

impl RewardSection {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::check_not_negative("reward.center_coef", self.center_coef)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(section: &DpoSection) -> String {
        section.validate().unwrap_err().to_string()
    }

    /// Fields are compared with each other: what a loss would pass over in silence is refused.
    #[test]
    fn fields_that_the_loss_does_not_read_are_refused() {
        assert_eq!(DpoSection::default().validate(), Ok(()));
        let section = |loss| DpoSection {
            loss,
            ..DpoSection::default()
        };
        assert_eq!(
            refusal(&DpoSection {
                label_smoothing: 0.1,
                ..section(DpoLoss::Hinge)
            }),
            "dpo.label_smoothing: found 0.1, expected 0 while dpo.loss = \"hinge\""
        );
        assert_eq!(
            refusal(&section(DpoLoss::ExoPair)),
            "dpo.label_smoothing: found 0, expected above 0 while dpo.loss = \"exo_pair\""
        );
        assert_eq!(
            refusal(&DpoSection {
                margin: 0.5,
                ..section(DpoLoss::NcaPair)
            }),
            "dpo.margin: found 0.5, expected 0 while dpo.loss = \"nca_pair\""
        );
        assert_eq!(
            refusal(&DpoSection {
                divergence: Divergence::Js,
                ..section(DpoLoss::Cpo)
            }),
            "dpo.divergence: found another, expected \"reverse_kl\" while dpo.loss = \"cpo\""
        );
        assert_eq!(
            refusal(&DpoSection {
                label_smoothing: 0.5,
                ..section(DpoLoss::Robust)
            }),
            "dpo.label_smoothing: found 0.5, expected 0 or more and below 0.5"
        );
    }
}
