//! What all subjects of the playground share: questions, languages, and what is held out.

use std::fmt::{Display, Formatter, Result};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::draw::Draw;

/// What is taught and examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Sums of numbers below 100.
    Sum,
    /// Differences of numbers below 100, none below 0.
    Difference,
    /// Writing letters down again.
    Copy,
    /// Writing letters down from the last to the first.
    Reverse,
    /// Counting how often a letter occurs.
    Count,
    /// Which day it is some days later or earlier.
    Weekday,
    /// Which month it is some months later or earlier.
    Month,
    /// Who lives where and owns what, from memory.
    World,
    /// Who has what at the end of a story that is told in the question.
    Story,
    /// Who the assistant is.
    Identity,
}

impl Display for Task {
    fn fmt(&self, formatter: &mut Formatter) -> Result {
        formatter.pad(match self {
            Self::Sum => "sum",
            Self::Difference => "difference",
            Self::Copy => "copy",
            Self::Reverse => "reverse",
            Self::Count => "count",
            Self::Weekday => "weekday",
            Self::Month => "month",
            Self::World => "world",
            Self::Story => "story",
            Self::Identity => "identity",
        })
    }
}

/// Language of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// English.
    English,
    /// Chinese, in simplified characters.
    Chinese,
}

impl Language {
    pub(super) const ALL: [Self; 2] = [Self::English, Self::Chinese];

    pub(super) fn draw(draw: &mut Draw) -> Self {
        *draw.pick(&Self::ALL)
    }
}

/// A word or a pattern in English and in Chinese.
pub(super) type Word = [&'static str; 2];

/// The word in one of the languages.
pub(super) fn say(word: Word, language: Language) -> &'static str {
    word[language as usize]
}

/// Puts values into the holes of a pattern: `{a}` becomes the value named `a`.
pub(super) fn fill(pattern: &str, values: &[(&str, &str)]) -> String {
    let mut text = pattern.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("{{{name}}}"), value);
    }
    text
}

/// A question with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) prompt: String,
    pub(super) answer: String,
}

/// A subject of the playground.
pub(super) trait Lesson {
    /// A question to learn from.
    fn question(&mut self, task: Task, language: Language, draw: &mut Draw) -> Question;

    /// A question about something held out, worded as those to learn from.
    fn exam_question(&mut self, task: Task, language: Language, draw: &mut Draw) -> Question;

    /// A text to read.
    fn passage(&mut self, language: Language, draw: &mut Draw) -> String;
}

/// Decides by hash what is kept for the exam: a tenth.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldOut {
    seed: u64,
}

impl HeldOut {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Whether one of endlessly many things is held out.
    pub(super) fn holds(self, subject: &str, key: &str) -> bool {
        self.hash(subject, key).is_multiple_of(10)
    }

    /// Parts a list into what is taught and what is held out: a tenth, at least one.
    pub(super) fn part<T>(
        self,
        subject: &str,
        mut items: Vec<T>,
        key: impl Fn(&T) -> String,
    ) -> (Vec<T>, Vec<T>) {
        items.sort_by_cached_key(|item| self.hash(subject, &key(item)));
        let num_held_out = items.len().div_ceil(10);
        let taught = items.split_off(num_held_out);
        (taught, items)
    }

    fn hash(self, subject: &str, key: &str) -> u64 {
        let digest = Sha256::digest(format!("{} {subject} {key}", self.seed));
        digest[..8]
            .iter()
            .fold(0, |bits, &byte| bits << 8 | u64::from(byte))
    }
}

/// Cards that all come once before one comes again.
#[derive(Debug, Clone)]
pub(super) struct Deck<T> {
    cards: Vec<T>,
    next: usize,
}

impl<T: Clone> Deck<T> {
    pub(super) fn new(cards: Vec<T>) -> Self {
        assert!(!cards.is_empty(), "a deck has cards");
        let next = cards.len();
        Self { cards, next }
    }

    pub(super) fn draw(&mut self, draw: &mut Draw) -> T {
        if self.next == self.cards.len() {
            draw.shuffle(&mut self.cards);
            self.next = 0;
        }
        self.next += 1;
        self.cards[self.next - 1].clone()
    }
}
