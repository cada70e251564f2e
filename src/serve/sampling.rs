//! The fields of a request that say how an answer is written, for chats and raw prompts alike.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use eval::engine::AnswerConfig;
use serde::Deserialize;

use super::error::ApiError;
use crate::engine::set;

/// Most answers to one request.
const MAX_CHOICES: usize = 64;
/// Most stop strings of one request; OpenAI's limit is 4.
const MAX_STOPS: usize = 16;

/// What both kinds of requests have.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Sampling {
    #[serde(default)]
    pub(super) model: Option<String>,
    #[serde(default)]
    pub(super) stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    min_p: Option<f64>,
    pub(super) max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    stop: Option<OneOrMore>,
    seed: Option<i64>,
    n: Option<usize>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    repetition_penalty: Option<f64>,
    logit_bias: Option<BTreeMap<String, f32>>,
    response_format: Option<ResponseFormat>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Debug, Deserialize)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Sampling {
    /// The model's own settings with those of the request over them.
    ///
    /// # Errors
    ///
    /// A value outside its range, named.
    pub(super) fn config(&self, defaults: &AnswerConfig) -> Result<AnswerConfig, ApiError> {
        let mut config = defaults.clone();
        let generate = &mut config.generate;
        if let Some(temperature) = self.temperature {
            generate.temperature = temperature;
            generate.do_sample = true;
        }
        set(&mut generate.top_p, self.top_p);
        set(&mut generate.min_p, self.min_p);
        // vLLM's -1 is off, as 0 is here.
        let top_k = self.top_k.map(|top_k| usize::try_from(top_k).unwrap_or(0));
        set(&mut generate.top_k, top_k);
        set(&mut generate.presence_penalty, self.presence_penalty);
        set(&mut generate.frequency_penalty, self.frequency_penalty);
        set(&mut generate.repetition_penalty, self.repetition_penalty);
        let most = self.max_completion_tokens.or(self.max_tokens);
        set(&mut generate.max_new_tokens, most);
        generate
            .validate()
            .map_err(|error| ApiError::bad(error.to_string()))?;
        let stops = match &self.stop {
            None => Vec::new(),
            Some(OneOrMore::One(stop)) => vec![stop.clone()],
            Some(OneOrMore::More(stops)) => stops.clone(),
        };
        if stops.len() > MAX_STOPS {
            let message = format!(
                "found {} stop strings, expected at most {MAX_STOPS}",
                stops.len()
            );
            return Err(ApiError::field("stop", message));
        }
        config.stop_strings.extend(stops);
        Ok(config)
    }

    /// Ids with what is added to their logits.
    ///
    /// # Errors
    ///
    /// A key that is no id, or a bias outside -100..100.
    pub(super) fn logit_bias(&self) -> Result<BTreeMap<u32, f32>, ApiError> {
        let Some(given) = &self.logit_bias else {
            return Ok(BTreeMap::new());
        };
        let bias = given.iter().map(|(id, &bias)| {
            let id: u32 = id.parse().map_err(|_| {
                ApiError::field("logit_bias", format!("found `{id}`, expected a token id"))
            })?;
            if !(-100.0..=100.0).contains(&bias) {
                let message = format!("found {bias}, expected from -100 to 100");
                return Err(ApiError::field("logit_bias", message));
            }
            // OpenAI's bounds mean never and always.
            Ok((
                id,
                if bias <= -100.0 {
                    f32::NEG_INFINITY
                } else {
                    bias
                },
            ))
        });
        bias.collect()
    }

    /// Whether the answer is to be a JSON object.
    ///
    /// # Errors
    ///
    /// A format that is not known.
    pub(super) fn as_json_object(&self) -> Result<bool, ApiError> {
        match self
            .response_format
            .as_ref()
            .map(|format| format.kind.as_str())
        {
            None | Some("text") => Ok(false),
            Some("json_object") => Ok(true),
            Some(other) => Err(ApiError::field(
                "response_format",
                format!("found type `{other}`, expected text or json_object"),
            )),
        }
    }

    /// Number of answers to each prompt.
    ///
    /// # Errors
    ///
    /// None, or too many.
    pub(super) fn num_choices(&self) -> Result<usize, ApiError> {
        let n = self.n.unwrap_or(1);
        if (1..=MAX_CHOICES).contains(&n) {
            return Ok(n);
        }
        let message = format!("found {n}, expected from 1 to {MAX_CHOICES}");
        Err(ApiError::field("n", message))
    }

    /// The request's seed, or one that no other request has.
    pub(super) fn seed(&self) -> u64 {
        match self.seed {
            Some(seed) => seed as u64,
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |time| time.as_nanos() as u64),
        }
    }

    /// Whether the request brings a seed of its own.
    pub(super) fn has_seed(&self) -> bool {
        self.seed.is_some()
    }

    /// Whether a stream ends with a chunk of token counts.
    pub(super) fn includes_usage(&self) -> bool {
        self.stream_options
            .as_ref()
            .is_some_and(|options| options.include_usage)
    }
}
