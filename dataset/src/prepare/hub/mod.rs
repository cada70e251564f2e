//! The Hugging Face Hub: lists a data set's files and brings them into the cache that every Hugging
//! Face tool of this machine shares.
//!
//! `hf-hub` downloads, resumes and names the cache's files. What it leaves out is here: retries of
//! every request, checksums, and the list of files that makes the cache usable without a network.

mod checksum;
mod error;

use std::env;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::Duration;

use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use serde::{Deserialize, Serialize};

use checksum::{check, discard};
pub use error::HubError;

const ENDPOINT: &str = "https://huggingface.co";

/// Branch that is read.
const BRANCH: &str = "main";

/// The list of a branch's files, beside the snapshots in the cache.
const LISTING: &str = "kindling-files.json";

/// Longest wait between two tries.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// How the hub is reached.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// Address of the hub or of a mirror of it.
    pub endpoint: String,
    /// Folder of the cache.
    pub cache_dir: PathBuf,
    /// Token of a user, for data sets that ask for one.
    pub token: Option<String>,
    /// Whether to do with what was downloaded before.
    pub offline: bool,
    /// Tries after the first one that failed.
    pub num_retries: u32,
    /// Wait before the first of them; each further one waits twice as long.
    pub retry_wait: Duration,
    /// Whether to show progress on the terminal.
    pub show_progress: bool,
}

/// The files of a data set at one commit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Listing {
    /// The commit.
    pub(super) revision: String,
    /// Paths within the repository.
    pub(super) files: Vec<String>,
}

/// A hub, and the cache of what came from it.
#[derive(Debug)]
pub struct Hub {
    options: HubOptions,
    api: Api,
    cache: Cache,
}

impl HubOptions {
    /// What the variables of Hugging Face's tools say: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`,
    /// `HF_TOKEN` and `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    ///
    /// [`HubError::NoCache`] if neither they nor a home folder say where the cache is.
    pub fn from_env() -> Result<Self, HubError> {
        let variable = |name| {
            env::var(name)
                .ok()
                .filter(|value: &String| !value.is_empty())
        };
        let home = variable("HF_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(env::home_dir()?.join(".cache/huggingface")));
        let cache_dir = variable("HF_HUB_CACHE").map(PathBuf::from);
        let cache_dir = cache_dir.or_else(|| Some(home?.join("hub")));
        let is_on = |value: String| {
            let value = value.to_ascii_lowercase();
            ["1", "on", "true", "yes"].contains(&value.as_str())
        };
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache_dir: cache_dir.ok_or(HubError::NoCache)?,
            token: variable("HF_TOKEN"),
            offline: variable("HF_HUB_OFFLINE").is_some_and(is_on),
            num_retries: 5,
            retry_wait: Duration::from_secs(1),
            show_progress: true,
        })
    }
}

impl Hub {
    /// Makes the client; nothing is asked yet.
    ///
    /// # Errors
    ///
    /// An address that is none.
    pub fn new(options: HubOptions) -> Result<Self, HubError> {
        let cache = Cache::new(options.cache_dir.clone());
        let mut builder = ApiBuilder::from_cache(cache.clone())
            .with_endpoint(options.endpoint.clone())
            .with_progress(options.show_progress);
        if let Some(token) = &options.token {
            builder = builder.with_token(Some(token.clone()));
        }
        let api = builder.build().map_err(|source| HubError::Client {
            endpoint: options.endpoint.clone(),
            source,
        })?;
        Ok(Self {
            options,
            api,
            cache,
        })
    }

    /// Address of the hub.
    pub fn endpoint(&self) -> &str {
        &self.options.endpoint
    }

    /// The files of a data set.
    pub(super) fn list(&self, repo: &str) -> Result<Listing, HubError> {
        let path = self.listing_path(repo);
        if self.options.offline {
            let listing = fs::read(&path).ok();
            let listing = listing.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            return listing.ok_or_else(|| self.not_cached(repo, "the list of files"));
        }
        let remote = self.api.repo(dataset(repo, BRANCH));
        let RepoInfo { siblings, sha } =
            self.with_retries(repo, "the list of files", || remote.info())?;
        let files = siblings.into_iter().map(|file| file.rfilename);
        let listing = Listing {
            revision: sha,
            // A list from elsewhere must not lead out of the cache.
            files: files.filter(|file| stays_below(file)).collect(),
        };
        let write = || -> io::Result<()> {
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            fs::write(&path, serde_json::to_vec(&listing)?)
        };
        write().map_err(|source| HubError::Cache { path, source })?;
        Ok(listing)
    }

    /// A file in the cache, downloaded if it is not there or not whole.
    pub(super) fn fetch(
        &self,
        repo: &str,
        revision: &str,
        file: &str,
    ) -> Result<PathBuf, HubError> {
        let cached = self.cache.repo(dataset(repo, revision));
        let is_mended = match cached.get(file) {
            Some(path) => match check(&path) {
                Err(HubError::Checksum { .. }) if !self.options.offline => {
                    discard(&path)?;
                    true
                }
                result => return result.map(|()| path),
            },
            None => false,
        };
        if self.options.offline {
            return Err(self.not_cached(repo, file));
        }
        let path = self.download(repo, revision, file)?;
        match check(&path) {
            Err(HubError::Checksum { .. }) if !is_mended => {
                // What a broken download left may have been resumed.
                discard(&path)?;
                let path = self.download(repo, revision, file)?;
                check(&path).map(|()| path)
            }
            result => result.map(|()| path),
        }
    }

    fn download(&self, repo: &str, revision: &str, file: &str) -> Result<PathBuf, HubError> {
        let remote = self.api.repo(dataset(repo, revision));
        self.with_retries(repo, file, || {
            let result = remote.download(file);
            if result.as_ref().is_err_and(is_about_resuming)
                && let Ok(metadata) = self.api.metadata(&remote.url(file))
            {
                let cached = self.cache.repo(dataset(repo, revision));
                let blob = cached.blob_path(metadata.etag());
                let _ = fs::remove_file(blob.with_extension("part"));
            }
            result
        })
    }

    /// Asks until there is an answer that will not change.
    fn with_retries<T>(
        &self,
        repo: &str,
        what: &str,
        mut ask: impl FnMut() -> Result<T, ApiError>,
    ) -> Result<T, HubError> {
        let mut num_tries = 1;
        let mut wait = self.options.retry_wait;
        loop {
            let source = match ask() {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let (endpoint, repo) = (self.options.endpoint.clone(), repo.to_owned());
            let what = what.to_owned();
            match status_of(&source) {
                // A time-out, a broken part and a limit of requests may pass.
                Some(status @ 400..500) if ![408, 416, 429].contains(&status) => {
                    return Err(HubError::Refused {
                        endpoint,
                        repo,
                        what,
                        status,
                    });
                }
                _ if num_tries > self.options.num_retries => {
                    return Err(HubError::Download {
                        endpoint,
                        repo,
                        what,
                        num_tries,
                        source,
                    });
                }
                _ => {}
            }
            thread::sleep(wait);
            wait = (2 * wait).min(MAX_WAIT);
            num_tries += 1;
        }
    }

    fn listing_path(&self, repo: &str) -> PathBuf {
        let folder = dataset(repo, BRANCH).folder_name();
        self.options.cache_dir.join(folder).join(LISTING)
    }

    fn not_cached(&self, repo: &str, what: &str) -> HubError {
        HubError::NotCached {
            repo: repo.to_owned(),
            what: what.to_owned(),
            cache_dir: self.options.cache_dir.clone(),
        }
    }
}

fn dataset(repo: &str, revision: &str) -> Repo {
    Repo::with_revision(repo.to_owned(), RepoType::Dataset, revision.to_owned())
}

fn stays_below(file: &str) -> bool {
    let mut components = Path::new(file).components();
    !file.is_empty() && components.all(|component| matches!(component, Component::Normal(_)))
}

/// Status of the answer that an error is about.
fn status_of(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status_of(error),
        _ => None,
    }
}

/// Whether the part of a file that is there already is what is in the way.
fn is_about_resuming(error: &ApiError) -> bool {
    matches!(error, ApiError::InvalidResume) || status_of(error) == Some(416)
}
