//! The playground corpus: a tiny curriculum in Chinese and English, made from a seed, with which a
//! model of a million parameters learns to calculate, spell, count days and know a small world
//! within minutes.
//!
//! It has four parts: *documents* to pretrain on, *rows* of questions and answers to tune on, *pairs* of
//! a right and a wrong answer, and an *exam*. What the exam asks is held out: a pair of numbers, a string of letters, a step through the
//! week or a forest story that it uses occurs in no document and no row, and what it asks about the
//! people of the world is told but asked in no row.

mod animals;
mod arithmetic;
mod calendar;
mod chains;
pub mod choices;
mod identity;
mod lesson;
mod letters;
mod loyalty;
mod practice;
mod preferences;
mod world;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::chat::Message;
use crate::draw::Draw;
pub use chains::{Chain, Chains};
use lesson::{HeldOut, Lesson, Question};
pub use lesson::{Language, Task};
pub use loyalty::LoyaltyPractice;
pub use practice::Practice;
pub use preferences::Preference;

/// Share of each task in the questions of the rows, in percent: sums are learnt by seeing many.
const QUESTION_SHARES: [(Task, usize); 10] = [
    (Task::Sum, 30),
    (Task::Difference, 16),
    (Task::Copy, 6),
    (Task::Reverse, 7),
    (Task::Count, 8),
    (Task::Weekday, 4),
    (Task::Month, 4),
    (Task::World, 12),
    (Task::Story, 8),
    (Task::Identity, 5),
];

/// Share of each kind of document, named by a task it serves, in percent.
const DOCUMENT_SHARES: [(Task, usize); 6] = [
    (Task::Sum, 48),
    (Task::Copy, 14),
    (Task::Weekday, 7),
    (Task::World, 18),
    (Task::Story, 9),
    (Task::Identity, 4),
];

/// Size and seed of a playground.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaygroundConfig {
    /// Decides everything: the same seed gives the same corpus on every machine.
    pub seed: u64,
    /// Number of documents to pretrain on.
    pub num_documents: usize,
    /// Number of conversations to tune on.
    pub num_rows: usize,
    /// Number of questions with a right and a wrong answer.
    pub num_pairs: usize,
    /// Number of exam questions per task; tasks with fewer held-out facts have fewer.
    pub num_exam_items: usize,
}

impl Default for PlaygroundConfig {
    fn default() -> Self {
        Self {
            seed: 42,
            num_documents: 20_000,
            num_rows: 16_000,
            num_pairs: 2_000,
            num_exam_items: 100,
        }
    }
}

/// A question that training never showed, with the only answer that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExamItem {
    /// What is examined.
    pub task: Task,
    /// Language of question and answer.
    pub language: Language,
    /// The user's message.
    pub prompt: String,
    /// What the assistant has to say, to the letter.
    pub answer: String,
}

/// A whole playground.
#[derive(Debug, Clone, PartialEq)]
pub struct Playground {
    /// Texts to pretrain on.
    pub documents: Vec<String>,
    /// Conversations to tune on: one to three questions with their answers, in one language.
    pub rows: Vec<Vec<Message>>,
    /// Questions with a right and a wrong answer, to learn the difference from.
    pub pairs: Vec<Preference>,
    /// Questions to ask in the end, task by task.
    pub exam: Vec<ExamItem>,
}

impl Playground {
    /// Makes a playground; parts of equal seeds agree as far as the shorter one goes.
    pub fn generate(config: &PlaygroundConfig) -> Self {
        let held_out = HeldOut::new(config.seed);
        let school = School::new(config.seed, held_out);
        Self {
            documents: documents(config, school.clone()),
            rows: rows(config, school.clone()),
            pairs: preferences::pairs(config.num_pairs, school.clone(), Draw::new(config.seed, 4)),
            exam: exam(config, school),
        }
    }
}

/// One teacher per subject.
#[derive(Clone)]
struct School {
    arithmetic: arithmetic::Arithmetic,
    letters: letters::Letters,
    calendar: calendar::Calendar,
    world: world::World,
    animals: animals::Animals,
    identity: identity::Identity,
}

impl School {
    fn new(seed: u64, held_out: HeldOut) -> Self {
        Self {
            arithmetic: arithmetic::Arithmetic::new(held_out),
            letters: letters::Letters::new(held_out),
            calendar: calendar::Calendar::new(held_out),
            world: world::World::new(seed, held_out),
            animals: animals::Animals::new(held_out),
            identity: identity::Identity::new(held_out),
        }
    }

    fn lesson(&mut self, task: Task) -> &mut dyn Lesson {
        match task {
            Task::Sum | Task::Difference => &mut self.arithmetic,
            Task::Copy | Task::Reverse | Task::Count => &mut self.letters,
            Task::Weekday | Task::Month => &mut self.calendar,
            Task::World => &mut self.world,
            Task::Story => &mut self.animals,
            Task::Identity => &mut self.identity,
        }
    }
}

fn documents(config: &PlaygroundConfig, mut school: School) -> Vec<String> {
    let mut draw = Draw::new(config.seed, 1);
    (0..config.num_documents)
        .map(|_| {
            let task = task_of(&DOCUMENT_SHARES, &mut draw);
            let language = Language::draw(&mut draw);
            school.lesson(task).passage(language, &mut draw)
        })
        .collect()
}

fn rows(config: &PlaygroundConfig, mut school: School) -> Vec<Vec<Message>> {
    let mut draw = Draw::new(config.seed, 2);
    (0..config.num_rows)
        .map(|_| {
            let language = Language::draw(&mut draw);
            let num_questions = *draw.pick(&[1, 1, 1, 2, 3]);
            (0..num_questions)
                .flat_map(|_| {
                    let task = task_of(&QUESTION_SHARES, &mut draw);
                    let Question { prompt, answer } =
                        school.lesson(task).question(task, language, &mut draw);
                    [
                        Message::new("user", prompt),
                        Message::new("assistant", answer),
                    ]
                })
                .collect()
        })
        .collect()
}

fn exam(config: &PlaygroundConfig, mut school: School) -> Vec<ExamItem> {
    let mut draw = Draw::new(config.seed, 3);
    let mut items = Vec::new();
    for (task, _) in QUESTION_SHARES {
        let mut prompts = BTreeSet::new();
        // Small sets of facts run out of fresh questions; twenty draws for each find nearly all.
        for turn in 0..config.num_exam_items * 20 {
            if prompts.len() == config.num_exam_items {
                break;
            }
            let language = Language::ALL[turn % 2];
            let Question { prompt, answer } =
                school.lesson(task).exam_question(task, language, &mut draw);
            if prompts.insert(prompt.clone()) {
                items.push(ExamItem {
                    task,
                    language,
                    prompt,
                    answer,
                });
            }
        }
    }
    items
}

fn task_of(shares: &[(Task, usize)], draw: &mut Draw) -> Task {
    let mut ticket = draw.below(100);
    for &(task, share) in shares {
        if ticket < share {
            return task;
        }
        ticket -= share;
    }
    unreachable!("the shares are 100 percent together")
}

#[cfg(test)]
mod tests;
