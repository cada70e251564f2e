//! Exams from the command line: read and check the files, ask, write the results down.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use dataset::journal::Journal;
use eval::exam::files::write_results;
use eval::exam::folder::{Exam, ExamKind, Split, read_exam};
use eval::exam::prompt::Style;
use eval::exam::sit::{Reply, SitConfig, sit, whole_groups};
use eval::exam::summary::ExamSummary;
use eval::fingerprint::{data_fingerprint, model_fingerprint};
use serde_json::{Value, json};

use super::{GOES_ON, ModelArgs, interrupted, progress_bar};
use crate::interrupt::stop_on_signal;
use crate::stdout::out;

/// Tokens of a written answer where reasoning is asked for and no number is given.
const COT_TOKENS: usize = 256;

/// Longest list of subjects that a folder's name spells out: names may have 255 bytes.
const MAX_NAME_BYTES: usize = 80;

/// Which exam, and how it is sat.
#[derive(Debug, Clone, Args)]
pub(super) struct ExamArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Folder of the exam, with dev/, val/ or test/ in it
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Part of the exam [default: val for C-Eval and for a folder with val/ and no test/, else test]
    #[arg(long, value_enum)]
    split: Option<SplitChoice>,
    /// Solved questions of dev that every prompt shows first
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=5))]
    shots: u8,
    /// Only these subjects
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    subjects: Vec<String>,
    /// Whose prompts: MiniMind's or plain ones in the chat template, lm-eval's without it, or ones
    /// that ask for reasoning
    #[arg(long, value_enum, default_value_t = StyleChoice::Minimind)]
    style: StyleChoice,
    /// Ask four times, with every option once under every letter
    #[arg(long)]
    permute: bool,
    /// Score the options' own texts, too, as answers to the question without options
    #[arg(long)]
    options: bool,
    /// Let the model write up to N tokens and read the letter out of them, too [default: 256 with
    /// --style cot, else none]
    #[arg(long, value_name = "N")]
    generate: Option<usize>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SplitChoice {
    Dev,
    Val,
    Test,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StyleChoice {
    Minimind,
    Chat,
    Harness,
    Cot,
}

impl ExamArgs {
    fn split(&self, kind: ExamKind) -> Split {
        match (self.split, kind) {
            (Some(SplitChoice::Dev), _) => Split::Dev,
            (Some(SplitChoice::Val), _) | (None, ExamKind::Ceval) => Split::Val,
            (None, ExamKind::Folder) if self.has_only_val() => Split::Val,
            (Some(SplitChoice::Test) | None, _) => Split::Test,
        }
    }

    fn has_only_val(&self) -> bool {
        self.data.join("val").is_dir() && !self.data.join("test").is_dir()
    }

    fn sit_config(&self) -> SitConfig {
        let (style, most) = match self.style {
            StyleChoice::Minimind => (Style::Minimind, 0),
            StyleChoice::Chat => (Style::Chat, 0),
            StyleChoice::Harness => (Style::Harness, 0),
            StyleChoice::Cot => (Style::Cot, COT_TOKENS),
        };
        SitConfig {
            style,
            num_shots: self.shots.into(),
            permute: self.permute,
            options: self.options,
            max_written_tokens: self.generate.unwrap_or(most),
        }
    }
}

/// Sits an exam, or the rest of one that was stopped.
pub(super) fn run(kind: ExamKind, args: &ExamArgs) -> Result<ExitCode> {
    let split = args.split(kind);
    ensure!(
        split != Split::Dev || args.shots == 0,
        "--shots {}: prompts would show the questions of --split dev with their answers, expected \
         another split or --shots 0",
        args.shots
    );
    let exam = read_exam(kind, &args.data, split, &args.subjects)?;
    let config = args.sit_config();
    let engine = args.model.load()?;
    let settings = settings(&exam, &config, args)?;
    let out = args.model.out_dir(&folder_name(&exam, &config, args))?;
    let mut journal: Journal<Reply> =
        Journal::open(&out.join("answers.jsonl"), &settings, |num_replies| {
            whole_groups(&exam, num_replies)
        })?;
    let stop = stop_on_signal()?;
    let bar = progress_bar(&exam.name, exam.num_questions(), journal.records().len());
    let is_complete = sit(&engine, &exam, &config, &mut journal, &stop, |done| {
        bar.set_position(done as u64);
    })?;
    if !is_complete {
        return Ok(interrupted(&bar, GOES_ON));
    }
    bar.finish_and_clear();
    let mut shown = json!({ "model": args.model.model.display().to_string() });
    if let (Value::Object(shown), Value::Object(settings)) = (&mut shown, settings) {
        shown.extend(settings);
    }
    let summary = ExamSummary::new(&exam, journal.records(), shown);
    write_results(&out, &exam, journal.records(), &summary)?;
    print(&summary)?;
    out!("results: {}", out.join("card.md").display())?;
    Ok(ExitCode::SUCCESS)
}

/// Everything that the replies depend on.
fn settings(exam: &Exam, config: &SitConfig, args: &ExamArgs) -> Result<Value> {
    let mut settings = json!({
        "kindling": env!("CARGO_PKG_VERSION"),
        "exam": exam.name,
        "split": exam.split,
        "style": config.style,
        "shots": config.num_shots,
        "permute": config.permute,
        "options": config.options,
        "max_written_tokens": config.max_written_tokens,
        "model_fingerprint": model_fingerprint(&args.model.model)?,
        "data_fingerprint": data_fingerprint(&exam.subjects),
    });
    if !args.subjects.is_empty() {
        settings["subjects"] = json!(args.subjects);
    }
    Ok(settings)
}

/// Name of the folder, from everything on the command line that the replies depend on.
fn folder_name(exam: &Exam, config: &SitConfig, args: &ExamArgs) -> String {
    let exam_name = exam.name.to_lowercase().replace('-', "");
    let mut name = format!("{exam_name}-{}-{}", exam.split.name(), config.style);
    if config.num_shots > 0 {
        let _ = write!(name, "-{}shot", config.num_shots);
    }
    if config.permute {
        name += "-permuted";
    }
    if config.options {
        name += "-options";
    }
    if let Some(most) = args.generate {
        let _ = write!(name, "-generate{most}");
    }
    let subjects = args.subjects.join("-");
    if subjects.len() > MAX_NAME_BYTES {
        let _ = write!(name, "-{}", data_fingerprint(&args.subjects));
    } else if !subjects.is_empty() {
        let _ = write!(name, "-{subjects}");
    }
    name
}

fn print(summary: &ExamSummary) -> Result<()> {
    out!(
        "{} {}: {} questions",
        summary.exam,
        summary.split,
        summary.num_questions
    )?;
    for score in &summary.methods {
        let title = score.method.title();
        if summary.num_with_answer > 0 {
            out!("{title:<32} {}", score.verdict.join(" "))?;
        } else {
            out!("{title:<32} A B C D chosen {:?} times", score.chosen)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        exam: ExamArgs,
    }

    fn args_of(data: &Path, flags: &[&str]) -> ExamArgs {
        let words = ["exam", "--model", "m", "--data", data.to_str().unwrap()];
        Cli::try_parse_from(words.iter().chain(flags)).unwrap().exam
    }

    fn name_of(flags: &[&str]) -> String {
        let exam = Exam {
            name: "C-Eval".to_owned(),
            kind: ExamKind::Ceval,
            split: Split::Val,
            subjects: Vec::new(),
        };
        let args = args_of(Path::new("ceval"), flags);
        folder_name(&exam, &args.sit_config(), &args)
    }

    /// Whatever the journal compares has a folder of its own; 60 names are longer than a folder's.
    #[test]
    fn different_settings_go_into_different_folders() {
        assert_eq!(name_of(&[]), "ceval-val-minimind");
        let flags = ["--permute", "--options", "--generate", "8", "--shots", "2"];
        assert_eq!(
            name_of(&flags),
            "ceval-val-minimind-2shot-permuted-options-generate8"
        );
        assert_eq!(
            name_of(&["--subjects", "law,logic"]),
            "ceval-val-minimind-law-logic"
        );
        let many = |last: &str| {
            let subjects: Vec<String> = (0..60).map(|n| format!("subject_{n}")).collect();
            name_of(&["--subjects", &format!("{},{last}", subjects.join(","))])
        };
        assert_ne!(many("law"), many("logic"));
        assert_eq!(many("law").len(), "ceval-val-minimind-".len() + 16);
    }

    /// The folder that the quickstart leaves has dev/ and val/.
    #[test]
    fn a_folder_without_a_test_split_is_asked_its_val_split() {
        let dir = tempfile::tempdir().unwrap();
        let splits = || {
            let args = args_of(dir.path(), &[]);
            [ExamKind::Folder, ExamKind::Cmmlu].map(|kind| args.split(kind))
        };
        assert_eq!(splits(), [Split::Test, Split::Test]);
        std::fs::create_dir(dir.path().join("val")).unwrap();
        assert_eq!(splits(), [Split::Val, Split::Test]);
        std::fs::create_dir(dir.path().join("test")).unwrap();
        assert_eq!(splits(), [Split::Test, Split::Test]);
    }

    /// Each prompt would show the answer that it asks for.
    #[test]
    fn solved_questions_are_not_shown_to_themselves() {
        let args = args_of(Path::new("nowhere"), &["--split", "dev", "--shots", "2"]);
        assert_eq!(
            run(ExamKind::Folder, &args).unwrap_err().to_string(),
            "--shots 2: prompts would show the questions of --split dev with their answers, \
             expected another split or --shots 0"
        );
    }
}
