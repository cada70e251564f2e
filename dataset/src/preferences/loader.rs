//! An endless, deterministic order of pairs, with a cursor from which it goes on exactly.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{PairTokens, pairs_fingerprint};
use crate::draw::Draw;
use crate::loader::{LoaderCursor, LoaderError};

/// Stream of draws that orders the epochs.
const ORDER_STREAM: u64 = 0xd40;

/// Epoch after epoch of pairs, each in an order of its own.
///
/// Every batch is full: the last pairs of an epoch share a batch with the first of the next.
#[derive(Debug)]
pub struct PairLoader {
    pairs: Arc<Vec<PairTokens>>,
    /// Pairs that are trained on, by their numbers.
    numbers: Vec<u32>,
    batch_size: usize,
    seed: u64,
    fingerprint: u64,
    epoch: u64,
    /// The numbers in the order of the epoch.
    order: Vec<u32>,
    next: usize,
}

impl PairLoader {
    /// A loader of some of the pairs, in batches of `batch_size`, at the start of epoch 0.
    ///
    /// The seed decides the order of every epoch.
    ///
    /// # Errors
    ///
    /// A batch size of 0, or no pair.
    ///
    /// # Panics
    ///
    /// If there is no pair of one of the numbers.
    pub fn new(
        pairs: Arc<Vec<PairTokens>>,
        numbers: Vec<u32>,
        batch_size: usize,
        seed: u64,
    ) -> Result<Self, LoaderError> {
        if batch_size == 0 {
            return Err(LoaderError::Size {
                field: "batch_size",
                found: 0,
                expected: 1,
            });
        }
        if numbers.is_empty() {
            return Err(LoaderError::NothingToLearn { num_documents: 0 });
        }
        let num_pairs = pairs.len();
        assert!(
            numbers.iter().all(|&number| (number as usize) < num_pairs),
            "a number of none of the {num_pairs} pairs"
        );
        let mut loader = Self {
            fingerprint: fingerprint(&pairs, &numbers, seed),
            pairs,
            order: Vec::new(),
            numbers,
            batch_size,
            seed,
            epoch: 0,
            next: 0,
        };
        loader.enter_epoch(0);
        Ok(loader)
    }

    /// Numbers of the next pairs.
    pub fn next_numbers(&mut self) -> Vec<u32> {
        let mut numbers = Vec::with_capacity(self.batch_size);
        while numbers.len() < self.batch_size {
            if self.next == self.order.len() {
                self.enter_epoch(self.epoch + 1);
            }
            numbers.push(self.order[self.next]);
            self.next += 1;
        }
        numbers
    }

    /// Where the next batch begins.
    pub fn cursor(&self) -> LoaderCursor {
        LoaderCursor {
            epoch: self.epoch,
            row: self.next as u64,
            fingerprint: self.fingerprint,
        }
    }

    /// Goes to a place from which batches come exactly as they came from there before.
    ///
    /// # Errors
    ///
    /// A cursor of other data, or one that points to no pair; the loader then stays where it is.
    pub fn seek(&mut self, cursor: LoaderCursor) -> Result<(), LoaderError> {
        if cursor.fingerprint != self.fingerprint {
            return Err(LoaderError::OtherData {
                found: cursor.fingerprint,
                expected: self.fingerprint,
            });
        }
        let num_rows = self.numbers.len();
        // Just past the last pair is where an epoch's last batch ends.
        if cursor.row > num_rows as u64 {
            return Err(LoaderError::NoSuchRow {
                row: cursor.row,
                epoch: cursor.epoch,
                num_rows,
            });
        }
        self.enter_epoch(cursor.epoch);
        self.next = cursor.row as usize;
        Ok(())
    }

    /// Passes over the pairs so far, the present one as a share.
    pub fn epochs(&self) -> f64 {
        self.epoch as f64 + self.next as f64 / self.numbers.len() as f64
    }

    /// Pairs of an epoch.
    pub fn num_pairs(&self) -> usize {
        self.numbers.len()
    }

    /// Tokens of an epoch, both answers of every pair with their prompts.
    pub fn num_tokens(&self) -> u64 {
        let pairs = self.numbers.iter();
        pairs
            .map(|&number| self.pairs[number as usize].num_tokens() as u64)
            .sum()
    }

    fn enter_epoch(&mut self, epoch: u64) {
        self.order.clone_from(&self.numbers);
        Draw::new(self.seed ^ ORDER_STREAM, epoch).shuffle(&mut self.order);
        self.epoch = epoch;
        self.next = 0;
    }
}

/// Hash of what decides the batches but their size, in the 52 bits that every reader of JSON keeps
/// exactly.
fn fingerprint(pairs: &[PairTokens], numbers: &[u32], seed: u64) -> u64 {
    let mut hash = Sha256::new();
    hash.update(pairs_fingerprint(pairs));
    hash.update(seed.to_le_bytes());
    for number in numbers {
        hash.update(number.to_le_bytes());
    }
    let digest = hash.finalize();
    digest[..8]
        .iter()
        .fold(0, |bits: u64, &byte| bits << 8 | u64::from(byte))
        >> 12
}
