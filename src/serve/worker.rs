//! The one thread that runs the models: jobs come in between two tokens, events go out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};

use burn::prelude::*;
use eval::answers::{AnswerEvent, AnswerRequest, Answers};
use eval::engine::Engine;
use model::batch::{BatchLimits, RequestId};

use super::metrics::Metrics;

/// Something for a model to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Answer a prompt.
    Answer(Box<AnswerJob>),
    /// Mean of the hidden states of a text.
    Embed(EmbedJob),
}

/// A prompt and who waits for the answer; and whether anyone still does.
#[derive(Debug)]
pub(super) struct AnswerJob {
    pub(super) model: usize,
    pub(super) request: AnswerRequest,
    /// Which of the client's answers this is.
    pub(super) choice: usize,
    pub(super) events: Sender<(usize, AnswerEvent)>,
    /// Set when nobody waits for the answer any more.
    pub(super) is_gone: Arc<AtomicBool>,
}

/// A text to embed.
#[derive(Debug)]
pub(super) struct EmbedJob {
    pub(super) model: usize,
    pub(super) input_ids: Vec<u32>,
    pub(super) reply: Sender<Vec<f32>>,
}

/// Who waits for an answer.
struct Client {
    choice: usize,
    events: Sender<(usize, AnswerEvent)>,
    is_gone: Arc<AtomicBool>,
}

/// One model and its clients.
struct Desk<'a> {
    engine: &'a Engine,
    answers: Answers<'a>,
    clients: BTreeMap<RequestId, Client>,
}

/// Works until every sender of jobs is gone.
pub(super) fn work(
    engines: &[Engine],
    jobs: &Receiver<Job>,
    limits: BatchLimits,
    metrics: &Arc<Metrics>,
) {
    let mut desks: Vec<Desk<'_>> = engines
        .iter()
        .map(|engine| Desk {
            engine,
            answers: Answers::new(engine, limits),
            clients: BTreeMap::new(),
        })
        .collect();
    loop {
        for desk in &mut desks {
            desk.forget_gone_clients();
        }
        let mut num_active: usize = desks.iter().map(|desk| desk.clients.len()).sum();
        while num_active < limits.max_rows {
            let job = if num_active == 0 {
                metrics.set_running(0);
                jobs.recv().ok()
            } else {
                match jobs.try_recv() {
                    Ok(job) => Some(job),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => None,
                }
            };
            if job.is_some() {
                metrics.job_taken();
            }
            match job {
                Some(Job::Answer(job)) => desks[job.model].take(*job),
                Some(Job::Embed(job)) => {
                    let embedding = mean_hidden(&desks[job.model].engine.model, &job.input_ids);
                    // A client that is gone needs no reply.
                    let _ = job.reply.send(embedding);
                }
                None if num_active == 0 => return,
                None => break,
            }
            num_active = desks.iter().map(|desk| desk.clients.len()).sum();
        }
        metrics.set_running(num_active);
        for desk in &mut desks {
            desk.step(metrics);
        }
        let reused = desks.iter().map(|desk| desk.answers.num_reused_tokens());
        metrics.set_reused_tokens(reused.sum());
    }
}

impl Desk<'_> {
    fn take(&mut self, job: AnswerJob) {
        let (choice, events, is_gone) = (job.choice, job.events, job.is_gone);
        if is_gone.load(Ordering::Relaxed) {
            return;
        }
        match self.answers.submit(job.request) {
            Ok(id) => {
                let client = Client {
                    choice,
                    events,
                    is_gone,
                };
                self.clients.insert(id, client);
            }
            Err(error) => {
                // A client that is gone needs no answer.
                let _ = events.send((choice, AnswerEvent::Failed(error)));
            }
        }
    }

    fn forget_gone_clients(&mut self) {
        let answers = &mut self.answers;
        self.clients.retain(|&id, client| {
            let is_gone = client.is_gone.load(Ordering::Relaxed);
            if is_gone {
                answers.cancel(id);
            }
            !is_gone
        });
    }

    fn step(&mut self, metrics: &Metrics) {
        if self.clients.is_empty() {
            return;
        }
        for (id, event) in self.answers.step() {
            let Some(client) = self.clients.get(&id) else {
                continue;
            };
            if matches!(event, AnswerEvent::Token { .. }) {
                metrics.count_token();
            }
            let is_last = matches!(event, AnswerEvent::Finished { .. } | AnswerEvent::Failed(_));
            // Those who are gone are forgotten before the next step.
            let _ = client.events.send((client.choice, event));
            if is_last {
                self.clients.remove(&id);
            }
        }
    }
}

/// The mean over a text's positions of the hidden states after the final norm.
fn mean_hidden(model: &model::CausalLm, input_ids: &[u32]) -> Vec<f32> {
    let device = model.embed_tokens.weight.device();
    let len = input_ids.len();
    let ids: Vec<i32> = input_ids.iter().map(|&id| id as i32).collect();
    let positions: Vec<i32> = (0..len as i32).collect();
    let ints = |values| Tensor::<2, Int>::from_data(TensorData::new(values, [1, len]), &device);
    let hidden = model.forward(ints(ids), ints(positions)); // [1, T, D]
    let mean = hidden.mean_dim(1).into_data().convert::<f32>(); // [1, 1, D]
    mean.try_into_vec().expect("the data was converted to f32")
}
