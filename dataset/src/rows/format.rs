//! Which makers' formats there are, and how their rows are told apart.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fields::{ANSWER_FIELDS, CHOSEN_FIELDS, PROMPT_FIELDS, REJECTED_FIELDS, TURNS_FIELDS};
use crate::names::listed;

/// How the rows of a file are laid out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowFormat {
    /// What the first rows look like.
    #[default]
    Auto,
    /// `conversations` or `messages` with `role` and `content`: MiniMind, OpenAI.
    Messages,
    /// `conversations` with `from` and `value`.
    Sharegpt,
    /// `instruction`, `input`, `output`, with `system` and `history` if there are any.
    Alpaca,
    /// A question and its answer, such as `prompt` and `response`, or `problem` and `answer`.
    PromptResponse,
    /// Magpie's records of `instruction` and `response` or `responses`.
    Magpie,
    /// MiniMind v1's table of `history`, `q` and `a`.
    MinimindCsv,
    /// `chosen` and `rejected`, in any of their layouts, or `messages` with a `label`.
    Preference,
    /// `owner_response` and `public_response`, or two responses with `user_identity`: APT.
    Loyalty,
}

/// Why a file's format is unknown.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: the first rows look like no known format, found {found}; expected messages, sharegpt, \
     alpaca, prompt_response, magpie, minimind_csv, preference or loyalty, or set the format",
    path.display()
)]
pub struct FormatError {
    /// File that was being read.
    path: PathBuf,
    /// Fields of the first row, or what stands in their place.
    found: String,
}

impl fmt::Display for RowFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Auto => "auto",
            Self::Messages => "messages",
            Self::Sharegpt => "sharegpt",
            Self::Alpaca => "alpaca",
            Self::PromptResponse => "prompt_response",
            Self::Magpie => "magpie",
            Self::MinimindCsv => "minimind_csv",
            Self::Preference => "preference",
            Self::Loyalty => "loyalty",
        })
    }
}

impl RowFormat {
    /// The format that most of the first rows have; of several, the one that comes first.
    pub(super) fn detect<'a>(
        path: &Path,
        first_rows: impl Iterator<Item = &'a Value>,
    ) -> Result<Self, FormatError> {
        let mut counts: Vec<(Self, usize)> = Vec::new();
        let mut found = None;
        for value in first_rows {
            let fields = value.as_object();
            found.get_or_insert_with(|| match fields {
                Some(fields) => listed(fields.keys().map(String::as_str)),
                None => "rows that are no objects".to_owned(),
            });
            let Some(format) = fields.and_then(Self::of) else {
                continue;
            };
            match counts.iter_mut().find(|(known, _)| *known == format) {
                Some((_, count)) => *count += 1,
                None => counts.push((format, 1)),
            }
        }
        let most = counts.iter().map(|(_, count)| *count).max();
        let format = counts
            .into_iter()
            .find(|(_, count)| Some(*count) == most)
            .map(|(format, _)| format);
        format.ok_or_else(|| FormatError {
            path: path.to_owned(),
            found: found.unwrap_or_else(|| "no row that can be read".to_owned()),
        })
    }

    /// The format that a row's fields belong to.
    fn of(fields: &Map<String, Value>) -> Option<Self> {
        let has = |name: &&str| fields.contains_key(*name);
        let has_any = |names: &[&str]| names.iter().any(has);
        let is_for_two = has(&"owner_response") && has(&"public_response");
        if is_for_two || (has(&"user_identity") && has_any(&CHOSEN_FIELDS)) {
            return Some(Self::Loyalty);
        }
        if has_any(&CHOSEN_FIELDS) && has_any(&REJECTED_FIELDS) {
            return Some(Self::Preference);
        }
        let turns = TURNS_FIELDS
            .iter()
            .find_map(|name| fields.get(*name)?.as_array());
        if let Some(first) = turns.and_then(|turns| turns.first()) {
            let is_judged = fields.get("label").is_some_and(Value::is_boolean);
            return match first {
                Value::Object(turn) if turn.contains_key("from") => Some(Self::Sharegpt),
                Value::Object(turn) if turn.contains_key("role") && is_judged => {
                    Some(Self::Preference)
                }
                Value::Object(turn) if turn.contains_key("role") => Some(Self::Messages),
                _ => None,
            };
        }
        if ["history", "q", "a"].iter().all(has) {
            return Some(Self::MinimindCsv);
        }
        if has(&"instruction") && has(&"output") {
            let answers = fields["output"].as_array();
            return Some(match answers {
                Some(_) => Self::Preference,
                None => Self::Alpaca,
            });
        }
        let is_synthesized = has_any(&["gen_input_configs", "pre_query_template"]);
        if has(&"instruction") && (is_synthesized || has(&"responses")) {
            return Some(Self::Magpie);
        }
        (has_any(&PROMPT_FIELDS) && has_any(&ANSWER_FIELDS)).then_some(Self::PromptResponse)
    }
}
