//! Settings of an OpenAI-compatible endpoint.

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::completer::CompleterError;
use super::error::MagpieError;
use super::families::Family;
use super::range::check;

/// Which of the two forms of asking is used for answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// `/completions`: a text is continued, so that a user's turn can be asked for.
    #[default]
    Completions,
    /// `/chat/completions`: answers only.
    Chat,
}

/// `[engine.endpoint]`: an endpoint that is asked over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct EndpointSection {
    /// Address up to /v1, such as http://127.0.0.1:8000/v1; empty: `model` is used.
    pub url: String,
    /// How answers are asked for: "completions" (raw text in the family's form) or "chat" (the
    /// endpoint's own template). Instructions always need /completions.
    pub api: Api,
    /// Name of the model there.
    pub model: String,
    /// Form in which the model reads turns: chatml, minimind, minimind-v1, qwen2, qwen2.5,
    /// qwen2.5-math, yi-1.5, llama-3, deepseek-r1, deepseek-coder-v2, gemma-1.1, gemma-2, phi-3,
    /// phi-3-small, mistral, llama-2 or vicuna.
    pub family: String,
    /// Folder of the model's tokenizer, to check that each special token of the family is one token
    /// to it; empty: it is not checked.
    pub tokenizer: String,
    /// Environment variable that holds the API key; empty: none is sent.
    pub api_key_env: String,
    /// Requests at the same time, at least 1.
    pub concurrency: usize,
    /// Seconds after which a request has failed.
    pub timeout_secs: f64,
    /// Further attempts after a time-out, a lost connection, an answer that is none, or the statuses
    /// 408, 429 and 5xx.
    pub max_retries: u32,
    /// Seconds before the first further attempt; each one after it waits twice as long, all of them
    /// shortened at random by up to half.
    pub backoff_secs: f64,
    /// Further fields of every request as JSON, such as {"top_k": 20}; empty for none.
    pub extra: String,
}

impl Default for EndpointSection {
    fn default() -> Self {
        Self {
            url: String::new(),
            api: Api::Completions,
            model: String::new(),
            family: "chatml".to_owned(),
            tokenizer: String::new(),
            api_key_env: String::new(),
            concurrency: 8,
            timeout_secs: 120.0,
            max_retries: 5,
            backoff_secs: 1.0,
            extra: String::new(),
        }
    }
}

impl EndpointSection {
    /// Compares fields with their ranges.
    ///
    /// # Errors
    ///
    /// The first field that is wrong.
    pub fn validate(&self) -> Result<(), MagpieError> {
        let starts = ["http://", "https://"];
        let is_url = self.url.is_empty() || starts.iter().any(|start| self.url.starts_with(start));
        check(
            "endpoint.url",
            &self.url,
            is_url,
            "http:// or https:// and a host",
        )?;
        let concurrency = self.concurrency;
        check(
            "endpoint.concurrency",
            concurrency,
            concurrency > 0,
            "at least 1",
        )?;
        let seconds = self.timeout_secs;
        let is_time = seconds.is_finite() && seconds > 0.0;
        check("endpoint.timeout_secs", seconds, is_time, "above 0")?;
        let backoff = self.backoff_secs;
        let is_time = backoff.is_finite() && backoff >= 0.0;
        check("endpoint.backoff_secs", backoff, is_time, "0 or more")?;
        check(
            "endpoint.extra",
            &self.extra,
            self.extra_fields().is_some(),
            "a JSON object",
        )?;
        Family::named(&self.family).map_err(CompleterError::from)?;
        Ok(())
    }

    pub(super) fn extra_fields(&self) -> Option<Map<String, Value>> {
        if self.extra.is_empty() {
            return Some(Map::new());
        }
        serde_json::from_str(&self.extra).ok()
    }
}
