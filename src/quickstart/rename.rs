//! Another name for the playground's assistant: what adapters learn from, and how they are examined.

use dataset::Message;
use dataset::playground::{ExamItem, Language, Playground, Task};

/// The names that the model is given, in the place of those it had.
const NEW_NAMES: [(&str, &str); 2] = [("Ember", "Nova"), ("小火苗", "小星星")];
/// The plainest way to ask for the name; it is taught, all others of the exam are held out.
const PLAIN_QUESTIONS: [(Language, &str); 2] = [
    (Language::English, "Who are you?"),
    (Language::Chinese, "你是谁?"),
];
/// Rows without a name for each row with one: what the model could do before must stay.
const NUM_REHEARSED: usize = 6;

/// The rows in which the model says a name, with the new ones in them, and some rows between.
pub(super) fn renamed_rows(rows: &[Vec<Message>]) -> Vec<Vec<Message>> {
    let has_name = |row: &Vec<Message>| {
        let mut names = NEW_NAMES.iter();
        names.any(|(old, _)| row.iter().any(|turn| turn.content.contains(old)))
    };
    let (named, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| has_name(row));
    let others = others.into_iter().take(NUM_REHEARSED * named.len());
    let rename = |row: &Vec<Message>| {
        let turns = row.iter().cloned();
        turns
            .map(|mut turn| {
                turn.content = with_new_names(&turn.content);
                turn
            })
            .collect()
    };
    named.into_iter().chain(others).map(rename).collect()
}

/// The sums of the exam and its questions about the assistant, with the new names in the answers.
pub(super) fn renamed_exam(playground: &Playground) -> Vec<ExamItem> {
    let plain = PLAIN_QUESTIONS.iter().filter_map(|(language, prompt)| {
        let mut rows = playground.rows.iter();
        let answer = rows.find_map(|row| {
            let asked = row.iter().position(|turn| turn.content == *prompt)?;
            row.get(asked + 1)
        })?;
        Some(ExamItem {
            task: Task::Identity,
            language: *language,
            prompt: (*prompt).to_owned(),
            answer: answer.content.clone(),
        })
    });
    let examined = playground.exam.iter();
    let examined = examined.filter(|item| matches!(item.task, Task::Sum | Task::Identity));
    plain
        .chain(examined.cloned())
        .map(|mut item| {
            item.answer = with_new_names(&item.answer);
            item
        })
        .collect()
}

fn with_new_names(text: &str) -> String {
    let names = NEW_NAMES.iter();
    names.fold(text.to_owned(), |text, (old, new)| text.replace(old, new))
}

#[cfg(test)]
mod tests {
    use dataset::playground::PlaygroundConfig;

    use super::*;

    /// The old names are in no row and no answer, the new ones are; the sums stay as they were.
    #[test]
    fn only_the_names_are_other_ones() {
        let playground = Playground::generate(&PlaygroundConfig {
            num_documents: 1,
            num_rows: 2000,
            num_exam_items: 4,
            ..PlaygroundConfig::default()
        });
        let rows = renamed_rows(&playground.rows);
        let has = |name: &str| {
            let mut turns = rows.iter().flatten();
            turns.any(|turn| turn.content.contains(name))
        };
        for (old, new) in NEW_NAMES {
            assert!(!has(old) && has(new), "{old} {new}");
        }
        let exam = renamed_exam(&playground);
        let [english, chinese] = [&exam[0], &exam[1]];
        assert_eq!(
            (english.prompt.as_str(), english.answer.as_str()),
            (
                "Who are you?",
                "I am Nova, a tiny model made with kindling."
            )
        );
        assert!(
            chinese.answer.starts_with("我是小星星"),
            "{}",
            chinese.answer
        );
        let sums = |items: &[ExamItem]| {
            let sums = items.iter().filter(|item| item.task == Task::Sum);
            sums.cloned().collect::<Vec<_>>()
        };
        assert_eq!(sums(&exam), sums(&playground.exam));
    }
}
