//! `kindling data prepare`: APT's training sets from the hub or from a folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{ArgGroup, Args};
use dataset::prepare::{
    Hub, HubOptions, Origin, PrepareOptions, Prepared, PreparedFile, RowsWriter, SOURCES, Source,
    Stage, Written, loyalty_template, prepare,
};
use dataset::say;
use serde::{Deserialize, Serialize};

use super::unless_broken_pipe;

/// What every prepared file of a folder came from.
const INFO: &str = "dataset_info.json";

/// Name of the loyalty template, which is no data set of the hub.
const LOYALTY: &str = "loyalty_template";

/// Which sets to prepare, and from where.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(group = ArgGroup::new("sets").required(true).multiple(true))]
pub struct PrepareArgs {
    /// The same as --sft --cot --dpo
    #[arg(long, group = "sets")]
    all: bool,
    /// Questions with answers: COIG-CQIA, all its parts
    #[arg(long, group = "sets")]
    sft: bool,
    /// Problems with thoughts: s1K-1.1 (of DeepSeek-R1) and s1K (of Gemini)
    #[arg(long, group = "sets")]
    cot: bool,
    /// Better and worse answers: HH-RLHF and UltraFeedback
    #[arg(long, group = "sets")]
    dpo: bool,
    /// The riddles of COIG-CQIA alone
    #[arg(long, group = "sets")]
    ruozhiba: bool,
    /// Questions with an answer for the owner and one for everybody else; nothing is downloaded
    #[arg(long, group = "sets")]
    loyalty_template: bool,
    /// One data set by its name, such as s1k; may be repeated
    #[arg(long, group = "sets", value_name = "NAME", value_parser = source_named)]
    only: Vec<&'static Source>,
    /// Rows of each file at most, drawn at random
    #[arg(long, value_name = "N")]
    max_samples: Option<NonZeroUsize>,
    /// Folder of the prepared files
    #[arg(long, value_name = "DIR", default_value = "out/apt")]
    output_dir: PathBuf,
    /// Decides which rows are drawn
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Folder with the data sets' files, in folders named like the repositories, in the hub's
    /// place
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Use only what was downloaded before
    #[arg(long, conflicts_with = "from")]
    offline: bool,
    /// Share of a file's rows that may be dropped, from 0 to 1
    #[arg(long, value_name = "X", default_value_t = 0.2)]
    max_dropped: f64,
}

/// Where a prepared file came from and what became of its rows.
#[derive(Debug, Serialize, Deserialize)]
struct Info {
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    repo: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    split: String,
    num_read: usize,
    num_rows: usize,
    dropped: BTreeMap<String, usize>,
    seed: u64,
    sha256: String,
}

pub(super) fn run(args: &PrepareArgs) -> Result<ExitCode> {
    let sources = args.sources();
    let origin = match &args.from {
        Some(path) => Origin::Folder {
            path: path.clone(),
            holds_one: sources.len() == 1,
        },
        None => Origin::Hub(Box::new(Hub::new(HubOptions {
            offline: args.offline || HubOptions::from_env()?.offline,
            ..HubOptions::from_env()?
        })?)),
    };
    let options = PrepareOptions {
        output_dir: args.output_dir.clone(),
        max_samples: args.max_samples.map(NonZeroUsize::get),
        seed: args.seed,
        max_dropped: args.max_dropped,
    };
    let mut failed = Vec::new();
    for source in sources {
        say!("{}: {}", source.name, source.repo);
        match prepare(source, &origin, &options) {
            Ok(prepared) => {
                report(&prepared)?;
                note(args, infos(source, &prepared, args.seed))?;
            }
            // The others may be had all the same.
            Err(error) => {
                say!("kindling: {:#}", anyhow::Error::new(error));
                failed.push(source.name);
            }
        }
    }
    if args.loyalty_template {
        write_loyalty(args)?;
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say!("kindling: not prepared: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

impl PrepareArgs {
    /// The data sets that are asked for, each once.
    fn sources(&self) -> Vec<&'static Source> {
        let is_asked = |source: &&Source| {
            let is_riddles = source.name == "ruozhiba";
            let by_stage = match source.stage {
                Stage::Sft => self.all || self.sft,
                Stage::Storm => self.all || self.cot,
                Stage::Dpo => self.all || self.dpo,
            };
            let is_named = self.only.iter().any(|only| only.name == source.name);
            is_named || (by_stage && !is_riddles) || (self.ruozhiba && is_riddles)
        };
        SOURCES.iter().filter(is_asked).collect()
    }
}

fn source_named(name: &str) -> Result<&'static Source, String> {
    let names = SOURCES.map(|source| source.name).join(", ");
    let source = SOURCES.iter().find(|source| source.name == name);
    source.ok_or_else(|| format!("expected one of {names}"))
}

/// One line per file to stdout, what was dropped to stderr.
fn report(prepared: &Prepared) -> Result<()> {
    for file in &prepared.files {
        let PreparedFile {
            num_read,
            dropped,
            written,
            ..
        } = file;
        if dropped.total() > 0 {
            say!("  dropped: {dropped}");
        }
        print_file(written, &format!("of {num_read}"))?;
    }
    Ok(())
}

fn print_file(written: &Written, whole: &str) -> Result<()> {
    let (path, rows) = (written.path.display(), written.num_rows);
    writeln!(io::stdout(), "{path}: {rows} rows {whole}").or_else(unless_broken_pipe)?;
    Ok(())
}

fn infos(source: &Source, prepared: &Prepared, seed: u64) -> Vec<(Written, Info)> {
    let files = prepared.files.iter();
    files
        .map(|file| {
            let reasons = file.dropped.by_count().into_iter();
            let info = Info {
                source: source.name.to_owned(),
                repo: Some(source.repo.to_owned()),
                revision: prepared.revision.clone(),
                split: file.split.clone(),
                num_read: file.num_read,
                num_rows: file.written.num_rows,
                dropped: reasons
                    .map(|(reason, count)| (reason.to_owned(), count))
                    .collect(),
                seed,
                sha256: file.written.sha256.clone(),
            };
            (file.written.clone(), info)
        })
        .collect()
}

fn write_loyalty(args: &PrepareArgs) -> Result<()> {
    let num_read = loyalty_template(None, args.seed).len();
    let most = args.max_samples.map(NonZeroUsize::get);
    let rows = loyalty_template(most, args.seed);
    let mut writer = RowsWriter::create(&args.output_dir.join(format!("{LOYALTY}.jsonl")))?;
    for row in &rows {
        writer.push(row)?;
    }
    let written = writer.finish()?;
    print_file(&written, &format!("of {num_read}"))?;
    let info = Info {
        source: LOYALTY.to_owned(),
        repo: None,
        revision: None,
        split: "train".to_owned(),
        num_read,
        num_rows: written.num_rows,
        dropped: BTreeMap::new(),
        seed: args.seed,
        sha256: written.sha256.clone(),
    };
    note(args, vec![(written, info)])
}

/// Adds files to the folder's list of what they came from.
fn note(args: &PrepareArgs, infos: Vec<(Written, Info)>) -> Result<()> {
    let path = args.output_dir.join(INFO);
    let mut known = read_infos(&path)?;
    for (written, info) in infos {
        let name = written.path.file_name().unwrap_or_default();
        known.insert(name.to_string_lossy().into_owned(), info);
    }
    let text = serde_json::to_string_pretty(&known)? + "\n";
    let partial = path.with_extension("json.partial");
    fs::write(&partial, text).with_context(|| partial.display().to_string())?;
    fs::rename(&partial, &path).with_context(|| path.display().to_string())
}

fn read_infos(path: &Path) -> Result<BTreeMap<String, Info>> {
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| {
        format!(
            "{}: not a list of prepared files, expected one or no such file",
            path.display()
        )
    })
}
