//! Asks a chat model the playground's held-out questions and counts the answers that are right to
//! the letter.

use anyhow::Result;
use dataset::playground::ExamItem;
use eval::chat::{Conversation, Mode};
use eval::engine::{AnswerConfig, Engine};
use model::generate::{GenerateConfig, Prompt};

/// Questions that are answered together.
const BATCH: usize = 64;
/// No answer of the playground is longer, in tokens.
const MAX_NEW_TOKENS: usize = 48;

/// How a model did in one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// What was examined.
    pub name: String,
    /// Questions asked.
    pub num_items: usize,
    /// Answers equal to the expected one, blanks around them aside.
    pub num_right: usize,
    /// A question with the model's answer.
    pub example: String,
}

impl Score {
    /// Right answers as a share of the questions, from 0 to 1.
    pub fn share(&self) -> f64 {
        self.num_right as f64 / self.num_items.max(1) as f64
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
    score(engine, items, prompts, |item| item.task.to_string())
}

/// Asks every question in the second turn of a conversation, after the one before it in the list
/// with its right answer; all count as one task.
///
/// # Errors
///
/// As [`sit_exam`].
pub fn sit_second_turns(engine: &Engine, items: &[ExamItem], name: &str) -> Result<Vec<Score>> {
    let befores = items.iter().cycle().skip(items.len().saturating_sub(1));
    let ids = |(item, before): (&ExamItem, &ExamItem)| {
        let mut conversation = Conversation::new(engine, Mode::Chat, None, 1)?;
        conversation.remember(&before.prompt, &before.answer);
        Ok(conversation.prompt_ids(&item.prompt, MAX_NEW_TOKENS)?.ids)
    };
    let prompts = items.iter().zip(befores).map(ids);
    let prompts = prompts.collect::<Result<Vec<_>>>()?;
    score(engine, items, prompts, |_| name.to_owned())
}

/// Counts the right answers to prompts, by the names of the questions.
fn score(
    engine: &Engine,
    items: &[ExamItem],
    prompts: Vec<Vec<u32>>,
    name_of: impl Fn(&ExamItem) -> String,
) -> Result<Vec<Score>> {
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
            let text = answer.text.trim();
            let name = name_of(item);
            let known = scores.iter().position(|score| score.name == name);
            let index = known.unwrap_or(scores.len());
            if known.is_none() {
                let example = format!("{} → {text}", item.prompt);
                scores.push(Score {
                    name,
                    num_items: 0,
                    num_right: 0,
                    example,
                });
            }
            let score = &mut scores[index];
            score.num_items += 1;
            score.num_right += usize::from(text == item.answer);
        }
    }
    Ok(scores)
}
