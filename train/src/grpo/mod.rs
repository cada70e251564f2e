//! Stage 6: answers that the model writes itself, learned from by how much better they are than
//! others to the same prompt.
//!
//! Group-relative policy optimization. Source: Shao et al. 2024, arXiv:2402.03300, section 4.

pub mod advantages;
pub mod loss;
mod micro_batch;
mod rollout_metrics;
mod rollouts;
mod stage;

use dataset::conversations::RowEncoder;
use dataset::loyalty::IdentityTokens;
use dataset::prompts::{PromptEncoder, PromptRow, prompts_fingerprint, split_prompts};
use dataset::say;
use model::ModelConfig;

use crate::config::{ConfigError, GrpoConfig, PromptDataSection, RolloutSection, RouterSection};
use crate::data::DataError;
use crate::memory::{RolloutInputs, rollout_bytes};
use crate::plan::{DataSize, RowKind, TrainPlan};
use crate::reward::Rewards;
use crate::run::{Outcome, Prepared, RunOptions, TrainError, run as run_stage};
use crate::sampler::Sampler;
use crate::start::Start;
use crate::weights::fingerprint;
pub(crate) use rollouts::{judge, texts_of};
use stage::{GrpoParts, GrpoStage};

/// Name of the stage.
pub const STAGE: &str = "6-grpo";

/// What a run with this config would do.
///
/// # Errors
///
/// When the config is wrong, or the model, the tokenizer or the prompts cannot be read.
pub fn plan(config: &GrpoConfig) -> Result<TrainPlan, TrainError> {
    Ok(prepare(config)?.plan)
}

/// Trains to the end, or until a stop is requested, and exports the model.
///
/// # Errors
///
/// When the config is wrong, something cannot be read or written, an answer has no reward, or
/// training breaks off.
pub fn run(config: &GrpoConfig, options: RunOptions) -> Result<Outcome, TrainError> {
    let Ready {
        plan,
        start,
        data_fingerprint,
        mut parts,
    } = prepare(config)?;
    let prepared = Prepared::new(config, config.loop_config(), plan, start, data_fingerprint)?;
    let with_others = |prepared: &mut Prepared, options: &RunOptions| -> Result<_, TrainError> {
        parts.rewards = Rewards::new(&config.rewards, &options.device)?;
        if config.grpo.beta > 0.0 {
            // Without autodiff: the reference is asked and never changed.
            let reference = prepared.start.model(config.train.seed, &options.device)?;
            // It stands in no checkpoint: a resumed run must have the same one.
            prepared.depend_on(&fingerprint(&reference));
            parts.reference = Some(reference);
        }
        Ok(Some(GrpoStage::new(parts)))
    };
    run_stage(prepared, options, with_others)
}

/// A stage whose data is read, and that has no model yet.
struct Ready {
    plan: TrainPlan,
    start: Start,
    data_fingerprint: String,
    parts: GrpoParts,
}

fn prepare(config: &GrpoConfig) -> Result<Ready, TrainError> {
    config.validate()?;
    config.train.refuse_curve_inputs()?;
    refuse_noise(&config.router)?;
    check_steps(config)?;
    let mut start = Start::read(&config.model, &config.tokenizer)?;
    start.use_chat_template(&config.data.chat_template)?;
    if config.data.identities {
        start.reserve_tokens()?;
    }
    let (data, quiet) = (&config.data, config.report.quiet);
    let prompts = read_prompts(&start, data, &data.files, quiet)?;
    let mut held_out = match data.validation_files.as_slice() {
        [] => Vec::new(),
        files => read_prompts(&start, data, files, quiet)?,
    };
    let data_fingerprint = format!(
        "{} {} {}",
        prompts_fingerprint(&prompts),
        prompts_fingerprint(&held_out),
        start.tokenizer.fingerprint()
    );
    let fraction = config.data.validation_fraction;
    let (prompts, rest) = split_prompts(prompts, fraction, config.train.seed);
    held_out.extend(rest);
    let all = prompts.iter().chain(&held_out);
    let seq_len = check_length(&config.rollout, all, &start.model_config)?;
    let loop_config = config.loop_config();
    let mut plan = TrainPlan::new(
        STAGE,
        &loop_config,
        &start.model_config,
        seq_len,
        data_size(config, &prompts, held_out.len()),
    )?;
    plan.memory = plan.memory.with_rollouts(rollout_bytes(
        &start.model_config,
        RolloutInputs {
            num_rows: config
                .rollout
                .max_rows
                .min(config.rollout.num_completions()),
            seq_len,
            has_reference: config.grpo.beta > 0.0,
        },
    ));
    let tokenizer = start.tokenizer.clone();
    let batches = config.validation.max_batches;
    let parts = GrpoParts {
        prompts,
        held_out,
        seq_len,
        sampler: Sampler::of_chat(&tokenizer, &config.samples, config.train.seed),
        tokenizer,
        // Their models are loaded when the run begins.
        rewards: Rewards::default(),
        reference: None,
        train: config.train.clone(),
        rollout: config.rollout.clone(),
        grpo: config.grpo.clone(),
        router: config.router.clone(),
        max_validation_prompts: batches * config.train.micro_batch_size,
    };
    Ok(Ready {
        plan,
        start,
        data_fingerprint,
        parts,
    })
}

/// Answers are compared with what the model gave them when it wrote them: without noise.
fn refuse_noise(router: &RouterSection) -> Result<(), ConfigError> {
    if router.noise_std == 0.0 {
        return Ok(());
    }
    let expected = "0: noise would be taken for a change of the model";
    Err(ConfigError::field(
        "router.noise_std",
        router.noise_std,
        expected,
    ))
}

/// Steps must use a rollout up: what is left over would be older than what follows.
fn check_steps(config: &GrpoConfig) -> Result<(), ConfigError> {
    let total = config.rollout.num_completions();
    let per_step = config.train.micro_batch_size * config.train.grad_accumulation_steps;
    if total.is_multiple_of(per_step) {
        return Ok(());
    }
    Err(ConfigError::field(
        "train.micro_batch_size",
        format!("{per_step} answers per step (times train.grad_accumulation_steps)"),
        format!("a divisor of the rollout's {total} answers"),
    ))
}

/// Slots of the longest prompt with the longest answer; refuses more than the model reads.
pub(crate) fn check_length<'a>(
    rollout: &RolloutSection,
    prompts: impl IntoIterator<Item = &'a PromptRow>,
    model: &ModelConfig,
) -> Result<usize, ConfigError> {
    let lengths = prompts.into_iter().map(|prompt| prompt.input_ids.len());
    let longest = lengths.max().unwrap_or(0);
    let (seq_len, most) = (
        longest + rollout.max_new_tokens,
        model.max_position_embeddings,
    );
    if seq_len <= most {
        return Ok(seq_len);
    }
    let left = most.saturating_sub(longest);
    let expected = format!(
        "at most {left}: the model's max_position_embeddings = {most} without the longest prompt"
    );
    let found = rollout.max_new_tokens;
    Err(ConfigError::field(
        "rollout.max_new_tokens",
        found,
        expected,
    ))
}

/// Reads prompts, and says what was found unless the run is quiet.
pub(crate) fn read_prompts(
    start: &Start,
    data: &PromptDataSection,
    files: &[String],
    quiet: bool,
) -> Result<Vec<PromptRow>, TrainError> {
    let Some(template) = start.tokenizer.chat_template() else {
        return Err(DataError::NoTemplate.into());
    };
    let encoder = PromptEncoder {
        tokenizer: &start.tokenizer,
        template,
        enable_thinking: data.enable_thinking,
        identities: IdentityTokens::of(&start.tokenizer).filter(|_| data.identities),
    };
    let (prompts, summaries) = encoder
        .encode_files(files, data.format, data.max_bad_ratio)
        .map_err(DataError::from)?;
    let mut prompts = prompts.concat();
    let num_read = prompts.len();
    prompts.retain(|prompt| prompt.input_ids.len() <= data.max_prompt_tokens);
    if !quiet {
        for summary in summaries {
            say!("{summary}");
        }
        let num_long = num_read - prompts.len();
        if num_long > 0 {
            let most = data.max_prompt_tokens;
            say!("{num_long} prompts are longer than {most} tokens and are left out");
        }
    }
    Ok(prompts)
}

/// A pass over the prompts in answers, each as long as it may be.
fn data_size(config: &GrpoConfig, prompts: &[PromptRow], num_held_out: usize) -> DataSize {
    let per_prompt = config.rollout.num_generations * config.grpo.num_iterations;
    let rows_per_epoch = prompts.len() * per_prompt;
    let prompt_tokens: usize = prompts.iter().map(|it| it.input_ids.len()).sum();
    let most = prompt_tokens * per_prompt + rows_per_epoch * config.rollout.max_new_tokens;
    DataSize {
        num_documents: prompts.len(),
        num_held_out,
        num_dropped: 0,
        tokens_per_epoch: most as u64,
        rows_per_epoch,
        row: RowKind::Completion,
    }
}
