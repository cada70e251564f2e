//! Fused kernels against their composed bodies, alternately in one run, forward and backward.
//!
//! `cargo bench --bench kernels` prints milliseconds and the ratio for the shapes of the 26M preset.

use std::time::{Duration, Instant};

use burn::prelude::*;
use burn::tensor::Distribution;
use model::kernels;

const BATCH: usize = 4;
const LEN: usize = 512;
const HIDDEN: usize = 512;
const INTERMEDIATE: usize = 1408;
const HEADS: usize = 16;
const KV_HEADS: usize = 8;
const HEAD_DIM: usize = 32;
const VOCAB: usize = 6400;

/// How long each side of a comparison is repeated.
const BUDGET: Duration = Duration::from_millis(1500);

fn main() {
    // `cargo test --benches` passes flags of the test harness; a name filters.
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let chosen = |name: &str| filter.as_deref().is_none_or(|filter| name.contains(filter));
    let device = Device::flex().autodiff();
    println!(
        "{:<24}{:>12}{:>12}{:>8}",
        "kernel", "composed ms", "fused ms", "ratio"
    );
    let tracked = |shape: &[usize]| tracked(shape, &device);
    let positions = Tensor::<1, Int>::arange(0..LEN as i64, &device)
        .reshape([1, LEN])
        .repeat_dim(0, BATCH);

    if chosen("rms_norm") {
        let x = tracked(&[BATCH, LEN, HIDDEN]);
        let weight = tracked(&[HIDDEN]);
        let shaped = || x.clone().reshape([BATCH, LEN, HIDDEN]);
        let composed =
            || kernels::rms_norm::reference::rms_norm(shaped(), weight.clone(), 1e-5).sum();
        let fused = || kernels::rms_norm(shaped(), weight.clone(), 1e-5).sum();
        compare("rms_norm", composed, fused);
    }
    if chosen("swiglu") {
        let gate = tracked(&[BATCH, LEN, INTERMEDIATE]);
        let up = tracked(&[BATCH, LEN, INTERMEDIATE]);
        let composed = || kernels::swiglu::reference::swiglu(gate.clone(), up.clone()).sum();
        let fused = || kernels::swiglu(gate.clone(), up.clone()).sum();
        compare("swiglu", composed, fused);
    }
    if chosen("rotary") {
        let x = tracked(&[BATCH, LEN, HEADS, HEAD_DIM]);
        let shaped = || x.clone().reshape([BATCH, LEN, HEADS, HEAD_DIM]);
        let table = || Tensor::<2>::ones([LEN, HEAD_DIM / 2], &device);
        let (cos, sin) = (table(), table());
        let composed = || {
            let (cos, sin) = (cos.clone(), sin.clone());
            kernels::rotary::reference::rotary(shaped(), positions.clone(), cos, sin).sum()
        };
        let fused = || kernels::rotary(shaped(), positions.clone(), cos.clone(), sin.clone()).sum();
        compare("rotary", composed, fused);
    }
    if chosen("causal_attention") {
        let q = tracked(&[BATCH, LEN, HEADS, HEAD_DIM]);
        let k = tracked(&[BATCH, LEN, KV_HEADS, HEAD_DIM]);
        let v = tracked(&[BATCH, LEN, KV_HEADS, HEAD_DIM]);
        let shaped = || {
            (
                q.clone().reshape([BATCH, LEN, HEADS, HEAD_DIM]),
                k.clone().reshape([BATCH, LEN, KV_HEADS, HEAD_DIM]),
                v.clone().reshape([BATCH, LEN, KV_HEADS, HEAD_DIM]),
            )
        };
        let composed = || {
            let (q, k, v) = shaped();
            let positions = positions.clone();
            kernels::causal_attention::reference::causal_attention(q, k, v, positions).sum()
        };
        let fused = || {
            let (q, k, v) = shaped();
            kernels::causal_attention(q, k, v, positions.clone()).sum()
        };
        compare("causal_attention", composed, fused);
    }
    compare_products(&chosen, &device);
}

/// Random numbers for a tensor of this shape, laid out in a row, with gradients kept.
fn tracked(shape: &[usize], device: &Device) -> Tensor<1> {
    let count = shape.iter().product::<usize>();
    Tensor::random([count], Distribution::Normal(0.0, 1.0), device).require_grad()
}

/// The projections and the loss, which are matrix products above all.
fn compare_products(chosen: &impl Fn(&str) -> bool, device: &Device) {
    let tracked = |shape: &[usize]| tracked(shape, device);
    if chosen("linear_up") {
        let x = tracked(&[BATCH, LEN, HIDDEN]);
        let weight = tracked(&[HIDDEN, INTERMEDIATE]);
        let shaped = || {
            let x = x.clone().reshape([BATCH, LEN, HIDDEN]);
            (x, weight.clone().reshape([HIDDEN, INTERMEDIATE]))
        };
        let composed = || {
            let (x, weight) = shaped();
            kernels::linear::reference::linear(x, weight).sum()
        };
        let fused = || {
            let (x, weight) = shaped();
            kernels::linear(x, weight).sum()
        };
        compare("linear_up", composed, fused);
    }
    if chosen("linear_cross_entropy") {
        let hidden = tracked(&[BATCH * LEN, HIDDEN]);
        let weight = (tracked(&[VOCAB, HIDDEN]) * 0.02).detach().require_grad();
        let shaped = || {
            let hidden = hidden.clone().reshape([BATCH * LEN, HIDDEN]);
            (hidden, weight.clone().reshape([VOCAB, HIDDEN]))
        };
        let labels = Tensor::<1, Int>::arange(0..(BATCH * LEN) as i64, device);
        let composed = || {
            let (hidden, weight) = shaped();
            let labels = labels.clone();
            kernels::linear_cross_entropy::reference::linear_cross_entropy(hidden, weight, labels)
        };
        let fused = || {
            let (hidden, weight) = shaped();
            kernels::linear_cross_entropy(hidden, weight, labels.clone())
        };
        compare("linear_cross_entropy", composed, fused);
    }
}

/// Prints the median time of a forward and a backward pass of each.
fn compare(name: &str, composed: impl Fn() -> Tensor<1>, fused: impl Fn() -> Tensor<1>) {
    let (mut composed_times, mut fused_times) = (Vec::new(), Vec::new());
    let started = Instant::now();
    while composed_times.len() < 3 || started.elapsed() < 2 * BUDGET {
        composed_times.push(seconds(&composed));
        fused_times.push(seconds(&fused));
    }
    let (composed, fused) = (median(composed_times), median(fused_times));
    println!(
        "{name:<24}{:>12.2}{:>12.2}{:>8.1}",
        composed * 1e3,
        fused * 1e3,
        composed / fused
    );
}

fn seconds(operation: &impl Fn() -> Tensor<1>) -> f64 {
    let started = Instant::now();
    drop(operation().backward());
    started.elapsed().as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
