//! Copying, reversing and counting letters.
//!
//! Letters stand apart, so that each is a token. Held out are strings of three letters and more,
//! each with its reverse; no text to learn from contains one, not even within a longer string.

use super::arithmetic::join;
use super::lesson::{HeldOut, Language, Lesson, Question, Task, Word, fill, say};
use crate::draw::Draw;

const COPY_QUESTIONS: [Word; 2] = [["Copy: {s}", "照抄:{s}"], ["Repeat: {s}", "重复:{s}"]];

const REVERSE_QUESTIONS: [Word; 2] = [
    ["Reverse: {s}", "倒过来:{s}"],
    ["Backwards: {s}", "反着写:{s}"],
];

const COUNT_QUESTIONS: [Word; 2] = [
    ["Count {l} in: {s}", "数一数{l}:{s}"],
    ["How many {l} in: {s}", "有几个{l}:{s}"],
];

const COPY_SENTENCES: [Word; 2] = [
    ["Copy {s} and get {r}.", "照抄{s}得到{r}。"],
    ["Again: {s}, {r}.", "再写一遍:{s},{r}。"],
];

const REVERSE_SENTENCES: [Word; 2] = [
    ["Backwards, {s} is {r}.", "{s}反着写是{r}。"],
    ["Turn {s} around: {r}.", "把{s}倒过来:{r}。"],
];

const COUNT_SENTENCES: [Word; 2] = [
    ["In {s} there are {r} of {l}.", "{s}里有{r}个{l}。"],
    ["Count {l} in {s}: {r}.", "数一数{s}里的{l}:{r}。"],
];

const NEIGHBOUR_SENTENCES: [Word; 2] = [
    ["After {l} comes {r}.", "{l}后面是{r}。"],
    ["Before {r} comes {l}.", "{r}前面是{l}。"],
];

/// The teacher of letters.
#[derive(Debug, Clone)]
pub(super) struct Letters {
    held_out: HeldOut,
}

/// A string of letters, and what is to be done with it.
struct Exercise {
    letters: Vec<char>,
    counted: char,
}

impl Exercise {
    fn answer(&self, task: Task) -> String {
        match task {
            Task::Copy => spaced(self.letters.iter()),
            Task::Reverse => spaced(self.letters.iter().rev()),
            _ => {
                let is_counted = |letter: &&char| **letter == self.counted;
                self.letters.iter().filter(is_counted).count().to_string()
            }
        }
    }

    fn write(&self, task: Task, pattern: Word, language: Language) -> String {
        let values = [
            ("s", &*spaced(self.letters.iter())),
            ("r", &*self.answer(task)),
            ("l", &*self.counted.to_string()),
        ];
        fill(say(pattern, language), &values)
    }
}

impl Letters {
    pub(super) fn new(held_out: HeldOut) -> Self {
        Self { held_out }
    }

    fn is_held_out(&self, letters: &[char]) -> bool {
        let forward: String = letters.iter().collect();
        let backward: String = letters.iter().rev().collect();
        self.held_out
            .holds("letters", forward.as_str().min(&backward))
    }

    fn contains_held_out(&self, letters: &[char]) -> bool {
        (3..=letters.len()).any(|len| letters.windows(len).any(|window| self.is_held_out(window)))
    }

    fn taught(&self, task: Task, draw: &mut Draw) -> Exercise {
        loop {
            let exercise = exercise(task, draw);
            if !self.contains_held_out(&exercise.letters) {
                return exercise;
            }
        }
    }

    fn examined(&self, task: Task, draw: &mut Draw) -> Exercise {
        loop {
            let exercise = exercise(task, draw);
            if self.is_held_out(&exercise.letters) {
                return exercise;
            }
        }
    }
}

impl Lesson for Letters {
    fn question(&mut self, task: Task, language: Language, draw: &mut Draw) -> Question {
        ask(&self.taught(task, draw), task, language, draw)
    }

    fn exam_question(&mut self, task: Task, language: Language, draw: &mut Draw) -> Question {
        ask(&self.examined(task, draw), task, language, draw)
    }

    fn passage(&mut self, language: Language, draw: &mut Draw) -> String {
        if draw.chance(12) {
            return alphabet(language, draw);
        }
        let sentences: Vec<String> = (0..4)
            .map(|_| {
                let task = *draw.pick(&[Task::Copy, Task::Reverse, Task::Reverse, Task::Count]);
                let patterns = match task {
                    Task::Copy => COPY_SENTENCES,
                    Task::Reverse => REVERSE_SENTENCES,
                    _ => COUNT_SENTENCES,
                };
                let exercise = self.taught(task, draw);
                exercise.write(task, *draw.pick(&patterns), language)
            })
            .collect();
        join(&sentences, language)
    }
}

fn ask(exercise: &Exercise, task: Task, language: Language, draw: &mut Draw) -> Question {
    let patterns = match task {
        Task::Copy => COPY_QUESTIONS,
        Task::Reverse => REVERSE_QUESTIONS,
        _ => COUNT_QUESTIONS,
    };
    Question {
        prompt: exercise.write(task, *draw.pick(&patterns), language),
        answer: exercise.answer(task),
    }
}

fn letter(draw: &mut Draw) -> char {
    char::from(b'a' + draw.below(26) as u8)
}

fn exercise(task: Task, draw: &mut Draw) -> Exercise {
    let counted = letter(draw);
    let mut letters: Vec<char> = (0..3 + draw.below(3)).map(|_| letter(draw)).collect();
    if task == Task::Count {
        // One to three of the counted letter among others, so that counts vary.
        letters.truncate(1 + draw.below(3));
        letters.retain(|&other| other != counted);
        let num_counted = (1 + draw.below(3)).max(3 - letters.len());
        letters.extend(std::iter::repeat_n(counted, num_counted));
        draw.shuffle(&mut letters);
    }
    Exercise { letters, counted }
}

fn spaced<'a>(letters: impl Iterator<Item = &'a char>) -> String {
    let letters: Vec<String> = letters.map(char::to_string).collect();
    letters.join(" ")
}

/// A stretch of the alphabet with commas between, and neighbours in it.
fn alphabet(language: Language, draw: &mut Draw) -> String {
    let start = draw.below(18);
    let stretch: Vec<String> = (start..start + 8)
        .map(|index| char::from(b'a' + index as u8).to_string())
        .collect();
    let place = draw.below(7);
    let values = [("l", &*stretch[place]), ("r", &*stretch[place + 1])];
    let neighbours = fill(say(*draw.pick(&NEIGHBOUR_SENTENCES), language), &values);
    let list = stretch.join(say([", ", "、"], language));
    join(&[list + say([".", "。"], language), neighbours], language)
}
