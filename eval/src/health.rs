//! Whether what a model writes is sound, whatever it says: variety, repetition, endings, language.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

/// Length of the runs of tokens whose repetition counts.
const REPEATED_RUN: usize = 4;

/// One answer to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenAnswer {
    /// What was asked.
    pub prompt: String,
    /// What was written.
    pub text: String,
    /// Its tokens.
    pub token_ids: Vec<u32>,
    /// Whether the model ended it by itself.
    pub is_terminated: bool,
}

/// Health of a set of answers; shares are from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Answers looked at.
    pub num_answers: usize,
    /// Mean tokens of an answer.
    pub mean_tokens: f64,
    /// Different tokens among all tokens.
    pub distinct_1: f64,
    /// Different pairs of neighbouring tokens among all pairs (Li et al. 2016, arXiv:1510.03055).
    pub distinct_2: f64,
    /// Different runs of three tokens among all such runs.
    pub distinct_3: f64,
    /// Mean share of an answer's runs of four tokens that it holds already (Welleck et al. 2020,
    /// arXiv:1908.04319, seq-rep-4).
    pub repetition: f64,
    /// Answers that the model ended by itself.
    pub terminated: f64,
    /// Answers without any text.
    pub empty: f64,
    /// Answers in the prompt's script, of those with letters.
    pub language_match: f64,
}

/// Looks at answers.
pub fn health_of(answers: &[WrittenAnswer]) -> Health {
    let num_answers = answers.len();
    let mean = |values: &dyn Fn(&WrittenAnswer) -> f64| {
        answers.iter().map(values).sum::<f64>() / num_answers.max(1) as f64
    };
    let share =
        |is_so: &dyn Fn(&WrittenAnswer) -> bool| mean(&|answer| f64::from(u8::from(is_so(answer))));
    let scripts: Vec<bool> = answers
        .iter()
        .filter_map(|answer| Some(mostly_han(&answer.prompt)? == mostly_han(&answer.text)?))
        .collect();
    let num_matching = scripts.iter().filter(|is_same| **is_same).count();
    Health {
        num_answers,
        mean_tokens: mean(&|answer| answer.token_ids.len() as f64),
        distinct_1: distinct(answers, 1),
        distinct_2: distinct(answers, 2),
        distinct_3: distinct(answers, 3),
        repetition: mean(&repetition),
        terminated: share(&|answer| answer.is_terminated),
        empty: share(&|answer| answer.text.trim().is_empty()),
        language_match: num_matching as f64 / scripts.len().max(1) as f64,
    }
}

/// Share of an answer's runs of four tokens that it holds already; 0 where it is too short for one.
fn repetition(answer: &WrittenAnswer) -> f64 {
    let runs = answer.token_ids.windows(REPEATED_RUN);
    let num_runs = runs.len();
    let num_different = runs.collect::<HashSet<_>>().len();
    (num_runs - num_different) as f64 / num_runs.max(1) as f64
}

/// Different runs of `len` tokens among all such runs of all answers.
fn distinct(answers: &[WrittenAnswer], len: usize) -> f64 {
    let runs = answers
        .iter()
        .flat_map(|answer| answer.token_ids.windows(len));
    let num_runs = runs.clone().count();
    runs.collect::<HashSet<_>>().len() as f64 / num_runs.max(1) as f64
}

/// Whether a text has at least as many Chinese characters as Latin words; `None` without letters.
fn mostly_han(text: &str) -> Option<bool> {
    let num_han = text
        .chars()
        .filter(|character| matches!(character, '\u{3400}'..='\u{9fff}'))
        .count();
    let words = text.split(|character: char| !character.is_ascii_alphabetic());
    let num_words = words.filter(|word| !word.is_empty()).count();
    (num_han + num_words > 0).then_some(num_han >= num_words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(prompt: &str, text: &str, token_ids: &[u32], is_terminated: bool) -> WrittenAnswer {
        WrittenAnswer {
            prompt: prompt.to_owned(),
            text: text.to_owned(),
            token_ids: token_ids.to_vec(),
            is_terminated,
        }
    }

    /// Counted by hand: tokens 1 2 1 2 1 2 1 2 have five runs of four, two of them different; 3 4 5
    /// has none. Eleven tokens, five different; nine pairs, four different; seven triples, three.
    #[test]
    fn health_by_hand() {
        let answers = [
            answer("你好吗?", "abab", &[1, 2, 1, 2, 1, 2, 1, 2], false),
            answer("Say hello", "hello there", &[3, 4, 5], true),
        ];
        let found = health_of(&answers);
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12);
        assert_eq!(found.num_answers, 2);
        close(found.mean_tokens, 5.5);
        close(found.distinct_1, 5.0 / 11.0);
        close(found.distinct_2, 4.0 / 9.0);
        close(found.distinct_3, 3.0 / 7.0);
        close(found.repetition, (1.0 - 2.0 / 5.0) / 2.0);
        close(found.terminated, 0.5);
        close(found.empty, 0.0);
        close(found.language_match, 0.5);
    }

    #[test]
    fn languages_are_told_apart_by_script() {
        assert_eq!(mostly_han("用 Python 写一个函数"), Some(true));
        assert_eq!(mostly_han("What is 龙?"), Some(false));
        assert_eq!(mostly_han("37+45=?"), None);
        assert_eq!(health_of(&[]).num_answers, 0);
    }
}
