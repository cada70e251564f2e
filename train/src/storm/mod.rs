//! Stage 8: reasoning that is written out at first goes away, until the model answers at once.
//!
//! Internalised chains of thought. Source: Deng et al. 2024, arXiv:2405.14838; the name, the
//! schedules and the noise are those of APT's Storm.

pub mod curriculum;
mod stage;

use dataset::conversations::RowEncoder;
use dataset::reasoned::{ReasonedEncoder, ReasonedTokens};
use dataset::say;
use dataset::source::hashed_fraction;
use sha2::{Digest, Sha256};

use crate::config::{ConfigError, StormConfig};
use crate::data::DataError;
use crate::plan::{DataSize, RowKind, TrainPlan};
use crate::run::{Outcome, Prepared, RunOptions, TrainError, run as run_stage};
use crate::sampler::Sampler;
use crate::start::Start;
use crate::trainer::End;
use crate::weights::hex;
use stage::{StormParts, StormStage};

/// Name of the stage.
pub const STAGE: &str = "8-storm";

/// What a run with this config would do.
///
/// # Errors
///
/// When the config is wrong, or the model, the tokenizer or the conversations cannot be read.
pub fn plan(config: &StormConfig) -> Result<TrainPlan, TrainError> {
    Ok(prepare(config)?.0.plan)
}

/// Trains to the end, or until a stop is requested, and exports the model.
///
/// # Errors
///
/// When the config is wrong, something cannot be read or written, or training breaks off.
pub fn run(config: &StormConfig, options: RunOptions) -> Result<Outcome, TrainError> {
    let (prepared, stage) = prepare(config)?;
    run_stage(prepared, options, |_, _| Ok(Some(stage)))
}

fn prepare(config: &StormConfig) -> Result<(Prepared, StormStage), TrainError> {
    config.validate()?;
    config.train.refuse_curve_inputs()?;
    let mut start = Start::read(&config.model, &config.tokenizer)?;
    start.use_chat_template(&config.data.chat_template)?;
    let rows = read_rows(&start, config, &config.data.files)?;
    let mut held_out = match config.data.validation_files.as_slice() {
        [] => Vec::new(),
        files => read_rows(&start, config, files)?,
    };
    let data_fingerprint = format!(
        "{} {} {}",
        fingerprint(&rows),
        fingerprint(&held_out),
        start.tokenizer.fingerprint()
    );
    let (fraction, seed) = (config.data.validation_fraction, config.train.seed);
    let (rows, rest) = split(rows, fraction, seed);
    held_out.extend(rest);
    let loop_config = config.loop_config();
    let tokens: usize = rows.iter().map(ReasonedTokens::num_tokens).sum();
    let plan = TrainPlan::new(
        STAGE,
        &loop_config,
        &start.model_config,
        config.data.seq_len,
        DataSize {
            num_documents: rows.len(),
            num_held_out: held_out.len(),
            num_dropped: 0,
            tokens_per_epoch: tokens as u64,
            rows_per_epoch: rows.len(),
            row: RowKind::Packed,
        },
    )?;
    let End::Step(num_steps) = plan.end else {
        let expected = "a length in epochs, steps or tokens: reasoning goes away step by step";
        let found = config.train.length;
        return Err(ConfigError::field("train.length", found, expected).into());
    };
    let stage = StormStage::new(StormParts {
        rows,
        held_out,
        num_steps,
        seq_len: config.data.seq_len,
        vocab_size: start.tokenizer.vocab_size() as u32,
        sampler: Sampler::of_chat(&start.tokenizer, &config.samples, seed),
        storm: config.storm.clone(),
        train: config.train.clone(),
        router: config.router.clone(),
        max_validation_rows: config.validation.max_batches * config.train.micro_batch_size,
    });
    let prepared = Prepared::new(config, loop_config, plan, start, data_fingerprint)?;
    Ok((prepared, stage))
}

/// Reads conversations, and says what was found unless the run is quiet.
fn read_rows(
    start: &Start,
    config: &StormConfig,
    files: &[String],
) -> Result<Vec<ReasonedTokens>, TrainError> {
    let Some(template) = start.tokenizer.chat_template() else {
        return Err(DataError::NoTemplate.into());
    };
    let encoder = ReasonedEncoder {
        tokenizer: &start.tokenizer,
        template,
    };
    let data = &config.data;
    let (mut rows, summaries) = encoder
        .encode_files(files, data.format, data.max_bad_ratio)
        .map_err(DataError::from)?;
    let num_read = rows.len();
    rows.retain(|row| row.num_tokens() <= data.seq_len);
    if !config.report.quiet {
        for summary in summaries {
            say!("{summary}");
        }
        let num_long = num_read - rows.len();
        if num_long > 0 {
            let seq_len = data.seq_len;
            say!("{num_long} conversations are longer than {seq_len} tokens and are left out");
        }
    }
    Ok(rows)
}

/// Rows to learn from and those held out; equal prompts are never parted.
fn split(
    rows: Vec<ReasonedTokens>,
    fraction: f64,
    seed: u64,
) -> (Vec<ReasonedTokens>, Vec<ReasonedTokens>) {
    rows.into_iter().partition(|row| {
        let mut hash = Sha256::new();
        for id in &row.prompt {
            hash.update(id.to_le_bytes());
        }
        let mut index = [0; 8];
        index.copy_from_slice(&hash.finalize()[..8]);
        hashed_fraction(seed, u64::from_le_bytes(index)) >= fraction
    })
}

fn fingerprint(rows: &[ReasonedTokens]) -> String {
    let mut hash = Sha256::new();
    for row in rows {
        for ids in [&row.explicit_prompt, &row.reasoning, &row.answer] {
            hash.update((ids.len() as u64).to_le_bytes());
            for id in ids {
                hash.update(id.to_le_bytes());
            }
        }
    }
    hex(&hash.finalize()[..16])
}
