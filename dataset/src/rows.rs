//! Rows of training files as their makers write them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::chat::Message;

const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];

/// One conversation of an instruction-tuning file: MiniMind's `conversations` or OpenAI's `messages`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedChatRow")]
pub struct ChatRow {
    /// The turns, at least one of them an assistant's.
    pub conversations: Vec<Message>,
    /// Functions that may be called, if the row has them beside the turns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Value>,
}

#[derive(Deserialize)]
struct UncheckedChatRow {
    #[serde(alias = "messages")]
    conversations: Vec<Message>,
    #[serde(default)]
    tools: Vec<Value>,
}

/// What makes a conversation useless for training.
#[derive(Debug, thiserror::Error)]
enum ChatRowError {
    #[error("turn {turn} has the role `{found}`, expected one of system, user, assistant, tool")]
    UnknownRole { turn: usize, found: String },
    #[error("found {turns} turns and none of an assistant, expected at least one to learn from")]
    NothingToLearn { turns: usize },
}

impl TryFrom<UncheckedChatRow> for ChatRow {
    type Error = ChatRowError;

    fn try_from(row: UncheckedChatRow) -> Result<Self, ChatRowError> {
        let UncheckedChatRow {
            conversations,
            tools,
        } = row;
        for (index, message) in conversations.iter().enumerate() {
            if !ROLES.contains(&message.role.as_str()) {
                let found = message.role.clone();
                return Err(ChatRowError::UnknownRole {
                    turn: index + 1,
                    found,
                });
            }
        }
        if conversations.iter().any(Message::is_assistant) {
            Ok(Self {
                conversations,
                tools,
            })
        } else {
            Err(ChatRowError::NothingToLearn {
                turns: conversations.len(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::fs;

    use super::*;
    use crate::jsonl::read_jsonl;

    fn read(text: &str) -> Result<Vec<ChatRow>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        fs::write(&path, text).unwrap();
        let rows = read_jsonl::<ChatRow>(&path).unwrap();
        let prefix = format!("{}/", folder.path().display());
        rows.collect::<Result<_, _>>().map_err(|error| {
            let cause = error
                .source()
                .map(|cause| format!(": {cause}"))
                .unwrap_or_default();
            format!("{error}{cause}").replace(&prefix, "")
        })
    }

    /// Both spellings give the same row.
    #[test]
    fn conversations_and_messages_are_one_thing() {
        let turns = r#"[{"role":"user","content":"1+1"},{"role":"assistant","content":"2"}]"#;
        let rows = read(&format!(
            "{{\"conversations\":{turns}}}\n\n{{\"messages\":{turns},\"id\":7}}\n"
        ));
        let turns = vec![Message::new("user", "1+1"), Message::new("assistant", "2")];
        let row = ChatRow {
            conversations: turns,
            tools: Vec::new(),
        };
        assert_eq!(rows.unwrap(), [row.clone(), row]);
    }

    /// Each message says which line, and what was expected.
    #[test]
    fn broken_rows_are_named() {
        let good = r#"{"messages":[{"role":"assistant","content":"2"}]}"#;
        assert_eq!(
            read("").unwrap_err(),
            "a.jsonl: the file is empty, expected at least one row"
        );
        let error = read(&format!("{good}\nnope\n")).unwrap_err();
        assert_eq!(
            error,
            "a.jsonl:2: not a valid row: expected ident at line 1 column 2"
        );
        let error = read(r#"{"text": "hi"}"#).unwrap_err();
        assert!(error.starts_with("a.jsonl:1: not a valid row: missing field `conversations`"));
        let error = read(r#"{"messages":[{"role":"human","content":"2"}]}"#).unwrap_err();
        assert_eq!(
            error,
            "a.jsonl:1: not a valid row: turn 1 has the role `human`, \
             expected one of system, user, assistant, tool"
        );
        let error = read(r#"{"messages":[{"role":"user","content":"2"}]}"#).unwrap_err();
        assert_eq!(
            error,
            "a.jsonl:1: not a valid row: found 1 turns and none of an assistant, \
             expected at least one to learn from"
        );
    }
}
