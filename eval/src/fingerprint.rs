//! What identifies a model folder: results belong to one set of weights.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Why a folder cannot be identified.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot be read", path.display())]
pub struct FingerprintError {
    path: PathBuf,
    source: io::Error,
}

/// First 16 digits of a SHA-256 over the folder's weights, config and tokenizer.
///
/// # Errors
///
/// A folder or file that cannot be read.
pub fn model_fingerprint(dir: &Path) -> Result<String, FingerprintError> {
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| FingerprintError { path, source }
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(error(dir))? {
        let path = entry.map_err(error(dir))?.path();
        let ending = path.extension().unwrap_or_default();
        if path.is_file() && ENDINGS.iter().any(|known| ending == *known) {
            files.push(path);
        }
    }
    files.sort();
    let mut hash = Sha256::new();
    for path in files {
        let name = path.file_name().unwrap_or_default();
        hash.update(name.as_encoded_bytes());
        hash.update([0]);
        let mut file = File::open(&path).map_err(error(&path))?;
        io::copy(&mut file, &mut HashWriter(&mut hash)).map_err(error(&path))?;
    }
    Ok(first_digits(hash))
}

/// First 16 digits of a SHA-256 over all that `Debug` shows of what a model is asked.
pub fn data_fingerprint(data: &impl Debug) -> String {
    let mut hash = Sha256::new();
    write!(HashWriter(&mut hash), "{data:?}").expect("a hash takes whatever it is given");
    first_digits(hash)
}

fn first_digits(hash: Sha256) -> String {
    let digest = hash.finalize();
    let digits = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
    digits.collect()
}

/// Endings of the files that decide what a model says.
const ENDINGS: [&str; 5] = ["safetensors", "json", "bin", "pth", "jinja"];

/// Lets `io::copy` and `write!` hash in pieces.
struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
