//! What every handler shares: the models' faces, the queue to the model thread, the limits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dataset::tokenizer::Tokenizer;
use eval::answers::{AnswerEvent, AnswerRequest};
use eval::engine::{AnswerConfig, Engine};
use model::logprobs::TokenLogprobs;

use super::error::ApiError;
use super::http::Client;
use super::metrics::Metrics;
use super::worker::{AnswerJob, Job};

/// The server's state.
#[derive(Debug)]
pub(super) struct App {
    pub(super) models: Vec<ModelFace>,
    pub(super) jobs: SyncSender<Job>,
    /// Upgrades for as long as the model thread lives.
    pub(super) model_thread: Weak<()>,
    pub(super) metrics: Arc<Metrics>,
    /// Key that clients must send, if there is one.
    pub(super) key: Option<String>,
    pub(super) timeout: Duration,
    pub(super) started: u64,
    pub(super) next_id: AtomicU64,
    /// Set when the server is to stop.
    pub(super) is_stopping: AtomicBool,
}

/// What handlers need of a model; its weights belong to the model thread.
#[derive(Debug)]
pub(super) struct ModelFace {
    pub(super) name: String,
    pub(super) tokenizer: Tokenizer,
    pub(super) defaults: AnswerConfig,
    /// Most tokens of a prompt and its answer.
    pub(super) context: usize,
    pub(super) vocab_size: usize,
    token_bytes: Vec<Vec<u8>>,
}

impl ModelFace {
    pub(super) fn new(name: String, engine: &Engine) -> Self {
        let config = engine.model.config();
        Self {
            name,
            tokenizer: engine.tokenizer.clone(),
            defaults: engine.defaults.clone(),
            context: config.max_position_embeddings,
            vocab_size: config.vocab_size,
            token_bytes: engine.tokenizer.token_bytes(),
        }
    }

    /// The bytes of a token; those of a control token are its name.
    pub(super) fn bytes_of(&self, token_id: u32) -> Vec<u8> {
        match self.token_bytes.get(token_id as usize) {
            Some(bytes) if !bytes.is_empty() => bytes.clone(),
            _ => self.tokenizer.decode(&[token_id], false).into_bytes(),
        }
    }

    /// Refuses prompts that leave no room for an answer, or that are none.
    ///
    /// # Errors
    ///
    /// An empty prompt, one that is too long, or ids that the model does not know.
    pub(super) fn check_prompt(&self, input_ids: &[u32]) -> Result<(), ApiError> {
        if input_ids.is_empty() {
            return Err(ApiError::field(
                "prompt",
                "the prompt is empty, expected at least one token",
            ));
        }
        if input_ids.len() >= self.context {
            return Err(ApiError::too_long(input_ids.len(), self.context));
        }
        match input_ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            Some(id) => {
                let message = format!(
                    "found token id {id}, expected ids below {}",
                    self.vocab_size
                );
                Err(ApiError::field("prompt", message))
            }
            None => Ok(()),
        }
    }
}

impl App {
    /// The model that a request names, the first one where it names none.
    ///
    /// # Errors
    ///
    /// A name that no model has.
    pub(super) fn model(&self, name: Option<&str>) -> Result<usize, ApiError> {
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Ok(0);
        };
        let found = self.models.iter().position(|model| model.name == name);
        found.ok_or_else(|| {
            let names: Vec<String> = self.models.iter().map(|model| model.name.clone()).collect();
            ApiError::no_model(name, &names)
        })
    }

    /// Hands requests to the model thread; the numbers of their answers are their places here.
    ///
    /// # Errors
    ///
    /// A queue that is full.
    pub(super) fn ask(
        &self,
        model: usize,
        requests: Vec<AnswerRequest>,
    ) -> Result<Session, ApiError> {
        let (events, receiver) = channel();
        let num_open = requests.len();
        let is_gone = Arc::new(AtomicBool::new(false));
        let now = Instant::now();
        // Made first, so that answers already asked for are cancelled when a later one is refused.
        let session = Session {
            events: receiver,
            is_gone: Arc::clone(&is_gone),
            num_open,
            asked: now,
            deadline: now + self.timeout,
            has_begun: false,
            metrics: Arc::clone(&self.metrics),
        };
        for (choice, request) in requests.into_iter().enumerate() {
            self.metrics.count_request(request.prompt.input_ids.len());
            self.send(Job::Answer(AnswerJob {
                model,
                request,
                choice,
                events: events.clone(),
                is_gone: Arc::clone(&is_gone),
            }))?;
        }
        Ok(session)
    }

    /// Puts a job into the queue.
    ///
    /// # Errors
    ///
    /// A queue that is full or closed.
    pub(super) fn send(&self, job: Job) -> Result<(), ApiError> {
        // Counted first: the model thread may take it before this one goes on.
        self.metrics.job_queued();
        self.jobs.try_send(job).map_err(|error| {
            self.metrics.job_taken();
            match error {
                TrySendError::Full(_) => ApiError::busy(),
                TrySendError::Disconnected(_) => ApiError::stopping(),
            }
        })
    }

    /// A name for an answer that no other has.
    pub(super) fn new_id(&self, prefix: &str) -> String {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        format!("{prefix}-{:x}{number:08x}", self.started)
    }
}

/// Seconds since 1970.
pub(super) fn unix_secs() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_secs())
}

/// How often it is looked whether the client is still there.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The answers that one request waits for; dropping it cancels them.
#[derive(Debug)]
pub(super) struct Session {
    events: Receiver<(usize, AnswerEvent)>,
    is_gone: Arc<AtomicBool>,
    num_open: usize,
    asked: Instant,
    deadline: Instant,
    has_begun: bool,
    metrics: Arc<Metrics>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.is_gone.store(true, Ordering::Relaxed);
    }
}

impl Session {
    /// What happens next and to which answer; `None` when all have ended.
    ///
    /// # Errors
    ///
    /// An answer that fails or takes too long, or a client that is gone.
    pub(super) fn next(
        &mut self,
        client: &Client,
    ) -> Result<Option<(usize, AnswerEvent)>, ApiError> {
        if self.num_open == 0 {
            return Ok(None);
        }
        let (choice, event) = loop {
            match self.events.recv_timeout(LOOK_EVERY) {
                Ok(event) => break event,
                Err(RecvTimeoutError::Disconnected) => return Err(ApiError::stopping()),
                Err(RecvTimeoutError::Timeout) if client.is_gone() => {
                    return Err(ApiError::gone());
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() > self.deadline => {
                    return Err(ApiError::timeout());
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        match &event {
            AnswerEvent::Failed(error) => return Err(ApiError::internal(error.to_string())),
            AnswerEvent::Finished { .. } => self.num_open -= 1,
            AnswerEvent::Token { .. } => {
                if !self.has_begun {
                    self.has_begun = true;
                    self.metrics.count_first_token(self.asked.elapsed());
                }
                if Instant::now() > self.deadline {
                    return Err(ApiError::timeout());
                }
            }
            AnswerEvent::Prompt(_) => {}
        }
        Ok(Some((choice, event)))
    }
}

/// A log-probability that JSON can hold.
pub(super) fn finite(logprob: f32) -> f32 {
    logprob.max(-9999.0)
}

/// A token's log-probabilities as chats report them.
pub(super) fn chat_logprobs(model: &ModelFace, token: &TokenLogprobs) -> serde_json::Value {
    let entry = |id: u32, logprob: f32| {
        let bytes = model.bytes_of(id);
        serde_json::json!({
            "token": String::from_utf8_lossy(&bytes),
            "logprob": finite(logprob),
            "bytes": bytes,
        })
    };
    let mut json = entry(token.token_id, token.logprob);
    json["top_logprobs"] = token
        .top
        .iter()
        .map(|&(id, logprob)| entry(id, logprob))
        .collect();
    json
}
