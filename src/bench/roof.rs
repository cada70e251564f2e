//! The best this machine does at matrix products, which no training step can pass.

use std::time::Instant;

use burn::prelude::*;
use burn::tensor::Distribution;
use model::kernels::linear;
use model::precision::Precision;

/// Rows, inner length and columns: a training step's own products, and a large square one.
const SHAPES: [[usize; 3]; 3] = [[2048, 512, 1408], [2048, 1408, 512], [2048, 2048, 2048]];
const REPETITIONS: usize = 5;

/// Best GFLOP/s of a large product of operands in this precision.
pub(super) fn best_product(precision: Precision, device: &Device) -> f64 {
    let uniform =
        |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Uniform(-1.0, 1.0), device);
    let mut best = 0.0_f64;
    for [rows, inner, cols] in SHAPES {
        let x = precision.operand(uniform([rows, inner]));
        let weight = uniform([inner, cols]);
        let flop = 2.0 * (rows * inner * cols) as f64;
        for _ in 0..REPETITIONS {
            let start = Instant::now();
            let out = linear(x.clone(), weight.clone()); // [rows, cols]
            out.slice([0..1, 0..1]).into_data();
            best = best.max(flop / start.elapsed().as_secs_f64() / 1e9);
        }
    }
    best
}
