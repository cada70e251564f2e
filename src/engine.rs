//! A model folder made ready to answer: its template, adapters, number format and settings.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use burn::prelude::Device;
use eval::engine::Engine;
use model::lora::load_adapter;
use model::packed::WeightType;

/// File that every model's folder has.
const CONFIG: &str = "config.json";

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
    let mut engine = load_folder(dir, device)?;
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

/// Loads a model's folder as it is.
///
/// # Errors
///
/// A folder that is not there, that is a run's rather than its model's, or that is broken.
pub(crate) fn load_folder(dir: &Path, device: &Device) -> Result<Engine> {
    let shown = dir.display();
    ensure!(
        dir.exists(),
        "{shown}: no such folder, expected a model's, such as the final/ of a run"
    );
    let of_run = dir.join("final");
    ensure!(
        dir.join(CONFIG).exists() || !of_run.join(CONFIG).exists(),
        "{shown}: found the folder of a run, expected its model's, {}",
        of_run.display()
    );
    Engine::load(dir, device).context("the model cannot be loaded")
}

/// Puts what was asked for, if anything, in the place of a model's own setting.
pub(crate) fn set<T>(setting: &mut T, asked: Option<T>) {
    if let Some(value) = asked {
        *setting = value;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What is one folder away is named.
    #[test]
    fn a_folder_of_none_and_of_a_run_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        let error = |dir: &Path| load_folder(dir, &Device::flex()).unwrap_err().to_string();
        assert!(error(&run).contains("run: no such folder, expected a model's"));
        fs::create_dir_all(run.join("final")).unwrap();
        assert_eq!(error(&run), "the model cannot be loaded");
        fs::write(run.join("final").join(CONFIG), "{}").unwrap();
        let error = error(&run);
        assert!(error.contains("found the folder of a run"), "{error}");
        assert!(error.ends_with("final"), "{error}");
    }
}
