//! `tokenizer_config.json`: which tokens begin, end and fill a text, and the chat template.

use std::path::Path;

use serde_json::{Map, Value};

use super::{TokenizerError, read};

/// What `tokenizer_config.json` says; fields that are not ours are kept as they are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenizerConfig {
    fields: Map<String, Value>,
}

impl TokenizerConfig {
    /// Reads the file; a tokenizer without one has an empty configuration.
    pub(super) fn load(path: &Path) -> Result<Self, TokenizerError> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let fields =
            serde_json::from_slice(&read(path)?).map_err(|source| TokenizerError::Config {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self { fields })
    }

    /// A configuration of these fields.
    pub(crate) fn from_fields(fields: Map<String, Value>) -> Self {
        Self { fields }
    }

    pub(super) fn to_json(&self) -> String {
        let json = serde_json::to_string_pretty(&self.fields);
        json.expect("a map of JSON values is representable as JSON") + "\n"
    }

    /// Token that begins a text.
    pub fn bos_token(&self) -> Option<&str> {
        self.token("bos_token")
    }

    /// Token that ends a text.
    pub fn eos_token(&self) -> Option<&str> {
        self.token("eos_token")
    }

    /// Token that fills rows up.
    pub fn pad_token(&self) -> Option<&str> {
        self.token("pad_token")
    }

    /// Token for what has no other.
    pub fn unk_token(&self) -> Option<&str> {
        self.token("unk_token")
    }

    /// Source of the chat template; of several named ones the one called `default`.
    pub fn chat_template(&self) -> Option<&str> {
        let value = self.fields.get("chat_template")?;
        let Value::Array(templates) = value else {
            return value.as_str();
        };
        let default = templates
            .iter()
            .find(|template| template["name"] == "default");
        default.or(templates.first())?["template"].as_str()
    }

    /// Puts a template from a file of its own in the place of the one here.
    pub(super) fn set_chat_template(&mut self, source: String) {
        self.fields
            .insert("chat_template".to_owned(), source.into());
    }

    /// A token is a string, or an object with its text in `content`.
    fn token(&self, field: &str) -> Option<&str> {
        let value = self.fields.get(field)?;
        value.as_str().or_else(|| value.get("content")?.as_str())
    }
}
