//! Fused operations of the decoder, each with a hand-written backward on the CPU.
//!
//! One folder per operation: `mod.rs` is the public function with its autodiff, `reference.rs` the
//! same mathematics composed from Burn's operations, `cpu.rs` the fused body for Flex. A tensor that
//! is not an f32 tensor on Flex takes the composed body, so every backend gives the same numbers.

#![expect(
    clippy::inline_always,
    reason = "vector code must be inlined into the one function that has the processor's features"
)]

pub mod causal_attention;
pub mod experts;
mod flex;
pub mod linear;
pub mod linear_cross_entropy;
mod matmul;
pub mod rms_norm;
pub mod rotary;
mod simd;
pub mod swiglu;

pub use causal_attention::causal_attention;
pub use linear::linear;
pub(crate) use linear::packed_product;
pub use linear_cross_entropy::{linear_cross_entropy, token_cross_entropy};
pub use rms_norm::rms_norm;
pub use rotary::rotary;
pub use swiglu::swiglu;

/// Label of a position that is not trained on.
pub const IGNORE_INDEX: i32 = -100;
