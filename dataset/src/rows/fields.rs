//! Fields of a row, taken out one by one with errors that name them.

use serde_json::{Map, Value};

use super::RowFault;
use crate::chat::Message;
use crate::names::{json_type, listed};

/// Where conversations stand.
pub(super) const TURNS_FIELDS: [&str; 2] = ["conversations", "messages"];

/// Where a question stands, the most telling name first.
pub(super) const PROMPT_FIELDS: [&str; 7] = [
    "prompt",
    "instruction",
    "Question",
    "question",
    "problem",
    "query",
    "q",
];

/// Where its answer stands.
pub(super) const ANSWER_FIELDS: [&str; 9] = [
    "response",
    "Response",
    "completion",
    "output",
    "message_content",
    "deepseek_attempt",
    "solution",
    "answer",
    "a",
];

/// Where the thoughts before the answer stand.
pub(super) const THOUGHT_FIELDS: [&str; 8] = [
    "cot",
    "cot_explicit",
    "reasoning_content",
    "Complex_CoT",
    "message_thinking",
    "deepseek_thinking_trajectory",
    "thinking",
    "reasoning",
];

/// Where the better of two answers stands.
pub(super) const CHOSEN_FIELDS: [&str; 3] = ["chosen", "chosen_response", "response_chosen"];

/// Where the worse of two answers stands.
pub(super) const REJECTED_FIELDS: [&str; 3] =
    ["rejected", "rejected_response", "response_rejected"];

/// A row's fields by their names.
pub(crate) struct Fields(pub(super) Map<String, Value>);

/// Whether a field of Magpie's records says what responses are worth: `rewards_` and its maker's name.
pub(crate) fn is_rewards(field: &str) -> bool {
    field.starts_with("rewards_")
}

impl Fields {
    /// The fields of a row that is an object.
    pub(crate) fn of(value: Value) -> Result<Self, RowFault> {
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            other => Err(RowFault::NotAnObject {
                found: json_type(&other),
            }),
        }
    }

    /// Takes a field's value out; null counts as not there. The name stays, for messages.
    pub(crate) fn take(&mut self, field: &str) -> Option<Value> {
        let value = self.0.get_mut(field).map(Value::take);
        value.filter(|value| !value.is_null())
    }

    /// Takes the first of several fields that is there, with its name.
    pub(crate) fn take_any(&mut self, fields: &[&'static str]) -> Option<(&'static str, Value)> {
        fields
            .iter()
            .find_map(|field| Some((*field, self.take(field)?)))
    }

    /// A text, empty if the field is not there.
    pub(crate) fn take_text(&mut self, field: &'static str) -> Result<String, RowFault> {
        match self.take(field) {
            None => Ok(String::new()),
            Some(value) => text_of(field, value),
        }
    }

    /// A text that must be there.
    pub(crate) fn require_text(&mut self, field: &'static str) -> Result<String, RowFault> {
        match self.take(field) {
            None => Err(self.missing(field)),
            Some(value) => text_of(field, value),
        }
    }

    /// A list, or the same as JSON text; empty if the field is not there.
    pub(super) fn take_list(&mut self, field: &'static str) -> Result<Vec<Value>, RowFault> {
        match self.take(field) {
            None => Ok(Vec::new()),
            Some(value) => list_of(field, value),
        }
    }

    /// What a row's responses are worth, under any maker's name; empty if nobody says.
    pub(super) fn take_rewards(&mut self) -> Result<Vec<Value>, RowFault> {
        let field = self.0.iter_mut().find(|(name, _)| is_rewards(name));
        match field.map(|(_, value)| value.take()) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(value) => list_of("rewards_*", value),
        }
    }

    /// The error of a field that is not there.
    pub(super) fn missing(&self, field: &'static str) -> RowFault {
        RowFault::MissingField {
            field,
            found: listed(self.0.keys().map(String::as_str)),
        }
    }

    /// A system turn, if the row has a system prompt beside its turns.
    pub(super) fn take_system(&mut self) -> Result<Option<Message>, RowFault> {
        let text = self.take_text("system")?;
        Ok((!text.is_empty()).then(|| Message::new("system", text)))
    }
}

/// A string, or a list of strings that are joined by line ends.
pub(crate) fn text_of(field: &str, value: Value) -> Result<String, RowFault> {
    let wrong = |found: &Value| RowFault::WrongType {
        field: field.to_owned(),
        found: json_type(found),
        expected: "a string",
    };
    match value {
        Value::String(text) => Ok(text),
        Value::Array(items) => {
            let texts: Result<Vec<String>, RowFault> = items
                .into_iter()
                .map(|item| match item {
                    Value::String(text) => Ok(text),
                    other => Err(wrong(&other)),
                })
                .collect();
            Ok(texts?.join("\n"))
        }
        other => Err(wrong(&other)),
    }
}

/// A list, or the JSON text of one; an empty text is an empty list.
pub(super) fn list_of(field: &str, value: Value) -> Result<Vec<Value>, RowFault> {
    let value = match value {
        Value::String(text) if text.trim().is_empty() => return Ok(Vec::new()),
        Value::String(text) => json_of(field, &text)?,
        other => other,
    };
    match value {
        Value::Array(items) => Ok(items),
        other => Err(RowFault::WrongType {
            field: field.to_owned(),
            found: json_type(&other),
            expected: "a list",
        }),
    }
}

/// The value that a field's JSON text stands for.
pub(super) fn json_of(field: &str, text: &str) -> Result<Value, RowFault> {
    serde_json::from_str(text).map_err(|source| RowFault::FieldJson {
        field: field.to_owned(),
        source,
    })
}
