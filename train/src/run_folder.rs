//! A run's folder: taken by one process at a time, never overwritten by accident.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Names of everything a run may leave in its folder, besides the checkpoints.
const ARTEFACTS: [&str; 14] = [
    "config.toml",
    "plan.txt",
    "metrics.jsonl",
    "events",
    "loss.png",
    "experts.png",
    "latest",
    "best",
    "final",
    "adapter",
    "rows.jsonl",
    "summary.json",
    "started_from.txt",
    "curve_inputs",
];
/// Names of a run's pictures while they are drawn.
pub(crate) const UNFINISHED_LOSS: &str = ".loss.unfinished.png";
pub(crate) const UNFINISHED_EXPERTS: &str = ".experts.unfinished.png";
/// Names of what others leave beside a run about its model. They go with the run, but are none:
/// `out/eval` holds results of models without one.
const ABOUT_THE_MODEL: [&str; 3] = ["eval", "report.html", "report.md"];
const LOCK: &str = "lock";

/// What to do with a folder that already holds a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// Leave it alone and stop.
    Refuse,
    /// Go on from its newest checkpoint.
    Resume,
    /// Delete the run and begin again.
    Overwrite,
}

/// Why a run's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunFolderError {
    /// The folder holds an earlier run.
    #[error(
        "{}: holds a run already; resume it, overwrite it or choose another folder",
        path.display()
    )]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// Another process trains in the folder.
    #[error("{}: another process is training here", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder cannot be made, read or removed.
    #[error("{}: {doing}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// File or folder concerned.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A run's folder, held by this process until it is dropped.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    // The lock lasts as long as the file is open, also when the process is killed.
    _lock: File,
}

impl RunFolder {
    /// Takes the folder for this process, making it if it is not there.
    ///
    /// # Errors
    ///
    /// When it holds a run and `if_exists` refuses that, when another process has it, or when it
    /// cannot be written.
    pub fn open(path: &Path, if_exists: IfExists) -> Result<Self, RunFolderError> {
        let holds_a_run = Self::check(path, if_exists)?;
        fs::create_dir_all(path).map_err(|source| io_error("cannot be created", path, source))?;
        let lock = lock(path)?;
        if holds_a_run && if_exists == IfExists::Overwrite {
            let about = ABOUT_THE_MODEL.map(|name| path.join(name));
            let about = about.into_iter().filter(|path| path.exists());
            for artefact in artefacts(path)?.into_iter().chain(about) {
                remove(&artefact)?;
            }
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Whether the folder holds a run, before anything is done to it.
    ///
    /// # Errors
    ///
    /// When it does and `if_exists` refuses that, or when it cannot be read.
    pub(crate) fn check(path: &Path, if_exists: IfExists) -> Result<bool, RunFolderError> {
        let holds_a_run = !artefacts(path)?.is_empty();
        if holds_a_run && if_exists == IfExists::Refuse {
            return Err(RunFolderError::Exists {
                path: path.to_owned(),
            });
        }
        Ok(holds_a_run)
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a small text file into the folder so that it is never seen half-written.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<(), RunFolderError> {
        let path = self.path.join(name);
        write_atomically(&path, text.as_bytes())
            .map_err(|source| io_error("cannot be written", &path, source))
    }
}

/// Writes a file beside its place, brings it to the disk and moves it there.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let beside = path.with_file_name(name);
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if let Err(error) = written {
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Brings a folder's list of names to the disk.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    // Windows cannot open a folder as a file; its renames are journaled.
    if cfg!(windows) {
        return Ok(());
    }
    File::open(path)?.sync_all()
}

fn lock(folder: &Path) -> Result<File, RunFolderError> {
    let path = folder.join(LOCK);
    let file =
        File::create(&path).map_err(|source| io_error("cannot be created", &path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RunFolderError::Locked {
            path: folder.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(io_error("cannot be locked", &path, source)),
    }
}

/// Everything in a folder that a run has made.
fn artefacts(folder: &Path) -> Result<Vec<PathBuf>, RunFolderError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(io_error("cannot be read", folder, source)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| io_error("cannot be read", folder, source))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_checkpoint = crate::checkpoint::step_of(&name).is_some();
        if ARTEFACTS.contains(&name.as_ref()) || is_checkpoint || is_leftover(&name) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Whether a name is of something half-written or half-deleted by a process that was killed.
pub(crate) fn is_leftover(name: &str) -> bool {
    let mut whole = [".tmp", ".partial"]
        .iter()
        .filter_map(|ending| name.strip_suffix(ending));
    let is_half_written = whole.any(|whole| ARTEFACTS.contains(&whole))
        || [UNFINISHED_LOSS, UNFINISHED_EXPERTS].contains(&name);
    name.starts_with(".writing-") || name.starts_with(".deleting-") || is_half_written
}

fn remove(path: &Path) -> Result<(), RunFolderError> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    removed.map_err(|source| io_error("cannot be removed", path, source))
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> RunFolderError {
    RunFolderError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty folder may be used; one with a run in it only when that is said.
    #[test]
    fn a_folder_with_a_run_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1-pretrain");
        let run = RunFolder::open(&path, IfExists::Refuse).unwrap();
        run.write("config.toml", "a = 1\n").unwrap();
        drop(run);

        let error = RunFolder::open(&path, IfExists::Refuse).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{}: holds a run already; resume it, overwrite it or choose another folder",
                path.display()
            )
        );
        RunFolder::open(&path, IfExists::Resume).unwrap();
        assert_eq!(
            fs::read_to_string(path.join("config.toml")).unwrap(),
            "a = 1\n"
        );
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// Overwriting removes what runs make, with what was found out about their models, and nothing
    /// else: `--out` may name any folder.
    #[test]
    fn overwriting_leaves_foreign_files_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let files = [
            ".loss.unfinished.png",
            "config.toml",
            "config.toml.tmp",
            "draft.tmp",
            "experts.png",
            "report.html",
            "report.md",
            "rows.jsonl.partial",
            "started_from.txt",
            "step_notes.md",
            "thesis.tex",
        ];
        for name in files {
            fs::write(path.join(name), "x").unwrap();
        }
        for name in ["step_000010", ".writing-step_000020", "eval", "photos"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        RunFolder::open(path, IfExists::Overwrite).unwrap();
        assert_eq!(
            names(path),
            ["draft.tmp", "lock", "photos", "step_notes.md", "thesis.tex"]
        );
    }

    /// Scores of models that have no run are kept in `out/eval`, and `out` holds no run for that.
    #[test]
    fn results_alone_are_no_run() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("eval")).unwrap();
        drop(RunFolder::open(dir.path(), IfExists::Refuse).unwrap());
        drop(RunFolder::open(dir.path(), IfExists::Overwrite).unwrap());
        assert_eq!(names(dir.path()), ["eval", "lock"]);
    }

    /// Two runs in one folder would tear each other's checkpoints apart.
    #[test]
    fn a_second_process_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunFolder::open(dir.path(), IfExists::Refuse).unwrap();
        let error = RunFolder::open(dir.path(), IfExists::Resume).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{}: another process is training here", dir.path().display())
        );
        drop(first);
        RunFolder::open(dir.path(), IfExists::Resume).unwrap();
    }

    /// The path is named; nothing is left behind.
    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let error = RunFolder::open(&file.join("run"), IfExists::Refuse).unwrap_err();
        assert!(
            error.to_string().starts_with(&file.display().to_string()),
            "{error}"
        );
    }
}
