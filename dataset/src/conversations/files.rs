//! Files of rows, read and encoded on all cores, with what was found in each of them.

use std::path::PathBuf;

use rayon::prelude::*;

use super::{ConversationFault, ConversationsError};
use crate::rows::{NumberedRow, RowFormat, RowReader};
use crate::source::matching_files;

/// Rows that are rendered and encoded together, on all cores.
const BATCH_ROWS: usize = 1024;

/// What was found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSummary {
    /// The file.
    pub path: PathBuf,
    /// Its rows' format.
    pub format: RowFormat,
    /// Rows, broken ones included.
    pub num_rows: usize,
    /// Rows that cannot be used.
    pub num_bad: usize,
    /// Line of the first of them, and what is wrong with it.
    pub first_bad: Option<(usize, String)>,
}

/// Makes rows of files what a stage learns from.
pub trait RowEncoder: Sync {
    /// A row as token ids.
    type Encoded: Send;

    /// A row as it comes from a reader, encoded; `number` is its place, counted over all files.
    ///
    /// # Errors
    ///
    /// A row that is broken, is not of the stage's kind, or that the template refuses.
    fn encode_row(&self, row: NumberedRow, number: u64)
    -> Result<Self::Encoded, ConversationFault>;

    /// All rows of files, in their order, and what was found in each file.
    ///
    /// Rows that cannot be used are left out and counted, up to a share of `max_bad_ratio`.
    ///
    /// # Errors
    ///
    /// A file that is not there, cannot be read, has no usable row, or too many broken ones.
    fn encode_files(
        &self,
        files: &[String],
        format: RowFormat,
        max_bad_ratio: f64,
    ) -> Result<(Vec<Self::Encoded>, Vec<FileSummary>), ConversationsError> {
        encode_rows(files, format, max_bad_ratio, |row, number| {
            self.encode_row(row, number)
        })
    }
}

/// What `encode` makes of the rows of all files, in their order, and what was found in each file.
///
/// `encode` is given each row with its number, counted over all files: a file that is given twice
/// has other numbers the second time. Rows that it refuses are left out and counted, up to a share
/// of `max_bad_ratio`.
fn encode_rows<T: Send>(
    files: &[String],
    format: RowFormat,
    max_bad_ratio: f64,
    encode: impl Fn(NumberedRow, u64) -> Result<T, ConversationFault> + Sync,
) -> Result<(Vec<T>, Vec<FileSummary>), ConversationsError> {
    let mut found = Vec::new();
    let mut summaries: Vec<FileSummary> = Vec::new();
    for pattern in files {
        for path in matching_files(pattern)? {
            let first: u64 = summaries.iter().map(|file| file.num_rows as u64).sum();
            let mut reader = RowReader::open(&path, format)?;
            let mut summary = FileSummary {
                path,
                format: reader.format(),
                num_rows: 0,
                num_bad: 0,
                first_bad: None,
            };
            loop {
                let rows: Vec<NumberedRow> =
                    reader.by_ref().take(BATCH_ROWS).collect::<Result<_, _>>()?;
                if rows.is_empty() {
                    break;
                }
                let first = first + summary.num_rows as u64;
                let encoded: Vec<(usize, Result<T, ConversationFault>)> = rows
                    .into_par_iter()
                    .enumerate()
                    .map(|(index, row)| (row.line, encode(row, first + index as u64)))
                    .collect();
                summary.num_rows += encoded.len();
                for (line, encoded) in encoded {
                    match encoded {
                        Ok(encoded) => found.push(encoded),
                        Err(fault) => {
                            summary.num_bad += 1;
                            let first = || (line, fault.full_text());
                            summary.first_bad.get_or_insert_with(first);
                        }
                    }
                }
            }
            summary.check(max_bad_ratio)?;
            summaries.push(summary);
        }
    }
    Ok((found, summaries))
}

impl FileSummary {
    fn check(&self, max_bad_ratio: f64) -> Result<(), ConversationsError> {
        let path = self.path.clone();
        if self.num_bad as f64 > max_bad_ratio * self.num_rows as f64
            && let Some((line, fault)) = self.first_bad.clone()
        {
            return Err(ConversationsError::TooManyBad {
                path,
                line,
                num_bad: self.num_bad,
                num_rows: self.num_rows,
                max_bad_ratio,
                fault,
            });
        }
        if self.num_bad == self.num_rows {
            return Err(ConversationsError::NoRows { path });
        }
        Ok(())
    }
}

impl std::fmt::Display for FileSummary {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            format, num_rows, ..
        } = self;
        write!(
            formatter,
            "{}: {num_rows} rows of the format {format}",
            self.path.display()
        )?;
        if let Some((line, fault)) = &self.first_bad {
            let num_bad = self.num_bad;
            write!(
                formatter,
                ", {num_bad} of them left out, the first at line {line}: {fault}"
            )?;
        }
        Ok(())
    }
}
