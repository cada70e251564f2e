//! Asks a chat model the playground's held-out questions and counts the answers that are right to
//! the letter.

use anyhow::Result;
use dataset::playground::{ExamItem, Task};
use eval::chat::{Conversation, Mode};
use eval::engine::{AnswerConfig, Engine};
use model::generate::{GenerateConfig, Prompt};
use serde::Serialize;

/// Questions that are answered together.
const BATCH: usize = 64;
/// No answer of the playground is longer, in tokens.
const MAX_NEW_TOKENS: usize = 48;

/// How a model did in one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// What was examined.
    pub task: Task,
    /// What it said to each question.
    pub answers: Vec<ExamAnswer>,
}

/// A question of the exam with what the model said.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExamAnswer {
    /// The question and its only right answer.
    #[serde(flatten)]
    pub item: ExamItem,
    /// The model's answer, without blanks around it.
    pub found: String,
}

impl ExamAnswer {
    /// Whether the answer is right to the letter.
    pub fn is_right(&self) -> bool {
        self.found == self.item.answer
    }
}

impl Score {
    /// Number of right answers.
    pub fn num_right(&self) -> usize {
        self.answers
            .iter()
            .filter(|answer| answer.is_right())
            .count()
    }

    /// Right answers as a share of the questions, from 0 to 1.
    pub fn share(&self) -> f64 {
        self.num_right() as f64 / self.answers.len().max(1) as f64
    }
}

/// Asks every question once, each in a conversation of its own, greedily; scores by task.
///
/// # Errors
///
/// A chat template that refuses the question, or a model whose output is not finite.
pub fn sit_exam(engine: &Engine, items: &[ExamItem]) -> Result<Vec<Score>> {
    let config = AnswerConfig {
        generate: GenerateConfig {
            eos_token_id: engine.defaults.generate.eos_token_id.clone(),
            ..GenerateConfig::greedy(MAX_NEW_TOKENS)
        },
        stop_strings: Vec::new(),
    };
    let conversation = Conversation::new(engine, Mode::Chat, None, 0)?;
    let mut scores: Vec<Score> = Vec::new();
    for batch in items.chunks(BATCH) {
        let prompts = batch.iter().map(|item| {
            let input_ids = conversation.prompt_ids(&item.prompt, MAX_NEW_TOKENS)?.ids;
            Ok(Prompt { input_ids, seed: 0 })
        });
        let prompts: Vec<Prompt> = prompts.collect::<Result<_>>()?;
        let answers = engine.answer_all(&prompts, &config)?;
        for (item, answer) in batch.iter().zip(answers) {
            let known = scores.iter().position(|score| score.task == item.task);
            let index = known.unwrap_or(scores.len());
            if known.is_none() {
                scores.push(Score {
                    task: item.task,
                    answers: Vec::new(),
                });
            }
            scores[index].answers.push(ExamAnswer {
                item: item.clone(),
                found: answer.text.trim().to_owned(),
            });
        }
    }
    Ok(scores)
}
