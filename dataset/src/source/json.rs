//! Texts of a JSON file, one at a time.

use std::path::Path;

use super::{SourceError, text_of_json};
use crate::json_values::JsonValues;

/// Iterator over the texts of a `.json` file.
pub(super) struct JsonTexts {
    field: String,
    values: JsonValues,
}

impl JsonTexts {
    pub(super) fn open(path: &Path, field: &str) -> Result<Self, SourceError> {
        Ok(Self {
            field: field.to_owned(),
            values: JsonValues::open(path)?,
        })
    }
}

impl Iterator for JsonTexts {
    type Item = Result<String, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (line, bytes) = match self.values.next_value().transpose()? {
            Ok(value) => value,
            Err(error) => return Some(Err(error.into())),
        };
        Some(text_of_json(&bytes, self.values.path(), line, &self.field))
    }
}
