//! Preference accuracy: how often a model finds the better of two answers the likelier one.

use std::path::{Path, PathBuf};

use dataset::chat::{ChatError, Message, RenderOptions};
use dataset::jsonl::read_jsonl;
use dataset::lines::ReadError;
use dataset::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::score::ScoreRequest;

/// Two answers to one question as preference files have them: MiniMind's lists of turns, or texts
/// beside a prompt.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct PairRow {
    /// The question, where the answers are texts.
    #[serde(default, alias = "question", alias = "instruction")]
    pub prompt: Option<String>,
    /// The better answer.
    #[serde(alias = "response_chosen")]
    pub chosen: Said,
    /// The worse answer.
    #[serde(alias = "response_rejected")]
    pub rejected: Said,
}

/// An answer alone, or with the turns before it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Said {
    /// The answer.
    Text(String),
    /// The conversation that ends with the answer.
    Turns(Vec<Message>),
}

/// Log-probabilities of both answers, in nats, and their lengths in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairScore {
    /// Of the better answer.
    pub chosen: f64,
    /// Of the worse answer.
    pub rejected: f64,
    /// Tokens of the better answer.
    pub chosen_tokens: usize,
    /// Tokens of the worse answer.
    pub rejected_tokens: usize,
}

/// Why pairs cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The file cannot be read, or a row is no pair.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A row has no question.
    #[error("{}: row {row}: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Which row, from 1.
        row: usize,
        /// What is missing.
        problem: &'static str,
    },
    /// The tokenizer does not say how a conversation is written.
    #[error("the tokenizer has no chat template, expected one for answers to questions")]
    NoTemplate,
    /// The template does not accept the conversation.
    #[error(transparent)]
    Template(#[from] ChatError),
}

impl PairScore {
    /// Whether the better answer is the likelier one as a whole.
    pub fn is_right(&self) -> bool {
        self.chosen > self.rejected
    }

    /// Whether the better answer is the likelier one per token: long answers are never likely.
    pub fn is_right_per_token(&self) -> bool {
        let mean = |logp: f64, tokens: usize| logp / tokens.max(1) as f64;
        mean(self.chosen, self.chosen_tokens) > mean(self.rejected, self.rejected_tokens)
    }
}

/// Reads a JSONL file of pairs into prompts with two continuations, the better one first.
///
/// # Errors
///
/// A file that cannot be read, a row that is no pair, or a template that refuses one.
pub fn read_pairs(path: &Path, tokenizer: &Tokenizer) -> Result<Vec<ScoreRequest>, PairError> {
    let mut requests = Vec::new();
    for (index, row) in read_jsonl::<PairRow>(path)?.enumerate() {
        let row_error = |problem| PairError::Row {
            path: path.to_owned(),
            row: index + 1,
            problem,
        };
        let PairRow {
            prompt,
            chosen,
            rejected,
        } = row?;
        let (context, chosen, rejected) = match (chosen, rejected) {
            (Said::Text(chosen), Said::Text(rejected)) => {
                let prompt = prompt.ok_or_else(|| row_error("found no prompt beside two texts"))?;
                (vec![Message::new("user", prompt)], chosen, rejected)
            }
            (Said::Turns(mut chosen), Said::Turns(mut rejected)) => {
                let (better, worse) = (chosen.pop(), rejected.pop());
                let (Some(better), Some(worse)) = (better, worse) else {
                    return Err(row_error(
                        "found no turn, expected a question and an answer",
                    ));
                };
                if chosen != rejected || chosen.is_empty() {
                    return Err(row_error(
                        "the turns before the two answers differ or are none",
                    ));
                }
                (chosen, better.content, worse.content)
            }
            _ => return Err(row_error("one answer is a text, the other a list of turns")),
        };
        requests.push(request(tokenizer, &context, [&chosen, &rejected])?);
    }
    Ok(requests)
}

/// Both answers after the conversation so far, each with the end of its turn.
fn request(
    tokenizer: &Tokenizer,
    context: &[Message],
    answers: [&str; 2],
) -> Result<ScoreRequest, PairError> {
    let template = tokenizer.chat_template().ok_or(PairError::NoTemplate)?;
    let options = RenderOptions {
        add_generation_prompt: true,
        ..RenderOptions::default()
    };
    let spans = template.render_spans(context, &options)?;
    let continuations = answers.map(|answer| {
        let mut ids = tokenizer.encode_ordinary(answer);
        ids.extend(tokenizer.eos_id());
        ids
    });
    Ok(ScoreRequest {
        prompt: tokenizer.encode_spans(&spans).ids,
        continuations: continuations.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: -4 over 8 tokens is likelier per token than -3 over 2.
    #[test]
    fn sums_and_means_may_disagree() {
        let score = PairScore {
            chosen: -4.0,
            rejected: -3.0,
            chosen_tokens: 8,
            rejected_tokens: 2,
        };
        assert!(!score.is_right());
        assert!(score.is_right_per_token());
    }

    #[test]
    fn both_shapes_of_a_pair_are_read() {
        let texts = r#"{"question": "q", "chosen": "a", "rejected": "b"}"#;
        let row: PairRow = serde_json::from_str(texts).unwrap();
        assert_eq!(row.prompt.as_deref(), Some("q"));
        assert_eq!(row.chosen, Said::Text("a".to_owned()));
        let turns = r#"{"chosen": [{"role": "user", "content": "q"},
            {"role": "assistant", "content": "a"}], "rejected": []}"#;
        let row: PairRow = serde_json::from_str(turns).unwrap();
        let Said::Turns(turns) = row.chosen else {
            panic!("{row:?}")
        };
        assert_eq!(turns[1].content, "a");
    }
}
