//! `kindling COMMAND`: every stage and tool in one binary.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use kindling::args::StageArgs;
use kindling::bench::{self, BenchArgs};
use kindling::chat::{self, ChatArgs};
use kindling::convert::{self, ConvertArgs};
use kindling::data::{self, DataCommand};
use kindling::eval::{self, EvalArgs};
use kindling::inspect::{self, InspectArgs};
use kindling::launch::{self, LaunchArgs};
use kindling::magpie::{self, MagpieCommand};
use kindling::pipeline::{self, PipelineArgs};
use kindling::quickstart::{self, QuickstartArgs};
use kindling::reject::{self, RejectArgs};
use kindling::serve::{self, ServeArgs};
use kindling::stage::{
    DISTILL, DPO, FULL_SFT, GRPO, LORA_SFT, LOYALTY, PRETRAIN, REWARD_MODEL, STORM,
};
use kindling::tokenizer_stage::{self, TokenizerArgs};
use kindling::worker::{self, WorkerArgs};

/// Train tiny language models from nothing.
#[derive(Debug, Parser)]
#[command(name = "kindling", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The whole pipeline on a built-in corpus, in minutes: what you get, before you bring data
    Quickstart(QuickstartArgs),
    /// A recipe of stages, each starting from the one before; goes on where it was stopped
    Pipeline(PipelineArgs),
    /// Stage 0: train a tokenizer on the text that a model will read
    Tokenizer(TokenizerArgs),
    /// Stage 1: train a base model on raw text
    Pretrain(StageArgs),
    /// Stage 2: talk to a finished model
    Chat(ChatArgs),
    /// Stage 3: tune a model on conversations, all weights trained
    #[command(name = "full_sft", visible_alias = "sft")]
    FullSft(StageArgs),
    /// Score a finished model: exams, perplexity, reports
    Eval(EvalArgs),
    /// Stage 4: tune adapters of a model on conversations, its weights frozen
    #[command(name = "lora_sft", visible_alias = "lora")]
    LoraSft(StageArgs),
    /// Stage 5: teach a model to prefer the better of two answers
    Dpo(StageArgs),
    /// Train a head that judges answers, for ranking and for reinforcement learning
    #[command(name = "reward_model")]
    RewardModel(StageArgs),
    /// Stage 6: let a chat model learn from the rewards of its own answers
    Grpo(StageArgs),
    /// Keep a model's own best answers as conversations to tune on
    Reject(RejectArgs),
    /// Stage 7: teach a model answers that depend on who asks
    Loyalty(StageArgs),
    /// Stage 8: make reasoning go away until a model answers at once
    Storm(StageArgs),
    /// Stage 9: teach a model a larger one's distribution on conversations
    Distill(StageArgs),
    /// Serve a model and its adapters: OpenAI's API and a chat page
    Serve(ServeArgs),
    /// Write a model in another format, its adapters merged
    Convert(ConvertArgs),
    /// List a weight file's tensors: shapes, types, hashes
    Inspect(InspectArgs),
    /// Prepare, mix and look at training data
    #[command(subcommand)]
    Data(DataCommand),
    /// Make data with a model that is prompted with nothing: instructions, answers, pairs
    #[command(subcommand)]
    Magpie(MagpieCommand),
    /// Ask what to prepare or train, print the commands, and run them if told to
    Launch(LaunchArgs),
    /// Lend this machine's devices to runs on other machines
    Worker(WorkerArgs),
    /// Measure training and decoding speed, alone or beside PyTorch and llama.cpp
    Bench(BenchArgs),
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            dataset::say!("kindling: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Quickstart(args) => quickstart::run(args),
        Command::Pipeline(args) => pipeline::run(args),
        Command::Tokenizer(args) => tokenizer_stage::run(args).map(|()| ExitCode::SUCCESS),
        Command::Pretrain(args) => PRETRAIN.run(args),
        Command::Chat(args) => chat::run(args).map(|()| ExitCode::SUCCESS),
        Command::FullSft(args) => FULL_SFT.run(args),
        Command::Eval(args) => eval::run(args),
        Command::LoraSft(args) => LORA_SFT.run(args),
        Command::Dpo(args) => DPO.run(args),
        Command::RewardModel(args) => REWARD_MODEL.run(args),
        Command::Grpo(args) => GRPO.run(args),
        Command::Reject(args) => reject::run(args),
        Command::Loyalty(args) => LOYALTY.run(args),
        Command::Storm(args) => STORM.run(args),
        Command::Distill(args) => DISTILL.run(args),
        Command::Serve(args) => serve::run(args).map(|()| ExitCode::SUCCESS),
        Command::Convert(args) => convert::run(args).map(|()| ExitCode::SUCCESS),
        Command::Inspect(args) => inspect::run(args).map(|()| ExitCode::SUCCESS),
        Command::Data(command) => data::run(command),
        Command::Magpie(command) => magpie::run(command),
        Command::Launch(args) => launch::run(args),
        Command::Worker(args) => worker::run(args).map(|()| ExitCode::SUCCESS),
        Command::Bench(args) => bench::run(args).map(|()| ExitCode::SUCCESS),
    }
}
