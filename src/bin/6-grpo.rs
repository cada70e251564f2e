//! Stage 6: a chat model learns from the rewards of its own answers.

use std::process::ExitCode;

use clap::Parser;
use kindling::args::StageArgs;
use kindling::stage::GRPO;

/// Let a chat model learn from the rewards of its own answers.
#[derive(Debug, Parser)]
#[command(name = "6-grpo", version)]
struct Args {
    #[command(flatten)]
    stage: StageArgs,
}

fn main() -> ExitCode {
    match GRPO.run(&Args::parse().stage) {
        Ok(code) => code,
        Err(error) => {
            dataset::say!("6-grpo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
