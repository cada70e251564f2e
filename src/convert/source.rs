//! What is converted: a model folder, or a weight file of another program and a tokenizer.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::prelude::Device;
use dataset::say;
use dataset::tokenizer::Tokenizer;
use eval::engine::Engine;
use model::import::ForeignModel;
use model::lora::load_adapter;
use model::packed::WeightType;
use serde_json::Value;

use super::ConvertArgs;
use crate::config::parse_setting;
use crate::engine::load_engine;

/// The model with its adapters merged, and its tokenizer.
pub(super) fn load(args: &ConvertArgs) -> Result<Engine> {
    let device = Device::flex();
    let mut engine = if args.model.is_dir() {
        ensure!(
            args.settings.is_empty() && args.tokenizer.is_none(),
            "--set and --tokenizer are for weight files, {} is a folder that says both",
            args.model.display()
        );
        load_engine(&args.model, None, &args.adapters, WeightType::F32, &device)?
    } else {
        load_file(args, &device)?
    };
    engine.model = engine.model.merged();
    Ok(engine)
}

fn load_file(args: &ConvertArgs, device: &Device) -> Result<Engine> {
    let path = &args.tokenizer;
    let path = path.as_deref().context(
        "--tokenizer: a weight file has none, expected a folder, .json or llama2.c's .bin",
    )?;
    let tokenizer = load_tokenizer(path)?;
    let settings = args.settings.iter().map(|setting| {
        let (field, value) = parse_setting(setting)?;
        Ok((field, serde_json::to_value(value)?))
    });
    let settings = settings.collect::<Result<Vec<(String, Value)>>>()?;
    let foreign = ForeignModel::read(&args.model)?;
    let mut model = foreign.into_model(&settings, device)?;
    let config = serde_json::to_string(model.config()).context("the shape is no JSON")?;
    say!("taken as {config}");
    for adapter in &args.adapters {
        model = load_adapter(model, adapter)?;
    }
    let (found, expected) = (tokenizer.vocab_size(), model.config().vocab_size);
    ensure!(
        found <= expected,
        "{}: has {found} tokens, expected at most the model's {expected}",
        path.display()
    );
    Ok(Engine::new(model, tokenizer))
}

fn load_tokenizer(path: &Path) -> Result<Tokenizer> {
    let is_llama2c = path.extension().is_some_and(|ending| ending == "bin");
    let tokenizer = if is_llama2c {
        Tokenizer::load_llama2c(path)
    } else {
        Tokenizer::load(path)
    };
    Ok(tokenizer?)
}
