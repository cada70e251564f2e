//! Sanitizers: what a model writes around a question is taken off.
//!
//! The two compatible forms give what Magpie's `instruction_post_process` gives, its slips
//! included; the fixed form is ours.

use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};

/// Which sanitizer instructions go through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sanitizer {
    /// None.
    #[default]
    None,
    /// Ours: numbering, labels, quotes and bold marks go, and so does an answer; questions stay.
    Fixed,
    /// Magpie's for Llama 3.
    Llama3,
    /// Magpie's for Gemma 2.
    Gemma2,
}

/// What was done to an instruction: Magpie's number for it, 0 for nothing.
pub type Class = f64;

impl Sanitizer {
    /// The instruction and what was done to it.
    pub fn clean(self, instruction: &str) -> (String, Class) {
        match self {
            Self::None => (instruction.to_owned(), 0.0),
            Self::Fixed => clean_fixed(instruction),
            Self::Llama3 => clean_compatible(instruction, true),
            Self::Gemma2 => clean_compatible(instruction, false),
        }
    }
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is fixed and parses")
}

static NUMBERING: LazyLock<Regex> = LazyLock::new(|| regex(r"^(\d+\.|\w+\))\s*"));

/// Labels that stand before questions, in Magpie's spelling.
static LABEL: LazyLock<Regex> = LazyLock::new(|| {
    let names = "Task|Prompt|Original Prompt|Question|The Problem|Problem|Scenario|The senario|\
                 Situation|The situation|Context|Challenge|Query|Request|Instructions|Instruction|\
                 Descriptions|Description";
    regex(&format!(
        r"(?i)^(?:(?:{names}):|\*\*(?:{names})\*\*|## (?:{names}):|Question \d+[:.]|Part \d+:|Q\d+[.:])\s*"
    ))
});

/// Magpie's marks of an answer. Those that end in a colon match only with a second one.
static COMPATIBLE_ANSWER: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?:Answer:|Answers:|The answer is|Correct answer|The correct answer|Answer is|Explanation:|Here are some|Solution Approach:|Solution:)s?:",
    )
});

/// Where a line or sentence of the answer begins.
static ANSWER: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"(?m)(?:^|[.?!。？！]\s*)\**(?:(?:The )?(?:Correct )?[Aa]nswers?(?: is)?|Explanation|Here are some[^:\n]*|Solution(?: Approach)?s?)\**:",
    )
});

/// Where somebody begins to work on what was just asked, which who asks does not do.
static WORKING: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"[.?!。？！]\s+(?:To [a-z]+\b[^.?!\n]*, (?:we|let's|let us|you)\b|(?:First|Firstly), (?:we|let's|let us)\b|Let's (?:analyze|begin|break|consider|solve|start|think)\b)",
    )
});

static STEP: LazyLock<Regex> = LazyLock::new(|| regex(r"#{1,3} Step 1:?"));
static FIXED_STEP: LazyLock<Regex> = LazyLock::new(|| regex(r"(?m)^(?:#{1,4} |\*\*)Step 1\b"));
static BOLD_TAG: LazyLock<Regex> = LazyLock::new(|| regex(r"</?b>"));

/// As [`NUMBERING`], but that 3.5 is a number and f(x) a function.
static FIXED_NUMBERING: LazyLock<Regex> = LazyLock::new(|| regex(r"^(?:\d+[.)]|\(?[a-zA-Z]\))\s+"));

fn remove_prefix(text: &str) -> &str {
    remove_numbered_prefix(text, &NUMBERING)
}

fn remove_numbered_prefix<'a>(text: &'a str, numbering: &Regex) -> &'a str {
    let text = numbering
        .find(text)
        .map_or(text, |found| &text[found.end()..]);
    LABEL
        .find(text)
        .map_or(text, |found| &text[found.end()..])
        .trim()
}

/// Whether an instruction brings its own answer along.
pub fn holds_answer(instruction: &str) -> bool {
    let found = |pattern: &Regex| {
        pattern
            .find_iter(instruction)
            .any(|found| found.start() > 0)
    };
    found(&ANSWER) || found(&WORKING) || found(&FIXED_STEP)
}

fn first_line(text: &str) -> &str {
    text.split('\n').next().unwrap_or_default()
}

fn up_to_question_mark(text: &str) -> Option<&str> {
    text.find('?').map(|end| &text[..=end])
}

fn clean_compatible(instruction: &str, is_llama: bool) -> (String, Class) {
    let text = remove_prefix(instruction);
    if let (true, Some(question)) = (text.starts_with('*'), up_to_question_mark(text)) {
        let question = question.replace('*', "");
        return (remove_prefix(question.trim()).to_owned(), 1.0);
    }
    let text = remove_prefix(text);
    let (cleaned, class) = cut_compatible(text, is_llama);
    (remove_prefix(cleaned.trim()).to_owned(), class)
}

fn cut_compatible(text: &str, is_llama: bool) -> (String, Class) {
    let line = first_line(text);
    if text.starts_with('"') {
        return match up_to_question_mark(text) {
            Some(question) => (question.replace('"', ""), 2.1),
            None => (line.replace(['"', '*'], ""), 2.2),
        };
    }
    if text.starts_with("<b>") {
        return (text.replace('*', ""), 3.0);
    }
    if let Some(answer) = COMPATIBLE_ANSWER.find(text) {
        return (text[..answer.start()].to_owned(), 4.0);
    }
    if is_llama && let Some(step) = STEP.find(text) {
        return (text[..step.start()].to_owned(), 5.0);
    }
    let family = |llama, gemma| if is_llama { llama } else { gemma };
    if line.ends_with(':') {
        return match (text.find('#'), up_to_question_mark(text)) {
            (Some(heading), _) => (text[..heading].to_owned(), family(6.1, 5.1)),
            (None, Some(question)) => (question.to_owned(), family(6.2, 5.2)),
            (None, None) => (line.to_owned(), family(6.3, 5.3)),
        };
    }
    match up_to_question_mark(text) {
        Some(question) => (question.to_owned(), family(99.1, 6.1)),
        None => (line.replace('*', ""), family(99.2, 6.2)),
    }
}

/// Cleans until nothing is left to clean, so that a second time changes nothing. The class is the
/// greatest of the changes: 1 marks and labels, 2 quotes, 3 tags, 4 an answer, 5 steps.
fn clean_fixed(instruction: &str) -> (String, Class) {
    let mut text = instruction.trim().to_owned();
    let mut class: Class = 0.0;
    loop {
        let (cleaned, done) = clean_once(&text);
        if cleaned == text {
            return (text, class);
        }
        class = class.max(done);
        text = cleaned;
    }
}

fn clean_once(text: &str) -> (String, Class) {
    if BOLD_TAG.is_match(text) {
        return (BOLD_TAG.replace_all(text, "").trim().to_owned(), 3.0);
    }
    let inner = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    if let Some(inner) = inner.filter(|inner| !inner.contains('"')) {
        return (inner.trim().to_owned(), 2.0);
    }
    let bold = text
        .strip_prefix("**")
        .and_then(|rest| rest.split_once("**"));
    if let Some((label, rest)) = bold
        && (LABEL.is_match(label) || LABEL.is_match(&format!("{label}:")))
    {
        return (rest.trim_start_matches([':', ' ']).trim().to_owned(), 1.0);
    }
    let unlabelled = remove_numbered_prefix(text, &FIXED_NUMBERING);
    if unlabelled != text {
        return (unlabelled.to_owned(), 1.0);
    }
    for (pattern, class) in [(&ANSWER, 4.0), (&WORKING, 4.0), (&FIXED_STEP, 5.0)] {
        // What a text begins with is the question itself.
        let found = pattern.find_iter(text).find(|found| found.start() > 0);
        if let Some(found) = found {
            // The mark may begin with the end of the sentence before it.
            let end_of_sentence = found.as_str().chars().next();
            let end = end_of_sentence.filter(|end| ".?!。？！".contains(*end));
            let kept = found.start() + end.map_or(0, char::len_utf8);
            return (text[..kept].trim().to_owned(), class);
        }
    }
    (text.to_owned(), 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Magpie's `instruction_post_process` on a Llama 3 name, run once on each.
    const LLAMA_3: [(&str, &str, Class); 17] = [
        ("What is 2+2?", "What is 2+2?", 99.1),
        (
            "**Question:** What is 2+2?\n\nAnswer: 4",
            "What is 2+2?",
            1.0,
        ),
        (
            "Explain gravity. Answer: it pulls",
            "Explain gravity. Answer: it pulls",
            99.2,
        ),
        (
            "Explain gravity. The answer is: it pulls",
            "Explain gravity.",
            4.0,
        ),
        (
            "Explain gravity. Solution:: it pulls",
            "Explain gravity.",
            4.0,
        ),
        (
            "Explain gravity.\n## Step 1: think",
            "Explain gravity.",
            5.0,
        ),
        (
            "Here is my code:\nprint(1)\nWhat is wrong? Thanks",
            "Here is my code:\nprint(1)\nWhat is wrong?",
            6.2,
        ),
        ("Write a poem:\n# Title\nline", "Write a poem:", 6.1),
        ("Write a poem:\nabout cats", "Write a poem:", 6.3),
        ("1. List three fruits\n2. more", "List three fruits", 99.2),
        (
            "\"Why is the sky blue?\" he asked",
            "Why is the sky blue?",
            2.1,
        ),
        ("\"Make a list\"\nextra", "Make a list", 2.2),
        ("*Bold* is this a test? yes", "Bold is this a test?", 1.0),
        (
            "<b>Hello</b> world\nsecond",
            "<b>Hello</b> world\nsecond",
            3.0,
        ),
        ("Q1. What is AI? etc", "What is AI?", 99.1),
        ("a) do this", "do this", 99.2),
        ("What is A? And what is B?", "What is A?", 99.1),
    ];

    fn assert_cleans(sanitizer: Sanitizer, cases: &[(&str, &str, Class)]) {
        for &(instruction, cleaned, class) in cases {
            let expected = (cleaned.to_owned(), class);
            assert_eq!(sanitizer.clean(instruction), expected, "{instruction}");
        }
    }

    #[test]
    fn the_compatible_form_gives_magpie_s_results() {
        assert_cleans(Sanitizer::Llama3, &LLAMA_3);
        assert_eq!(Sanitizer::Llama3.clean(""), (String::new(), 99.2));
        let gemma = Sanitizer::Gemma2.clean("Explain gravity.\n## Step 1: think");
        assert_eq!(gemma, ("Explain gravity.".to_owned(), 6.2));
        let gemma = Sanitizer::Gemma2.clean("Write a poem:\nabout cats");
        assert_eq!(gemma, ("Write a poem:".to_owned(), 5.3));
    }

    /// By hand: what the compatible form gets wrong.
    #[test]
    fn the_fixed_form_cuts_answers_and_keeps_questions() {
        let cases = [
            ("Explain gravity. Answer: it pulls", "Explain gravity.", 4.0),
            (
                "Explain gravity.\nSolution: it pulls",
                "Explain gravity.",
                4.0,
            ),
            ("<b>Hello</b> world\nsecond", "Hello world\nsecond", 3.0),
            (
                "What is A? And what is B?",
                "What is A? And what is B?",
                0.0,
            ),
            (
                "**Question:** What is 2+2?\n\nAnswer: 4",
                "What is 2+2?",
                4.0,
            ),
            ("\"Why is the sky blue?\"", "Why is the sky blue?", 2.0),
            ("1. Question: Why?", "Why?", 1.0),
            ("3.5 is half of what?", "3.5 is half of what?", 0.0),
            ("Prove it.\n## Step 1: think", "Prove it.", 5.0),
            (
                "Write a poem:\nabout cats",
                "Write a poem:\nabout cats",
                0.0,
            ),
            ("Is the answer: 4?", "Is the answer: 4?", 0.0),
            (
                "Is 91 prime? To find out whether it is, we divide it.",
                "Is 91 prime?",
                4.0,
            ),
            ("Factor 88. Let's start with 2.", "Factor 88.", 4.0),
            (
                "To get tea, we boil water. Why?",
                "To get tea, we boil water. Why?",
                0.0,
            ),
        ];
        assert_cleans(Sanitizer::Fixed, &cases);
    }

    #[test]
    fn cleaning_twice_changes_nothing_in_the_fixed_form() {
        for (instruction, ..) in LLAMA_3 {
            let (once, _) = Sanitizer::Fixed.clean(instruction);
            assert_eq!(
                Sanitizer::Fixed.clean(&once),
                (once.clone(), 0.0),
                "{instruction}"
            );
        }
    }
}
