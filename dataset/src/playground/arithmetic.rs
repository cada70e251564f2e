//! Sums and differences of numbers below 100.
//!
//! Held out are unordered pairs of addends: with 37 and 45 go 37+45, 45+37, 82-37 and 82-45, so no
//! text shows a held-out sum backwards.

use std::collections::BTreeSet;

use super::lesson::{Deck, HeldOut, Language, Lesson, Question, Task, Word, fill, say};
use super::world::PEOPLE;
use crate::draw::Draw;

/// Numbers that are added and subtracted are below this.
pub(super) const END: u32 = 100;
/// Share of exercises, in percent, in which one of the numbers has a single digit. Drawn evenly
/// they are a fifth, too few to learn that their digits stand elsewhere.
const SHORT_SHARE: usize = 20;

const SUM_QUESTIONS: [Word; 3] = [
    ["{a}+{b}=?", "{a}+{b}=?"],
    ["What is {a}+{b}?", "{a}加{b}等于几?"],
    ["Add {a} and {b}.", "算一算:{a}+{b}"],
];

const DIFFERENCE_QUESTIONS: [Word; 3] = [
    ["{a}-{b}=?", "{a}-{b}=?"],
    ["What is {a}-{b}?", "{a}减{b}等于几?"],
    ["What is {a} minus {b}?", "算一算:{a}-{b}"],
];

const SUM_SENTENCES: [Word; 2] = [
    ["{a} plus {b} is {c}.", "{a}加{b}等于{c}。"],
    ["{a} and {b} make {c}.", "{a}和{b}一共是{c}。"],
];

const DIFFERENCE_SENTENCES: [Word; 2] = [
    ["{a} minus {b} is {c}.", "{a}减{b}等于{c}。"],
    ["From {a} take {b} and {c} is left.", "{a}去掉{b}还剩{c}。"],
];

const SUM_TALES: [Word; 3] = [
    [
        "{name} had {a} {things} and found {b} more: {c} {things}.",
        "{name}有{a}个{things}又捡到{b}个:一共{c}个{things}。",
    ],
    [
        "{name} counted {a} {things} in the morning and {b} at night: {c} in all.",
        "{name}早上数了{a}个{things}晚上数了{b}个:一共{c}个。",
    ],
    [
        "With {a} {things} in one bag and {b} in another {name} has {c}.",
        "{name}一个袋子里有{a}个{things}另一个里有{b}个:共有{c}个。",
    ],
];

const DIFFERENCE_TALES: [Word; 2] = [
    [
        "{name} had {a} {things} and gave {b} away: {c} {things} are left.",
        "{name}有{a}个{things}送出{b}个:还剩{c}个{things}。",
    ],
    [
        "Of {a} {things} {name} lost {b} and kept {c}.",
        "{name}的{a}个{things}丢了{b}个:剩下{c}个。",
    ],
];

const THINGS: [Word; 10] = [
    ["shells", "贝壳"],
    ["nuts", "坚果"],
    ["beads", "珠子"],
    ["coins", "硬币"],
    ["stones", "石子"],
    ["buttons", "纽扣"],
    ["stamps", "邮票"],
    ["pears", "梨"],
    ["eggs", "鸡蛋"],
    ["stars", "星星"],
];

const TITLES: [Word; 4] = [
    ["Sums for today", "今天的算术"],
    ["Number work", "口算练习"],
    ["A page of sums", "算术一页"],
    ["Numbers", "数字"],
];

/// Two numbers with their sum or difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exercise {
    is_sum: bool,
    a: u32,
    b: u32,
}

impl Exercise {
    fn result(self) -> u32 {
        if self.is_sum {
            self.a + self.b
        } else {
            self.a - self.b
        }
    }

    fn equation(self) -> String {
        let sign = if self.is_sum { '+' } else { '-' };
        format!("{}{sign}{}={}", self.a, self.b, self.result())
    }

    fn write(self, pattern: &str, more: &[(&str, &str)]) -> String {
        let [a, b, c] = [self.a, self.b, self.result()].map(|number| number.to_string());
        let values = [("a", &*a), ("b", &*b), ("c", &*c)];
        fill(pattern, &[&values, more].concat())
    }
}

/// The teacher of arithmetic.
#[derive(Debug, Clone)]
pub(super) struct Arithmetic {
    held_out: BTreeSet<(u32, u32)>,
    sums: Deck<Exercise>,
    differences: Deck<Exercise>,
    short_sums: Deck<Exercise>,
    short_differences: Deck<Exercise>,
    exam_sums: Deck<Exercise>,
    exam_differences: Deck<Exercise>,
}

impl Arithmetic {
    pub(super) fn new(held_out: HeldOut) -> Self {
        let pairs = (0..END).flat_map(|a| (a..END).map(move |b| (a, b)));
        let key = |(a, b): &(u32, u32)| format!("{a} {b}");
        let (taught, held_out) = held_out.part("sum", pairs.collect(), key);
        let (sums, differences) = (sums_of(&taught), differences_of(&taught));
        let short = |exercises: &[Exercise]| {
            let is_short = |exercise: &&Exercise| exercise.a < 10 || exercise.b < 10;
            Deck::new(exercises.iter().filter(is_short).copied().collect())
        };
        Self {
            short_sums: short(&sums),
            short_differences: short(&differences),
            sums: Deck::new(sums),
            differences: Deck::new(differences),
            exam_sums: Deck::new(sums_of(&held_out)),
            exam_differences: Deck::new(differences_of(&held_out)),
            held_out: held_out.into_iter().collect(),
        }
    }

    /// Whether no training text may show the two numbers added up.
    pub(super) fn is_held_out(&self, a: u32, b: u32) -> bool {
        self.held_out.contains(&(a.min(b), a.max(b)))
    }

    fn exercise(&mut self, draw: &mut Draw) -> Exercise {
        let is_sum = draw.chance(65);
        self.taught(is_sum, draw)
    }

    fn taught(&mut self, is_sum: bool, draw: &mut Draw) -> Exercise {
        let deck = match (is_sum, draw.chance(SHORT_SHARE)) {
            (true, false) => &mut self.sums,
            (true, true) => &mut self.short_sums,
            (false, false) => &mut self.differences,
            (false, true) => &mut self.short_differences,
        };
        deck.draw(draw)
    }

    /// A page of equations, sometimes with a title.
    fn page(&mut self, language: Language, draw: &mut Draw) -> String {
        let num_exercises = 6 + draw.below(6);
        let mut lines: Vec<String> = (0..num_exercises)
            .map(|_| self.exercise(draw).equation())
            .collect();
        if draw.chance(20) {
            lines.insert(0, say(*draw.pick(&TITLES), language).to_owned());
        }
        lines.join("\n")
    }

    fn sentences(&mut self, language: Language, draw: &mut Draw) -> String {
        let sentences: Vec<String> = (0..4)
            .map(|_| {
                let exercise = self.exercise(draw);
                let patterns = if exercise.is_sum {
                    SUM_SENTENCES
                } else {
                    DIFFERENCE_SENTENCES
                };
                exercise.write(say(*draw.pick(&patterns), language), &[])
            })
            .collect();
        join(&sentences, language)
    }

    fn tales(&mut self, language: Language, draw: &mut Draw) -> String {
        let sentences: Vec<String> = (0..2)
            .map(|_| {
                let exercise = self.exercise(draw);
                let pattern = if exercise.is_sum {
                    *draw.pick(&SUM_TALES)
                } else {
                    *draw.pick(&DIFFERENCE_TALES)
                };
                let name = say(*draw.pick(&PEOPLE), language);
                let things = say(*draw.pick(&THINGS), language);
                exercise.write(
                    say(pattern, language),
                    &[("name", name), ("things", things)],
                )
            })
            .collect();
        join(&sentences, language)
    }

    /// Both orders of a sum and the differences that belong to it, for two pairs of numbers.
    fn family(&mut self, draw: &mut Draw) -> String {
        let mut lines = Vec::new();
        while lines.len() < 2 {
            let Exercise { a, b, .. } = self.sums.draw(draw);
            let c = a + b;
            let mut members = vec![format!("{a}+{b}={c}"), format!("{b}+{a}={c}")];
            if c < END {
                members.push(format!("{c}-{a}={b}"));
                members.push(format!("{c}-{b}={a}"));
            }
            lines.push(members.join(", "));
        }
        lines.join("\n")
    }

    /// Sums by way of tens and ones, where no step is held out: 37+45: 30+40=70, 7+5=12, 70+12=82.
    fn steps(&mut self, draw: &mut Draw) -> String {
        let mut lines = Vec::new();
        while lines.len() < 2 {
            let Exercise { a, b, .. } = self.sums.draw(draw);
            let (tens, ones) = (a / 10 * 10 + b / 10 * 10, a % 10 + b % 10);
            let steps = [
                (a / 10 * 10, b / 10 * 10),
                (a % 10, b % 10),
                (tens, ones),
                (a, b),
            ];
            if tens < END && !steps.iter().any(|&(a, b)| self.is_held_out(a, b)) {
                let steps = steps.map(|(a, b)| format!("{a}+{b}={}", a + b));
                lines.push(steps.join(", "));
            }
        }
        lines.join("\n")
    }
}

impl Lesson for Arithmetic {
    fn question(&mut self, task: Task, language: Language, draw: &mut Draw) -> Question {
        let exercise = self.taught(task == Task::Sum, draw);
        ask(exercise, language, draw)
    }

    fn exam_question(&mut self, task: Task, language: Language, draw: &mut Draw) -> Question {
        let exercise = match task {
            Task::Sum => self.exam_sums.draw(draw),
            _ => self.exam_differences.draw(draw),
        };
        ask(exercise, language, draw)
    }

    fn passage(&mut self, language: Language, draw: &mut Draw) -> String {
        match draw.below(100) {
            0..60 => self.page(language, draw),
            60..72 => self.sentences(language, draw),
            72..80 => self.tales(language, draw),
            80..90 => self.family(draw),
            _ => self.steps(draw),
        }
    }
}

fn ask(exercise: Exercise, language: Language, draw: &mut Draw) -> Question {
    let patterns = if exercise.is_sum {
        SUM_QUESTIONS
    } else {
        DIFFERENCE_QUESTIONS
    };
    Question {
        prompt: exercise.write(say(*draw.pick(&patterns), language), &[]),
        answer: exercise.result().to_string(),
    }
}

/// Sentences side by side: with a space between in English, without in Chinese.
pub(super) fn join(sentences: &[String], language: Language) -> String {
    sentences.join(say([" ", ""], language))
}

/// Both orders of each pair.
fn sums_of(pairs: &[(u32, u32)]) -> Vec<Exercise> {
    let sum = |a, b| Exercise { is_sum: true, a, b };
    pairs
        .iter()
        .flat_map(|&(a, b)| {
            let orders = if a == b { 1 } else { 2 };
            [sum(a, b), sum(b, a)].into_iter().take(orders)
        })
        .collect()
}

/// Both ways of taking the sum of each pair apart, where it is below 100.
fn differences_of(pairs: &[(u32, u32)]) -> Vec<Exercise> {
    sums_of(pairs)
        .into_iter()
        .filter(|sum| sum.a + sum.b < END)
        .map(|sum| Exercise {
            is_sum: false,
            a: sum.a + sum.b,
            b: sum.a,
        })
        .collect()
}
