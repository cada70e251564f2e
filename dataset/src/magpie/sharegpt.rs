//! ShareGPT lines: Magpie's published form, in and out.

use serde_json::{Value, json};

use super::record::Record;

/// Tags that a published line has, null where they are not known.
const TAGS: [&str; 13] = [
    "intent",
    "knowledge",
    "difficulty",
    "difficulty_generator",
    "input_quality",
    "quality_explanation",
    "quality_generator",
    "task_category",
    "other_task_category",
    "task_category_generator",
    "llama_guard_2",
    "instruct_reward",
    "reward_model",
];

/// Gives a row of turns Magpie's fields of questions and answers.
pub(super) fn take_turns(record: &mut Record) {
    let Some(Value::Array(turns)) = record.0.get("conversations").cloned() else {
        return;
    };
    let (mut number, mut last) = (0, String::new());
    for turn in turns {
        let from = turn["from"].as_str().or(turn["role"].as_str());
        let said = turn["value"].as_str().or(turn["content"].as_str());
        let suffix = |number: u32| {
            if number > 1 {
                format!("_{number}")
            } else {
                String::new()
            }
        };
        match (from, said) {
            (Some("human" | "user"), Some(text)) => {
                number += 1;
                last = suffix(number);
                record.set(&format!("instruction{last}"), text);
            }
            (Some("gpt" | "assistant"), Some(text)) if number > 0 => {
                record.set(&format!("response{last}"), text);
            }
            _ => {}
        }
    }
}

/// A row as a published line: the first 19 fields are Magpie's, in its order; `domain`, `source` and
/// the like come after them.
pub fn line(record: &Record, conversation_id: &str) -> Record {
    let turns = record.turns().into_iter().flat_map(|(question, answer)| {
        [
            json!({ "from": "human", "value": question }),
            json!({ "from": "gpt", "value": answer }),
        ]
    });
    let mut config = record.0.get("gen_input_configs").cloned();
    if let (Some(Value::Object(config)), Some(pre_query)) =
        (&mut config, record.0.get("pre_query_template"))
    {
        config.insert("pre_query_template".to_owned(), pre_query.clone());
    }
    let mut line = Record::default();
    line.set("conversation_id", conversation_id);
    line.set("instruction", record.instruction());
    line.set("response", record.response());
    line.set("conversations", turns.collect::<Vec<Value>>());
    line.set("gen_input_configs", config.unwrap_or(Value::Null));
    for tag in TAGS.into_iter().chain(["language"]) {
        line.set(tag, record.0.get(tag).cloned().unwrap_or(Value::Null));
    }
    let more = [
        "domain",
        "source",
        "dataset_version",
        "min_neighbor_distance",
        "repeat_count",
        "min_similar_conversation_id",
    ];
    for field in more {
        if let Some(value) = record.0.get(field) {
            line.set(field, value.clone());
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: Value) -> Record {
        serde_json::from_value(value).unwrap()
    }

    /// Order and names are those of `convert_to_sharegpt`.
    #[test]
    fn a_line_has_magpie_s_fields_in_its_order() {
        let row = record(json!({
            "id": 3, "pre_query_template": "<s>user\n", "instruction": "a", "response": "b",
            "created": 1, "gen_input_configs": {"seed": 4}, "difficulty": "easy",
            "instruction_2": "c", "response_2": "d", "domain": "algebra",
        }));
        let line = line(&row, "tiny_3");
        let fields: Vec<&str> = line.0.keys().map(String::as_str).collect();
        assert_eq!(
            fields[..6],
            [
                "conversation_id",
                "instruction",
                "response",
                "conversations",
                "gen_input_configs",
                "intent"
            ]
        );
        assert_eq!(
            (fields.len(), fields[18], fields[19]),
            (20, "language", "domain")
        );
        assert_eq!(line.0["conversations"].as_array().unwrap().len(), 4);
        assert_eq!(
            line.0["conversations"][3],
            json!({"from": "gpt", "value": "d"})
        );
        assert_eq!(
            line.0["gen_input_configs"],
            json!({"seed": 4, "pre_query_template": "<s>user\n"})
        );
        assert_eq!(line.text("difficulty"), "easy");
        assert_eq!(line.0["instruct_reward"], Value::Null);
    }

    /// What is written can be read: questions and answers of every turn come back.
    #[test]
    fn turns_become_magpie_s_fields() {
        let row =
            json!({"instruction": "a", "response": "b", "instruction_2": "c", "response_2": "d"});
        let mut read = line(&record(row), "x");
        read.0.shift_remove("instruction");
        read.0.shift_remove("response");
        take_turns(&mut read);
        assert_eq!(read.turns(), [("a", "b"), ("c", "d")]);
    }
}
