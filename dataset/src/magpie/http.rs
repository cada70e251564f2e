//! A model behind an OpenAI-compatible endpoint: concurrent requests, with patience where that helps.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use ureq::Agent;
use ureq::http::StatusCode;

use super::completer::{
    Ask, Completer, CompleterError, Completion, CompletionRequest, Fault, Finish, FirstToken,
    Sampling, Usage,
};
use super::endpoint::{Api, EndpointSection};
use super::error::MagpieError;
use super::families::Family;
use super::retry::{Backoff, Outcome};

/// Longest wait that a server may ask for.
const LONGEST_WAIT: Duration = Duration::from_mins(2);

/// Text of an error that is shown.
const SHOWN_CHARS: usize = 200;

/// A model behind an endpoint.
#[derive(Debug)]
pub struct Endpoint {
    section: EndpointSection,
    family: Family,
    extra: Map<String, Value>,
    agent: Agent,
    api_key: Option<String>,
}

impl Endpoint {
    /// An endpoint; nothing is asked of it yet.
    ///
    /// # Errors
    ///
    /// A setting out of range, or an API key that is not in the environment.
    pub fn new(section: &EndpointSection) -> Result<Self, MagpieError> {
        section.validate()?;
        let api_key = match section.api_key_env.as_str() {
            "" => None,
            name => Some(std::env::var(name).map_err(|_| MagpieError::Field {
                field: "endpoint.api_key_env",
                found: name.to_owned(),
                expected: "the name of a variable that is set (it holds the API key)",
            })?),
        };
        let timeout = Duration::from_secs_f64(section.timeout_secs);
        let agent = Agent::config_builder()
            .timeout_global(Some(timeout))
            // Statuses are ours to judge; a redirected POST would be sent without its body.
            .http_status_as_error(false)
            .max_redirects(0)
            .build()
            .into();
        Ok(Self {
            family: Family::named(&section.family).map_err(CompleterError::from)?,
            extra: section.extra_fields().unwrap_or_default(),
            section: section.clone(),
            agent,
            api_key,
        })
    }

    /// The family whose form is used.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Path and body of a request.
    fn body(
        &self,
        request: &CompletionRequest,
        sampling: &Sampling,
    ) -> Result<(&'static str, Value), CompleterError> {
        let mut body = json!({
            "model": self.section.model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": request.seed & 0x7fff_ffff,
            "n": 1,
            "stream": false,
        });
        if !sampling.stop.is_empty() {
            body["stop"] = json!(sampling.stop);
        }
        if (sampling.repetition_penalty - 1.0).abs() > f64::EPSILON {
            body["repetition_penalty"] = json!(sampling.repetition_penalty);
        }
        if sampling.as_json_object {
            body["response_format"] = json!({ "type": "json_object" });
        }
        for (field, value) in &self.extra {
            body[field] = value.clone();
        }
        if let Some(prompt) = self.prompt_text(&request.ask)? {
            body["prompt"] = json!(prompt);
            return Ok(("completions", body));
        }
        let (Ask::UserTurn(messages) | Ask::AssistantTurn(messages)) = &request.ask;
        body["messages"] = json!(messages);
        Ok(("chat/completions", body))
    }

    /// One attempt.
    fn attempt(&self, path: &str, body: &Value) -> Outcome<Completion> {
        let url = format!("{}/{path}", self.section.url.trim_end_matches('/'));
        let mut request = self.agent.post(&url);
        if let Some(key) = &self.api_key {
            request = request.header("Authorization", &format!("Bearer {key}"));
        }
        let mut response = match request.send_json(body) {
            Ok(response) => response,
            Err(error @ (ureq::Error::BadUri(_) | ureq::Error::Http(_))) => {
                return Outcome::Broken(Box::new(error));
            }
            Err(error) => return Outcome::Again(error.to_string(), None),
        };
        let status = response.status();
        let wait = response.headers().get("retry-after");
        let wait = wait.and_then(|wait| wait.to_str().ok()?.trim().parse().ok());
        let wait = wait
            .map(Duration::from_secs)
            .map(|wait| wait.min(LONGEST_WAIT));
        let text = match response.body_mut().read_to_string() {
            Ok(text) => text,
            Err(error) => return Outcome::Again(error.to_string(), wait),
        };
        match status {
            StatusCode::OK => match completion_of(&text) {
                Some(completion) => Outcome::Done(completion),
                None => Outcome::Again(format!("no completion in {}", shown(&text)), None),
            },
            StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY => Outcome::Refused(Fault::Refused {
                status: status.as_u16(),
                message: shown(&text),
            }),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Outcome::Again(format!("status {status}"), wait)
            }
            _ if status.is_server_error() => {
                Outcome::Again(format!("status {status}: {}", shown(&text)), wait)
            }
            _ => Outcome::Broken(Box::new(EndpointError::Status {
                url,
                status: status.as_u16(),
                message: shown(&text),
            })),
        }
    }

    /// A request until it is answered, refused or given up.
    fn ask(
        &self,
        request: &CompletionRequest,
        sampling: &Sampling,
    ) -> Result<Result<Completion, Fault>, CompleterError> {
        let (path, body) = self.body(request, sampling)?;
        let backoff = Backoff {
            first: Duration::from_secs_f64(self.section.backoff_secs),
            max_retries: self.section.max_retries,
            seed: request.seed,
        };
        backoff
            .run(|| self.attempt(path, &body))
            .map_err(|source| CompleterError::Engine {
                engine: self.engine(),
                source,
            })
    }
}

/// Why an endpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// It says that the caller, not the moment, is wrong.
    #[error("{url}: status {status}, expected 200: {message}")]
    Status {
        /// What was asked.
        url: String,
        /// HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// It failed as often as it may.
    #[error("given up after {attempts} attempts: {last}")]
    GivenUp {
        /// How often it was asked.
        attempts: u32,
        /// What the last attempt came to.
        last: String,
    },
}

impl Completer for Endpoint {
    fn name(&self) -> &str {
        &self.section.model
    }

    fn fingerprint(&self) -> String {
        let EndpointSection {
            url,
            model,
            family,
            extra,
            ..
        } = &self.section;
        format!("{model} at {url} in {family}'s form {extra}")
    }

    fn engine(&self) -> &'static str {
        match self.section.api {
            Api::Completions => "completions",
            Api::Chat => "chat",
        }
    }

    fn prompt_text(&self, ask: &Ask) -> Result<Option<String>, CompleterError> {
        match (ask, self.section.api) {
            (Ask::UserTurn(messages), Api::Completions) => {
                Ok(Some(self.family.user_turn(messages)?))
            }
            (Ask::AssistantTurn(messages), Api::Completions) => {
                Ok(Some(self.family.assistant_turn(messages)?))
            }
            (Ask::AssistantTurn(_), Api::Chat) => Ok(None),
            (Ask::UserTurn(_), Api::Chat) => Err(CompleterError::Unsupported {
                engine: "a chat endpoint",
                what: "write a user's turn: it puts every text into a turn of its own",
                expected: "endpoint.api = \"completions\"",
            }),
        }
    }

    fn stop_tokens(&self) -> Vec<String> {
        let tokens = self.family.stop_tokens.iter();
        tokens.map(ToString::to_string).collect()
    }

    fn complete(
        &self,
        requests: &[CompletionRequest],
        sampling: &Sampling,
    ) -> Result<Vec<Result<Completion, Fault>>, CompleterError> {
        if sampling.first_token != FirstToken::Plain {
            return Err(CompleterError::Unsupported {
                engine: "an endpoint",
                what: "change the first token only",
                expected: "generate.first_token = \"plain\"",
            });
        }
        let next = AtomicUsize::new(0);
        let answers = Mutex::new(vec![None; requests.len()]);
        let failure = Mutex::new(None);
        let num_threads = self.section.concurrency.min(requests.len());
        std::thread::scope(|scope| {
            for _ in 0..num_threads {
                scope.spawn(|| {
                    loop {
                        let place = next.fetch_add(1, Ordering::Relaxed);
                        let Some(request) = requests.get(place) else {
                            return;
                        };
                        match self.ask(request, sampling) {
                            Ok(answer) => lock(&answers)[place] = Some(answer),
                            Err(error) => {
                                // Nobody takes another request after a failure.
                                next.store(requests.len(), Ordering::Relaxed);
                                lock(&failure).get_or_insert(error);
                            }
                        }
                    }
                });
            }
        });
        if let Some(error) = lock(&failure).take() {
            return Err(error);
        }
        let answers = std::mem::take(&mut *lock(&answers));
        Ok(answers
            .into_iter()
            .map(|answer| answer.expect("every request was answered, or one failed"))
            .collect())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first choice of an OpenAI answer, of either form; `None` for anything else.
fn completion_of(text: &str) -> Option<Completion> {
    let answer: Value = serde_json::from_str(text).ok()?;
    let choice = answer["choices"].get(0)?;
    let message = &choice["message"]["content"];
    let said = choice["text"].as_str().or(message.as_str())?;
    let thoughts = choice["message"]["reasoning_content"].as_str();
    let text = match thoughts.filter(|thoughts| !thoughts.is_empty()) {
        Some(thoughts) => format!("<think>\n{thoughts}\n</think>\n\n{said}"),
        None => said.to_owned(),
    };
    let tokens = |field: &str| answer["usage"][field].as_u64().unwrap_or(0);
    Some(Completion {
        text,
        finish: if choice["finish_reason"] == "length" {
            Finish::Length
        } else {
            Finish::Stop
        },
        usage: Usage {
            prompt_tokens: tokens("prompt_tokens"),
            completion_tokens: tokens("completion_tokens"),
        },
    })
}

/// The beginning of a text, on one line.
fn shown(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<&str>>().join(" ");
    match line.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{} ..", &line[..end]),
        None if line.is_empty() => "nothing".to_owned(),
        None => line,
    }
}
