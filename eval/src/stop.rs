//! Stop strings: ends a text where one begins, without ever letting out a part of it.

/// Looks for stop strings in a text that arrives in pieces, whose borders may lie anywhere.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stop_strings: Vec<String>,
    /// Text that may turn out to be the beginning of a stop string.
    held_back: String,
    has_stopped: bool,
}

impl StopMatcher {
    /// A matcher for these strings; empty ones stop nothing.
    pub fn new(stop_strings: &[String]) -> Self {
        let stop_strings = stop_strings
            .iter()
            .filter(|stop| !stop.is_empty())
            .cloned()
            .collect();
        Self {
            stop_strings,
            held_back: String::new(),
            has_stopped: false,
        }
    }

    /// Adds a piece and returns the text that is now certain to lie before any stop string.
    pub fn push(&mut self, piece: &str) -> String {
        if self.has_stopped {
            return String::new();
        }
        self.held_back.push_str(piece);
        let first_match = self
            .stop_strings
            .iter()
            .filter_map(|stop| self.held_back.find(stop.as_str()))
            .min();
        let num_certain_bytes = first_match.unwrap_or_else(|| self.undecided_from());
        let rest = self.held_back.split_off(num_certain_bytes);
        let certain = std::mem::replace(&mut self.held_back, rest);
        if first_match.is_some() {
            self.has_stopped = true;
            self.held_back.clear();
        }
        certain
    }

    /// The text that was held back when the text ends without a stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held_back)
    }

    /// Whether a stop string has been reached; nothing comes out after it.
    pub fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    /// Where the longest end of the text begins that could grow into a stop string.
    fn undecided_from(&self) -> usize {
        let text = &self.held_back;
        text.char_indices()
            .map(|(start, _)| start)
            .find(|&start| {
                self.stop_strings
                    .iter()
                    .any(|stop| stop.starts_with(&text[start..]))
            })
            .unwrap_or(text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that comes out of `pieces`, piece by piece, then what the end lets out.
    fn outputs(stop_strings: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stop_strings: Vec<String> = stop_strings.iter().map(ToString::to_string).collect();
        let mut matcher = StopMatcher::new(&stop_strings);
        let mut outputs: Vec<String> = pieces.iter().map(|piece| matcher.push(piece)).collect();
        outputs.push(matcher.finish());
        (outputs, matcher.has_stopped())
    }

    fn assert_outputs(stop: &[&str], pieces: &[&str], expected: &[&str], stopped: bool) {
        let expected = expected.iter().map(ToString::to_string).collect();
        assert_eq!(outputs(stop, pieces), (expected, stopped));
    }

    /// By hand: `<|e` could become `<|end|>` until `x` comes.
    #[test]
    fn a_beginning_that_comes_to_nothing_is_let_out() {
        assert_outputs(&["<|end|>"], &["ab<|e", "x"], &["ab", "<|ex", ""], false);
    }

    /// By hand: the stop string lies over three pieces, and text after it is dropped.
    #[test]
    fn a_stop_string_over_several_pieces_never_shows() {
        let pieces = ["a<", "|en", "d|>b", "c"];
        assert_outputs(&["<|end|>"], &pieces, &["a", "", "", "", ""], true);
    }

    /// By hand: in `aab` the second `a` begins the match that the first one missed.
    #[test]
    fn a_match_may_begin_inside_a_failed_one() {
        assert_outputs(&["ab"], &["a", "a", "b"], &["", "a", "", ""], true);
    }

    /// The order of the list must not matter: the earliest place in the text counts.
    #[test]
    fn the_earliest_of_several_stop_strings_ends_the_text() {
        assert_outputs(&["3", "two"], &["one two 3"], &["one ", ""], true);
        assert_outputs(&["two", "3"], &["one two 3"], &["one ", ""], true);
    }

    /// A model that ends by itself in the middle of a would-be stop string wrote that text.
    #[test]
    fn the_end_of_the_text_lets_out_what_was_held_back() {
        assert_outputs(&["\n\n"], &["a\n"], &["a", "\n"], false);
    }

    /// Characters of several bytes share their first bytes; only whole characters are compared.
    #[test]
    fn characters_of_several_bytes_are_kept_whole() {
        assert_outputs(&["问题"], &["问", "问", "题"], &["", "问", "", ""], true);
        assert_outputs(&["问题"], &["问答"], &["问答", ""], false);
    }

    /// An empty string is at every place of any text.
    #[test]
    fn an_empty_stop_string_stops_nothing() {
        assert_outputs(&[""], &["a"], &["a", ""], false);
        assert_outputs(&[], &["a"], &["a", ""], false);
    }
}
