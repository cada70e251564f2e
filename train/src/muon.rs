//! Muon's directions: the orthogonal matrices nearest to the momentum, by Newton-Schulz iteration.
//!
//! Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks" (quintic
//! iteration, coefficients 3.4445, -4.7750, 2.0315, five rounds). Ours runs in f32.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use model::kernels::linear;
use rayon::prelude::*;

use crate::optimizer::{Optimizer, ParamState};

const COEFFICIENTS: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);
const ROUNDS: usize = 5;
const EPS: f64 = 1e-7;

/// Where Muon moves one matrix.
pub(crate) struct MuonDirection {
    /// Momentum with this step's gradient in it, `[rows, cols]`.
    pub(crate) velocity: Tensor<2>,
    /// Nearest orthogonal matrix to gradient and momentum, `[rows, cols]`.
    pub(crate) direction: Tensor<2>,
}

/// The directions of all of Muon's matrices by path, and the gradients that are left for `AdamW`.
///
/// Matrices are independent of each other, and a small one does not keep several cores busy:
/// they are orthogonalised side by side.
pub(crate) fn muon_directions<M: Module>(
    optimizer: &mut Optimizer,
    model: &M,
    grads: GradientsParams,
    grad_scale: f64,
) -> (GradientsParams, BTreeMap<String, MuonDirection>) {
    let mut hidden = HiddenMatrices {
        optimizer,
        grads,
        grad_scale,
        path: Vec::new(),
        steps: Vec::new(),
    };
    model.visit(&mut hidden);
    let HiddenMatrices { grads, steps, .. } = hidden;
    let directions = steps
        .into_par_iter()
        .map(|step| {
            let direction = orthogonalize(step.along);
            let velocity = step.velocity;
            (
                step.path,
                MuonDirection {
                    velocity,
                    direction,
                },
            )
        })
        .collect();
    (grads, directions)
}

/// Walk over the model that takes the gradients of Muon's matrices and adds them to their momentum.
struct HiddenMatrices<'a> {
    optimizer: &'a mut Optimizer,
    grads: GradientsParams,
    grad_scale: f64,
    path: Vec<String>,
    steps: Vec<MuonStep>,
}

/// A matrix to orthogonalise, and the momentum it was made from.
struct MuonStep {
    path: String,
    /// Gradient and momentum together (Nesterov), `[rows, cols]`.
    along: Tensor<2>,
    /// `[rows, cols]`.
    velocity: Tensor<2>,
}

impl ModuleVisitor for HiddenMatrices<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        if !self.optimizer.uses_muon(&path, D) {
            return;
        }
        let Some(grad) = self.grads.remove::<D>(param.id) else {
            return;
        };
        let dims = grad.dims();
        let momentum = self.optimizer.config.muon_momentum;
        let grad = grad.reshape([dims[0], dims[1]]).mul_scalar(self.grad_scale); // [rows, cols]
        let velocity = match self.optimizer.states.remove(&path) {
            Some(ParamState::Muon { velocity }) => velocity.mul_scalar(momentum) + grad.clone(),
            _ => grad.clone(),
        }; // [rows, cols]
        self.steps.push(MuonStep {
            path,
            along: grad + velocity.clone().mul_scalar(momentum),
            velocity,
        });
    }
}

/// A matrix with the same singular vectors and singular values near 1.
///
/// # Shapes
///
/// - `matrix`: `[rows, cols]`
/// - returns: `[rows, cols]`
fn orthogonalize(matrix: Tensor<2>) -> Tensor<2> {
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
