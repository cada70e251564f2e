//! Stage 3: conversations to a chat model, all weights trained.

use std::process::ExitCode;

use clap::Parser;
use kindling::args::StageArgs;
use kindling::stage::FULL_SFT;

/// Tune a model on conversations, all weights trained.
#[derive(Debug, Parser)]
#[command(name = "3-full_sft", version)]
struct Args {
    #[command(flatten)]
    stage: StageArgs,
}

fn main() -> ExitCode {
    match FULL_SFT.run(&Args::parse().stage) {
        Ok(code) => code,
        Err(error) => {
            dataset::say!("3-full_sft: {error:#}");
            ExitCode::FAILURE
        }
    }
}
