//! The command line of the server.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::RangedU64ValueParser;
use model::packed::WeightType;

/// Which models to serve, where, and how much at once.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Folder of the model [default: the newest 3-full_sft*/final, else the newest
    /// 1-pretrain*/final, of out/ and the folders in it]
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Folder of adapters in PEFT's layout, served as a model of its own beside the base; may be
    /// repeated
    #[arg(long = "adapter", value_name = "[NAME=]DIR")]
    pub adapters: Vec<String>,
    /// Jinja file used in the place of the model's chat template
    #[arg(long, value_name = "FILE")]
    pub chat_template: Option<PathBuf>,
    /// Address or name to listen on; others than loopback let the network in
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Environment variable with the key that clients must send as `Authorization: Bearer KEY`
    #[arg(long, value_name = "ENV")]
    pub api_key: Option<String>,
    /// Environment variable with the key of the owner, for a model of 7-loyalty: whoever sends it is
    /// the owner, everybody else is the public
    #[arg(long, value_name = "ENV")]
    pub owner_key: Option<String>,
    /// Requests that are answered together; further ones wait
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub max_batch: usize,
    /// Answers that may wait, and most of one request; further ones are refused with 429
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub max_queue: usize,
    /// Tokens of prompts whose keys and values are kept for prompts that begin alike; 0 is off
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub prefix_cache: usize,
    /// Seconds a request may take, waiting included
    #[arg(long, value_name = "SECS", default_value_t = 600, value_parser = secs(1))]
    pub timeout_secs: u64,
    /// Seconds that answers have to end after Ctrl-C or SIGTERM
    #[arg(long, value_name = "SECS", default_value_t = 30, value_parser = secs(0))]
    pub drain_secs: u64,
    /// How weights are held: f32, bf16 or int8; fewer bits decode faster on the CPU
    #[arg(long, value_name = "TYPE", default_value_t)]
    pub weights: WeightType,
    /// Where to run: auto, cpu, cuda:N or wgpu:N
    #[arg(long, default_value = "auto")]
    pub device: String,
}

/// Seconds of a day at most: what a clock can count on from now.
fn secs(least: u64) -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(least..=86_400)
}

/// What clients call the model of a folder: its name, or that of the run for a `final` folder.
pub(super) fn name_of(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let name = |dir: &Path| Some(dir.file_name()?.to_string_lossy().into_owned());
    let own = name(&dir).unwrap_or_default();
    if ["final", "adapter"].contains(&own.as_str()) {
        dir.parent().and_then(name).unwrap_or(own)
    } else {
        own
    }
}

/// An adapter's name and folder.
pub(super) fn named_adapter(spec: &str) -> (String, PathBuf) {
    match spec.split_once('=') {
        Some((name, dir)) if !name.contains('/') => (name.to_owned(), dir.into()),
        _ => (name_of(Path::new(spec)), spec.into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        serve: ServeArgs,
    }

    /// A time that no clock reaches is refused rather than counted up to.
    #[test]
    fn times_end_within_a_day() {
        for (flag, secs, is_taken) in [
            ("--timeout-secs", "86400", true),
            ("--timeout-secs", "0", false),
            ("--timeout-secs", "18446744073709551615", false),
            ("--drain-secs", "0", true),
            ("--drain-secs", "86401", false),
        ] {
            let parsed = Cli::try_parse_from(["serve", flag, secs]);
            assert_eq!(parsed.is_ok(), is_taken, "{flag} {secs}: {parsed:?}");
        }
    }

    /// `final` and `adapter` say nothing; a path with `=` in a folder's name is a path.
    #[test]
    fn models_are_named_by_their_run() {
        assert_eq!(name_of(Path::new("out/3-full_sft/final")), "3-full_sft");
        assert_eq!(name_of(Path::new("models/tiny")), "tiny");
        let named = |spec| named_adapter(spec);
        assert_eq!(named("medical=out/x"), ("medical".into(), "out/x".into()));
        assert_eq!(
            named("out/4-lora_sft/adapter"),
            ("4-lora_sft".into(), "out/4-lora_sft/adapter".into())
        );
        assert_eq!(named("a/b=c/d").0, "d");
    }
}
