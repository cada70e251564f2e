//! Documents of a plain text file: parted by a line of their own, or gathered from paragraphs.

use std::path::Path;

use super::SourceError;
use crate::lines::Lines;

/// Size from which a gathered document ends at the next blank line, in characters.
const DOCUMENT_CHARS: usize = 4_000;

/// Size from which a gathered document ends at any line end, for text without blank lines.
const DOCUMENT_CHARS_WITHOUT_BLANK_LINES: usize = 4 * DOCUMENT_CHARS;

/// Iterator over the documents of a plain text file; line ends become `\n`.
pub(super) struct TextDocuments {
    lines: Lines,
    separator: String,
}

impl TextDocuments {
    pub(super) fn open(path: &Path, separator: &str) -> Result<Self, SourceError> {
        Ok(Self {
            lines: Lines::open(path)?,
            separator: separator.trim().to_owned(),
        })
    }

    fn read_document(&mut self) -> Result<Option<String>, SourceError> {
        let mut text = String::new();
        let mut num_chars = 0;
        let mut has_line = false;
        for line in self.lines.by_ref() {
            let line = line?;
            has_line = true;
            num_chars += line.text.chars().count() + 1;
            let is_separator = !self.separator.is_empty() && line.text.trim() == self.separator;
            if !is_separator {
                text.push_str(&line.text);
                text.push('\n');
            }
            if self.separator.is_empty() && ends_gathered(&line.text, num_chars) || is_separator {
                break;
            }
        }
        let text = text.trim_matches('\n');
        Ok(has_line.then(|| text.to_owned()))
    }
}

impl Iterator for TextDocuments {
    type Item = Result<String, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_document().transpose()
    }
}

fn ends_gathered(line: &str, num_chars: usize) -> bool {
    let is_blank = line.trim().is_empty();
    is_blank && num_chars >= DOCUMENT_CHARS || num_chars >= DOCUMENT_CHARS_WITHOUT_BLANK_LINES
}
