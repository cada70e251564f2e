//! Rewards for being right: an answer compared with that of the row.

use dataset::answer::{expected_answer, extract_answer, extract_letter, is_same_answer};

use super::Answered;

/// Whether the row's answer is said, as a number or a text.
pub(super) fn is_right(answer: &Answered<'_>) -> bool {
    let expected = expected_of(answer);
    is_same_answer(extract_answer(answer.said(), expected), expected)
}

/// Whether the row's answer is all that is said.
pub(super) fn is_exact(answer: &Answered<'_>) -> bool {
    answer.said() == expected_of(answer)
}

/// Whether the row's letter is chosen; `None` where the row has none.
pub(super) fn chooses_right(answer: &Answered<'_>) -> Option<bool> {
    let expected = extract_letter(expected_of(answer))?;
    Some(extract_letter(answer.said()) == Some(expected))
}

/// The row's answer without the thoughts before it.
fn expected_of<'a>(answer: &Answered<'a>) -> &'a str {
    let said = answer.expected.rsplit_once("</think>");
    expected_answer(said.map_or(answer.expected, |(_, said)| said))
}
