//! A data set's files to APT's records: one file per split, with a guard against columns that are
//! not what they were taken for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::origin::{Found, Origin, OriginError};
use super::reasons::Reasons;
use super::record::DropReason;
use super::sample::Sample;
use super::source::{Part, Source};
use super::writer::{RowsWriter, WriteError, Written};
use crate::rows::{RawRow, RawRows, RowsError};

/// What is asked of a preparation.
#[derive(Debug, Clone)]
pub struct PrepareOptions {
    /// Folder of the prepared files.
    pub output_dir: PathBuf,
    /// Records of each file at most, drawn at random.
    pub max_samples: Option<usize>,
    /// Decides which records are drawn.
    pub seed: u64,
    /// Share of a split's rows that may be dropped, from 0 to 1.
    pub max_dropped: f64,
}

/// A split of a data set, prepared.
#[derive(Debug, Clone)]
pub struct PreparedFile {
    /// Split: train, test or validation.
    pub split: String,
    /// Rows of the data set's own files.
    pub num_read: usize,
    /// Rows that became no record, with their reasons.
    pub dropped: Reasons,
    /// The file.
    pub written: Written,
}

/// A data set, prepared.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Commit of the hub that was read; none for files of a folder.
    pub revision: Option<String>,
    /// Its files, one per split.
    pub files: Vec<PreparedFile>,
}

/// Why a data set could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Its files are not to be had.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// A file cannot be read on.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// The prepared file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The files are empty.
    #[error("{name}: its {split} files hold no rows, expected at least one")]
    NoRows {
        /// Data set.
        name: &'static str,
        /// Split.
        split: String,
    },
    /// Most likely the columns are others than expected.
    #[error(
        "{name}: {} of {num_read} {split} rows cannot be used, expected less than a share of \
         {max_dropped}: {reasons}",
        reasons.total()
    )]
    TooManyDropped {
        /// Data set.
        name: &'static str,
        /// Split.
        split: String,
        /// Rows of its files.
        num_read: usize,
        /// Share that may be dropped.
        max_dropped: f64,
        /// Why rows were dropped.
        reasons: Reasons,
    },
}

/// Writes `{name}_{split}.jsonl` for every split of a data set.
///
/// # Errors
///
/// Files that are not to be had, cannot be read or written, or of which too many rows are dropped;
/// then the split's file is not written.
pub fn prepare(
    source: &Source,
    origin: &Origin,
    options: &PrepareOptions,
) -> Result<Prepared, PrepareError> {
    let found = origin.find(source)?;
    let mut splits: BTreeMap<&str, Vec<(&str, &Part)>> = BTreeMap::new();
    for (file, part) in &found.files {
        splits
            .entry(&part.split)
            .or_default()
            .push((file.as_str(), part));
    }
    let mut files = Vec::new();
    for (split, parts) in splits {
        files.push(prepare_split(source, &found, split, &parts, options)?);
    }
    Ok(Prepared {
        revision: found.revision,
        files,
    })
}

fn prepare_split(
    source: &Source,
    found: &Found<'_>,
    split: &str,
    parts: &[(&str, &Part)],
    options: &PrepareOptions,
) -> Result<PreparedFile, PrepareError> {
    let name = source.name;
    let path = options.output_dir.join(format!("{name}_{split}.jsonl"));
    let mut output = Output::create(&path, options)?;
    let mut num_read = 0;
    let mut dropped = Reasons::default();
    for (file, part) in parts {
        for row in RawRows::open(&found.fetch(file)?)? {
            let RawRow { line, value } = row?;
            num_read += 1;
            let record = value.map_err(DropReason::from);
            match record.and_then(|row| (source.convert)(row, part)) {
                Ok(record) => output
                    .push(serde_json::to_string(&record).expect("records have texts for keys"))?,
                Err(reason) => dropped.note(reason.to_string(), || format!("{file}:{line}")),
            }
        }
    }
    let (split, max_dropped) = (split.to_owned(), options.max_dropped);
    if num_read == 0 {
        return Err(PrepareError::NoRows { name, split });
    }
    let share = dropped.total() as f64 / num_read as f64;
    if share >= 1.0 || share > max_dropped {
        return Err(PrepareError::TooManyDropped {
            name,
            split,
            num_read,
            max_dropped,
            reasons: dropped,
        });
    }
    Ok(PreparedFile {
        split,
        num_read,
        dropped,
        written: output.finish()?,
    })
}

/// Where records go: into the file, or first through a draw.
struct Output {
    writer: RowsWriter,
    sample: Option<Sample<String>>,
}

impl Output {
    fn create(path: &Path, options: &PrepareOptions) -> Result<Self, WriteError> {
        let sample = options.max_samples;
        Ok(Self {
            writer: RowsWriter::create(path)?,
            sample: sample.map(|capacity| Sample::new(capacity, options.seed)),
        })
    }

    fn push(&mut self, line: String) -> Result<(), WriteError> {
        match &mut self.sample {
            Some(sample) => {
                sample.push(line);
                Ok(())
            }
            None => self.writer.push_line(&line),
        }
    }

    fn finish(mut self) -> Result<Written, WriteError> {
        for line in self.sample.into_iter().flat_map(Sample::into_rows) {
            self.writer.push_line(&line)?;
        }
        self.writer.finish()
    }
}
