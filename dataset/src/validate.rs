//! What is in a file of conversations, and what would become of it in training.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::batch::IGNORE_INDEX;
use crate::cache::DocumentTokens;
use crate::chat::Message;
use crate::conversations::{ConversationEncoder, ConversationFault};
use crate::mask::labels_of;
use crate::rows::{ChatRow, NumberedRow, Row, RowFormat, RowReader, RowsError};

/// Shares of the rows whose lengths are reported, in percent.
const PERCENTILES: [usize; 5] = [50, 90, 95, 99, 100];

/// A line that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Line of the file, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub fault: String,
}

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileReport {
    /// The file.
    pub path: PathBuf,
    /// Its rows' format.
    pub format: RowFormat,
    /// Rows, broken ones included.
    pub num_rows: usize,
    /// Rows that cannot be used.
    pub bad_lines: Vec<BadLine>,
    /// Rows that are equal to an earlier one.
    pub num_duplicate_rows: usize,
    /// Turns that repeat the turn before them, speaker and text.
    pub num_duplicate_turns: usize,
    /// Turns in which nothing is said, thought or called.
    pub num_empty_turns: usize,
    /// Rows longer than a training row, whose end would be cut off.
    pub num_truncated: usize,
    /// Rows without a token to learn within a training row, which would be left out.
    pub num_unsupervised: usize,
    /// Tokens of each usable row, in ascending order.
    pub lengths: Vec<usize>,
    /// Tokens that would be trained.
    pub num_trained_tokens: usize,
}

impl FileReport {
    /// Reads a file to its end.
    ///
    /// # Errors
    ///
    /// A file that cannot be read on, of an unknown kind or an unknown format.
    pub fn read(
        path: &Path,
        format: RowFormat,
        encoder: &ConversationEncoder<'_>,
        seq_len: usize,
    ) -> Result<Self, RowsError> {
        let reader = RowReader::open(path, format)?;
        let mut report = Self {
            path: path.to_owned(),
            format: reader.format(),
            ..Self::default()
        };
        let mut seen = HashSet::new();
        for row in reader {
            let NumberedRow { line, row } = row?;
            let number = report.num_rows as u64;
            report.num_rows += 1;
            let chat = row.and_then(Row::into_chat);
            let encoded = chat.map_err(ConversationFault::from).and_then(|row| {
                report.note_turns(&row);
                Ok(encoder.encode(row, number)?)
            });
            match encoded {
                Ok(document) => {
                    report.num_duplicate_rows += usize::from(!seen.insert(hash_of(&document.ids)));
                    report.note_tokens(&document, seq_len);
                }
                Err(fault) => report.bad_lines.push(BadLine {
                    line,
                    fault: fault.full_text(),
                }),
            }
        }
        report.lengths.sort_unstable();
        Ok(report)
    }

    /// Share of the rows that cannot be used, from 0 to 1; 1 for a file without rows.
    pub fn bad_ratio(&self) -> f64 {
        if self.num_rows == 0 {
            return 1.0;
        }
        self.bad_lines.len() as f64 / self.num_rows as f64
    }

    fn note_turns(&mut self, row: &ChatRow) {
        let turns = &row.conversations;
        let is_empty = |turn: &&Message| {
            turn.content.trim().is_empty()
                && turn.reasoning_content.is_none()
                && turn.tool_calls.is_empty()
                && turn.tools.is_empty()
        };
        self.num_empty_turns += turns.iter().filter(is_empty).count();
        let repeats = turns.windows(2).filter(|pair| pair[0] == pair[1]);
        self.num_duplicate_turns += repeats.count();
    }

    fn note_tokens(&mut self, document: &DocumentTokens, seq_len: usize) {
        let len = document.ids.len();
        self.lengths.push(len);
        self.num_truncated += usize::from(len > seq_len);
        let kept = len.min(seq_len);
        let trained = document.trained.as_deref().map(|trained| &trained[..kept]);
        let labels = labels_of(&document.ids[..kept], trained);
        let num_trained = labels
            .iter()
            .filter(|&&label| label != IGNORE_INDEX)
            .count();
        self.num_unsupervised += usize::from(num_trained == 0);
        self.num_trained_tokens += num_trained;
    }
}

impl fmt::Display for FileReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        for BadLine { line, fault } in &self.bad_lines {
            writeln!(formatter, "{path}:{line}: {fault}")?;
        }
        writeln!(formatter, "{path}")?;
        let mut row = |name: &str, value: String| writeln!(formatter, "  {name:<18}{value}");
        row("format", self.format.to_string())?;
        row("rows", self.num_rows.to_string())?;
        let bad = self.bad_lines.len();
        let percent = 100.0 * self.bad_ratio();
        row("bad rows", format!("{bad} ({percent:.2} %)"))?;
        row("duplicate rows", self.num_duplicate_rows.to_string())?;
        row("duplicate turns", self.num_duplicate_turns.to_string())?;
        row("empty turns", self.num_empty_turns.to_string())?;
        let total: usize = self.lengths.iter().sum();
        let trained = self.num_trained_tokens;
        row("tokens", format!("{total}, of which {trained} are trained"))?;
        if !self.lengths.is_empty() {
            let last = self.lengths.len() - 1;
            let lengths = PERCENTILES.map(|percent| {
                let len = self.lengths[last * percent / 100];
                format!("{percent} %: {len}")
            });
            row("tokens per row", format!("up to {}", lengths.join(", ")))?;
        }
        row("would be cut", self.num_truncated.to_string())?;
        row("would be left out", self.num_unsupervised.to_string())
    }
}

/// Sixty-four bits of a row: all rows themselves would not fit into memory.
fn hash_of(ids: &[u32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    ids.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::conversations::ConversationOptions;
    use crate::tokenizer_train::TokenizerTrainer;

    /// Counted by hand; the broken lines are the third, the fourth and the sixth.
    #[test]
    fn a_file_is_reported_line_by_line() {
        let trainer = TokenizerTrainer {
            vocab_size: 300,
            ..TokenizerTrainer::default()
        };
        let tokenizer = trainer.train(["the cat and the hat"].iter()).unwrap();
        let options = ConversationOptions::default();
        let encoder = ConversationEncoder {
            tokenizer: &tokenizer,
            template: tokenizer.chat_template().unwrap(),
            options: &options,
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let user = r#"{"role":"user","content":"the"}"#;
        let answer = |text: &str| format!(r#"{{"role":"assistant","content":"{text}"}}"#);
        let row = |turns: &[&str]| format!("{{\"messages\":[{}]}}\n", turns.join(","));
        let (cat, long) = (answer("cat"), answer(&"cat".repeat(60)));
        let bytes = [
            row(&[user, &cat]).into_bytes(),
            row(&[user, &cat, user, &cat, &cat]).into_bytes(),
            b"{\"messages\":\n".to_vec(),
            row(&[user]).into_bytes(),
            row(&[user, &cat]).into_bytes(),
            b"\xff\n".to_vec(),
            row(&[user, &long]).into_bytes(),
            row(&[user, &answer(" ")]).into_bytes(),
        ];
        fs::write(&path, bytes.concat()).unwrap();

        let report = FileReport::read(&path, RowFormat::Auto, &encoder, 60).unwrap();
        let lines: Vec<usize> = report.bad_lines.iter().map(|bad| bad.line).collect();
        assert_eq!(lines, [3, 4, 6]);
        assert_eq!(report.bad_lines[2].fault, "found a byte that is not UTF-8");
        assert_eq!((report.num_rows, report.lengths.len()), (8, 5));
        assert_eq!(report.num_duplicate_rows, 1);
        assert_eq!((report.num_duplicate_turns, report.num_empty_turns), (1, 1));
        assert_eq!(report.num_truncated, 1);
        assert!((report.bad_ratio() - 3.0 / 8.0).abs() < 1e-12);
        let text = report.to_string();
        assert!(
            text.contains("a.jsonl:4: found 1 turns and none of an assistant"),
            "{text}"
        );

        // Nothing is left of the answers in so short a row, and nothing of it is trained.
        let report = FileReport::read(&path, RowFormat::Auto, &encoder, 4).unwrap();
        assert_eq!((report.num_unsupervised, report.num_trained_tokens), (5, 0));
    }
}
