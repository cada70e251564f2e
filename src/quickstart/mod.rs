//! The whole pipeline on the playground corpus: tokenizer, base model, chat model, adapters that give
//! it another name, preferences for right answers, exam. It calls the very functions that the stages call, with configs of the same
//! kind.

mod rename;
mod report;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use dataset::Message;
use dataset::playground::{ExamItem, Playground, PlaygroundConfig, Task};
use dataset::tokenizer_train::{SampleConfig, train_on_sources};
use eval::engine::Engine;
use serde_json::json;
use train::config::{DpoConfig, LoraSftConfig, PretrainConfig, SftConfig};
use train::run::{Outcome, RunOptions};
use train::run_folder::IfExists;

use crate::config::{parse_config, toml_path};
use crate::device::pick_device;
use crate::exam::{sit_exam, sit_second_turns};
use crate::interrupt::{INTERRUPTED, stop_on_signal};
use crate::tokenizer_stage::TokenizerConfig;
use crate::world_exam::sit_world_exam;

use rename::{renamed_exam, renamed_rows};
use report::{preferences, report};

const MODEL: &str = include_str!("../../configs/model/quickstart.json");
const TOKENIZER: &str = include_str!("../../configs/0-tokenizer.quickstart.toml");
const PRETRAIN: &str = include_str!("../../configs/1-pretrain.quickstart.toml");
const FULL_SFT: &str = include_str!("../../configs/3-full_sft.quickstart.toml");
const LORA_SFT: &str = include_str!("../../configs/4-lora_sft.quickstart.toml");

const DPO: &str = include_str!("../../configs/5-dpo.quickstart.toml");
/// The held-out questions, among the data.
const EXAM: &str = "exam.jsonl";

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

    fn overrides(self) -> &'static [&'static str] {
        match self {
            Self::Full => &[],
            Self::Tiny => &["train.length=4 steps", "schedule.warmup_steps=0"],
        }
    }
}

/// Builds the corpus, trains on it, examines the model and prints what it learned.
///
/// # Errors
///
/// A folder that cannot be written, or a stage that broke off.
pub fn run(args: &QuickstartArgs) -> Result<ExitCode> {
    let started = Instant::now();
    let stop = stop_on_signal()?;
    let device = pick_device(&args.device)?;
    let paths = Paths::new(&args.out)?;
    let options = |out_dir: &Path| RunOptions {
        out_dir: out_dir.to_owned(),
        if_exists: IfExists::Overwrite,
        examiner: None,
        device: device.clone(),
        stop: stop.clone(),
    };

    eprintln!("quickstart: building the playground corpus");
    let playground = Playground::generate(&args.budget.playground(args.seed));
    paths.write_corpus(&playground)?;
    eprintln!("quickstart: training a tokenizer");
    train_tokenizer(&paths)?;
    eprintln!("quickstart: pretraining");
    let config: PretrainConfig = paths.stage_config(PRETRAIN, "1-pretrain", args)?;
    let Outcome::Completed(base) = train::pretrain::run(&config, options(&paths.pretrain))? else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    eprintln!("quickstart: instruction tuning");
    let config: SftConfig = paths.stage_config(FULL_SFT, "3-full_sft", args)?;
    let Outcome::Completed(chat) = train::full_sft::run(&config, options(&paths.full_sft))? else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    eprintln!("quickstart: giving the model another name");
    let config: LoraSftConfig = paths.stage_config(LORA_SFT, "4-lora_sft", args)?;
    let Outcome::Completed(renamed) = train::lora_sft::run(&config, options(&paths.lora_sft))?
    else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    eprintln!("quickstart: preferring right answers to wrong ones");
    let config: DpoConfig = paths.stage_config(DPO, "5-dpo", args)?;
    let Outcome::Completed(preferring) = train::dpo::run(&config, options(&paths.dpo))? else {
        return Ok(ExitCode::from(INTERRUPTED));
    };
    eprintln!("quickstart: examining the models");
    let engine = Engine::load(&chat.final_dir, &device)?;
    let is_sum = |item: &&ExamItem| item.task == Task::Sum;
    let sums: Vec<ExamItem> = playground.exam.iter().filter(is_sum).cloned().collect();
    let renamed_engine = Engine::load(&renamed.final_dir, &device)?;
    let exams = [
        ("held out", sit_exam(&engine, &playground.exam)?),
        ("2nd turn", sit_second_turns(&engine, &sums)?),
        (
            "renamed",
            sit_exam(&renamed_engine, &renamed_exam(&playground))?,
        ),
        (
            "preferring",
            sit_exam(&Engine::load(&preferring.final_dir, &device)?, &sums)?,
        ),
    ];
    let stages = [
        ("1-pretrain", &base),
        ("3-full_sft", &chat),
        ("4-lora_sft", &renamed),
        ("5-dpo", &preferring),
    ];
    let num_params = engine.model.config().num_params();
    let report = report(num_params, &stages, &exams, started.elapsed());
    let world = sit_world_exam(&engine, &args.out.join("world_exam"), args.seed)?;
    let preferences = preferences(&preferring);
    let report = format!("{report}\n{preferences}\n{world}");
    print!("{report}");
    println!(
        "\ntalk to it:  kindling chat --model {}",
        chat.final_dir.display()
    );
    let answers = exams.iter().flat_map(|(name, scores)| {
        let answers = scores.iter().flat_map(|score| &score.answers);
        answers.map(move |answer| {
            let mut line = json!(answer);
            line["exam"] = json!(name);
            line
        })
    });
    paths.write_lines("exam_answers.jsonl", answers)?;
    let path = args.out.join("report.txt");
    fs::write(&path, report).with_context(|| path.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// Where a quickstart keeps its parts.
struct Paths {
    data: PathBuf,
    tokenizer: PathBuf,
    pretrain: PathBuf,
    full_sft: PathBuf,
    lora_sft: PathBuf,
    dpo: PathBuf,
}

impl Paths {
    /// The parts of a folder that is new, or that a quickstart has left.
    fn new(out: &Path) -> Result<Self> {
        let paths = Self {
            data: out.join("data"),
            tokenizer: out.join("0-tokenizer"),
            pretrain: out.join("1-pretrain"),
            full_sft: out.join("3-full_sft"),
            lora_sft: out.join("4-lora_sft"),
            dpo: out.join("5-dpo"),
        };
        let Self { data, .. } = &paths;
        let stages = [
            &paths.tokenizer,
            &paths.pretrain,
            &paths.full_sft,
            &paths.lora_sft,
            &paths.dpo,
        ];
        if !data.join(EXAM).exists()
            && let Some(stage) = stages.into_iter().find(|stage| stage.exists())
        {
            bail!(
                "{} is of no quickstart and would be replaced, expected another --out",
                stage.display()
            );
        }
        fs::create_dir_all(data).with_context(|| data.display().to_string())?;
        Ok(paths)
    }

    fn write_corpus(&self, playground: &Playground) -> Result<()> {
        // First: it is what tells a quickstart's folder from others.
        let exam = playground.exam.iter().map(|item| json!(item));
        self.write_lines(EXAM, exam)?;
        let documents = playground
            .documents
            .iter()
            .map(|text| json!({ "text": text }));
        self.write_lines("documents.jsonl", documents)?;
        let rows = playground
            .rows
            .iter()
            .map(|row| json!({ "conversations": row }));
        self.write_lines("conversations.jsonl", rows)?;
        let renamed = renamed_rows(&playground.rows);
        let renamed = renamed.iter().map(|row| json!({ "conversations": row }));
        self.write_lines("renamed.jsonl", renamed)?;
        let turns = playground
            .rows
            .iter()
            .map(|row| json!({ "text": plain_turns(row) }));
        self.write_lines("turns.jsonl", turns)?;
        let pairs = playground.pairs.iter().map(|pair| json!(pair));
        self.write_lines("pairs.jsonl", pairs)?;
        self.write("model.json", MODEL)
    }

    fn write_lines(
        &self,
        name: &str,
        lines: impl Iterator<Item = serde_json::Value>,
    ) -> Result<()> {
        let mut text = String::new();
        for line in lines {
            let _ = writeln!(text, "{line}");
        }
        self.write(name, &text)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.data.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    /// A stage's config with this quickstart's folders, seed and budget put in.
    fn stage_config<C: serde::de::DeserializeOwned>(
        &self,
        text: &str,
        stage: &str,
        args: &QuickstartArgs,
    ) -> Result<C> {
        let mut overrides = vec![
            format!("tokenizer.path={}", toml_path(&self.tokenizer)),
            format!("train.seed={}", args.seed),
        ];
        if stage == "1-pretrain" {
            let documents = toml_path(&self.data.join("documents.jsonl"));
            let cache = self.pretrain.with_file_name("cache");
            overrides.push(format!(
                "model.config={}",
                toml_path(&self.data.join("model.json"))
            ));
            overrides.push(format!("data.sources=[{{ path = {documents} }}]"));
            overrides.push(format!("data.cache_dir={}", toml_path(&cache)));
        } else {
            if stage == "5-dpo" {
                let cache = self.pretrain.with_file_name("cache");
                overrides.push(format!("dpo.cache_dir={}", toml_path(&cache)));
            }
            let (from, file) = match stage {
                "3-full_sft" => (&self.pretrain, "conversations.jsonl"),
                "4-lora_sft" => (&self.full_sft, "renamed.jsonl"),
                _ => (&self.full_sft, "pairs.jsonl"),
            };
            let conversations = toml_path(&self.data.join(file));
            overrides.push(format!("model.from={}", toml_path(&from.join("final"))));
            overrides.push(format!("data.files=[{conversations}]"));
        }
        overrides.extend(
            args.budget
                .overrides()
                .iter()
                .map(|&setting| setting.to_owned()),
        );
        parse_config(text, &format!("{stage}.quickstart.toml"), &overrides)
    }
}

/// A conversation as plain text: the tokenizer learns the words of the chat template from it.
fn plain_turns(row: &[Message]) -> String {
    let mut text = String::new();
    for turn in row {
        let _ = writeln!(text, "{}\n{}", turn.role, turn.content);
    }
    text
}

fn train_tokenizer(paths: &Paths) -> Result<()> {
    let documents = toml_path(&paths.data.join("documents.jsonl"));
    let turns = toml_path(&paths.data.join("turns.jsonl"));
    let overrides = [format!(
        "sources=[{{ path = {documents} }}, {{ path = {turns} }}]"
    )];
    let config: TokenizerConfig =
        parse_config(TOKENIZER, "0-tokenizer.quickstart.toml", &overrides)?;
    let sample = SampleConfig {
        max_train_bytes: config.max_train_bytes,
        seed: config.seed,
    };
    let trained = train_on_sources(&config.trainer(), &config.sources, &sample)?;
    trained.tokenizer.save(&paths.tokenizer)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `--out out` must not cost anyone a run of weeks; a quickstart that broke off early is known.
    #[test]
    fn runs_of_others_are_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        let paths = Paths::new(out).unwrap();
        fs::create_dir(out.join("1-pretrain")).unwrap();
        assert_eq!(
            Paths::new(out).err().unwrap().to_string(),
            format!(
                "{} is of no quickstart and would be replaced, expected another --out",
                out.join("1-pretrain").display()
            )
        );

        // Nothing but the first file can be written.
        for name in ["documents.jsonl", "conversations.jsonl", "model.json"] {
            fs::create_dir(out.join("data").join(name)).unwrap();
        }
        let playground = Playground::generate(&Budget::Tiny.playground(42));
        assert!(paths.write_corpus(&playground).is_err());
        assert!(Paths::new(out).is_ok());
    }
}
