//! The length of a model's gradient over all its parameters, the same bits in every run.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use model::kernels::squares;
use rayon::prelude::*;

use crate::device_error::DeviceError;
use crate::loss::read_scalars;

/// Elements that are summed one after the other; sums of chunks are added in their order, whichever
/// core is done first. (Flex splits a sum over more than 4 million elements differently from run to
/// run, and an exact resume needs the same bits.)
const CHUNK: usize = 1 << 16;

/// Euclidean norm of all gradients of a model together.
///
/// # Errors
///
/// When the device fails.
pub(crate) fn global_grad_norm<M: Module>(
    model: &M,
    grads: &mut GradientsParams,
) -> Result<f64, DeviceError> {
    let mut sums = SquaresOnHost { grads, total: 0.0 };
    model.visit(&mut sums);
    let on_host = sums.total;
    // Reading each by itself would stop the device each time.
    let elsewhere = squares_of(model, grads, |device| *device != Device::flex());
    let on_device: f64 = read_scalars(elsewhere)?.iter().sum();
    Ok((on_host + on_device).sqrt())
}

/// The same, `[1]`, where the gradients are.
///
/// # Panics
///
/// When there are none.
pub(crate) fn unread_grad_norm<M: Module>(model: &M, grads: &GradientsParams) -> Tensor<1> {
    Tensor::cat(squares_of(model, grads, |_| true), 0)
        .sum()
        .sqrt()
}

/// Walk over the model that sums each gradient's squares, of those on the CPU.
struct SquaresOnHost<'a> {
    grads: &'a mut GradientsParams,
    total: f64,
}

impl ModuleVisitor for SquaresOnHost<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(grad) = self.grads.remove::<D>(param.id) else {
            return;
        };
        let device = grad.device();
        let grad = if device == Device::flex() {
            // Taken out and put back: the data of a tensor with one owner moves without a copy.
            let data = grad.into_data();
            self.total += sum_of_squares(data.as_slice().expect("gradients are f32"));
            Tensor::<D>::from_data(data, &device)
        } else {
            grad
        };
        self.grads.register(param.id, grad);
    }
}

/// Squares of the gradients on the devices that count, summed as far as a device does it at once.
fn squares_of<M: Module>(
    model: &M,
    grads: &GradientsParams,
    counts: fn(&Device) -> bool,
) -> Vec<Tensor<1>> {
    let mut squares = SquaresOnDevice {
        grads,
        counts,
        sums: Vec::new(),
    };
    model.visit(&mut squares);
    squares.sums
}

struct SquaresOnDevice<'a> {
    grads: &'a GradientsParams,
    counts: fn(&Device) -> bool,
    sums: Vec<Tensor<1>>,
}

impl ModuleVisitor for SquaresOnDevice<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id)
            && (self.counts)(&grad.device())
        {
            let num_elements = grad.shape().num_elements();
            self.sums.push(squares(grad.reshape([num_elements])));
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
