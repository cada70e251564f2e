//! Pairs side by side in rows: both answers of every pair, with as little padding as possible.
//!
//! Axis letters: `B` rows, `T` slots of a row.

use std::ops::Range;

use super::{AnsweredTokens, PairTokens};
use crate::batch::TokenBatch;
use crate::mask::labels_of;
use crate::pack::{PackMode, PackOptions, pack_documents};

/// Where a pair's answers are judged: slots of the batch, counted row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct PairSlots {
    /// Number of the pair.
    pub pair: u32,
    /// Of the better answer.
    pub chosen: Range<usize>,
    /// Of the worse answer.
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

/// An answer with its prompt as it lies in a row.
struct Piece<'a> {
    ids: &'a [u32],
    labels: Vec<i32>,
    /// Its slots that are judged, counted from its first.
    slots: Range<usize>,
}

impl PairBatch {
    /// The pairs of some numbers for a model that predicts their answers: one slot per token of an
    /// answer, each before the token that is its label. Nothing of a prompt has a label.
    ///
    /// # Panics
    ///
    /// If there is no pair of a number, or an answer has no token or no prompt before it.
    pub fn predicting(pairs: &[PairTokens], numbers: &[u32], pad_id: u32) -> Self {
        Self::new(pairs, numbers, pad_id, |answered| {
            assert!(
                answered.prompt_len > 0 && answered.num_answered() > 0,
                "an answer is predicted from what stands before it"
            );
            let ids = answered.input_ids();
            Piece {
                ids,
                labels: answered.labels(),
                slots: answered.prompt_len - 1..ids.len(),
            }
        })
    }

    /// The pairs of some numbers for a model that reads them to their ends: the last token's slot of
    /// each answer.
    ///
    /// # Panics
    ///
    /// If there is no pair of a number, or one of its answers has no token with its prompt.
    pub fn reading(pairs: &[PairTokens], numbers: &[u32], pad_id: u32) -> Self {
        Self::new(pairs, numbers, pad_id, |answered| {
            let ids = answered.ids.as_slice();
            Piece {
                ids,
                labels: labels_of(ids, None),
                slots: ids.len() - 1..ids.len(),
            }
        })
    }

    fn new<'a>(
        pairs: &'a [PairTokens],
        numbers: &[u32],
        pad_id: u32,
        piece_of: impl Fn(&'a AnsweredTokens) -> Piece<'a>,
    ) -> Self {
        let answers: Vec<Piece<'_>> = numbers
            .iter()
            .flat_map(|&number| pairs[number as usize].answers())
            .map(piece_of)
            .collect();
        let len = |answer: u32| answers[answer as usize].ids.len();
        let order = 0..answers.len() as u32;
        let seq_len = order.clone().map(len).max().unwrap_or(1);
        let options = PackOptions {
            seq_len,
            mode: PackMode::Truncate,
            order: None,
        };
        let index = pack_documents(order.collect(), |answer| len(answer) as u64, options);

        let mut tokens = TokenBatch::with_capacity(index.num_rows(), seq_len);
        let mut slots = vec![0..0; answers.len()];
        for row in 0..index.num_rows() {
            let mut start = row * seq_len;
            let pieces = index.row(row).iter();
            let pieces: Vec<&Piece<'_>> = pieces
                .map(|piece| {
                    let answer = &answers[piece.document as usize];
                    let Range { start: first, end } = answer.slots;
                    slots[piece.document as usize] = start + first..start + end;
                    start += answer.ids.len();
                    answer
                })
                .collect();
            let pieces = pieces.iter();
            tokens.push_row(
                pieces.map(|piece| (piece.ids, piece.labels.as_slice())),
                pad_id,
            );
        }
        let slots = slots.chunks_exact(2).zip(numbers);
        Self {
            tokens,
            pairs: slots
                .map(|(slots, &number)| PairSlots {
                    pair: number,
                    chosen: slots[0].clone(),
                    rejected: slots[1].clone(),
                    margin: pairs[number as usize].margin,
                })
                .collect(),
        }
    }

    /// Number of pairs.
    pub fn num_pairs(&self) -> usize {
        self.pairs.len()
    }
}
