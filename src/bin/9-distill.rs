//! Stage 9: a teacher's distribution on conversations to a smaller model.

use std::process::ExitCode;

use clap::Parser;
use kindling::args::StageArgs;
use kindling::stage::DISTILL;

/// Teach a model a larger one's distribution on conversations.
#[derive(Debug, Parser)]
#[command(name = "9-distill", version)]
struct Args {
    #[command(flatten)]
    stage: StageArgs,
}

fn main() -> ExitCode {
    match DISTILL.run(&Args::parse().stage) {
        Ok(code) => code,
        Err(error) => {
            dataset::say!("9-distill: {error:#}");
            ExitCode::FAILURE
        }
    }
}
