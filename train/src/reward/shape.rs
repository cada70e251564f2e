//! Rewards for how an answer looks: its format, length, language and repetitions.

use std::collections::HashSet;

use super::{Answered, RewardLanguage};

const THINK: &str = "<think>";
const END_THINK: &str = "</think>";

/// Whether a text is one block of thoughts and something after it.
pub(super) fn is_think_format(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(THINK) else {
        return false;
    };
    !rest.contains(THINK) && rest.contains(END_THINK)
}

/// 0 up to `free` tokens, -1 beyond `most`, a straight line between.
pub(super) fn overlong(len: usize, free: usize, most: usize) -> f64 {
    if len <= free {
        0.0
    } else if len > most {
        -1.0
    } else {
        (free as f64 - len as f64) / (most - free) as f64
    }
}

/// Minus the share of n-grams that occurred before; 0 where there is none.
pub(super) fn repetition(ids: &[u32], ngram_size: usize) -> f64 {
    let total = ids.windows(ngram_size).count();
    if total == 0 {
        return 0.0;
    }
    let different: HashSet<&[u32]> = ids.windows(ngram_size).collect();
    different.len() as f64 / total as f64 - 1.0
}

/// Share of the letters that are of the language; 1 where there are no letters.
pub(super) fn language_share(answer: &Answered<'_>, language: RewardLanguage) -> f64 {
    let is_wanted: fn(char) -> bool = match language {
        RewardLanguage::Chinese => is_han,
        RewardLanguage::English => is_latin,
        RewardLanguage::Prompt => {
            let asked = answer.prompt.last().map_or("", |turn| &turn.content);
            match (count(asked, is_han), count(asked, is_latin)) {
                (0, 0) => return 1.0,
                // A Chinese question may name things in Latin letters, seldom the other way.
                (han, latin) if 2 * han >= latin => is_han,
                _ => is_latin,
            }
        }
    };
    let letters = count(answer.said(), char::is_alphabetic);
    if letters == 0 {
        return 1.0;
    }
    count(answer.said(), is_wanted) as f64 / letters as f64
}

fn count(text: &str, is_counted: fn(char) -> bool) -> usize {
    text.chars().filter(|&c| is_counted(c)).count()
}

fn is_han(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{20000}'..='\u{323af}')
}

fn is_latin(c: char) -> bool {
    c.is_alphabetic() && matches!(c, '\u{41}'..='\u{24f}')
}

#[cfg(test)]
mod tests {
    use dataset::Message;

    use super::*;

    /// The valid and invalid texts of TRL's test of its reward of the same name.
    #[test]
    fn the_think_format_is_trl_s() {
        for text in [
            "<think>This is my reasoning.</think>This is my answer.",
            "<think>\nThis is my reasoning.\n</think>\nThis is my answer.",
            "<think>\nThis is <some tag> my reasoning.</think>\nThis is my answer.",
            "<think></think>\nThis is my answer.",
        ] {
            assert!(is_think_format(text), "{text}");
        }
        for text in [
            "<think>\nThis is my reasoning.\nThis is my answer.",
            "This is my reasoning. This is my answer.",
            "This is my reasoning.</think>\nThis is my answer.",
            "This<think>is my reasoning.</think>\nThis is my answer.",
            "<think>This is<think>my reasoning.</think></think>This is my answer.",
            "<think>This is</think>\nmy\n<think>reasoning.</think>\nThis is my answer.",
        ] {
            assert!(!is_think_format(text), "{text}");
        }
    }

    /// TRL's test values, for 100 tokens at most and 20 of them not free.
    #[test]
    fn the_overlong_cost_is_trl_s() {
        for (len, expected) in [(50, 0.0), (80, 0.0), (90, -0.5), (100, -1.0), (110, -1.0)] {
            let found = overlong(len, 80, 100);
            assert!((found - expected).abs() < 1e-12, "{len}: {found}");
        }
    }

    /// TRL's test values: five equal tokens, a pair three times, a triple twice.
    #[test]
    fn the_repetition_cost_is_trl_s() {
        let cases: [(&[u32], usize, f64); 6] = [
            (&[5, 5, 5, 5, 5], 2, -0.75),
            (&[1, 2, 1, 2, 1, 2], 2, -0.6),
            (&[1, 2, 3, 1, 2, 3], 2, -0.4),
            (&[1, 2, 3, 1, 2, 3], 3, -0.25),
            (&[1, 2, 3, 4], 2, 0.0),
            (&[1, 2], 3, 0.0),
        ];
        for (ids, size, expected) in cases {
            assert!((repetition(ids, size) - expected).abs() < 1e-12, "{ids:?}");
        }
    }

    /// By hand: two of four letters are Han; digits are of no language.
    #[test]
    fn letters_decide_the_language() {
        let share = |text: &str, asked: &str, language| {
            let prompt = [Message::new("user", asked)];
            let answer = Answered {
                prompt: &prompt,
                expected: "",
                other: "",
                prompt_ids: &[],
                completion_ids: &[],
                text,
            };
            language_share(&answer, language)
        };
        let cases = [
            ("是的 ok 5", "", RewardLanguage::Chinese, 0.5),
            ("<think>no</think>是的", "", RewardLanguage::Chinese, 1.0),
            ("是的", "What is it?", RewardLanguage::Prompt, 0.0),
            ("yes", "What is it?", RewardLanguage::Prompt, 1.0),
            ("是的", "Zoe的相机?", RewardLanguage::Prompt, 1.0),
            ("42", "37+5=?", RewardLanguage::Prompt, 1.0),
            ("42", "", RewardLanguage::English, 1.0),
        ];
        for (text, asked, language, expected) in cases {
            let found = share(text, asked, language);
            assert!((found - expected).abs() < 1e-12, "{text}: {found}");
        }
    }
}
