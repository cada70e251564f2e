//! How near the nearest other instruction is, and which rows repeat an earlier one.
//!
//! Axis letters: `B` rows of a block, `E` numbers of a vector.
//!
//! Source: Magpie's `gen_dis.py`: squared Euclidean distances of unit vectors, 0.05 for near. Ours
//! looks at all pairs where it looks at the 500 nearest.

use std::path::Path;

use documented::DocumentedFields;
use ndarray::ArrayView2;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::MagpieError;
use super::manifest::as_json;
use super::range::check;
use super::record::{Record, read_records};
use super::vectors::{WIDTH, text_vectors};
use super::work::{Finished, StepOutcome, StepSpec, Workplace};

/// Name of the step.
pub const STEP: &str = "dedup";

/// Stem of the file of rows with distances.
pub const FILE: &str = "distances";

/// Rows and columns of the products that are held at once.
const BLOCK: usize = 512;

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

/// What is known of a row's neighbours.
#[derive(Debug, Clone, Default, PartialEq)]
struct Neighbours {
    /// Squared distance to the nearest other row; none where there is no other.
    min_distance: Option<f32>,
    /// Rows nearer than the threshold, ascending.
    near: Vec<usize>,
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
    let spec = StepSpec {
        name: STEP,
        inputs: &[input.to_owned()],
        settings: as_json(section),
        total: 0,
    };
    workplace.run(
        &spec,
        |_, _| Ok(Vec::new()),
        |_| {
            let mut records = read_records(input)?;
            let counts = mark(section, &mut records);
            Ok(Finished {
                files: vec![(FILE.to_owned(), records)],
                counts,
            })
        },
    )
}

/// The name of a row in a set: `conversation_id`, `id` or `uuid`, whichever it has.
pub(super) fn conversation_id(record: &Record) -> Option<Value> {
    let names = ["conversation_id", "id", "uuid"];
    let ids = names.iter().filter_map(|name| record.0.get(*name));
    ids.into_iter().find(|id| !id.is_null()).cloned()
}

fn mark(section: &DedupSection, records: &mut [Record]) -> Map<String, Value> {
    let texts: Vec<&str> = records.iter().map(Record::instruction).collect();
    let neighbours = neighbours(
        &text_vectors(&texts),
        WIDTH,
        section.distance_threshold as f32,
    );
    let leaders = leaders(section.mode, &neighbours);
    let ids: Vec<Value> = (0..)
        .zip(records.iter())
        .map(|(row, record): (usize, _)| conversation_id(record).unwrap_or(json!(row)))
        .collect();
    let mut num_dropped = 0;
    for (row, (record, found)) in records.iter_mut().zip(&neighbours).enumerate() {
        let similar = leaders[row].map_or(Value::Null, |leader| ids[leader].clone());
        num_dropped += usize::from(leaders[row].is_some_and(|leader| leader != row));
        if conversation_id(record).is_none() {
            record.set("id", row);
        }
        // Six digits: what is beyond them is rounding, and the same text must be at 0 exactly.
        let distance = found
            .min_distance
            .map(|distance| (f64::from(distance) * 1e6).round() / 1e6);
        record.set("min_neighbor_distance", distance);
        record.set("repeat_count", found.near.len());
        record.set("min_similar_conversation_id", similar);
    }
    let counts = [
        ("rows", records.len()),
        (
            "near_another",
            neighbours
                .iter()
                .filter(|found| !found.near.is_empty())
                .count(),
        ),
        ("to_drop", num_dropped),
    ];
    let named = counts.into_iter();
    named
        .map(|(name, count)| (name.to_owned(), json!(count)))
        .collect()
}

/// For each row that is near others the row that stands for it, itself if it is to be kept.
fn leaders(mode: DedupMode, neighbours: &[Neighbours]) -> Vec<Option<usize>> {
    let mut leaders: Vec<Option<usize>> = Vec::with_capacity(neighbours.len());
    for (row, found) in neighbours.iter().enumerate() {
        let mut earlier = found.near.iter().copied().take_while(|&other| other < row);
        let leader = match mode {
            DedupMode::Compatible => earlier.next(),
            // A kept row is one that nothing stands for, or that stands for itself.
            DedupMode::Greedy => {
                earlier.find(|&other| leaders[other].is_none_or(|leader| leader == other))
            }
        };
        leaders.push(leader.or((!found.near.is_empty()).then_some(row)));
    }
    leaders
}

/// Neighbours of every vector, all pairs compared: blocks of products, each summed in one order.
fn neighbours(vectors: &[f32], width: usize, threshold: f32) -> Vec<Neighbours> {
    let starts: Vec<usize> = (0..vectors.len() / width).step_by(BLOCK).collect();
    let blocks = starts.into_par_iter().map(|start| {
        let end = vectors.len().min((start + BLOCK) * width);
        let rows = matrix(&vectors[start * width..end], width); // [B, E]
        let mut found = vec![Neighbours::default(); rows.nrows()];
        for (block, others) in vectors.chunks(BLOCK * width).enumerate() {
            let cosines = rows.dot(&matrix(others, width).t()); // [B, B]
            for (row, (found, cosines)) in found.iter_mut().zip(cosines.rows()).enumerate() {
                let cosines = cosines.as_slice().expect("a product is stored row by row");
                found.add(start + row, block * BLOCK, cosines, threshold);
            }
        }
        found
    });
    blocks.flatten().collect()
}

fn matrix(vectors: &[f32], width: usize) -> ArrayView2<'_, f32> {
    let shape = (vectors.len() / width, width);
    ArrayView2::from_shape(shape, vectors).expect("the vectors have one width")
}

impl Neighbours {
    /// Takes note of the cosines of row `own` with the rows from `first` on.
    fn add(&mut self, own: usize, first: usize, cosines: &[f32], threshold: f32) {
        // Nearly all pairs are far: whether any is not is found without looking at each.
        let nearest_known = self.min_distance.unwrap_or(f32::INFINITY).max(threshold);
        let bound = 1.0 - nearest_known / 2.0;
        if cosines
            .iter()
            .fold(f32::NEG_INFINITY, |most, &cosine| most.max(cosine))
            < bound
        {
            return;
        }
        for (other, cosine) in (first..).zip(cosines) {
            if other == own {
                continue;
            }
            let distance = (2.0 - 2.0 * cosine).max(0.0);
            if self.min_distance.is_none_or(|least| distance < least) {
                self.min_distance = Some(distance);
            }
            if distance < threshold {
                self.near.push(other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unit vectors of the plane at these degrees.
    fn at_degrees(degrees: &[f32]) -> Vec<f32> {
        let angles = degrees.iter().map(|degrees| degrees.to_radians());
        angles
            .flat_map(|angle| [angle.cos(), angle.sin()])
            .collect()
    }

    fn near(found: &[Neighbours]) -> Vec<&[usize]> {
        found.iter().map(|found| found.near.as_slice()).collect()
    }

    /// By hand: 2 - 2 cos 10 is 0.0304, 2 - 2 cos 20 is 0.1206; a copy is at 0.
    #[test]
    fn distances_and_near_rows_are_found() {
        let found = neighbours(&at_degrees(&[0.0, 10.0, 20.0, 90.0, 90.0]), 2, 0.05);
        let expected: [&[usize]; 5] = [&[1], &[0, 2], &[1], &[4], &[3]];
        assert_eq!(near(&found), expected);
        let distance = found[0].min_distance.unwrap();
        assert!((distance - 0.030_384_5).abs() < 1e-6, "{distance}");
        assert!(found[3].min_distance.unwrap() < 1e-6);
        assert_eq!(
            neighbours(&at_degrees(&[7.0]), 2, 0.05),
            [Neighbours::default()]
        );
        assert_eq!(neighbours(&[], 2, 0.05), []);
    }

    /// A row at 0, one near it, and one near the second only: k, j, i of a chain.
    #[test]
    fn a_chain_keeps_its_ends_when_greedy() {
        let found = neighbours(&at_degrees(&[0.0, 10.0, 20.0]), 2, 0.05);
        assert_eq!(
            leaders(DedupMode::Compatible, &found),
            [Some(0), Some(0), Some(1)]
        );
        assert_eq!(
            leaders(DedupMode::Greedy, &found),
            [Some(0), Some(0), Some(2)]
        );
    }

    /// More rows than a block: every tenth is a copy of the one before it.
    #[test]
    fn blocks_change_nothing() {
        let count = BLOCK + 300;
        let degrees: Vec<f32> = (0..count)
            .map(|row| if row % 10 == 9 { row - 1 } else { row })
            .map(|row| row as f32 * 360.0 / count as f32)
            .collect();
        let found = neighbours(&at_degrees(&degrees), 2, 1e-6);
        for (row, found) in found.iter().enumerate() {
            let expected = match row % 10 {
                9 => vec![row - 1],
                8 if row + 1 < count => vec![row + 1],
                _ => Vec::new(),
            };
            assert_eq!(found.near, expected, "{row}");
        }
    }

    /// Fields and their values as Magpie has them; a second time changes nothing.
    #[test]
    fn rows_get_magpie_s_fields() {
        let texts = [
            "What is a fox?",
            "Why?",
            "what is a  fox?",
            "What is a fox?",
        ];
        let mut records: Vec<Record> = (0..)
            .zip(texts)
            .map(|(id, text)| {
                let mut record = Record::default();
                record.set("id", 10 + id);
                record.set("instruction", text);
                record
            })
            .collect();
        let counts = mark(&DedupSection::default(), &mut records);
        let ids: Vec<&Value> = records
            .iter()
            .map(|record| &record.0["min_similar_conversation_id"])
            .collect();
        assert_eq!(ids, [&json!(10), &Value::Null, &json!(10), &json!(10)]);
        assert_eq!(records[0].0["min_neighbor_distance"], 0.0);
        assert_eq!(records[0].0["repeat_count"], 2);
        assert_eq!(counts["to_drop"], 2);
        let once = records.clone();
        mark(&DedupSection::default(), &mut records);
        assert_eq!(records, once);
    }
}
