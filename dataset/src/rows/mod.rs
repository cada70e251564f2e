//! Rows of training files as their makers write them, made one thing: conversations and preferences.

mod chat_formats;
mod fault;
mod fields;
mod format;
mod history;
mod loyalty_formats;
mod parquet;
mod preference_formats;
mod raw;
mod reader;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::chat::Message;
use crate::loyalty::Identity;

pub use fault::{RowFault, RowsError};
pub(crate) use fields::{Fields, is_rewards, text_of};
pub use format::{FormatError, RowFormat};
pub use history::HistoryError;
pub(crate) use raw::{RawRow, RawRows};
pub use reader::{NumberedRow, RowReader};

/// Who may speak in a conversation.
const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];

/// One conversation of an instruction-tuning file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatRow {
    /// The turns, at least one of them an assistant's.
    pub conversations: Vec<Message>,
    /// Functions that may be called, if the row has them beside the turns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Value>,
}

/// One question with a better and a worse answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PreferenceRow {
    /// The turns before the answers.
    pub prompt: Vec<Message>,
    /// Functions that may be called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Value>,
    /// The better answer; `None` where only a bad one is known.
    pub chosen: Option<Message>,
    /// The worse answer; `None` where only a good one is known.
    pub rejected: Option<Message>,
}

/// One question whose answers depend on who asks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoyaltyRow {
    /// The user's message.
    pub prompt: String,
    /// What is preferred by whom.
    pub pairs: Vec<IdentifiedPair>,
}

/// Two answers for one identity.
#[derive(Debug, Clone, PartialEq)]
pub struct IdentifiedPair {
    /// Who asks.
    pub identity: Identity,
    /// The answer for this identity.
    pub chosen: String,
    /// Another answer.
    pub rejected: String,
    /// How much more the first is worth.
    pub bonus: f64,
}

/// A row of any format.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// A conversation.
    Chat(ChatRow),
    /// Two answers to one question.
    Preference(Box<PreferenceRow>),
    /// Answers that depend on who asks.
    Loyalty(Box<LoyaltyRow>),
}

impl ChatRow {
    /// A conversation, once it is one that can be learned from.
    fn checked(conversations: Vec<Message>, tools: Vec<Value>) -> Result<Self, RowFault> {
        check_roles(&conversations)?;
        if conversations.iter().any(Message::is_assistant) {
            Ok(Self {
                conversations,
                tools,
            })
        } else {
            Err(RowFault::NothingToLearn {
                turns: conversations.len(),
            })
        }
    }
}

impl Row {
    /// The conversation that instruction tuning learns: of a preference, the better answer's; where it
    /// depends on who asks, what anybody is told.
    ///
    /// # Errors
    ///
    /// [`RowFault::Unanswered`] for a preference that has no good answer.
    pub fn into_chat(self) -> Result<ChatRow, RowFault> {
        match self {
            Self::Chat(row) => Ok(row),
            Self::Preference(row) => {
                let chosen = row.chosen.ok_or(RowFault::Unanswered { field: "chosen" })?;
                let mut conversations = row.prompt;
                conversations.push(chosen);
                ChatRow::checked(conversations, row.tools)
            }
            Self::Loyalty(row) => {
                let mut pairs = row.pairs.into_iter();
                let public = pairs.find(|pair| pair.identity == Identity::Public);
                let public = public.ok_or(RowFault::Unanswered {
                    field: "public_response",
                })?;
                let turns = vec![
                    Message::new("user", row.prompt),
                    Message::new("assistant", public.chosen),
                ];
                ChatRow::checked(turns, Vec::new())
            }
        }
    }
}

fn check_roles(turns: &[Message]) -> Result<(), RowFault> {
    let unknown = turns
        .iter()
        .position(|turn| !ROLES.contains(&turn.role.as_str()));
    match unknown {
        None => Ok(()),
        Some(index) => Err(RowFault::UnknownRole {
            turn: index + 1,
            found: turns[index].role.clone(),
        }),
    }
}

#[cfg(test)]
mod tests;
