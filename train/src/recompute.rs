//! Activation checkpointing: keep each layer's input only, and run the layer again in the backward
//! pass.
//!
//! Source: Chen et al. 2016, arXiv:1604.06174. Burn's own strategy recomputes cheap operations and
//! keeps every matrix product, which is most of a decoder's memory; cutting at the layers instead
//! keeps one `[B, T, D]` tensor per layer and the activations of a single layer at a time.
//!
//! Axis letters: `B` batch, `T` positions, `D` hidden size.

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::prelude::*;
use burn::tensor::Gradients;
use model::CausalLm;

use crate::loss::BatchTensors;
use crate::stage::{Metrics, SummedGradients};

/// Summed loss of a batch, made by `loss_of` from hidden states and labels, and its gradients, with layers recomputed in the backward pass.
///
/// The same numbers as a plain backward pass gives, the pass's loss scale included.
pub(crate) fn recomputing_gradients(
    model: &CausalLm,
    batch: BatchTensors,
    loss_of: impl FnOnce(Tensor<3>, Tensor<1, Int>) -> Tensor<1>,
) -> SummedGradients {
    let BatchTensors {
        input_ids,
        positions,
        labels,
        noise,
        router,
    } = batch;
    let plain = model.valid();
    let mut x = plain.embed_tokens.forward(input_ids.clone().inner()); // [B, T, D]
    if let Some(noise) = noise {
        x = x + noise.inner();
    }
    let mut inputs = Vec::with_capacity(model.layers.len());
    for layer in &plain.layers {
        inputs.push(x.clone());
        x = layer.forward(x, positions.clone().inner(), plain.rope(), None);
    }
    drop(plain);

    let mut sum = GradientsAccumulator::new();
    let mut collect = |grads: Gradients| {
        sum.accumulate(model, GradientsParams::from_grads(grads, model));
    };
    let leaf = Tensor::from_inner(x).require_grad(); // [B, T, D]
    let loss = loss_of(model.norm.forward(leaf.clone()), labels); // [1]
    let pass = model.training_pass();
    let mut grads = pass.scaled(loss.clone()).backward();
    let mut upstream = gradient_of(&leaf, &mut grads); // [B, T, D]
    collect(grads);

    let mut routing = Vec::new();
    for ((index, layer), input) in model.layers.iter().enumerate().zip(inputs).rev() {
        let leaf = Tensor::from_inner(input).require_grad(); // [B, T, D]
        let (output, routed) =
            layer.forward_routed(leaf.clone(), positions.clone(), model.rope(), None);
        // The derivative of this product's sum by `output` is `upstream`.
        let mut total = (output * Tensor::from_inner(upstream)).sum(); // [1]
        if let (Some(terms), Some(routed)) = (&router, routed) {
            let (added, work) = terms.judge(model, index, &routed);
            if let Some(added) = added {
                total = total + pass.scaled(added);
            }
            routing.push(work);
        }
        let mut grads = total.backward();
        upstream = gradient_of(&leaf, &mut grads);
        collect(grads);
    }
    if model.embed_tokens.weight.is_require_grad() {
        let embedded = model.embed_tokens.forward(input_ids); // [B, T, D]
        collect((embedded * Tensor::from_inner(upstream)).sum().backward());
    }
    routing.reverse();
    SummedGradients {
        loss: loss.inner(),
        grads: sum.grads(),
        routing,
        metrics: Metrics::new(),
    }
}

fn gradient_of(leaf: &Tensor<3>, grads: &mut Gradients) -> Tensor<3> {
    leaf.grad_remove(grads)
        .expect("the loss was computed from this tensor")
}
