//! Content hashes of source files, remembered so that a file is read again only if it changed.
//!
//! A remembered hash counts if the file at the path has the same size, time of modification and, on
//! Unix, inode and time of status change, which no program can set. A file that was changed in the
//! moment before it was hashed is not remembered: a second change could carry the same times.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{CacheError, hex};

const FILE: &str = "hashes.json";

/// Number of times that hashes were written: threads of one process write to names of their own.
static SAVES: AtomicU64 = AtomicU64::new(0);

/// Coarsest clock of a file system in use (FAT: two seconds).
const CLOCK: Duration = Duration::from_secs(2);

/// State of a file that changes whenever its content does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    size: u64,
    modified_nanos: u64,
    #[serde(default)]
    inode: u64,
    #[serde(default)]
    changed_nanos: i64,
}

impl Stamp {
    pub(super) fn of(path: &Path) -> Result<Self, CacheError> {
        let metadata = fs::metadata(path).map_err(CacheError::io(path, "read"))?;
        let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
        let (inode, changed_nanos) = unix_stamp(&metadata);
        Ok(Self {
            size: metadata.len(),
            modified_nanos: nanos(modified),
            inode,
            changed_nanos,
        })
    }

    fn is_settled(&self) -> bool {
        nanos(SystemTime::now()) > self.modified_nanos + CLOCK.as_nanos() as u64
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64
}

#[cfg(unix)]
fn unix_stamp(metadata: &Metadata) -> (u64, i64) {
    use std::os::unix::fs::MetadataExt;
    let nanos = metadata.ctime().saturating_mul(1_000_000_000) + metadata.ctime_nsec();
    (metadata.ino(), nanos)
}

#[cfg(not(unix))]
fn unix_stamp(_metadata: &Metadata) -> (u64, i64) {
    (0, 0)
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    stamp: Stamp,
    sha256: String,
}

/// The remembered hashes of one cache folder.
#[derive(Debug)]
pub(super) struct ContentHashes {
    path: PathBuf,
    entries: BTreeMap<PathBuf, Entry>,
}

impl ContentHashes {
    /// Reads what is remembered; a file that does not parse is as good as none.
    pub(super) fn load(cache_dir: &Path) -> Self {
        let path = cache_dir.join(FILE);
        let entries = fs::read(&path)
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .unwrap_or_default();
        Self { path, entries }
    }

    /// The remembered hash of a file that has not changed since.
    pub(super) fn remembered(&self, path: &Path) -> Result<Option<String>, CacheError> {
        let stamp = Stamp::of(path)?;
        let entry = self.entries.get(&absolute(path));
        Ok(entry
            .filter(|entry| entry.stamp == stamp)
            .map(|entry| entry.sha256.clone()))
    }

    /// Reads a file to its end and remembers its hash; `progress` is told of every block's size.
    pub(super) fn compute(
        &mut self,
        path: &Path,
        mut progress: impl FnMut(u64),
    ) -> Result<String, CacheError> {
        let read_error = |source| CacheError::io(path, "read")(source);
        let stamp = Stamp::of(path)?;
        let mut reader = File::open(path).map_err(read_error)?;
        let mut block = vec![0; 1 << 20];
        let mut hasher = Sha256::new();
        loop {
            let len = reader.read(&mut block).map_err(read_error)?;
            if len == 0 {
                break;
            }
            hasher.update(&block[..len]);
            progress(len as u64);
        }
        if Stamp::of(path)? != stamp {
            return Err(CacheError::Changed {
                path: path.to_owned(),
            });
        }
        let sha256 = hex(&hasher.finalize());
        if stamp.is_settled() {
            let entry = Entry {
                stamp,
                sha256: sha256.clone(),
            };
            self.entries.insert(absolute(path), entry);
        }
        Ok(sha256)
    }

    /// Writes what is remembered, as a whole; of two that write at once the later one stays, which
    /// costs a reading at worst.
    pub(super) fn save(&self) -> Result<(), CacheError> {
        let json = serde_json::to_vec_pretty(&self.entries).expect("hashes are plain JSON");
        let save = SAVES.fetch_add(1, Ordering::Relaxed);
        let temporary = self
            .path
            .with_extension(format!("{}.{save}.tmp", std::process::id()));
        fs::write(&temporary, json).map_err(CacheError::io(&temporary, "written"))?;
        fs::rename(&temporary, &self.path).map_err(CacheError::io(&self.path, "written"))
    }
}

fn absolute(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(path: &Path, secs: u64) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(secs))
            .unwrap();
    }

    /// sha256 of "abc", from FIPS 180-4's example.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    /// A settled file's hash is remembered across loads, and a change of its bytes is noticed even
    /// if its size and its time of modification stay.
    #[test]
    #[cfg(unix)]
    fn a_remembered_hash_does_not_outlive_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, "abc").unwrap();
        age(&path, 100);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();

        let mut hashes = ContentHashes::load(folder.path());
        assert_eq!(hashes.compute(&path, |_| {}).unwrap(), ABC);
        hashes.save().unwrap();
        let hashes = ContentHashes::load(folder.path());
        assert_eq!(hashes.remembered(&path).unwrap().as_deref(), Some(ABC));

        std::thread::sleep(Duration::from_millis(20));
        fs::write(&path, "abd").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(modified).unwrap();
        assert_eq!(hashes.remembered(&path).unwrap(), None);
    }

    /// Within the clock's tick two contents can have the same times, so nothing is remembered.
    #[test]
    fn a_file_changed_just_before_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, "abc").unwrap();
        let mut hashes = ContentHashes::load(folder.path());
        assert_eq!(hashes.compute(&path, |_| {}).unwrap(), ABC);
        assert_eq!(hashes.remembered(&path).unwrap(), None);
    }
}
