//! APT's unified records: what every source becomes, whatever its maker's columns are.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::chat::Message;
use crate::rows::RowFault;

/// Marks of the speakers in a prompt of several turns, which are HH-RLHF's.
const HUMAN: &str = "\n\nHuman:";
const ASSISTANT: &str = "\n\nAssistant:";

/// A question and its answer, for instruction tuning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SftRecord {
    /// The question.
    pub prompt: String,
    /// Its answer.
    pub response: String,
    /// Part of the data set that it is from.
    pub source: String,
    /// What kind of task it is, as its source has it: COIG-CQIA's `major` and `minor`.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub task_type: Value,
}

/// A question with a better and a worse answer, for DPO and as prompts of GRPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DpoRecord {
    /// The question; a dialogue of several turns has HH-RLHF's marks of the speakers and ends with
    /// the assistant's.
    pub prompt: String,
    /// The better answer.
    pub chosen: String,
    /// The worse answer.
    pub rejected: String,
    /// Part of the data set that it is from.
    pub source: String,
}

/// A problem with the thoughts that lead to its answer, for Storm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StormRecord {
    /// The problem.
    pub problem: String,
    /// The thoughts.
    pub cot_explicit: String,
    /// The answer alone, where the source marks one; else the whole solution.
    pub answer: String,
    /// The source's own solution.
    pub solution: String,
    /// Data set that it is from.
    pub source: String,
}

/// A record of one of APT's stages.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Record {
    /// For instruction tuning.
    Sft(SftRecord),
    /// For preference training.
    Dpo(DpoRecord),
    /// For the internalisation of thoughts.
    Storm(StormRecord),
}

/// Why a source's row becomes no record.
#[derive(Debug, thiserror::Error)]
pub enum DropReason {
    /// The row is broken.
    #[error(transparent)]
    Row(#[from] RowFault),
    /// A field that training needs says nothing.
    #[error("`{field}` is empty")]
    Empty {
        /// Field of the record.
        field: &'static str,
    },
    /// There is nothing to prefer.
    #[error("`chosen` and `rejected` are the same")]
    SameAnswers,
    /// A turn before the answers is neither the user's nor the assistant's.
    #[error("the prompt has a turn of {role}, which a prompt of text cannot hold")]
    Role {
        /// Who speaks.
        role: String,
    },
}

/// A text that says something.
pub(super) fn filled(field: &'static str, text: String) -> Result<String, DropReason> {
    if text.trim().is_empty() {
        return Err(DropReason::Empty { field });
    }
    Ok(text)
}

/// A question as a text: itself, or the dialogue up to where the assistant speaks.
pub(super) fn prompt_text(turns: Vec<Message>) -> Result<String, DropReason> {
    if let [Message { role, content, .. }] = turns.as_slice()
        && role == "user"
    {
        return Ok(content.clone());
    }
    let mut text = String::new();
    for turn in turns {
        let mark = match turn.role.as_str() {
            "user" => HUMAN,
            "assistant" => ASSISTANT,
            _ => return Err(DropReason::Role { role: turn.role }),
        };
        text.push_str(mark);
        text.push(' ');
        text.push_str(&turn.content);
    }
    text.push_str(ASSISTANT);
    Ok(text)
}
