//! Questions that a model will be examined with: it must not learn them, and it may well invent one.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::record::{Record, RecordsError, read_values};
use super::vectors::plain_text;

/// Fields in which files of questions have them.
const FIELDS: [&str; 4] = ["instruction", "question", "problem", "prompt"];

/// Questions of exams; letters' case and white space are no difference.
#[derive(Debug, Default)]
pub(super) struct HeldOut(BTreeSet<String>);

impl HeldOut {
    /// The questions of files: exams of short answers, or Magpie's rows.
    pub(super) fn read(paths: &[PathBuf]) -> Result<Self, RecordsError> {
        let mut questions = BTreeSet::new();
        for path in paths {
            for (line, row) in read_values(path)? {
                let question = FIELDS.iter().find_map(|field| row.get(*field)?.as_str());
                let question = question.ok_or_else(|| RecordsError::NoQuestion {
                    path: path.clone(),
                    line,
                })?;
                questions.insert(plain_text(question));
            }
        }
        Ok(Self(questions))
    }

    /// Whether any turn of a row asks one of them.
    pub(super) fn has(&self, record: &Record) -> bool {
        let turns = record.turns();
        turns
            .iter()
            .any(|(question, _)| self.0.contains(&plain_text(question)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn record(row: Value) -> Record {
        serde_json::from_value(row).unwrap()
    }

    /// The playground's, GSM8K's and Magpie's fields; a later turn counts like the first.
    #[test]
    fn an_exam_s_questions_are_found_in_every_turn() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let paths = [
            write(
                "exam.jsonl",
                "{\"prompt\": \"1+2=?\", \"answer\": \"3\"}\n{\"question\": \"Why  me?\"}\n",
            ),
            write("ins.json", "[{\"instruction\": \"Name a color.\"}]"),
        ];
        let held_out = HeldOut::read(&paths).unwrap();
        let asks = |question: &str| {
            held_out.has(&record(
                serde_json::json!({"instruction": question, "response": "a"}),
            ))
        };
        assert!(asks("1+2=?") && asks(" why me?") && asks("name a color."));
        assert!(!asks("1+3=?") && !asks(""));
        let later = serde_json::json!({
            "instruction": "Hi.", "response": "Hi!", "instruction_2": "1+2=?", "response_2": "3",
        });
        assert!(held_out.has(&record(later)));

        let broken = write(
            "broken.jsonl",
            "{\"prompt\": \"a\"}\n{\"prompt\": [\"a\"]}\n",
        );
        let error = HeldOut::read(&[broken]).unwrap_err().to_string();
        assert!(
            error.ends_with(
                "broken.jsonl:2: no text in `instruction`, `question`, `problem` or `prompt`, \
                 expected a question"
            ),
            "{error}"
        );
    }
}
