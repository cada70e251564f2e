//! Questions with a short right answer: their files, what is expected, and how often samples hit it.

use std::path::Path;

use dataset::answer::expected_answer;
use dataset::lines::{Lines, ReadError};
use serde::Deserialize;

/// A row of a file: GSM8K's `question` and `answer`, MATH's `problem` and `solution` (MATH-500 has
/// the `answer` beside it), or the playground's `prompt` and `answer`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "FileRow")]
pub struct ShortAnswerRow {
    /// What is asked.
    pub question: String,
    /// The right answer, with its reasoning or without.
    pub answer: String,
    /// Kind of question, which results are grouped by.
    pub task: String,
}

/// The fields that files have, of which a row may hold several for the same thing.
#[derive(Deserialize)]
struct FileRow {
    question: Option<String>,
    problem: Option<String>,
    prompt: Option<String>,
    answer: Option<String>,
    solution: Option<String>,
    task: Option<String>,
    subject: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// What a row cannot do without.
#[derive(Debug, thiserror::Error)]
#[error("missing field `{0}`")]
struct MissingField(&'static str);

impl TryFrom<FileRow> for ShortAnswerRow {
    type Error = MissingField;

    fn try_from(row: FileRow) -> Result<Self, MissingField> {
        let question = row.question.or(row.problem).or(row.prompt);
        let answer = row.answer.or(row.solution);
        let task = row.task.or(row.subject).or(row.kind);
        Ok(Self {
            question: question.ok_or(MissingField("question"))?,
            answer: answer.ok_or(MissingField("answer"))?,
            task: task.unwrap_or_default(),
        })
    }
}

/// Reads a JSONL file of questions; empty lines are passed over.
///
/// # Errors
///
/// A file that cannot be read or holds nothing, or a line that is no such question.
pub fn read_short_answers(path: &Path) -> Result<Vec<ShortAnswerRow>, ReadError> {
    let mut rows = Vec::new();
    for line in Lines::open(path)? {
        let line = line?;
        if line.text.trim().is_empty() {
            continue;
        }
        let row = serde_json::from_str(&line.text).map_err(|source| ReadError::Row {
            path: path.to_owned(),
            line: line.number,
            source,
        })?;
        rows.push(row);
    }
    if rows.is_empty() {
        let path = path.to_owned();
        return Err(ReadError::Empty { path });
    }
    Ok(rows)
}

impl ShortAnswerRow {
    /// The answer itself: behind `####`, else in the last `\boxed{}`, else all of it.
    pub fn expected(&self) -> &str {
        expected_answer(&self.answer)
    }
}

/// Probability that at least one of `k` samples is right, estimated without bias from `num_samples`
/// of which `num_right` are. Source: Chen et al. 2021, arXiv:2107.03374, eq. 1.
///
/// `1 − C(n − c, k) / C(n, k)`
///
/// # Panics
///
/// If `k` is over `num_samples`.
pub fn pass_at_k(num_samples: usize, num_right: usize, k: usize) -> f64 {
    assert!(k <= num_samples, "{k} of {num_samples} samples");
    if num_samples - num_right < k {
        return 1.0;
    }
    let missed: f64 = (num_samples - num_right + 1..=num_samples)
        .map(|n| 1.0 - k as f64 / n as f64)
        .product();
    1.0 - missed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shapes there are; GSM8K's answer is behind its marks, and MATH-500 has it twice.
    #[test]
    fn expected_answers_are_found_in_each_shape() {
        let cases = [
            (
                r#"{"question": "q", "answer": "3 and 4 are <<3+4=7>>7\n#### 1,007"}"#,
                ["q", "1,007", ""],
            ),
            (
                r#"{"problem": "q", "solution": "so \\boxed{\\frac{1}{2}}.", "type": "Algebra"}"#,
                ["q", r"\frac{1}{2}", "Algebra"],
            ),
            (
                r#"{"problem": "q", "solution": "so $x = \\boxed{3}$.", "answer": "4",
                    "subject": "Algebra", "type": "x", "level": 2, "unique_id": "a/1.json"}"#,
                ["q", "4", "Algebra"],
            ),
            (
                r#"{"task": "sum", "language": "english", "prompt": "37+45=?", "answer": "82"}"#,
                ["37+45=?", "82", "sum"],
            ),
        ];
        for (json, expected) in cases {
            let row: ShortAnswerRow = serde_json::from_str(json).unwrap();
            assert_eq!([&row.question, row.expected(), &row.task], expected);
        }
        let error = serde_json::from_str::<ShortAnswerRow>(r#"{"question": "q"}"#).unwrap_err();
        assert!(error.to_string().starts_with("missing field `answer`"));
    }

    /// By hand: of 4 samples with 1 right, one draw hits in 1/4 and two draws in 1/2 of the cases.
    #[test]
    fn pass_at_k_by_hand() {
        for (num_samples, num_right, k, expected) in [
            (4, 1, 1, 0.25),
            (4, 1, 2, 0.5),
            (4, 1, 4, 1.0),
            (5, 0, 3, 0.0),
            (5, 2, 2, 0.7),
        ] {
            let found = pass_at_k(num_samples, num_right, k);
            assert!((found - expected).abs() < 1e-12, "{found} for {expected}");
        }
    }
}
