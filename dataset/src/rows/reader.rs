//! A file of conversations or preferences, row by row, in whatever format it is.

use std::collections::VecDeque;
use std::path::Path;

use serde_json::Value;

use super::chat_formats::{
    from_alpaca, from_magpie, from_messages, from_minimind_csv, from_prompt_response, from_sharegpt,
};
use super::fields::Fields;
use super::loyalty_formats::from_loyalty;
use super::preference_formats::from_preference;
use super::raw::{RawRow, RawRows};
use super::{Row, RowFault, RowFormat, RowsError};

/// Rows that are looked at to find the format.
const NUM_FIRST_ROWS: usize = 16;

/// A row with its place in the file.
#[derive(Debug)]
pub struct NumberedRow {
    /// Line on which the row begins, from 1; rows in one object share its line.
    pub line: usize,
    /// The row, or why it cannot be used.
    pub row: Result<Row, RowFault>,
}

/// Iterator over the rows of a file that holds a few of them in memory.
///
/// It goes on after a row that cannot be used, and ends after an error.
#[derive(Debug)]
pub struct RowReader {
    format: RowFormat,
    waiting: VecDeque<(usize, Result<Value, RowFault>)>,
    raw: RawRows,
}

impl RowReader {
    /// Opens a file and finds out its format, unless it is given.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, of an unknown kind, or whose first rows look like no format.
    pub fn open(path: &Path, format: RowFormat) -> Result<Self, RowsError> {
        let mut reader = Self {
            format,
            waiting: VecDeque::new(),
            raw: RawRows::open(path)?,
        };
        if format == RowFormat::Auto {
            while reader.waiting.len() < NUM_FIRST_ROWS && reader.read_on()? {}
            let first = reader.waiting.iter();
            let first = first.filter_map(|(_, value)| value.as_ref().ok());
            reader.format = RowFormat::detect(path, first)?;
        }
        Ok(reader)
    }

    /// The format, given or found out.
    pub fn format(&self) -> RowFormat {
        self.format
    }

    /// Reads one more row; false at the end of the file.
    fn read_on(&mut self) -> Result<bool, RowsError> {
        let row = self.raw.next().transpose()?;
        let row = row.map(|RawRow { line, value }| (line, value));
        let is_there = row.is_some();
        self.waiting.extend(row);
        Ok(is_there)
    }
}

impl Iterator for RowReader {
    type Item = Result<NumberedRow, RowsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.waiting.is_empty()
            && let Err(error) = self.read_on()
        {
            return Some(Err(error));
        }
        let (line, value) = self.waiting.pop_front()?;
        let row = value.and_then(|value| self.format.read(value));
        Some(Ok(NumberedRow { line, row }))
    }
}

impl RowFormat {
    /// A row of this format.
    pub(crate) fn read(self, value: Value) -> Result<Row, RowFault> {
        let fields = Fields::of(value)?;
        let chat = match self {
            Self::Messages => from_messages(fields),
            Self::Sharegpt => from_sharegpt(fields),
            Self::Alpaca => from_alpaca(fields),
            Self::PromptResponse => from_prompt_response(fields),
            Self::Magpie => from_magpie(fields),
            Self::MinimindCsv => from_minimind_csv(fields),
            Self::Preference => {
                return from_preference(fields).map(|row| Row::Preference(Box::new(row)));
            }
            Self::Loyalty => {
                return from_loyalty(fields).map(|row| Row::Loyalty(Box::new(row)));
            }
            Self::Auto => unreachable!("the format is found out when the file is opened"),
        };
        chat.map(Row::Chat)
    }
}
