//! A file parted into rows to train on and rows to test with.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::files::{FilesError, lines_of};
use super::reasons::Reasons;
use super::writer::{RowsWriter, Written};
use crate::draw::Draw;

/// Stream of the seed that decides who is tested with.
const STREAM: u64 = 0x5350_4c54;

/// What became of the file.
#[derive(Debug, Clone)]
pub struct Parted {
    /// Rows to train on.
    pub train: Written,
    /// Rows to test with.
    pub test: Written,
    /// Rows that could not be used.
    pub dropped: Reasons,
}

/// Writes `{name}_train.jsonl` and `{name}_test.jsonl`, rows in the file's order.
///
/// Of the different rows a share goes to the test, at least one and never all; a row that stands
/// several times goes to one side with all its copies.
///
/// # Errors
///
/// A file that cannot be read or has fewer than two different rows.
pub fn part(
    path: &Path,
    output_dir: &Path,
    test_share: f64,
    seed: u64,
) -> Result<Parted, FilesError> {
    let mut dropped = Reasons::default();
    let rows = lines_of(path, &mut dropped)?;
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    for row in &rows {
        let next = numbers.len();
        numbers.entry(row).or_insert(next);
    }
    let num_different = numbers.len();
    if num_different < 2 {
        return Err(FilesError::TooFew {
            path: path.to_owned(),
            num_rows: num_different,
        });
    }
    let num_test = (test_share * num_different as f64).round() as usize;
    let num_test = num_test.clamp(1, num_different - 1);
    let mut order: Vec<usize> = (0..num_different).collect();
    Draw::new(seed, STREAM).shuffle(&mut order);
    let mut is_test = vec![false; num_different];
    for &number in &order[..num_test] {
        is_test[number] = true;
    }
    let [train, test] = parted_paths(path, output_dir);
    let (mut train, mut test) = (RowsWriter::create(&train)?, RowsWriter::create(&test)?);
    for row in &rows {
        let side = if is_test[numbers[row.as_str()]] {
            &mut test
        } else {
            &mut train
        };
        side.push_line(row)?;
    }
    Ok(Parted {
        train: train.finish()?,
        test: test.finish()?,
        dropped,
    })
}

/// The files that [`part`] writes: rows to train on, rows to test with.
pub fn parted_paths(path: &Path, output_dir: &Path) -> [PathBuf; 2] {
    let stem = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = stem.split('.').next().unwrap_or_default();
    ["train", "test"].map(|side| output_dir.join(format!("{stem}_{side}.jsonl")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    fn parted(text: &str, share: f64, seed: u64) -> Result<[Vec<String>; 2], String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.v1.jsonl");
        fs::write(&path, text).unwrap();
        let parted = part(&path, &folder.path().join("out"), share, seed);
        let parted = parted.map_err(|error| {
            let prefix = format!("{}/", folder.path().display());
            error.to_string().replace(&prefix, "")
        })?;
        assert!(parted.test.path.ends_with("out/set_test.jsonl"));
        let rows = |written: &Written| {
            let text = fs::read_to_string(&written.path).unwrap();
            let rows: Vec<String> = text.lines().map(str::to_owned).collect();
            assert_eq!(rows.len(), written.num_rows);
            rows
        };
        Ok([rows(&parted.train), rows(&parted.test)])
    }

    /// Magpie's 98 to 2: 4 of 200 rows, none on both sides, all on one, the same by the seed.
    #[test]
    fn sides_are_exact_and_apart() {
        let rows: Vec<String> = (0..200).map(|row| format!("{{\"a\":{row}}}\n")).collect();
        let text = rows.concat();
        let [train, test] = parted(&text, 0.02, 1).unwrap();
        assert_eq!((train.len(), test.len()), (196, 4));
        let all: BTreeSet<&String> = train.iter().chain(&test).collect();
        assert_eq!(all.len(), 200);
        assert_eq!(parted(&text, 0.02, 1).unwrap(), [train, test.clone()]);
        assert_ne!(parted(&text, 0.02, 2).unwrap()[1], test);
    }

    /// Whoever has seen a row in training is not tested with it.
    #[test]
    fn copies_stay_together() {
        let text = "{\"a\":1}\n".repeat(50) + "{\"a\":2}\n";
        for seed in 0..8 {
            let [train, test] = parted(&text, 0.5, seed).unwrap();
            assert_eq!(train.len().min(test.len()), 1);
            assert_eq!(train.len() + test.len(), 51);
        }
    }

    /// One row cannot be on two sides, and broken ones are none.
    #[test]
    fn too_little_is_named() {
        assert_eq!(
            parted("{\"a\":1}\n{\"a\":1}\n", 0.5, 0).unwrap_err(),
            "set.v1.jsonl: found 1 different rows, expected at least two to split"
        );
        let message = parted("{\n", 0.5, 0).unwrap_err();
        assert!(
            message.starts_with("set.v1.jsonl: found no row that can be used: 1 x not JSON"),
            "{message}"
        );
    }
}
