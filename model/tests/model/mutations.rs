//! Ten thousand damaged files: whatever is in them, reading ends in a model or an error.

use std::fs;
use std::path::Path;

use burn::prelude::Device;
use model::gguf::{GgufFile, GgufType, write_gguf};
use model::hf::load_model;
use model::import::ForeignModel;
use model::listing::list_tensors;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tempfile::TempDir;

use crate::fixture::golden;

/// Mutations of each file.
const NUM_MUTATIONS: u64 = 2_500;

/// One to four changes: a byte, a number made huge or negative, a piece cut out, doubled or gone from
/// the end on.
fn mutated(original: &[u8], seed: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut bytes = original.to_vec();
    for _ in 0..rng.random_range(1..=4) {
        if bytes.is_empty() {
            return bytes;
        }
        // Headers are small, and most of what can go wrong is in them.
        let end = if rng.random() {
            bytes.len()
        } else {
            bytes.len().min(256)
        };
        let at = rng.random_range(0..end);
        let len = rng.random_range(1..=16).min(bytes.len() - at);
        match rng.random_range(0..6) {
            0 => bytes[at] = rng.random(),
            1 => bytes[at..at + len].fill(0xff),
            2 => bytes[at..at + len].fill(0),
            3 => drop(bytes.drain(at..at + len)),
            4 => {
                let piece = bytes[at..at + len].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Reads mutations of a file; says how many were still models.
fn survivors(original: &Path, read: impl Fn(&Path) -> bool) -> u64 {
    let bytes = fs::read(original).unwrap();
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(original.file_name().unwrap());
    let is_read = |seed: &u64| {
        fs::write(&path, mutated(&bytes, *seed)).unwrap();
        read(&path)
    };
    (0..NUM_MUTATIONS).filter(is_read).count() as u64
}

fn imports(path: &Path) -> bool {
    let settings = [("num_attention_heads".to_owned(), json!(2))];
    // Listing takes another way through the same file.
    let listed = list_tensors(path, |_| {});
    let model =
        ForeignModel::read(path).and_then(|file| file.into_model(&settings, &Device::flex()));
    model.is_ok() && listed.is_ok()
}

/// Neither file is read whatever is in it, nor refused whatever is in it.
#[test]
fn damaged_pytorch_files_are_models_or_errors() {
    for name in ["head", "third"] {
        let num_read = survivors(&golden("pth").join(format!("{name}.pth")), imports);
        assert!((1..NUM_MUTATIONS).contains(&num_read), "{name}: {num_read}");
    }
}

/// A file of some hundred numbers.
#[test]
fn damaged_llama2c_files_are_models_or_errors() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("tiny.bin");
    let sizes = [8, 16, 1, 2, 1, 24, 16_i32];
    let num_floats = 24 * 8 + 8 + 8 * 8 + 4 * 8 + 4 * 8 + 8 * 8 + 8 + 3 * 16 * 8 + 8 + 2 * 16 * 2;
    let mut bytes: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
    bytes.extend((0..num_floats).flat_map(|i| (i as f32 / 1e3).to_le_bytes()));
    fs::write(&path, bytes).unwrap();
    let num_read = survivors(&path, imports_llama2c);
    assert!((1..NUM_MUTATIONS).contains(&num_read), "{num_read}");
}

fn imports_llama2c(path: &Path) -> bool {
    let model = ForeignModel::read(path).and_then(|file| file.into_model(&[], &Device::flex()));
    model.is_ok()
}

#[test]
fn damaged_gguf_files_are_listed_or_errors() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("tiny.gguf");
    let model = load_model(&golden("pth").join("head"), &Device::flex()).unwrap();
    write_gguf(&model, GgufType::F16, &[], &path).unwrap();
    let num_read = survivors(&path, |path| {
        let file = GgufFile::read(path);
        file.is_ok_and(|file| {
            let lens = file
                .tensors
                .iter()
                .map(|tensor| file.bytes_of(tensor).len());
            lens.sum::<usize>() <= 1 << 24
        })
    });
    assert!((1..NUM_MUTATIONS).contains(&num_read), "{num_read}");
}
