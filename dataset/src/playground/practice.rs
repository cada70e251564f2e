//! Questions of one subject to practise on, and others of it that training never shows.

use super::lesson::{HeldOut, Language, Question, Task};
use super::{ExamItem, PlaygroundConfig, School, exam};
use crate::draw::Draw;

/// Questions of one task, apart from the corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Practice {
    /// Questions that training may show, some of them perhaps more than once.
    pub taught: Vec<ExamItem>,
    /// Questions about what is held out, each once; they begin with those of the exam.
    pub held_out: Vec<ExamItem>,
}

impl Practice {
    /// Questions of a task of the playground with this seed.
    pub fn generate(seed: u64, task: Task, num_taught: usize, num_held_out: usize) -> Self {
        let mut school = School::new(seed, HeldOut::new(seed));
        let config = PlaygroundConfig {
            seed,
            num_exam_items: num_held_out,
            ..PlaygroundConfig::default()
        };
        let mut held_out = exam(&config, school.clone());
        held_out.retain(|item| item.task == task);
        let mut draw = Draw::new(seed, 16);
        let taught = (0..num_taught).map(|_| {
            let language = Language::draw(&mut draw);
            let Question { prompt, answer } =
                school.lesson(task).question(task, language, &mut draw);
            ExamItem {
                task,
                language,
                prompt,
                answer,
            }
        });
        Self {
            taught: taught.collect(),
            held_out,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::playground::Playground;

    /// The two numbers of a sum in any order.
    fn pair(item: &ExamItem) -> (u32, u32) {
        let digits = |c: char| !c.is_ascii_digit();
        let mut numbers = item.prompt.split(digits).filter(|part| !part.is_empty());
        let mut next = || numbers.next().unwrap().parse::<u32>().unwrap();
        let (a, b) = (next(), next());
        assert_eq!(item.answer, (a + b).to_string());
        (a.min(b), a.max(b))
    }

    /// No pair of numbers is on both sides, and the exam is a part of what is held out.
    #[test]
    fn what_is_held_out_is_never_practised() {
        let practice = Practice::generate(7, Task::Sum, 500, 40);
        let taught: BTreeSet<_> = practice.taught.iter().map(pair).collect();
        assert!(
            practice
                .held_out
                .iter()
                .map(pair)
                .all(|it| !taught.contains(&it))
        );
        let config = PlaygroundConfig {
            seed: 7,
            num_documents: 1,
            num_rows: 1,
            num_pairs: 1,
            num_exam_items: 30,
        };
        let exam = Playground::generate(&config).exam;
        let sums: Vec<_> = exam.iter().filter(|item| item.task == Task::Sum).collect();
        assert_eq!(sums, practice.held_out[..30].iter().collect::<Vec<_>>());
    }
}
