//! A folder with text, conversations, a tokenizer and the shape of a tiny model.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::prelude::*;
use dataset::source::SourceConfig;
use dataset::tokenizer_train::TokenizerTrainer;
use train::config::{Length, PretrainConfig, SftConfig};
use train::pretrain;
use train::run::{Outcome, RunOptions, RunSummary, TrainError};
use train::run_folder::IfExists;

pub(crate) const NUM_STEPS: usize = 8;

/// Text, a tokenizer trained on it, and the shape of a tiny model, in a folder of their own.
pub(crate) struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let texts: Vec<String> = (0..60)
            .map(|n| format!("{n} birds sat on a wall, {} flew away and {n} sang.", n / 2))
            .collect();
        let lines: Vec<String> = texts
            .iter()
            .map(|text| serde_json::json!({ "text": text }).to_string())
            .collect();
        fs::write(world.path("text.jsonl"), lines.join("\n")).unwrap();
        let chats: Vec<String> = (0..40)
            .map(|n| {
                serde_json::json!({"conversations": [
                    {"role": "user", "content": format!("how many birds, {n}?")},
                    {"role": "assistant", "content": format!("{n} birds.")},
                ]})
                .to_string()
            })
            .collect();
        fs::write(world.path("chat.jsonl"), chats.join("\n")).unwrap();
        let trainer = TokenizerTrainer {
            vocab_size: 300,
            ..TokenizerTrainer::default()
        };
        let tokenizer = trainer.train(texts.into_iter()).unwrap();
        fs::create_dir(world.path("tokenizer")).unwrap();
        tokenizer.save(&world.path("tokenizer")).unwrap();
        let config = serde_json::json!({
            "model_type": "llama",
            "vocab_size": 300,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "max_position_embeddings": 64,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": true
        });
        fs::write(world.path("model.json"), config.to_string()).unwrap();
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Gives the two reserved ids other names, as in MiniMind v1's own files.
    pub(crate) fn rename_reserved_tokens(&self) {
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            let path = self.path("tokenizer").join(name);
            let text = fs::read_to_string(&path).unwrap();
            let text = text.replace("<|reserved_0|>", "<a>");
            fs::write(&path, text.replace("<|reserved_1|>", "<b>")).unwrap();
        }
    }

    pub(crate) fn pretrain_config(&self) -> PretrainConfig {
        let mut config = PretrainConfig::default();
        config.model.config = self.path("model.json");
        config.tokenizer.path = self.path("tokenizer");
        config.data.sources = vec![SourceConfig::new(self.path("text.jsonl").to_str().unwrap())];
        config.data.cache_dir = self.path("cache");
        config.data.seq_len = 32;
        config.data.validation_fraction = 0.1;
        config.train.length = Length::Steps(NUM_STEPS);
        config.train.micro_batch_size = 2;
        config.train.grad_accumulation_steps = 2;
        config.optimizer.lr = 1e-2;
        config.validation.every_steps = 4;
        config.samples.prompts = vec!["3 birds".to_owned()];
        config.samples.max_new_tokens = 4;
        config.checkpoint.every_steps = 3;
        config.report.quiet = true;
        config.report.tensorboard = false;
        config.report.plot = false;
        config
    }

    /// Full tuning of the model in a folder on the conversations.
    pub(crate) fn chat_config(&self, from: &Path) -> SftConfig {
        let mut config = SftConfig::default();
        from.clone_into(&mut config.model.from);
        config.tokenizer.path = self.path("tokenizer");
        config.data.files = vec![self.path("chat.jsonl").to_str().unwrap().to_owned()];
        config.data.seq_len = 64;
        config.data.validation_fraction = 0.1;
        let PretrainConfig {
            train,
            report,
            samples,
            ..
        } = self.pretrain_config();
        SftConfig {
            train,
            report,
            samples,
            ..config
        }
    }

    pub(crate) fn options(&self, run: &str, if_exists: IfExists, stops: bool) -> RunOptions {
        RunOptions {
            out_dir: self.path(run),
            if_exists,
            examiner: None,
            device: Device::flex(),
            other_devices: Vec::new(),
            stop: Arc::new(AtomicBool::new(stops)),
        }
    }

    pub(crate) fn pretrain(
        &self,
        config: &PretrainConfig,
        run: &str,
    ) -> Result<Outcome, TrainError> {
        pretrain::run(config, self.options(run, IfExists::Refuse, false))
    }

    /// Folder of the model that `pretrain_config` makes.
    pub(crate) fn base(&self) -> PathBuf {
        summary(
            self.pretrain(&self.pretrain_config(), "1-pretrain")
                .unwrap(),
        )
        .final_dir
    }
}

pub(crate) fn summary(outcome: Outcome) -> RunSummary {
    match outcome {
        Outcome::Completed(summary) => summary,
        outcome => panic!("interrupted: {outcome:?}"),
    }
}

pub(crate) fn metrics(run: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(crate) fn final_weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("final/model.safetensors")).unwrap()
}
