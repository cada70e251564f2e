//! What the hub can refuse, and what can be wrong with what it gave.

use std::io;
use std::path::PathBuf;

use hf_hub::api::sync::ApiError;

/// Why the hub does not give a file.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Nothing says where the cache is.
    #[error("found no home folder for the cache of downloads, expected HF_HOME or HOME to be set")]
    NoCache,
    /// The client cannot be made.
    #[error("{endpoint}: cannot be used as a hub")]
    Client {
        /// Address of the hub.
        endpoint: String,
        /// What is wrong with it.
        source: ApiError,
    },
    /// The hub does not have it, or not for everyone.
    #[error(
        "{endpoint}/datasets/{repo}: {what} was refused with status {status}, expected a data set \
         that is there and open, or HF_TOKEN to be set to a token that may read it"
    )]
    Refused {
        /// Address of the hub.
        endpoint: String,
        /// Data set.
        repo: String,
        /// What was asked for.
        what: String,
        /// Status of the answer.
        status: u16,
    },
    /// Every try failed.
    #[error(
        "{endpoint}/datasets/{repo}: {what} could not be downloaded in {num_tries} tries \
         (HF_ENDPOINT names a mirror, --from a folder of files)"
    )]
    Download {
        /// Address of the hub.
        endpoint: String,
        /// Data set.
        repo: String,
        /// What was asked for.
        what: String,
        /// How often it was asked for.
        num_tries: u32,
        /// What became of the last try.
        source: ApiError,
    },
    /// Nothing may be downloaded, and the cache does not have it.
    #[error("{repo}: {what} is not in the cache {}, expected it there because of offline mode", cache_dir.display())]
    NotCached {
        /// Data set.
        repo: String,
        /// What was asked for.
        what: String,
        /// Folder of the cache.
        cache_dir: PathBuf,
    },
    /// The file is not the one that the hub has.
    #[error("{}: the checksum is {found}, expected {expected}", path.display())]
    Checksum {
        /// File in the cache.
        path: PathBuf,
        /// Checksum of its bytes.
        found: String,
        /// Checksum by the hub.
        expected: String,
    },
    /// The cache cannot be read or written.
    #[error("{}: cannot be used as a cache", path.display())]
    Cache {
        /// File or folder of the cache.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}
