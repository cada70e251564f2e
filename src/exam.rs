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
    let conversation = Conversation::new(engine, Mode::Chat, None, 0)?;
    let ids = |item: &ExamItem| Ok(conversation.prompt_ids(&item.prompt, MAX_NEW_TOKENS)?.ids);
    let prompts = items.iter().map(ids).collect::<Result<Vec<_>>>()?;
    score(engine, items, prompts)
}

/// Asks every question in the second turn of a conversation, after the one before it in its
/// language with the right answer to that.
///
/// # Errors
///
/// As [`sit_exam`].
pub fn sit_second_turns(engine: &Engine, items: &[ExamItem]) -> Result<Vec<Score>> {
    let ids = |(index, item): (usize, &ExamItem)| {
        let before = items[..index].iter().rev();
        // The first one of a language follows its last one.
        let mut before = before.chain(items[index..].iter().rev());
        let before = before.find(|other| other.language == item.language);
        let before = before.unwrap_or(item);
        let mut conversation = Conversation::new(engine, Mode::Chat, None, 1)?;
        conversation.remember(&before.prompt, &before.answer);
        Ok(conversation.prompt_ids(&item.prompt, MAX_NEW_TOKENS)?.ids)
    };
    let prompts = items.iter().enumerate().map(ids);
    let prompts = prompts.collect::<Result<Vec<_>>>()?;
    score(engine, items, prompts)
}

/// What a model says to prompts, by the tasks of their questions.
fn score(engine: &Engine, items: &[ExamItem], prompts: Vec<Vec<u32>>) -> Result<Vec<Score>> {
    let config = AnswerConfig {
        generate: GenerateConfig {
            eos_token_id: engine.defaults.generate.eos_token_id.clone(),
            ..GenerateConfig::greedy(MAX_NEW_TOKENS)
        },
        stop_strings: Vec::new(),
    };
    let prompts: Vec<Prompt> = prompts
        .into_iter()
        .map(|input_ids| Prompt { input_ids, seed: 0 })
        .collect();
    let mut scores: Vec<Score> = Vec::new();
    for (items, prompts) in items.chunks(BATCH).zip(prompts.chunks(BATCH)) {
        let answers = engine.answer_all(prompts, &config)?;
        for (item, answer) in items.iter().zip(answers) {
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
