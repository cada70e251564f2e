//! A folder with a little corpus and a tokenizer, and the programs to run in it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dataset::playground::{Playground, PlaygroundConfig};
use dataset::tokenizer_train::TokenizerTrainer;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Fields that make a run a matter of a second: a tiny model, twelve short steps, many saves.
const SETTINGS: [&str; 8] = [
    "model.config=configs/model/debug.json",
    "train.length=12 steps",
    "train.micro_batch_size=2",
    "train.grad_accumulation_steps=2",
    "data.seq_len=32",
    "validation.every_steps=5",
    "checkpoint.every_steps=2",
    "samples.prompts=[\"1+1=\"]",
];

/// A folder of its own for one test, gone when the test ends.
pub(crate) struct Fixture {
    folder: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let fixture = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let size = PlaygroundConfig {
            num_documents: 60,
            ..PlaygroundConfig::default()
        };
        let documents = Playground::generate(&size).documents;
        let mut lines = String::new();
        for text in &documents {
            let _ = writeln!(lines, "{}", serde_json::json!({ "text": text }));
        }
        fixture.write("text.jsonl", lines);
        let trainer = TokenizerTrainer {
            vocab_size: 300,
            ..TokenizerTrainer::default()
        };
        let tokenizer = trainer.train(documents.into_iter()).unwrap();
        tokenizer.save(&fixture.path("tokenizer")).unwrap();
        fixture
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// `1-pretrain` on the corpus, into the folder `run`, with more settings.
    pub(crate) fn pretrain(&self, run: &str, settings: &[&str]) -> Command {
        self.pretrain_on("cpu", run, settings)
    }

    pub(crate) fn pretrain_on(&self, device: &str, run: &str, settings: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_1-pretrain"));
        command.args(["--config", "configs/1-pretrain.debug.toml"]);
        command.args(["--devices", device]);
        command.arg("--out").arg(self.path(run));
        let quoted = |name: &str| format!("{:?}", self.path(name).to_str().unwrap());
        let places = [
            format!("tokenizer.path={}", quoted("tokenizer")),
            format!("data.sources=[{{ path = {} }}]", quoted("text.jsonl")),
            format!("data.cache_dir={}", quoted("cache")),
        ];
        for setting in SETTINGS
            .iter()
            .copied()
            .chain(places.iter().map(String::as_str))
        {
            command.args(["--set", setting]);
        }
        for setting in settings {
            command.args(["--set", setting]);
        }
        command
    }

    /// What identifies the weights that a finished run has exported.
    pub(crate) fn weights_hash(&self, run: &str) -> String {
        hash(&self.path(run).join("final/model.safetensors"))
    }
}

pub(crate) fn hash(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Runs to the end and wants exit code 0.
pub(crate) fn succeeds(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Runs to the end and wants exit code 1, no panic, and a message; returns the message.
pub(crate) fn fails(mut command: Command) -> String {
    let output = command.output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(!message.contains("panicked"), "{message}");
    message
}
