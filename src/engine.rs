//! A model folder made ready to answer: its template, adapters, number format and settings.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::prelude::Device;
use eval::engine::Engine;
use model::lora::load_adapter;
use model::packed::WeightType;

/// Loads a folder, with another chat template and adapters if any are asked for.
///
/// # Errors
///
/// A folder, template or adapter that is not there or broken, or packed weights on another device
/// than the CPU.
pub(crate) fn load_engine(
    dir: &Path,
    chat_template: Option<&Path>,
    adapters: &[PathBuf],
    weights: WeightType,
    device: &Device,
) -> Result<Engine> {
    let mut engine = Engine::load(dir, device)
        .with_context(|| format!("the model {} cannot be loaded", dir.display()))?;
    if let Some(template) = chat_template {
        engine.tokenizer = engine.tokenizer.with_chat_template(template)?;
    }
    for adapter in adapters {
        engine.model = load_adapter(engine.model, adapter)?;
    }
    if weights != WeightType::F32 {
        ensure!(
            *device == Device::flex(),
            "--weights {weights}: expected f32 on another device than the CPU"
        );
        engine.model = engine.model.packed(weights);
    }
    Ok(engine)
}

/// Puts what was asked for, if anything, in the place of a model's own setting.
pub(crate) fn set<T>(setting: &mut T, asked: Option<T>) {
    if let Some(value) = asked {
        *setting = value;
    }
}
