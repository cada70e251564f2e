//! Stage 7: answers that depend on who asks, learned from pairs that turn with the identity.
//!
//! The identity is a reserved token before the prompt ([`dataset::loyalty`]). Each row is a pair for
//! the owner and one, with the answers exchanged, for everybody else; the row's bonus is the owner's
//! margin. Its form for reinforcement learning is the reward `identity` of `6-grpo`.

use dataset::conversations::RowEncoder;
use dataset::loyalty::{IdentityTokens, LoyaltyEncoder};
use dataset::preferences::PairEncoder;
use dataset::rows::RowFormat;
use dataset::say;

use crate::config::{ConfigError, LoyaltyConfig, Trained};
use crate::data::DataError;
use crate::dpo::{PairRun, PairSections};
use crate::pair_data::PairData;
use crate::plan::TrainPlan;
use crate::run::{Outcome, RunOptions, TrainError};
use crate::start::Start;

/// Name of the stage.
pub const STAGE: &str = "7-loyalty";

/// What a run with this config would do.
///
/// # Errors
///
/// When the config is wrong, or the model, the tokenizer or the rows cannot be read.
pub fn plan(config: &LoyaltyConfig) -> Result<TrainPlan, TrainError> {
    Ok(prepare(config)?.plan)
}

/// Trains to the end, or until a stop is requested, and exports the model.
///
/// # Errors
///
/// When the config is wrong, something cannot be read or written, or training breaks off.
pub fn run(config: &LoyaltyConfig, options: RunOptions) -> Result<Outcome, TrainError> {
    prepare(config)?.run(config, options)
}

fn prepare(config: &LoyaltyConfig) -> Result<PairRun, TrainError> {
    config.validate()?;
    config.train.refuse_curve_inputs()?;
    let margin_per_bonus = config.loyalty.margin_per_bonus;
    if margin_per_bonus > 0.0 {
        let field = "loyalty.margin_per_bonus";
        config.dpo.check_margins(field, margin_per_bonus)?;
    }
    if !matches!(config.data.format, RowFormat::Auto | RowFormat::Loyalty) {
        let expected = "\"auto\" or \"loyalty\"";
        return Err(ConfigError::field("data.format", config.data.format, expected).into());
    }
    let loop_config = config.loop_config();
    let mut start = Start::read(&config.model, &config.tokenizer)?;
    start.use_chat_template(&config.data.chat_template)?;
    let vocab_size = start.model_config.vocab_size;
    start.reserve_tokens()?;
    if config.dpo.trains == Trained::Adapters && start.model_config.vocab_size > vocab_size {
        let expected = "\"weights\": adapters would not hold the embeddings of the two tokens that \
                        the vocabulary lacks";
        return Err(ConfigError::field("dpo.trains", "\"adapters\"", expected).into());
    }
    let tokenizer = &start.tokenizer;
    let Some(template) = tokenizer.chat_template() else {
        return Err(DataError::NoTemplate.into());
    };
    let encoder = LoyaltyEncoder {
        pairs: PairEncoder {
            tokenizer,
            template,
            thinking: config.data.thinking,
        },
        identities: IdentityTokens::of(tokenizer).expect("tokens were reserved above"),
        margin_per_bonus,
    };
    let (pairs, summaries) = encoder
        .encode_files(
            &config.data.files,
            RowFormat::Loyalty,
            config.data.max_bad_ratio,
        )
        .map_err(DataError::from)?;
    if !loop_config.report.quiet {
        for summary in summaries {
            say!("{summary}");
        }
    }
    let data = PairData::new(pairs.concat(), &start, &config.data, &loop_config)?;
    let sections = PairSections {
        seq_len: config.data.seq_len,
        dpo: &config.dpo,
        lora: &config.lora,
        loop_config,
    };
    PairRun::new(STAGE, data, start, sections)
}
