//! The squared length of a vector, as sums that are cheap to read back.

#[cfg(feature = "cube")]
mod cube;
pub mod reference;

use burn::prelude::*;

/// Sums of the squares of the elements, one for each run of them: `[n]` to `[m]`, one number at least.
///
/// How many numbers there are is the device's affair; together they are the sum of all squares. A graphics
/// card gives the same bits each time, which Burn's own sums do not promise.
pub fn squares(x: Tensor<1>) -> Tensor<1> {
    #[cfg(feature = "cube")]
    if crate::kernels::cube::is_cube_f32(&x) {
        return cube::squares(x);
    }
    reference::squares(x)
}
