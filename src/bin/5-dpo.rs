//! Stage 5: pairs of answers to a model that prefers the better ones.

use std::process::ExitCode;

use clap::Parser;
use kindling::args::StageArgs;
use kindling::stage::DPO;

/// Teach a model to prefer the better of two answers.
#[derive(Debug, Parser)]
#[command(name = "5-dpo", version)]
struct Args {
    #[command(flatten)]
    stage: StageArgs,
}

fn main() -> ExitCode {
    match DPO.run(&Args::parse().stage) {
        Ok(code) => code,
        Err(error) => {
            dataset::say!("5-dpo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
