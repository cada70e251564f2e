//! One model on several devices: each works on its share of a step's micro-batches.
//!
//! The first device holds the weights that are saved and the optimizer's memory. The others' gradients
//! are moved to it and summed in the order of the devices, so a step is the same function of the same
//! micro-batches on any number of devices, up to rounding. All devices are given work by one thread:
//! graphics cards and remote devices only note it down and go on by themselves. (Where a mixture's
//! experts are chosen, the host waits for each device in turn.)

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::prelude::*;
use model::CausalLm;

/// Copies of a model on the devices that work beside its own.
#[derive(Debug, Default)]
pub struct Replicas {
    copies: Vec<CausalLm>,
}

impl Replicas {
    /// Copies of `model` on `devices`.
    pub fn new(model: &CausalLm, devices: &[Device]) -> Self {
        let copies = devices
            .iter()
            .map(|device| model.clone().fork(&device.clone().autodiff()))
            .collect();
        Self { copies }
    }

    /// The model and its copies, in the order of their devices.
    pub(crate) fn beside<'a>(&'a self, model: &'a CausalLm) -> Vec<&'a CausalLm> {
        std::iter::once(model).chain(&self.copies).collect()
    }

    /// Gives the copies what `model` has learned; frozen weights stay where they are.
    pub(crate) fn follow(&mut self, model: &CausalLm) {
        let copies = std::mem::take(&mut self.copies).into_iter();
        self.copies = copies
            .map(|copy| {
                let mut learned = Learned {
                    weights: GradientsParams::new(),
                    device: copy.embed_tokens.weight.device().inner(),
                };
                model.visit(&mut learned);
                copy.map(&mut learned)
            })
            .collect();
    }
}

/// What changes while training, on its way to another device, by the parameters' ids.
struct Learned {
    weights: GradientsParams,
    device: Device,
}

impl ModuleVisitor for Learned {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // Biases of experts too, which their loads move: they are trainable, though no loss moves them.
        if param.is_require_grad() {
            let weight = param.val().inner().to_device(&self.device);
            self.weights.register(param.id, weight);
        }
    }
}

impl ModuleMapper for Learned {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(weight) = self.weights.remove::<D>(param.id) else {
            return param;
        };
        let (id, old, mapper) = param.consume();
        let weight = Tensor::from_inner(weight).set_require_grad(old.is_require_grad());
        Param::from_mapped_value(id, weight, mapper)
    }
}

/// Sums of gradients, device by device, and then on the first of them.
pub(crate) struct GradientSums<'a> {
    models: &'a [&'a CausalLm],
    sums: Vec<GradientsAccumulator<CausalLm>>,
}

impl<'a> GradientSums<'a> {
    /// No gradients yet, of the model and its copies.
    pub(crate) fn new(models: &'a [&'a CausalLm]) -> Self {
        let sums = models.iter().map(|_| GradientsAccumulator::new()).collect();
        Self { models, sums }
    }

    /// The model that works on micro-batch `number` of a step.
    pub(crate) fn model(&self, number: usize) -> &'a CausalLm {
        self.models[number % self.models.len()]
    }

    /// Adds the gradients of micro-batch `number`.
    pub(crate) fn add(&mut self, number: usize, grads: GradientsParams) {
        let index = number % self.models.len();
        self.sums[index].accumulate(self.models[index], grads);
    }

    /// All gradients summed, on the first device.
    pub(crate) fn on_first(self) -> GradientsParams {
        let first = self.models[0];
        let device = first.embed_tokens.weight.device().inner();
        let mut sums = self.sums.into_iter();
        let mut total = sums.next().expect("a step has a model");
        for mut sum in sums {
            total.accumulate(first, sum.grads().to_device(&device, first));
        }
        total.grads()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use model::config::ModelConfig;

    use super::*;

    struct Doubled;

    impl ModuleMapper for Doubled {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|weight| (weight * 2.0).detach().require_grad())
        }
    }

    /// Loads move a bias, so that no gradient tells of it.
    #[test]
    fn copies_follow_weights_and_biases() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/model");
        let mut config = ModelConfig::load(&folder.join("debug-moe.json")).unwrap();
        let experts = config.experts.as_mut().unwrap();
        experts.has_score_correction_bias = true;
        let (num_experts, layer) = (experts.num_experts as u64, config.num_hidden_layers - 1);
        let device = Device::flex().autodiff();
        let model = CausalLm::new(&config, 1, &device);
        let mut replicas = Replicas::new(&model, &[Device::flex()]);

        let loads = vec![(layer, (1..=num_experts).collect())];
        let learned = model.map(&mut Doubled).with_moved_biases(&loads, 0.5);
        replicas.follow(&learned);
        let copy = &replicas.copies[0];
        let parts = |model: &CausalLm| {
            let gate = &model.layers[layer].mlp.sparse().unwrap().gate;
            let bias = gate.e_score_correction_bias.as_ref().unwrap();
            (
                model.embed_tokens.weight.val().into_data(),
                bias.val().into_data(),
            )
        };
        assert_eq!(parts(copy), parts(&learned));
        assert_ne!(parts(copy).1, parts(&CausalLm::new(&config, 1, &device)).1);
        assert!(copy.embed_tokens.weight.is_require_grad());
    }
}
