//! Short answers: what a text answers, and whether two answers say the same.

use std::sync::LazyLock;

use regex::Regex;

/// A number as people write it: sign, thousands separators, decimals.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"-?\d[\d,]*(?:\.\d+)?").expect("the pattern is fixed and compiles")
});

/// The answer that a worked solution arrives at: behind `####`, else in the last `\boxed{}`, else all
/// of the text.
pub fn expected_answer(solution: &str) -> &str {
    marked(solution).unwrap_or(solution).trim()
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
pub(crate) fn last_boxed(text: &str) -> Option<&str> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers were read off by hand.
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
}
