//! `/v1/completions`: raw prompts, as Magpie and lm-eval's `local-completions` send them.

use dataset::loyalty::Identity;
use eval::answers::{AnswerEvent, AnswerRequest, FirstTokenChange};
use model::generate::Prompt;
use model::logprobs::TokenLogprobs;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::app::{App, ModelFace, finite, unix_secs};
use super::chat::parse;
use super::chat_answer::usage;
use super::error::ApiError;
use super::http::{Client, Reply};
use super::sampling::Sampling;
use super::stream::{self, Chunks};

/// Most alternatives that log-probabilities are reported of.
const MAX_LOGPROBS: usize = 20;
/// Most prompts of one request.
const MAX_PROMPTS: usize = 1024;

/// What raw prompts add to the fields of [`Sampling`].
#[derive(Debug, Deserialize)]
struct CompletionRequest {
    prompt: Prompts,
    #[serde(default)]
    echo: Option<bool>,
    #[serde(default)]
    logprobs: Option<usize>,
    #[serde(default)]
    suffix: Option<String>,
}

/// Texts or token ids, one or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Prompts {
    /// One text.
    Text(String),
    /// Token ids of one text.
    Ids(Vec<u32>),
    /// Texts.
    Texts(Vec<String>),
    /// Token ids of texts.
    ManyIds(Vec<Vec<u32>>),
}

impl Prompts {
    /// Ids of every prompt, texts as `encode` makes them.
    pub(super) fn into_ids(self, encode: impl Fn(&str) -> Vec<u32>) -> Vec<Vec<u32>> {
        match self {
            Self::Text(text) => vec![encode(&text)],
            Self::Ids(ids) => vec![ids],
            Self::Texts(texts) => texts.iter().map(|text| encode(text)).collect(),
            Self::ManyIds(ids) => ids,
        }
    }
}

/// Refuses a request with too few or too many prompts in `field`.
///
/// # Errors
///
/// Their number, with the numbers that are taken.
pub(super) fn check_number(field: &str, num_prompts: usize) -> Result<(), ApiError> {
    if (1..=MAX_PROMPTS).contains(&num_prompts) {
        return Ok(());
    }
    let message = format!("found {num_prompts} prompts, expected from 1 to {MAX_PROMPTS}");
    Err(ApiError::field(field, message))
}

/// Continues raw prompts, at once or streamed.
///
/// # Errors
///
/// A request that is wrong, a full queue, or an answer that fails.
pub(super) fn complete(
    app: &App,
    body: &[u8],
    who: Identity,
    client: &mut Client,
) -> Result<Reply, ApiError> {
    let mut sampling: Sampling = parse(body)?;
    let request: CompletionRequest = parse(body)?;
    let index = app.model(sampling.model.as_deref())?;
    let model = &app.models[index];
    if request.suffix.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::field("suffix", "found a suffix, expected none"));
    }
    if request
        .logprobs
        .is_some_and(|logprobs| logprobs > MAX_LOGPROBS)
    {
        let message = format!("expected at most {MAX_LOGPROBS}");
        return Err(ApiError::field("logprobs", message));
    }
    let echo = request.echo == Some(true);
    // Some score prompts without wanting a token; one is written and not shown.
    let hides_answer = echo && sampling.max_tokens == Some(0);
    if hides_answer {
        sampling.max_tokens = Some(1);
    }
    // Whoever sends raw prompts writes the control tokens too.
    let prompts = request.prompt.into_ids(|text| model.tokenizer.encode(text));
    let prompts = prompts
        .into_iter()
        .map(|ids| model.asked_by(who, "prompt", ids))
        .collect::<Result<Vec<_>, ApiError>>()?;
    check_number("prompt", prompts.len())?;
    let config = sampling.config(&model.defaults)?;
    let (logit_bias, as_json_object) = (sampling.logit_bias()?, sampling.as_json_object()?);
    let (num_choices, seed) = (sampling.num_choices()?, sampling.seed());
    let mut requests = Vec::new();
    let mut choices = Vec::new();
    for prompt in &prompts {
        model.check_prompt("prompt", prompt)?;
        for number in 0..num_choices as u64 {
            // A client's seed gives equal prompts equal answers, wherever they stand; without one
            // they are drawn apart.
            let place = if sampling.has_seed() {
                number
            } else {
                requests.len() as u64
            };
            choices.push(Choice::new(model, prompt, echo));
            requests.push(AnswerRequest {
                prompt: Prompt {
                    input_ids: prompt.clone(),
                    seed: seed.wrapping_add(place),
                },
                config: config.clone(),
                logit_bias: logit_bias.clone(),
                first_token: FirstTokenChange::default(),
                as_json_object,
                num_top_logprobs: request.logprobs,
                with_prompt_logprobs: echo && request.logprobs.is_some(),
            });
        }
    }
    let mut session = app.ask(index, requests)?;
    let mut answer = TextAnswer {
        id: app.new_id("cmpl"),
        created: unix_secs(),
        model: index,
        name: model.name.clone(),
        num_prompt_tokens: prompts.iter().map(Vec::len).sum(),
        includes_usage: sampling.includes_usage(),
        with_logprobs: request.logprobs.is_some(),
        hides_answer,
        choices,
    };
    if sampling.stream == Some(true) {
        let written = stream::write_events(app, client, session, &mut answer);
        return Ok(Reply::Written(written));
    }
    while let Some((choice, event)) = session.next(client)? {
        answer.take(app, choice, event);
    }
    Ok(Reply::Json(answer.whole()))
}

struct TextAnswer {
    id: String,
    created: u64,
    model: usize,
    name: String,
    num_prompt_tokens: usize,
    includes_usage: bool,
    with_logprobs: bool,
    hides_answer: bool,
    choices: Vec<Choice>,
}

struct Choice {
    text: String,
    num_tokens: usize,
    logprobs: Logprobs,
    finish_reason: Option<&'static str>,
}

/// The four lists of OpenAI's first API.
#[derive(Default)]
struct Logprobs {
    tokens: Vec<Value>,
    of_tokens: Vec<Value>,
    of_top: Vec<Value>,
    text_offset: Vec<usize>,
    /// Characters so far.
    len: usize,
}

impl Logprobs {
    fn push(&mut self, model: &ModelFace, token_id: u32, known: Option<&TokenLogprobs>) {
        let text = shown(&model.bytes_of(token_id));
        self.text_offset.push(self.len);
        self.len += text.chars().count();
        self.tokens.push(text.into());
        let (logprob, top) = match known {
            None => (Value::Null, Value::Null),
            Some(known) => {
                let top: Map<String, Value> = known
                    .top
                    .iter()
                    .map(|&(id, logprob)| (shown(&model.bytes_of(id)), finite(logprob).into()))
                    .collect();
                (finite(known.logprob).into(), top.into())
            }
        };
        self.of_tokens.push(logprob);
        self.of_top.push(top);
    }

    fn to_json(&self) -> Value {
        json!({
            "tokens": self.tokens,
            "token_logprobs": self.of_tokens,
            "top_logprobs": self.of_top,
            "text_offset": self.text_offset,
        })
    }
}

/// A token's text; bytes that are no characters are spelt out, so that no two tokens look alike.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |text, byte| {
            format!("{text}\\x{byte:02x}")
        }),
    }
}

impl Choice {
    fn new(model: &ModelFace, prompt: &[u32], echo: bool) -> Self {
        let mut logprobs = Logprobs::default();
        let mut text = String::new();
        if echo {
            // The first token follows nothing.
            logprobs.push(model, prompt[0], None);
            text = model.tokenizer.decode(prompt, false);
        }
        Self {
            text,
            num_tokens: 0,
            logprobs,
            finish_reason: None,
        }
    }
}

impl TextAnswer {
    /// Takes an event in and returns the text that it adds.
    fn take(&mut self, app: &App, index: usize, event: AnswerEvent) -> String {
        let model = &app.models[self.model];
        let choice = &mut self.choices[index];
        let added = match event {
            AnswerEvent::Prompt(tokens) => {
                for token in &tokens {
                    choice.logprobs.push(model, token.token_id, Some(token));
                }
                String::new()
            }
            AnswerEvent::Token { .. } if self.hides_answer => String::new(),
            AnswerEvent::Token { text, logprobs, .. } => {
                choice.num_tokens += 1;
                if let Some(token) = &logprobs {
                    choice.logprobs.push(model, token.token_id, Some(token));
                }
                text
            }
            AnswerEvent::Finished {
                text,
                finish_reason,
            } => {
                choice.finish_reason = Some(stream::finish_name(finish_reason));
                if self.hides_answer {
                    String::new()
                } else {
                    text
                }
            }
            AnswerEvent::Failed(_) => String::new(),
        };
        choice.text.push_str(&added);
        added
    }

    fn usage(&self) -> Value {
        let completion = self.choices.iter().map(|choice| choice.num_tokens).sum();
        usage(self.num_prompt_tokens, completion)
    }

    fn body(&self, choices: &[Value]) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.name,
            "choices": choices,
        })
    }

    fn choice(&self, index: usize, text: &str, logprobs: Option<&Logprobs>) -> Value {
        json!({
            "index": index,
            "text": text,
            "logprobs": logprobs.map(Logprobs::to_json),
            "finish_reason": self.choices[index].finish_reason,
        })
    }

    fn whole(&self) -> Value {
        let choices = self.choices.iter().enumerate().map(|(index, choice)| {
            let logprobs = self.with_logprobs.then_some(&choice.logprobs);
            self.choice(index, &choice.text, logprobs)
        });
        let mut body = self.body(&choices.collect::<Vec<_>>());
        body["usage"] = self.usage();
        body
    }
}

impl Chunks for TextAnswer {
    fn opening(&mut self) -> Vec<Value> {
        let echoed = self.choices.iter().enumerate();
        echoed
            .filter(|(_, choice)| !choice.text.is_empty())
            .map(|(index, choice)| self.body(&[self.choice(index, &choice.text, None)]))
            .collect()
    }

    fn of_event(&mut self, app: &App, index: usize, event: AnswerEvent) -> Vec<Value> {
        let text = self.take(app, index, event);
        let is_finished = self.choices[index].finish_reason.is_some();
        let logprobs = std::mem::take(&mut self.choices[index].logprobs);
        let has_news = self.with_logprobs && !logprobs.tokens.is_empty();
        self.choices[index].logprobs.len = logprobs.len;
        if text.is_empty() && !is_finished && !has_news {
            return Vec::new();
        }
        let logprobs = has_news.then_some(&logprobs);
        vec![self.body(&[self.choice(index, &text, logprobs)])]
    }

    fn closing(&mut self) -> Vec<Value> {
        if !self.includes_usage {
            return Vec::new();
        }
        let mut chunk = self.body(&[]);
        chunk["usage"] = self.usage();
        vec![chunk]
    }
}
