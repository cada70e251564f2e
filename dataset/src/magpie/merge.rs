//! Files of several domains or models made one, and the lines that instruction tuning reads.
//!
//! Source: `merge_domains.py` of Ohtani-y's fork of Magpie (fields, shuffle); unique ids and balance
//! are ours.

use std::collections::BTreeMap;
use std::path::PathBuf;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::MagpieError;
use super::manifest::as_json;
use super::record::{Record, read_records};
use super::seed::Stream;
use super::sharegpt;
use super::work::{Finished, StepOutcome, StepSpec, Workplace};
use crate::draw::Draw;
use crate::source::matching_files;

/// Name of the step.
pub const STEP: &str = "merge";

/// Stem of the file of merged rows.
pub const FILE: &str = "merged";

/// File of the same rows as conversations, for training.
pub const SHAREGPT_FILE: &str = "sft.jsonl";

/// Domain of rows that name none.
const NO_DOMAIN: &str = "general";

/// `[merge]`: what the rows to train on are made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct MergeSection {
    /// Files or patterns of other runs to put together; empty: what this run's filter kept.
    pub files: Vec<String>,
    /// Whether every domain gives as many rows as the smallest one has.
    pub balance: bool,
    /// Put into `source` of rows that have none; empty: the name of the model that asked.
    pub source: String,
    /// Put into `dataset_version` of every row.
    pub dataset_version: String,
    /// Beginning of the conversations' names, before _ and the row's number.
    pub id_prefix: String,
}

impl Default for MergeSection {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            balance: false,
            source: String::new(),
            dataset_version: "1.0".to_owned(),
            id_prefix: "kindling".to_owned(),
        }
    }
}

/// Puts files together: every row keeps its fields, gets `domain`, `source` and `dataset_version`,
/// and an `id` of its own (the old one becomes `original_id`).
///
/// # Errors
///
/// A pattern without files, a file or folder that cannot be used.
pub fn merge(
    section: &MergeSection,
    seed: u64,
    own: PathBuf,
    workplace: &mut Workplace<'_>,
) -> Result<StepOutcome, MagpieError> {
    let mut inputs = Vec::new();
    for pattern in &section.files {
        inputs.extend(matching_files(pattern)?);
    }
    if section.files.is_empty() {
        inputs.push(own);
    }
    let mut settings = as_json(section);
    settings["seed"] = json!(seed);
    let spec = StepSpec {
        name: STEP,
        inputs: &inputs,
        settings,
        total: 0,
    };
    workplace.run_at_once(&spec, || {
        let mut records = Vec::new();
        for path in &inputs {
            records.extend(read_records(path)?);
        }
        Ok(merged(section, seed, records))
    })
}

fn merged(section: &MergeSection, seed: u64, records: Vec<Record>) -> Finished {
    let num_rows = records.len();
    let mut domains: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for mut record in records {
        let domain = domain_of(&record);
        add_origin(section, &domain, &mut record);
        domains.entry(domain).or_default().push(record);
    }
    let mut draw = Draw::new(seed, Stream::Merged as u64);
    if section.balance {
        let smallest = domains.values().map(Vec::len).min().unwrap_or(0);
        for rows in domains.values_mut() {
            draw.shuffle(rows);
            rows.truncate(smallest);
        }
    }
    let mut counts = Map::new();
    counts.insert("rows".to_owned(), json!(num_rows));
    for (domain, rows) in &domains {
        counts.insert(format!("domain {domain}"), json!(rows.len()));
    }
    let mut rows: Vec<Record> = domains.into_values().flatten().collect();
    draw.shuffle(&mut rows);
    for (number, row) in rows.iter_mut().enumerate() {
        let old = row.0.get("id").cloned();
        if let Some(old) = old.filter(|old| !row.0.contains_key("original_id") && !old.is_null()) {
            row.set("original_id", old);
        }
        row.set("id", number);
    }
    let prefix = &section.id_prefix;
    let lines = rows.iter().enumerate();
    let lines = lines.map(|(number, row)| sharegpt::line(row, &format!("{prefix}_{number}")));
    let lines = lines.collect();
    Finished {
        files: vec![(FILE.to_owned(), rows), (SHAREGPT_FILE.to_owned(), lines)],
        counts,
    }
}

fn domain_of(record: &Record) -> String {
    let config = record.0.get("gen_input_configs");
    let generated = config.and_then(|config| config.get("domain")?.as_str());
    let named = Some(record.text("domain")).filter(|domain| !domain.is_empty());
    named.or(generated).unwrap_or(NO_DOMAIN).to_owned()
}

fn add_origin(section: &MergeSection, domain: &str, record: &mut Record) {
    let config = record.0.get("gen_input_configs");
    let generator = config.and_then(|config| config.get("input_generator")?.as_str());
    let source = if section.source.is_empty() {
        generator.unwrap_or("unknown").to_owned()
    } else {
        section.source.clone()
    };
    if record.text("source").is_empty() {
        record.set("source", source);
    }
    record.set("domain", domain);
    record.set(
        "dataset_version",
        Value::from(section.dataset_version.as_str()),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(domain: &str, count: usize) -> Vec<Record> {
        let row = |id| {
            serde_json::from_value(json!({
                "id": id, "instruction": format!("{domain} {id}?"), "response": "r",
                "gen_input_configs": {"domain": domain, "input_generator": "m"}, "extra": [id],
            }))
        };
        (0..count).map(|id| row(id).unwrap()).collect()
    }

    fn all() -> Vec<Record> {
        let domains = [("algebra", 5), ("geometry", 3), ("calculus", 4)];
        domains
            .into_iter()
            .flat_map(|(domain, count)| rows(domain, count))
            .collect()
    }

    /// Ids collide between the files; afterwards they do not, and nothing else is lost.
    #[test]
    fn every_row_is_kept_with_its_fields_and_a_new_id() {
        let found = merged(&MergeSection::default(), 42, all());
        let (rows, lines) = (&found.files[0].1, &found.files[1].1);
        assert_eq!(rows.len(), 12);
        let mut questions: Vec<&str> = rows.iter().map(Record::instruction).collect();
        let mut expected: Vec<String> = all()
            .iter()
            .map(|row| row.instruction().to_owned())
            .collect();
        questions.sort_unstable();
        expected.sort_unstable();
        assert_eq!(questions, expected);
        for (number, (row, line)) in rows.iter().zip(lines).enumerate() {
            assert_eq!(row.0["id"], number);
            assert_eq!(row.0["extra"], json!([row.0["original_id"]]));
            assert!(row.instruction().starts_with(row.text("domain")));
            assert_eq!(
                (row.text("source"), row.text("dataset_version")),
                ("m", "1.0")
            );
            assert_eq!(line.text("conversation_id"), format!("kindling_{number}"));
            assert_eq!(line.text("domain"), row.text("domain"));
        }
        assert_ne!(questions_in_order(rows), expected, "the order is shuffled");
        assert_eq!(
            merged(&MergeSection::default(), 42, all()).files,
            found.files
        );
    }

    fn questions_in_order(rows: &[Record]) -> Vec<String> {
        rows.iter()
            .map(|row| row.instruction().to_owned())
            .collect()
    }

    #[test]
    fn balance_takes_as_many_of_each_domain_as_the_smallest_has() {
        let section = MergeSection {
            balance: true,
            ..MergeSection::default()
        };
        let found = merged(&section, 42, all());
        for domain in ["algebra", "calculus", "geometry"] {
            assert_eq!(found.counts[&format!("domain {domain}")], 3);
        }
        assert_eq!(found.files[0].1.len(), 9);
    }
}
