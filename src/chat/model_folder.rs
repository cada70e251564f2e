//! Which model one means without naming it: the newest result, chat models before pretrained ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Result, bail};

/// Stages whose results one talks to, the preferred first.
const STAGES: [&str; 2] = ["3-full_sft", "1-pretrain"];

/// The newest `final` folder of the preferred stage, in `out` or in a folder of it, which is where
/// pipelines and the quickstart keep their stages.
pub(crate) fn newest(out: &Path) -> Result<PathBuf> {
    for stage in STAGES {
        if let Some(dir) = newest_of_stage(out, stage) {
            return Ok(dir);
        }
    }
    let out = out.display();
    bail!(
        "there is no 3-full_sft*/final and no 1-pretrain*/final in {out}/ or in a folder of it: make \
         a model with `cargo run --release -- quickstart`, or name one with --model"
    )
}

fn newest_of_stage(out: &Path, stage: &str) -> Option<PathBuf> {
    let groups = entries(out);
    let deeper = groups.iter().flat_map(|group| entries(group));
    let is_of_stage = |run: &PathBuf| {
        let name = run.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(stage)
    };
    let runs = groups.iter().cloned().chain(deeper).filter(is_of_stage);
    runs.map(|run| run.join("final"))
        .filter_map(|dir| Some((modified(&dir)?, dir)))
        .max()
        .map(|(_, dir)| dir)
}

/// What is in a folder; one that cannot be read holds no model that could be loaded.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn modified(dir: &Path) -> Option<SystemTime> {
    fs::metadata(dir.join("config.json")).ok()?.modified().ok()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use super::*;

    fn make_run(out: &Path, name: &str, secs: u64) -> PathBuf {
        let dir = out.join(name).join("final");
        fs::create_dir_all(&dir).unwrap();
        let file = File::create(dir.join("config.json")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(secs))
            .unwrap();
        dir
    }

    /// Times are set by hand: the pretrained model is the newest of all.
    #[test]
    fn the_newest_chat_model_comes_before_a_newer_pretrained_one() {
        let out = tempfile::tempdir().unwrap();
        make_run(out.path(), "1-pretrain.26m", 5_000);
        let pretrained = make_run(out.path(), "1-pretrain", 9_000);
        assert_eq!(newest(out.path()).unwrap(), pretrained);

        make_run(out.path(), "3-full_sft", 3_000);
        let tuned = make_run(out.path(), "3-full_sft.quickstart", 4_000);
        fs::create_dir_all(out.path().join("3-full_sft.unfinished")).unwrap();
        assert_eq!(newest(out.path()).unwrap(), tuned);
    }

    /// Where the quickstart leaves its models; `out/a/b/STAGE` is too deep.
    #[test]
    fn models_of_pipelines_are_found() {
        let out = tempfile::tempdir().unwrap();
        let tuned = make_run(out.path(), "quickstart/3-full_sft", 4_000);
        make_run(out.path(), "kept/old/3-full_sft", 8_000);
        make_run(out.path(), "1-pretrain", 9_000);
        assert_eq!(newest(out.path()).unwrap(), tuned);
        let newer = make_run(out.path(), "3-full_sft.multi", 5_000);
        assert_eq!(newest(out.path()).unwrap(), newer);
    }

    /// The message says what to do.
    #[test]
    fn without_a_model_the_error_says_how_to_make_one() {
        let message = newest(Path::new("nowhere")).unwrap_err().to_string();
        assert_eq!(
            message,
            "there is no 3-full_sft*/final and no 1-pretrain*/final in nowhere/ or in a folder of \
             it: make a model with `cargo run --release -- quickstart`, or name one with --model"
        );
    }
}
