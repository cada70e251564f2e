//! Weight updates: AdamW for everything, or Muon for the hidden matrices and AdamW for the rest.
//!
//! Sources: AdamW as PyTorch computes it (Loshchilov and Hutter 2019, arXiv:1711.05101, Algorithm
//! 2); Muon (Jordan et al. 2024) with the step size of Liu et al. 2025, arXiv:2502.16982, eq. 4,
//! which lets it share AdamW's learning rate and weight decay.
//!
//! The state is keyed by a parameter's path in the model, because Burn's parameter ids are drawn
//! anew in every process. Moments are f32.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use model::kernels::adamw::{AdamWStep, AdamWTensors, adamw};

pub use crate::config::{OptimizerConfig, OptimizerKind};
use crate::muon::{MuonDirection, muon_directions};

/// What one parameter's updates are remembered by.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "one handle more or less, in a map of a few hundred entries"
)]
pub enum ParamState {
    /// AdamW's running means of the gradient and of its square, flattened.
    AdamW {
        /// Mean of the gradient.
        moment_1: Tensor<1>,
        /// Mean of the gradient's square.
        moment_2: Tensor<1>,
    },
    /// Muon's momentum.
    Muon {
        /// Decaying sum of gradients, in the parameter's shape.
        velocity: Tensor<2>,
    },
}

/// Updates a model's parameters and remembers what the next update needs.
#[derive(Debug, Clone)]
pub struct Optimizer {
    pub(crate) config: OptimizerConfig,
    /// Updates applied so far, for AdamW's bias correction.
    pub(crate) num_updates: u64,
    pub(crate) states: BTreeMap<String, ParamState>,
}

impl Optimizer {
    /// An optimizer without any memory.
    pub fn new(config: OptimizerConfig) -> Self {
        Self {
            config,
            num_updates: 0,
            states: BTreeMap::new(),
        }
    }

    /// The model after one update.
    ///
    /// Gradients are multiplied by `grad_scale` on the way: the trainer sums losses over
    /// micro-batches, so dividing by the number of trained tokens and clipping are one
    /// multiplication.
    ///
    /// # Panics
    ///
    /// When the model has no parameters.
    pub fn step<M: Module>(
        &mut self,
        model: M,
        grads: GradientsParams,
        lr: f64,
        grad_scale: f64,
    ) -> M {
        let (grads, directions) = muon_directions(self, &model, grads, grad_scale);
        let devices = model.devices();
        let device = devices.first().expect("a model has parameters");
        let scale = Tensor::from_floats([grad_scale as f32], &device.clone().inner()); // [1]
        self.update(model, grads, directions, lr, scale)
    }

    /// The same by a scale that the host does not know, `[1]`; a negative one leaves the model as it is,
    /// though the update is counted. AdamW alone can do that.
    pub(crate) fn step_unread<M: Module>(
        &mut self,
        model: M,
        grads: GradientsParams,
        lr: f64,
        grad_scale: Tensor<1>,
    ) -> M {
        debug_assert_eq!(self.config.kind, OptimizerKind::AdamW);
        self.update(model, grads, BTreeMap::new(), lr, grad_scale)
    }

    fn update<M: Module>(
        &mut self,
        model: M,
        grads: GradientsParams,
        directions: BTreeMap<String, MuonDirection>,
        lr: f64,
        grad_scale: Tensor<1>,
    ) -> M {
        self.num_updates += 1;
        let mut update = Update {
            optimizer: self,
            grads,
            lr,
            grad_scale,
            path: Vec::new(),
            directions,
        };
        model.map(&mut update)
    }

    pub(crate) fn uses_muon(&self, path: &str, num_dims: usize) -> bool {
        self.config.kind == OptimizerKind::Muon && num_dims == 2 && path.starts_with("layers.")
    }

    fn decay_rate(&self, num_dims: usize, lr: f64) -> f64 {
        if num_dims >= 2 || self.config.decay_everything {
            lr * self.config.weight_decay
        } else {
            0.0
        }
    }
}

/// Walk over the model that applies one update to each parameter.
struct Update<'a> {
    optimizer: &'a mut Optimizer,
    grads: GradientsParams,
    lr: f64,
    /// `[1]`, on the parameters' device.
    grad_scale: Tensor<1>,
    path: Vec<String>,
    directions: BTreeMap<String, MuonDirection>,
}

impl ModuleMapper for Update<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let path = self.path.join(".");
        let keep = 1.0 - self.optimizer.decay_rate(D, self.lr);
        let (updated, state) = if let Some(muon) = self.directions.remove(&path) {
            let updated = self.muon(tensor.inner(), muon.direction, keep);
            let velocity = muon.velocity;
            (updated, ParamState::Muon { velocity })
        } else if let Some(grad) = self.grads.remove::<D>(id) {
            let state = self.optimizer.states.remove(&path);
            self.adamw(tensor.inner(), grad, state, keep)
        } else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        self.optimizer.states.insert(path, state);
        let updated = Tensor::from_inner(updated).require_grad();
        Param::from_mapped_value(id, updated, mapper)
    }
}

impl Update<'_> {
    fn adamw<const D: usize>(
        &self,
        param: Tensor<D>,
        grad: Tensor<D>,
        state: Option<ParamState>,
        keep: f64,
    ) -> (Tensor<D>, ParamState) {
        let dims = param.dims();
        let num_elements: usize = dims.iter().product();
        let device = param.device();
        let (moment_1, moment_2) = match state {
            Some(ParamState::AdamW { moment_1, moment_2 }) => (moment_1, moment_2),
            _ => (
                Tensor::zeros([num_elements], &device), // [n]
                Tensor::zeros([num_elements], &device), // [n]
            ),
        };
        let config = &self.optimizer.config;
        let [beta_1, beta_2] = config.betas;
        let num_updates = self.optimizer.num_updates as f64;
        let step = AdamWStep {
            beta_1,
            beta_2,
            keep,
            step_size: self.lr / (1.0 - beta_1.powf(num_updates)),
            root_correction: (1.0 - beta_2.powf(num_updates)).sqrt(),
            eps: config.eps,
        };
        let tensors = AdamWTensors {
            param: param.reshape([num_elements]),
            moment_1,
            moment_2,
        };
        let scale = self.grad_scale.clone();
        let updated = adamw(tensors, grad.reshape([num_elements]), scale, step);
        let state = ParamState::AdamW {
            moment_1: updated.moment_1,
            moment_2: updated.moment_2,
        };
        (updated.param.reshape(dims), state)
    }

    fn muon<const D: usize>(&self, param: Tensor<D>, direction: Tensor<2>, keep: f64) -> Tensor<D> {
        let dims = param.dims();
        let (rows, cols) = (dims[0], dims[1]);
        // Makes the update's root mean square 0.2, which is about AdamW's.
        let step_size = self.lr * 0.2 * (rows.max(cols) as f64).sqrt();
        let param = param.reshape([rows, cols]).mul_scalar(keep) - direction.mul_scalar(step_size);
        param.reshape(dims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad_norm::global_grad_norm;
    use burn::nn::{Linear, LinearConfig};

    const LR: f64 = 0.01;

    fn device() -> Device {
        Device::flex().autodiff()
    }

    fn linear(weight: [[f32; 2]; 2], bias: [f32; 2]) -> Linear {
        let mut linear = LinearConfig::new(2, 2).init(&device());
        linear.weight = Param::from_tensor(Tensor::from_floats(weight, &device()));
        linear.bias = Some(Param::from_tensor(Tensor::from_floats(bias, &device())));
        linear
    }

    fn grads(model: &Linear, scale: f32) -> GradientsParams {
        let x = Tensor::<2>::from_floats([[1.0, -2.0], [0.5, 3.0]], &device());
        let y = model.forward(x).square().sum().mul_scalar(scale);
        GradientsParams::from_grads(y.backward(), model)
    }

    /// PyTorch's formula on one number, in f64.
    fn expected(mut p: f64, gradients: &[f64], weight_decay: f64) -> f64 {
        let (mut m, mut v) = (0.0, 0.0);
        for (t, g) in gradients.iter().enumerate() {
            let t = t as i32 + 1;
            p *= 1.0 - LR * weight_decay;
            m = 0.9 * m + 0.1 * g;
            v = 0.95 * v + 0.05 * g * g;
            let denominator = v.sqrt() / (1.0 - 0.95f64.powi(t)).sqrt() + 1e-8;
            p -= LR / (1.0 - 0.9f64.powi(t)) * m / denominator;
        }
        p
    }

    /// Expected values from PyTorch's AdamW formula, computed in f64 beside the tensors' own
    /// gradients.
    #[test]
    fn adamw_is_pytorchs_and_decays_matrices_only() {
        let config = OptimizerConfig {
            weight_decay: 0.5,
            ..OptimizerConfig::default()
        };
        for decay_everything in [false, true] {
            let config = OptimizerConfig {
                decay_everything,
                ..config.clone()
            };
            let mut model = linear([[0.3, -0.7], [1.1, 0.2]], [0.4, -0.1]);
            let mut optimizer = Optimizer::new(config);
            let (mut weight_grads, mut bias_grads) = (Vec::new(), Vec::new());
            for _ in 0..5 {
                let grads = grads(&model, 1.0);
                let weight = grads.get::<2>(model.weight.id).unwrap().into_data();
                let bias = grads
                    .get::<1>(model.bias.as_ref().unwrap().id)
                    .unwrap()
                    .into_data();
                weight_grads.push(weight.iter::<f64>().nth(1).unwrap() * 0.5);
                bias_grads.push(bias.iter::<f64>().next().unwrap() * 0.5);
                model = optimizer.step(model, grads, LR, 0.5);
            }
            let weight = model.weight.val().into_data().iter::<f64>().nth(1).unwrap();
            let bias = model
                .bias
                .unwrap()
                .val()
                .into_data()
                .iter::<f64>()
                .next()
                .unwrap();
            let bias_decay = if decay_everything { 0.5 } else { 0.0 };
            assert!((weight - expected(f64::from(-0.7f32), &weight_grads, 0.5)).abs() < 1e-6);
            assert!((bias - expected(f64::from(0.4f32), &bias_grads, bias_decay)).abs() < 1e-6);
        }
    }

    /// By hand: y = sum of squares of x W + b at W = 0, b = 0 has no gradient; at b = (1, 2) the
    /// bias gradient is 2 rows * 2 b = (4, 8) and the weight gradient 2 b times the column sums of
    /// x.
    #[test]
    fn the_norm_covers_all_parameters() {
        let model = linear([[0.0, 0.0], [0.0, 0.0]], [1.0, 2.0]);
        let norm = global_grad_norm(&model, &mut grads(&model, 1.0)).unwrap();
        let bias = 16.0 + 64.0;
        let weight =
            (1.5f64 * 2.0).powi(2) + (1.5f64 * 4.0).powi(2) + 2.0f64.powi(2) + 4.0f64.powi(2);
        assert!((norm - (bias + weight).sqrt()).abs() < 1e-5, "{norm}");
    }

    /// The path in the model is the key, whatever the parameter's id is in this process.
    #[test]
    fn the_state_is_keyed_by_path() {
        let model = linear([[0.3, -0.7], [1.1, 0.2]], [0.4, -0.1]);
        let mut optimizer = Optimizer::new(OptimizerConfig::default());
        let grads = grads(&model, 1.0);
        let _updated = optimizer.step(model, grads, LR, 1.0);
        assert_eq!(
            optimizer.states.keys().collect::<Vec<_>>(),
            ["bias", "weight"]
        );
    }
}
