//! COIG-CQIA: Chinese questions with answers of quality, a folder per place that they are from.
//!
//! Source: Bai et al. 2024, arXiv:2403.18058; `m-a-p/COIG-CQIA`. Columns: `instruction`, `input`,
//! `output`, `task_type` (lists `major` and `minor`), `domain`, `metadata`, `answer_from`,
//! `human_verified`, `copyright`.

use serde_json::Value;

use super::record::{DropReason, Record, SftRecord, filled};
use super::source::{Part, Source, Stage, is_row_file};
use crate::rows::Fields;

const REPO: &str = "m-a-p/COIG-CQIA";

/// The folder of riddles from the forum 弱智吧.
const RUOZHIBA: &str = "ruozhiba";

/// All places.
pub(super) const COIG_CQIA: Source = Source {
    name: "coig-cqia",
    repo: REPO,
    stage: Stage::Sft,
    part_of,
    convert,
};

/// The riddles alone.
pub(super) const RIDDLES: Source = Source {
    name: RUOZHIBA,
    repo: REPO,
    stage: Stage::Sft,
    part_of: |path| part_of(path).filter(|part| part.subset == RUOZHIBA),
    convert,
};

/// A file within a folder: those beside the folders repeat them all.
fn part_of(path: &str) -> Option<Part> {
    let (folder, file) = path.split_once('/')?;
    (is_row_file(file) && !file.contains('/')).then(|| Part::train(folder))
}

fn convert(row: Value, part: &Part) -> Result<Record, DropReason> {
    let mut fields = Fields::of(row)?;
    let mut prompt = filled("prompt", fields.require_text("instruction")?)?;
    let input = fields.take_text("input")?;
    if !input.trim().is_empty() {
        prompt = format!("{prompt}\n\n输入: {input}");
    }
    Ok(Record::Sft(SftRecord {
        prompt,
        response: filled("response", fields.require_text("output")?)?,
        source: part.subset.clone(),
        task_type: fields.take("task_type").unwrap_or_default(),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// APT's format with the real columns; the prompt's join is APT's own.
    #[test]
    fn the_input_follows_the_instruction() {
        let row = json!({
            "instruction": "选一个。", "input": "A 或 B", "output": "B",
            "task_type": {"major": ["选择题"], "minor": ["常识"]}, "domain": ["考试"],
            "answer_from": "human", "human_verified": true, "copyright": "",
        });
        let record = convert(row, &Part::train("exam")).unwrap();
        assert_eq!(
            serde_json::to_string(&record).unwrap(),
            r#"{"prompt":"选一个。\n\n输入: A 或 B","response":"B","source":"exam","task_type":{"major":["选择题"],"minor":["常识"]}}"#
        );
        let fault = |row| convert(row, &Part::train("exam")).unwrap_err().to_string();
        assert_eq!(
            fault(json!({"instruction": " ", "output": "B"})),
            "`prompt` is empty"
        );
        assert_eq!(
            fault(json!({"question": "q"})),
            "no field `instruction`, found `question`"
        );
    }

    /// Paths as the hub lists them.
    #[test]
    fn each_folder_is_a_part() {
        let subset = |path| part_of(path).map(|part| part.subset);
        assert_eq!(subset("exam/coig_exam.jsonl").as_deref(), Some("exam"));
        assert_eq!(subset("COIG-CQIA-full.jsonl"), None);
        assert_eq!(subset("exam/picture.png"), None);
        assert!((RIDDLES.part_of)("exam/coig_exam.jsonl").is_none());
        assert!((RIDDLES.part_of)("ruozhiba/ruozhiba_ruozhiba.jsonl").is_some());
    }
}
