//! Questions with four options, and the subjects they belong to.

pub use dataset::answer::LETTERS;
use serde::{Deserialize, Serialize};

/// A question with four options, of which one is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What the file calls it, else its row, from 0.
    pub id: String,
    /// The question without its options.
    pub text: String,
    /// From A to D.
    pub options: [String; 4],
    /// Place of the right option; `None` where the file does not tell.
    pub answer: Option<usize>,
    /// Why that option is right, where the file tells.
    pub explanation: Option<String>,
}

impl Question {
    /// The same question with option `(j + turn) % 4` called by letter `j`.
    #[must_use]
    pub fn turned(&self, turn: usize) -> Self {
        let options = std::array::from_fn(|place| self.options[(place + turn) % 4].clone());
        Self {
            options,
            answer: self.answer.map(|answer| (answer + 4 - turn % 4) % 4),
            ..self.clone()
        }
    }
}

/// Field of knowledge that subjects are averaged over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Science, technology, engineering, mathematics.
    Stem,
    /// Social science.
    SocialScience,
    /// Humanities.
    Humanities,
    /// Everything else.
    Other,
}

impl std::fmt::Display for Category {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(match self {
            Self::Stem => "STEM",
            Self::SocialScience => "social science",
            Self::Humanities => "humanities",
            Self::Other => "other",
        })
    }
}

/// What is known of a subject besides its questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectInfo {
    /// Name of its files.
    pub name: String,
    /// Name as a prompt has it.
    pub title: String,
    /// Field of knowledge, where the exam has such.
    pub category: Option<Category>,
    /// Further group it belongs to: C-Eval's hard subjects, CMMLU's specific to China.
    pub group: Option<&'static str>,
}

/// One subject of an exam.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Name and groups.
    pub info: SubjectInfo,
    /// What is asked.
    pub questions: Vec<Question>,
    /// Solved questions that a prompt may show first.
    pub shots: Vec<Question>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turned by one, B becomes A: option texts move up, and so does the answer.
    #[test]
    fn turning_moves_the_options_and_the_answer() {
        let question = Question {
            id: "0".to_owned(),
            text: "q".to_owned(),
            options: ["a", "b", "c", "d"].map(str::to_owned),
            answer: Some(0),
            explanation: None,
        };
        let turned = question.turned(1);
        assert_eq!(turned.options, ["b", "c", "d", "a"]);
        assert_eq!(turned.answer, Some(3));
        for turn in 0..4 {
            let turned = question.turned(turn);
            assert_eq!(turned.options[turned.answer.unwrap()], "a");
        }
        assert_eq!(question.turned(4), question);
    }
}
