//! s1K and s1K-1.1: a thousand hard problems with the thoughts of a larger model.
//!
//! Source: Muennighoff et al. 2025, arXiv:2501.19393; `simplescaling/s1K` (thoughts of Gemini in
//! `thinking_trajectories`, a list) and `simplescaling/s1K-1.1` (of DeepSeek-R1 in
//! `deepseek_thinking_trajectory`, with a verdict in `deepseek_grade`).

use serde_json::Value;

use super::record::{DropReason, Record, StormRecord, filled};
use super::source::{Part, Source, Stage, is_row_file};
use crate::answer::last_boxed;
use crate::rows::{Fields, RowFault, text_of};

const PROBLEM: [&str; 2] = ["question", "problem"];
const THOUGHTS: [&str; 2] = ["deepseek_thinking_trajectory", "thinking_trajectories"];
const ATTEMPT: [&str; 2] = ["deepseek_attempt", "attempt"];

/// With the thoughts of DeepSeek-R1.
pub(super) const S1K: Source = Source {
    name: "s1k",
    repo: "simplescaling/s1K-1.1",
    stage: Stage::Storm,
    part_of,
    convert: |row, _| convert(row, "s1k"),
};

/// With the thoughts of Gemini.
pub(super) const S1K_GEMINI: Source = Source {
    name: "s1k-gemini",
    repo: "simplescaling/s1K",
    stage: Stage::Storm,
    part_of,
    convert: |row, _| convert(row, "s1k-gemini"),
};

fn part_of(path: &str) -> Option<Part> {
    is_row_file(path).then(|| Part::named_by_file(path))
}

fn convert(row: Value, source: &str) -> Result<Record, DropReason> {
    let mut fields = Fields::of(row)?;
    let problem = take(&mut fields, &PROBLEM)?;
    let cot_explicit = take(&mut fields, &THOUGHTS)?;
    let attempt = take(&mut fields, &ATTEMPT)?;
    let solution = fields.take_text("solution")?;
    let is_wrong = fields.take_text("deepseek_grade")? == "No";
    // What the thoughts came to is believed only where nobody found it wrong.
    let marked = last_boxed(&solution).or_else(|| last_boxed(&attempt).filter(|_| !is_wrong));
    let answer = marked.unwrap_or(&solution).to_owned();
    Ok(Record::Storm(StormRecord {
        problem: filled("problem", problem)?,
        cot_explicit: filled("cot_explicit", cot_explicit)?,
        answer: filled("answer", answer)?,
        solution,
        source: source.to_owned(),
    }))
}

/// The text of the first field that is there, empty if none is.
fn take(fields: &mut Fields, names: &[&'static str]) -> Result<String, RowFault> {
    match fields.take_any(names) {
        Some((field, value)) => text_of(field, value),
        None => Ok(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(row: Value) -> Result<StormRecord, String> {
        match convert(row, "s1k") {
            Ok(Record::Storm(record)) => Ok(record),
            Ok(other) => panic!("{other:?}"),
            Err(reason) => Err(reason.to_string()),
        }
    }

    /// The three places of an answer, in the order in which they are believed.
    #[test]
    fn the_answer_is_the_one_that_nobody_found_wrong() {
        let row = |solution: &str, grade: &str| {
            json!({
                "question": "q", "solution": solution, "deepseek_grade": grade,
                "deepseek_thinking_trajectory": ["one", "two"],
                "deepseek_attempt": r"so \boxed{6}", "gemini_attempt": "5",
            })
        };
        let boxed = record(row(r"thus \boxed{9}", "Yes")).unwrap();
        assert_eq!(
            (boxed.answer.as_str(), boxed.cot_explicit.as_str()),
            ("9", "one\ntwo")
        );
        assert_eq!(record(row("a proof", "Yes")).unwrap().answer, "6");
        assert_eq!(record(row("9", "No")).unwrap().answer, "9");
    }

    /// Null is how the hub writes what is missing.
    #[test]
    fn rows_without_thoughts_are_dropped() {
        let row = json!({"question": "q", "solution": "s", "thinking_trajectories": null});
        assert_eq!(record(row).unwrap_err(), "`cot_explicit` is empty");
        let row = json!({"question": "", "solution": "s", "thinking_trajectories": ["t"]});
        assert_eq!(record(row).unwrap_err(), "`problem` is empty");
    }
}
