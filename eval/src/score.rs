//! How likely a model finds given continuations of given prompts: in batches, with what the prompts
//! begin alike read only once.
//!
//! Axis letters: `B` rows, `T` positions, `D` hidden size.

use burn::prelude::*;
use model::CausalLm;
use model::kv_cache::KvCache;

use crate::logps::next_token_logps;

/// Prompt tokens that one forward pass reads at most, padding included, unless one prompt has more:
/// enough for the matrix products, few enough that a batch holds prompts of about one length. Of
/// C-Eval's val split 12 % of what is read is padding; 4,096 made it 34 %.
const BATCH_TOKENS: usize = 1024;
/// Rows of a forward pass at most: the key/value cache of every row is in memory.
const BATCH_ROWS: usize = 32;

/// A prompt and the continuations that are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreRequest {
    /// What the model has read, at least one token.
    pub prompt: Vec<u32>,
    /// Token ids after the prompt, each at least one.
    pub continuations: Vec<Vec<u32>>,
}

/// What a model thinks of the continuations of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Summed log-probability of each continuation, in nats.
    pub logps: Vec<f64>,
    /// Tokens at the prompt's beginning that were left out because the context has no room for
    /// them.
    pub num_cut: usize,
}

/// Why continuations cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// There is nothing to continue, or nothing to score.
    #[error("request {request}: {what} is empty, expected at least one token")]
    Empty {
        /// Which request, from 0.
        request: usize,
        /// The prompt or a continuation.
        what: &'static str,
    },
    /// The text comes from another tokenizer than the model.
    #[error("request {request} holds token id {id}, expected ids below vocab_size = {vocab_size}")]
    UnknownToken {
        /// Which request, from 0.
        request: usize,
        /// The id.
        id: u32,
        /// Number of ids that the model knows.
        vocab_size: usize,
    },
    /// The continuation alone fills the context.
    #[error(
        "request {request}: a continuation of {num_tokens} tokens, expected fewer than \
         max_position_embeddings = {max_position_embeddings}"
    )]
    TooLong {
        /// Which request, from 0.
        request: usize,
        /// Length of the continuation.
        num_tokens: usize,
        /// Tokens that the model can read.
        max_position_embeddings: usize,
    },
    /// The model is broken.
    #[error("the model's log-probabilities are not finite, expected a model that was trained")]
    NotFinite,
}

/// Scores every request; prompts that are too long lose their beginning, as in MiniMind and lm-eval.
///
/// The requests of one call share what all their prompts begin with, so callers put those together
/// that share much. The batches depend on the requests alone, so equal calls give equal bits.
///
/// # Errors
///
/// A request that cannot be scored, or a model whose output is not finite.
pub fn score(model: &CausalLm, requests: &[ScoreRequest]) -> Result<Vec<Scores>, ScoreError> {
    let rows = requests
        .iter()
        .enumerate()
        .map(|(index, request)| Row::new(model, index, request))
        .collect::<Result<Vec<Row>, ScoreError>>()?;
    let prefix = SharedPrefix::read(model, &rows);
    // Long prompts first: rows of a batch are of about one length and need little padding.
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(rows[index].prompt.len()));

    let mut scores = vec![None; rows.len()];
    let mut start = 0;
    while start < order.len() {
        let fresh = rows[order[start]].prompt.len() - prefix.ids.len();
        let num_rows = (BATCH_TOKENS / fresh.max(1)).clamp(1, BATCH_ROWS);
        let batch = &order[start..order.len().min(start + num_rows)];
        let batch_rows: Vec<&Row> = batch.iter().map(|&index| &rows[index]).collect();
        for (&index, found) in batch.iter().zip(score_batch(model, &prefix, &batch_rows)) {
            if found.logps.iter().any(|logp| !logp.is_finite()) {
                return Err(ScoreError::NotFinite);
            }
            scores[index] = Some(found);
        }
        start += batch.len();
    }
    // Every request is in one batch.
    Ok(scores.into_iter().flatten().collect())
}

/// A request that fits the model.
struct Row<'a> {
    prompt: &'a [u32],
    continuations: &'a [Vec<u32>],
    num_cut: usize,
}

impl<'a> Row<'a> {
    fn new(model: &CausalLm, index: usize, request: &'a ScoreRequest) -> Result<Self, ScoreError> {
        let config = model.config();
        let empty = |what| ScoreError::Empty {
            request: index,
            what,
        };
        if request.prompt.is_empty() {
            return Err(empty("the prompt"));
        }
        if request.continuations.iter().any(Vec::is_empty) {
            return Err(empty("a continuation"));
        }
        let all_ids = request
            .prompt
            .iter()
            .chain(request.continuations.iter().flatten());
        if let Some(&id) = all_ids
            .into_iter()
            .find(|&&id| id as usize >= config.vocab_size)
        {
            return Err(ScoreError::UnknownToken {
                request: index,
                id,
                vocab_size: config.vocab_size,
            });
        }
        // The last token of a continuation is scored, never read.
        let longest = request.continuations.iter().map(Vec::len).max();
        let num_read = longest.unwrap_or(1) - 1;
        let context = config.max_position_embeddings;
        if num_read >= context {
            return Err(ScoreError::TooLong {
                request: index,
                num_tokens: num_read + 1,
                max_position_embeddings: context,
            });
        }
        let num_cut = request.prompt.len().saturating_sub(context - num_read);
        Ok(Self {
            prompt: &request.prompt[num_cut..],
            continuations: &request.continuations,
            num_cut,
        })
    }
}

/// What all prompts begin with, read once.
struct SharedPrefix {
    ids: Vec<u32>,
    cache: KvCache,
}

impl SharedPrefix {
    fn read(model: &CausalLm, rows: &[Row<'_>]) -> Self {
        let first = rows.first().map_or(&[][..], |row| row.prompt);
        // A prompt's last token is always read with its row: what comes next is asked there.
        let len = rows.iter().fold(first.len(), |len, row| {
            let shared = row.prompt.iter().zip(first).take_while(|(a, b)| a == b);
            len.min(shared.count()).min(row.prompt.len() - 1)
        });
        let len = if rows.len() > 1 { len } else { 0 };
        let ids = first[..len].to_vec();
        let device = model.embed_tokens.weight.device();
        let mut cache = KvCache::new(model.config(), 1, len, &device);
        if len > 0 {
            let positions = 0..len;
            model.forward_cached(
                int_tensor(ids.clone(), &device),
                int_tensor(positions.map(|position| position as u32).collect(), &device),
                &mut cache,
            );
        }
        Self { ids, cache }
    }
}

fn score_batch(model: &CausalLm, prefix: &SharedPrefix, rows: &[&Row<'_>]) -> Vec<Scores> {
    let longest = rows.iter().map(|row| row.prompt.len()).max().unwrap_or(0);
    let num_fresh = longest - prefix.ids.len();
    let most_choices = rows.iter().map(|row| row.continuations.len()).max();
    let continuations = || rows.iter().flat_map(|row| row.continuations);
    let num_read = continuations().map(Vec::len).max().unwrap_or(1) - 1;

    // Every row reads the same number of tokens, its last ones: a shorter row reads the end of the
    // shared prefix again where others read their own, and padding only once that is used up.
    let cached_len = |row: &Row<'_>| row.prompt.len().saturating_sub(num_fresh);
    let cached_lens: Vec<usize> = rows.iter().map(|row| cached_len(row)).collect();
    let mut cache = prefix.cache.beginnings(&cached_lens, longest + num_read);
    let device = model.embed_tokens.weight.device();
    let mut grid = Grid::default();
    for row in rows {
        let num_padding = num_fresh - row.prompt.len().min(num_fresh);
        grid.pad(num_padding);
        grid.read(&row.prompt[cached_len(row)..], cached_len(row));
    }
    let hidden = grid.forward(model, rows.len(), &mut cache, &device); // [B, T, D]
    let hidden_size = hidden.dims()[2];
    let last = hidden
        .slice([0..rows.len(), num_fresh - 1..num_fresh])
        .reshape([rows.len(), hidden_size]); // [B, D]

    let mut logps = first_token_logps(model, &last, rows, most_choices.unwrap_or(0));
    let num_slots = cache.num_slots();
    for choice in 0..most_choices.unwrap_or(0) {
        cache.truncate(num_slots);
        add_later_tokens(model, rows, choice, &mut cache, &mut logps);
    }
    let rows = rows.iter().zip(logps);
    rows.map(|(row, logps)| Scores {
        logps,
        num_cut: row.num_cut,
    })
    .collect()
}

/// Log-probabilities of each continuation's first token.
fn first_token_logps(
    model: &CausalLm,
    last: &Tensor<2>,
    rows: &[&Row<'_>],
    most_choices: usize,
) -> Vec<Vec<f64>> {
    let mut choices = Vec::with_capacity(rows.len() * most_choices);
    for row in rows {
        let firsts = row.continuations.iter().map(|continuation| continuation[0]);
        choices.extend(firsts.chain(std::iter::repeat(0)).take(most_choices));
    }
    let logps = next_token_logps(model, last, &choices);
    rows.iter()
        .zip(logps.chunks(most_choices.max(1)))
        .map(|(row, logps)| {
            let logps = logps.iter().take(row.continuations.len());
            logps.map(|&logp| f64::from(logp)).collect()
        })
        .collect()
}

/// Adds the log-probabilities of the tokens after the first of each row's continuation `choice`.
fn add_later_tokens(
    model: &CausalLm,
    rows: &[&Row<'_>],
    choice: usize,
    cache: &mut KvCache,
    logps: &mut [Vec<f64>],
) {
    let continuation = |row: &Row<'_>| -> Vec<u32> {
        let found = row.continuations.get(choice);
        found.map_or_else(Vec::new, Clone::clone)
    };
    let longest = rows
        .iter()
        .map(|row| continuation(row).len())
        .max()
        .unwrap_or(0);
    if longest < 2 {
        return;
    }
    let device = model.embed_tokens.weight.device();
    let num_read = longest - 1;
    let mut grid = Grid::default();
    // Positions of the grid whose next token counts, with the row and the token.
    let mut asked: Vec<i32> = Vec::new();
    let mut targets: Vec<(usize, u32)> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let ids = continuation(row);
        let read = &ids[..ids.len().saturating_sub(1)];
        grid.read(read, row.prompt.len());
        grid.pad(num_read - read.len());
        for (place, &target) in ids.iter().skip(1).enumerate() {
            asked.push((index * num_read + place) as i32);
            targets.push((index, target));
        }
    }
    let hidden = grid.forward(model, rows.len(), cache, &device); // [B, T, D]
    let hidden_size = hidden.dims()[2];
    let asked = TensorData::new(asked, [targets.len()]);
    let hidden = hidden
        .reshape([rows.len() * num_read, hidden_size]) // [B * T, D]
        .select(0, Tensor::<1, Int>::from_data(asked, &device)); // [M, D]
    let ids: Vec<u32> = targets.iter().map(|&(_, id)| id).collect();
    for ((row, _), logp) in targets.iter().zip(next_token_logps(model, &hidden, &ids)) {
        logps[*row][choice] += f64::from(logp);
    }
}

/// Token ids and positions of a batch, row by row.
#[derive(Default)]
struct Grid {
    ids: Vec<u32>,
    positions: Vec<u32>,
}

impl Grid {
    fn read(&mut self, ids: &[u32], first_position: usize) {
        self.ids.extend(ids);
        let positions = (first_position..).take(ids.len());
        self.positions
            .extend(positions.map(|position| position as u32));
    }

    /// Places that see nothing but themselves, and that nothing looks at.
    fn pad(&mut self, num_places: usize) {
        self.ids.extend(std::iter::repeat_n(0, num_places));
        self.positions.extend(std::iter::repeat_n(0, num_places));
    }

    fn forward(
        self,
        model: &CausalLm,
        num_rows: usize,
        cache: &mut KvCache,
        device: &Device,
    ) -> Tensor<3> {
        let shape = [num_rows, self.ids.len() / num_rows];
        let ids = int_tensor(self.ids, device).reshape(shape); // [B, T]
        let positions = int_tensor(self.positions, device).reshape(shape); // [B, T]
        model.forward_cached(ids, positions, cache) // [B, T, D]
    }
}

fn int_tensor(values: Vec<u32>, device: &Device) -> Tensor<2, Int> {
    let values: Vec<i32> = values.into_iter().map(|value| value as i32).collect();
    let shape = [1, values.len()];
    Tensor::from_data(TensorData::new(values, shape), device) // [1, T]
}
