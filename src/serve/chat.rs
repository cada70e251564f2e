//! `/v1/chat/completions`.

use dataset::chat::{ChatError, Message, RenderOptions};
use eval::answers::{AnswerEvent, AnswerRequest, FirstTokenChange};
use eval::assistant_text::{AssistantText, Part};
use model::generate::{FinishReason, Prompt};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::app::{App, ModelFace, chat_logprobs, unix_secs};
use super::error::ApiError;
use super::http::{Client, Reply};
use super::sampling::Sampling;
use super::stream::{self, Chunks};

/// Most alternatives that log-probabilities are reported of.
const MAX_TOP_LOGPROBS: usize = 20;

/// What a chat adds to the fields of [`Sampling`].
#[derive(Debug, Deserialize)]
struct ChatRequest {
    messages: Vec<Map<String, Value>>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    logprobs: Option<bool>,
    top_logprobs: Option<usize>,
    /// vLLM's and MiniMind's way to switch thinking.
    chat_template_kwargs: Option<Thinking>,
    enable_thinking: Option<bool>,
    open_thinking: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Thinking {
    enable_thinking: Option<bool>,
    open_thinking: Option<bool>,
}

impl ChatRequest {
    fn thinks(&self) -> Option<bool> {
        let kwargs = self.chat_template_kwargs.as_ref();
        self.enable_thinking
            .or(self.open_thinking)
            .or(kwargs.and_then(|kwargs| kwargs.enable_thinking.or(kwargs.open_thinking)))
    }

    fn tools(&self) -> Vec<Value> {
        match &self.tool_choice {
            Some(choice) if choice == "none" => Vec::new(),
            _ => self.tools.clone().unwrap_or_default(),
        }
    }
}

/// Answers a chat, at once or streamed.
///
/// # Errors
///
/// A request that is wrong, a full queue, or an answer that fails.
pub(super) fn complete(app: &App, body: &[u8], client: &mut Client) -> Result<Reply, ApiError> {
    let sampling: Sampling = parse(body)?;
    let request: ChatRequest = parse(body)?;
    let index = app.model(sampling.model.as_deref())?;
    let model = &app.models[index];
    let tools = request.tools();
    let (text, input_ids) = prompt_of(model, &request, &tools)?;
    model.check_prompt(&input_ids)?;

    let num_top_logprobs = num_top_logprobs(&request)?;
    let num_choices = sampling.num_choices()?;
    let seed = sampling.seed();
    let mut config = sampling.config(&model.defaults)?;
    let room = model.context - input_ids.len();
    config.generate.max_new_tokens = config.generate.max_new_tokens.min(room);
    let (logit_bias, as_json_object) = (sampling.logit_bias()?, sampling.as_json_object()?);
    let requests = (0..num_choices as u64).map(|choice| AnswerRequest {
        prompt: Prompt {
            input_ids: input_ids.clone(),
            seed: seed.wrapping_add(choice),
        },
        config: config.clone(),
        logit_bias: logit_bias.clone(),
        first_token: FirstTokenChange::default(),
        as_json_object,
        num_top_logprobs,
        with_prompt_logprobs: false,
    });
    let mut session = app.ask(index, requests.collect())?;
    let choice = Choice::new(&text, !tools.is_empty());
    let mut answer = ChatAnswer {
        id: app.new_id("chatcmpl"),
        created: unix_secs(),
        model: index,
        name: model.name.clone(),
        num_prompt_tokens: input_ids.len(),
        includes_usage: sampling.includes_usage(),
        choices: vec![choice; num_choices],
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

/// A body as JSON of the expected fields.
///
/// # Errors
///
/// What is wrong and where.
pub(super) fn parse<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad(format!("the body is not a valid request: {error}")))
}

fn num_top_logprobs(request: &ChatRequest) -> Result<Option<usize>, ApiError> {
    let top = request.top_logprobs.unwrap_or(0);
    if top > MAX_TOP_LOGPROBS {
        let message = format!("found {top}, expected at most {MAX_TOP_LOGPROBS}");
        return Err(ApiError::field("top_logprobs", message));
    }
    Ok((request.logprobs == Some(true)).then_some(top))
}

/// The prompt as text and as ids; what users wrote cannot become a control token.
fn prompt_of(
    model: &ModelFace,
    request: &ChatRequest,
    tools: &[Value],
) -> Result<(String, Vec<u32>), ApiError> {
    let Some(template) = model.tokenizer.chat_template() else {
        let message = "this model has no chat template, use /v1/completions";
        return Err(ApiError::field("model", message));
    };
    let messages = request
        .messages
        .iter()
        .enumerate()
        .map(|(index, message)| message_of(index, message))
        .collect::<Result<Vec<Message>, ApiError>>()?;
    if messages.is_empty() {
        return Err(ApiError::field(
            "messages",
            "found no messages, expected at least one",
        ));
    }
    let options = RenderOptions {
        add_generation_prompt: true,
        tools: tools.to_vec(),
        enable_thinking: request.thinks(),
    };
    // In the spans of training where there are any; some templates render earlier turns otherwise
    // than they were answered, and are rendered whole.
    let spans = match template.render_spans(&messages, &options) {
        Err(ChatError::AssistantFirst | ChatError::UnstableTurn { .. }) => template
            .render_prompt(&messages, &options)
            .map(|span| vec![span]),
        spans => spans,
    };
    let spans = spans.map_err(|error| {
        let cause =
            std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
        ApiError::field("messages", format!("{error}{cause}"))
    })?;
    let ids = model.tokenizer.encode_spans(&spans).ids;
    Ok((spans.into_iter().map(|span| span.text).collect(), ids))
}

/// A message with its content as one text.
fn message_of(index: usize, message: &Map<String, Value>) -> Result<Message, ApiError> {
    let wrong = |field: &str, message: String| {
        ApiError::field(&format!("messages[{index}].{field}"), message)
    };
    let mut message = message.clone();
    let role = message
        .get("role")
        .and_then(Value::as_str)
        .unwrap_or_default();
    match role {
        "system" | "user" | "assistant" | "tool" => {}
        "developer" => {
            message.insert("role".to_owned(), "system".into());
        }
        other => {
            let found = format!("found `{other}`, expected system, user, assistant or tool");
            return Err(wrong("role", found));
        }
    }
    let content = match message.remove("content") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let texts = parts
                .iter()
                .map(|part| part.get("text").and_then(Value::as_str));
            let text = texts.collect::<Option<String>>();
            text.ok_or_else(|| wrong("content", "expected parts of type text only".to_owned()))?
        }
        Some(other) => return Err(wrong("content", format!("found {other}, expected a text"))),
    };
    message.insert("content".to_owned(), content.into());
    serde_json::from_value(Value::Object(message))
        .map_err(|error| ApiError::field(&format!("messages[{index}]"), error.to_string()))
}

/// An answer to a chat on its way.
struct ChatAnswer {
    id: String,
    created: u64,
    model: usize,
    name: String,
    num_prompt_tokens: usize,
    includes_usage: bool,
    choices: Vec<Choice>,
}

#[derive(Clone)]
struct Choice {
    text: AssistantText,
    num_tokens: usize,
    content: String,
    reasoning: String,
    tool_calls: Vec<Value>,
    logprobs: Vec<Value>,
    finish_reason: Option<&'static str>,
}

impl Choice {
    fn new(prompt: &str, calls_tools: bool) -> Self {
        Self {
            text: AssistantText::new(prompt, calls_tools),
            num_tokens: 0,
            content: String::new(),
            reasoning: String::new(),
            tool_calls: Vec::new(),
            logprobs: Vec::new(),
            finish_reason: None,
        }
    }

    /// Adds a part and returns the delta that says so.
    fn add(&mut self, part: Part, id: &str, index: usize) -> Value {
        match part {
            Part::Content(text) => {
                self.content.push_str(&text);
                json!({ "content": text })
            }
            Part::Reasoning(text) => {
                self.reasoning.push_str(&text);
                json!({ "reasoning_content": text })
            }
            Part::ToolCall { name, arguments } => {
                let number = self.tool_calls.len();
                let mut call = json!({
                    "id": format!("call-{id}-{index}-{number}"),
                    "type": "function",
                    "function": {"name": name, "arguments": arguments},
                });
                self.tool_calls.push(call.clone());
                call["index"] = number.into();
                json!({ "tool_calls": [call] })
            }
        }
    }
}

impl ChatAnswer {
    /// Takes an event in; returns deltas and the log-probabilities of the event's token.
    fn take(&mut self, app: &App, index: usize, event: AnswerEvent) -> (Vec<Value>, Vec<Value>) {
        let model = &app.models[self.model];
        let choice = &mut self.choices[index];
        let mut logprobs = Vec::new();
        let parts = match event {
            AnswerEvent::Token {
                text,
                logprobs: token,
                ..
            } => {
                choice.num_tokens += 1;
                logprobs.extend(token.map(|token| chat_logprobs(model, &token)));
                choice.text.push(&text)
            }
            AnswerEvent::Finished {
                text,
                finish_reason,
            } => {
                let mut parts = choice.text.push(&text);
                parts.extend(choice.text.finish());
                choice.finish_reason = Some(match finish_reason {
                    FinishReason::Length => "length",
                    FinishReason::Stop | FinishReason::Interrupted => "stop",
                });
                parts
            }
            AnswerEvent::Prompt(_) | AnswerEvent::Failed(_) => Vec::new(),
        };
        let deltas = parts
            .into_iter()
            .map(|part| choice.add(part, &self.id, index))
            .collect();
        if choice.finish_reason == Some("stop") && !choice.tool_calls.is_empty() {
            choice.finish_reason = Some("tool_calls");
        }
        choice.logprobs.extend(logprobs.iter().cloned());
        (deltas, logprobs)
    }

    fn usage(&self) -> Value {
        let completion: usize = self.choices.iter().map(|choice| choice.num_tokens).sum();
        usage(self.num_prompt_tokens, completion)
    }

    fn whole(&self) -> Value {
        let choices: Vec<Value> = self
            .choices
            .iter()
            .enumerate()
            .map(|(index, choice)| {
                let mut message = json!({"role": "assistant", "content": choice.content});
                if choice.content.is_empty() && !choice.tool_calls.is_empty() {
                    message["content"] = Value::Null;
                }
                if !choice.reasoning.is_empty() {
                    message["reasoning_content"] = choice.reasoning.as_str().into();
                }
                if !choice.tool_calls.is_empty() {
                    message["tool_calls"] = choice.tool_calls.clone().into();
                }
                let logprobs = match choice.logprobs.as_slice() {
                    [] => Value::Null,
                    tokens => json!({ "content": tokens }),
                };
                json!({
                    "index": index,
                    "message": message,
                    "logprobs": logprobs,
                    "finish_reason": choice.finish_reason,
                })
            })
            .collect();
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.name,
            "choices": choices,
            "usage": self.usage(),
        })
    }

    fn chunk(&self, choices: &[Value], usage: Value) -> Value {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.name,
            "choices": choices,
        });
        if self.includes_usage {
            chunk["usage"] = usage;
        }
        chunk
    }
}

/// Token counts as the API reports them.
pub(super) fn usage(prompt: usize, completion: usize) -> Value {
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    })
}

impl Chunks for ChatAnswer {
    fn opening(&mut self) -> Vec<Value> {
        let delta = json!({"role": "assistant", "content": ""});
        (0..self.choices.len())
            .map(|index| {
                let choice = json!({"index": index, "delta": delta, "finish_reason": null});
                self.chunk(&[choice], Value::Null)
            })
            .collect()
    }

    fn of_event(&mut self, app: &App, index: usize, event: AnswerEvent) -> Vec<Value> {
        let (mut deltas, logprobs) = self.take(app, index, event);
        let finish_reason = self.choices[index].finish_reason;
        if deltas.is_empty() && !logprobs.is_empty() {
            deltas.push(json!({}));
        }
        let mut logprobs = (!logprobs.is_empty()).then(|| json!({ "content": logprobs }));
        let mut chunks: Vec<Value> = deltas
            .into_iter()
            .map(|delta| {
                let mut choice = json!({"index": index, "delta": delta, "finish_reason": null});
                if let Some(logprobs) = logprobs.take() {
                    choice["logprobs"] = logprobs;
                }
                self.chunk(&[choice], Value::Null)
            })
            .collect();
        if finish_reason.is_some() {
            let choice = json!({"index": index, "delta": {}, "finish_reason": finish_reason});
            chunks.push(self.chunk(&[choice], Value::Null));
        }
        chunks
    }

    fn closing(&mut self) -> Vec<Value> {
        if !self.includes_usage {
            return Vec::new();
        }
        vec![self.chunk(&[], self.usage())]
    }
}
