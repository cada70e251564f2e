//! Fused operations of the decoder, each with a hand-written backward.
//!
//! One folder per operation: `mod.rs` is the public function with its autodiff, `reference.rs` the
//! same mathematics composed from Burn's operations, `cpu.rs` the fused body for Flex and `cube.rs`,
//! where there is one, for graphics cards. A tensor that no fused body takes (of another type, or on
//! another backend) takes the composed body, so every backend gives the same numbers.

#![expect(
    clippy::inline_always,
    reason = "vector code must be inlined into the one function that has the processor's features"
)]

pub mod adamw;
pub mod cards;
pub mod causal_attention;
pub mod choice;
#[cfg(feature = "cube")]
mod cube;
pub mod experts;
mod flex;
pub mod linear;
pub mod linear_cross_entropy;
mod matmul;
pub mod rms_norm;
pub mod rotary;
mod rounded;
mod simd;
pub mod squares;
pub mod swiglu;

use burn::backend::DispatchDevice;
use burn::tensor::{DType, Tensor};

pub use causal_attention::causal_attention;
pub use choice::choose_tokens;
pub use linear::linear;
pub(crate) use linear::packed_product;
pub use linear_cross_entropy::{linear_cross_entropy, token_cross_entropy};
pub use rms_norm::rms_norm;
pub use rotary::rotary;
pub use squares::squares;
pub use swiglu::swiglu;

/// Whether the fused body for the CPU or the one for graphics cards takes this tensor.
fn is_fused_f32<const R: usize>(x: &Tensor<R>) -> bool {
    #[cfg(feature = "cube")]
    if cube::is_cube_f32(x) {
        return true;
    }
    flex::is_flex_f32(x)
}

/// Whether the fused body for the CPU or the one for graphics cards takes this operand of a product.
fn is_fused_operand<const R: usize>(x: &Tensor<R>) -> bool {
    flex::is_flex_operand(x) || is_fused_f32(x)
}

/// Whether this is an f32 tensor, tracked or not, on a device that `belongs` accepts.
fn is_f32_on<const R: usize>(x: &Tensor<R>, belongs: fn(&DispatchDevice) -> bool) -> bool {
    x.dtype() == DType::F32 && is_on(x, belongs)
}

/// Whether this is a tensor, tracked or not, on a device that `belongs` accepts.
fn is_on<const R: usize>(x: &Tensor<R>, belongs: fn(&DispatchDevice) -> bool) -> bool {
    let device = x.device();
    let mut device = device.as_dispatch();
    if let DispatchDevice::Autodiff(inner) = device {
        device = inner;
    }
    belongs(device)
}

/// Label of a position that is not trained on.
pub const IGNORE_INDEX: i32 = -100;
