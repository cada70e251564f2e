//! A finished model that is asked for its distribution, and what it answered before.
//!
//! The likeliest tokens of every trained position are kept under a hash of the conversation, so
//! that the teacher runs once however many epochs there are. They are computed in one fixed order
//! before training, not as batches come: what is found does not depend on how rows are packed, and
//! a resumed run reads the same bits. The file's name is a hash of the teacher and of all that it
//! was asked.
//!
//! Axis letters: `S` trained tokens, `V` vocabulary, `K` tokens that the teacher thinks likeliest.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use dataset::Tokenizer;
use dataset::batch::{IGNORE_INDEX, TokenBatch};
use dataset::loader::FiniteBatches;
use dataset::say;
use model::CausalLm;
use model::config::ModelConfig;
use model::hf::{self, HfError};
use sha2::{Digest, Sha256};

use super::stage::{logits_of_slots, trained_slots};
use crate::config::DistillSection;
use crate::run_folder::write_atomically;
use crate::start::Start;
use crate::weights::{fingerprint, hex};

/// Why a teacher cannot teach.
#[derive(Debug, thiserror::Error)]
pub enum TeacherError {
    /// The teacher cannot be read.
    #[error("{}: the teacher cannot be read", path.display())]
    Model {
        /// Folder of the teacher.
        path: PathBuf,
        /// What went wrong.
        source: Box<HfError>,
    },
    /// The two do not speak of the same tokens.
    #[error(
        "{}: the teacher has {found} tokens, expected the student's {expected}",
        path.display()
    )]
    Vocabulary {
        /// Folder of the teacher.
        path: PathBuf,
        /// Tokens of the teacher.
        found: usize,
        /// Tokens of the student.
        expected: usize,
    },
    /// The teacher's tokens are other ones, as many as they are.
    #[error("{}: the teacher's tokenizer is not the student's", path.display())]
    Tokenizer {
        /// Folder of the teacher.
        path: PathBuf,
    },
    /// A row is longer than the teacher reads.
    #[error(
        "{}: the teacher reads {found} tokens, expected at least data.seq_len = {expected}",
        path.display()
    )]
    Length {
        /// Folder of the teacher.
        path: PathBuf,
        /// Most tokens of the teacher.
        found: usize,
        /// Tokens of a row.
        expected: usize,
    },
    /// What the teacher answered cannot be written down.
    #[error("{}: the teacher's answers cannot be written", path.display())]
    Write {
        /// File that was being written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The teacher's likeliest tokens and their log-probabilities over the whole vocabulary.
#[derive(Debug, Clone)]
pub struct Likeliest {
    /// `[S, K]`.
    pub ids: Tensor<2, Int>,
    /// `[S, K]`, in nats.
    pub logps: Tensor<2>,
}

/// Likeliest tokens of one conversation's trained positions, row by row.
type Answers = Vec<(u32, f32)>;

/// A finished model, and what it answered.
pub(super) struct Teacher {
    model: CausalLm,
    pub(super) temperature: f64,
    top_k: usize,
    /// Identity of its shape and weights.
    fingerprint: String,
    /// By the hash of a conversation's ids and labels.
    answers: HashMap<[u8; 16], Answers>,
}

impl Teacher {
    /// Reads the teacher and compares it with the student.
    pub(super) fn load(
        config: &DistillSection,
        start: &Start,
        seq_len: usize,
        device: &Device,
    ) -> Result<Self, TeacherError> {
        let path = config.teacher.clone();
        let model = hf::load_model(&path, &device.clone().inner()).map_err(|error| {
            TeacherError::Model {
                path: path.clone(),
                source: Box::new(error),
            }
        })?;
        let (found, expected) = (model.config().vocab_size, start.model_config.vocab_size);
        if found != expected {
            return Err(TeacherError::Vocabulary {
                path,
                found,
                expected,
            });
        }
        let (found, expected) = (model.config().max_position_embeddings, seq_len);
        if found < expected {
            return Err(TeacherError::Length {
                path,
                found,
                expected,
            });
        }
        // A folder without a tokenizer is taken at its word.
        if let Ok(tokenizer) = Tokenizer::load(&path)
            && tokenizer.fingerprint() != start.tokenizer.fingerprint()
        {
            return Err(TeacherError::Tokenizer { path });
        }
        Ok(Self {
            fingerprint: fingerprint(&model),
            model,
            temperature: config.temperature,
            top_k: config.top_k.min(start.model_config.vocab_size),
            answers: HashMap::new(),
        })
    }

    /// Identity of the teacher's shape and weights.
    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Asks for every conversation once, or reads what an earlier run asked for; breaks off when
    /// `stop` is set.
    pub(super) fn remember(
        &mut self,
        questions: &FiniteBatches,
        cache_dir: &Path,
        quiet: bool,
        stop: &AtomicBool,
    ) -> Result<ControlFlow<()>, TeacherError> {
        let path = cache_dir.join(format!("teacher-{}.bin", self.key(questions)));
        if let Some(answers) = fs::read(&path).ok().and_then(|bytes| parse(&bytes)) {
            self.answers = answers;
            return Ok(ControlFlow::Continue(()));
        }
        if !quiet {
            let num_rows = questions.num_rows();
            say!("asking the teacher about {num_rows} rows");
        }
        for batch in questions.iter() {
            if stop.load(Ordering::Relaxed) {
                return Ok(ControlFlow::Break(()));
            }
            let (slots, _) = trained_slots(&batch);
            if slots.is_empty() {
                continue;
            }
            let rows = self.likeliest_of(self.logits(&batch, &slots));
            let mut rows = rows.chunks_exact(self.top_k);
            for piece in pieces(&batch) {
                let answers = rows.by_ref().take(piece.num_trained).flatten();
                self.answers.insert(piece.hash, answers.copied().collect());
            }
        }
        let write_error = |source| TeacherError::Write {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(cache_dir).map_err(write_error)?;
        write_atomically(&path, &self.render()).map_err(write_error)?;
        Ok(ControlFlow::Continue(()))
    }

    /// What was answered about a batch's trained slots; `None` if nothing is remembered.
    ///
    /// # Panics
    ///
    /// If the teacher was asked about other conversations.
    pub(super) fn likeliest(&self, batch: &TokenBatch, device: &Device) -> Option<Likeliest> {
        if self.answers.is_empty() {
            return None;
        }
        let mut ids = Vec::new();
        let mut logps = Vec::new();
        for piece in pieces(batch) {
            let answers = self
                .answers
                .get(&piece.hash)
                .expect("the teacher was asked about every conversation that is trained on");
            for &(id, logp) in answers {
                ids.push(id as i32);
                logps.push(logp);
            }
        }
        let shape = [ids.len() / self.top_k, self.top_k];
        Some(Likeliest {
            ids: Tensor::from_data(TensorData::new(ids, shape), device),
            logps: Tensor::from_data(TensorData::new(logps, shape), device),
        })
    }

    /// The teacher's logits of some of a batch's slots, `[S, V]`.
    pub(super) fn logits(&self, batch: &TokenBatch, slots: &[i32]) -> Tensor<2> {
        logits_of_slots(&self.model, batch, slots)
    }

    /// The `K` likeliest tokens of each row, the likeliest first, equal ones by their ids.
    fn likeliest_of(&self, logits: Tensor<2>) -> Answers {
        let logps = log_softmax(logits.div_scalar(self.temperature), 1); // [S, V]
        let [_, vocab_size] = logps.dims();
        let data = logps.into_data();
        let values: Vec<f32> = data.iter::<f32>().collect();
        let mut answers = Vec::with_capacity(values.len() / vocab_size * self.top_k);
        let mut order: Vec<u32> = Vec::with_capacity(vocab_size);
        for row in values.chunks_exact(vocab_size) {
            let by_logp = |a: &u32, b: &u32| {
                let (a_logp, b_logp) = (row[*a as usize], row[*b as usize]);
                b_logp.total_cmp(&a_logp).then(a.cmp(b))
            };
            order.clear();
            order.extend(0..vocab_size as u32);
            if self.top_k < vocab_size {
                order.select_nth_unstable_by(self.top_k, by_logp);
                order.truncate(self.top_k);
            }
            order.sort_unstable_by(by_logp);
            answers.extend(order.iter().map(|&id| (id, row[id as usize])));
        }
        answers
    }

    /// Identity of everything that the answers depend on.
    fn key(&self, questions: &FiniteBatches) -> String {
        let mut hash = Sha256::new();
        hash.update(&self.fingerprint);
        hash.update(format!(" {} {} ", self.temperature, self.top_k));
        for batch in questions.iter() {
            for piece in pieces(&batch) {
                hash.update(piece.hash);
            }
        }
        hex(&hash.finalize()[..12])
    }

    fn render(&self) -> Vec<u8> {
        let mut keys: Vec<_> = self.answers.keys().collect();
        keys.sort_unstable();
        let mut bytes = Vec::new();
        for key in keys {
            let answers = &self.answers[key];
            bytes.extend(key);
            bytes.extend((answers.len() as u64).to_le_bytes());
            for (id, logp) in answers {
                bytes.extend(id.to_le_bytes());
                bytes.extend(logp.to_le_bytes());
            }
        }
        let digest = Sha256::digest(&bytes);
        bytes.extend(digest);
        bytes
    }
}

impl Likeliest {
    /// The same as constants of a student that is being trained.
    pub(super) fn tracked(self) -> Self {
        Self {
            ids: Tensor::from_inner(self.ids),
            logps: Tensor::from_inner(self.logps),
        }
    }
}

/// The shape of the teacher in a folder.
pub(super) fn read_shape(path: &Path) -> Result<ModelConfig, TeacherError> {
    ModelConfig::load(path).map_err(|error| TeacherError::Model {
        path: path.to_owned(),
        source: Box::new(error.into()),
    })
}

/// The answers of a file; `None` if it is not whole, and the teacher must be asked again.
fn parse(bytes: &[u8]) -> Option<HashMap<[u8; 16], Answers>> {
    let (mut rest, digest) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if Sha256::digest(rest).as_slice() != digest {
        return None;
    }
    let mut answers = HashMap::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_first_chunk::<16>()?;
        let (len, after) = after.split_first_chunk::<8>()?;
        let len = u64::from_le_bytes(*len) as usize;
        let (words, after) = after.split_at_checked(len * 8)?;
        let words = words.chunks_exact(8).map(|word| {
            let id = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            (id, f32::from_le_bytes([word[4], word[5], word[6], word[7]]))
        });
        answers.insert(*key, words.collect());
        rest = after;
    }
    Some(answers)
}

/// A conversation's stretch of a batch.
struct BatchPiece {
    hash: [u8; 16],
    num_trained: usize,
}

/// The conversations of a batch that have trained tokens, in their order.
fn pieces(batch: &TokenBatch) -> Vec<BatchPiece> {
    let starts: Vec<usize> = (0..batch.input_ids.len())
        .filter(|&slot| batch.positions[slot] == 0)
        .chain([batch.input_ids.len()])
        .collect();
    let piece = |range: &[usize]| {
        let labels = &batch.labels[range[0]..range[1]];
        let num_trained = labels
            .iter()
            .filter(|&&label| label != IGNORE_INDEX)
            .count();
        let mut hash = Sha256::new();
        for (id, label) in batch.input_ids[range[0]..range[1]].iter().zip(labels) {
            hash.update(id.to_le_bytes());
            hash.update(label.to_le_bytes());
        }
        let mut short = [0; 16];
        short.copy_from_slice(&hash.finalize()[..16]);
        BatchPiece {
            hash: short,
            num_trained,
        }
    };
    starts
        .windows(2)
        .map(piece)
        .filter(|piece| piece.num_trained > 0)
        .collect()
}
