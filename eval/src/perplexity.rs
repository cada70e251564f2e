//! Perplexity and bits per byte of text under a model, with a window that slides over long
//! documents.
//!
//! Every token of the text is scored once, each as late in its window as possible: the first window
//! scores all of its tokens, every later one the last `stride` of them, with those before as
//! context. Bits per byte compare models with different tokenizers, perplexity does not.
//!
//! Axis letters: `B` rows, `T` positions, `D` hidden size.

use burn::prelude::*;
use dataset::tokenizer::Tokenizer;
use model::CausalLm;
use serde::{Deserialize, Serialize};

use crate::logps::next_token_logps;

/// Positions that one forward pass reads at most, padding included.
const BATCH_TOKENS: usize = 4096;

/// How text is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowConfig {
    /// Tokens that the model reads at once, at least 1.
    pub window: usize,
    /// Tokens that a window adds to the one before, from 1 to `window`.
    pub stride: usize,
}

/// Why text cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum PerplexityError {
    /// The window is not one that the model can read.
    #[error(
        "window is {window}, expected 1 to the model's max_position_embeddings = \
         {max_position_embeddings}"
    )]
    Window {
        /// What was asked for.
        window: usize,
        /// Tokens that the model can read.
        max_position_embeddings: usize,
    },
    /// The windows would leave tokens out, or stand still.
    #[error("stride is {stride}, expected 1 to window = {window}")]
    Stride {
        /// What was asked for.
        stride: usize,
        /// Tokens of a window.
        window: usize,
    },
    /// The model is broken.
    #[error("the model's log-probabilities are not finite, expected a model that was trained")]
    NotFinite,
}

/// How well a model predicts some text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TextLoss {
    /// Documents scored.
    pub num_documents: usize,
    /// Tokens scored: those of the text, without beginning and end tokens.
    pub num_tokens: usize,
    /// UTF-8 bytes of the text.
    pub num_bytes: usize,
    /// Summed negative log-likelihood, in nats.
    pub nll: f64,
}

impl TextLoss {
    /// Mean negative log-likelihood per token, in nats.
    pub fn loss(&self) -> f64 {
        self.nll / self.num_tokens as f64
    }

    /// `exp(nll / tokens)`.
    pub fn perplexity(&self) -> f64 {
        self.loss().exp()
    }

    /// `nll / ln 2 / bytes`.
    pub fn bits_per_byte(&self) -> f64 {
        self.nll / std::f64::consts::LN_2 / self.num_bytes as f64
    }

    /// Adds another text's loss to this one.
    pub fn add(&mut self, other: &Self) {
        self.num_documents += other.num_documents;
        self.num_tokens += other.num_tokens;
        self.num_bytes += other.num_bytes;
        self.nll += other.nll;
    }
}

impl WindowConfig {
    /// Checks both numbers.
    ///
    /// # Errors
    ///
    /// A number outside its range.
    pub fn validate(self, model: &CausalLm) -> Result<(), PerplexityError> {
        let max_position_embeddings = model.config().max_position_embeddings;
        let Self { window, stride } = self;
        if !(1..=max_position_embeddings).contains(&window) {
            return Err(PerplexityError::Window {
                window,
                max_position_embeddings,
            });
        }
        if !(1..=window).contains(&stride) {
            return Err(PerplexityError::Stride { stride, window });
        }
        Ok(())
    }
}

/// Tokens to read and, of the positions, those whose next token counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    input_ids: Vec<u32>,
    /// First position that is scored.
    from: usize,
    /// Next tokens of the positions from `from` on.
    targets: Vec<u32>,
}

/// The loss of documents that are read together, the same for the same documents.
///
/// A document is read behind the tokenizer's beginning token; without such a token its first token
/// cannot be scored, and only its bytes count.
///
/// # Errors
///
/// A window that makes no sense for the model, or a model whose output is not finite.
pub fn text_loss(
    model: &CausalLm,
    tokenizer: &Tokenizer,
    texts: &[String],
    config: WindowConfig,
) -> Result<TextLoss, PerplexityError> {
    config.validate(model)?;
    let mut loss = TextLoss::default();
    let mut all_windows = Vec::new();
    for text in texts {
        let ids: Vec<u32> = tokenizer
            .bos_id()
            .into_iter()
            .chain(tokenizer.encode_ordinary(text))
            .collect();
        loss.num_documents += 1;
        loss.num_bytes += text.len();
        all_windows.extend(windows(&ids, config));
    }
    // Windows of about one length together need little padding.
    all_windows.sort_by_key(|window| std::cmp::Reverse(window.input_ids.len()));
    let mut rest = all_windows.as_slice();
    while let Some(longest) = rest.first() {
        let num_rows = (BATCH_TOKENS / longest.input_ids.len()).max(1);
        let (batch, later) = rest.split_at(num_rows.min(rest.len()));
        loss.nll -= batch_logps(model, batch);
        loss.num_tokens += batch
            .iter()
            .map(|window| window.targets.len())
            .sum::<usize>();
        rest = later;
    }
    if loss.nll.is_finite() {
        Ok(loss)
    } else {
        Err(PerplexityError::NotFinite)
    }
}

fn windows(ids: &[u32], config: WindowConfig) -> Vec<Window> {
    let WindowConfig { window, stride } = config;
    let mut windows = Vec::new();
    // Tokens up to here have been scored; the first has nothing before it.
    let mut scored = 1;
    while scored < ids.len() {
        // Positions `..end` are read, which scores the tokens up to and with `end`.
        let end = if scored == 1 {
            window.min(ids.len() - 1)
        } else {
            (scored - 1 + stride).min(ids.len() - 1)
        };
        let start = end.saturating_sub(window);
        windows.push(Window {
            input_ids: ids[start..end].to_vec(),
            from: scored - 1 - start,
            targets: ids[scored..=end].to_vec(),
        });
        scored = end + 1;
    }
    windows
}

/// Summed log-probabilities of the windows' targets.
fn batch_logps(model: &CausalLm, batch: &[Window]) -> f64 {
    let len = batch
        .iter()
        .map(|window| window.input_ids.len())
        .max()
        .unwrap_or(0);
    let device = model.embed_tokens.weight.device();
    let (mut ids, mut positions) = (Vec::new(), Vec::new());
    let (mut asked, mut targets) = (Vec::new(), Vec::new());
    for (row, window) in batch.iter().enumerate() {
        // Padding lies behind everything that counts, so nothing sees it.
        let padded = window.input_ids.iter().map(|&id| id as i32);
        ids.extend(padded.chain(std::iter::repeat(0)).take(len));
        positions.extend(0..len as i32);
        for (place, &target) in window.targets.iter().enumerate() {
            asked.push((row * len + window.from + place) as i32);
            targets.push(target);
        }
    }
    let grid = |values| {
        let data = TensorData::new(values, [batch.len(), len]);
        Tensor::<2, Int>::from_data(data, &device) // [B, T]
    };
    let hidden = model.forward(grid(ids), grid(positions)); // [B, T, D]
    let hidden_size = hidden.dims()[2];
    let asked = Tensor::<1, Int>::from_data(TensorData::new(asked, [targets.len()]), &device);
    let hidden = hidden
        .reshape([batch.len() * len, hidden_size]) // [B * T, D]
        .select(0, asked); // [M, D]
    let logps = next_token_logps(model, &hidden, &targets);
    logps.into_iter().map(f64::from).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight tokens, windows of four that move by two: tokens 1 to 4 from the first, then two each.
    #[test]
    fn every_token_is_scored_once_with_as_much_before_it_as_fits() {
        let ids: Vec<u32> = (10..18).collect();
        let found = windows(
            &ids,
            WindowConfig {
                window: 4,
                stride: 2,
            },
        );
        let expected = [
            (vec![10, 11, 12, 13], 0, vec![11, 12, 13, 14]),
            (vec![12, 13, 14, 15], 2, vec![15, 16]),
            (vec![13, 14, 15, 16], 3, vec![17]),
        ];
        let expected = expected.map(|(input_ids, from, targets)| Window {
            input_ids,
            from,
            targets,
        });
        assert_eq!(found, expected);
        let config = WindowConfig {
            window: 9,
            stride: 9,
        };
        assert_eq!(windows(&ids, config).len(), 1);
        assert!(windows(&ids[..1], config).is_empty());
    }

    /// 8 bits for every byte are `8 ln 2` nats each.
    #[test]
    fn bits_per_byte_by_hand() {
        let mut loss = TextLoss {
            num_documents: 1,
            num_tokens: 4,
            num_bytes: 6,
            nll: 6.0 * 8.0 * std::f64::consts::LN_2,
        };
        assert!((loss.bits_per_byte() - 8.0).abs() < 1e-12);
        assert!((loss.perplexity() - 2.0_f64.powi(12)).abs() < 1e-9);
        loss.add(&loss.clone());
        assert_eq!((loss.num_documents, loss.num_tokens), (2, 8));
        assert!((loss.bits_per_byte() - 8.0).abs() < 1e-12);
    }
}
