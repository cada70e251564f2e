//! Several files made one: all of them, some more often than others, or in fixed shares.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::files::{FilesError, chats_of, format_of, lines_of};
use super::reasons::Reasons;
use super::sample::Sample;
use super::writer::{RowsWriter, Written};
use crate::draw::Draw;
use crate::rows::RowFormat;
use crate::source::hashed_fraction;

/// Streams of the seed: the order of a file's rows, and the order of the result.
const FILE_STREAM: u64 = 0x4d49_5800;
const ORDER_STREAM: u64 = 0x4d49_5801;

/// How much is taken of each file.
#[derive(Debug, Clone, PartialEq)]
pub enum Amounts {
    /// Every row once.
    All,
    /// Each row so often on average: 2 is twice, 0.5 every other row.
    Weights(Vec<f64>),
    /// So many rows in all, in these proportions; a file that has fewer is repeated.
    Shares {
        /// Proportions of the files, in any unit.
        shares: Vec<f64>,
        /// Rows of the result.
        num_rows: usize,
    },
}

/// What is asked of a merging.
#[derive(Debug, Clone)]
pub struct MergeOptions {
    /// How much is taken of each file.
    pub amounts: Amounts,
    /// Whether rows are put into a random order.
    pub shuffle: bool,
    /// Whether a row that stood before is left out.
    pub dedup: bool,
    /// Rows of the result at most, drawn at random.
    pub max_samples: Option<usize>,
    /// Decides all that is random.
    pub seed: u64,
}

/// What became of the files.
#[derive(Debug, Clone)]
pub struct Merged {
    /// The result.
    pub written: Written,
    /// Rows of each file that came into the mixture.
    pub num_taken: Vec<usize>,
    /// Rows that stood before and were left out.
    pub num_duplicates: usize,
    /// Rows that could not be used.
    pub dropped: Reasons,
}

/// Writes the rows of several files into one.
///
/// Files of one format keep their rows as they are. Conversations of different formats become
/// `conversations`, because a file has one format.
///
/// # Errors
///
/// A file that cannot be read, of which no row can be used, or whose rows are for another stage;
/// not one positive number for each file.
pub fn merge(
    paths: &[PathBuf],
    output: &Path,
    options: &MergeOptions,
) -> Result<Merged, FilesError> {
    check(&options.amounts, paths.len())?;
    let mut dropped = Reasons::default();
    let mut files = read(paths, &mut dropped)?;
    let mut num_duplicates = 0;
    if options.dedup {
        let mut seen = HashSet::new();
        for rows in &mut files {
            let before = rows.len();
            rows.retain(|row| seen.insert(row.clone()));
            num_duplicates += before - rows.len();
        }
    }
    let mut num_taken = Vec::new();
    let mut mixture = Vec::new();
    for (index, rows) in files.into_iter().enumerate() {
        let taken = take(index, rows, options);
        num_taken.push(taken.len());
        mixture.extend(taken);
    }
    if let Some(capacity) = options.max_samples {
        let mut sample = Sample::new(capacity, options.seed);
        for row in mixture {
            sample.push(row);
        }
        mixture = sample.into_rows().collect();
    }
    if options.shuffle {
        Draw::new(options.seed, ORDER_STREAM).shuffle(&mut mixture);
    }
    let mut writer = RowsWriter::create(output)?;
    for row in &mixture {
        writer.push_line(row)?;
    }
    Ok(Merged {
        written: writer.finish()?,
        num_taken,
        num_duplicates,
        dropped,
    })
}

fn check(amounts: &Amounts, num_files: usize) -> Result<(), FilesError> {
    let (name, numbers) = match amounts {
        Amounts::All => return Ok(()),
        Amounts::Weights(weights) => ("weights", weights),
        Amounts::Shares { shares, .. } => ("shares", shares),
    };
    if numbers.len() != num_files {
        return Err(FilesError::Numbers {
            name,
            found: numbers.len(),
            num_files,
        });
    }
    let is_wrong = |number: &&f64| !(number.is_finite() && **number > 0.0);
    match numbers.iter().find(is_wrong) {
        Some(&found) => Err(FilesError::Number { name, found }),
        None => Ok(()),
    }
}

/// The rows of each file, in one format.
fn read(paths: &[PathBuf], dropped: &mut Reasons) -> Result<Vec<Vec<String>>, FilesError> {
    let formats: Result<Vec<_>, _> = paths.iter().map(|path| format_of(path)).collect();
    let formats: Vec<Option<RowFormat>> = formats?;
    let is_preference = |format: &Option<RowFormat>| *format == Some(RowFormat::Preference);
    if formats.windows(2).all(|pair| pair[0] == pair[1]) {
        let files = paths.iter().map(|path| lines_of(path, dropped));
        return files.collect();
    }
    let preferences = formats.iter().position(is_preference);
    let others = formats.iter().position(|format| !is_preference(format));
    if let (Some(preferences), Some(others)) = (preferences, others) {
        return Err(FilesError::TwoKinds {
            preferences: paths[preferences].clone(),
            others: paths[others].clone(),
        });
    }
    let files = paths.iter().zip(formats);
    files
        .map(|(path, format)| chats_of(path, format.unwrap_or_default(), dropped))
        .collect()
}

/// What is taken of one file.
fn take(index: usize, rows: Vec<String>, options: &MergeOptions) -> Vec<String> {
    match &options.amounts {
        Amounts::All => rows,
        Amounts::Weights(weights) => {
            let (whole, rest) = (weights[index].trunc() as usize, weights[index].fract());
            let seed = options.seed ^ FILE_STREAM.wrapping_add(index as u64);
            let rows = rows.into_iter().enumerate();
            rows.flat_map(|(row, line)| {
                let copies = whole + usize::from(hashed_fraction(seed, row as u64) < rest);
                std::iter::repeat_n(line, copies)
            })
            .collect()
        }
        Amounts::Shares { shares, num_rows } => {
            let wanted = apportioned(shares, *num_rows)[index];
            let mut taken: Vec<usize> = Vec::with_capacity(wanted);
            let mut round = 0;
            while taken.len() < wanted {
                // Each further round through a file is in another order.
                let mut order: Vec<usize> = (0..rows.len()).collect();
                let stream = FILE_STREAM + ((index as u64) << 32) + (round << 16);
                Draw::new(options.seed, stream).shuffle(&mut order);
                order.truncate(wanted - taken.len());
                order.sort_unstable();
                taken.extend(order);
                round += 1;
            }
            taken.into_iter().map(|row| rows[row].clone()).collect()
        }
    }
}

/// Whole numbers in the proportion of shares that sum up to a total: what is left after rounding
/// down goes to the largest remainders.
fn apportioned(shares: &[f64], total: usize) -> Vec<usize> {
    let sum: f64 = shares.iter().sum();
    let exact: Vec<f64> = shares
        .iter()
        .map(|share| share / sum * total as f64)
        .collect();
    let mut whole: Vec<usize> = exact.iter().map(|share| share.floor() as usize).collect();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
    let left = total.saturating_sub(whole.iter().sum());
    for &index in order.iter().cycle().take(left) {
        whole[index] += 1;
    }
    whole
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const OPTIONS: MergeOptions = MergeOptions {
        amounts: Amounts::All,
        shuffle: false,
        dedup: false,
        max_samples: None,
        seed: 42,
    };

    /// A folder with files of as many pairs as asked for, `a0`, `a1`, .. in `a.jsonl`.
    fn files(sizes: &[(&str, usize)]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        let paths = sizes.iter().map(|(name, size)| {
            let path = folder.path().join(format!("{name}.jsonl"));
            let row = |row| format!("{{\"prompt\":\"{name}{row}\",\"response\":\"r\"}}\n");
            fs::write(&path, (0..*size).map(row).collect::<String>()).unwrap();
            path
        });
        let paths = paths.collect();
        (folder, paths)
    }

    fn merged(paths: &[PathBuf], options: &MergeOptions) -> (Merged, Vec<String>) {
        let output = paths[0].with_file_name("merged.jsonl");
        let merged = merge(paths, &output, options).unwrap();
        let text = fs::read_to_string(output).unwrap();
        (merged, text.lines().map(str::to_owned).collect())
    }

    /// APT's merging: one file after the other, nothing lost, nothing changed.
    #[test]
    fn all_rows_are_kept_as_they_are() {
        let (_folder, paths) = files(&[("a", 3), ("b", 2)]);
        let (in_order, rows) = merged(&paths, &OPTIONS);
        assert_eq!(in_order.num_taken, [3, 2]);
        assert_eq!(rows[0], r#"{"prompt":"a0","response":"r"}"#);
        assert_eq!(rows[4], r#"{"prompt":"b1","response":"r"}"#);
        let options = MergeOptions {
            shuffle: true,
            ..OPTIONS
        };
        let (_, mut shuffled) = merged(&paths, &options);
        assert_ne!(shuffled, rows);
        assert_eq!(merged(&paths, &options).1, shuffled);
        shuffled.sort_unstable();
        assert_eq!(shuffled, rows);
    }

    /// Of 1,000 rows 1,500 at a weight of 1.5: 5 sigma are 79.
    #[test]
    fn weights_repeat_and_leave_out() {
        let (_folder, paths) = files(&[("a", 1000), ("b", 1000)]);
        let options = MergeOptions {
            amounts: Amounts::Weights(vec![1.5, 0.5]),
            ..OPTIONS
        };
        let (merged, _) = merged(&paths, &options);
        assert!(merged.num_taken[0].abs_diff(1500) < 80, "{merged:?}");
        assert!(merged.num_taken[1].abs_diff(500) < 80, "{merged:?}");
    }

    /// Seven rows in the proportion 2 to 1 are 5 and 2: 4.67 and 2.33, the larger remainder up.
    #[test]
    fn shares_are_exact_and_repeat_what_is_short() {
        let (_folder, paths) = files(&[("a", 2), ("b", 30)]);
        let options = MergeOptions {
            amounts: Amounts::Shares {
                shares: vec![2.0, 1.0],
                num_rows: 7,
            },
            ..OPTIONS
        };
        let (mixture, rows) = merged(&paths, &options);
        assert_eq!(mixture.num_taken, [5, 2]);
        let count = |text: &str| rows.iter().filter(|row| row.contains(text)).count();
        assert_eq!(count("a0") + count("a1"), 5);
        assert!(count("a0").abs_diff(count("a1")) == 1);
        assert_eq!(apportioned(&[1.0, 1.0, 1.0], 10), [4, 3, 3]);
    }

    /// Alpaca and pairs in one file would be read as one format: they become conversations. Alpaca
    /// beside preferences would be two stages' data.
    #[test]
    fn one_file_has_one_format() {
        let (folder, mut paths) = files(&[("a", 1)]);
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        paths.push(write("b.json", r#"[{"instruction": "q", "output": "o"}]"#));
        let (_, rows) = merged(&paths, &OPTIONS);
        assert_eq!(
            rows[1],
            r#"{"conversations":[{"role":"user","content":"q"},{"role":"assistant","content":"o"}]}"#
        );
        paths.push(write(
            "c.jsonl",
            r#"{"prompt": "q", "chosen": "c", "rejected": "r"}"#,
        ));
        let output = folder.path().join("no.jsonl");
        let error = merge(&paths, &output, &OPTIONS).unwrap_err().to_string();
        assert!(
            error.contains("c.jsonl holds preferences and ") && error.contains("a.jsonl does not"),
            "{error}"
        );
        assert!(!output.exists());
    }

    /// A wrapped file and a flat one hold the same rows; the second copy of each is left out.
    #[test]
    fn wrapped_files_are_flat_and_duplicates_leave() {
        let (folder, mut paths) = files(&[("a", 2)]);
        let wrapped = folder.path().join("w.json");
        let row = |row: usize| format!(r#"{{"prompt": "a{row}", "response": "r"}}"#);
        fs::write(
            &wrapped,
            format!(r#"{{"instructions": [{}, {}]}}"#, row(0), row(1)),
        )
        .unwrap();
        paths.push(wrapped);
        let options = MergeOptions {
            dedup: true,
            ..OPTIONS
        };
        let (merged, rows) = merged(&paths, &options);
        assert_eq!((rows.len(), merged.num_duplicates), (2, 2));
        assert_eq!(merged.num_taken, [2, 0]);
    }

    /// Numbers that make no mixture are named.
    #[test]
    fn wrong_numbers_are_named() {
        let (_folder, paths) = files(&[("a", 1), ("b", 1)]);
        let error = |amounts| {
            let options = MergeOptions { amounts, ..OPTIONS };
            let output = paths[0].with_file_name("no.jsonl");
            merge(&paths, &output, &options).unwrap_err().to_string()
        };
        assert_eq!(
            error(Amounts::Weights(vec![1.0])),
            "found 1 weights for 2 files, expected one for each"
        );
        assert_eq!(
            error(Amounts::Weights(vec![1.0, -1.0])),
            "weights -1 is not a number above 0"
        );
    }
}
