//! Weights and optimizer memory as safetensors files, one f32 tensor per name, written as a stream.
//!
//! Names are the parameters' paths in the model (`layers.0.mlp.up_proj.weight`); the optimizer adds
//! `.moment_1`, `.moment_2` or `.velocity`. Only one tensor at a time is copied to the host. Of a
//! model with adapters only those are kept: everything else is as it was in the start's folder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::DType;
use model::CausalLm;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::optimizer::{Optimizer, ParamState};

const MOMENT_1: &str = "moment_1";
const MOMENT_2: &str = "moment_2";
const VELOCITY: &str = "velocity";

/// Why a file of tensors could not be written or taken over.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be written or read.
    #[error("the file cannot be written or read")]
    Io(#[from] io::Error),
    /// The file is no safetensors file.
    #[error("not a safetensors file")]
    Format(#[from] safetensors::SafeTensorError),
    /// The model has a parameter that the file lacks.
    #[error("{name}: missing from the file")]
    Missing {
        /// Path of the parameter.
        name: String,
    },
    /// The file has a tensor that the model lacks.
    #[error("{name}: not a tensor of this model")]
    Unknown {
        /// Name in the file.
        name: String,
    },
    /// Both have it, in different shapes or types.
    #[error("{name}: found {found}, expected {expected}")]
    Shape {
        /// Name in the file.
        name: String,
        /// Type and shape in the file.
        found: String,
        /// Type and shape in the model.
        expected: String,
    },
}

/// Writes a model's parameters; returns the file's SHA-256.
pub(crate) fn save_model<M: Module>(path: &Path, model: &M) -> Result<String, WeightsError> {
    write_tensors(path, trained_tensors(model))
}

/// SHA-256 of a model's shape and of all its parameters but adapters: of what training adapters, or
/// learning from the model, takes as given.
pub(crate) fn fingerprint(model: &CausalLm) -> String {
    let shape = serde_json::to_vec(model.config()).expect("a config is strings and numbers");
    let mut fingerprinter = Fingerprinter {
        path: Vec::new(),
        hasher: Sha256::new_with_prefix(shape),
    };
    model.visit(&mut fingerprinter);
    hex(&fingerprinter.hasher.finalize())
}

/// Walk over a model that hashes what adapters leave as it is.
struct Fingerprinter {
    path: Vec<String>,
    hasher: Sha256,
}

impl ModuleVisitor for Fingerprinter {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.join(".");
        if !is_adapter(&name) {
            self.hasher.update(name.as_bytes());
            let data = param.val().into_data().convert::<f32>();
            self.hasher.update(data.as_bytes());
        }
    }
}

/// A model's parameters but those that adapters keep frozen.
fn trained_tensors<M: Module>(model: &M) -> Vec<NamedTensor> {
    let mut collector = Collector::default();
    model.visit(&mut collector);
    let mut tensors = collector.tensors;
    if tensors.iter().any(|tensor| is_adapter(&tensor.name)) {
        tensors.retain(|tensor| is_adapter(&tensor.name));
    }
    tensors
}

fn is_adapter(name: &str) -> bool {
    name.contains(".adapters.")
}

/// Writes an optimizer's memory; returns the file's SHA-256.
pub(crate) fn save_optimizer(path: &Path, optimizer: &Optimizer) -> Result<String, WeightsError> {
    let mut tensors = Vec::new();
    let mut push = |path: &str, name: &str, shape: Vec<usize>, values: Tensor<1>| {
        tensors.push(NamedTensor {
            name: format!("{path}.{name}"),
            shape,
            values,
        });
    };
    for (path, state) in &optimizer.states {
        match state {
            ParamState::AdamW { moment_1, moment_2 } => {
                push(path, MOMENT_1, moment_1.dims().to_vec(), moment_1.clone());
                push(path, MOMENT_2, moment_2.dims().to_vec(), moment_2.clone());
            }
            ParamState::Muon { velocity } => {
                let [rows, cols] = velocity.dims();
                let values = velocity.clone().reshape([rows * cols]); // [rows * cols]
                push(path, VELOCITY, vec![rows, cols], values);
            }
        }
    }
    write_tensors(path, tensors)
}

/// The model with the trained parameters of a file, each of which must be there and nothing else.
pub(crate) fn load_model<M: Module>(path: &Path, model: M) -> Result<M, WeightsError> {
    let bytes = fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let mut loader = Loader {
        file: &file,
        only_adapters: parameter_sizes(&model).keys().any(|name| is_adapter(name)),
        path: Vec::new(),
        num_taken: 0,
        error: None,
    };
    let model = model.map(&mut loader);
    if let Some(error) = loader.error {
        return Err(error);
    }
    if loader.num_taken < file.len() {
        let shapes = parameter_sizes(&model);
        let name = file
            .names()
            .into_iter()
            .find(|name| !shapes.contains_key(*name));
        return Err(WeightsError::Unknown {
            name: name.unwrap_or_default().to_owned(),
        });
    }
    Ok(model)
}

/// Gives an optimizer the memory of a file.
pub(crate) fn load_optimizer<M: Module>(
    path: &Path,
    optimizer: &mut Optimizer,
    model: &M,
    device: &Device,
) -> Result<(), WeightsError> {
    let bytes = fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let sizes = parameter_sizes(model);
    let device = device.clone().inner();
    optimizer.states.clear();
    for name in file.names() {
        let unknown = || WeightsError::Unknown {
            name: name.to_owned(),
        };
        let (param, kind) = name.rsplit_once('.').ok_or_else(unknown)?;
        let size = *sizes.get(param).ok_or_else(unknown)?;
        let state = match kind {
            MOMENT_1 => ParamState::AdamW {
                moment_1: flat(&file, name, size, &device)?,
                moment_2: flat(&file, &format!("{param}.{MOMENT_2}"), size, &device)?,
            },
            MOMENT_2 => continue,
            VELOCITY => {
                let dims: [usize; 2] = file
                    .tensor(name)?
                    .shape()
                    .try_into()
                    .map_err(|_| unknown())?;
                ParamState::Muon {
                    velocity: flat(&file, name, size, &device)?.reshape(dims),
                }
            }
            _ => return Err(unknown()),
        };
        optimizer.states.insert(param.to_owned(), state);
    }
    Ok(())
}

/// A tensor on its way into a file.
struct NamedTensor {
    name: String,
    shape: Vec<usize>,
    values: Tensor<1>,
}

/// Walk over a model that notes its parameters under their paths.
#[derive(Default)]
struct Collector {
    path: Vec<String>,
    tensors: Vec<NamedTensor>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val().inner();
        let shape = tensor.dims().to_vec();
        let values = tensor.reshape([shape.iter().product::<usize>()]); // [n]
        self.tensors.push(NamedTensor {
            name: self.path.join("."),
            shape,
            values,
        });
    }
}

/// Number of elements of each trained parameter, by its path.
fn parameter_sizes<M: Module>(model: &M) -> BTreeMap<String, usize> {
    trained_tensors(model)
        .into_iter()
        .map(|tensor| (tensor.name, tensor.shape.iter().product()))
        .collect()
}

/// Walk over a model that replaces its parameters by those of a file.
struct Loader<'a> {
    file: &'a SafeTensors<'a>,
    only_adapters: bool,
    path: Vec<String>,
    num_taken: usize,
    error: Option<WeightsError>,
}

impl ModuleMapper for Loader<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return param;
        }
        let name = self.path.join(".");
        if self.only_adapters && !is_adapter(&name) {
            return param;
        }
        let (id, tensor, mapper) = param.consume();
        let loaded = match read(self.file, &name, &tensor.dims()) {
            Ok(bytes) => {
                self.num_taken += 1;
                let data = TensorData::from_bytes_vec(bytes, tensor.dims(), DType::F32);
                Tensor::from_data(data, &tensor.device()).set_require_grad(tensor.is_require_grad())
            }
            Err(error) => {
                self.error = Some(error);
                tensor
            }
        };
        Param::from_mapped_value(id, loaded, mapper)
    }
}

/// Values of a tensor of so many elements, as `[size]`.
fn flat(
    file: &SafeTensors<'_>,
    name: &str,
    size: usize,
    device: &Device,
) -> Result<Tensor<1>, WeightsError> {
    let shape = match file.tensor(name) {
        Ok(view) if view.shape().iter().product::<usize>() == size => view.shape().to_vec(),
        _ => vec![size],
    };
    let bytes = read(file, name, &shape)?;
    Ok(Tensor::from_data(
        TensorData::from_bytes_vec(bytes, [size], DType::F32),
        device,
    ))
}

/// Bytes of a tensor that must be f32 and of a shape.
fn read(file: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Vec<u8>, WeightsError> {
    let view = file.tensor(name).map_err(|_| WeightsError::Missing {
        name: name.to_owned(),
    })?;
    if view.dtype() != Dtype::F32 || view.shape() != shape {
        return Err(WeightsError::Shape {
            name: name.to_owned(),
            found: format!("{:?} {:?}", view.dtype(), view.shape()),
            expected: format!("F32 {shape:?}"),
        });
    }
    Ok(view.data().to_vec())
}

/// Writes tensors in their order, in the safetensors layout; returns the file's SHA-256.
fn write_tensors(path: &Path, tensors: Vec<NamedTensor>) -> Result<String, WeightsError> {
    let mut header = Map::new();
    let mut end = 0;
    for tensor in &tensors {
        let begin = end;
        end += tensor.shape.iter().product::<usize>() * size_of::<f32>();
        let entry = json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [begin, end]});
        header.insert(tensor.name.clone(), entry);
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut file = HashingWriter {
        file: BufWriter::new(File::create(path)?),
        hasher: Sha256::new(),
    };
    file.write(&(header.len() as u64).to_le_bytes())?;
    file.write(&header)?;
    for tensor in tensors {
        let data = tensor.values.into_data().convert::<f32>();
        file.write(data.as_bytes())?;
    }
    file.finish()
}

/// A file whose SHA-256 is taken while it is written.
struct HashingWriter {
    file: BufWriter<File>,
    hasher: Sha256,
}

impl HashingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }

    /// Brings the file to the disk.
    fn finish(self) -> Result<String, WeightsError> {
        self.file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        Ok(hex(&self.hasher.finalize()))
    }
}

/// Bytes as lower-case hexadecimal digits.

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).expect("four bits are one digit");
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}
