//! Noise on a router's logits in training, so that experts it does not favour are tried.
//!
//! Source: Shazeer et al. 2017, arXiv:1701.06538, eq. 4, with one standard deviation for all
//! experts instead of a trained one for each.

use burn::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::causal_lm::CausalLm;
use crate::init::draw_normal;
use crate::training_pass::TrainingPass;

/// Draws that follow from a seed, a router and the number of the pass.
#[derive(Debug, Clone)]
pub(super) struct RouterNoise {
    std: f64,
    seed: u64,
    layer: u64,
    pass: TrainingPass,
}

impl RouterNoise {
    /// The logits with noise, while a training pass is under way.
    pub(super) fn added_to(&self, logits: Tensor<2>) -> Tensor<2> {
        let Some(pass) = self.pass.number() else {
            return logits;
        };
        let mut key = [0; 32];
        for (part, number) in key.chunks_exact_mut(8).zip([self.seed, self.layer, pass]) {
            part.copy_from_slice(&number.to_le_bytes());
        }
        let dims = logits.dims();
        let mut rng = ChaCha8Rng::from_seed(key);
        let noise = draw_normal(&mut rng, dims[0] * dims[1], self.std);
        let noise = Tensor::<2>::from_data(TensorData::new(noise, dims), &logits.device()); // [N, E]
        logits + noise
    }
}

impl CausalLm {
    /// The model with noise of this standard deviation on its routers' logits, drawn anew in each
    /// pass that [`CausalLm::training_pass`] begins and absent outside of one.
    #[must_use]
    pub fn with_router_noise(mut self, std: f64, seed: u64) -> Self {
        let pass = self.training_pass.clone();
        for (layer, decoder) in (0..).zip(&mut self.layers) {
            if let Some(experts) = decoder.mlp.sparse_mut() {
                experts.gate.noise = (std > 0.0).then(|| RouterNoise {
                    std,
                    seed,
                    layer,
                    pass: pass.clone(),
                });
            }
        }
        self
    }
}
