//! Answers as mathematical texts mark them: in a box.

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

#[cfg(test)]
mod tests {
    use super::*;

    /// A box within braces of its own, one that never closes, and the last of two.
    #[test]
    fn the_last_closed_box_counts() {
        assert_eq!(last_boxed(r"\boxed{\frac{1}{2}}."), Some(r"\frac{1}{2}"));
        assert_eq!(last_boxed(r"\boxed{1} and \boxed{2"), Some("1"));
        assert_eq!(last_boxed(r"\boxed{1}, no, \boxed{2}"), Some("2"));
        assert_eq!(last_boxed("boxed{1}"), None);
    }
}
