//! Low-rank adapters: a frozen model learns through small matrices beside its own.
//!
//! Source: Hu et al. 2021, arXiv:2106.09685, eq. 3. Burn's own adapters compose `W + s·A·B` before
//! the product and so keep a dense weight and its gradient per projection; here the two small
//! products are added to the large one, and nothing of a weight's size is ever allocated.
//!
//! Axis letters: `I` inputs, `O` outputs, `R` rank.

mod dropout;
mod peft;

use burn::module::{Module, Param, ParamId};
use burn::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use self::dropout::Dropout;
pub use self::peft::{AdapterError, load_adapter, save_adapter};
use crate::causal_lm::CausalLm;
use crate::config::ModelConfig;
use crate::feed_forward::FeedForward;
use crate::kernels;
use crate::linear::Linear;
use crate::params::path_hash;

/// The projections of a layer's attention that adapters may stand beside.
const ATTENTION: [&str; 4] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
];
/// Those of its feed-forward networks.
const FEED_FORWARD: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

/// Which adapters a model gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// Width of the adapters.
    pub rank: usize,
    /// The adapters' output is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Share of the adapters' inputs that is left out in training.
    pub dropout: f64,
    /// Names of projections, such as `q_proj`, or patterns over their paths, such as
    /// `layers.*.mlp.*`.
    pub target_modules: Vec<String>,
}

/// Why adapters cannot be attached.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum LoraError {
    /// The adapters would have no width.
    #[error("the rank of the adapters is 0, expected at least 1")]
    NoRank,
    /// A target is no pattern.
    #[error("`{target}` is not a valid pattern")]
    Pattern {
        /// Target as asked for.
        target: String,
    },
    /// A target stands for no projection of the model.
    #[error(
        "no projection is called `{target}`, expected one of {}, mlp.{}",
        ATTENTION.join(", "),
        FEED_FORWARD.join(", mlp.")
    )]
    NoSuchTarget {
        /// Target as asked for.
        target: String,
    },
}

/// Two small matrices beside a large one.
#[derive(Module, Debug)]
pub struct LoraAdapter {
    /// `[I, R]`.
    pub lora_a: Param<Tensor<2>>,
    /// `[R, O]`.
    pub lora_b: Param<Tensor<2>>,
    /// What their product is multiplied by.
    pub scale: f64,
    #[module(skip)]
    dropout: Option<Dropout>,
}

impl LoraAdapter {
    /// `scale · (x · A · B)`.
    ///
    /// # Shapes
    ///
    /// - `x`: `[.., I]`
    /// - returns: `[.., O]`
    ///
    /// # Panics
    ///
    /// If the last axis is not `I` long.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let x = match &self.dropout {
            Some(dropout) => dropout.apply(x),
            None => x,
        };
        let narrow = kernels::linear(x, self.lora_a.val()); // [.., R]
        kernels::linear(narrow, self.lora_b.val()).mul_scalar(self.scale) // [.., O]
    }

    /// `scale · A · B`, what merging adds to the large matrix.
    fn delta(&self) -> Tensor<2> {
        let product = self.lora_a.val().matmul(self.lora_b.val()); // [I, O]
        product.mul_scalar(self.scale)
    }
}

impl LoraConfig {
    /// Whether a projection gets an adapter: PEFT's rule, a path that ends with the name, or a
    /// pattern that matches the whole path.
    fn matches(&self, path: &str) -> Result<bool, LoraError> {
        for target in &self.target_modules {
            if matches_target(target, path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Refuses a target that stands for none of a model's projections.
    fn check_targets(&self, paths: &[String]) -> Result<(), LoraError> {
        for target in &self.target_modules {
            let mut is_there = false;
            for path in paths {
                is_there |= matches_target(target, path)?;
            }
            if !is_there {
                return Err(LoraError::NoSuchTarget {
                    target: target.clone(),
                });
            }
        }
        Ok(())
    }
}

fn matches_target(target: &str, path: &str) -> Result<bool, LoraError> {
    if target.contains(['*', '?', '[']) {
        let pattern = glob::Pattern::new(target).map_err(|_| LoraError::Pattern {
            target: target.to_owned(),
        })?;
        return Ok(pattern.matches(path));
    }
    let head = path.strip_suffix(target);
    Ok(head.is_some_and(|head| head.is_empty() || head.ends_with('.')))
}

impl CausalLm {
    /// The model with fresh adapters on the projections that are asked for, everything else frozen.
    ///
    /// `A` is drawn as PEFT draws it (Kaiming, uniform in ±1/√I), the same for the same seed; `B`
    /// is zero, so that the model answers as before.
    ///
    /// # Errors
    ///
    /// A rank of 0, or a target that is no projection.
    pub fn with_adapters(self, config: &LoraConfig, seed: u64) -> Result<Self, LoraError> {
        if config.rank == 0 {
            return Err(LoraError::NoRank);
        }
        let device = self.embed_tokens.weight.device();
        let mut model = self.no_grad();
        let paths: Vec<String> = model.projections_mut().map(|(path, _)| path).collect();
        config.check_targets(&paths)?;
        let pass = model.training_pass.clone();
        for (path, linear) in model.projections_mut() {
            if config.matches(&path)? {
                let [inputs, outputs] = linear.weight.dims();
                let dropout = Dropout::new(config.dropout, &path, seed, &pass);
                let values = draw_kaiming(inputs, config.rank, seed, &path);
                let a = Tensor::from_data(TensorData::new(values, [inputs, config.rank]), &device);
                let b = Tensor::zeros([config.rank, outputs], &device);
                // Ids by path, as those of all other parameters.
                let id = |matrix| ParamId::from(path_hash(&format!("{path}.{matrix}")));
                linear.adapters.push(LoraAdapter {
                    lora_a: Param::initialized(id("lora_a"), a).set_require_grad(true), // [I, R]
                    lora_b: Param::initialized(id("lora_b"), b).set_require_grad(true), // [R, O]
                    scale: config.alpha / config.rank as f64,
                    dropout,
                });
            }
        }
        Ok(model)
    }

    /// The model with every adapter added to the weight it stands beside, and no adapter left.
    #[must_use]
    pub fn merged(mut self) -> Self {
        for (_, linear) in self.projections_mut() {
            let adapters = std::mem::take(&mut linear.adapters);
            if adapters.is_empty() {
                continue;
            }
            let mut weight = linear.weight.val().detach();
            for adapter in adapters {
                weight = weight + adapter.delta().detach();
            }
            linear.weight = Param::initialized(linear.weight.id, weight);
        }
        self
    }

    /// Whether adapters stand beside any weight.
    pub fn has_adapters(&self) -> bool {
        let adapted = |linear: &Linear| !linear.adapters.is_empty();
        self.layers.iter().any(|layer| {
            let attention = &layer.self_attn;
            let projections = [
                &attention.q_proj,
                &attention.k_proj,
                &attention.v_proj,
                &attention.o_proj,
            ];
            let networks = layer.mlp.networks();
            projections
                .into_iter()
                .chain(networks.flat_map(FeedForward::projections))
                .any(adapted)
        })
    }

    /// Every projection of every layer with its path.
    fn projections_mut(&mut self) -> impl Iterator<Item = (String, &mut Linear)> {
        self.layers
            .iter_mut()
            .enumerate()
            .flat_map(|(index, layer)| {
                let attention = &mut layer.self_attn;
                let linears = [
                    &mut attention.q_proj,
                    &mut attention.k_proj,
                    &mut attention.v_proj,
                    &mut attention.o_proj,
                ];
                ATTENTION
                    .map(str::to_owned)
                    .into_iter()
                    .zip(linears)
                    .chain(layer.mlp.projections_mut())
                    .map(move |(name, linear)| (format!("layers.{index}.{name}"), linear))
            })
    }
}

/// Number of parameters that adapters of a model of this shape have.
///
/// # Errors
///
/// A target that is no pattern, or no projection of the model.
pub fn num_adapter_params(model: &ModelConfig, config: &LoraConfig) -> Result<usize, LoraError> {
    let (paths, widths): (Vec<String>, Vec<usize>) = (0..model.num_hidden_layers)
        .flat_map(|layer| projection_widths(model, layer))
        .unzip();
    config.check_targets(&paths)?;
    let mut num_params = 0;
    for (path, width) in paths.iter().zip(widths) {
        if config.matches(path)? {
            num_params += config.rank * width;
        }
    }
    Ok(num_params)
}

/// Inputs and outputs together of every projection of a layer, with its path.
fn projection_widths(model: &ModelConfig, layer: usize) -> Vec<(String, usize)> {
    let hidden = model.hidden_size;
    let (query, key_value) = (model.query_width(), model.key_value_width());
    let widths = [
        hidden + query,
        hidden + key_value,
        hidden + key_value,
        query + hidden,
    ];
    let attention = ATTENTION.map(|name| format!("layers.{layer}.{name}"));
    let mut all: Vec<_> = attention.into_iter().zip(widths).collect();
    let mut add_network = |path: &str, width: usize| {
        for name in FEED_FORWARD {
            all.push((format!("layers.{layer}.{path}.{name}"), hidden + width));
        }
    };
    match model.experts_of(layer) {
        Some(experts) => {
            for expert in 0..experts.num_experts {
                add_network(
                    &format!("mlp.experts.{expert}"),
                    experts.moe_intermediate_size,
                );
            }
            if experts.num_shared_experts > 0 {
                add_network("mlp.shared_experts", experts.shared_intermediate_size());
            }
        }
        None => add_network("mlp", model.intermediate_size),
    }
    all
}

/// Uniform draws in ±1/√`inputs`, from a stream of the path's own.
fn draw_kaiming(inputs: usize, rank: usize, seed: u64, path: &str) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(path_hash(&format!("{path}.lora_a")));
    let bound = 1.0 / (inputs as f64).sqrt();
    let unit = 1.0 / (1_u64 << 53) as f64;
    (0..inputs * rank)
        .map(|_| ((2.0 * (rng.next_u64() >> 11) as f64 * unit - 1.0) * bound) as f32)
        .collect()
}
