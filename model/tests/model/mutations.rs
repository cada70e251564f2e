//! Ten thousand damaged files: whatever is in them, reading ends in a model or an error.
//!
//! KINDLING_MUTATIONS=10000 damages each of the eight files so often.

use std::path::Path;
use std::{env, fs};

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

/// Mutations of each file, unless the environment says another number.
fn num_mutations() -> u64 {
    let number = env::var("KINDLING_MUTATIONS").map(|number| number.parse().unwrap());
    number.unwrap_or(1_250)
}

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

/// Reads mutations of a file. Neither is it read whatever is in it, nor refused whatever is in it.
fn damage(original: &Path, read: impl Fn(&Path) -> bool) {
    let bytes = fs::read(original).unwrap();
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(original.file_name().unwrap());
    let is_read = |seed: &u64| {
        fs::write(&path, mutated(&bytes, *seed)).unwrap();
        read(&path)
    };
    let num_read = (0..num_mutations()).filter(is_read).count() as u64;
    let is_some = (1..num_mutations()).contains(&num_read);
    assert!(is_some, "{}: {num_read}", original.display());
}

fn imports(path: &Path) -> bool {
    let settings = [("num_attention_heads".to_owned(), json!(2))];
    // Listing takes another way through the same file.
    let listed = list_tensors(path, |_| {});
    let model =
        ForeignModel::read(path).and_then(|file| file.into_model(&settings, &Device::flex()));
    model.is_ok() && listed.is_ok()
}

#[test]
fn damaged_pytorch_files_are_models_or_errors() {
    for name in ["v1.pth", "head.pth", "third.pth"] {
        damage(&golden("pth").join(name), imports);
    }
}

/// Files of some hundred numbers, of the version without a magic number and of the next one.
#[test]
fn damaged_llama2c_files_are_models_or_errors() {
    let dir = TempDir::new().unwrap();
    let sizes = [8, 16, 1, 2, 1, 24, 16_i32];
    let sizes: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
    let num_floats = 24 * 8 + 8 + 8 * 8 + 4 * 8 + 4 * 8 + 8 * 8 + 8 + 3 * 16 * 8 + 8;
    let floats = |count: usize| (0..count).flat_map(|i| (i as f32 / 1e3).to_le_bytes());

    let path = dir.path().join("version_0.bin");
    let rotations = 2 * 16 * 2;
    let numbers: Vec<u8> = floats(num_floats + rotations).collect();
    fs::write(&path, [sizes.as_slice(), &numbers].concat()).unwrap();
    damage(&path, imports_llama2c);

    let path = dir.path().join("version_1.bin");
    let mut bytes = [b"24ka".as_slice(), &1_u32.to_le_bytes(), &sizes, &[1]].concat();
    bytes.resize(256, 0);
    bytes.extend(floats(num_floats));
    fs::write(&path, bytes).unwrap();
    damage(&path, imports_llama2c);
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
    damage(&path, |path| {
        let file = GgufFile::read(path);
        file.is_ok_and(|file| {
            let lens = file
                .tensors
                .iter()
                .map(|tensor| file.bytes_of(tensor).len());
            lens.sum::<usize>() <= 1 << 24
        })
    });
}

/// The weights beside a sound config, and a config beside sound weights.
#[test]
fn damaged_folders_are_models_or_errors() {
    let folder = golden("pth").join("head");
    for [damaged, sound] in [
        ["model.safetensors", "config.json"],
        ["config.json", "model.safetensors"],
    ] {
        damage(&folder.join(damaged), |path| {
            fs::copy(folder.join(sound), path.with_file_name(sound)).unwrap();
            load_model(path.parent().unwrap(), &Device::flex()).is_ok()
        });
    }
}
