//! Conversations, and the templates that turn them into text.

mod control;
mod spans;
mod template;
mod tojson;
mod user_turn;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

pub use spans::{LossOn, Span};
pub use template::{ChatTemplate, V1_TEMPLATE, V3_TEMPLATE};

/// Why a conversation could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The template is not Jinja.
    #[error("the chat template does not parse")]
    Parse(#[source] minijinja::Error),
    /// The template refused the conversation.
    #[error("the chat template cannot render the conversation")]
    Render(#[source] minijinja::Error),
    /// There is no prompt whose answer the first turn could be.
    #[error("the conversation begins with an assistant turn, expected a system or user turn first")]
    AssistantFirst,
    /// An earlier turn reads otherwise once later ones follow, so no text is what the model saw.
    #[error(
        "the chat template renders turn {turn} otherwise when later turns follow it, \
         expected conversations that end with that turn"
    )]
    UnstableTurn {
        /// Turn of the conversation, from 1.
        turn: usize,
    },
    /// There is no text before a user's turn to go on from.
    #[error("the chat template writes no user turns, expected one that does")]
    NoUserTurn,
    /// The text uses up all characters that could mark message content.
    #[error("the conversation holds every private-use character, expected at most a few")]
    NoFreeCharacter,
}

/// One turn of a conversation, as chat files have it and as templates read it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: system, user, assistant or tool.
    pub role: String,
    /// What is said; null counts as nothing said.
    #[serde(deserialize_with = "null_as_default")]
    pub content: String,
    /// What an assistant thought before it spoke.
    #[serde(
        default,
        deserialize_with = "empty_as_none",
        skip_serializing_if = "Option::is_none"
    )]
    pub reasoning_content: Option<String>,
    /// Calls an assistant makes: a list, or the same as JSON text.
    #[serde(
        default,
        deserialize_with = "list_or_json",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub tool_calls: Vec<Value>,
    /// Functions that may be called, on the first turn: a list, or the same as JSON text.
    #[serde(
        default,
        deserialize_with = "list_or_json",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub tools: Vec<Value>,
    /// Other fields, which a template may ask for.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Message {
    /// A turn with nothing but its text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
            ..Self::default()
        }
    }

    /// Whether the model is to learn to say this.
    pub fn is_assistant(&self) -> bool {
        self.role == "assistant"
    }
}

/// What a template is told besides the messages.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RenderOptions {
    /// Whether the text ends where the assistant's next turn begins.
    pub add_generation_prompt: bool,
    /// Functions that may be called; if empty, those of the first message.
    pub tools: Vec<Value>,
    /// Whether the assistant thinks first; `None` leaves it to the template.
    pub enable_thinking: Option<bool>,
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn empty_as_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

fn list_or_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Value>, D::Error> {
    let value = match Value::deserialize(deserializer)? {
        Value::String(text) if text.trim().is_empty() => Value::Null,
        Value::String(text) => serde_json::from_str(&text)
            .map_err(|error| D::Error::custom(format!("JSON text in a string: {error}")))?,
        other => other,
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => Ok(items),
        other => Err(D::Error::custom(format!(
            "found `{other}`, expected a list"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MiniMind's files write lists as JSON text, and nothing as an empty string.
    #[test]
    fn lists_may_be_json_text() {
        let row = r#"{"role": "system", "content": null, "reasoning_content": "", "tool_calls": "",
            "tools": "[{\"name\": \"f\"}]", "name": "x"}"#;
        let message: Message = serde_json::from_str(row).unwrap();
        let tools = vec![serde_json::json!({"name": "f"})];
        let other = Map::from_iter([("name".to_owned(), "x".into())]);
        assert_eq!(
            message,
            Message {
                tools,
                other,
                ..Message::new("system", "")
            }
        );
        let error =
            serde_json::from_str::<Message>(r#"{"role": "user", "content": "", "tools": 3}"#);
        assert_eq!(
            error.unwrap_err().to_string(),
            "found `3`, expected a list at line 1 column 43"
        );
    }

    /// A misspelt `content` must not become an empty turn.
    #[test]
    fn content_is_required() {
        let error = serde_json::from_str::<Message>(r#"{"role": "user", "contnet": "hi"}"#);
        assert!(
            error
                .unwrap_err()
                .to_string()
                .starts_with("missing field `content`")
        );
    }
}
