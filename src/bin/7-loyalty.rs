//! Stage 7: answers that depend on who asks.

use std::process::ExitCode;

use clap::Parser;
use kindling::args::StageArgs;
use kindling::stage::LOYALTY;

/// Teach a model answers that depend on who asks.
#[derive(Debug, Parser)]
#[command(name = "7-loyalty", version)]
struct Args {
    #[command(flatten)]
    stage: StageArgs,
}

fn main() -> ExitCode {
    match LOYALTY.run(&Args::parse().stage) {
        Ok(code) => code,
        Err(error) => {
            dataset::say!("7-loyalty: {error:#}");
            ExitCode::FAILURE
        }
    }
}
