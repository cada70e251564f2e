//! Which documents of a corpus a tokenizer is trained on, and which it is measured on.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use documented::DocumentedFields;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::{
    Compression, Language, MAX_TRAIN_BYTES, TokenizerTrainError, TokenizerTrainer,
    measure_compression,
};
use crate::say;
use crate::source::{Documents, SourceConfig, SourceError, hashed_fraction};
use crate::tokenizer::Tokenizer;

/// One document of so many of each source is held out to measure compression on.
const HELD_OUT_EVERY: usize = 20;

/// Text held out of one source at most, in bytes.
const HELD_OUT_BYTES: usize = 4 << 20;

/// How much text a tokenizer is trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct SampleConfig {
    /// Text to train on at most, in bytes; of a larger corpus an even sample of its documents.
    /// Training takes about fifty times as much memory.
    pub max_train_bytes: u64,
    /// Seed of the sample.
    pub seed: u64,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self {
            max_train_bytes: 64 << 20,
            seed: 42,
        }
    }
}

/// A tokenizer with what is known about it.
#[derive(Debug)]
pub struct TrainedTokenizer {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Documents it was trained on, repeated ones counted again.
    pub num_documents: usize,
    /// UTF-8 bytes it was trained on.
    pub num_bytes: u64,
    /// Compression of the documents that were held out, per language.
    pub compression: BTreeMap<Language, Compression>,
}

/// Trains on files, with progress on standard error.
///
/// # Errors
///
/// What the files or the trainer's settings have wrong with them.
pub fn train_on_sources(
    trainer: &TokenizerTrainer,
    sources: &[SourceConfig],
    sample: &SampleConfig,
) -> Result<TrainedTokenizer, TokenizerTrainError> {
    trainer.validate()?;
    let documents = Documents::open(sources)?;
    let progress = Progress::new(documents.total_bytes());
    let mut sampler = Sampler::new(documents, sources, sample);
    let texts = std::iter::from_fn(|| {
        let text = sampler.next_text();
        progress.bar.set_position(sampler.read_bytes);
        if text.is_none() {
            progress.start_merging();
        }
        text
    });
    let trained = trainer.train(texts);
    progress.bar.finish_and_clear();
    if let Some(error) = sampler.error {
        return Err(error.into());
    }
    let tokenizer = trained?;
    Ok(TrainedTokenizer {
        compression: measure_compression(&tokenizer, &sampler.held_out),
        tokenizer,
        num_documents: sampler.num_documents,
        num_bytes: sampler.num_bytes,
    })
}

/// Training texts of a corpus, with what was seen on the way.
struct Sampler<'a> {
    documents: Documents,
    sources: &'a [SourceConfig],
    seed: u64,
    share: f64,
    index: u64,
    num_of_source: Vec<usize>,
    held_out_bytes: Vec<usize>,
    held_out: Vec<String>,
    pending: Option<(String, usize)>,
    read_bytes: u64,
    num_documents: usize,
    num_bytes: u64,
    error: Option<SourceError>,
}

impl<'a> Sampler<'a> {
    fn new(documents: Documents, sources: &'a [SourceConfig], sample: &SampleConfig) -> Self {
        let limit = sample.max_train_bytes.min(MAX_TRAIN_BYTES);
        // Files are never smaller than the text in them, so the sample stays under the limit
        // unless weights repeat it.
        let weight = sources
            .iter()
            .map(|source| source.weight)
            .fold(1.0, f64::max);
        let share = limit as f64 / (documents.total_bytes().max(1) as f64 * weight);
        Self {
            documents,
            sources,
            seed: sample.seed,
            share,
            index: 0,
            num_of_source: vec![0; sources.len()],
            held_out_bytes: vec![0; sources.len()],
            held_out: Vec::new(),
            pending: None,
            read_bytes: 0,
            num_documents: 0,
            num_bytes: 0,
            error: None,
        }
    }

    fn next_text(&mut self) -> Option<String> {
        loop {
            if let Some((text, copies)) = self.pending.take() {
                if copies > 1 {
                    self.pending = Some((text.clone(), copies - 1));
                }
                self.num_documents += 1;
                self.num_bytes += text.len() as u64;
                return Some(text);
            }
            match self.documents.next()? {
                Ok(document) => self.place(document.text, document.source),
                Err(error) => {
                    self.error = Some(error);
                    return None;
                }
            }
        }
    }

    /// Holds a document out, sets it up for training, or drops it.
    fn place(&mut self, text: String, source: usize) {
        let index = self.index;
        self.index += 1;
        self.read_bytes += text.len() as u64;
        self.num_of_source[source] += 1;
        let is_held_out = self.num_of_source[source].is_multiple_of(HELD_OUT_EVERY)
            && self.held_out_bytes[source] + text.len() <= HELD_OUT_BYTES;
        if is_held_out {
            self.held_out_bytes[source] += text.len();
            self.held_out.push(text);
        } else if hashed_fraction(self.seed, index) < self.share {
            // Another seed than the sample's: else a small share would take whole copies only.
            let copies = self.sources[source].copies(index, !self.seed);
            self.pending = (copies > 0).then_some((text, copies));
        }
    }
}

/// A bar on standard error; two plain lines where that is no terminal.
struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
}

impl Progress {
    fn new(total_bytes: u64) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let target = if is_terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let style = ProgressStyle::with_template(
            "{msg} {wide_bar} {bytes}/{total_bytes} {elapsed} (eta {eta})",
        );
        let bar = ProgressBar::with_draw_target(Some(total_bytes), target)
            .with_style(style.expect("the template is valid"))
            .with_message("reading text");
        if !is_terminal {
            say!("reading text: {total_bytes} bytes");
        }
        Self { bar, is_terminal }
    }

    fn start_merging(&self) {
        let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
        self.bar.set_style(style.expect("the template is valid"));
        self.bar.set_message("merging pairs");
        self.bar.enable_steady_tick(Duration::from_millis(200));
        if !self.is_terminal {
            say!("merging pairs");
        }
    }
}
