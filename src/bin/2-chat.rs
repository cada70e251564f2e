//! Stage 2: talk to a finished model in the terminal, or get one answer for a script.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use kindling::chat::{self, ChatArgs};

/// Talk to a finished model: base models continue the text, chat models answer it.
#[derive(Debug, Parser)]
#[command(name = "2-chat", version)]
struct Args {
    #[command(flatten)]
    chat: ChatArgs,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            dataset::say!("2-chat: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    chat::run(&args.chat)
}
