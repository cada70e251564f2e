//! Rejection sampling: a model's own best answers, as conversations to tune on.
//!
//! Source: DeepSeek-AI 2025, arXiv:2501.12948, section 2.3.3.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use burn::prelude::Device;
use dataset::prepare::{RowsWriter, WriteError};
use dataset::prompts::{PromptRow, split_prompts};
use dataset::{Message, Tokenizer};
use model::CausalLm;
use model::generate::Prompt;
use serde::Serialize;

use crate::config::{ConfigError, RejectConfig, commented_toml};
use crate::grpo::{check_length, judge, read_prompts, texts_of};
use crate::reward::Rewards;
use crate::rollout::{WritingOptions, write_answers};
use crate::run::{RunOptions, TrainError};
use crate::run_folder::RunFolder;
use crate::stage::StageError;
use crate::start::Start;

/// Name of the step.
pub const STAGE: &str = "reject";

/// Name of the file with what was kept, in the step's folder.
pub const ROWS: &str = "rows.jsonl";

/// Spreads seeds that follow each other.
const SEED_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// What was kept of how much.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// The conversations.
    pub path: PathBuf,
    /// Prompts that were answered.
    pub num_prompts: usize,
    /// Answers that were written.
    pub num_answers: usize,
    /// Conversations that were kept.
    pub num_rows: usize,
    /// Prompts of which something was kept.
    pub num_covered: usize,
    /// Mean reward of all answers.
    pub mean_reward: f64,
}

/// Why nothing was kept.
#[derive(Debug, thiserror::Error)]
pub enum RejectError {
    /// The config, the model, the prompts or the rewards cannot be used.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The conversations cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// No answer is good enough.
    #[error(
        "none of {num_answers} answers earned as much as reject.min_reward = {min_reward}; the mean \
         is {mean_reward:.3}"
    )]
    NothingKept {
        /// Answers that were written.
        num_answers: usize,
        /// What they should have earned.
        min_reward: f64,
        /// What they earned.
        mean_reward: f64,
    },
}

/// A conversation that was kept.
#[derive(Debug, Serialize)]
struct Row {
    conversations: Vec<Message>,
    reward: f64,
}

/// Answers every prompt several times over and writes down the best answers; `None` when a stop was
/// requested, which leaves no rows behind.
///
/// `on_progress` is told how many prompts of how many are answered.
///
/// # Errors
///
/// When the config is wrong, something cannot be read or written, an answer has no reward, or none is
/// good enough.
pub fn run(
    config: &RejectConfig,
    options: &RunOptions,
    mut on_progress: impl FnMut(usize, usize),
) -> Result<Option<Kept>, RejectError> {
    let (mut answerer, prompts) = Answerer::new(config, &options.device)?;
    let folder = RunFolder::open(&options.out_dir, options.if_exists).map_err(TrainError::from)?;
    let config_toml = commented_toml(config).map_err(TrainError::from)?;
    let noted = folder.write("config.toml", &config_toml);
    noted.map_err(TrainError::from)?;
    let mut writer = RowsWriter::create(&folder.path().join(ROWS))?;
    let mut stop = || {
        if options.stop.load(Ordering::SeqCst) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let (mut num_done, mut num_covered) = (0, 0);
    for group in prompts.chunks(config.rollout.num_prompts) {
        let answered = answerer.best(group, &mut stop);
        let Some(best) = answered.map_err(TrainError::from)? else {
            return Ok(None);
        };
        for rows in best {
            num_covered += usize::from(!rows.is_empty());
            for row in &rows {
                writer.push(row)?;
            }
        }
        num_done += group.len();
        on_progress(num_done, prompts.len());
    }
    let mean_reward = answerer.reward_sum / answerer.num_answers.max(1) as f64;
    if num_covered == 0 {
        return Err(RejectError::NothingKept {
            num_answers: answerer.num_answers,
            min_reward: config.reject.min_reward,
            mean_reward,
        });
    }
    let written = writer.finish()?;
    Ok(Some(Kept {
        path: written.path,
        num_prompts: prompts.len(),
        num_answers: answerer.num_answers,
        num_rows: written.num_rows,
        num_covered,
        mean_reward,
    }))
}

/// A model and what its answers are worth.
struct Answerer<'a> {
    config: &'a RejectConfig,
    model: CausalLm,
    tokenizer: Arc<Tokenizer>,
    rewards: Rewards,
    /// Answers so far, and what they earned.
    num_answers: usize,
    reward_sum: f64,
}

impl<'a> Answerer<'a> {
    /// The model and the prompts of a config, whatever may be wrong with it found out.
    fn new(
        config: &'a RejectConfig,
        device: &Device,
    ) -> Result<(Self, Vec<PromptRow>), TrainError> {
        config.validate()?;
        let mut start = Start::read(&config.model, &config.tokenizer)?;
        start.use_chat_template(&config.data.chat_template)?;
        let prompts = read_prompts(&start, &config.data, &config.data.files, false)?;
        let fraction = config.data.validation_fraction;
        let (prompts, _) = split_prompts(prompts, fraction, config.reject.seed);
        if prompts.is_empty() {
            let expected = "at least one prompt that is not held out";
            return Err(ConfigError::field("data", "no prompt to answer", expected).into());
        }
        check_length(&config.rollout, &prompts, &start.model_config)?;
        let answerer = Self {
            config,
            model: start.model(config.reject.seed, device)?,
            tokenizer: start.tokenizer,
            rewards: Rewards::new(&config.rewards, device)?,
            num_answers: 0,
            reward_sum: 0.0,
        };
        Ok((answerer, prompts))
    }

    /// The best answers to each prompt, as conversations; `None` when `stop` broke off.
    fn best(
        &mut self,
        prompts: &[PromptRow],
        stop: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Option<Vec<Vec<Row>>>, StageError> {
        let section = &self.config.rollout;
        let num_generations = section.num_generations;
        let rows: Vec<&PromptRow> = prompts
            .iter()
            .flat_map(|prompt| std::iter::repeat_n(prompt, num_generations))
            .collect();
        // An answer's seed is made of its number, whatever is answered beside it.
        let first = self.config.reject.seed.wrapping_mul(SEED_FACTOR);
        let first = first.wrapping_add(self.num_answers as u64);
        let inputs = rows.iter().zip(0..).map(|(row, number)| Prompt {
            input_ids: row.input_ids.clone(),
            seed: first.wrapping_add(number),
        });
        let options = WritingOptions {
            max_new_tokens: section.max_new_tokens,
            temperature: section.temperature,
            max_rows: section.max_rows,
            eos_token_id: self.tokenizer.eos_id().into_iter().collect(),
        };
        let written = write_answers(&self.model, inputs.collect(), &options, &mut |_| stop())?;
        let Some(completions) = written else {
            return Ok(None);
        };
        let texts = texts_of(&self.tokenizer, &rows, &completions);
        let earned = judge(&mut self.rewards, &rows, &completions, &texts)?.totals;
        self.num_answers += earned.len();
        self.reward_sum += earned.iter().sum::<f64>();
        let groups = prompts.iter().enumerate().map(|(place, prompt)| {
            let own = place * num_generations..(place + 1) * num_generations;
            let is_whole = |answer: &usize| !completions[*answer].is_truncated;
            let answers = own
                .filter(is_whole)
                .map(|answer| (&texts[answer], earned[answer]));
            let best = self.best_of(answers.collect()).into_iter();
            let rows = best.map(|(text, reward)| {
                let answer = Message::new("assistant", text);
                Row {
                    conversations: prompt.messages.iter().cloned().chain([answer]).collect(),
                    reward,
                }
            });
            rows.collect()
        });
        Ok(Some(groups.collect()))
    }

    /// Different answers that are good enough, the best ones; the first of equals.
    fn best_of<'t>(&self, mut answers: Vec<(&'t String, f64)>) -> Vec<(&'t String, f64)> {
        let section = &self.config.reject;
        answers.retain(|(_, reward)| *reward >= section.min_reward);
        answers.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let mut seen = HashSet::new();
        answers.retain(|(text, _)| seen.insert(*text));
        answers.truncate(section.max_kept);
        answers
    }
}
