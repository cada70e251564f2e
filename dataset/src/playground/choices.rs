//! An exam about the invented world in C-Eval's form: questions with four options, in a folder of
//! CSV files.
//!
//! The letters are balanced, so that whoever always answers the same one scores a quarter.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use super::School;
use super::lesson::{HeldOut, Language};
use super::world::Topic;
use crate::draw::Draw;

const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

/// Solved questions of each subject, which prompts may show first.
const NUM_DEV: usize = 5;

/// A question with four options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceItem {
    /// The question.
    pub question: String,
    /// From A to D.
    pub options: [String; 4],
    /// Place of the right option.
    pub answer: usize,
}

/// Everything that is asked about one side of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceSubject {
    /// Name of its files.
    pub name: &'static str,
    /// Solved questions.
    pub dev: Vec<ChoiceItem>,
    /// Questions to be asked, none of them in `dev`.
    pub val: Vec<ChoiceItem>,
}

/// The exam about the world of this seed, in both languages.
///
/// Wrong options are right answers about somebody else, so that only who knows the world can tell.
pub fn choice_exam(seed: u64) -> Vec<ChoiceSubject> {
    let school = School::new(seed, HeldOut::new(seed));
    let mut draw = Draw::new(seed, 5);
    let mut subjects: Vec<(&'static str, Vec<ChoiceItem>)> = Vec::new();
    for language in Language::ALL {
        for topic in school.world.topics(language) {
            let items = with_options(&topic, &mut draw);
            match subjects.iter_mut().find(|(known, _)| *known == topic.name) {
                Some((_, known)) => known.extend(items),
                None => subjects.push((topic.name, items)),
            }
        }
    }
    subjects
        .into_iter()
        .map(|(name, mut items)| {
            draw.shuffle(&mut items);
            let mut val = items.split_off(NUM_DEV);
            for part in [&mut items, &mut val] {
                for (place, item) in part.iter_mut().enumerate() {
                    item.options.swap(item.answer, place % 4);
                    item.answer = place % 4;
                }
            }
            let dev = items;
            ChoiceSubject { name, dev, val }
        })
        .collect()
}

/// Writes `dev/NAME_dev.csv` and `val/NAME_val.csv` for every subject.
///
/// # Errors
///
/// A folder or file that cannot be written.
pub fn write_choice_exam(dir: &Path, subjects: &[ChoiceSubject]) -> io::Result<()> {
    for subject in subjects {
        for (split, items) in [("dev", &subject.dev), ("val", &subject.val)] {
            let folder = dir.join(split);
            fs::create_dir_all(&folder)?;
            let path = folder.join(format!("{}_{split}.csv", subject.name));
            let mut writer = csv::Writer::from_path(path)?;
            writer.write_record(["id", "question", "A", "B", "C", "D", "answer"])?;
            for (id, item) in items.iter().enumerate() {
                let [a, b, c, d] = item.options.each_ref().map(String::as_str);
                let (id, answer) = (id.to_string(), LETTERS[item.answer]);
                writer.write_record([id.as_str(), &item.question, a, b, c, d, answer])?;
            }
            writer.flush()?;
        }
    }
    Ok(())
}

/// Each question with its answer and three others of the topic, its own first.
fn with_options(topic: &Topic, draw: &mut Draw) -> Vec<ChoiceItem> {
    let answers: BTreeSet<&str> = topic.answers.iter().map(String::as_str).collect();
    let answers: Vec<&str> = answers.into_iter().collect();
    let questions = topic.questions.iter();
    questions
        .map(|question| {
            let mut others: Vec<&str> = answers.clone();
            others.retain(|answer| *answer != question.answer);
            draw.shuffle(&mut others);
            let [first, second, third, ..] = others[..] else {
                unreachable!("every topic has at least six answers")
            };
            ChoiceItem {
                question: question.prompt.clone(),
                options: [question.answer.as_str(), first, second, third].map(str::to_owned),
                answer: 0,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playground::Task;

    /// 12 people in two languages, less five solved ones; 19 questions are 5, 5, 5 and 4.
    #[test]
    fn letters_are_balanced_and_options_differ() {
        let subjects = choice_exam(42);
        let names: Vec<&str> = subjects.iter().map(|subject| subject.name).collect();
        assert_eq!(names, ["owner", "possession", "color", "home", "job"]);
        for subject in &subjects {
            assert_eq!((subject.dev.len(), subject.val.len()), (5, 19));
            let mut counts = [0; 4];
            for item in &subject.val {
                counts[item.answer] += 1;
                let options: BTreeSet<&String> = item.options.iter().collect();
                assert_eq!(options.len(), 4, "{item:?}");
                assert!(
                    !subject
                        .dev
                        .iter()
                        .any(|shot| shot.question == item.question)
                );
            }
            assert_eq!(counts, [5, 5, 5, 4]);
        }
        assert_eq!(choice_exam(42), subjects);
        assert_ne!(choice_exam(43), subjects);
    }

    /// The right option is what the exam of single questions expects, too.
    #[test]
    fn right_options_are_facts_of_the_world() {
        let exam = super::super::Playground::generate(&super::super::PlaygroundConfig {
            num_documents: 0,
            num_rows: 0,
            ..super::super::PlaygroundConfig::default()
        })
        .exam;
        let items: Vec<ChoiceItem> = choice_exam(42)
            .into_iter()
            .flat_map(|subject| [subject.dev, subject.val].concat())
            .collect();
        let mut num_found = 0;
        for question in exam.iter().filter(|item| item.task == Task::World) {
            let item = items.iter().find(|item| item.question == question.prompt);
            let item = item.expect("whatever is held out can be asked with options, too");
            assert_eq!(item.options[item.answer], question.answer);
            num_found += 1;
        }
        assert!(num_found >= 10, "{num_found}");
    }

    #[test]
    fn the_folder_has_c_evals_form() {
        let dir = tempfile::tempdir().unwrap();
        write_choice_exam(dir.path(), &choice_exam(42)).unwrap();
        let text = fs::read_to_string(dir.path().join("val/home_val.csv")).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("id,question,A,B,C,D,answer"));
        assert_eq!(lines.count(), 19);
        assert!(dir.path().join("dev/job_dev.csv").exists());
    }
}
