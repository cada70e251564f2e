//! HH-RLHF and UltraFeedback: two answers to one question, of which people or models prefer one.
//!
//! Sources: Bai et al. 2022, arXiv:2204.05862; `Anthropic/hh-rlhf` (texts `chosen` and `rejected`,
//! each a whole dialogue). Cui et al. 2023, arXiv:2310.01377;
//! `argilla/ultrafeedback-binarized-preferences` (`instruction`, `chosen_response`,
//! `rejected_response`; its cleaned form has lists of turns).

use serde_json::Value;

use super::record::{DpoRecord, DropReason, Record, filled, prompt_text};
use super::source::{Part, Source, Stage, is_row_file};
use crate::rows::{PreferenceRow, Row, RowFault, RowFormat};

/// Folders of HH-RLHF that hold preferences; `red-team-attempts` are dialogues of one answer.
const HH_FOLDERS: [&str; 4] = [
    "harmless-base",
    "helpful-base",
    "helpful-online",
    "helpful-rejection-sampled",
];

/// Anthropic's preferences of people.
pub(super) const HH_RLHF: Source = Source {
    name: "hh-rlhf",
    repo: "Anthropic/hh-rlhf",
    stage: Stage::Dpo,
    part_of: |path| {
        let (folder, file) = path.split_once('/')?;
        let is_part = HH_FOLDERS.contains(&folder) && is_row_file(file);
        is_part.then(|| Part {
            subset: folder.to_owned(),
            ..Part::named_by_file(file)
        })
    },
    convert: |row, part| convert(row, &part.subset),
};

/// UltraFeedback's preferences of a larger model, as Argilla picked them.
pub(super) const ULTRAFEEDBACK: Source = Source {
    name: "ultrafeedback",
    repo: "argilla/ultrafeedback-binarized-preferences",
    stage: Stage::Dpo,
    part_of: |path| is_row_file(path).then(|| Part::named_by_file(path)),
    convert: |row, _| {
        let source = row.get("source").and_then(Value::as_str);
        let source = source.unwrap_or("ultrafeedback").to_owned();
        convert(row, &source)
    },
};

fn convert(row: Value, source: &str) -> Result<Record, DropReason> {
    let Row::Preference(row) = RowFormat::Preference.read(row)? else {
        unreachable!("a preference was asked for");
    };
    let PreferenceRow {
        prompt,
        chosen,
        rejected,
        ..
    } = *row;
    let content = |field, answer: Option<crate::chat::Message>| {
        let answer = answer.ok_or(RowFault::Unanswered { field })?;
        filled(field, answer.content)
    };
    let record = DpoRecord {
        prompt: filled("prompt", prompt_text(prompt)?)?,
        chosen: content("chosen", chosen)?,
        rejected: content("rejected", rejected)?,
        source: source.to_owned(),
    };
    if record.chosen.trim() == record.rejected.trim() {
        return Err(DropReason::SameAnswers);
    }
    Ok(Record::Dpo(record))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::chat::Message;

    fn record(source: &Source, row: Value) -> Result<DpoRecord, String> {
        match (source.convert)(row, &Part::train("helpful-base")) {
            Ok(Record::Dpo(record)) => Ok(record),
            Ok(other) => panic!("{other:?}"),
            Err(reason) => Err(reason.to_string()),
        }
    }

    fn dialogue(answer: &str) -> String {
        format!("\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant: {answer}")
    }

    /// The prompt is the whole dialogue before the last answer, and our reader of rows gives its
    /// turns back.
    #[test]
    fn a_dialogue_keeps_its_beginning() {
        let row = json!({"chosen": dialogue("So."), "rejected": dialogue("No.")});
        let record = record(&HH_RLHF, row).unwrap();
        assert_eq!(
            record.prompt,
            "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Why?\n\nAssistant:"
        );
        assert_eq!(
            (record.chosen.as_str(), record.rejected.as_str()),
            ("So.", "No.")
        );

        let row = serde_json::to_value(record).unwrap();
        let Ok(Row::Preference(row)) = RowFormat::Preference.read(row) else {
            panic!("no preference");
        };
        let turns = [("user", "Hi"), ("assistant", "Hello!"), ("user", "Why?")];
        assert_eq!(
            row.prompt,
            turns.map(|(role, text)| Message::new(role, text))
        );
        assert_eq!(row.chosen, Some(Message::new("assistant", "So.")));
    }

    /// Answers to two questions, and two answers that are one.
    #[test]
    fn what_cannot_be_preferred_is_dropped() {
        let other = dialogue("No.").replace("Hi", "Ho");
        let row = json!({"chosen": dialogue("So."), "rejected": other});
        assert_eq!(
            record(&HH_RLHF, row).unwrap_err(),
            "`chosen` and `rejected` differ before their last turn, expected one question"
        );
        let row = json!({"chosen": dialogue("So."), "rejected": dialogue("So. ")});
        assert_eq!(
            record(&HH_RLHF, row).unwrap_err(),
            "`chosen` and `rejected` are the same"
        );
    }

    /// Both of Argilla's layouts.
    #[test]
    fn texts_and_lists_of_turns_are_one() {
        let flat = json!({
            "source": "flan", "instruction": "q", "chosen_response": "c",
            "rejected_response": "r", "chosen_avg_rating": 4.5,
        });
        let turns = |answer: &str| json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]);
        let listed = json!({
            "source": "flan", "prompt": "q", "chosen": turns("c"), "rejected": turns("r"),
            "chosen-rating": 4.5,
        });
        let flat = record(&ULTRAFEEDBACK, flat).unwrap();
        assert_eq!(flat, record(&ULTRAFEEDBACK, listed).unwrap());
        assert_eq!(
            serde_json::to_string(&flat).unwrap(),
            r#"{"prompt":"q","chosen":"c","rejected":"r","source":"flan"}"#
        );
    }

    /// Paths as the hub lists them.
    #[test]
    fn folders_and_splits_come_from_the_path() {
        let part = |path| (HH_RLHF.part_of)(path).map(|part| (part.subset, part.split));
        assert_eq!(
            part("helpful-base/test.jsonl.gz"),
            Some(("helpful-base".to_owned(), "test".to_owned()))
        );
        assert_eq!(part("red-team-attempts/red_team_attempts.jsonl.gz"), None);
        assert_eq!(part("README.md"), None);
    }
}
