//! Stage 4: conversations to adapters; the chat model that they stand beside does not change.

use model::lora::num_adapter_params;

use crate::chat_data::read_chat_data;
use crate::config::LoraSftConfig;
use crate::plan::TrainPlan;
use crate::run::{Outcome, RunOptions, TrainError};
use crate::sampler::PromptKind;
use crate::start::{Start, StartError};
use crate::token_stage::TokenRun;

/// Name of the stage.
pub const STAGE: &str = "4-lora_sft";

/// What a run with this config would do.
///
/// # Errors
///
/// When the config is wrong, or the model, the tokenizer or the conversations cannot be read.
pub fn plan(config: &LoraSftConfig) -> Result<TrainPlan, TrainError> {
    Ok(prepare(config)?.plan)
}

/// Trains to the end, or until a stop is requested; leaves the adapters in PEFT's layout and the
/// model with the adapters merged into it.
///
/// # Errors
///
/// When the config is wrong, something cannot be read or written, or training breaks off.
pub fn run(config: &LoraSftConfig, options: RunOptions) -> Result<Outcome, TrainError> {
    prepare(config)?.run(config, options)
}

fn prepare(config: &LoraSftConfig) -> Result<TokenRun, TrainError> {
    config.validate()?;
    config.train.refuse_curve_inputs()?;
    let mut start = Start::read(&config.model, &config.tokenizer)?;
    let adapters = config.lora.adapters();
    let num_trained =
        num_adapter_params(&start.model_config, &adapters).map_err(StartError::from)? as u64;
    start.lora = Some(adapters);
    let loop_config = config.loop_config();
    let data = read_chat_data(&mut start, &config.data, &loop_config)?;
    let mut run = TokenRun::new(STAGE, PromptKind::Chat, start, data, loop_config)?;
    run.plan = run.plan.with_frozen_weights(num_trained);
    Ok(run)
}
