//! Special tokens that a model spelled out in a text.

use std::sync::LazyLock;

use super::families::Family;
use super::family_table::FAMILIES;

/// Beginnings of special tokens: a model cuts them off anywhere after the name.
static MARKS: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let tokens = FAMILIES.iter().flat_map(Family::special_tokens);
    let mut marks: Vec<&str> = tokens
        .filter(|token| {
            token.starts_with("<|") || token.starts_with("<｜") || token.contains("_turn")
        })
        .map(|token| token.trim_end_matches(['|', '｜', '>']))
        // `<|end` and `<|user` are the beginning of too much else to be told from it.
        .filter(|mark| mark.contains(['_', '▁']) || mark.len() > "<|assistant".len())
        .collect();
    marks.sort_unstable();
    marks.dedup();
    marks
});

/// Whether a text holds the spelled-out name of a special token.
pub fn has_leak(text: &str) -> bool {
    MARKS.iter().any(|mark| text.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: whole tokens, one that was cut off, and texts that only look alike.
    #[test]
    fn spelled_out_tokens_are_found_and_little_else() {
        for text in [
            "a<|eot_id|>",
            "a <|start_header_id",
            "b<|im_end|>",
            "<｜end▁of▁sentence｜>",
            "<start_of_turn>user",
        ] {
            assert!(has_leak(text), "{text}");
        }
        for text in ["a < b and |x| > 1", "<|x|>", "the end_of_turn", "<s>", ""] {
            assert!(!has_leak(text), "{text}");
        }
    }
}
