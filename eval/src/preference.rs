//! Preference accuracy: how often a model finds the better of two answers the likelier one.

use std::path::{Path, PathBuf};

use dataset::chat::{ChatError, Message, RenderOptions};
use dataset::conversations::Thinking;
use dataset::loyalty::Asker;
use dataset::preferences::PairEncoder;
use dataset::rows::{LoyaltyRow, PreferenceRow, Row, RowFault, RowFormat, RowReader, RowsError};
use dataset::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::score::ScoreRequest;

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
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] RowsError),
    /// A row is no preference.
    #[error("{}:{line}: {source}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Line on which the row begins, from 1.
        line: usize,
        /// What is wrong with it.
        source: RowFault,
    },
    /// A row lacks one of the two answers.
    #[error("{}:{line}: found one answer, expected a chosen and a rejected one", path.display())]
    OneAnswer {
        /// The file.
        path: PathBuf,
        /// Line on which the row begins, from 1.
        line: usize,
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

/// Reads a file of preferences, of any maker, into prompts with two continuations, the better one
/// first: where it is said who asks, also of rows whose answers depend on that.
///
/// # Errors
///
/// A file that cannot be read, a row that is no pair, or a template that refuses one.
pub fn read_pairs(
    path: &Path,
    tokenizer: &Tokenizer,
    asker: Option<Asker>,
) -> Result<Vec<ScoreRequest>, PairError> {
    let mut requests = Vec::new();
    let format = match asker {
        Some(_) => RowFormat::Auto,
        None => RowFormat::Preference,
    };
    for row in RowReader::open(path, format)? {
        let row = row?;
        let (path, line) = (path.to_owned(), row.line);
        let row = match (row.row, asker) {
            (Ok(Row::Preference(row)), _) => *row,
            (Ok(Row::Loyalty(row)), Some(asker)) => match preference_of(*row, asker) {
                Some(row) => row,
                // A row for the other identity alone.
                None => continue,
            },
            (Ok(_), _) => return Err(PairError::OneAnswer { path, line }),
            (Err(source), _) => return Err(PairError::Row { path, line, source }),
        };
        let mut request = request(tokenizer, row)?.ok_or(PairError::OneAnswer { path, line })?;
        let token = asker.map(|asker| asker.token);
        request.prompt = token.into_iter().chain(request.prompt).collect();
        requests.push(request);
    }
    Ok(requests)
}

/// What this identity prefers.
fn preference_of(row: LoyaltyRow, asker: Asker) -> Option<PreferenceRow> {
    let mut pairs = row.pairs.into_iter();
    let pair = pairs.find(|pair| pair.identity == asker.identity)?;
    let answer = |text: String| Some(Message::new("assistant", text));
    Some(PreferenceRow {
        prompt: vec![Message::new("user", row.prompt)],
        chosen: answer(pair.chosen),
        rejected: answer(pair.rejected),
        ..PreferenceRow::default()
    })
}

/// Both answers after the conversation so far, as preferences are trained on; `None` if one is
/// missing.
fn request(tokenizer: &Tokenizer, row: PreferenceRow) -> Result<Option<ScoreRequest>, PairError> {
    let PreferenceRow {
        prompt,
        tools,
        chosen: Some(chosen),
        rejected: Some(rejected),
    } = row
    else {
        return Ok(None);
    };
    let encoder = PairEncoder {
        tokenizer,
        template: tokenizer.chat_template().ok_or(PairError::NoTemplate)?,
        thinking: Thinking::Keep,
    };
    let options = RenderOptions {
        tools,
        ..RenderOptions::default()
    };
    let chosen = encoder.answer(&prompt, chosen, &options)?;
    let rejected = encoder.answer(&prompt, rejected, &options)?;
    // A template may open the two turns differently, one of them with thoughts.
    let prompts = [&chosen, &rejected].map(|answered| &answered.ids[..answered.prompt_len]);
    let pairs = prompts[0].iter().zip(prompts[1]);
    let shared = pairs
        .take_while(|(chosen, rejected)| chosen == rejected)
        .count();
    Ok(Some(ScoreRequest {
        prompt: prompts[0][..shared].to_vec(),
        continuations: [chosen, rejected]
            .map(|answered| answered.ids[shared..].to_vec())
            .into(),
    }))
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
}
