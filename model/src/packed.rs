//! Weights in fewer bits, for inference on the CPU: a token's cost is reading them once.
//!
//! Source for int8: Dettmers et al. 2022, arXiv:2208.07339, section 2.1 (absmax, one scale per
//! output); only weights are packed, activations and sums stay f32.
//!
//! Axis letters: `I` inputs, `O` outputs.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use burn::prelude::*;
use half::bf16;

use crate::kernels::packed_product;

/// How weight matrices are held for inference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightType {
    /// As they were trained.
    #[default]
    F32,
    /// The upper half of an f32: 8 bits of precision, half the memory.
    Bf16,
    /// Whole numbers from -127 to 127 with a scale per output, a quarter of the memory.
    Int8,
}

impl fmt::Display for WeightType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

/// A text that names no type of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected f32, bf16 or int8")]
pub struct WeightTypeError;

impl FromStr for WeightType {
    type Err = WeightTypeError;

    fn from_str(text: &str) -> Result<Self, WeightTypeError> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            _ => Err(WeightTypeError),
        }
    }
}

/// A weight matrix in fewer bits, one run of memory per output.
#[derive(Debug, Clone)]
pub struct PackedMatrix {
    values: Arc<PackedValues>,
    inputs: usize,
}

/// `[O, I]`, row by row.
#[derive(Debug)]
pub(crate) enum PackedValues {
    Bf16(Vec<bf16>),
    Int8 {
        values: Vec<i8>,
        /// What a value of each output is multiplied by, `[O]`.
        scales: Vec<f32>,
    },
}

impl PackedMatrix {
    /// Packs a weight `[I, O]`; `None` for [`WeightType::F32`], which is left as it is.
    pub(crate) fn new(weight: &Tensor<2>, weight_type: WeightType) -> Option<Self> {
        let [inputs, _] = weight.dims();
        let by_output = || -> Vec<f32> {
            let data = weight.clone().transpose().into_data(); // [O, I]
            data.convert::<f32>()
                .try_into_vec()
                .expect("the data was converted to f32")
        };
        let values = match weight_type {
            WeightType::F32 => return None,
            WeightType::Bf16 => {
                PackedValues::Bf16(by_output().into_iter().map(bf16::from_f32).collect())
            }
            WeightType::Int8 => {
                let (mut values, mut scales) = (Vec::new(), Vec::new());
                for output in by_output().chunks_exact(inputs) {
                    let scale = output.iter().fold(0.0_f32, |most, x| most.max(x.abs())) / 127.0;
                    scales.push(scale);
                    // All zeros have no scale; whatever they are divided by, they stay zeros.
                    let divisor = if scale > 0.0 { scale } else { 1.0 };
                    values.extend(output.iter().map(|x| (x / divisor).round() as i8));
                }
                PackedValues::Int8 { values, scales }
            }
        };
        Some(Self {
            values: Arc::new(values),
            inputs,
        })
    }

    /// The last axis of `x` times the matrix.
    ///
    /// # Shapes
    ///
    /// - `x`: `[.., I]`
    /// - returns: `[.., O]`
    ///
    /// # Panics
    ///
    /// If the last axis is not `I` long, or gradients are asked for.
    pub(crate) fn product<const R: usize>(&self, x: Tensor<R>) -> Tensor<R> {
        let device = x.device();
        assert!(
            !device.is_autodiff(),
            "packed weights are for inference: call model.valid() first"
        );
        let mut shape = x.dims();
        assert_eq!(shape[R - 1], self.inputs, "last axis of x and inputs");
        let x = x.into_data();
        let out = packed_product(
            x.as_slice().expect("activations are f32"),
            &shape,
            &self.values,
        );
        shape[R - 1] = out.len() * self.inputs / x.num_elements();
        Tensor::from_data(TensorData::new(out, shape), &device)
    }
}
