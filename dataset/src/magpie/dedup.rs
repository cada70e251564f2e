//! How near the nearest other instruction is, and which rows repeat an earlier one.
//!
//! Source: Magpie's `gen_dis.py`: squared Euclidean distances of unit vectors, 0.05 for near. Ours
//! looks at all pairs where it looks at the 500 nearest.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::MagpieError;
use super::manifest::{as_json, counted};
use super::neighbours::{Neighbours, neighbours};
use super::range::check;
use super::record::{Record, read_records};
use super::vectors::{WIDTH, plain_text, text_vectors};
use super::work::{Finished, StepOutcome, StepSpec, Workplace};

/// Name of the step.
pub const STEP: &str = "dedup";

/// Stem of the file of rows with distances.
pub const FILE: &str = "distances";

/// Which rows of a group of near ones are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DedupMode {
    /// One after the other: a row is dropped if a row that is kept is near.
    #[default]
    Greedy,
    /// As Magpie: a row is dropped if any earlier row is near, kept or not.
    Compatible,
}

/// `[dedup]`: which instructions are near-duplicates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct DedupSection {
    /// Rows that are kept: "greedy" (none that is near a kept one) or "compatible" (none that is near
    /// any earlier one, as with Magpie).
    pub mode: DedupMode,
    /// Squared distance of unit vectors below which two instructions are near, from 0 to 4; 0.05 is
    /// a cosine of 0.975.
    pub distance_threshold: f64,
}

impl Default for DedupSection {
    fn default() -> Self {
        Self {
            mode: DedupMode::Greedy,
            distance_threshold: 0.05,
        }
    }
}

impl DedupSection {
    /// Compares fields with their ranges.
    ///
    /// # Errors
    ///
    /// The first field that is wrong.
    pub fn validate(&self) -> Result<(), MagpieError> {
        let threshold = self.distance_threshold;
        let is_distance = (0.0..=4.0).contains(&threshold);
        check(
            "dedup.distance_threshold",
            threshold,
            is_distance,
            "from 0 to 4",
        )
    }
}

/// The different texts of a file: rows that differ in letters' case and white space only share one.
#[derive(Debug, Default)]
struct Texts {
    plain: Vec<String>,
    /// First row of each text.
    firsts: Vec<usize>,
    /// Rows of each text.
    sizes: Vec<usize>,
    /// Text of each row.
    of_row: Vec<usize>,
}

/// Adds `min_neighbor_distance`, `repeat_count` and `min_similar_conversation_id` to every row: null
/// for a row that stands alone, its own id for one to keep, another row's for one to drop.
///
/// # Errors
///
/// A setting out of range, a file or folder that cannot be used.
pub fn dedup(
    section: &DedupSection,
    input: &Path,
    workplace: &mut Workplace<'_>,
) -> Result<StepOutcome, MagpieError> {
    section.validate()?;
    let mut records = read_records(input)?;
    let texts = Texts::of(records.iter().map(Record::instruction));
    let spec = StepSpec {
        name: STEP,
        inputs: &[input.to_owned()],
        settings: as_json(section),
        total: texts.plain.len(),
    };
    let threshold = section.distance_threshold as f32;
    let mut vectors = None;
    let compare = |rows: Range<usize>, _| {
        let vectors = vectors.get_or_insert_with(|| text_vectors(&texts.plain, &texts.sizes));
        let found = neighbours(vectors, WIDTH, rows, threshold);
        Ok(found.iter().map(Neighbours::made).collect())
    };
    workplace.run(&spec, compare, |made| {
        let found: Vec<Neighbours> = made.iter().map(Neighbours::of).collect();
        let counts = mark(section, &texts, &found, &mut records);
        Ok(Finished {
            files: vec![(FILE.to_owned(), records)],
            counts,
        })
    })
}

/// The name of a row in a set: `conversation_id`, `id` or `uuid`, whichever it has.
pub(super) fn conversation_id(record: &Record) -> Option<Value> {
    let names = ["conversation_id", "id", "uuid"];
    let ids = names.iter().filter_map(|name| record.0.get(*name));
    ids.into_iter().find(|id| !id.is_null()).cloned()
}

fn mark(
    section: &DedupSection,
    texts: &Texts,
    found: &[Neighbours],
    records: &mut [Record],
) -> Map<String, Value> {
    let repeats = texts.repeats(section, found);
    let leaders = texts.leaders(section, found);
    let ids: Vec<Value> = (0..)
        .zip(records.iter())
        .map(|(row, record): (usize, _)| conversation_id(record).unwrap_or(json!(row)))
        .collect();
    for (row, record) in records.iter_mut().enumerate() {
        let text = texts.of_row[row];
        let similar = leaders[row].map_or(Value::Null, |leader| ids[leader].clone());
        if conversation_id(record).is_none() {
            record.set("id", row);
        }
        let is_repeated = texts.sizes[text] > 1;
        let distance = found[text].min_distance.filter(|_| !is_repeated);
        // Six digits: what is beyond them is rounding.
        let distance = distance.map(|distance| (f64::from(distance) * 1e6).round() / 1e6);
        record.set(
            "min_neighbor_distance",
            distance.or(is_repeated.then_some(0.0)),
        );
        record.set("repeat_count", repeats[text]);
        record.set("min_similar_conversation_id", similar);
    }
    let is_dropped = |(row, leader): (usize, &Option<usize>)| leader.is_some_and(|it| it != row);
    counted([
        ("rows", records.len()),
        ("texts", texts.plain.len()),
        (
            "near_another",
            texts.of_row.iter().filter(|&&it| repeats[it] > 0).count(),
        ),
        (
            "to_drop",
            leaders
                .iter()
                .enumerate()
                .filter(|it| is_dropped(*it))
                .count(),
        ),
    ])
}

impl Texts {
    fn of<'a>(instructions: impl Iterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        let mut numbers = HashMap::new();
        for (row, instruction) in instructions.enumerate() {
            let text = plain_text(instruction);
            let number = *numbers.entry(text.clone()).or_insert_with(|| {
                found.plain.push(text);
                found.firsts.push(row);
                found.sizes.push(0);
                found.plain.len() - 1
            });
            found.sizes[number] += 1;
            found.of_row.push(number);
        }
        found
    }

    /// The texts whose rows are near those of a text: others, and itself unless nothing is near.
    fn near<'a>(
        section: &DedupSection,
        found: &'a [Neighbours],
        text: usize,
    ) -> impl Iterator<Item = usize> + 'a {
        let itself = (section.distance_threshold > 0.0).then_some(text);
        found[text].near.iter().copied().chain(itself)
    }

    /// For each text, how many other rows are near one of its rows.
    fn repeats(&self, section: &DedupSection, found: &[Neighbours]) -> Vec<usize> {
        let near = |text| Self::near(section, found, text).map(|other| self.sizes[other]);
        let texts = 0..self.plain.len();
        texts
            .map(|text| near(text).sum::<usize>().saturating_sub(1))
            .collect()
    }

    /// For each row that is near others the row that stands for it, itself if it is to be kept.
    fn leaders(&self, section: &DedupSection, found: &[Neighbours]) -> Vec<Option<usize>> {
        let repeats = self.repeats(section, found);
        // Copies are near each other, so a text has one row that is kept at most.
        let mut kept: Vec<Option<usize>> = vec![None; self.plain.len()];
        let mut leaders = Vec::with_capacity(self.of_row.len());
        for (row, &text) in self.of_row.iter().enumerate() {
            let earlier = |other: usize| match section.mode {
                DedupMode::Compatible => Some(self.firsts[other]).filter(|&first| first < row),
                DedupMode::Greedy => kept[other],
            };
            let leader = Self::near(section, found, text).filter_map(earlier).min();
            if leader.is_none() {
                kept[text] = Some(row);
            }
            leaders.push(leader.or((repeats[text] > 0).then_some(row)));
        }
        leaders
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::write_records;
    use super::super::tests::in_folder;
    use super::*;

    fn found(near: &[&[usize]]) -> Vec<Neighbours> {
        let found = near.iter().map(|near| Neighbours {
            near: near.to_vec(),
            ..Neighbours::default()
        });
        found.collect()
    }

    /// A row at 0, one near it, and one near the second only: k, j, i of a chain; then a copy of
    /// the first and one of the last.
    #[test]
    fn a_chain_keeps_its_ends_when_greedy() {
        let texts = Texts::of(["k", "j", "i", "K", "i "].into_iter());
        let found = found(&[&[1], &[0, 2], &[1]]);
        let leaders = |mode, distance_threshold| {
            let section = DedupSection {
                mode,
                distance_threshold,
            };
            texts.leaders(&section, &found)
        };
        assert_eq!(
            leaders(DedupMode::Compatible, 0.05),
            [0, 0, 1, 0, 1].map(Some)
        );
        assert_eq!(leaders(DedupMode::Greedy, 0.05), [0, 0, 2, 0, 2].map(Some));
        let section = DedupSection::default();
        assert_eq!(texts.repeats(&section, &found), [2, 4, 2]);
    }

    /// At a threshold of 0 nothing is near, not even a copy.
    #[test]
    fn nothing_is_near_at_a_threshold_of_zero() {
        let texts = Texts::of(["a", "a"].into_iter());
        let section = DedupSection {
            distance_threshold: 0.0,
            ..DedupSection::default()
        };
        assert_eq!(texts.leaders(&section, &found(&[&[]])), [None; 2]);
    }

    /// Fields and their values as Magpie has them, whether the step was stopped on its way or not;
    /// a second time changes nothing.
    #[test]
    fn rows_get_magpie_s_fields() {
        let texts = [
            "What is a fox?",
            "Why?",
            "what is a  fox?",
            "What is a fox?",
            "Where does the owl sleep?",
        ];
        let folder = tempfile::tempdir().unwrap();
        let records: Vec<Record> = (10..)
            .zip(texts)
            .map(|(id, text)| {
                let mut record = Record::default();
                record.set("id", id);
                record.set("instruction", text);
                record
            })
            .collect();
        let input = folder.path().join("in.jsonl");
        write_records(&input, &records).unwrap();
        let dedup_into = |name: &str, input: &Path, looks: usize| {
            let dir = folder.path().join(name);
            loop {
                let outcome = in_folder(&dir, 1, looks, |workplace| {
                    dedup(&DedupSection::default(), input, workplace).unwrap()
                });
                if let StepOutcome::Done(entry) = outcome {
                    let path = dir.join("distances.jsonl");
                    return (read_records(&path).unwrap(), entry.counts, path);
                }
            }
        };
        let (marked, counts, path) = dedup_into("whole", &input, usize::MAX);
        let ids: Vec<&Value> = marked
            .iter()
            .map(|record| &record.0["min_similar_conversation_id"])
            .collect();
        let null = &Value::Null;
        assert_eq!(ids, [&json!(10), null, &json!(10), &json!(10), null]);
        assert_eq!(marked[0].0["min_neighbor_distance"], 0.0);
        assert!(marked[1].number("min_neighbor_distance").unwrap() > 0.5);
        assert_eq!(marked[0].0["repeat_count"], 2);
        let counts = ["rows", "texts", "near_another", "to_drop"].map(|name| &counts[name]);
        assert_eq!(counts, [5, 3, 3, 2]);
        assert_eq!(dedup_into("stopped", &input, 1).0, marked);
        assert_eq!(dedup_into("again", &path, usize::MAX).0, marked);
    }
}
