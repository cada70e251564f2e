//! Pairs side by side in rows: both answers of every pair, in as few slots as possible.
//!
//! Axis letters: `B` rows, `T` slots of a row.

use std::ops::Range;

use super::{AnsweredTokens, PairTokens};
use crate::batch::{Fork, RowPiece, TokenBatch};
use crate::mask::labels_of;
use crate::pack::{PackIndex, PackMode, PackOptions, pack_documents};

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
    /// `[B, T]`: rows as long as the longest piece of them.
    pub tokens: TokenBatch,
    /// Where each pair stands in them.
    pub pairs: Vec<PairSlots>,
    /// Tokens of all answers, each with its prompt: as many as would be read if none were shared.
    pub num_tokens: usize,
}

/// An answer with its prompt, as a model is to read it.
struct Judged<'a> {
    ids: &'a [u32],
    labels: Vec<i32>,
    /// Its slots that are judged, counted from its first.
    slots: Range<usize>,
}

/// What lies together in a row: an answer with its prompt, or both answers behind what they share.
struct Piece {
    ids: Vec<u32>,
    labels: Vec<i32>,
    fork: Option<Fork>,
    /// Judged slots of its answers.
    slots: Vec<Range<usize>>,
}

impl Judged<'_> {
    fn alone(&self) -> Piece {
        Piece {
            ids: self.ids.to_vec(),
            labels: self.labels.clone(),
            fork: None,
            slots: vec![self.slots.clone()],
        }
    }

    /// With another answer behind the tokens that both begin with. What is judged is shared by none:
    /// a slot has one label.
    fn forked(&self, other: &Self) -> Piece {
        let same = self.ids.iter().zip(other.ids).take_while(|(a, b)| a == b);
        let shared = same.count().min(self.slots.start).min(other.slots.start);
        let first = self.ids.len() - shared;
        let Range { start, end } = other.slots;
        Piece {
            ids: [self.ids, &other.ids[shared..]].concat(),
            labels: [&self.labels, &other.labels[shared..]].concat(),
            fork: Some(Fork { shared, first }),
            slots: vec![self.slots.clone(), start + first..end + first],
        }
    }
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
            Judged {
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
            Judged {
                ids,
                labels: labels_of(ids, None),
                slots: ids.len() - 1..ids.len(),
            }
        })
    }

    /// Answers lie apart, or pairs behind one prompt, whichever takes fewer slots.
    fn new<'a>(
        pairs: &'a [PairTokens],
        numbers: &[u32],
        pad_id: u32,
        judged: impl Fn(&'a AnsweredTokens) -> Judged<'a>,
    ) -> Self {
        let answers: Vec<[Judged<'_>; 2]> = numbers
            .iter()
            .map(|&number| pairs[number as usize].answers().map(&judged))
            .collect();
        let apart: Vec<Piece> = answers.iter().flatten().map(Judged::alone).collect();
        let num_tokens = apart.iter().map(|piece| piece.ids.len()).sum();
        let forked = answers
            .iter()
            .map(|[chosen, rejected]| chosen.forked(rejected));
        let (apart, forked) = (Rows::of(apart), Rows::of(forked.collect()));
        let rows = if forked.num_slots() < apart.num_slots() {
            forked
        } else {
            apart
        };
        let (tokens, slots) = rows.fill(pad_id);
        let slots = slots.as_chunks::<2>().0.iter().zip(numbers);
        Self {
            tokens,
            pairs: slots
                .map(|([chosen, rejected], &number)| PairSlots {
                    pair: number,
                    chosen: chosen.clone(),
                    rejected: rejected.clone(),
                    margin: pairs[number as usize].margin,
                })
                .collect(),
            num_tokens,
        }
    }

    /// Number of pairs.
    pub fn num_pairs(&self) -> usize {
        self.pairs.len()
    }
}

/// Pieces with their places in rows.
struct Rows {
    pieces: Vec<Piece>,
    index: PackIndex,
    seq_len: usize,
}

impl Rows {
    /// Rows as long as the longest piece, with as little padding as possible.
    fn of(pieces: Vec<Piece>) -> Self {
        let len = |piece: u32| pieces[piece as usize].ids.len();
        let order = 0..pieces.len() as u32;
        let seq_len = order.clone().map(len).max().unwrap_or(1);
        let options = PackOptions {
            seq_len,
            mode: PackMode::Truncate,
            order: None,
        };
        let index = pack_documents(order.collect(), |piece| len(piece) as u64, options);
        Self {
            pieces,
            index,
            seq_len,
        }
    }

    fn num_slots(&self) -> usize {
        self.index.num_rows() * self.seq_len
    }

    /// The batch, and the judged slots of all answers in their order.
    fn fill(self, pad_id: u32) -> (TokenBatch, Vec<Range<usize>>) {
        let seq_len = self.seq_len;
        let mut tokens = TokenBatch::with_capacity(self.index.num_rows(), seq_len);
        let mut slots: Vec<Vec<Range<usize>>> = vec![Vec::new(); self.pieces.len()];
        for row in 0..self.index.num_rows() {
            let mut start = row * seq_len;
            let packed = self.index.row(row).iter();
            let pieces = packed.map(|packed| {
                let number = packed.document as usize;
                let piece = &self.pieces[number];
                let judged = piece.slots.iter();
                slots[number] = judged
                    .map(|slots| start + slots.start..start + slots.end)
                    .collect();
                start += piece.ids.len();
                RowPiece {
                    ids: &piece.ids,
                    labels: &piece.labels,
                    fork: piece.fork,
                }
            });
            tokens.push_row(pieces, pad_id);
        }
        (tokens, slots.into_iter().flatten().collect())
    }
}
