//! `kindling data merge`, `split` and `stats`: files of rows made one, parted and counted.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use dataset::prepare::{
    Amounts, FileStats, MergeOptions, Merged, Parted, Reasons, Written, merge, part, parted_paths,
};
use dataset::say;
use dataset::source::matching_files;

use super::unless_broken_pipe;

/// Which files to merge, and how much of each.
#[derive(Debug, Clone, Args)]
pub struct MergeArgs {
    /// Files of rows (.jsonl, .json, .csv, .gz, .parquet), or patterns such as out/apt/*.jsonl
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// File to write, JSON lines
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How often each file's rows are taken on average, such as 1,0.5,2
    #[arg(long, value_name = "X,..", value_delimiter = ',')]
    weights: Vec<f64>,
    /// Proportions of the files in --num-rows rows, such as 7,2,1; short files are repeated
    #[arg(
        long,
        value_name = "X,..",
        value_delimiter = ',',
        conflicts_with = "weights",
        requires = "num_rows"
    )]
    shares: Vec<f64>,
    /// Rows of a mixture by --shares
    #[arg(long, value_name = "N", requires = "shares")]
    num_rows: Option<NonZeroUsize>,
    /// Rows at most, drawn at random
    #[arg(long, value_name = "N")]
    max_samples: Option<NonZeroUsize>,
    /// Put the rows into a random order
    #[arg(long)]
    shuffle: bool,
    /// Leave out rows that stand before
    #[arg(long)]
    dedup: bool,
    /// Decides all that is random
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Replace the file to write if there is one
    #[arg(long)]
    overwrite: bool,
}

/// Which file to part.
#[derive(Debug, Clone, Args)]
pub struct SplitArgs {
    /// File of rows (.jsonl, .json, .csv, .gz, .parquet)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Folder of the two files [default: the file's own]
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Share of the different rows to test with, above 0 and below 1
    #[arg(long, value_name = "X", default_value_t = 0.02)]
    test_ratio: f64,
    /// Decides which rows
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Replace the two files if they are there
    #[arg(long)]
    overwrite: bool,
}

/// Which files to count.
#[derive(Debug, Clone, Args)]
pub struct StatsArgs {
    /// Files of rows (.jsonl, .json, .csv, .gz, .parquet), or patterns such as out/apt/*.jsonl
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
}

pub(super) fn run_merge(args: &MergeArgs) -> Result<ExitCode> {
    let paths = matching(&args.files)?;
    let amounts = match (args.weights.is_empty(), args.num_rows) {
        (true, Some(num_rows)) => Amounts::Shares {
            shares: args.shares.clone(),
            num_rows: num_rows.get(),
        },
        (true, None) => Amounts::All,
        (false, _) => Amounts::Weights(args.weights.clone()),
    };
    let options = MergeOptions {
        amounts,
        shuffle: args.shuffle,
        dedup: args.dedup,
        max_samples: args.max_samples.map(NonZeroUsize::get),
        seed: args.seed,
    };
    free_to_write(&args.out, &paths, args.overwrite)?;
    let Merged {
        written,
        num_taken,
        num_duplicates,
        dropped,
    } = merge(&paths, &args.out, &options)?;
    for (path, taken) in paths.iter().zip(num_taken) {
        say!("{taken:>9} rows of {}", path.display());
    }
    if num_duplicates > 0 {
        say!("{num_duplicates:>9} rows that stood before left out");
    }
    report_dropped(&dropped);
    print_written(&[&written])
}

pub(super) fn run_split(args: &SplitArgs) -> Result<ExitCode> {
    if !(args.test_ratio > 0.0 && args.test_ratio < 1.0) {
        bail!(
            "--test-ratio is {}, expected a share above 0 and below 1",
            args.test_ratio
        );
    }
    let folder = match &args.output_dir {
        Some(folder) => folder.clone(),
        None => args.file.parent().map(PathBuf::from).unwrap_or_default(),
    };
    for path in parted_paths(&args.file, &folder) {
        free_to_write(&path, std::slice::from_ref(&args.file), args.overwrite)?;
    }
    let Parted {
        train,
        test,
        dropped,
    } = part(&args.file, &folder, args.test_ratio, args.seed)?;
    report_dropped(&dropped);
    print_written(&[&train, &test])
}

pub(super) fn run_stats(args: &StatsArgs) -> Result<ExitCode> {
    for path in matching(&args.files)? {
        let stats = FileStats::read(&path)?;
        write!(io::stdout(), "{stats}").or_else(unless_broken_pipe)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses to write over what is there unasked, and over what is read in any case.
pub(super) fn free_to_write(path: &Path, inputs: &[PathBuf], overwrite: bool) -> Result<()> {
    let Ok(found) = path.metadata() else {
        return Ok(());
    };
    let place = path.canonicalize().ok();
    let is_read = |input: &PathBuf| place.is_some() && input.canonicalize().ok() == place;
    if inputs.iter().any(is_read) {
        bail!("{} is read, expected another file to write", path.display());
    }
    if !found.is_file() {
        bail!("{} is no file, expected one to write", path.display());
    }
    if !overwrite {
        bail!(
            "{} is there already, expected --overwrite or another place",
            path.display()
        );
    }
    Ok(())
}

fn matching(patterns: &[String]) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for pattern in patterns {
        paths.extend(matching_files(pattern)?);
    }
    Ok(paths)
}

fn report_dropped(dropped: &Reasons) {
    if dropped.total() > 0 {
        say!("dropped: {dropped}");
    }
}

fn print_written(files: &[&Written]) -> Result<ExitCode> {
    for Written { path, num_rows, .. } in files {
        writeln!(io::stdout(), "{}: {num_rows} rows", path.display())
            .or_else(unless_broken_pipe)?;
    }
    Ok(ExitCode::SUCCESS)
}
