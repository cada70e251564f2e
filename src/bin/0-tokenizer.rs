//! Stage 0: train a tokenizer on the text that a model will read.

use std::process::ExitCode;

use clap::Parser;
use kindling::tokenizer_stage::{self, TokenizerArgs};

/// Train a byte-level BPE tokenizer.
#[derive(Parser)]
#[command(name = "0-tokenizer", version)]
struct Args {
    #[command(flatten)]
    stage: TokenizerArgs,
}

fn main() -> ExitCode {
    match tokenizer_stage::run(&Args::parse().stage) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            dataset::say!("0-tokenizer: {error:#}");
            ExitCode::FAILURE
        }
    }
}
