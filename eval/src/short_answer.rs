//! Questions with a short right answer: their files, what is expected, and how often samples hit it.

use std::path::Path;

use dataset::answer::expected_answer;
use dataset::lines::{Lines, ReadError};
use serde::Deserialize;

/// A row of a file: GSM8K's `question` and `answer`, MATH's `problem` and `solution`, or the
/// playground's `prompt` and `answer`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ShortAnswerRow {
    /// What is asked.
    #[serde(alias = "prompt", alias = "problem")]
    pub question: String,
    /// The right answer, with its reasoning or without.
    #[serde(alias = "solution")]
    pub answer: String,
    /// Kind of question, which results are grouped by.
    #[serde(default, alias = "subject", alias = "type")]
    pub task: String,
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

    /// The three shapes; GSM8K's answer is behind its marks.
    #[test]
    fn expected_answers_are_found_in_each_shape() {
        let cases = [
            (
                r#"{"question": "q", "answer": "3 and 4 are <<3+4=7>>7\n#### 1,007"}"#,
                "1,007",
            ),
            (
                r#"{"problem": "q", "solution": "so \\boxed{\\frac{1}{2}}."}"#,
                r"\frac{1}{2}",
            ),
            (
                r#"{"task": "sum", "language": "english", "prompt": "37+45=?", "answer": "82"}"#,
                "82",
            ),
        ];
        for (json, expected) in cases {
            let row: ShortAnswerRow = serde_json::from_str(json).unwrap();
            assert_eq!(row.expected(), expected);
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
