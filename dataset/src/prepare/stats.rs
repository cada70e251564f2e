//! What a file of rows holds, field by field.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::reasons::Reasons;
use crate::rows::{RawRow, RawRows, RowsError};

/// Different values up to which a field is counted value by value.
const MAX_VALUES: usize = 24;

/// Longest text that counts as a value, in characters.
const MAX_VALUE_CHARS: usize = 40;

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FileStats {
    /// The file.
    pub path: PathBuf,
    /// Rows that are JSON objects.
    pub num_rows: usize,
    /// Rows that are not.
    pub bad: Reasons,
    /// Rows that are equal to an earlier one.
    pub num_duplicates: usize,
    /// Fields in the order in which they came up.
    pub fields: Vec<(String, FieldStats)>,
}

/// What a field holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FieldStats {
    /// Rows in which it is there and not null.
    pub num_there: usize,
    /// Rows in which it is a text or list of nothing.
    pub num_empty: usize,
    /// Characters of texts, entries of lists.
    pub lengths: Vec<usize>,
    /// How often each value comes, where there are few.
    pub values: BTreeMap<String, usize>,
    has_many_values: bool,
}

impl FileStats {
    /// Reads a file to its end.
    ///
    /// # Errors
    ///
    /// A file that cannot be read on or is of an unknown kind.
    pub fn read(path: &Path) -> Result<Self, RowsError> {
        let mut stats = Self {
            path: path.to_owned(),
            ..Self::default()
        };
        let mut seen = HashSet::new();
        for row in RawRows::open(path)? {
            let RawRow { line, value } = row?;
            let place = || format!("{}:{line}", path.display());
            match value {
                Ok(Value::Object(fields)) => {
                    stats.num_rows += 1;
                    stats.note(&fields, "");
                    let text = Value::Object(fields).to_string();
                    stats.num_duplicates += usize::from(!seen.insert(text));
                }
                Ok(_) => stats.bad.note("the row is no object".to_owned(), place),
                Err(fault) => stats.bad.note(fault.to_string(), place),
            }
        }
        for (_, field) in &mut stats.fields {
            field.lengths.sort_unstable();
        }
        Ok(stats)
    }

    /// Counts fields, and those of objects within under both names.
    fn note(&mut self, fields: &Map<String, Value>, prefix: &str) {
        for (name, value) in fields {
            let name = format!("{prefix}{name}");
            match value {
                Value::Null => {}
                Value::Object(within) => self.note(within, &format!("{name}.")),
                value => self.field(&name).note(value),
            }
        }
    }

    fn field(&mut self, name: &str) -> &mut FieldStats {
        let known = self.fields.iter().position(|(known, _)| known == name);
        let index = known.unwrap_or_else(|| {
            self.fields.push((name.to_owned(), FieldStats::default()));
            self.fields.len() - 1
        });
        &mut self.fields[index].1
    }
}

impl FieldStats {
    fn note(&mut self, value: &Value) {
        self.num_there += 1;
        match value {
            Value::String(text) => {
                self.num_empty += usize::from(text.trim().is_empty());
                self.lengths.push(text.chars().count());
                self.note_value(text);
            }
            Value::Array(items) => {
                self.num_empty += usize::from(items.is_empty());
                self.lengths.push(items.len());
                for item in items {
                    match item {
                        Value::String(text) => self.note_value(text),
                        // Turns and other objects are no values.
                        _ => self.has_many_values = true,
                    }
                }
            }
            value => self.note_value(&value.to_string()),
        }
    }

    fn note_value(&mut self, text: &str) {
        if self.has_many_values {
            return;
        }
        *self.values.entry(text.to_owned()).or_default() += 1;
        if self.values.len() > MAX_VALUES || text.chars().count() > MAX_VALUE_CHARS {
            self.has_many_values = true;
            self.values.clear();
        }
    }

    /// The length that so many percent of the rows do not exceed.
    fn percentile(&self, percent: usize) -> usize {
        let last = self.lengths.len().saturating_sub(1);
        let place = (percent * self.lengths.len()).div_ceil(100);
        let place = place.saturating_sub(1).min(last);
        self.lengths.get(place).copied().unwrap_or_default()
    }
}

impl fmt::Display for FileStats {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.path.display())?;
        let (rows, bad) = (self.num_rows, self.bad.total());
        writeln!(
            formatter,
            "  {rows} rows, {bad} bad, {} equal to an earlier one",
            self.num_duplicates
        )?;
        if bad > 0 {
            writeln!(formatter, "  bad: {}", self.bad)?;
        }
        if self.fields.is_empty() {
            return Ok(());
        }
        let width = self.fields.iter().map(|(name, _)| name.chars().count());
        let width = width.max().unwrap_or_default().max(5);
        writeln!(
            formatter,
            "  {:<width$}  {:>7} {:>7} {:>7} {:>7} {:>7}  length (characters or entries)",
            "field", "there", "empty", "median", "90 %", "longest"
        )?;
        for (name, field) in &self.fields {
            let FieldStats {
                num_there,
                num_empty,
                ..
            } = field;
            write!(formatter, "  {name:<width$}  {num_there:>7} {num_empty:>7}")?;
            if !field.lengths.is_empty() {
                let [median, most, longest] =
                    [50, 90, 100].map(|percent| field.percentile(percent));
                write!(formatter, " {median:>7} {most:>7} {longest:>7}")?;
            }
            writeln!(formatter)?;
        }
        for (name, field) in &self.fields {
            // A value that every row has its own of says nothing.
            if field.values.is_empty() || field.values.len() == self.num_rows {
                continue;
            }
            writeln!(formatter, "  {name}:")?;
            let mut values: Vec<_> = field.values.iter().collect();
            values.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
            for (value, count) in values {
                writeln!(formatter, "    {count:>7}  {value}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Counted by hand; the task types are COIG-CQIA's, lists within an object.
    #[test]
    fn fields_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let rows = [
            r#"{"prompt": "一二三", "source": "exam", "task_type": {"major": ["问答"], "minor": []}}"#,
            r#"{"prompt": "四", "source": "exam", "task_type": {"major": ["问答", "选择"], "minor": []}}"#,
            r#"{"prompt": " ", "source": "wiki", "task_type": null}"#,
            r#"{"prompt": " ", "source": "wiki", "task_type": null}"#,
            "[1]",
            "{",
        ];
        fs::write(&path, rows.join("\n")).unwrap();
        let stats = FileStats::read(&path).unwrap();
        assert_eq!(
            (stats.num_rows, stats.bad.total(), stats.num_duplicates),
            (4, 2, 1)
        );
        let names: Vec<&str> = stats.fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["prompt", "source", "task_type.major", "task_type.minor"]
        );
        let [(_, prompt), (_, source), (_, major), _] = stats.fields.as_slice() else {
            panic!("{names:?}");
        };
        assert_eq!((prompt.num_there, prompt.num_empty), (4, 2));
        assert_eq!(prompt.lengths, [1, 1, 1, 3]);
        assert_eq!((prompt.percentile(50), prompt.percentile(100)), (1, 3));
        let counts = |field: &FieldStats| -> Vec<(String, usize)> {
            field.values.clone().into_iter().collect()
        };
        let pair = |value: &str, count| (value.to_owned(), count);
        assert_eq!(counts(source), [pair("exam", 2), pair("wiki", 2)]);
        assert_eq!(counts(major), [pair("选择", 1), pair("问答", 2)]);
        let text = stats.to_string();
        assert!(
            text.contains("4 rows, 2 bad, 1 equal to an earlier one"),
            "{text}"
        );
        assert!(text.contains("  source:\n          2  exam\n"), "{text}");
    }

    /// Texts are no values: the table of a field ends where they begin.
    #[test]
    fn long_texts_are_not_listed() {
        let mut field = FieldStats::default();
        field.note(&Value::from("short"));
        field.note(&Value::from("x".repeat(41)));
        field.note(&Value::from("short"));
        assert!(field.values.is_empty());
        assert_eq!(field.num_there, 3);
    }
}
