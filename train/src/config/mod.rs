//! Configs of the training stages: one struct per stage, a sentence for every field, checked as a
//! whole.

mod chat;
mod difference;
mod error;
mod exam;
mod grpo;
mod length;
mod optimizer;
mod preference;
mod reject;
mod router;
mod sections;
mod storm;
mod text;
mod text_data;

pub use chat::{ChatDataSection, DistillSection, LoraSection, NeftuneSection};
pub use difference::{FieldDifference, differences_that_matter};
pub use error::ConfigError;
pub use exam::{ExamFolder, ExamSection, ExamStyle};
pub use grpo::{GrpoSection, PromptDataSection, RolloutSection};
pub use length::{Length, LengthError};
pub use optimizer::{OptimizerConfig, OptimizerKind};
pub use preference::{
    Divergence, DpoLoss, DpoSection, LoyaltySection, PairDataSection, RewardSection, Trained,
};
pub use reject::{RejectConfig, RejectSection};
pub use router::{BalanceKind, RouterSection};
pub use sections::{
    CheckpointSection, GuardSection, ModelSection, SamplesSection, TokenizerSection, TrainSection,
    ValidationSection,
};
pub use storm::{ReasonedDataSection, StormSection};
use text::shared_field_doc;
pub use text::{FieldDocs, commented_toml};
pub use text_data::TextDataSection;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use crate::report::ReportConfig;
use crate::reward::RewardsSection;
use crate::schedule::{ScheduleConfig, ScheduleKind};

fn check_rows(seq_len: usize, validation_fraction: f64) -> Result<(), ConfigError> {
    ConfigError::check_at_least("data.seq_len", seq_len, 2)?;
    ConfigError::check_below_one("data.validation_fraction", validation_fraction)
}

/// What the training loop itself reads; every stage's config has these sections.
#[derive(Debug, Clone, PartialEq)]
pub struct LoopConfig {
    /// Length, batch and seed.
    pub train: TrainSection,
    /// Update rule.
    pub optimizer: OptimizerConfig,
    /// Balance of a mixture of experts.
    pub router: RouterSection,
    /// Learning rate over the run.
    pub schedule: ScheduleConfig,
    /// Scoring of held-out documents.
    pub validation: ValidationSection,
    /// Texts written on the way.
    pub samples: SamplesSection,
    /// Questions put on the way.
    pub exam: ExamSection,
    /// Saving.
    pub checkpoint: CheckpointSection,
    /// Steps that cannot be trusted.
    pub guard: GuardSection,
    /// Files and lines about the run.
    pub report: ReportConfig,
}

macro_rules! stage_config {
    ($(#[$doc:meta])* $name:ident, $data:ident
        $(, $(#[$extra_doc:meta])* $extra:ident: $extra_type:ident)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, DocumentedFields)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            /// Which weights training starts from.
            pub model: ModelSection,
            /// How text becomes token ids.
            pub tokenizer: TokenizerSection,
            /// What is read, and how it is cut into rows.
            pub data: $data,
            /// How long, and how much per step.
            pub train: TrainSection,
            /// How gradients become updates.
            pub optimizer: OptimizerConfig,
            /// How a mixture of experts is kept in balance; a model without experts does not read it.
            pub router: RouterSection,
            /// How the learning rate moves over the run.
            pub schedule: ScheduleConfig,
            /// How often the held-out documents are scored.
            pub validation: ValidationSection,
            /// What the model writes while it learns.
            pub samples: SamplesSection,
            /// What the model is asked while it learns.
            pub exam: ExamSection,
            /// When the run is saved, and how much of it is kept.
            pub checkpoint: CheckpointSection,
            /// What happens when a step cannot be trusted.
            pub guard: GuardSection,
            /// What a run leaves to look at.
            pub report: ReportConfig,
            $($(#[$extra_doc])* pub $extra: $extra_type,)*
        }

        impl $name {
            /// Checks every field and the fields against each other.
            ///
            /// # Errors
            ///
            /// Names the field, what it holds and what it may hold.
            pub fn validate(&self) -> Result<(), ConfigError> {
                self.model.validate()?;
                self.tokenizer.validate()?;
                self.data.validate()?;
                $(self.$extra.validate()?;)*
                self.loop_config().validate()
            }

            /// The sections that the training loop reads.
            pub fn loop_config(&self) -> LoopConfig {
                LoopConfig {
                    train: self.train.clone(),
                    optimizer: self.optimizer.clone(),
                    router: self.router.clone(),
                    schedule: self.schedule.clone(),
                    validation: self.validation.clone(),
                    samples: self.samples.clone(),
                    exam: self.exam.clone(),
                    checkpoint: self.checkpoint.clone(),
                    guard: self.guard.clone(),
                    report: self.report.clone(),
                }
            }
        }

        impl FieldDocs for $name {
            fn field_doc(section: &str, field: &str) -> Option<&'static str> {
                $(if section == stringify!($extra) {
                    return $extra_type::get_field_docs(field).ok();
                })*
                match section {
                    "" => Self::get_field_docs(field).ok(),
                    "data" => $data::get_field_docs(field).ok(),
                    _ => shared_field_doc(section, field),
                }
            }
        }
    };
}

stage_config!(
    /// Config of `1-pretrain`: raw text to a base model.
    PretrainConfig,
    TextDataSection
);
stage_config!(
    /// Config of `3-full_sft`: conversations to a chat model, all weights trained.
    SftConfig,
    ChatDataSection,
    /// Noise on the embeddings.
    neftune: NeftuneSection
);
stage_config!(
    /// Config of `4-lora_sft`: conversations to adapters of a frozen chat model.
    LoraSftConfig,
    ChatDataSection,
    /// The adapters.
    lora: LoraSection
);

stage_config!(
    /// Config of `6-grpo`: a chat model learns from the rewards of its own answers.
    GrpoConfig,
    PromptDataSection,
    /// How the model answers.
    rollout: RolloutSection,
    /// What is learned from the answers.
    grpo: GrpoSection,
    /// What an answer is worth.
    rewards: RewardsSection
);
stage_config!(
    /// Config of `8-storm`: a model that reasons learns to answer at once.
    StormConfig,
    ReasonedDataSection,
    /// How reasoning goes away.
    storm: StormSection
);
stage_config!(
    /// Config of `9-distill`: a student learns a teacher's distribution on conversations.
    DistillConfig,
    ChatDataSection,
    /// The teacher.
    distill: DistillSection
);

stage_config!(
    /// Config of `5-dpo`: pairs of answers to a model that prefers the better ones.
    DpoConfig,
    PairDataSection,
    /// What is learned of pairs.
    dpo: DpoSection,
    /// The adapters, where they are what is trained.
    lora: LoraSection
);

stage_config!(
    /// Config of `7-loyalty`: answers that depend on who asks.
    LoyaltyConfig,
    PairDataSection,
    /// What the identity is worth.
    loyalty: LoyaltySection,
    /// What is learned of pairs.
    dpo: DpoSection,
    /// The adapters, where they are what is trained.
    lora: LoraSection
);
stage_config!(
    /// Config of `reward_model`: pairs of answers to a head that judges them.
    RewardModelConfig,
    PairDataSection,
    /// How rewards are learned.
    reward: RewardSection
);

impl LoopConfig {
    /// Checks every field and the fields against each other.
    ///
    /// # Errors
    ///
    /// Names the field, what it holds and what it may hold.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.train.validate()?;
        self.optimizer.validate()?;
        self.router.validate()?;
        self.schedule.validate()?;
        self.samples.validate()?;
        self.checkpoint.validate()?;
        ConfigError::check_at_least("report.log_every", self.report.log_every as usize, 1)?;
        let is_by_the_clock = matches!(self.train.length, Length::Minutes(_));
        if is_by_the_clock && self.schedule.warmup_steps > 0 {
            return Err(ConfigError::field(
                "schedule.warmup_steps",
                self.schedule.warmup_steps,
                format!(
                    "0 (use warmup_ratio) while train.length is {}",
                    self.train.length
                ),
            ));
        }
        if let Length::Steps(steps) = self.train.length
            && self.schedule.warmup_steps > steps
            && self.schedule.kind != ScheduleKind::Constant
        {
            return Err(ConfigError::field(
                "schedule.warmup_steps",
                self.schedule.warmup_steps,
                format!("at most train.length = {steps} steps"),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn valid() -> PretrainConfig {
        toml::from_str(
            r#"
            [model]
            config = "configs/model/debug.json"
            [tokenizer]
            path = "out/0-tokenizer"
            [train]
            length = "20 steps"
            [[data.sources]]
            path = "text.jsonl"
            "#,
        )
        .unwrap()
    }

    fn refusal(change: impl FnOnce(&mut PretrainConfig)) -> String {
        let mut config = valid();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    /// A start, a tokenizer and a source are enough; everything else has a default.
    #[test]
    fn a_short_config_is_complete() {
        assert_eq!(valid().validate(), Ok(()));
    }

    /// serde names the unknown key; a misspelt one is never a silent default.
    #[test]
    fn an_unknown_field_is_refused() {
        let error = toml::from_str::<PretrainConfig>("[train]\nsteps = 3").unwrap_err();
        assert!(
            error.to_string().contains("unknown field `steps`"),
            "{error}"
        );
    }

    /// Each text names the field, what was found and what was expected.
    #[test]
    fn a_value_out_of_range_names_its_field() {
        assert_eq!(
            refusal(|config| config.train.micro_batch_size = 0),
            "train.micro_batch_size: found 0, expected at least 1"
        );
        assert_eq!(
            refusal(|config| config.data.validation_fraction = 1.0),
            "data.validation_fraction: found 1, expected 0 or more and below 1"
        );
        assert_eq!(
            refusal(|config| config.data.sources.clear()),
            "data.sources: found none, expected at least one source"
        );
        assert_eq!(
            refusal(|config| config.optimizer.lr = f64::NAN),
            "optimizer.lr: found NaN, expected a number above 0"
        );
    }

    /// Two starts, or none, are refused with both names.
    #[test]
    fn a_model_has_exactly_one_start() {
        assert_eq!(
            refusal(|config| config.model.from = "out/1-pretrain/final".into()),
            "model.config: found configs/model/debug.json, and model.from = out/1-pretrain/final, \
             expected only one of the two"
        );
        assert_eq!(
            refusal(|config| config.model.config = PathBuf::new()),
            "model.config: found nothing, and nothing in model.from, expected one of the two"
        );
    }

    /// Fields are compared with each other, not only with their own ranges.
    #[test]
    fn a_warmup_in_steps_does_not_fit_a_length_in_minutes() {
        let text = refusal(|config| {
            config.train.length = Length::Minutes(2.0);
            config.schedule.warmup_steps = 10;
        });
        assert_eq!(
            text,
            "schedule.warmup_steps: found 10, expected 0 (use warmup_ratio) while train.length is \
             2 minutes"
        );
    }
}
