//! Muon's direction: the orthogonal matrix nearest to the momentum, by Newton-Schulz iteration.
//!
//! Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks" (quintic
//! iteration, coefficients 3.4445, -4.7750, 2.0315, five rounds). Ours runs in f32.

use burn::prelude::*;
use model::kernels::linear;

const COEFFICIENTS: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);
const ROUNDS: usize = 5;
const EPS: f64 = 1e-7;

/// A matrix with the same singular vectors and singular values near 1.
///
/// # Shapes
///
/// - `matrix`: `[rows, cols]`
/// - returns: `[rows, cols]`
pub(crate) fn orthogonalize(matrix: Tensor<2>) -> Tensor<2> {
    let [rows, cols] = matrix.dims();
    // The Gram matrix is taken over the shorter side: it is the smaller product.
    let is_tall = rows > cols;
    let x = if is_tall { matrix.transpose() } else { matrix }; // [short, long]
    let norm = x.clone().square().sum_dim(1).sum().sqrt().add_scalar(EPS); // [1]
    let mut x = x / norm.unsqueeze::<2>(); // [short, long]
    let (a, b, c) = COEFFICIENTS;
    for _ in 0..ROUNDS {
        let gram = linear(x.clone(), x.clone().transpose()); // [short, short]
        let squared = linear(gram.clone(), gram.clone()); // [short, short]
        let polynomial = gram.mul_scalar(b) + squared.mul_scalar(c);
        x = x.clone().mul_scalar(a) + linear(polynomial, x); // [short, long]
    }
    if is_tall { x.transpose() } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Singular values of a matrix with two rows, from the eigenvalues of its 2 x 2 Gram matrix.
    fn singular_values(x: &Tensor<2>) -> [f64; 2] {
        let gram = x.clone().matmul(x.clone().transpose()).into_data();
        let g: Vec<f64> = gram.iter::<f64>().collect();
        let (mean, product) = (f64::midpoint(g[0], g[3]), g[0] * g[3] - g[1] * g[2]);
        let spread = (mean * mean - product).max(0.0).sqrt();
        [(mean - spread).sqrt(), (mean + spread).sqrt()]
    }

    /// The iteration's published range: it does not converge to 1 but stays within about 0.7 to
    /// 1.2.
    #[test]
    fn singular_values_come_near_one() {
        let device = Device::flex();
        let wide = Tensor::<2>::from_floats([[3.0, 1.0, -2.0], [0.5, 4.0, 1.0]], &device);
        let before = singular_values(&wide);
        assert!(before[1] / before[0] > 1.1);
        for x in [
            orthogonalize(wide.clone()),
            orthogonalize(wide.transpose()).transpose(),
        ] {
            assert_eq!(x.dims(), [2, 3]);
            for value in singular_values(&x) {
                assert!((0.7..1.2).contains(&value), "{value}");
            }
        }
    }
}
