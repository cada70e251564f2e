//! Questions with a short right answer: what is expected, what a text answers, and whether they
//! agree.

use std::path::Path;
use std::sync::LazyLock;

use dataset::lines::{Lines, ReadError};
use regex::Regex;
use serde::Deserialize;

/// A number as people write it: sign, thousands separators, decimals.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"-?\d[\d,]*(?:\.\d+)?").expect("the pattern is fixed and compiles")
});

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
        marked(&self.answer).unwrap_or(&self.answer).trim()
    }
}

/// What a written text answers, given what is expected: the marked answer; else, where a number is
/// expected, the last number; else all of the text.
pub fn extract_answer<'a>(text: &'a str, expected: &str) -> &'a str {
    if let Some(answer) = marked(text) {
        return answer.trim();
    }
    if number(expected).is_some()
        && let Some(found) = NUMBER.find_iter(text).last()
    {
        return found.as_str();
    }
    text.trim()
}

/// Whether two answers say the same: as numbers where both are, else as texts without blanks.
pub fn is_same_answer(found: &str, expected: &str) -> bool {
    match (number(found), number(expected)) {
        (Some(found), Some(expected)) => found == expected,
        _ => without_blanks(found) == without_blanks(expected),
    }
}

/// The text behind the last `####`, else inside the last `\boxed{}`.
fn marked(text: &str) -> Option<&str> {
    match text.rsplit_once("####") {
        Some((_, answer)) => Some(answer.trim().lines().next().unwrap_or_default()),
        None => last_boxed(text),
    }
}

/// Content of the last `\boxed{..}` whose braces close.
fn last_boxed(text: &str) -> Option<&str> {
    const OPENING: &str = r"\boxed{";
    let starts = text.rmatch_indices(OPENING);
    for (start, _) in starts {
        let content = &text[start + OPENING.len()..];
        let mut depth = 1;
        for (place, character) in content.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(&content[..place]);
            }
        }
    }
    None
}

/// A number in one spelling: digits without separators, no zeros at either end.
fn number(text: &str) -> Option<String> {
    let text = text.trim().trim_start_matches(['$', '￥', '+']);
    let text = text.trim_end_matches(['.', '。', '%']);
    let found = NUMBER.find(text)?;
    if found.as_str() != text {
        return None;
    }
    let digits = text.replace(',', "");
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits.as_str()),
    };
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, decimals) = (
        whole.trim_start_matches('0'),
        decimals.trim_end_matches('0'),
    );
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(match (whole, decimals) {
        ("0", "") => "0".to_owned(),
        (whole, "") => format!("{sign}{whole}"),
        (whole, decimals) => format!("{sign}{whole}.{decimals}"),
    })
}

fn without_blanks(text: &str) -> String {
    text.split_whitespace().collect()
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

    #[test]
    fn answers_are_extracted_and_compared_as_numbers_or_texts() {
        let cases = [
            ("The sum is 80, no, 82.", "82", true),
            ("72.50", "72.5", true),
            ("It costs $1,007.", "1007", true),
            ("#### -5\nwell", "-5", true),
            ("007", "7", true),
            (
                r"first \boxed{3}, then \boxed{\frac{1}{2}}",
                r"\frac{1}{2}",
                true,
            ),
            (r"\boxed{4} but \boxed{broken", "4", true),
            ("the red kite", "a red kite", false),
            (" a  red kite\n", "a red kite", true),
            ("82 or 83", "82", false),
            ("no idea", "82", false),
        ];
        for (text, expected, is_right) in cases {
            let found = extract_answer(text, expected);
            assert_eq!(is_same_answer(found, expected), is_right, "{text} {found}");
        }
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
