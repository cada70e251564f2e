//! Stage 0: train a tokenizer on the text that a model will read.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use dataset::source::{Documents, SourceConfig};
use dataset::tokenizer_train::{
    SampleConfig, SpecialTokens, TokenizerTrainer, TrainedTokenizer, train_on_sources,
};
use documented::DocumentedFields;
use serde::{Deserialize, Serialize};
use train::config::{FieldDocs, commented_toml};

use crate::config::load_config;
use crate::stdout::{self, out};

/// The command line of the stage.
#[derive(Debug, Clone, Args)]
pub struct TokenizerArgs {
    /// The stage's settings, a TOML file
    #[arg(long, value_name = "FILE", default_value = "configs/0-tokenizer.toml")]
    pub config: PathBuf,
    /// Change a field of the config, e.g. --set vocab_size=8000; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Folder of the tokenizer [default: out/ and the config file's name]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Replace the tokenizer in that folder if there is one
    #[arg(long)]
    pub overwrite: bool,
    /// Print the files that would be read and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Print the resolved config, with a sentence above every field, and stop
    #[arg(long)]
    pub print_config: bool,
}

/// Settings of the stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub struct TokenizerConfig {
    /// Number of ids, the special tokens and the 256 bytes included.
    pub vocab_size: usize,
    /// Special tokens and chat template: v1 (MiniMind v1's three and two reserved ones) or v3
    /// (MiniMind-3's 36, with thinking and tools).
    pub special_tokens: SpecialTokens,
    /// Whether each digit is a token of its own, which makes sums easier to learn.
    pub split_digits: bool,
    /// How often a pair of tokens must be seen to become one.
    pub min_frequency: u64,
    /// Longest text that models are meant for, in tokens; recorded, not enforced.
    pub model_max_length: usize,
    /// Text to train on at most, in bytes; of a larger corpus an even sample of its documents.
    /// Training takes about fifty times as much memory.
    pub max_train_bytes: u64,
    /// Seed of the sample.
    pub seed: u64,
    /// The text, one section per source.
    pub sources: Vec<SourceConfig>,
}

impl FieldDocs for TokenizerConfig {
    fn field_doc(section: &str, field: &str) -> Option<&'static str> {
        match section {
            "" => Self::get_field_docs(field).ok(),
            _ => SourceConfig::get_field_docs(field).ok(),
        }
    }
}

impl TokenizerConfig {
    /// The recipe that the config describes.
    pub fn trainer(&self) -> TokenizerTrainer {
        TokenizerTrainer {
            vocab_size: self.vocab_size,
            special_tokens: self.special_tokens,
            split_digits: self.split_digits,
            min_frequency: self.min_frequency,
            model_max_length: self.model_max_length,
        }
    }

    /// Compares fields with each other and with what a trainer can do.
    ///
    /// # Errors
    ///
    /// Names the field, what it is and what it must be.
    pub fn validate(&self) -> Result<()> {
        self.trainer().validate()?;
        ensure!(
            self.max_train_bytes > 0,
            "max_train_bytes is 0, expected at least 1"
        );
        ensure!(
            !self.sources.is_empty(),
            "sources is empty, expected at least one [[sources]]"
        );
        Ok(())
    }
}

/// Trains the tokenizer of a config and writes its folder; tells on standard output how well it
/// compresses.
///
/// # Errors
///
/// A config, text or folder that is wrong, by name.
pub fn run(args: &TokenizerArgs) -> Result<()> {
    let config: TokenizerConfig = load_config(&args.config, &args.overrides)?;
    config
        .validate()
        .with_context(|| args.config.display().to_string())?;
    if args.print_config {
        stdout::print(format_args!("{}", commented_toml(&config)?))?;
        return Ok(());
    }
    let documents = Documents::open(&config.sources)?;
    if args.dry_run {
        for path in documents.paths() {
            out!("{}", path.display())?;
        }
        out!(
            "{} files, {} bytes",
            documents.paths().len(),
            documents.total_bytes()
        )?;
        return Ok(());
    }
    let out = match &args.out {
        Some(out) => out.clone(),
        None => Path::new("out").join(args.config.file_stem().context("--config names no file")?),
    };
    if out.join("tokenizer.json").exists() && !args.overwrite {
        bail!(
            "{} holds a tokenizer, expected --overwrite or another --out",
            out.display()
        );
    }
    let toml = commented_toml(&config)?;
    let cannot_be_written = || format!("{}: cannot be written", out.display());
    // Text is read for minutes: a folder that cannot be made is found out before.
    let is_new = !out.exists();
    fs::create_dir_all(&out).with_context(cannot_be_written)?;
    let sample = SampleConfig {
        max_train_bytes: config.max_train_bytes,
        seed: config.seed,
    };
    let trained = train_on_sources(&config.trainer(), &config.sources, &sample);
    if trained.is_err() && is_new {
        // Nothing is left of a tokenizer that was not made; an error is told already.
        let _ = fs::remove_dir(&out);
    }
    let trained = trained?;
    // First, so that a tokenizer is never there without what it was made of.
    fs::write(out.join("config.toml"), toml).with_context(cannot_be_written)?;
    trained.tokenizer.save(&out)?;
    stdout::print(format_args!("{}", summary(&trained, &config)))?;
    out!("tokenizer written to {}", out.display())?;
    Ok(())
}

fn summary(trained: &TrainedTokenizer, config: &TokenizerConfig) -> String {
    let mut text = format!(
        "{} ids from {} documents, {} bytes\n",
        trained.tokenizer.vocab_size(),
        trained.num_documents,
        trained.num_bytes
    );
    if trained.tokenizer.vocab_size() < config.vocab_size {
        let _ = writeln!(
            text,
            "vocab_size {} was not reached: the text has no more pairs seen {} times",
            config.vocab_size, config.min_frequency
        );
    }
    let _ = writeln!(
        text,
        "{:<10}{:>12}{:>12}{:>14}",
        "held out", "documents", "bytes", "bytes/token"
    );
    for (language, measured) in &trained.compression {
        let _ = writeln!(
            text,
            "{:<10}{:>12}{:>12}{:>14.2}",
            language.name(),
            measured.num_documents,
            measured.num_bytes,
            measured.bytes_per_token()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "configs/0-tokenizer.toml";

    /// Arguments of a run on `text` in a folder of its own.
    fn args_in(folder: &Path, text: &str, overrides: &[&str]) -> TokenizerArgs {
        fs::write(folder.join("text.jsonl"), text).unwrap();
        let config = fs::read_to_string(CONFIG).unwrap();
        let path = folder.join("text.jsonl").display().to_string();
        let config = config.replace("data/pretrain/*.jsonl", &path);
        fs::write(folder.join("c.toml"), config).unwrap();
        TokenizerArgs {
            config: folder.join("c.toml"),
            overrides: overrides
                .iter()
                .map(|&setting| setting.to_owned())
                .collect(),
            out: Some(folder.join("out")),
            overwrite: false,
            dry_run: false,
            print_config: false,
        }
    }

    fn fails(folder: &Path, args: &TokenizerArgs) -> String {
        let error = format!("{:#}", run(args).unwrap_err());
        error.replace(&format!("{}/", folder.display()), "")
    }

    /// From a file to a folder that loads; a second run does not write over the first.
    #[test]
    fn a_tokenizer_is_trained_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let text = "{\"text\": \"the cat and 12 hats\"}\n".repeat(30);
        let mut args = args_in(folder.path(), &text, &["vocab_size=270"]);
        args.dry_run = true;
        run(&args).unwrap();
        assert!(!folder.path().join("out").exists());
        args.dry_run = false;
        run(&args).unwrap();
        let tokenizer = dataset::Tokenizer::load(&folder.path().join("out")).unwrap();
        assert_eq!(tokenizer.vocab_size(), 270);
        let saved = load_config(&folder.path().join("out/config.toml"), &[]).unwrap();
        let asked: TokenizerConfig = load_config(&args.config, &args.overrides).unwrap();
        assert_eq!(asked, saved);
        assert_eq!(
            fails(folder.path(), &args),
            "out holds a tokenizer, expected --overwrite or another --out"
        );
        args.overwrite = true;
        args.overrides.push("special_tokens=v3".to_owned());
        args.overrides.push("vocab_size=300".to_owned());
        run(&args).unwrap();
        let tokenizer = dataset::Tokenizer::load(&folder.path().join("out")).unwrap();
        assert_eq!(tokenizer.token_to_id("<|im_end|>"), Some(2));
    }

    /// Each message names what to mend, and nothing is left behind.
    #[test]
    fn bad_input_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let text = "{\"text\": \"a\"}\n{\"text\": \n";
        let fails_with = |text: &str, overrides: &[&str]| {
            let args = args_in(path, text, overrides);
            fails(path, &args)
        };
        let error = fails_with(text, &[]);
        assert!(error.starts_with("text.jsonl:2: not a valid row: EOF while parsing a value"));
        assert_eq!(
            fails_with(text, &["vocab_size=100"]),
            "c.toml: vocab_size is 100, expected at least 261: the 256 bytes and 5 special tokens"
        );
        assert_eq!(
            fails_with(text, &["sources=[]"]),
            "c.toml: sources is empty, expected at least one [[sources]]"
        );
        assert_eq!(
            fails_with(text, &["max_train_bytes=0"]),
            "c.toml: max_train_bytes is 0, expected at least 1"
        );
        assert!(fails_with(text, &["special_tokens=v2"]).contains("unknown variant `v2`"));
        assert!(fails_with(text, &["vocabsize=300"]).contains("did you mean `vocab_size`?"));
        assert_eq!(
            fails_with("", &[]),
            "text.jsonl: found no text, expected at least one document"
        );
        assert!(!path.join("out").exists());
    }
}
