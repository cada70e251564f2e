//! Whether a file of the cache is the one that the hub has.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::HubError;
use crate::cache::hex;

/// Compares a file with the checksum that is its name in the cache: SHA-256 of large files, git's
/// SHA-1 of small ones.
pub(super) fn check(path: &Path) -> Result<(), HubError> {
    let fault = |source| HubError::Cache {
        path: path.to_owned(),
        source,
    };
    let blob = fs::canonicalize(path).map_err(fault)?;
    let name = blob.file_name().and_then(|name| name.to_str());
    let expected = name.unwrap_or_default();
    let is_hex = expected.bytes().all(|byte| byte.is_ascii_hexdigit());
    let found = match expected.len() {
        64 if is_hex => digest(&blob, Sha256::new()),
        40 if is_hex => {
            let len = fs::metadata(&blob).map_err(fault)?.len();
            digest(&blob, Sha1::new_with_prefix(format!("blob {len}\0")))
        }
        // Where links are not to be had, files have their own names.
        _ => return Ok(()),
    };
    let found = found.map_err(fault)?;
    if found == expected {
        return Ok(());
    }
    Err(HubError::Checksum {
        path: path.to_owned(),
        found,
        expected: expected.to_owned(),
    })
}

fn digest(path: &Path, mut hash: impl Digest) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            len => hash.update(&buffer[..len]),
        }
    }
}

/// Removes a file of the cache and what it points to.
pub(super) fn discard(path: &Path) -> Result<(), HubError> {
    let fault = |source| HubError::Cache {
        path: path.to_owned(),
        source,
    };
    let blob = fs::canonicalize(path).map_err(fault)?;
    fs::remove_file(&blob).map_err(fault)?;
    if path != blob {
        fs::remove_file(path).map_err(fault)?;
    }
    Ok(())
}
