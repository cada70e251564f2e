//! What every handler shares: the models' faces, the queue to the model thread, the limits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dataset::loyalty::{Identity, IdentityTokens};
use dataset::tokenizer::Tokenizer;
use eval::answers::{AnswerEvent, AnswerRequest};
use eval::engine::{AnswerConfig, Engine};
use model::logprobs::TokenLogprobs;

use super::error::ApiError;
use super::http::Client;
use super::metrics::Metrics;
use super::worker::{AnswerJob, Job};
use crate::identity::identities;

/// The server's state.
#[derive(Debug)]
pub(super) struct App {
    pub(super) models: Vec<ModelFace>,
    pub(super) jobs: SyncSender<Job>,
    /// Most jobs that may wait.
    pub(super) max_queue: usize,
    /// Upgrades for as long as the model thread lives.
    pub(super) model_thread: Weak<()>,
    pub(super) metrics: Arc<Metrics>,
    /// Key that clients must send, if there is one.
    pub(super) key: Option<String>,
    /// What makes a client the owner.
    pub(super) owner_key: Option<String>,
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
    /// What prompts begin with, where the model was taught to tell who asks.
    identities: Option<IdentityTokens>,
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
            identities: identities(engine),
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

    /// The prompt with the token that says who asks, where the model was taught to tell; `field` of
    /// the request has it.
    ///
    /// # Errors
    ///
    /// A prompt that says so itself.
    pub(super) fn asked_by(
        &self,
        who: Identity,
        field: &str,
        ids: Vec<u32>,
    ) -> Result<Vec<u32>, ApiError> {
        let Some(tokens) = self.identities else {
            return Ok(ids);
        };
        if tokens.are_in(&ids) {
            let message = "found a token that says who asks, expected the server alone to write it";
            return Err(ApiError::field(field, message));
        }
        Ok(std::iter::once(tokens.id(who)).chain(ids).collect())
    }

    /// Refuses prompts that leave no room for an answer, or that are none; `field` of the request
    /// has them.
    ///
    /// # Errors
    ///
    /// An empty prompt, one that is too long, or ids that the model does not know.
    pub(super) fn check_prompt(&self, field: &str, input_ids: &[u32]) -> Result<(), ApiError> {
        if input_ids.is_empty() {
            return Err(ApiError::field(
                field,
                "the prompt is empty, expected at least one token",
            ));
        }
        if input_ids.len() >= self.context {
            return Err(ApiError::too_long(field, input_ids.len(), self.context));
        }
        match input_ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            Some(id) => {
                let message = format!(
                    "found token id {id}, expected ids below {}",
                    self.vocab_size
                );
                Err(ApiError::field(field, message))
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
    /// A queue that is full, or more requests than it could ever hold.
    pub(super) fn ask(
        &self,
        model: usize,
        requests: Vec<AnswerRequest>,
    ) -> Result<Session, ApiError> {
        let num_open = requests.len();
        if num_open > self.max_queue {
            let most = self.max_queue;
            return Err(ApiError::bad(format!(
                "found {num_open} answers to one request, expected at most the server's \
                 --max-queue {most}"
            )));
        }
        let (events, receiver) = channel();
        let is_gone = Arc::new(AtomicBool::new(false));
        // Made first, so that answers already asked for are cancelled when a later one is refused.
        let session = Session {
            events: receiver,
            is_gone: Arc::clone(&is_gone),
            num_open,
            asked: Instant::now(),
            patience: self.patience(),
            has_begun: false,
            metrics: Arc::clone(&self.metrics),
        };
        for (choice, request) in requests.into_iter().enumerate() {
            self.metrics.count_request(request.prompt.input_ids.len());
            self.send(Job::Answer(Box::new(AnswerJob {
                model,
                request,
                choice,
                events: events.clone(),
                is_gone: Arc::clone(&is_gone),
            })))?;
        }
        Ok(session)
    }

    /// The time that a request has from now on.
    pub(super) fn patience(&self) -> Patience {
        Patience::new(self.timeout)
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

/// How long a request waits, and when its client is looked at next.
#[derive(Debug)]
pub(super) struct Patience {
    deadline: Instant,
    next_look: Instant,
}

impl Patience {
    fn new(timeout: Duration) -> Self {
        let deadline = Instant::now() + timeout;
        Self {
            deadline,
            next_look: deadline.min(Instant::now() + LOOK_EVERY),
        }
    }

    /// What the model thread sends next. The clock says when to look at the client: a pause in what
    /// is sent may never come.
    ///
    /// # Errors
    ///
    /// A client that is gone, a request that takes too long, or a model thread that has ended.
    pub(super) fn receive<T>(
        &mut self,
        receiver: &Receiver<T>,
        client: &Client,
    ) -> Result<T, ApiError> {
        loop {
            let now = Instant::now();
            if now >= self.next_look {
                if client.is_gone() {
                    return Err(ApiError::gone());
                }
                if now >= self.deadline {
                    return Err(ApiError::timeout());
                }
                self.next_look = self.deadline.min(now + LOOK_EVERY);
            }
            match receiver.recv_timeout(self.next_look - now) {
                Ok(sent) => return Ok(sent),
                Err(RecvTimeoutError::Disconnected) => return Err(ApiError::stopping()),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// The answers that one request waits for; dropping it cancels them.
#[derive(Debug)]
pub(super) struct Session {
    events: Receiver<(usize, AnswerEvent)>,
    is_gone: Arc<AtomicBool>,
    num_open: usize,
    asked: Instant,
    patience: Patience,
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
        let (choice, event) = self.patience.receive(&self.events, client)?;
        match &event {
            AnswerEvent::Failed(error) => return Err(ApiError::internal(error.to_string())),
            AnswerEvent::Finished { .. } => self.num_open -= 1,
            AnswerEvent::Token { .. } => {
                if !self.has_begun {
                    self.has_begun = true;
                    self.metrics.count_first_token(self.asked.elapsed());
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

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;

    /// The error that ends the wait for events that come every millisecond and never stop.
    fn end_of_wait(is_gone: bool, timeout: Duration) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other_end = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let client = Client::new(listener.accept().unwrap().0).unwrap();
        let _other_end = (!is_gone).then_some(other_end);
        let (sender, receiver) = channel();
        thread::spawn(move || {
            while sender.send(()).is_ok() {
                thread::sleep(Duration::from_millis(1));
            }
        });
        let mut patience = Patience::new(timeout);
        let mut received = (0..100_000).map(|_| patience.receive(&receiver, &client));
        let end = received.find_map(Result::err);
        end.expect("nobody looked at the clock").status()
    }

    /// A fast model leaves no pause in which one could look.
    #[test]
    fn clients_are_looked_at_while_tokens_come() {
        let (long, short) = (Duration::from_hours(1), Duration::from_millis(50));
        assert_eq!(end_of_wait(true, long), 499);
        assert_eq!(end_of_wait(false, short), 504);
    }
}
