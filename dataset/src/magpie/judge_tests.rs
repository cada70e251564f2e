//! Judges that reply well and badly: tags, grades, candidates.

use std::fs;
use std::path::Path;
use std::rc::Rc;

use serde_json::{Value, json};

use super::candidates::{Drawers, candidates};
use super::completer::{CompleterError, Usage};
use super::prefer::{PreferSection, prefer};
use super::record::{Record, read_records};
use super::reward::{Answered, Judge, Reward};
use super::tag::{Judges, Mission, TagSection, tag};
use super::tests::{Scripted, in_folder, talk};
use crate::conversations::Thinking;
use crate::rows::{Row, RowFormat, RowReader};

/// Longer answers are better.
struct Length;

impl Reward for Length {
    fn name(&self) -> String {
        "length".to_owned()
    }

    fn score(&self, answers: &[Answered<'_>]) -> Result<(Vec<Option<f64>>, Usage), CompleterError> {
        let lengths = answers.iter().map(|answer| answer.response.len() as f64);
        Ok((lengths.map(Some).collect(), Usage::default()))
    }
}

fn write_rows(dir: &Path, instructions: &[&str]) -> std::path::PathBuf {
    let rows = (0..).zip(instructions).map(|(id, instruction)| {
        json!({"id": id, "instruction": instruction, "response": "yes"}).to_string() + "\n"
    });
    let path = dir.join("in.jsonl");
    fs::write(&path, rows.collect::<String>()).unwrap();
    path
}

fn tagged(mission: Mission, instructions: &[&str], say: fn(&str, u64) -> String) -> Vec<Record> {
    let folder = tempfile::tempdir().unwrap();
    let input = write_rows(folder.path(), instructions);
    let section = TagSection {
        missions: vec![mission],
        ..TagSection::default()
    };
    let judge = Scripted::new(say);
    let judges = Judges {
        judge: Some(&judge),
        reward: Some(&Length),
    };
    in_folder(folder.path(), 2, usize::MAX, |workplace| {
        tag(&section, 1, &input, &judges, workplace).unwrap()
    });
    read_records(&folder.path().join("tags.jsonl")).unwrap()
}

/// The judge replies well, with text around it, cut off, with a word that is none, with no object,
/// and with Magpie's other spelling.
fn replies(prompt: &str, _: u64) -> String {
    let said = if prompt.contains("kind well") {
        r#"{"explanation": "Clear.", "input_quality": "Good", "difficulty": "hard",
            "intent": "i", "knowledge": "k", "primary_tag": "math", "other_tags": ["Planning", "x"]}"#
    } else if prompt.contains("kind around") {
        r#"Sure! ```{"input_quality": "poor", "difficulty": "easy", "primary_tag": "Other"}```"#
    } else if prompt.contains("kind cut") {
        r#"{"input_quality": "go"#
    } else if prompt.contains("kind unknown") {
        r#"{"input_quality": "fine", "difficulty": "7", "primary_tag": "Sports"}"#
    } else {
        "I cannot say."
    };
    said.to_owned() + "</s>"
}

const KINDS: [&str; 6] = [
    "kind well",
    "kind around",
    "kind cut",
    "kind unknown",
    "kind none",
    "",
];

#[test]
fn replies_are_held_to_the_vocabulary() {
    let column = |mission, field: &str| -> Vec<Value> {
        let records = tagged(mission, &KINDS, replies);
        records
            .iter()
            .map(|record| record.0[field].clone())
            .collect()
    };
    let null = Value::Null;
    let expect = |first: &str, second: &str| {
        let mut expected = vec![json!(first), json!(second)];
        expected.resize(6, null.clone());
        expected
    };
    assert_eq!(
        column(Mission::Quality, "input_quality"),
        expect("good", "poor")
    );
    assert_eq!(
        column(Mission::Difficulty, "difficulty"),
        expect("hard", "easy")
    );
    assert_eq!(
        column(Mission::Category, "task_category"),
        expect("Math", "Others")
    );
    let others = column(Mission::Category, "other_task_category");
    assert_eq!(others[..3], [json!(["Planning"]), json!([]), null.clone()]);
    let intents = column(Mission::Difficulty, "intent");
    assert_eq!(intents[..3], [json!("i"), null.clone(), null.clone()]);
    let judges = column(Mission::Quality, "quality_generator");
    assert_eq!(judges, vec![json!("scripted"); 6]);
}

/// A guard reads the conversation itself, and its words are kept as they are.
#[test]
fn a_guard_s_words_are_kept() {
    let guard = |prompt: &str, _| {
        assert!(
            prompt.ends_with("<s>user\nq</s>\n<s>assistant\nyes</s>\n<s>assistant\n"),
            "{prompt}"
        );
        " unsafe\nS1 </s>".to_owned()
    };
    let records = tagged(Mission::Safety, &["q"], guard);
    assert_eq!(records[0].text("llama_guard_2"), "unsafe\nS1");
}

#[test]
fn rewards_and_languages_need_no_words() {
    let records = tagged(Mission::Reward, &["q"], replies);
    assert_eq!(records[0].number("instruct_reward"), Some(3.0));
    assert_eq!(records[0].text("reward_model"), "length");
    let records = tagged(Mission::Language, &["你今天过得怎么样？", "7+8"], replies);
    assert_eq!(records[0].text("language"), "ZH");
    assert!(!records[1].has("language"));
}

#[test]
fn tags_without_a_judge_name_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    let input = write_rows(folder.path(), &["q"]);
    let section = TagSection {
        missions: vec![Mission::Quality],
        ..TagSection::default()
    };
    let error = in_folder(folder.path(), 2, usize::MAX, |workplace| {
        tag(&section, 1, &input, &Judges::default(), workplace).unwrap_err()
    });
    assert_eq!(
        error.to_string(),
        "tags need somebody who gives them, expected judge to name one"
    );
}

/// By hand: a grade within 1 to 10 counts, whatever stands around it.
#[test]
fn a_grade_is_a_number_from_one_to_ten() {
    let grade = |prompt: &str, _| {
        let said = if prompt.contains("first") {
            "{\"grade\": 7.5} because"
        } else if prompt.contains("second") {
            "{\"grade\": 11}"
        } else {
            "seven"
        };
        said.to_owned()
    };
    let judge = Judge::new(Rc::new(Scripted::new(grade)), 1, 20);
    let answer = |row, response| Answered {
        row,
        instruction: "q",
        response,
    };
    let answers = [answer(0, "first"), answer(1, "second"), answer(2, "third")];
    let (grades, usage) = judge.score(&answers).unwrap();
    assert_eq!(grades, [Some(7.5), None, None]);
    assert_eq!(usage.completion_tokens, 6);
}

/// Three answers each, weighed by length; pairs that preference training reads.
#[test]
fn candidates_become_pairs_that_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let input = write_rows(folder.path(), &["a?", "b?", "c?", "d?"]);
    // Rewards of answers that were there before weigh none of those that take their place.
    let rows = fs::read_to_string(&input).unwrap();
    let weighed = r#""rewards_armorm":[3,2,1],"instruction""#;
    fs::write(&input, rows.replace(r#""instruction""#, weighed)).unwrap();
    let section = PreferSection {
        responses: 3,
        ..PreferSection::default()
    };
    let says = |prompt: &str, seed| {
        let said = talk(prompt, seed);
        said.replace("</s>", &"!".repeat(seed as usize % 5)) + "</s>"
    };
    let model = Scripted::new(says);
    in_folder(folder.path(), 3, usize::MAX, |workplace| {
        let drawers = Drawers {
            completer: &model,
            reward: &Length,
            thinking: Thinking::Strip,
            seed: 1,
        };
        candidates(&section, &input, drawers, workplace).unwrap();
        let weighed = workplace.file("candidates");
        prefer(&section, 1, &weighed, workplace).unwrap();
        let error = prefer(&section, 1, &input, workplace)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("prefer was done with sha256 of in.jsonl = nothing"),
            "{error}"
        );
    });
    let weighed = read_records(&folder.path().join("candidates.jsonl")).unwrap();
    for row in &weighed {
        let responses = row.responses();
        assert_eq!(responses.len(), 3);
        assert!(responses.iter().all(|text| text.starts_with("Answer ")));
        assert_eq!(
            row.0["rewards_kindling"][2]["score"],
            responses[2].len() as f64
        );
        assert_eq!(row.response(), "yes", "the first answer stays");
    }
    let mut num_pairs = 0;
    for file in ["preferences_train.jsonl", "preferences_test.jsonl"] {
        let reader = RowReader::open(&folder.path().join(file), RowFormat::Auto);
        for row in reader.unwrap() {
            let Row::Preference(row) = row.unwrap().row.unwrap() else {
                panic!("{file} is read as conversations");
            };
            let text = |answer: Option<crate::chat::Message>| answer.unwrap().content;
            assert!(text(row.chosen).len() > text(row.rejected).len());
            assert_eq!(row.prompt.len(), 1);
            num_pairs += 1;
        }
    }
    assert!(num_pairs >= 3, "{num_pairs}");
}
