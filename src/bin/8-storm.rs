//! Stage 8: a model that reasons learns to answer at once.

use std::process::ExitCode;

use clap::Parser;
use kindling::args::StageArgs;
use kindling::stage::STORM;

/// Make reasoning go away until a model answers at once.
#[derive(Debug, Parser)]
#[command(name = "8-storm", version)]
struct Args {
    #[command(flatten)]
    stage: StageArgs,
}

fn main() -> ExitCode {
    match STORM.run(&Args::parse().stage) {
        Ok(code) => code,
        Err(error) => {
            dataset::say!("8-storm: {error:#}");
            ExitCode::FAILURE
        }
    }
}
