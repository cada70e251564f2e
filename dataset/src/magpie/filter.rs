//! Which rows are kept, with a count for every rule.
//!
//! Source: Magpie's `data_filter.ipynb` (quality, reward, colon, neighbours, longest answers); the
//! other rules are ours.

use std::path::Path;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::clean::holds_answer;
use super::dedup::conversation_id;
use super::error::MagpieError;
use super::held_out::HeldOut;
use super::leaks::has_leak;
use super::manifest::as_json;
use super::range::check;
use super::record::{Record, read_records};
use super::seed::Stream;
use super::work::{Finished, StepOutcome, StepSpec, Workplace};
use crate::draw::Draw;
use crate::source::matching_files;

/// Name of the step.
pub const STEP: &str = "filter";

/// Stem of the file of rows that were kept.
pub const FILE: &str = "filtered";

/// `[filter]`: which rows are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct FilterSection {
    /// Drop what is unfit whatever its tags say: no instruction or answer, the text of special tokens
    /// in the instruction, a colon at its end, an answer inside of it.
    pub hygiene: bool,
    /// Files or patterns of questions that the model will be asked later, such as an exam's: a row
    /// that asks one of them is dropped.
    pub held_out: Vec<String>,
    /// Drop near-duplicates, by what the step dedup found.
    pub near_duplicates: bool,
    /// Least distance to the nearest other instruction, from 0 (off) to 4.
    pub min_neighbor_distance: f64,
    /// Qualities that are kept, of very poor, poor, average, good and excellent; empty: all.
    pub qualities: Vec<String>,
    /// Difficulties that are kept, of very easy, easy, medium, hard and very hard; empty: all.
    pub difficulties: Vec<String>,
    /// Categories that are kept, such as Math or Reasoning; empty: all.
    pub categories: Vec<String>,
    /// Languages that are kept, such as EN and ZH; empty: all.
    pub languages: Vec<String>,
    /// Drop what the guard did not call safe.
    pub safe_only: bool,
    /// Least reward of an answer; a row without a reward has less. -inf is off.
    pub min_reward: f64,
    /// Fewest and most characters of an instruction.
    pub instruction_chars: [usize; 2],
    /// Fewest and most characters of an answer.
    pub response_chars: [usize; 2],
    /// Rows to keep at most, those with the longest answers; 0 keeps all.
    pub top: usize,
}

impl Default for FilterSection {
    fn default() -> Self {
        Self {
            hygiene: true,
            held_out: Vec::new(),
            near_duplicates: true,
            min_neighbor_distance: 0.0,
            qualities: Vec::new(),
            difficulties: Vec::new(),
            categories: Vec::new(),
            languages: Vec::new(),
            safe_only: false,
            min_reward: f64::NEG_INFINITY,
            instruction_chars: [1, 100_000],
            response_chars: [1, 100_000],
            top: 0,
        }
    }
}

/// A reason to drop a row, by name.
type Rule = (&'static str, fn(&FilterSection, &Record) -> bool);

/// Every rule, in the order in which they are counted.
const RULES: [Rule; 15] = [
    ("no_instruction", |f, row| {
        f.hygiene && row.instruction().is_empty()
    }),
    ("no_response", |f, row| {
        f.hygiene && row.response().is_empty() && row.responses().is_empty()
    }),
    ("special_text", |f, row| {
        f.hygiene && has_leak(row.instruction())
    }),
    ("ends_with_colon", |f, row| {
        f.hygiene && row.instruction().trim_end().ends_with([':', '：'])
    }),
    ("holds_its_answer", |f, row| {
        f.hygiene && holds_answer(row.instruction())
    }),
    ("near_duplicate", |f, row| {
        let other = row.0.get("min_similar_conversation_id");
        let other = other.filter(|other| !other.is_null());
        f.near_duplicates && other.is_some_and(|other| Some(other) != conversation_id(row).as_ref())
    }),
    ("neighbor_distance", |f, row| {
        let distance = row.number("min_neighbor_distance");
        distance.is_some_and(|distance| distance < f.min_neighbor_distance)
    }),
    ("quality", |f, row| {
        !is_listed(&f.qualities, row.text("input_quality"))
    }),
    ("difficulty", |f, row| {
        !is_listed(&f.difficulties, row.text("difficulty"))
    }),
    ("category", |f, row| {
        !is_listed(&f.categories, row.text("task_category"))
    }),
    ("language", |f, row| {
        !is_listed(&f.languages, row.text("language"))
    }),
    ("safety", |f, row| {
        f.safe_only
            && !row
                .text("llama_guard_2")
                .trim()
                .to_lowercase()
                .starts_with("safe")
    }),
    ("reward", |f, row| {
        f.min_reward > f64::NEG_INFINITY
            && row
                .number("instruct_reward")
                .is_none_or(|reward| reward <= f.min_reward)
    }),
    ("instruction_chars", |f, row| {
        !is_within(f.instruction_chars, row.instruction())
    }),
    ("response_chars", |f, row| {
        row.responses().is_empty() && !is_within(f.response_chars, row.response())
    }),
];

fn is_listed(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|listed| listed.eq_ignore_ascii_case(name))
}

fn is_within([fewest, most]: [usize; 2], text: &str) -> bool {
    (fewest..=most).contains(&text.chars().count())
}

impl FilterSection {
    /// Compares fields with their ranges.
    ///
    /// # Errors
    ///
    /// The first field that is wrong.
    pub fn validate(&self) -> Result<(), MagpieError> {
        let distance = self.min_neighbor_distance;
        let is_distance = (0.0..=4.0).contains(&distance);
        check(
            "filter.min_neighbor_distance",
            distance,
            is_distance,
            "from 0 to 4",
        )?;
        check(
            "filter.min_reward",
            self.min_reward,
            !self.min_reward.is_nan(),
            "a number",
        )?;
        for (field, [fewest, most]) in [
            ("filter.instruction_chars", self.instruction_chars),
            ("filter.response_chars", self.response_chars),
        ] {
            check(
                field,
                format!("{fewest} to {most}"),
                fewest <= most,
                "the lesser number first",
            )?;
        }
        Ok(())
    }

    /// The rules that would drop a row.
    pub fn faults(&self, record: &Record) -> Vec<&'static str> {
        let rules = RULES.iter().filter(|(_, drops)| drops(self, record));
        rules.map(|(name, _)| *name).collect()
    }
}

/// Keeps the rows that no rule drops, in an order that the seed decides.
///
/// The counts say for each rule how many rows it would drop, whichever others would too.
///
/// # Errors
///
/// A setting out of range, a file or folder that cannot be used.
pub fn filter(
    section: &FilterSection,
    seed: u64,
    input: &Path,
    workplace: &mut Workplace<'_>,
) -> Result<StepOutcome, MagpieError> {
    section.validate()?;
    let mut settings = as_json(section);
    settings["seed"] = json!(seed);
    // JSON has no infinities.
    settings["min_reward"] = json!(section.min_reward.to_string());
    let mut inputs = vec![input.to_owned()];
    for pattern in &section.held_out {
        inputs.extend(matching_files(pattern)?);
    }
    let spec = StepSpec {
        name: STEP,
        inputs: &inputs,
        settings,
        total: 0,
    };
    workplace.run_at_once(&spec, || {
        let held_out = HeldOut::read(&inputs[1..])?;
        let (kept, counts) = kept_rows(section, &held_out, seed, read_records(input)?);
        Ok(Finished {
            files: vec![(FILE.to_owned(), kept)],
            counts,
        })
    })
}

fn kept_rows(
    section: &FilterSection,
    held_out: &HeldOut,
    seed: u64,
    records: Vec<Record>,
) -> (Vec<Record>, Map<String, Value>) {
    let mut counts: Map<String, Value> = Map::new();
    counts.insert("rows".to_owned(), json!(records.len()));
    let mut dropped = vec![0_usize; RULES.len()];
    let mut num_held_out = 0;
    let mut kept = Vec::new();
    for record in records {
        let mut is_kept = !held_out.has(&record);
        num_held_out += usize::from(!is_kept);
        for (count, (_, drops)) in dropped.iter_mut().zip(&RULES) {
            if drops(section, &record) {
                *count += 1;
                is_kept = false;
            }
        }
        if is_kept {
            kept.push(record);
        }
    }
    for ((name, _), count) in RULES.iter().zip(dropped) {
        counts.insert((*name).to_owned(), json!(count));
    }
    counts.insert("held_out".to_owned(), json!(num_held_out));
    if section.top > 0 && section.top < kept.len() {
        kept.sort_by_key(|row| std::cmp::Reverse(row.response().chars().count()));
        counts.insert("beyond_top".to_owned(), json!(kept.len() - section.top));
        kept.truncate(section.top);
    }
    Draw::new(seed, Stream::Kept as u64).shuffle(&mut kept);
    counts.insert("kept".to_owned(), json!(kept.len()));
    (kept, counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: Value) -> Record {
        serde_json::from_value(value).unwrap()
    }

    fn good() -> Value {
        json!({
            "id": 4, "instruction": "What is 1+1?", "response": "2", "input_quality": "good",
            "difficulty": "easy", "task_category": "Math", "language": "EN",
            "llama_guard_2": "safe", "instruct_reward": 0.5, "min_neighbor_distance": 0.3,
            "min_similar_conversation_id": null,
        })
    }

    fn strict() -> FilterSection {
        FilterSection {
            min_neighbor_distance: 0.1,
            qualities: vec!["good".to_owned()],
            difficulties: vec!["easy".to_owned()],
            categories: vec!["math".to_owned()],
            languages: vec!["EN".to_owned()],
            safe_only: true,
            min_reward: -10.0,
            instruction_chars: [2, 20],
            response_chars: [1, 3],
            ..FilterSection::default()
        }
    }

    /// A row that passes all rules, changed in one field each, fails by the rule of that field.
    #[test]
    fn each_rule_drops_what_it_is_for() {
        assert_eq!(strict().faults(&record(good())), [""; 0]);
        let cases = [
            ("instruction", json!("Name three:"), "ends_with_colon"),
            ("instruction", json!("a<|eot_id|>"), "special_text"),
            ("instruction", json!("1+1?\nAnswer: 2"), "holds_its_answer"),
            ("instruction", json!("x".repeat(21)), "instruction_chars"),
            ("response", json!("four"), "response_chars"),
            ("input_quality", json!("poor"), "quality"),
            ("input_quality", Value::Null, "quality"),
            ("difficulty", json!("hard"), "difficulty"),
            ("task_category", json!("Planning"), "category"),
            ("language", json!("ZH"), "language"),
            ("llama_guard_2", json!("unsafe\nS1"), "safety"),
            ("instruct_reward", json!(-10.0), "reward"),
            ("instruct_reward", Value::Null, "reward"),
            ("min_neighbor_distance", json!(0.05), "neighbor_distance"),
            ("min_similar_conversation_id", json!(1), "near_duplicate"),
        ];
        for (field, value, rule) in cases {
            let mut row = record(good());
            row.set(field, value);
            assert_eq!(strict().faults(&row), [rule], "{field}");
        }
        let mut row = record(good());
        row.set("min_similar_conversation_id", 4);
        assert_eq!(
            strict().faults(&row),
            [""; 0],
            "the first of its like is kept"
        );
        let empty = record(json!({"instruction": "", "response": null}));
        let faults = FilterSection::default().faults(&empty);
        assert_eq!(
            faults,
            [
                "no_instruction",
                "no_response",
                "instruction_chars",
                "response_chars"
            ]
        );
    }

    /// By hand: two of five rows fail, one of them twice; the longest two of the rest stay.
    #[test]
    fn counts_are_per_rule_and_the_longest_answers_stay() {
        let rows = |texts: [&str; 5]| -> Vec<Record> {
            let rows = texts.iter().enumerate();
            rows.map(|(id, response)| {
                record(json!({"id": id, "instruction": format!("q{id}"), "response": response}))
            })
            .collect()
        };
        let mut records = rows(["a", "bbb", "", "cc", "dddd"]);
        records[2].set("instruction", "why:");
        records[0].set("instruction", "");
        let section = FilterSection {
            top: 2,
            response_chars: [0, 9],
            instruction_chars: [0, 9],
            ..FilterSection::default()
        };
        let nothing = HeldOut::default();
        let (kept, counts) = kept_rows(&section, &nothing, 42, records.clone());
        let count = |name: &str| counts[name].as_u64().unwrap();
        let found = [
            "rows",
            "no_instruction",
            "no_response",
            "ends_with_colon",
            "beyond_top",
            "kept",
        ];
        assert_eq!(found.map(count), [5, 1, 1, 1, 1, 2]);
        let mut responses: Vec<&str> = kept.iter().map(Record::response).collect();
        responses.sort_unstable();
        assert_eq!(responses, ["bbb", "dddd"]);
        assert_eq!(
            kept_rows(&section, &nothing, 42, records).0,
            kept,
            "the seed decides the order"
        );
    }
}
