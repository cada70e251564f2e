//! How many bytes of text a token stands for, per language.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::tokenizer::Tokenizer;

/// What a text is mostly written in, by the share of its letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// At least three letters in ten are Han.
    Chinese,
    /// At least seven letters in ten are basic Latin.
    English,
    /// Anything else, also text without letters.
    Other,
}

impl Language {
    /// The name for a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chinese => "chinese",
            Self::English => "english",
            Self::Other => "other",
        }
    }

    /// The language of a text.
    pub fn of(text: &str) -> Self {
        let (mut han, mut latin, mut letters) = (0, 0, 0);
        for letter in text.chars().filter(|letter| letter.is_alphabetic()) {
            letters += 1;
            latin += usize::from(letter.is_ascii());
            han += usize::from(matches!(
                letter,
                '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}'
            ));
        }
        if letters > 0 && han * 10 >= letters * 3 {
            Self::Chinese
        } else if letters > 0 && latin * 10 >= letters * 7 {
            Self::English
        } else {
            Self::Other
        }
    }
}

/// How texts of one language are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Compression {
    /// Texts that were measured.
    pub num_documents: usize,
    /// Their UTF-8 bytes.
    pub num_bytes: usize,
    /// Their characters.
    pub num_chars: usize,
    /// Their tokens, without beginning and end.
    pub num_tokens: usize,
}

impl Compression {
    /// Bytes that a token stands for on average.
    pub fn bytes_per_token(&self) -> f64 {
        self.num_bytes as f64 / self.num_tokens.max(1) as f64
    }

    /// Characters that a token stands for on average.
    pub fn chars_per_token(&self) -> f64 {
        self.num_chars as f64 / self.num_tokens.max(1) as f64
    }
}

/// Compression of texts that the tokenizer was not trained on, per language that occurs.
pub fn measure_compression<S: AsRef<str>>(
    tokenizer: &Tokenizer,
    texts: &[S],
) -> BTreeMap<Language, Compression> {
    let mut by_language = BTreeMap::<Language, Compression>::new();
    for text in texts.iter().map(AsRef::as_ref) {
        let measured = by_language.entry(Language::of(text)).or_default();
        measured.num_documents += 1;
        measured.num_bytes += text.len();
        measured.num_chars += text.chars().count();
        measured.num_tokens += tokenizer.encode_ordinary(text).len();
    }
    by_language
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Code-switched text counts as Chinese early: one Han letter says as much as an English word.
    #[test]
    fn languages_are_told_by_their_letters() {
        assert_eq!(Language::of("人工智能 is AI"), Language::Chinese);
        assert_eq!(Language::of("the word 道 means the way"), Language::English);
        assert_eq!(Language::of("привет, мир"), Language::Other);
        assert_eq!(Language::of("1 + 1 = 2"), Language::Other);
    }
}
