//! Rows of a Parquet file, which is how the Hugging Face Hub keeps most data sets.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use parquet::file::reader::SerializedFileReader;
use parquet::record::reader::RowIter;

use super::RowsError;
use super::raw::RawRow;
use crate::lines::ReadError;

/// Rows of a Parquet file as objects of their columns, a few of them in memory.
pub(super) struct ParquetRows {
    path: PathBuf,
    rows: RowIter<'static>,
    num_read: usize,
}

impl ParquetRows {
    pub(super) fn open(path: &Path) -> Result<Self, RowsError> {
        let file = File::open(path).map_err(|source| ReadError::Io {
            path: path.to_owned(),
            source,
        })?;
        let reader = SerializedFileReader::new(file).map_err(|error| fault(path, error))?;
        Ok(Self {
            path: path.to_owned(),
            rows: reader.into_iter(),
            num_read: 0,
        })
    }

    /// The next row; rows take the place of lines.
    pub(super) fn read_row(&mut self) -> Result<Option<RawRow>, RowsError> {
        let Some(row) = self.rows.next() else {
            return Ok(None);
        };
        let row = row.map_err(|error| fault(&self.path, error))?;
        self.num_read += 1;
        Ok(Some(RawRow {
            line: self.num_read,
            value: Ok(row.to_json_value()),
        }))
    }
}

impl fmt::Debug for ParquetRows {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = formatter.debug_struct("ParquetRows");
        fields.field("path", &self.path).finish_non_exhaustive()
    }
}

fn fault(path: &Path, source: ParquetError) -> RowsError {
    RowsError::Parquet {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::raw::RawRows;
    use super::*;

    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/hub");

    fn rows(file: &str) -> Vec<(usize, Value)> {
        let rows = RawRows::open(&Path::new(FOLDER).join(file)).unwrap();
        rows.map(|row| {
            let row = row.unwrap();
            (row.line, row.value.unwrap())
        })
        .collect()
    }

    /// Written by pyarrow 26 from the rows in tests/golden/hub/make.py: text, a column of nulls, a
    /// list of texts, numbers, and turns as a list of objects.
    #[test]
    fn nested_columns_become_json() {
        let rows_of_s1k = rows("simplescaling/s1K/data/train-00000-of-00001.parquet");
        let (line, row) = &rows_of_s1k[1];
        assert_eq!((rows_of_s1k.len(), *line), (2, 2));
        assert_eq!(row["question"], "What is 6 times 7?");
        assert_eq!(row["cot"], Value::Null);
        assert_eq!(
            row["thinking_trajectories"],
            json!(["Six sevens.", "They are 42."])
        );
        let cleaned = "argilla/ultrafeedback-binarized-preferences-cleaned";
        let rows = rows(&format!("{cleaned}/data/train-00000-of-00001.parquet"));
        let answer = json!({"content": "Blue.", "role": "assistant"});
        assert_eq!(rows[0].1["chosen"][1], answer);
        assert_eq!(rows[0].1["chosen-rating"], json!(4.5));
    }

    /// Half a file has no footer, and the footer is where Parquet is read from.
    #[test]
    fn a_broken_file_is_named() {
        let whole = Path::new(FOLDER).join("simplescaling/s1K/data/train-00000-of-00001.parquet");
        let bytes = std::fs::read(whole).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("half.parquet");
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let message = RawRows::open(&path).unwrap_err().to_string();
        assert!(
            message.ends_with("half.parquet: not a Parquet file that can be read"),
            "{message}"
        );
    }
}
