//! Stage 4: conversations to adapters of a chat model, its weights frozen.

use std::process::ExitCode;

use clap::Parser;
use kindling::args::StageArgs;
use kindling::stage::LORA_SFT;

/// Tune adapters of a model on conversations, its weights frozen.
#[derive(Debug, Parser)]
#[command(name = "4-lora_sft", version)]
struct Args {
    #[command(flatten)]
    stage: StageArgs,
}

fn main() -> ExitCode {
    match LORA_SFT.run(&Args::parse().stage) {
        Ok(code) => code,
        Err(error) => {
            dataset::say!("4-lora_sft: {error:#}");
            ExitCode::FAILURE
        }
    }
}
