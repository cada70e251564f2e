//! A golden's folder that a test may change and break.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::prelude::*;
use model::CausalLm;
use model::hf::{HfError, load_model};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::{Recorded, golden, recorded};

/// A golden's folder that a test may break.
pub(crate) struct FolderCopy(TempDir);

impl FolderCopy {
    pub(crate) fn of(name: &str) -> Self {
        let dir = TempDir::new().unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(golden(name).join(file), dir.path().join(file)).unwrap();
        }
        Self(dir)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    pub(crate) fn load(&self) -> Result<CausalLm, HfError> {
        load_model(self.0.path(), &Device::flex())
    }

    /// The whole chain of messages, without the temporary folder's name.
    pub(crate) fn error(&self) -> String {
        let error = self.load().unwrap_err();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        let dir = self.0.path().display().to_string();
        text.replace(&format!("{dir}/"), "").replace(&dir, "")
    }

    pub(crate) fn tensors(&self) -> BTreeMap<String, Recorded> {
        recorded(&self.path("model.safetensors"))
    }

    pub(crate) fn write(&self, tensors: &BTreeMap<String, Recorded>) {
        write_tensors(
            &self.path("model.safetensors"),
            tensors,
            Dtype::F32,
            f32::to_le_bytes,
        );
    }

    pub(crate) fn write_halves(
        &self,
        tensors: &BTreeMap<String, Recorded>,
        dtype: Dtype,
        bytes_of: fn(f32) -> [u8; 2],
    ) {
        write_tensors(&self.path("model.safetensors"), tensors, dtype, bytes_of);
    }

    pub(crate) fn write_json(&self, file: &str, value: &Value) {
        fs::write(self.path(file), value.to_string()).unwrap();
    }

    pub(crate) fn split_in_two(&self) {
        let mut first = self.tensors();
        let middle = first.keys().nth(first.len() / 2).unwrap().clone();
        let second = first.split_off(&middle);
        let mut weight_map = BTreeMap::new();
        for (file, tensors) in [
            ("first.safetensors", &first),
            ("second.safetensors", &second),
        ] {
            write_tensors(&self.path(file), tensors, Dtype::F32, f32::to_le_bytes);
            weight_map.extend(tensors.keys().map(|name| (name, file)));
        }
        self.write_json(
            "model.safetensors.index.json",
            &json!({ "weight_map": weight_map }),
        );
        fs::remove_file(self.path("model.safetensors")).unwrap();
    }
}

fn write_tensors<const N: usize>(
    path: &Path,
    tensors: &BTreeMap<String, Recorded>,
    dtype: Dtype,
    bytes_of: fn(f32) -> [u8; N],
) {
    let bytes: Vec<Vec<u8>> = tensors
        .values()
        .map(|tensor| {
            tensor
                .values
                .iter()
                .flat_map(|value| bytes_of(*value))
                .collect()
        })
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, tensor), bytes)| {
        (
            name,
            TensorView::new(dtype, tensor.shape.clone(), bytes).unwrap(),
        )
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

pub(crate) fn read_json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}
