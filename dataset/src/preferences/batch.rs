//! Pairs side by side in rows: both answers of every pair, with as little padding as possible.
//!
//! Axis letters: `B` rows, `T` slots of a row.

use std::ops::Range;

use super::{AnsweredTokens, PairTokens};
use crate::batch::TokenBatch;
use crate::pack::{PackMode, PackOptions, pack_documents};

/// Where a pair's answers are predicted: slots of the batch, counted row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct PairSlots {
    /// Number of the pair.
    pub pair: u32,
    /// One slot per token of the better answer.
    pub chosen: Range<usize>,
    /// One slot per token of the worse answer.
    pub rejected: Range<usize>,
    /// Least lead that the better answer is to have, in rewards.
    pub margin: f32,
}

/// Pairs of one forward and backward pass.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PairBatch {
    /// `[B, T]`: rows as long as the longest answer with its prompt.
    pub tokens: TokenBatch,
    /// Where each pair stands in them.
    pub pairs: Vec<PairSlots>,
}

impl PairBatch {
    /// Packs pairs, each given with its number; both answers of a pair need not share a row.
    ///
    /// # Panics
    ///
    /// If an answer has no token, or no prompt before it.
    pub fn new(pairs: &[(u32, &PairTokens)], pad_id: u32) -> Self {
        let answers: Vec<&AnsweredTokens> =
            pairs.iter().flat_map(|(_, pair)| pair.answers()).collect();
        let len = |answer: u32| answers[answer as usize].input_ids().len();
        let numbers = 0..answers.len() as u32;
        let seq_len = numbers.clone().map(len).max().unwrap_or(1);
        let options = PackOptions {
            seq_len,
            mode: PackMode::Truncate,
            order: None,
        };
        let index = pack_documents(numbers.collect(), |answer| len(answer) as u64, options);

        let mut tokens = TokenBatch::with_capacity(index.num_rows(), seq_len);
        let mut slots = vec![0..0; answers.len()];
        for row in 0..index.num_rows() {
            let mut start = row * seq_len;
            let mut pieces = Vec::new();
            for piece in index.row(row) {
                let answered = answers[piece.document as usize];
                assert!(
                    answered.prompt_len > 0 && answered.num_answered() > 0,
                    "an answer is predicted from what stands before it"
                );
                let first = start + answered.prompt_len - 1;
                start += answered.input_ids().len();
                slots[piece.document as usize] = first..start;
                pieces.push((answered.input_ids(), answered.labels()));
            }
            let pieces = pieces.iter().map(|(ids, labels)| (*ids, labels.as_slice()));
            tokens.push_row(pieces, pad_id);
        }
        let slots = slots.chunks_exact(2).zip(pairs);
        Self {
            tokens,
            pairs: slots
                .map(|(slots, (number, pair))| PairSlots {
                    pair: *number,
                    chosen: slots[0].clone(),
                    rejected: slots[1].clone(),
                    margin: pair.margin,
                })
                .collect(),
        }
    }

    /// Number of pairs.
    pub fn num_pairs(&self) -> usize {
        self.pairs.len()
    }
}
