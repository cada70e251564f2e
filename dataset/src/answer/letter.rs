//! Which letter a written answer means.

use std::sync::LazyLock;

use regex::Regex;

/// The letters of a choice.
pub const LETTERS: [char; 4] = ['A', 'B', 'C', 'D'];

/// What comes before a letter that is meant as the answer, in Chinese and English.
static STATED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?x)
        (?: 答案 | 正确选项 | 选项 | 应选 | 故选 | 选择 | 选 | [Aa]nswer )
        (?: 应该 | 应当 | 应 )? (?: 是 | 为 | 选 | \s+is )?
        [\s:：]* (?: 选项 )? [\s(（\*\x22“]*
        ([ABCD]) (?: $ | [^A-Za-z] )",
    )
    .expect("the pattern is fixed and compiles")
});

/// A letter by itself, not part of a word.
static LONE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:^|[^A-Za-z])([ABCD])(?:$|[^A-Za-z])")
        .expect("the pattern is fixed and compiles")
});

static BOXED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\\boxed\{\s*(?:\\text\{)?\s*([ABCD])").expect("the pattern is fixed and compiles")
});

/// Place of the letter that an answer settles on; `None` where it cannot be told.
///
/// In this order: the last boxed letter; the last letter that is called the answer; a letter that
/// the text begins with; the only letter that occurs. Nothing is guessed.
pub fn extract_letter(text: &str) -> Option<usize> {
    let text = text.trim();
    let last = |pattern: &Regex| {
        let found = pattern.captures_iter(text).last()?;
        place(&found[1])
    };
    if let Some(found) = last(&BOXED).or_else(|| last(&STATED)) {
        return Some(found);
    }
    // Matches may share the character between them, so each search begins right behind a letter.
    let mut letters = Vec::new();
    let mut start = 0;
    while let Some(found) = LONE.captures_at(text, start).and_then(|found| found.get(1)) {
        letters.push((found.start(), place(found.as_str())?));
        start = found.end();
    }
    match letters.as_slice() {
        [(0, first), ..] => Some(*first),
        [(_, first), rest @ ..] if rest.iter().all(|(_, letter)| letter == first) => Some(*first),
        _ => None,
    }
}

fn place(letter: &str) -> Option<usize> {
    LETTERS.iter().position(|&known| letter.chars().eq([known]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as models write them; the letters were read off by hand.
    #[test]
    fn letters_are_found_where_they_are_meant() {
        let cases = [
            ("B", Some(1)),
            ("C. 因为它最大", Some(2)),
            ("答案是D。", Some(3)),
            ("A不对，B也不对，所以答案为：C", Some(2)),
            ("答案：A？不，正确答案应该是 B", Some(1)),
            ("故选（D）", Some(3)),
            ("The answer is (A).", Some(0)),
            (r"so \boxed{B}, not A", Some(1)),
            ("我认为是 C 项", Some(2)),
            ("A 和 B 都可能", Some(0)),
            ("可能是A，也可能是B", None),
            ("All of them", None),
            ("DNA 是遗传物质", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(extract_letter(text), expected, "{text}");
        }
    }
}
