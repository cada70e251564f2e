//! The length of a model's gradient over all its parameters, the same bits in every run.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use model::kernels::squares;
use rayon::prelude::*;

use crate::loss::read_scalars;

/// Elements that are summed one after the other; sums of chunks are added in their order, whichever
/// core is done first. (Flex splits a sum over more than 4 million elements differently from run to
/// run, and an exact resume needs the same bits.)
const CHUNK: usize = 1 << 16;

/// Euclidean norm of all gradients of a model together.
pub(crate) fn global_grad_norm<M: Module>(model: &M, grads: &mut GradientsParams) -> f64 {
    let mut squares = SquaredNorms {
        grads,
        total: 0.0,
        on_device: Vec::new(),
    };
    model.visit(&mut squares);
    let on_device: f64 = read_scalars(squares.on_device).iter().sum();
    (squares.total + on_device).sqrt()
}

/// Walk over the model that sums each gradient's squares.
struct SquaredNorms<'a> {
    grads: &'a mut GradientsParams,
    total: f64,
    /// Sums on another device than the CPU: reading each by itself would stop the device each time.
    on_device: Vec<Tensor<1>>,
}

impl ModuleVisitor for SquaredNorms<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(grad) = self.grads.remove::<D>(param.id) else {
            return;
        };
        if grad.device() == Device::flex() {
            // Taken out and put back: the data of a tensor with one owner moves without a copy.
            let device = grad.device();
            let data = grad.into_data();
            self.total += sum_of_squares(data.as_slice().expect("gradients are f32"));
            self.grads
                .register(param.id, Tensor::<D>::from_data(data, &device));
        } else {
            let num_elements = grad.shape().num_elements();
            let flat = grad.clone().reshape([num_elements]); // [n]
            self.on_device.push(squares(flat));
            self.grads.register(param.id, grad);
        }
    }
}

fn sum_of_squares(values: &[f32]) -> f64 {
    let sums: Vec<f64> = values
        .par_chunks(CHUNK)
        .map(|chunk| {
            chunk
                .iter()
                .map(|&value| f64::from(value) * f64::from(value))
                .sum()
        })
        .collect();
    sums.iter().sum()
}
