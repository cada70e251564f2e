//! The number that a trained head gives an answer.

use std::path::Path;

use anyhow::{Context, Result};
use burn::prelude::Device;
use dataset::chat::Message;
use dataset::magpie::completer::{CompleterError, Usage};
use dataset::magpie::reward::{Answered, Reward};
use eval::fingerprint::model_fingerprint;
use train::reward::{JudgeError, RewardJudge};

/// What runs it, for messages.
const ENGINE: &str = "kindling";

/// A model of `reward_model` that weighs answers.
#[derive(Debug)]
pub(super) struct Trained {
    judge: RewardJudge,
    name: String,
    fingerprint: String,
}

impl Trained {
    /// Loads the folder that `reward_model` left.
    pub(super) fn load(dir: &Path, device: &Device) -> Result<Self> {
        let judge = RewardJudge::load(dir, device).context("reward.model cannot be used")?;
        Ok(Self {
            judge,
            name: format!("reward of {}", dir.display()),
            fingerprint: format!("reward of {}", model_fingerprint(dir)?),
        })
    }
}

impl Reward for Trained {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn score(&self, answers: &[Answered<'_>]) -> Result<(Vec<Option<f64>>, Usage), CompleterError> {
        let mut rewards = Vec::with_capacity(answers.len());
        for answer in answers {
            let question = [Message::new("user", answer.instruction)];
            // One at a time: an answer's number must not depend on the padding beside others.
            let answered = std::iter::once((&question[..], answer.response));
            rewards.push(match self.judge.rewards(answered) {
                Ok(rewards) => rewards.first().copied(),
                // What the model cannot read as a whole it cannot weigh.
                Err(JudgeError::Unreadable(_)) => None,
                Err(source) => {
                    return Err(CompleterError::Engine {
                        engine: ENGINE,
                        source: Box::new(source),
                    });
                }
            });
        }
        Ok((rewards, Usage::default()))
    }
}
