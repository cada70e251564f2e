//! Log-probabilities of all answers under the model that training starts from, asked for once.
//!
//! They are computed in the order of the pairs, in batches of a fixed number: a resumed run finds
//! or computes the same bits, and no second model is in memory while the first one learns.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use dataset::preferences::{PairBatch, PairTokens};
use dataset::say;
use model::CausalLm;
use sha2::{Digest, Sha256};

use crate::config::DpoSection;
use crate::logps::token_logps;
use crate::loss::to_device;
use crate::pair_data::PairData;
use crate::report::progress_bar;
use crate::run_folder::write_atomically;
use crate::weights::{fingerprint, hex};

/// Pairs of a forward pass.
const BATCH_PAIRS: usize = 8;

/// Why the reference's answers are lost.
#[derive(Debug, thiserror::Error)]
#[error("{}: the reference's log-probabilities cannot be written", path.display())]
pub struct ReferenceError {
    /// File that was being written.
    path: PathBuf,
    /// What the system said.
    source: io::Error,
}

/// The reference's log-probability of every token of every answer, in nats.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReferenceLogps {
    /// Answer after answer, the better one of each pair first.
    values: Vec<f32>,
    /// Where each answer begins, and where the last one ends.
    starts: Vec<usize>,
    /// Identity of the reference and of what it was asked.
    key: String,
}

impl ReferenceLogps {
    /// Asks the model about every pair, or reads what an earlier run asked for; `None` when `stop` is
    /// set before all are asked about.
    pub(crate) fn open_or_ask(
        model: &CausalLm,
        data: &PairData,
        dpo: &DpoSection,
        quiet: bool,
        stop: &AtomicBool,
    ) -> Result<Option<Self>, ReferenceError> {
        let mut hash = Sha256::new();
        hash.update(&data.fingerprint);
        hash.update(fingerprint(model));
        let key = hex(&hash.finalize()[..12]);
        let path = dpo.cache_dir.join(format!("reference-{key}.bin"));
        let starts = starts_of(&data.pairs);
        let num_values = starts.last().copied().unwrap_or(0);
        let kept = fs::read(&path)
            .ok()
            .and_then(|bytes| parse(&bytes, num_values));
        if let Some(values) = kept {
            return Ok(Some(Self {
                values,
                starts,
                key,
            }));
        }
        let Some(values) = ask(model, &data.pairs, quiet, stop) else {
            return Ok(None);
        };
        let write_error = |source| ReferenceError {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(&dpo.cache_dir).map_err(write_error)?;
        write_atomically(&path, &render(&values)).map_err(write_error)?;
        Ok(Some(Self {
            values,
            starts,
            key,
        }))
    }

    /// Identity of the reference and of what it was asked.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Of a pair's answers, the better one first: one number per token.
    pub(crate) fn of_pair(&self, pair: u32) -> [&[f32]; 2] {
        let first = 2 * pair as usize;
        [first, first + 1].map(|answer| &self.values[self.starts[answer]..self.starts[answer + 1]])
    }
}

fn starts_of(pairs: &[PairTokens]) -> Vec<usize> {
    let mut starts = vec![0];
    let mut end = 0;
    for answered in pairs.iter().flat_map(PairTokens::answers) {
        end += answered.num_answered();
        starts.push(end);
    }
    starts
}

fn ask(model: &CausalLm, pairs: &[PairTokens], quiet: bool, stop: &AtomicBool) -> Option<Vec<f32>> {
    if !quiet {
        say!("asking the reference about {} pairs", pairs.len());
    }
    let device = model.embed_tokens.weight.device();
    let bar = progress_bar("asking the reference", pairs.len() as u64, quiet);
    let mut values = Vec::new();
    let numbers: Vec<u32> = (0..pairs.len() as u32).collect();
    for numbers in numbers.chunks(BATCH_PAIRS) {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        // Padding is not looked at by anything, whatever its id is.
        let batch = PairBatch::predicting(pairs, numbers, 0);
        let logps = token_logps(model, to_device(&batch.tokens, &device)); // [B * T]
        let logps: Vec<f32> = logps.into_data().iter().collect();
        for slots in batch.pairs {
            values.extend(&logps[slots.chosen]);
            values.extend(&logps[slots.rejected]);
        }
        bar.inc(numbers.len() as u64);
    }
    bar.finish_and_clear();
    Some(values)
}

fn render(values: &[f32]) -> Vec<u8> {
    let mut bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let digest = Sha256::digest(&bytes);
    bytes.extend(digest);
    bytes
}

/// The values of a file; `None` if it is not whole, and the model must be asked again.
fn parse(bytes: &[u8], num_values: usize) -> Option<Vec<f32>> {
    let (values, digest) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    let is_whole = values.len() == 4 * num_values && Sha256::digest(values).as_slice() == digest;
    let words = values.as_chunks::<4>().0.iter();
    is_whole.then(|| words.map(|word| f32::from_le_bytes(*word)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte that is lost or changed, or another number of answers, makes the file none.
    #[test]
    fn only_a_whole_file_is_read() {
        let values = [0.5, -1.25, -0.0];
        let bytes = render(&values);
        assert_eq!(parse(&bytes, 3), Some(values.to_vec()));
        assert_eq!(parse(&bytes, 2), None);
        assert_eq!(parse(&bytes[1..], 3), None);
        let mut changed = bytes.clone();
        changed[5] ^= 1;
        assert_eq!(parse(&changed, 3), None);
        assert_eq!(parse(&[], 0), None);
    }
}
