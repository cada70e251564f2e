//! One question with two answers as token ids.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::batch::IGNORE_INDEX;
use crate::cache::hex;
use crate::split::split_indices;

/// A prompt with one answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnsweredTokens {
    /// Token ids of the prompt, then those of the answer with its end of turn.
    pub ids: Vec<u32>,
    /// Ids that are the prompt's.
    pub prompt_len: usize,
}

impl AnsweredTokens {
    /// Tokens of the answer.
    pub fn num_answered(&self) -> usize {
        self.ids.len() - self.prompt_len
    }

    /// What the model reads: all but the last token, which nothing follows.
    pub fn input_ids(&self) -> &[u32] {
        &self.ids[..self.ids.len().saturating_sub(1)]
    }

    /// What it is to predict there: the answer's tokens, and nothing of the prompt's.
    pub fn labels(&self) -> Vec<i32> {
        let next = self.ids.iter().enumerate().skip(1);
        next.map(|(place, &id)| {
            if place < self.prompt_len {
                IGNORE_INDEX
            } else {
                id as i32
            }
        })
        .collect()
    }

    /// Leaves out what a row has no room for.
    fn truncate(&mut self, seq_len: usize) {
        self.ids.truncate(seq_len + 1);
        self.prompt_len = self.prompt_len.min(self.ids.len());
    }
}

/// One question with a better and a worse answer.
#[derive(Debug, Clone, PartialEq)]
pub struct PairTokens {
    /// With the better answer.
    pub chosen: AnsweredTokens,
    /// With the worse answer.
    pub rejected: AnsweredTokens,
    /// Least lead that the better answer is to have, in rewards.
    pub margin: f32,
    /// Pairs of one group are trained on or held out together: those with the same prompt.
    pub group: u64,
}

impl PairTokens {
    /// A pair without a margin, in the group of its prompt.
    pub fn new(chosen: AnsweredTokens, rejected: AnsweredTokens) -> Self {
        let mut hash = Sha256::new();
        for id in &chosen.ids[..chosen.prompt_len] {
            hash.update(id.to_le_bytes());
        }
        let mut group = [0; 8];
        group.copy_from_slice(&hash.finalize()[..8]);
        Self {
            chosen,
            rejected,
            margin: 0.0,
            group: u64::from_le_bytes(group),
        }
    }

    /// Puts a token before both prompts; the group stays that of the question.
    pub(crate) fn begin_with(&mut self, id: u32) {
        for answered in [&mut self.chosen, &mut self.rejected] {
            answered.ids.insert(0, id);
            answered.prompt_len += 1;
        }
    }

    /// Both answers, the better one first.
    pub fn answers(&self) -> [&AnsweredTokens; 2] {
        [&self.chosen, &self.rejected]
    }

    /// Tokens that the model reads for both answers.
    pub fn num_tokens(&self) -> usize {
        let read = self
            .answers()
            .map(|answered| answered.input_ids().len())
            .into_iter();
        read.sum()
    }

    /// The pair within rows of `seq_len` slots, answers losing their ends; `None` if nothing is
    /// left by which its answers differ.
    #[must_use]
    pub fn cut(mut self, seq_len: usize) -> Option<Self> {
        self.chosen.truncate(seq_len);
        self.rejected.truncate(seq_len);
        let has_answers = self.answers().iter().all(|answered| {
            // A prompt of no tokens leaves nothing from which to predict the answer's first one.
            answered.num_answered() > 0 && answered.prompt_len > 0
        });
        (has_answers && self.chosen.ids != self.rejected.ids).then_some(self)
    }
}

/// Indices of the pairs to train on and of those held out, in ascending order; a group is never
/// parted.
pub fn split_pairs(pairs: &[PairTokens], fraction: f64, seed: u64) -> (Vec<u32>, Vec<u32>) {
    let mut numbers = HashMap::new();
    let groups: Vec<u32> = pairs
        .iter()
        .map(|pair| {
            let next = numbers.len() as u32;
            *numbers.entry(pair.group).or_insert(next)
        })
        .collect();
    let (_, held_out) = split_indices(numbers.len() as u32, fraction, seed);
    let is_held_out = |index: &u32| held_out.binary_search(&groups[*index as usize]).is_ok();
    let (held_out, train) = (0..pairs.len() as u32).partition(is_held_out);
    (train, held_out)
}

/// Identity of pairs: their tokens, prompts and margins.
pub fn pairs_fingerprint(pairs: &[PairTokens]) -> String {
    let mut hash = Sha256::new();
    for pair in pairs {
        for answered in pair.answers() {
            hash.update((answered.ids.len() as u64).to_le_bytes());
            hash.update((answered.prompt_len as u64).to_le_bytes());
            for id in &answered.ids {
                hash.update(id.to_le_bytes());
            }
        }
        hash.update(pair.margin.to_le_bytes());
        hash.update(pair.group.to_le_bytes());
    }
    hex(&hash.finalize()[..16])
}
