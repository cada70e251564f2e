//! Which vectors are near which.
//!
//! Axis letters: `B` rows of a block, `E` numbers of a vector.

use std::ops::Range;

use ndarray::ArrayView2;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::record::Record;
use super::work::Made;

/// Rows and columns of the products that are held at once.
const BLOCK: usize = 512;

/// What is known of a text's neighbours.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Neighbours {
    /// Squared distance to the nearest other text; none where there is no other.
    pub(super) min_distance: Option<f32>,
    /// Other texts nearer than the threshold, ascending.
    pub(super) near: Vec<usize>,
}

/// Neighbours of some of the vectors among all of them: blocks of products, each summed in one
/// order.
pub(super) fn neighbours(
    vectors: &[f32],
    width: usize,
    rows: Range<usize>,
    threshold: f32,
) -> Vec<Neighbours> {
    let mut all = Vec::with_capacity(rows.len());
    for start in rows.clone().step_by(BLOCK) {
        let end = rows.end.min(start + BLOCK);
        let own = matrix(&vectors[start * width..end * width], width); // [B, E]
        let blocks = vectors.par_chunks(BLOCK * width).enumerate();
        let found: Vec<Vec<Neighbours>> = blocks
            .map(|(block, others)| {
                let cosines = own.dot(&matrix(others, width).t()); // [B, B]
                let rows = (start..).zip(cosines.rows());
                rows.map(|(row, cosines)| {
                    let cosines = cosines.as_slice().expect("a product is stored row by row");
                    Neighbours::among(row, block * BLOCK, cosines, threshold)
                })
                .collect()
            })
            .collect();
        let first = all.len();
        all.resize(first + end - start, Neighbours::default());
        for block in found {
            all[first..]
                .iter_mut()
                .zip(block)
                .for_each(|(all, found)| all.add(found));
        }
    }
    all
}

fn matrix(vectors: &[f32], width: usize) -> ArrayView2<'_, f32> {
    let shape = (vectors.len() / width, width);
    ArrayView2::from_shape(shape, vectors).expect("the vectors have one width")
}

fn squared_distance(cosine: f32) -> f32 {
    (2.0 - 2.0 * cosine).max(0.0)
}

impl Neighbours {
    /// What the cosines of text `own` with the texts from `first` on tell.
    fn among(own: usize, first: usize, cosines: &[f32], threshold: f32) -> Self {
        let mut found = Self::default();
        let parts = match own.checked_sub(first) {
            Some(place) if place < cosines.len() => {
                [(first, &cosines[..place]), (own + 1, &cosines[place + 1..])]
            }
            _ => [(first, cosines), (first, &[][..])],
        };
        for (first, cosines) in parts {
            if cosines.is_empty() {
                continue;
            }
            // Nearly all pairs are far: whether any is not is found without looking at each.
            let most = cosines.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let nearest = squared_distance(most);
            found.add(Self {
                min_distance: Some(nearest),
                near: Vec::new(),
            });
            if nearest < threshold {
                let near = (first..).zip(cosines);
                let near = near.filter(|(_, cosine)| squared_distance(**cosine) < threshold);
                found.near.extend(near.map(|(other, _)| other));
            }
        }
        found
    }

    /// Takes note of what later texts tell.
    fn add(&mut self, later: Self) {
        let distances = [self.min_distance, later.min_distance];
        self.min_distance = distances.into_iter().flatten().reduce(f32::min);
        self.near.extend(later.near);
    }

    /// As a row of the journal.
    pub(super) fn made(&self) -> Made {
        let mut record = Record::default();
        record.set("min_distance", json!(self.min_distance));
        record.set("near", json!(self.near));
        Made {
            record,
            ..Made::default()
        }
    }

    pub(super) fn of(made: &Made) -> Self {
        let near = made.record.0.get("near").and_then(Value::as_array);
        let near = near.into_iter().flatten().filter_map(Value::as_u64);
        Self {
            min_distance: made.record.number("min_distance").map(|it| it as f32),
            near: near.map(|other| other as usize).collect(),
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

    fn found_at(degrees: &[f32], threshold: f32) -> Vec<Neighbours> {
        neighbours(&at_degrees(degrees), 2, 0..degrees.len(), threshold)
    }

    fn near(found: &[Neighbours]) -> Vec<&[usize]> {
        found.iter().map(|found| found.near.as_slice()).collect()
    }

    /// By hand: 2 - 2 cos 10 is 0.0304, 2 - 2 cos 20 is 0.1206; a copy is at 0.
    #[test]
    fn distances_and_near_texts_are_found() {
        let found = found_at(&[0.0, 10.0, 20.0, 90.0, 90.0], 0.05);
        let expected: [&[usize]; 5] = [&[1], &[0, 2], &[1], &[4], &[3]];
        assert_eq!(near(&found), expected);
        let distance = found[0].min_distance.unwrap();
        assert!((distance - 0.030_384_5).abs() < 1e-6, "{distance}");
        assert!(found[3].min_distance.unwrap() < 1e-6);
        assert_eq!(found_at(&[7.0], 0.05), [Neighbours::default()]);
        assert_eq!(found_at(&[], 0.05), []);
        let part = neighbours(&at_degrees(&[0.0, 10.0, 20.0, 90.0, 90.0]), 2, 1..3, 0.05);
        assert_eq!(part, found[1..3]);
    }

    /// More rows than a block: every tenth is a copy of the one before it.
    #[test]
    fn blocks_change_nothing() {
        let count = BLOCK + 300;
        let degrees: Vec<f32> = (0..count)
            .map(|row| if row % 10 == 9 { row - 1 } else { row })
            .map(|row| row as f32 * 360.0 / count as f32)
            .collect();
        let found = found_at(&degrees, 1e-6);
        for (row, found) in found.iter().enumerate() {
            let expected = match row % 10 {
                9 => vec![row - 1],
                8 if row + 1 < count => vec![row + 1],
                _ => Vec::new(),
            };
            assert_eq!(found.near, expected, "{row}");
        }
    }
}
