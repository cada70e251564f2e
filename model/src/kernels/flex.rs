//! The seam to Burn's Flex backend: which tensors the fused bodies take, and their memory as slices.

use burn::backend::{DispatchDevice, TensorMetadata};
use burn::tensor::{DType, Shape, Tensor};
use burn_flex::{FlexTensor, Layout};

use super::{is_f32_on, is_on};

/// Elements a parallel task handles at least: below this, handing out work costs more than it saves.
///
/// Chunks are of fixed size, whatever the number of threads, so that results never depend on it.
pub(crate) const CHUNK_ELEMENTS: usize = 1 << 14;

/// Whether the fused body for the CPU can take this tensor: f32 on Flex, tracked or not.
pub(crate) fn is_flex_f32<const R: usize>(x: &Tensor<R>) -> bool {
    is_f32_on(x, |device| matches!(device, DispatchDevice::Flex(_)))
}

/// Whether the fused body for the CPU can take this operand of a product: f32, bf16 or
/// f16 on Flex.
pub(crate) fn is_flex_operand<const R: usize>(x: &Tensor<R>) -> bool {
    is_on(x, |device| matches!(device, DispatchDevice::Flex(_)))
        && matches!(x.dtype(), DType::F32 | DType::BF16 | DType::F16)
}

/// The same elements in one row-major run; copies only when they are not.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    let run = tensor.to_contiguous();
    // The first handle must go before the caller asks whether it owns the memory alone.
    drop(tensor);
    run
}

/// A vector of `length` elements for a kernel that writes every one of them.
///
/// Zeroing first would cost a pass over memory per operation, an eighth of a training step.
#[expect(
    unsafe_code,
    clippy::uninit_vec,
    reason = "every caller writes all elements first"
)]
pub(crate) fn unzeroed(length: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(length);
    // SAFETY: the capacity is `length`, any bits are an f32, and callers write before they read.
    unsafe {
        values.set_len(length);
    }
    values
}

/// A tensor that owns `values`.
pub(crate) fn tensor_of(values: Vec<f32>, shape: Shape) -> FlexTensor {
    assert_eq!(values.len(), shape.num_elements(), "elements of the shape");
    FlexTensor::new(
        burn::tensor::Bytes::from_elems(values),
        Layout::contiguous(shape),
        DType::F32,
    )
}

/// Sizes of the axes.
pub(crate) fn dims<const R: usize>(tensor: &FlexTensor) -> [usize; R] {
    tensor.shape().dims()
}

/// Elements of an int tensor as indices into something with `limit` rows.
///
/// # Panics
///
/// When an element is negative or not below `limit`; `what` names the elements.
pub(crate) fn indices(tensor: &FlexTensor, limit: usize, what: &str) -> Vec<usize> {
    let check = |value: i64| match usize::try_from(value) {
        Ok(index) if index < limit => index,
        _ => panic!("{what}: found {value}, expected 0 to {}", limit - 1),
    };
    integers(tensor).into_iter().map(check).collect()
}

/// Elements of an int tensor of either width.
pub(crate) fn integers(tensor: &FlexTensor) -> Vec<i64> {
    let run = tensor.to_contiguous();
    match run.dtype() {
        DType::I32 => run
            .storage::<i32>()
            .iter()
            .map(|value| i64::from(*value))
            .collect(),
        DType::I64 => run.storage::<i64>().to_vec(),
        dtype => panic!("integers: found {dtype:?}, expected i32 or i64"),
    }
}

/// Multiplies every element by `factor`.
pub(crate) fn scale_in_place(values: &mut [f32], factor: f32) {
    use rayon::prelude::*;
    if factor.to_bits() == 1.0_f32.to_bits() {
        return;
    }
    // A plain loop: the compiler's baseline vectors already saturate memory here.
    values.par_chunks_mut(CHUNK_ELEMENTS).for_each(|chunk| {
        for value in chunk {
            *value *= factor;
        }
    });
}
