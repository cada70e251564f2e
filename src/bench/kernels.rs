//! Each fused operation against its composed body, in turn in one run, forward and backward, at the
//! shapes of the 26M preset with four rows of 512 tokens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use burn::prelude::*;
use burn::tensor::Distribution;
use model::experts::Routes;
use model::kernels;
use model::kernels::experts::ExpertWeights;
use model::workers::on_worker;
use serde::Serialize;

use super::measurement::median;
use crate::stdout::out;

const BATCH: usize = 4;
const LEN: usize = 512;
const HIDDEN: usize = 512;
const INTERMEDIATE: usize = 1408;
const HEADS: usize = 16;
const KV_HEADS: usize = 8;
const HEAD_DIM: usize = 32;
const VOCAB: usize = 6400;
const EXPERTS: usize = 4;
const EXPERTS_PER_TOKEN: usize = 2;

/// How long both sides of a comparison are repeated.
const BUDGET: Duration = Duration::from_secs(3);

/// A forward pass whose sum is differentiated.
pub type Pass = Box<dyn Fn() -> Tensor<1> + Send + Sync>;
/// Makes the composed and the fused body's pass on a device.
pub type MakePair = fn(&Device) -> [Pass; 2];

/// Every operation by its name.
pub const OPERATIONS: [(&str, MakePair); 7] = [
    ("rms_norm", rms_norm),
    ("rotary", rotary),
    ("swiglu", swiglu),
    ("causal_attention", causal_attention),
    ("linear", linear),
    ("linear_cross_entropy", linear_cross_entropy),
    ("experts", experts),
];

#[derive(Debug, Serialize)]
struct Comparison {
    name: &'static str,
    composed_ms: f64,
    fused_ms: f64,
}

/// Measures the operations whose name holds `filter`.
pub(super) fn run(filter: Option<&str>, json: bool) -> Result<()> {
    let chosen: Vec<_> = OPERATIONS
        .into_iter()
        .filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter)))
        .collect();
    if chosen.is_empty() {
        let names = OPERATIONS.map(|(name, _)| name).join(", ");
        bail!(
            "no operation is called `{}`, expected part of one of {names}",
            filter.unwrap_or_default()
        );
    }
    let device = Device::flex().autodiff();
    if !json {
        out!(
            "{:<24}{:>12}{:>12}{:>8}",
            "operation",
            "composed ms",
            "fused ms",
            "ratio"
        )?;
    }
    for (name, pair) in chosen {
        let [composed, fused] = pair(&device);
        let comparison = on_worker(|| compare(name, &composed, &fused));
        if json {
            out!("{}", serde_json::to_string(&comparison)?)?;
        } else {
            let Comparison {
                composed_ms,
                fused_ms,
                ..
            } = comparison;
            let ratio = composed_ms / fused_ms;
            out!("{name:<24}{composed_ms:>12.2}{fused_ms:>12.2}{ratio:>8.1}")?;
        }
    }
    Ok(())
}

fn compare(name: &'static str, composed: &Pass, fused: &Pass) -> Comparison {
    let (mut composed_ms, mut fused_ms) = (Vec::new(), Vec::new());
    let started = Instant::now();
    while composed_ms.len() < 3 || started.elapsed() < BUDGET {
        composed_ms.push(milliseconds(composed));
        fused_ms.push(milliseconds(fused));
    }
    Comparison {
        name,
        composed_ms: median(&composed_ms),
        fused_ms: median(&fused_ms),
    }
}

fn milliseconds(pass: &Pass) -> f64 {
    let started = Instant::now();
    drop(pass().backward());
    started.elapsed().as_secs_f64() * 1e3
}

/// Random numbers with gradients kept.
fn tracked<const R: usize>(shape: [usize; R], device: &Device) -> Tensor<R> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device).require_grad()
}

fn positions(device: &Device) -> Tensor<2, Int> {
    Tensor::<1, Int>::arange(0..LEN as i64, device)
        .reshape([1, LEN])
        .repeat_dim(0, BATCH)
}

fn rms_norm(device: &Device) -> [Pass; 2] {
    let x = tracked([BATCH, LEN, HIDDEN], device);
    let weight = tracked([HIDDEN], device);
    let operands = (x.clone(), weight.clone());
    [
        Box::new(move || {
            kernels::rms_norm::reference::rms_norm(x.clone(), weight.clone(), 1e-5).sum()
        }),
        Box::new(move || kernels::rms_norm(operands.0.clone(), operands.1.clone(), 1e-5).sum()),
    ]
}

fn rotary(device: &Device) -> [Pass; 2] {
    let x = tracked([BATCH, LEN, HEADS, HEAD_DIM], device);
    let table = Tensor::<2>::ones([LEN, HEAD_DIM / 2], device);
    let at = positions(device);
    let operands = (x.clone(), table.clone(), at.clone());
    [
        Box::new(move || {
            let (cos, sin) = (table.clone(), table.clone());
            kernels::rotary::reference::rotary(x.clone(), at.clone(), cos, sin).sum()
        }),
        Box::new(move || {
            let (x, table, at) = operands.clone();
            kernels::rotary(x, at, table.clone(), table).sum()
        }),
    ]
}

fn swiglu(device: &Device) -> [Pass; 2] {
    let gate = tracked([BATCH, LEN, INTERMEDIATE], device);
    let up = tracked([BATCH, LEN, INTERMEDIATE], device);
    let operands = (gate.clone(), up.clone());
    [
        Box::new(move || kernels::swiglu::reference::swiglu(gate.clone(), up.clone()).sum()),
        Box::new(move || kernels::swiglu(operands.0.clone(), operands.1.clone()).sum()),
    ]
}

fn causal_attention(device: &Device) -> [Pass; 2] {
    let q = tracked([BATCH, LEN, HEADS, HEAD_DIM], device);
    let k = tracked([BATCH, LEN, KV_HEADS, HEAD_DIM], device);
    let v = tracked([BATCH, LEN, KV_HEADS, HEAD_DIM], device);
    let at = positions(device);
    let operands = (q.clone(), k.clone(), v.clone(), at.clone());
    [
        Box::new(move || {
            let (q, k, v) = (q.clone(), k.clone(), v.clone());
            kernels::causal_attention::reference::causal_attention(q, k, v, at.clone()).sum()
        }),
        Box::new(move || {
            let (q, k, v, at) = operands.clone();
            kernels::causal_attention(q, k, v, at).sum()
        }),
    ]
}

fn linear(device: &Device) -> [Pass; 2] {
    let x = tracked([BATCH, LEN, HIDDEN], device);
    let weight = tracked([HIDDEN, INTERMEDIATE], device);
    let operands = (x.clone(), weight.clone());
    [
        Box::new(move || kernels::linear::reference::linear(x.clone(), weight.clone()).sum()),
        Box::new(move || kernels::linear(operands.0.clone(), operands.1.clone()).sum()),
    ]
}

fn linear_cross_entropy(device: &Device) -> [Pass; 2] {
    let hidden = tracked([BATCH * LEN, HIDDEN], device);
    let weight = (tracked([VOCAB, HIDDEN], device) * 0.02)
        .detach()
        .require_grad();
    let labels = Tensor::<1, Int>::arange(0..(BATCH * LEN) as i64, device);
    let operands = (hidden.clone(), weight.clone(), labels.clone());
    [
        Box::new(move || {
            let (hidden, weight) = (hidden.clone(), weight.clone());
            let labels = labels.clone();
            kernels::linear_cross_entropy::reference::linear_cross_entropy(hidden, weight, labels)
        }),
        Box::new(move || {
            let (hidden, weight, labels) = operands.clone();
            kernels::linear_cross_entropy(hidden, weight, labels)
        }),
    ]
}

fn experts(device: &Device) -> [Pass; 2] {
    let x = tracked([BATCH * LEN, HIDDEN], device);
    let shares = tracked([BATCH * LEN, EXPERTS_PER_TOKEN], device);
    let weights: Vec<ExpertWeights> = (0..EXPERTS)
        .map(|_| ExpertWeights {
            gate: tracked([HIDDEN, INTERMEDIATE], device),
            up: tracked([HIDDEN, INTERMEDIATE], device),
            down: tracked([INTERMEDIATE, HIDDEN], device),
        })
        .collect();
    // Each token goes to two neighbours, so that all experts have as many.
    let chosen = (0..BATCH * LEN * EXPERTS_PER_TOKEN).map(|place| (place % EXPERTS) as u32);
    let routes = Arc::new(Routes::new(chosen.collect(), EXPERTS_PER_TOKEN, EXPERTS));
    let operands = (x.clone(), shares.clone(), routes.clone(), weights.clone());
    [
        Box::new(move || {
            let (x, shares) = (x.clone(), shares.clone());
            kernels::experts::reference::experts(x, shares, &routes, &weights).sum()
        }),
        Box::new(move || {
            let (x, shares, routes, weights) = operands.clone();
            kernels::experts::experts(x, shares, &routes, weights).sum()
        }),
    ]
}
