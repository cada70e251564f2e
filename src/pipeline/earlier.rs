//! What an earlier call left in a stage's folder, and whether this one may go on with it.

use std::fs;
use std::path::Path;

use ::eval::fingerprint::model_fingerprint;
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use train::config::{FieldDifference, differences_that_matter};

use super::table::StageSummary;
use crate::config::parse_config;

/// What a completed stage came to.
pub(super) const SUMMARY: &str = "summary.json";
/// Fingerprint of the model or tokenizer that a stage has begun with.
const STARTED_FROM: &str = "started_from.txt";
/// What a stage that has begun was asked to do.
const CONFIG: &str = "config.toml";

/// Refuses to go on in a folder whose stage has begun with another model or tokenizer than `start`;
/// where it has not begun, notes this one if asked to.
pub(super) fn check_begun(folder: &Path, start: &Path, notes: bool) -> Result<()> {
    let found = model_fingerprint(start)?;
    let path = folder.join(STARTED_FROM);
    if !folder.join(CONFIG).exists() {
        if notes {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            fs::write(&path, found + "\n").with_context(|| path.display().to_string())?;
        }
        return Ok(());
    }
    // A stage that was begun without a pipeline has no such note.
    if !path.exists() {
        return Ok(());
    }
    let begun = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    ensure!(
        begun.trim_end() == found,
        "{} was begun with another {} than is there now; delete the folder, or name another \
         --out",
        folder.display(),
        start.display()
    );
    Ok(())
}

/// The summary of a stage that was completed with this very config; `None` if it is not complete,
/// or was killed while the summary was written.
pub(super) fn done_summary<C: DeserializeOwned + Serialize>(
    config: &C,
    folder: &Path,
) -> Result<Option<StageSummary>> {
    let path = folder.join(SUMMARY);
    if !path.exists() || !folder.join("final").exists() {
        return Ok(None);
    }
    check_config(config, folder)?;
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_str(&text).ok())
}

/// Refuses what a stage left in a folder when it was asked something else; it is done, so that a
/// longer run is something else, too.
pub(super) fn check_config<C: DeserializeOwned + Serialize>(
    config: &C,
    folder: &Path,
) -> Result<()> {
    let path = folder.join(CONFIG);
    let text =
        fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let saved: C = parse_config(&text, &path.display().to_string(), &[])?;
    let (saved, asked) = (serde_json::to_value(&saved)?, serde_json::to_value(config)?);
    let length = |config: &Value| config.pointer("/train/length").cloned().unwrap_or_default();
    let difference = differences_that_matter(&saved, &asked).into_iter().next();
    let difference = difference.or_else(|| {
        (length(&saved) != length(&asked)).then(|| FieldDifference {
            field: "train.length".to_owned(),
            saved: length(&saved).to_string(),
            asked: length(&asked).to_string(),
        })
    });
    if let Some(difference) = difference {
        bail!(
            "{} was made with another config ({}: it has {}, asked is {}); delete the folder, or \
             name another --out",
            folder.display(),
            difference.field,
            difference.saved,
            difference.asked
        );
    }
    Ok(())
}
