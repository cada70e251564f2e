//! A server's model as the partner of a chat: any server that speaks OpenAI's chat completions.

use std::collections::VecDeque;
use std::env;
use std::io::{BufRead, BufReader, Read};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};
use ureq::Agent;
use ureq::http::StatusCode;

use super::ChatArgs;
use super::partner::{Ending, Partner, TakePiece};

/// Longest message of an error; more is no message.
const MAX_ERROR_BYTES: u64 = 1 << 16;

/// A model behind an address and the conversation with it.
pub(super) struct RemoteModel {
    agent: Agent,
    address: String,
    key: Option<String>,
    /// Fields of every request that the command line has set.
    fields: Map<String, Value>,
    system: Option<String>,
    /// Questions with their answers, oldest first.
    turns: VecDeque<(String, String)>,
    num_remembered: usize,
    next_seed: u64,
}

impl RemoteModel {
    /// A server's model, `url` being what the server says it listens on, with or without `/v1`.
    ///
    /// # Errors
    ///
    /// A key's variable that is not set.
    pub(super) fn new(url: &str, args: &ChatArgs) -> Result<Self> {
        let key = match &args.api_key {
            None => None,
            Some(name) => {
                Some(env::var(name).with_context(|| format!("--api-key: variable {name}"))?)
            }
        };
        let agent = Agent::config_builder()
            // An error's body says what is wrong; a redirected POST would be sent without its body.
            .http_status_as_error(false)
            .max_redirects(0)
            .build();
        let address = url.trim_end_matches('/').trim_end_matches("/v1");
        Ok(Self {
            agent: agent.into(),
            address: format!("{address}/v1/chat/completions"),
            key,
            fields: fields_of(args),
            system: args.system.clone(),
            turns: VecDeque::new(),
            num_remembered: args.history,
            next_seed: args.seed,
        })
    }

    fn request(&self, text: &str) -> Value {
        let message = |role: &str, content: &str| json!({"role": role, "content": content});
        let mut messages = Vec::new();
        messages.extend(self.system.as_deref().map(|text| message("system", text)));
        for (question, answer) in &self.turns {
            messages.push(message("user", question));
            messages.push(message("assistant", answer));
        }
        messages.push(message("user", text));
        let mut request = self.fields.clone();
        request.insert("messages".to_owned(), messages.into());
        request.insert("seed".to_owned(), self.next_seed.into());
        request.insert("stream".to_owned(), true.into());
        let options = json!({"include_usage": true});
        request.insert("stream_options".to_owned(), options);
        request.into()
    }

    fn send(&self, text: &str) -> Result<impl BufRead + use<>> {
        let mut request = self.agent.post(&self.address);
        if let Some(key) = &self.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        let response = request
            .send_json(self.request(text))
            .with_context(|| format!("{} cannot be reached", self.address))?;
        let status = response.status();
        let reader = response.into_body().into_reader();
        if status != StatusCode::OK {
            let mut body = Vec::new();
            let read = reader.take(MAX_ERROR_BYTES).read_to_end(&mut body);
            let status = status.as_u16();
            read.with_context(|| format!("{}: {status}", self.address))?;
            let message = message_of(&String::from_utf8_lossy(&body));
            bail!("{}: {status}: {message}", self.address);
        }
        Ok(BufReader::new(reader))
    }
}

impl Partner for RemoteModel {
    fn answer(&mut self, text: &str, take: &mut TakePiece<'_>) -> Result<Ending> {
        let mut events = self.send(text)?;
        self.next_seed = self.next_seed.wrapping_add(1);
        let mut answer = String::new();
        let mut ending = Ending {
            num_tokens: 0,
            reason: "interrupted".to_owned(),
            is_interrupted: true,
        };
        let mut is_thinking = false;
        while let Some(event) = next_event(&mut events)? {
            if let Some(error) = event.get("error") {
                bail!("{}: {}", self.address, message_of(&error.to_string()));
            }
            if let Some(num_tokens) = event["usage"]["completion_tokens"].as_u64() {
                ending.num_tokens = num_tokens as usize;
            }
            let choice = &event["choices"][0];
            if let Some(reason) = choice["finish_reason"].as_str() {
                reason.clone_into(&mut ending.reason);
                ending.is_interrupted = false;
            }
            // Thoughts are no part of the answer.
            if let Some(thought) = choice["delta"]["reasoning_content"].as_str() {
                eprint!("{thought}");
                is_thinking = true;
            }
            if let Some(piece) = choice["delta"]["content"]
                .as_str()
                .filter(|text| !text.is_empty())
            {
                if std::mem::take(&mut is_thinking) {
                    eprintln!();
                }
                answer.push_str(piece);
                if !take(piece)? {
                    // The connection closes with `events`, which ends the answer at the server too.
                    break;
                }
            }
        }
        self.turns.push_back((text.to_owned(), answer));
        while self.turns.len() > self.num_remembered {
            self.turns.pop_front();
        }
        Ok(ending)
    }

    fn set_system(&mut self, system: Option<String>) -> Result<()> {
        self.system = system;
        self.reset();
        Ok(())
    }

    fn reset(&mut self) {
        self.turns.clear();
    }
}

/// What the command line has set, as fields of a request; the server has its own defaults.
fn fields_of(args: &ChatArgs) -> Map<String, Value> {
    let model = args.model.as_ref().map(|name| name.to_string_lossy());
    let stop = (!args.stop_strings.is_empty()).then(|| args.stop_strings.clone());
    let fields = [
        ("model", json!(model)),
        ("max_tokens", json!(args.max_new_tokens)),
        ("temperature", json!(args.temperature)),
        ("top_k", json!(args.top_k)),
        ("top_p", json!(args.top_p)),
        ("min_p", json!(args.min_p)),
        ("repetition_penalty", json!(args.repetition_penalty)),
        ("presence_penalty", json!(args.presence_penalty)),
        ("stop", json!(stop)),
    ];
    fields
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(field, value)| (field.to_owned(), value))
        .collect()
}

/// The next event of a stream; `None` when the server says that it is done.
fn next_event(lines: &mut impl BufRead) -> Result<Option<Value>> {
    let mut line = String::new();
    loop {
        line.clear();
        let len = lines.read_line(&mut line).context("the connection broke")?;
        ensure!(len > 0, "the connection ended before the answer did");
        // Everything but data (comments, names of events, empty lines) is for others.
        let Some(data) = line.trim_end().strip_prefix("data:") else {
            continue;
        };
        let data = data.trim_start();
        if data == "[DONE]" {
            return Ok(None);
        }
        let event = serde_json::from_str(data).context("the server sent no JSON")?;
        return Ok(Some(event));
    }
}

/// The message in an error's JSON, else the text itself.
fn message_of(body: &str) -> String {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let message = json["error"]["message"]
        .as_str()
        .or(json["message"].as_str());
    message.unwrap_or(body.trim()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream by hand, with what other servers put between the events.
    #[test]
    fn events_are_read_until_done() {
        let mut stream =
            b": ping\n\ndata: {\"a\": 1}\r\n\r\nevent: x\ndata:[1]\n\ndata: [DONE]\n\n".as_slice();
        assert_eq!(next_event(&mut stream).unwrap(), Some(json!({"a": 1})));
        assert_eq!(next_event(&mut stream).unwrap(), Some(json!([1])));
        assert_eq!(next_event(&mut stream).unwrap(), None);
        let error = next_event(&mut b"data: {}x\n".as_slice()).unwrap_err();
        assert_eq!(error.to_string(), "the server sent no JSON");
        let error = next_event(&mut b"".as_slice()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the connection ended before the answer did"
        );
    }

    /// OpenAI's shape, an error's inner object, and a page of a proxy.
    #[test]
    fn an_error_is_its_message() {
        assert_eq!(message_of(r#"{"error": {"message": "no"}}"#), "no");
        assert_eq!(message_of(r#"{"message": "no"}"#), "no");
        assert_eq!(message_of("Bad Gateway\n"), "Bad Gateway");
    }
}
