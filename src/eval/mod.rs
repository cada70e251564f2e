//! `kindling eval`: scores of finished models, with their uncertainty.

mod exact_match;
mod exam;
mod health;
mod perplexity;
mod preference;
mod report;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use dataset::say;
use eval::engine::Engine;
use eval::exam::folder::ExamKind;
use indicatif::{ProgressBar, ProgressStyle};

use crate::device::pick_device;
use crate::engine::load_folder;
use crate::interrupt::INTERRUPTED;

/// The command line of the evaluations.
#[derive(Debug, Clone, Args)]
pub struct EvalArgs {
    #[command(subcommand)]
    command: EvalCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum EvalCommand {
    /// C-Eval: 52 subjects in Chinese, checked against the published files
    Ceval(exam::ExamArgs),
    /// CMMLU: 67 subjects in Chinese
    Cmmlu(exam::ExamArgs),
    /// Any folder of CSV files shaped like C-Eval's, CMMLU's or MMLU's
    Choices(exam::ExamArgs),
    /// Perplexity and bits per byte of text, per source
    Perplexity(perplexity::PerplexityArgs),
    /// Exact answers to questions with short ones, and pass@k
    ExactMatch(exact_match::ExactMatchArgs),
    /// How often the better of two answers is the likelier one
    Preference(preference::PreferenceArgs),
    /// Variety, repetition, endings and language of what the model writes
    Health(health::HealthArgs),
    /// A page about a run, or several side by side: curves, samples, exams
    Report(report::ReportArgs),
}

/// An evaluation within a recipe, as a command line of its own.
#[derive(Debug, Parser)]
#[command(name = "kindling eval")]
struct EvalLine {
    #[command(flatten)]
    args: EvalArgs,
}

impl EvalArgs {
    /// The evaluation that a recipe's words ask for, of this model, into this folder.
    ///
    /// # Errors
    ///
    /// Words that `kindling eval` does not know.
    pub fn of_pipeline(words: &[String], model: &Path, out: &Path, device: &str) -> Result<Self> {
        let (command, rest) = words.split_first().context("args is empty")?;
        let mut line = vec![OsString::from("kindling eval"), command.into()];
        line.extend([
            OsString::from("--model"),
            model.into(),
            "--out".into(),
            out.into(),
        ]);
        line.extend([OsString::from("--device"), device.into()]);
        line.extend(rest.iter().map(OsString::from));
        Ok(EvalLine::try_parse_from(line)?.args)
    }
}

/// Which model is scored, where, and where the results go.
#[derive(Debug, Clone, Args)]
struct ModelArgs {
    /// Folder of the model: a run's final/ or any Hugging Face folder
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Folder for the results [default: eval/ in the model's run, else in out/, and a name made
    /// of the settings]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Begin again where the folder holds results; else an evaluation goes on where it was stopped
    #[arg(long)]
    overwrite: bool,
    /// Where to run: auto, cpu, cuda:N or wgpu:N
    #[arg(long, default_value = "auto")]
    device: String,
}

/// Names of everything that evaluations leave in their folders.
const RESULTS: [&str; 12] = [
    "answers.jsonl",
    "answers.jsonl.tmp",
    "groups.jsonl",
    "groups.jsonl.tmp",
    "summary.json",
    "card.md",
    "submission.json",
    "results",
    "perplexity.json",
    "exact_match.json",
    "preference.json",
    "health.json",
];

/// What the same command does after an evaluation was stopped: its replies are on the disk.
const GOES_ON: &str = "goes on";
/// The same for an evaluation that keeps nothing before its end.
const BEGINS_AGAIN: &str = "begins again";

/// Scores a model as the command line says.
///
/// # Errors
///
/// A model, data or a folder that cannot be used.
pub fn run(args: &EvalArgs) -> Result<ExitCode> {
    match &args.command {
        EvalCommand::Ceval(args) => exam::run(ExamKind::Ceval, args),
        EvalCommand::Cmmlu(args) => exam::run(ExamKind::Cmmlu, args),
        EvalCommand::Choices(args) => exam::run(ExamKind::Folder, args),
        EvalCommand::Perplexity(args) => perplexity::run(args),
        EvalCommand::ExactMatch(args) => exact_match::run(args),
        EvalCommand::Preference(args) => preference::run(args),
        EvalCommand::Health(args) => health::run(args),
        EvalCommand::Report(args) => report::run(args),
    }
}

impl ModelArgs {
    fn load(&self) -> Result<Engine> {
        load_folder(&self.model, &pick_device(&self.device)?)
    }

    /// The folder for results that are called `name`, made and, if asked for, rid of earlier ones.
    fn out_dir(&self, name: &str) -> Result<PathBuf> {
        let out = self
            .out
            .clone()
            .unwrap_or_else(|| results_of(&self.model).join(name));
        if self.overwrite {
            remove_results(&out)?;
        }
        std::fs::create_dir_all(&out)
            .with_context(|| format!("{}: cannot be made", out.display()))?;
        Ok(out)
    }
}

/// Removes what evaluations have left in a folder, and nothing else: `--out` may name any.
fn remove_results(out: &Path) -> Result<()> {
    for name in RESULTS {
        let path = out.join(name);
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else if path.exists() {
            std::fs::remove_file(&path)
        } else {
            Ok(())
        };
        removed.with_context(|| format!("{}: cannot be removed", path.display()))?;
    }
    Ok(())
}

/// Where a model's results are kept: in its run's folder, where a report finds them.
fn results_of(model: &Path) -> PathBuf {
    match model.parent() {
        Some(run) if run.join("metrics.jsonl").exists() => run.join("eval"),
        _ => Path::new("out/eval").join(model.file_name().unwrap_or_default()),
    }
}

/// A bar on stderr over this many steps, of which some are done already.
fn progress_bar(what: &str, total: usize, done: usize) -> ProgressBar {
    let template = "{msg} {wide_bar} {pos}/{len} ({eta} left)";
    let style = ProgressStyle::with_template(template).expect("the template is fixed and parses");
    let bar = ProgressBar::new(total as u64).with_style(style);
    bar.set_message(what.to_owned());
    bar.set_position(done as u64);
    bar.reset_eta();
    bar
}

/// Says how far an evaluation came that was stopped, and what the same command does next.
fn interrupted(bar: &ProgressBar, next: &str) -> ExitCode {
    bar.abandon();
    let (done, all) = (bar.position(), bar.length().unwrap_or(0));
    say!("stopped at {done} of {all}; the same command {next}");
    ExitCode::from(INTERRUPTED)
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let text =
        serde_json::to_string_pretty(value).context("the results cannot be written as JSON")?;
    std::fs::write(path, text + "\n")
        .with_context(|| format!("{}: cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Overwriting removes results and nothing else: `--out` may name any folder.
    #[test]
    fn overwriting_leaves_foreign_files_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        for name in ["answers.jsonl", "card.md", "health.json", "thesis.tex"] {
            std::fs::write(path.join(name), "x").unwrap();
        }
        for name in ["results", "photos"] {
            std::fs::create_dir(path.join(name)).unwrap();
        }
        std::fs::write(path.join("results/law_val_result.csv"), "x").unwrap();
        let args = |overwrite: bool| ModelArgs {
            model: PathBuf::new(),
            out: Some(path.to_owned()),
            overwrite,
            device: "cpu".to_owned(),
        };
        let names = || {
            let entries = std::fs::read_dir(path).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        };
        args(false).out_dir("unused").unwrap();
        assert_eq!(names().len(), 6);
        args(true).out_dir("unused").unwrap();
        assert_eq!(names(), ["photos", "thesis.tex"]);
    }
}
