//! Where a data set's files come from: the hub, or a folder that somebody filled.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::hub::{Hub, HubError};
use super::source::{Part, Source};

/// Folders within folders that are looked into.
const MAX_DEPTH: usize = 4;

/// Where files come from.
#[derive(Debug)]
pub enum Origin {
    /// The Hugging Face Hub, a mirror of it, or what was downloaded before.
    Hub(Box<Hub>),
    /// Files of this machine.
    Folder {
        /// Folder with the data sets' folders in it.
        path: PathBuf,
        /// Whether the folder may be the data set's own, because no other is asked for.
        holds_one: bool,
    },
}

/// Why files are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// The hub does not give them.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A folder cannot be read.
    #[error("{}: cannot be read", path.display())]
    Folder {
        /// Folder that was being read.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The repository or the folders have other files.
    #[error("{name}: found no file of {repo} in {place}")]
    NoFiles {
        /// Data set.
        name: &'static str,
        /// Its repository.
        repo: &'static str,
        /// Where files were looked for.
        place: String,
    },
}

/// The files of a data set.
#[derive(Debug)]
pub(super) struct Found<'a> {
    /// Commit of the hub.
    pub(super) revision: Option<String>,
    /// Paths within the repository, with what they hold, in the order of their names.
    pub(super) files: Vec<(String, Part)>,
    place: Place<'a>,
}

#[derive(Debug)]
enum Place<'a> {
    Hub(&'a Hub, &'static str),
    Folder(PathBuf),
}

impl Origin {
    /// Finds the files of a data set.
    pub(super) fn find(&self, source: &Source) -> Result<Found<'_>, OriginError> {
        let no_files = |place| OriginError::NoFiles {
            name: source.name,
            repo: source.repo,
            place,
        };
        match self {
            Self::Hub(hub) => {
                let listing = hub.list(source.repo)?;
                let files = parts(source, listing.files);
                if files.is_empty() {
                    return Err(no_files(hub.endpoint().to_owned()));
                }
                Ok(Found {
                    revision: Some(listing.revision),
                    files,
                    place: Place::Hub(hub, source.repo),
                })
            }
            Self::Folder { path, holds_one } => {
                let name = source.repo.rsplit('/').next().unwrap_or(source.repo);
                let mut folders = vec![path.join(source.repo), path.join(name)];
                folders.push(path.join(source.name));
                if *holds_one {
                    folders.push(path.clone());
                }
                for folder in &folders {
                    if !folder.is_dir() {
                        continue;
                    }
                    let files = parts(source, files_below(folder)?);
                    if !files.is_empty() {
                        return Ok(Found {
                            revision: None,
                            files,
                            place: Place::Folder(folder.clone()),
                        });
                    }
                }
                let folders = folders.iter().map(|folder| folder.display().to_string());
                Err(no_files(folders.collect::<Vec<_>>().join(" or ")))
            }
        }
    }
}

impl Found<'_> {
    /// A file's place on this machine, where it is brought first if it must be.
    pub(super) fn fetch(&self, file: &str) -> Result<PathBuf, OriginError> {
        match &self.place {
            Place::Hub(hub, repo) => {
                let revision = self.revision.as_deref().unwrap_or_default();
                Ok(hub.fetch(repo, revision, file)?)
            }
            Place::Folder(folder) => Ok(folder.join(file)),
        }
    }
}

fn parts(source: &Source, mut files: Vec<String>) -> Vec<(String, Part)> {
    files.sort();
    let files = files.into_iter();
    files
        .filter_map(|file| (source.part_of)(&file).map(|part| (file, part)))
        .collect()
}

/// Files of a folder and of those in it, as paths with slashes.
pub(super) fn files_below(folder: &Path) -> Result<Vec<String>, OriginError> {
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new(), 0)];
    while let Some((path, prefix, depth)) = folders.pop() {
        let fault = |source| OriginError::Folder {
            path: path.clone(),
            source,
        };
        for entry in fs::read_dir(&path).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let file = format!("{prefix}{name}");
            if !entry.path().is_dir() {
                files.push(file);
            } else if depth < MAX_DEPTH {
                folders.push((entry.path(), format!("{file}/"), depth + 1));
            }
        }
    }
    Ok(files)
}
