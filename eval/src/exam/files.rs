//! What an exam leaves in its folder: a table per subject, the summary, the card and, where the
//! answers are not published, C-Eval's submission.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::card::render_card;
use super::folder::Exam;
use super::method::methods_of;
use super::question::LETTERS;
use super::sit::Reply;
use super::summary::ExamSummary;

/// Why results cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file or folder cannot be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// File or folder concerned.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A table cannot be written.
    #[error("{}: cannot be written", path.display())]
    Csv {
        /// File concerned.
        path: PathBuf,
        /// What the library said.
        source: csv::Error,
    },
}

/// Columns of MiniMind's result tables.
const COLUMNS: [&str; 8] = [
    "question",
    "A",
    "B",
    "C",
    "D",
    "answer",
    "llm_answer",
    "is_right",
];

/// Writes everything into `dir`; `replies` are those to the whole exam, in its order.
///
/// # Errors
///
/// A folder or file that cannot be written.
///
/// # Panics
///
/// If there are fewer replies than questions.
pub fn write_results(
    dir: &Path,
    exam: &Exam,
    replies: &[Reply],
    summary: &ExamSummary,
) -> Result<(), FilesError> {
    let tables = dir.join("results");
    fs::create_dir_all(&tables).map_err(|source| FilesError::Write {
        path: tables.clone(),
        source,
    })?;
    let choices = letters_of(replies);
    let mut start = 0;
    for subject in &exam.subjects {
        let end = start + subject.questions.len();
        let name = format!("{}_{}_result.csv", subject.info.name, exam.split.name());
        let path = tables.join(name);
        let rows = subject.questions.iter().zip(&choices[start..end]);
        let write = || -> Result<(), csv::Error> {
            let mut writer = csv::Writer::from_path(&path)?;
            writer.write_record(COLUMNS)?;
            for (question, choice) in rows {
                let answer = letter(question.answer);
                let chosen = letter(*choice);
                let is_right = match question.answer {
                    Some(answer) => python_bool(*choice == Some(answer)),
                    None => "",
                };
                let [a, b, c, d] = question.options.each_ref().map(String::as_str);
                let cells = [&question.text, a, b, c, d, &answer, &chosen, is_right];
                writer.write_record(cells)?;
            }
            writer.flush()?;
            Ok(())
        };
        write().map_err(|source| FilesError::Csv { path, source })?;
        start = end;
    }
    let summary_json = serde_json::to_string_pretty(summary).expect("a summary is JSON");
    write_text(&dir.join("summary.json"), &(summary_json + "\n"))?;
    if !exam.has_answers() {
        let submission = submission(exam, &choices);
        let text = serde_json::to_string_pretty(&submission).expect("letters are JSON");
        write_text(&dir.join("submission.json"), &(text + "\n"))?;
    }
    write_text(&dir.join("card.md"), &render_card(summary))
}

/// C-Eval's form: the letter of each question by its id, by subject; A where none was chosen.
fn submission(exam: &Exam, choices: &[Option<usize>]) -> Value {
    let mut subjects = Map::new();
    let mut choices = choices.iter();
    for subject in &exam.subjects {
        let letters = subject.questions.iter().map(|question| {
            let choice = choices.next().copied().flatten();
            (question.id.clone(), json!(LETTERS[choice.unwrap_or(0)]))
        });
        subjects.insert(subject.info.name.clone(), Value::Object(letters.collect()));
    }
    Value::Object(subjects)
}

/// Choices by the exam's first method.
fn letters_of(replies: &[Reply]) -> Vec<Option<usize>> {
    let method = methods_of(replies).into_iter().next();
    let choose = |reply: &Reply| method?.choose(reply)?.place;
    replies.iter().map(choose).collect()
}

fn letter(place: Option<usize>) -> String {
    place.map_or_else(String::new, |place| LETTERS[place].to_string())
}

/// As pandas writes it.
fn python_bool(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

fn write_text(path: &Path, text: &str) -> Result<(), FilesError> {
    fs::write(path, text).map_err(|source| FilesError::Write {
        path: path.to_owned(),
        source,
    })
}
