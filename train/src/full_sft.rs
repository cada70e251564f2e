//! Stage 3: conversations to a chat model; what the assistant says is trained, all weights move.

use crate::chat_data::read_chat_data;
use crate::config::SftConfig;
use crate::plan::TrainPlan;
use crate::run::{Outcome, RunOptions, TrainError};
use crate::sampler::PromptKind;
use crate::start::Start;
use crate::token_stage::TokenRun;

/// Name of the stage.
pub const STAGE: &str = "3-full_sft";

/// What a run with this config would do.
///
/// # Errors
///
/// When the config is wrong, or the model, the tokenizer or the conversations cannot be read.
pub fn plan(config: &SftConfig) -> Result<TrainPlan, TrainError> {
    Ok(prepare(config)?.plan)
}

/// Trains to the end, or until a stop is requested, and exports the model.
///
/// # Errors
///
/// When the config is wrong, something cannot be read or written, or training breaks off.
pub fn run(config: &SftConfig, options: RunOptions) -> Result<Outcome, TrainError> {
    prepare(config)?.run(config, options)
}

fn prepare(config: &SftConfig) -> Result<TokenRun, TrainError> {
    config.validate()?;
    if config.neftune.alpha > 0.0 {
        config.train.refuse_curve_inputs()?;
    }
    let mut start = Start::read(&config.model, &config.tokenizer)?;
    let loop_config = config.loop_config();
    let data = read_chat_data(&mut start, &config.data, &loop_config)?;
    let mut run = TokenRun::new(STAGE, PromptKind::Chat, start, data, loop_config)?;
    run.stage.neftune_alpha = config.neftune.alpha;
    Ok(run)
}
