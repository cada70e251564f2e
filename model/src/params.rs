//! A model's parameters by name: the dotted path of fields that leads to each.
//!
//! Paths are the names that Hugging Face gives the tensors, without its leading `model.`.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::prelude::*;

/// A parameter's name and its values on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedParam {
    /// Such as `layers.0.self_attn.q_proj.weight`.
    pub path: String,
    /// As Burn holds it: a linear weight is `[inputs, outputs]`.
    pub shape: Vec<usize>,
    /// Row by row.
    pub values: Vec<f32>,
}

/// Copies every parameter to the host, in the order of the fields.
pub fn named_params<M: Module>(model: &M) -> Vec<NamedParam> {
    let mut reader = Reader {
        path: Vec::new(),
        params: Vec::new(),
    };
    model.visit(&mut reader);
    reader.params
}

/// Replaces every parameter by the values returned for its path and shape.
///
/// Ids are derived from the paths: Burn draws them at random, and whatever is kept by id
/// (gradients, optimizer state) would come in another order in every process.
///
/// # Errors
///
/// Passes on the first error of `values_of`.
///
/// # Panics
///
/// If `values_of` returns another number of values than the shape has.
pub fn fill_params<M: Module, E>(
    model: M,
    values_of: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, E>,
) -> Result<M, E> {
    let mut writer = Writer {
        path: Vec::new(),
        values_of,
        error: None,
    };
    let model = model.map(&mut writer);
    match writer.error {
        Some(error) => Err(error),
        None => Ok(model),
    }
}

/// FNV-1a of a path: the same number on every machine, unlike the standard hasher.
pub(crate) fn path_hash(path: &str) -> u64 {
    path.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

struct Reader {
    path: Vec<String>,
    params: Vec<NamedParam>,
}

impl ModuleVisitor for Reader {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let shape = value.dims().to_vec();
        let data = value.into_data().convert::<f32>();
        let values = data
            .try_into_vec()
            .expect("the data was just converted to f32");
        self.params.push(NamedParam {
            path: self.path.join("."),
            shape,
            values,
        });
    }
}

struct Writer<F, E> {
    path: Vec<String>,
    values_of: F,
    error: Option<E>,
}

impl<F, E> ModuleMapper for Writer<F, E>
where
    F: FnMut(&str, &[usize]) -> Result<Vec<f32>, E>,
{
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
        let path = self.path.join(".");
        let shape = param.lazy_shape();
        match (self.values_of)(&path, shape.as_slice()) {
            Ok(values) => {
                let data = TensorData::new(values, shape);
                let mut filled = Param::from_data(data, &param.lazy_device());
                filled.id = ParamId::from(path_hash(&path));
                filled
            }
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}
