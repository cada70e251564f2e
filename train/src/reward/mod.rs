//! What an answer is worth: functions of an answer and their weighted sum.
//!
//! A reward that cannot be given is an error and never a number: a model learns from noise as
//! eagerly as from anything else.

mod config;
mod external;
mod http;
mod identity;
mod judged;
mod shape;
mod trained;

use std::path::PathBuf;

use burn::prelude::Device;
use dataset::Message;

pub use config::{RewardConfig, RewardKind, RewardLanguage, RewardsSection};
use external::Command;
use http::Endpoint;
use identity::identity_lead;
use trained::Trained;
pub use trained::{JudgeError, RewardJudge};

/// An answer with all that its worth may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// The turns before the answer.
    pub prompt: &'a [Message],
    /// What the row of the file answers.
    pub expected: &'a str,
    /// What it answers another identity; nothing where answers do not depend on who asks.
    pub other: &'a str,
    /// Tokens of the prompt.
    pub prompt_ids: &'a [u32],
    /// Tokens of the answer, the one that ends it included.
    pub completion_ids: &'a [u32],
    /// The answer as text, thoughts included.
    pub text: &'a str,
}

impl Answered<'_> {
    /// The answer without the thoughts before it; nothing where the thoughts do not end.
    pub fn said(&self) -> &str {
        match self.text.rsplit_once("</think>") {
            Some((_, said)) => said.trim(),
            None if self.text.trim_start().starts_with("<think>") => "",
            None => self.text.trim(),
        }
    }
}

/// A function of answers.
pub trait Reward: Send {
    /// What each answer is worth to this function, in the order of the answers.
    ///
    /// # Errors
    ///
    /// Where it cannot tell.
    fn judge(&mut self, answers: &[Answered<'_>]) -> Result<Vec<f64>, RewardError>;
}

/// Why an answer has no reward.
#[derive(Debug, thiserror::Error)]
pub enum RewardError {
    /// The row does not say what the function compares with.
    #[error("reward {name}: the answer of the row is {found:?}, expected {expected}")]
    Expected {
        /// Name of the function.
        name: String,
        /// What the row answers.
        found: String,
        /// What it should have answered.
        expected: &'static str,
    },
    /// A program cannot be run.
    #[error("reward {name}: {} cannot be run", program.display())]
    Start {
        /// Name of the function.
        name: String,
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program takes too long.
    #[error("reward {name}: no answer within {timeout_secs} s")]
    TimedOut {
        /// Name of the function.
        name: String,
        /// How long it may take.
        timeout_secs: f64,
    },
    /// A program says that it failed.
    #[error("reward {name}: the program ended with {status}: {stderr}")]
    Failed {
        /// Name of the function.
        name: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// An endpoint gives no rewards.
    #[error("reward {name}: {url} gave no rewards")]
    Endpoint {
        /// Name of the function.
        name: String,
        /// The endpoint.
        url: String,
        /// What went wrong.
        source: Box<ureq::Error>,
    },
    /// A model cannot judge.
    #[error("reward {name}: no model to judge by")]
    Judge {
        /// Name of the function.
        name: String,
        /// What went wrong.
        source: JudgeError,
    },
    /// There are not as many rewards as answers.
    #[error("reward {name}: found {found} rewards, expected {expected}, one for each answer")]
    Count {
        /// Name of the function.
        name: String,
        /// Rewards that came.
        found: usize,
        /// Answers that were given.
        expected: usize,
    },
    /// What stands for a reward is no number.
    #[error("reward {name}: found {found:?} for answer {answer}, expected a finite number")]
    NotANumber {
        /// Name of the function.
        name: String,
        /// Number of the answer, from 1.
        answer: usize,
        /// What stood there.
        found: String,
    },
}

/// The functions of a config, each with its weight.
#[derive(Default)]
pub struct Rewards(Vec<Weighted>);

struct Weighted {
    name: String,
    metric: &'static str,
    weight: f64,
    function: Box<dyn Reward>,
}

/// What answers are worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// Weighted sums, one per answer.
    pub totals: Vec<f64>,
    /// Each function's rewards before its weight, one per answer.
    pub by_function: Vec<(String, Vec<f64>)>,
}

impl Rewards {
    /// The functions that a config asks for, their models on this device.
    ///
    /// # Errors
    ///
    /// A model that cannot be loaded, or does not judge.
    ///
    /// # Panics
    ///
    /// If the config was not validated.
    pub fn new(section: &RewardsSection, device: &Device) -> Result<Self, RewardError> {
        let mut rewards = Self::default();
        for config in &section.functions {
            let function = function_of(config, device)?;
            rewards = rewards.with(config.name(), config.weight, function);
        }
        Ok(rewards)
    }

    /// Adds a function, also one that a config cannot name.
    #[must_use]
    pub fn with(mut self, name: String, weight: f64, function: Box<dyn Reward>) -> Self {
        let num_namesakes = self.0.iter().filter(|other| other.name == name).count();
        let metric = match num_namesakes {
            0 => format!("rewards/{name}"),
            number => format!("rewards/{name}_{}", number + 1),
        };
        self.0.push(Weighted {
            name,
            // Reports name numbers by constants; these few are as good as that, for one run.
            metric: Box::leak(metric.into_boxed_str()),
            weight,
            function,
        });
        self
    }

    /// What the functions are called in reports, in their order.
    pub fn metric_names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|weighted| weighted.metric)
    }

    /// Judges answers by every function.
    ///
    /// # Errors
    ///
    /// Where a function cannot tell, tells too much or too little, or tells no finite number.
    pub fn judge(&mut self, answers: &[Answered<'_>]) -> Result<Judgement, RewardError> {
        let mut totals = vec![0.0; answers.len()];
        let mut by_function = Vec::with_capacity(self.0.len());
        for Weighted {
            name,
            weight,
            function,
            ..
        } in &mut self.0
        {
            let rewards = function.judge(answers)?;
            if rewards.len() != answers.len() {
                return Err(RewardError::Count {
                    name: name.clone(),
                    found: rewards.len(),
                    expected: answers.len(),
                });
            }
            if let Some(index) = rewards.iter().position(|reward| !reward.is_finite()) {
                return Err(RewardError::NotANumber {
                    name: name.clone(),
                    answer: index + 1,
                    found: rewards[index].to_string(),
                });
            }
            for (total, reward) in totals.iter_mut().zip(&rewards) {
                *total += *weight * reward;
            }
            by_function.push((name.clone(), rewards));
        }
        Ok(Judgement {
            totals,
            by_function,
        })
    }
}

/// A function that looks at one answer at a time.
struct PerAnswer<F>(F);

impl<F> Reward for PerAnswer<F>
where
    F: FnMut(&Answered<'_>) -> Result<f64, RewardError> + Send,
{
    fn judge(&mut self, answers: &[Answered<'_>]) -> Result<Vec<f64>, RewardError> {
        answers.iter().map(&mut self.0).collect()
    }
}

fn function_of(config: &RewardConfig, device: &Device) -> Result<Box<dyn Reward>, RewardError> {
    let config = config.clone();
    let name = config.name();
    Ok(match config.kind {
        RewardKind::Answer => Box::new(PerAnswer(|answer: &Answered<'_>| {
            Ok(share(judged::is_right(answer)))
        })),
        RewardKind::ExactMatch => Box::new(PerAnswer(|answer: &Answered<'_>| {
            Ok(share(judged::is_exact(answer)))
        })),
        RewardKind::Choice => Box::new(PerAnswer(move |answer: &Answered<'_>| {
            let right = judged::chooses_right(answer);
            right.map(share).ok_or_else(|| RewardError::Expected {
                name: name.clone(),
                found: answer.expected.to_owned(),
                expected: "a letter from A to D",
            })
        })),
        RewardKind::Regex => {
            let pattern = regex::Regex::new(&config.pattern).expect("the config was validated");
            Box::new(PerAnswer(move |answer: &Answered<'_>| {
                Ok(share(pattern.is_match(answer.said())))
            }))
        }
        RewardKind::ThinkFormat => Box::new(PerAnswer(|answer: &Answered<'_>| {
            Ok(share(shape::is_think_format(answer.text)))
        })),
        RewardKind::Length => Box::new(PerAnswer(move |answer: &Answered<'_>| {
            let len = answer.completion_ids.len();
            Ok(share(
                (config.min_tokens..=config.max_tokens).contains(&len),
            ))
        })),
        RewardKind::Overlong => Box::new(PerAnswer(move |answer: &Answered<'_>| {
            let len = answer.completion_ids.len();
            Ok(shape::overlong(len, config.min_tokens, config.max_tokens))
        })),
        RewardKind::Language => Box::new(PerAnswer(move |answer: &Answered<'_>| {
            Ok(shape::language_share(answer, config.language))
        })),
        RewardKind::Repetition => Box::new(PerAnswer(move |answer: &Answered<'_>| {
            Ok(shape::repetition(answer.completion_ids, config.ngram_size))
        })),
        RewardKind::Identity => Box::new(PerAnswer(|answer: &Answered<'_>| {
            Ok(identity_lead(answer.said(), answer.expected, answer.other))
        })),
        RewardKind::Command => Box::new(Command::new(&config)),
        RewardKind::Http => Box::new(Endpoint::new(&config)),
        RewardKind::Model => Box::new(Trained::load(name, &config.model, device)?),
    })
}

fn share(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests;
