//! The stages, by the very functions that their commands call, with the configs that are shipped.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use dataset::say;
use dataset::tokenizer_train::{SampleConfig, train_on_sources};
use serde::de::DeserializeOwned;
use thiserror::Error;
use toml::Value;
use train::run::{Outcome, RunOptions, RunSummary, TrainError};
use train::run_folder::IfExists;
use train::{dpo, full_sft, grpo, lora_sft, pretrain};

use super::QuickstartArgs;
use super::corpus::EXAM;
use crate::config::{parse_config, toml_path};
use crate::tokenizer_stage::TokenizerConfig;

const TOKENIZER: &str = include_str!("../../configs/0-tokenizer.quickstart.toml");
const PRETRAIN: &str = include_str!("../../configs/1-pretrain.quickstart.toml");
const FULL_SFT: &str = include_str!("../../configs/3-full_sft.quickstart.toml");
const LORA_SFT: &str = include_str!("../../configs/4-lora_sft.quickstart.toml");
const DPO: &str = include_str!("../../configs/5-dpo.quickstart.toml");
const GRPO: &str = include_str!("../../configs/6-grpo.quickstart.toml");

/// Folder of a quickstart in these configs; another takes its place.
const FOLDER: &str = "out/quickstart/";

/// Folders that a quickstart replaces.
const REPLACED: [&str; 6] = [
    "0-tokenizer",
    "1-pretrain",
    "3-full_sft",
    "4-lora_sft",
    "5-dpo",
    "6-grpo",
];

/// A stage was stopped, and saved where it was.
#[derive(Debug, Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// What the stages left, in their order.
pub(super) struct Trained {
    pub(super) base: RunSummary,
    pub(super) chat: RunSummary,
    pub(super) renamed: RunSummary,
    pub(super) preferring: RunSummary,
    pub(super) rewarded: RunSummary,
}

impl Trained {
    /// Every stage by its name.
    pub(super) fn stages(&self) -> [(&'static str, &RunSummary); 5] {
        [
            ("1-pretrain", &self.base),
            ("3-full_sft", &self.chat),
            ("4-lora_sft", &self.renamed),
            ("5-dpo", &self.preferring),
            ("6-grpo", &self.rewarded),
        ]
    }
}

/// Makes a folder that is new, or that a quickstart has left, ready.
///
/// # Errors
///
/// A folder with other runs in it, or one that cannot be made.
pub(super) fn claim(out: &Path) -> Result<()> {
    let mut stages = REPLACED.iter().map(|stage| out.join(stage));
    if !out.join(EXAM).exists()
        && let Some(stage) = stages.find(|stage| stage.exists())
    {
        bail!(
            "{} is of no quickstart and would be replaced, expected another --out",
            stage.display()
        );
    }
    let data = out.join("data");
    fs::create_dir_all(&data).with_context(|| data.display().to_string())
}

/// Runs the stages.
pub(super) struct Stages<'a> {
    pub(super) args: &'a QuickstartArgs,
    pub(super) device: Device,
    pub(super) stop: Arc<AtomicBool>,
}

impl Stages<'_> {
    /// All of them.
    ///
    /// # Errors
    ///
    /// A stage that broke off; [`Interrupted`] if it was stopped.
    pub(super) fn train(&self) -> Result<Trained> {
        say!("quickstart: training a tokenizer");
        self.train_tokenizer()?;
        Ok(Trained {
            base: self.stage("1-pretrain", "pretraining", PRETRAIN, pretrain::run)?,
            chat: self.stage("3-full_sft", "instruction tuning", FULL_SFT, full_sft::run)?,
            renamed: self.stage(
                "4-lora_sft",
                "giving the model another name",
                LORA_SFT,
                lora_sft::run,
            )?,
            preferring: self.stage(
                "5-dpo",
                "preferring right answers to wrong ones",
                DPO,
                dpo::run,
            )?,
            rewarded: self.stage("6-grpo", "rewarding right sums", GRPO, grpo::run)?,
        })
    }

    fn train_tokenizer(&self) -> Result<()> {
        let config: TokenizerConfig = self.config("0-tokenizer", TOKENIZER, &[])?;
        let sample = SampleConfig {
            max_train_bytes: config.max_train_bytes,
            seed: config.seed,
        };
        let trained = train_on_sources(&config.trainer(), &config.sources, &sample)?;
        trained.tokenizer.save(&self.args.out.join("0-tokenizer"))?;
        Ok(())
    }

    fn stage<C: DeserializeOwned>(
        &self,
        name: &str,
        doing: &str,
        config: &str,
        run: impl FnOnce(&C, RunOptions) -> Result<Outcome, TrainError>,
    ) -> Result<RunSummary> {
        say!("quickstart: {doing}");
        let mut overrides = vec![format!("train.seed={}", self.args.seed)];
        let of_budget = self.args.budget.overrides();
        overrides.extend(of_budget.iter().map(|&setting| setting.to_owned()));
        let config = self.config(name, config, &overrides)?;
        let options = RunOptions {
            out_dir: self.args.out.join(name),
            if_exists: IfExists::Overwrite,
            examiner: None,
            device: self.device.clone(),
            other_devices: Vec::new(),
            stop: Arc::clone(&self.stop),
        };
        match run(&config, options)? {
            Outcome::Completed(summary) => Ok(summary),
            Outcome::NotBegun | Outcome::Interrupted { .. } => Err(Interrupted.into()),
        }
    }

    /// A shipped config, its paths within this quickstart's folder.
    fn config<C: DeserializeOwned>(
        &self,
        stage: &str,
        text: &str,
        overrides: &[String],
    ) -> Result<C> {
        let mut config = Value::Table(text.parse()?);
        self.relocate(&mut config);
        let text = toml::to_string(&config)?;
        parse_config(&text, &format!("{stage}.quickstart.toml"), overrides)
    }

    fn relocate(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(rest) = text.strip_prefix(FOLDER) {
                    *value = toml_path(&self.args.out.join(rest));
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.relocate(value)),
            Value::Table(table) => table.iter_mut().for_each(|(_, value)| self.relocate(value)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use dataset::playground::{Playground, Practice, Task};
    use toml::Table;

    use super::super::Budget;
    use super::super::corpus::Corpus;
    use super::*;

    /// `--out out` must not cost anyone a run of weeks; a quickstart that broke off early is known.
    #[test]
    fn runs_of_others_are_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        claim(out).unwrap();
        fs::create_dir(out.join("1-pretrain")).unwrap();
        assert_eq!(
            claim(out).unwrap_err().to_string(),
            format!(
                "{} is of no quickstart and would be replaced, expected another --out",
                out.join("1-pretrain").display()
            )
        );

        // Nothing but the first file can be written.
        for name in ["documents.jsonl", "conversations.jsonl", "model.json"] {
            fs::create_dir(out.join("data").join(name)).unwrap();
        }
        let corpus = Corpus {
            playground: Playground::generate(&Budget::Tiny.playground(42)),
            sums: Practice::generate(42, Task::Sum, 1, 1),
        };
        assert!(corpus.write(out).is_err());
        claim(out).unwrap();
    }

    /// Of the shipped configs nothing is left that points to the default folder.
    #[test]
    fn every_path_follows_the_folder() {
        let args = QuickstartArgs {
            out: "else where/\"q\"".into(),
            budget: Budget::Tiny,
            device: "cpu".to_owned(),
            seed: 42,
        };
        let stages = Stages {
            args: &args,
            device: Device::flex(),
            stop: Arc::default(),
        };
        for text in [TOKENIZER, PRETRAIN, FULL_SFT, LORA_SFT, DPO, GRPO] {
            let moved: Table = stages.config("", text, &[]).unwrap();
            let shipped: Table = text.parse().unwrap();
            assert_ne!(moved, shipped);
            assert!(!moved.to_string().contains("out/"), "{moved}");
        }
        let config: train::config::DpoConfig = stages.config("5-dpo", DPO, &[]).unwrap();
        assert_eq!(config.model.from, args.out.join("3-full_sft/final"));
        assert_eq!(config.dpo.cache_dir, args.out.join("cache"));
    }
}
