//! Stage 1: raw text to a base model, by next-token prediction on packed documents.

use dataset::cache::{CacheRequest, StderrProgress, open_or_build};
use dataset::loader::LoaderConfig;
use dataset::pack::PackMode;

use crate::config::PretrainConfig;
use crate::data::{DataError, TokenData};
use crate::plan::TrainPlan;
use crate::run::{Outcome, RunOptions, TrainError};
use crate::sampler::PromptKind;
use crate::start::Start;
use crate::token_stage::TokenRun;

/// Name of the stage.
pub const STAGE: &str = "1-pretrain";

/// What a run with this config would do; the text is tokenised for it, unless it is already.
///
/// # Errors
///
/// When the config is wrong, or the model, the tokenizer or the text cannot be read.
pub fn plan(config: &PretrainConfig) -> Result<TrainPlan, TrainError> {
    Ok(prepare(config)?.plan)
}

/// Trains to the end, or until a stop is requested, and exports the model.
///
/// # Errors
///
/// When the config is wrong, something cannot be read or written, or training breaks off.
pub fn run(config: &PretrainConfig, options: RunOptions) -> Result<Outcome, TrainError> {
    prepare(config)?.run(config, options)
}

fn prepare(config: &PretrainConfig) -> Result<TokenRun, TrainError> {
    config.validate()?;
    let start = Start::read(&config.model, &config.tokenizer)?;
    let mut progress = StderrProgress::default();
    let request = CacheRequest {
        cache_dir: &config.data.cache_dir,
        sources: &config.data.sources,
        tokenizer: &start.tokenizer,
    };
    let shards = open_or_build(&request, &mut |at| progress.update(at)).map_err(DataError::from)?;
    progress.finish();
    let rows = LoaderConfig {
        seq_len: config.data.seq_len,
        batch_size: config.train.micro_batch_size,
        seed: config.train.seed,
        mode: PackMode::Split,
        pad_id: start.tokenizer.pad_id(),
    };
    let data = TokenData::new(
        shards,
        &start.tokenizer,
        config.data.validation_fraction,
        rows,
    )?;
    let loop_config = config.loop_config();
    Ok(TokenRun::new(
        STAGE,
        PromptKind::Text,
        start,
        data,
        loop_config,
    )?)
}
