//! What a chat's client is sent: the answer whole, or in chunks, in OpenAI's shape.

use eval::answers::AnswerEvent;
use eval::assistant_text::{AssistantText, Part};
use serde_json::{Value, json};

use super::app::{App, chat_logprobs};
use super::stream::{self, Chunks};

/// An answer to a chat on its way.
pub(super) struct ChatAnswer {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: usize,
    pub(super) name: String,
    pub(super) num_prompt_tokens: usize,
    pub(super) includes_usage: bool,
    pub(super) choices: Vec<Choice>,
}

/// One of the answers that a request asks for.
#[derive(Clone)]
pub(super) struct Choice {
    text: AssistantText,
    num_tokens: usize,
    content: String,
    reasoning: String,
    tool_calls: Vec<Value>,
    logprobs: Vec<Value>,
    finish_reason: Option<&'static str>,
}

impl Choice {
    pub(super) fn new(prompt: &str, calls_tools: bool) -> Self {
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
    pub(super) fn take(
        &mut self,
        app: &App,
        index: usize,
        event: AnswerEvent,
    ) -> (Vec<Value>, Vec<Value>) {
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
                choice.finish_reason = Some(stream::finish_name(finish_reason));
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

    /// The answer as one JSON object.
    pub(super) fn whole(&self) -> Value {
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
