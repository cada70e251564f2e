//! Continuous batching: requests join and leave a batch between two tokens.
//!
//! Axis letters: `B` rows, `T` slots fed in this step, `D` hidden size, `V` vocabulary.
//!
//! On the CPU a request's tokens do not depend on who shares the batch, bit for bit. Prompts are read
//! alone, whole pieces of [`PROMPT_PIECE`] tokens first, some at once, then the rest by itself: sums
//! over tokens of a piece or more do not depend on how many there are, so that a beginning taken from
//! the prefix cache is what reading it again would give. A prompt that several ask one after another,
//! as a group of rollouts does, is read once. Decoding feeds one token per row through kernels whose
//! sums do not depend on the number of rows. The exception is a mixture of experts: how many tokens its
//! router and each expert get decides how their products sum. Graphics cards choose how to sum by the
//! number of rows and of slots, so that there numbers are the same up to rounding.

mod choose;
mod request;

use std::collections::VecDeque;

use burn::prelude::*;

use crate::causal_lm::CausalLm;
use crate::generate::GenerateError;
use crate::kv_cache::KvCache;
use crate::logprobs::TokenLogprobs;
use crate::prefix_cache::PrefixCache;
use crate::sample::Sampler;
use crate::workers::on_worker;

use self::choose::{Wanted, logits_of, to_host};
pub use self::request::{Adjust, BatchLimits, Event, Request, RequestId};

/// Tokens of a piece of a prompt.
pub const PROMPT_PIECE: usize = 64;
/// Pieces that are read at once at most: more would cost memory and win nothing.
const PIECES_AT_ONCE: usize = 16;

/// Requests that are decoded together.
#[derive(Debug)]
pub struct Batch<'a> {
    model: &'a CausalLm,
    limits: BatchLimits,
    cache: KvCache,
    /// In the order of the cache's rows.
    rows: Vec<Row>,
    waiting: VecDeque<Waiting>,
    prefixes: PrefixCache,
    /// Tokens of prompts that were answered from another request's reading of them.
    num_shared_tokens: u64,
    next_id: RequestId,
}

/// A request that is being answered.
#[derive(Debug)]
struct Row {
    id: RequestId,
    prompt_len: usize,
    num_new_tokens: usize,
    last_token: u32,
    /// Tokens the answer may have: the caller's limit or what is left of the context.
    max_new_tokens: usize,
    eos_token_id: Vec<u32>,
    num_top_logprobs: Option<usize>,
    score_temperature: Option<f64>,
    sampler: Sampler,
}

/// A request whose prompt is not read to its end.
#[derive(Debug)]
struct Waiting {
    row: Row,
    prompt_ids: Vec<u32>,
    /// Keys and values of what is read of it; absent before the first piece.
    cache: Option<KvCache>,
    /// Asked-for log-probabilities of the prompt's tokens.
    logprobs: Option<Vec<TokenLogprobs>>,
}

impl<'a> Batch<'a> {
    /// A batch without requests. A model that is being trained is passed as `model.valid()`, so
    /// that decoding records no gradients.
    pub fn new(model: &'a CausalLm, limits: BatchLimits) -> Self {
        let device = model.embed_tokens.weight.device();
        Self {
            model,
            limits,
            cache: KvCache::new(model.config(), 0, 0, &device),
            rows: Vec::new(),
            waiting: VecDeque::new(),
            prefixes: PrefixCache::new(limits.max_cached_tokens),
            num_shared_tokens: 0,
            next_id: 0,
        }
    }

    /// Takes a request; it is answered from the next step on, or when a row is free.
    ///
    /// # Errors
    ///
    /// A setting or a prompt that cannot be used.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, GenerateError> {
        request.config.validate()?;
        let id = self.next_id;
        check_prompt(self.model, id, &request.prompt.input_ids)?;
        let Request {
            prompt,
            config,
            num_top_logprobs,
            with_prompt_logprobs,
            score_temperature,
        } = request;
        let prompt_len = prompt.input_ids.len();
        let longest = self.model.config().max_position_embeddings;
        let row = Row {
            id,
            prompt_len,
            num_new_tokens: 0,
            last_token: 0,
            max_new_tokens: config.max_new_tokens.min(longest - prompt_len),
            sampler: Sampler::new(&config, &prompt.input_ids, prompt.seed),
            eos_token_id: config.eos_token_id,
            num_top_logprobs,
            score_temperature,
        };
        self.waiting.push_back(Waiting {
            row,
            prompt_ids: prompt.input_ids,
            cache: None,
            logprobs: with_prompt_logprobs.then(Vec::new),
        });
        self.next_id += 1;
        Ok(id)
    }

    /// Forgets a request; whether it was there.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        if let Some(index) = self.rows.iter().position(|row| row.id == id) {
            self.remove(index);
            return true;
        }
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.row.id != id);
        self.waiting.len() < before
    }

    /// Requests that are neither finished nor forgotten.
    pub fn num_requests(&self) -> usize {
        self.rows.len() + self.waiting.len()
    }

    /// Tokens of prompts that were not read, since another prompt is or begins the same.
    pub fn num_reused_tokens(&self) -> u64 {
        self.prefixes.num_reused_tokens() + self.num_shared_tokens
    }

    /// One token for every row that is being decoded, then some of the prompts that wait; what
    /// happened, in order.
    pub fn step(&mut self) -> Vec<(RequestId, Event)> {
        self.step_with(&mut Adjust {
            concerns: &|_| false,
            change: &mut |_, _| (),
        })
    }

    /// [`step`](Self::step) with a say in choices: `adjust` gets the logits of the requests that
    /// concern it before penalties and sampling. Log-probabilities are those before it.
    pub fn step_with(&mut self, adjust: &mut Adjust<'_>) -> Vec<(RequestId, Event)> {
        let mut events = Vec::new();
        self.decode(adjust, &mut events);
        let mut left = self.limits.pieces_per_step;
        while left > 0 && self.rows.len() < self.limits.max_rows {
            let Some(waiting) = self.waiting.pop_front() else {
                break;
            };
            left -= self.read_pieces(waiting, left, adjust, &mut events);
        }
        events
    }

    /// Feeds every row its last token and chooses the next.
    fn decode(&mut self, adjust: &mut Adjust<'_>, events: &mut Vec<(RequestId, Event)>) {
        if self.rows.is_empty() {
            return;
        }
        self.cache.make_room(self.longest());
        let input_ids = self.rows.iter().map(|row| row.last_token as i32).collect();
        let positions = self.rows.iter().map(|row| row.len() as i32 - 1).collect();
        let shape = [self.rows.len(), 1];
        let (model, cache) = (self.model, &mut self.cache);
        let wanted = Wanted::of(&mut self.rows, adjust);
        let found = on_worker(|| {
            let hidden = forward(model, input_ids, positions, shape, cache); // [B, 1, D]
            wanted.find(&logits_of(model, hidden))
        });
        let ends = found.tell(&mut self.rows, adjust, events);
        for (index, _) in ends.iter().enumerate().rev().filter(|(_, ends)| **ends) {
            self.remove(index);
        }
    }

    /// Reads some pieces of a prompt, which joins the rows after its last one, with all that wait
    /// behind it and ask the same; says how many.
    fn read_pieces(
        &mut self,
        mut waiting: Waiting,
        max_pieces: usize,
        adjust: &mut Adjust<'_>,
        events: &mut Vec<(RequestId, Event)>,
    ) -> usize {
        let prompt_len = waiting.prompt_ids.len();
        let mut cache = match waiting.cache.take() {
            Some(cache) => cache,
            None => self.first_cache(&waiting),
        };
        let read = cache.num_slots();
        let whole = (prompt_len - read) / PROMPT_PIECE;
        let num_pieces = whole.clamp(1, max_pieces.min(PIECES_AT_ONCE));
        let piece = read..prompt_len.min(read + num_pieces * PROMPT_PIECE);
        let input_ids = waiting.prompt_ids[piece.clone()].iter();
        let input_ids = input_ids.map(|&id| id as i32).collect();
        let positions = piece.clone().map(|position| position as i32).collect();
        let shape = [1, piece.len()];
        let model = self.model;
        let hidden = on_worker(|| forward(model, input_ids, positions, shape, &mut cache)); // [1, T, D]
        if let Some(logprobs) = &mut waiting.logprobs {
            let next = &waiting.prompt_ids[piece.start + 1..prompt_len.min(piece.end + 1)];
            let num_top = waiting.row.num_top_logprobs.unwrap_or(0);
            logprobs.extend(logprobs_of(self.model, hidden.clone(), next, num_top));
        }
        if piece.end < prompt_len {
            waiting.cache = Some(cache);
            self.waiting.push_front(waiting);
            return num_pieces;
        }

        self.prefixes.keep(&waiting.prompt_ids, &cache);
        if let Some(logprobs) = waiting.logprobs {
            events.push((waiting.row.id, Event::Prompt(logprobs)));
        }
        let [_, len, hidden_size] = hidden.dims();
        let last = hidden.slice([0..1, len - 1..len, 0..hidden_size]); // [1, 1, D]
        let logits = logits_of(self.model, last); // [1, V]
        let mut rows = vec![waiting.row];
        rows.extend(self.take_same(&waiting.prompt_ids));
        let logits = logits.repeat_dim(0, rows.len()); // [B, V]
        let found = Wanted::of(&mut rows, adjust).find(&logits);
        let ends = found.tell(&mut rows, adjust, events);
        for (row, _) in rows.into_iter().zip(ends).filter(|(_, ends)| !ends) {
            self.cache.push_row(&cache, self.longest());
            self.rows.push(row);
        }
        num_pieces
    }

    /// The requests at the head of the queue whose prompt has just been read, as far as rows are
    /// free beside the one that it was read for.
    fn take_same(&mut self, prompt_ids: &[u32]) -> Vec<Row> {
        let mut rows = Vec::new();
        // Those that want log-probabilities of the prompt get them by reading it.
        let is_same =
            |waiting: &mut Waiting| waiting.prompt_ids == prompt_ids && waiting.logprobs.is_none();
        while self.rows.len() + rows.len() + 1 < self.limits.max_rows
            && let Some(waiting) = self.waiting.pop_front_if(is_same)
        {
            self.num_shared_tokens += prompt_ids.len() as u64;
            rows.push(waiting.row);
        }
        rows
    }

    /// A cache for a prompt, with what is known of its beginning.
    fn first_cache(&mut self, waiting: &Waiting) -> KvCache {
        let capacity = waiting.prompt_ids.len();
        // Log-probabilities need the hidden states of every position, which are not kept.
        if waiting.logprobs.is_none()
            && let Some(cache) = self.prefixes.find(&waiting.prompt_ids, capacity)
        {
            return cache;
        }
        let device = self.model.embed_tokens.weight.device();
        KvCache::new(self.model.config(), 1, capacity, &device)
    }

    /// Slots of the longest row.
    fn longest(&self) -> usize {
        // The last token of a row is not fed yet.
        let lens = self.rows.iter().map(|row| row.len() - 1);
        lens.max().unwrap_or(0)
    }

    fn remove(&mut self, index: usize) {
        self.cache.swap_remove_row(index);
        self.rows.swap_remove(index);
    }
}

impl Row {
    /// Tokens of the prompt and the answer.
    fn len(&self) -> usize {
        self.prompt_len + self.num_new_tokens
    }
}

fn check_prompt(model: &CausalLm, row: RequestId, input_ids: &[u32]) -> Result<(), GenerateError> {
    let vocab_size = model.config().vocab_size;
    let max_position_embeddings = model.config().max_position_embeddings;
    let num_tokens = input_ids.len();
    if num_tokens == 0 {
        return Err(GenerateError::EmptyPrompt { row });
    }
    if num_tokens >= max_position_embeddings {
        return Err(GenerateError::PromptTooLong {
            row,
            num_tokens,
            max_position_embeddings,
        });
    }
    match input_ids.iter().find(|&&id| id as usize >= vocab_size) {
        Some(&id) => Err(GenerateError::UnknownToken {
            row,
            id,
            vocab_size,
        }),
        None => Ok(()),
    }
}

/// Hidden states `[B, T, D]` of the next tokens of a cache's rows.
fn forward(
    model: &CausalLm,
    input_ids: Vec<i32>,
    positions: Vec<i32>,
    shape: [usize; 2],
    cache: &mut KvCache,
) -> Tensor<3> {
    let device = model.embed_tokens.weight.device();
    let ints = |values| Tensor::<2, Int>::from_data(TensorData::new(values, shape), &device);
    model.forward_cached(ints(input_ids), ints(positions), cache)
}

/// Log-probabilities of the tokens that follow the positions of one row.
fn logprobs_of(
    model: &CausalLm,
    hidden: Tensor<3>,
    next: &[u32],
    num_top: usize,
) -> Vec<TokenLogprobs> {
    let logits = to_host(logits_of(model, hidden));
    logits
        .chunks_exact(model.config().vocab_size)
        .zip(next)
        .map(|(logits, &token_id)| TokenLogprobs::of(logits, token_id, num_top))
        .collect()
}

#[cfg(test)]
mod tests;
