//! Stage 1: raw text to a base model, by next-token prediction.

use std::process::ExitCode;

use clap::Parser;
use kindling::args::StageArgs;
use kindling::stage::PRETRAIN;

/// Train a base model on raw text.
#[derive(Debug, Parser)]
#[command(name = "1-pretrain", version)]
struct Args {
    #[command(flatten)]
    stage: StageArgs,
}

fn main() -> ExitCode {
    match PRETRAIN.run(&Args::parse().stage) {
        Ok(code) => code,
        Err(error) => {
            dataset::say!("1-pretrain: {error:#}");
            ExitCode::FAILURE
        }
    }
}
