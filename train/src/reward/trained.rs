//! Rewards that a trained head gives.

use std::path::{Path, PathBuf};

use burn::prelude::*;
use dataset::chat::{ChatError, ChatTemplate, RenderOptions};
use dataset::conversations::Thinking;
use dataset::preferences::PairEncoder;
use dataset::{Message, Tokenizer, TokenizerError};
use model::CausalLm;
use model::hf::{HfError, load_model};
use model::reward::rewards;

use super::{Answered, Reward, RewardError};

/// Why a model cannot judge.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// The model cannot be read.
    #[error("{}: the model cannot be read", path.display())]
    Model {
        /// Folder of the model.
        path: PathBuf,
        /// What went wrong.
        source: Box<HfError>,
    },
    /// The tokenizer cannot be read.
    #[error("{}: the tokenizer cannot be read", path.display())]
    Tokenizer {
        /// Folder of the model.
        path: PathBuf,
        /// What went wrong.
        source: TokenizerError,
    },
    /// The model lacks what judging needs.
    #[error("{}: found no {missing}, expected a model that kindling reward_model left", path.display())]
    NoJudge {
        /// Folder of the model.
        path: PathBuf,
        /// What is not there.
        missing: &'static str,
    },
    /// The model's chat template refuses a conversation.
    #[error(transparent)]
    Conversation(#[from] ChatError),
    /// The model cannot read a conversation.
    #[error(transparent)]
    Unreadable(#[from] model::reward::RewardError),
}

/// A model of `reward_model`, with the tokenizer and the template that it was trained with.
#[derive(Debug)]
pub struct RewardJudge {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    model: CausalLm,
}

impl RewardJudge {
    /// Loads the folder that `reward_model` left.
    ///
    /// # Errors
    ///
    /// A folder that cannot be read, or whose model does not judge conversations.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, JudgeError> {
        let path = || dir.to_owned();
        let tokenizer = Tokenizer::load(dir).map_err(|source| JudgeError::Tokenizer {
            path: path(),
            source,
        })?;
        let model = load_model(dir, device).map_err(|source| JudgeError::Model {
            path: path(),
            source: Box::new(source),
        })?;
        let missing = match (tokenizer.chat_template().cloned(), &model.score) {
            (None, _) => "chat template",
            (_, None) => "score head",
            (Some(template), Some(_)) => {
                return Ok(Self {
                    tokenizer,
                    template,
                    model,
                });
            }
        };
        Err(JudgeError::NoJudge {
            path: path(),
            missing,
        })
    }

    /// How good each answer is after its turns, whatever the others are.
    ///
    /// Both are read in the judge's own template and tokens, to the end of the answer's turn, as in
    /// its training.
    ///
    /// # Errors
    ///
    /// Turns that the template refuses, or that the model cannot read as a whole.
    pub fn rewards<'a>(
        &self,
        answers: impl Iterator<Item = (&'a [Message], &'a str)>,
    ) -> Result<Vec<f64>, JudgeError> {
        let encoder = PairEncoder {
            tokenizer: &self.tokenizer,
            template: &self.template,
            thinking: Thinking::Keep,
        };
        let options = RenderOptions::default();
        let texts = answers.map(|(prompt, text)| {
            let answer = Message::new("assistant", text);
            Ok(encoder.answer(prompt, answer, &options)?.ids)
        });
        let texts = texts.collect::<Result<Vec<_>, JudgeError>>()?;
        let rewards = rewards(&self.model, &texts)?;
        Ok(rewards.into_iter().map(f64::from).collect())
    }
}

/// The judge as a function of a config.
pub(super) struct Trained {
    name: String,
    judge: RewardJudge,
}

impl Trained {
    pub(super) fn load(name: String, dir: &Path, device: &Device) -> Result<Self, RewardError> {
        match RewardJudge::load(dir, device) {
            Ok(judge) => Ok(Self { name, judge }),
            Err(source) => Err(RewardError::Judge { name, source }),
        }
    }
}

impl Reward for Trained {
    fn judge(&mut self, answers: &[Answered<'_>]) -> Result<Vec<f64>, RewardError> {
        let turns = answers.iter().map(|answer| (answer.prompt, answer.text));
        let rewards = self.judge.rewards(turns);
        rewards.map_err(|source| RewardError::Judge {
            name: self.name.clone(),
            source,
        })
    }
}
