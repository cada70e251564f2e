//! The whole pipeline on the playground corpus: tokenizer, base model, chat model, adapters that give
//! it another name, preferences for right answers, rewards for them, exams.

mod corpus;
mod rename;
mod report;
mod stages;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use dataset::playground::{ExamItem, Playground, PlaygroundConfig, Practice, Task};
use dataset::say;
use eval::engine::Engine;
use serde_json::json;
use train::run::RunSummary;

use crate::device::pick_device;
use crate::exam::{Score, sit_exam, sit_second_turns};
use crate::interrupt::{INTERRUPTED, stop_on_signal};
use crate::stdout::{self, out};
use crate::world_exam::sit_world_exam;

use corpus::Corpus;
use rename::renamed_exam;
use report::{preferences, report};
use stages::{Interrupted, Stages, Trained};

/// The command line of the quickstart.
#[derive(Debug, Clone, Args)]
pub struct QuickstartArgs {
    /// Folder for everything it leaves; an earlier quickstart in it is replaced, other runs are not
    #[arg(long, value_name = "DIR", default_value = "out/quickstart")]
    pub out: PathBuf,
    /// How much to train
    #[arg(long, value_enum, default_value_t = Budget::Full)]
    pub budget: Budget,
    /// Where to run: auto, cpu, cuda:N or wgpu:N
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Decides the corpus, the first weights and the order of the data
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
}

/// How much a quickstart trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Budget {
    /// Minutes: the model learns
    Full,
    /// Seconds: every step runs once, nothing is learned
    Tiny,
}

impl Budget {
    fn playground(self, seed: u64) -> PlaygroundConfig {
        let full = PlaygroundConfig {
            seed,
            ..PlaygroundConfig::default()
        };
        match self {
            Self::Full => full,
            Self::Tiny => PlaygroundConfig {
                num_documents: 400,
                num_rows: 200,
                num_pairs: 40,
                num_exam_items: 2,
                ..full
            },
        }
    }

    /// Sums to answer for rewards.
    fn num_practised(self) -> usize {
        match self {
            Self::Full => 4_000,
            Self::Tiny => 40,
        }
    }

    fn overrides(self) -> &'static [&'static str] {
        match self {
            Self::Full => &[],
            Self::Tiny => &["train.length=4 steps", "schedule.warmup_steps=0"],
        }
    }
}

/// Builds the corpus, trains on it, examines the models and prints what they learned.
///
/// # Errors
///
/// A folder that cannot be written, or a stage that broke off.
pub fn run(args: &QuickstartArgs) -> Result<ExitCode> {
    let started = Instant::now();
    let stop = stop_on_signal()?;
    let device = pick_device(&args.device)?;
    stages::claim(&args.out)?;
    say!("quickstart: building the playground corpus");
    let config = args.budget.playground(args.seed);
    let corpus = Corpus {
        playground: Playground::generate(&config),
        sums: Practice::generate(
            args.seed,
            Task::Sum,
            args.budget.num_practised(),
            config.num_exam_items,
        ),
    };
    corpus.write(&args.out)?;
    let stages = Stages {
        args,
        device: device.clone(),
        stop,
    };
    let trained = match stages.train() {
        Err(error) if error.is::<Interrupted>() => return Ok(ExitCode::from(INTERRUPTED)),
        trained => trained?,
    };
    say!("quickstart: examining the models");
    let engine = Engine::load(&trained.chat.final_dir, &device)?;
    let exams = sit_exams(&engine, &trained, &corpus.playground, &device)?;
    let num_params = engine.model.config().num_params();
    let report = report(num_params, &trained.stages(), &exams, started.elapsed());
    let world = sit_world_exam(&engine, &args.out.join("world_exam"), args.seed)?;
    let preferences = preferences(&trained.preferring);
    let report = format!("{report}\n{preferences}\n{world}");
    stdout::print(format_args!("{report}"))?;
    out!(
        "\ntalk to it:  kindling chat --model {}",
        trained.chat.final_dir.display()
    )?;
    write_answers(args, &exams)?;
    let path = args.out.join("report.txt");
    fs::write(&path, report).with_context(|| path.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// Every exam of every model, by the names that they have in the report.
fn sit_exams(
    engine: &Engine,
    trained: &Trained,
    playground: &Playground,
    device: &Device,
) -> Result<[(&'static str, Vec<Score>); 5]> {
    let is_sum = |item: &&ExamItem| item.task == Task::Sum;
    let sums: Vec<ExamItem> = playground.exam.iter().filter(is_sum).cloned().collect();
    let sit = |summary: &RunSummary, items: &[ExamItem]| {
        let engine = Engine::load(&summary.final_dir, device)?;
        anyhow::Ok(sit_exam(&engine, items)?)
    };
    Ok([
        ("held out", sit_exam(engine, &playground.exam)?),
        ("2nd turn", sit_second_turns(engine, &sums)?),
        ("renamed", sit(&trained.renamed, &renamed_exam(playground))?),
        ("preferring", sit(&trained.preferring, &sums)?),
        ("rewarded", sit(&trained.rewarded, &sums)?),
    ])
}

fn write_answers(args: &QuickstartArgs, exams: &[(&str, Vec<Score>)]) -> Result<()> {
    let answers = exams.iter().flat_map(|(name, scores)| {
        let answers = scores.iter().flat_map(|score| &score.answers);
        answers.map(move |answer| {
            let mut line = json!(answer);
            line["exam"] = json!(name);
            line
        })
    });
    corpus::write_lines(&args.out.join("data/exam_answers.jsonl"), answers)
}
